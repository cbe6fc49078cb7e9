"""Tasks by name: those of this folder, and those that a program registers."""

from ml_collections import ConfigDict

from errors import UserError, did_you_mean
from field import Field
from tasks.answer import Metric
from tasks.classification import Classification
from tasks.detection import Detection
from tasks.instances import Instances
from tasks.segmentation import Segmentation
from tasks.task import Task

_TASKS: dict[str, type[Task]] = {}
# What a batch holds beside the targets.
BATCH_ENTRIES = ('image', 'features', 'inputs', 'index', 'epoch', 'mask', 'bad', 'share')


def register(task: type[Task]) -> type[Task]:
    """Registers a task by its name; may be used as a decorator.

    If the name is registered already, as in a notebook cell that is run twice, the new class
    replaces the old one.

    Raises:
      ValueError: one of its fields has another meaning in another task, or a target has the name of
        something else that a batch holds.
    """
    for target in task.targets:
        if target in BATCH_ENTRIES:
            raise ValueError(f'target "{target}" of task {task.name}: the name is taken in a batch')
    others = {
        field.name: field
        for name, other in _TASKS.items()
        for field in other.fields
        if name != task.name
    }
    for field in task.fields:
        if others.get(field.name, field) != field:
            raise ValueError(f"config.{field.name} of task {task.name} is another task's field")
    _TASKS[task.name] = task
    return task


def names() -> tuple[str, ...]:
    """Returns the names of all tasks."""
    return tuple(_TASKS)


def get(name: str) -> type[Task]:
    """Returns the task with a name.

    Raises:
      UserError: there is none.
    """
    if name not in _TASKS:
        raise UserError(
            f'config.task={name} is not a task; there are {", ".join(names())}.'
            + did_you_mean(name, names())
        )
    return _TASKS[name]


def metric_of(config: ConfigDict, record: str | None, field: str) -> Metric:
    """Returns the metric of a validation record, such as 'validation/loss'.

    Args:
      config: the configuration, which names the task.
      record: name of the record; None for the task's first metric.
      field: the field that has the name, for the message.

    Raises:
      UserError: the task has no such metric.
    """
    metrics = {f'validation/{metric.name}': metric for metric in get(config.task).metrics}
    if record is None:
        return next(iter(metrics.values()))
    if record not in metrics:
        raise UserError(
            f'{field} must be one of {", ".join(metrics)} for task={config.task}, not {record!r}.'
            + did_you_mean(record, metrics)
        )
    return metrics[record]


def best_metric(config: ConfigDict) -> Metric:
    """Returns the metric by which the best checkpoint of a run is chosen.

    Raises:
      UserError: config.checkpoint.best is not a metric of the task.
    """
    return metric_of(config, config.checkpoint.best, 'config.checkpoint.best')


def fields() -> tuple[Field, ...]:
    """Returns the fields of all tasks, each once."""
    return tuple({field.name: field for task in _TASKS.values() for field in task.fields}.values())


def idle(config: ConfigDict) -> dict[str, str]:
    """Returns {name: sentence} of the fields of other tasks that have not their defaults.

    Raises:
      UserError: there is no such task.
    """
    own = {field.name for field in get(config.task).fields}
    found = {}
    for field in fields():
        if field.name in own or field.is_default(config):
            continue
        owners = ' or '.join(f'task={name}' for name in _TASKS if field in _TASKS[name].fields)
        found[field.name] = (
            f'config.{field.name} belongs to {owners}, not to task={config.task}: leave it at '
            f'{field.default!r}.'
        )
    return found


register(Classification)
register(Segmentation)
register(Instances)
register(Detection)
