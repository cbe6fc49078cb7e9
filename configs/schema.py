"""The configuration's mechanism: build from fields, load, override, check, compare."""

import ast
import difflib
from typing import Any

from ml_collections import ConfigDict

from errors import UserError, did_you_mean
from field import Field


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
    """Returns a new locked config, each field checked and of its own type.

    Raises:
      UserError: an unknown or missing field, a wrong type, a value out of range.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(f'get_config() must return a ConfigDict, not {type(config).__name__}.')
    known = {field.name: field for field in fields}
    flat = flatten(config)
    for name in flat:
        if name not in known:
            raise UserError(unknown(name, known))
    checked = build(fields)
    # Entered once: it walks through the whole configuration.
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


def unknown(name: str, known: Any) -> str:
    """The sentence for a field that does not exist; also looks at the last part of the name."""
    known = list(known)
    hint = did_you_mean(f'config.{name}', [f'config.{k}' for k in known])
    if not hint:
        leaves = {k.rpartition('.')[2]: k for k in known}
        near = difflib.get_close_matches(name.rpartition('.')[2], leaves, n=1)
        hint = f' Did you mean "config.{leaves[near[0]]}"?' if near else ''
    return f'config.{name} is not a field of the configuration.{hint}'


def assign(config: ConfigDict, name: str, value: Any) -> None:
    """Sets a field by its dotted name; the caller allows another type."""
    *sections, leaf = name.split('.')
    for section in sections:
        config = config[section]
    config[leaf] = value


def override(config: ConfigDict, arguments: list[str], fields: tuple[Field, ...]) -> None:
    """Applies '--config.a.b=value' arguments in place.

    Raises:
      UserError: no value, an unknown field, or a value of the wrong type or range.
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
    """The value that a command line means, by the field's type; text stays text where unsure."""
    if field.kind is str:
        # 'none' is a choice of some models, so that only Python's own spelling leaves a text out.
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
    # One item needs no brackets; a pattern such as stem* is no Python, and stays as it is.
    if field.items is str:
        return (value if isinstance(value, str) else text,)
    return (value,) if isinstance(value, int | float) else value


def differences(old: Any, new: Any, fields: tuple[Field, ...], scope: str) -> dict[str, tuple]:
    """Returns {name: (old, new)} of the fields of one scope that differ."""
    old, new = flatten(old), flatten(new)
    # A file of an earlier version lacks the fields that came later; it was run at their defaults.
    pairs = {
        field.name: tuple(plain(values.get(field.name, field.default)) for values in (old, new))
        for field in fields
        if field.scope == scope
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def plain(value: Any) -> Any:
    """The value as JSON gives it back: tuples become lists, ConfigDicts become dicts."""
    if isinstance(value, (ConfigDict, dict)):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def describe(fields: tuple[Field, ...]) -> str:
    """Returns the list of all fields for --help: name, default, meaning."""
    width = max(len(field.name) for field in fields)
    rows = [f'  {f.name:<{width}}  {f.doc} [{f.default!r}]' for f in fields]
    return '\n'.join(rows)
