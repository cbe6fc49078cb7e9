"""Searches for hyperparameters: python sweep.py --config=... --sweep=... --workdir=runs/sweep."""

import argparse
import contextlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import command
import printing
from errors import UserError

if TYPE_CHECKING:  # imported when the command line has been read
    from ml_collections import ConfigDict

    from configs.search import Sweep
    from sweeps.conditions import Conditions
    from sweeps.engine import Work

ENGINES = ('vmap', 'local', 'slurm', 'ray')
# The engines to which an option means something; the others refuse it.
MEANT_FOR = {
    'lanes': ('vmap',),
    'jobs': ('local', 'slurm', 'ray'),
    'cpus': ('slurm', 'ray'),
    'gpus': ('slurm', 'ray'),
    'slurm': ('slurm',),
    'ray_address': ('ray',),
}
DEFAULTS = {'jobs': 1, 'ray_address': 'auto'}  # where an engine takes the option
EPILOG = """\
examples:
  python sweep.py --config=configs/digits_lenet.py --sweep=configs/sweeps/lenet.py --workdir=runs/sweep
  ... --sampler=random --pruner=none --trials=200
  ... --engine=local --jobs=2                            one process for each trial
  ... --engine=slurm --jobs=16 --gpus=1 --slurm=partition=gpu       16 tasks, which share the trials
  ... --engine=ray --jobs=16 --gpus=1 --ray_address=auto
  python train.py --config=runs/sweep/best_config.json --workdir=runs/best

The same command resumes a sweep that was stopped. Fields of the configuration can be set by
--config.NAME=VALUE, as for train.py.

exit codes:
  0   the sweep is finished
  2   the command or its input is wrong, or no trial was completed; or a disk is full: make room,
      and the same command resumes the sweep
  75  trials are left: stopped by Ctrl-C, SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2, or other processes
      still run them; the same command resumes the sweep
"""  # noqa: E501


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(
        description='Trains a configuration many times with different values, and reports which '
        'are best on the validation split. The test split is not used for any choice.',
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
        help='vmap: several trials in one program; local: a process for each trial; slurm, ray: '
        'processes on a cluster [vmap]',
    )
    add('--trials', type=command.positive, help='number of trials [that of the sweep file]')
    add(
        '--sampler',
        choices=('tpe', 'random', 'grid', 'cmaes'),
        default='tpe',
        help='how the values of a trial are chosen; see Optuna [tpe]',
    )
    add(
        '--pruner',
        choices=('asha', 'median', 'none'),
        default='asha',
        help='which trials are stopped early; see Optuna [asha]',
    )
    add('--storage', metavar='URL', help='database for the trials [a journal in the workdir]')
    add('--lanes', type=command.positive, help='vmap: trials at a time [by memory and device]')
    add('--jobs', type=command.positive, help='other engines: trials at a time [1]')
    add('--cpus', type=command.positive, help='slurm, ray: cores per trial')
    add('--gpus', type=command.positive, help='slurm, ray: GPUs per trial')
    add(
        '--slurm',
        metavar='NAME=VALUE',
        action='append',
        help='slurm: an option of submitit or sbatch, such as partition, timeout_min, mem_gb, '
        'account; may be repeated',
    )
    add(
        '--ray_address',
        metavar='ADDRESS',
        help='ray: address of the cluster; local starts one on this machine [auto]',
    )
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    settle_options(arguments)
    from configs import reading, search

    config = reading.from_arguments(arguments.config, overrides)
    sweep = search.load(arguments.sweep)
    _check_sampler(arguments.sampler, sweep)
    from sweeps.conditions import Conditions
    from training import checks

    conditions = Conditions(sweep, config)
    checks.check(conditions.checked())
    with printing.lasting():
        return run(config, sweep.resolved(config), arguments, conditions)


def settle_options(arguments: argparse.Namespace) -> None:
    """Checks that the engine takes all options that were given, and puts in the defaults.

    Raises:
      UserError: an option means nothing to the engine.
    """
    for name, engines in MEANT_FOR.items():
        given = getattr(arguments, name) is not None
        if given and arguments.engine not in engines:
            others = ' or '.join(f'--engine={engine}' for engine in engines)
            raise UserError(
                f'--{name} means nothing to --engine={arguments.engine}: leave it out, or choose '
                f'{others}.'
            )
        if not given:
            setattr(arguments, name, DEFAULTS.get(name))


def _check_sampler(name: str, sweep: 'Sweep') -> None:
    numbers = [field for field, values in sweep.space.items() if hasattr(values, 'low')]
    if name == 'cmaes' and len(numbers) < 2:
        raise UserError(
            f'--sampler=cmaes needs two fields that vary by a Float or Int, and the space has '
            f'{len(numbers)}: choose another sampler.'
        )


def run(
    config: 'ConfigDict',
    sweep: 'Sweep',
    arguments: argparse.Namespace,
    conditions: 'Conditions',
) -> int:
    """Runs a checked sweep; returns the exit code."""
    from distributed.preemption import EXIT_CODE, Preemption
    from sweeps import engine, report, room, study
    from training import workdir

    folder = Path(arguments.workdir).resolve()
    # A sweep that is refused before its first trial leaves nothing behind.
    claim = workdir.Claim(folder, (workdir.LOCK, study.SETTINGS, study.JOURNAL))
    with room.explaining(folder), contextlib.ExitStack() as stack:
        stack.push(claim.leave_folders)
        workdir.check_writable(folder)
        stack.enter_context(workdir.lock(folder))
        claim.locked()
        stack.push(claim.leave)
        about = study.describe(sweep, config, arguments.sampler, arguments.storage)
        study.check_settings(folder, about)
        alone = arguments.storage is None and arguments.engine in ('vmap', 'local')
        where = (folder, arguments.storage, alone, sweep.objective.direction, _say)
        settings = (arguments.sampler, arguments.pruner, study.storage_of(*where), about)
        count = arguments.trials or sweep.trials
        trials = study.Study(sweep, folder, count, *settings, alone, conditions)
        stack.callback(trials.close)
        if arguments.engine != 'vmap':  # the devices are left to the processes of the trials
            import jax

            jax.config.update('jax_platforms', 'cpu')
        for sentence in conditions.sentences():
            _say(sentence)
        stop = stack.enter_context(Preemption())
        work = engine.Work(config, sweep, trials, folder, stop, _say, vars(arguments))
        try:
            _engine(arguments.engine)(work)
        finally:
            if trials.began():
                claim.keep()
        report.write(work)
        left = trials.trials - len(trials.finished())
        if left > 0:
            reason = stop.reason() or 'Other processes run them, or have just died'
            _say(f'{reason}: {left} trials have not ended; the same command resumes the sweep')
            return EXIT_CODE
    if trials.best() is None:
        raise UserError(f'No trial was completed; see the reasons in {folder / report.TRIALS}.')
    return 0


def _say(text: str) -> None:
    print(text, flush=True)  # so that a log file can be read while the sweep runs


def _engine(name: str) -> Callable[['Work'], None]:
    """Returns the function that runs the trials."""
    return importlib.import_module(f'sweeps.{name}_engine').run


if __name__ == '__main__':
    command.run(main)
