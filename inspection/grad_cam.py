"""Grad-CAM: which places of a feature map speak for a choice.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", section 3, equations 1 and 2. A channel's weight is the mean over all places of the
score's gradient with respect to it. The map is the weighted sum of the channels, of which the
positive part is kept: what speaks against the choice is left out.

A box is found at one place, and the mean over all places would forget which: the map would show
what the whole picture has of the box's class. For such a choice (`Choice.stage`) each place counts
with its own gradient, as in Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful
explanations of convolutional neural networks", section 3.

    network = opened.of(trained.load('runs/digits_lenet'))
    choice = network.choice(network.look(pixels).prediction(0))
    heat = grad_cam(network, pixels, choice)  # [b, h', w'], of the size of a map
"""

import numpy as np

from inspection.opened import Opened
from tasks.answer import Choice


def grad_cam(
    opened: Opened, pixels: np.ndarray, choice: Choice, stage: str | None = None
) -> np.ndarray:
    """Returns for each image the map of what speaks for a choice, in units of the score.

    Args:
      opened: the network.
      pixels: uint8 [b, h, w, c].
      choice: what is explained, of `Opened.choice`; the same for all images.
      stage: the name of a stage that is a map; None for the choice's, or the last one.

    Returns:
      float32 [b, h', w'] of the stage's size, nothing below 0; 0 everywhere if nothing in the stage
      speaks for the choice. If an example has several pictures (`Task.pictures`), so many maps for
      each example, one after the other.

    Raises:
      UserError: there is no such stage, or it has no places.
    """
    name = opened.stage(stage, choice)
    gradients = opened.gradients(pixels, choice)
    return combined(gradients.stages[name], gradients.slopes[name], choice.stage is not None)


def combined(maps: np.ndarray, slopes: np.ndarray, placed: bool = False) -> np.ndarray:
    """Returns the positive part of the sum of channels, each times its mean slope.

    For those who already have an `opened.Gradients`.

    Args:
      maps: a stage, [b, h, w, c].
      slopes: the gradient of each example's score with respect to it, of the same shape.
      placed: whether each place counts with its own slope instead, because the score is that of one
        place.

    Returns:
      float32 [b, h, w].
    """
    maps, slopes = (np.asarray(values, np.float32) for values in (maps, slopes))
    if placed:
        return np.maximum(np.einsum('bhwc,bhwc->bhw', maps, slopes), 0)
    return np.maximum(np.einsum('bhwc,bc->bhw', maps, slopes.mean((1, 2))), 0)
