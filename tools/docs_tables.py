"""Generated tables in the documentation: rows of Markdown, and the text between a pair of markers.

<!-- KIND:NAME -->
...
<!-- /KIND:NAME -->

Nothing else in the file is changed. Every function takes the file's path.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import files
from errors import UserError


def table_line(cells: Iterable[str]) -> str:
    """Returns a row of a table in Markdown."""
    return '| ' + ' | '.join(cell.replace('|', '\\|') for cell in cells) + ' |'


def names(path: Path, kind: str) -> list[str]:
    """Returns the names of a kind's opening markers in order.

    Raises:
      UserError: the file cannot be read.
    """
    return re.findall(rf'<!-- {kind}:(.*?) -->', _read(path))


def check(path: Path, kind: str, wanted: Iterable[str]) -> None:
    """Checks that the file can be read and has one pair of markers for each wanted name.

    Raises:
      UserError: the file cannot be read, or a pair of markers is missing.
    """
    text = _read(path)
    for name in wanted:
        _split(text, path, kind, name)


def update(path: Path, kind: str, texts: Mapping[str, str]) -> None:
    """Puts texts[name] between the markers of each name.

    Raises:
      UserError: a pair of markers is missing, or the file cannot be read or written; the file is
        then unchanged.
    """
    whole = _read(path)
    for name, text in texts.items():
        before, begin, end, after = _split(whole, path, kind, name)
        whole = f'{before}{begin}\n{text}\n{end}{after}'
    files.write(path, whole.encode())


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise UserError(f'Cannot read {path}: {error.strerror}.') from error


def _split(text: str, path: Path, kind: str, name: str) -> tuple[str, str, str, str]:
    """Returns the text before the markers, the two markers, and the text after them."""
    begin, end = f'<!-- {kind}:{name} -->', f'<!-- /{kind}:{name} -->'
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UserError(f'{path} needs one line "{begin}" and after it one line "{end}".')
    before, rest = text.split(begin)
    return before, begin, end, rest.split(end)[1]
