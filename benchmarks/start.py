"""Section `start`: from the start of the process to the first step, and the first command whole.

The first step is over when the program prints it: ours does once the loss is back from the device.
"""

import statistics

from benchmarks import job, processes
from benchmarks.tables import BenchmarkContext, BenchmarkTable, median_and_range
from configs import reading

FIRST_STEP = r'^step 1/'
TRAIN = 'configs/digits_lenet.py'  # `make train`
COLD, WARM = 'ours, nothing compiled', 'ours'


def run(context: BenchmarkContext) -> BenchmarkTable:
    """Starts every program in turn; then runs `make train` again and again, compiled."""
    name = TRAIN if context.quick else 'configs/mnist_lenet.py'
    data_dir = f'data.dir={context.data_dir}'
    config = reading.from_arguments(name, [f'--config.{data_dir}'])
    job.write_idx(context.scratch / 'idx', config)
    rounds = 1 if context.quick else context.rounds
    first: dict[str, list[float]] = {}
    python = job.torch_python(context)

    def start(contestant: str, command: list[str]) -> None:
        seconds = processes.watch(command, until=FIRST_STEP).seconds
        first.setdefault(contestant, []).append(seconds)
        context.say(f'{contestant}: first step after {seconds:.2f} s')

    for number in range(rounds):
        cache = f'compilation_cache={context.scratch / f"cache{number}"}'
        for turn, contestant in enumerate((COLD, WARM)):
            workdir = context.scratch / f'run{number}-{turn}'
            start(contestant, job.our_command(name, workdir, data_dir, cache))
        if python:
            workdir = context.scratch / f'torch{number}'
            recipe = job.torch_recipe(config, context.scratch / 'idx', 0, workdir)
            start('PyTorch', job.torch_command(python, recipe))
    return _table(first, _whole_runs(context, rounds), config)


def _whole_runs(context: BenchmarkContext, rounds: int) -> list[float]:
    """Returns the seconds that the run of `make train` takes once everything is compiled."""
    seconds, shorter = [], ['epochs=3'] if context.quick else []
    cache = f'compilation_cache={context.scratch / "cache"}'
    for number in range(1 + rounds):
        workdir = context.scratch / f'whole{number}'
        output = processes.watch(job.our_command(TRAIN, workdir, cache, *shorter))
        seconds.append(output.seconds)
        context.say(f'{TRAIN}: whole run {output.seconds:.2f} s')
    return seconds[1:]


def _table(first: dict[str, list[float]], whole: list[float], config) -> BenchmarkTable:
    ours = statistics.median(first[WARM])
    name = f'{config.model.name} on {config.data.name}, first step'
    rows = [
        [name, contestant, *median_and_range(own, 2), f'{ours / statistics.median(own):.2f}']
        for contestant, own in first.items()
    ]
    rows.append([f'{TRAIN}, whole run', WARM, *median_and_range(whole, 2), ''])
    caption = (
        f'From the start of the process, imports and data included. Medians of {len(whole)} starts.'
    )
    head = ('what', 'who', 'seconds', 'range', 'our time / its')
    return BenchmarkTable(caption, head, rows, {'first_step': first, 'whole_run': whole})
