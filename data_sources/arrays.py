"""Small labelled image sets, whole, in host memory: `load(name, split, data_dir)`.

'digits' is built in; any other name is a tfds data set that `python -m tools.prepare_data` (or
tensorflow-datasets itself, with file_format='array_record') left in <data_dir>/<name>/<version>/.
Every set has the splits train, validation and test.
"""

import dataclasses

import numpy as np

from errors import UserError, did_you_mean

SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """One split of a labelled image set. One that exists is sound: it was checked when made.

    Attributes:
      name: the data set's name.
      split: 'train', 'validation' or 'test'.
      images: uint8 [n, height, width, channels], 0 (black) to 255.
      labels: int32 [n], each in 0 .. len(class_names) - 1.
      class_names: the classes in the order of their labels.

    Raises:
      UserError: there are no examples, or a label is out of range.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many examples it has."""
        return len(self.labels)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What the step takes of it, under the step's names."""
        return {'image': self.images, 'label': self.labels}

    def __post_init__(self):
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise TypeError(f'images are {self.images.dtype} {self.images.shape}, not uint8 [nhwc]')
        if self.labels.dtype != np.int32 or self.labels.shape != self.images.shape[:1]:
            raise TypeError(f'labels are {self.labels.dtype} {self.labels.shape}, not int32 [n]')
        if not len(self.labels):
            raise UserError(f'The {self.split} split of data set "{self.name}" has no examples.')
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))
        if len(wrong):
            raise UserError(
                f'Example {wrong[0]} of the {self.split} split of data set "{self.name}" has label '
                f'{self.labels[wrong[0]]}, out of range for {len(self.class_names)} classes '
                f'({len(wrong)} such labels in all): prepare the data set again from sound files.'
            )


def empty_images(shape: tuple[int, ...]) -> np.ndarray:
    """Returns a uint8 array of any content that starts at a multiple of 64 bytes.

    XLA on a CPU takes such an array over as it is; of any other it makes a copy, and a set in
    memory would be there twice.
    """
    size = int(np.prod(shape))
    room = np.empty(size + 64, np.uint8)
    first = -room.ctypes.data % 64
    return room[first : first + size].reshape(shape)


def load(name: str, split: str, data_dir: str) -> ArraySource:
    """Reads one split of data set `name` into memory.

    Args:
      name: 'digits', or the name of a data set prepared in `data_dir`.
      split: 'train', 'validation' or 'test'. A set that came without a validation split gives the
        end of its train split for it (see `tfds_sets.validation_size`).
      data_dir: the folder of prepared data sets; 'digits' does not look at it.

    Raises:
      UserError: unknown split; not prepared (names the command that does it); damaged; no
        examples; a label out of range.
    """
    if split not in SPLITS:
        raise UserError(
            f'There is no split "{split}": choose from {", ".join(SPLITS)}.'
            + did_you_mean(split, SPLITS)
        )
    # Imported here because tensorflow-datasets costs a second to import.
    if name == 'digits':
        from data_sources import digits

        return digits.load(split)
    from data_sources import tfds_sets

    return tfds_sets.load(name, split, data_dir)
