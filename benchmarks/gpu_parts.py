"""The parts of `python -m benchmarks.gpu`, each run in a process of its own.

So the device's peak memory belongs to one part, and a part that fails or takes too long does not
affect the others. What a part has reported on standard output before it ends counts.
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import gpu_work
from benchmarks.contestants import channel
from benchmarks.gpu_work import Budget, GpuExperiment, GpuPart, TimedProgram, measure
from benchmarks.synthetic import random_split, split_of
from configs import base, imagenet
from data_sources.arrays import ArraySource
from errors import UserError
from training.evaluation import Evaluator
from training.flops import ProgramCost

ROUNDS = 5  # windows of each row
RUNS = 3  # of each row that is a whole run
SHIFT = 2  # pixels by which a synthetic digit is moved at most


@dataclasses.dataclass(frozen=True)
class StepCase:
    """A network whose training step is measured."""

    model: str
    sizes: Sequence[int]  # of the batches, in the order in which they are tried
    pixels: int = 224  # side of the images
    options: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the model


# The most important sizes come first: the last ones are left out where time is short.
NETWORKS = {
    'resnet50': StepCase('resnet50', (256, 512, 1024, 128, 64)),
    'vgg16': StepCase('vgg16', (256, 128), options={'dropout_rate': 0.5}),
    'densenet121': StepCase('densenet121', (256, 128)),
}
_SMALL = {'width': 1 / 16, 'stem': 'cifar'}
QUICK_NETWORKS = {
    'resnet50': StepCase('resnet18', (2,), 8, _SMALL),
    'vgg16': StepCase('vgg11', (2,), 16, {**_SMALL, 'dropout_rate': 0.5}),
    # A stand-in: DenseNet's many layers take a CPU a minute to compile.
    'densenet121': StepCase('deep_cnn', (2,), 8),
}


@dataclasses.dataclass(frozen=True)
class LenetSizes:
    """Sizes of the parts that train LeNet."""

    train: int = 60_000  # digits
    test: int = 10_000
    epochs: int = 5  # of a whole run
    sizes: Sequence[int] = (128, 1024)  # of its batches
    steps: int = 32  # updates in one call, where there are several
    # Networks that train at once, in the order in which the numbers are tried; 0: without vmap.
    lanes: Sequence[int] = (0, 64, 1024, 256, 8, 1)
    lane_batch: int = 128  # images in a batch of each lane
    lane_steps: int = 16  # updates in one call


QUICK_LENET = LenetSizes(512, 64, 1, (64,), 4, (0, 2), 8, 2)


def training(part: GpuPart) -> None:
    """Measures a network's training step in bfloat16 at several batch sizes."""
    case = (QUICK_NETWORKS if part.quick else NETWORKS)[part.name]
    experiment = imagenet_like(case)
    programs: dict[int, TimedProgram] = {}
    state = [experiment.state()]  # one for all sizes: each call takes it and returns the next

    def attempt(size: int) -> dict[str, Any]:
        batches = [experiment.runner.split(batch) for batch in experiment.batches(size, 4)]
        try:
            program = TimedProgram(experiment, experiment.runner.train, state, batches)
            memory = program.warm_up(part, f'batch {size}: about {{}} images/s', size, calls=3)
        except Exception:
            state[0] = None  # donated or not, its memory is freed for the next one
            state[0] = experiment.state()
            raise
        programs[size] = program
        return program.row(f'batch {size}', size, program.cost(size), size=size, **memory)

    rows = part.grow(case.sizes, attempt)
    windows = {size: programs[size].window for size in sorted(rows)}
    measure(part, rows, windows, ROUNDS, lambda size: size * programs[size].calls)
    for size in windows:
        if not np.isfinite(experiment.runner.fetch(programs[size].metrics)['loss']):
            part.say(note=f'batch {size}: the loss is not finite, so its figures say little.')


def imagenet_like(case: StepCase) -> GpuExperiment:
    """Returns a network, its optimiser and random pictures of 1000 classes on the device."""
    config = imagenet.classic()
    config.model.update({'name': case.model, **case.options})
    config.dtype, config.label_smoothing, config.schedule.name = 'bfloat16', 0.1, 'constant'
    config.optimizer.learning_rate = 1e-3  # random labels, of which the loss stays finite
    return GpuExperiment(config, random_split(max(case.sizes), (case.pixels, case.pixels, 3), 1000))


