"""An animated GIF of a window that slides."""

import io

from PIL import Image

from tools.convolve import colors
from tools.convolve.plan import Plan
from tools.convolve.scene import Scene
from tools.convolve.sliding import Sliding


def gif(
    sliding: Sliding, plan: Plan, title: str, scale: colors.Scale, result_scale: colors.Scale
) -> bytes:
    """Returns an animation as the bytes of a GIF that repeats for ever.

    Args:
      sliding: what the window does.
      plan: the frames.
      title: the first line of each.
      scale, result_scale: the colors of what the window slides over, and of its result.
    """
    scene = Scene(sliding, title, scale, result_scale)
    # One palette for all frames, so that a color is the same in each of them.
    palette = Image.new('P', (1, 1))
    palette.putpalette([part for color in colors.palette() for part in color])
    first, *others = (
        scene.frame(step).quantize(palette=palette, dither=Image.Dither.NONE) for step in plan.steps
    )
    file = io.BytesIO()
    first.save(
        file,
        'GIF',
        save_all=True,
        append_images=others,
        duration=[step.milliseconds for step in plan.steps],
        loop=0,
        optimize=True,  # what did not change from one frame to the next is stored as transparent
    )
    return file.getvalue()
