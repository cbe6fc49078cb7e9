"""Prepared tfds data sets, read whole into memory. TensorFlow is not needed.

tfds parses and decodes one example at a time: 12 s for MNIST's 60,000. We read the serialized
examples through the same interface in bulk and decode the images ourselves: 1 to 2 s.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

import files
from data_sources import arrays, png
from data_sources.arrays import ArraySource, empty_images
from data_sources.targets import LABELS, Kind, TargetError, check_present
from errors import UserError, did_you_mean

_COMMANDS = {  # data set -> the options that prepare_data needs for it
    'mnist': '',
    'cifar10': '',
    'cifar100': '',
    'imagenet2012': '--source=DIR_WITH_THE_TAR_FILES',
}
_CLASS_KEYS = ('pythonClassName', 'python_class_name', 'type')
_AGAIN = 'Remove the folder and prepare it again.'
_ROOT = Path(__file__).resolve().parent.parent  # the program's own folder
_CHUNK = 4096  # examples; keeps the temporary arrays of the decoder in the processor's cache


def load(name: str, split: str, data_dir: str, wanted: Mapping[str, Kind] = LABELS) -> ArraySource:
    """Reads one split of the data set in <data_dir>/<name>/<highest version>/.

    Args:
      name: of the data set.
      split: 'train', 'validation' or 'test'.
      data_dir: the folder of prepared data sets.
      wanted: {name: kind} of the targets that are read; other features are left out.

    Raises:
      TargetError: the set has no feature that is such a target.
      UserError: not prepared (names the command to run), damaged, lacking the split, or without an
        'image' of one fixed size in uint8.
    """
    return read(find(name, data_dir, wanted=wanted), name, split, wanted)


def find(
    name: str, data_dir: str, streamed: bool = False, wanted: Mapping[str, Kind] = LABELS
) -> Path:
    """Returns the folder of the highest prepared version of data set `name`.

    A relative folder is looked for from here, and then in the program's own folder.

    Args:
      name: of the data set.
      data_dir: the folder of prepared data sets.
      streamed: whether it is to be a set of pictures, for the command that prepares it.
      wanted: {name: kind} of the targets that it is to have, for that command too.

    Raises:
      UserError: there is none. The sentence names the command that prepares it.
    """
    root = Path(data_dir).expanduser()
    for folder in (root, _ROOT / root):
        versions = [
            (tuple(map(int, info.parent.name.split('.'))), info.parent)
            for info in (folder / name).glob('*/dataset_info.json')
            if re.fullmatch(r'\d+\.\d+\.\d+', info.parent.name)
        ]
        if versions:
            return max(versions)[1]
    if not re.fullmatch('[A-Za-z0-9][A-Za-z0-9_.-]*', name):
        raise UserError(
            f'config.data.name="{name}" is not the name of a data set: names have letters, digits '
            'and underscores; the folder of data sets is config.data.dir.'
        )
    command = _command(name, root, streamed, wanted)
    message = f'Data set "{name}" is not prepared in {root}: run {command}.'
    if not _is_known(name):
        prepared = {path.parents[1].name for path in root.glob('*/*/dataset_info.json')}
        message += did_you_mean(name, prepared | {*arrays.EMBEDDED, *_COMMANDS})
    raise UserError(message)


def _is_known(name: str) -> bool:
    """Whether a command prepares the set of that name and no other."""
    return name in _COMMANDS or re.fullmatch('imagenet2012_[0-9]+', name) is not None


def _command(name: str, root: Path, streamed: bool, wanted: Mapping[str, Kind]) -> str:
    """Returns the command that prepares data set `name`, or those that may, in quotes."""
    base, _, side = name.rpartition('_')
    if name in _COMMANDS:
        fitting = [f'{name} {_COMMANDS[name]}'.rstrip()]
    elif _is_known(name):
        fitting = [f'{base} {_COMMANDS[base]} --shorter_side={side}']
    else:
        commands = [kind.prepared_by for kind in wanted.values() if kind.prepared_by]
        if not commands:
            commands = ['folder --source=DIR_WITH_CLASS_FOLDERS']
            commands += [] if streamed else ['idx --source=DIR_WITH_IDX_FILES']
        fitting = [command.replace(' ', f' --name={name} ', 1) for command in commands]
    start, where = 'python -m tools.prepare_data', f' --data_dir={root}'
    if Path.cwd() != _ROOT:  # Python finds tools in the program's own folder alone
        start, where = f'cd {_ROOT} && {start}', f' --data_dir={root.absolute()}'
    elif root == Path('data'):  # the command's own default
        where = ''
    return ' or '.join(f'"{start} {what}{where}"' for what in fitting)


def opened(folder: Path) -> tfds.core.DatasetBuilder:
    """Opens the tfds data set in `folder`; the only way to it.

    Raises:
      UserError: its features.json is damaged, or names a class that is not tfds's own, or one of
        its files is a pipe or a device.
    """
    files.check_no_pipes(folder)
    path = folder / 'features.json'
    # tfds itself says what it misses.
    for name in _classes(files.read_json(path, remedy=_AGAIN)) if path.exists() else ():
        # tfds imports the module of a feature's class: code that came with the data would be run.
        if not name.startswith('tensorflow_datasets.'):
            raise UserError(
                f'The data set in {folder} cannot be read: a feature is of the class {name}, and '
                f'only those of tensorflow_datasets are imported. {_AGAIN}'
            )
    return tfds.builder_from_directory(folder)


def _classes(features: Any) -> Iterator[str]:
    """Yields the names of the classes in a features.json, also of JSON in its texts."""
    if isinstance(features, str) and features.lstrip().startswith(('{', '[')):
        features = files.parse_json(features, (dict, list))
    if isinstance(features, dict):
        yield from (str(features[key]) for key in _CLASS_KEYS if key in features)
        features = [item for key, item in features.items() if key not in _CLASS_KEYS]
    if isinstance(features, list):
        for item in features:
            yield from _classes(item)


def read(folder: Path, name: str, split: str, wanted: Mapping[str, Kind] = LABELS) -> ArraySource:
    """Reads one split of the tfds data set in `folder`, as `load` does."""
    with damage_named(folder):
        builder = opened(folder)
        stored, start, stop = locate(split, counts(builder), folder)
        return _read_range(builder, name, split, stored, range(start, stop), wanted)


def read_stored(folder: Path, name: str) -> dict[str, ArraySource]:
    """Reads every split as it is stored, with its labels.

    None is made where the set has no validation split.
    """
    with damage_named(folder):
        builder = opened(folder)
        return {
            split: _read_range(builder, name, split, split, range(count), LABELS)
            for split, count in counts(builder).items()
        }


def _read_range(
    builder: tfds.core.DatasetBuilder,
    name: str,
    split: str,
    stored: str,
    examples: range,
    wanted: Mapping[str, Kind],
) -> ArraySource:
    """Reads some examples of the split that is called `stored` in the files."""
    shape, class_names = _check_features(builder, wanted)
    records = builder.as_data_source(
        stored, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    count = len(examples)
    images = empty_images((count, *shape))
    targets = {target: kind.empty(count, shape) for target, kind in wanted.items()}
    for first in range(0, count, _CHUNK):
        rows = slice(first, first + _CHUNK)
        chunk = [
            tf_example_pb2.Example.FromString(record).features.feature
            for record in records.__getitems__(examples[rows])
        ]
        encoded = [features['image'].bytes_list.value[0] for features in chunk]
        images[rows] = png.decode_many(encoded, shape)
        for target, kind in wanted.items():
            if kind.stored:
                values = [kind.read(target, features) for features in chunk]
                if kind.fractions:
                    # Later it would not be seen what is wrong, and which record it is.
                    holder = f'split "{stored}" in {builder.data_dir}'
                    for index, value in zip(examples[rows], values, strict=True):
                        what = f'Record {index} of {holder}'
                        kind.check(target, value[None], class_names, lambda _, what=what: what)
                    values = [kind.in_pixels(value, shape[:2]) for value in values]
                targets[target][rows] = values
    handwriting = name in arrays.HANDWRITING or bool(
        (builder.info.metadata or {}).get('handwriting')
    )
    return ArraySource(name, split, images, targets, class_names, wanted, handwriting)


def validation_size(train_examples: int) -> int:
    """Returns how many examples at the end of train serve for validation, without a split for it.

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
        locate(split, counts(opened(folder)), folder)


