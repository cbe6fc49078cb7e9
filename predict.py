"""Predicts the classes of pictures: python predict.py --workdir=runs/digits IMAGE..."""

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

Pictures may be of any size and mode; a folder stands for all pictures in it. They are fitted into
the network's image, keeping their shape. Grey-scale networks here learned bright strokes on black:
a picture with a bright border (ink on paper) is inverted, unless --invert says otherwise.
The exit code is 2 if a picture could not be read; the others are predicted all the same.
"""


def parser() -> argparse.ArgumentParser:
    """Returns the command line's parser."""
    parser = argparse.ArgumentParser(
        description='Predicts what is on pictures, with the network trained in a workdir.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('images', metavar='IMAGE', nargs='+', help='PNG or JPEG file, or a folder of them')
    add('--workdir', metavar='DIR', required=True, help='folder of the run')
    add('--checkpoint', metavar='WHICH', default='last', help='last, best, or a step [last]')
    add('--top', metavar='N', type=int, default=5, help='classes to print for each picture [5]')
    add('--invert', choices=('auto', 'yes', 'no'), default='auto', help='ink on paper? [auto]')
    add('--json', action='store_true', help='one JSON object a line instead of text')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    if arguments.top < 1:
        raise UserError(f'--top={arguments.top} must be at least 1.')
    from data_sources import images
    from training import prediction, trained

    paths = images.list_images(arguments.images)
    found = trained.load(arguments.workdir, arguments.checkpoint, overrides)
    unreadable = 0
    for path, answer in prediction.predict(found, paths, arguments.invert, arguments.top):
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
