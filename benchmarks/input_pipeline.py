"""Speed of the input pipeline beside what a user would pick instead.

    python -m benchmarks.input_pipeline --source=FOLDER_OF_JPEGS \\
        --tensorflow_python=TF/bin/python --torch_python=TORCH/bin/python

The work: JPEG files of any size, shuffled, for ever -> random-resized crop (antialiased), flip,
uint8, in batches. All pipelines get the same files and as many threads (PyTorch: worker processes).
They take turns within one run, each in a process of its own, and the figures are medians of the
turns: quote their ratios, for the rates are those of this machine at this hour. Beside other load
only "per CPU s" says something.

tf.data's own defaults are less work: its sampler draws smaller boxes (on ImageNet 14 % fewer
pixels), its inverse DCT is the fast one, and its resize does not filter. Two rows give it our
boxes, and two let it filter as we do.

TensorFlow and PyTorch are needed for their rows only, each in any Python that has it:

    python3 -m venv TF && TF/bin/pip install tensorflow-cpu
    python3 -m venv TORCH && TORCH/bin/pip install torch torchvision

Three checks of our reader take the place of the contest: --accuracy, --stages, --memory.
"""

import argparse
import collections
import dataclasses
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import console as rich_console
from rich import table as rich_table

import command
from benchmarks import contest, pictures
from benchmarks import output as output_file
from errors import UserError

_CONTESTANTS = Path(__file__).parent / 'contestants'
_GOAL = 1.0  # mean difference to Pillow, of 255
_STEADY = 16.0  # megabytes that a process's memory may swing by


def make_entries(arguments: argparse.Namespace, scratch: Path) -> list[contest.Entry]:
    """Prepares the pictures, and returns what to start, ours first.

    A contestant's work: 'pictures' (folder of class folders), 'scratch' (folder to write in),
    'batch_size', 'size', 'threads', 'scale' and 'ratio' of the crop, and for ours also 'data_dir',
    'name' and 'variant'; for tf.data 'antialias', and 'boxes' if it takes ours (see draw_boxes).
    """
    work = make_work(arguments, scratch)
    python = [sys.executable, '-m', 'benchmarks.contestants.ours']
    entries = [
        contest.Entry('ours', python, work),
        contest.Entry('ours, without Grain', python, {**work, 'variant': 'threads'}),
    ]
    if arguments.shorter_side:
        side = arguments.shorter_side
        name = pictures.prepare(Path(work['pictures']), scratch / 'data', side)
        entries.append(contest.Entry(f'ours, shorter side {side}', python, {**work, 'name': name}))
    if arguments.tensorflow_python:
        child = [arguments.tensorflow_python, _CONTESTANTS / 'tensorflow_data.py']
        for name, more in (
            ('tf.data', {'antialias': False}),
            ('tf.data, antialias', {'antialias': True}),
            ('tf.data, our boxes', {'antialias': False, 'boxes': draw_boxes(work)}),
            ('tf.data, both', {'antialias': True, 'boxes': draw_boxes(work)}),
        ):
            entries.append(contest.Entry(name, child, {**work, **more}))
    if arguments.torch_python:
        child = [arguments.torch_python, _CONTESTANTS / 'torch_data.py']
        entries.append(contest.Entry('torch DataLoader, Pillow', child, work))
    return entries


