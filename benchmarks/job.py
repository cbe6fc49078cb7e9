"""Sections `job` and `start`: LeNet on MNIST from the start of the process, whole and first step.

Ours and a plain PyTorch script of the same recipe: data, batch size, epochs, augmentation,
optimiser and schedule. Each prints its validation accuracy after every epoch, and the time of that
line counts. Our tuned recipe is another one. The first step is over when the program prints it:
ours does once the loss is back from the device. `start` runs the first command whole, too.
"""

import itertools
import json
import statistics
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np

import processes
from benchmarks.networks import CONTESTANTS
from benchmarks.tables import BenchmarkContext, BenchmarkTable, median_and_range
from configs import reading, schema
from data_sources import arrays
from errors import UserError

GOAL = 99.0  # % of the validation split
WORKERS = 2  # of PyTorch's DataLoader
ROUNDS = 3  # at most, because a round takes minutes
VALIDATION = r'validation accuracy ([\d.]+) ?%'
FIRST_STEP = r'^step 1/'
TRAIN = 'configs/digits_lenet.py'  # `make train`
TEST = r'test accuracy +([\d.]+) ?%'
OURS, COLD, TUNED, TORCH = 'ours', 'ours, nothing compiled', 'ours, tuned recipe', 'PyTorch'


def write_idx(folder: Path, config) -> None:
    """Writes the splits of a set of grey images as idx files, which PyTorch's users read."""
    folder.mkdir()
    for split in arrays.SPLITS:
        source = arrays.load(config.data.name, split, config.data.dir)
        labels = source.labels.astype(np.uint8)
        for name, array in (('images', source.images[..., 0]), ('labels', labels)):
            header = struct.pack(f'>HBB{array.ndim}I', 0, 8, array.ndim, *array.shape)
            (folder / f'{split}-{name}').write_bytes(header + array.tobytes())


def our_command(config: str, workdir: Path, *overrides: str) -> list[str]:
    """Returns the command of a run of train.py."""
    command = [sys.executable, 'train.py', f'--config={config}', f'--workdir={workdir}']
    return [*command, *(f'--config.{text}' for text in overrides)]


def torch_command(python: Path, config, folder: Path, seed: int, workdir: Path) -> list[str]:
    """Returns the command of a run of PyTorch's script; `folder` holds the idx files."""
    workdir.mkdir()
    recipe = {**schema.plain(config), 'classes': 10, 'workers': WORKERS, 'seed': seed}
    recipe |= {'folder': str(folder), 'workdir': str(workdir)}
    return [str(python), str(CONTESTANTS / 'torch_mnist.py'), json.dumps(recipe)]


def torch_python(context: BenchmarkContext) -> Path | None:
    """Returns the Python for PyTorch's script; None, with a message, if it lacks a package."""
    if context.torch_python:
        try:
            processes.watch([context.torch_python, '-c', 'import numpy, PIL, torch'])
            return context.torch_python
        except UserError as error:
            context.say(f'PyTorch is left out: {error}')
    return None


def run(context: BenchmarkContext) -> BenchmarkTable:
    """Runs every contestant in turn, with another seed in each round."""
    name, tuned, goal = 'configs/mnist_lenet.py', 'configs/mnist_lenet_fast.py', GOAL
    overrides = [f'data.dir={context.data_dir}']
    if context.quick:
        name = tuned = TRAIN
        overrides, goal = [*overrides, 'epochs=3', 'eval_every=1'], 10.0
    config = reading.from_arguments(name, [f'--config.{text}' for text in overrides])
    scratch, numbers, python = context.scratch, itertools.count(), torch_python(context)
    write_idx(scratch / 'idx', config)

    def play(contestant: str, file: str, seed: int) -> dict[str, Any]:
        workdir = scratch / f'run{next(numbers)}'
        if contestant == TORCH:
            command = torch_command(python, config, scratch / 'idx', seed, workdir)
        else:
            # In a round nothing is compiled for our first run; for the tuned recipe always all is.
            cache = scratch / ('cache' if contestant == TUNED else f'cache{seed}')
            more = f'seed={seed}', f'compilation_cache={cache}'
            command = our_command(file, workdir, *overrides, *more)
        output = processes.watch(command)
        validation = output.numbers(VALIDATION)
        reached = (seconds for seconds, accuracy in validation if accuracy >= goal)
        figures = {'to_goal': next(reached, None), 'to_end': output.seconds}
        figures['validation'] = [accuracy for _, accuracy in validation]
        figures['test'] = output.numbers(TEST)[-1][1]
        context.say(f'{contestant}: {figures}')
        return figures

    play(TUNED, tuned, 0)
    runs: dict[str, list[dict[str, Any]]] = {}
    for seed in range(min(context.rounds, ROUNDS)):
        for contestant, file in ((COLD, name), (OURS, name), (TORCH, name), (TUNED, tuned)):
            if contestant != TORCH or python:
                runs.setdefault(contestant, []).append(play(contestant, file, seed))
    return _table(runs, config, goal)


