"""Applies a trained network to pictures: python predict.py --workdir=runs/digits IMAGE..."""

import argparse
import json
import sys

import command
from errors import UserError

EPILOG = """\
examples:
  python predict.py --workdir=runs/digits scan.png photo.jpg
  python predict.py --workdir=runs/digits folder/ --top=3
  python predict.py --workdir=runs/digits folder/ --json > predictions.jsonl

Pictures may have any size and mode; a folder stands for all pictures in it. For a data set in
memory, pictures are scaled to fit into the network's image without changing their proportions. Its
grayscale networks were trained on bright strokes on black, so a picture with a bright border (ink
on paper) is inverted, unless --invert says otherwise. For a streamed set they are scaled and
cropped as in evaluation.

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
    add('--json', action='store_true', help='print a JSON object per line instead of text')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    from data_sources import images
    from training import prediction, progress, trained

    paths = images.list_images(arguments.images)
    network = trained.load(arguments.workdir, arguments.checkpoint, overrides)
    answers = prediction.predict(network, paths, arguments.invert, arguments.top)
    unreadable = 0
    for path, answer in progress.pictures(answers, len(paths)):
        if isinstance(answer, UserError):
            print(f'error: {answer}', file=sys.stderr)
            unreadable += 1
        elif arguments.json:
            print(json.dumps({'image': str(path), **answer.values}))
        else:
            print(f'{path}: {answer.text}')
    return UserError.exit_code if unreadable else 0


if __name__ == '__main__':
    command.run(main)
