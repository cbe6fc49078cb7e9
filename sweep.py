"""Looks for good hyperparameters: python sweep.py --config=... --sweep=... --workdir=runs/sweep."""

import argparse
import contextlib
import importlib
from pathlib import Path

import command
from errors import UserError

ENGINES = ('vmap', 'local', 'slurm', 'ray')
EPILOG = """\
examples:
  python sweep.py --config=configs/digits_lenet.py --sweep=configs/sweeps/lenet.py --workdir=runs/sweep
  ... --sampler=random --pruner=none --trials=200
  ... --engine=local --jobs=2                            one process for each trial
  ... --engine=slurm --jobs=16 --gpus=1 --slurm=partition=gpu       16 tasks, which share the trials
  ... --engine=ray --jobs=16 --gpus=1 --ray_address=auto
  python train.py --config=runs/sweep/best_config.json --workdir=runs/best

The same command goes on with a sweep that was stopped. Fields of the configuration can be set by
--config.NAME=VALUE, as for train.py.

exit codes: 0 done, 2 a mistake in the command or its input, 75 stopped by SIGTERM, SIGUSR2 or Ctrl-C
(start again to go on).
"""  # noqa: E501


def parser() -> argparse.ArgumentParser:
    """Returns the command line's parser."""
    parser = argparse.ArgumentParser(
        description='Trains a configuration many times, with other values each time, and says '
        'which are best on the validation split. The test split decides nothing.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--config', metavar='FILE', required=True, help='a file of configs/, or a config.json')
    add('--sweep', metavar='FILE', required=True, help='a file with get_sweep(): configs/sweeps/')
    add('--workdir', metavar='DIR', required=True, help='folder of the sweep')
    add(
        '--engine',
        choices=ENGINES,
        default='vmap',
        help='vmap: trials side by side in one program; local: a process for each; slurm, ray: '
        'the same on a cluster [vmap]',
    )
    add('--trials', type=command.positive, help="how many [the sweep file's]")
    add('--sampler', choices=('tpe', 'random', 'grid', 'cmaes'), default='tpe', help='[tpe]')
    add('--pruner', choices=('asha', 'median', 'none'), default='asha', help='[asha]')
    add('--storage', metavar='URL', help='a data base for the trials [a journal in the workdir]')
    add('--lanes', type=command.positive, help='vmap: trials at once [by memory and device]')
    add('--jobs', type=command.positive, default=1, help='but vmap: trials at once [1]')
    add('--cpus', type=command.positive, help='slurm, ray: cores of a trial')
    add('--gpus', type=command.positive, help='slurm, ray: GPUs of a trial')
    add(
        '--slurm',
        metavar='NAME=VALUE',
        action='append',
        help="slurm: submitit's or sbatch's options: partition, timeout_min, mem_gb, account, ...",
    )
    add(
        '--ray_address',
        metavar='ADDRESS',
        default='auto',
        help='ray: of the cluster; local starts one here [auto]',
    )
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    from configs import reading, search

    config = reading.from_arguments(arguments.config, overrides)
    sweep = search.load(arguments.sweep)
    from training import checks

    checks.check(config)
    return run(config, sweep.resolved(config), arguments)


def run(config, sweep, arguments) -> int:
    """Runs a checked sweep; returns the exit code."""
    from distributed.preemption import EXIT_CODE, Preemption
    from sweeps import engine, report, study
    from training import workdir

    folder = Path(arguments.workdir).resolve()
    workdir.check_writable(folder)
    with contextlib.ExitStack() as held:
        held.enter_context(workdir.lock(folder))
        about = study.describe(sweep, config, arguments.sampler, arguments.storage)
        study.check_settings(folder, about)
        alone = arguments.storage is None and arguments.engine in ('vmap', 'local')
        trials = study.Study(
            sweep,
            folder,
            arguments.trials or sweep.trials,
            arguments.sampler,
            arguments.pruner,
            study.storage_of(folder, arguments.storage, alone),
            about,
            alone,
        )
        held.callback(trials.close)
        if arguments.engine != 'vmap':  # the devices are for the trials' processes
            import jax

            jax.config.update('jax_platforms', 'cpu')
        stop = held.enter_context(Preemption())
        work = engine.Work(config, sweep, trials, folder, stop, _say, vars(arguments))
        _engine(arguments.engine)(work)
        report.write(work)
        left = trials.trials - len(trials.finished())
        if left > 0:
            reason = stop.reason() or 'Other processes run them, or died a moment ago'
            _say(f'{reason}: {left} trials have not ended; the same command goes on')
            return EXIT_CODE
    if trials.best() is None:
        raise UserError(f'Not one trial went to its end; {folder / report.TRIALS} says why.')
    return 0


def _say(text: str) -> None:
    print(text, flush=True)  # a log is read while the sweep runs


def _engine(name: str):
    return importlib.import_module(f'sweeps.{name}_engine').run


if __name__ == '__main__':
    command.run(main)
