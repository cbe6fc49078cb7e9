"""Section `segmentation`: U-Net on ResNet-18 beside the same network in PyTorch, on the CPU.

A turn of evaluation is a pass over some batches. Ours gathers and normalizes uint8, brings the
probabilities of every pixel to the host and compares each picture with its mask there; PyTorch, in
inference_mode, counts the right pixels of a batch that is normalized already.
"""

import dataclasses
import sys

from benchmarks import contest
from benchmarks.contest import Contestant, Score, side_by_side
from benchmarks.networks import CONTESTANTS, THREADS
from benchmarks.tables import BenchmarkContext, BenchmarkTable

TASKS = {'train': 'training step', 'evaluate': 'evaluation'}


@dataclasses.dataclass(frozen=True)
class SegmentationCase:
    """One network of the comparison."""

    name: str
    size: int  # of the images
    channels: int
    classes: int
    batch_size: int
    steps: int  # in a turn
    width: float  # factor on the filters of ResNet-18
    stem: str  # of ResNet-18: 'imagenet' or 'mnist'
    head_width: int  # channels at full resolution


CASES = (
    SegmentationCase('small U-Net', 64, 1, 11, 32, 8, 0.25, 'mnist', 8),
    SegmentationCase('U-Net', 256, 3, 3, 4, 3, 1.0, 'imagenet', 16),
)


def run(context: BenchmarkContext) -> BenchmarkTable:
    """Measures training step and evaluation of all cases."""
    rows, figures = [], {}
    for case in CASES[: 1 if context.quick else None]:
        for task, what in TASKS.items():
            name = f'{case.name} {case.size} px, batch {case.batch_size}: {what}'
            figures[name] = scores = _compare(case, task, name, context)
            rows += [[name, each.name, *each.cells(case.batch_size)] for each in scores]
    head = ('network', 'who', 'ms a step', 'images/s', 'range', 'ours / it')
    caption = (
        f'U-Net on ResNet-18: float32, Adam, {THREADS} threads each. Medians of {context.rounds} '
        'turns in alternation, in one run.'
    )
    return BenchmarkTable(caption, head, rows, figures)


def _compare(
    case: SegmentationCase, task: str, name: str, context: BenchmarkContext
) -> list[Score]:
    work = {**dataclasses.asdict(case), 'task': task, 'threads': THREADS}
    steps = 1 if context.quick else case.steps
    work['examples'] = case.batch_size * steps
    ours = [sys.executable, '-m', 'benchmarks.contestants.our_segmentation']
    contestants = [Contestant('ours', ours, work)]
    if context.torch_python:
        child = [context.torch_python, CONTESTANTS / 'torch_segmentation.py']
        contestants.append(Contestant('PyTorch', child, work))
    return contest.score(side_by_side(contestants, steps, context, name))
