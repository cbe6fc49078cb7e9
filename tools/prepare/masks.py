"""The subcommand masks: pictures with a class, or an object, for each pixel."""

import argparse
from pathlib import Path

from errors import UserError
from tools.prepare import common, writing

_NAMED = 3  # examples that are named in a sentence


def prepare_masks(args: argparse.Namespace) -> None:
    """Subcommand `masks`: the user's own pictures and masks."""
    common.check_name(args.name)
    names = None if args.class_names is None else _class_names(args.class_names)
    from preparation import mask_folder, mask_sets  # slow to import; not for --help

    source = mask_folder.MaskFolder(args.source, args.name, args.instances, names, args.splits)
    if source.made:
        print(f'Taken out of train, by a hash of the stems: {" and ".join(source.made)}.')
    written = writing.write(mask_sets.MaskSet(source, args.stretch), args)
    writing.report_missing_splits(written.counts)
    writing.report_rejected(written)
    report_kept(written)
    print('\n'.join([*source.about_left_out(), writing.summary_of(written)]))
    print(next_step(args.name, args.data_dir, args.instances))


def next_step(name: str, data_dir: Path, instances: bool) -> str:
    """Returns the command that trains on a set of masks."""
    train = 'Next: python train.py --config=configs/nuclei_unet.py'
    task = 'instances' if instances else 'segmentation'
    # The weights in this configuration are for border and inside of objects.
    more = '' if instances else " --config.segmentation.class_weights='()'"
    return (
        f'{train} --workdir=runs/{name} --config.task={task} --config.data.name={name} '
        f'--config.data.dir={data_dir}{more}'
    )


def report_kept(written: writing.Written) -> None:
    """Prints which examples are to be known of, though they are kept."""
    kept = [entry for entry in writing.listed(written) if entry.get('kept')]
    for entry in kept[:_NAMED]:
        print(f'{entry["file"]} ({entry["split"]}): {entry["reason"]}.')
    if len(kept) > _NAMED:
        print(f'{len(kept) - _NAMED} more of this sort are in {written.folder / "rejected.jsonl"}.')


def _class_names(text: str) -> tuple[str, ...]:
    """Returns the names in --class_names, of which there may be 255."""
    names = common.class_names(text)
    if len(names) > 255:
        raise UserError(
            f'--class_names has {len(names)} names, and a pixel of a mask has one of 255 classes '
            '(0 to 254; 255 means that its class is not known).'
        )
    return names


def percentile(text: str) -> float:
    """Parses a percentile for --stretch; an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 50:
        raise argparse.ArgumentTypeError(f'{text} is not a percentile from 0 to below 50')
    return value


def add_stretch(command: argparse.ArgumentParser) -> None:
    """Adds the option --stretch to a subcommand."""
    command.add_argument(
        '--stretch',
        type=percentile,
        metavar='PERCENTILE',
        help="make the values at this percentile of each picture's own, such as 0.5, and at 100 "
        'minus it black and white: for 16-bit pictures of a microscope, which are nearly black '
        'otherwise',
    )


def add_commands(commands: 'argparse._SubParsersAction') -> None:
    """Adds the subcommand `masks` to argparse's subparsers."""
    command = commands.add_parser('masks', help='your own pictures, with a mask for each')
    command.description = (
        'Prepares pictures in SOURCE/images and masks of equal stems in SOURCE/labels (or masks), '
        'or in such folders below train, val and test. A mask is a PNG (or TIFF, BMP) whose '
        'palette indices or grey levels are classes, 255 where the class is not known. With '
        '--instances they are objects, 0 for background; or there is a folder of masks of one '
        'object each for a picture (SOURCE/ID/masks beside SOURCE/ID/images, or SOURCE/masks/STEM).'
    )
    command.add_argument('--name', required=True, help='name of the data set, for example cells')
    command.add_argument(
        '--source', type=common.path, required=True, help='folder with the pictures and masks'
    )
    command.add_argument(
        '--splits',
        type=common.path,
        metavar='FILE',
        help='which picture is in which split: JSON, {"train": [stems], "validation": ..., '
        '"test": ...}, or a text with a split and a stem on each line. Without it and without '
        'folders for the splits, a tenth goes to validation and a tenth to test, by a hash of the '
        'stems',
    )
    command.add_argument(
        '--instances', action='store_true', help='masks say which object a pixel belongs to'
    )
    command.add_argument(
        '--class_names',
        metavar='FILE|A,B',
        help='names of the classes 0, 1, ...: separated by commas, or a file with one on each line '
        '(default: the numbers, up to the largest)',
    )
    add_stretch(command)
    writing.add_max_rejected(command)
    common.add_data_dir(command)
    command.set_defaults(run=prepare_masks)
