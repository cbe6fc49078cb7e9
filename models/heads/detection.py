"""A head that finds objects: a feature pyramid and the towers of FCOS, on any backbone with maps.

Each place of the pyramid's maps says which class it lies in, how far the four edges of the object
are, and how near its centre is.
"""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from models.heads import places
from models.heads.head import HeadedNetwork
from models.heads.places import Place
from models.layers import LayerFactory
from models.network import Network
from models.normalization import at_least_float32

PRIOR = 0.01  # probability of each class at the start (Lin et al. 2017, "Focal loss", section 4.1)
# The exponent of a distance in strides, at most. e^10 strides are 22,000: no picture is as large,
# so that what a place has to learn is never cut off. And float32 still holds the square of the area
# of a box with such sides, which is in the gradient of a ratio of areas, up to a stride of 2,048.
LARGEST = 10.0
_USUAL = (8, 16, 32)


class Locations(NamedTuple):
    """The places of all maps, the finest map first, row by row.

    Attributes:
      places: float32 [L, 2], (y, x) in edges of pixels: the middle of what a place sees. (0.5, 0.5)
        is the middle of the image's first pixel.
      strides: int32 [L], of their maps.
    """

    places: np.ndarray
    strides: np.ndarray


class DetectionHead(HeadedNetwork):
    """A backbone with a feature pyramid (Lin et al. 2017) and the head of FCOS (Tian et al. 2019).

    The pyramid: 1x1 convolutions on the backbone's maps; from the coarsest on, the sum is laid
    under the next finer map and added to it; then a 3x3 convolution. The head, which all maps
    share: two towers of 3x3 convolutions, each with group norm and ReLU, one for the classes and
    one for the boxes. As in the authors' later version ("FCOS: a simple and strong anchor-free
    object detector", 2021), centerness stands on the tower of the boxes, and distances are told in
    strides. Differences from the paper: channels and depth are options (256 and 4 there), and
    further maps are too.

    Attributes:
      num_classes: classes of objects; there is none for the background.
      channels: of the pyramid and of the towers.
      depth: convolutions of each tower.
      strides: of the backbone's maps that are used; (): 8, 16 and 32, or its coarsest three.
      extra: further maps, by 3x3 convolutions of stride 2, each on the one before.
    """

    num_classes: int = 1
    channels: int = 64
    depth: int = 2
    strides: tuple[int, ...] = ()
    extra: int = 0

    def make_head(self, layer: LayerFactory) -> nn.Module:
        """Returns pyramid and towers."""
        levels = levels_of(self.backbone, self.strides)
        return _Towers(layer, self.num_classes, self.channels, self.depth, levels, self.extra)

    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> dict[str, jax.Array]:
        """Returns what each place says; arguments as for `stages`.

        Returns:
          'logits' float32 [b, L, num_classes]; 'distances' float32 [b, L, 4], pixels of the image
          from the place to the object's top, left, bottom and right edge, none below 0;
          'centerness' float32 [b, L], a logit; and of the image, whatever is in it, 'places'
          float32 [L, 2] (see Locations) and 'size' float32 [2], (height, width).
        """
        stages = self.stages(images, train, mask)
        levels = levels_of(self.backbone, self.strides)
        dtype = at_least_float32(self.backbone.dtype)
        outputs = self.head([stages[place.stage] for place in levels], train, mask)
        shape = images.shape[1:]
        where = locations(self.backbone, self.strides, self.extra, shape)
        return {
            **{name: values.astype(dtype) for name, values in outputs.items()},
            'places': jnp.asarray(where.places, dtype),
            'size': jnp.asarray(shape[:2], dtype),
        }


