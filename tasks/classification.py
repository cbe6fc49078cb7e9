"""Classification: each image belongs to one of several classes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data_sources.targets import Label
from errors import UserError
from field import Field
from models.network import Network
from tasks import calibration
from tasks.answer import Choice, Description, Metric
from tasks.calibration import Calibration
from tasks.confusion import ConfusionReport
from tasks.fields import LABEL_SMOOTHING
from tasks.task import Batch, Hyper, Sums, Task


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """One of `num_classes` classes, or a mixture of two where images are mixed.

    The target is (1 - s) mixture + s / classes, where s is the label smoothing (Szegedy et al.
    2016, section 7). The mixture is the one-hot label. In a batch of mixed images it is the
    fraction 'share' float32 [batch] of that label, and 1 - share of 'other_label' int32 [batch]
    (augmentation/mixing.py).

    Attributes:
      num_classes: number of classes.
      kind: 'softmax' for cross-entropy, or 'bce' for the mean over the classes of the binary
        cross-entropy of each, as in torch.nn.BCEWithLogitsLoss.
      bce_threshold: with bce, targets above it become 1 and all others 0, after smoothing, so that
        both of two mixed classes have to be predicted (Wightman et al. 2021, "ResNet strikes back",
        section 3.1). None: targets are not changed.
    """

    name = 'classification'
    metrics = (
        Metric('accuracy', higher_is_better=True, percent=True),
        Metric('loss', higher_is_better=False, unit='nats per example'),
    )
    fewest_classes = 2
    targets: ClassVar = {'label': Label()}
    fields = (
        LABEL_SMOOTHING,
        Field(
            'loss',
            'softmax',
            'softmax: cross-entropy over all classes; bce: mean over the classes of a binary '
            'cross-entropy for each.',
            choices=('softmax', 'bce'),
        ),
        Field(
            'bce_threshold',
            None,
            'bce: targets above it become 1, all others 0. None: targets are not changed.',
            float,
            low=0,
            below=1,
        ),
    )

    num_classes: int
    kind: str = 'softmax'
    bce_threshold: float | None = None

    @classmethod
    def create(cls, config: Any, class_names: Sequence[str]) -> 'Classification':
        """Returns the task of a checked configuration and a data set's classes."""
        return cls(len(class_names), config.loss, config.bce_threshold)

    @classmethod
    def check(cls, config: Any) -> None:
        """Checks the loss.

        Raises:
          UserError: there is a threshold, but the loss has none.
        """
        if config.bce_threshold is not None and config.loss != 'bce':
            raise UserError(
                f'config.bce_threshold belongs to loss=bce, not {config.loss}: leave it at None.'
            )

    def network(self, backbone: Network) -> Network:
        """Returns the backbone with its own head, which has one logit for each class."""
        return backbone.adjusted(num_classes=self.num_classes)

    def losses(
        self, logits: jax.Array, batch: Batch, label_smoothing: jax.typing.ArrayLike = 0.0
    ) -> jax.Array:
        """Returns the loss of each example, float32 [batch].

        Args:
          logits: float [batch, classes].
          batch: 'label' int32 [batch], and 'other_label' and 'share' if images are mixed.
          label_smoothing: s, in [0, 1); may be traced.
        """
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        if self.kind == 'bce':
            targets = self._targets(batch, label_smoothing)
            return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)
        log_p = jax.nn.log_softmax(logits)
        log_p_label = _chosen(log_p, batch['label'])
        if 'other_label' in batch:
            share = batch['share']
            log_p_label = share * log_p_label + (1 - share) * _chosen(log_p, batch['other_label'])
        return -(1 - label_smoothing) * log_p_label - label_smoothing * log_p.mean(-1)

    def _targets(self, batch: Batch, label_smoothing: jax.typing.ArrayLike) -> jax.Array:
        """Returns the targets of bce, float32 [batch, classes]."""
        targets = jax.nn.one_hot(batch['label'], self.num_classes)
        if 'other_label' in batch:
            share = batch['share'][:, None]
            other = jax.nn.one_hot(batch['other_label'], self.num_classes)
            targets = share * targets + (1 - share) * other
        targets = (1 - label_smoothing) * targets + label_smoothing / self.num_classes
        if self.bce_threshold is not None:
            targets = (targets > self.bce_threshold).astype(targets.dtype)
        return targets

    def loss(self, outputs: jax.Array, batch: Batch, hyper: Hyper) -> dict[str, jax.Array]:
        """Returns {'loss': the sum over the real examples}; see Task."""
        losses = self.losses(outputs, batch, hyper['label_smoothing'])
        return {'loss': jnp.sum(batch['mask'] * losses)}

    def sums(self, outputs: jax.Array, batch: Batch, detailed: bool = False) -> Sums:
        """Returns sums over the real examples: 'loss' (without smoothing), 'correct', 'count'.

        A mixed example is correct if the class with the larger fraction of it is predicted.

        Args:
          outputs: logits, float [batch, classes].
          batch: as in `losses`, with 'mask' float32 [batch].
          detailed: adds 'confusion', int32 [classes, classes], rows true and columns predicted, and
            the sums of tasks/calibration.py.
        """
        labels, mask = batch['label'], batch['mask']
        if 'other_label' in batch:
            labels = jnp.where(batch['share'] >= 0.5, labels, batch['other_label'])
        predicted = outputs.argmax(-1)
        real = mask.astype(jnp.int32)
        sums = {
            'loss': jnp.sum(mask * self.losses(outputs, batch)),
            'correct': jnp.sum(real * (predicted == labels)),
            'count': real.sum(),
        }
        if detailed:
            empty = jnp.zeros((self.num_classes, self.num_classes), jnp.int32)
            sums['confusion'] = empty.at[labels, predicted].add(real)
            sure = self.predictions(outputs).max(-1)
            sums |= calibration.sums(sure, predicted == labels, mask)
        return sums

    def summarize(self, sums: Sums, rows: Mapping[str, np.ndarray] | None = None) -> dict:
        """Returns {'loss', 'accuracy'} of sums; the accuracy is in [0, 1]."""
        del rows
        count = max(int(sums['count']), 1)
        return {'loss': float(sums['loss']) / count, 'accuracy': int(sums['correct']) / count}

    def result(self, sums: Sums, rows: Mapping[str, np.ndarray] | None = None) -> dict:
        """Returns the metrics and the number of examples that were classified correctly."""
        return {**self.summarize(sums, rows), 'correct': int(sums['correct'])}

    def headline(self, result: Mapping[str, Any]) -> str:
        """Returns a text such as '98.89 % (355 of 359 images)'."""
        correct, examples = result['correct'], result['examples']
        accuracy = self.metric('accuracy').shown(correct / examples if examples else float('nan'))
        return f'{accuracy} ({correct:,} of {examples:,} images)'

    def report(
        self, sums: Sums, rows: Mapping[str, np.ndarray] | None, class_names: Sequence[str]
    ) -> ConfusionReport:
        """Returns accuracy, loss, confusion matrix, calibration, and the results of each class."""
        loss = self.summarize(sums, rows)['loss']
        return ConfusionReport(sums['confusion'], class_names, loss, Calibration.of(sums))

    def constant_value(self, targets: Mapping[str, np.ndarray]) -> float:
        """Returns the accuracy of always predicting the most frequent class."""
        labels = targets['label']
        return float(np.bincount(labels).max() / len(labels))

    def predictions(self, outputs: jax.Array) -> jax.Array:
        """Returns the probability of each class, float [batch, classes].

        With binary cross-entropy they do not add up to 1, because each class is independent.
        """
        return jax.nn.sigmoid(outputs) if self.kind == 'bce' else jax.nn.softmax(outputs)

    def described(
        self, prediction: np.ndarray, class_names: Sequence[str], most: int
    ) -> Description:
        """Returns the most probable classes, in order of their probabilities."""
        order = np.argsort(-prediction, kind='stable')[:most]
        top = [(class_names[i], float(prediction[i])) for i in order]
        text = '  '.join(f'{name} {probability:.1%}' for name, probability in top)
        return Description(text, {'top': [{'class': n, 'probability': p} for n, p in top]})

    def caption(
        self, targets: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> tuple[str, ...]:
        """Returns the class; for a mixed picture both classes, each with its fraction."""
        name = class_names[targets['label']]
        if 'share' not in targets:
            return (name,)
        fraction, other = targets['share'], class_names[targets['other_label']]
        return (f'{fraction:.0%} {name}', f'{1 - fraction:.0%} {other}')

    def choices(
        self, prediction: np.ndarray, class_names: Sequence[str], most: int | None = None
    ) -> tuple[Choice, ...]:
        """Returns the classes, the most probable first."""
        order = np.argsort(-prediction, kind='stable')[:most]
        return tuple(
            Choice(
                class_names[i],
                float(prediction[i]),
                f'{class_names[i]} {100 * prediction[i]:.1f} %',
                {'class': np.int32(i)},
            )
            for i in order
        )

    def score(self, outputs: jax.Array, values: Mapping[str, jax.Array]) -> jax.Array:
        """Returns the logit of the class, float [batch]."""
        return outputs[:, values['class']]

    def mistake(self, prediction: np.ndarray, targets: Mapping[str, np.ndarray]) -> float | None:
        """Returns the probability of the most probable class if that is the wrong one."""
        predicted = int(prediction.argmax())
        return None if predicted == targets['label'] else float(prediction[predicted])


def _chosen(log_p: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the log-probability [batch] of each row's label."""
    return jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
