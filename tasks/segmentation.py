"""Semantic segmentation: each pixel belongs to one of several classes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from data_sources.label_maps import InstanceMap, LabelMap
from errors import UserError, did_you_mean
from field import Field
from models.heads import segmentation as heads
from models.network import Model, Network
from tasks import object_table, overlap, overlays
from tasks.answer import Choice, Description, Metric, Sample
from tasks.dense import DenseTask
from tasks.fields import LABEL_SMOOTHING
from tasks.pixel_losses import LOSSES
from tasks.products import Products
from tasks.segmentation_report import SegmentationReport
from tasks.task import Batch, Hyper, Sums

LEAST = 1e-12  # a probability below it counts as this much in the loss of evaluation

FIELDS = (
    LABEL_SMOOTHING,
    Field('head.name', 'unet', 'Head on the backbone: unet, or fcn8s, which is smaller and '
          'coarser.', choices=tuple(heads.HEADS)),
    Field('head.width', 16, 'unet: channels at full resolution; at stride s s times as many, at '
          'most 16 times.', low=1, high=1024),
    Field('segmentation.losses', ('cross_entropy',), 'Losses that are added: cross_entropy, dice, '
          'focal.', items=str),
    Field('segmentation.class_weights', (), 'Factors on the losses of the classes, in their order; '
          'for task=instances background, border, inside. (): all 1.', low=0, high=1000),
    Field('segmentation.focal_gamma', 2.0, 'focal: how much less pixels count that are right '
          'already; 0 is cross_entropy.', low=0, high=100, traced=True),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Segmentation(DenseTask):
    """The class of each pixel. Pixels of the target with the value 255 are void and never count.

    The loss of evaluation and of records is the cross-entropy, in nats per pixel, whatever is
    minimized. Metrics over a split are those of its confusion matrix of pixels (tasks/overlap.py).

    Attributes:
      num_classes: number of classes.
      head: the head's class in models/heads/segmentation.py.
      options: its options.
      losses: names of the losses that are added.
      class_weights: of the classes; all 1 where there are none.
    """

    name = 'segmentation'
    metrics = (
        Metric('mean_iou', higher_is_better=True, percent=True),
        Metric('dice', higher_is_better=True, percent=True),
        Metric('pixel_accuracy', higher_is_better=True, percent=True),
        Metric('loss', higher_is_better=False, unit='nats per pixel'),
    )
    fewest_classes = 2
    draws = True
    targets: ClassVar = {'segmentation_mask': LabelMap()}
    fields = FIELDS

    num_classes: int
    head: type[heads.SegmentationHead] = heads.UNet
    options: tuple[tuple[str, Any], ...] = ()
    losses: tuple[str, ...] = ('cross_entropy',)
    class_weights: tuple[float, ...] = ()

    @classmethod
    def create(cls, config: Any, class_names: Sequence[str]) -> 'Segmentation':
        """Returns the task of a checked configuration and a data set's classes.

        Raises:
          UserError: there is not one weight for each class.
        """
        names, weights = cls.pixel_classes(class_names), config.segmentation.class_weights
        if weights and len(weights) != len(names):
            raise UserError(
                f'config.segmentation.class_weights has {len(weights)} values, and there are '
                f'{len(names)} classes: {", ".join(names)}.'
            )
        head = heads.HEADS[config.head.name]
        options = (('width', config.head.width),) if head is heads.UNet else ()
        return cls(len(names), head, options, tuple(config.segmentation.losses), tuple(weights))

    @classmethod
    def pixel_classes(cls, class_names: Sequence[str]) -> tuple[str, ...]:
        """Returns the names of the classes that a pixel may have."""
        return tuple(class_names)

    @classmethod
    def check(cls, config: Any) -> None:
        """Checks head and losses.

        Raises:
          UserError: there is no such loss, or a field belongs to another loss or head.
        """
        if config.head.name != 'unet' and config.head.width != 16:
            raise UserError(
                f'config.head.width belongs to head.name=unet, not {config.head.name}: leave it '
                'at 16.'
            )
        losses = config.segmentation.losses
        for name in losses:
            if name not in LOSSES:
                raise UserError(
                    f'config.segmentation.losses has {name!r}; there are {", ".join(LOSSES)}.'
                    + did_you_mean(name, LOSSES)
                )
        if not losses or len(set(losses)) < len(losses):
            raise UserError(
                f'config.segmentation.losses={losses!r}: name at least one loss, and each once.'
            )
        if 'focal' not in losses and config.segmentation.focal_gamma != 2.0:
            raise UserError(
                'config.segmentation.focal_gamma belongs to the loss focal, which '
                f'config.segmentation.losses={losses!r} does not name: leave it at 2.0.'
            )
        if config.label_smoothing and 'cross_entropy' not in losses:
            raise UserError(
                'config.label_smoothing belongs to the loss cross_entropy, which '
                f'config.segmentation.losses={losses!r} does not name: leave it at 0.0.'
            )

    @property
    def terms(self) -> tuple[str, ...]:
        """The losses that are added."""
        return self.losses

    # --- in the compiled step -------------------------------------------------------------------

    def network(self, backbone: Network) -> Model:
        """Returns the backbone with the head, whose outputs are logits [b, h, w, classes]."""
        maps = backbone.adjusted(convolutional=True)
        return self.head(maps, num_classes=self.num_classes, **dict(self.options))

    def classes(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns (the class of each pixel, int32 [b, h, w], and whether it is known, float32)."""
        mask = batch['segmentation_mask']
        known = mask != self.targets['segmentation_mask'].fill
        return (mask * known).astype(np.int32), known.astype(np.float32)

    def _real(self, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the arguments of the losses: classes, known without padding, class weights."""
        classes, known = self.classes(batch)
        weights = jnp.array(self.class_weights or (1.0,) * self.num_classes, jnp.float32)
        return classes, known * batch['mask'][:, None, None], weights

    def loss(self, outputs: jax.Array, batch: Batch, hyper: Hyper) -> dict[str, jax.Array]:
        """Returns {loss: its sum over the real examples}; see tasks/pixel_losses.py."""
        options = {name: hyper[name] for name in ('label_smoothing', 'focal_gamma')}
        real = self._real(batch)
        return {name: LOSSES[name].total(outputs, *real, **options) for name in self.losses}

    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns {loss: weight}: pixels times the weights of their classes, or pictures."""
        real = self._real(batch)
        return {name: LOSSES[name].weight(*real) for name in self.losses}

    def sums(self, outputs: jax.Array, batch: Batch, detailed: bool = False) -> Sums:
        """Returns sums over the real examples' known pixels.

        'loss': cross-entropy; 'confusion' int32 [classes, classes], rows true and columns
        predicted; 'count' int32, the number of examples.

        Args:
          outputs: logits, float32 [b, h, w, classes].
          batch: the targets and 'mask'.
          detailed: changes nothing.
        """
        del detailed
        classes, known, weights = self._real(batch)
        loss = LOSSES['cross_entropy'].total(outputs, classes, known, jnp.ones_like(weights))
        # One product of ones and zeros, exact in float32 up to 2**24 pixels of an image: XLA counts
        # by scattering far more slowly.
        true = jax.nn.one_hot(classes, self.num_classes) * known[..., None]
        predicted = jax.nn.one_hot(outputs.argmax(-1), self.num_classes)
        confusion = jnp.einsum(
            'bhwt,bhwp->btp', true, predicted, precision=jax.lax.Precision.HIGHEST
        )
        return {
            'loss': loss,
            'confusion': confusion.astype(jnp.int32).sum(0),
            'count': batch['mask'].astype(jnp.int32).sum(),
        }

    def predictions(self, outputs: jax.Array) -> jax.Array:
        """Returns the probability of each class at each pixel, float32 [b, h, w, classes]."""
        return jax.nn.softmax(outputs)

    # --- on the host ----------------------------------------------------------------------------

    def examined(
        self, prediction: np.ndarray, targets: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns 'confusion' int64 [classes, classes] and 'loss' float64 of one picture."""
        batch = {name: value[None] for name, value in targets.items()}
        classes, known = (np.asarray(values)[0] for values in self.classes(batch))
        known = known > 0
        true, predicted = classes[known], prediction.argmax(-1)[known]
        own = np.take_along_axis(prediction, classes[..., None], axis=-1)[..., 0][known]
        return {
            'confusion': overlap.confusion(true, predicted, self.num_classes),
            'loss': -np.log(np.maximum(own, LEAST), dtype=np.float64).sum(),
        }

    def summarize(self, sums: Sums, rows: Mapping[str, np.ndarray] | None = None) -> dict:
        """Returns the metrics: over the confusion matrix, and the loss of a known pixel."""
        del rows
        confusion = np.asarray(sums['confusion'], np.int64)
        pixels = max(int(confusion.sum()), 1)
        return {
            'loss': float(sums['loss']) / pixels,
            'mean_iou': overlap.mean_iou(confusion),
            'dice': overlap.mean_dice(confusion),
            'pixel_accuracy': overlap.pixel_accuracy(confusion),
        }

    def quality(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the mean IoU of each picture."""
        return np.array([overlap.mean_iou(matrix) for matrix in rows['confusion']])

    def report(
        self, sums: Sums, rows: Mapping[str, np.ndarray] | None, class_names: Sequence[str]
    ) -> SegmentationReport:
        """Returns the table by class, the confusion matrix, and the results of each picture."""
        metrics = self.summarize(sums, rows)
        names = self.pixel_classes(class_names)
        return SegmentationReport(metrics, sums, rows, names, self.quality(rows))

    def answer(self, prediction: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the most probable class of each pixel, as a label map uint8 [h, w]."""
        return {'segmentation_mask': prediction.argmax(-1).astype(np.uint8)}

    def products(
        self, image: np.ndarray, prediction: np.ndarray, class_names: Sequence[str]
    ) -> Products:
        """Returns label map, connected parts of each class as objects, and the overlay."""
        labels = self.answer(prediction)['segmentation_mask']
        parts, classes = object_table.parts(labels)
        names = self.pixel_classes(class_names)
        rows = object_table.rows(parts, [names[i] for i in classes])
        return self._products(image, labels, parts, rows, {'segmentation_mask': labels})

    def _products(
        self,
        image: np.ndarray,
        labels: np.ndarray,
        instances: np.ndarray,
        rows: Sequence[Mapping[str, Any]],
        answer: Mapping[str, np.ndarray],
    ) -> Products:
        if len(rows) > InstanceMap.MOST:
            raise UserError(
                f'The answer has {len(rows):,} objects, and a map of them in 16 bits holds '
                f'{InstanceMap.MOST:,}: cut the picture into smaller ones.'
            )
        colored = np.broadcast_to(image, (*image.shape[:2], 3))
        pictures = {
            'labels': labels,
            'instances': instances.astype(np.uint16),
            'overlays': self.drawn(colored, answer),
        }
        return Products(pictures, rows)

    def described(
        self, prediction: np.ndarray, class_names: Sequence[str], most: int
    ) -> Description:
        """Returns the classes by the fraction of the picture that they cover, class 0 last."""
        fractions = _fractions(prediction)
        order = [i for i in _order(prediction)[:most] if fractions[i]]
        names = self.pixel_classes(class_names)
        text = '  '.join(f'{names[i]} {fractions[i]:.1%}' for i in order)
        covered = [{'class': names[i], 'fraction': float(fractions[i])} for i in order]
        return Description(text, {'classes': covered})

    def caption(
        self, targets: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> tuple[str, ...]:
        """Returns the names of the classes in the map, the largest first, and class 0 last."""
        values, counts = np.unique(targets['segmentation_mask'], return_counts=True)
        order = np.lexsort((-counts, values == 0))
        names = [class_names[values[i]] for i in order if values[i] < len(class_names)]
        return (', '.join(names),)

    def drawn(self, image: np.ndarray, targets: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the picture with the classes of its pixels in colors; see tasks/overlays.py."""
        return overlays.label_map(image, targets['segmentation_mask'])

    def legend(self, class_names: Sequence[str]) -> tuple[tuple[str, Sample], ...]:
        """Returns the color of each class but class 0, which is left as it is."""
        names = self.pixel_classes(class_names)[1:]
        return tuple((name, overlays.color_of(i)) for i, name in enumerate(names, start=1))

    # --- looked into ----------------------------------------------------------------------------

    def choices(
        self, prediction: np.ndarray, class_names: Sequence[str], most: int | None = None
    ) -> tuple[Choice, ...]:
        """Returns the classes by the fraction of the picture that they cover, class 0 last.

        Class 0 is what is left between the others.
        """
        fractions, names = _fractions(prediction), self.pixel_classes(class_names)
        order = _order(prediction)[:most]
        return tuple(
            Choice(
                names[i],
                float(fractions[i]),
                f'{names[i]} {100 * fractions[i]:.1f} % of the picture',
                {'class': np.int32(i)},
            )
            for i in order
        )

    def score(self, outputs: jax.Array, values: Mapping[str, jax.Array]) -> jax.Array:
        """Returns the mean logit [b] of the class over the pixels that are predicted as it.

        Vinogradova et al. 2020, "Towards interpretable semantic segmentation via
        gradient-weighted class activation mapping", equation 2, as a mean. Where no pixel is, it is
        the mean over all.
        """
        logits = outputs[..., values['class']]
        chosen = (outputs.argmax(-1) == values['class']).astype(logits.dtype)
        chosen = jnp.where(chosen.any((1, 2), keepdims=True), chosen, 1.0)
        return (logits * chosen).sum((1, 2)) / chosen.sum((1, 2))

    def mistake(self, prediction: np.ndarray, targets: Mapping[str, np.ndarray]) -> float | None:
        """Returns the fraction of the picture's known pixels that are wrong, unless it is 0."""
        confusion = self.examined(prediction, targets)['confusion']
        return (1 - overlap.pixel_accuracy(confusion)) or None


def _fractions(prediction: np.ndarray) -> np.ndarray:
    """Returns the fraction of the picture that each class covers, float [classes]."""
    predicted = prediction.argmax(-1).ravel()
    return np.bincount(predicted, minlength=prediction.shape[-1]) / predicted.size


def _order(prediction: np.ndarray) -> np.ndarray:
    """Returns the classes as they are told: those that cover most first, class 0 last.

    Classes that cover nothing follow in the order of their probabilities.
    """
    last = np.arange(prediction.shape[-1]) == 0
    covered = _fractions(prediction)
    return np.lexsort((-prediction.mean((0, 1)), -covered, last & (covered < 1)))
