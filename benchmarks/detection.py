"""Section `detection`: our FCOS on ResNet-18 beside torchvision's, on the CPU.

The same layers on the same maps, down to the two further levels; torchvision's towers have biases
as well. A turn of inference is what predict.py does: ours normalizes uint8, and both give boxes
after suppression. How long torchvision suppresses depends on how much it finds. With random weights
every place of every class is a candidate, and both look at about as many; 'none found' has a
threshold that nothing reaches, which is the least that it can take.
"""

import dataclasses
import sys

from benchmarks import contest
from benchmarks.contest import Contestant, Score, side_by_side, with_work
from benchmarks.networks import CONTESTANTS, THREADS
from benchmarks.tables import BenchmarkContext, BenchmarkTable

TASKS = {'train': 'training step', 'predict': 'inference'}


@dataclasses.dataclass(frozen=True)
class DetectionCase:
    """One network of the comparison."""

    height: int  # of the images
    width: int
    classes: int
    objects: int  # in an image
    max_boxes: int  # for which there is room
    batch_size: int
    steps: int  # in a turn
    channels: int  # of pyramid and towers; torchvision's norms want multiples of 32
    depth: int  # convolutions of a tower
    candidates: int  # the best boxes that suppression looks at; ours of all maps together
    level_candidates: int  # torchvision's, of each map: about as many together


CASE = DetectionCase(240, 320, 3, 12, 40, 8, 5, 64, 2, 1000, 333)
SMALLEST = dataclasses.replace(CASE, height=64, width=96, batch_size=2, steps=1, channels=32)


def run(context: BenchmarkContext) -> BenchmarkTable:
    """Measures training step and inference."""
    case = SMALLEST if context.quick else CASE
    rows, figures = [], {}
    for task, what in TASKS.items():
        name = f'FCOS {case.width}x{case.height} px, batch {case.batch_size}: {what}'
        figures[name] = scores = _compare(case, task, name, context)
        rows += [[name, each.name, *each.cells(case.batch_size)] for each in scores]
    head = ('network', 'who', 'ms a step', 'images/s', 'range', 'ours / it')
    caption = (
        f'FCOS on ResNet-18, {case.channels} channels, towers of {case.depth}: float32, Adam, '
        f'{THREADS} threads each. Medians of {context.rounds} turns in alternation, in one run.'
    )
    return BenchmarkTable(caption, head, rows, figures)


def _compare(case: DetectionCase, task: str, name: str, context: BenchmarkContext) -> list[Score]:
    work = {**dataclasses.asdict(case), 'task': task, 'threads': THREADS}
    ours = [sys.executable, '-m', 'benchmarks.contestants.our_detection']
    contestants = [Contestant('ours', ours, work)]
    if context.torch_python:
        child = [context.torch_python, CONTESTANTS / 'torch_detection.py']
        theirs = Contestant('torchvision', child, {**work, 'least_score': 0.05})
        contestants.append(theirs)
        if task == 'predict':
            contestants.append(with_work(theirs, 'torchvision, none found', least_score=0.2))
    return contest.score(side_by_side(contestants, case.steps, context, name))
