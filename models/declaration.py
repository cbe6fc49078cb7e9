"""Options of models: the fields of a network's class declare them, and all else is read from there.

    class MyNetwork(Network):
        channels: tuple[int, ...] = option((16, 32), 'Filters of each convolution.')
        width: float = option(1.0, 'Factor on the number of filters.', above=0, at_most=100)
        pooling: Literal['max', 'average'] = option('max', 'How maps are pooled: max or average.')

`models.create` checks values against the declaration, and `--config.model.OPTION` exists for each
option of a registered model (see `registry.config_fields`).
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from errors import UserError, did_you_mean
from field import Field

# Fields that the program sets, rather than whoever describes an experiment.
SET_BY_PROGRAM = frozenset(
    {'dtype', 'param_dtype', 'axis_name', 'frozen', 'lowering', 'convolutional'}
)
_NOT_OPTIONS = SET_BY_PROGRAM | {'num_classes', 'parent', 'name'}
_TYPES = (bool, int, float, str)
_METADATA = ('doc', 'bounds', 'traced', 'regularizer')
_BOUNDS: dict[str, Callable[[Any, float], bool]] = {
    'at_least': lambda value, bound: value >= bound,
    'above': lambda value, bound: value > bound,
    'at_most': lambda value, bound: value <= bound,
    'below': lambda value, bound: value < bound,
}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a model.

    Attributes:
      default: its value where nobody gives one.
      type: of its values: bool, int, float, str or tuple.
      items: the type of a tuple's items; None for other types.
      choices: all its values; None where it takes any.
      bounds: of its values, or of a tuple's items, by the names of `option`'s arguments.
      doc: what it means, as a sentence.
      traced, regularizer: as in field.Field.
    """

    default: Any
    type: type
    items: type | None = None
    choices: tuple[Any, ...] | None = None
    bounds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    doc: str = ''
    traced: bool = False
    regularizer: bool = False

    @property
    def type_name(self) -> str:
        """The type in words: 'float', or 'tuple of int'."""
        return f'tuple of {self.items.__name__}' if self.items else self.type.__name__


def option(
    default: Any,
    doc: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    traced: bool = False,
    regularizer: bool = False,
) -> Any:
    """Returns the dataclass field of an option, to be annotated with its type.

    The type is bool, int, float, str, a tuple of one of them such as `tuple[int, ...]`, or a
    `Literal` of all values.

    Args:
      default: its value where nobody gives one.
      doc: what it means, as a sentence; `python train.py --help` shows it.
      at_least, above, at_most, below: its bounds, or those of a tuple's items.
      traced: whether the training step passes the value on as a traced scalar; it does so for
        `dropout_rate` alone.
      regularizer: whether the value keeps the training loss up; 0 must switch it off.
    """
    bounds = {'at_least': at_least, 'above': above, 'at_most': at_most, 'below': below}
    metadata = {
        'doc': doc,
        'bounds': {word: bound for word, bound in bounds.items() if bound is not None},
        'traced': traced,
        'regularizer': regularizer,
    }
    return dataclasses.field(default=default, metadata=metadata)


@functools.cache
def declared(network_class: type) -> Mapping[str, Option]:
    """Returns the options that a network's class declares, in the order of its fields.

    Raises:
      UserError: an option has no default, a default that it does not take itself, or a type that no
        field of the configuration can hold.
    """
    try:
        types = typing.get_type_hints(network_class)
    except NameError as error:
        raise UserError(
            f'the types of the fields of {network_class.__name__} cannot be read: {error}.'
        ) from error
    options = {}
    for field in dataclasses.fields(network_class):
        if field.name in _NOT_OPTIONS:
            continue
        label = f'the option "{field.name}" of {network_class.__name__}'
        if field.default is dataclasses.MISSING:
            raise UserError(f'{label} needs a default.')
        value_type, items, choices = _kind(types[field.name], label)
        metadata = {key: field.metadata[key] for key in _METADATA if key in field.metadata}
        metadata.setdefault('doc', f'An option of {network_class.__name__}.')
        options[field.name] = Option(field.default, value_type, items, choices, **metadata)
        check(label, field.default, options[field.name])
    return options


def _kind(annotation: Any, label: str) -> tuple[type, type | None, tuple[Any, ...] | None]:
    """Returns the type, a tuple's type of items, and the choices that an annotation means."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal and len({type(choice) for choice in arguments}) == 1:
        annotation, choices = type(arguments[0]), arguments
        if annotation in _TYPES:
            return annotation, None, choices
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        if arguments[0] in (int, float, str):
            return tuple, arguments[0], None
    elif annotation in _TYPES:
        return annotation, None, None
    raise UserError(
        f'{label} is annotated as {annotation}, which no field of the configuration can hold: use '
        'bool, int, float, str, a Literal of one of them, tuple[int, ...], tuple[float, ...] or '
        'tuple[str, ...].'
    )


def check(label: str, value: Any, option: Option) -> None:
    """Checks that a value has the option's type, is among its choices and within its bounds.

    Raises:
      UserError: it is not; `label` says which option it was for.
    """
    items = value if isinstance(value, tuple) else (value,)
    item_type = option.items or option.type
    right = isinstance(value, tuple) == (option.type is tuple)
    if not right or not all(_is_a(item, item_type) for item in items):
        raise UserError(f'{label} is {value!r}, and should be of type {option.type_name}.')
    if option.choices and value not in option.choices:
        choices = [str(choice) for choice in option.choices]
        raise UserError(
            f'{label} is "{value}", and should be one of {", ".join(choices)}.'
            + did_you_mean(str(value), choices)
        )
    bounds = option.bounds.items()
    if not all(_BOUNDS[word](item, bound) for item in items for word, bound in bounds):
        wanted = ' and '.join(f'{word.replace("_", " ")} {bound}' for word, bound in bounds)
        raise UserError(f'{label} is {value}, and should be {wanted}.')


def _is_a(value: Any, kind: type) -> bool:
    """Whether a value is of a type: an int serves as a float, but a bool never as a number."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def config_field(name: str, doc: str, options: Iterable[Option]) -> Field:
    """Returns the field `model.NAME` of an option that several models may have, by default None.

    Its bounds are the widest of theirs; each model checks its own.
    """
    options = tuple(options)
    first, bounds = options[0], {}
    for field_word, word, widest in (
        ('low', 'at_least', min),
        ('above', 'above', min),
        ('high', 'at_most', max),
        ('below', 'below', max),
    ):
        values = [option.bounds.get(word) for option in options]
        if None not in values:
            bounds[field_word] = widest(values)
    return Field(
        f'model.{name}',
        None,
        doc,
        first.type,
        **bounds,
        **({'items': first.items} if first.items else {}),
        traced=any(option.traced for option in options),
        regularizer=any(option.regularizer for option in options),
    )
