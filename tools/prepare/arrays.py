"""The subcommands mnist, cifar10, cifar100 and idx: images of one size that fit in memory."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from errors import UserError
from preparation import idx, idx_sets
from tools.prepare import common

if TYPE_CHECKING:  # slow to import; not for --help
    from preparation.tfds_writer import ImageSet

_MNIST_CITATION = """@misc{lecun1998mnist,
  author = {Yann LeCun and Corinna Cortes and Christopher J. C. Burges},
  title = {The {MNIST} database of handwritten digits},
  year = {1998},
  url = {http://yann.lecun.com/exdb/mnist/}
}"""
_MNIST_VERSION = '3.0.1'  # of the official tfds builder; the fields and names are the same
_IDX_VERSION = '1.0.0'
_CIFAR_CITATION = """@techreport{krizhevsky2009learning,
  author = {Alex Krizhevsky},
  title = {Learning Multiple Layers of Features from Tiny Images},
  institution = {University of Toronto},
  year = {2009}
}"""
_CIFAR_VERSION = '3.0.2'  # of the official tfds builders; without coarse labels and ids


def prepare_mnist(args: argparse.Namespace) -> None:
    """Subcommand `mnist`: 60,000 + 10,000 digits, 28x28, from the authors' files."""
    from preparation import mnist, tfds_writer  # slow to import; not for --help

    if _is_prepared(args, 'mnist', _MNIST_VERSION):
        return
    source = args.source
    if source is None:
        source = args.data_dir / 'downloads' / 'mnist'
        mnist.download(source)
    mnist.check_files(source)
    examples = {
        split: idx.read_examples(
            source / f'{stem}-images-idx3-ubyte.gz', source / f'{stem}-labels-idx1-ubyte.gz'
        )
        for split, stem in (('train', 'train'), ('test', 't10k'))
    }
    image_set = tfds_writer.ImageSet(
        name='mnist',
        version=_MNIST_VERSION,
        examples=examples,
        class_names=tuple('0123456789'),
        description='The MNIST database of handwritten digits.',
        homepage='http://yann.lecun.com/exdb/mnist/',
        citation=_MNIST_CITATION,
    )
    _write(image_set, args.data_dir)


def prepare_cifar(args: argparse.Namespace) -> None:
    """Subcommands `cifar10` and `cifar100`: 50,000 + 10,000 photographs, 32x32, RGB."""
    from preparation import cifar, tfds_writer  # slow to import; not for --help

    if _is_prepared(args, args.set, _CIFAR_VERSION):
        return
    edition, source = cifar.EDITIONS[args.set], args.source
    if source is None:
        source = args.data_dir / 'downloads' / args.set
        cifar.download(edition, source)
    examples, class_names = cifar.read(edition, source)
    image_set = tfds_writer.ImageSet(
        name=args.set,
        version=_CIFAR_VERSION,
        examples=examples,
        class_names=class_names,
        description=f'CIFAR-{edition.classes}: 32x32 color photographs in as many classes.',
        homepage='https://www.cs.toronto.edu/~kriz/cifar.html',
        citation=_CIFAR_CITATION,
    )
    _write(image_set, args.data_dir)


def prepare_idx(args: argparse.Namespace) -> None:
    """Subcommand `idx`: a folder of idx files."""
    common.check_name(args.name)
    files = idx.find_files(args.source)
    examples = {split: idx.read_examples(*pair) for split, pair in files.items()}
    sizes = {split: images.shape[1:3] for split, (images, _) in examples.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(
            f'The images in {args.source} differ in size between splits ({sizes}): use files of '
            'one data set.'
        )
    given, facts = args.class_names, {'handwriting': True} if args.handwriting else {}
    first = idx_sets.first_label(examples, given)
    names = given or idx_sets.class_names(examples, first, files)
    common.check_class_names(names)
    examples = idx_sets.from_zero(examples, first, len(names), files, bool(given))
    if first:
        facts['first_label'] = first
        print(f'The labels start at 1, so that label 1 is the first class, "{names[0]}".')
    transpose = args.transpose
    if transpose is None and (transpose := idx_sets.is_emnist(files)):
        print('EMNIST stores its pictures transposed: they are turned (--no-transpose: not).')
    if transpose:
        facts['transposed'] = True
        examples = idx_sets.upright(examples)
    from preparation import tfds_writer

    image_set = tfds_writer.ImageSet(
        name=args.name,
        version=_IDX_VERSION,
        examples=examples,
        class_names=tuple(names),
        description=f'{args.name}, prepared from idx files.',
        facts=facts,
    )
    _write(image_set, args.data_dir, summarized=True)


def _is_prepared(args: argparse.Namespace, name: str, version: str) -> bool:
    """Whether the set is there and no --source is given to compare it with; then reports it."""
    folder = args.data_dir / name / version
    if args.source is not None or not folder.exists():
        return False
    from data_sources import tfds_sets

    stored = tfds_sets.read_stored(folder, name)
    _report(name, args.data_dir, False, {split: source.size for split, source in stored.items()})
    return True


def _write(image_set: 'ImageSet', data_dir: Path, summarized: bool = False) -> None:
    from preparation import tfds_writer

    written = tfds_writer.prepare(image_set, data_dir)
    counts = {split: len(labels) for split, (_, labels) in image_set.examples.items()}
    about = _summary(image_set) if summarized else []
    _report(image_set.name, data_dir, written, counts, about)


def _summary(image_set: 'ImageSet') -> list[str]:
    """Returns lines with the examples of each class, and mean and std as options."""
    from preparation import summary

    examples, names = image_set.examples, image_set.class_names
    counts = [np.bincount(labels, minlength=len(names)) for _, labels in examples.values()]
    images = examples['train'][0]
    return [
        summary.classes(dict(zip(names, zip(*counts, strict=True), strict=True)), list(examples)),
        summary.normalization(*summary.mean_and_std(summary.shares(images)), len(images)),
    ]


def _report(
    name: str, data_dir: Path, written: bool, counts: dict[str, int], about: Sequence[str] = ()
) -> None:
    """Prints the state of the set, what is known about it, and the next command."""
    sizes = [f'{count:,} {split}' for split, count in counts.items()]
    common.report(name, data_dir / name, written, sizes)
    for line in about:
        print(line)
    if 'validation' not in counts:
        print('The last examples of train will be used for validation.')
    configs = {'mnist': 'mnist_lenet', 'cifar10': 'cifar10_resnet18'}
    config = configs.get(name) or configs['cifar10' if name == 'cifar100' else 'mnist']
    option = '' if name in configs else f' --config.data.name={name}'
    print(
        f'Next: python train.py --config=configs/{config}.py '
        f'--workdir=runs/{name}_{config.rpartition("_")[2]}{option} --config.data.dir={data_dir}'
    )


def add_commands(commands: 'argparse._SubParsersAction') -> None:
    """Adds the subcommands `mnist`, `cifar10`, `cifar100` and `idx` to argparse's subparsers."""
    command = commands.add_parser('mnist', help='handwritten digits: 60,000 + 10,000, 28x28 gray')
    command.description = (
        'Prepares MNIST from its four published .gz files, whose checksums are verified. '
        'Without --source they are downloaded (12 MB) to DATA_DIR/downloads/mnist.'
    )
    command.add_argument('--source', type=common.path, help='folder with the four .gz files')
    common.add_data_dir(command)
    command.set_defaults(run=prepare_mnist)

    for name, classes in (('cifar10', 10), ('cifar100', 100)):
        command = commands.add_parser(
            name, help=f'photographs in {classes} classes: 50,000 + 10,000, 32x32 RGB'
        )
        archive = f'cifar-{classes}-python.tar.gz'
        command.description = (
            f'Prepares CIFAR-{classes} from {archive} without running the code that such files may '
            f'contain. Without --source it is downloaded (170 MB) to DATA_DIR/downloads/{name}.'
        )
        command.add_argument(
            '--source', type=common.path, help=f'{archive}, or the folder of its unpacked files'
        )
        common.add_data_dir(command)
        command.set_defaults(run=prepare_cifar, set=name)
    _add_idx(commands)


def _add_idx(commands: 'argparse._SubParsersAction') -> None:
    command = commands.add_parser(
        'idx', help='a data set in idx files, such as Fashion-MNIST, KMNIST or EMNIST'
    )
    command.description = (
        'Prepares a data set from a folder of idx files, plain or .gz, with names like '
        'train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-..., t10k-labels-... '
        '("test" works as well as "t10k"; validation-... files are optional).'
    )
    command.add_argument(
        '--name', required=True, help='name of the data set, for example fashion_mnist'
    )
    command.add_argument(
        '--source', type=common.path, required=True, help='folder with the idx files'
    )
    command.add_argument(
        '--class_names',
        type=lambda text: [name.strip() for name in text.split(',')],
        help='comma-separated names in the order of the labels, which start at 0 or 1 (default: '
        "the labels; EMNIST's characters)",
    )
    command.add_argument(
        '--handwriting',
        action='store_true',
        help='every image is a character written by hand, bright on black: predict.py then finds '
        'the character in a photo, and makes it like them',
    )
    command.add_argument(
        '--transpose',
        action=argparse.BooleanOptionalAction,
        help="exchange rows and columns of every picture (default: where the files' names start "
        'with emnist, whose pictures are stored so)',
    )
    common.add_data_dir(command)
    command.set_defaults(run=prepare_idx)
