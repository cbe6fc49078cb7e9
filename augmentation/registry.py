"""The registered augmentations, and what follows from their rows.

Fields, static part and scalars of the step, the pictures of streamed sets, and checks.
"""

from typing import Any

from augmentation.row import Applied, Augmentation, Stage
from augmentation.rows import ROWS
from data_sources.host_augment import Pipeline
from errors import UserError
from field import Field
from tasks import registry

_rows: dict[str, Augmentation] = {row.name: row for row in ROWS}


def register(row: Augmentation) -> Augmentation:
    """Makes an augmentation known, as the last one of its stage and of those on the host.

    A name that is registered again, as in a notebook cell that is run twice, takes the new row.

    base.fields() refuses a field whose name another one has.
    """
    _rows[row.name] = row
    return row


def unregister(name: str) -> None:
    """Makes an augmentation unknown again.

    Raises:
      KeyError: there is none of this name.
    """
    del _rows[name]


def rows() -> tuple[Augmentation, ...]:
    """Returns all augmentations."""
    return tuple(_rows.values())


def fields() -> tuple[Field, ...]:
    """Returns the fields of all augmentations."""
    return tuple(field for row in _rows.values() for field in row.fields)


# --- of a configuration -----------------------------------------------------------------------


def _in_step(config: Any) -> list[Augmentation]:
    """Those that the step applies, in order."""
    found = [row for row in _rows.values() if row.in_step(config)]
    return sorted(found, key=lambda row: row.stage)


def applied(config: Any) -> tuple[Applied, ...]:
    """Returns what of the augmentations is compiled into the step, in the order of applying it."""
    return tuple(row.applied(config) for row in _in_step(config))


def scalars(config: Any) -> dict[str, float]:
    """Returns the numbers that enter the step with them, by the leaves of their fields."""
    return {
        leaf: config.augment[leaf]
        for row in _in_step(config)
        for leaf in row.leaves_in_step(config)
    }


def on_host(config: Any) -> Pipeline:
    """Returns what is done to the pictures of a streamed set after they were cropped."""
    steps = [(row.host, row.values(config)) for row in _rows.values() if row.host]
    return Pipeline(tuple(steps))


def mixing_switches(config: Any) -> tuple[str, ...]:
    """Returns the names of the fields that switch on what mixes images in pairs; () if none do."""
    mixing = [row for row in _in_step(config) if row.stage is Stage.MIXTURE]
    return tuple(f'config.augment.{leaf}' for row in mixing for leaf in row.switches)


def idle(config: Any) -> dict[str, tuple[tuple[str, ...], str]]:
    """Returns {name: (names, sentence)} of the fields that were given and mean nothing.

    The names are those of the fields by whose values it is so.
    """
    found = {}
    for row in _rows.values():
        needed = ' or '.join(f'config.augment.{leaf}' for leaf in row.switches)
        off = {} if row.is_on(config) else {
            field.leaf: (row.switches, f'config.augment.{field.leaf} needs {needed}.')
            for field in row.fields
        }  # fmt: skip
        without = off | (dict(row.idle(config.augment)) if row.idle else {})
        for leaf in row.given(config):
            if leaf in without:
                by, why = without[leaf]
                found[f'augment.{leaf}'] = (tuple(f'augment.{other}' for other in by), why)
    return found


def check(config: Any) -> None:
    """Checks the fields of augmentations against each other and against the rest.

    Raises:
      UserError: one means nothing without another one that is not given, or is of no use for this
        data set, task or kind of training.
    """
    for _, why in idle(config).values():
        raise UserError(why)
    for row in _rows.values():
        given = row.given(config)
        if row.check:
            row.check(config, given)
        switches = [leaf for leaf in row.switches if leaf in given]
        if switches:
            check_use(row, switches[0], config)


def check_use(row: Augmentation, leaf: str, config: Any) -> None:
    """Checks that an augmentation that is on can be applied.

    Args:
      row: the augmentation.
      leaf: the switch by which it is on.
      config: the configuration.

    Raises:
      UserError: the data set, the task or the kind of training has no use for it.
    """
    name = f'config.augment.{leaf}'
    streamed = config.data.image_size is not None
    if streamed and not row.streamed:
        instead = f', which {row.instead}' if row.instead else ''
        raise UserError(
            f'{name} is for sets in memory, and not for a streamed set '
            f'(config.data.image_size){instead}.'
        )
    if not streamed and row.device is None:
        raise UserError(f'{name} is for streamed sets: it needs config.data.image_size.')
    if config.linear_probe:
        default = next(field.default for field in row.fields if field.leaf == leaf)
        raise UserError(
            f'config.linear_probe computes the features once, so {name} must be {default!r}.'
        )
    targets = registry.get(config.task).targets
    stiff = [name for name, kind in targets.items() if kind.moves and not kind.bends]
    if row.bends and stiff:
        raise UserError(
            f'{name} bends images, and {", ".join(stiff)} of task={config.task} cannot follow: '
            'leave it out.'
        )
    if row.stage is Stage.MIXTURE and not (targets and all(k.mixes for k in targets.values())):
        listed = ', '.join(f'{name} ({type(kind).__name__})' for name, kind in targets.items())
        raise UserError(
            f'{name} mixes images and their class labels, and task={config.task} has '
            f'{listed or "no targets"}.'
        )
