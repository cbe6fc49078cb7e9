"""Kinds of target with boxes: alone, and as objects of a class; and where an image was taken."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from data_sources import geometry
from data_sources.targets import Kind, Numbers
from errors import UserError

CLASS, CROWD = 4, 5  # columns behind the four edges of a box


@dataclasses.dataclass(frozen=True)
class Objects(Kind):
    """Objects (y0, x0, y1, x1, class, crowd): float32 [n, most, 6], edges of pixels.

    The whole image is (0, 0, height, width). A row of zeros stands for an object that is not there;
    crowd is 1 for a box that holds several objects. An object whose centre leaves the image is
    gone; the box of any other is cut off at the image's edges.

    Attributes:
      most: how many an image has at most.
    """

    most: int = 100

    moves = True
    fractions = True
    prepared_by = 'voc --source=DIR_WITH_PICTURES_AND_XML'

    def empty(self, examples: int, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Returns a batch of zeros, float32 [examples, most, 6]."""
        del image_shape
        return np.zeros((examples, self.most, 6), np.float32)

    def valid(self, values: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
        """Returns the examples [n, any number, 6] all of whose objects may be: bool [n]."""
        sound = _sound(values, class_names).all(axis=1)
        return sound & (values.shape[1] <= self.most)

    def fault(self, value: np.ndarray, class_names: Sequence[str]) -> str:
        """Returns that there are too many objects, or what is wrong with the first unsound one."""
        if len(value) > self.most:
            return f'with {len(value):,} boxes, more than config.data.max_boxes={self.most}'
        first = value[~_sound(value, class_names)][0]
        if not np.isfinite(first).all():
            return super().fault(value, class_names)
        if (first[:2] > first[2:4]).any():
            box = first[:4].tolist()
            return f'with a box (y0, x0, y1, x1) = {box}, which ends before it starts'
        number = int(first[CLASS])
        return f'with a box of class {number}, out of range for {len(class_names)} classes'

    def remedy(self, value: np.ndarray) -> str:
        """Returns what to do about a value that is not valid."""
        if len(value) > self.most:
            return f'set it to {len(value)} or more (summary.json of the set says how many it has)'
        return super().remedy(value)

    def taken(self, values: np.ndarray, kind: Kind) -> np.ndarray | None:
        """Returns objects with as many rows as here; None if they are no objects.

        Raises:
          UserError: an example has more of them than fit; it is named.
        """
        if not isinstance(kind, Objects):
            return None
        counts = (values[..., 2] > values[..., 0]).sum(1)
        if counts.max(initial=0) > self.most:
            most = int(counts.argmax())
            value = values[most][: counts[most]]
            raise UserError(
                f'Example {most} has objects {self.fault(value, ())}: {self.remedy(value)}.'
            )
        result = self.empty(len(values), (0, 0, 0))
        rows = min(self.most, kind.most)
        result[:, :rows] = values[:, :rows]
        return result

    def accepts(self, feature: Any) -> bool:
        """Returns whether a tfds feature is a sequence of boxes with labels."""
        import tensorflow_datasets as tfds

        if not isinstance(feature, tfds.features.Sequence):
            return False
        if not isinstance(feature.feature, tfds.features.FeaturesDict):
            return False
        parts = dict(feature.feature.items())
        wanted = {'bbox': tfds.features.BBoxFeature, 'label': tfds.features.ClassLabel}
        return all(isinstance(parts.get(name), kind) for name, kind in wanted.items())

    def class_names(self, feature: Any) -> tuple[str, ...]:
        """Returns the names of the classes, in the order of their labels."""
        return tuple(feature.feature['label'].names)

    def read(self, name: str, features: Mapping[str, Any]) -> np.ndarray:
        """Returns float32 [objects, 6], with edges as fractions of the picture's sides."""
        boxes = np.array(features[f'{name}/bbox'].float_list.value, np.float32).reshape(-1, 4)
        labels = np.array(features[f'{name}/label'].int64_list.value, np.float32)
        if len(labels) != len(boxes):
            raise ValueError(f'{len(boxes)} boxes and {len(labels)} labels')
        crowd = np.zeros(len(boxes), np.float32)
        if f'{name}/is_crowd' in features:
            crowd = np.array(features[f'{name}/is_crowd'].int64_list.value, np.float32)
            if len(crowd) != len(boxes):
                raise ValueError(f'{len(boxes)} boxes and {len(crowd)} values of is_crowd')
        return np.column_stack([boxes, labels, crowd])

    def in_pixels(self, value: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Returns float32 [most, 6], with edges in pixels."""
        result = np.zeros((self.most, 6), np.float32)
        result[: len(value)] = value
        result[:, :4] *= np.array([*size, *size], np.float32)
        return _present(result, result, np)

    def _moved(self, value: Any, matrix: Any, shape: tuple[int, int], xp: ModuleType) -> Any:
        ends = geometry.surrounding(value[:, :4], matrix, xp)
        centre = (ends[:, :2] + ends[:, 2:]) / 2
        size = np.array(shape, np.float32)
        inside = ((centre >= 0) & (centre < size)).all(-1, keepdims=True)
        ends = xp.clip(ends, 0.0, np.array([*shape, *shape], np.float32))
        rows = xp.concatenate([ends, value[:, 4:]], -1) * inside
        return _present(rows, value, xp).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Boxes(Numbers):
    """Boxes (y0, x0, y1, x1): float32 [n, *count, 4], in edges of pixels.

    The whole image is (0, 0, height, width). A box without area stands for one that is not there.

    Attributes:
      count: how many there are in an image, by axes; () for one.
    """

    count: tuple[int, ...] = ()

    moves = True

    def _shape(self) -> tuple[int, ...]:
        return (*self.count, 4)

    def _moved(self, value: Any, matrix: Any, shape: tuple[int, int], xp: ModuleType) -> Any:
        """Boxes are clipped to the image; one that has left it has no area."""
        return geometry.moved_boxes(value, matrix, shape, xp)

    def valid(self, values: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
        """Returns the examples whose boxes are finite and end where they start or later."""
        boxes = values.reshape(len(values), -1, 4)
        ordered = (boxes[..., :2] <= boxes[..., 2:]).all(axis=(1, 2))
        return super().valid(values, class_names) & ordered

    def fault(self, value: np.ndarray, class_names: Sequence[str]) -> str:
        """Returns that a number is not finite, or the first box that ends before it starts."""
        boxes = value.reshape(-1, 4)
        reversed_ = boxes[(boxes[:, :2] > boxes[:, 2:]).any(axis=1)]
        if not len(reversed_):
            return super().fault(value, class_names)
        return f'with a box (y0, x0, y1, x1) = {reversed_[0].tolist()}, which ends before it starts'


@dataclasses.dataclass(frozen=True)
class Placement(Kind):
    """Where an image was taken from its picture, and the picture's size: float32 [n, 2, 4].

    The first three columns are a matrix that leads from places in the image to those in the picture
    (data_sources/geometry.py); the last one is (height, width) of the picture. Answers that have
    places are taken back to the picture by it.
    """

    moves = True
    stored = False

    def empty(self, examples: int, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Returns a batch of images that are their pictures."""
        return np.tile(self.default(image_shape[:2]), (examples, 1, 1))

    def default(self, size: tuple[int, int]) -> np.ndarray:
        """Returns the value that leaves everything where it is, float32 [2, 4]."""
        return np.column_stack([geometry.IDENTITY, size]).astype(np.float32)

    def _moved(self, value: Any, matrix: Any, shape: tuple[int, int], xp: ModuleType) -> Any:
        del shape
        joined = geometry.joined(value[:, :3], matrix, xp)
        return xp.concatenate([joined, value[:, 3:]], -1).astype(np.float32)


def _sound(values: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Returns which objects [..., 6] are finite, ordered and of a class: bool [...]."""
    ordered = (values[..., :2] <= values[..., 2:4]).all(-1)
    label = values[..., CLASS]
    known = (label >= 0) & (label < max(len(class_names), 1))
    return np.isfinite(values).all(-1) & ordered & known


def _present(rows: Any, earlier: Any, xp: ModuleType) -> Any:
    """Returns objects, with zeros for those that have no area now or had none before."""
    there = True
    for boxes in (rows, earlier):
        there = there & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return xp.where(there[:, None], rows, 0.0)
