"""What several processes have to agree on; with one process all of it is trivial.

A process that stops alone leaves the others waiting in their next collective for minutes. So what
may fail on one of them is called through `on_each` or `on_first`: then all of them stop.
"""

import json
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from distributed import watchdog
from errors import UserError


def is_first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def on_each(function: Callable[[], Any]) -> Any:
    """Calls `function` on every process and returns its result there.

    Raises:
      UserError: on every process if the function raised one on some; there, what it raised.
      Exception: what else it raised here; the other processes end.
    """
    result, error = None, None
    try:
        result = function()
    except UserError as caught:
        error = caught
    # Anything else is told by watchdog.telling, while the others wait here.
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


def attempt(function: Callable[[], Any]) -> tuple[Any, dict[int, str]]:
    """Calls `function` on every process; nobody stops for a user's mistake on one of them.

    Returns:
      (what it returned here, or None; {process: what its UserError said}, the same everywhere).

    Raises:
      Exception: what else the function raised here; the other processes end.
    """

    def call():
        try:
            return function(), None
        except UserError as error:
            return None, str(error)

    result, problem = on_each(call)
    return result, {n: text for n, text in enumerate(everyone(problem)) if text is not None}


def everyone(value: Any) -> list:
    """Returns every process's value, in their order; a value is what JSON can say."""
    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    text = json.dumps(value).encode()
    room = np.full(_gather(np.int32(len(text))).max(), ord(' '), np.uint8)
    room[: len(text)] = np.frombuffer(text, np.uint8)
    with watchdog.waiting():
        rows = np.asarray(multihost_utils.process_allgather(room))
    return [json.loads(bytes(row)) for row in rows]


def check_sum(devices: list) -> None:
    """Checks that a sum over all devices of all processes comes out right on every one of them.

    Args:
      devices: of all processes, equally many of each.

    Raises:
      UserError: it does not; names the device.
    """
    mesh, parted = Mesh(np.array(devices), ('device',)), PartitionSpec('device')
    here = jax.process_index()
    own = [n for n, device in enumerate(devices, 1) if device.process_index == here]
    numbers = jax.make_array_from_process_local_data(
        NamedSharding(mesh, parted), np.array(own, np.int32)
    )
    # Each device keeps a result of its own, to be looked at.
    add = jax.shard_map(
        lambda number: jax.lax.psum(number, 'device'), mesh=mesh, in_specs=parted, out_specs=parted
    )
    expected = len(devices) * (len(devices) + 1) // 2
    with watchdog.waiting('a sum over all devices'):
        found_on = [
            (shard.device, int(shard.data[0])) for shard in jax.jit(add)(numbers).addressable_shards
        ]
    for device, found in found_on:
        if found != expected:
            raise UserError(
                f'The sum of the numbers of {len(devices)} devices is {found} on {device} '
                f'and not {expected}: the connection between them does not work as it should.'
            )


def leave_others(error: UserError) -> None:
    """Ends this process at once if it is one of several; its error is of it alone.

    The others wait for it in a collective; the watchdog tells them.
    """
    if jax.process_count() > 1:
        watchdog.leave(f'Process {jax.process_index()}: {error}', 2)


def meet(place: str) -> None:
    """Returns when all processes have come to a place, so that what follows waits for none."""
    _gather(np.int32(0), place)


def check_same(text: str, what: str) -> None:
    """Checks that every process has the same text.

    Raises:
      UserError: they differ; says in `what`.
    """
    if len(set(_gather(np.uint32(zlib.crc32(text.encode()))).tolist())) > 1:
        raise UserError(f'The processes have different {what}: start all of them alike.')


def gathered(array: np.ndarray) -> np.ndarray:
    """Returns the arrays [n, ...] of all processes one after the other; n may differ.

    Every process has to call it, with arrays that differ in n alone.
    """
    if jax.process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    counts = _gather(np.int32(len(array)))
    # The collective wants equal shapes, and bytes travel as they are whatever the type.
    padded = np.zeros((counts.max(), *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    with watchdog.waiting():
        everyone = np.asarray(multihost_utils.process_allgather(padded.view(np.uint8)))
    blocks = everyone.reshape(len(counts), *padded.shape[:-1], -1).view(array.dtype)
    blocks = blocks.reshape(len(counts), *padded.shape)
    return np.concatenate([block[:n] for block, n in zip(blocks, counts, strict=True)])


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


def _gather(number: np.generic, place: str | None = None) -> np.ndarray:
    """Every process's number, in their order; see watchdog.waiting for the place."""
    if jax.process_count() == 1:
        return np.array([number])
    from jax.experimental import multihost_utils

    with watchdog.waiting(place):
        return np.asarray(multihost_utils.process_allgather(number)).reshape(-1)
