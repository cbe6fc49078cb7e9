"""Speed of the input pipeline beside what a user would pick instead.

    python -m benchmarks.input_pipeline --source=FOLDER_OF_JPEGS \\
        --tensorflow_python=TF/bin/python --torch_python=TORCH/bin/python

The task: JPEG files of any size, shuffled, for ever -> random-resized crop (antialiased), flip,
uint8, in batches. All pipelines get the same files and as many threads (PyTorch: worker processes).
They take turns: quote ratios of medians. Under other load only "per CPU s" is of use.

tf.data's own defaults are less work: its sampler draws smaller boxes (on ImageNet 14 % fewer
pixels), its inverse DCT is the fast one, and its resize does not filter. Two rows give it our
boxes, and two let it filter as we do.

TensorFlow and PyTorch are needed for their rows only, each in any Python that has it:

    python3 -m venv TF && TF/bin/pip install tensorflow-cpu
    python3 -m venv TORCH && TORCH/bin/pip install torch torchvision

Three checks of our reader replace the comparison: --accuracy, --stages, --memory.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

import command
import processes
from benchmarks import contest, reader
from benchmarks.contest import Contestant
from benchmarks.networks import CONTESTANTS
from benchmarks.tables import BenchmarkTable, describe_machine
from errors import UserError

NAME = 'benchmark'  # of the data set that the pictures are prepared as
_GOAL = 1.0  # mean difference to Pillow, of 255
_STEADY = 16.0  # megabytes by which a process's memory may vary


def make_contestants(arguments: argparse.Namespace, work: dict[str, Any]) -> list[Contestant]:
    """Returns what to start, ours first.

    Besides `make_work`, tf.data's work has 'antialias', and 'boxes' where it uses ours.
    """
    ours = Contestant('ours', [sys.executable, '-m', 'benchmarks.contestants.ours'], work)
    contestants = [ours, contest.with_work(ours, 'ours, without Grain', variant='threads')]
    if side := arguments.shorter_side:
        name = prepare(Path(work['pictures']), Path(work['data_dir']), side)
        contestants.append(contest.with_work(ours, f'ours, shorter side {side}', name=name))
    if arguments.tensorflow_python:
        child = [arguments.tensorflow_python, CONTESTANTS / 'tensorflow_data.py']
        theirs, boxes = Contestant('tf.data', child, {**work, 'antialias': False}), draw_boxes(work)
        contestants += [
            theirs,
            contest.with_work(theirs, 'tf.data, antialias', antialias=True),
            contest.with_work(theirs, 'tf.data, our boxes', boxes=boxes),
            contest.with_work(theirs, 'tf.data, both', antialias=True, boxes=boxes),
        ]
    if arguments.torch_python:
        child = [arguments.torch_python, CONTESTANTS / 'torch_data.py']
        contestants.append(Contestant('torch DataLoader, Pillow', child, work))
    return contestants


def make_work(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Prepares the pictures, and returns the work of our own pipeline.

    'pictures' is a folder of class folders, 'scratch' a folder to write in; 'scale' and 'ratio'
    are the crop's; 'data_dir', 'name' and 'variant' are for ours only.
    """
    folder = lay_out(arguments.source.expanduser(), scratch / 'pictures')
    return {
        'pictures': str(folder),
        'scratch': str(scratch),
        'data_dir': str(scratch / 'data'),
        'name': prepare(folder, scratch / 'data'),
        'variant': 'pipeline',
        'scale': reader.SCALE,
        'ratio': reader.RATIO,
        **{name: getattr(arguments, name) for name in ('batch_size', 'size', 'threads')},
    }


def lay_out(source: Path, folder: Path) -> Path:
    """Makes class folders of links to all JPEG files below a folder; returns that of training.

    All are in train and in one class. Validation and test hold one each, so that no file is taken
    out of train for them.
    """
    if not source.is_dir():
        raise UserError(f'{source} is not a folder: --source must name one with JPEG files.')
    files = sorted(path for path in source.rglob('*') if path.suffix.lower() in ('.jpg', '.jpeg'))
    if not files:
        raise UserError(f'There are no JPEG files in {source}: name another folder by --source.')
    for split, chosen in (('train', files), ('val', files[:1]), ('test', files[:1])):
        target = folder / split / 'all'
        target.mkdir(parents=True)
        for number, file in enumerate(chosen):
            (target / f'{number:06d}_{file.name}').symlink_to(file.resolve())
    return folder / 'train'


