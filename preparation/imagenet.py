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
from preparation.picture_sets import Picture

TARS = {'train': 'ILSVRC2012_img_train.tar', 'validation': 'ILSVRC2012_img_val.tar'}
# The numbers of pictures in the official tar files.
EXAMPLES = {'train': 1_281_167, 'validation': 50_000}
# A tar file ends with two blocks of zeros, usually padded with more zeros to a multiple of 10,240
# bytes.
_END = 1024
_PADDING = 1 << 16


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
          UserError: a tar file is damaged, or a member has an unexpected name.
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
                _label_of(member.name, path) for member in _members(tar, self.splits['train'])
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
    try:
        with tarfile.open(path, 'r:') as tar:
            yield tar
    except tarfile.TarError as error:
        raise UserError(
            f'{path} cannot be read as a tar file ({error}): it is damaged or incomplete. Download '
            'it again.'
        ) from error
    except OSError as error:
        raise UserError(
            f'{path} cannot be read ({error.strerror or error}): check the file and its disk.'
        ) from error


def _members(tar: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """Yields the files in a tar file of `size` bytes, in constant memory.

    Raises:
      tarfile.ReadError: the rest of the file is missing, or zeros because it was allocated at full
        size and never filled.
    """
    while (member := tar.next()) is not None:
        tar.members.clear()  # TarFile collects them
        if member.isfile():
            yield member
    if size - tar.offset > _PADDING:
        raise tarfile.ReadError(f'nothing but zeros from byte {tar.offset} on')


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
    match = re.fullmatch(r'(?:.*/)?(n\d{8})\.tar', name)
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
    for position, member in enumerate(_members(tar, path.stat().st_size)):
        if position < first_class:
            continue
        label = _label_of(member.name, path)
        skip = first_picture if position == first_class else 0
        with tarfile.open(fileobj=tar.extractfile(member), mode='r:') as inner:
            for number, picture in enumerate(_members(inner, member.size)):
                if number >= skip:
                    file = f'{path.name}/{member.name}/{picture.name}'
                    yield _read(inner, picture, file, label, [position, number + 1])


def _validation_pictures(tar: tarfile.TarFile, path: Path, first: int) -> Iterator[Picture]:
    for number, member in enumerate(_members(tar, path.stat().st_size)):
        if number < first:
            continue
        match = re.fullmatch(r'(?:.*/)?ILSVRC2012_val_(\d{8})\.JPEG', member.name)
        if not match or not 1 <= int(match[1]) <= len(validation_wnids()):
            raise UserError(
                f'{path} has a member "{member.name}" instead of names from '
                'ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00050000.JPEG. Download the '
                'official file again.'
            )
        label = _labels()[validation_wnids()[int(match[1]) - 1]]
        yield _read(tar, member, f'{path.name}/{member.name}', label, [0, number + 1])


def _read(
    tar: tarfile.TarFile, member: tarfile.TarInfo, file: str, label: int, cursor: list[int]
) -> Picture:
    name = member.name.rpartition('/')[2]
    if member.size > MAX_BYTES:
        fault = f'larger than {MAX_BYTES >> 20} MiB'
        return Picture(file, name, label, cursor, member.size, None, fault)
    data = tar.extractfile(member).read()
    if len(data) < member.size:
        raise tarfile.ReadError(f'{file} is truncated')
    return Picture(file, name, label, cursor, member.size, data)
