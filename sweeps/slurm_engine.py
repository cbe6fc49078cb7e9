"""Engine `slurm`: workers as the tasks of job arrays, submitted by submitit."""

import json
import shlex
import time

import files
from errors import UserError
from sweeps import child, engine, fleet, slurm_options
from sweeps.engine import Work
from sweeps.slurm_task import Task, squeue

FILE, LOGS = 'slurm.json', 'slurm'
MINUTES = 240  # of a task, unless --slurm=timeout_min=... says otherwise; then it is queued again
REQUEUES = 10_000
LOOK = 15.0  # seconds between two calls of squeue
MOST = 600.0  # the same at most, where SLURM takes no job: it grows from one refusal to the next


def run(work: Work) -> None:
    """Runs trials on a SLURM cluster until all have ended, or the sweep is told to stop."""
    fleet.run(work, Slurm(work))


class Slurm:
    """A fleet.Scheduler. The numbers of its jobs are in the sweep's folder."""

    def __init__(self, work: Work):
        submitit = engine.extra('submitit', 'slurm')
        self._file, self._options = work.folder / FILE, work.options
        self._jobs = json.loads(self._file.read_text()) if self._file.exists() else []
        self._say, self.output = work.say, f'their output is in {work.folder / LOGS}'
        self._count = None if self._jobs else 0
        self._next, self._pause, self._submitted, self._told = 0.0, LOOK, False, False
        try:
            self._executor = submitit.AutoExecutor(
                work.folder / LOGS, cluster='slurm', slurm_max_num_timeout=REQUEUES
            )
            self._executor.update_parameters(**self._parameters())
        except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
            raise UserError(f'--engine=slurm: {error}') from error

    def _parameters(self) -> dict:
        path = f'export PYTHONPATH={shlex.quote(str(child.ROOT))}:$PYTHONPATH'
        own = {'cpus_per_task': self._options['cpus'], 'gpus_per_node': self._options['gpus']}
        found = {'name': 'sweep', 'timeout_min': MINUTES}
        found |= {name: value for name, value in own.items() if value is not None}
        found |= slurm_options.parse(self._options['slurm'] or [])
        return found | {'slurm_setup': [*found.get('slurm_setup', []), path]}

    def start(self, worker: fleet.Worker, count: int) -> int:
        """Submits an array of so many tasks; only the first that SLURM does not take is fatal."""
        task = Task(worker)
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(task) for _ in range(count)]
        except Exception as error:  # of several types, with sbatch's answer in it
            if not self._submitted:
                raise UserError(f'SLURM did not take the job: {error}') from error
            self._say(f'SLURM did not take the job, which is tried again: {error}')
            self._count = None  # nothing is started until squeue has answered
            self._next = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, MOST)
            return 0
        self._submitted, self._pause = True, LOOK
        self._jobs.append(jobs[0].job_id.partition('_')[0])
        files.write_json(self._file, self._jobs)
        self._count += count
        return count

    def under_way(self) -> int | None:
        """Counts the tasks in the queue, those that run included; None if squeue never said."""
        if time.monotonic() >= self._next:
            found = squeue('--array', '--me', '--format=%F')
            self._next = time.monotonic() + LOOK  # after an answer that may have taken long
            if found is not None:  # a controller that is busy has not lost them
                self._count = sum(job in self._jobs for job in found.split())
            elif self._count is None and not self._told:
                self._told = True
                self._say('squeue does not answer: no workers are started until it does')
        return self._count

    def leave(self) -> str:
        """Says how to end the jobs; they go on."""
        jobs = ' '.join(self._jobs)
        return f'The workers go on; the same command watches them. Ending them: scancel {jobs}'
