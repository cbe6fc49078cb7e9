"""A second task, to prove that one fits: the angle by which a digit was turned.

It brings what a task may bring: a data set, a target, fields, a head, a loss of two terms whose
weights differ, a metric of which lower is better, a metric made of rows, and a report with a
picture. Importing this module registers all of it; no file of the product knows of it.
"""

import dataclasses
import functools
import io
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import optax
from scipy import ndimage

from data_sources import arrays, digits
from data_sources.targets import Vector
from errors import UserError
from field import Field
from models.heads import HeadedNetwork
from tasks import registry
from tasks.answer import Choice, Description, Metric
from tasks.section import Picture, Section, Table
from tasks.task import Task

NAME = 'turned_digits'
LARGEST = 60.0  # degrees either way
KINDS = {'angle': Vector(1)}


@functools.cache
def load_split(split: str) -> arrays.ArraySource:
    """The embedded digits, each turned by an angle that follows from its place in the split."""
    source = digits.load(split)
    # Multiples of the golden ratio fill the interval evenly, in an order without a pattern.
    fraction = np.arange(source.size) * 0.6180339887 % 1
    angles = ((2 * fraction - 1) * LARGEST).astype(np.float32)
    images = arrays.empty_images(source.images.shape)
    for row, (image, angle) in enumerate(zip(source.images, angles, strict=True)):
        images[row] = ndimage.rotate(image, angle, axes=(0, 1), reshape=False, order=1)
    targets = {'angle': angles[:, None]}
    return arrays.ArraySource(NAME, split, images, targets, kinds=KINDS)


class AngleHead(HeadedNetwork):
    """For each image the angle, as a fraction of the largest, and a logit of its sign."""

    def make_head(self, layer):
        return layer.dense(2)

    def outputs(self, stages, train, mask):
        del train, mask
        return self.head(self.pooled(stages)).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Angles:
    """Predicted and true angles in degrees, float [n]."""

    predicted: np.ndarray
    true: np.ndarray

    def text(self) -> str:
        return f'median error {np.median(self._errors):.2f} degrees of {len(self.true):,} digits'

    def to_json(self) -> dict[str, Any]:
        return {
            'error': float(self._errors.mean()),
            'median_error': float(np.median(self._errors)),
            'examples': len(self.true),
            'predicted': self.predicted.tolist(),
        }

    def pictures(self, folder: Path, split: str, title: str) -> list[Path]:
        path = folder / f'angles_{split}.png'
        path.write_bytes(self._drawn(title))
        return [path]

    def sections(self) -> list[Section]:
        rows = [('angle', 'degrees'), ('median error', f'{np.median(self._errors):.2f}')]
        picture = Picture(self._drawn(''), 'Predicted angles against true ones', plot=True)
        return [Section('Angles', [Table('Errors', rows), picture])]

    def _drawn(self, title: str) -> bytes:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 5), layout='constrained')
        axes = figure.subplots()
        axes.plot(self.true, self.predicted, '.')
        axes.set(title=title, xlabel='true angle (degrees)', ylabel='predicted angle (degrees)')
        picture = io.BytesIO()
        figure.savefig(picture, format='png')
        return picture.getvalue()

    @property
    def _errors(self) -> np.ndarray:
        return np.abs(self.predicted - self.true)


@registry.register
@dataclasses.dataclass(frozen=True)
class Turned(Task):
    """How far a digit was turned.

    The loss is the squared error of the angle over all digits, plus `side_weight` times the binary
    cross-entropy of the side over those that were turned by more than `margin` degrees.
    """

    name = 'turned'
    metrics = (
        Metric('error', higher_is_better=False, unit='degrees'),
        Metric('median_error', higher_is_better=False, unit='degrees'),
        Metric('loss', higher_is_better=False),
    )
    targets: ClassVar = KINDS
    fields = (
        Field('turned.margin', 5.0, 'Degrees from which on the side counts.', low=0),
        Field('turned.side_weight', 0.1, 'Factor on the loss of the side.', low=0, traced=True),
    )
    terms = ('angle', 'side')

    margin: float = 5.0

    @classmethod
    def create(cls, config, class_names):
        return cls(config.turned.margin)

    @classmethod
    def check(cls, config):
        if config.augment.rotate:
            raise UserError('config.augment.rotate changes the angle that task=turned learns.')

    def network(self, backbone):
        return AngleHead(backbone=backbone)

    def weights(self, batch):
        return {'angle': batch['mask'].sum(), 'side': (batch['mask'] * self._sided(batch)).sum()}

    def loss(self, outputs, batch, hyper):
        angle, side = self._losses(outputs, batch)
        return {'angle': angle, 'side': hyper['side_weight'] * side}

    def sums(self, outputs, batch, detailed=False):
        angle, side = self._losses(outputs, batch)
        error = jnp.abs(outputs[:, 0] * LARGEST - batch['angle'][:, 0])
        weights = self.weights(batch)
        return {
            'loss': angle + side,
            'angle': angle,
            'side': side,
            'sided': weights['side'],
            'error': (batch['mask'] * error).sum(),
            'count': batch['mask'].astype(jnp.int32).sum(),
        }

    def rows(self, outputs, batch):
        return {'predicted': outputs[:, 0] * LARGEST, 'true': batch['angle'][:, 0]}

    def summarize(self, sums, rows=None):
        count = max(int(sums['count']), 1)
        loss = float(sums['angle']) / count + float(sums['side']) / max(float(sums['sided']), 1.0)
        values = {'loss': loss, 'error': float(sums['error']) / count}
        if rows is not None:
            values['median_error'] = Angles(**rows).to_json()['median_error']
        return values

    def report(self, sums, rows, class_names):
        return Angles(**rows)

    def predictions(self, outputs):
        return outputs[:, 0] * LARGEST

    def described(self, prediction, class_names, most):
        return Description(f'{prediction:.1f} degrees', {'angle': float(prediction)})

    def caption(self, targets, class_names):
        return (f'{targets["angle"][0]:.0f} degrees',)

    def choices(self, prediction, class_names, most=None):
        angle = float(prediction)
        choice = Choice('angle', abs(angle), f'{angle:.1f} degrees', {'sign': np.sign(prediction)})
        return (choice,)[:most]

    def score(self, outputs, values):
        return outputs[:, 0] * values['sign']

    def mistake(self, prediction, targets):
        error = abs(float(prediction) - float(targets['angle'][0]))
        return error if error > self.margin else None

    def _sided(self, batch):
        return (jnp.abs(batch['angle'][:, 0]) > self.margin).astype(jnp.float32)

    def _losses(self, outputs, batch):
        """The sums of both terms, without the factor."""
        true, mask = batch['angle'][:, 0], batch['mask']
        angle = (outputs[:, 0] - true / LARGEST) ** 2
        side = optax.sigmoid_binary_cross_entropy(outputs[:, 1], (true > 0).astype(jnp.float32))
        return (mask * angle).sum(), (mask * self._sided(batch) * side).sum()


arrays.register(NAME, load_split)
