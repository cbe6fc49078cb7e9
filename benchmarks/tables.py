"""What the sections of `python -m benchmarks.run` are given and give back."""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import markup
from rich import table as rich_table

from benchmarks import contest
from errors import UserError
from tools.readme import table_line

# Batches before the first turn. Ours waits for an update two updates after its own (RUN_AHEAD):
# after so many the first is over, which does much once and takes four times as long in ResNet-50.
WARM_UP = 4


@dataclasses.dataclass(frozen=True)
class Work:
    """What a section is given.

    Attributes:
      scratch: an empty folder, removed afterwards.
      torch_python: a Python that has PyTorch, None if there is none.
      data_dir: folder of prepared data sets.
      rounds: turns of each contestant.
      quick: the smallest sizes that show that it works; its figures say nothing.
      say: called with a line for the user.
      show: called with what is under way, which is seen until it is called again.
    """

    scratch: Path
    torch_python: Path | None
    data_dir: Path
    rounds: int
    quick: bool
    say: Callable[[str], None]
    show: Callable[[str], None] = lambda text: None


@dataclasses.dataclass(frozen=True)
class Table:
    """What a section gives back: its table, and all figures behind it.

    Attributes:
      caption: what was measured, in a sentence or two.
      head: names of the columns; the first is flush left.
      rows: texts.
      figures: what JSON can say.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Any

    def markdown(self) -> str:
        """Returns caption and table as Markdown."""
        rule = ['---', *['---:'] * (len(self.head) - 1)]
        lines = [table_line(row) for row in (self.head, rule, *self.rows)]
        return '\n'.join([self.caption, '', *lines])

    def rich(self) -> rich_table.Table:
        """Returns the table for a terminal; the caption is not in it."""
        table = rich_table.Table()
        for number, name in enumerate(self.head):
            table.add_column(
                name, justify='right' if number else 'left', no_wrap=number < 2, overflow='fold'
            )
        for row in self.rows:
            table.add_row(*map(markup.escape, row))
        return table


def side_by_side(
    entries: Sequence[contest.Entry], batches: int, work: Work, what: str, processes: int = 1
) -> dict[str, list[contest.Turn]]:
    """Lets contestants take turns; returns the turns of each by name, ours first.

    Args:
      entries: what to start; the first is ours. Others that do not start are left out, which is
        said.
      batches: in a turn.
      work: of the section.
      what: they contend in, for the user.
      processes: of each, with `work.rounds` turns each. Some programs run at one speed from start
        to end, and at another when started again.

    Raises:
      UserError: ours does not start, or one ends in its turn.
    """
    left_out: dict[str, str] = {}
    players = {
        f'{entry.name}, process {number}' if processes > 1 else entry.name: entry
        for number in range(1, processes + 1)
        for entry in entries
    }

    def leave_out(player: str, reason: str) -> None:
        name = players[player].name
        if name != entries[0].name and name not in left_out:
            work.say(f'{what}: {name} is left out: {reason}')
        left_out[name] = reason

    def starting(player: str) -> None:
        work.show(f'{what}: starting {player}')

    turns: dict[str, list[contest.Turn]] = collections.defaultdict(list)
    named = [dataclasses.replace(entry, name=player) for player, entry in players.items()]
    with contest.started(named, work.scratch, leave_out, starting) as contestants:
        if entries[0].name in left_out:
            raise UserError(f'{what}: ours does not run: {left_out[entries[0].name]}')
        work.show(f'{what}: warming up')
        warm_up = max(WARM_UP, batches // 4)
        for player, turn in contest.play(contestants, work.rounds, batches, warm_up):
            own = turns[players[player].name]
            own.append(turn)
            number = -(-len(own) // processes)
            work.show(f'{what}: {player}, round {number} of {work.rounds}')
    return turns
