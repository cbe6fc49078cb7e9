"""Our reader on one thread: the accuracy of its crops, where its time goes, its memory."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psutil
from PIL import Image

import input_pipeline
from benchmarks.contestants import ours
from data_sources import cropping, decoding, picture_files, plans
from data_sources.draws import Draws

IMAGENET_SIZE = 1_281_167  # examples of its training split
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of random-resized crops, the usual defaults


@dataclasses.dataclass(frozen=True)
class Crop:
    """A picture of the data set, and a box drawn in it."""

    example: int
    encoded: bytes
    frame: decoding.Frame
    box: decoding.Box


def draw_crop(seed: int, visit: int, example: int, encoded: bytes, size: int) -> Crop:
    """Returns the crop that training draws of a picture at this visit."""
    frame = decoding.read_frame(encoded)
    draws = Draws(seed, 'crop', visit, example)
    geometry = (frame.height, frame.width, size, SCALE, RATIO)
    return Crop(example, encoded, frame, cropping.crop_box(draws, *geometry))


def draw_crops(work: dict[str, Any], visits: int) -> list[Crop]:
    """Returns the crops of all examples of train at their first visits."""
    config = ours.configuration(work)
    source = input_pipeline.open_split(config, 'train')
    return [
        draw_crop(config.seed, visit, example, source.read([example])[0].image, work['size'])
        for example in range(source.size)
        for visit in range(visits)
    ]


def differences(crops: Sequence[Crop], size: int) -> np.ndarray:
    """Returns each crop's mean absolute difference, of 255, to Pillow's.

    As torchvision, Pillow decodes the whole, cuts the box out, and resizes with a triangle filter.
    """
    means = []
    for crop in crops:
        decoded = cropping.decode_crop(crop.encoded, crop.frame, crop.box, size)
        top, left, height, width = crop.box
        with picture_files.opened(crop.encoded) as picture:
            box = picture.convert('RGB').crop((left, top, left + width, top + height))
        reference = np.asarray(box.resize((size, size), Image.Resampling.BILINEAR))
        means.append(np.abs(decoded.astype(np.int16) - reference).mean())
    return np.array(means)


def stages(work: dict[str, Any], crops: Sequence[Crop], rounds: int) -> dict[str, float]:
    """Returns microseconds of CPU time per image for each stage, on this thread; they take turns.

    Entropy decoding cannot be run alone: decoding at an eighth of the size stands for it, where
    each block gives one pixel. What full size takes beyond that is the inverse transform,
    upsampling and colour conversion. Each time is the best of several rounds.
    """
    size = work['size']
    source = input_pipeline.open_split(ours.configuration(work), 'train')
    decoded = [decoding.decode_box(crop.encoded, crop.frame, crop.box) for crop in crops]
    resized = [cropping.resize(pixels, (size, size)) for pixels in decoded]
    row = np.empty((size, size, 3), np.uint8)

    decode, entropy = 'inverse DCT, upsampling, colour', 'entropy decoding'
    header, whole = "picture's header, draw the box", 'decode and resize, as run'
    tasks = {
        'read and parse the record': (crops, lambda c: source.read([c.example])),
        header: (crops, lambda c: draw_crop(0, 0, c.example, c.encoded, size)),
        entropy: (crops, lambda c: decoding.decode_box(c.encoded, c.frame, _eighth(c.box), 8)),
        decode: (crops, lambda c: decoding.decode_box(c.encoded, c.frame, c.box)),
        'resize': (decoded, lambda pixels: cropping.resize(pixels, (size, size))),
        'copy into the batch': (resized, lambda image: np.copyto(row, image)),
        whole: (crops, lambda c: cropping.decode_crop(c.encoded, c.frame, c.box, size)),
    }
    best = dict.fromkeys(tasks, float('inf'))
    for _ in range(rounds):
        for name, (items, task) in tasks.items():
            start = time.thread_time()
            for item in items:
                task(item)
            best[name] = min(best[name], (time.thread_time() - start) / len(items) * 1e6)
    return {**best, decode: best[decode] - best[entropy]}


def _eighth(box: decoding.Box) -> decoding.Box:
    """Returns the box with its sides moved outwards to multiples of eight."""
    top, left = box.top // 8 * 8, box.left // 8 * 8
    bottom, right = (-(-end // 8) * 8 for end in (box.top + box.height, box.left + box.width))
    return decoding.Box(top, left, bottom - top, right - left)


def decoded_batches(work: dict[str, Any], count: int) -> Iterator[int]:
    """Decodes `count` batches; yields their number so far after each of them."""
    return (number for number, _ in zip(range(1, count + 1), ours.pipeline(work), strict=False))


def record_indices(work: dict[str, Any], count: int) -> Iterator[int]:
    """Draws batches of an ImageNet-sized epoch; yields the number of indices after each of them."""
    size = work['batch_size']
    plan = plans.StreamPlan(seed=0, size=IMAGENET_SIZE, batch_size=size, repeats=1)
    for number in range(-(-count // size)):
        plan(number)
        yield (number + 1) * size


def resident(progress: Iterator[int], count: int, points: int = 10) -> list[tuple[int, float]]:
    """Returns (done, resident megabytes of this process) at every tenth of `count`."""
    process, measured = psutil.Process(), []
    for done in progress:
        while len(measured) < points and done >= count * (len(measured) + 1) // points:
            measured.append((done, process.memory_info().rss / 1e6))
    return measured


def growth(memory: Sequence[float]) -> float:
    """Returns how much memory grew, in its own unit, after the first two points.

    The first two are left out, since queues and the allocator fill up. It is the difference of the
    medians of the last and the first half: single points vary with the batches that are waiting.
    """
    settled = np.asarray(memory[2:] if len(memory) > 3 else memory)
    half = max(len(settled) // 2, 1)
    return float(np.median(settled[-half:]) - np.median(settled[:half]))
