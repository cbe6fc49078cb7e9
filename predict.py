"""Applies a trained network to pictures: python predict.py --workdir=runs/digits IMAGE..."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import command
from errors import UserError

if TYPE_CHECKING:  # a command that is misspelled should not wait for it
    import numpy as np

    from training.prediction import Answer
    from training.trained import Trained

EPILOG = """\
examples:
  python predict.py --workdir=runs/digits scan.png photo.jpg
  python predict.py --workdir=runs/digits folder/ --top=3
  python predict.py --workdir=runs/digits folder/ --json > predictions.jsonl
  python predict.py --workdir=runs/digits photo.jpg --save_inputs=seen
  python predict.py --workdir=runs/nuclei folder/ --output=found --tta=flips
  python predict.py --workdir=runs/bccd folder/ --output=found --threshold=0.5

Pictures may have any size and mode; a folder stands for all pictures in it. For a data set in
memory, pictures are scaled to fit into the network's image without changing their proportions. Its
grayscale networks were trained on bright strokes on black, so a picture with a bright border (ink
on paper) is inverted, unless --invert says otherwise. For a streamed set they are scaled and
cropped as in evaluation.

A network that was trained on handwriting (digits, mnist, idx --handwriting) also reads photos: the
paper and its shadows are taken away, and the digit is laid into the image as in the data set. A
picture of the network's own size is no photo. --save_inputs shows what the network saw.

Segmentation takes pictures whole and at their own scale; large ones are cut into overlapping tiles.
For it --output writes labels/STEM.png, instances/STEM.png (16 bits) and overlays/STEM.png for each
picture and objects.csv with the class, area, center and box of each object, in pixels.

Detection prints the number of objects of each class; --json also gives the class, score and box
[left, top, right, bottom] of each, in the picture's own pixels. --output writes boxes/STEM.png and
objects.csv.

exit codes: 0 done, 2 the command or its input is wrong, or a picture could not be read (the others
are predicted)
"""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description='Applies the network that train.py has trained in a workdir to pictures.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('images', metavar='IMAGE', nargs='+', help='PNG or JPEG file, or a folder of them')
    add('--workdir', metavar='DIR', required=True, help='folder of the run')
    add('--checkpoint', metavar='WHICH', default='last', help='last, best, or a step [last]')
    add(
        '--top',
        metavar='N',
        type=command.positive,
        default=5,
        help='answers to print for each picture [5]',
    )
    add(
        '--invert',
        choices=('auto', 'yes', 'no'),
        default='auto',
        help='invert brightness: for a bright border, always, or never [auto]',
    )
    add(
        '--save_inputs',
        metavar='DIR',
        type=Path,
        help='write each picture as the network gets it, enlarged, into this new folder',
    )
    add(
        '--output',
        metavar='DIR',
        type=Path,
        help='write what was found in each picture, as pictures and a table, into this new folder',
    )
    add(
        '--tta',
        choices=('none', 'flips'),
        default='none',
        help='segmentation: average over the picture and its mirror images [none]',
    )
    add(
        '--threshold',
        metavar='SCORE',
        type=command.fraction,
        help='detection: score from which an object is an answer [of the best F1 on validation]',
    )
    add('--json', action='store_true', help='print a JSON object per line instead of text')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    from data_sources import images
    from training import prediction, progress, trained

    paths = images.list_images(arguments.images)
    network = trained.load(arguments.workdir, arguments.checkpoint, overrides)
    if arguments.threshold is not None:
        network = _with_threshold(network, arguments.threshold)
    save = _saver(arguments.save_inputs, paths) if arguments.save_inputs else None
    write = _writer(arguments.output, network) if arguments.output else None
    answers = prediction.predict(network, paths, arguments.invert, arguments.top, arguments.tta)
    unreadable = 0
    for position, (path, answer) in enumerate(progress.pictures(answers, len(paths))):
        if isinstance(answer, UserError):
            print(f'error: {answer}', file=sys.stderr)
            unreadable += 1
            continue
        if save:
            save(position, answer.image)
        if write:
            write(path, answer)
        if arguments.json:
            print(json.dumps({'image': str(path), **answer.values}))
        else:
            print(f'{path}: {answer.text}')
    return UserError.exit_code if unreadable else 0


def _with_threshold(network: 'Trained', threshold: float) -> 'Trained':
    """Returns the network with another threshold.

    Raises:
      UserError: its task has none.
    """
    task = network.spec.task
    if 'threshold' not in task.chooses:
        raise UserError(f'--threshold is for task=detection, not task={task.name}: leave it out.')
    task = task.with_choices({'threshold': threshold})
    return dataclasses.replace(network, spec=dataclasses.replace(network.spec, task=task))


def _writer(folder: Path, network: 'Trained') -> 'Callable[[Path, Answer], object]':
    """Returns a function that writes what was found in a picture.

    Raises:
      UserError: there is something in the folder, or the task finds nothing that has a place.
    """
    from training.prediction.folder import OutputFolder

    task, names = network.spec.task, network.experiment.class_names
    if not task.draws:
        raise UserError(
            f'--output writes what was found in a picture, and task={task.name} says one thing '
            'about the whole: leave it out, or use --json.'
        )
    output = OutputFolder(folder)
    return lambda path, answer: output.write(
        path, task.products(answer.image, answer.prediction, names)
    )


def _saver(folder: Path, paths: list[Path]) -> 'Callable[[int, np.ndarray], None]':
    """Returns a function that writes the input made of the picture at a position in `paths`.

    Raises:
      UserError: there is something in the folder.
    """
    from data_sources import images

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'--save_inputs={folder} is not an empty folder: choose another one.')

    def save(position: int, image: 'np.ndarray') -> None:
        # The position keeps pictures of several folders apart.
        name = f'{position + 1:04d}_{paths[position].stem[:100]}.png'
        images.write_enlarged(image, folder / name)

    return save


if __name__ == '__main__':
    command.run(main)
