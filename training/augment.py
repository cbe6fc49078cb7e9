"""Augmentation of single images on the device, keyed by (seed, epoch, example).

The key does not know the batch, the device or the step, so an example's picture in an epoch is the
same however the run is spread, stopped and resumed. What takes two images is in mixing.py.
"""

import jax
import jax.numpy as jnp

from training import rng

# Of the box that is erased: share of the area, height over width, and how often it is drawn anew.
AREA, RATIO, ATTEMPTS = (0.02, 1 / 3), (0.3, 1 / 0.3), 10


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
    keys = rng.for_each(seed, 'augment', epoch, example)
    draw = jax.vmap(lambda key: jax.random.uniform(key, (4,), minval=-1.0))(keys)
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


def crop(images, example, epoch, seed, padding):
    """Crops each image at random out of itself with `padding` pixels of zeros all round.

    He et al. 2015, "Deep residual learning for image recognition", section 4.2. The size stays, so
    this is a shift by whole pixels, each of -padding .. padding equally likely along each axis.

    Args:
      images: float32 [batch, height, width, channels].
      example, epoch, seed: as in `affine`.
      padding: pixels; may be traced.
    """
    most = jnp.asarray(padding, jnp.int32)
    keys = rng.for_each(seed, 'crop', epoch, example)
    shift = jax.vmap(lambda key: jax.random.randint(key, (2,), -most, most + 1))(keys)
    return jax.vmap(_shifted)(images, shift)


def _shifted(image, shift):
    """The window of one image that starts at `shift`, with zeros outside the image."""
    for axis in (0, 1):
        size = image.shape[axis]
        source = jnp.arange(size) + shift[axis]
        inside = jnp.expand_dims((source >= 0) & (source < size), (1 - axis, 2))
        image = jnp.where(inside, jnp.take(image, source, axis, mode='clip'), 0.0)
    return image


def flip(images, example, epoch, seed, probability):
    """Mirrors each image left to right with the given probability; arguments as in `affine`."""
    keys = rng.for_each(seed, 'flip', epoch, example)
    mirrored = jax.vmap(jax.random.uniform)(keys) < probability
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def erase(images, example, epoch, seed, probability, noise: bool):
    """Erases one box of each image with the given probability.

    Zhong et al. 2017, "Random erasing data augmentation", for standardised images: the box gets
    noise of the standard normal distribution, pixel by pixel, or zeros, which is the mean colour.

    Args:
      images: float32 [batch, height, width, channels].
      example, epoch, seed: as in `affine`.
      probability: of erasing; may be traced.
      noise: noise, not zeros.
    """
    _, height, width, _ = images.shape

    def one(key, image):
        key, noise_key = jax.random.split(key)
        draws = jax.random.uniform(key, (1 + 4 * ATTEMPTS,))
        top, left, tall, wide = erased_box(draws[1:].reshape(ATTEMPTS, 4), height, width)
        y, x = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
        inside = (y >= top) & (y < top + tall) & (x >= left) & (x < left + wide)
        inside = (inside & (draws[0] < probability))[:, :, None]
        return jnp.where(inside, jax.random.normal(noise_key, image.shape) if noise else 0.0, image)

    return jax.vmap(one)(rng.for_each(seed, 'erase', epoch, example), images)


def erased_box(draws, height, width):
    """Returns (top, left, height, width) of the box that is erased, in whole pixels.

    The share of the area is uniform in AREA and the logarithm of height over width in that of
    RATIO. A box that is larger than the image is drawn anew; after ATTEMPTS such boxes the size is
    0. Its place is uniform among those where it is whole.

    Args:
      draws: float32 [attempts, 4] in [0, 1): area, ratio, vertical and horizontal place.
      height, width: of the image; may be traced.
    """
    area = (AREA[0] + (AREA[1] - AREA[0]) * draws[:, 0]) * height * width
    low, high = jnp.log(jnp.array(RATIO))
    root = jnp.exp((low + (high - low) * draws[:, 1]) / 2)
    tall = jnp.round(jnp.sqrt(area) * root).astype(jnp.int32)
    wide = jnp.round(jnp.sqrt(area) / root).astype(jnp.int32)
    fits = (tall <= height) & (wide <= width)
    first = jnp.argmax(fits)
    tall, wide = (jnp.where(fits[first], size[first], 0) for size in (tall, wide))
    top = jnp.floor(draws[first, 2] * (height - tall + 1)).astype(jnp.int32)
    left = jnp.floor(draws[first, 3] * (width - wide + 1)).astype(jnp.int32)
    return top, left, tall, wide
