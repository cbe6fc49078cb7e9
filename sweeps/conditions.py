"""Which fields of a space a trial leaves out, because its other values make them meaningless.

A space may name fields that exclude each other, such as optimizers and the options of some of them.
What decides is drawn first, in the order in which fields are declared. What then means nothing is
not drawn, and has no value in the trial.
"""

import itertools
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from configs import base, schema
from configs.search import Sweep
from errors import UserError
from training import checks

# Field -> the field that replaces it where that is not None.
REPLACED = {'epochs': 'steps', 'checkpoint.every': 'checkpoint.every_steps'}
MOST = 4096  # combinations of other fields that are tried for a field


class Conditions:
    """The conditions under which the fields of a sweep's space mean something.

    Args:
      sweep: the space.
      config: the configuration into which the values of a trial are put.

    Attributes:
      names: the fields of the space, in the order in which they are drawn.

    Raises:
      UserError: a field means nothing in any trial.
    """

    def __init__(self, sweep: Sweep, config: ConfigDict):
        self._space, self._config = sweep.space, config
        self._defaults = {field.name: field.default for field in base.fields()}
        self.names = [name for name in self._defaults if name in sweep.space]
        self._known: dict[Any, bool] = {}
        # Field -> the values, by field, beside which it means nothing; and these other fields.
        self._reasons: dict[str, list[dict[str, Any]]] = {}
        self._deciding: dict[str, set[str]] = {}
        for name in self.names:
            self._check_not_replaced(name)
            self._find_reasons(name)

    def _check_not_replaced(self, name: str) -> None:
        by = REPLACED.get(name)
        if by is None:
            return
        values = self._space[by].ends() if by in self._space else [schema.flatten(self._config)[by]]
        if None not in values:
            raise UserError(f'The sweep varies config.{name} in vain: config.{by} replaces it.')

    def _find_reasons(self, name: str) -> None:
        deciding = self._earlier(name)
        ends = [self._space[other].ends() for other in deciding]
        reasons, why = [], ''
        for values in itertools.islice(itertools.product(*ends), MOST):
            parameters = dict(zip(deciding, values, strict=True))
            found = self._idle(name, parameters)
            if found is None:
                why = None
                continue
            why = found.why if why == '' else why
            reason = {other: parameters[other] for other in found.by if other in parameters}
            if reason not in reasons:
                reasons.append(reason)
        if why:
            raise UserError(f'The sweep varies config.{name} in vain: {why}')
        self._deciding[name] = {other for reason in reasons for other in reason}
        if reasons:  # without those that another one says in fewer words
            self._reasons[name] = [
                reason
                for reason in reasons
                if not any(other.items() < reason.items() for other in reasons)
            ]

    def _earlier(self, name: str) -> list[str]:
        """Returns the fields of the space that may decide over one: before it, in its section."""
        section = name.rpartition('.')[0]
        earlier = self.names[: self.names.index(name)]
        return [other for other in earlier if other.rpartition('.')[0] == section]

    def _idle(self, name: str, parameters: dict[str, Any]) -> checks.Idle | None:
        """Returns why a field means nothing beside other values; None if it means something."""
        for value in self._space[name].ends():
            if value == self._defaults[name]:
                continue
            config = _with(self._config, {**parameters, name: value})
            for found in (*checks.idle(config), *_without_effect(config)):
                if found.name == name:
                    return found
        return None

    def means(self, name: str, parameters: dict[str, Any]) -> bool:
        """Returns whether a field means something beside the values that were drawn before it."""
        if name not in self._reasons:
            return True
        drawn = {k: v for k, v in parameters.items() if k in self._deciding[name]}
        key = name, tuple(sorted(drawn.items()))
        if key not in self._known:
            self._known[key] = self._idle(name, drawn) is None
        return self._known[key]

    def kept(self, point: dict[str, Any]) -> dict[str, Any]:
        """Returns the values of a point of the grid that mean something."""
        kept: dict[str, Any] = {}
        for name in self.names:
            if self.means(name, kept):
                kept[name] = point[name]
        return kept

    def checked(self) -> ConfigDict:
        """Returns the configuration without what the space may give a meaning; for the checks."""
        return settled(self._config, self._space)

    def sentences(self) -> list[str]:
        """Returns what is left out of which trials, in a sentence for each field."""
        sentences = []
        for name, reasons in self._reasons.items():
            values = [' and '.join(f'{k}={v}' for k, v in reason.items()) for reason in reasons]
            sentences.append(
                f'{name} is left out of trials with {" or ".join(values)}: it means nothing there'
            )
        return sentences


def _without_effect(config: ConfigDict) -> list[checks.Idle]:
    """Returns what changes nothing, though configurations may have it."""
    if config.schedule.name == 'step' and config.schedule.milestones:
        return []
    why = 'config.schedule.factor counts at milestones, which belong to schedule.name=step.'
    return [checks.Idle('schedule.factor', ('schedule.name',), why, 0.1)]


def settled(config: ConfigDict, deciding: Iterable[str]) -> ConfigDict:
    """Returns a configuration without fields that mean nothing by the values of deciding ones."""
    while True:
        found = [idle for idle in checks.idle(config) if not set(idle.by).isdisjoint(deciding)]
        if not found:
            return config
        config = _with(config, {idle.name: idle.instead for idle in found})


def _with(config: ConfigDict, values: dict[str, Any]) -> ConfigDict:
    config = config.copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
        for name, value in values.items():
            schema.assign(config, name, value)
    return config
