"""What a unit likes: the pictures of a split that excite it most, and what of them it sees.

A unit is a channel of a stage: all places of a map look for the same thing, each in its own patch
of the image, which is its receptive field. Of each picture the place counts where the unit is
strongest (Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", figure
2). A dense unit sees the whole picture.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from errors import UserError, did_you_mean, shortened
from inspection.drawing import FRAME, INK, QUIET, Drawn
from inspection.examples import Chunk, Examples
from inspection.opened import Opened
from inspection.sheet import GAP, LINE, MARGIN, WIDTH, Sheet, shown_size, wrapped
from inspection.survey import Glance
from models.trace import Stage, Trace, trace

KEPT = 8  # pictures for each unit
PAIRS = 5  # of picture and patch in a row, which is then about as wide as KEPT pictures
UNITS = 8  # of a stage are shown, unless some are named
LABEL = 76  # pixels beside a row
BEYOND = (219, 227, 234)  # color of what a patch has outside of the picture


class Liked(NamedTuple):
    """A picture that excites a unit.

    Attributes:
      position: the example's number in its split.
      value: of the unit, where it is largest.
      place: where that is, as `Glance.places` counts.
    """

    position: int
    value: float
    place: int


@dataclasses.dataclass(frozen=True)
class Window:
    """The receptive field of a place, in pixels of the picture, beyond which it may reach.

    Attributes:
      picture: which of the example's pictures (`Task.pictures`).
      top, left: its first row and column.
      size: how many rows and columns it has.
    """

    picture: int
    top: int
    left: int
    size: int

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the patch of a picture, uint8 [size, size, 3]; BEYOND outside of the picture."""
        height, width = pixels.shape[:2]
        rows, columns = (np.arange(self.size) + first for first in (self.top, self.left))
        inside = np.ix_((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
        patch = np.empty((self.size, self.size, 3), np.uint8)
        patch[:] = BEYOND
        patch[inside] = pixels[rows[inside[0][:, 0]]][:, columns[inside[1][0]]]
        return patch


def window(stage: Stage, place: int) -> Window:
    """Returns what the unit at a place of a map sees.

    Args:
      stage: of a trace; its receptive field is not the whole image.
      place: as `Glance.places` counts.
    """
    height, width, _ = stage.shape
    picture, rest = divmod(place, height * width)
    row, column = divmod(rest, width)
    return Window(picture, *stage.field(row, column))


def named_units(wanted: str, counts: Mapping[str, int]) -> dict[str, list[int]]:
    """Returns {stage: units} of a text such as 'conv2:5,conv2:7,dense1:0'.

    Args:
      wanted: the text.
      counts: {stage: how many units it has}.

    Raises:
      UserError: there is no such unit.
    """
    found: dict[str, list[int]] = {}
    for name in wanted.split(','):
        stage, _, number = name.strip().rpartition(':')
        if stage not in counts:
            first = next(iter(counts))
            raise UserError(
                f'--unit={shortened(wanted)}: name a stage and the number of a unit, such as '
                f'{first}:0; there are {", ".join(counts)}.' + did_you_mean(stage or name, counts)
            )
        is_number = number.isascii() and number.isdigit() and len(number) < 10
        if not is_number or int(number) >= counts[stage]:
            raise UserError(
                f'--unit={shortened(wanted)}: the units of {stage} have the numbers 0 to '
                f'{counts[stage] - 1}.'
            )
        found.setdefault(stage, []).append(int(number))
    return found


class Likes:
    """A collector of a pass (survey.py) that keeps for every unit the pictures that excite it most.

    Args:
      most: how many pictures for each unit.
    """

    def __init__(self, most: int = KEPT):
        self._most = most
        self._kept: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._sums: dict[str, np.ndarray] = {}
        self._least: dict[str, np.ndarray] = {}
        self._count = 0
        self._image_shape: tuple[int, int, int] | None = None
        self._traced: Trace | None = None

    def add(self, chunk: Chunk, glance: Glance) -> None:
        """Takes the strongest answers to some examples."""
        self._count += len(chunk)
        self._image_shape = chunk.images.shape[1:]
        for stage, values in glance.strongest.items():
            positions = np.broadcast_to(chunk.positions[:, None], values.shape)
            rows = (values, positions, glance.places[stage])
            wide = values.astype(np.float64)
            sums = np.stack([wide.sum(0), np.square(wide).sum(0)])
            least = values.min(0)
            if stage in self._kept:
                pairs = zip(self._kept[stage], rows, strict=True)
                rows = tuple(np.concatenate(pair) for pair in pairs)
                sums += self._sums[stage]
                least = np.minimum(least, self._least[stage])
            # Stable: of pictures that excite a unit alike, the first of the split are kept.
            order = np.argsort(-rows[0], axis=0, kind='stable')[: self._most]
            self._kept[stage] = tuple(np.take_along_axis(a, order, 0) for a in rows)
            self._sums[stage], self._least[stage] = sums, least

    def _about(self, opened: Opened) -> Mapping[str, Stage]:
        """Returns the stages for pictures of the size that was seen, which may be larger."""
        if self._image_shape == opened.experiment.image_shape:
            return opened.trace.stages
        if self._traced is None:
            self._traced = trace(opened.model, self._image_shape)
        return self._traced.stages

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages, in order."""
        return tuple(self._kept)

    def liked(self, stage: str, unit: int) -> list[Liked]:
        """Returns the pictures that excite a unit most, the strongest first.

        Those that excite it least of all pictures of the split are left out; there are none for a
        unit that answers to all alike.

        Raises:
          UserError: the unit has a value that is no finite number.
        """
        if not np.isfinite(self._sums[stage][:, unit]).all():
            raise UserError(
                f'Unit {unit} of {stage} has values that are no finite numbers: the network may '
                'have diverged.'
            )
        columns = (array[:, unit].tolist() for array in self._kept[stage])
        rows = zip(*columns, strict=True)
        found = [Liked(position, value, place) for value, position, place in rows]
        return [one for one in found if one.value > self._least[stage][unit]]

    def varied(self, stage: str, most: int = UNITS) -> list[int]:
        """Returns the units whose strongest answers vary most from picture to picture, by number.

        Those that answer to all pictures alike are left out.

        Raises:
          UserError: as for `liked`.
        """
        total, squares = self._sums[stage]
        deviation = np.sqrt(np.maximum(squares / self._count - np.square(total / self._count), 0))
        order = np.argsort(-deviation, kind='stable')[:most]
        return sorted(unit for unit in order.tolist() if self.liked(stage, unit))

    def sheet(
        self, opened: Opened, looked: Examples, stage: str, units: Sequence[int], title: str
    ) -> Drawn:
        """Returns a sheet with a row for each unit: its pictures, and what it sees of them.

        Args:
          opened: the network.
          looked: the examples of the pass, which still decode.
          stage: its name.
          units: the numbers of the units.
          title: the first line.

        Raises:
          UserError: all of them answer to all pictures alike.
        """
        rows = {unit: self.liked(stage, unit) for unit in units}
        rows = {unit: liked for unit, liked in rows.items() if liked}
        if not rows:
            raise UserError(
                f'The units {", ".join(map(str, units))} of {stage} answer to all pictures of the '
                f'{looked.split} split alike: they like none more than another.'
            )
        about = self._about(opened)[stage]
        chunk = looked.at([one.position for liked in rows.values() for one in liked])
        return _drawn(opened, about, stage, rows, chunk, title)


def _drawn(
    opened: Opened,
    about: Stage,
    stage: str,
    rows: dict[int, list[Liked]],
    chunk: Chunk,
    title: str,
) -> Drawn:
    """Draws the sheet; the examples of `chunk` are those of all rows, one after the other."""
    height, width = shown_size(*chunk.images.shape[1:3])
    patched = _is_patched(about, chunk.images)
    count = min(PAIRS if patched else KEPT, max(map(len, rows.values())))
    across = (2 * width + GAP // 2 if patched else width) + 2 * GAP
    down = height + LINE + GAP
    total = max(WIDTH, LABEL + count * across)
    heading = [title, *wrapped(_note(about, stage, patched), total)]
    first = MARGIN + (len(heading) + 1) * LINE
    sheet = Sheet(2 * MARGIN + total, first + len(rows) * down + MARGIN)
    for number, line in enumerate(heading):
        sheet.text(line, MARGIN, MARGIN + number * LINE, total, QUIET if number else INK)
    start = 0
    for number, (unit, liked) in enumerate(rows.items()):
        top = first + number * down
        sheet.text(f'unit {unit}', MARGIN, top, LABEL)
        for column, one in enumerate(liked[:count]):
            row, left = start + column, MARGIN + LABEL + column * across
            picture = 0 if about.start is None else window(about, one.place).picture
            pixels = opened.task.pictures(chunk.images[row])[picture]
            sheet.picture(pixels, left, top, width, height)
            if about.start is not None:
                _mark(sheet, pixels, window(about, one.place), (left, top, width, height), patched)
            truth = ', '.join(opened.task.caption(chunk.target(row), opened.class_names))
            below = top + height + 2
            sheet.text(f'{truth}: {one.value:.3g}', left, below, across - 2 * GAP, QUIET)
        start += len(liked)
    numbers = ', '.join(map(str, rows))
    return Drawn(sheet.png(), f'The pictures that excite units of {stage} most: {numbers}.')


def _mark(
    sheet: Sheet, pixels: np.ndarray, seen: Window, place: tuple[int, int, int, int], patched: bool
) -> None:
    """Frames what a unit sees of a picture, and puts the patch beside it; or marks its center.

    Args:
      sheet: the sheet.
      pixels: of the picture.
      seen: the receptive field.
      place: (left, top, width, height) of the picture on the sheet.
      patched: whether the field is small enough for a frame.
    """
    left, top, width, height = place
    scale = height / pixels.shape[0]
    x, y, side = (value * scale for value in (seen.left, seen.top, seen.size))
    if not patched:
        sheet.dot(left + x + side / 2, top + y + side / 2, FRAME, place)
        return
    sheet.frame(left + x, top + y, side, side, FRAME, place)
    shown = shown_size(seen.size, seen.size, min(height, width))
    sheet.picture(seen.cut(pixels), left + width + GAP // 2, top, shown[1], shown[0])


def _is_patched(about: Stage, images: np.ndarray) -> bool:
    """Whether what a unit sees is a patch of the picture, and not about all of it."""
    return about.start is not None and about.receptive_field < max(images.shape[1:3])


def _note(about: Stage, stage: str, patched: bool) -> str:
    """Returns what the sheet shows, in sentences."""
    below = 'Below each stands the truth and the value of the unit.'
    rows = 'A row for each unit: the pictures that excite it most, the strongest first.'
    if about.start is None:
        return f'{stage}: a unit sees the whole picture. {rows} {below}'
    field = f'{about.receptive_field}x{about.receptive_field} pixels'
    if not patched:
        return (
            f'{stage}: a unit sees {field}, more than the picture has. {rows} The dot marks the '
            f'center of what it sees where it is strongest. {below}'
        )
    return (
        f'{stage}: a unit sees {field} of the picture at each place. {rows} The frame shows where '
        'the unit is strongest, and beside it is what it sees there; pale is outside of the '
        f'picture. {below}'
    )
