"""The parts of `python -m benchmarks.gpu`, each run in a process of its own.

Only so does the device's peak memory belong to one part, and does a part that fails, or that takes
too long, leave the others alone. What a part finds it says at once, on standard output (see
benchmarks/contestants/channel.py): what was said before the end counts.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import accelerator, gpu_work, roofline
from benchmarks.accelerator import Budget
from benchmarks.contestants import channel
from benchmarks.gpu_work import Part, Setting
from configs import base, imagenet
from errors import UserError

ROUNDS = 5  # windows of each row
RUNS = 3  # of each row that is a whole run
SHIFT = 2  # pixels that a synthetic digit is moved by at most, either way


@dataclasses.dataclass(frozen=True)
class Network:
    """A network whose training step is measured.

    Attributes:
      model: its name.
      sizes: of the batches, in the order in which they are tried.
      pixels: side of the images.
      options: of the model.
    """

    model: str
    sizes: Sequence[int]
    pixels: int = 224
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


# The sizes that matter most come first: the last ones are left out where time is short.
NETWORKS = {
    'resnet50': Network('resnet50', (256, 512, 1024, 128, 64)),
    'vgg16': Network('vgg16', (256, 128), options={'dropout_rate': 0.5}),
    'densenet121': Network('densenet121', (256, 128)),
}
_SMALL = {'width': 1 / 16, 'stem': 'cifar'}
QUICK_NETWORKS = {
    'resnet50': Network('resnet18', (2,), 8, _SMALL),
    'vgg16': Network('vgg11', (2,), 16, {**_SMALL, 'dropout_rate': 0.5}),
    # Not itself: its many layers take a CPU a minute to compile.
    'densenet121': Network('deep_cnn', (2,), 8),
}


@dataclasses.dataclass(frozen=True)
class Digits:
    """Sizes of the parts that train LeNet.

    Attributes:
      train, test: digits.
      epochs: of a whole run.
      sizes: of its batches.
      steps: updates in one call, where there are several.
      lanes: networks that train at once, in the order in which their numbers are tried; 0 is one
        network without vmap.
      lane_batch: images in a batch of each lane.
      lane_steps: updates in one call.
    """

    train: int = 60_000
    test: int = 10_000
    epochs: int = 5
    sizes: Sequence[int] = (128, 1024)
    steps: int = 32
    lanes: Sequence[int] = (0, 64, 1024, 256, 8, 1)
    lane_batch: int = 128
    lane_steps: int = 16


QUICK_DIGITS = Digits(512, 64, 1, (64,), 4, (0, 2), 8, 2)


def training(part: Part) -> None:
    """A network's training step in bfloat16, at several batch sizes."""
    network = (QUICK_NETWORKS if part.quick else NETWORKS)[part.name]
    setting = imagenet_like(network)
    ready: dict[int, dict[str, Any]] = {}
    state = [setting.state()]  # one for all sizes: each call takes it and gives the next

    def steps(size: int, count: int) -> None:
        own = ready[size]
        state[0], own['metrics'] = accelerator.drive(
            own['call'], state[0], own['batches'], count, setting.hyper, setting.dataset
        )

    def attempt(size: int) -> dict[str, Any]:
        batches = [setting.runner.split(batch) for batch in setting.batches(size, 4)]
        try:
            compiled = accelerator.compile_ahead(
                setting.runner.train, state[0], setting.hyper, batches[0], setting.dataset
            )
            before = accelerator.peak_memory(setting.device)
            ready[size] = {'call': compiled.call, 'batches': batches}
            steps(size, 2)
        except Exception:
            ready.pop(size, None)
            state[0] = None  # given away, or not: its memory is to be free for the next one
            state[0] = setting.state()
            raise
        memory = gpu_work.memory_of(setting.device, before, compiled)
        each = accelerator.timed(lambda: steps(size, 4)) / 4
        ready[size]['count'] = max(1, round(part.window / each))
        part.progress(
            f'batch {size}: about {size / each:,.0f} images/s, {gpu_work.told(compiled)}.'
        )
        return setting.row(f'batch {size}', size, compiled, size=size, **memory)

    rows = accelerator.grow(
        network.sizes, attempt, part.budget, lambda n: 3 * n * part.window, part.note
    )

    def seconds(size: int) -> float:
        return accelerator.timed(lambda: steps(size, ready[size]['count']))

    windows = {size: functools.partial(seconds, size) for size in sorted(rows)}
    gpu_work.measure(part, rows, windows, ROUNDS, lambda size: size * ready[size]['count'])
    for size in windows:
        if not np.isfinite(setting.runner.fetch(ready[size]['metrics'])['loss']):
            part.note(f'batch {size}: the loss is not finite, so its figures say little.')


