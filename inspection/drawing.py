"""What all pictures of this room share: figures without a display, and their bytes."""

import io
from typing import TYPE_CHECKING

import fonts

if TYPE_CHECKING:  # imported when a picture is drawn
    from matplotlib.figure import Figure

DPI = 110
INK, QUIET, FRAME = (
    '#1c2733',
    '#55616e',
    '#d1495b',
)  # text, lesser text, what is marked in a picture


def figure(width: float, height: float, title: str = '') -> 'Figure':
    """Returns an empty figure.

    Args:
      width, height: in inches, of DPI pixels each.
      title: lines of text above it, in any script.
    """
    # The object interface, because pyplot keeps global state and may need a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=DPI, layout='constrained', facecolor='white')
    FigureCanvasAgg(made)
    if title:
        text, font = fonts.for_text(title)
        made.suptitle(
            text, font=font, fontsize=11, color=INK, x=0.01, ha='left', parse_math=False
        )  # fmt: skip
    return made


def png(figure: 'Figure') -> bytes:
    """Returns a figure as a PNG file."""
    picture = io.BytesIO()
    figure.savefig(picture, format='png')
    return picture.getvalue()
