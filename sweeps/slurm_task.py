"""Runs a worker of a sweep as a task of SLURM, where submitit calls it.

At SIGUSR2 (its time is almost up) it saves its trial and is queued again. At SIGTERM (preemption
and most other ends) it does the same unless its job has been cancelled.
"""

import signal
import subprocess
from types import FrameType
from typing import TYPE_CHECKING

from sweeps.fleet import Worker

if TYPE_CHECKING:  # only this engine needs it
    from submitit.helpers import DelayedSubmission


class SlurmTask:
    """The object that submitit pickles and calls."""

    def __init__(self, worker: Worker):
        self._worker, self._terminated = worker, False

    def __call__(self) -> None:
        """Runs trials until none is left or SLURM tells the task to end."""
        import submitit

        signal.signal(signal.SIGTERM, self._save)  # submitit ignores this signal
        self._worker()
        # Until its grace period is over, SLURM lists a preempted job as running, but not a
        # cancelled one. The trial is saved first, which must not wait for the answer.
        job = submitit.JobEnvironment().job_id  # 7_1; SLURM_JOB_ID may be that of the whole array
        if self._terminated and squeue(f'--jobs={job}', '--format=%T') == 'RUNNING':
            signal.raise_signal(signal.SIGUSR2)  # submitit's handler queues the job again

    def _save(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True
        self._worker.ask_to_stop()

    def checkpoint(self) -> 'DelayedSubmission':
        """Called by submitit at SIGUSR2; saves the trial and returns the task to queue."""
        from submitit.helpers import DelayedSubmission

        self._worker.stop()
        return DelayedSubmission(SlurmTask(self._worker.again()))


def squeue(*options: str) -> str | None:
    """Returns the output of squeue without its header; None if it fails."""
    command = ['squeue', '--noheader', *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout.strip()
