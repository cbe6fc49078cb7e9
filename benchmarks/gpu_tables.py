"""The tables of `python -m benchmarks.gpu`, from what its parts have reported.

The roofline of Williams, Waterman and Patterson 2009: a program that needs so many floating-point
operations and so many bytes of memory for each image reaches at most

    min(peak FLOP/s / FLOPs, bandwidth / bytes)

images per second. Bytes are those at the borders of fused operations, as XLA counts them. What
caches keep between two operations need not be moved to memory, so a fraction above 1 is possible.
"""

import dataclasses
import statistics
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import console as rich_console

from benchmarks.tables import BenchmarkTable

if TYPE_CHECKING:  # it imports JAX
    from training.flops import ProgramCost

# MLPerf Training v4.0, ResNet, MXNet, divided by its accelerators; and what the H200's memory
# allows at the traffic of that program's layers.
RECORD, MEMORY_LIMIT = 7_960, 12_300
TAIL = ('TFLOP/s', 'GB/s', 'at best', 'share', 'MFU', 'memory', 'compiled in')
LEGEND = (
    'TFLOP/s and GB/s are achieved; "at best" is the images/s that the device\'s peaks allow '
    '(roofline), with what sets that limit, and "share" the fraction of it that is reached; MFU is '
    "model FLOPs utilisation; memory is the peak measured, or with ~ XLA's plan."
)


def make(name: str, results: dict[str, Any], about: dict[str, Any]) -> BenchmarkTable:
    """Returns the table of a part from its 'rows' and 'notes', and 'device' and more (gpu.py)."""
    rows = [row for row in results['rows'] if 'rate' in row]
    head, leading, caption = _FORMS.get(name, _TRAINING)
    caption = caption.format(name)
    if about.get('quick'):
        caption = f'{name}, quick: a smaller network or less work, and figures that mean nothing.'
    if name == 'resnet50' and 'H200' in about.get('device', '') and rows:
        best = max(row['rate'] for row in rows)
        caption += (
            f' Best: {best:,.0f} images/s, {best / RECORD:.2f} x the record of one H200 '
            f'({RECORD:,}, MLPerf Training v4.0, MXNet); its memory allows about {MEMORY_LIMIT:,}.'
        )
    texts = [[row['name'], *leading(row, rows), *_tail(row)] for row in rows]
    return BenchmarkTable(caption, (*head, *TAIL), texts, results)


def _training(row: dict[str, Any], rows: Sequence) -> list[str]:
    return [f'{row["rate"]:,.0f}', _range(row, 1)]


def _lenet(row: dict[str, Any], rows: Sequence) -> list[str]:
    accuracy = f'{row["accuracy"]:.2%}' if 'accuracy' in row else '-'
    return [f'{statistics.median(row["seconds"]):.2f}', *_training(row, rows), accuracy]


def _population(row: dict[str, Any], rows: Sequence) -> list[str]:
    alone = [other['rate'] for other in rows if other['lanes'] == 0]
    times = f'{row["rate"] / alone[0]:.1f}' if alone else '-'
    updates = f'{row["rate"] / row["batch"]:,.0f}'
    return [updates, _range(row, row['batch']), times, f'{row["rate"]:,.0f}']


# (first columns, their texts, caption)
_TRAINING = (
    ('what', 'images/s', 'range'),
    _training,
    '{}: training step, bfloat16, 224 px, SGD with momentum, label smoothing 0.1.',
)
_FORMS = {
    'lenet': (
        ('what', 's a run', 'images/s', 'range', 'test accuracy'),
        _lenet,
        'LeNet-5, float32, Adam: whole runs of 5 epochs on 60,000 synthetic digits of 28 px.',
    ),
    'population': (
        ('networks', 'updates/s', 'range', 'x one by one', 'images/s'),
        _population,
        'Many LeNet-5 trained at once by vmap, batch 128 each: updates of all of them together, '
        'and against one after the other.',
    ),
}


def _range(row: dict[str, Any], unit: float) -> str:
    return f'{row["slowest"] / unit:,.0f} to {row["fastest"] / unit:,.0f}'


@dataclasses.dataclass(frozen=True)
class Roofline:
    """How near a program comes to what its device allows; None where that is unknown."""

    flops_per_second: float  # achieved
    bytes_per_second: float | None
    bound: float | None = None  # images per second that the device's peaks allow
    limit: str = ''  # what sets the bound, 'arithmetic' or 'memory'
    share: float | None = None  # fraction of the bound that was reached
    utilisation: float | None = None  # model FLOPs utilisation: the layers' FLOPs over the peak


def evaluate(
    rate: float, images: int, cost: 'ProgramCost', peak: float | None, bandwidth: float | None
) -> Roofline:
    """Returns how near a program comes to the bound; `images` and `cost` are of one call.

    The rate is in images per second, the peak in FLOP/s and the bandwidth in bytes/s.
    """
    calls = rate / images
    achieved = cost.flops * calls, None if cost.bytes is None else cost.bytes * calls
    if peak is None:
        return Roofline(*achieved)
    bounds = {'arithmetic': peak / cost.flops * images}
    if cost.bytes and bandwidth:
        bounds['memory'] = bandwidth / cost.bytes * images
    limit = min(bounds, key=bounds.get)
    utilisation = cost.model_flops * calls / peak
    return Roofline(*achieved, bounds[limit], limit, rate / bounds[limit], utilisation)


def _tail(row: dict[str, Any]) -> list[str]:
    """Returns the texts of the columns that all parts have."""
    cost = types.SimpleNamespace(**row['counts'])
    at = evaluate(row['rate'], row['images'], cost, row['peak'], row['bandwidth'])
    memory = f'{"" if row["measured"] else "~"}{{:.2f}} GB'
    cells = (
        (at.flops_per_second, 1e12, '{:,.2f}'),
        (at.bytes_per_second, 1e9, '{:,.0f}'),
        (at.bound, 1, f'{{:,.0f}} ({at.limit})'),
        (at.share, 1, '{:.1%}'),
        (at.utilisation, 1, '{:.1%}'),
        (row['memory'], 1e9, memory),
        (row['compile_seconds'], 1, '{:.0f} s' + ' (cached)' * row['cached']),
    )
    return ['-' if value is None else text.format(value / unit) for value, unit, text in cells]


def introduce(about: dict[str, Any]) -> None:
    """Prints where it is measured, and what the columns mean."""
    versions = about['versions']
    settings = ' '.join(f'{name}={value}' for name, value in about['settings'].items())
    software = f'JAX {versions["jax"]}, Python {versions["python"]}'
    host = f'One {about["device"]}; {software}; {settings}; {about["date"]}.'
    print(f'{host}\n\n{LEGEND}\n', flush=True)


def show(table: BenchmarkTable, markdown: bool) -> None:
    """Prints a table, and the notes below it."""
    if markdown:
        print(table.markdown())
    else:
        print(f'{table.caption}\n')
        # As wide as the table needs: a terminal can scroll, and a file does not break lines.
        width = max(160, rich_console.Console().width)
        rich_console.Console(width=width).print(table.rich())
    for note in table.figures['notes']:
        print(f'\n{note}')
    print(flush=True)
