"""The checks before a run: each made on every process, its line printed when it is known."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from errors import UserError

OK, NOTE, NO_GO, SKIPPED = 'ok', 'note', 'NO-GO', 'skipped'


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found, where nothing stands in the way of the run.

    Attributes:
      text: a line for the user.
      figures: {name: value} for JSON.
      note: whether the user had better read it.
    """

    text: str
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    note: bool = False


@dataclasses.dataclass(frozen=True)
class Check:
    """A check that was made, or skipped for want of another.

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
        """Returns the check for JSON; 'ok' is None where it was skipped."""
        ok = None if self.verdict == SKIPPED else self.verdict != NO_GO
        return {'name': self.name, 'ok': ok, **dataclasses.asdict(self)}


class Findings:
    """The checks so far.

    Args:
      say: prints a line.

    Attributes:
      checks: in their order.
      failure: what a run that cannot go is to raise.
    """

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self.checks: list[Check] = []
        self.failure: type[UserError] = UserError

    @property
    def problems(self) -> list[str]:
        """Why the run cannot go, in sentences; nothing if it can."""
        return [check.text for check in self.checks if check.verdict == NO_GO]

    @property
    def exit_code(self) -> int:
        """0 if the run can go."""
        return self.failure.exit_code if self.problems else 0

    def alone(self, name: str, check: Callable[[], Finding]) -> bool:
        """Makes a check before the processes are connected; returns whether it went well."""
        try:
            self._found(name, check())
        except UserError as error:
            self._add(Check(name, NO_GO, str(error)))
            self.failure = type(error)
            return False
        return True

    def everywhere(
        self, name: str, check: Callable[[], Finding], needs: Sequence[str] = ()
    ) -> None:
        """Makes a check on every process; what fails on one of them is a no-go, with its number.

        Args:
          name: of the check.
          check: returns what it found, or raises a UserError.
          needs: checks without which this one cannot be made.
        """
        import jax

        from distributed import hosts  # which imports it

        good = {check.name for check in self.checks if check.verdict in (OK, NOTE)}
        missing = [need for need in needs if need not in good]
        if missing:
            self._add(Check(name, SKIPPED, f'it needs {missing[0]}, see above'))
            return
        found, problems = hosts.attempt(check)
        if problems:
            self._add(Check(name, NO_GO, _named(problems, jax.process_count())))
        else:
            self._found(name, found)

    def _found(self, name: str, found: Finding) -> None:
        self._add(Check(name, NOTE if found.note else OK, found.text, found.figures))

    def _add(self, check: Check) -> None:
        self.checks.append(check)
        self._say(check.line())


def _named(problems: dict[int, str], processes: int) -> str:
    """The problems of some processes as one text; what several say alike comes once."""
    if processes == 1:
        return problems[0]
    alike: dict[str, list[int]] = {}
    for process, text in problems.items():
        alike.setdefault(text, []).append(process)
    return ' '.join(
        f'Process {", ".join(map(str, who))} of {processes}: {text}' for text, who in alike.items()
    )
