"""ImageNet (ILSVRC 2012) from its two official tar files, read as they are, never unpacked.

ILSVRC2012_img_train.tar holds a tar for each class, n01440764.tar, with its pictures;
ILSVRC2012_img_val.tar holds ILSVRC2012_val_00000001.JPEG and so on. Labels are those of tfds (and
of nearly everyone): the place of the class's WordNet id in sorted order. Both lists come with
tensorflow-datasets: the ids, and the id of each validation picture.
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

from errors import UserError
from preparation.picture_check import MAX_BYTES
from preparation.picture_sets import Picture

TARS = {'train': 'ILSVRC2012_img_train.tar', 'validation': 'ILSVRC2012_img_val.tar'}
# What the official tar files hold.
EXAMPLES = {'train': 1_281_167, 'validation': 50_000}
_END = 1024  # a tar file ends with two blocks of zeros,
_PADDING = 1 << 16  # and usually some more, up to a multiple of 10,240 bytes


@functools.cache
def _tfds_list(name: str) -> tuple[str, ...]:
    path = tfds.core.tfds_path('datasets/imagenet2012') / name
    return tuple(path.read_text().split())


def wnids() -> tuple[str, ...]:
    """The WordNet ids of the 1,000 classes in the order of their labels."""
    return _tfds_list('labels.txt')


def validation_wnids() -> tuple[str, ...]:
    """The WordNet id of each validation picture: item i is that of number i + 1."""
    return _tfds_list('validation_labels.txt')


class ImageNetTars:
    """A `picture_sets.PictureSource`: the tar files of a folder.

    Args:
      folder: holds one or both of them. The train file may have some of the classes only.

    Attributes:
      classes_in_train: how many classes the train file has.

    Raises:
      UserError: neither is there; one is no tar file or is cut; a class is not one of ImageNet's.
    """

    name = 'imagenet2012'
    version = '5.1.0'  # of the official tfds builder, whose features and splits these are
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
                f'{folder} has neither {" nor ".join(TARS.values())}: get them from '
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
        """The sizes of the tar files."""
        return {TARS[split]: size for split, size in self.splits.items()}

    def stamp(self) -> Any:
        """The times of the tar files."""
        return [path.stat().st_mtime_ns for path in self._tars.values()]

    def pictures(self, split: str, cursor: Any) -> Iterator[Picture]:
        """The pictures in the order of the files; a cursor is [place of the class, of the picture].

        Raises:
          UserError: a tar file is damaged, or a member has a name that it should not have.
        """
        path = self._tars[split]
        with _opened(path) as tar:
            if split == 'train':
                yield from _train_pictures(tar, path, *(cursor or (0, 0)))
            else:
                yield from _validation_pictures(tar, path, (cursor or (0, 0))[1])

    def _count_classes(self) -> int:
        """Looks through the names of the inner tar files, before hours are spent on them."""
        path = self._tars['train']
        with _opened(path) as tar:
            found = [_label_of(member.name, path) for member in _members(tar, self.splits['train'])]
        if not found:
            raise UserError(f'{path} is empty: files such as {wnids()[0]}.tar are expected in it.')
        if len(set(found)) < len(found):
            raise UserError(f'{path} has a class twice: fetch the official file again.')
        return len(found)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Opens a tar file for reading; damage found in the context becomes a sentence."""
    try:
        with tarfile.open(path, 'r:') as tar:
            yield tar
    except tarfile.TarError as error:
        raise UserError(
            f'{path} cannot be read as a tar file ({error}): it is damaged, or was not completely '
            'copied. Fetch it again.'
        ) from error
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror or error}.') from error


def _members(tar: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """The files in a tar of so many bytes, without keeping a list of them as TarFile itself does.

    Raises:
      tarfile.ReadError: the rest is missing, or zeros (a file made at full size and never filled).
    """
    while (member := tar.next()) is not None:
        tar.members.clear()
        if member.isfile():
            yield member
    if size - tar.offset > _PADDING:
        raise tarfile.ReadError(f'nothing but zeros from byte {tar.offset} on')


def _check_tar(path: Path) -> None:
    """A download that stopped early is found now, not after hours."""
    with path.open('rb') as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
        end = file.read()
    if len(end) < _END or any(end):
        raise UserError(
            f'{path} does not end as a tar file does: it was not completely copied, or is '
            'something else. Fetch it again.'
        )
    with _opened(path):  # looks at its beginning
        pass


def _label_of(name: str, path: Path) -> int:
    """The label of the class whose inner tar file is called `name`."""
    found = re.fullmatch(r'(?:.*/)?(n\d{8})\.tar', name)
    if not found or found[1] not in _labels():
        raise UserError(
            f'{path} has a member "{name}": it should have the tar files of ImageNet\'s classes, '
            f'such as {wnids()[0]}.tar.'
        )
    return _labels()[found[1]]


@functools.cache
def _labels() -> Mapping[str, int]:
    return {wnid: label for label, wnid in enumerate(wnids())}


def _train_pictures(
    tar: tarfile.TarFile, path: Path, first_class: int, first_picture: int
) -> Iterator[Picture]:
    for place, member in enumerate(_members(tar, path.stat().st_size)):
        if place < first_class:
            continue
        label = _label_of(member.name, path)
        skip = first_picture if place == first_class else 0
        with tarfile.open(fileobj=tar.extractfile(member), mode='r:') as inner:
            for number, picture in enumerate(_members(inner, member.size)):
                if number >= skip:
                    file = f'{path.name}/{member.name}/{picture.name}'
                    yield _read(inner, picture, file, label, [place, number + 1])


def _validation_pictures(tar: tarfile.TarFile, path: Path, first: int) -> Iterator[Picture]:
    for number, member in enumerate(_members(tar, path.stat().st_size)):
        if number < first:
            continue
        found = re.fullmatch(r'(?:.*/)?ILSVRC2012_val_(\d{8})\.JPEG', member.name)
        if not found or not 1 <= int(found[1]) <= len(validation_wnids()):
            raise UserError(
                f'{path} has a member "{member.name}": names such as '
                'ILSVRC2012_val_00000001.JPEG are expected, up to 00050000.'
            )
        label = _labels()[validation_wnids()[int(found[1]) - 1]]
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
        raise tarfile.ReadError(f'{file} is cut')
    return Picture(file, name, label, cursor, member.size, data)
