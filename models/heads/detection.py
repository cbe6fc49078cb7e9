"""A head that finds objects: a feature pyramid and the towers of FCOS, on any backbone.

Each place of the pyramid's maps says which class it lies in, how far the four edges of the object
are, and how near its centre is.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError
from models.heads.head import HeadedNetwork
from models.heads.segmentation import Place, laid_under, maps_of
from models.layers import LayerFactory
from models.network import Network
from models.normalization import at_least_float32

PRIOR = 0.01  # probability of each class at the start (Lin et al. 2017, "Focal loss", section 4.1)
# Of the exponent of a distance: e^6 strides of 8 pixels are 3,200 pixels.
_LARGEST = 6.0
_USUAL = (8, 16, 32)


class Locations(NamedTuple):
    """The places of all maps, the finest map first, row by row.

    Attributes:
      places: float32 [L, 2], (y, x) in edges of pixels: (0.5, 0.5) is the middle of the first.
      strides: int32 [L], of their maps.
    """

    places: np.ndarray
    strides: np.ndarray


class DetectionHead(HeadedNetwork):
    """A backbone with a feature pyramid (Lin et al. 2017) and the head of FCOS (Tian et al. 2019).

    The centerness is that of the authors' later version: it stands on the tower of the boxes.
    Differences from the paper: depth and channels are options, and so are further maps.

    Attributes:
      num_classes: classes of objects.
      channels: of the pyramid and of the towers.
      depth: convolutions of each tower.
      strides: of the backbone's maps that are used; (): 8, 16 and 32, or its coarsest three.
      extra: further maps, each of twice the stride of the one before.
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
          from the place to the object's top, left, bottom and right edge; 'centerness' float32
          [b, L], a logit; and of the image, whatever is in it, 'places' float32 [L, 2] (see
          Locations) and 'size' float32 [2], (height, width).
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
        for number in range(self.extra):
            setattr(self, f'extra{number + 1}', layer.conv(channels, 3, stride=2, padding=1))
        for tower in ('classes', 'boxes'):
            for number in range(self.depth):
                conv = self._narrow(channels, use_bias=False)
                setattr(self, f'{tower}_conv{number + 1}', conv)
                setattr(self, f'{tower}_norm{number + 1}', layer.norm('group'))
        self.logits = self._narrow(self.num_classes, use_bias=False)
        self.distances = self._narrow(4)
        self.centerness = self._narrow(1)
        first, count = nn.initializers.ones, len(self.levels) + self.extra
        self.scales = self.param('scales', first, (count,), layer.param_dtype)
        prior = nn.initializers.constant(-float(np.log((1 - PRIOR) / PRIOR)))
        self.prior = self.param('prior', prior, (self.num_classes,), layer.param_dtype)

    def _narrow(self, features: int, use_bias: bool = True) -> nn.Module:
        conv = self.layer.conv(features, 3, padding=1, use_bias=use_bias)
        return conv.clone(kernel_init=nn.initializers.normal(0.01))

    def __call__(
        self, stages: list[jax.Array], train: bool, mask: jax.Array | None
    ) -> dict[str, jax.Array]:
        """Returns the outputs of all places, of maps with the finest first."""
        found = {'logits': [], 'distances': [], 'centerness': []}
        strides = [place.stride for place in self.levels]
        strides += [strides[-1] << number for number in range(1, self.extra + 1)]
        for number, (x, stride) in enumerate(zip(self._pyramid(stages), strides, strict=True)):
            classes, boxes = (self._tower(t, x, train, mask) for t in ('classes', 'boxes'))
            exponent = self.scales[number] * self.distances(boxes)
            found['logits'].append(self.logits(classes) + self.prior.astype(classes.dtype))
            found['distances'].append(stride * jnp.exp(jnp.minimum(exponent, _LARGEST)))
            found['centerness'].append(self.centerness(boxes))
        flat = {
            name: jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in maps], axis=1)
            for name, maps in found.items()
        }
        return {**flat, 'centerness': flat['centerness'][..., 0]}

    def _pyramid(self, stages: list[jax.Array]) -> list[jax.Array]:
        """Returns a map of each stride, the finest first."""
        merged, x, before = [], None, None
        for place, stage in reversed(list(zip(self.levels, stages, strict=True))):
            lateral = getattr(self, f'lateral{place.stride}')(stage)
            if x is not None:
                lateral = lateral + laid_under(x, before, place, lateral.shape[1:3])
            x, before = lateral, place
            merged.append(getattr(self, f'pyramid{place.stride}')(x))
        maps = merged[::-1]
        for number in range(self.extra):
            x = maps[-1] if number == 0 else nn.relu(maps[-1])
            maps.append(getattr(self, f'extra{number + 1}')(x))
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
    known = {place.stride: place for place in maps_of(backbone)}
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
    """Returns the places of the outputs for images of a shape (height, width, channels)."""
    plain = {'parent': None, 'name': None, 'dropout_rate': 0.0, 'axis_name': None, 'frozen': ()}
    return _locations(backbone.clone(**plain), strides, extra, tuple(shape))


@functools.lru_cache(maxsize=64)
def _locations(
    backbone: Network, strides: tuple[int, ...], extra: int, shape: tuple[int, int, int]
) -> Locations:
    levels = levels_of(backbone, strides)
    sizes = _sizes(backbone, shape)
    maps: list[tuple[int, float, tuple[int, int]]] = [
        (place.stride, place.centre, sizes[place.stage]) for place in levels
    ]
    for _ in range(extra):
        stride, centre, size = maps[-1]  # a window of 3 with padding 1: the first is at the first
        maps.append((2 * stride, centre, tuple((side + 1) // 2 for side in size)))
    places, found = [], []
    for stride, centre, size in maps:
        axes = (centre + stride * np.arange(side, dtype=np.float32) for side in size)
        grid = np.stack(np.meshgrid(*axes, indexing='ij'), -1).reshape(-1, 2)
        places.append(grid.astype(np.float32))
        found.append(np.full(len(grid), stride, np.int32))
    return Locations(np.concatenate(places), np.concatenate(found))


def _sizes(backbone: Network, shape: tuple[int, int, int]) -> dict[str, tuple[int, int]]:
    """Returns {stage: (height, width) of its map}."""

    def stages(images: Any) -> Any:
        variables = backbone.init(jax.random.key(0), images)
        return backbone.apply(variables, images, method='stages')

    found = jax.eval_shape(stages, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    return {name: x.shape[1:3] for name, x in found.items() if x.ndim == 4}
