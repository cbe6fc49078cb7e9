"""The end of a run: result.json, curves.png, and the summary that is printed."""

import dataclasses
import importlib.metadata
import platform
from typing import Any

import jax
import numpy as np

import files
from configs import base
from distributed import devices, hosts
from training import curves, transfer, workdir
from training.evaluation import Evaluation
from training.loop import Loop
from training.progress import summary
from training.start import Run
from training.state import TrainState, sha256

# Precedes the names of the test's metrics in result.json.
TEST = 'test_'


@dataclasses.dataclass(frozen=True)
class Reached:
    """The state that training has reached, at the end or when it was stopped.

    Attributes:
      state: on the devices.
      step: number of its updates.
      reason: name of the signal by which the run was stopped; None at the end.
      wall_seconds: duration of the whole run, earlier parts included.
      loop: the loop that trained.
    """

    state: TrainState
    step: int
    reason: str | None
    wall_seconds: float
    loop: Loop


def write(run: Run, reached: Reached, evaluation: Evaluation) -> None:
    """Writes result.json and curves.png and prints the summary."""
    exp, config, runner = run.experiment, run.config, run.runner
    tested = run.task.result(evaluation.sums, evaluation.rows)
    tested |= {
        'examples': int(evaluation.sums['count']),
        'bad_records': evaluation.bad_records,
    }
    cost = runner.cost()
    peak_memory, peak_memory_of = devices.peak_memory(runner.local)
    params = reached.state.params
    result = {
        'config': base.stored(config),
        'seed': config.seed,
        'steps': exp.steps,
        'epochs': exp.steps / exp.steps_per_epoch,
        **{f'{TEST}{name}': value for name, value in tested.items()},
        'params_sha256': sha256(runner.fetch(params)),
        'init_from_sha256': transfer.recorded_sha256(run.folder),
        'parameters': sum(x.size for x in jax.tree.leaves(params)),
        'wall_seconds': reached.wall_seconds,
        # 0.0 if a resumed run had at most one call left to do.
        'examples_per_second': reached.loop.examples_per_second,
        # XLA's count for one update, all devices together; null if no update was left to do.
        'step_flops': cost['flops'],
        'step_bytes': cost['bytes'],
        'model_flops_per_image': reached.loop.model_flops_per_image,
        'peak_memory_bytes': peak_memory,
        'peak_memory_of': peak_memory_of,
        'device': devices.describe(runner.devices),
        'devices': len(runner.devices),
        'processes': jax.process_count(),
        'extensions': workdir.extensions(run.folder),
        # What was printed is no part of the run, which goes on without it; null if all was.
        'output_problem': run.printed and run.printed.problem,
        'versions': versions(),
    }
    files.write_json(run.folder / workdir.RESULT, result)
    _show(run, result)


def is_finished(run: Run, step: int, state: TrainState) -> bool:
    """Returns whether the run has its result; if it does, prints the summary once more."""

    def check() -> bool:
        result = _earlier_result(run)
        # By the hash as well: a result may be of an earlier, shorter run in this folder.
        finished = step == run.experiment.steps == result.get('steps') and result.get(
            'params_sha256'
        ) == sha256(state.params)
        if finished:
            run.say(f'The run in {run.folder} is finished; there is nothing left to train.')
            _show(run, result)
        return finished

    return bool(hosts.broadcast(np.int32(hosts.on_first(check) or 0)))


def _show(run: Run, result: dict[str, Any]) -> None:
    """Draws the curves and prints the summary of a result."""
    config = run.config
    title = f'{config.model.name} on {config.data.name}, {run.folder.resolve().name}'
    curves.plot_curves(run.folder, run.task.metrics, run.experiment.steps_per_epoch, title)
    tested = {k.removeprefix(TEST): v for k, v in result.items() if k.startswith(TEST)}
    run.say(
        summary(
            workdir=run.folder,
            headline=(f'test {run.task.metric().name}', run.task.headline(tested)),
            wall_seconds=result['wall_seconds'],
            device=result['device'],
        )
    )


def _earlier_result(run: Run) -> dict[str, Any]:
    """Returns the result.json of the folder; {} if there is none that can be read."""
    return files.usable_json(run.folder / workdir.RESULT) or {}


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries on which the numbers depend."""
    names = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'tensorflow-datasets')
    return {
        'python': platform.python_version(),
        **{n: importlib.metadata.version(n) for n in names},
    }