def imagenet_like(network: Network) -> Setting:
    """A network, its optimiser and random pictures of 1000 classes, on the device."""
    config = base.get_config()
    config.model.name = network.model
    for name, value in network.options.items():
        config.model[name] = value
    config.dtype = 'bfloat16'
    config.label_smoothing = 0.1
    config.optimizer.name = 'sgd'
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = False
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 5e-5
    config.schedule.name = 'constant'
    config.data.mean, config.data.std = imagenet.MEAN, imagenet.STD
    count, draw = max(network.sizes), np.random.default_rng(0)
    shape = count, network.pixels, network.pixels, 3
    images = draw.integers(256, size=shape, dtype=np.uint8)
    labels = draw.integers(1000, size=count, dtype=np.int32)
    return Setting.of(config, {'image': images, 'label': labels}, 1000)


def lenet(part: Part) -> None:
    """Whole runs of LeNet on synthetic digits: one update a call, and several."""
    sizes = QUICK_DIGITS if part.quick else Digits()
    setting, test = lenet_setting(sizes)
    ready: dict[tuple[int, int], dict[str, Any]] = {}

    def attempt(key: tuple[int, int]) -> dict[str, Any]:
        size, several = key
        calls = sizes.epochs * sizes.train // size // sizes.steps * sizes.steps // several
        orders = setting.batches(size, calls * several)
        function, place = setting.updates(several)
        batches = [place(orders[i : i + several]) for i in range(0, len(orders), several)]
        inputs = setting.state(), setting.hyper, batches[0], setting.dataset
        compiled = accelerator.compile_ahead(function, *inputs)
        ready[key] = {'call': compiled.call, 'batches': batches, 'images': len(orders) * size}
        accelerator.drive(
            compiled.call, inputs[0], batches, min(3, calls), setting.hyper, setting.dataset
        )
        what = 'one update' if several == 1 else f'{several} updates'
        part.progress(f'batch {size}, {what} a call: {gpu_work.told(compiled)}.')
        # A loop's body counts once, or not: so several updates cost what one does, times several.
        counted = roofline.count(compiled.cost, compiled.text, setting.model_flops * size)
        if several > 1:
            counted = ready.get((size, 1), {'counts': counted})['counts'].times(several)
        row = setting.row(
            f'batch {size}, {what} a call', size * several, compiled, counted,
            updates=len(orders), memory=compiled.memory, measured=False,
        )  # fmt: skip
        ready[key]['counts'] = roofline.Counts(**row['counts'])
        return row

    def run(key: tuple[int, int]) -> float:
        own, state = ready[key], setting.state()

        def train() -> None:
            own['state'], _ = accelerator.drive(
                own['call'], state, own['batches'], len(own['batches']),
                setting.hyper, setting.dataset,
            )  # fmt: skip

        return accelerator.timed(train)

    keys = [(size, several) for size in sizes.sizes for several in (1, sizes.steps)]
    rows = accelerator.grow(keys, attempt, part.budget, lambda n: 2 * n * part.window, part.note)
    windows = {key: functools.partial(run, key) for key in rows}
    gpu_work.measure(part, rows, windows, RUNS, lambda key: ready[key]['images'])
    for key, row in rows.items():
        row['accuracy'] = setting.accuracy(ready[key]['state'], test)
    part.say(rows=list(rows.values()))


