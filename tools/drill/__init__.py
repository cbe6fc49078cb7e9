"""Does to tiny runs what happens to real ones: kills, signals, damage, full disks, odd input.

    python -m tools.drill --minutes=5
    python -m tools.drill --only=kills,signals --trials=200 --minutes=60
    python -m tools.drill --only=files --trials=10000 --seed=7

Each trial does something that is drawn from (seed, kind, number), and then checks what
docs/reliability.md promises. The kinds take turns until the time is over, or until each has had
--trials. The folder of a trial that did not hold is kept, and named.

exit codes:
  0   every promise held
  1   at least one did not; the folders are named
  2   the command is wrong
"""

import argparse
import sys
import tempfile
from pathlib import Path

import command
from errors import UserError

KINDS = ('kills', 'signals', 'damage', 'room', 'configs', 'files', 'sweeps')


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command.make_parser('tools.drill', __doc__)
    add = parser.add_argument
    add('--minutes', type=command.positive, default=5, metavar='N', help='how long it may take [5]')
    add('--trials', type=command.positive, metavar='N', help='trials of each kind [no limit]')
    add('--only', metavar='KIND[,KIND]', help=f'kinds of trials [{",".join(KINDS)}]')
    add('--seed', type=int, default=0, metavar='N', help='what all trials are drawn from [0]')
    add('--jobs', type=command.positive, metavar='N', help='trials at a time [half of the cores]')
    add('--folder', type=Path, metavar='DIR', help='folder for the trials [a temporary one]')
    add('--markdown', action='store_true', help='print the table as Markdown')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, extra = command.parse(parser(), argv)
    if extra:
        raise UserError(f'{extra[0]} means nothing to tools.drill, whose runs are its own.')
    kinds = command.chosen(arguments.only, KINDS, 'kind of trial')
    if arguments.folder and arguments.folder.exists() and any(arguments.folder.iterdir()):
        raise UserError(f'--folder={arguments.folder} is not empty: choose a new one.')
    from tools.drill import session

    folder = arguments.folder or Path(tempfile.mkdtemp(prefix='drill_'))
    table = session.drill(
        folder.resolve(),
        kinds,
        minutes=arguments.minutes,
        trials=arguments.trials,
        seed=arguments.seed,
        jobs=arguments.jobs,
    )
    print(table.markdown() if arguments.markdown else table.text())
    for failure in table.failures:
        print(f'did not hold: {failure}', file=sys.stderr)
    return 1 if table.failures else 0
