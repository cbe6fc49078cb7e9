"""Models by name: what there is, what options each takes, and one of them made and checked."""

import dataclasses
import typing
from typing import Any

import jax.numpy as jnp

from errors import UserError, did_you_mean
from models.deep_cnn import DeepCNN
from models.fcn import FCN
from models.lenet import LeNet
from models.network import Network
from models.strided_cnn import StridedCNN

_FAMILIES: dict[str, type[Network]] = {
    'deep_cnn': DeepCNN,
    'fcn': FCN,
    'lenet': LeNet,
    'strided_cnn': StridedCNN,
}
# Fields that the program sets, not the one who describes an experiment.
_NOT_OPTIONS = {'num_classes', 'dtype', 'param_dtype', 'axis_name', 'parent', 'name'}


class Option(typing.NamedTuple):
    """One option of a model: its default, its type, its choices (None: any) and its bounds."""

    default: Any
    type: type
    choices: tuple | None
    bounds: dict[str, float]


def names() -> tuple[str, ...]:
    """Returns the names of all models, sorted."""
    return tuple(sorted(_FAMILIES))


def options(name: str) -> dict[str, Option]:
    """Returns the options of model `name`, read from its fields.

    Raises UserError where there is no such model.
    """
    found = {}
    for field in dataclasses.fields(_family(name)):
        if field.name in _NOT_OPTIONS:
            continue
        choices = typing.get_args(field.type) or None
        kind = type(choices[0]) if choices else field.type
        found[field.name] = Option(field.default, kind, choices, dict(field.metadata))
    return found


def create(name: str, *, num_classes: int, dtype: Any = jnp.float32, **values: Any) -> Network:
    """Returns the module `name`, with every value checked before anything is compiled.

    `values` are options of the model (see `options`), or `param_dtype` and `axis_name`, which all
    take. `num_classes=0` leaves the head out. Raises UserError for an unknown name or option, and
    for a value of the wrong type, out of its bounds or not among its choices.
    """
    family, known = _family(name), options(name)
    _check('num_classes', num_classes, Option(None, int, None, {'at_least': 0}))
    for key, value in values.items():
        if key in known:
            _check(f'{name}: {key}', value, known[key])
        elif key not in ('param_dtype', 'axis_name'):
            raise UserError(
                f'{name} has no option "{key}"; it takes {", ".join(sorted(known))}.'
                + did_you_mean(key, known)
            )
    dtype, param_dtype = _float_dtype(dtype), _float_dtype(values.pop('param_dtype', jnp.float32))
    return family(num_classes=num_classes, dtype=dtype, param_dtype=param_dtype, **values)


def _family(name: str) -> type[Network]:
    if name not in _FAMILIES:
        raise UserError(
            f'there is no model "{name}"; there are {", ".join(names())}.'
            + did_you_mean(name, names())
        )
    return _FAMILIES[name]


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
