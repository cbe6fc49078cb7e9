"""Heads whose output is a map of the image's own size: U-Net and FCN-8s, on any backbone.

Both read the backbone's maps at every stride. A map's positions do not always lie where those of a
finer map begin (convolutions without padding, sizes that are odd), so models/trace.py says where
they are, and a coarse map is laid under a finer one by that.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from models.heads.head import HeadedNetwork
from models.layers import LayerFactory
from models.network import Network
from models.normalization import at_least_float32
from models.trace import trace

_SIDE = 512  # of the image by which the places of a network's maps are found; any will do
_MOST = 16  # how many times as many channels as at full resolution a block of U-Net has, at most


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


_IMAGE = Place('', 1, 0.5)


class SegmentationHead(HeadedNetwork):
    """A backbone whose head gives logits for each pixel: float32 [b, h, w, num_classes].

    The image may have any height and width that its layers can take. Of maps with equal stride the
    last is taken. A subclass defines `make_head`.

    Attributes:
      num_classes: logits for each pixel.
    """

    num_classes: int = 2

    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Returns the logits; arguments as for `stages`."""
        stages = self.stages(images, train, mask)
        maps = [(place, stages[place.stage]) for place in maps_of(self.backbone)]
        logits = self.head(maps, images.shape[1:3], train, mask)
        return logits.astype(at_least_float32(self.backbone.dtype))


class UNet(SegmentationHead):
    """U-Net (Ronneberger, Fischer and Brox 2015, figure 1) on the backbone as contracting path.

    From the coarsest map upwards: the map is enlarged to the next stride, joined to the backbone's
    map there, and goes through two 3x3 convolutions, each with batch norm and ReLU. A last block at
    full resolution has no map to join where the backbone has none. Differences from the paper:
    convolutions are padded, so that the output has the image's size; enlarging repeats values,
    where the paper has transposed convolutions; batch norm, which came later.

    Attributes:
      width: channels of the block at full resolution; a block at stride s has s times as many, at
        most 16 times.
    """

    width: int = 16

    def make_head(self, layer: LayerFactory) -> nn.Module:
        """Returns the expanding path."""
        strides = tuple(place.stride for place in maps_of(self.backbone))
        return _Expansion(layer, self.num_classes, self.width, strides)


class FCN8s(SegmentationHead):
    """FCN-8s (Long, Shelhamer and Darrell 2015, figure 3) on any backbone.

    1x1 convolutions score the maps at strides 32, 16 and 8, or the three coarsest. From the
    coarsest on, scores are enlarged bilinearly to the next stride and added; the sum is enlarged
    to the image. Differences from the paper: enlarging is bilinear throughout, which is where its
    learned weights start; the classifier's dense layers, there made convolutions, are left out.
    """

    def make_head(self, layer: LayerFactory) -> nn.Module:
        """Returns the scores."""
        strides = tuple(place.stride for place in maps_of(self.backbone))
        wanted = tuple(stride for stride in strides if stride in (8, 16, 32))
        return _Scores(layer, self.num_classes, wanted if len(wanted) == 3 else strides[-3:])


def maps_of(backbone: Network) -> tuple[Place, ...]:
    """Returns a backbone's last map at each stride, the finest first.

    Args:
      backbone: bound to variables, or not.

    Raises:
      UserError: it has no maps.
    """
    return _maps_of(
        backbone.clone(parent=None, name=None, dropout_rate=0.0, axis_name=None, frozen=())
    )


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
            'Choose a convolutional config.model.name, such as resnet18, for a task with an answer '
            'for each pixel.'
        )
    return tuple(sorted(places.values(), key=lambda place: place.stride))


class _Expansion(nn.Module):
    """The expanding path of U-Net; `strides` are those of the maps that it will get."""

    layer: LayerFactory
    num_classes: int
    width: int
    strides: tuple[int, ...]

    def setup(self) -> None:
        """Makes the layers."""
        for stride in {1, *self.strides[:-1]}:
            features = self.width * min(stride, _MOST)
            for i in (1, 2):
                conv = self.layer.conv(features, 3, padding=1, use_bias=False)
                setattr(self, f'stride{stride}_conv{i}', conv)
                setattr(self, f'stride{stride}_norm{i}', self.layer.norm())
        self.logits = self.layer.conv(self.num_classes, 1)

    def __call__(
        self,
        maps: list[tuple[Place, jax.Array]],
        size: tuple[int, int],
        train: bool,
        mask: jax.Array | None,
    ) -> jax.Array:
        """Returns logits [b, *size, num_classes] of maps, the finest first."""
        place, x = maps[-1]
        for to, skip in reversed(maps[:-1]):
            x = laid_under(x, place, to, skip.shape[1:3])
            x = jnp.concatenate([x, skip.astype(x.dtype)], axis=-1)
            x, place = self._block(x, to.stride, train, mask), to
        if place.stride > 1:
            x = self._block(laid_under(x, place, _IMAGE, size), 1, train, mask)
            place = _IMAGE
        return laid_under(self.logits(x), place, _IMAGE, size)

    def _block(self, x: jax.Array, stride: int, train: bool, mask: jax.Array | None) -> jax.Array:
        for i in (1, 2):
            x = getattr(self, f'stride{stride}_conv{i}')(x)
            x = nn.relu(getattr(self, f'stride{stride}_norm{i}')(x, train, mask))
        return x


class _Scores(nn.Module):
    """The scores of FCN-8s; `strides` are those of the maps that are scored."""

    layer: LayerFactory
    num_classes: int
    strides: tuple[int, ...]

    def setup(self) -> None:
        """Makes the layers."""
        for stride in self.strides:
            setattr(self, f'stride{stride}', self.layer.conv(self.num_classes, 1))

    def __call__(
        self,
        maps: list[tuple[Place, jax.Array]],
        size: tuple[int, int],
        train: bool,
        mask: jax.Array | None,
    ) -> jax.Array:
        """Returns logits [b, *size, num_classes] of maps, the finest first."""
        del train, mask
        scored = [
            (place, getattr(self, f'stride{place.stride}')(x))
            for place, x in maps
            if place.stride in self.strides
        ]
        place, total = scored[-1]
        for to, scores in reversed(scored[:-1]):
            total = scores + interpolated(total, place, to, scores.shape[1:3])
            place = to
        return interpolated(total, place, _IMAGE, size)


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
            f'{to.stage}, {to.stride}: a head for each pixel cannot join them.'
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


HEADS: dict[str, type[SegmentationHead]] = {'unet': UNet, 'fcn8s': FCN8s}
