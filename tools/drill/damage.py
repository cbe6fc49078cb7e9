"""Damage to files: what bad disks, wrong backups and interrupted copies do."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Returns the bytes with one to three of: bits turned, a part cut out, doubled or replaced."""
    for _ in range(draw.randint(1, 3)):
        size = len(data)
        start = draw.randrange(size + 1)
        stop = min(size, start + draw.choice((1, 2, 4, 16, 256, size)))
        part = data[start:stop]
        middle = draw.choice(
            (
                b'',
                part * 2,
                bytes(len(part)),
                draw.randbytes(len(part)),
                b'\xff' * min(len(part), 8),
                bytes(byte ^ (1 << draw.randrange(8)) for byte in part[:4]) + part[4:],
            )
        )
        data = data[:start] + middle + data[stop:]
    return data


def _cut(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data) + 1)])


def _zero(path: Path, draw: random.Random) -> None:
    """What a power cut leaves of a file whose blocks were not written."""
    size = path.stat().st_size
    start = draw.randrange(size + 1)
    data = path.read_bytes()
    path.write_bytes(data[:start] + bytes(size - start))


def _mutate(path: Path, draw: random.Random) -> None:
    path.write_bytes(mutated(path.read_bytes(), draw))


def _remove(path: Path, draw: random.Random) -> None:
    path.unlink()


def _exchange(path: Path, draw: random.Random) -> None:
    """Puts another file of the folder's tree in this one's place."""
    others = [other for other in sorted(path.parent.rglob('*')) if other.is_file()]
    shutil.copy(draw.choice(others), path) if others != [path] else path.unlink()


def _replace_folder(path: Path, draw: random.Random) -> None:
    """Puts another checkpoint in the place of the one that the file belongs to."""
    checkpoints = next((p for p in path.parents if p.name == 'checkpoints'), None)
    if checkpoints is None:
        return _mutate(path, draw)
    place, other = draw.sample(sorted(p for p in checkpoints.iterdir() if p.is_dir()), 2)
    shutil.rmtree(place)
    shutil.copytree(other, place)
    return None


_WAYS: tuple[Callable[[Path, random.Random], None], ...] = (
    _cut,
    _zero,
    _mutate,
    _remove,
    _exchange,
    _replace_folder,
)


def damage(folder: Path, draw: random.Random) -> str:
    """Damages one to three files of a workdir; returns what was done."""
    done = []
    for _ in range(draw.randint(1, 3)):
        candidates = sorted(p for p in folder.rglob('*') if p.is_file() and p.name != '.lock')
        path = draw.choice(candidates)
        way = draw.choice(_WAYS)
        way(path, draw)
        done.append(f'{way.__name__.strip("_")} {path.relative_to(folder)}')
    return ', '.join(done)
