"""Writes contact sheets that show what the network is given and what each augmentation does.

    python -m tools.show_batch --config=configs/digits_lenet.py
    python -m tools.show_batch --config=configs/digits_lenet.py --step=500 --count=32 --out=sheets
    python -m tools.show_batch --config=configs/digits_lenet.py --split=validation
    python -m tools.show_batch --config=configs/digits_lenet.py --all

batch.png shows the first pictures of a batch after all augmentations, with the normalisation
undone. Each augmentation that is on gets a sheet of its own with one example per row: first the
plain picture, then its augmented versions in the first epochs. --all adds the augmentations that
are off and that the task and its images can have, at a usual strength, and each operation of the
policies.
"""

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import command
from errors import UserError, did_you_mean

if TYPE_CHECKING:  # JAX is imported once the command line is valid
    from ml_collections import ConfigDict

    from tools.batch_sheets import Shown

SPLITS = ('train', 'validation')


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m tools.show_batch',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--config', metavar='FILE', required=True, help='configuration of the experiment')
    add('--out', metavar='FOLDER', help='folder to write to [runs/sheets/NAME_OF_CONFIG]')
    add('--split', metavar='NAME', default='train', help='train or validation [train]')
    add('--step', type=int, metavar='N', default=0, help='number of the batch to show [0]')
    add('--count', type=int, metavar='N', default=16, help='number of pictures in batch.png [16]')
    add('--all', action='store_true', help='also show the augmentations that are off')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    if arguments.split not in SPLITS:
        hint = did_you_mean(arguments.split, SPLITS)
        reason = ' The test split is read once, at the end of a run.'
        raise UserError(
            f'--split={arguments.split} must be one of {", ".join(SPLITS)}.'
            + (reason if arguments.split == 'test' else hint)
        )
    for name, least in (('step', 0), ('count', 1)):
        if getattr(arguments, name) < least:
            raise UserError(f'--{name}={getattr(arguments, name)} must be at least {least}.')
    from configs import reading
    from distributed import devices

    config = reading.from_arguments(arguments.config, overrides)
    config.devices, config.distributed = 0, 'off'  # one device is enough
    devices.start(config)
    from tools import batch_sheets, contact_sheet

    shown = open_batch(config, arguments.split, arguments.step, arguments.count)
    out = Path(arguments.out or Path('runs/sheets') / Path(arguments.config).stem)
    to_write = [
        (out / f'{name}.png', make) for name, make in batch_sheets.sheets(shown, arguments.all)
    ]
    for path, _ in to_write:
        contact_sheet.check_free(path)
    for path, make in to_write:
        contact_sheet.write(make(), path)
        print(path)
    return 0


def open_batch(config: 'ConfigDict', split: str, step: int, count: int) -> 'Shown':
    """Reads the first rows of a batch.

    Raises:
      UserError: the configuration or the data set is invalid, or there is no such step.
    """
    import input_pipeline
    from tools.batch_sheets import Shown
    from training import checks, experiment

    checks.check(config)
    checks.check_devices(config, 1)
    train = input_pipeline.open_split(config, 'train')
    source = train if split == 'train' else input_pipeline.open_split(config, split)
    shape = tuple(input_pipeline.image_shape(config, train))
    made = experiment.Experiment(config, shape, tuple(train.class_names), train.size)
    per_call = min(config.eval_batch_size, source.size)
    batches = made.steps if split == 'train' else -(-source.size // per_call)
    if step >= batches:
        raise UserError(
            f'--step={step} is out of range: in this run, the {split} split has the batches 0 .. '
            f'{batches - 1}.'
        )
    if split == 'train':
        batch = next(iter(input_pipeline.batches(config, split, step)))
    else:
        batch = next(itertools.islice(input_pipeline.batches(config, split), step, None))
    count = min(count, int(batch['mask'].sum()))
    rows = np.arange(count + count % 2).clip(max=len(batch['mask']) - 1)
    first = {name: np.asarray(array)[rows] for name, array in batch.items()}
    first['mask'][count:] *= rows[count:] >= count  # a repeated last row is masked out
    return Shown(made, source, split, step, count, first)


if __name__ == '__main__':
    command.run(main)
