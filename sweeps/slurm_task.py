"""A worker of a sweep as a task of SLURM, run by submitit there.

At SIGUSR2 (its time is almost up) it saves its trial and is queued again. At SIGTERM (preemption,
most other ends) it does the same, unless its job has been cancelled.
"""

import signal
import subprocess

from sweeps.fleet import Worker


class Task:
    """What submitit pickles and calls."""

    def __init__(self, worker: Worker):
        self._worker, self._warned = worker, False

    def __call__(self) -> None:
        """Works until no trial is left, or SLURM wants it to end."""
        import submitit

        signal.signal(signal.SIGTERM, self._save)  # submitit ignores it
        self._worker()
        # SLURM says that a job runs until a preempted one's time of grace is over; not so of one
        # that was cancelled. It is asked when the trial has been saved, which cannot wait for it.
        job = submitit.JobEnvironment().job_id  # 7_1: SLURM_JOB_ID may be that of the whole array
        if self._warned and squeue(f'--jobs={job}', '--format=%T') == 'RUNNING':
            signal.raise_signal(signal.SIGUSR2)  # submitit's handler: it queues the job again

    def _save(self, number, frame) -> None:
        self._warned = True
        self._worker.ask_to_stop()

    def checkpoint(self):
        """What submitit calls at SIGUSR2; returns what it shall queue."""
        from submitit.helpers import DelayedSubmission

        self._worker.stop()
        return DelayedSubmission(Task(self._worker.again()))


def squeue(*options: str) -> str | None:
    """Returns what squeue says, without a header; None if it fails."""
    command = ['squeue', '--noheader', *options]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if found.returncode else found.stdout.strip()
