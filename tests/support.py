"""What tests of whole runs share: configurations, train.py as a child, waiting for what it does."""

import csv
import fcntl
import io
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

import train
from tests.conftest import ROOT
from training import checkpoints
from training.records import read_metrics

# Nothing depends on how fast the machine is, only on whether it gets there at all.
LONG = 240.0
# Compiler options: without optimisation programs compile faster, and say the same.
QUICKLY = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}

# A sweep file, with the name that its module had first; %s takes other dimensions of its space.
SPACE = """
from sweeps.space import Categorical, Float, Int, Objective, Sweep

def get_sweep():
    return Sweep({'optimizer.learning_rate': Float(1e-4, 1e-1, log=True), 'seed': Int(0, 9)%s},
                 Objective(of='best'), trials=6)
"""


def slow(*case):
    """A case of a parametrised test that `make test` does without: others say the same."""
    return pytest.param(*case, marks=pytest.mark.slow)


def most_slow(names, few) -> list:
    """The names; all but the few are for `make test-slow`."""
    return [name if name in few else slow(name) for name in names]


def write_config(folder: Path, **fields) -> Path:
    """Writes a configuration file; a__b=v sets config.a.b."""
    path = folder / f'config_{random.getrandbits(64):016x}.json'
    path.write_text(json.dumps({_dotted(name): value for name, value in fields.items()}))
    return path


def arguments(config: Path | None, workdir: Path, *more: str, **fields) -> list[str]:
    """Returns train.py's arguments; a__b=v stands for --config.a.b=v."""
    first = [f'--config={config}'] if config else []
    given = [f'--config.{_dotted(name)}={value}' for name, value in fields.items()]
    return [*first, f'--workdir={workdir}', *more, *given]


def _dotted(name: str) -> str:
    return name.replace('__', '.')


def train_here(config: Path | None, workdir: Path, *more: str, **fields) -> int:
    """Runs train.py's main in this process, on its one device; returns the exit code."""
    return train.main(arguments(config, workdir, *more, **fields))


def on_eight_devices(*command: str, **environment: str) -> str:
    """Runs Python on eight virtual CPU devices, warnings being errors; returns its output."""
    given = os.environ | {
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
        'PJRT_NPROC': '16',  # XLA:CPU can hang with fewer threads than devices
        'PYTHONPATH': str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, '-W', 'error', *command],
        env=given | environment, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


class Broken(io.StringIO):
    """A stream that cannot be written: on a full disk, or with nobody at its other end."""

    def __init__(self, error: Exception):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    def flush(self):
        raise self.error


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The kernel lets no file grow beyond `size` bytes: a write is cut there, and the next fails.

    As on a full disk, or beyond a quota, and without the right to make one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Child:
    """train.py in a process of its own, ended when the context is left.

    Args:
      argv: its arguments.
      log: the file for its output.
      script: code to run in place of train.py, for a test that has to interfere.
    """

    def __init__(self, argv: list[str], log: Path, script: str | None = None):
        self._command = [sys.executable, *(['-c', script] if script else ['train.py']), *argv]
        self.log = log

    def __enter__(self) -> 'Child':
        with self.log.open('wb') as log:
            self.process = subprocess.Popen(self._command, cwd=ROOT, stdout=log, stderr=log)
        return self

    def __exit__(self, *exc_info) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors='replace')

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self) -> int:
        """Waits for its end; returns the exit code."""
        return self.process.wait(LONG)

    def wait_until(self, happened: Callable[[], bool]) -> bool:
        """Waits for something that it does; returns False if it ended before that was seen."""
        deadline = time.monotonic() + LONG
        while not happened():
            if not self.running:
                return False
            assert time.monotonic() < deadline, f'nothing happened; its output:\n{self.output}'
            time.sleep(0.005)
        return True

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Sends a signal, if it still runs, and returns the exit code."""
        self.process.send_signal(number)
        return self.wait()


def run_child(argv: list[str], log: Path, script: str | None = None) -> Child:
    """Runs train.py to its end."""
    with Child(argv, log, script) as child:
        child.wait()
    return child


class Several:
    """The processes of one run, one device each; ended when the context is left.

    Args:
      config, workdir: of the run.
      logs: their outputs are in files of this name and their numbers.
      scripts: of each process; None runs train.py, and `ABSENT` nothing. Their number counts.
      fields: of the configuration.
    """

    ABSENT = 'absent'

    def __init__(self, config, workdir: Path, logs: Path, scripts=(None, None), **fields):
        address = f'127.0.0.1:{free_port()},{len(scripts)}'
        self.children = [
            Child(
                arguments(config, workdir, devices=1, distributed=f'{address},{i}', **fields),
                logs.with_name(f'{logs.name}{i}'),
                script,
            )
            for i, script in enumerate(scripts)
            if script != self.ABSENT
        ]

    def __enter__(self) -> list[Child]:
        with ExitStack() as stack:
            for child in self.children:
                stack.enter_context(child)
            self._stack = stack.pop_all()
        return self.children

    def __exit__(self, *exc_info):
        self._stack.close()


def outputs(children: list[Child]) -> str:
    return '\n'.join(child.output for child in children)


def finished(config: Path, folder: Path, **fields) -> Path:
    """Returns the workdir of a run that was left alone, in a process of its own."""
    child = run_child(arguments(config, folder / 'run', **fields), folder / 'log')
    assert child.process.returncode == 0, child.output
    return folder / 'run'


def last_step(workdir: Path) -> int:
    """The step of the last record, also while the run goes on."""
    return max((record['step'] for record in read_metrics(workdir)), default=0)


def result(workdir: Path) -> dict:
    return json.loads((workdir / 'result.json').read_text())


def trials_of(workdir: Path) -> list[dict[str, str]]:
    """The rows of a sweep's trials.csv."""
    with (workdir / 'trials.csv').open() as file:
        return list(csv.DictReader(file))


def curve(workdir: Path) -> list[dict]:
    """The records, without what no two runs have alike: times."""
    timed = (
        'wall_seconds',
        'train/images_per_second',
        'train/input_wait',
        'train/model_flops_utilisation',
    )
    return [
        {name: value for name, value in record.items() if name not in timed}
        for record in read_metrics(workdir)
    ]


def saved_steps(workdir: Path) -> list[int]:
    return checkpoints.steps_in(workdir / checkpoints.FOLDER)


def go_back(workdir: Path, step: int):
    """Makes it a run that was killed after the checkpoint of `step`."""
    for later in saved_steps(workdir):
        if later > step:
            shutil.rmtree(workdir / 'checkpoints' / str(later))
    (workdir / 'result.json').unlink(missing_ok=True)


def saved_arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, by path."""
    return checkpoints.read_arrays(workdir / checkpoints.FOLDER / str(step))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """Returns the file or folder that make(path) writes: one test process does it for all."""
    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        folder = folder.parent
    path, made = folder / name, folder / f'{name}.made'
    with (folder / f'{name}.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            make(path)
            made.touch()
    return path
