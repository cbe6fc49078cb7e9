"""The ways to explain an answer, by name: a row for each, with what its map means.

explanation = METHODS['grad_cam'].explain(opened, image, choice, stage=None)
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from inspection import attribution
from inspection.grad_cam import grad_cam
from inspection.occlusion import occlusion
from inspection.opened import Opened
from inspection.overlay import resized
from tasks.answer import Choice


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why an example's answer has a part.

    Attributes:
      maps: float32 [h', w'], one for each picture of the example (`Task.pictures`).
      note: what else there is to say, in a few words; '' for nothing.
    """

    maps: tuple[np.ndarray, ...]
    note: str = ''


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to explain an answer.

    Attributes:
      title: its name in pictures and sentences.
      meaning: of the values of a map, for a color bar.
      signed: whether values below 0 mean something: that they speak against the choice.
      share: of the values that are to lie on a color scale (`overlay.scale_of`).
      explain: returns the explanation of one image, uint8 [h, w, c], for a choice. The last
        argument is the name of a stage, for those methods that look at one, or None. It raises a
        UserError if the method does not suit the network.
    """

    title: str
    meaning: str
    signed: bool
    share: float
    explain: Callable[[Opened, np.ndarray, Choice, str | None], Explanation]


def _grad_cam(opened: Opened, image: np.ndarray, choice: Choice, stage: str | None) -> Explanation:
    name = opened.stage(stage, choice)
    maps = grad_cam(opened, image[None], choice, name)
    note = f'{name}, {maps.shape[1]}x{maps.shape[2]}' + ', 0 everywhere' * (not maps.any())
    return Explanation(tuple(maps), note)


def _integrated(
    opened: Opened, image: np.ndarray, choice: Choice, stage: str | None
) -> Explanation:
    found = attribution.integrated_gradients(opened, image[None], choice)
    difference, error = found.difference[0], found.error[0]
    note = f'sum {difference + error:.2f} of {difference:.2f}'
    return Explanation(_by_place(opened, found.values[0]), note)


def _smooth_grad(
    opened: Opened, image: np.ndarray, choice: Choice, stage: str | None
) -> Explanation:
    values = attribution.smooth_grad(opened, image[None], choice)[0]
    return Explanation(_by_place(opened, values), f'{attribution.SAMPLES} noisy copies')


def _gradient(opened: Opened, image: np.ndarray, choice: Choice, stage: str | None) -> Explanation:
    return Explanation(_by_place(opened, attribution.gradient(opened, image[None], choice)[0]))


def _occlusion(opened: Opened, image: np.ndarray, choice: Choice, stage: str | None) -> Explanation:
    heat = resized(occlusion(opened, image[None], choice)[0], *image.shape[-3:-1])
    values = np.broadcast_to(heat[..., None], (*image.shape[:-1], 1))
    return Explanation(_by_place(opened, values), 'hidden by a window')


def _by_place(opened: Opened, values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns values of one image, summed over the channels, for each of its pictures."""
    return tuple(picture.sum(-1) for picture in opened.task.pictures(values))


METHODS: Mapping[str, Method] = {
    'grad_cam': Method('Grad-CAM', 'evidence', False, 1.0, _grad_cam),
    'occlusion': Method('Occlusion', 'fall of the score', True, 1.0, _occlusion),
    'integrated_gradients': Method(
        'Integrated gradients', 'part of the score', True, 0.995, _integrated
    ),
    'smooth_grad': Method('SmoothGrad', 'mean slope of the score', True, 0.995, _smooth_grad),
    'gradient': Method('Gradient', 'slope of the score', True, 0.995, _gradient),
}  # fmt: skip


def choices(opened: Opened, prediction: object, wanted: str | None) -> list[Choice]:
    """Returns the choices that a text names, in its order; without a text the surest one.

    Args:
      opened: the network.
      prediction: for one example.
      wanted: names with commas between them. A name may have commas itself: of several readings the
        one with the longest first name counts.

    Raises:
      UserError: there is no such choice.
    """
    if wanted is None:
        return [opened.choice(prediction)]
    named = {choice.name: choice for choice in opened.task.choices(prediction, opened.class_names)}
    pieces, found = wanted.split(','), []
    while pieces:
        lengths = range(len(pieces), 0, -1)
        first = next((n for n in lengths if ','.join(pieces[:n]).strip() in named), 1)
        found.append(opened.choice(prediction, ','.join(pieces[:first]).strip()))
        pieces = pieces[first:]
    return found
