"""Where the maps of a backbone lie in the image, and how a coarse one is laid under a finer one.

A map's positions do not always lie where those of a finer map begin (convolutions without padding,
sizes that are odd), so models/trace.py says where they are.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from models.lowering import NATIVE
from models.network import Network
from models.trace import trace

_SIDE = 512  # of the image by which the places of a network's maps are found; any will do


class Place(NamedTuple):
    """Where a map lies in the image.

    Attributes:
      stage: its name.
      stride: pixels of the image from one position to the next.
      centre: pixels from the image's edge to the middle of what the first position sees.
    """

    stage: str
    stride: int
    centre: float


IMAGE = Place('', 1, 0.5)


def maps_of(backbone: Network) -> tuple[Place, ...]:
    """Returns a backbone's last map at each stride, the finest first.

    Args:
      backbone: bound to variables, or not.

    Raises:
      UserError: it has no maps.
    """
    return _maps_of(unbound(backbone))


@functools.lru_cache(maxsize=64)
def _maps_of(backbone: Network) -> tuple[Place, ...]:
    places = {}
    for name, stage in trace(backbone, (_SIDE, _SIDE, 3)).stages.items():
        if len(stage.shape) == 3:
            infinite = math.isinf(stage.receptive_field)
            centre = stage.stride / 2 if infinite else stage.start + stage.receptive_field / 2
            places[stage.stride] = Place(name, stage.stride, centre)
    if not places:
        raise UserError(
            f'{type(backbone).__name__} has no feature maps: all its layers are fully connected. '
            'Choose a convolutional config.model.name, such as resnet18, for a task whose answers '
            'have a place in the picture.'
        )
    return tuple(sorted(places.values(), key=lambda place: place.stride))


def unbound(backbone: Network) -> Network:
    """Returns a copy that can be compared: bound to no variables, and without traced numbers."""
    return backbone.clone(parent=None, name=None, dropout_rate=0.0, axis_name=None, frozen=())


def map_sizes(backbone: Network, shape: tuple[int, int, int]) -> dict[str, tuple[int, int]]:
    """Returns {stage: (height, width)} of a backbone's maps for images (h, w, channels).

    Nothing is computed.

    Raises:
      UserError: the images are too small; shows the arithmetic.
    """
    backbone = unbound(backbone).adjusted(lowering=NATIVE)

    def maps(images: jax.Array) -> Any:
        return backbone.init_with_output(jax.random.key(0), images, method='stages')[0]

    stages = jax.eval_shape(maps, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    return {name: x.shape[1:3] for name, x in stages.items() if x.ndim == 4}


def laid_under(x: jax.Array, place: Place, to: Place, size: tuple[int, int]) -> jax.Array:
    """Returns a map under the places of a finer one: each has the value of the nearest position.

    Where two are as near, it is the one further up or left. The map then lies half a place too far
    down and right on average, for which the convolutions that follow can make up.

    Args:
      x: [b, h, w, c].
      place: of x.
      to: of the finer map.
      size: (height, width) of the finer map. Where x covers less, its edge goes on.
    """
    factor, rest = divmod(place.stride, to.stride)
    if rest:
        raise UserError(
            f'The stage {place.stage} has a stride of {place.stride}, no multiple of that of '
            f'{to.stage}, {to.stride}: no head can join them.'
        )
    if factor > 1:
        batch, height, width, channels = x.shape
        parts = (batch, height, factor, width, factor, channels)
        x = jnp.broadcast_to(x[:, :, None, :, None], parts)
        x = x.reshape(batch, height * factor, width * factor, channels)
    # The middle of the first position of the finer map, in positions of the enlarged one.
    first = (to.centre - place.centre) / to.stride + (factor - 1) / 2
    # Halves are rounded down, so that maps which begin at the image's first pixel still do.
    before = -math.ceil(first - 0.5)
    for axis in (1, 2):
        x = _window(x, axis, before, size[axis - 1])
    return x


def interpolated(x: jax.Array, place: Place, to: Place, size: tuple[int, int]) -> jax.Array:
    """Returns a map's values at the places of a finer one, between positions linearly.

    Nothing that follows FCN-8s's scores could make up for a shift, so that none is allowed.

    Args: as for `laid_under`.
    """
    for axis in (1, 2):
        length = x.shape[axis]
        wanted = to.centre + to.stride * np.arange(size[axis - 1])
        positions = np.clip((wanted - place.centre) / place.stride, 0, length - 1)
        weights = np.maximum(1 - abs(positions[:, None] - np.arange(length)), 0)
        x = jnp.tensordot(
            x, jnp.asarray(weights, x.dtype), (axis, 1), precision=jax.lax.Precision.HIGHEST
        )
        x = jnp.moveaxis(x, -1, axis)
    return x


def _window(x: jax.Array, axis: int, before: int, size: int) -> jax.Array:
    """Returns `size` places along an axis of which the first `before` lie before the map."""
    if before < 0:
        x, before = jax.lax.slice_in_dim(x, min(-before, x.shape[axis] - 1), None, axis=axis), 0
    after = max(size - before - x.shape[axis], 0)
    if before or after:
        pads = [(0, 0)] * x.ndim
        pads[axis] = (before, after)
        x = jnp.pad(x, pads, mode='edge')
    return jax.lax.slice_in_dim(x, 0, size, axis=axis)
