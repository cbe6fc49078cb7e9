"""What the command shows of a picture: the text that it prints and the files that it writes."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np

import files
from errors import UserError
from tools.convolve import animation, colors, plan, sheet, text
from tools.convolve.filters import Filter
from tools.convolve.inputs import Picture
from tools.convolve.sliding import POOLED, Sliding, convolution, pooling

MOST_PRINTED = 16  # windows; of more, those around the strongest result are printed


@dataclasses.dataclass(frozen=True)
class Work:
    """What is asked for.

    Attributes:
      picture: the picture.
      filters: those of the convolutions; none for pooling alone.
      stride, padding: of the convolutions.
      pool: 'max' or 'average'; None without pooling.
      window, pool_stride: the side of pooling's windows and the step from one to the next.
    """

    picture: Picture
    filters: list[Filter]
    stride: int = 1
    padding: int = 0
    pool: Literal['max', 'average'] | None = None
    window: int = 2
    pool_stride: int = 2

    def convolutions(self) -> list[Sliding]:
        """Returns the convolution of the picture by each filter.

        Raises:
          UserError: a filter does not fit.
        """
        return [
            convolution(self.picture.values, chosen, self.stride, self.padding, self.picture.title)
            for chosen in self.filters
        ]

    def pooled(self, values: np.ndarray, kind: str, what: str = '') -> Sliding:
        """Returns a pooling of the picture or of a feature map.

        Raises:
          UserError: the window does not fit.
        """
        return pooling(values, kind, self.window, self.pool_stride, what)

    @property
    def scale(self) -> colors.Scale:
        """The colors of the picture."""
        return colors.gray(self.picture.white)


def run(work: Work, folder: Path, whole: bool) -> None:
    """Prints everything, then writes the files and prints their names.

    Args:
      work: what is asked for.
      folder: where to write.
      whole: whether to print every window and number of large pictures.

    Raises:
      UserError: a window does not fit, or a file cannot be written.
    """
    convolved = work.convolutions()
    shown = convolved[:1]
    if work.pool and shown:
        what = f'the feature map of {shown[0].filter.name}'
        shown.append(work.pooled(shown[0].result, work.pool, what))
    elif work.pool:
        shown.append(work.pooled(work.picture.values, work.pool, work.picture.title))
    _print_picture(work.picture)
    for sliding in shown:
        _print_sliding(sliding, whole)
    if len(work.filters) > 1:
        first, *others = (chosen.name for chosen in work.filters)
        print(f'\nThis was {first}; filters.png has {", ".join(others)}, too.')
    print(flush=True)  # drawing takes a moment

    contents, rows, scale = {}, [], work.scale
    for sliding in shown:
        path = folder / ('convolution.gif' if sliding.filter else 'pooling.gif')
        steps = plan.plan(sliding.result)
        after = _scale(sliding) if sliding.filter else scale
        contents[path] = animation.gif(sliding, steps, _title(sliding), scale, after)
        rows.append((str(path), _about(steps)))
        scale = after
    path = folder / ('filters.png' if convolved else 'pooling.png')
    contents[path] = _filters(work, convolved) if convolved else _poolings(work)
    rows.append((str(path), _about_sheet(work)))
    write(contents)
    print(files.columns(rows, 2))


def _print_picture(picture: Picture) -> None:
    print(f'{picture.title[0].upper()}{picture.title[1:]}, {text.size(picture.values.shape)}')
    for note in picture.notes:
        print(f'  {note}')
    if max(picture.values.shape) <= text.MOST_COLUMNS:
        print(text.table(picture.values))


def _print_sliding(sliding: Sliding, whole: bool) -> None:
    if sliding.filter:
        print(f'\n{text.of_filter(sliding.filter)}')
    else:
        side = text.size((sliding.side, sliding.side))
        print(f'\nPooling: the {sliding.pooled} of each {side} window of {sliding.what}')
    print(f'\n{text.of_sizes(sliding)}')
    windows = list(np.ndindex(sliding.result.shape))
    if not whole and len(windows) > MOST_PRINTED:
        windows = plan.around_strongest(sliding.result)
        print(
            f'\n{len(windows)} of the {sliding.result.size:,} windows, around the one whose result '
            'is farthest from 0; --all prints every one.'
        )
    for row, column in windows:
        print(f'\n{text.of_window(sliding, row, column)}')
    print(f'\n{text.of_result(sliding, whole)}')


def _title(sliding: Sliding) -> str:
    if sliding.filter:
        return f'Convolution of {sliding.what} with the filter {sliding.filter.name}'
    return f'Pooling of {sliding.what}: the {sliding.pooled} of each window'


def _about(steps: plan.Plan) -> str:
    """Returns how many frames an animation has, and what they show."""
    count = f'{len(steps.steps)} frame{"s" * (len(steps.steps) != 1)}'
    if not steps.rows:
        return f'{count}, one for each window'
    rows = 'one row' if steps.rows == 1 else f'{steps.rows} rows'
    one_by_one = (
        f'{len(steps.closely)} windows one by one' if len(steps.closely) > 1 else 'one window'
    )
    return f'{count}: {rows} of the result at a time, and {one_by_one}'


def _about_sheet(work: Work) -> str:
    if not work.filters:
        return 'maximum and mean side by side'
    filters = 'the filter with its' if len(work.filters) == 1 else 'each filter with its'
    return f'{filters} feature map' + ', and its maximum and mean' * bool(work.pool)


def _scale(convolved: Sliding) -> colors.Scale:
    """Returns the colors of a feature map."""
    kind = colors.picture_like if convolved.is_picture_like else colors.diverging
    return kind(convolved.result)


def _panel(name: str, values: np.ndarray, scale: colors.Scale) -> sheet.Panel:
    return sheet.Panel(f'{name}, {text.size(values.shape)}', values, scale)


def _filters(work: Work, convolved: list[Sliding]) -> bytes:
    """Draws each filter with its feature map, and the map's poolings if there is pooling."""
    picture = work.picture
    first = _panel(picture.title, picture.values, work.scale)
    numbers = [_of_filter(chosen) for chosen in work.filters]
    maps = [
        _panel(f'feature map of {each.filter.name}', each.result, _scale(each))
        for each in convolved
    ]
    title = f'Feature maps of {picture.title} (stride {work.stride}, padding {work.padding})'
    if not work.pool:
        return sheet.png(sheet.cards(first, numbers, maps), title)
    lines = [[None, first, *_poolings_of(work, first)]]
    for of_filter, panel in zip(numbers, maps, strict=True):
        lines.append([of_filter, panel, *_poolings_of(work, panel)])
    return sheet.png(lines, f'{title}, pooled (stride {work.pool_stride})')


