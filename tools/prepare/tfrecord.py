"""The subcommand from_tfrecord: converts a data set that tfds has written as TFRecord."""

import argparse

from tools.prepare import common


def prepare_tfrecord(args: argparse.Namespace) -> None:
    """Subcommand `from_tfrecord`: the same serialised examples in ArrayRecord files."""
    from preparation import sharded_writer, tfrecord  # slow to import; not for --help

    source = tfrecord.TfrecordSet(args.source)
    with common.progress(source.name, sum(source.splits.values()), 'records') as advance:
        written = sharded_writer.prepare(source, args.data_dir, advance=advance)
    folder = args.data_dir / source.name
    counts = common.read_info(folder / source.version)[1]
    common.report(source.name, folder, written, [f'{count:,} {s}' for s, count in counts.items()])
    print(f'Next: train with --config.data.name={source.name} --config.data.dir={args.data_dir}')


def add_commands(commands: 'argparse._SubParsersAction') -> None:
    """Adds the subcommand `from_tfrecord` to argparse's subparsers."""
    command = commands.add_parser(
        'from_tfrecord', help='a data set that tensorflow-datasets prepared as TFRecord'
    )
    command.description = (
        'Converts a prepared tfds data set, without TensorFlow and without decoding, to files that '
        'can be read in any order. The examples stay the same, and the source is not changed.'
    )
    command.add_argument(
        '--source',
        type=common.path,
        required=True,
        help='version folder of the set, e.g. ~/tensorflow_datasets/imagenet2012/5.1.0',
    )
    common.add_data_dir(command)
    command.set_defaults(run=prepare_tfrecord)
