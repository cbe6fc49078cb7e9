"""Reads a configuration: a file, and then the fields set on the command line."""

import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import files
from configs import base, schema, smoke
from errors import UserError, did_you_mean


def load(path: str) -> ConfigDict:
    """Reads a .py file with get_config(), or a .json file that a run or sweep has written.

    Raises:
      UserError: the file does not exist or does not run; names the line.
    """
    file = Path(path)
    if not file.is_file():
        near = [str(p) for p in file.parent.glob('*.py') if _has_config(p)]
        hint = did_you_mean(path, near) or ' `python train.py --list` prints the configurations.'
        raise UserError(f'There is no config file {path}.{hint}')
    if file.suffix == '.json':
        return _load_json(file)
    return call(path, 'get_config')


def _has_config(path: Path) -> bool:
    return 'def get_config(' in path.read_text(errors='replace') and path.stem != 'base'


def call(path: str, function: str) -> Any:
    """Calls a function without arguments in a .py file; returns its result.

    Raises:
      UserError: the file or the function does not exist or does not run; names the line.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f'There is no file {path}.')
    spec = importlib.util.spec_from_file_location(f'{function}_{file.stem}', file)
    if spec is None:
        raise UserError(f'{path} is neither a .py file with {function}() nor a .json file.')
    module = importlib.util.module_from_spec(spec)
    # A dataclass, such as a network defined in the file, resolves its annotations there.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(_where(path, error)) from error
    if not hasattr(module, function):
        raise UserError(f'{path} has no function {function}().')
    try:
        return getattr(module, function)()
    except Exception as error:
        raise UserError(_where(path, error)) from error


def _load_json(file: Path) -> ConfigDict:
    values = files.read_json(file, dict, 'Name a config.json that train.py has written.')
    config = base.get_config()
    known = schema.flatten(config)
    with config.ignore_type():
        for name, value in schema.flatten(values).items():
            if name not in known:
                raise UserError(f'{file}: {_unknown(name, known, values)}')
            schema.assign(config, name, tuple(value) if isinstance(value, list) else value)
    return config


def _unknown(name: str, known: dict[str, Any], values: dict[str, Any]) -> str:
    """Returns the sentence for an unknown field, or for what a program has not registered."""
    from models import registry as models
    from tasks import registry as tasks

    model = values.get('model')
    for kind, given, names in (
        ('task', values.get('task'), tasks.names()),
        ('model', model.get('name') if isinstance(model, dict) else None, models.names()),
    ):
        if isinstance(given, str) and given not in names:
            return (
                f'there is no {kind} "{given}". A {kind} of your own has to be registered by the '
                'program that reads this file; see "Your own model" in docs/models.md.'
            )
    return schema.unknown(name, known)


def _where(path: str, error: Exception) -> str:
    """Returns 'file, line n: error' for an error that was raised while a file ran."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = f', line {frames[-1].lineno}' if frames else ''
    if isinstance(error, SyntaxError) and error.lineno:
        line = f', line {error.lineno}'
    text = ' '.join(str(error.args[0] if error.args else error).split())
    return f'{path}{line}: {type(error).__name__}: {text}'


def from_arguments(path: str, arguments: list[str]) -> ConfigDict:
    """Loads a configuration, applies the command line, checks it, and shrinks a smoke run.

    Raises:
      UserError: the file or the command line is wrong.
    """
    config = load(path)
    try:
        config = schema.validate(config, base.fields())
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    if Path(path).suffix == '.json':
        _leave_to_the_command_line(config, path, arguments)
    schema.override(config, arguments, base.fields())
    return smoke.shrunk(schema.validate(config, base.fields()))


def _leave_to_the_command_line(config: ConfigDict, path: str, arguments: list[str]) -> None:
    """Resets what a JSON file may not decide, in place, and says so unless the arguments set it.

    A run leaves a config.json that others copy and resume. The programs in a cache are executed,
    and processes connect to an address: neither may be chosen by whoever wrote the file.
    """
    given = {argument.partition('=')[0] for argument in arguments}
    for name in ('compilation_cache', 'distributed'):
        value, option = config[name], f'--config.{name}'
        if value in ('auto', 'off'):
            continue
        config[name] = 'auto'
        if option not in given:
            print(
                f'{path} says {name}={value}, which only the command line may say: "auto" is used; '
                f'{option}={value} uses that.',
                file=sys.stderr,
            )
