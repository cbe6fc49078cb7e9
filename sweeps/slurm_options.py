"""Parses the options --slurm=NAME=VALUE into the types that submitit expects."""

import math
import re
from typing import Any

from errors import UserError

# Options that have the same name for every cluster in submitit; the others begin with slurm_.
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
LISTS = ('setup', 'teardown', 'srun_args')  # each --slurm=setup=... adds an item
OTHERS = 'additional_parameters'  # options of sbatch for which submitit has none


def parse(texts: list[str]) -> dict[str, Any]:
    """Returns the parameters of submitit's AutoExecutor by their names there.

    Args:
      texts: options of the form NAME=VALUE. Values of other options than those above stay text, so
        that account=007 keeps its zeros.

    Raises:
      UserError: an option does not have that form, or its value has the wrong type.
    """
    parameters: dict[str, Any] = {}
    for text in texts:
        name, value = _split(text, text)
        key = name if name in SHARED else f'slurm_{name}'
        if name in LISTS:
            parameters.setdefault(key, []).append(value)
        elif name == OTHERS:
            parameters.setdefault(key, {}).update([_split(value, text)])
        else:
            parameters[key] = _value(name, value)
    return parameters


def _split(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition('=')
    if not equals:
        example = f'{OTHERS}=reservation=mine' if option.startswith(OTHERS) else 'partition=gpu'
        raise UserError(f'--slurm={option} must be NAME=VALUE, such as {example}.')
    return name, value


def _value(name: str, text: str) -> Any:
    if name in WHOLE:
        if not re.fullmatch('[0-9]{1,9}', text):
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
        return True  # sbatch accepts --exclusive with or without a value
    return text
