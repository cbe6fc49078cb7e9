"""What each value of an image contributes to a score: by the gradient, smoothed, or integrated.

All are signed, and of the shape of the network's input: positive values speak for the choice.

* The gradient says how the score would change with each value, for small changes (Simonyan, Vedaldi
  and Zisserman 2014, "Deep Inside Convolutional Networks", section 3).
* SmoothGrad is its mean over noisy copies of the image (Smilkov et al. 2017, "SmoothGrad: removing
  noise by adding noise", section 2.2).
* Integrated gradients distribute the difference of the scores of an image and of a baseline, such
  as a black image, among the values (Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for
  Deep Networks", sections 3 and 5).
"""

import dataclasses

import jax
import numpy as np

import rng
from inspection import fills
from inspection.opened import Opened, filled
from tasks.answer import Choice
from training import progress

ROWS = 9  # inputs at once, for all methods, so that one program serves them
NOISE = 0.15  # of the range of the image; the paper's figures have 0.1 to 0.2
SAMPLES = 54  # the paper finds little improvement beyond 50
TOLERANCE = 0.01
MOST_STEPS = 729  # of 9, 27, 81, 243, 729


@dataclasses.dataclass(frozen=True)
class Integrated:
    """Integrated gradients, and whether they are complete.

    Attributes:
      values: float32 [b, ...], of the shape of the network's input.
      difference: float64 [b], the score of each image minus that of its baseline.
      error: float64 [b], the sum of the values minus the difference. It is due to the finite number
        of steps.
      steps: int [b], at how many points between baseline and image the gradient was taken.
    """

    values: np.ndarray
    difference: np.ndarray
    error: np.ndarray
    steps: np.ndarray


def gradient(opened: Opened, pixels: np.ndarray, choice: Choice) -> np.ndarray:
    """Returns the gradient of a choice's score with respect to the network's input.

    Args:
      opened: the network.
      pixels: uint8 [b, h, w, c].
      choice: what is explained, the same for all images.

    Returns:
      float32 [b, h, w, c].
    """
    return _slopes(opened, opened.inputs(pixels), choice)


def smooth_grad(
    opened: Opened,
    pixels: np.ndarray,
    choice: Choice,
    noise: float = NOISE,
    samples: int = SAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Returns the mean gradient over noisy copies of each image.

    The noise follows from the seed and is the same for all images.

    Args:
      opened, pixels, choice: as in `gradient`.
      noise: its standard deviation, relative to the range (largest minus smallest value) of the
        network's input.
      samples: how many copies.
      seed: of the noise.

    Returns:
      float32 [b, h, w, c].
    """
    inputs = opened.inputs(pixels)
    shape = (samples, *inputs.shape[1:])
    draws = np.asarray(jax.random.normal(rng.stream(seed, 'smooth_grad'), shape))
    means = []
    for image in inputs:
        copies = image + np.float32(noise) * (image.max() - image.min()) * draws
        means.append(_slopes(opened, copies, choice).mean(0, dtype=np.float64))
    return np.stack(means).astype(np.float32)


def integrated_gradients(
    opened: Opened,
    pixels: np.ndarray,
    choice: Choice,
    baseline: np.ndarray | str = 'black',
    tolerance: float = TOLERANCE,
    most_steps: int = MOST_STEPS,
) -> Integrated:
    """Returns integrated gradients along the straight line from a baseline to each image.

    The line lies in the network's (normalized) inputs. For each image the number of steps is
    tripled until the attributions add up to the difference of the scores, or the limit is reached;
    `Integrated.error` says what is missing.

    Args:
      opened, pixels, choice: as in `gradient`.
      baseline: uint8 [b, h, w, c], or a name of `fills`.
      tolerance: the error that is accepted, relative to the difference.
      most_steps: the limit; see MOST_STEPS.

    Raises:
      UserError: there is no such baseline.
    """
    if isinstance(baseline, str):
        baseline = fills.plain(pixels, baseline)
    starts = opened.inputs(np.broadcast_to(baseline, pixels.shape))
    lines = zip(starts, opened.inputs(pixels), strict=True)
    found = [_integrated(opened, *line, choice, tolerance, most_steps) for line in lines]
    return Integrated(*map(np.stack, zip(*found, strict=True)))


def _integrated(
    opened: Opened,
    start: np.ndarray,
    end: np.ndarray,
    choice: Choice,
    tolerance: float,
    most_steps: int,
) -> tuple[np.ndarray, float, float, int]:
    """Returns one image's (values, difference, error, steps); see `Integrated`."""
    low, high = map(float, opened.score(filled(np.stack([start, end]), ROWS), choice)[:2])
    line = end - start
    steps, total = ROWS, 0.0
    places = _midpoints(steps)
    while True:
        points = start + places.reshape(-1, *[1] * start.ndim) * line
        total += _slopes(opened, points, choice).sum(0, dtype=np.float64)
        values = line * total / steps
        error = float(values.sum()) - (high - low)
        if abs(error) <= tolerance * abs(high - low) or 3 * steps > most_steps:
            return values.astype(np.float32), high - low, error, steps
        steps *= 3
        # Each part is cut into three, and the middle one has its middle where the whole had it.
        places = _midpoints(steps)[np.arange(steps) % 3 != 1]


def _midpoints(steps: int) -> np.ndarray:
    """Returns the middles of equal parts of [0, 1], float32."""
    return ((np.arange(steps) + 0.5) / steps).astype(np.float32)


def _slopes(opened: Opened, inputs: np.ndarray, choice: Choice) -> np.ndarray:
    """Returns the gradient of each score with respect to its input, computed for ROWS at a time.

    In a terminal a bar shows the progress.
    """
    parts = [inputs[i : i + ROWS] for i in range(0, len(inputs), ROWS)]
    found = (opened.input_gradient(filled(part, ROWS), choice)[: len(part)] for part in parts)
    return np.concatenate([*progress.pictures(found, len(inputs), of=len)])
