"""Section `devices`: eight virtual devices on one CPU against one, for the same global batch.

Not that anybody trains so: but what is lost here (the step's own cost on each device, dispatch,
collectives) is lost on real devices, too.
"""

import dataclasses

from benchmarks import contest, step
from benchmarks.tables import Table, Work, side_by_side

DEVICES = 8
LENET, DEEP_CNN, RESNET18 = step.CASES[:3]
CASES = tuple(
    dataclasses.replace(case, batch_size=size, steps=steps)
    for case, size, steps in (
        (LENET, 128, 60),
        (LENET, 256, 40),
        (LENET, 512, 20),
        (DEEP_CNN, 128, 20),
        (DEEP_CNN, 256, 10),
        (DEEP_CNN, 512, 5),
        (RESNET18, 128, 2),
    )
)


def make_entries(case: step.Case, devices: int) -> list[contest.Entry]:
    """Returns what to start: one device first, then several by each runner."""
    entries = [_entry(case, '1 device', '--config.devices=1')]
    for runner in ('pmap', 'shard_map'):
        overrides = f'--config.devices={devices}', f'--config.runner={runner}'
        entries.append(_entry(case, f'{devices} devices, {runner}', *overrides))
    return entries


def _entry(case: step.Case, name: str, *overrides: str) -> contest.Entry:
    ours = step.make_entries(case, 'train', None)[0]
    work = {**ours.work, 'overrides': [*ours.work['overrides'], *overrides]}
    return dataclasses.replace(ours, name=name, work=work)


def run(work: Work) -> Table:
    """Measures all cases."""
    rows, figures, devices = [], {}, 2 if work.quick else DEVICES
    for case in CASES[:1] if work.quick else CASES:
        what = f'{case.model}, batch {case.batch_size}'
        batches = 1 if work.quick else case.steps
        scores = contest.score(side_by_side(make_entries(case, devices), batches, work, what))
        figures[what] = [dataclasses.asdict(score) for score in scores]
        for score in scores:
            rows.append(
                [
                    what,
                    score.name,
                    f'{1000 * case.batch_size / score.rate:.1f}',
                    f'{score.rate:,.0f}',
                    f'{score.slowest:,.0f} to {score.fastest:,.0f}',
                    '-' if score is scores[0] else f'{100 * (1 - 1 / score.ratio):+.0f} %',
                ]
            )
    head = ('network', 'devices', 'ms a step', 'images/s', 'range', 'lost')
    caption = (
        f'{devices} virtual devices on {step.THREADS} CPU cores against one, the same global '
        f'batch. Medians of {work.rounds} turns in alternation, in one run; "lost" is below zero '
        'where several are the faster ones.'
    )
    return Table(caption, head, rows, figures)
