"""Instance segmentation: which pixel belongs to which object, such as the nucleus of a cell.

The network tells apart background, the border of an object and its inside (Caicedo et al. 2019,
"Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl", Methods). Objects
that touch have borders between their insides, so that each inside is the seed of one object; a
watershed (tasks/objects.py) then gives every pixel of the foreground to one of them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from data_sources.label_maps import InstanceMap
from field import Field
from tasks import object_table, objects, overlap, overlays
from tasks.answer import Description, Metric, Sample
from tasks.products import Products
from tasks.segmentation import FIELDS, Segmentation
from tasks.segmentation_report import InstancesReport
from tasks.task import Batch, Sums

CLASSES = ('background', 'border', 'inside')
BACKGROUND, BORDER, INSIDE = range(3)


@dataclasses.dataclass(frozen=True)
class Instances(Segmentation):
    """The object of each pixel.

    Attributes:
      border: width of an object's border in pixels.
      least_area: area in pixels below which an object is dropped.
    """

    name = 'instances'
    metrics = (
        Metric('ap50', higher_is_better=True, percent=True),
        Metric('ap', higher_is_better=True, percent=True),
        Metric('dice', higher_is_better=True, percent=True),
        Metric('pooled_dice', higher_is_better=True, percent=True),
        Metric('loss', higher_is_better=False, unit='nats per pixel'),
    )
    fewest_classes = 0
    targets: ClassVar = {'instance_map': InstanceMap()}
    fields = (
        *FIELDS,
        Field('instances.border', 1, 'Width in pixels of the border of an object, which is a class '
              'of its own.', low=1, high=100),
        Field('instances.least_area', 10, 'Area in pixels below which an object of the answer is '
              'dropped.', low=0, high=10**6),
    )  # fmt: skip

    border: int = 1
    least_area: int = 10

    @classmethod
    def create(cls, config: Any, class_names: Sequence[str]) -> 'Instances':
        """Returns the task of a checked configuration; see Segmentation."""
        task = super().create(config, class_names)
        return dataclasses.replace(
            task, border=config.instances.border, least_area=config.instances.least_area
        )

    @classmethod
    def pixel_classes(cls, class_names: Sequence[str]) -> tuple[str, ...]:
        """Returns background, border and inside, whatever classes a data set has."""
        del class_names
        return CLASSES

    def classes(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns (background, border or inside for each pixel, and whether it is known)."""
        xp = jnp if isinstance(batch['instance_map'], jax.Array) else np
        return three_classes(batch['instance_map'], self.border, xp)

    # --- on the host ----------------------------------------------------------------------------

    def separated(self, prediction: np.ndarray) -> np.ndarray:
        """Returns the objects of a picture, int32 [h, w], of probabilities [h, w, 3]."""
        return objects.separated(prediction, least_area=self.least_area)

    def examined(
        self, prediction: np.ndarray, targets: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Returns the results of one picture.

        Those of Segmentation for the three classes; 'foreground' int64 [3]: pixels that are
        foreground in truth and answer, in the truth, in the answer; 'matched' int64 [10, 3]: see
        objects.matched.
        """
        truth = targets['instance_map']
        known = truth != InstanceMap.UNKNOWN
        true, predicted = (truth > 0) & known, (prediction[..., BACKGROUND] < 0.5) & known
        areas = [(true & predicted).sum(), true.sum(), predicted.sum()]
        return {
            **super().examined(prediction, targets),
            'foreground': np.array(areas, np.int64),
            'matched': objects.matched(self.separated(prediction), truth),
        }

    def summarize(self, sums: Sums, rows: Mapping[str, np.ndarray] | None = None) -> dict:
        """Returns the metrics; in training those of objects are left out.

        'ap50' and 'ap' are means over pictures, of the precision at an IoU of 0.5 and of its mean
        over ten thresholds; 'dice' is that of the foreground as a mean over pictures, 'pooled_dice'
        that of all pixels together.
        """
        confusion = np.asarray(sums['confusion'], np.int64)
        loss = float(sums['loss']) / max(int(confusion.sum()), 1)
        if rows is None:
            both = int(confusion[1:, 1:].sum())
            pooled = overlap.dice(both, int(confusion[1:].sum()), int(confusion[:, 1:].sum()))
            return {'loss': loss, 'pooled_dice': pooled}
        precision = objects.precision(rows['matched'])
        dice = [overlap.dice(*areas) for areas in rows['foreground']]
        return {
            'loss': loss,
            'ap50': float(precision[:, 0].mean()),
            'ap': float(precision.mean()),
            'dice': float(np.mean(dice)),
            'pooled_dice': overlap.dice(*sums['foreground']),
        }

    def quality(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the precision of each picture at an IoU of 0.5."""
        return objects.precision(rows['matched'])[:, 0]

    def report(
        self, sums: Sums, rows: Mapping[str, np.ndarray] | None, class_names: Sequence[str]
    ) -> InstancesReport:
        """Returns the precision by threshold, and the results of each picture."""
        metrics = self.summarize(sums, rows)
        names = self.pixel_classes(class_names)
        return InstancesReport(metrics, sums, rows, names, self.quality(rows))

    def answer(self, prediction: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the objects as an instance map, int32 [h, w]."""
        return {'instance_map': self.separated(prediction)}

    def products(
        self, image: np.ndarray, prediction: np.ndarray, class_names: Sequence[str]
    ) -> Products:
        """Returns the foreground as a label map, the objects, and the overlay."""
        del class_names
        found = self.separated(prediction)
        labels = (found > 0).astype(np.uint8)
        rows = object_table.rows(found, ['object'] * int(found.max(initial=0)))
        return self._products(image, labels, found, rows, {'instance_map': found})

    def described(
        self, prediction: np.ndarray, class_names: Sequence[str], most: int
    ) -> Description:
        """Returns how many objects there are, and which fraction of the picture they cover."""
        del class_names, most
        found = self.separated(prediction)
        count, covered = len(np.unique(found[found > 0])), float((found > 0).mean())
        text = f'{count:,} objects, which cover {covered:.1%} of the picture'
        return Description(text, {'objects': count, 'fraction': covered})

    def caption(
        self, targets: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> tuple[str, ...]:
        """Returns the number of objects."""
        del class_names
        found = targets['instance_map']
        count = len(np.unique(found[found > 0]))
        return ('1 object' if count == 1 else f'{count:,} objects',)

    def drawn(self, image: np.ndarray, targets: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the picture with each object in a color of its own; see tasks/overlays.py."""
        return overlays.instance_map(image, targets['instance_map'])

    def legend(self, class_names: Sequence[str]) -> tuple[tuple[str, Sample], ...]:
        """Returns nothing: colors only tell objects apart."""
        del class_names
        return ()

    def mistake(self, prediction: np.ndarray, targets: Mapping[str, np.ndarray]) -> float | None:
        """Returns 1 less the precision of the objects at an IoU of 0.5, unless it is 0."""
        matched = self.examined(prediction, targets)['matched']
        return (1 - float(objects.precision(matched[None])[0, 0])) or None


def three_classes(instances: Any, border: int, xp: ModuleType) -> tuple[Any, Any]:
    """Returns (class int32 [b, h, w], known float32 [b, h, w]) of instance maps.

    A pixel of an object is its border if one of another object or of the background is at most
    `border` pixels away, along rows, columns and diagonals. Pixels outside the map, and those of
    which nothing is known, are no neighbours.

    Args:
      instances: int32 [b, h, w]; see InstanceMap.
      border: width of the border in pixels.
      xp: numpy or jax.numpy.
    """
    known = instances != InstanceMap.UNKNOWN
    # A window holds two objects if its smallest and its largest number differ.
    smallest = xp.where(known, instances, InstanceMap.MOST + 1)
    largest = xp.where(known, instances, 0)
    for axis in (1, 2):
        smallest = _extreme(smallest, axis, border, xp.minimum, xp)
        largest = _extreme(largest, axis, border, xp.maximum, xp)
    inside = smallest == largest
    classes = xp.where(instances <= 0, BACKGROUND, xp.where(inside, INSIDE, BORDER))
    return classes.astype(np.int32), known.astype(np.float32)


def _extreme(values: Any, axis: int, border: int, extreme: Any, xp: ModuleType) -> Any:
    """Returns the smallest or largest value within `border` places along an axis."""
    for _ in range(border):
        first = xp.concatenate([xp.take(values, np.array([0]), axis), values], axis)
        last = xp.concatenate([values, xp.take(values, np.array([-1]), axis)], axis)
        size = values.shape[axis]
        before = first[(slice(None),) * axis + (slice(0, size),)]
        after = last[(slice(None),) * axis + (slice(1, size + 1),)]
        values = extreme(values, extreme(before, after))
    return values
