"""data.json: what a network has to know of its data set, so that it works where the set is not.

It lies beside config.json, which has the rest: the names of the set, task and model, and how pixels
are scaled, cropped and normalized. A run writes it once, when it starts. Its members are the facts
of an Experiment:

    image_shape     [height, width, channels] of a training image
    class_names     the classes in the order of their labels; [] for a set without classes
    train_examples  the number of training examples
    upright         whether the EXIF orientation of streamed pictures is applied
    handwriting     whether an image is a character written by hand, bright on black
    stretch         the percentile by which pictures are stretched; null: they are not

To add a fact, give Experiment a field with a default, set it in `experiment.from_split`, and add a
line to FACTS. Files without it have the default; a run that is resumed adds it to its file.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import files
import input_pipeline
from data_sources import arrays
from errors import UserError
from training.experiment import Experiment, Split

FILE = 'data.json'
_REMEDY = 'Copy it anew, or remove it where the data set is, which is then read in its place.'
_MOST_VALUES = 2**26  # of an image
_MOST_EXAMPLES = 2**40


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MOST_EXAMPLES


def _is_shape(value: Any) -> bool:
    three = isinstance(value, list) and len(value) == 3 and all(map(_is_count, value))
    return three and math.prod(value) <= _MOST_VALUES


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_percentile(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value < 50)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_text(value: Any) -> bool:
    # Half a surrogate pair, which JSON may hold, cannot be printed.
    return isinstance(value, str) and value == value.encode(errors='ignore').decode()


# {name: (whether a value read from the file is one, what it has to be)}
FACTS = {
    'image_shape': (_is_shape, f'three whole numbers with a product of at most {_MOST_VALUES:,}'),
    'class_names': (_is_texts, 'a list of texts'),
    'train_examples': (_is_count, f'a whole number from 1 to {_MOST_EXAMPLES:,}'),
    'upright': (_is_truth, 'true or false'),
    'handwriting': (_is_truth, 'true or false'),
    'stretch': (_is_percentile, 'null or a number from 0 to below 50'),
}
_REQUIRED = ('image_shape', 'class_names', 'train_examples')


def load(folder: Path, config: ConfigDict) -> Experiment | None:
    """Returns the experiment of a workdir, without its data set; None if it has no data.json.

    Args:
      folder: the workdir.
      config: its checked configuration.

    Raises:
      UserError: the file is damaged, of a later version, or does not fit the configuration.
    """
    stored = _read(folder)
    if not stored:
        return None
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    values.setdefault('handwriting', config.data.name in arrays.HANDWRITING)
    experiment = Experiment(config, **values)
    if config.data.image_size and experiment.image_shape != input_pipeline.streamed_shape(config):
        raise _unusable(folder, 'its "image_shape" is not that of config.data.image_size')
    input_pipeline.check_fits(config, experiment.image_shape[-1], experiment.class_names)
    return experiment


def store(folder: Path, experiment: Experiment) -> None:
    """Writes the facts that data.json does not have yet: at the start of a run, all of them.

    Raises:
      UserError: the file is damaged or cannot be written.
    """
    stored = _read(folder)
    if stored.keys() != FACTS.keys():
        files.write_json(folder / FILE, {**_facts(experiment), **stored})


def check(folder: Path, experiment: Experiment) -> None:
    """Checks that a run is resumed with the data set that it was started with.

    Raises:
      UserError: a fact is not what data.json says, or the file is damaged.
    """
    differing = _differences(_read(folder), _facts(experiment))
    if differing:
        raise UserError(
            f'{_set(experiment.config)} is not the one that the run in {folder} was started with: '
            f'{differing}. Give the folder of that one by --config.data.dir, or choose another '
            '--workdir.'
        )


def check_split(experiment: Experiment, split: Split) -> None:
    """Checks that an open split has the images and classes that a network was trained for.

    Raises:
      UserError: it has not, because the data set was prepared anew or is another one.
    """
    shape = input_pipeline.image_shape(experiment.config, split)
    names = tuple(split.class_names)
    other = dataclasses.replace(experiment, image_shape=shape, class_names=names)
    differing = _differences(_facts(experiment), _facts(other))
    if differing:
        raise UserError(
            f'The {split.split} split of {_set(experiment.config, "data set")} is not of the set '
            f'that the network was trained on: {differing}. Give the folder of that one by '
            '--config.data.dir.'
        )


def _read(folder: Path) -> dict[str, Any]:
    """Returns the facts in data.json as JSON has them; {} if there is no such file."""
    path = folder / FILE
    if not path.exists():
        return {}
    stored = files.read_json(path, remedy=_REMEDY)
    for name in stored:
        if name not in FACTS:
            raise _unusable(folder, f'"{name}" is unknown to this version')
    for name, (is_one, wanted) in FACTS.items():
        if name not in stored and name in _REQUIRED:
            raise _unusable(folder, f'"{name}" is missing')
        if name in stored and not is_one(stored[name]):
            raise _unusable(folder, f'"{name}" is not {wanted}')
    return stored


def _unusable(folder: Path, problem: str) -> UserError:
    return UserError(f'{folder / FILE} cannot be used: {problem}. {_REMEDY}')


def _facts(experiment: Experiment) -> dict[str, Any]:
    """Returns the facts of an experiment as JSON has them."""
    values = {name: getattr(experiment, name) for name in FACTS}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _set(config: ConfigDict, what: str = 'Data set') -> str:
    return f'{what} "{config.data.name}" in {config.data.dir}'


def _differences(stored: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Returns the facts of a file that are others in the set, as text; '' if there are none."""
    texts = []
    for name, old in stored.items():
        new = found[name]
        if old == new:
            continue
        if name == 'class_names' and len(old) == len(new):
            place = next(i for i, pair in enumerate(zip(old, new, strict=True)) if len({*pair}) > 1)
            name, old, new = f'class {place}', old[place], new[place]
        elif name == 'class_names':
            name, old, new = 'the number of classes', len(old), len(new)
        texts.append(f'{name} is {new} there and {old} in the workdir')
    return '; '.join(texts)
