"""Augmentation of single images on the device, keyed by (seed, epoch, example).

The key does not depend on the batch, the device or the step, so an example's picture in an epoch is
the same however the run is spread, stopped and resumed. What takes two images is in mixing.py.

All are functions of (images, batch, hyper), as augmentation/row.py describes them: images
float32 [batch, height, width, channels]; of the batch 'index' int32 [batch], each image's number in
its data set, and 'epoch' int32 [batch]; of the scalars 'seed' uint32 and the function's own, which
may be traced. Those that move pixels return (images, function that makes their matrices).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import rng
from data_sources import geometry
from errors import UserError
from tasks.task import Batch, Hyper

# Of the box that is erased: range of its fraction of the area, of height over width, and how often
# it is drawn.
AREA, RATIO, ATTEMPTS = (0.02, 1 / 3), (0.3, 1 / 0.3), 10
# Images, and a function without arguments that returns the matrices float32 [batch, 2, 3], or the
# place in the image of each pixel, float32 [batch, height, width, 2].
Moved = tuple[jax.Array, Callable[[], jax.Array]]


def keys(name: str, batch: Batch, hyper: Hyper) -> jax.Array:
    """Returns the keys [batch] of the examples for draws of a name."""
    return rng.for_each(hyper['seed'], name, batch['epoch'], batch['index'])


def affine(images: jax.Array, batch: Batch, hyper: Hyper) -> Moved:
    """Shifts, rotates and scales each image about its centre, with zeros around it.

    Sampling is bilinear; all four draws are uniform. Scalars:
      shift: largest shift along each axis, in pixels.
      rotate: largest rotation either way, in degrees.
      scale: largest relative change of size either way: the factor's logarithm is uniform in
        log(1 + scale) either side of zero.
    """
    own = keys('augment', batch, hyper)
    draw = jax.vmap(lambda key: jax.random.uniform(key, (4,), minval=-1.0))(own)
    angle = draw[:, 0] * jnp.deg2rad(hyper['rotate'])
    zoom = jnp.exp(-draw[:, 1] * jnp.log1p(hyper['scale']))
    shift = draw[:, 2:] * hyper['shift']

    def matrix(angle, zoom, shift):
        return geometry.rotation(angle, images.shape[1:3], zoom, shift, jnp)

    moved = jax.vmap(sampled)(images, angle, zoom, shift)
    return moved, lambda: jax.vmap(matrix)(angle, zoom, shift)


def sampled(image: jax.Array, angle: jax.Array, zoom: jax.Array, shift: jax.Array) -> jax.Array:
    """Returns one image turned, scaled and shifted: a bilinear sample at each pixel's source.

    Arguments as in data_sources.geometry.rotation.
    """
    height, width = image.shape[:2]
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    y = jnp.arange(height)[:, None] - centre_y - shift[0]
    x = jnp.arange(width)[None, :] - centre_x - shift[1]
    cos, sin = zoom * jnp.cos(angle), zoom * jnp.sin(angle)
    source_y = cos * y + sin * x + centre_y
    source_x = cos * x - sin * y + centre_x
    return sampled_at(image, source_y, source_x)


def sampled_at(image: jax.Array, source_y: jax.Array, source_x: jax.Array) -> jax.Array:
    """Returns bilinear samples [h, w, c] of one image at places float [h, w], with zeros around."""
    height, width, channels = image.shape
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


def crop(images: jax.Array, batch: Batch, hyper: Hyper) -> Moved:
    """Crops each image at random out of itself with hyper['crop'] pixels of zeros all round.

    He et al. 2015, "Deep residual learning for image recognition", section 4.2. The size stays, so
    this is a shift by whole pixels, at most so many either way, all equally likely along each axis.
    """
    most = jnp.asarray(hyper['crop'], jnp.int32)
    own = keys('crop', batch, hyper)
    shift = jax.vmap(lambda key: jax.random.randint(key, (2,), -most, most + 1))(own)
    matrix = jax.vmap(lambda move: geometry.translation(*move, jnp))
    return jax.vmap(_shifted)(images, shift), lambda: matrix(shift)


def _shifted(image: jax.Array, shift: jax.Array) -> jax.Array:
    """Returns the window of one image that starts at `shift`, with zeros outside the image."""
    for axis in (0, 1):
        size = image.shape[axis]
        source = jnp.arange(size) + shift[axis]
        inside = jnp.expand_dims((source >= 0) & (source < size), (1 - axis, 2))
        image = jnp.where(inside, jnp.take(image, source, axis, mode='clip'), 0.0)
    return image


def flip(images: jax.Array, batch: Batch, hyper: Hyper) -> Moved:
    """Mirrors each image left to right with probability hyper['flip']."""
    own = keys('flip', batch, hyper)
    mirrored = jax.vmap(jax.random.uniform)(own) < hyper['flip']
    moved = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    matrix = geometry.mirror(images.shape[2])
    return moved, lambda: jnp.where(mirrored[:, None, None], matrix, geometry.IDENTITY)


def quarter_turns(images: jax.Array, batch: Batch, hyper: Hyper) -> Moved:
    """Turns each image by 0, 90, 180 or 270 degrees with probability hyper['quarter_turns'].

    Raises:
      UserError: the images are not square.
    """
    height, width = images.shape[1:3]
    if height != width:
        raise UserError(
            f'config.augment.quarter_turns needs square images, and these have {width}x{height} '
            'pixels: leave it out.'
        )
    draws = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys('turns', batch, hyper))
    turned = draws[:, 0] < hyper['quarter_turns']
    turns = jnp.where(turned, jnp.floor(draws[:, 1] * 4).astype(jnp.int32), 0)

    def turn(image, number):
        return jax.lax.switch(number, [lambda x, k=k: jnp.rot90(x, k) for k in range(4)], image)

    matrices = jnp.asarray(geometry.quarter_turns(height), jnp.float32)
    return jax.vmap(turn)(images, turns), lambda: matrices[turns]


def elastic(images: jax.Array, batch: Batch, hyper: Hyper, elastic_grid: int) -> Moved:
    """Moves each pixel by a smooth random field, whose deviation is hyper['elastic'] pixels.

    Ronneberger, Fischer and Brox 2015, "U-Net", section 3.1: displacements are drawn on a coarse
    grid, every `elastic_grid` pixels, and interpolated, here by cubic B-splines. Pixels from
    outside are zeros.

    Returns:
      (images, function that returns the place of each pixel [batch, height, width, 2]).
    """
    height, width = images.shape[1:3]
    rows, columns = (_spline_weights(size, elastic_grid) for size in (height, width))
    shape = (rows.shape[1], columns.shape[1], 2)
    own = keys('elastic', batch, hyper)
    draws = jax.vmap(lambda key: jax.random.normal(key, shape))(own)

    def interpolated(points):
        return jnp.einsum('yi,ijk,xj->yxk', rows, points, columns, precision='highest')

    # One by one: the bits of a product of all depend on how many there are.
    field = jax.lax.map(interpolated, draws)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing='ij'), -1)
    places = grid + hyper['elastic'] * field
    return jax.vmap(sampled_at)(images, places[..., 0], places[..., 1]), lambda: places


def _spline_weights(size: int, grid: int) -> np.ndarray:
    """Returns the weights float32 [size, points] of cubic B-splines around points `grid` apart.

    They are scaled so that the sum of independent draws keeps their deviation in the mean.
    """
    points = -(-size // grid) + 3
    distance = np.abs(np.arange(size)[:, None] / grid - (np.arange(points) - 1))
    near = (4 - 6 * distance**2 + 3 * distance**3) / 6
    weights = np.where(distance < 1, near, np.clip(2 - distance, 0, None) ** 3 / 6)
    return (weights / np.sqrt((weights**2).sum(1).mean())).astype(np.float32)


def light(images: jax.Array, batch: Batch, hyper: Hyper) -> jax.Array:
    """Changes the contrast of each image about its mean, and its brightness, by random factors.

    The factors are uniform in 1 +- hyper['contrast'] and 1 +- hyper['brightness']; values stay in
    [0, 1].
    """
    draw = jax.vmap(lambda key: jax.random.uniform(key, (2,), minval=-1.0))
    draws = draw(keys('light', batch, hyper))[:, :, None, None, None]
    # Of whole numbers: the bits of a sum of fractions depend on how many images there are.
    levels = jnp.rint(255 * images).astype(jnp.int32).sum((1, 2, 3), keepdims=True)
    mean = levels / (255 * math.prod(images.shape[1:]))
    images = mean + (images - mean) * (1 + hyper['contrast'] * draws[:, 0])
    return jnp.clip(images * (1 + hyper['brightness'] * draws[:, 1]), 0.0, 1.0)


def erase(images: jax.Array, batch: Batch, hyper: Hyper, erase_mode: str) -> jax.Array:
    """Erases one box of each image with probability hyper['erase'].

    Zhong et al. 2017, "Random erasing data augmentation", for normalized images.

    Args:
      images, batch, hyper: see the head of this file.
      erase_mode: what the box gets: 'noise' of the standard normal distribution, pixel by pixel, or
        'zero', the mean colour.
    """
    _, height, width, _ = images.shape
    noise = erase_mode == 'noise'

    def one(key, image):
        key, noise_key = jax.random.split(key)
        draws = jax.random.uniform(key, (1 + 4 * ATTEMPTS,))
        top, left, tall, wide = erased_box(draws[1:].reshape(ATTEMPTS, 4), height, width)
        y, x = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
        inside = (y >= top) & (y < top + tall) & (x >= left) & (x < left + wide)
        inside = (inside & (draws[0] < hyper['erase']))[:, :, None]
        return jnp.where(inside, jax.random.normal(noise_key, image.shape) if noise else 0.0, image)

    return jax.vmap(one)(keys('erase', batch, hyper), images)


def erased_box(draws: jax.Array, height: int, width: int) -> tuple[jax.Array, ...]:
    """Returns (top, left, height, width) of the box that is erased, in whole pixels.

    Its fraction of the area is uniform in AREA and the logarithm of height over width in that of
    RATIO. A box that is larger than the image is drawn again; after ATTEMPTS such boxes the size is
    0. Its position is uniform among those where it is whole.

    Args:
      draws: float32 [attempts, 4] in [0, 1): area, ratio, vertical and horizontal position.
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
