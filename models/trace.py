"""The layers of a network, one by one, found without computing anything.

    traced = trace(models.create('resnet50', num_classes=1000), (224, 224, 3))
    traced.layers[0].receptive_field, traced.stages['stage4'].stride

The network is traced once on shapes. Every layer marks its input and its output in the trace, and
receptive fields follow the marks through branches, sums and concatenations: the longest path
counts. So they are those of the network that runs, not of a description of it.
"""

import dataclasses
import math
from collections import OrderedDict
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax.ad_checkpoint import checkpoint_name

from errors import UserError
from models import arithmetic
from models.layers import AdaptivePool, Conv, Dropout, Pool, Scale, adaptive_bins
from models.lowering import NATIVE
from models.network import Model, Network, abstract_variables
from models.normalization import BatchNorm, GroupNorm

# Type of layer -> what it is called; {} stands for the layer's own kind.
KINDS = {
    Conv: 'convolution',
    nn.Dense: 'dense',
    BatchNorm: 'batch norm',
    GroupNorm: 'group norm',
    Pool: '{} pool',
    AdaptivePool: 'adaptive {} pool',
    Scale: 'scale',
    Dropout: 'dropout',
}
IMAGE = math.inf  # the receptive field that is the whole image, whatever its size


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a network, for one image.

    Attributes:
      name: the module's path, such as 'stage1_block1/conv1'.
      kind: 'convolution', 'dense', 'batch norm', 'group norm', 'max pool', 'average pool',
        'adaptive average pool', 'adaptive max pool', 'scale', 'dropout', or what KINDS has been
        given.
      window, stride, padding: F, S and P along each axis; None where the layer has none.
      in_shape, out_shape: (h, w, c) or (units,).
      receptive_field: pixels of the image, along an axis, on which an output depends; infinite
        where it depends on all. Where it exceeds the image, the rest is padding.
      parameters: how many trained numbers it has; 0 where it was listed before, because it is
        called several times.
      multiply_adds: for one image; 0 unless it is a convolution or a dense layer.
      activation_bytes: size of its output for one image.
      left_over: rows or columns that the stride leaves over at the end of the longer axis.
    """

    name: str
    kind: str
    window: int | None
    stride: int | None
    padding: int | None
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    receptive_field: float
    parameters: int
    multiply_adds: int
    activation_bytes: int
    left_over: int

    @property
    def drops(self) -> str:
        """The part that no window covers because of the stride: 'pixels', only 'padding', or ''."""
        if not self.left_over:
            return ''
        return 'pixels' if self.left_over > self.padding else 'padding'


@dataclasses.dataclass(frozen=True)
class Stage:
    """One of a network's named feature maps.

    Attributes:
      shape: (h, w, c) or (units,).
      stride: pixels of the image from one position to the next; None where there are no positions.
      receptive_field: as for a layer.
      start: the row and column of the image where the receptive field of position (0, 0) begins,
        below 0 in the padding; None where there are no positions, or the field is the whole image.
    """

    shape: tuple[int, ...]
    stride: int | None
    receptive_field: float
    start: int | None

    def field(self, row: int, column: int) -> tuple[int, int, int] | None:
        """Returns (top, left, side) in pixels of the image of what a position sees.

        It may begin below 0 and end beyond the image, in the padding. None where that is all of it.
        """
        if self.start is None or self.stride is None:
            return None
        top, left = (self.start + place * self.stride for place in (row, column))
        return top, left, int(self.receptive_field)


@dataclasses.dataclass(frozen=True)
class Trace:
    """The layers in the order in which they are called, and the stages by name."""

    layers: list[Layer]
    stages: OrderedDict[str, Stage]

    @property
    def parameters(self) -> int:
        """The parameters of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of all layers, for one image."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """The size of all layers' outputs for one image: roughly what training has to keep."""
        return sum(layer.activation_bytes for layer in self.layers)


def trace(model: Model, image_shape: tuple[int, int, int]) -> Trace:
    """Traces a model on one image (h, w, channels).

    Raises:
      UserError: the image is too small; shows the arithmetic. Or a layer with parameters is of a
        kind that KINDS does not have.
    """
    model = model.adjusted(lowering=NATIVE)
    if getattr(model.headless(), 'remat', False):
        model = model.adjusted(remat=False)  # the same layers, without a wrapper around them
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = abstract_variables(model, image_shape)
    recorder = _Recorder(variables['params'])

    def forward(variables, images):
        with nn.intercept_methods(recorder):
            return model.apply(variables, images)

    jaxpr = jax.make_jaxpr(forward)(variables, images).jaxpr
    recorder.check_kinds()
    recorder.follow(jaxpr, jaxpr.invars[-1])
    return Trace(recorder.layers, recorder.stages)


class _Field(NamedTuple):
    """What an output depends on along an axis, in pixels of the image.

    Attributes:
      start: where it begins for the first position.
      size: how long it is: the receptive field.
      jump: the stride from one position to the next.
    """

    start: float
    size: float
    jump: int


