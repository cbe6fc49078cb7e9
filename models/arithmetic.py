"""The arithmetic of convolutions: sizes, padding, receptive fields, parameters, multiply-adds.

One axis at a time: N is the size of the input, F that of the window (filter), S the stride, P the
number of zeros on either side. Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep
learning", chapter 2; receptive fields after Araujo, Norris and Sim 2019, "Computing receptive
fields of convolutional neural networks", section 2.
"""

from collections.abc import Iterable
from typing import Literal

from errors import UserError

_NEAR = 4  # how many strides or paddings that fit a message names at most


def output_size(
    size: int,
    window: int,
    stride: int = 1,
    padding: int = 0,
    rounding: Literal['exact', 'floor'] = 'exact',
    where: str = 'the layer',
) -> int:
    """Returns (N + 2P - F) / S + 1, the number of positions of a window.

    Args:
      size, window, stride, padding: N, F, S and P.
      rounding: 'exact' refuses a stride that leaves pixels over at the end; 'floor' drops them
        silently, as the networks in this folder and all frameworks do.
      where: the layer's name in the message.

    Raises:
      UserError: the window does not fit even once, or with 'exact' not a whole number of times.
        Shows the arithmetic, and the strides and paddings that fit.
    """
    for name, value, least in (
        ('size', size, 1), ('window', window, 1), ('stride', stride, 1), ('padding', padding, 0)
    ):  # fmt: skip
        if value < least:
            raise UserError(f'{where}: the {name} is {value}, and should be at least {least}.')
    span = size + 2 * padding - window
    total = f'(N + 2P - F) / S + 1 = ({size} + 2 x {padding} - {window}) / {stride} + 1'
    if span < 0:
        raise UserError(
            f'the image is too small: {where} slides a window of {window} over {size} pixels, and '
            f'{total} is below 1.'
        )
    if rounding == 'exact' and span % stride:
        raise UserError(
            f'{where} does not fit: {total} = {span / stride + 1:.4g} is not whole. '
            f'{_what_fits(size, window, stride, padding)}'
        )
    return span // stride + 1


def fitting_strides(size: int, window: int, padding: int = 0) -> list[int]:
    """Returns every stride with which no pixel is left over, ascending."""
    span = size + 2 * padding - window
    return [s for s in range(1, span + 1) if span % s == 0] or [1] * (span == 0)


def fitting_paddings(size: int, window: int, stride: int = 1) -> list[int]:
    """Returns every padding below the window's size with which no pixel is left over, ascending."""
    spans = ((p, size + 2 * p - window) for p in range(window))
    return [p for p, span in spans if span >= 0 and span % stride == 0]


def _what_fits(size: int, window: int, stride: int, padding: int) -> str:
    strides = sorted(fitting_strides(size, window, padding), key=lambda s: abs(s - stride))[:_NEAR]
    paddings = fitting_paddings(size, window, stride)[:_NEAR]
    with_padding = f'With padding {padding}, stride {_listed(strides)} fits'
    if paddings:
        return f'{with_padding}; with stride {stride}, padding {_listed(paddings)} fits.'
    return f'{with_padding}; with stride {stride}, no padding below {window} does.'


def _listed(numbers: Iterable[int]) -> str:
    return ' or '.join(map(str, sorted(numbers)))


def same_padding(window: int) -> int:
    """Returns the padding that keeps the size at stride 1, (F - 1) / 2: 3 -> 1, 5 -> 2, 7 -> 3.

    Raises:
      UserError: the window is even, so that the two sides would need different paddings.
    """
    if window % 2 == 0:
        raise UserError(
            f'No padding keeps the size with a window of {window}: (F - 1) / 2 is whole only for '
            'odd windows.'
        )
    return (window - 1) // 2


def receptive_field(layers: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Returns (receptive field, stride) in pixels of the image after layers (window, stride).

    A layer widens the field by F - 1 times the stride so far, then multiplies that stride by S.
    """
    field, jump = 1, 1
    for window, stride in layers:
        field, jump = field + (window - 1) * jump, jump * stride
    return field, jump


def convolution_parameters(
    window: int, in_channels: int, filters: int, use_bias: bool = True
) -> int:
    """Returns the number of weights, F x F x in x filters, and of biases, one for each filter."""
    return window * window * in_channels * filters + filters * use_bias


def convolution_multiply_adds(
    window: int, in_channels: int, filters: int, height: int, width: int
) -> int:
    """Returns the multiply-adds for one image: F x F x in for every number of the output.

    Args:
      window, in_channels, filters: F, and the channels in and out.
      height, width: of the output map.
    """
    return window * window * in_channels * filters * height * width
