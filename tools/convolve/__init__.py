"""Shows one convolution by hand: every window, its products and their sum, and the feature map.

    python -m tools.convolve
    python -m tools.convolve --image=digit:3 --filter=sobel
    python -m tools.convolve photo.jpg --filter=sobel --filter=blur --stride=2
    python -m tools.convolve --filter="1,0,-1;1,0,-1;1,0,-1" --padding=1
    python -m tools.convolve --image=tower --pool=max
    python -m tools.convolve --image=digit --filter=sobel --pool=average

Without an IMAGE it takes the textbook's 5x5 picture of ones and zeros. A picture is made gray,
with numbers from 0 (black) to 255, and reduced to --size. What deep learning calls a convolution is
strictly speaking a cross-correlation: the filter is not flipped. The numbers are those of the
networks here, without bias and activation. A border that the stride does not reach is left over.

--pool without a --filter pools the picture; with one it pools the feature map.

images: textbook, tower (a photograph that comes with scikit-learn) and digit, which is the first
handwritten digit of the test split; digit:N is the one with the number N.
"""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

import command
from errors import UserError, shortened
from tools.convolve.limits import LEAST_SIZE, MOST_FILTERS, MOST_SIDE, MOST_SIZE, SIZE

if TYPE_CHECKING:  # imported once the command line is valid
    from tools.convolve.filters import Filter


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command.make_parser('tools.convolve', __doc__)
    add = parser.add_argument
    add('file', nargs='?', type=Path, metavar='IMAGE', help='a picture file [--image]')
    add('--image', metavar='NAME', help='textbook, digit, digit:N or tower [textbook]')
    add(
        '--filter',
        action='append',
        metavar='NAME|ROWS',
        help='a name, or an odd number of rows such as "1,0,1;0,1,0;1,0,1"; give it again for '
        'several: the text and the animation show the first [textbook: cross; others: sobel, '
        'sobel_y, laplacian, blur, sharpen]; there are also gaussian, emboss and identity',
    )
    add('--stride', type=command.positive, metavar='N', help='step of the filter [1]')
    add('--padding', type=_padding, metavar='N', help='zeros on each of the four sides [0]')
    add('--pool', choices=('max', 'average'), help='pool, too: max or average')
    add('--window', type=command.positive, metavar='N', help="side of pooling's windows [2]")
    add(
        '--pool_stride',
        type=command.positive,
        metavar='N',
        help='step of pooling [the side of its windows, so that they lie side by side]',
    )
    add(
        '--size',
        type=command.positive,
        metavar='N',
        default=SIZE,
        help=f'a picture is reduced until its longer side has at most N pixels [{SIZE}]',
    )
    add('--all', action='store_true', help='print every window and the whole map of large pictures')
    add('--output', type=Path, metavar='DIR', help='folder to write to [one in runs/convolve]')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, extra = command.parse(parser(), argv)
    if extra:
        raise UserError(f'{extra[0]} means nothing to tools.convolve: it has no configuration.')
    check(arguments)
    from tools.convolve import filters, inputs, shown

    chosen = filters.parse(arguments.filter or [])
    if arguments.file is not None:
        picture = inputs.from_file(arguments.file)
    else:
        name = 'textbook' if arguments.image is None else arguments.image
        picture = inputs.embedded(name)
    picture = inputs.reduced(picture, arguments.size)
    if not chosen and not arguments.pool:
        chosen = [filters.named(name) for name in picture.filters]
    window = arguments.window or 2
    work = shown.Work(
        picture,
        chosen,
        stride=arguments.stride or 1,
        padding=arguments.padding or 0,
        pool=arguments.pool,
        window=window,
        pool_stride=arguments.pool_stride or window,
    )
    folder = arguments.output or Path('runs/convolve') / folder_name(arguments, chosen)
    shown.run(work, folder, arguments.all)
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Checks that the options go together.

    Raises:
      UserError: they do not.
    """
    alone = arguments.pool and not arguments.filter
    if arguments.file is not None and arguments.image is not None:
        raise UserError('Give either a picture file or --image, not both.')
    if not arguments.pool:
        for name in ('window', 'pool_stride'):
            if getattr(arguments, name) is not None:
                raise UserError(
                    f'--{name} belongs to pooling: give --pool=max or --pool=average, too.'
                )
    for name, instead in (('stride', '--pool_stride is the step of pooling'), ('padding', '')):
        if alone and getattr(arguments, name) is not None:
            hint = f'; {instead}' if instead else ''
            raise UserError(f'--{name} belongs to the convolution: give a --filter, too{hint}.')
    if (arguments.window or 1) > MOST_SIDE:
        raise UserError(
            f'--window={arguments.window} is too large to be read: at most {MOST_SIDE} is possible.'
        )
    if len(arguments.filter or ()) > MOST_FILTERS:
        raise UserError(
            f'--filter is given {len(arguments.filter)} times; one picture shows at most '
            f'{MOST_FILTERS}.'
        )
    if not LEAST_SIZE <= arguments.size <= MOST_SIZE:
        raise UserError(f'--size={arguments.size} must be from {LEAST_SIZE} to {MOST_SIZE} pixels.')


def folder_name(arguments: argparse.Namespace, chosen: 'list[Filter]') -> str:
    """Returns a name that says what is shown, such as 'digit_3_sobel_stride2_max2'."""
    name = arguments.image or 'textbook'
    if arguments.file is not None:
        name = arguments.file.stem[:40]
    if arguments.size != SIZE:
        name += f'_size{arguments.size}'
    own = [text.name if text.named else 'own' for text in chosen] if arguments.filter else []
    parts = [name.replace(':', '_'), *own]
    for option in ('stride', 'padding'):
        value = getattr(arguments, option)
        if value is not None:
            parts.append(f'{option}{value}')
    if arguments.pool:
        step = f'_stride{arguments.pool_stride}' if arguments.pool_stride else ''
        parts.append(f'{arguments.pool}{arguments.window or 2}{step}')
    return '_'.join(parts)


def _padding(text: str) -> int:
    """Parses a whole number, 0 or more; an argparse type."""
    if not re.fullmatch('[0-9]{1,9}', text):
        raise argparse.ArgumentTypeError(
            f'{shortened(text)} is not a whole number from 0 to 999,999,999'
        )
    return int(text)
