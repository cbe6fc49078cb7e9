"""Random keys. Each is derived from (seed, stream name, counters); none is part of the state.

The same arguments give the same key on every device and host, and after a resume. threefry is named
explicitly, because the faster generators give other bits under vmap.
"""

import zlib

import jax
from jax.typing import ArrayLike


def stream(seed: ArrayLike, name: str, *counters: ArrayLike) -> jax.Array:
    """Returns the key of a named stream at the given counters.

    Args:
      seed: uint32 scalar; may be traced.
      name: the stream, such as 'dropout'; hashed by CRC-32, which is the same everywhere.
      *counters: integers that are folded in one by one, such as the step; may be traced.
    """
    key = jax.random.key(seed, impl='threefry2x32')
    for counter in (zlib.crc32(name.encode()), *counters):
        key = jax.random.fold_in(key, counter)
    return key


def for_each(seed: ArrayLike, name: str, visit: jax.Array, example: jax.Array) -> jax.Array:
    """Returns one key for each example of a batch; it does not depend on the batch.

    Args:
      seed, name: as in `stream`.
      visit: int32 [batch], how often the example was drawn before (the epoch, if it is drawn once
        an epoch).
      example: int32 [batch], its index in the data set.
    """
    key = stream(seed, name)
    fold = jax.random.fold_in
    return jax.vmap(lambda number, index: fold(fold(key, number), index))(visit, example)
