"""Kinds of target with a number for each pixel: its class, or its object."""

import dataclasses
import math
import zlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from data_sources import geometry
from data_sources.targets import Kind


@dataclasses.dataclass(frozen=True)
class LabelMap(Kind):
    """The number of a class for each pixel: uint8 [n, height, width].

    Attributes:
      fill: the number of pixels whose class is not known.
    """

    fill: int = 255

    moves = True
    bends = True
    prepared_by = 'masks --source=DIR_WITH_IMAGES_AND_LABELS'

    def empty(self, examples: int, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Returns a batch of zeros, uint8 [examples, height, width]."""
        return np.zeros((examples, *image_shape[:2]), np.uint8)

    def valid(self, values: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
        """Returns the maps of which each pixel has a class or `fill`: bool [n]."""
        return ((values < len(class_names)) | (values == self.fill)).all(axis=(1, 2))

    def fault(self, value: np.ndarray, class_names: Sequence[str]) -> str:
        """Returns the first number that is out of range, and how many classes there are."""
        invalid = value[(value >= len(class_names)) & (value != self.fill)]
        return f'with a pixel of class {invalid[0]}, out of range for {len(class_names)} classes'

    def accepts(self, feature: Any) -> bool:
        """Returns whether a tfds feature is a label image in uint8."""
        import tensorflow_datasets as tfds

        return isinstance(feature, tfds.features.LabeledImage) and feature.np_dtype == np.uint8

    def class_names(self, feature: Any) -> tuple[str, ...]:
        """Returns the names of the classes, in the order of their numbers."""
        return tuple(feature.names)

    def decoded(self, feature: Any) -> np.ndarray:
        """Returns uint8 [height, width]."""
        from data_sources import picture_files  # Pillow is not needed for labels

        with picture_files.opened(feature.bytes_list.value[0]) as picture:
            return np.asarray(picture)

    def _moved(self, value: Any, matrix: Any, shape: tuple[int, int], xp: ModuleType) -> Any:
        """Each pixel's class is the nearest one's; `fill` comes from outside the image."""
        return geometry.moved_map(value, matrix, shape, self.fill, xp)

    def _bent(self, value: Any, places: Any, xp: ModuleType) -> Any:
        return geometry.nearest(value, (places[..., 0], places[..., 1]), self.fill, xp)


@dataclasses.dataclass(frozen=True)
class InstanceMap(Kind):
    """The number of an object for each pixel: int32 [n, height, width], 0 for background.

    The numbers of an image's objects have no order and may have gaps. A prepared set holds them in
    16 bits: as a tensor, or as a picture, which tfds reads with OpenCV alone. `UNKNOWN` is for the
    pixels that a geometric change has brought in from outside the image; a prepared set has none of
    them.
    """

    UNKNOWN: ClassVar[int] = -1
    MOST: ClassVar[int] = 65_535
    MOST_PIXELS: ClassVar[int] = 1 << 28

    moves = True
    bends = True
    prepared_by = 'masks --instances --source=DIR_WITH_IMAGES_AND_MASKS'

    def empty(self, examples: int, image_shape: tuple[int, int, int]) -> np.ndarray:
        """Returns a batch of zeros, int32 [examples, height, width]."""
        return np.zeros((examples, *image_shape[:2]), np.int32)

    def valid(self, values: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
        """Returns the maps without a number below 0 or above `MOST`: bool [n]."""
        del class_names
        return ((values >= 0) & (values <= self.MOST)).all(axis=(1, 2))

    def fault(self, value: np.ndarray, class_names: Sequence[str]) -> str:
        """Returns the first number that no object can have."""
        del class_names
        invalid = value[(value < 0) | (value > self.MOST)]
        return f'with object {invalid[0]}; objects have numbers from 1 to {self.MOST:,}'

    def accepts(self, feature: Any) -> bool:
        """Returns whether a tfds feature is a picture or zlib tensor of one channel in uint16."""
        import tensorflow_datasets as tfds

        if isinstance(feature, tfds.features.Image):
            return feature.np_dtype == np.uint16 and feature.shape[-1] == 1
        return (
            isinstance(feature, tfds.features.Tensor)
            and feature.np_dtype == np.uint16
            and feature.shape == (None, None, 1)
            and feature.to_json_content().encoding == 'zlib'
        )

    def read(self, name: str, features: Mapping[str, Any]) -> np.ndarray:
        """Returns int32 [height, width], of a tensor or of a picture.

        tfds keeps the shape of a tensor of any size beside its values.
        """
        if f'{name}/value' not in features:
            return self.decoded(features[name])
        shape = tuple(features[f'{name}/shape'].int64_list.value)
        if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > self.MOST_PIXELS:
            raise ValueError(f'an instance map of shape {shape}')
        size = 2 * math.prod(shape)
        # A few bytes can unpack to gigabytes, so no more than that is unpacked.
        stored = features[f'{name}/value'].bytes_list.value[0]
        unpacked = zlib.decompressobj().decompress(stored, size + 1)
        if len(unpacked) != size:
            raise ValueError(f'an instance map of shape {shape} in another number of bytes')
        return np.frombuffer(unpacked, '<u2').reshape(shape)[..., 0].astype(np.int32)

    def decoded(self, feature: Any) -> np.ndarray:
        """Returns int32 [height, width]."""
        from data_sources import picture_files  # Pillow is not needed for labels

        with picture_files.opened(feature.bytes_list.value[0]) as picture:
            return np.asarray(picture).astype(np.int32)

    def _moved(self, value: Any, matrix: Any, shape: tuple[int, int], xp: ModuleType) -> Any:
        """Each pixel's object is the nearest one's; nothing is known outside the image."""
        return geometry.moved_map(value, matrix, shape, self.UNKNOWN, xp)

    def _bent(self, value: Any, places: Any, xp: ModuleType) -> Any:
        return geometry.nearest(value, (places[..., 0], places[..., 1]), self.UNKNOWN, xp)
