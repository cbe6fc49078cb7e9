"""The subcommands imagenet2012 and folder: encoded pictures of any size, streamed in training."""

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tools.prepare import common, writing

if TYPE_CHECKING:  # slow to import; not for --help
    from preparation.picture_sets import PictureSource


def prepare_imagenet(args: argparse.Namespace) -> None:
    """Subcommand `imagenet2012`: ImageNet from the official tar files."""
    from preparation import imagenet  # slow to import; not for --help

    source = imagenet.ImageNetTars(args.source)
    for split, tar in imagenet.TARS.items():
        if split not in source.splits:
            print(f'{args.source} has no {tar}: there will be no {split} split.')
    classes = len(source.class_names)
    if 0 < source.classes_in_train < classes:
        print(f'{imagenet.TARS["train"]} has {source.classes_in_train} of the {classes} classes.')
    counts = _write(source, args)
    if source.classes_in_train == classes:
        for split, count in counts.items():
            if count != imagenet.EXAMPLES[split]:
                print(f'The official {split} split has {imagenet.EXAMPLES[split]:,} pictures.')


def prepare_folder(args: argparse.Namespace) -> None:
    """Subcommand `folder`: the user's own pictures."""
    common.check_name(args.name)
    from preparation import image_folder

    fractions = None
    if args.val_fraction is not None or args.test_fraction is not None:
        options = {'validation': args.val_fraction, 'test': args.test_fraction}
        fractions = image_folder.Fractions(**{k: v for k, v in options.items() if v is not None})
    source = image_folder.ImageFolder(args.source, args.name, fractions)
    if source.loose:
        some = ', '.join(source.loose) + ', ...' * (len(source.loose) > 2)
        print(f'Pictures outside class folders are left out: {some}')
    if source.made:
        print(f'Taken out of train, by a hash of the paths: {" and ".join(source.made)}.')
    for split, classes in source.absent.items():
        if classes:
            print(f'{split} has no pictures of {len(classes)} classes ({", ".join(classes[:3])}).')
    _write(source, args, source.about_left_out())


def _write(
    source: 'PictureSource', args: argparse.Namespace, left_out: Sequence[str] | None = None
) -> dict[str, int]:
    """Writes the set with a progress bar and reports it; returns {split: examples}.

    Args:
      source: the pictures.
      args: the options.
      left_out: what was left out, as sentences; they stand in the summary. None: no summary.
    """
    from preparation import picture_sets

    pictures = picture_sets.PictureSet(source, args.shorter_side)
    written = writing.write(pictures, args)
    if source.upright and not written.info.metadata.get('upright'):
        print(
            'warning: this set was prepared before EXIF orientation was applied, and its pictures '
            f'are still used as they are stored: remove {written.folder.parent} and prepare it '
            'again to have them turned upright.'
        )
    writing.report_missing_splits(written.counts)
    writing.report_rejected(written)
    if left_out is not None:
        print('\n'.join([*left_out, writing.summary_of(written)]))
    print(_next_step(pictures.name, args.data_dir))
    return written.counts


def _next_step(name: str, data_dir: str) -> str:
    """Returns the command that trains on the data set."""
    train = 'python train.py --config=configs/'
    if name == 'imagenet2012':
        return (
            f'Next: {train}imagenet_resnet50.py --workdir=runs/{name} --config.data.dir={data_dir}'
        )
    return (
        'Next, fine-tune converted weights (docs/weights.md says how to get them):\n'
        f'  {train}folder_finetune.py --workdir=runs/{name}_finetuned --config.data.name={name} '
        f'--config.data.dir={data_dir} --config.init_from=weights/resnet50\n'
        'or train with a configuration of your own (README.md, "Your own pictures").'
    )


def _side(text: str) -> int:
    if not re.fullmatch('[0-9]{1,9}', text) or not 8 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f'{text} is not a number of pixels from 8 to 10000')
    return int(text)


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f'{text} is not a fraction from 0 to below 1')
    return value


def add_commands(commands: 'argparse._SubParsersAction') -> None:
    """Adds the subcommands `imagenet2012` and `folder` to argparse's subparsers."""
    command = commands.add_parser('imagenet2012', help='ImageNet from its two official tar files')
    command.description = (
        'Prepares ImageNet (ILSVRC 2012) from ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, '
        'without unpacking them. The prepared set takes as much disk space as they do (150 GB).'
    )
    command.add_argument(
        '--source', type=common.path, required=True, help='folder with the tar files'
    )
    _add_options(command)
    command.set_defaults(run=prepare_imagenet)

    command = commands.add_parser('folder', help='your own pictures, in class folders')
    command.description = (
        'Prepares pictures in class folders (SOURCE/cat/1.jpg), or in class folders below train, '
        'val and test (SOURCE/train/cat/1.jpg). Without a val folder, validation and test pictures '
        'are taken out of train, the same ones each time.'
    )
    command.add_argument('--name', required=True, help='name of the data set, for example pets')
    command.add_argument(
        '--source', type=common.path, required=True, help='folder with the class folders'
    )
    command.add_argument(
        '--val_fraction',
        type=_fraction,
        help='fraction of each class to use for validation if there is no val folder '
        '(default: 0.1)',
    )
    command.add_argument(
        '--test_fraction',
        type=_fraction,
        help='fraction of each class to use for test if there is no val or test folder '
        '(default: 0.1)',
    )
    _add_options(command)
    command.set_defaults(run=prepare_folder)


def _add_options(command: argparse.ArgumentParser) -> None:
    writing.add_max_rejected(command)
    command.add_argument(
        '--shorter_side',
        type=_side,
        metavar='N',
        help='scale larger pictures down to N pixels at their shorter side; the set gets the name '
        'NAME_N',
    )
    common.add_data_dir(command)
