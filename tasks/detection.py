"""Object detection: a box, a class and a score for each object.

The network is anchor-free (FCOS, Tian et al. 2019): each place of its maps says which class it
lies in and how far the edges of the object are. Precision is COCO's, over a whole split.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from data_sources.box_targets import CLASS, Objects, Placement
from data_sources.targets import Kind
from errors import UserError
from models.heads.detection import DetectionHead, Locations, levels_of, locations
from models.network import Model, Network
from tasks import (
    average_precision,
    box_answers,
    box_losses,
    box_overlays,
    fcos_loss,
    overlays,
    suppression,
)
from tasks.answer import Boxes, Choice, Description, Metric, Sample
from tasks.assignment import REACH, Assigned, assigned
from tasks.average_precision import Found, Precision, Truth
from tasks.detection_fields import FIELDS
from tasks.detection_report import DetectionReport
from tasks.products import Products
from tasks.task import Batch, Hyper, Sums, Task


@dataclasses.dataclass(frozen=True)
class Detection(Task):
    """The objects of a picture.

    An answer is {'boxes' float32 [most, 4], 'scores' [most], 'classes' int32 [most]}, the best
    first; rows that are not used are 0. The terms of the loss are those of tasks/fcos_loss.py.

    Attributes:
      num_classes: number of classes.
      options: of the head.
      least_score, nms_iou, candidates, most: the fields of these names.
      threshold: the score from which an answer counts as found, where it has to be said.
      backbone: on which the head stands; None until `on`.
    """

    name = 'detection'
    metrics = (
        Metric('AP', higher_is_better=True, percent=True),
        Metric('AP50', higher_is_better=True, percent=True),
        Metric('AP75', higher_is_better=True, percent=True),
        Metric('loss', higher_is_better=False),
    )
    targets: ClassVar = {'objects': Objects(), 'placement': Placement()}
    fields = FIELDS
    terms = ('classification', 'boxes', 'centerness')
    fewest_classes = 1
    draws = True
    chooses = ('threshold',)
    judged = Metric('F1', higher_is_better=True, percent=True)

    num_classes: int
    options: tuple[tuple[str, Any], ...] = ()
    least_score: float = 0.05
    nms_iou: float = 0.6
    candidates: int = 1000
    most: int = 100
    threshold: float = 0.5
    backbone: Network | None = None

    @classmethod
    def create(cls, config: Any, class_names: Sequence[str]) -> 'Detection':
        """Returns the task of a checked configuration and a data set's classes."""
        head, own = config.head, config.detection
        options = {'channels': head.channels, 'depth': head.depth, 'extra': head.extra}
        options['strides'] = tuple(head.strides)
        return cls(
            len(class_names),
            tuple(options.items()),
            own.least_score,
            own.nms_iou,
            own.candidates,
            own.most,
        )

    @classmethod
    def kinds(cls, config: Any) -> Mapping[str, Kind]:
        """Returns the targets, with as many boxes as `data.max_boxes`."""
        return {**cls.targets, 'objects': Objects(config.data.max_boxes)}

    @classmethod
    def check(cls, config: Any) -> None:
        """Checks that evaluation does not cut pictures off, nor take more boxes than there are.

        Raises:
          UserError: a streamed set is not fitted, or the numbers of boxes contradict each other.
        """
        if config.data.image_size and config.data.crop != 'fit':
            raise UserError(
                f'config.data.crop={config.data.crop} cuts objects off: set it to fit, '
                'which keeps the whole picture, for task=detection.'
            )
        if config.detection.most > config.detection.candidates:
            raise UserError(
                f'config.detection.most={config.detection.most} is more than '
                f'config.detection.candidates={config.detection.candidates}, from which the boxes '
                'are chosen: lower it.'
            )

    def on(self, backbone: Network) -> 'Detection':
        """Returns the task with its backbone, whose maps say where places are."""
        return dataclasses.replace(self, backbone=backbone.adjusted(convolutional=True))

    # --- in the compiled step -------------------------------------------------------------------

    def network(self, backbone: Network) -> Model:
        """Returns the backbone with feature pyramid and head; see models/heads/detection.py."""
        maps = backbone.adjusted(convolutional=True)
        return DetectionHead(maps, num_classes=self.num_classes, **dict(self.options))

    def _assigned(self, batch: Batch) -> tuple[Locations, Assigned]:
        """Returns the places, and what each has to learn [b, L]."""
        images = batch['inputs'] if 'inputs' in batch else batch['image']
        options = dict(self.options)
        where = locations(self.backbone, options['strides'], options['extra'], images.shape[1:])
        each = jax.vmap(lambda objects: assigned(objects, where.places, where.strides))
        return where, each(batch['objects'])

    def _losses(self, outputs: Any, batch: Batch, alpha: Any, gamma: Any) -> tuple[dict, dict]:
        """Returns ({term: its sum over each example's places}, weights), each float32 [b]."""
        where, found = self._assigned(batch)
        boxes = suppression.boxes_at(where.places, outputs['distances'])
        terms = fcos_loss.terms(outputs, boxes, batch['objects'], found, alpha, gamma)
        return terms, fcos_loss.weights(found)

    def loss(self, outputs: Any, batch: Batch, hyper: Hyper) -> dict[str, jax.Array]:
        """Returns {term: its sum over the real examples}."""
        terms, _ = self._losses(outputs, batch, hyper['alpha'], hyper['focusing'])
        return {name: (values * batch['mask']).sum() for name, values in terms.items()}

    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns {term: places of objects, or the sum of their centerness}."""
        _, found = self._assigned(batch)
        return {name: (w * batch['mask']).sum() for name, w in fcos_loss.weights(found).items()}

    def sums(self, outputs: Any, batch: Batch, detailed: bool = False) -> Sums:
        """Returns sums over the real examples.

        'terms' and 'weights' float32 [3], in the order of `terms`, with the paper's focal loss
        whatever is minimized; 'loss', the sum of the former; 'count' int32, of examples.
        """
        del detailed
        rows = self._terms(outputs, batch)
        mask = batch['mask'][:, None]
        totals = {name: (values * mask).sum(0) for name, values in rows.items()}
        return {
            **totals,
            'loss': totals['terms'].sum(),
            'count': batch['mask'].astype(jnp.int32).sum(),
        }

    def _terms(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """Returns 'terms' and 'weights' of each example, float32 [b, 3]."""
        terms, weights = self._losses(outputs, batch, 0.25, 2.0)
        stacked = {'terms': terms, 'weights': weights}
        return {n: jnp.stack([v[t] for t in self.terms], -1) for n, v in stacked.items()}

    def rows(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """Returns the answer, the targets and the loss of each example."""
        targets = {name: batch[name] for name in self.targets}
        example = {'example': batch['index']}
        return {**self.predictions(outputs), **targets, **self._terms(outputs, batch), **example}

    def evaluated(
        self, outputs: Any, batch: Batch, detailed: bool = False
    ) -> tuple[Sums, dict[str, jax.Array]]:
        """Returns (the number of real examples, rows): the loss is a sum over rows too."""
        del detailed
        return {'count': batch['mask'].astype(jnp.int32).sum()}, self.rows(outputs, batch)

    def predictions(self, outputs: Any) -> dict[str, jax.Array]:
        """Returns the answers; see the class."""
        boxes = suppression.boxes_at(outputs['places'], outputs['distances'])
        scores = (
            jax.nn.sigmoid(outputs['logits']) * jax.nn.sigmoid(outputs['centerness'])[..., None]
        )
        own = (self.least_score, self.nms_iou, self.candidates, self.most)
        return suppression.chosen(jnp.sqrt(scores), boxes, outputs['size'], *own)

    # --- on the host ----------------------------------------------------------------------------

    def collected(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the rows with boxes in the pixels of their own pictures."""
        return box_answers.collected(rows)

    def totals(self, sums: Sums, rows: Mapping[str, np.ndarray]) -> Sums:
        """Returns the sums of the rows' losses, and the number of examples."""
        added = {name: rows[name].astype(np.float64).sum(0) for name in ('terms', 'weights')}
        return {**sums, **added}

    def summarize(self, sums: Sums, rows: Mapping[str, np.ndarray] | None = None) -> dict:
        """Returns the loss, COCO's AP, AP50 and AP75, and the threshold of the best F1.

        In training there are no rows, and the loss alone.
        """
        terms = np.asarray(sums['terms'], np.float64)
        loss = float((terms / np.maximum(np.asarray(sums['weights'], np.float64), 1)).sum())
        if rows is None:
            return {'loss': loss}
        precision = self.precision(rows)
        values = {'AP': precision.ap, 'AP50': precision.ap50, 'AP75': precision.ap75}
        curves = average_precision.curves(*box_answers.compared(rows), self.num_classes)
        values['threshold'] = average_precision.best_threshold(curves).threshold
        return {'loss': loss, **{n: 0.0 if v is None else v for n, v in values.items()}}

    def result(self, sums: Sums, rows: Mapping[str, np.ndarray] | None = None) -> dict:
        """Returns the metrics, without a threshold: none is chosen by the test split."""
        values = self.summarize(sums, rows)
        return {name: value for name, value in values.items() if name not in self.chooses}

    def precision(self, rows: Mapping[str, np.ndarray]) -> Precision:
        """Returns COCO's figures of a split."""
        return average_precision.evaluate(*box_answers.compared(rows), self.num_classes, self.most)

    def with_choices(self, values: Mapping[str, float]) -> 'Detection':
        """Returns the task with the threshold of the best F1 on validation."""
        return dataclasses.replace(self, threshold=float(values['threshold']))

    def quality(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the F1 of each picture at the threshold; 1 where nothing was there nor found."""
        return np.array([self._f1(*pair) for pair in zip(*box_answers.compared(rows), strict=True)])

    def _f1(self, found: Found, truth: Truth) -> float:
        [matched] = average_precision.matched([found], [truth], self.threshold)
        right = int(matched.right.sum())
        total = 2 * right + int(matched.wrong.sum()) + int(matched.missed.sum())
        return 2 * right / total if total else 1.0

    def report(
        self, sums: Sums, rows: Mapping[str, np.ndarray] | None, class_names: Sequence[str]
    ) -> DetectionReport:
        """Returns AP by size and class, curves, and counts at the threshold."""
        pairs = box_answers.compared(rows)
        return DetectionReport(
            metrics=self.result(sums, rows),
            precision=self.precision(rows),
            curves=average_precision.curves(*pairs, self.num_classes),
            counts=average_precision.count_errors(*pairs, self.threshold, self.num_classes),
            threshold=self.threshold,
            class_names=tuple(class_names),
            examples=len(rows['objects']),
        )

    def recalled(self, rows: Mapping[str, np.ndarray], row: int) -> dict[str, np.ndarray]:
        """Returns the answer that rows hold for an example, in its picture's pixels."""
        return {name: rows[name][row] for name in ('boxes', 'scores', 'classes')}

    def placed(
        self, prediction: Mapping[str, np.ndarray], matrix: np.ndarray, size: tuple[int, int]
    ) -> dict[str, np.ndarray]:
        """Returns a prediction in the pixels of a picture of (height, width)."""
        return box_answers.taken_back(prediction, matrix, np.asarray(size))

    def answer(self, prediction: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the objects at the threshold or above, float32 [n, 6], and their 'scores' [n]."""
        kept = prediction['scores'] >= max(self.threshold, self.least_score)
        classes = prediction['classes'][kept].astype(np.float32)
        parts = (prediction['boxes'][kept], classes, np.zeros_like(classes))
        return {
            'objects': np.column_stack(parts).astype(np.float32),
            'scores': prediction['scores'][kept],
        }

    def products(self, image: np.ndarray, prediction: Any, class_names: Sequence[str]) -> Products:
        """Returns the picture with boxes, and a row for each object."""
        answer = self.answer(prediction)
        colored = np.broadcast_to(image, (*image.shape[:2], 3)).copy()
        classes = answer['objects'][:, CLASS].astype(int)
        captions = [
            f'{class_names[k]} {score:.0%}'
            for k, score in zip(classes, answer['scores'], strict=True)
        ]
        drawn = box_overlays.boxes(colored, answer['objects'][:, :4], classes, captions)
        return Products({'boxes': drawn}, box_answers.listed(answer, class_names))

    def described(self, prediction: Any, class_names: Sequence[str], most: int) -> Description:
        """Returns the number of objects of each class; as values also each object."""
        del most
        answer = self.answer(prediction)
        counts = box_answers.counts(answer['objects'], class_names)
        listed = [
            {
                'class': row['class'],
                'score': row['score'],
                'box': [row[edge] for edge in ('left', 'top', 'right', 'bottom')],
            }
            for row in box_answers.listed(answer, class_names)
        ]
        return Description(box_answers.counted(counts), {'counts': counts, 'objects': listed})

    def caption(
        self, targets: Mapping[str, np.ndarray], class_names: Sequence[str]
    ) -> tuple[str, ...]:
        """Returns the number of objects of each class."""
        return (
            box_answers.counted(
                box_answers.counts(box_answers.there(targets['objects']), class_names)
            ),
        )

    def drawn(self, image: np.ndarray, targets: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the picture with a box around each object, in the color of its class."""
        objects = box_answers.there(targets['objects'])
        return box_overlays.boxes(image, objects[:, :4], objects[:, CLASS])

    def drawn_answer(
        self, image: np.ndarray, prediction: Any, targets: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Returns the picture with the answer, false alarms crossed out and misses dashed."""
        [found], [truth] = box_answers.compared(box_answers.as_rows(prediction, targets['objects']))
        [matched] = average_precision.matched([found], [truth], self.threshold)
        chosen = matched.right | matched.wrong
        # What was missed is drawn last: through its dashes a wrong box in its place can be seen.
        edges = np.concatenate([truth.boxes[matched.missed], found.boxes[chosen]])
        classes = np.concatenate([truth.classes[matched.missed], found.classes[chosen]])
        marks = np.where(matched.right[chosen], box_overlays.RIGHT, box_overlays.WRONG)
        marks = [*[box_overlays.MISSED] * int(matched.missed.sum()), *marks]
        return box_overlays.boxes(image, edges, classes, marks=marks)

    def boxes(self, prediction: Any, class_names: Sequence[str]) -> Boxes:
        """Returns all boxes, and the threshold."""
        found = box_answers.boxes(self.choices(prediction, class_names), class_names)
        return Boxes(max(self.threshold, self.least_score), found)

    def scaled(
        self, values: Mapping[str, np.ndarray], factors: tuple[float, float]
    ) -> dict[str, np.ndarray]:
        """Returns targets or a prediction with boxes for the picture at another size."""
        return box_answers.scaled(values, factors)

    def legend(self, class_names: Sequence[str]) -> tuple[tuple[str, Sample], ...]:
        """Returns the color of each class, and what lines mean."""
        colors = tuple((name, overlays.color_of(i + 1)) for i, name in enumerate(class_names))
        return (*colors, *box_overlays.samples())

    # --- looked into ----------------------------------------------------------------------------

    def choices(
        self, prediction: Any, class_names: Sequence[str], most: int | None = None
    ) -> tuple[Choice, ...]:
        """Returns all boxes, those below the threshold as well: why are they nearly an answer?"""
        levels = levels_of(self.backbone, dict(self.options)['strides'])
        ends = [REACH * place.stride for place in levels[:-1]] + [np.inf]
        stages = dict(zip(ends, (place.stage for place in levels), strict=True))
        return box_answers.choices(prediction, class_names, stages, most)

    def marked(self, image: np.ndarray, choice: Choice, factor: float = 1) -> np.ndarray:
        """Returns the picture with the box of a choice, in white."""
        return box_overlays.marked(image, choice.values['box'] * factor)

    def score(self, outputs: Any, values: Mapping[str, jax.Array]) -> jax.Array:
        """Returns the logit [b] of the class at the place whose box is most like the given one."""
        boxes = suppression.boxes_at(outputs['places'], outputs['distances'])
        overlap = box_losses.giou(boxes, jnp.broadcast_to(values['box'], boxes.shape))
        place = jax.lax.stop_gradient(overlap).argmax(-1)
        logits = outputs['logits'][..., values['class']]
        return jnp.take_along_axis(logits, place[:, None], axis=1)[:, 0]

    def mistake(self, prediction: Any, targets: Mapping[str, np.ndarray]) -> float | None:
        """Returns 1 less the F1 at the threshold, unless it is 0."""
        [found], [truth] = box_answers.compared(box_answers.as_rows(prediction, targets['objects']))
        return (1 - self._f1(found, truth)) or None