def prepare(pictures: Path, data_dir: Path, shorter_side: int | None = None) -> str:
    """Prepares a laid-out folder as a data set, as a user would; returns its name."""
    command = [sys.executable, '-m', 'tools.prepare_data', 'folder', f'--name={NAME}']
    command += [f'--source={pictures.parent}', f'--data_dir={data_dir}']
    command += [f'--shorter_side={shorter_side}'] if shorter_side else []
    try:
        processes.watch(command)
    except UserError as error:
        raise UserError(f'tools.prepare_data: {str(error).partition(" ... failed: ")[2]}') from None
    return f'{NAME}_{shorter_side}' if shorter_side else NAME


def draw_boxes(work: dict[str, Any], visits: int = 50) -> str:
    """Writes boxes as our pipeline draws them; returns the JSON file's path.

    For each picture, in the order of the paths, a list of [top, left, height, width].
    """
    files = sorted(Path(work['pictures']).glob('*/*'))
    boxes = [
        [reader.draw_crop(0, visit, *picture, work['size']).box for visit in range(visits)]
        for picture in enumerate(file.read_bytes() for file in files)
    ]
    path = Path(work['scratch']) / 'boxes.json'
    path.write_text(json.dumps(boxes))
    return str(path)


def compare(arguments, work: dict[str, Any], console: Console) -> dict[str, Any]:
    """Runs the comparison and prints its table; returns what belongs into the JSON file."""
    left_out, turns = {}, {}

    def leave_out(name: str, reason: str) -> None:
        left_out[name] = reason
        console.print(f'{name} is left out: {reason}', markup=False)

    for option, name in (('tensorflow', 'tf.data'), ('torch', 'torch DataLoader')):
        if not getattr(arguments, f'{option}_python'):
            leave_out(name, f'give --{option}_python, a Python that has it.')
    contestants = make_contestants(arguments, work)
    with contest.started(contestants, Path(work['scratch']), leave_out) as running:
        if contestants[0].name not in running:
            raise UserError(f'Our own pipeline does not run: {left_out[contestants[0].name]}')
        about = {name: contestant.about for name, contestant in running.items()}
        plays = contest.play(running, arguments.rounds, arguments.batches, arguments.warm_up)
        with console.status('warming up') as status:
            for name, turn in plays:
                turns.setdefault(name, []).append(turn)
                status.update(f'round {len(turns[name])} of {arguments.rounds}: {name}')
    scores, rows = contest.score(turns), []
    for score in scores:
        rates = f'{score.rate:.0f}', f'{score.slowest:.0f}-{score.fastest:.0f}'
        cpu = f'{score.cpu_rate:.0f}', f'{score.cpu_ratio:.2f}'
        rows.append([score.name, *rates, f'{score.ratio:.2f}', *cpu])
    head = ('pipeline', 'images/s', 'range', 'ours/it', 'per CPU s', 'ours/it')
    task = f'{arguments.threads} threads, {arguments.size} px, batches of {arguments.batch_size}'
    title = f'{task}: medians of {arguments.rounds} turns'
    caption = (
        'ours/it is above 1 where ours is the faster one; per CPU s: images per second of CPU '
        'time, which other load disturbs less.'
    )
    figures = {'scores': scores, 'turns': turns, 'about': about, 'left_out': left_out}
    table = BenchmarkTable('', head, rows, figures)
    console.print(table.rich(title=title, caption=caption))
    return dataclasses.asdict(table)['figures']


def check_accuracy(arguments, work: dict[str, Any], console: Console) -> dict[str, Any]:
    """Compares our crops with Pillow's, over the same boxes."""
    crops = reader.draw_crops(work, visits=3)
    differences = reader.differences(crops, arguments.size)
    mean, worst = float(differences.mean()), float(differences.max())
    reached = mean <= _GOAL
    console.print(
        f'Mean absolute difference to Pillow (antialiased) over {len(crops)} crops: '
        f'{mean:.3f} of 255, in the worst crop {worst:.2f}. '
        f'Goal: {_GOAL:g}, {"reached" if reached else "missed"}.'
    )
    return {'crops': len(crops), 'mean': mean, 'largest_of_a_crop': worst, 'reached': reached}


