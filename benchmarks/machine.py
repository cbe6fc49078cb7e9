"""What figures depend on: the machine, the versions, the date."""

import dataclasses
import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import psutil

import processes
from distributed import devices
from errors import UserError

_TORCH = 'import importlib.metadata; print(importlib.metadata.version("torch"))'


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
        shown = (f'{names[key]} {self.versions[key]}' for key in names if key in self.versions)
        return f'{self.cpu}, {self.memory / 2**30:.0f} GiB; {", ".join(shown)}; {self.date}.'


def describe(torch_python: Path | None = None) -> Machine:
    """Returns a description of this machine; a UserError says that a Python has no PyTorch."""
    versions = {'python': platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')}
    if torch_python:
        option = f'--torch_python={torch_python}'
        try:  # its version, without importing it, which takes seconds
            versions['torch'] = processes.watch([torch_python, '-c', _TORCH]).lines[-1][1]
        except OSError as error:
            reason = f'cannot be started: {error.strerror}. `make bench` makes one.'
            raise UserError(f'{option} {reason}') from error
        except UserError as error:
            raise UserError(f'{option} has no PyTorch: `make bench` makes one that has.') from error
    memory, date = psutil.virtual_memory().total, datetime.date.today().isoformat()
    return Machine(devices.describe_cpu(), memory, versions, date, os.getloadavg()[0])
