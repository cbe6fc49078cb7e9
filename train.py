"""Trains a network: python train.py --config=configs/digits_lenet.py --workdir=runs/digits."""

import argparse
from pathlib import Path

import command
from errors import UserError

ROOT = Path(__file__).resolve().parent
NO_EXPERIMENT = (
    '__init__',
    'base',
    'imagenet',
    'reading',
    'schema',
    'search',
    'smoke',
)  # of the files in configs/

EPILOG = """\
examples:
  python train.py --config=configs/digits_lenet.py --workdir=runs/digits
  python train.py --config=configs/mnist_lenet.py --workdir=runs/tanh --config.model.activation=tanh
  python train.py --workdir=runs/digits                  go on with a run that was stopped
  python train.py --config=runs/digits/config.json --workdir=runs/again     repeat a run

exit codes: 0 done, 2 a mistake in the command or its input, 75 stopped by SIGTERM, SIGUSR2 or
Ctrl-C after saving (start again to go on), 69 another process of the run hangs or is gone (the
same).

fields of the configuration, each settable by --config.NAME=VALUE [default]:
"""


def parser() -> argparse.ArgumentParser:
    """Returns the command line's parser."""
    from configs import base, schema

    parser = argparse.ArgumentParser(
        description='Trains a network as a configuration file says, and tests it once at the end. '
        'The same configuration gives the same numbers, however often the run is stopped.',
        epilog=EPILOG + schema.describe(base.fields()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        '--config',
        metavar='FILE',
        help='a file of configs/, or a config.json; leave it out to go on with the run there',
    )
    add(
        '--workdir',
        metavar='DIR',
        help='folder of the run: checkpoints, records, result; a run that is there is gone on with',
    )
    add(
        '--resume',
        choices=('auto', 'must', 'never'),
        default='auto',
        help='go on if there is a run, only if there is one, or never [auto]',
    )
    add(
        '--extend',
        action='store_true',
        help='let the run in --workdir have more epochs or steps than before',
    )
    add('--list', action='store_true', help='print configurations and models')
    return parser


def listing() -> str:
    """Returns the configurations and models that there are."""
    import ast

    import models

    lines = ['configurations:']
    for path in sorted((ROOT / 'configs').glob('*.py')):
        if path.stem not in NO_EXPERIMENT:
            text = (ast.get_docstring(ast.parse(path.read_text())) or '').partition('\n')[0]
            lines.append(f'  configs/{path.name:<27} {text}')
    lines += ['', 'models, with their options, defaults first (--config.model.OPTION=VALUE):']
    alike = {}
    for name in models.names():
        alike.setdefault(_options(models.options(name)), []).append(name)
    for options, names in alike.items():
        lines += [f'  {", ".join(names)}', f'      {options}']
    return '\n'.join(lines)


def _options(options: dict) -> str:
    """The options of a model on one line, each with its default and then its other values."""
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
    from configs import reading
    from training import workdir

    path = arguments.config
    if not path:
        path = str(Path(arguments.workdir) / workdir.CONFIG)
        if not Path(path).is_file():
            raise UserError('--config=FILE is missing; `python train.py --list` shows what is.')
    config = reading.from_arguments(path, overrides)
    from training import run

    return run.train(config, arguments.workdir, arguments.resume, arguments.extend)


if __name__ == '__main__':
    command.run(main)
