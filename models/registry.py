"""Models by name: what there is, what options each takes, and one of them made and checked."""

import dataclasses
import re
import typing
from typing import Any

import jax.numpy as jnp

from errors import UserError, did_you_mean
from models.alexnet import AlexNet
from models.deep_cnn import DeepCNN
from models.densenet import DenseNet
from models.fcn import FCN
from models.lenet import LeNet
from models.network import Network
from models.resnet import ResNet
from models.strided_cnn import StridedCNN
from models.vgg import VGG


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a name stands for: a family, the fields that the name settles, its own defaults."""

    family: type[Network]
    settled: dict[str, Any] = dataclasses.field(default_factory=dict)
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)


_MODELS: dict[str, Entry] = {
    'alexnet': Entry(AlexNet),
    'deep_cnn': Entry(DeepCNN),
    'fcn': Entry(FCN),
    'lenet': Entry(LeNet),
    'strided_cnn': Entry(StridedCNN),
    **{f'densenet{n}': Entry(DenseNet, {'depth': n}) for n in (121, 161, 169, 201)},
    **{f'resnet{n}': Entry(ResNet, {'depth': n}) for n in (18, 34, 50, 101, 152)},
    **{f'vgg{n}': Entry(VGG, {'depth': n}) for n in (11, 13, 16, 19)},
    **{
        f'vgg{n}_bn': Entry(VGG, {'depth': n}, {'normalization': 'batch'}) for n in (11, 13, 16, 19)
    },
}
# Fields that the program sets, not the one who describes an experiment.
_SET_BY_PROGRAM = {'dtype', 'param_dtype', 'axis_name', 'frozen', 'lowering'}
_NOT_OPTIONS = _SET_BY_PROGRAM | {'num_classes', 'parent', 'name'}


class Option(typing.NamedTuple):
    """One option of a model: its default, its type, its choices (None: any) and its bounds."""

    default: Any
    type: type
    choices: tuple | None
    bounds: dict[str, float]


def names() -> tuple[str, ...]:
    """Returns the names of all models, sorted; numbers in them by value."""

    def parts(name: str) -> list:
        return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name)]

    return tuple(sorted(_MODELS, key=parts))


def options(name: str) -> dict[str, Option]:
    """Returns the options of model `name`, read from its fields.

    Raises UserError where there is no such model.
    """
    entry, found = _entry(name), {}
    for field in dataclasses.fields(entry.family):
        if field.name in _NOT_OPTIONS or field.name in entry.settled:
            continue
        default = entry.defaults.get(field.name, field.default)
        choices = typing.get_args(field.type) or None
        kind = type(choices[0]) if choices else field.type
        found[field.name] = Option(default, kind, choices, dict(field.metadata))
    return found


def create(name: str, *, num_classes: int, dtype: Any = jnp.float32, **values: Any) -> Network:
    """Returns the module `name`, with every value checked before anything is compiled.

    `values` are options of the model (see `options`), or `param_dtype`, `axis_name`, `frozen` and
    `lowering`, which all take. `num_classes=0` leaves the head out. Raises UserError for an unknown
    name or option, and for a value of the wrong type, out of its bounds or not among its choices.
    """
    entry, known = _entry(name), options(name)
    _check('num_classes', num_classes, Option(None, int, None, {'at_least': 0}))
    for key, value in values.items():
        if key in known:
            _check(f'{name}: {key}', value, known[key])
        elif key not in _SET_BY_PROGRAM:
            raise UserError(
                f'{name} has no option "{key}"; it takes {", ".join(sorted(known))}.'
                + did_you_mean(key, known)
            )
    dtype, param_dtype = _float_dtype(dtype), _float_dtype(values.pop('param_dtype', jnp.float32))
    fields = entry.defaults | values | entry.settled
    return entry.family(num_classes=num_classes, dtype=dtype, param_dtype=param_dtype, **fields)


def _entry(name: str) -> Entry:
    if name not in _MODELS:
        raise UserError(
            f'there is no model "{name}"; there are {", ".join(names())}.'
            + did_you_mean(name, names())
        )
    return _MODELS[name]


def _check(label: str, value: Any, option: Option) -> None:
    """Raises UserError unless `value` has the option's type, is among its choices and in bounds."""
    accepted = (int, float) if option.type is float else option.type
    if not isinstance(value, accepted) or (isinstance(value, bool) and option.type is not bool):
        raise UserError(f'{label} is {value!r}, and should be of type {option.type.__name__}.')
    if option.choices and value not in option.choices:
        raise UserError(
            f'{label} is "{value}", and should be one of {", ".join(option.choices)}.'
            + did_you_mean(value, option.choices)
        )
    holds = {
        'at_least': lambda bound: value >= bound,
        'above': lambda bound: value > bound,
        'below': lambda bound: value < bound,
    }
    if not all(holds[word](bound) for word, bound in option.bounds.items()):
        wanted = ' and '.join(
            f'{word.replace("_", " ")} {bound}' for word, bound in option.bounds.items()
        )
        raise UserError(f'{label} is {value}, and should be {wanted}.')


def _float_dtype(dtype: Any) -> Any:
    try:
        result = jnp.dtype(dtype)
    except TypeError as error:
        raise UserError(f'dtype is {dtype!r}, which is no number type.') from error
    if not jnp.issubdtype(result, jnp.floating):
        raise UserError(f'dtype is {result}, and should be a floating-point type.')
    return result
