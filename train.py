"""Trains a network: python train.py --config=configs/digits_lenet.py --workdir=runs/digits."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import command
from distributed.preemption import Preemption
from errors import UserError

ROOT = Path(__file__).resolve().parent
NO_EXPERIMENT = (
    '__init__',
    'base',
    'imagenet',
    'reading',
    'schema',
    'search',
    'shortening',
    'smoke',
)  # files in configs/ that are no experiments

EPILOG = """\
examples:
  python train.py --config=configs/digits_lenet.py --workdir=runs/digits
  python train.py --config=configs/mnist_lenet.py --workdir=runs/tanh --config.model.activation=tanh
  python train.py --workdir=runs/digits                  resume a run that was stopped
  python train.py --config=runs/digits/config.json --workdir=runs/again     repeat a run

exit codes:
  0   the run is finished
  2   the command or its input is wrong; the message says what to change
  69  another process of the run hangs or is gone; the same command resumes the run
  75  stopped after saving, by Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2; the same command resumes
      the run
  130 aborted by a second Ctrl-C or SIGTERM; the same command resumes from the last checkpoint

fields of the configuration, set by --config.NAME=VALUE, with their defaults in brackets:
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose help lists the fields, which import JAX; mistakes need not wait for that."""

    def format_help(self) -> str:
        """Returns the help with all fields of the configuration."""
        from configs import base, schema

        self.epilog = EPILOG + schema.describe(base.fields())
        return super().format_help()


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = _Parser(
        description='Trains a network by a configuration file, and tests it once at the end. '
        'The same configuration gives the same numbers, however often the run is stopped.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        '--config',
        metavar='FILE',
        help='a file of configs/, or a config.json; may be left out to resume the run in --workdir',
    )
    add(
        '--workdir',
        metavar='DIR',
        help='folder for checkpoints, records and result; a run that it holds is resumed',
    )
    add(
        '--resume',
        choices=('auto', 'must', 'never'),
        default='auto',
        help='auto: resume if --workdir holds a run; must: fail if it does not; never: fail if it '
        'does [auto]',
    )
    add(
        '--extend',
        action='store_true',
        help='allow more epochs or steps than the run in --workdir was started with',
    )
    add('--list', action='store_true', help='print configurations, tasks, and models with options')
    return parser


def listing() -> str:
    """Returns the available configurations, tasks and models as text."""
    import ast

    import models
    from tasks import registry

    lines = ['configurations:']
    for path in sorted((ROOT / 'configs').glob('*.py')):
        if path.stem not in NO_EXPERIMENT:
            text = (ast.get_docstring(ast.parse(path.read_text())) or '').partition('\n')[0]
            lines.append(f'  configs/{path.name:<27} {text}')
    lines += ['', 'tasks (--config.task=NAME):', f'  {", ".join(registry.names())}']
    lines += ['', 'models, with their options, defaults first (--config.model.OPTION=VALUE):']
    alike = {}
    for name in models.names():
        alike.setdefault(_options(models.options(name)), []).append(name)
    for options, names in alike.items():
        lines += [f'  {", ".join(names)}', f'      {options}']
    return '\n'.join(lines)


def _options(options: Mapping[str, Any]) -> str:
    """Returns the options of a model as a line, each with its default and its other values."""
    texts = []
    for name, option in options.items():
        others = [choice for choice in option.choices or () if choice != option.default]
        texts.append(f'{name}={"|".join(map(str, [option.default, *others]))}')
    return ', '.join(texts)


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    if arguments.list:
        print(listing())
        return 0
    if not arguments.workdir:
        raise UserError('--workdir=DIR is missing: the folder for the checkpoints and results.')
    # Signals are caught before anything slow is imported.
    with Preemption() as preemption:
        return train(arguments, overrides, preemption)


def train(arguments: argparse.Namespace, overrides: list[str], preemption: Preemption) -> int:
    """Trains as the options say; returns the exit code."""
    from configs import reading
    from training import workdir

    path = arguments.config
    if not path:
        path = str(Path(arguments.workdir) / workdir.CONFIG)
        if not Path(path).is_file():
            raise UserError(
                f'--config=FILE is missing, and {arguments.workdir} holds no run to resume; '
                '`python train.py --list` prints the configurations.'
            )
    config = reading.from_arguments(path, overrides)
    from training import run

    return run.train(
        config, arguments.workdir, arguments.resume, arguments.extend, preemption=preemption
    )


if __name__ == '__main__':
    command.run(main)
