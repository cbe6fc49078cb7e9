"""Whole pictures in overlapping tiles, so that pictures of all sizes need few compiled programs.

    plan = TilePlan(sizes, tile=256, batch_size=8, devices=1)
    merger = Merger(plan)
    for batch in plan:
        values = network(np.stack([window(pictures[plan.tiles[i].picture], plan.tiles[i]) ...]))
        for i, value in zip(batch['index'], values):
            for picture, whole in merger.add(i, value):
                ...

Along each axis a tile is half a tile long where the picture is no longer than that, and else a
whole one: there are at most four shapes, and all tiles of a picture have the same. Neighbours
overlap by a quarter of a tile at least and are blended: the weight of a value falls linearly to the
edge of its tile, because a network knows least about pixels whose surroundings it does not see.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np


class Tile(NamedTuple):
    """A part of a picture.

    Attributes:
      picture: number of the picture.
      top, left: where it begins in the picture.
      height, width: its size. A picture that is smaller is continued beyond its edge.
    """

    picture: int
    top: int
    left: int
    height: int
    width: int


def cut(shape: tuple[int, int], tile: int, picture: int = 0) -> list[Tile]:
    """Returns the tiles of a picture, row by row.

    Args:
      shape: (height, width) of the picture.
      tile: side of a tile in pixels, an even number.
      picture: number of the picture.
    """
    (tops, height), (lefts, width) = (_places(size, tile) for size in shape)
    return [Tile(picture, top, left, height, width) for top in tops for left in lefts]


def _places(size: int, tile: int) -> tuple[list[int], int]:
    """Returns (where tiles begin along an axis, how long they are there)."""
    if size <= tile:
        return [0], tile // 2 if size <= tile // 2 else tile
    overlap = tile // 4
    count = -(-(size - overlap) // (tile - overlap))
    return [number * (size - tile) // (count - 1) for number in range(count)], tile


def window(image: np.ndarray, tile: Tile) -> np.ndarray:
    """Returns the pixels of a tile, [height, width, c].

    Beyond its edge the picture is mirrored: a black border would be an edge like no other.
    """
    part = image[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
    padding = [(0, tile.height - part.shape[0]), (0, tile.width - part.shape[1]), (0, 0)]
    return np.pad(part, padding, mode='symmetric') if np.any(padding) else part


class TilePlan:
    """The batches of all tiles of some pictures. Each batch has tiles of one shape.

    Pictures go round robin to the processes, and a process gets all tiles of its pictures. All
    processes make the same calls: who has fewer tiles of a shape has padding, whose mask is 0.

    Args:
      sizes: (height, width) of each picture.
      tile: side of a tile in pixels.
      batch_size: tiles per call over all devices; rounded up to a multiple of `devices`.
      devices: how many there are, over all processes.
      process, processes: this process's number, and how many there are.

    Attributes:
      sizes: as given.
      tile: as given.
      tiles: all tiles, picture by picture; 'index' in a batch is a place in this list.
    """

    tiled: ClassVar[bool] = True

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        tile: int,
        batch_size: int,
        devices: int,
        process: int = 0,
        processes: int = 1,
    ):
        self.sizes, self.tile = list(sizes), tile
        self.tiles = [t for i, size in enumerate(sizes) for t in cut(size, tile, i)]
        own_devices = devices // processes
        largest = -(-batch_size // devices) * own_devices
        groups: dict[tuple[int, int], list[list[int]]] = {}
        for index, part in enumerate(self.tiles):
            group = groups.setdefault(part[3:], [[] for _ in range(processes)])
            group[part.picture % processes].append(index)
        self._batches: list[tuple[list[int], int, int]] = []
        for group in groups.values():
            most = max(map(len, group))
            rows = min(largest, -(-most // own_devices) * own_devices)
            spare = next(own[0] for own in group if own)
            for start in range(0, most, rows):
                self._batches.append((group[process][start : start + rows], rows, spare))

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields all of them."""
        return map(self, range(len(self)))

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        """Returns this process's part of a batch: 'index' int32 [b] and 'mask' float32 [b]."""
        own, rows, spare = self._batches[number]
        index = np.full(rows, own[-1] if own else spare, np.int32)
        index[: len(own)] = own
        return {'index': index, 'mask': (np.arange(rows) < len(own)).astype(np.float32)}


class Merger:
    """Blends the values of tiles to those of whole pictures, each when its last tile has come.

    Args:
      plan: of the tiles.
    """

    def __init__(self, plan: TilePlan):
        self._plan = plan
        self._first: dict[int, int] = {}
        self._count: dict[int, int] = {}
        for index, tile in enumerate(plan.tiles):
            self._first.setdefault(tile.picture, index)
            self._count[tile.picture] = self._count.get(tile.picture, 0) + 1
        self._started: dict[int, dict[int, np.ndarray]] = {}

    def add(self, index: int, values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (picture, its values float32 [h, w, ...]) if the tile is the picture's last.

        The order in which tiles come changes nothing.

        Args:
          index: of the tile in the plan.
          values: [height, width, ...] of the tile.
        """
        picture = self._plan.tiles[index].picture
        values_of = self._started.setdefault(picture, {})
        values_of[index] = values
        if len(values_of) == self._count[picture]:
            del self._started[picture]
            first = self._first[picture]
            tiles = self._plan.tiles[first : first + self._count[picture]]
            parts = [values_of[first + place] for place in range(len(tiles))]
            yield picture, blended(tiles, parts, self._plan.sizes[picture], self._plan.tile // 4)


def blended(
    tiles: Sequence[Tile], values: Sequence[np.ndarray], size: tuple[int, int], ramp: int
) -> np.ndarray:
    """Returns the values of a whole picture, float32 [*size, ...]; of one tile exactly its own.

    Args:
      tiles: of the picture.
      values: [height, width, ...] of each.
      size: (height, width) of the picture.
      ramp: pixels from the edge of a tile to where its weight is 1.
    """
    if len(tiles) == 1:
        return values[0][: size[0], : size[1]]
    total = np.zeros((*size, *values[0].shape[2:]), np.float32)
    weights = np.zeros(size, np.float32)
    for tile, value in zip(tiles, values, strict=True):
        rows = _weights(tile.top, tile.height, size[0], ramp)
        columns = _weights(tile.left, tile.width, size[1], ramp)
        weight = rows[:, None] * columns
        place = np.s_[tile.top : tile.top + len(rows), tile.left : tile.left + len(columns)]
        part = value[: len(rows), : len(columns)]
        total[place] += part * weight.reshape(*weight.shape, *[1] * (part.ndim - 2))
        weights[place] += weight
    return total / weights.reshape(*size, *[1] * (total.ndim - 2))


def _weights(start: int, length: int, size: int, ramp: int) -> np.ndarray:
    """Returns the weights, float32, of a tile's places along an axis of a picture."""
    place = np.arange(min(length, size - start))
    distance = np.full(len(place), ramp)
    if start > 0:
        distance = np.minimum(distance, place + 1)
    if start + length < size:
        distance = np.minimum(distance, length - place)
    return (distance / ramp).astype(np.float32)