def locate(split: str, stored: Mapping[str, int], folder: Path) -> tuple[str, int, int]:
    """Returns (stored split, start, stop): where the examples of `split` are.

    Where a set has no test split, as the labelled part of ImageNet has none, its validation split
    serves as test; validation is then the end of train, as it is where there is no validation
    split.

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
    builder: tfds.core.DatasetBuilder, wanted: Mapping[str, Kind]
) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """Returns the images' shape [height, width, channels] and the class names."""
    features = dict(builder.info.features or {})
    image = features.get('image')
    if (
        not isinstance(image, tfds.features.Image)
        or image.np_dtype != np.uint8
        or None in image.shape
    ):
        raise UserError(
            f'The data set in {builder.data_dir} cannot be held in memory: that needs an "image" '
            f'in uint8 of one fixed size, and it has {features}. Pictures of any size are streamed '
            'with config.data.image_size, such as 224.'
        )
    return image.shape, check_targets(features, wanted, builder.data_dir)


def check_targets(
    features: Mapping[str, Any], wanted: Mapping[str, Kind], folder: Any
) -> tuple[str, ...]:
    """Checks that a data set's features hold the targets; returns the names of its classes.

    The names are those of the first target that has any.

    Args:
      features: {name: tfds feature} of an example.
      wanted: {name: kind} of the targets.
      folder: of the data set, for the message.

    Raises:
      TargetError: a target is missing, or its feature is of another kind.
    """
    wanted = {name: kind for name, kind in wanted.items() if kind.stored}
    check_present(f'The data set in {folder}', features, wanted)
    for name, kind in wanted.items():
        if not kind.accepts(features[name]):
            raise TargetError(
                f'The data set in {folder} has a feature "{name}" that does not serve as {kind}: '
                f'{features[name]}.'
            )
    named = (kind.class_names(features[name]) for name, kind in wanted.items())
    return next(filter(None, named), ())


@contextlib.contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Turns whatever the readers raise inside the context into a sentence naming the folder."""
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
