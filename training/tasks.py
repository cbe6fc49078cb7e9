"""What is learned: the loss and the metrics, beside the model. Classification is the first task.

A task gives sums, never means: sums add up over devices, micro-batches and evaluation batches, and
a masked example adds nothing. Segmentation, detection and clips are further classes like this one.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Classification:
    """Softmax cross-entropy over `num_classes` classes."""

    num_classes: int

    def losses(self, logits, labels, label_smoothing=0.0):
        """Returns cross-entropies [batch] against targets (1 - s) one-hot + s / classes.

        Szegedy et al. 2016, section 7, for the smoothing.
        """
        log_p = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        hit = jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]
        return -(1 - label_smoothing) * hit - label_smoothing * log_p.mean(-1)

    def loss(self, logits, batch, label_smoothing=0.0):
        """Returns (sum of the losses, sum of the weights) over the real examples."""
        mask = batch['mask']
        return jnp.sum(mask * self.losses(logits, batch['label'], label_smoothing)), mask.sum()

    def metrics(self, logits, batch, detailed: bool = False):
        """Returns a dict of sums over the real examples.

        Args:
          logits: float [batch, classes].
          batch: 'label' int32 [batch] and 'mask' float32 [batch].
          detailed: adds 'confusion', int32 [classes, classes], rows true and columns predicted.
        """
        labels, mask = batch['label'], batch['mask']
        predicted = logits.argmax(-1)
        real = mask.astype(jnp.int32)
        sums = {
            'loss': jnp.sum(mask * self.losses(logits, labels)),
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
