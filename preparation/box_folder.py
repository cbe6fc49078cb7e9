"""What sources of pictures and files of boxes in folders share; both are found by `box_listing`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from preparation import folder_listing, splits
from preparation.box_sets import Boxed, BoxFaultError, Marked
from preparation.folder_source import Entry, FolderSource


class BoxFolder(FolderSource):
    """A `box_sets.BoxSource` whose boxes are in a file for each picture, or for some.

    A subclass says with `_marker` how the boxes of an entry are read.

    Attributes:
      class_names: of the classes 0, 1, ...
    """

    _what = 'pictures with boxes'
    class_names: tuple[str, ...] = ()

    def boxed(self, split: str, cursor: Any) -> Iterator[Boxed]:
        """Yields the pictures by stem; a cursor is how many entries of the split were done."""
        entries = self._entries[split]
        for number in range(cursor or 0, len(entries)):
            yield self._boxed(entries[number], number + 1)

    def _boxed(self, entry: Entry, cursor: int) -> Boxed:
        file = self._named(entry.path)
        above = [part for part in entry.stem.split('/')[:-1] if part.lower() not in splits.NAMES]
        name = '/'.join((*above, entry.path.name))
        if entry.fault:
            return Boxed(file, name, cursor, 0, fault=entry.fault, defective=entry.defective)
        picture, fault = folder_listing.contents(entry.path)
        size = sum(folder_listing.size_and_time(path)[0] for path in (entry.path, *entry.beside))
        boxes = self._named(entry.beside[0]) if entry.beside else ''
        return Boxed(file, name, cursor, size, picture, self._marker(entry), boxes, fault)

    def _marker(self, entry: Entry) -> Callable[[], Marked]:
        """Returns what reads the boxes of an entry without fault, and may raise BoxFaultError."""
        raise NotImplementedError


def contents(path: Path) -> bytes:
    """Returns what is in a file of boxes.

    Raises:
      BoxFaultError: it cannot be read.
    """
    data, fault = folder_listing.contents(path)
    if data is None:
        raise BoxFaultError(fault)
    return data
