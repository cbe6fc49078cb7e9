"""Which file of boxes belongs to which picture, in whatever folders an export has put them.

    JPEGImages/a.jpg      Annotations/a.xml        folders for the pictures and for the boxes
    train/images/a.jpg    train/labels/a.txt       the same below folders for the splits
    images/train/a.jpg    labels/train/a.txt       or with folders for the splits below
    train/a.jpg           train/a.xml              side by side

The names of such folders do not count, in any case: what is left of a path without its suffix is
the key by which pictures and boxes belong together, such as train/a for all but the first. Where
some pictures, or some files of boxes, are in such folders, those elsewhere are left out.
"""

import collections
import dataclasses
from collections.abc import Collection, Iterable
from pathlib import Path, PurePath

from errors import UserError
from preparation import folder_listing, split_list, splits
from preparation.folder_listing import Found
from preparation.folder_source import Entry

PICTURES = ('images', 'jpegimages', 'image', 'imgs', 'img', 'pictures', 'photos')
_UNDIVIDED = 'in no folder of a split'
_ELSEWHERE = 'is not in a folder of pictures, as others are'


@dataclasses.dataclass
class Files:
    """What is below a folder.

    Attributes:
      root: the folder.
      pictures: {key: picture files}.
      boxes: {key: files of boxes}.
      odd: other files.
    """

    root: Path
    pictures: dict[str, list[Path]]
    boxes: dict[str, list[Path]]
    odd: list[Found]

    def with_base(self, name: str) -> list[str]:
        """Returns the keys of the pictures called so, in any case, with or without a suffix."""
        wanted = name.lower()
        return self._bases.get(wanted) or self._bases.get(without_suffix(wanted)) or []

    def __post_init__(self):
        self._bases = collections.defaultdict(list)
        for key in self.pictures:
            self._bases[PurePath(key).name.lower()].append(key)


def listed(
    root: Path, suffix: str, box_folders: Collection[str], unread: Collection[str] = ()
) -> Files:
    """Lists a folder.

    Args:
      root: the folder.
      suffix: of the files of boxes, such as '.xml'.
      box_folders: names of folders for them, in lower case.
      unread: names of folders, in lower case, whose files are passed over.

    Raises:
      UserError: there are no pictures, or no files of boxes.
    """
    found = [f for f in folder_listing.files_below(root) if not _below(root, f.path, unread)]
    boxes = [f for f in found if f.path.suffix.lower() == suffix and not f.ignored]
    pictures = [f for f in found if not f.fault]
    taken = {f.path for f in [*boxes, *pictures]}
    odd = [f for f in found if f.path not in taken]
    for files, folders, what in (
        (pictures, PICTURES, 'pictures'),
        (boxes, box_folders, f'{suffix} files'),
    ):
        if not files:
            raise UserError(f'{root} has no {what}, itself or in the folders below it.')
        inside = [f for f in files if _below(root, f.path, folders)]
        if inside:
            kept = {f.path for f in inside}
            odd += [f._replace(fault=_ELSEWHERE) for f in files if f.path not in kept]
            files[:] = inside
    return Files(
        root, _by_key(root, pictures, PICTURES), _by_key(root, boxes, box_folders), sorted(odd)
    )


def split_of(key: str) -> str | None:
    """Returns the split whose folder is in a key; None for none."""
    named = [part.lower() for part in key.split('/')[:-1]]
    return next((splits.NAMES[part] for part in named if part in splits.NAMES), None)


def divided(root: Path, entries: Iterable[Entry]) -> tuple[dict[str, list[Entry]], bool]:
    """Divides entries, whose stems are keys, among the splits whose folders they are in.

    Returns:
      {split: entries}, and whether there are such folders; otherwise all are in train.

    Raises:
      UserError: there are some, but none for train.
    """
    entries = sorted(entries, key=lambda entry: (entry.stem, entry.path))
    found = {split: [] for split in splits.ALL}
    outside = []
    for entry in entries:
        found.get(split_of(entry.stem), outside).append(entry)
    found = {split: of for split, of in found.items() if of}
    if not found:
        return {'train': outside}, False
    splits.check_train(root, {split: Path(split) for split in found})
    for entry in outside:
        if entry.defective:
            fault = 'is in no folder of a split, as others are'
            entry = dataclasses.replace(entry, fault=fault, defective=False, kind=_UNDIVIDED)
        found['train'].append(entry)
    return found, True


def without_suffix(name: str) -> str:
    """Returns a name without the suffix of a picture or of boxes."""
    bare = split_list.without_suffix(name)
    return bare.removesuffix('.xml') if bare == name else bare


def odd_entries(files: Files) -> tuple[list[Entry], collections.Counter]:
    """Returns the entries of files that are no pictures, and counts of those that are ignored."""
    ignored = collections.Counter(found.kind for found in files.odd if found.ignored)
    entries = [
        Entry('', found.path, fault=found.fault, defective=False)
        for found in files.odd
        if not found.ignored
    ]
    return entries, ignored


def _below(root: Path, path: Path, names: Collection[str]) -> bool:
    """Whether a file is in a folder of one of these names."""
    return any(part.lower() in names for part in path.relative_to(root).parts[:-1])


def _by_key(root: Path, found: list[Found], folders: Collection[str]) -> dict[str, list[Path]]:
    keys = collections.defaultdict(list)
    for path in (f.path for f in found):
        *above, name = path.relative_to(root).parts
        above = [part for part in above if part.lower() not in folders]
        bare = split_list.without_suffix(name)
        stem = bare if bare != name else name.removesuffix(path.suffix)
        keys['/'.join((*above, stem))].append(path)
    return dict(sorted(keys.items()))
