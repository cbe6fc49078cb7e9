"""Prepared tfds data sets, read whole into memory. TensorFlow is not needed.

tfds parses and decodes one example at a time: 12 s for MNIST's 60,000. We take the serialised
examples through the same door in bulk and decode the images ourselves: 1 to 2 s.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from data_sources import png
from data_sources.arrays import ArraySource, empty_images
from errors import UserError, did_you_mean

_COMMANDS = {  # data set -> the options that prepare_data needs for it
    'mnist': '',
    'cifar10': '',
    'cifar100': '',
    'imagenet2012': '--source=DIR_WITH_THE_TAR_FILES',
}
_CHUNK = 4096  # examples; keeps the temporary arrays of the decoder in the processor's cache


def load(name: str, split: str, data_dir: str) -> ArraySource:
    """Reads one split of the data set in <data_dir>/<name>/<highest version>/.

    Raises:
      UserError: not prepared (names the command to run), damaged, lacking the split, or unfit: it
        needs an 'image' of one fixed size in uint8 and a class 'label'.
    """
    return read(find(name, data_dir), name, split)


def find(name: str, data_dir: str) -> Path:
    """Returns the folder of the highest prepared version of data set `name`.

    Raises:
      UserError: there is none. The sentence names the command that prepares it.
    """
    root = Path(data_dir).expanduser()
    versions = [
        (tuple(map(int, folder.parent.name.split('.'))), folder.parent)
        for folder in (root / name).glob('*/dataset_info.json')
        if re.fullmatch(r'\d+\.\d+\.\d+', folder.parent.name)
    ]
    if versions:
        return max(versions)[1]
    known = {path.parents[1].name for path in root.glob('*/*/dataset_info.json')}
    raise UserError(
        f'Data set "{name}" is not prepared in {root}: run {_command(name, root)}.'
        + did_you_mean(name, known | {'digits', *_COMMANDS} - {name})
    )


def _command(name: str, root: Path) -> str:
    """The command that prepares data set `name`, or those that may, in quotes."""
    base, _, side = name.rpartition('_')
    if name in _COMMANDS:
        fitting = [f'{name} {_COMMANDS[name]}'.rstrip()]
    elif base == 'imagenet2012' and side.isdecimal():
        fitting = [f'{base} {_COMMANDS[base]} --shorter_side={side}']
    else:
        fitting = [
            f'folder --name={name} --source=DIR_WITH_CLASS_FOLDERS',
            f'idx --name={name} --source=DIR_WITH_IDX_FILES',
        ]
    return ' or '.join(
        f'"python -m tools.prepare_data {what} --data_dir={root}"' for what in fitting
    )


def read(folder: Path, name: str, split: str) -> ArraySource:
    """Reads one split of the tfds data set in `folder`, as `load` does."""
    with damage_named(folder):
        builder = tfds.builder_from_directory(folder)
        stored, start, stop = locate(split, counts(builder), folder)
        return _read_range(builder, name, split, stored, start, stop)


def read_stored(folder: Path, name: str) -> dict[str, ArraySource]:
    """Reads every split as it is stored: none is made where the set has no validation split."""
    with damage_named(folder):
        builder = tfds.builder_from_directory(folder)
        return {
            split: _read_range(builder, name, split, split, 0, count)
            for split, count in counts(builder).items()
        }


def _read_range(builder, name: str, split: str, stored: str, start: int, stop: int) -> ArraySource:
    """Reads the examples start .. stop - 1 of the split that is called `stored` in the files."""
    shape, class_names = _check_features(builder)
    records = builder.as_data_source(
        stored, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    images = empty_images((stop - start, *shape))
    labels = np.empty(stop - start, np.int32)
    for first in range(start, stop, _CHUNK):
        chunk = range(first, min(first + _CHUNK, stop))
        examples = [
            tf_example_pb2.Example.FromString(record).features.feature
            for record in records.__getitems__(chunk)
        ]
        here = slice(first - start, first - start + len(chunk))
        encoded = [example['image'].bytes_list.value[0] for example in examples]
        images[here] = png.decode_many(encoded, shape)
        labels[here] = [example['label'].int64_list.value[0] for example in examples]
    return ArraySource(name, split, images, labels, class_names)


def validation_size(train_examples: int) -> int:
    """How many examples at the end of train serve for validation where a set has none of its own.

    The last 5,000 of 50,000 or more, as is usual for MNIST, and a hundredth where that is more; of
    smaller sets the last tenth.
    """
    if train_examples < 50_000:
        return max(1, train_examples // 10)
    return max(5_000, train_examples // 100)


def counts(builder: tfds.core.DatasetBuilder) -> dict[str, int]:
    """Returns {stored split: its number of examples}."""
    return {split: info.num_examples for split, info in builder.info.splits.items()}


def check_split(name: str, split: str, data_dir: str) -> None:
    """Checks that a stored split can serve as `split`.

    Raises:
      UserError: the set is not prepared, or has none.
    """
    folder = find(name, data_dir)
    with damage_named(folder):
        locate(split, counts(tfds.builder_from_directory(folder)), folder)


def locate(split: str, stored: Mapping[str, int], folder: Path) -> tuple[str, int, int]:
    """Returns (stored split, start, stop): where the examples of `split` are.

    A set without a test split, as ImageNet's labelled part is one, gives its validation split for
    it: then, as where it has none, validation is the end of train.

    Raises:
      UserError: nothing stored can serve.
    """
    own = 'validation' in stored and 'test' in stored
    role = {'validation': 'train', 'test': 'test' if 'test' in stored else 'validation'}
    name = split if own else role.get(split, split)
    if name not in stored:
        raise UserError(
            f'The data set in {folder} has no "{split}" split, only {", ".join(stored)}.'
        )
    count = stored[name]
    if own or name != 'train':
        return name, 0, count
    boundary = max(count - validation_size(count), 0)
    return (name, 0, boundary) if split == 'train' else (name, boundary, count)


def _check_features(
    builder: tfds.core.DatasetBuilder,
) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Returns the images' shape [height, width, channels] and the class names."""
    features = dict(builder.info.features or {})
    image, label = features.get('image'), features.get('label')
    if (
        not isinstance(image, tfds.features.Image)
        or not isinstance(label, tfds.features.ClassLabel)
        or image.np_dtype != np.uint8
        or None in image.shape
        or label.num_classes is None
    ):
        raise UserError(
            f'The data set in {builder.data_dir} cannot be held in memory: that takes an "image" '
            f'in uint8 of one fixed size and a class "label", and it has {features}. Pictures of '
            'any size are streamed with config.data.image_size, such as 224.'
        )
    return image.shape, tuple(label.names)


@contextlib.contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """A context that turns whatever the readers raise into one sentence that names the folder."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # tfds, protobuf, array_record, zlib, Pillow: no common base
        reason = (str(error).splitlines() or [''])[0]
        raise UserError(
            f'The data set in {folder} cannot be read ({type(error).__name__}: {reason:.200}): '
            'remove the folder and prepare it again.'
        ) from error
