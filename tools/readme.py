"""Generated text in README.md: rows of tables, and what stands between a pair of markers.

<!-- KIND:NAME -->
...
<!-- /KIND:NAME -->

Nothing else of the file is touched.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import files
from errors import UserError


def table_line(cells: Iterable[str]) -> str:
    """Returns a row of a table in Markdown."""
    return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def names(readme: Path, kind: str) -> list[str]:
    """Returns the names of a kind's opening markers, in their order.

    Raises:
      UserError: the file cannot be read.
    """
    return re.findall(rf'<!-- {kind}:(.*?) -->', _read(readme))


def check(readme: Path, kind: str, wanted: Iterable[str]) -> None:
    """Checks that the file can be read and has one pair of markers for each wanted name.

    Raises:
      UserError: it is not so.
    """
    text = _read(readme)
    for name in wanted:
        _split(text, readme, kind, name)


def update(readme: Path, kind: str, texts: Mapping[str, str]) -> None:
    """Puts texts[name] between the markers of each name.

    Raises:
      UserError: a pair of markers is missing, or the file cannot be read or written; it is as it
        was then.
    """
    whole = _read(readme)
    for name, text in texts.items():
        before, begin, end, after = _split(whole, readme, kind, name)
        whole = f'{before}{begin}\n{text}\n{end}{after}'
    with files.explaining_errors(readme):
        files.replace(readme, whole.encode())


def _read(readme: Path) -> str:
    try:
        return readme.read_text()
    except OSError as error:
        raise UserError(f'Cannot read {readme}: {error.strerror}.') from error


def _split(text: str, readme: Path, kind: str, name: str) -> tuple[str, str, str, str]:
    """Returns what is before the markers, the two, and what is after them."""
    begin, end = f'<!-- {kind}:{name} -->', f'<!-- /{kind}:{name} -->'
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UserError(f'{readme} needs one line "{begin}" and after it one line "{end}".')
    before, rest = text.split(begin)
    return before, begin, end, rest.split(end)[1]
