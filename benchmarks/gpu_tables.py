"""The tables of `python -m benchmarks.gpu`, from what its parts have said."""

import statistics
from collections.abc import Sequence
from typing import Any

from rich import console

from benchmarks import roofline
from benchmarks.tables import Table

# MLPerf Training v4.0, ResNet, MXNet, divided by its accelerators; and what the H200's memory
# allows at the traffic of that program's layers.
RECORD, MEMORY_LIMIT = 7_960, 12_300
TAIL = ('TFLOP/s', 'GB/s', 'at best', 'share', 'MFU', 'memory', 'compiled in')
LEGEND = (
    'TFLOP/s and GB/s are achieved; "at best" is the images/s that the device\'s peaks allow '
    '(roofline), with what sets that limit, and "share" what of it is reached; MFU is model FLOPs '
    "utilisation; memory is the peak measured, or with ~ XLA's plan."
)


def make(name: str, found: dict[str, Any], about: dict[str, Any]) -> Table:
    """Returns a part's table.

    Args:
      name: of the part.
      found: its 'rows' and 'notes' (see benchmarks/gpu_work.py).
      about: 'device' and more (see benchmarks/gpu.py).
    """
    rows = [row for row in found['rows'] if 'rate' in row]
    head, leading, caption = {
        'lenet': (_LENET, _lenet, 'LeNet-5, float32, Adam: whole runs of 5 epochs on 60,000 '
                  'synthetic digits of 28 px.'),
        'population': (_POPULATION, _population, 'Many LeNet-5 trained at once by vmap, batch 128 '
                       'each: updates of all of them together, and against one after the other.'),
    }.get(name, (_TRAINING, _training, f'{name}: training step, bfloat16, 224 px, SGD with '
                 'momentum, label smoothing 0.1.'))  # fmt: skip
    if about.get('quick'):
        caption = f'{name}, quick: a smaller network or less work, and figures that say nothing.'
    caption = ' '.join([caption, *_against_record(name, rows, about.get('device', ''))])
    texts = [[*leading(row, rows), *_tail(row)] for row in rows]
    return Table(caption, (*head, *TAIL), texts, found)


_TRAINING = ('what', 'images/s', 'range')
_LENET = ('what', 's a run', 'images/s', 'range', 'test accuracy')
_POPULATION = ('networks', 'updates/s', 'range', 'x one by one', 'images/s')


def _training(row: dict[str, Any], rows: Sequence) -> list[str]:
    return [row['name'], f'{row["rate"]:,.0f}', _range(row, 1)]


def _lenet(row: dict[str, Any], rows: Sequence) -> list[str]:
    accuracy = f'{row["accuracy"]:.2%}' if 'accuracy' in row else '-'
    seconds = statistics.median(row['seconds'])
    return [row['name'], f'{seconds:.2f}', f'{row["rate"]:,.0f}', _range(row, 1), accuracy]


def _population(row: dict[str, Any], rows: Sequence) -> list[str]:
    alone = [other['rate'] for other in rows if other['lanes'] == 0]
    times = f'{row["rate"] / alone[0]:.1f}' if alone else '-'
    updates = f'{row["rate"] / row["batch"]:,.0f}'
    return [row['name'], updates, _range(row, row['batch']), times, f'{row["rate"]:,.0f}']


def _range(row: dict[str, Any], unit: float) -> str:
    return f'{row["slowest"] / unit:,.0f} to {row["fastest"] / unit:,.0f}'


def _tail(row: dict[str, Any]) -> list[str]:
    """The columns that all parts have."""
    counts = roofline.Counts(**row['counts'])
    at = roofline.place(row['rate'], row['images'], counts, row['peak'], row['bandwidth'])
    gigabytes = '-'
    if row['memory'] is not None:
        gigabytes = f'{"" if row["measured"] else "~"}{row["memory"] / 1e9:.2f} GB'
    return [
        f'{at.flops_per_second / 1e12:,.2f}',
        _or_dash(at.bytes_per_second, lambda x: f'{x / 1e9:,.0f}'),
        _or_dash(at.bound, lambda x: f'{x:,.0f} ({at.limit})'),
        _or_dash(at.share, lambda x: f'{x:.1%}'),
        _or_dash(at.utilisation, lambda x: f'{x:.1%}'),
        gigabytes,
        f'{row["compile_seconds"]:.0f} s' + ' (cached)' * row['cached'],
    ]


def _or_dash(value: float | None, text) -> str:
    return '-' if value is None else text(value)


def _against_record(name: str, rows: Sequence[dict[str, Any]], device: str) -> list[str]:
    """What the best row is beside the fastest program published, on the same device."""
    if name != 'resnet50' or 'H200' not in device or not rows:
        return []
    best = max(row['rate'] for row in rows)
    return [
        f'Best: {best:,.0f} images/s, {best / RECORD:.2f} x the record of one H200 ({RECORD:,}, '
        f'MLPerf Training v4.0, MXNet); its memory allows about {MEMORY_LIMIT:,}.'
    ]


def introduce(about: dict[str, Any]) -> None:
    """Prints on what is measured, and what the columns mean."""
    print(f'{sentence(about)}\n\n{LEGEND}\n', flush=True)


def sentence(about: dict[str, Any]) -> str:
    """Returns device, versions, settings and date in words."""
    versions = about['versions']
    settings = ' '.join(f'{name}={value}' for name, value in about['settings'].items())
    return (
        f'One {about["device"]}; JAX {versions["jax"]}, Python {versions["python"]}; '
        f'{settings}; {about["date"]}.'
    )


def show(table: Table, markdown: bool) -> None:
    """Prints a table, and the notes below it."""
    if markdown:
        print(table.markdown())
    else:
        print(f'{table.caption}\n')
        # As wide as the table needs: a terminal can scroll, and a file need not.
        console.Console(width=max(160, console.Console().width)).print(table.rich())
    for note in table.figures['notes']:
        print(f'\n{note}')
    print(flush=True)
