"""What sources of pictures in a folder share: which pictures are in which split, and their hashes.

They are divided as the folders train, val and test say, or a list (`split_list`), or a hash of the
stems.
"""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from errors import UserError
from preparation import folder_listing, splits

_UNLISTED = 'unlisted'  # counted apart


@dataclasses.dataclass(frozen=True)
class Entry:
    """A picture and the files that belong to it; or what is left out.

    Attributes:
      stem: the picture's, with the folders above it.
      path: the picture's file, or what is left out.
      beside: the files that belong to it, such as its masks.
      fault: why there is no example, or ''.
      defective: whether the fault counts as a defect; not for a file that is no picture.
      kind: what it is counted as if it is left out; '' for its suffix.
    """

    stem: str
    path: Path
    beside: tuple[Path, ...] = ()
    fault: str = ''
    defective: bool = True
    kind: str = ''


class FolderSource:
    """The entries of a folder, divided among splits. What an example is, a subclass says.

    A subclass calls `_divide` in its constructor.

    Args:
      folder: the source.
      name: of the data set.

    Attributes:
      splits: {split: bytes of its files}.
      made: the splits that are taken out of train.
      left_out: kind -> how many files are left out and are no defects.
      system: kind -> how many files of systems and programs are ignored.
      unlisted: how many pictures the list of splits leaves out.

    Raises:
      UserError: it is no folder.
    """

    version = '1.0.0'
    homepage = ''
    citation = ''
    _what = 'pictures'  # what the source has, in sentences

    def __init__(self, folder: Path, name: str):
        if not folder.is_dir():
            raise UserError(f'{folder} is not a folder: --source must be one, with pictures.')
        self._folder, self.name = folder, name
        self.splits: dict[str, int] = {}
        self.made: tuple[str, ...] = ()
        self.unlisted = 0
        self.left_out, self.system = collections.Counter(), collections.Counter()
        self._entries: dict[str, list[Entry]] = {}

    def identity(self) -> dict[str, Any]:
        """Returns what defines the set: paths and sizes of the files of each split."""
        return {'files': self._identity}

    def stamp(self) -> Any:
        """Returns a hash that changes with the modification time of any file."""
        return self._stamp

    def about_left_out(self) -> list[str]:
        """Returns sentences that say what was left out and why, with counts by kind."""
        sentences = []
        if self.unlisted:
            sentences.append(
                f'Left out: {self.unlisted:,} pictures that the list of splits does not have. They '
                'are listed in rejected.jsonl.'
            )
        if left_out := folder_listing.counted(self.left_out):
            sentences.append(f'Left out: {left_out}. They are listed in rejected.jsonl.')
        if system := folder_listing.counted(self.system):
            sentences.append(f'Ignored, because systems and programs have left them: {system}.')
        return sentences

    def _named(self, path: Path) -> str:
        return folder_listing.printable(str(path.relative_to(self._folder)))

    def _divide(
        self,
        found: Mapping[str, Sequence[Entry]],
        wanted: Mapping[str, str] | None = None,
        list_name: str = '',
        in_folders: bool = False,
    ) -> None:
        """Divides what was found, and scans it.

        Args:
          found: {split: entries, sorted}; what is to be divided is in train.
          wanted: {stem: split} of a list, or None.
          list_name: what that list is called in messages.
          in_folders: whether train is a folder beside others, so that a list has nothing to say.

        Raises:
          UserError: there are too few pictures to divide, or the list is of others.
        """
        if wanted is None:
            self.made = splits.to_make(found)
            self._entries = self._dealt({split: list(of) for split, of in found.items()})
        elif in_folders or len(found) > 1:
            raise UserError(
                f'{self._folder} has folders for the splits, so that --splits has nothing to say: '
                'leave it out, or give a --source whose pictures are in one folder.'
            )
        else:
            self._entries = self._as_listed(found['train'], wanted, list_name)
        for entry in (entry for entries in self._entries.values() for entry in entries):
            if entry.fault and not entry.defective and entry.kind != _UNLISTED:
                self.left_out[entry.kind or folder_listing.kind_of(entry.path.name)] += 1
        self._scan()

    def _dealt(self, found: dict[str, list[Entry]]) -> dict[str, list[Entry]]:
        """Takes the splits that are to be made out of train, by a hash of the stems."""
        if not self.made:
            return found
        sound = [entry for entry in found['train'] if not entry.fault]
        if len(sound) <= len(self.made):
            defects = [entry for entry in found['train'] if entry.fault and entry.defective]
            first = [f' {self._named(entry.path)} {entry.fault}.' for entry in defects[:1]]
            raise UserError(
                f'{self._folder} has {len(sound)} {self._what} for train: at least '
                f'{len(self.made) + 1} are needed to give each of train, {", ".join(self.made)} '
                f'one.{"".join(first)}'
            )
        fractions = {split: getattr(splits.Fractions(), split) for split in self.made}
        divided = splits.dealt(sound, lambda entry: os.fsencode(entry.stem), fractions)
        divided['train'] += [entry for entry in found['train'] if entry.fault]
        divided = {**found, **divided}
        return {
            split: sorted(divided[split], key=lambda entry: (entry.stem, entry.path))
            for split in splits.ALL
            if split in divided
        }

    def _as_listed(
        self, entries: Sequence[Entry], wanted: Mapping[str, str], list_name: str
    ) -> dict[str, list[Entry]]:
        """Divides the entries as a list says."""
        stems = [entry.stem for entry in entries if not entry.fault]
        if wanted.keys().isdisjoint(stems):
            first = f', such as {stems[0]}' if stems else ''
            raise UserError(
                f'{list_name} lists none of the {len(stems):,} {self._what} in '
                f'{self._folder}{first}; it lists {next(iter(wanted))}.'
            )
        divided = {split: [] for split in splits.ALL if split in wanted.values()}
        missing = wanted.keys() - {entry.stem for entry in entries}
        path = Path(list_name)
        short = path.name if path.suffix else '/'.join(path.parts[-2:])
        for stem in sorted(missing):
            fault = f'is in {short}, but there is no such picture'
            divided[wanted[stem]].append(Entry(stem, self._folder / stem, fault=fault))
        for entry in entries:
            split = wanted.get(entry.stem, 'train')
            if entry.stem in wanted and not entry.defective:  # who lists it means to have it
                entry = dataclasses.replace(entry, defective=True)
            elif entry.stem not in wanted and entry.defective:
                self.unlisted += not entry.fault
                fault = f'is not in {short}'
                entry = Entry(entry.stem, entry.path, (), fault, defective=False, kind=_UNLISTED)
            divided[split].append(entry)
        return divided

    def _scan(self) -> None:
        """Reads the sizes and times of all files once, and hashes them."""
        identity, stamp = hashlib.sha256(), hashlib.sha256()
        for split, entries in self._entries.items():
            total = 0
            for entry in entries:
                for path in (entry.path, *entry.beside):
                    size, changed = folder_listing.size_and_time(path)
                    text = f'{split}\0{path.relative_to(self._folder)}\0{size}\0{entry.fault}\0'
                    identity.update(os.fsencode(text))
                    stamp.update(os.fsencode(f'{text}{changed}\0'))
                    total += size
            self.splits[split] = total
        self._identity, self._stamp = identity.hexdigest(), stamp.hexdigest()
