"""Batches of tiles of the pictures of a split on disk, decoded ahead by threads."""

import dataclasses
import threading

import grain
import numpy as np

from data_sources import decoding
from data_sources.decoding import DecodeError
from data_sources.record_source import RecordSource
from data_sources.stream import available_cores
from data_sources.tiles import TilePlan, window
from errors import UserError


def sizes(source: RecordSource, skip: bool) -> list[tuple[int, int]]:
    """Returns (height, width) of each picture of a split, from the heads of the files.

    Args:
      source: the split.
      skip: whether a picture that cannot be read is left out; it counts as one pixel here.

    Raises:
      UserError: a picture cannot be read, and is not left out.
    """
    found, pictures = [], dataclasses.replace(source, kinds={})
    for example in range(source.size):
        try:
            frame = decoding.read_frame(pictures.read([example])[0].image, source.upright)
            found.append((frame.height, frame.width))
        except DecodeError as error:
            if not skip:
                raise UserError(source.unusable(example, error)) from error
            found.append((1, 1))
    return found


class _Load:
    """A function that decodes a batch of tiles; each thread keeps the picture it decoded last."""

    def __init__(self, source: RecordSource, plan: TilePlan, skip: bool):
        self._source, self._plan, self._skip = source, plan, skip
        self._pictures = dataclasses.replace(source, kinds={})
        self._local = threading.local()

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        batch = self._plan(int(number))
        tiles = [self._plan.tiles[index] for index in batch['index']]
        batch['image'] = np.zeros((len(tiles), *tiles[0][3:], 3), np.uint8)
        if self._skip:
            batch['bad'] = np.zeros(len(tiles), np.int32)
        for row in np.flatnonzero(batch['mask']):
            tile = tiles[row]
            try:
                batch['image'][row] = window(self._decoded(tile.picture), tile)
            except DecodeError as error:
                if not self._skip:
                    raise UserError(self._source.unusable(tile.picture, error)) from error
                batch['mask'][row] = 0
                batch['bad'][row] = tile.top == tile.left == 0  # a picture counts once
        return batch

    def _decoded(self, picture: int) -> np.ndarray:
        number, pixels = getattr(self._local, 'last', (None, None))
        if number != picture:
            [record] = self._pictures.read([picture])
            pixels = decoding.decode(record.image, self._source.upright)
            self._local.last = picture, pixels
        return pixels


def dataset(
    source: RecordSource, plan: TilePlan, skip: bool = False, threads: int = 0
) -> grain.IterDataset:
    """Returns the plan's batches in order, decoded ahead.

    Each is what the plan says, and 'image' uint8 [b, height, width, 3]. With `skip` there is also
    'bad' int32 [b], 1 for a tile of a picture that did not decode, whose tiles are all masked; it
    counts once.

    Args:
      source: an open split.
      plan: of its tiles.
      skip: whether a record that does not decode is left out; otherwise it ends the run.
      threads: how many decode; 0: one per core.
    """
    threads = threads or available_cores()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    return grain.MapDataset.range(len(plan)).map(_Load(source, plan, skip)).to_iter_dataset(options)
