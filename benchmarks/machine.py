"""What figures depend on: the machine, the versions, the day."""

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
    """Where and with what is measured.

    Attributes:
      cpu: cores that may be used, and their model.
      memory: bytes of RAM.
      versions: by package, 'torch' only where it is at hand.
      date: of the day, ISO 8601.
      load: runnable processes in the last minute, before anything was started.
    """

    cpu: str
    memory: int
    versions: dict[str, str]
    date: str
    load: float

    def sentence(self, beside_torch: bool) -> str:
        """Returns it in words, with PyTorch's version if that took part."""
        names = {'python': 'Python', 'jax': 'JAX', 'torch': 'PyTorch'}
        shown = [
            f'{names[name]} {version}'
            for name, version in self.versions.items()
            if name in names and (beside_torch or name != 'torch')
        ]
        return f'{self.cpu}, {self.memory / 2**30:.0f} GiB; {", ".join(shown)}; {self.date}.'


def look(torch_python: Path | None) -> Machine:
    """Returns this machine, now.

    Raises:
      UserError: `torch_python` does not start, or has no PyTorch.
    """
    versions = {'python': platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')}
    if torch_python:
        versions['torch'] = _torch_version(torch_python)
    memory = psutil.virtual_memory().total
    date = datetime.date.today().isoformat()
    return Machine(devices.describe_cpu(), memory, versions, date, os.getloadavg()[0])


def _torch_version(python: Path) -> str:
    """The version of PyTorch that another Python has; it is not imported, which takes seconds."""
    code = 'import importlib.metadata; print(importlib.metadata.version("torch"))'
    try:
        done = subprocess.run([python, '-c', code], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(
            f'--torch_python={python} cannot be started: {error.strerror}. `make bench` makes one.'
        ) from error
    if done.returncode:
        raise UserError(f'--torch_python={python} has no PyTorch: `make bench` makes one that has.')
    return done.stdout.strip()
