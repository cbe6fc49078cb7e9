"""Models by name: which there are, the options of each, and how one is made and checked."""

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from errors import UserError, did_you_mean
from field import Field
from models.alexnet import AlexNet
from models.declaration import SET_BY_PROGRAM, Option, check, config_field, declared
from models.deep_cnn import DeepCNN
from models.densenet import DenseNet
from models.fcn import FCN
from models.lenet import LeNet
from models.network import Network
from models.resnet import ResNet
from models.strided_cnn import StridedCNN
from models.vgg import VGG


@dataclasses.dataclass(frozen=True)
class Registered:
    """The meaning of a name.

    Attributes:
      network: the class.
      settled: values of options that the name decides, so that they are no options of it.
      defaults: defaults of options where they differ from the class's.
    """

    network: type[Network]
    settled: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_MODELS: dict[str, Registered] = {
    'alexnet': Registered(AlexNet),
    'deep_cnn': Registered(DeepCNN),
    'fcn': Registered(FCN),
    'lenet': Registered(LeNet),
    'strided_cnn': Registered(StridedCNN),
    **{f'densenet{n}': Registered(DenseNet, {'depth': n}) for n in (121, 161, 169, 201)},
    **{f'resnet{n}': Registered(ResNet, {'depth': n}) for n in (18, 34, 50, 101, 152)},
    **{f'vgg{n}': Registered(VGG, {'depth': n}) for n in (11, 13, 16, 19)},
    **{
        f'vgg{n}_bn': Registered(VGG, {'depth': n}, {'normalization': 'batch'})
        for n in (11, 13, 16, 19)
    },
}
_BUILT_IN = frozenset(_MODELS)


def register(
    name: str,
    network: type[Network],
    *,
    defaults: Mapping[str, Any] | None = None,
    settled: Mapping[str, Any] | None = None,
) -> None:
    """Makes a network of one's own known by a name, for `config.model.name` and `create`.

    Its options become fields `config.model.OPTION`. A name that is registered again, as in a
    notebook cell that is run twice, takes the new class.

    Args:
      name: an identifier.
      network: a subclass of Network that defines `setup` and `stages`.
      defaults: {option: value} where the default differs from the class's.
      settled: {option: value} that the name decides, so that nobody can choose it.

    Raises:
      UserError: the name is taken or is no identifier, the class is not such a subclass, or one of
        its options is declared wrongly or means something else in another model.
    """
    if not name.isidentifier():
        raise UserError(
            f'the model name "{name}" is not an identifier: letters, digits and underscores.'
        )
    if name in _BUILT_IN:
        raise UserError(f'the model name "{name}" is taken by {_MODELS[name].network.__name__}.')
    _check_class(name, network)
    entry = Registered(network, dict(settled or {}), dict(defaults or {}))
    known = declared(network)
    for key, value in {**entry.defaults, **entry.settled}.items():
        if key not in known:
            raise UserError(_no_option(name, key, known))
        check(f'{name}: {key}', value, known[key])
    _check_types(name, known)
    _MODELS[name] = entry


def _check_class(name: str, network: Any) -> None:
    """Raises a UserError unless `network` is a class that can be made and applied."""
    if not inspect.isclass(network):
        raise UserError(f'{name}: register a class, not an instance of {type(network).__name__}.')
    if not issubclass(network, Network):
        kind = 'a plain flax module' if issubclass(network, nn.Module) else 'no network'
        raise UserError(
            f'{name}: {network.__name__} is {kind}; make it a subclass of models.Network, as '
            'docs/models.md shows under "Your own model".'
        )
    for method in ('setup', 'stages'):
        if getattr(network, method) is getattr(Network, method):
            raise UserError(f'{name}: {network.__name__} does not define {method}().')


def _check_types(name: str, known: Mapping[str, Option]) -> None:
    """Raises a UserError where another model has an option of the same name and another type."""
    for other in names():
        for key, option in () if other == name else options(other).items():
            own = known.get(key, option)
            if own.type_name != option.type_name:
                raise UserError(
                    f'{name}: the option "{key}" is of type {own.type_name}, but in {other} of '
                    f'type {option.type_name}, and both are config.model.{key}: choose another '
                    'name.'
                )


