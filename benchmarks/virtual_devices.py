"""Section `devices`: eight virtual devices on one CPU against one, for the same global batch.

Nobody trains like that, but what is lost here (the step's own cost on each device, dispatch,
collectives) is lost on real devices as well.
"""

import dataclasses

from benchmarks import contest, networks
from benchmarks.contest import Contestant, side_by_side
from benchmarks.tables import BenchmarkContext, BenchmarkTable

DEVICES = 8
# Of the first three networks: (batch size, steps in a turn).
_SIZES = (((128, 60), (256, 40), (512, 20)), ((128, 20), (256, 10), (512, 5)), ((128, 2),))
CASES = tuple(
    dataclasses.replace(case, batch_size=size, steps=steps)
    for case, sizes in zip(networks.CASES, _SIZES, strict=False)
    for size, steps in sizes
)


def make_contestants(case: networks.NetworkCase, devices: int) -> list[Contestant]:
    """Returns one device, then several by each runner."""
    overrides = {'1 device': ['--config.devices=1']}
    for runner in ('pmap', 'shard_map'):
        several = [f'--config.devices={devices}', f'--config.runner={runner}']
        overrides[f'{devices} devices, {runner}'] = several
    (ours,) = networks.make_contestants(case, 'train', None)
    return [
        Contestant(name, ours.command, {**ours.work, 'overrides': ours.work['overrides'] + more})
        for name, more in overrides.items()
    ]


def run(context: BenchmarkContext) -> BenchmarkTable:
    """Measures all cases."""
    rows, figures, devices = [], {}, 2 if context.quick else DEVICES
    for case in CASES[:1] if context.quick else CASES:
        what = f'{case.model}, batch {case.batch_size}'
        batches = 1 if context.quick else case.steps
        turns = side_by_side(make_contestants(case, devices), batches, context, what)
        scores = contest.score(turns)
        figures[what] = [dataclasses.asdict(score) for score in scores]
        for score in scores:
            rate, rates, _ = score.cells()
            lost = '-' if score is scores[0] else f'{100 * (1 - 1 / score.ratio):+.0f} %'
            rows.append([what, score.name, networks.milliseconds(case, score), rate, rates, lost])
    head = ('network', 'devices', 'ms a step', 'images/s', 'range', 'lost')
    caption = (
        f'{devices} virtual devices on {networks.THREADS} CPU cores against one, the same global '
        f'batch. Medians of {context.rounds} turns in alternation, in one run; "lost" is below '
        'zero where several are the faster ones.'
    )
    return BenchmarkTable(caption, head, rows, figures)
