"""What the parts of `python -m benchmarks.gpu` share: time, data on the device, rows, windows."""

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import accelerator, roofline
from benchmarks.accelerator import Budget
from errors import UserError


@dataclasses.dataclass
class Part:
    """What a part is given.

    Attributes:
      name: of the part.
      quick: the smallest sizes that show that it works.
      budget: time that it may take.
      say: called with what it finds: rows=[...], all so far; note=..., for the reader; and
        progress=..., for who waits.
    """

    name: str
    quick: bool
    budget: Budget
    say: Callable[..., None]

    def note(self, sentence: str) -> None:
        """Says what the reader of the table has to know."""
        self.say(note=sentence)

    def progress(self, sentence: str) -> None:
        """Says how far it is."""
        self.say(progress=sentence)

    @property
    def window(self) -> float:
        """Seconds of one window."""
        return 0.0 if self.quick else 1.5


@dataclasses.dataclass
class Setting:
    """A configuration made ready on one device.

    Attributes:
      found: the experiment.
      spec: its step.
      runner: on the first device.
      dataset: on the device.
      hyper: on the device.
    """

    found: Any
    spec: Any
    runner: Any
    dataset: dict
    hyper: dict

    @classmethod
    def of(cls, config, arrays: dict[str, np.ndarray], classes: int) -> 'Setting':
        """Puts a data set {'image', 'label'} on the device, and what the step needs."""
        from distributed import devices
        from training import experiment
        from training.runner import Runner

        config.devices, config.distributed = 1, 'off'
        shape = arrays['image'].shape
        names = tuple(map(str, range(classes)))
        found = experiment.Experiment(config, shape[1:], names, shape[0])
        spec = found.spec()
        runner = Runner(spec, config.runner, devices.start(config))
        hyper = runner.replicate(experiment.hyperparameters(config))
        return cls(found, spec, runner, runner.replicate(arrays), hyper)

    @property
    def device(self):
        """The one that it runs on."""
        return self.runner.devices[0]

    @functools.cached_property
    def model_flops(self) -> float:
        """Of one image's update, by arithmetic."""
        from training import flops

        return flops.per_image(self.spec, self.found.image_shape)

    def state(self):
        """Returns a new state before the first update, on the device."""
        return self.runner.replicate(self._start)

    @functools.cached_property
    def _start(self):
        return self.found.initial_state(self.spec)

    def batches(self, size: int, count: int) -> list[dict[str, np.ndarray]]:
        """Returns batches on the host: epoch after epoch, each in an order of its own."""
        examples = self.found.train_examples
        draw = np.random.default_rng(size)
        epochs = -(-size * count // examples)
        orders = np.concatenate([draw.permutation(examples) for _ in range(epochs)])
        return [_batch(index) for index in orders[: size * count].reshape(count, size)]

    def updates(self, several: int) -> tuple[Callable, Callable]:
        """Returns what does so many updates in a call, and what places a list of batches for it."""
        if several == 1:
            return self.runner.train, lambda batches: self.runner.split(batches[0])
        return self.runner.train_many, self.runner.split_many

    def lanes(self, lanes: int) -> tuple[Callable, Any, dict]:
        """Returns (function, state, hyper) of so many networks that train at once.

        Each has its own seed and learning rate. 0 is one network, trained without vmap. The
        function does several updates: see `lane_batches`.
        """
        import jax

        step, hyper = self._step(), self.runner.fetch(self.hyper)
        if not lanes:
            function = functools.partial(_scanned, step)
            return jax.jit(function, donate_argnums=0), self.state(), self.hyper
        hyper = {name: np.full(lanes, value, value.dtype) for name, value in hyper.items()}
        hyper['seed'] = np.arange(lanes, dtype=np.uint32)
        hyper['learning_rate'] = np.geomspace(3e-4, 3e-3, lanes, dtype=np.float32)
        states = self.runner.replicate(jax.jit(jax.vmap(self._created))(hyper['seed']))
        function = functools.partial(_scanned, jax.vmap(step, in_axes=(0, 0, 0, None)))
        return jax.jit(function, donate_argnums=0), states, self.runner.replicate(hyper)

    def lane_batches(self, lanes: int, size: int, updates: int, seed: int) -> dict[str, np.ndarray]:
        """Returns the batches of one call on the host, [updates, lanes, size], for 0 lanes 2-d."""
        shape = (updates, lanes, size) if lanes else (updates, size)
        return _batch(np.random.default_rng(seed).integers(self.found.train_examples, size=shape))

    def accuracy(self, state, test: dict[str, np.ndarray]) -> float:
        """Returns the share of the test images, {'image', 'label'} on the host, that are right."""
        dataset, correct = self.runner.replicate(test), 0
        count = len(test['label'])
        for index in np.array_split(np.arange(count), max(1, count // 1000)):
            batch = self.runner.split(_batch(index))
            sums = self.runner.evaluate(state.variables(), batch, dataset)
            correct += int(self.runner.fetch(sums)['correct'])
        return correct / count

    def _step(self) -> Callable:
        from training.step import train_step

        return functools.partial(train_step, self.spec)

    def _created(self, seed):
        from training import optimizers, state

        spec = self.spec
        hyper = {name: np.asarray(value) for name, value in self.runner.fetch(self.hyper).items()}
        optimizer = optimizers.make(spec.optimizer, hyper, spec.nesterov, spec.clip)
        return state.create(spec.model, optimizer, self.found.image_shape, seed, spec.ema)

    def row(self, name: str, images: int, compiled, counted=None, **more) -> dict[str, Any]:
        """Returns what is known of a row before it is measured.

        Args:
          name: of the row.
          images: that one call takes.
          compiled: the program.
          counted: what one call costs, if not what its own program says.
          more: what belongs to this part's rows alone.
        """
        from training import flops

        if counted is None:
            flops_of_all = self.model_flops * images
            counted = roofline.count(compiled.cost, compiled.text, flops_of_all)
        return {
            'name': name,
            'images': images,
            'counts': dataclasses.asdict(counted),
            'peak': flops.peak([self.device], self.found.config.dtype),
            'bandwidth': roofline.bandwidth(self.device.device_kind),
            'compile_seconds': compiled.seconds,
            'cached': compiled.cached,
            **more,
        }


def _batch(index: np.ndarray) -> dict[str, np.ndarray]:
    """A batch of a resident data set: the images of these indices, in their first visit."""
    index = index.astype(np.int32)
    epoch, mask = np.zeros_like(index), np.ones(index.shape, np.float32)
    return {'index': index, 'epoch': epoch, 'mask': mask}


def _scanned(step: Callable, state, hyper, batches, dataset):
    """Several updates in one call: leaves of `batches` are [updates, ...], as are the metrics."""
    import jax

    return jax.lax.scan(lambda state, batch: step(state, hyper, batch, dataset), state, batches)


def memory_of(device, before: int | None, compiled) -> dict[str, Any]:
    """Returns 'memory', the bytes that a program takes, and whether that was 'measured'.

    The device's peak tells it where the program has raised it; else XLA's plan does.
    """
    after = accelerator.peak_memory(device)
    measured = after is not None and after > (before or 0)
    return {'memory': after if measured else compiled.memory, 'measured': measured}


def measure(part: Part, rows: dict, windows: dict, most: int, amount: Callable) -> None:
    """Measures all rows in turn, as often as time allows, and says them after every round.

    Args:
      part: which.
      rows: by key; gain 'rate', 'slowest', 'fastest' and 'seconds'.
      windows: by the same keys, what gives the seconds of one window.
      most: rounds.
      amount: key -> images in a window.
    """
    seconds = {key: [] for key in windows}
    rounds = most = 1 if part.quick else most
    done = 0
    while done < rounds:
        for key, found in accelerator.in_turn(windows, 1).items():
            seconds[key] += found
            rows[key] |= accelerator.rates(seconds[key], amount(key)) | {'seconds': seconds[key]}
        done += 1
        part.say(rows=[rows[key] for key in windows])
        longest = sum(map(max, seconds.values()))
        rounds = done + part.budget.times(longest, most - done)
    if done < most:
        part.note(f'{done} in place of {most} windows for each row, for lack of time.')


def told(compiled) -> str:
    """Returns how long compiling took, in words."""
    return f'{"from the cache" if compiled.cached else "compiled"} in {compiled.seconds:.0f} s'


def introduce(part: Part) -> None:
    """Says on what this runs.

    Raises:
      UserError: there is no accelerator, and it was not told to be quick.
    """
    import jax

    device = jax.devices()[0]
    if device.platform == 'cpu' and not part.quick:
        raise UserError(
            'There is no accelerator here, or JAX has not been installed for it (README.md, '
            '"Several devices and hosts"); --quick shows on a CPU that the benchmark works.'
        )
    part.say(
        device=device.device_kind,
        platform=device.platform,
        versions={'jax': jax.__version__, 'python': sys.version.split()[0]},
        settings=accelerator.settings(),
    )