def names() -> tuple[str, ...]:
    """Returns the names of all models, sorted; numbers in them by value."""

    def parts(name: str) -> list:
        return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name)]

    return tuple(sorted(_MODELS, key=parts))


def options(name: str) -> dict[str, Option]:
    """Returns the options of model `name`, with its own defaults.

    Raises:
      UserError: there is no such model.
    """
    entry = _get(name)
    return {
        key: dataclasses.replace(option, default=entry.defaults.get(key, option.default))
        for key, option in declared(entry.network).items()
        if key not in entry.settled
    }


def config_fields() -> tuple[Field, ...]:
    """Returns a field `model.OPTION` for each option of any model; None leaves its default.

    The doc names the models that have the option, unless all do and mean the same by it.
    """
    by_option: dict[str, dict[str, Option]] = {}
    for name in _MODELS:
        for key, option in options(name).items():
            by_option.setdefault(key, {})[name] = option
    return tuple(
        config_field(key, _doc(by_model), by_model.values()) for key, by_model in by_option.items()
    )


def _doc(by_model: Mapping[str, Option]) -> str:
    by_doc: dict[str, list[str]] = {}
    for name, option in by_model.items():
        by_doc.setdefault(option.doc, []).append(name)
    if len(by_doc) == 1 and len(by_model) == len(_MODELS):
        return next(iter(by_doc))
    return ' '.join(f'{", ".join(_families(models))}: {doc}' for doc, models in by_doc.items())


def _families(models: Iterable[str]) -> list[str]:
    """Returns what models are called together, such as 'resnet' for resnet18 and resnet50."""
    by_class: dict[type, list[str]] = {}
    for name in models:
        by_class.setdefault(_MODELS[name].network, []).append(name)
    labels = []
    for network, alike in by_class.items():
        stems = {re.split(r'\d', name)[0] for name in alike}
        shared = stems.pop() if len(stems) == 1 else network.__name__
        labels.append(alike[0] if len(alike) == 1 else shared)
    return sorted(labels)


def create(name: str, *, num_classes: int, dtype: Any = jnp.float32, **values: Any) -> Network:
    """Returns the module `name`, with every value checked before anything is compiled.

    Args:
      name: of the model.
      num_classes: 0 leaves the head out.
      dtype: in which it computes.
      **values: options of the model (see `options`), or `param_dtype`, `axis_name`, `frozen` and
        `lowering`, which all models take.

    Raises:
      UserError: an unknown name or option, or a value of the wrong type, out of its bounds or not
        among its choices.
    """
    entry, known = _get(name), options(name)
    check('num_classes', num_classes, Option(None, int, bounds={'at_least': 0}))
    for key, value in values.items():
        if key in known:
            check(f'{name}: {key}', value, known[key])
        elif key not in SET_BY_PROGRAM:
            raise UserError(_no_option(name, key, known))
    dtype, param_dtype = _float_dtype(dtype), _float_dtype(values.pop('param_dtype', jnp.float32))
    fields = {**entry.defaults, **values, **entry.settled}
    return entry.network(num_classes=num_classes, dtype=dtype, param_dtype=param_dtype, **fields)


def _get(name: str) -> Registered:
    if name not in _MODELS:
        raise UserError(
            f'there is no model "{name}"; there are {", ".join(names())}.'
            + did_you_mean(name, names())
        )
    return _MODELS[name]


def _no_option(name: str, key: str, known: Iterable[str]) -> str:
    known = sorted(known)
    return f'{name} has no option "{key}"; it takes {", ".join(known)}.' + did_you_mean(key, known)


def _float_dtype(dtype: Any) -> Any:
    try:
        result = jnp.dtype(dtype)
    except TypeError as error:
        raise UserError(f'dtype is {dtype!r}, which is not a number type.') from error
    if not jnp.issubdtype(result, jnp.floating):
        raise UserError(f'dtype is {result}, and should be a floating-point type.')
    return result
