"""Small image sets with their targets, whole, in host memory: `load(name, split, data_dir)`.

A set that is registered here by its name is embedded: 'digits', and those that a program registers.
Any other name is a tfds data set that `python -m tools.prepare_data` (or tensorflow-datasets
itself, with file_format='array_record') left in <data_dir>/<name>/<version>/. Every set has the
splits train, validation and test.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from data_sources.targets import LABELS, Kind, TargetError, check_present
from errors import UserError, did_you_mean

SPLITS = ('train', 'validation', 'test')
# Known to be handwriting by their names; of other sets their info says so.
HANDWRITING = ('digits', 'mnist')


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """One split of an image set. One that exists is sound: it was checked when made.

    Attributes:
      name: the data set's name.
      split: 'train', 'validation' or 'test'.
      images: uint8 [n, height, width, channels], 0 (black) to 255.
      targets: {name: array [n, ...]}, each as `kinds` says.
      class_names: the classes in the order of their labels; none for a set without classes.
      kinds: {name: kind} of the targets.
      handwriting: whether an image is one character written by hand, bright on black, so that
        photos of such can be made like it (data_sources/handwriting.py).
      names_of: {target: its classes} of those that have others than `class_names`.

    Raises:
      UserError: there are no examples, or images or targets are not what they should be.
    """

    name: str
    split: str
    images: np.ndarray
    targets: Mapping[str, np.ndarray]
    class_names: tuple[str, ...] = ()
    kinds: Mapping[str, Kind] = dataclasses.field(default_factory=lambda: LABELS)
    handwriting: bool = False
    names_of: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def labels(self) -> np.ndarray:
        """The target 'label', int32 [n]: what a classifier learns."""
        return self.targets['label']

    @property
    def size(self) -> int:
        """How many examples it has."""
        return len(self.images)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that the step takes, under the step's names."""
        return {'image': self.images, **self.targets}

    def take(self, examples: np.ndarray) -> 'ArraySource':
        """Returns a copy of some examples, in the order given: int [m], 0 .. size - 1 each."""
        targets = {name: values[examples] for name, values in self.targets.items()}
        return dataclasses.replace(self, images=self.images[examples], targets=targets)

    def __post_init__(self):
        holder = f'the {self.split} split of data set "{self.name}"'
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise UserError(
                f'The images of {holder} are {_layout(self.images)}, not uint8 [n, height, width, '
                'channels].'
            )
        if not self.size:
            raise UserError(f'The {self.split} split of data set "{self.name}" has no examples.')
        if self.targets.keys() != self.kinds.keys():
            raise UserError(
                f'The targets of {holder} are {", ".join(self.targets) or "none"}, but it declares '
                f'kinds for {", ".join(self.kinds) or "none"}: each target needs one.'
            )
        for name, kind in self.kinds.items():
            values, expected = self.targets[name], kind.empty(self.size, self.images.shape[1:])
            if (values.dtype, values.shape) != (expected.dtype, expected.shape):
                raise UserError(
                    f'The target "{name}" of {holder} is {_layout(values)}, not '
                    f'{_layout(expected)}, which {kind} is for {self.size:,} examples.'
                )
            names = self.names_of.get(name, self.class_names)
            kind.check(name, values, names, lambda row: f'Example {row} of {holder}')


def _layout(values: np.ndarray) -> str:
    """Returns, for instance, 'float32 [1295, 1]'."""
    return f'{values.dtype} {list(values.shape)}'


def empty_images(shape: tuple[int, ...]) -> np.ndarray:
    """Returns a uint8 array of any content that starts at a multiple of 64 bytes.

    XLA on a CPU uses such an array as it is; of any other it makes a copy, and a set in memory
    would be there twice.
    """
    size = int(np.prod(shape))
    room = np.empty(size + 64, np.uint8)
    first = -room.ctypes.data % 64
    return room[first : first + size].reshape(shape)


# --- embedded sets ------------------------------------------------------------------------------

EMBEDDED: dict[str, Callable[[str], ArraySource]] = {}


def register(name: str, load_split: Callable[[str], ArraySource]) -> None:
    """Makes a data set known by its name, as `config.data.name` gives it.

    A name that is registered again, as in a notebook cell that is run twice, takes the new set.

    Args:
      name: of the set.
      load_split: 'train', 'validation' or 'test' -> the split; the same examples every time, or
        runs are not repeatable. It is called when a split is opened.
    """
    EMBEDDED[name] = load_split


def _digits(split: str) -> ArraySource:
    from data_sources import digits  # which imports this module

    return digits.load(split)


def _scenes(split: str) -> ArraySource:
    from data_sources import scenes

    return scenes.load(split)


register('digits', _digits)
register('scenes', _scenes)


# --- any set ------------------------------------------------------------------------------------


def load(name: str, split: str, data_dir: str, wanted: Mapping[str, Kind] = LABELS) -> ArraySource:
    """Reads one split of data set `name` into memory.

    Args:
      name: of an embedded data set, or of one prepared in `data_dir`.
      split: 'train', 'validation' or 'test'. A set that came without a validation split gives the
        end of its train split for it (see `tfds_sets.validation_size`).
      data_dir: the folder of prepared data sets; embedded ones do not look at it.
      wanted: {name: kind} of the targets that are read; others are left out.

    Raises:
      TargetError: the set has no such target, or one of another kind.
      UserError: unknown split; not prepared (names the command that does it); damaged; no
        examples; a target out of range.
    """
    if split not in SPLITS:
        raise UserError(
            f'There is no split "{split}": choose from {", ".join(SPLITS)}.'
            + did_you_mean(split, SPLITS)
        )
    if name not in EMBEDDED:
        from data_sources import tfds_sets  # tensorflow-datasets costs a second to import

        return tfds_sets.load(name, split, data_dir, wanted)
    source = EMBEDDED[name](split)
    stored = [target for target, kind in wanted.items() if kind.stored]
    check_present(f'Data set "{name}"', source.kinds, stored)
    targets = {}
    for target, kind in wanted.items():
        if not kind.stored:
            targets[target] = kind.empty(source.size, source.images.shape[1:])
            continue
        targets[target] = kind.taken(source.targets[target], source.kinds[target])
        if targets[target] is None:
            raise TargetError(
                f'Data set "{name}" has {source.kinds[target]} for "{target}", not {kind}.'
            )
    # Names of the targets' own, unless targets with other names are wanted as well.
    names, others = source.class_names, dict(source.names_of)
    if stored and all(others.get(target) == others.get(stored[0]) for target in stored):
        names, others = others.get(stored[0], names), {}
    return dataclasses.replace(
        source, targets=targets, kinds=wanted, class_names=names, names_of=others
    )


def check_split(name: str, split: str, data_dir: str) -> None:
    """Checks that data set `name` has a split, without reading it.

    Raises:
      UserError: it is not prepared, or nothing of it can serve as the split.
    """
    if name in EMBEDDED:
        return  # which have them all
    from data_sources import tfds_sets

    tfds_sets.check_split(name, split, data_dir)
