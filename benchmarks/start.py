"""Section `start`: from the start of the process to the first step, and the first command whole.

The first step counts when the program has said so: ours after its loss came back from the device.
"""

import statistics

from benchmarks import commands, job
from benchmarks.tables import Table, Work
from configs import reading

FIRST_STEP = r'^step 1/'
TRAIN = 'configs/digits_lenet.py'  # `make train`
COLD, WARM = 'ours, nothing compiled', 'ours'


def run(work: Work) -> Table:
    """Starts everybody in turn; then `make train` again and again, compiled."""
    name = TRAIN if work.quick else 'configs/mnist_lenet.py'
    place = f'data.dir={work.data_dir}'
    config = reading.from_arguments(name, [f'--config.{place}'])
    job.write_idx(work.scratch / 'idx', config)
    rounds = 1 if work.quick else work.rounds
    first: dict[str, list[float]] = {}
    python = job.torch_python(work)

    def start(who: str, command: list[str]) -> None:
        seconds = commands.watch(command, until=FIRST_STEP).seconds
        first.setdefault(who, []).append(seconds)
        work.say(f'{who}: first step after {seconds:.2f} s')

    for number in range(rounds):
        cache = f'compilation_cache={work.scratch / f"cache{number}"}'
        for turn, who in enumerate((COLD, WARM)):
            workdir = work.scratch / f'run{number}-{turn}'
            start(who, job.our_command(name, workdir, place, cache))
        if python:
            workdir = work.scratch / f'torch{number}'
            recipe = job.torch_recipe(config, work.scratch / 'idx', 0, workdir)
            start('PyTorch', job.torch_command(python, recipe))
    whole = _whole_runs(work, rounds)
    return _table(first, whole, config)


def _whole_runs(work: Work, rounds: int) -> list[float]:
    """Seconds that what `make train` runs takes, once everything is compiled."""
    seconds, shorter = [], ['epochs=3'] if work.quick else []
    cache = f'compilation_cache={work.scratch / "cache"}'
    for number in range(1 + rounds):
        workdir = work.scratch / f'whole{number}'
        output = commands.watch(job.our_command(TRAIN, workdir, cache, *shorter))
        seconds.append(output.seconds)
        work.say(f'{TRAIN}: whole run {output.seconds:.2f} s')
    return seconds[1:]


def _table(first: dict[str, list[float]], whole: list[float], config) -> Table:
    own = statistics.median(first[WARM])
    rows = []
    for who, seconds in first.items():
        name = f'{config.model.name} on {config.data.name}, first step'
        rows.append([name, who, *_cells(seconds), f'{own / statistics.median(seconds):.2f}'])
    rows.append([f'{TRAIN}, whole run', WARM, *_cells(whole), ''])
    caption = (
        f'From the start of the process, imports and data included. Medians of {len(whole)} starts.'
    )
    head = ('what', 'who', 'seconds', 'range', 'our time / its')
    return Table(caption, head, rows, {'first_step': first, 'whole_run': whole})


def _cells(seconds: list[float]) -> tuple[str, str]:
    return f'{statistics.median(seconds):.2f}', f'{min(seconds):.2f} to {max(seconds):.2f}'
