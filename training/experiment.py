"""From a checked configuration to the things that run: data, model, step, hyperparameters."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import input_pipeline
import models
from errors import UserError
from models.lowering import Lowering
from tasks import registry
from training import augment_config, checks, optimizers, partition, profiling, state
from training.spec import StepSpec

MODEL_DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


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
        task = registry.get(config.task).create(config, self.class_names)
        backbone = models.create(
            config.model.name,
            num_classes=0,
            dtype=MODEL_DTYPES[config.dtype],
            frozen=config.freeze,
            lowering=Lowering(**config.lowering),
            **checks.model_options(config),
        )
        model = task.network(backbone)
        frozen, factors = partition.of(config, model, self.image_shape)
        return StepSpec(
            model=model,
            task=task,
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
