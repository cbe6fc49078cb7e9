"""One frame of an animation: the picture with its window, the sum, and the result as it grows.

Above, the picture and the result in cells of one size, so that one sees how much smaller the
result is. Below, the window's numbers, the filter's, and what comes of them.
"""

import numpy as np
from PIL import Image, ImageDraw

from tools.convolve import colors, grid
from tools.convolve.plan import Step
from tools.convolve.sliding import Sliding
from tools.convolve.text import number, size

TIMES = '\N{MULTIPLICATION SIGN}'
MARGIN, GAP = 24, 64  # pixels, as all that follows
TITLE, SMALL = 18, 13  # heights of letters
HEAD = 62  # pixels for the title and the line below it
CAPTION = 24  # and for the caption of a grid
BOX = 384  # pixels at most of the picture's longer side
LARGEST_CELL, PANEL_CELL, PANEL = 56, 46, 182
SCALE, BAR = 150, 12  # width and height of a scale
LEAST_SUBSCRIBED = 44  # pixels of a cell that has room for the weight below its number


class Scene:
    """Draws the frames of one convolution or pooling.

    Args:
      sliding: what the window does.
      title: the first line.
      scale: the colors of what the window slides over.
      result_scale: the colors of the result.
    """

    def __init__(
        self, sliding: Sliding, title: str, scale: colors.Scale, result_scale: colors.Scale
    ):
        self.sliding, self.title = sliding, title
        self.scale, self.result_scale = scale, result_scale
        height, width = sliding.padded.shape
        self.cell = max(1, min(LARGEST_CELL, BOX // max(height, width)))
        self.panel_cell = min(PANEL_CELL, PANEL // sliding.side)
        self._place()
        self.base = self._base()
        self.full = grid.draw(sliding.result, self.cell, self.result_scale.colors(sliding.result))

    def _place(self) -> None:
        """Finds out where everything stands."""
        height, width = (n * self.cell for n in self.sliding.padded.shape)
        above, above_result = self._captions()
        width = max(width, grid.length(above, SMALL))
        result_width = max(
            SCALE, self.sliding.result.shape[1] * self.cell, grid.length(above_result, SMALL)
        )
        panel = self.sliding.side * self.panel_cell
        grids = 3 if self.sliding.filter else 1
        self.panel_step = panel + 46
        panels = grids * self.panel_step + 110
        row = width + GAP + result_width
        inner = max(
            row,
            panels,
            grid.length(self.title, TITLE),
            grid.length(self._settings(), SMALL),
        )
        self.width = inner + 2 * MARGIN
        left = MARGIN + (inner - row) // 2
        top = HEAD + CAPTION + MARGIN // 2
        self.picture_at = (left, top)
        self.result_at = (left + width + GAP, top)
        scale_bottom = self.sliding.result.shape[0] * self.cell + 44
        self.panel_at = (
            MARGIN + (inner - panels) // 2,
            top + max(height, scale_bottom) + MARGIN + CAPTION,
        )
        self.height = self.panel_at[1] + max(panel, 70) + 2 * MARGIN + 8

    def _base(self) -> Image.Image:
        """Draws what is the same in all frames."""
        sliding = self.sliding
        image = Image.new('RGB', (self.width, self.height), colors.BACKGROUND)
        pen = ImageDraw.Draw(image)
        grid.write(pen, (MARGIN, 16), self.title, TITLE)
        grid.write(pen, (MARGIN, 42), self._settings(), SMALL, colors.MUTED)
        shades = self.scale.colors(sliding.padded)
        border = np.ones(sliding.padded.shape, bool)
        inside = slice(sliding.padding, -sliding.padding or None)
        border[inside, inside] = False
        shades[border] = colors.PADDING
        picture = grid.draw(sliding.padded, self.cell, shades, border)
        image.paste(picture, self.picture_at)
        grid.border(pen, self.picture_at, picture.size)
        for place, caption in zip((self.picture_at, self.result_at), self._captions(), strict=True):
            self._caption(pen, place, caption)
        left, top = self.result_at
        height, width = (n * self.cell for n in sliding.result.shape)
        self._hatch(image, (left, top), (width, height))
        self._draw_scale(image, (left, top + height + 14))
        return image

    def _captions(self) -> tuple[str, str]:
        """Returns what stands above the picture and above the result."""
        sliding = self.sliding
        padded = ', zeros around it' if sliding.padding else ''
        name = 'feature map' if sliding.filter else f'{sliding.pooled} of each window'
        return (
            f'{sliding.what}, {size(sliding.size)}{padded}',
            f'{name}, {size(sliding.result.shape)}',
        )

    def _hatch(self, image: Image.Image, corner: tuple[int, int], size: tuple[int, int]) -> None:
        """Draws slanted lines where the result is not there yet; no number has such a color."""
        width, height = size
        hatched = Image.new('RGB', size, colors.BACKGROUND)
        pen = ImageDraw.Draw(hatched)
        for start in range(-height, width, 9):
            pen.line([(start, height), (start + height, 0)], colors.HATCH)
        image.paste(hatched, corner)
        grid.border(ImageDraw.Draw(image), corner, size)

    def _settings(self) -> str:
        sliding = self.sliding
        what = 'filter' if sliding.filter else 'window'
        padding = f', padding {sliding.padding}' if sliding.filter else ''
        arithmetic = ' and '.join(
            sliding.count_places(count) for count in dict.fromkeys(sliding.size)
        )
        return f'{what} {size((sliding.side,) * 2)}, stride {sliding.stride}{padding}: {arithmetic}'

    def _caption(self, pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str) -> None:
        grid.write(pen, (place[0], place[1] - 8), text, SMALL, colors.INK, 'ls')

    def _draw_scale(self, image: Image.Image, place: tuple[int, int]) -> None:
        """Draws the colors of the result with the numbers that they stand for."""
        left, top = place
        low, high = self.result_scale.low, self.result_scale.high
        values = np.broadcast_to(np.linspace(low, high, SCALE), (BAR, SCALE))
        image.paste(Image.fromarray(self.result_scale.colors(values)), place)
        pen = ImageDraw.Draw(image)
        grid.border(pen, place, (SCALE, BAR))
        for value in self.result_scale.ticks():
            share = (value - low) / (high - low)
            anchor = {0.0: 'la', 1.0: 'ra'}.get(share, 'ma')
            place = (left + share * SCALE, top + BAR + 3)
            grid.write(pen, place, number(value), 11, colors.MUTED, anchor)

    def frame(self, step: Step) -> Image.Image:
        """Returns the frame of a step as RGB; all frames have one size."""
        image = self.base.copy()
        pen = ImageDraw.Draw(image)
        self._fill(image, step.done)
        cell, stride, side = self.cell, self.sliding.stride, self.sliding.side
        line = 3 if cell >= 4 else 2
        corner = tuple(
            start + place * stride * cell
            for start, place in zip(self.picture_at, (step.column, step.row), strict=True)
        )
        grid.outline(pen, corner, (side * cell, side * cell), line)
        if self.sliding.filter and cell >= LEAST_SUBSCRIBED:
            self._write_weights(image, corner)
        there = tuple(
            start + place * cell
            for start, place in zip(self.result_at, (step.column, step.row), strict=True)
        )
        grid.outline(pen, there, (cell, cell), line)
        self._draw_panel(image, step)
        return image

    def _fill(self, image: Image.Image, done: int) -> None:
        """Pastes the first `done` numbers of the result."""
        left, top = self.result_at
        rows, columns = divmod(done, self.sliding.result.shape[1])
        cell, width = self.cell, self.full.width
        for box in (
            (0, 0, width, rows * cell),
            (0, rows * cell, columns * cell, (rows + 1) * cell),
        ):
            if box[2] > box[0] and box[3] > box[1]:
                image.paste(self.full.crop(box), (left + box[0], top + box[1]))

    def _write_weights(self, image: Image.Image, corner: tuple[int, int]) -> None:
        """Writes the filter's numbers small into the cells of the window."""
        pen = ImageDraw.Draw(image)
        for (row, column), weight in np.ndenumerate(self.sliding.filter.numbers):
            place = (
                corner[0] + (column + 1) * self.cell - 4,
                corner[1] + (row + 1) * self.cell - 3,
            )
            dark = colors.is_dark(image.getpixel((place[0], place[1] - 12)))
            ink = colors.ACCENT_ON_DARK if dark else colors.ACCENT
            pen.text(place, f'{TIMES}{number(weight)}', ink, grid.letters(11), anchor='rs')

    def _draw_panel(self, image: Image.Image, step: Step) -> None:
        """Draws the window's numbers, what is done with them, and the result."""
        sliding = self.sliding
        patch = sliding.patch(step.row, step.column)
        grids = [('window', patch, self.scale.colors(patch), TIMES if sliding.filter else '')]
        if sliding.filter:
            numbers, products = sliding.filter.numbers, sliding.products(step.row, step.column)
            bound = np.abs(numbers).max()
            weights = colors.weak(bound).colors(numbers)
            shades = colors.weak(bound * self.scale.high).colors(products)
            grids += [('filter', numbers, weights, '='), ('products', products, shades, '')]
        pen = ImageDraw.Draw(image)
        left, top = self.panel_at
        side = sliding.side * self.panel_cell
        middle = top + side // 2
        for name, values, cells, sign in grids:
            image.paste(grid.draw(values, self.panel_cell, cells), (left, top))
            if sliding.kind == 'max':
                self._frame_largest(pen, patch, (left, top))
            self._caption(pen, (left, top), name)
            grid.write(pen, (left + side + 23, middle), sign, 24, colors.INK, 'mm')
            left += self.panel_step
        self._draw_answer(image, step, (left, middle))
        total = sliding.result.size
        place = step.row * sliding.result.shape[1] + step.column + 1
        where = f'window {place:,} of {total:,}: row {step.row + 1}, column {step.column + 1}'
        grid.write(pen, (self.width / 2, self.height - 16), where, SMALL, colors.MUTED, 'ms')

    def _frame_largest(
        self, pen: ImageDraw.ImageDraw, patch: np.ndarray, corner: tuple[int, int]
    ) -> None:
        """Draws a frame into the cell of the first of the largest numbers."""
        row, column = np.unravel_index(patch.argmax(), patch.shape)
        left, top = corner[0] + column * self.panel_cell, corner[1] + row * self.panel_cell
        last = self.panel_cell - 2
        pen.rectangle([left + 1, top + 1, left + last, top + last], None, colors.ACCENT, 3)

    def _draw_answer(self, image: Image.Image, step: Step, place: tuple[int, int]) -> None:
        """Draws the sum, maximum or mean as a cell of the result, larger."""
        sliding, pen = self.sliding, ImageDraw.Draw(image)
        value = sliding.result[step.row, step.column]
        left, middle = place
        color = tuple(int(part) for part in self.result_scale.colors(np.array(value)))
        pen.rectangle([left, middle - 30, left + 100, middle + 30], color, colors.ACCENT, 3)
        text = number(value)
        letters = 26 if len(text) < 6 else 18
        grid.write(pen, (left + 50, middle), text, letters, colors.ink(color), 'mm')
        grid.write(pen, (left + 50, middle - 42), self._answer(step), SMALL, colors.INK, 'ms')
        grid.write(pen, (left - 23, middle), '→', 22, colors.INK, 'mm')

    def _answer(self, step: Step) -> str:
        """Returns what the number of a step is."""
        sliding = self.sliding
        if sliding.kind == 'max':
            return 'maximum'
        if sliding.kind == 'average':
            total = sliding.patch(step.row, step.column).sum()
            return f'sum {number(total)} / {sliding.side**2}'
        if sliding.filter.divisor == 1:
            return 'sum'
        total = sliding.products(step.row, step.column).sum()
        return f'sum {number(total)} / {sliding.filter.divisor}'
