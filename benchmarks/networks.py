"""Sections `step` and `evaluation`, beside PyTorch eager and compiled, and `devices`, on the CPU.

A turn of `evaluation` is evaluate.py's whole pass: batches planned, gathered from uint8,
normalized; loss, correct answers and confusion matrix summed up. PyTorch is spared the first three
and counts the correct answers alone, in inference_mode, which is how its users write it.

`devices` is eight virtual devices on one CPU against one, for the same global batch. What is lost
here (the step's own cost on each device, dispatch, collectives) is lost on real devices as well.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import contest
from benchmarks.contest import Contestant, Score, Turn, side_by_side
from benchmarks.tables import BenchmarkContext, BenchmarkTable

CONTESTANTS = Path(__file__).parent / 'contestants'
THREADS = 2


@dataclasses.dataclass(frozen=True)
class NetworkCase:
    """One network of the comparison."""

    model: str  # its name in models/registry.py and benchmarks/contestants/torch_networks.py
    size: int  # of the images
    channels: int
    classes: int
    batch_size: int  # images a step
    steps: int  # in a turn
    small: bool = True  # whether its first layers are those for small images


CASES = (
    NetworkCase('lenet', 28, 1, 10, 128, 100),
    NetworkCase('deep_cnn', 28, 1, 10, 128, 40),
    NetworkCase('resnet18', 32, 3, 10, 128, 3),
    NetworkCase('vgg11_bn', 32, 3, 10, 128, 3),
    NetworkCase('resnet50', 224, 3, 1000, 8, 3, small=False),
)
SMALL_NETWORKS = ('lenet', 'deep_cnn')
# PyTorch takes 6.5 to 13 ms for a step of lenet, and each process keeps its speed from start to
# end: one process each would leave the result to chance. Of the large networks, of up to 3 GB each,
# not all fit at once: their processes come one after the other, and share the turns.
PROCESSES, LARGE_PROCESSES = 5, 3
# (batch size, steps) of a pass. Small networks are evaluated as evaluate.py does, by
# eval_batch_size=1000. The large ones fill the cores with far fewer images.
PASSES = ((1000, 40), (1000, 10), (128, 2), (128, 2), (8, 2))
DEVICES = 8
# Of the first three networks: (batch size, steps in a turn).
DEVICE_SIZES = (((128, 60), (256, 40), (512, 20)), ((128, 20), (256, 10), (512, 5)), ((128, 2),))


def resized(case: NetworkCase, batch_size: int, steps: int) -> NetworkCase:
    """Returns a case with other sizes."""
    return dataclasses.replace(case, batch_size=batch_size, steps=steps)


def evaluation_cases() -> list[NetworkCase]:
    """Returns the networks with their batches for evaluation; a turn is a pass over `steps`."""
    return [resized(case, *sizes) for case, sizes in zip(CASES, PASSES, strict=True)]


def make_contestants(case: NetworkCase, task: str, torch_python: Path | None) -> list[Contestant]:
    """Returns the contestants, ours first.

    `task` is 'train', by the step, or 'evaluate', by the pass over case.steps batches.
    """
    work = {**dataclasses.asdict(case), 'task': task, 'threads': THREADS}
    stem = ['--config.model.stem=cifar'] if case.small and case.channels == 3 else []
    examples = case.batch_size * (8 if task == 'train' else case.steps)
    ours = [sys.executable, '-m', 'benchmarks.contestants.our_networks']
    contestants = [Contestant('ours', ours, {**work, 'overrides': stem, 'examples': examples})]
    if torch_python:
        child = [torch_python, CONTESTANTS / 'torch_step.py']
        for name, compiled in (('PyTorch', False), ('torch.compile', True)):
            contestants.append(Contestant(name, child, {**work, 'compile': compiled}))
    return contestants


def compare(case: NetworkCase, task: str, context: BenchmarkContext) -> list[Score]:
    """Returns all contestants' figures for one case, ours first."""
    steps = 1 if context.quick else case.steps
    case = resized(case, case.batch_size, steps)
    contestants = make_contestants(case, task, context.torch_python)
    if context.quick or case.model in SMALL_NETWORKS:
        processes = 1 if context.quick else PROCESSES
        return contest.score(side_by_side(contestants, steps, context, case.model, processes))
    turns: dict[str, list[Turn]] = {}
    few = dataclasses.replace(context, rounds=_large_rounds(context))
    for number in range(1, LARGE_PROCESSES + 1):
        what = f'{case.model}, process {number} of {LARGE_PROCESSES}'
        for name, own in side_by_side(contestants, steps, few, what).items():
            turns.setdefault(name, []).extend(own)
    return contest.score(turns)


