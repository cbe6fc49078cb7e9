"""Reads ImageNet (ILSVRC 2012) from its two official tar files without unpacking them.

ILSVRC2012_img_train.tar contains a tar file for each class, such as n01440764.tar;
ILSVRC2012_img_val.tar contains ILSVRC2012_val_00000001.JPEG and so on. A label is the rank of the
class's WordNet id among all ids in sorted order, as in tfds and nearly all other code. Both the ids
and the id of each validation picture come with the package tensorflow-datasets.
O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
"""

import contextlib
import functools
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_sources.picture_files import MAX_BYTES
from errors import UserError
from preparation import archives
from preparation.picture_sets import Picture

TARS = {'train': 'ILSVRC2012_img_train.tar', 'validation': 'ILSVRC2012_img_val.tar'}
# The numbers of pictures in the official tar files.
EXAMPLES = {'train': 1_281_167, 'validation': 50_000}
_END = 1024  # bytes of zeros at the end of a tar file


@functools.cache
def _tfds_list(name: str) -> tuple[str, ...]:
    path = tfds.core.tfds_path('datasets/imagenet2012') / name
    return tuple(path.read_text().split())


def wnids() -> tuple[str, ...]:
    """Returns the WordNet ids of the 1,000 classes in the order of their labels."""
    return _tfds_list('labels.txt')


def validation_wnids() -> tuple[str, ...]:
    """Returns the WordNet ids of the validation pictures: item i belongs to picture i + 1."""
    return _tfds_list('validation_labels.txt')


