"""What figures depend on: the machine, the versions, the date."""

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil

from distributed import devices
from errors import UserError


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where figures were measured."""

    cpu: str  # number and model of the cores that this process may use
    memory: int  # bytes of RAM
    versions: dict[str, str]  # by package; 'torch' only if it takes part
    date: str  # ISO 8601
    load: float  # runnable processes in the last minute, before the benchmark started any

    def sentence(self, beside_torch: bool) -> str:
        """Returns it in words, with PyTorch's version if PyTorch took part."""
        names = {'python': 'Python', 'jax': 'JAX', **({'torch': 'PyTorch'} if beside_torch else {})}
        shown = [f'{names[name]} {version}' for name, version in self.versions.items()
                 if name in names]  # fmt: skip
        return f'{self.cpu}, {self.memory / 2**30:.0f} GiB; {", ".join(shown)}; {self.date}.'


def describe(torch_python: Path | None = None) -> Machine:
    """Returns a description of this machine.

    Raises:
      UserError: `torch_python` does not start, or has no PyTorch.
    """
    versions = {'python': platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')}
    if torch_python:
        versions['torch'] = _torch_version(torch_python)
    memory, date = psutil.virtual_memory().total, datetime.date.today().isoformat()
    return Machine(devices.describe_cpu(), memory, versions, date, os.getloadavg()[0])


def _torch_version(python: Path) -> str:
    """Returns another Python's version of PyTorch without importing it, which takes seconds."""
    code = 'import importlib.metadata; print(importlib.metadata.version("torch"))'
    start = f'--torch_python={python}'
    try:
        done = subprocess.run([python, '-c', code], capture_output=True, text=True, check=False)
    except OSError as error:
        reason = error.strerror
        raise UserError(f'{start} cannot be started: {reason}. `make bench` makes one.') from error
    if done.returncode:
        raise UserError(f'{start} has no PyTorch: `make bench` makes one that has.')
    return done.stdout.strip()
