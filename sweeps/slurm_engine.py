"""Engine `slurm`: workers as the tasks of job arrays, submitted by submitit.

A task saves its trial at SIGUSR2 and is queued again; at SIGTERM it saves and ends.
"""

import json
import shlex
import signal
import subprocess

from errors import UserError
from sweeps import child, engine, fleet
from sweeps.engine import Work
from training import records

FILE, LOGS = 'slurm.json', 'slurm'
MINUTES = 240  # of a task, unless --slurm=timeout_min=... says otherwise; then it is queued again
REQUEUES = 10_000
# What submitit calls by the same name on every kind of cluster; the rest is sbatch's own.
SHARED = ('timeout_min', 'mem_gb', 'cpus_per_task', 'gpus_per_node', 'stderr_to_stdout')


class Task:
    """A worker as submitit wants it."""

    def __init__(self, worker: fleet.Worker):
        self._worker = worker

    def __call__(self) -> None:
        """Works. submitit ignores SIGTERM, by which SLURM announces most ends."""
        signal.signal(signal.SIGTERM, lambda number, frame: self._worker.ask_to_stop())
        self._worker()

    def checkpoint(self):
        """What submitit calls at SIGUSR2; returns what it shall queue."""
        from submitit.helpers import DelayedSubmission

        self._worker.stop()
        return DelayedSubmission(Task(self._worker.again()))


def run(work: Work) -> None:
    """Runs trials on a SLURM cluster until all have ended, or the sweep is told to stop."""
    fleet.run(work, Slurm(work))


class Slurm:
    """A fleet.Scheduler. The numbers of its jobs are in the sweep's folder."""

    def __init__(self, work: Work):
        submitit = engine.extra('submitit', 'slurm')
        self._file, self._options = work.folder / FILE, work.options
        self._jobs = json.loads(self._file.read_text()) if self._file.exists() else []
        self._count = 0
        try:
            self._executor = submitit.AutoExecutor(
                work.folder / LOGS, cluster='slurm', slurm_max_num_timeout=REQUEUES
            )
            self._executor.update_parameters(**self._parameters())
        except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
            raise UserError(f'--engine=slurm: {error}') from error

    def _parameters(self) -> dict:
        path = f'export PYTHONPATH={shlex.quote(str(child.ROOT))}:$PYTHONPATH'
        found = {'name': 'sweep', 'timeout_min': MINUTES, 'slurm_setup': [path]}
        own = {'cpus_per_task': self._options['cpus'], 'gpus_per_node': self._options['gpus']}
        found |= {name: value for name, value in own.items() if value is not None}
        for text in self._options['slurm'] or ():
            name, equals, value = text.partition('=')
            if not equals:
                raise UserError(f'--slurm={text} must be NAME=VALUE, such as partition=gpu.')
            name = name if name in SHARED else f'slurm_{name}'
            found[name] = int(value) if value.isdecimal() else value
        return found

    def start(self, worker: fleet.Worker, count: int) -> None:
        """Submits an array of so many tasks."""
        task = Task(worker)
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(task) for _ in range(count)]
        except Exception as error:  # of several types, with sbatch's answer in it
            raise UserError(f'SLURM did not take the job: {error}') from error
        self._jobs.append(jobs[0].job_id.partition('_')[0])
        records.write_json_atomically(self._file, self._jobs)
        self._count += count

    def under_way(self) -> int:
        """Counts the tasks in the queue, those that run included."""
        command = ['squeue', '--noheader', '--array', '--me', '--format=%F']
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if not found.returncode:  # a controller that is busy has not lost them
            self._count = sum(job in self._jobs for job in found.stdout.split())
        return self._count

    def leave(self) -> str:
        """Says how to end the jobs; they go on."""
        jobs = ' '.join(self._jobs)
        return f'The workers go on; the same command watches them. Ending them: scancel {jobs}'
