"""What --slurm=NAME=VALUE says, in the types that submitit's options have."""

import math
from typing import Any

from errors import UserError

# What submitit calls by the same name on every kind of cluster; the rest is slurm_... there.
SHARED = (
    'name', 'timeout_min', 'mem_gb', 'nodes', 'cpus_per_task', 'gpus_per_node', 'tasks_per_node',
    'stderr_to_stdout',
)  # fmt: skip
WHOLE = (
    'timeout_min', 'time', 'nodes', 'cpus_per_task', 'gpus_per_node', 'tasks_per_node',
    'ntasks_per_node', 'cpus_per_gpu', 'gpus_per_task', 'num_gpus', 'signal_delay_s',
    'array_parallelism',
)  # fmt: skip
SWITCHES = ('stderr_to_stdout', 'use_srun')
LISTS = ('setup', 'teardown', 'srun_args')  # each --slurm=setup=... adds one
OTHERS = 'additional_parameters'  # of sbatch, which submitit has no option for


def parse(texts: list[str]) -> dict[str, Any]:
    """Returns the parameters for submitit's AutoExecutor, by their names there.

    Args:
      texts: NAME=VALUE each. What has no type of its own there stays text, as account=007.

    Raises:
      UserError: one is not NAME=VALUE, or its value is not of the option's type.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, value = _split(text, text)
        key = name if name in SHARED else f'slurm_{name}'
        if name in LISTS:
            found.setdefault(key, []).append(value)
        elif name == OTHERS:
            found.setdefault(key, {}).update([_split(value, text)])
        else:
            found[key] = _value(name, value)
    return found


def _split(text: str, whole: str) -> tuple[str, str]:
    name, equals, value = text.partition('=')
    if not equals:
        example = f'{OTHERS}=reservation=mine' if whole.startswith(OTHERS) else 'partition=gpu'
        raise UserError(f'--slurm={whole} must be NAME=VALUE, such as {example}.')
    return name, value


def _value(name: str, text: str) -> Any:
    if name in WHOLE:
        if not text.isdecimal():
            raise UserError(f'--slurm={name}={text} must be a whole number.')
        return int(text)
    if name in SWITCHES:
        if text.lower() not in ('true', 'false'):
            raise UserError(f'--slurm={name}={text} must be true or false.')
        return text.lower() == 'true'
    if name == 'mem_gb':
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise UserError(f'--slurm={name}={text} must be a number above 0.')
        return number
    if name == 'exclusive' and text.lower() == 'true':
        return True  # sbatch's has a value or none
    return text
