"""Section `job`: the whole training of LeNet on MNIST, from the start of the process.

Ours and a plain PyTorch script of the same recipe: data, batch size, epochs, augmentation,
optimiser and schedule. Each says its validation accuracy after every epoch, and the time at which
that line came counts. Our other recipe stands apart.
"""

import itertools
import json
import statistics
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import commands
from benchmarks.tables import Table, Work
from configs import reading
from data_sources import arrays
from errors import UserError

CONTESTANT = Path(__file__).parent / 'contestants' / 'torch_mnist.py'
GOAL = 99.0  # % of the validation split
WORKERS = 2  # of PyTorch's DataLoader
ROUNDS = 3  # at most: a round takes minutes
VALIDATION = r'validation accuracy ([\d.]+) ?%'
TEST = r'test accuracy +([\d.]+) ?%'
OURS, COLD, TUNED, TORCH = 'ours', 'ours, nothing compiled', 'ours, tuned recipe', 'PyTorch'


def write_idx(folder: Path, config) -> None:
    """Writes the splits of a set of grey images as idx files, which PyTorch's users read."""
    folder.mkdir()
    for split in arrays.SPLITS:
        source = arrays.load(config.data.name, split, config.data.dir)
        values = {'images': source.images[..., 0], 'labels': source.labels.astype(np.uint8)}
        for name, array in values.items():
            header = struct.pack(f'>HBB{array.ndim}I', 0, 8, array.ndim, *array.shape)
            (folder / f'{split}-{name}').write_bytes(header + array.tobytes())


def torch_recipe(config, folder: Path, seed: int, workdir: Path) -> dict[str, Any]:
    """Returns what torch_mnist.py is told of a configuration; `folder` holds the idx files."""
    return {
        'folder': str(folder),
        'workdir': str(workdir),
        'model': config.model.name,
        'classes': 10,
        'batch_size': config.batch_size,
        'eval_batch_size': config.eval_batch_size,
        'epochs': round(config.epochs),
        'learning_rate': config.optimizer.learning_rate,
        'warmup': config.schedule.warmup,
        **{name: config.augment[name] for name in ('shift', 'rotate', 'scale')},
        'mean': list(config.data.mean),
        'std': list(config.data.std),
        'workers': WORKERS,
        'seed': seed,
    }


def our_command(config: str, workdir: Path, *overrides: str) -> list[str]:
    """Returns the command of a run of train.py."""
    return [
        sys.executable,
        'train.py',
        f'--config={config}',
        f'--workdir={workdir}',
        *(f'--config.{text}' for text in overrides),
    ]


def torch_command(python: Path, recipe: dict[str, Any]) -> list[str]:
    """Returns the command of a run of PyTorch's script; its workdir is made."""
    Path(recipe['workdir']).mkdir()
    return [str(python), str(CONTESTANT), json.dumps(recipe)]


def torch_python(work: Work) -> Path | None:
    """Returns the Python for PyTorch's script; None, which is said, if it lacks a package."""
    if not work.torch_python:
        return None
    command = [work.torch_python, '-c', 'import numpy, PIL, torch']
    try:
        commands.watch(command)
    except UserError as error:
        work.say(f'PyTorch is left out: {error}')
        return None
    return work.torch_python


def figures_of(output: commands.Output, goal: float) -> dict[str, Any]:
    """Returns the seconds to the goal (None if it was missed) and to the end, and accuracies."""
    validation = output.found(VALIDATION)
    reached = [at for at, accuracy in validation if accuracy >= goal]
    return {
        'to_goal': reached[0] if reached else None,
        'to_end': output.seconds,
        'validation': [accuracy for _, accuracy in validation],
        'test': output.found(TEST)[-1][1],
    }


def run(work: Work) -> Table:
    """Runs everybody in turn, with another seed in each round."""
    name, tuned, goal = 'configs/mnist_lenet.py', 'configs/mnist_lenet_fast.py', GOAL
    shorter = []
    if work.quick:
        name = tuned = 'configs/digits_lenet.py'
        shorter, goal = ['epochs=3', 'eval_every=1'], 10.0
    overrides = [f'data.dir={work.data_dir}', *shorter]
    config = reading.from_arguments(name, [f'--config.{text}' for text in overrides])
    write_idx(work.scratch / 'idx', config)
    numbers, python = itertools.count(), torch_python(work)
    found: dict[str, list[dict[str, Any]]] = {}

    def play(who: str, file: str, seed: int) -> dict[str, Any]:
        workdir = work.scratch / f'run{next(numbers)}'
        if who == TORCH:
            recipe = torch_recipe(config, work.scratch / 'idx', seed, workdir)
            command = torch_command(python, recipe)
        else:
            # The recipe's first run of a round finds nothing compiled; the tuned one's always all.
            cache = work.scratch / ('cache' if who == TUNED else f'cache{seed}')
            command = our_command(
                file, workdir, *overrides, f'seed={seed}', f'compilation_cache={cache}'
            )
        figures = figures_of(commands.watch(command), goal)
        work.say(f'{who}: {figures}')
        return figures

    play(TUNED, tuned, 0)
    order = [(COLD, name), (OURS, name), (TORCH, name), (TUNED, tuned)]
    for seed in range(1 if work.quick else min(work.rounds, ROUNDS)):
        for who, file in order:
            if who != TORCH or python:
                found.setdefault(who, []).append(play(who, file, seed))
    return _table(found, config, goal)


def _table(found: dict[str, list[dict[str, Any]]], config, goal: float) -> Table:
    order = [who for who in (OURS, COLD, TORCH, TUNED) if who in found]
    own = _seconds(found[OURS], 'to_goal'), _seconds(found[OURS], 'to_end')
    rows = []
    for who in order:
        goal_seconds, end_seconds = (_seconds(found[who], key) for key in ('to_goal', 'to_end'))
        rows.append(
            [
                who,
                *_median_and_range(goal_seconds),
                _ratio(own[0], goal_seconds),
                *_median_and_range(end_seconds),
                _ratio(own[1], end_seconds),
                f'{statistics.median(run["test"] for run in found[who]):.2f}',
            ]
        )
    caption = (
        f'The whole job: {config.model.name} on {config.data.name}, batch {config.batch_size}, '
        f'{config.epochs:g} epochs with augmentation, from the start of the process until the '
        f'validation accuracy is {goal:g} %, and to the end. Medians of {len(found[OURS])} seeds. '
        f'PyTorch: idx files, Pillow transforms, DataLoader with {WORKERS} workers.'
    )
    head = ('who', f's to {goal:g} %', 'range', 'our time / its')
    head += ('s to the end', 'range', 'our time / its', 'test %')
    return Table(caption, head, rows, found)


def _seconds(runs: list[dict[str, Any]], key: str) -> list[float] | None:
    """A figure of all runs; None if one of them has none."""
    values = [run[key] for run in runs]
    return None if None in values else values


def _median_and_range(seconds: list[float] | None) -> tuple[str, str]:
    if seconds is None:
        return 'not reached', ''
    return f'{statistics.median(seconds):.1f}', f'{min(seconds):.1f} to {max(seconds):.1f}'


def _ratio(own: list[float] | None, others: list[float] | None) -> str:
    if own is None or others is None:
        return ''
    return f'{statistics.median(own) / statistics.median(others):.2f}'
