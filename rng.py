"""Random keys, derived and never carried: stream(seed, name, t, ...) is all there is.

The same four numbers give the same key on every device, host and resume. threefry is named
outright, because the faster generators give other bits under vmap.
"""

import zlib

import jax


def stream(seed, name: str, *counters) -> jax.Array:
    """Returns the key of a named stream at the given counters.

    Args:
      seed: uint32 scalar; may be traced.
      name: the stream, such as 'dropout'; hashed by CRC-32, which is stable everywhere.
      *counters: integers folded in one by one, such as the step; may be traced.
    """
    key = jax.random.key(seed, impl='threefry2x32')
    for counter in (zlib.crc32(name.encode()), *counters):
        key = jax.random.fold_in(key, counter)
    return key


def for_each(seed, name: str, visit, example) -> jax.Array:
    """Returns one key for each example of a batch, which knows nothing of the batch.

    Args:
      seed, name: as in `stream`.
      visit: int32 [batch], how often the example came before (the epoch, where it comes once an
        epoch).
      example: int32 [batch], its index in the data set.
    """
    key = stream(seed, name)
    fold = jax.random.fold_in
    return jax.vmap(lambda number, index: fold(fold(key, number), index))(visit, example)
