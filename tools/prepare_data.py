"""Prepares a data set for training, once, as a tfds data set that is read without TensorFlow.

    python -m tools.prepare_data mnist --data_dir=data
    python -m tools.prepare_data mnist --source=FOLDER_WITH_THE_FOUR_GZ_FILES --data_dir=data
    python -m tools.prepare_data cifar10 --source=cifar-10-python.tar.gz --data_dir=data
    python -m tools.prepare_data idx --name=fashion_mnist --source=FOLDER --data_dir=data
    python -m tools.prepare_data folder --name=pets --source=FOLDER_OF_CLASS_FOLDERS --data_dir=data
    python -m tools.prepare_data masks --name=cells --source=FOLDER_OF_IMAGES_AND_LABELS
    python -m tools.prepare_data voc --name=blood --source=FOLDER_OF_JPEGIMAGES_AND_ANNOTATIONS
    python -m tools.prepare_data imagenet2012 --source=FOLDER_WITH_THE_TWO_TARS --data_dir=data
    python -m tools.prepare_data from_tfrecord --source=tensorflow_datasets/imagenet2012/5.1.0

A prepared set is never overwritten: running the command again checks it. If a run was killed, run
the same command again: it resumes large sets and writes small ones again. The digits data set is
built in and needs no preparation.
"""

import argparse
import sys
from collections.abc import Sequence

from errors import UserError
from tools.prepare import arrays, boxes, coco, masks, pictures, tfrecord


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    args = _make_parser().parse_args(argv)
    try:
        args.run(args)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('Stopped: run the same command again to resume.', file=sys.stderr)
        return 130
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m tools.prepare_data',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title='data sets', metavar='COMMAND', required=True)
    for family in (arrays, pictures, masks, boxes, coco, tfrecord):
        family.add_commands(commands)
    return parser


if __name__ == '__main__':
    sys.exit(main())