def lenet(part: GpuPart) -> None:
    """Measures whole runs of LeNet on synthetic digits: one update a call, and several."""
    sizes = QUICK_LENET if part.quick else LenetSizes()
    experiment, test = lenet_experiment(sizes)
    runner = experiment.runner
    programs: dict[tuple[int, int], TimedProgram] = {}
    costs: dict[int, ProgramCost] = {}

    def attempt(key: tuple[int, int]) -> dict[str, Any]:
        size, several = key
        updates = sizes.epochs * sizes.train // size // sizes.steps * sizes.steps
        orders = experiment.batches(size, updates)
        if several == 1:
            name, function, batches = 'one update', runner.train, list(map(runner.split, orders))
        else:
            name, function = f'{several} updates', runner.train_many
            calls = range(0, updates, several)
            batches = [runner.split_many(orders[i : i + several]) for i in calls]
        program = TimedProgram(experiment, function, [experiment.state()], batches)
        program.seconds(min(3, len(batches)))
        programs[key], name = program, f'batch {size}, {name} a call'
        part.say(progress=f'{name}: {program.compiled.description}.')
        # XLA counts a loop's body once or not at all, so that several updates cost several times
        # what one does.
        cost = costs.setdefault(size, program.cost(size)).times(several)
        planned = {'memory': program.compiled.memory, 'measured': False}
        return program.row(name, size * several, cost, updates=updates, **planned)

    def whole_run(key: tuple[int, int]) -> float:
        programs[key].state[0] = experiment.state()
        return programs[key].seconds(len(programs[key].batches))

    keys = [(size, several) for size in sizes.sizes for several in (1, sizes.steps)]
    rows = part.grow(keys, attempt, windows=2)
    windows = {key: functools.partial(whole_run, key) for key in rows}
    measure(part, rows, windows, RUNS, lambda key: rows[key]['updates'] * key[0])
    evaluate = Evaluator(experiment.experiment, runner, test)
    for key, row in rows.items():
        sums = evaluate(programs[key].state[0].variables()).sums
        row['accuracy'] = float(sums['correct'] / sums['count'])
    part.say(rows=list(rows.values()))


def lenet_experiment(sizes: LenetSizes) -> tuple[GpuExperiment, ArraySource]:
    """Returns LeNet, its optimiser and digits on the device; and the test digits on the host."""
    config = base.get_config()
    config.model.name, config.schedule.name = 'lenet', 'constant'
    config.optimizer.name, config.optimizer.learning_rate = 'adam', 1e-3
    images, labels = digits(sizes.train + sizes.test).values()
    train = split_of(images[: sizes.train], labels[: sizes.train], 10)
    return GpuExperiment(config, train), split_of(images[sizes.train :], labels[sizes.train :], 10)


def digits(count: int) -> dict[str, np.ndarray]:
    """Returns {'image': uint8 [count, 28, 28, 1], 'label'}: shifted templates with noise.

    They are no real digits, but hard enough to show that the network does learn.
    """
    draw = np.random.default_rng(0)
    coarse = draw.random((10, 7, 7), np.float32) < 0.4
    templates = np.kron(coarse, np.ones((4, 4))) * 48
    label = draw.integers(10, size=count, dtype=np.int32)
    moves = draw.integers(-SHIFT, SHIFT + 1, size=(count, 2))
    image = draw.integers(208, size=(count, 28, 28), dtype=np.uint8)
    for down in range(-SHIFT, SHIFT + 1):
        for right in range(-SHIFT, SHIFT + 1):
            chosen = np.flatnonzero((moves == (down, right)).all(1))
            moved = np.roll(templates, (down, right), (1, 2)).astype(np.uint8)
            image[chosen] += moved[label[chosen]]
    return {'image': image[..., np.newaxis], 'label': label}


def population(part: GpuPart) -> None:
    """Measures networks trained at once by vmap, each with its own seed, rate and batches."""
    sizes = QUICK_LENET if part.quick else LenetSizes()
    experiment, _ = lenet_experiment(sizes)
    runner, batch_size = experiment.runner, sizes.lane_batch
    batch = [runner.split(experiment.batches(batch_size, 1)[0])]
    cost = TimedProgram(experiment, runner.train, [experiment.state()], batch).cost(batch_size)
    programs: dict[int, TimedProgram] = {}

    def attempt(lanes: int) -> dict[str, Any]:
        function, state, hyper = experiment.lanes(lanes)
        stacks = (experiment.lane_batches(lanes, batch_size, sizes.lane_steps, i) for i in range(2))
        batches = list(map(runner.replicate, stacks))
        program = TimedProgram(experiment, function, [state], batches, hyper)
        updates = max(lanes, 1) * sizes.lane_steps
        name = f'{lanes} at once' if lanes else 'one, without vmap'
        more = program.warm_up(part, f'{name}: about {{}} updates/s', updates, calls=1)
        more |= {'lanes': lanes, 'batch': batch_size}
        programs[lanes] = program
        return program.row(name, updates * batch_size, cost.times(updates), **more)

    rows = part.grow(sizes.lanes, attempt)
    windows = {lanes: programs[lanes].window for lanes in sorted(rows)}
    measure(part, rows, windows, ROUNDS, lambda n: rows[n]['images'] * programs[n].calls)


PARTS = {'resnet50': training, 'lenet': lenet, 'population': population}
PARTS |= {'vgg16': training, 'densenet121': training}


def run(answers: channel.Channel, work: dict[str, Any]) -> None:
    """Runs the part 'name', which has so many 'seconds' since it 'started' (time.time())."""
    left = work['seconds'] - (time.time() - work['started'])
    part = GpuPart(work['name'], work['quick'], Budget(left), answers.say)
    try:
        gpu_work.introduce(part)
        PARTS[part.name](part)
        answers.say(done=True)
    except UserError as error:
        answers.say(refused=str(error))


if __name__ == '__main__':
    channel.run(run)
