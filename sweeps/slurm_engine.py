"""Engine `slurm`: runs workers as tasks of SLURM job arrays, which submitit submits."""

import shlex
import time
from typing import Any

import files
from errors import UserError
from sweeps import child, engine, fleet, room, slurm_options
from sweeps.engine import Work
from sweeps.slurm_task import SlurmTask, squeue

FILE, LOGS = 'slurm.json', 'slurm'
MINUTES = 240  # time limit of a task without --slurm=timeout_min=...; the task is then requeued
MAX_REQUEUES = 10_000
PAUSE = 15.0  # seconds between two calls of squeue
MAX_PAUSE = 600.0  # limit of the pause while SLURM refuses jobs, which doubles at each refusal


def run(work: Work) -> None:
    """Runs trials on a SLURM cluster until all have ended or the sweep is told to stop."""
    fleet.run(work, Slurm(work))


class Slurm:
    """A fleet.Scheduler for SLURM; it stores the numbers of its jobs in the sweep's folder."""

    def __init__(self, work: Work):
        submitit = engine.extra('submitit', 'slurm')
        self._file, self._options = work.folder / FILE, work.options
        self._jobs = files.read_json(self._file, [str]) if self._file.exists() else []
        self._say, self.output = work.say, f'their output is in {work.folder / LOGS}'
        self._count = None if self._jobs else 0
        self._next, self._pause = 0.0, PAUSE
        self._submitted, self._announced = False, False
        try:
            self._executor = submitit.AutoExecutor(
                work.folder / LOGS, cluster='slurm', slurm_max_num_timeout=MAX_REQUEUES
            )
            self._executor.update_parameters(**self._parameters())
        except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
            raise UserError(f'--engine=slurm: {error}') from error

    def _parameters(self) -> dict[str, Any]:
        path = f'export PYTHONPATH={shlex.quote(str(child.ROOT))}:$PYTHONPATH'
        resources = {'cpus_per_task': self._options['cpus'], 'gpus_per_node': self._options['gpus']}
        # Later ones override earlier ones: the user's --slurm options come last.
        parameters = {'name': 'sweep', 'timeout_min': MINUTES}
        parameters |= {name: value for name, value in resources.items() if value is not None}
        parameters |= slurm_options.parse(self._options['slurm'] or [])
        return parameters | {'slurm_setup': [*parameters.get('slurm_setup', []), path]}

    def start(self, worker: fleet.Worker, count: int) -> int:
        """Submits an array of `count` tasks; returns how many, 0 if SLURM refuses the job.

        Raises:
          UserError: SLURM refuses the first job of the sweep; later ones are tried again.
          OSError: the disk is full.
        """
        task = SlurmTask(worker)
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(task) for _ in range(count)]
        except Exception as error:  # of several types; the text has the answer of sbatch
            if getattr(error, 'errno', None) in room.FULL:
                raise
            if not self._submitted:
                raise UserError(
                    f'SLURM refused the job; check the --slurm options: {error}'
                ) from error
            self._say(f'SLURM refused the job, which will be submitted again: {error}')
            self._count = None  # nothing is started until squeue has answered
            self._next = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, MAX_PAUSE)
            return 0
        self._submitted, self._pause = True, PAUSE
        self._jobs.append(jobs[0].job_id.partition('_')[0])
        files.write_json(self._file, self._jobs)
        self._count += count
        return count

    def under_way(self) -> int | None:
        """Returns the number of running and queued tasks; None while squeue has not answered."""
        if time.monotonic() >= self._next:
            queued = squeue('--array', '--me', '--format=%F')
            self._next = time.monotonic() + PAUSE  # counted from the answer, which may take long
            if queued is not None:  # otherwise the last count stays: a busy controller lost no job
                self._count = sum(job in self._jobs for job in queued.split())
            elif self._count is None and not self._announced:
                self._announced = True
                self._say('squeue does not answer: no workers are started until it does')
        return self._count

    def leave(self) -> str:
        """Returns a sentence that says how to end the jobs, which continue."""
        jobs = ' '.join(self._jobs)
        return (
            'The workers continue; run the same command to watch them again, or end them with: '
            f'scancel {jobs}'
        )