class _Recorder:
    """Marks what goes into and comes out of each layer; then follows the marks."""

    def __init__(self, params: dict[str, Any]):
        self._params = params
        self._types: dict[str, str] = {}
        self._calls: list[tuple[nn.Module, tuple[int, ...], jax.Array]] = []
        self._inputs: dict[int, _Field] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.layers: list[Layer] = []
        self.stages: OrderedDict[str, Stage] = OrderedDict()

    def __call__(self, next_function, arguments, options, context):
        module = context.module
        self._types['/'.join(module.path)] = type(module).__name__
        if isinstance(module, Network) and context.method_name == 'stages':
            stages = next_function(*arguments, **options)
            self._shapes = {name: x.shape[1:] for name, x in stages.items()}
            return OrderedDict((n, checkpoint_name(x, f'stage {n}')) for n, x in stages.items())
        listed = type(module) in KINDS and context.method_name == '__call__'
        if not listed or (isinstance(module, Dropout) and module.rate == 0):
            return next_function(*arguments, **options)
        number = len(self._calls)
        x = checkpoint_name(arguments[0], f'in {number}')
        y = next_function(x, *arguments[1:], **options)
        self._calls.append((module, x.shape[1:], y))
        return checkpoint_name(y, f'out {number}')

    def check_kinds(self) -> None:
        """Raises a UserError where parameters belong to no layer that was listed."""
        listed = {'/'.join(module.path) for module, _, _ in self._calls}
        for path in flatten_dict(self._params):
            owners = ['/'.join(path[:length]) for length in range(1, len(path))]
            if listed.isdisjoint(owners):
                kind = self._types.get(owners[-1] if owners else '', 'layer')
                raise UserError(
                    f'{"/".join(path)}: models/trace.py cannot count the parameters of a {kind}. '
                    'Use the layers of self.factory(), or a module that holds nothing else and is '
                    f'listed, without multiply-adds, by models.trace.KINDS[{kind}] = "its name".'
                )

    def follow(self, jaxpr: Any, image: Any) -> None:
        """Gives every value of the trace its field; where several meet, they are joined."""
        fields = {image: _Field(0, 1, 1)}
        for equation in jaxpr.eqns:
            known = [fields[v] for v in equation.invars if not hasattr(v, 'val') and v in fields]
            if not known:
                continue
            start, stop = min(f.start for f in known), max(f.start + f.size for f in known)
            field = _Field(start, stop - start, max(f.jump for f in known))
            if equation.primitive.name == 'name':
                field = self._at_mark(*equation.params['name'].split(' ', 1), field)
            fields.update((v, field) for v in equation.outvars)

    def _at_mark(self, what: str, name: str, field: _Field) -> _Field:
        if what == 'stage':
            shape = self._shapes[name]
            stride = field.jump if len(shape) == 3 else None
            start = None if stride is None or field.size == IMAGE else field.start
            self.stages[name] = Stage(shape, stride, field.size, start)
        elif what == 'in':
            self._inputs[int(name)] = field
        else:
            module, in_shape, y = self._calls[int(name)]
            field = _after(module, in_shape, self._inputs[int(name)])
            before = any(layer.name == '/'.join(module.path) for layer in self.layers)
            params = {} if before else self._params
            self.layers.append(_layer(module, in_shape, y, field.size, params))
        return field


def _after(module: nn.Module, in_shape: tuple[int, ...], field: _Field) -> _Field:
    """Returns the field of a layer's output, from that of its input."""
    start, size, jump = field
    if isinstance(module, Conv | Pool):
        own, step = arithmetic.receptive_field([(module.window, module.stride)])
        return _Field(start - module.padding * jump, size + (own - 1) * jump, jump * step)
    if isinstance(module, AdaptivePool) and module.size > 1:
        bins = (b for n in in_shape[:2] for b in adaptive_bins(n, module.size))
        largest = max(stop - start for start, stop in bins)
        return _Field(start, size + (largest - 1) * jump, jump)
    if isinstance(module, nn.Dense | AdaptivePool):
        return _Field(0, IMAGE, jump)
    return field


def _layer(
    module: nn.Module,
    in_shape: tuple[int, ...],
    y: jax.Array,
    field: float,
    params: dict[str, Any],
) -> Layer:
    for name in module.path:
        params = params.get(name, {})
    windowed = isinstance(module, Conv | Pool)
    window, stride, padding = (
        (module.window, module.stride, module.padding) if windowed else (None, None, None)
    )
    left_over = 0
    if windowed and not getattr(module, 'ceil', False):
        left_over = max((n + 2 * padding - window) % stride for n in in_shape[:2])
    out_shape, multiply_adds = y.shape[1:], 0
    if isinstance(module, Conv):
        height, width, filters = out_shape
        multiply_adds = arithmetic.convolution_multiply_adds(
            window, in_shape[-1], filters, height, width
        )
    elif isinstance(module, nn.Dense):
        multiply_adds = math.prod(in_shape) * module.features
    return Layer(
        name='/'.join(module.path),
        kind=KINDS[type(module)].format(getattr(module, 'kind', '')),
        window=window, stride=stride, padding=padding,
        in_shape=in_shape, out_shape=out_shape,
        receptive_field=field,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        multiply_adds=multiply_adds,
        activation_bytes=math.prod(out_shape) * y.dtype.itemsize,
        left_over=left_over,
    )  # fmt: skip