def _narrow_normal(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Draws weights as the paper does: normal, with a standard deviation of 0.01."""
    # Drawn flat, as in layers.he_normal, to save compile time.
    return 0.01 * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)


class _Towers(nn.Module):
    """The pyramid, and two towers that all of its maps share."""

    layer: LayerFactory
    num_classes: int
    channels: int
    depth: int
    levels: tuple[Place, ...]
    extra: int

    def setup(self) -> None:
        """Makes the layers."""
        layer, channels = self.layer, self.channels
        for place in self.levels:
            setattr(self, f'lateral{place.stride}', layer.conv(channels, 1))
            setattr(self, f'pyramid{place.stride}', layer.conv(channels, 3, padding=1))
        own, coarsest = [place.stride for place in self.levels], self.levels[-1].stride
        further = [coarsest << number for number in range(1, self.extra + 1)]
        for stride in further:
            setattr(self, f'pyramid{stride}', layer.conv(channels, 3, stride=2, padding=1))
        self.strides = (*own, *further)
        narrow = functools.partial(layer.conv, window=3, padding=1, kernel_init=_narrow_normal)
        for tower in ('classes', 'boxes'):
            for number in range(1, self.depth + 1):
                setattr(self, f'{tower}_conv{number}', narrow(channels, use_bias=False))
                setattr(self, f'{tower}_norm{number}', layer.norm('group'))
        prior = nn.initializers.constant(-math.log((1 - PRIOR) / PRIOR))
        self.logits = narrow(self.num_classes, bias_init=prior)
        self.distances = narrow(4)
        self.centerness = narrow(1)
        for stride in self.strides:
            setattr(self, f'scale{stride}', layer.scale())

    def __call__(
        self, stages: list[jax.Array], train: bool, mask: jax.Array | None
    ) -> dict[str, jax.Array]:
        """Returns the outputs of all places, of maps with the finest first."""
        found = {'logits': [], 'distances': [], 'centerness': []}
        for stride, x in zip(self.strides, self._pyramid(stages), strict=True):
            classes, boxes = (self._tower(name, x, train, mask) for name in ('classes', 'boxes'))
            exponent = getattr(self, f'scale{stride}')(self.distances(boxes))
            found['logits'].append(self.logits(classes))
            found['distances'].append(stride * jnp.exp(jnp.minimum(exponent, LARGEST)))
            found['centerness'].append(self.centerness(boxes))
        flat = {
            name: jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in maps], axis=1)
            for name, maps in found.items()
        }
        return {**flat, 'centerness': flat['centerness'][..., 0]}

    def _pyramid(self, stages: list[jax.Array]) -> list[jax.Array]:
        """Returns a map of each stride, the finest first."""
        maps, x, before = [], None, None
        for place, stage in reversed(list(zip(self.levels, stages, strict=True))):
            lateral = getattr(self, f'lateral{place.stride}')(stage)
            if x is not None:
                lateral += places.laid_under(x, before, place, lateral.shape[1:3])
            x, before = lateral, place
            maps.insert(0, getattr(self, f'pyramid{place.stride}')(x))
        for number, stride in enumerate(self.strides[len(maps) :]):
            x = nn.relu(maps[-1]) if number else maps[-1]
            maps.append(getattr(self, f'pyramid{stride}')(x))
        return maps

    def _tower(self, name: str, x: jax.Array, train: bool, mask: jax.Array | None) -> jax.Array:
        for number in range(1, self.depth + 1):
            x = getattr(self, f'{name}_conv{number}')(x)
            x = nn.relu(getattr(self, f'{name}_norm{number}')(x, train, mask))
        return x


def levels_of(backbone: Network, strides: tuple[int, ...] = ()) -> tuple[Place, ...]:
    """Returns the backbone's maps on which objects are found, the finest first.

    Args:
      backbone: bound to variables, or not.
      strides: of the maps; (): 8, 16 and 32, or the coarsest three.

    Raises:
      UserError: it has no map of one of the strides.
    """
    known = {place.stride: place for place in places.maps_of(backbone)}
    if not strides:
        strides = _USUAL if known.keys() >= set(_USUAL) else tuple(known)[-3:]
    missing = [str(stride) for stride in strides if stride not in known]
    if missing:
        listed = ', '.join(map(str, known))
        raise UserError(
            f'config.head.strides has {", ".join(missing)}, and the maps of '
            f'{type(backbone).__name__} have strides of {listed}: choose among them.'
        )
    return tuple(known[stride] for stride in sorted(set(strides)))


def locations(
    backbone: Network, strides: tuple[int, ...], extra: int, shape: tuple[int, int, int]
) -> Locations:
    """Returns the places of a DetectionHead's outputs, in their order. Nothing is computed.

    Args:
      backbone: of the head, bound to variables, or not.
      strides, extra: as the head has them.
      shape: of the images, (height, width, channels).

    Raises:
      UserError: the images are too small, or there is no map of one of the strides.
    """
    return _locations(places.unbound(backbone), tuple(strides), extra, tuple(shape))


@functools.lru_cache(maxsize=64)
def _locations(
    backbone: Network, strides: tuple[int, ...], extra: int, shape: tuple[int, int, int]
) -> Locations:
    sizes = places.map_sizes(backbone, shape)
    maps = [
        (place.stride, place.centre, sizes[place.stage]) for place in levels_of(backbone, strides)
    ]
    for _ in range(extra):
        # A window of 3 with a padding of 1: the first one has its middle at the first position.
        stride, centre, size = maps[-1]
        maps.append((2 * stride, centre, tuple((side + 1) // 2 for side in size)))
    middles, owners = [], []
    for stride, centre, size in maps:
        grid = centre + stride * np.indices(size).reshape(2, -1).T
        middles.append(grid.astype(np.float32))
        owners.append(np.full(len(grid), stride, np.int32))
    found = Locations(np.concatenate(middles), np.concatenate(owners))
    for array in found:
        array.flags.writeable = False  # all who ask share it
    return found
