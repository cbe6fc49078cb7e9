"""Section `step`: one training step on the CPU beside PyTorch's, eager and compiled."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from benchmarks import contest
from benchmarks.tables import Table, Work, side_by_side

_CONTESTANTS = Path(__file__).parent / 'contestants'
THREADS = 2


@dataclasses.dataclass(frozen=True)
class Case:
    """One network of the contest.

    Attributes:
      model: its name in models/registry.py and benchmarks/contestants/torch_networks.py.
      size, channels, classes: of the images and labels.
      batch_size: images a step.
      steps: in a turn.
      small: whether its first layers are those for small images.
    """

    model: str
    size: int
    channels: int
    classes: int
    batch_size: int
    steps: int
    small: bool = True


CASES = (
    Case('lenet', 28, 1, 10, 128, 100),
    Case('deep_cnn', 28, 1, 10, 128, 40),
    Case('resnet18', 32, 3, 10, 128, 3),
    Case('vgg11_bn', 32, 3, 10, 128, 3),
    Case('resnet50', 224, 3, 1000, 8, 3, small=False),
)
SMALL_NETWORKS = ('lenet', 'deep_cnn')
# PyTorch takes 6.5 to 13 ms for a step of lenet, each process at a speed of its own from start to
# end: one process each would be a draw of lots. Of the large networks, of up to 3 GB each, not all
# fit at once: their processes come one after the other, and share the turns.
PROCESSES, LARGE_PROCESSES = 5, 3


def make_entries(case: Case, task: str, torch_python: Path | None) -> list[contest.Entry]:
    """Returns what to start, ours first.

    `task` is 'train', by the step, or 'evaluate', by the pass over case.steps batches.
    """
    work: dict[str, Any] = {**dataclasses.asdict(case), 'task': task, 'threads': THREADS}
    stem = ['--config.model.stem=cifar'] if case.small and case.channels == 3 else []
    module = {'train': 'our_step', 'evaluate': 'our_split'}[task]
    ours = [sys.executable, '-m', f'benchmarks.contestants.{module}']
    own = {**work, 'overrides': stem, 'examples': case.batch_size * case.steps}
    entries = [contest.Entry('ours', ours, own)]
    if torch_python:
        child = [torch_python, _CONTESTANTS / 'torch_step.py']
        for name, compiled in (('PyTorch', False), ('torch.compile', True)):
            entries.append(contest.Entry(name, child, {**work, 'compile': compiled}))
    return entries


def contest_of(case: Case, task: str, work: Work) -> list[contest.Score]:
    """Lets all play one case; returns their figures, ours first."""
    if work.quick:
        case = dataclasses.replace(case, steps=1)
    entries = make_entries(case, task, work.torch_python)
    if work.quick or case.model in SMALL_NETWORKS:
        processes = 1 if work.quick else PROCESSES
        return contest.score(side_by_side(entries, case.steps, work, case.model, processes))
    turns: dict[str, list[contest.Turn]] = {}
    few = dataclasses.replace(work, rounds=large_rounds(work))
    for number in range(1, LARGE_PROCESSES + 1):
        what = f'{case.model}, process {number} of {LARGE_PROCESSES}'
        for name, own in side_by_side(entries, case.steps, few, what).items():
            turns.setdefault(name, []).extend(own)
    return contest.score(turns)


def large_rounds(work: Work) -> int:
    """Returns the turns of each of a large network's processes."""
    return -(-work.rounds // LARGE_PROCESSES)


def turns_of(work: Work, turn: str) -> str:
    """Returns for a caption how many turns there were, and of how many processes."""
    text = f'Medians of {work.rounds} {turn} in alternation, in one run'
    if work.quick:
        return text
    return (
        f'Medians of {turn} in alternation, in one run: {" and ".join(SMALL_NETWORKS)} in '
        f'{PROCESSES} processes of each contestant with {work.rounds} {turn} each, the others in '
        f'{LARGE_PROCESSES}, one after the other, with {large_rounds(work)} each'
    )


def run(work: Work) -> Table:
    """Measures all cases."""
    rows, figures = [], {}
    for case in CASES[:1] if work.quick else CASES:
        scores = contest_of(case, 'train', work)
        figures[case.model] = [dataclasses.asdict(score) for score in scores]
        for score in scores:
            milliseconds = 1000 * case.batch_size / score.rate
            rows.append(
                [
                    f'{case.model} {case.size} px, batch {case.batch_size}',
                    score.name,
                    f'{milliseconds:.1f}',
                    f'{score.rate:,.0f}',
                    f'{score.slowest:,.0f} to {score.fastest:,.0f}',
                    f'{score.ratio:.2f}',
                ]
            )
    head = ('network', 'who', 'ms a step', 'images/s', 'range', 'ours / it')
    caption = f'Training step: float32, Adam, {THREADS} threads each. {turns_of(work, "turns")}.'
    return Table(caption, head, rows, figures)
