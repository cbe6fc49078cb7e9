"""The parts of a report in their order, without their layout.

A task's report gives sections (tasks/task.py:Report), and so does what looks into a network.
inspection/report/document.py makes a page of them.
"""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
      png: a PNG file.
      description: what can be seen in it, for somebody who cannot see it.
      caption: lines that stand below it.
      plot: whether it is drawn, dark on white, and no photograph: a dark page may invert it.
    """

    png: bytes
    description: str
    caption: Sequence[str] = ()
    plot: bool = False


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Pictures side by side, as many in a row as there is room for."""

    pictures: Sequence[Picture]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      title: a line that says what is in it.
      rows: texts; the first row names the columns, and the first column names the rows.
      left_columns: how many columns hold words, which are flush left; the others hold numbers.
      folded: whether it is closed until somebody opens it, because it is long or of use to few.
    """

    title: str
    rows: Sequence[Sequence[str]]
    left_columns: int = 1
    folded: bool = False


@dataclasses.dataclass(frozen=True)
class Verbatim:
    """A text that keeps its spaces and lines, such as a command.

    Attributes:
      title: a line that says what it is.
      text: the text.
      folded: as for a table.
    """

    title: str
    text: str
    folded: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report with a heading.

    Attributes:
      title: its heading; no two sections of a report share one.
      parts: what stands below it. A text is a paragraph.
    """

    title: str
    parts: Sequence[str | Picture | Gallery | Table | Verbatim]
