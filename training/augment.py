"""Augmentation on the device: one affine map per example, keyed by (seed, epoch, example).

The key does not know the batch, the device or the step, so an example's picture in an epoch is the
same however the run is spread, stopped and resumed.
"""

import jax
import jax.numpy as jnp

from training import rng


def affine(images, example, epoch, seed, shift, rotate, scale):
    """Shifts, rotates and scales each image about its centre, with zeros around it.

    Args:
      images: float32 [batch, height, width, channels].
      example: int32 [batch], each image's index in its data set.
      epoch: int32 [batch].
      seed: uint32 scalar.
      shift: largest shift along each axis, in pixels.
      rotate: largest rotation either way, in degrees.
      scale: largest relative change of size either way: the factor's logarithm is uniform in
        log(1 + scale) either side of zero.

    Returns:
      float32, same shape. Sampling is bilinear; all four draws are uniform.
    """
    key = rng.stream(seed, 'augment')
    draw = jax.vmap(
        lambda e, i: jax.random.uniform(
            jax.random.fold_in(jax.random.fold_in(key, e), i), (4,), minval=-1.0
        )
    )(epoch, example)
    angle = draw[:, 0] * jnp.deg2rad(rotate)
    zoom = jnp.exp(-draw[:, 1] * jnp.log1p(scale))
    return jax.vmap(_sample)(images, angle, zoom, draw[:, 2:] * shift)


def _sample(image, angle, zoom, shift):
    """Bilinear sample of one image at the source of each target pixel."""
    height, width, channels = image.shape
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    y = jnp.arange(height)[:, None] - centre_y - shift[0]
    x = jnp.arange(width)[None, :] - centre_x - shift[1]
    cos, sin = zoom * jnp.cos(angle), zoom * jnp.sin(angle)
    source_y = cos * y + sin * x + centre_y
    source_x = cos * x - sin * y + centre_x
    # One row and column of zeros on each side: a sample further out reads only those.
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0))).reshape(-1, channels)
    source_y = jnp.clip(source_y + 1, 0.0, height + 1.0)
    source_x = jnp.clip(source_x + 1, 0.0, width + 1.0)
    top = jnp.minimum(jnp.floor(source_y).astype(jnp.int32), height)
    left = jnp.minimum(jnp.floor(source_x).astype(jnp.int32), width)
    fy, fx = (source_y - top)[..., None], (source_x - left)[..., None]
    corner = top * (width + 2) + left

    def pixel(offset):
        return padded.at[corner + offset].get(mode='promise_in_bounds')

    upper = pixel(0) * (1 - fx) + pixel(1) * fx
    lower = pixel(width + 2) * (1 - fx) + pixel(width + 3) * fx
    return upper * (1 - fy) + lower * fy
