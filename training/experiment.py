"""Builds what a run needs from a checked configuration: data, model, step, hyperparameters."""

import dataclasses
import math
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import input_pipeline
import models
from augmentation import registry as augmentations
from configs import shortening
from errors import UserError
from models.lowering import Lowering
from models.network import Network, abstract_variables
from tasks import registry
from training import checks, optimizers, partition, profiling, state
from training.spec import StepSpec

if TYPE_CHECKING:  # Grain takes half a second to import
    from data_sources.arrays import ArraySource
    from data_sources.record_source import RecordSource
    from training.linear_probe import Features

MODEL_DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}

# An open split: whole in memory, streamed from disk, or the features of it for a linear probe.
Split: TypeAlias = 'ArraySource | RecordSource | Features'


def total_steps(config: ConfigDict, examples: int) -> int:
    """Returns the length of the run in updates.

    Args:
      config: the configuration.
      examples: size of the training split.
    """
    return config.steps or max(1, round(config.epochs * examples / config.batch_size))


def hyperparameters(config: ConfigDict) -> dict[str, np.ndarray]:
    """Returns the scalars that enter the compiled step as arguments, by name.

    They are the values of traced fields: those of the task and the optimizer, and others that are
    switched on.
    """
    values = {
        'learning_rate': config.optimizer.learning_rate,
        'weight_decay': config.optimizer.weight_decay,
        **{f.leaf: f.value(config) for f in registry.get(config.task).fields if f.traced},
        **optimizers.options(config.optimizer),
    }
    for static in ('nesterov', 'epsilon_in_root'):
        values.pop(static, None)
    if config.model.dropout_rate:
        values['dropout_rate'] = config.model.dropout_rate
    if config.optimizer.clip_norm:
        values['clip_norm'] = config.optimizer.clip_norm
    if config.ema_decay:
        values['ema_decay'] = config.ema_decay
    values.update(augmentations.scalars(config))
    hyper = {name: np.float32(value) for name, value in values.items()}
    return {**hyper, 'seed': np.uint32(config.seed)}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A configuration, the facts about its data set, and what follows from them.

    Attributes:
      config: the checked configuration.
      image_shape: (height, width, channels).
      class_names: names of the data set's classes.
      train_examples: number of training examples.
      upright: whether the EXIF orientation of streamed pictures is applied.
      handwriting: whether an image is a character written by hand, bright on black.
      stretch: the percentile by which a picture has to be stretched, as the streamed ones of the
        data set were (data_sources/stretching.py); None: not at all.
      note: a sentence about what was changed in the configuration so that it fits; '' for nothing.
    """

    config: ConfigDict
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    train_examples: int
    upright: bool = False
    handwriting: bool = False
    stretch: float | None = None
    note: str = ''

    @property
    def steps(self) -> int:
        """Length of the run in updates."""
        return total_steps(self.config, self.train_examples)

    @property
    def steps_per_epoch(self) -> float:
        """Updates in one pass over the training split; not always a whole number."""
        return self.train_examples / self.config.batch_size

    @property
    def warning(self) -> str:
        """Sentences about what is allowed and probably not wanted; '' for nothing."""
        batch, examples, data = self.config.batch_size, self.train_examples, self.config.data
        found = []
        if batch > examples:
            found.append(
                f'warning: config.batch_size={batch} is larger than the training split, which has '
                f'{examples} images, so that every batch has some of them more than once: lower it '
                f'to {examples} or less.'
            )
        if data.tile and data.image_size and data.tile < data.image_size:
            found.append(
                f'warning: config.data.tile={data.tile} is smaller than the training crops of '
                f'config.data.image_size={data.image_size}, so that evaluation shows the network '
                'less around each pixel than it was trained with: raise it, or leave it out.'
            )
        return '\n'.join(found)

    def spec(self) -> StepSpec:
        """Returns the static part of the step.

        Raises:
          UserError: a pattern of parameters has no effect, or nothing is left to be trained.
        """
        config = self.config
        backbone = self._backbone()
        task = registry.get(config.task).create(config, self.class_names).on(backbone)
        model = task.network(backbone)
        if config.linear_probe and not isinstance(model, Network):
            raise UserError(
                'config.linear_probe trains the head of a classifier on pooled features, but '
                f'task={config.task} has another head: leave it out, and set config.freeze.'
            )
        frozen, factors = partition.of(config, model, self.image_shape)
        options = optimizers.options(config.optimizer)
        return StepSpec(
            model=model,
            task=task,
            optimizer=config.optimizer.name,
            schedule=optimizers.schedule(config.schedule, self.steps, self.steps_per_epoch),
            mean=config.data.mean,
            std=config.data.std,
            nesterov=bool(options.get('nesterov')),
            epsilon_in_root=bool(options.get('epsilon_in_root')),
            clip=config.optimizer.clip_norm is not None,
            accumulate=config.accumulate,
            ema=config.ema_decay > 0,
            sync_batch_norm=config.sync_batch_norm,
            # XLA's CPU backend has no fast path for convolution gradients inside a loop.
            unroll=jax.default_backend() == 'cpu',
            frozen=frozen,
            factors=factors,
            augmentations=augmentations.applied(config),
        )

    def _backbone(self) -> Network:
        config = self.config
        return models.create(
            config.model.name,
            num_classes=0,
            dtype=MODEL_DTYPES[config.dtype],
            frozen=config.freeze,
            lowering=Lowering(**config.lowering),
            **checks.model_options(config),
        )

    def initial_state(self, spec: StepSpec) -> state.TrainState:
        """Returns the state before the first update, as host arrays."""
        make = jax.jit(lambda seed: self.create_state(spec, seed))
        return jax.tree.map(np.asarray, make(np.uint32(self.config.seed)))

    def abstract_state(self, spec: StepSpec) -> state.TrainState:
        """Returns the shapes and types of the state; nothing is computed."""
        return jax.eval_shape(lambda seed: self.create_state(spec, seed), np.uint32(0))

    def create_state(self, spec: StepSpec, seed: jax.typing.ArrayLike) -> state.TrainState:
        """Returns the state before the first update; may be jitted.

        Args:
          spec: the static part of the step.
          seed: uint32 scalar; may be traced.
        """
        hyper = hyperparameters(self.config)
        optimizer = optimizers.make(
            spec.optimizer, hyper, spec.nesterov, spec.clip, spec.epsilon_in_root
        )
        return state.create(spec.model, optimizer, self.image_shape, seed, spec.ema, spec.frozen)

    def check_classes(self) -> None:
        """Checks that there is something to learn.

        Raises:
          UserError: the data set has fewer classes than the task needs.
        """
        task, data = registry.get(self.config.task), self.config.data
        if len(self.class_names) < task.fewest_classes:
            names = ', '.join(f'"{name}"' for name in self.class_names) or 'no name'
            raise UserError(
                f'Data set "{data.name}" has {len(self.class_names)} class ({names}), and '
                f'config.task={task.name} needs at least {task.fewest_classes}: there is nothing '
                'to tell apart. Was --source one level too high when it was prepared? Prepare it '
                'again from the folder that holds the class folders, under another --name.'
            )

    def check_tiles(self) -> None:
        """Checks that the network takes the smallest tiles, which only evaluation has.

        Raises:
          UserError: they are too small for it.
        """
        config = self.config
        if not (config.data.image_size and registry.get(config.task).dense):
            return
        tile = input_pipeline.tile_side(config)
        try:
            maps = self._backbone().adjusted(convolutional=True)
            abstract_variables(maps, (tile // 2, tile // 2, self.image_shape[-1]))
        except UserError as error:
            raise UserError(
                f'config.data.tile={tile} is too small for {config.model.name}, as pictures of up '
                f'to {tile // 2} pixels are evaluated in tiles of that size: set it to '
                f'{2 * tile}. ({error})'
            ) from error

    def check_lengths(self) -> None:
        """Checks the schedule against the length of the run.

        Raises:
          UserError: warm-up, a milestone or a step to be traced is beyond the end.
        """
        profiling.check_length(self.config.profile.steps, self.steps)
        beyond = self._beyond()
        if not beyond:
            return
        name, value = beyond
        schedule = self.config.schedule
        unit = self.steps_per_epoch if schedule.unit == 'epochs' else 1.0
        end, parts = self.steps / unit, len(schedule.milestones) + 1
        fitting = f'{end / 10:.2g}'
        if name == 'milestones':
            fitting = f'"({",".join(f"{end * i / parts:.2g}" for i in range(1, parts))},)"'
        raise UserError(
            f'config.schedule.{name}={value:g} {schedule.unit} lies beyond the end of the run, '
            f'which has {self.steps} steps ({end:g} {schedule.unit}): lower it, for instance by '
            f'--config.schedule.{name}={fitting}, or raise config.epochs or config.steps.'
        )

    def _beyond(self) -> tuple[str, float] | None:
        """Returns (field, value) of what the schedule has beyond the end; None if all fits."""
        schedule = self.config.schedule
        unit = self.steps_per_epoch if schedule.unit == 'epochs' else 1.0
        times = [('warmup', schedule.warmup)]
        times += [('milestones', milestone) for milestone in schedule.milestones]
        late = (pair for pair in times if pair[1] and math.floor(pair[1] * unit) >= self.steps)
        return next(late, None)

    def fitted(self) -> 'Experiment':
        """Returns the experiment with a schedule that fits if config.steps has made it shorter.

        The schedule is meant for config.epochs. It is scaled by the share of them that is left, if
        it does not fit and then does.
        """
        config = self.config
        if config.steps is None or not self._beyond():
            return self
        share = config.steps / (config.epochs * self.steps_per_epoch)
        shorter = shortening.scaled(config, min(share, 1.0))
        note = shortening.described(shorter, config)
        scaled = dataclasses.replace(self, config=shorter, note=note)
        return self if scaled._beyond() else scaled


def from_split(config: ConfigDict, train_split: Split) -> Experiment:
    """Returns the experiment of a checked configuration and an open training split.

    Raises:
      UserError: the schedule does not fit the length of the run, there are too few classes, or the
        tiles of an evaluation are too small for the network.
    """
    experiment = Experiment(
        config,
        tuple(input_pipeline.image_shape(config, train_split)),
        tuple(train_split.class_names),
        train_split.size,
        upright=bool(config.data.image_size) and train_split.upright,
        handwriting=not config.data.image_size and train_split.handwriting,
        stretch=train_split.stretch if config.data.image_size else None,
    ).fitted()
    experiment.check_classes()
    experiment.check_tiles()
    experiment.check_lengths()
    return experiment


def open_train(config: ConfigDict) -> tuple[Experiment, Split]:
    """Opens the training split and returns (experiment, split).

    Raises:
      UserError: the data set is missing or damaged, or does not fit the configuration.
    """
    train_split = input_pipeline.open_split(config, 'train')
    return from_split(config, train_split), train_split
