"""Looks into a trained network: writes pictures of what it has learned and of how it answers.

    python -m tools.inspect --workdir=runs/digits_lenet
    python -m tools.inspect --workdir=runs/digits_lenet docs/images/seven.png
    python -m tools.inspect --workdir=runs/digits_lenet --only=filters --output=seen

Pictures are read as by predict.py. The parts that need one are left out without an IMAGE, and those
that need the data set where it is not there. The files go into WORKDIR/inspect, with index.html,
which shows them all. Nothing else is changed: a folder with other files in it is refused.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import command
from errors import UserError
from tools.inspect.parts import DATA, EITHER, PARTS, PICTURES, Part

if TYPE_CHECKING:  # JAX is imported once the command line is valid
    from tools.inspect.work import Work

OPTIONS = ('layer', 'stage', 'class', 'method', 'unit')  # each is obeyed by some parts only
NEEDS = {
    PICTURES: 'needs an IMAGE',
    DATA: 'needs the data set',
    EITHER: 'needs several IMAGEs, or the data set',
}


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    width = max(len(part.name) for part in PARTS)
    notes = {part: f' ({NEEDS[part.needs]})' if part.needs in NEEDS else '' for part in PARTS}
    listed = ''.join(f'  {p.name:<{width}}  {p.about}{notes[p]}\n' for p in PARTS)
    parser = command.make_parser('tools.inspect', f'{__doc__}\nparts:\n{listed}')
    parser.epilog = (
        'exit codes: 0 done; 2 the command or its input is wrong, a picture could not be read, or '
        'a part of --only could not be done (the others are)'
    )
    add = parser.add_argument
    add('images', metavar='IMAGE', nargs='*', help='PNG or JPEG file, or a folder of them')
    add('--workdir', metavar='DIR', required=True, help='folder of the run')
    add('--output', metavar='DIR', type=Path, help='folder for the files [WORKDIR/inspect]')
    add('--checkpoint', metavar='WHICH', default='last', help='last, best, or a step [last]')
    add('--only', metavar='PART[,PART]', help='the parts to do [all that can be done]')
    add('--layer', metavar='NAME', help='the layer to show, as in tools.summary [all]')
    add('--stage', metavar='NAME', help='the stage to show, or to explain by [all, or the last]')
    add('--unit', metavar='STAGE:N[,...]', help='the units whose pictures to show, such as conv2:5 '
        '[some of each stage]')  # fmt: skip
    add(
        '--class',
        metavar='NAME[,NAME]',
        help="the classes, or other parts of the answer, to explain [the network's answer]",
    )
    add(
        '--method',
        metavar='NAME[,NAME]',
        help='how to explain it: grad_cam, occlusion, integrated_gradients, smooth_grad, gradient '
        '[all]',
    )
    add(
        '--split',
        choices=('train', 'validation', 'test'),
        default='validation',
        help='split of the data set to look at [validation]',
    )
    add(
        '--most',
        metavar='N',
        type=command.positive,
        default=10_000,
        help='examples of the split to look at, at most [10000]',
    )
    add(
        '--invert',
        choices=('auto', 'yes', 'no'),
        default='auto',
        help='invert brightness: for a bright border, always, or never [auto]',
    )
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    begin = time.monotonic()
    arguments, overrides = command.parse(parser(), argv)
    parts, left_out = chosen(arguments)
    from tools.inspect import work as working

    work = working.prepared(arguments, overrides)
    print(work.title, flush=True)
    failed, said = bool(work.unreadable), set()
    for part in parts:
        failed |= not done(part, work, is_asked_for(part, arguments, parts), said)
    for part in left_out:
        print(f'left out: {part.name}, which {NEEDS[part.needs]}', flush=True)
    seconds = time.monotonic() - begin
    files = f'{work.output.count} file' + 's' * (work.output.count != 1)
    print(f'{files} in {seconds:.1f} s; {work.output.page()} shows all')
    return UserError.exit_code if failed else 0


def chosen(arguments: argparse.Namespace) -> tuple[list[Part], list[Part]]:
    """Returns the parts that are to be done, and those that are left out without an IMAGE.

    Raises:
      UserError: --only names a part that does not exist or needs an IMAGE, or an option is given
        that none of the parts obeys.
    """
    names = command.chosen(arguments.only, [part.name for part in PARTS], 'part')
    wanted = [part for part in PARTS if part.name in names]
    without = [part for part in wanted if part.needs == PICTURES and not arguments.images]
    if without and arguments.only is not None:
        raise UserError(f'--only={without[0].name} needs an IMAGE: name a picture or a folder.')
    parts = [part for part in wanted if part not in without]
    for option in OPTIONS:
        if getattr(arguments, option) is not None and not any(
            option in part.options for part in parts
        ):
            able = ', '.join(part.name for part in PARTS if option in part.options)
            raise UserError(
                f'--{option} means nothing to what is to be done; it is for the parts {able}'
                + (', some of which need an IMAGE.' if without else '.')
            )
    return parts, without


def is_asked_for(part: Part, arguments: argparse.Namespace, parts: Sequence[Part]) -> bool:
    """Whether it is an error if a part cannot be done.

    It is for a part of --only, and for the only one of `parts` that obeys an option that is given.
    """
    for option in part.options:
        others = [other for other in parts if option in other.options and other is not part]
        if getattr(arguments, option) is not None and not others:
            return True
    return arguments.only is not None


def done(part: Part, work: 'Work', asked: bool, said: set[str]) -> bool:
    """Does a part; returns False where it cannot be done and was asked for.

    A part that cannot be done says so in a sentence, and the next one follows.

    Args:
      part: the part.
      work: what it works with.
      asked: see `is_asked_for`.
      said: the sentences of the parts before; that of this one is added. None is said twice.

    Raises:
      UserError: its files cannot be written.
    """
    from tools.inspect.output import CannotWriteError

    print(f'{part.name}: {part.about}', flush=True)
    begin = time.monotonic()
    try:
        with work.output.of(part.name):
            part.write(work)
    except CannotWriteError:
        raise
    except UserError as error:
        reason = 'for the same reason' if str(error) in said else str(error)
        said.add(str(error))
        if asked:
            print(f'error: {part.name}: {reason}', file=sys.stderr)
        else:
            print(f'  left out: {reason}')
        return not asked
    print(f'  done in {time.monotonic() - begin:.1f} s', flush=True)
    return True
