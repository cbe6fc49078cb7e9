"""Engine `ray`: runs workers as tasks of a Ray cluster, each with the resources of one trial.

Ray restarts a task elsewhere when its node is lost.
"""

import os
import time
import warnings
from types import ModuleType

from errors import UserError
from sweeps import child, engine, fleet
from sweeps.engine import Work

SAVE_TIMEOUT = child.SAVE_TIMEOUT + 15.0  # seconds for the last worker to report that it has saved


def run(work: Work) -> None:
    """Runs trials on a Ray cluster until all have ended or the sweep is told to stop."""
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    ray = engine.extra('ray', 'ray')
    address = work.options['ray_address']
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='os.fork')  # JAX's; it has not started yet
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level='error',
                runtime_env={'env_vars': {'PYTHONPATH': str(child.ROOT)}},
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f'--ray_address={address}: no Ray cluster answers there ({error}). Start one with '
            '`ray start --head`, or use --ray_address=local.'
        ) from error
    try:
        with work.stop:  # again, because ray.init has replaced the signal handlers
            fleet.run(work, Ray(ray, work))
    finally:
        ray.shutdown()


class Ray:
    """A fleet.Scheduler for Ray, whose workers end with this process."""

    def __init__(self, ray: ModuleType, work: Work):
        self._ray, self._work = ray, work
        self._tasks, self._announced = [], False
        self._cpus, self._gpus = work.options['cpus'] or 1, work.options['gpus'] or 0
        trials = work.folder / 'trials'
        self.output = f"their output is in Ray's logs on the nodes, that of trials in {trials}"
        self._task = ray.remote(
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_retries=-1,  # after the loss of a node; an error of the worker is not retried
        )(_work)

    def start(self, worker: fleet.Worker, count: int) -> int:
        """Hands `count` tasks to Ray, which queues them until their resources are free."""
        nodes = [node['Resources'] for node in self._ray.nodes() if node['Alive']]
        sizes = sorted({(node.get('CPU', 0), node.get('GPU', 0)) for node in nodes})
        if not self._announced and not any(c >= self._cpus and g >= self._gpus for c, g in sizes):
            self._announced = True
            self._work.say(
                f'No node has the {self._cpus} CPU and {self._gpus} GPU of a trial (there are '
                f'nodes of {", ".join(f"{c:g} and {g:g}" for c, g in sizes)}): the workers wait '
                'for such a node; otherwise, start again with other --cpus and --gpus'
            )
        self._tasks += [self._task.remote(worker) for _ in range(count)]
        return count

    def under_way(self) -> int:
        """Returns the number of running and queued tasks; prints why others failed."""
        if not self._tasks:
            return 0
        ended, self._tasks = self._ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
        for task in ended:
            try:
                self._ray.get(task)
            except Exception as error:  # any error of the worker or of Ray
                self._work.say(f'a worker failed: {error}')
        return len(self._tasks)

    def leave(self) -> str:
        """Interrupts the workers and waits until their trials have saved."""
        for task in self._tasks:
            self._ray.cancel(task)
        # Ray considers a task ended once it is cancelled, so the study is asked instead: there, a
        # trial is running until its worker has saved it.
        end = time.monotonic() + SAVE_TIMEOUT
        while self._work.study.load()[0] and time.monotonic() < end:
            time.sleep(fleet.PAUSE)
        return 'The workers have stopped'


def _work(worker: fleet.Worker) -> None:
    worker()
