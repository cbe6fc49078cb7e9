"""What sources of pictures with annotations in COCO's format share.

Which pictures are in which split, and where their files are.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from errors import UserError
from preparation import coco_annotations, folder_listing, splits
from preparation.coco_annotations import Annotations, Photo


class CocoPictures:
    """Pictures and their annotations, divided among splits.

    Args:
      folder: of the pictures.
      name: of the data set.
      paths: files of annotations. Several have to speak of one split each, by the name of the file
        or its folder; a single one that speaks of none is divided by a hash of the pictures' names.

    Attributes:
      splits: {split: bytes of its pictures}.
      made: the splits that are taken out of train.
      categories: {id: name}.

    Raises:
      UserError: a file cannot be used, or files do not belong together.
    """

    version = '1.0.0'
    homepage = ''
    citation = ''

    def __init__(self, folder: Path, name: str, paths: Sequence[Path]):
        if not folder.is_dir():
            raise UserError(f'{folder} is not a folder: --source must be one, with pictures.')
        self._folder, self.name = folder, name
        self.description = f'{name}, prepared from annotations in the format of COCO.'
        self.made: tuple[str, ...] = ()
        read = [coco_annotations.read(path) for path in paths]
        self.categories = _categories(read)
        self._photos = self._divided(read)
        self.splits = {
            split: sum(_size(path) for path, _ in photos) for split, photos in self._photos.items()
        }

    def identity(self) -> dict[str, Any]:
        """Returns what defines the set: paths and sizes of the pictures, and the annotations."""
        return {'files': self._hashed(0)}

    def stamp(self) -> Any:
        """Returns a hash that changes with the modification time of any picture."""
        return self._hashed(1)

    def _of_split(self, split: str, cursor: Any) -> Iterator[tuple[int, int, Path, Photo]]:
        """Yields (cursor, bytes, file, picture) by path; a cursor is how many were done."""
        for number, (path, photo) in enumerate(self._photos[split][cursor or 0 :], cursor or 0):
            yield number + 1, _size(path), path, photo

    def _divided(self, read: Sequence[Annotations]) -> dict[str, list[tuple[Path, Photo]]]:
        """Returns {split: (file, picture) in the order in which they are written}."""
        found: dict[str, list[tuple[Path, Photo]]] = {}
        for annotations in read:
            split = coco_annotations.split_of(annotations.path)
            if split is None and len(read) > 1:
                raise UserError(
                    f'{annotations.path}: its name, and that of its folder, do not say which split '
                    'it is for: rename it, for instance to train.json, val.json or test.json.'
                )
            if split in found:
                raise UserError(
                    f'There are two files of annotations for {split}: give one of them.'
                )
            found[split or 'train'] = [
                (self._located(annotations, photo), photo) for photo in annotations.photos
            ]
        if not any(found.values()):
            raise UserError(f'{read[0].path} lists no pictures.')
        if set(found) == {'train'}:
            return self._dealt(found['train'])
        splits.check_train(self._folder, dict.fromkeys(found, self._folder))
        return {split: found[split] for split in splits.ALL if split in found}

    def _dealt(self, photos: list[tuple[Path, Photo]]) -> dict[str, list[tuple[Path, Photo]]]:
        self.made = ('validation', 'test')
        if len(photos) < 3:
            raise UserError(
                f'There are {len(photos)} pictures: at least 3 are needed to give each of train, '
                'validation and test one.'
            )
        fractions = {split: getattr(splits.Fractions(), split) for split in self.made}
        dealt = splits.dealt(photos, lambda pair: pair[1].file.as_posix().encode(), fractions)
        return {s: sorted(dealt[s], key=lambda pair: pair[1].file) for s in splits.ALL}

    def _located(self, annotations: Annotations, photo: Photo) -> Path:
        """Returns where a picture is: in the folder, or one that is named after the split."""
        words = annotations.path.stem.rpartition('_')[2]
        split = coco_annotations.split_of(annotations.path)
        named = [name for name, of in splits.NAMES.items() if of == split]
        places = (words, *named)
        for part in ('', 'images', *places, *(f'images/{place}' for place in places)):
            if (self._folder / part / photo.file).is_file():
                return self._folder / part / photo.file
        return self._folder / photo.file  # which the writer names as missing

    def _hashed(self, which: int) -> str:
        """Returns a hash of the pictures' sizes (0) or times (1) and of all annotations."""
        found = hashlib.sha256(repr(self.categories).encode())
        for split, photos in self._photos.items():
            for path, photo in photos:
                about = folder_listing.size_and_time(path)[which]
                found.update(f'{split}\0{about}\0{photo!r}\0'.encode('utf-8', 'surrogateescape'))
        return found.hexdigest()


def _size(path: Path) -> int:
    return folder_listing.size_and_time(path)[0]


def _categories(read: Sequence[Annotations]) -> dict[int, str]:
    """Returns {id: name} of the categories, which all files have to share."""
    for annotations in read[1:]:
        if annotations.categories != read[0].categories:
            raise UserError(
                f'{annotations.path} has other categories than {read[0].path}: all files of '
                'annotations need the same, with the same ids.'
            )
    return read[0].categories
