"""The subcommand coco: pictures whose objects are annotated in COCO's format."""

import argparse

from errors import UserError
from tools.prepare import boxes, common, masks, writing


def prepare_coco(args: argparse.Namespace) -> None:
    """Subcommand `coco`: polygons and run lengths become masks, or boxes are taken."""
    common.check_name(args.name)
    if args.targets is None:
        args.targets = _what_there_is(args)
    if args.targets == 'boxes':
        _prepare_boxes(args)
        return
    if args.class_names is not None:
        raise UserError('--class_names is for --targets=boxes: masks have all categories.')
    from preparation import coco_masks, mask_sets  # slow to import; not for --help

    source = coco_masks.CocoMasks(args.source, args.name, args.annotations, args.instances)
    if source.made:
        print(f'Taken out of train, by a hash of the names: {" and ".join(source.made)}.')
    written = writing.write(mask_sets.MaskSet(source, args.stretch), args)
    writing.report_missing_splits(written.counts)
    writing.report_rejected(written)
    masks.report_kept(written)
    print(writing.summary_of(written))
    print(masks.next_step(args.name, args.data_dir, args.instances))


def _what_there_is(args: argparse.Namespace) -> str:
    """Returns 'masks' if an object has one, or else 'boxes', and says so."""
    from preparation import coco_annotations

    photos = (photo for path in args.annotations for photo in coco_annotations.read(path).photos)
    if args.instances or any(thing.segmentation for photo in photos for thing in photo.objects):
        print('The set gets masks, for segmentation; --targets=boxes is for detection.')
        return 'masks'
    print('No object has a mask, so the set gets boxes, for detection.')
    return 'boxes'


def _prepare_boxes(args: argparse.Namespace) -> None:
    if args.instances:
        raise UserError('--instances is for masks: leave it out, or --targets=boxes.')
    names = None if args.class_names is None else common.class_names(args.class_names)
    from preparation import coco_boxes  # slow to import; not for --help

    source = coco_boxes.CocoBoxes(args.source, args.name, args.annotations, names)
    print(boxes.next_step(args, boxes.write(source, args)))


def add_commands(commands: 'argparse._SubParsersAction') -> None:
    """Adds the subcommand `coco` to argparse's subparsers."""
    command = commands.add_parser('coco', help='pictures with annotations in the format of COCO')
    command.description = (
        'Prepares pictures whose objects are annotated in the format of COCO. Polygons and run '
        'lengths become masks: the classes of the pixels, smaller objects on top and crowds not '
        'known, or with --instances the objects. With --targets=boxes, or where no object has a '
        'mask, the boxes are taken instead. '
        'Several files of annotations are for a split '
        'each, by their names (instances_train2017.json); a single one for none is divided, a '
        'tenth for validation and a tenth for test.'
    )
    command.add_argument('--name', required=True, help='name of the data set, for example street')
    command.add_argument(
        '--source', type=common.path, required=True, help='folder with the pictures'
    )
    command.add_argument(
        '--annotations', type=common.path, required=True, nargs='+', metavar='FILE',
        help='files of annotations',
    )  # fmt: skip
    command.add_argument(
        '--targets', choices=('masks', 'boxes'),
        help='what the set holds of the objects (default: masks if there are any)',
    )  # fmt: skip
    command.add_argument(
        '--class_names', metavar='FILE|A,B',
        help='with --targets=boxes: the categories that are classes, in this order, separated by '
        'commas or in a file (default: all, in the order of their ids)',
    )  # fmt: skip
    command.add_argument(
        '--instances', action='store_true', help='keep the objects, and not their classes'
    )
    masks.add_stretch(command)
    writing.add_max_rejected(command)
    common.add_data_dir(command)
    command.set_defaults(run=prepare_coco)
