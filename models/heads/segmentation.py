"""Heads whose output is a map of the image's own size: U-Net and FCN-8s, on any backbone.

Both read the backbone's maps at every stride, and lay a coarse one under a finer one by where its
positions are (places.py).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.heads.head import HeadedNetwork
from models.heads.places import IMAGE, Place, interpolated, laid_under, maps_of
from models.layers import LayerFactory
from models.normalization import at_least_float32

_MOST = 16  # how many times as many channels as at full resolution a block of U-Net has, at most


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
            x = self._block(laid_under(x, place, IMAGE, size), 1, train, mask)
            place = IMAGE
        return laid_under(self.logits(x), place, IMAGE, size)

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
        return interpolated(total, place, IMAGE, size)


HEADS: dict[str, type[SegmentationHead]] = {'unet': UNet, 'fcn8s': FCN8s}
