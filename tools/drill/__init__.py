"""Does to tiny runs what happens to real ones: kills, signals, damage, full disks, odd input.

    python -m tools.drill --minutes=5
    python -m tools.drill --only=kills,signals --trials=200 --minutes=60
    python -m tools.drill --trials=kills=200,files=10000 --minutes=60 --seed=7

Each trial does something that is drawn from (seed, kind, number), and then checks what
docs/reliability.md promises. The kinds take turns until the time is over, or until each has had its
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
from errors import UserError, did_you_mean

KINDS = ('kills', 'signals', 'damage', 'room', 'configs', 'files', 'sweeps')


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command.make_parser('tools.drill', __doc__)
    add = parser.add_argument
    add('--minutes', type=command.positive, default=5, metavar='N', help='how long it may take [5]')
    add('--trials', metavar='N', help='trials of each kind, or KIND=N,KIND=N [no limit]')
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
    trials = limits(arguments.trials)
    only = arguments.only
    if only is None and trials and set(trials) < set(KINDS):
        only = ','.join(trials)
    kinds = command.chosen(only, KINDS, 'kind of trial')
    if arguments.folder and arguments.folder.exists() and any(arguments.folder.iterdir()):
        raise UserError(f'--folder={arguments.folder} is not empty: choose a new one.')
    from tools.drill import session

    folder = arguments.folder or Path(tempfile.mkdtemp(prefix='drill_'))
    table = session.drill(
        folder.resolve(),
        kinds,
        minutes=arguments.minutes,
        trials=trials,
        seed=arguments.seed,
        jobs=arguments.jobs,
    )
    print(table.markdown() if arguments.markdown else table.text())
    for failure in table.failures:
        print(f'did not hold: {failure}', file=sys.stderr)
    return 1 if table.failures else 0


def limits(text: str | None) -> dict[str, int] | None:
    """Returns {kind: number of trials} of --trials; None for no limit.

    Raises:
      UserError: the text is neither a number nor KIND=N,KIND=N.
    """
    if text is None:
        return None
    pairs = [part.rpartition('=')[::2] for part in text.split(',')]
    if [kind for kind, _ in pairs] == ['']:
        pairs = [(kind, text) for kind in KINDS]
    for kind, number in pairs:
        if kind not in KINDS:
            raise UserError(
                f'--trials={text}: there is no kind of trial "{kind}"; give a number, or '
                f'KIND=N,KIND=N with {", ".join(KINDS)}.{did_you_mean(kind, KINDS)}'
            )
        if not (number.isascii() and number.isdecimal() and int(number[:10]) > 0):
            raise UserError(f'--trials={text}: "{number}" is not a whole number above 0.')
    return {kind: int(number) for kind, number in pairs}
