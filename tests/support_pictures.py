"""Sources of pictures for tests, made from the real ones of the shared data."""

import io
import struct
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.conftest import SHARED_DATA


def imagenet_files() -> list[Path]:
    """The 200 real ImageNet JPEGs, called <wnid>_<name>.JPEG; skips the test where absent."""
    return _jpegs('imagenet_sample', '*.JPEG')


def blood_files() -> list[Path]:
    """The 364 real 640x480 JPEGs of blood cells; skips the test where absent."""
    return _jpegs('bccd/JPEGImages', '*.jpg')


def _jpegs(folder: str, pattern: str) -> list[Path]:
    files = sorted((SHARED_DATA / folder).glob(pattern))
    if not files:
        pytest.skip(f'needs the pictures in {SHARED_DATA / folder} (set SHARED_DATA)')
    return files


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file: length, kind, data, checksum."""
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Writes a tar file; members are (name, contents)."""
    with tarfile.open(path, 'w') as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """The contents of a tar file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode='w') as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def imagenet_tars(
    folder: Path,
    files: Iterable[Path] | None = None,
    validation: int = 50,
    more: Mapping[str, list[tuple[str, bytes]]] | None = None,
) -> Path:
    """Writes ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar of real pictures into `folder`.

    Args:
      folder: is made if need be.
      files: pictures called <wnid>_<name>.JPEG; None: the 200 of the sample.
      validation: how many of the pictures are in the validation file too, each under the first
        number whose official label is its class.
      more: wnid -> (name, contents) of members that its tar file gets besides.

    Returns:
      folder.
    """
    from preparation import imagenet

    files = list(imagenet_files() if files is None else files)
    folder.mkdir(parents=True, exist_ok=True)
    members = {}
    for path in files:
        members.setdefault(path.name[:9], []).append((path.name, path.read_bytes()))
    for wnid, extra in (more or {}).items():
        members.setdefault(wnid, []).extend(extra)
    classes = ((f'{wnid}.tar', tar_bytes(pictures)) for wnid, pictures in members.items())
    write_tar(folder / 'ILSVRC2012_img_train.tar', classes)
    numbers = {}
    for number, wnid in enumerate(imagenet.validation_wnids(), 1):
        numbers.setdefault(wnid, number)
    chosen = sorted((numbers[path.name[:9]], path) for path in files[:validation])
    write_tar(
        folder / 'ILSVRC2012_img_val.tar',
        ((f'ILSVRC2012_val_{number:08d}.JPEG', path.read_bytes()) for number, path in chosen),
    )
    return folder


def digit_folder(folder: Path, per_class: int = 30) -> Path:
    """Writes real handwritten digits as JPEGs of many sizes, in a folder for each class.

    Some are grey, progressive, PNG files called .jpg or CMYK. The digits come with a requirement.
    """
    import numpy as np
    from PIL import Image

    from data_sources import digits

    source = digits.load('train')
    for label in range(10):
        chosen = np.flatnonzero(source.labels == label)[:per_class]
        (folder / str(label)).mkdir(parents=True)
        for number, index in enumerate(chosen):
            size = (40 + 7 * (number % 9), 40 + 5 * (number % 7))
            picture = Image.fromarray(source.images[index, ..., 0]).resize(size)
            form, mode = ('JPEG', ('RGB', 'RGB', 'L', 'RGB', 'CMYK')[number % 5])
            if number % 7 == 6:
                form, mode = 'PNG', 'RGB'
            options = {'progressive': number % 5 == 3, 'quality': 90} if form == 'JPEG' else {}
            picture.convert(mode).save(folder / str(label) / f'{number}.jpg', form, **options)
    return folder


def mask_folder(folder: Path, count: int = 30) -> Path:
    """Writes real handwritten digits on larger pictures, with label maps of their ink: 0 and 1."""
    import numpy as np
    from PIL import Image

    from data_sources import digits

    source = digits.load('train')
    for name in ('images', 'labels'):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        size = (60 + 7 * (number % 5), 50 + 5 * (number % 7))
        pixels = np.zeros((*size, 3), np.uint8)
        for place in range(3):
            digit = Image.fromarray(source.images[3 * number + place, ..., 0]).resize((16, 16))
            pixels[place * 18 : place * 18 + 16, 10 * place : 10 * place + 16] = np.asarray(digit)[
                ..., None
            ]
        Image.fromarray(pixels).save(folder / 'images' / f'{number}.jpg', quality=95)
        mask = (pixels[..., 0] > 127).astype(np.uint8)
        Image.fromarray(mask).save(folder / 'labels' / f'{number}.png')
    return folder


def box_folder(folder: Path, count: int = 30) -> Path:
    """Writes the pictures of `mask_folder` as VOC has them, with the boxes of their digits."""
    mask_folder(folder, count)
    (folder / 'images').rename(folder / 'JPEGImages')
    (folder / 'labels').rename(folder / 'SegmentationClass')
    (folder / 'Annotations').mkdir()
    for number in range(count):
        objects = ''.join(
            f'<object><name>digit</name><bndbox><xmin>{10 * place + 1}</xmin>'
            f'<ymin>{18 * place + 1}</ymin><xmax>{10 * place + 16}</xmax>'
            f'<ymax>{18 * place + 16}</ymax></bndbox></object>'
            for place in range(3)
        )
        text = f'<annotation><filename>{number}.jpg</filename>{objects}</annotation>'
        (folder / 'Annotations' / f'{number}.xml').write_text(text)
    return folder