def check_stages(arguments, work: dict[str, Any], console: Console) -> dict[str, Any]:
    """Prints where the time of one image goes."""
    measured = reader.stages(work, reader.draw_crops(work, visits=3), arguments.rounds)
    rows = [[name, f'{microseconds:.0f}'] for name, microseconds in measured.items()]
    table = BenchmarkTable('', ('stage', 'microseconds'), rows, {'microseconds': measured})
    console.print(table.rich(title='CPU time per image on one thread'))
    return table.figures


def check_memory(arguments, work: dict[str, Any], console: Console) -> dict[str, Any]:
    """Prints the memory of this process while it reads."""
    result = {}
    for name, progress, count in (
        ('record indices', reader.record_indices, arguments.memory_indices),
        ('decoded batches', reader.decoded_batches, arguments.memory_batches),
    ):
        points = reader.resident(progress(work, count), count)
        grown = reader.growth([megabytes for _, megabytes in points])
        verdict = 'flat' if grown < _STEADY else 'GROWING'
        rows = [[f'{done:,}', f'{megabytes:.1f}'] for done, megabytes in points]
        title = f'Resident memory: {verdict} ({grown:+.1f} MB)'
        console.print(BenchmarkTable('', (name, 'MB'), rows, points).rich(title=title))
        result[name] = {'points': points, 'growth': grown, 'flat': grown < _STEADY}
    return result


def main(argv: list[str]) -> None:
    """Runs the comparison or a check; prints a table and writes --output."""
    arguments = _make_parser().parse_args(argv)
    console = Console()
    with command.reserved(arguments.output) as output:
        with tempfile.TemporaryDirectory() as scratch:
            work = make_work(arguments, Path(scratch))
            result = arguments.run(arguments, work, console)
        options = {name: value for name, value in vars(arguments).items() if name != 'run'}
        if output:
            host = dataclasses.asdict(describe_machine())
            whole = {'options': options, 'machine': host, **result}
            output.write_text(json.dumps(whole, indent=2, default=str) + '\n')
            console.print(f'Written: {output}', markup=False)


def _make_parser() -> argparse.ArgumentParser:
    parser = command.make_parser('benchmarks.input_pipeline', __doc__)
    parser.set_defaults(run=compare)
    parser.add_argument('--source', type=Path, required=True, help='folder of JPEG files')
    parser.add_argument('--output', type=Path, help='JSON file for all figures')

    def add_number(group, name: str, default: int | None, text: str) -> None:
        more = '' if default is None else f' (default {default:,})'
        group.add_argument(f'--{name}', type=command.positive, default=default, help=text + more)

    group = parser.add_argument_group('the task')
    add_number(group, 'threads', 2, 'threads of each pipeline')
    add_number(group, 'batch_size', 256, 'images in a batch')
    add_number(group, 'size', 224, 'side of the crops in pixels')
    add_number(group, 'batches', 16, 'batches in a turn')
    add_number(group, 'rounds', 7, 'turns of each')
    add_number(group, 'warm_up', 8, 'batches before the first turn')
    group = parser.add_argument_group('rows')
    group.add_argument('--tensorflow_python', type=Path, help='a Python that has TensorFlow')
    group.add_argument('--torch_python', type=Path, help='a Python with PyTorch and torchvision')
    add_number(group, 'shorter_side', None, 'add ours on pictures re-encoded at that size')
    group = parser.add_argument_group('checks, in place of the comparison')
    either = group.add_mutually_exclusive_group()
    for name, check, text in (
        ('accuracy', check_accuracy, "our crops' difference to Pillow's"),
        ('stages', check_stages, 'where the time of an image goes'),
        ('memory', check_memory, 'resident memory over many batches'),
    ):
        either.add_argument(f'--{name}', dest='run', action='store_const', const=check, help=text)
    add_number(group, 'memory_batches', 1000, 'decoded batches for --memory')
    add_number(group, 'memory_indices', 10**7, 'record indices for --memory')
    return parser


if __name__ == '__main__':
    command.run(main)
