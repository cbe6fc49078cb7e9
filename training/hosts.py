"""What several processes have to agree on; with one process all of it is trivial.

A process that stops alone leaves the others waiting in their next collective for minutes. So what
may fail on one of them is called through `on_each` or `on_first`: then all of them stop.
"""

import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from errors import UserError
from training import watchdog


def is_first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def on_each(function: Callable[[], Any]) -> Any:
    """Calls `function` on every process and returns its result there.

    Raises:
      UserError: on every process if the function failed on one; there, what it raised.
    """
    result, error = None, None
    try:
        result = function()
    except Exception as caught:
        error = caught
    failed = np.flatnonzero(_gather(np.int32(error is not None)))
    if error is not None:
        raise error
    if len(failed):
        raise UserError(f'Process {failed[0]} has stopped; its message says why.')
    return result


def on_first(function: Callable[[], Any]) -> Any:
    """Calls `function` on process 0 only; returns its result there and None elsewhere.

    Raises:
      UserError: on every process if the function failed on the first; there, what it raised.
    """
    return on_each(lambda: function() if is_first() else None)


def leave_others(error: UserError) -> None:
    """Ends this process at once if it is one of several; its error is of it alone.

    The others wait for it in a collective; the watchdog tells them.
    """
    if jax.process_count() > 1:
        watchdog.leave(f'Process {jax.process_index()}: {error}', 2)


def check_same(text: str, what: str) -> None:
    """Checks that every process has the same text.

    Raises:
      UserError: they differ; says in `what`.
    """
    if len(set(_gather(np.uint32(zlib.crc32(text.encode()))).tolist())) > 1:
        raise UserError(f'The processes have different {what}: start all of them alike.')


def broadcast(tree: Any) -> Any:
    """Returns process 0's tree of host arrays on every process, bit for bit."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(_broadcast, tree)


def _broadcast(array: np.ndarray) -> np.ndarray:
    from jax.experimental import multihost_utils

    # JAX adds zeros to it, as whole numbers here: -0.0 + 0.0 would be 0.0.
    array = np.asarray(array)
    word = np.uint32 if array.dtype.itemsize == 4 else np.uint8
    words = np.ascontiguousarray(array).reshape(-1).view(word)
    with watchdog.waiting():
        words = np.asarray(multihost_utils.broadcast_one_to_all(words)).astype(word)
    return words.view(array.dtype).reshape(array.shape)


def _gather(number: np.generic) -> np.ndarray:
    """Every process's number, in their order."""
    if jax.process_count() == 1:
        return np.array([number])
    from jax.experimental import multihost_utils

    with watchdog.waiting():
        return np.asarray(multihost_utils.process_allgather(number)).reshape(-1)
