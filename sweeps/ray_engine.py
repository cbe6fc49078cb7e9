"""Engine `ray`: workers as tasks of a Ray cluster, with the resources of a trial each.

Ray starts a task again elsewhere when its node is lost.
"""

import os
import time
import warnings

from errors import UserError
from sweeps import child, engine, fleet
from sweeps.engine import Work

SAVING = child.SAVING + 15.0  # seconds until the last worker has said that its trial has saved


def run(work: Work) -> None:
    """Runs trials on a Ray cluster until all have ended, or the sweep is told to stop."""
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    ray = engine.extra('ray', 'ray')
    address = work.options['ray_address']
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='os.fork')  # JAX's; it has done nothing yet
            ray.init(
                address=address,
                log_to_driver=False,
                logging_level='error',
                runtime_env={'env_vars': {'PYTHONPATH': str(child.ROOT)}},
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f'--ray_address={address}: no such Ray cluster answers ({error}); start one by '
            '`ray start --head`, or use --ray_address=local.'
        ) from error
    try:
        with work.stop:  # Ray has put its own handlers in place of ours
            fleet.run(work, Ray(ray, work))
    finally:
        ray.shutdown()


class Ray:
    """A fleet.Scheduler. Its workers are tasks of this process, and end with it."""

    def __init__(self, ray, work: Work):
        self._ray, self._work = ray, work
        self._tasks, self._told = [], False
        self._cpus, self._gpus = work.options['cpus'] or 1, work.options['gpus'] or 0
        trials = work.folder / 'trials'
        self.output = f"their output is in Ray's logs on the nodes, that of trials in {trials}"
        self._task = ray.remote(
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_retries=-1,  # after the loss of a node; what the worker raises is not tried again
        )(_work)

    def start(self, worker: fleet.Worker, count: int) -> int:
        """Hands so many tasks to Ray, which waits until their resources are free."""
        nodes = [node['Resources'] for node in self._ray.nodes() if node['Alive']]
        have = sorted({(node.get('CPU', 0), node.get('GPU', 0)) for node in nodes})
        if not self._told and not any(c >= self._cpus and g >= self._gpus for c, g in have):
            self._told = True
            self._work.say(
                f'No node has the {self._cpus} CPU and {self._gpus} GPU of a trial (there are '
                f'nodes of {", ".join(f"{c:g} and {g:g}" for c, g in have)}): the workers wait for '
                'one, or start again with other --cpus and --gpus'
            )
        self._tasks += [self._task.remote(worker) for _ in range(count)]
        return count

    def under_way(self) -> int:
        """Counts the tasks that run or wait; says why others failed."""
        if not self._tasks:
            return 0
        ended, self._tasks = self._ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
        for task in ended:
            try:
                self._ray.get(task)
            except Exception as error:  # whatever the worker or Ray ran into
                self._work.say(f'a worker failed: {error}')
        return len(self._tasks)

    def leave(self) -> str:
        """Interrupts the workers, whose trials save."""
        for task in self._tasks:
            self._ray.cancel(task)
        # To Ray a task has ended when it was cancelled; its trial has when its worker says so.
        end = time.monotonic() + SAVING
        while self._work.study.load()[0] and time.monotonic() < end:
            time.sleep(fleet.PAUSE)
        return 'The workers have stopped'


def _work(worker: fleet.Worker) -> None:
    worker()
