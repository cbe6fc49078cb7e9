"""The experiments behind docs/results.md; tools/results.py runs them and builds the tables."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table: a configuration run with several seeds."""

    label: str
    config: str
    overrides: tuple[tuple[str, Any], ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    published: str = '-'

    def flags(self, seed: int) -> list[str]:
        """Returns the options for train.py, without --workdir."""
        chosen = [f'--config.{key}={value}' for key, value in self.overrides]
        return [f'--config={self.config}', f'--config.seed={seed}', *chosen]


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of docs/results.md."""

    name: str
    caption: str
    rows: tuple[Row, ...]

    @property
    def command(self) -> str:
        """The command that runs and prints the table."""
        return f'python -m tools.results {self.name}'


_LENET = 'configs/digits_lenet.py'
_COMPARE = 'configs/digits_compare.py'
_STRIDED = (('model.name', 'strided_cnn'), ('model.width', 0.125), ('epochs', 10.0))

TABLES = (
    Table(
        'digits',
        "Handwritten digits (scikit-learn's 1,797 images). Goal: 98.8 % or more.",
        (Row('LeNet-5', _LENET),),
    ),
    Table(
        'mnist',
        'MNIST, 10,000 test images.',
        (
            Row(
                'Fully connected',
                'configs/mnist_fcn.py',
                seeds=(0, 1, 2),
                published='98.40 % (800 hidden units, cross-entropy, no distortions: '
                'Simard et al. 2003, ICDAR)',
            ),
            Row(
                'LeNet-5',
                'configs/mnist_lenet.py',
                seeds=(0, 1, 2),
                published='99.05 %; 99.20 % with distortions (LeCun et al. 1998, '
                'Proc. IEEE 86(11), fig. 9)',
            ),
            Row('Deep CNN', 'configs/mnist_deep_cnn.py', seeds=(0, 1, 2)),
            Row('Strided CNN', 'configs/mnist_strided_cnn.py', seeds=(0,)),
            Row('ResNet-18', 'configs/mnist_resnet18.py', seeds=(0,)),
        ),
    ),
    Table(
        'transfer',
        'Ten labelled digits of each class, drawn by the seed: LeNet-5 from scratch, and from '
        'seed 0 of LeNet-5 in table "mnist", which has to be there. The learning rate of each was '
        'tuned on the validation digits. Goal: at most 0.7 times the error of scratch.',
        (
            Row('from scratch', 'configs/transfer_scratch.py'),
            Row('fine-tuned from MNIST', 'configs/transfer_finetune.py'),
            Row('linear probe of MNIST', 'configs/transfer_probe.py'),
        ),
    ),
    Table(
        'dropout',
        'Dropout on and off: LeNet-5 on the digits, 20 epochs, no augmentation.',
        tuple(
            Row(f'dropout {rate}', _COMPARE, (('model.dropout_rate', rate),)) for rate in (0.5, 0.0)
        ),
    ),
    Table(
        'activation',
        'ReLU against tanh: LeNet-5 on the digits, 20 epochs, no augmentation.',
        tuple(Row(name, _COMPARE, (('model.activation', name),)) for name in ('relu', 'tanh')),
    ),
    Table(
        'pooling',
        'Max against average pooling: LeNet-5 on the digits, 20 epochs, no augmentation.',
        tuple(Row(name, _COMPARE, (('model.pooling', name),)) for name in ('max', 'average')),
    ),
    Table(
        'downsample',
        'Strided convolutions against stride 1 with max pooling: the strided CNN, an eighth of '
        'its width, on the digits, 10 epochs, no augmentation.',
        tuple(
            Row(name, _COMPARE, (*_STRIDED, ('model.downsample', name)))
            for name in ('stride', 'max_pool')
        ),
    ),
)


def find_table(name: str, tables: Sequence[Table] = TABLES) -> Table:
    """Returns the table with a name.

    Raises:
      UserError: there is none.
    """
    by_name = {table.name: table for table in tables}
    if name not in by_name:
        known = ', '.join(by_name)
        raise UserError(f'There is no table "{name}".{did_you_mean(name, by_name)} Known: {known}.')
    return by_name[name]


def run_folder(workdir: Path, table: Table, row: Row, seed: int) -> Path:
    """Returns the workdir of one run."""
    slug = re.sub(r'[^a-z0-9.]+', '_', row.label.lower()).strip('_')
    return workdir / table.name / slug / f'seed{seed}'
