"""Reads a configuration: a file, and then the fields set on the command line."""

import contextlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import files
from configs import base, schema, shortening, smoke
from errors import UserError, did_you_mean, shortened

ROOT = Path(__file__).resolve().parent.parent  # the program's own folder
# ConfigDict's message about a field that there is none of; it may list the whole configuration.
_MISSPELT = re.compile(r'\W*(?:Key \W*)?(\w+)\W*(?:does not exist|n?Did you mean|$)')


def load(path: str) -> ConfigDict:
    """Reads a .py file with get_config(), or a .json file that a run or sweep has written.

    Raises:
      UserError: the file does not exist or does not run; names the line.
    """
    file = found(path)
    if not file:
        hint = did_you_mean(path, _configs_near(path)) or (
            ' `python train.py --list` prints the configurations.'
        )
        raise UserError(f'There is no config file {shortened(path)}.{hint}')
    return _load_json(file) if file.suffix == '.json' else call(str(file), 'get_config')


def found(path: str) -> Path | None:
    """Returns the regular file of a path, or None; relative to here, else to the program."""
    return next((file for file in (Path(path), ROOT / path) if files.is_file(file)), None)


def _configs_near(path: str) -> list[str]:
    """Returns the configurations in the folder of a path, written as the path is."""
    near = []
    for base_folder in (Path(), ROOT):
        folder = base_folder / Path(path).parent
        with contextlib.suppress(OSError, ValueError):
            near += [
                str(file.relative_to(base_folder) if not Path(path).is_absolute() else file)
                for file in sorted(folder.glob('*.py'))
                if files.is_file(file) and _has_config(file)
            ]
    return near


def _has_config(path: Path) -> bool:
    return 'def get_config(' in path.read_text(errors='replace') and path.stem != 'base'


def call(path: str, function: str) -> Any:
    """Calls a function without arguments in a .py file; returns its result.

    Raises:
      UserError: the file or the function does not exist or does not run; names the line.
    """
    file = found(path)
    if not file:
        raise UserError(f'There is no file {shortened(path)}.')
    spec = importlib.util.spec_from_file_location(f'{function}_{file.stem}', file)
    if spec is None:
        raise UserError(f'{path} is neither a .py file with {function}() nor a .json file.')
    module = importlib.util.module_from_spec(spec)
    # A dataclass, such as a network defined in the file, resolves its annotations there.
    sys.modules[spec.name] = module
    with _explaining_errors(file):
        spec.loader.exec_module(module)
        made = getattr(module, function, None)
        if callable(made):
            return made()
    raise UserError(f'{path} has no function {function}().')


@contextlib.contextmanager
def _explaining_errors(file: Path) -> Iterator[None]:
    """Turns whatever a file of the user's raises into a sentence that names the line."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() as well: a configuration does not end the program
        raise UserError(f'{file}{_line(file, error)}: {_reason(file, error)}') from error


def _load_json(file: Path) -> ConfigDict:
    remedy = 'Name a config.json that train.py has written.'
    values = base.as_written(files.read_json(file, dict, remedy))
    config = base.get_config()
    known = {field.name: field for field in base.fields()}
    with config.ignore_type():
        for name, value in schema.flatten(values).items():
            if name not in known:
                raise UserError(f'{file}: {_unknown(name, known, values)}')
            try:
                schema.assign(config, name, known[name].check(value))
            except UserError as error:
                raise UserError(f'{file}: {error}') from error
    return config


def _unknown(name: str, known: Iterable[str], values: dict[str, Any]) -> str:
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


def _line(file: Path, error: BaseException) -> str:
    """Returns ', line n' for an error that was raised while a file ran, or ''."""
    if isinstance(error, SyntaxError) and error.lineno and error.filename == str(file):
        return f', line {error.lineno}'
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    return f', line {frames[-1].lineno}' if frames else ''


def _reason(file: Path, error: BaseException) -> str:
    """Returns what went wrong while a file ran: the error, or the sentence for a misspelt field."""
    if isinstance(error, SystemExit):
        return 'it ends the program (sys.exit): remove that call.'
    try:
        text = ' '.join(str(error.args[0] if error.args else error).split())
    except Exception:  # the text of an error of the user's own
        text = ''
    frames = traceback.extract_tb(error.__traceback__)
    of_config = 'ml_collections' in Path(frames[-1].filename).parts
    if of_config and (name := _MISSPELT.match(text)):
        line = next((frame.line for frame in reversed(frames) if frame.filename == str(file)), '')
        written = re.search(rf'\w+\.((?:\w+\.)*{name[1]})\b', line)
        names = [field.name for field in base.fields()]
        return schema.unknown(written[1] if written else name[1], names)
    return f'{type(error).__name__}: {shortened(text, 300)}'


def from_arguments(path: str, arguments: list[str]) -> ConfigDict:
    """Loads a configuration, applies the command line, checks it, and shrinks a smoke run.

    If the command line makes the run so short that its schedule does not fit, that is scaled, and a
    line on standard error says so.

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
    before = config.copy_and_resolve_references()
    given = schema.override(config, arguments, base.fields())
    config = schema.validate(config, base.fields())
    fitting = shortening.fitted(config, before, given)
    if note := shortening.described(fitting, config):
        print(note, file=sys.stderr)
    return smoke.shrunk(fitting)


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