def make_work(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Prepares the pictures, and returns the work of our own pipeline."""
    folder = pictures.lay_out(arguments.source.expanduser(), scratch / 'pictures')
    name = pictures.prepare(folder, scratch / 'data')
    return {
        'pictures': str(folder),
        'scratch': str(scratch),
        'data_dir': str(scratch / 'data'),
        'name': name,
        'variant': 'pipeline',
        'batch_size': arguments.batch_size,
        'size': arguments.size,
        'threads': arguments.threads,
        'scale': pictures.SCALE,
        'ratio': pictures.RATIO,
    }


def draw_boxes(work: dict[str, Any], visits: int = 50) -> str:
    """Writes boxes as our pipeline draws them; returns the JSON file's path.

    For each picture, in the order of its path, a list of [top, left, height, width].
    """
    from benchmarks import reader

    files = sorted(Path(work['pictures']).glob('*/*'))
    encoded = [file.read_bytes() for file in files]
    boxes = [
        [reader.draw_crop(0, visit, *pair, work['size']).box for visit in range(visits)]
        for pair in enumerate(encoded)
    ]
    path = Path(work['scratch']) / 'boxes.json'
    path.write_text(json.dumps(boxes))
    return str(path)


def compare(
    arguments: argparse.Namespace, scratch: Path, console: rich_console.Console
) -> dict[str, Any]:
    """Runs the contest and prints its table; returns what belongs into the JSON file."""
    left_out = {}

    def leave_out(name: str, reason: str) -> None:
        left_out[name] = reason
        console.print(f'{name} is left out: {reason}', markup=False)

    for option, name in (('tensorflow', 'tf.data'), ('torch', 'torch DataLoader')):
        if not getattr(arguments, f'{option}_python'):
            leave_out(name, f'give --{option}_python, a Python that has it.')
    entries = make_entries(arguments, scratch)
    turns: dict[str, list[contest.Turn]] = collections.defaultdict(list)
    with contest.started(entries, scratch, leave_out) as contestants:
        if entries[0].name not in contestants:
            raise UserError(f'Our own pipeline does not run: {left_out[entries[0].name]}')
        about = {name: contestant.about for name, contestant in contestants.items()}
        plays = contest.play(contestants, arguments.rounds, arguments.batches, arguments.warm_up)
        with console.status('warming up') as status:
            for name, turn in plays:
                turns[name].append(turn)
                number = len(turns[name])
                status.update(f'round {number} of {arguments.rounds}: {name}')
    scores = contest.score(turns)
    console.print(make_table(scores, arguments))
    return {
        'scores': [dataclasses.asdict(score) for score in scores],
        'turns': {name: [dataclasses.asdict(turn) for turn in own] for name, own in turns.items()},
        'about': about,
        'left_out': left_out,
    }


def make_table(scores: Sequence[contest.Score], arguments: argparse.Namespace) -> rich_table.Table:
    """Returns the contest's table for the terminal."""
    table = rich_table.Table(
        title=f'{arguments.threads} threads, {arguments.size} px, batches of '
        f'{arguments.batch_size}: medians of {arguments.rounds} turns',
        caption='ours/it is above 1 where ours is the faster one; per CPU s: images per second of '
        'CPU time, which other load disturbs less.',
    )
    table.add_column('pipeline', no_wrap=True)
    for column in ('images/s', 'range', 'ours/it', 'per CPU s', 'ours/it'):
        table.add_column(column, justify='right')
    for score in scores:
        table.add_row(
            score.name,
            f'{score.rate:.0f}',
            f'{score.slowest:.0f}-{score.fastest:.0f}',
            f'{score.ratio:.2f}',
            f'{score.cpu_rate:.0f}',
            f'{score.cpu_ratio:.2f}',
        )
    return table


def check_accuracy(
    arguments: argparse.Namespace, scratch: Path, console: rich_console.Console
) -> dict[str, Any]:
    """Compares our crops with Pillow's, over the same boxes."""
    from benchmarks import reader

    crops = reader.draw_crops(make_work(arguments, scratch), visits=3)
    found = reader.differences(crops, arguments.size)
    result = {
        'crops': len(found),
        'mean': float(found.mean()),
        'largest_of_a_crop': float(found.max()),
        'reached': bool(found.mean() <= _GOAL),
    }
    console.print(
        f'Mean absolute difference to Pillow (antialiased) over {len(found)} crops: '
        f'{found.mean():.3f} of 255, in the worst crop {found.max():.2f}. '
        f'Goal: {_GOAL:g}, {"reached" if result["reached"] else "missed"}.'
    )
    return result


def check_stages(
    arguments: argparse.Namespace, scratch: Path, console: rich_console.Console
) -> dict[str, Any]:
    """Prints where the time of one image goes."""
    from benchmarks import reader

    work = make_work(arguments, scratch)
    measured = reader.stages(work, reader.draw_crops(work, visits=3), arguments.rounds)
    table = rich_table.Table(title='CPU time per image on one thread')
    table.add_column('stage')
    table.add_column('microseconds', justify='right')
    for name, microseconds in measured.items():
        table.add_row(name, f'{microseconds:.0f}')
    console.print(table)
    return {'microseconds': measured}


def check_memory(
    arguments: argparse.Namespace, scratch: Path, console: rich_console.Console
) -> dict[str, Any]:
    """Prints the memory of this process while it reads."""
    from benchmarks import reader

    work = make_work(arguments, scratch)
    indices, batches = arguments.memory_indices, arguments.memory_batches
    found = {
        'record indices': reader.resident(reader.record_indices(work, indices), indices),
        'decoded batches': reader.resident(reader.decoded_batches(work, batches), batches),
    }
    result = {}
    for name, points in found.items():
        grown = reader.growth([megabytes for _, megabytes in points])
        verdict = 'flat' if grown < _STEADY else 'GROWING'
        table = rich_table.Table(title=f'Resident memory: {verdict} ({grown:+.1f} MB)')
        table.add_column(name, justify='right')
        table.add_column('MB', justify='right')
        for done, megabytes in points:
            table.add_row(f'{done:,}', f'{megabytes:.1f}')
        console.print(table)
        result[name] = {'points': points, 'growth': grown, 'flat': grown < _STEADY}
    return result


def main(argv: list[str]) -> None:
    """Runs the contest or a check; prints a table and writes --output."""
    arguments = _make_parser().parse_args(argv)
    console = rich_console.Console()
    with output_file.reserved(arguments.output) as output:
        with tempfile.TemporaryDirectory() as scratch:
            result = arguments.run(arguments, Path(scratch), console)
        options = {name: value for name, value in vars(arguments).items() if name != 'run'}
        text = {'options': options, 'machine': _machine(), **result}
        if output:
            output.write_text(json.dumps(text, indent=2, default=str) + '\n')
            console.print(f'Written: {output}', markup=False)


def _machine() -> dict[str, Any]:
    """What the figures depend on."""
    import psutil

    return {
        'system': platform.platform(),
        'processor': platform.processor() or platform.machine(),
        'cores': psutil.cpu_count(),
        'load_average': psutil.getloadavg(),
    }


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.input_pipeline',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=compare)
    parser.add_argument('--source', type=Path, required=True, help='folder of JPEG files')
    parser.add_argument('--output', type=Path, help='JSON file for all figures')
    group = parser.add_argument_group('the work')
    for name, default, what in (
        ('threads', 2, 'threads of each pipeline'),
        ('batch_size', 256, 'images in a batch'),
        ('size', 224, 'side of the crops in pixels'),
        ('batches', 16, 'batches in a turn'),
        ('rounds', 7, 'turns of each'),
        ('warm_up', 8, 'batches before the first turn'),
    ):
        group.add_argument(
            f'--{name}', type=command.positive, default=default, help=f'{what} (default {default})'
        )
    group = parser.add_argument_group('rows')
    group.add_argument('--tensorflow_python', type=Path, help='a Python that has TensorFlow')
    group.add_argument('--torch_python', type=Path, help='a Python with PyTorch and torchvision')
    group.add_argument(
        '--shorter_side', type=command.positive, help='add ours on pictures re-encoded at that size'
    )
    group = parser.add_argument_group('checks, in place of the contest')
    either = group.add_mutually_exclusive_group()
    for name, function, what in (
        ('accuracy', check_accuracy, "our crops' difference to Pillow's"),
        ('stages', check_stages, 'where the time of an image goes'),
        ('memory', check_memory, 'resident memory over many batches'),
    ):
        either.add_argument(
            f'--{name}', dest='run', action='store_const', const=function, help=what
        )
    for name, default in (('memory_batches', 1000), ('memory_indices', 10**7)):
        group.add_argument(
            f'--{name}', type=command.positive, default=default, help=f'(default {default:,})'
        )
    return parser


if __name__ == '__main__':
    command.run(main)
