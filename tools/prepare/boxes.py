"""The subcommands voc and yolo: pictures with boxes around objects."""

import argparse
import collections
from typing import TYPE_CHECKING

from tools.prepare import common, masks, writing

if TYPE_CHECKING:  # slow to import; not for --help
    from preparation.box_sets import BoxSource

_USUAL = 100  # boxes of a picture that the configurations have room for


def prepare_voc(args: argparse.Namespace) -> None:
    """Subcommand `voc`: boxes in the XML of Pascal VOC."""
    common.check_name(args.name)
    names = None if args.class_names is None else common.class_names(args.class_names)
    from preparation import voc, voc_xml  # slow to import; not for --help

    source = voc.VocFolder(args.source, args.name, names, args.splits, args.zero_based)
    written = write(source, args)
    from_zero = sum(of.get(voc_xml.FROM_ZERO, 0) for of in written.info.metadata['kinds'].values())
    if from_zero:
        print(
            f'Boxes start at 0 in {from_zero:,} pictures, and were taken to start at 1, from which '
            'VOC counts. If the tool that wrote them counts from 0, remove '
            f'{written.folder.parent} and prepare the set again with --zero_based.'
        )
    print(next_step(args, written))


def prepare_yolo(args: argparse.Namespace) -> None:
    """Subcommand `yolo`: boxes in the text of YOLO."""
    common.check_name(args.name)
    names = None if args.class_names is None else common.class_names(args.class_names)
    from preparation import yolo  # slow to import; not for --help

    source = yolo.YoloFolder(args.source, args.name, names, args.splits)
    print(next_step(args, write(source, args)))


def write(source: 'BoxSource', args: argparse.Namespace) -> writing.Written:
    """Writes a set of boxes, and prints what became of it.

    Args:
      source: a box_sets.BoxSource; what it has left out, it says in `about_left_out`.
      args: the options.
    """
    from preparation import box_sets

    if source.made:
        print(f'Taken out of train, by a hash of the stems: {" and ".join(source.made)}.')
    written = writing.write(box_sets.BoxSet(source, args.stretch), args)
    writing.report_missing_splits(written.counts)
    writing.report_rejected(written)
    masks.report_kept(written)
    changed = collections.Counter()
    for of_split in written.info.metadata['boxes'].values():
        changed.update(of_split)
    for what, count in changed.items():
        print(f'Boxes {what}: {count:,}.')
    print('\n'.join([*source.about_left_out(), writing.summary_of(written)]))
    alike = collections.Counter(name.casefold() for name in source.class_names)
    for name in (name for name, count in alike.items() if count > 1):
        names = ' and '.join(f'"{of}"' for of in source.class_names if of.casefold() == name)
        print(f'warning: the classes {names} differ in case alone. Are they one class?')
    return written


def next_step(args: argparse.Namespace, written: writing.Written) -> str:
    """Returns the command that trains on a set of boxes."""
    from preparation import summary

    boxes = summary.of(written.folder)['boxes']
    most = boxes['in_a_picture'][-1]
    more = f' --config.data.max_boxes={most}' * (most > _USUAL)
    return (
        f'Next: python train.py --config=configs/boxes_fcos.py --workdir=runs/{args.name} '
        f'--config.data.name={args.name} --config.data.dir={args.data_dir}{more}'
    )


def add_commands(commands: 'argparse._SubParsersAction') -> None:
    """Adds the subcommands `voc` and `yolo` to argparse's subparsers."""
    command = commands.add_parser('voc', help='pictures with boxes in the XML of Pascal VOC')
    command.description = (
        'Prepares pictures whose objects have boxes in the XML of Pascal VOC: in the folders '
        'JPEGImages and Annotations, or images and annotations, or side by side, all of that also '
        'below train, val and test. ImageSets/Main divides a set without such folders; without it, '
        'a tenth goes to validation and a tenth to test, by a hash of the stems.'
    )
    command.add_argument(
        '--zero_based',
        action='store_true',
        help='xmin, ymin, xmax and ymax are edges between pixels, counted from 0, as many tools '
        'write them (default: pixels counted from 1, the last one included, as VOC has them)',
    )
    _add_options(command, 'those that occur, sorted')
    command.set_defaults(run=prepare_voc)
    command = commands.add_parser('yolo', help='pictures with boxes in the text of YOLO')
    command.description = (
        'Prepares pictures whose objects have boxes in the text of YOLO: in the folders images and '
        'labels, or side by side, all of that also with or below train, val and test. data.yaml '
        'says the names of the classes and which pictures are for which split; without it, or '
        'such folders, a tenth goes to validation and a tenth to test, by a hash of the stems.'
    )
    _add_options(command, 'those in data.yaml, classes.txt or obj.names, or else the numbers')
    command.set_defaults(run=prepare_yolo)


def _add_options(command: argparse.ArgumentParser, names: str) -> None:
    """Adds the options that both share; `names` says where the names of the classes come from."""
    command.add_argument('--name', required=True, help='name of the data set, for example blood')
    command.add_argument(
        '--source', type=common.path, required=True, help='folder with the pictures and boxes'
    )
    command.add_argument(
        '--splits',
        type=common.path,
        metavar='FILE',
        help='which picture is in which split: JSON, {"train": [stems], "validation": ..., '
        '"test": ...}, or a text with a split and a stem on each line',
    )
    command.add_argument(
        '--class_names',
        metavar='FILE|A,B',
        help='names of the classes, separated by commas, or a file with one on each line '
        f'(default: {names})',
    )
    masks.add_stretch(command)
    writing.add_max_rejected(command)
    common.add_data_dir(command)
