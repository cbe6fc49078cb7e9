"""The mistakes of a report: the wrong answers of which a network was surest, with heat maps."""

import io

import numpy as np
from PIL import Image

from errors import UserError
from inspection import overlay, shown, survey
from inspection.examples import Examples
from inspection.grad_cam import grad_cam
from inspection.legend import Legend
from inspection.mistakes import Mistake, Mistakes
from inspection.opened import Opened
from inspection.sheet import WIDTH
from tasks.answer import Choice
from tasks.section import Gallery, Picture, Section

TITLE = 'The surest mistakes'
MOST = 12
# Pixels of the longer side of a picture at most, and of a small one about; and of one in which
# truth and answer are drawn, which then lie one below the other.
SIDE, DRAWN = 168, 224


def section(opened: Opened, looked: Examples) -> Section:
    """Returns the section: each example as a picture beside the heat map of its answer.

    Args:
      opened: the network.
      looked: the examples of the split.

    Raises:
      UserError: the split cannot be read.
    """
    mistakes = Mistakes(opened.task, opened.class_names, MOST)
    survey.run(opened, looked, [mistakes])
    worst = mistakes.worst()
    if not worst:
        return Section(TITLE, [mistakes.text()])
    legend = Legend(opened.task.legend(opened.class_names), WIDTH) if opened.task.draws else None
    try:
        stage = opened.stage()
        words = _words(opened, worst, stage)
    except UserError as error:
        stage, words = None, f'There are no heat maps. {error}'
    images = looked.images([mistake.position for mistake in worst])
    cards = [_card(opened, stage, m, image) for m, image in zip(worst, images, strict=True)]
    parts = [mistakes.listed(), words]
    if legend and legend.height:
        parts.append(Picture(legend.png(), 'What the colors and lines mean.', ()))
    return Section(TITLE, [*parts, Gallery(cards)])


def _words(opened: Opened, worst: list[Mistake], last: str) -> str:
    """Returns what the heat maps beside the pictures are."""
    found = [_explained(opened, mistake) for mistake in worst]
    stages = {choice.stage or last for choice in found if choice}
    named = ' or '.join(sorted(stages or {last}))
    beside = 'Below' if opened.task.draws else 'Beside'
    words = (
        f'{beside} each picture is its heat map (Grad-CAM, Selvaraju et al. 2017) by the stage '
        f'{named}: the brighter and yellower a place, the more it speaks for the answer that '
        'the network gave.'
    )
    if any(choice and choice.stage for choice in found):
        words += ' It explains the part of the answer of which the network was surest, framed.'
    return words


def _explained(opened: Opened, mistake: Mistake) -> Choice | None:
    """Returns the surest part of an answer; None of one without any."""
    choices = opened.task.choices(mistake.prediction, opened.class_names, 1)
    return choices[0] if choices else None


def _card(opened: Opened, stage: str | None, mistake: Mistake, image: np.ndarray) -> Picture:
    """Returns one example, uint8 [h, w, c], with its heat map if there is a stage."""
    task = opened.task
    colored = np.broadcast_to(image, (*image.shape[:-1], 3)).copy()
    rows = [[_sized(p, SIDE)] for p in task.pictures(task.drawn(colored, mistake.targets))]
    if task.draws:
        size = _sized(image, DRAWN).shape[:2]
        _, *drawn = shown.drawn(task, image, mistake.targets, mistake.prediction, *size)
        rows = [drawn]
    choice = _explained(opened, mistake)
    explained = stage is not None and choice is not None
    if explained:
        heats = grad_cam(opened, image[None], choice)
        scale = overlay.scale_of(*heats)
        for row, picture, heat in zip(rows, task.pictures(image), heats, strict=True):
            plain = _sized(picture, DRAWN if task.draws else SIDE)
            marks = task.marked(plain, choice, plain.shape[0] / picture.shape[0])
            row.append(overlay.marked(overlay.lay_over(plain, heat, scale), plain, marks))
    beside = ' with its truth, its answer' * opened.task.draws + ', and its heat map' * explained
    return Picture(
        _png(np.concatenate([np.concatenate(row, axis=0 if task.draws else 1) for row in rows])),
        f'Example {mistake.position:,}{beside}. True: {mistake.truth}. Answer: {mistake.answer}.',
        mistake.lines,
    )


def _sized(picture: np.ndarray, most: int) -> np.ndarray:
    """Returns a picture, uint8 [h, w, 3], enlarged by a whole factor or made smaller."""
    longer = max(picture.shape[:2])
    height, width = picture.shape[:2]
    if longer <= most:
        factor = max(1, most // longer)
        return shown.sized(picture, factor * height, factor * width)
    return shown.sized(picture, *(max(1, side * most // longer) for side in (height, width)))


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, 'PNG', optimize=True)
    return file.getvalue()
