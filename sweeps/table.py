"""The table of a sweep's best trials, as text of a given width."""

from collections.abc import Sequence

import files

GAP = 2  # spaces between two columns, as in files.columns
SHORTEST = 12  # characters to which a long text may be shortened


def layout(
    names: Sequence[str], rows: Sequence[Sequence[str]], width: int, repeated: int = 2
) -> str:
    """Returns the rows below their headings, in several blocks where one would be too wide.

    Headings stay in one piece. A value that is wider than a block has room for is shortened in its
    middle.

    Args:
      names: the headings.
      rows: a text for each heading.
      width: characters in a line.
      repeated: how many of the first columns each block begins with.
    """
    columns = [[name, *cells] for name, cells in zip(names, zip(*rows, strict=True), strict=True)]
    first = columns[:repeated]
    left = width - sum(_width(column) + GAP for column in first)
    others = [
        [name, *(_shortened(cell, max(left, len(name))) for cell in cells)]
        for name, *cells in columns[repeated:]
    ]
    blocks = []
    for block in _packed(others, left):
        shown = [list(row) for row in zip(*first, *block, strict=True)]
        heading, *lines = files.columns(shown, left_columns=0).splitlines()
        blocks.append('\n'.join([heading, '-' * len(heading), *lines]))
    return '\n\n'.join(blocks)


def _width(column: Sequence[str]) -> int:
    return max(map(len, column))


def _packed(columns: Sequence[Sequence[str]], width: int) -> list[list[Sequence[str]]]:
    """Returns the columns in blocks, each as many as its lines have room for, and at least one."""
    blocks: list[list[Sequence[str]]] = [[]]
    for column in columns:
        taken = sum(_width(other) + GAP for other in blocks[-1])
        if blocks[-1] and taken + _width(column) > width:
            blocks.append([])
        blocks[-1].append(column)
    return blocks


def _shortened(text: str, width: int) -> str:
    """Returns the text, without its middle if it is wider than the width."""
    width = max(width, SHORTEST)
    if len(text) <= width:
        return text
    half = (width - 1) // 2
    return f'{text[: width - 1 - half]}…{text[len(text) - half :]}'
