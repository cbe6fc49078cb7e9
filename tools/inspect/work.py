"""What the parts of tools.inspect work with: the opened network, pictures, a split, the folder."""

import argparse
import dataclasses
import functools
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import command
from data_sources import images
from errors import UserError, did_you_mean, shortened
from inspection import examples, exciting, methods, mistakes, opened, survey, units
from inspection.embedding import Features
from tools.inspect.output import LONGEST, Output, named
from training import prediction, trained

MOST_PICTURES = 100  # each has several files
NUMBERED = LONGEST - 4  # characters of a name with a number behind it


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of the command line.

    Attributes:
      name: its file's name without the suffix; with a number where files of two would be the same.
      path: the file.
      pixels: uint8 [h, w, c], as the network gets it.
    """

    name: str
    path: Path
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Work:
    """What the parts work with.

    Attributes:
      arguments: of the command line; `layer`, `stage`, `class` and `method` are for the parts.
      opened: the network.
      pictures: those of the command line that could be read.
      unreadable: how many could not.
      units: {stage: the numbers of the units} of --unit; empty without it.
      title: a line that says which network of which run it is.
      output: where files go.
    """

    arguments: argparse.Namespace
    opened: opened.Opened
    pictures: tuple[Picture, ...]
    unreadable: int
    units: Mapping[str, list[int]]
    title: str
    output: Output

    def save(self, name: str, content: bytes | str, caption: str) -> Path:
        """Writes a file into the folder, as `Output.save` does."""
        return self.output.save(name, content, caption)

    @property
    def pixels(self) -> np.ndarray:
        """All pictures, uint8 [n, h, w, c]."""
        return np.stack([picture.pixels for picture in self.pictures])

    @functools.cached_property
    def examples(self) -> examples.Examples:
        """The split of the data set that --split names, opened.

        Raises:
          UserError: it is not there, damaged, or another one than the network was trained on.
        """
        given = self.arguments
        return examples.of(self.opened.experiment, given.split, given.most)

    @functools.cached_property
    def surveyed(self) -> 'Surveyed':
        """What the network makes of the split: one pass, for all parts that ask about it.

        Raises:
          UserError: as for `examples`, or none of its records decodes.
        """
        stage = self.arguments.stage
        task, names = self.opened.task, self.opened.class_names
        found = Surveyed(
            mistakes.Mistakes(task, names),
            units.Units(units.pooled(self.opened.trace)),
            exciting.Likes(),
            Features(task, names, stage),
        )
        survey.run(self.opened, self.examples, list(vars(found).values()))
        if self.examples.note():
            print(f'  {self.examples.note()}', flush=True)
        return found


@dataclasses.dataclass(frozen=True)
class Surveyed:
    """What was collected in a pass over the split (inspection/survey.py)."""

    mistakes: mistakes.Mistakes
    units: units.Units
    likes: exciting.Likes
    features: Features


def prepared(arguments: argparse.Namespace, overrides: Sequence[str]) -> Work:
    """Opens everything but the data set.

    Raises:
      UserError: there is no such checkpoint, picture, layer, stage, unit or method, or the folder
        for the files cannot be used.
    """
    paths = images.list_images(arguments.images)
    if len(paths) > MOST_PICTURES:
        raise UserError(
            f'{len(paths)} pictures are too many, because each has files of its own: name at most '
            f'{MOST_PICTURES}.'
        )
    network = opened.of(trained.load(arguments.workdir, arguments.checkpoint, overrides))
    _check_name('layer', arguments.layer, [layer.name for layer in network.trace.layers])
    _check_name('stage', arguments.stage, list(network.trace.stages))
    command.chosen(arguments.method, [*methods.METHODS], 'method', '--method')
    counts = {name: stage.shape[-1] for name, stage in network.trace.stages.items()}
    chosen = {} if arguments.unit is None else exciting.named_units(arguments.unit, counts)
    config, step = network.experiment.config, network.step
    title = f'{config.model.name} on {config.data.name}, step {step} of {arguments.workdir}'
    pictures, unreadable = _read(network, paths, arguments.invert)
    folder = arguments.output or Path(arguments.workdir) / 'inspect'
    output = Output(folder, title, f'step {step}')
    return Work(arguments, network, tuple(pictures), unreadable, chosen, title, output)


def _check_name(option: str, name: str | None, known: Sequence[str]) -> None:
    """Raises a UserError if an option names what the network does not have."""
    if name is not None and name not in known:
        raise UserError(
            f'--{option}={shortened(name)}: the network has the {option}s {", ".join(known)}.'
            + did_you_mean(name, known)
        )


def _read(network: opened.Opened, paths: Sequence[Path], invert: str) -> tuple[list[Picture], int]:
    """Returns the pictures, and how many cannot be read; of these it prints the reasons.

    Raises:
      UserError: none can be read, or --invert does not suit the network.
    """
    if not paths:
        return [], 0
    _, read = prediction.reader(network.experiment, invert)
    pictures, taken = [], set()
    for path in paths:
        try:
            pixels = read(path)
        except UserError as error:
            if len(paths) == 1:
                raise
            print(f'error: {error}', file=sys.stderr)
            continue
        pictures.append(Picture(_free_name(path.stem, taken), path, pixels))
    if not pictures:
        raise UserError('None of the pictures can be read.')
    return pictures, len(paths) - len(pictures)


def _free_name(stem: str, taken: set[str]) -> str:
    """Returns a picture's name, with a number where its files would replace another picture's.

    Args:
      stem: of its file.
      taken: what `named` has made of the other names; that of this one is added.
    """
    for number in itertools.count(1):
        name = stem if number == 1 else f'{stem[:NUMBERED]}_{number}'
        if named(name) not in taken:
            taken.add(named(name))
            return name