def lenet_setting(sizes: Digits) -> tuple[Setting, dict[str, np.ndarray]]:
    """LeNet, its optimiser and digits on the device; and the test digits, on the host."""
    config = base.get_config()
    config.model.name = 'lenet'
    config.optimizer.name, config.optimizer.learning_rate = 'adam', 1e-3
    config.schedule.name = 'constant'
    arrays = digits(sizes.train + sizes.test)
    train = {name: array[: sizes.train] for name, array in arrays.items()}
    test = {name: array[sizes.train :] for name, array in arrays.items()}
    return Setting.of(config, train, 10), test


def digits(count: int) -> dict[str, np.ndarray]:
    """Returns {'image': uint8 [count, 28, 28, 1], 'label'}: templates, moved, with noise.

    No real digits, but as hard to learn as to show that the network does learn.
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


def population(part: Part) -> None:
    """Several networks trained at once by vmap, each with its own seed, rate and batches."""
    sizes = QUICK_DIGITS if part.quick else Digits()
    setting, _ = lenet_setting(sizes)
    one = accelerator.compile_ahead(
        setting.runner.train, setting.state(), setting.hyper,
        setting.runner.split(setting.batches(sizes.lane_batch, 1)[0]), setting.dataset,
    )  # fmt: skip
    counts = roofline.count(one.cost, one.text, setting.model_flops * sizes.lane_batch)
    ready: dict[int, dict[str, Any]] = {}

    def calls(lanes: int, count: int) -> None:
        own = ready[lanes]
        own['state'], _ = accelerator.drive(
            own['call'], own['state'], own['batches'], count, own['hyper'], setting.dataset
        )

    def attempt(lanes: int) -> dict[str, Any]:
        function, state, hyper = setting.lanes(lanes)
        stacks = [setting.lane_batches(lanes, sizes.lane_batch, sizes.lane_steps, i)
                  for i in range(2)]  # fmt: skip
        batches = [setting.runner.replicate(stack) for stack in stacks]
        try:
            compiled = accelerator.compile_ahead(
                function, state, hyper, batches[0], setting.dataset
            )
            before = accelerator.peak_memory(setting.device)
            ready[lanes] = {'call': compiled.call, 'batches': batches, 'hyper': hyper}
            ready[lanes]['state'] = state
            calls(lanes, 1)
        except Exception:
            ready.pop(lanes, None)
            raise
        memory = gpu_work.memory_of(setting.device, before, compiled)
        each = accelerator.timed(lambda: calls(lanes, 1))
        ready[lanes]['count'] = max(1, round(part.window / each))
        updates = max(lanes, 1) * sizes.lane_steps
        name = f'{lanes} at once' if lanes else 'one, without vmap'
        part.progress(f'{name}: about {updates / each:,.0f} updates/s, {gpu_work.told(compiled)}.')
        return setting.row(
            name, updates * sizes.lane_batch, compiled, counts.times(updates),
            lanes=lanes, batch=sizes.lane_batch, **memory,
        )  # fmt: skip

    rows = accelerator.grow(
        sizes.lanes, attempt, part.budget, lambda n: 3 * n * part.window, part.note
    )

    def seconds(lanes: int) -> float:
        return accelerator.timed(lambda: calls(lanes, ready[lanes]['count']))

    windows = {lanes: functools.partial(seconds, lanes) for lanes in sorted(rows)}
    gpu_work.measure(
        part, rows, windows, ROUNDS, lambda lanes: rows[lanes]['images'] * ready[lanes]['count']
    )


PARTS: dict[str, Callable[[Part], None]] = {
    'resnet50': training,
    'lenet': lenet,
    'population': population,
    'vgg16': training,
    'densenet121': training,
}


def run(answers: channel.Channel, work: dict[str, Any]) -> None:
    """Runs one part.

    Args:
      answers: where to say what it finds.
      work: 'name' of the part, 'quick', 'seconds' that it has since 'started' (time.time()).
    """
    left = work['seconds'] - (time.time() - work['started'])
    part = Part(work['name'], work['quick'], Budget(left), answers.say)
    try:
        gpu_work.introduce(part)
        PARTS[part.name](part)
        answers.say(done=True)
    except UserError as error:
        answers.say(refused=str(error))


if __name__ == '__main__':
    channel.run(run)
