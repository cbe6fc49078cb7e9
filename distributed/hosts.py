"""Agreement between the processes of a run; with one process, all of it is trivial.

A process that stops alone leaves the others waiting in their next collective for minutes. Whatever
may fail on one process is therefore called through `on_each` or `on_first`, which stop all of them.
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
    """Whether this is process 0, the one that writes files and prints."""
    return jax.process_index() == 0


def on_each(function: Callable[[], Any]) -> Any:
    """Calls `function` on every process and returns its result there.

    Raises:
      UserError: `function` raised one on some process. It is raised on every process: the original
        where it occurred, elsewhere one that names the process.
      Exception: any other error that `function` raised here; the other processes end.
    """
    result, error = None, None
    try:
        result = function()
    except UserError as caught:
        error = caught
    # Any other exception leaves the function here: watchdog.reporting_errors sends it to the other
    # processes, which are waiting in the gather.
    failed = np.flatnonzero(_gather_number(np.int32(error is not None)))
    if error is not None:
        raise error
    if len(failed):
        raise UserError(f'Process {failed[0]} has stopped; its message says why.')
    return result


def on_first(function: Callable[[], Any]) -> Any:
    """Calls `function` on process 0 only; returns its result there and None elsewhere.

    Raises:
      UserError: on every process if `function` raised one; the original on process 0.
    """
    return on_each(lambda: function() if is_first() else None)


def attempt(function: Callable[[], Any]) -> tuple[Any, dict[int, str]]:
    """Calls `function` on every process; a UserError on one of them stops none.

    Returns:
      (the result here, or None; {process: message of its UserError}, the same on all processes).

    Raises:
      Exception: any other error that `function` raised here; the other processes end.
    """

    def call() -> tuple[Any, str | None]:
        try:
            return function(), None
        except UserError as error:
            return None, str(error)

    result, message = on_each(call)
    return result, {n: text for n, text in enumerate(gather(message)) if text is not None}


def gather(value: Any) -> list:
    """Returns the values of all processes in the order of their numbers.

    Args:
      value: this process's value, of types that JSON can represent.
    """
    if jax.process_count() == 1:
        return [value]
    from jax.experimental import multihost_utils

    # Arrays must have the same shape everywhere, so texts are padded to the longest one.
    text = json.dumps(value).encode()
    padded = np.full(_gather_number(np.int32(len(text))).max(), ord(' '), np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    with watchdog.waiting():
        rows = np.asarray(multihost_utils.process_allgather(padded))
    return [json.loads(bytes(row)) for row in rows]


def check_sum(devices: list[jax.Device]) -> None:
    """Checks that a sum over all devices gives the right result on every device of this process.

    Args:
      devices: the devices of all processes, the same number for each.

    Raises:
      UserError: a result is wrong; names the device.
    """
    mesh, sharded = Mesh(np.array(devices), ('device',)), PartitionSpec('device')
    here = jax.process_index()
    own = [n for n, device in enumerate(devices, 1) if device.process_index == here]
    numbers = jax.make_array_from_process_local_data(
        NamedSharding(mesh, sharded), np.array(own, np.int32)
    )
    # The output is sharded, not replicated, so that each device's own result can be checked.
    add = jax.shard_map(
        lambda number: jax.lax.psum(number, 'device'),
        mesh=mesh,
        in_specs=sharded,
        out_specs=sharded,
    )
    expected = len(devices) * (len(devices) + 1) // 2
    with watchdog.waiting('a sum over all devices'):
        sums = [
            (shard.device, int(shard.data[0])) for shard in jax.jit(add)(numbers).addressable_shards
        ]
    for device, value in sums:
        if value != expected:
            raise UserError(
                f'The sum of the numbers of {len(devices)} devices is {value} on {device} '
                f'instead of {expected}: the connection between the devices does not work.'
            )


def abort_others(error: UserError) -> None:
    """Ends this process and the others at once, if there are others; otherwise returns.

    It is for an error of this process alone while the others wait for it in a collective: the
    watchdog reports the error to them.
    """
    if jax.process_count() > 1:
        watchdog.abort(f'Process {jax.process_index()}: {error}', 2)


def barrier(name: str) -> None:
    """Waits until all processes have reached this point, so that what follows need not wait.

    Args:
      name: the point in the run, for the watchdog's messages, such as 'the end of step 12'.
    """
    _gather_number(np.int32(0), name)


def check_same(text: str, description: str) -> None:
    """Checks that every process has the same text.

    Args:
      text: compared by its checksum.
      description: names the text in the error message, such as 'configurations'.

    Raises:
      UserError: the texts differ.
    """
    checksum = np.uint32(zlib.crc32(text.encode()))
    if len(set(_gather_number(checksum).tolist())) > 1:
        raise UserError(
            f'The processes have different {description}: start all of them in the same way.'
        )


def concatenate(array: np.ndarray) -> np.ndarray:
    """Returns the arrays [n, ...] of all processes one after the other; n may differ.

    Every process has to call it, with arrays that differ in n alone.
    """
    if jax.process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    counts = _gather_number(np.int32(len(array)))
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

    # JAX broadcasts by adding zeros. The array travels as unsigned integers because in floating
    # point -0.0 + 0.0 would be 0.0.
    array = np.asarray(array)
    word = np.uint32 if array.dtype.itemsize == 4 else np.uint8
    words = np.ascontiguousarray(array).reshape(-1).view(word)
    with watchdog.waiting():
        words = np.asarray(multihost_utils.broadcast_one_to_all(words)).astype(word)
    return words.view(array.dtype).reshape(array.shape)


def _gather_number(number: np.generic, point: str | None = None) -> np.ndarray:
    """Returns the numbers of all processes, [processes]; `point` as in watchdog.waiting."""
    if jax.process_count() == 1:
        return np.array([number])
    from jax.experimental import multihost_utils

    with watchdog.waiting(point):
        return np.asarray(multihost_utils.process_allgather(number)).reshape(-1)
