"""Tasks by name: those of this folder, and those that a program registers."""

from errors import UserError, did_you_mean
from field import Field
from tasks.classification import Classification
from tasks.task import Metric, Task

_TASKS: dict[str, type[Task]] = {}


def register(task: type[Task]) -> type[Task]:
    """Makes a task known by its name; usable as a decorator.

    A name that is registered again, as in a notebook cell that is run twice, takes the new class.

    Raises:
      ValueError: a field of it means something else in another task.
    """
    others = {field.name: field for other in _TASKS.values() for field in other.fields}
    for field in task.fields:
        if others.get(field.name, field) != field and _TASKS.get(task.name) is None:
            raise ValueError(f"config.{field.name} of task {task.name} is another task's field")
    _TASKS[task.name] = task
    return task


def names() -> tuple[str, ...]:
    """Returns the names of all tasks."""
    return tuple(_TASKS)


def get(name: str) -> type[Task]:
    """Returns the task of a name.

    Raises:
      UserError: there is none.
    """
    if name not in _TASKS:
        raise UserError(
            f'config.task={name} is not a task; there are {", ".join(names())}.'
            + did_you_mean(name, names())
        )
    return _TASKS[name]


def metric_of(config, record: str | None, field: str) -> Metric:
    """Returns the metric of a validation record, such as 'validation/loss'.

    Args:
      config: names the task.
      record: the record's name; None for that of the task's first metric.
      field: what holds the name, for the message.

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


def best_metric(config) -> Metric:
    """Returns what the best checkpoint of a run is best at.

    Raises:
      UserError: config.checkpoint.best is no metric of the task.
    """
    return metric_of(config, config.checkpoint.best, 'config.checkpoint.best')


def fields() -> tuple[Field, ...]:
    """Returns the fields of all tasks, each once."""
    return tuple({field.name: field for task in _TASKS.values() for field in task.fields}.values())


def check_fields(config) -> None:
    """Checks that fields of other tasks than the configured one have their defaults.

    Raises:
      UserError: one has not.
    """
    own = {field.name for field in get(config.task).fields}
    for name, task in _TASKS.items():
        for field in task.fields:
            section, _, leaf = field.name.rpartition('.')
            value = (config[section] if section else config)[leaf]
            if field.name not in own and value != field.default:
                raise UserError(
                    f'config.{field.name} belongs to task={name}, not to task={config.task}: leave '
                    f'it at {field.default!r}.'
                )


register(Classification)