class ImageNetTars:
    """A `picture_sets.PictureSource` of the official tar files in a folder.

    Args:
      folder: contains one or both of the files. The train file may have only some of the classes.

    Attributes:
      classes_in_train: the number of classes in the train file.

    Raises:
      UserError: neither file is there; one is not a tar file or is truncated; a class is not one of
        ImageNet's.
    """

    name = 'imagenet2012'
    upright = False  # as in everyone else's ImageNet
    version = '5.1.0'  # of the official tfds builder; the features and splits are the same
    description = 'ImageNet (ILSVRC 2012), the original files.'
    homepage = 'https://image-net.org/'
    citation = """@article{ILSVRC15,
  author = {Olga Russakovsky and Jia Deng and Hao Su and Jonathan Krause and Sanjeev Satheesh and
    Sean Ma and Zhiheng Huang and Andrej Karpathy and Aditya Khosla and Michael Bernstein and
    Alexander C. Berg and Li Fei-Fei},
  title = {{ImageNet Large Scale Visual Recognition Challenge}},
  year = {2015},
  journal = {International Journal of Computer Vision},
  volume = {115},
  pages = {211--252}
}"""

    def __init__(self, folder: Path):
        self._tars = {
            split: folder / name for split, name in TARS.items() if (folder / name).is_file()
        }
        if not self._tars:
            raise UserError(
                f'{folder} has neither {" nor ".join(TARS.values())}: download them from '
                'https://image-net.org/download-images (a free account is needed), and do not '
                'unpack them.'
            )
        self.class_names = wnids()
        self.splits: Mapping[str, int] = {
            split: path.stat().st_size for split, path in self._tars.items()
        }
        for path in self._tars.values():
            _check_tar(path)
        self.classes_in_train = self._count_classes() if 'train' in self._tars else 0

    def identity(self) -> dict[str, Any]:
        """Returns the sizes of the tar files."""
        return {TARS[split]: size for split, size in self.splits.items()}

    def stamp(self) -> Any:
        """Returns the modification times of the tar files."""
        return [path.stat().st_mtime_ns for path in self._tars.values()]

    def pictures(self, split: str, cursor: Any) -> Iterator[Picture]:
        """Yields the pictures in the order of the files; a cursor is [class, next picture].

        Raises:
          UserError: a tar file is damaged; a member has an unexpected name, belongs to another
            class, or is a link or something else that is no file.
        """
        path = self._tars[split]
        with _opened(path) as tar:
            if split == 'train':
                yield from _train_pictures(tar, path, *(cursor or (0, 0)))
            else:
                yield from _validation_pictures(tar, path, (cursor or (0, 0))[1])

    def _count_classes(self) -> int:
        """Checks the names of the inner tar files before hours are spent on reading them."""
        path = self._tars['train']
        with _opened(path) as tar:
            labels = [
                _label_of(member.name, path)
                for member in archives.members(tar, str(path), self.splits['train'])
            ]
        if not labels:
            raise UserError(
                f'{path} is empty, but should contain files such as {wnids()[0]}.tar: download the '
                'official file again.'
            )
        if len(set(labels)) < len(labels):
            raise UserError(f'{path} has a class twice: download the official file again.')
        return len(labels)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Opens a tar file for reading; errors in the context become a UserError."""
    with archives.errors_named(path), path.open('rb') as file:
        yield archives.opened(file)


def _check_tar(path: Path) -> None:
    """Checks the beginning and the end, to find an incomplete download now and not after hours."""
    with path.open('rb') as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
        end = file.read()
    if len(end) < _END or any(end):
        raise UserError(
            f'{path} does not end like a tar file: it is incomplete or something else. Download it '
            'again.'
        )
    with _opened(path):  # reads its beginning
        pass


def _label_of(name: str, path: Path) -> int:
    """Returns the label of the class whose inner tar file is called `name`."""
    match = re.fullmatch(r'(?:.*/)?(n\d{8})\.tar', name, re.ASCII)
    if not match or match[1] not in _labels():
        raise UserError(
            f'{path} has a member "{name}", which is not the tar file of an ImageNet class, such '
            f'as {wnids()[0]}.tar. Download the official file again.'
        )
    return _labels()[match[1]]


@functools.cache
def _labels() -> Mapping[str, int]:
    return {wnid: label for label, wnid in enumerate(wnids())}


def _train_pictures(
    tar: tarfile.TarFile, path: Path, first_class: int, first_picture: int
) -> Iterator[Picture]:
    for position, member in enumerate(archives.members(tar, str(path), path.stat().st_size)):
        if position < first_class:
            continue
        label = _label_of(member.name, path)
        skip = first_picture if position == first_class else 0
        inner_name = f'{path.name}/{member.name}'
        inner = archives.opened(tar.extractfile(member))
        for number, picture in enumerate(archives.members(inner, inner_name, member.size)):
            if number >= skip:
                file = f'{inner_name}/{picture.name}'
                _check_class(file, picture.name, wnids()[label])
                yield _read(inner, picture, file, label, [position, number + 1])


def _check_class(file: str, name: str, wnid: str) -> None:
    """Raises a UserError if the name of a picture, or of a folder around it, is another class's."""
    for part in name.split('/'):
        other = re.match(r'n\d{8}(?!\d)', part)
        if other and other[0] != wnid:
            raise UserError(
                f'{file} is a picture of {other[0]} in the tar file of {wnid}: its class is not '
                'certain. Download the official file again.'
            )


def _validation_pictures(tar: tarfile.TarFile, path: Path, first: int) -> Iterator[Picture]:
    seen = bytearray(len(validation_wnids()) + 1)
    for number, member in enumerate(archives.members(tar, str(path), path.stat().st_size)):
        match = re.fullmatch(r'(?:.*/)?ILSVRC2012_val_(\d{8})\.JPEG', member.name, re.ASCII)
        if not match or not 1 <= int(match[1]) <= len(validation_wnids()):
            raise UserError(
                f'{path} has a member "{member.name}" instead of names from '
                'ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00050000.JPEG. Download the '
                'official file again.'
            )
        if seen[int(match[1])]:
            raise UserError(f'{path} has "{member.name}" twice: download the official file again.')
        seen[int(match[1])] = True
        if number >= first:
            label = _labels()[validation_wnids()[int(match[1]) - 1]]
            yield _read(tar, member, f'{path.name}/{member.name}', label, [0, number + 1])


def _read(
    tar: tarfile.TarFile, member: tarfile.TarInfo, file: str, label: int, cursor: list[int]
) -> Picture:
    name = member.name.rpartition('/')[2]
    if member.size > MAX_BYTES:
        fault = f'larger than {MAX_BYTES >> 20} MiB'
        return Picture(file, name, label, cursor, member.size, None, fault)
    return Picture(file, name, label, cursor, member.size, archives.read(tar, member))