def _table(runs: dict[str, list[dict[str, Any]]], config, goal: float) -> BenchmarkTable:
    rows = []
    for contestant in (OURS, COLD, TORCH, TUNED):
        if contestant in runs:
            cells = (_cells(runs[OURS], runs[contestant], key) for key in ('to_goal', 'to_end'))
            test = statistics.median(run['test'] for run in runs[contestant])
            rows.append([contestant, *itertools.chain(*cells), f'{test:.2f}'])
    caption = (
        f'The whole job: {config.model.name} on {config.data.name}, batch {config.batch_size}, '
        f'{config.epochs:g} epochs with augmentation, from the start of the process until the '
        f'validation accuracy is {goal:g} %, and to the end. Medians of {len(runs[OURS])} seeds. '
        f'PyTorch: idx files, Pillow transforms, DataLoader with {WORKERS} workers.'
    )
    head = ('who', f's to {goal:g} %', 'range', 'our time / its')
    head += ('s to the end', 'range', 'our time / its', 'test %')
    return BenchmarkTable(caption, head, rows, runs)


def _cells(ours: list[dict[str, Any]], runs: list[dict[str, Any]], key: str) -> list[str]:
    """Returns the texts of the median, the range and the ratio of a number of seconds."""
    own, others = [run[key] for run in ours], [run[key] for run in runs]
    if None in others:
        return ['not reached', '', '']
    ratio = '' if None in own else f'{statistics.median(own) / statistics.median(others):.2f}'
    return [*median_and_range(others), ratio]


def start(context: BenchmarkContext) -> BenchmarkTable:
    """Starts every program in turn; then runs `make train` again and again, compiled."""
    name = TRAIN if context.quick else 'configs/mnist_lenet.py'
    data_dir = f'data.dir={context.data_dir}'
    config = reading.from_arguments(name, [f'--config.{data_dir}'])
    write_idx(context.scratch / 'idx', config)
    python, first = torch_python(context), {}
    for number in range(context.rounds):
        cache = f'compilation_cache={context.scratch / f"cache{number}"}'
        workdirs = [context.scratch / f'run{number}-{turn}' for turn in range(3)]
        commands = {COLD: our_command(name, workdirs[0], data_dir, cache)}
        commands[OURS] = our_command(name, workdirs[1], data_dir, cache)
        if python:
            idx = context.scratch / 'idx'
            commands[TORCH] = torch_command(python, config, idx, 0, workdirs[2])
        for contestant, command in commands.items():
            seconds = processes.watch(command, until=FIRST_STEP).seconds
            first.setdefault(contestant, []).append(seconds)
            context.say(f'{contestant}: first step after {seconds:.2f} s')
    whole, shorter = [], ['epochs=3'] if context.quick else []
    for number in range(1 + context.rounds):  # the first one compiles
        cache = f'compilation_cache={context.scratch / "cache"}'
        command = our_command(TRAIN, context.scratch / f'whole{number}', cache, *shorter)
        whole.append(processes.watch(command).seconds)
        context.say(f'{TRAIN}: whole run {whole[-1]:.2f} s')
    whole, rows = whole[1:], []
    for contestant, own in first.items():
        ratio = f'{statistics.median(first[OURS]) / statistics.median(own):.2f}'
        what = f'{config.model.name} on {config.data.name}, first step'
        rows.append([what, contestant, *median_and_range(own, 2), ratio])
    rows.append([f'{TRAIN}, whole run', OURS, *median_and_range(whole, 2), ''])
    caption = 'From the start of the process, imports and data included. '
    caption += f'Medians of {len(whole)} starts.'
    head = ('what', 'who', 'seconds', 'range', 'our time / its')
    return BenchmarkTable(caption, head, rows, {'first_step': first, 'whole_run': whole})
