"""Builds a configuration from its fields; checks, overrides, compares and describes it."""

import ast
import difflib
import re
import textwrap
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from errors import UserError, did_you_mean
from field import Field

HELP_WIDTH = 100  # columns


def build(fields: tuple[Field, ...]) -> ConfigDict:
    """Returns a locked ConfigDict with every field at its default."""
    config = ConfigDict()
    for field in fields:
        section, _, leaf = field.name.rpartition('.')
        if section and section not in config:
            config[section] = ConfigDict()
        owner = config[section] if section else config
        owner[leaf] = field.default
    return config.lock()


def flatten(config: Any, prefix: str = '') -> dict[str, Any]:
    """Returns {dotted name: value} of a ConfigDict or nested dict."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, (ConfigDict, dict)):
            flat.update(flatten(value, f'{prefix}{key}.'))
        else:
            flat[f'{prefix}{key}'] = value
    return flat


def validate(config: ConfigDict, fields: tuple[Field, ...]) -> ConfigDict:
    """Returns a new, locked configuration, with each value checked and of its field's type.

    Raises:
      UserError: a field is unknown or missing, or a value has a wrong type or is out of range.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(f'get_config() must return a ConfigDict, not {type(config).__name__}.')
    known = {field.name: field for field in fields}
    flat = flatten(config)
    for name in flat:
        if name not in known:
            raise UserError(unknown(name, known))
    checked = build(fields)
    # Entered once, because it walks through the whole configuration.
    with checked.ignore_type():
        for name, field in known.items():
            if name not in flat:
                section = name.rpartition('.')[0]
                raise UserError(
                    f'config.{name} is missing: config.{section} was replaced as a whole; '
                    'assign its fields one by one.'
                )
            assign(checked, name, field.check(flat[name]))
    return checked


def unknown(name: str, known: Iterable[str]) -> str:
    """Returns the error for a field that does not exist, with the most similar field.

    The last parts of the names are compared if no whole name is similar.
    """
    known = list(known)
    hint = did_you_mean(f'config.{name}', [f'config.{k}' for k in known])
    if not hint:
        leaves = {k.rpartition('.')[2]: k for k in known}
        near = difflib.get_close_matches(name.rpartition('.')[2], leaves, n=1)
        hint = f' Did you mean "config.{leaves[near[0]]}"?' if near else ''
    return f'config.{name} is not a field of the configuration.{hint}'


def assign(config: ConfigDict, name: str, value: Any) -> None:
    """Sets a field by its dotted name; the caller has to allow another type (ignore_type)."""
    *sections, leaf = name.split('.')
    for section in sections:
        config = config[section]
    config[leaf] = value


def override(config: ConfigDict, arguments: list[str], fields: tuple[Field, ...]) -> None:
    """Applies '--config.a.b=value' arguments in place.

    Raises:
      UserError: a field is unknown, or a value is missing, of the wrong type or out of range.
    """
    known = {field.name: field for field in fields}
    with config.ignore_type():
        for argument in arguments:
            name, equals, text = argument.removeprefix('--config.').partition('=')
            if name not in known:
                raise UserError(unknown(name, known))
            if not equals:
                raise UserError(f'--config.{name} needs a value: --config.{name}=VALUE.')
            assign(config, name, known[name].check(_parse(text, known[name])))


def _parse(text: str, field: Field) -> Any:
    """Returns the value of a text from the command line, parsed by the field's type.

    A text that cannot be parsed is returned as it is; the field's check then refuses it.
    """
    if field.kind is str:
        # 'none' is a choice of some models, so only Python's spelling means no value.
        return None if text == 'None' and field.default is None else text
    if text.lower() == 'none' and field.default is None:
        return None
    if field.kind is bool:
        return {'true': True, 'false': False, '1': True, '0': False}.get(text.lower(), text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = text
    if field.kind is not tuple or isinstance(value, tuple | list):
        return value
    # A single item needs no brackets. A pattern such as stem* is not Python and stays a text.
    if field.items is str:
        return (value if isinstance(value, str) else text,)
    return (value,) if isinstance(value, int | float) else value


def differences(old: Any, new: Any, fields: tuple[Field, ...], scope: str) -> dict[str, tuple]:
    """Returns {name: (old, new)} of the fields of one scope that differ."""
    old, new = flatten(old), flatten(new)
    # The file of an earlier version lacks later fields, which had the effect of their defaults.
    pairs = {
        field.name: tuple(plain(values.get(field.name, field.default)) for values in (old, new))
        for field in fields
        if field.scope == scope
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def plain(value: Any) -> Any:
    """Returns the value as JSON would return it: tuples become lists, ConfigDicts dicts."""
    if isinstance(value, (ConfigDict, dict)):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def describe(fields: tuple[Field, ...]) -> str:
    """Returns the list of all fields for --help: name, meaning, default."""
    indent = max(len(field.name) for field in fields) + 4
    rows = []
    for field in fields:
        # A range or a tuple, such as [0, 1), is not broken between its numbers.
        text = re.sub(r', (?=\d)', ',\xa0', f'{field.doc} [{field.default!r}]')
        lines = textwrap.wrap(text, HELP_WIDTH - indent)
        rows += [f'  {field.name}'.ljust(indent) + lines[0], *(' ' * indent + x for x in lines[1:])]
    return '\n'.join(rows).replace('\xa0', ' ')
