"""The mistakes of a report: the wrong answers of which a network was surest, with heat maps."""

import io

import numpy as np
from PIL import Image

from errors import UserError
from inspection import overlay, survey
from inspection.examples import Examples
from inspection.grad_cam import grad_cam
from inspection.mistakes import Mistake, Mistakes
from inspection.opened import Opened
from tasks.section import Gallery, Picture, Section

TITLE = 'The surest mistakes'
MOST = 12
SIDE = 168  # pixels of the longer side of a picture at most, and of a small one about


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
    try:
        stage = opened.stage()
        words = (
            'Beside each picture is its heat map (Grad-CAM, Selvaraju et al. 2017) by the stage '
            f'{stage}: the brighter and yellower a place, the more it speaks for the answer that '
            'the network gave.'
        )
    except UserError as error:
        stage, words = None, f'There are no heat maps. {error}'
    images = looked.images([mistake.position for mistake in worst])
    cards = [_card(opened, stage, m, image) for m, image in zip(worst, images, strict=True)]
    return Section(TITLE, [mistakes.listed(), words, Gallery(cards)])


def _card(opened: Opened, stage: str | None, mistake: Mistake, image: np.ndarray) -> Picture:
    """Returns one example, uint8 [h, w, c], with its heat map if there is a stage."""
    colored = np.broadcast_to(image, (*image.shape[:-1], 3)).copy()
    pictures = opened.task.pictures(opened.task.drawn(colored, mistake.targets))
    rows = [[_sized(picture)] for picture in pictures]
    if opened.task.draws:
        answer = opened.task.drawn_answer(colored, mistake.prediction, mistake.targets)
        for row, picture in zip(rows, opened.task.pictures(answer), strict=True):
            row.append(_sized(picture))
    choices = opened.task.choices(mistake.prediction, opened.class_names, 1)
    explained = stage is not None and bool(choices)  # an answer without any box has no choice
    if explained:
        heats = grad_cam(opened, image[None], choices[0], stage)
        scale = overlay.scale_of(*heats)
        for row, picture, heat in zip(rows, opened.task.pictures(colored), heats, strict=True):
            row.append(overlay.lay_over(_sized(picture), heat, scale))
    beside = ' with its truth, its answer' * opened.task.draws + ', and its heat map' * explained
    return Picture(
        _png(np.concatenate([np.concatenate(row, axis=1) for row in rows])),
        f'Example {mistake.position:,}{beside}. True: {mistake.truth}. Answer: {mistake.answer}.',
        mistake.lines,
    )


def _sized(picture: np.ndarray) -> np.ndarray:
    """Returns a picture, uint8 [h, w, 3], enlarged by a whole factor or made smaller."""
    longer = max(picture.shape[:2])
    if longer <= SIDE:
        return overlay.enlarged(picture, SIDE)
    height, width = (max(1, side * SIDE // longer) for side in picture.shape[:2])
    smaller = Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(smaller)


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, 'PNG', optimize=True)
    return file.getvalue()
