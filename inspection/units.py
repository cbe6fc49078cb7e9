"""Which units of a network answer to pictures at all, and to how many of them.

A unit is a channel of a map or an output of a dense layer. After ReLU one can be stuck at zero: it
gets no gradient from any picture, and never learns again (Maas, Hannun and Ng 2013, "Rectifier
nonlinearities improve neural network acoustic models", section 2). One that has the same value
everywhere says nothing either.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Collection

import numpy as np

from files import columns
from inspection import drawing
from inspection.drawing import Drawn
from inspection.examples import Chunk
from inspection.survey import Glance
from models.trace import Trace

CLOSE = 1e-6  # two values that differ by less, relative to the larger, are the same
LISTED, LISTED_IN_PICTURE = 30, 8  # numbers of units in a line
PICTURES, PLACES = '#b9cfe4', drawing.FILL


@dataclasses.dataclass(frozen=True)
class Activity:
    """How the units of a stage answer.

    Attributes:
      stage: its name.
      pictures: the fraction of pictures for which each unit is not 0 somewhere, float64 [units].
      places: the fraction of all places of all pictures where it is not 0, float64 [units].
      zero: the numbers of the units that are 0 everywhere in every picture.
      constant: those of the units that have another value, the same everywhere in every picture;
        none if there was only one picture.
    """

    stage: str
    pictures: np.ndarray
    places: np.ndarray
    zero: np.ndarray
    constant: np.ndarray

    def text(self, most: int) -> str:
        """Returns its line: how many units are dead, and which; of many only the first `most`."""
        count = len(self.pictures)
        found = [
            f'{len(numbers)} of {count} units {one if len(numbers) == 1 else more}: '
            + _listed(numbers, most)
            for numbers, one, more in (
                (self.zero, 'is always 0', 'are always 0'),
                (self.constant, 'never changes', 'never change'),
            )
            if len(numbers)
        ]
        return '; '.join(found) or f'all {count} units answer'


def pooled(traced: Trace) -> set[str]:
    """Returns the stages that pool a map: their channels are units of the stage before."""
    pools = {layer.name for layer in traced.layers if layer.kind.endswith(' pool')}
    return pools & set(traced.stages)


class Units:
    """A collector of a pass (survey.py) of what units are active.

    Args:
      without: names of stages whose channels are not counted, such as those of `pooled`.

    Attributes:
      examples: how many pictures were looked at.
    """

    def __init__(self, without: Collection[str] = ()):
        self.examples = 0
        self._without = without
        self._sums: OrderedDict[str, list[np.ndarray]] = OrderedDict()
        self._bounds: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, chunk: Chunk, glance: Glance) -> None:
        """Takes the activity of some examples."""
        self.examples += len(chunk)
        for stage, active in glance.active.items():
            if stage in self._without:
                continue
            sums = np.stack([(active > 0).sum(0), active.sum(0, dtype=np.float64)])
            low, high = glance.weakest[stage].min(0), glance.strongest[stage].max(0)
            if stage in self._sums:
                sums = sums + self._sums[stage]
                low = np.minimum(low, self._bounds[stage][0])
                high = np.maximum(high, self._bounds[stage][1])
            self._sums[stage], self._bounds[stage] = sums, (low, high)

    def activities(self) -> list[Activity]:
        """Returns the activity of each stage, in order."""
        found = []
        for stage, (pictures, places) in self._sums.items():
            low, high = self._bounds[stage]
            # Of a single picture an output of a dense layer is one number, which cannot change.
            close = high - low <= CLOSE * np.maximum(np.abs(low), np.abs(high))
            same = close & (self.examples > 1)
            zero = pictures == 0
            found.append(
                Activity(
                    stage,
                    pictures / self.examples,
                    places / self.examples,
                    np.flatnonzero(zero),
                    np.flatnonzero(same & ~zero),
                )
            )
        return found

    def text(self) -> str:
        """Returns how many units are dead, in a sentence."""
        found = self.activities()
        dead = [(a.stage, len(a.zero) + len(a.constant)) for a in found]
        total, count = sum(n for _, n in dead), sum(len(a.pictures) for a in found)
        where = ', '.join(f'{n} in {stage}' for stage, n in dead if n)
        seen = drawing.counted(self.examples, 'picture')
        if not total:
            return f'Each of the {count:,} units answers to some of {seen}.'
        return f'{total:,} of {count:,} units answer to none of {seen}: {where}.'

    def table(self) -> str:
        """Returns a text: a line for each stage, then one for each unit."""
        found = self.activities()
        lines = [self.text(), '', columns([(a.stage, a.text(LISTED)) for a in found], 2), '']
        rows = [('stage', 'unit', 'pictures', 'places', '')]
        for one in found:
            for unit, (pictures, places) in enumerate(zip(one.pictures, one.places, strict=True)):
                note = 'always 0' * (unit in one.zero) + 'never changes' * (unit in one.constant)
                fractions = (f'{100 * x:.1f} %' for x in (pictures, places))
                rows.append((one.stage, str(unit), *fractions, note))
        note = (
            'pictures: those for which the unit is not 0 somewhere. places: those of all pictures '
            'where it is not 0.'
        )
        return '\n'.join([*lines, columns(rows), '', note, ''])

    def drawn(self, title: str) -> Drawn:
        """Returns a picture with a panel for each stage, and a bar for each unit in it.

        Args:
          title: its first line.
        """
        found = self.activities()
        note = (
            f'{self.text()} Light: pictures for which a unit is not 0 somewhere; dark: places of '
            'all pictures where it is not 0. Red: a unit that answers to none.'
        )
        figure = drawing.figure(8, 1.35 * len(found), title, note)
        rows = figure.subplots(len(found), 1, squeeze=False)[:, 0]
        for axes, one in zip(rows, found, strict=True):
            _draw(axes, one)
        drawing.plain(rows[-1], 'unit', '')
        figure.supylabel('active (%)', color=drawing.QUIET, fontsize=9)
        return Drawn(
            drawing.png(figure), f'For how many pictures each unit is active. {self.text()}'
        )


def _draw(axes, one: Activity) -> None:
    """Draws the panel of a stage."""
    for values, color in ((one.pictures, PICTURES), (one.places, PLACES)):
        drawing.bars(axes, 100 * values, color)
    dead = np.concatenate([one.zero, one.constant])
    axes.plot(dead, np.full(len(dead), 4), '^', color=drawing.FRAME, markersize=5)
    drawing.plain(axes, '', '')
    axes.set_title(
        f'{one.stage}: {one.text(LISTED_IN_PICTURE)}', fontsize=9, loc='left', color=drawing.INK
    )
    axes.set_ylim(0, 100)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _listed(numbers: np.ndarray, most: int) -> str:
    """Returns the numbers of units as text; of many only the first."""
    return ', '.join(map(str, numbers[:most])) + ', ...' * (len(numbers) > most)
