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
    """Puts another file in this one's place, one of the folders around it."""
    others = sorted(p for p in path.parents[1].rglob('*') if p.is_file() and p != path)
    if others:
        shutil.copy(draw.choice(others), path)


def _replace_checkpoint(path: Path, draw: random.Random) -> None:
    """Puts another checkpoint in the place of the one that the file belongs to, if there are."""
    checkpoints = next((p for p in path.parents if p.name == 'checkpoints'), path.parent)
    places = sorted(p for p in checkpoints.iterdir() if p.name.isdigit())
    if len(places) > 1:
        place, other = draw.sample(places, 2)
        shutil.rmtree(place)
        shutil.copytree(other, place)


def _remove_checkpoints(path: Path, draw: random.Random) -> None:
    """Removes one checkpoint, or the folder of all of them."""
    inner = [p for p in path.parents if 'checkpoints' in p.parts]
    if inner:
        shutil.rmtree(draw.choice(inner[-2:]))


_WAYS: tuple[Callable[[Path, random.Random], None], ...] = (
    _cut,
    _zero,
    _mutate,
    _remove,
    _exchange,
    _replace_checkpoint,
    _remove_checkpoints,
)


def damage(folder: Path, draw: random.Random) -> str:
    """Damages one to three files of a workdir; returns what was done."""
    done = []
    for _ in range(draw.randint(1, 3)):
        candidates = sorted(p for p in folder.rglob('*') if p.is_file() and p.name != '.lock')
        # Most files are arrays of a checkpoint; the others are as interesting.
        if draw.random() < 0.5:
            candidates = [p for p in candidates if 'default' not in p.parts] or candidates
        path = draw.choice(candidates)
        way = draw.choice(_WAYS)
        way(path, draw)
        done.append(f'{way.__name__.strip("_")} {path.relative_to(folder)}')
    return ', '.join(done)
