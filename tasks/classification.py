"""What is learned: the loss and the metrics, beside the model. Classification is the first task.

A task gives sums, never means: sums add up over devices, micro-batches and evaluation batches, and
a masked example adds nothing. Segmentation, detection and clips are further classes like this one.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class Classification:
    """One of `num_classes` classes, or a mixture of two where images are mixed.

    The target is (1 - s) mixture + s / classes. s is the label smoothing (Szegedy et al. 2016,
    section 7); the mixture is the one-hot label, or in a batch with 'other_label' int32 [batch] and
    'share' float32 [batch] the share of it and the rest of the other (training/mixing.py).

    Attributes:
      num_classes: how many there are.
      kind: 'softmax', cross-entropy; or 'bce', the mean over the classes of each one's binary
        cross-entropy, as torch.nn.BCEWithLogitsLoss has it.
      bce_threshold: bce: a target above it counts as 1 and any other as 0, after smoothing, so that
        both of two mixed classes are to be found (Wightman et al. 2021, "ResNet strikes back",
        section 3.1). None: targets as they are.
    """

    num_classes: int
    kind: str = 'softmax'
    bce_threshold: float | None = None

    def losses(self, logits, batch, label_smoothing=0.0):
        """Returns the loss of each example, float32 [batch].

        Args:
          logits: float [batch, classes].
          batch: 'label' int32 [batch], and 'other_label' and 'share' where images are mixed.
          label_smoothing: s, in [0, 1).
        """
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        if self.kind == 'bce':
            targets = self._targets(batch, label_smoothing)
            return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)
        log_p = jax.nn.log_softmax(logits)
        hit = _chosen(log_p, batch['label'])
        if 'other_label' in batch:
            share = batch['share']
            hit = share * hit + (1 - share) * _chosen(log_p, batch['other_label'])
        return -(1 - label_smoothing) * hit - label_smoothing * log_p.mean(-1)

    def _targets(self, batch, label_smoothing):
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

    def loss(self, logits, batch, label_smoothing=0.0):
        """Returns (sum of the losses, sum of the weights) over the real examples."""
        mask = batch['mask']
        return jnp.sum(mask * self.losses(logits, batch, label_smoothing)), mask.sum()

    def metrics(self, logits, batch, detailed: bool = False):
        """Returns a dict of sums over the real examples: 'loss' (not smoothed), 'correct', 'count'.

        A mixed example is correct if the class with the larger share in it is predicted.

        Args:
          logits: float [batch, classes].
          batch: as in `losses`, with 'mask' float32 [batch].
          detailed: adds 'confusion', int32 [classes, classes], rows true and columns predicted.
        """
        labels, mask = batch['label'], batch['mask']
        if 'other_label' in batch:
            labels = jnp.where(batch['share'] >= 0.5, labels, batch['other_label'])
        predicted = logits.argmax(-1)
        real = mask.astype(jnp.int32)
        sums = {
            'loss': jnp.sum(mask * self.losses(logits, batch)),
            'correct': jnp.sum(real * (predicted == labels)),
            'count': real.sum(),
        }
        if detailed:
            empty = jnp.zeros((self.num_classes, self.num_classes), jnp.int32)
            sums['confusion'] = empty.at[labels, predicted].add(real)
        return sums

    @staticmethod
    def summarise(sums) -> dict[str, float]:
        """Returns {'loss', 'accuracy'} from summed metrics; accuracy in [0, 1]."""
        count = max(int(sums['count']), 1)
        return {'loss': float(sums['loss']) / count, 'accuracy': int(sums['correct']) / count}


def _chosen(log_p, labels):
    """The log-probability [batch] of each row's label."""
    return jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
