"""From a checked configuration to the things that run: data, model, step, hyperparameters."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import input_pipeline
import models
from errors import UserError, did_you_mean
from models.lowering import Lowering
from training import augment_config, optimizers, partition, placement, profiling, state
from training.step import StepSpec
from training.tasks import Classification

MODEL_DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def check(config) -> None:
    """Checks what no single field can say: options that do not belong, contradictions.

    Raises:
      UserError: one sentence, before anything is compiled.
    """
    model_options(config)
    partition.check(config)
    augment_config.check(config)
    profiling.check(config.profile.steps)
    placement.check(config)
    if config.bce_threshold is not None and config.loss != 'bce':
        raise UserError(f'config.bce_threshold belongs to loss=bce, not {config.loss}.')
    optimizer, schedule = config.optimizer, config.schedule
    known = optimizers.OPTIONS[optimizer.name]
    for name, value in optimizer.items():
        if name not in (*optimizers.COMMON, *known) and value is not None:
            raise UserError(
                f'config.optimizer.{name} means nothing to {optimizer.name}, which takes '
                f'{", ".join(known)}.'
            )
    chosen = optimizers.options(optimizer)
    if chosen.get('nesterov') and not chosen['momentum']:
        raise UserError('config.optimizer.nesterov needs a config.optimizer.momentum above 0.')
    if schedule.name != 'step' and schedule.milestones:
        raise UserError(
            f'config.schedule.milestones belongs to schedule.name=step, not {schedule.name}.'
        )
    if schedule.name == 'step' and not schedule.milestones:
        raise UserError('config.schedule.name=step needs config.schedule.milestones.')
    if list(schedule.milestones) != sorted(set(schedule.milestones)):
        raise UserError('config.schedule.milestones must increase.')
    if schedule.name != 'cosine' and schedule.final:
        raise UserError('config.schedule.final belongs to schedule.name=cosine.')
    if min(config.data.std) <= 0:
        raise UserError('config.data.std must be greater than 0.')
    if config.batch_size % config.accumulate:
        raise UserError(
            f'config.batch_size={config.batch_size} is not divisible by '
            f'config.accumulate={config.accumulate}.'
        )


def check_devices(config, devices: int) -> None:
    """Checks that every device gets equally many examples of every micro-batch, and whole pairs.

    Raises:
      UserError: it does not; names sizes that work.
    """
    unit = devices * config.accumulate
    if config.batch_size % unit:
        lower = max(config.batch_size // unit * unit, unit)
        per = f' times {config.accumulate} micro-batches' if config.accumulate > 1 else ''
        raise UserError(
            f'config.batch_size={config.batch_size} is not divisible by {devices} devices{per}: '
            f'choose {lower} or {lower + unit}, or set config.devices.'
        )
    if augment_config.mixes(config) and config.batch_size % (2 * devices):
        unit = math.lcm(2, config.accumulate) * devices
        lower = max(config.batch_size // unit * unit, unit)
        raise UserError(
            'config.augment.mixup and config.augment.cutmix mix pairs of examples within a device, '
            f'and {devices} devices do not get an even part each of '
            f'config.batch_size={config.batch_size}: choose {lower} or {lower + unit}, or set '
            'config.devices.' + ' (config.smoke made the batch small.)' * config.smoke
        )


def model_options(config) -> dict[str, Any]:
    """Returns the options given for the configured model.

    Raises:
      UserError: no such model, an option that it does not take, or a value out of range.
    """
    given = {k: v for k, v in config.model.items() if k != 'name' and v is not None}
    if config.model.name not in models.names():
        raise UserError(
            f'config.model.name={config.model.name} is not a model; there are '
            f'{", ".join(models.names())}.{did_you_mean(config.model.name, models.names())}'
        )
    known = models.options(config.model.name)
    for name in given:
        if name not in known:
            raise UserError(
                f'config.model.{name} means nothing to {config.model.name}, which takes '
                f'{", ".join(sorted(known))}.'
            )
    try:
        models.create(config.model.name, num_classes=1, **given)
    except UserError as error:
        raise UserError(f'config.model: {error}') from error
    return given


def total_steps(config, examples: int) -> int:
    """Returns the length of the run in updates."""
    return config.steps or max(1, round(config.epochs * examples / config.batch_size))


def hyperparameters(config) -> dict[str, np.ndarray]:
    """Returns the scalars that enter the compiled step as arguments, by name."""
    values = {
        'learning_rate': config.optimizer.learning_rate,
        'weight_decay': config.optimizer.weight_decay,
        'label_smoothing': config.label_smoothing,
        **optimizers.options(config.optimizer),
    }
    values.pop('nesterov', None)
    if config.model.dropout_rate:
        values['dropout_rate'] = config.model.dropout_rate
    if config.optimizer.clip_norm:
        values['clip_norm'] = config.optimizer.clip_norm
    if config.ema_decay:
        values['ema_decay'] = config.ema_decay
    values.update(augment_config.strengths(config))
    hyper = {name: np.float32(value) for name, value in values.items()}
    return {**hyper, 'seed': np.uint32(config.seed)}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A configuration and what follows from it and the training split.

    Attributes:
      config: the checked configuration.
      image_shape: (height, width, channels).
      class_names: of the data set.
      train_examples: how many there are.
    """

    config: Any
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    train_examples: int

    @property
    def steps(self) -> int:
        """Length of the run in updates."""
        return total_steps(self.config, self.train_examples)

    @property
    def steps_per_epoch(self) -> float:
        """Updates in one pass over the training split; not always whole."""
        return self.train_examples / self.config.batch_size

    def spec(self) -> StepSpec:
        """Returns the static part of the step.

        Raises:
          UserError: a pattern of parameters that decides nothing, or nothing is left to train.
        """
        config = self.config
        model = models.create(
            config.model.name,
            num_classes=len(self.class_names),
            dtype=MODEL_DTYPES[config.dtype],
            frozen=config.freeze,
            lowering=Lowering(**config.lowering),
            **model_options(config),
        )
        frozen, factors = partition.of(config, model, self.image_shape)
        return StepSpec(
            model=model,
            task=Classification(len(self.class_names), config.loss, config.bce_threshold),
            optimizer=config.optimizer.name,
            schedule=optimizers.schedule(config.schedule, self.steps, self.steps_per_epoch),
            mean=config.data.mean,
            std=config.data.std,
            nesterov=bool(optimizers.options(config.optimizer).get('nesterov')),
            clip=config.optimizer.clip_norm is not None,
            accumulate=config.accumulate,
            ema=config.ema_decay > 0,
            sync_batch_norm=config.sync_batch_norm,
            # XLA's CPU backend has no fast path for convolution gradients inside a loop.
            unroll=jax.default_backend() == 'cpu',
            frozen=frozen,
            factors=factors,
            **augment_config.switches(config),
        )

    def initial_state(self, spec: StepSpec) -> state.TrainState:
        """Returns the state before the first update, as host arrays."""
        make = jax.jit(lambda seed: self.create_state(spec, seed))
        return jax.tree.map(np.asarray, make(np.uint32(self.config.seed)))

    def abstract_state(self, spec: StepSpec) -> state.TrainState:
        """Returns the shapes and types of the state; nothing is computed."""
        return jax.eval_shape(lambda seed: self.create_state(spec, seed), np.uint32(0))

    def create_state(self, spec: StepSpec, seed) -> state.TrainState:
        """Returns the state before the first update of a seed, uint32; a function to be jitted."""
        hyper = hyperparameters(self.config)
        optimizer = optimizers.make(spec.optimizer, hyper, spec.nesterov, spec.clip)
        return state.create(spec.model, optimizer, self.image_shape, seed, spec.ema, spec.frozen)

    def check_lengths(self) -> None:
        """Checks the schedule against the length of the run.

        Raises:
          UserError: warm-up, a milestone or a step to be traced lies beyond the end.
        """
        profiling.check_length(self.config.profile.steps, self.steps)
        schedule = self.config.schedule
        unit = self.steps_per_epoch if schedule.unit == 'epochs' else 1.0
        for name, values in (('warmup', (schedule.warmup,)), ('milestones', schedule.milestones)):
            for value in values:
                if value and math.floor(value * unit) >= self.steps:
                    raise UserError(
                        f'config.schedule.{name}={value:g} {schedule.unit} lies beyond the end of '
                        f'the run: it has {self.steps} steps, {self.steps / unit:g} {schedule.unit}'
                        '.'
                    )


def from_split(config, train_split) -> Experiment:
    """Returns the experiment of a checked configuration and an open training split."""
    experiment = Experiment(
        config,
        tuple(input_pipeline.image_shape(config, train_split)),
        tuple(train_split.class_names),
        train_split.size,
    )
    experiment.check_lengths()
    return experiment


def open_train(config) -> tuple[Experiment, Any]:
    """Opens the training split and returns (experiment, split)."""
    train_split = input_pipeline.open_split(config, 'train')
    return from_split(config, train_split), train_split