def _of_filter(chosen: Filter) -> sheet.Panel:
    divided = f', sum / {chosen.divisor}' if chosen.divisor != 1 else ''
    scale = colors.weak(float(np.abs(chosen.numbers).max()))
    return sheet.Panel(f'{chosen.name}{divided}', chosen.numbers, scale, is_filter=True)


def _poolings(work: Work) -> bytes:
    """Draws the picture, its maxima and its means."""
    first = _panel(work.picture.title, work.picture.values, work.scale)
    title = f'Pooling of {work.picture.title} (stride {work.pool_stride})'
    return sheet.png([[first, *_poolings_of(work, first)]], title)


def _poolings_of(work: Work, panel: sheet.Panel) -> list[sheet.Panel]:
    """Returns the maxima and the means of a panel's numbers, in the same colors."""
    return [
        _panel(f'{name} of {work.window}x{work.window}', pooled.result, panel.scale)
        for kind, name in POOLED.items()
        for pooled in [work.pooled(panel.values, kind)]
    ]


def write(contents: dict[Path, bytes]) -> None:
    """Writes files. One that is there already must have the same content.

    Raises:
      UserError: a file is there with another content, and none is written; or one cannot be.
    """
    for path, content in contents.items():
        if path.is_symlink() or (path.exists() and not _holds(path, content)):
            raise UserError(
                f'{path} is there already, and is another one: remove it, or choose another '
                '--output.'
            )
    for path, content in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(path, content)
        except OSError as error:
            raise UserError(
                f'Cannot write {path}: {error.strerror or error}. Free some space, or choose '
                'another --output.'
            ) from error


def _holds(path: Path, content: bytes) -> bool:
    if not files.is_file(path) or path.stat().st_size != len(content):
        return False
    return path.read_bytes() == content