def _large_rounds(context: BenchmarkContext) -> int:
    return -(-context.rounds // LARGE_PROCESSES)  # of each process


def describe_turns(context: BenchmarkContext, turns: str) -> str:
    """Returns, for a caption, how many turns there were in how many processes."""
    if context.quick:
        return f'Medians of {context.rounds} {turns} in alternation, in one run'
    return (
        f'Medians of {turns} in alternation, in one run: {" and ".join(SMALL_NETWORKS)} in '
        f'{PROCESSES} processes of each contestant with {context.rounds} {turns} each, the others '
        f'in {LARGE_PROCESSES}, one after the other, with {_large_rounds(context)} each'
    )


def training_step(context: BenchmarkContext) -> BenchmarkTable:
    """Measures the training step of all networks."""
    turns = describe_turns(context, 'turns')
    caption = f'Training step: float32, Adam, {THREADS} threads each. {turns}.'
    return _compare_all(CASES, 'train', context, caption)


def evaluation(context: BenchmarkContext) -> BenchmarkTable:
    """Measures the evaluation of all networks."""
    caption = (
        f'Evaluation: float32, {THREADS} threads each. {describe_turns(context, "passes")}. Ours '
        'gathers and normalises uint8, and sums up loss, right answers and confusion matrix; '
        'PyTorch, in `inference_mode`, counts the right answers in a batch that is normalised '
        'already.'
    )
    return _compare_all(evaluation_cases(), 'evaluate', context, caption)


def _compare_all(
    cases: Sequence[NetworkCase], task: str, context: BenchmarkContext, caption: str
) -> BenchmarkTable:
    rows, figures = [], {}
    head = ['network', 'who', 'ms a step', 'images/s', 'range', 'ours / it']
    for case in cases[: 1 if context.quick else None]:
        figures[case.model] = scores = compare(case, task, context)
        name = f'{case.model} {case.size} px, batch {case.batch_size}'
        rows += [[name, each.name, *each.cells(case.batch_size)] for each in scores]
    if task == 'evaluate':  # has no steps
        head, *rows = ([*row[:2], *row[3:]] for row in (head, *rows))
    return BenchmarkTable(caption, head, rows, figures)


def devices(context: BenchmarkContext) -> BenchmarkTable:
    """Measures one virtual device and several, by each runner."""
    rows, figures, count = [], {}, 2 if context.quick else DEVICES
    overrides = {'1 device': ['--config.devices=1']}
    for runner in ('pmap', 'shard_map'):
        several = [f'--config.devices={count}', f'--config.runner={runner}']
        overrides[f'{count} devices, {runner}'] = several
    cases = [resized(case, *sizes) for case, own in zip(CASES, DEVICE_SIZES, strict=False)
             for sizes in own]  # fmt: skip
    for case in cases[: 1 if context.quick else None]:
        (ours,) = make_contestants(case, 'train', None)
        contestants = [
            contest.with_work(ours, name, overrides=ours.work['overrides'] + more)
            for name, more in overrides.items()
        ]
        what, steps = f'{case.model}, batch {case.batch_size}', 1 if context.quick else case.steps
        figures[what] = scores = contest.score(side_by_side(contestants, steps, context, what))
        for score in scores:
            lost = '-' if score is scores[0] else f'{100 * (1 - 1 / score.ratio):+.0f} %'
            rows.append([what, score.name, *score.cells(case.batch_size)[:3], lost])
    head = ('network', 'devices', 'ms a step', 'images/s', 'range', 'lost')
    caption = (
        f'{count} virtual devices on {THREADS} CPU cores against one, the same global '
        f'batch. Medians of {context.rounds} turns in alternation, in one run; "lost" is below '
        'zero where several are the faster ones.'
    )
    return BenchmarkTable(caption, head, rows, figures)
