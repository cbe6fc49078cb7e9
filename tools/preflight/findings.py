"""Does checks on every process, and keeps and prints their findings."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from errors import UserError

OK, NOTE, NO_GO, SKIPPED = 'ok', 'note', 'NO-GO', 'skipped'


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of a check that did not fail.

    Attributes:
      text: a line for the user.
      figures: {name: value} for JSON.
      note: whether it needs the user's attention.
      value: a result that later checks need.
    """

    text: str
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    note: bool = False
    value: Any = None


@dataclasses.dataclass(frozen=True)
class Check:
    """A check that was done, or that was skipped because another one failed.

    Attributes:
      name: one word.
      verdict: OK, NOTE, NO_GO or SKIPPED.
      text: one or two sentences.
      figures: {name: value}.
    """

    name: str
    verdict: str
    text: str
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)

    def line(self) -> str:
        """Returns the check as a line."""
        return f'{self.verdict:<8} {self.name:<10} {self.text}'

    def as_dict(self) -> dict[str, Any]:
        """Returns the check for JSON; 'ok' is None if it was skipped."""
        ok = None if self.verdict == SKIPPED else self.verdict != NO_GO
        return {'name': self.name, 'ok': ok, **dataclasses.asdict(self)}


class Findings:
    """The checks so far.

    Args:
      say: prints a line.

    Attributes:
      checks: in their order.
      failure: the class of the error that a no-go raises.
    """

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self.checks: list[Check] = []
        self.failure: type[UserError] = UserError

    @property
    def problems(self) -> list[str]:
        """The reasons of a no-go, as sentences; empty if there are none."""
        return [check.text for check in self.checks if check.verdict == NO_GO]

    @property
    def exit_code(self) -> int:
        """0 if there is no reason against the run."""
        return self.failure.exit_code if self.problems else 0

    def alone(self, name: str, check: Callable[[], Finding]) -> Any:
        """Does a check before the processes are connected; returns its value, None if it fails."""
        try:
            return self._passed(name, check())
        except UserError as error:
            self._add(Check(name, NO_GO, str(error)))
            self.failure = type(error)
            return None

    def everywhere(self, name: str, check: Callable[[], Finding], needs: Sequence[str] = ()) -> Any:
        """Does a check on every process; if it fails on one, it has failed, with that one's number.

        Args:
          name: one word.
          check: returns its finding, or raises a UserError.
          needs: names of checks whose results it needs; it is skipped if one of them failed.

        Returns:
          The finding's value; None where the check failed or was skipped.
        """
        import jax

        from distributed import hosts  # which imports JAX

        good = {check.name for check in self.checks if check.verdict in (OK, NOTE)}
        missing = [need for need in needs if need not in good]
        if missing:
            self._add(Check(name, SKIPPED, f'needs {missing[0]}, see above'))
            return None
        finding, problems = hosts.attempt(check)
        if problems:
            self._add(Check(name, NO_GO, _named(problems, jax.process_count())))
            return None
        return self._passed(name, finding)

    def _passed(self, name: str, finding: Finding) -> Any:
        self._add(Check(name, NOTE if finding.note else OK, finding.text, finding.figures))
        return finding.value

    def _add(self, check: Check) -> None:
        self.checks.append(check)
        self._say(check.line())


def _named(problems: dict[int, str], processes: int) -> str:
    """Returns the problems of some processes as one text; equal problems are named once."""
    if processes == 1:
        return problems[0]
    ranks: dict[str, list[int]] = {}
    for rank, text in problems.items():
        ranks.setdefault(text, []).append(rank)
    return ' '.join(
        f'Process {", ".join(map(str, numbers))} of {processes}: {text}'
        for text, numbers in ranks.items()
    )
