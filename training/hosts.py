"""What several processes have to agree on; with one process all of it is trivial."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from errors import UserError


def is_first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def on_first(function: Callable[[], Any]) -> Any:
    """Calls `function` on process 0 only; returns its result there and None elsewhere.

    Raises:
      UserError: on every process if the function raised it on the first: none is left waiting.
    """
    result, error = None, None
    if is_first():
        try:
            result = function()
        except UserError as caught:
            error = caught
    if jax.process_count() > 1:
        failed = bool(broadcast(np.int32(error is not None)))
        if failed and error is None:
            raise UserError('Process 0 has stopped; its message says why.')
    if error is not None:
        raise error
    return result


def broadcast(tree: Any) -> Any:
    """Returns process 0's tree of host arrays on every process."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))
