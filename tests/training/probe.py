"""A network and a task that report what went in: each example's pixels after all that is random.

With them a test looks at augmentation and at dropout's masks through the real step, on any number
of devices: the metric 'seen' [examples, pixels] holds, in row `label`, what the network made of the
example of that label (training adds dropout, and nothing else happens to the pixels).
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from data_sources.targets import Label
from models.layers import Dropout
from tasks.task import Task
from training import optimizers, state
from training.spec import StepSpec


class Probe(nn.Module):
    dropout_rate: Any = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, train=False, mask=None):
        weight = self.param('kernel', nn.initializers.ones, ())
        return weight * Dropout(self.dropout_rate)(images.reshape(len(images), -1), train)


@dataclasses.dataclass(frozen=True)
class Seen(Task):
    targets: ClassVar = {'label': Label()}
    examples: int

    def loss(self, outputs, batch, hyper):
        return {'loss': jnp.sum(batch['mask'][:, None] * outputs)}

    def sums(self, outputs, batch, detailed=False):
        empty = jnp.zeros((self.examples, outputs.shape[-1]))
        return {'seen': empty.at[batch['label']].add(batch['mask'][:, None] * outputs)}


def spec(examples: int, **options) -> StepSpec:
    return StepSpec(Probe(), Seen(examples), 'sgd', lambda step: 1.0, (0.0,), (1.0,), **options)


def hyper(seed=0, **more):
    values = {'learning_rate': 0.0, 'weight_decay': 0.0, 'label_smoothing': 0.0, 'momentum': 0.0}
    return {
        'seed': np.uint32(seed),
        **{name: np.float32(value) for name, value in {**values, **more}.items()},
    }


def start(shape, step=0):
    """The state after `step` updates; images are of `shape` [h, w, c]."""
    first = state.create(Probe(), optimizers.make('sgd', hyper()), shape, np.uint32(0), False)
    return first.replace(step=np.int32(step))
