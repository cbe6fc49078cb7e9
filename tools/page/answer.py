"""What the page shows of a picture: the answer, the network's input, a heat map, feature maps."""

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import files
from data_sources import scikit_learn
from data_sources.picture_files import InMemory
from errors import UserError
from inspection import opened, overlay, shown
from inspection.grad_cam import grad_cam
from inspection.opened import Opened
from models.trace import Trace
from tasks.answer import Boxes
from training import outcome, prediction, workdir
from training.prediction import Located
from training.trained import Trained

FEW = 20  # classes of which all are shown, in their order; of more, the most probable ones
MOST = 10  # of the most probable ones
MOST_BOXES = 200  # of an answer; the page is slow with more
LARGEST = 1280  # pixels of the longer side of a picture with boxes; a larger one is made smaller
MAPS = 24  # feature maps of a stage that are shown at first
_SAID = 3  # answers that are read out
_SIDE = 64  # pixels of a feature map at most; larger ones are averaged


class Answers:
    """Looks at pictures with the network of a run. One thread at a time may do so.

    Args:
      network: of the run.
      folder: its workdir, for its result.
    """

    def __init__(self, network: Trained, folder: str | Path):
        self._opened = opened.of(network)
        # Whose answer has places beside the pixels is told where they are in the picture itself.
        self._located = self._opened.task.draws and not self._opened.task.dense
        reader = prediction.located_reader if self._located else prediction.reader
        self._shape, self._read = reader(network.experiment)
        self._about = _about(self._opened, Path(folder), self._shape)

    def about(self) -> dict[str, Any]:
        """Returns what there is to say about the network and its pictures."""
        return self._about

    def example(self) -> bytes | None:
        """Returns a photograph; None for handwriting, of which the page can draw examples."""
        if self._about['handwriting']:
            return None
        return scikit_learn.shipped('images/flower.jpg', 'The example is').read_bytes()

    def warm_up(self) -> None:
        """Compiles what `look` needs, so that the first picture does not wait for it."""
        pixels = np.zeros(self._shape, np.uint8)
        self._seen(Located(pixels, pixels, np.eye(2, 3)), None, None, None)

    def look(
        self,
        encoded: bytes,
        choice: str | None = None,
        stage: str | None = None,
        whole: str | None = None,
    ) -> dict[str, Any]:
        """Returns what the network makes of a picture, as values for JSON.

        Args:
          encoded: a file that Pillow reads.
          choice: the answer that the heat map explains; None for the network's own.
          stage: of the heat map; None for the last one that has positions.
          whole: the stage of which all feature maps are wanted.

        Returns:
          'text': the answer in a line; 'choices': what can be explained of it, each with 'name' and
          'sureness'; 'input': the picture as the network gets it; 'drawn': the same with the answer
          drawn into it, None for an answer without places or of boxes; 'boxes': see `_boxes`;
          'heat': a 'picture' with what speaks for 'choice' by 'stage' and the 'strongest' of it, or
          the 'problem' that there is none; 'stages': see `_maps`.

        Raises:
          UserError: it is no picture that can be read.
        """
        found = self._read(InMemory(encoded, 'The picture'))
        if not self._located:
            found = Located(found, found, np.eye(2, 3))
        return self._seen(found, choice, stage, whole)

    def _seen(
        self, picture: Located, choice: str | None, stage: str | None, whole: str | None
    ) -> dict[str, Any]:
        names, task, pixels = self._opened.class_names, self._opened.task, picture.image
        look = self._opened.look(pixels[None])
        prediction = look.prediction(0)
        placed = task.placed(prediction, picture.matrix, picture.picture.shape[:2])
        boxes = task.boxes(placed, names)
        few = MOST_BOXES if boxes else None if len(names) <= FEW else MOST
        choices = task.choices(prediction, names, few)
        return {
            'text': task.described(prediction, names, _SAID).text,
            'choices': [{'name': c.name, 'sureness': c.sureness} for c in choices],
            'input': _png(pixels),
            'drawn': None if boxes else self._drawn(pixels, prediction),
            'boxes': _boxes(boxes, picture.picture) if boxes else None,
            'heat': self._heat(pixels, prediction, choice, stage),
            'stages': [_maps(name, maps[0], whole) for name, maps in look.stages.items()],
        }

    def _drawn(self, pixels: np.ndarray, prediction: Any) -> str | None:
        """Returns the picture with the answer drawn into it; None if it has no places."""
        task = self._opened.task
        if not task.draws:
            return None
        colored = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()
        return _png(overlay.enlarged(task.drawn(colored, task.answer(prediction))))

    def _heat(
        self, pixels: np.ndarray, prediction: Any, wanted: str | None, stage: str | None
    ) -> dict[str, Any]:
        """Returns the picture with its heat map, or a sentence that says why there is none."""
        try:
            choice = self._opened.choice(prediction, wanted)
            heat = grad_cam(self._opened, pixels[None], choice, stage)[0]
        except UserError as error:  # no maps in the network, or no such thing in its answer
            return {'problem': str(error)}
        if not np.isfinite(heat).all():
            return {'problem': 'There is no heat map: the network has diverged.'}
        scale = overlay.scale_of(heat)
        large = overlay.enlarged(pixels)
        marks = self._opened.task.marked(large, choice, large.shape[0] / pixels.shape[0])
        laid = overlay.marked(overlay.lay_over(large, heat, scale), large, marks)
        strongest = scale.high if heat.any() else 0.0
        return {
            'choice': choice.name,
            'stage': self._opened.stage(stage, choice),
            'picture': _png(laid),
            'strongest': strongest,
        }


def _boxes(found: Boxes, picture: np.ndarray) -> dict[str, Any]:
    """Returns a picture, uint8 [h, w, c], and its boxes, as values for JSON.

    'picture' is smaller than it was if it is large; 'height' and 'width' are its own, and so are
    the edges of 'found', (left, top, right, bottom) in pixels. 'least' is the sureness from which
    one counts.
    """
    height, width = picture.shape[:2]
    factor = min(1, LARGEST / max(height, width))
    small = shown.sized(picture, *(max(1, round(side * factor)) for side in (height, width)))
    boxes = [
        {
            'name': box.name,
            'label': box.label,
            'sureness': box.sureness,
            'color': box.color,
            'box': [box.edges[i] for i in (1, 0, 3, 2)],
        }
        for box in found.boxes[:MOST_BOXES]
    ]
    about = {'picture': _jpeg(small), 'height': height, 'width': width, 'least': found.least}
    return about | {'found': boxes}


def _about(network: Opened, folder: Path, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Returns what there is to say about a network, as values for JSON."""
    experiment = network.experiment
    config, names = experiment.config, experiment.class_names
    height, width, channels = shape
    facts = {
        'Model': config.model.name,
        'Data set': f'{config.data.name}, {len(names):,} classes' if names else config.data.name,
        'Training': f'{network.step:,} of {experiment.steps:,} steps',
        'Input': f'{width}x{height} pixels, {"gray" if channels == 1 else "color"}',
    }
    traced = _traced(network)
    if traced:
        facts['Parameters'] = f'{traced.parameters:,}'
    facts |= _tested(network, folder)
    return {
        'title': f'{config.model.name} on {config.data.name}',
        'facts': facts,
        'handwriting': experiment.handwriting and channels == 1,
        'classes': list(names) if len(names) <= FEW else [],
        'stages': _stages(traced, max(height, width)) if traced else {},
    }


def _traced(network: Opened) -> Trace | None:
    """Returns the network's layers; None if it has some of which nothing is known."""
    try:
        return network.trace
    except UserError:
        return None


def _stages(traced: Trace, side: int) -> dict[str, str]:
    """Returns for each stage what a value of it sees, in words.

    Args:
      traced: the network.
      side: the longer one of its pictures, in pixels.
    """
    seen = {}
    for name, stage in traced.stages.items():
        field = stage.receptive_field
        seen[name] = 'the whole picture' if math.isinf(field) else f'{field:,}x{field:,} pixels'
        if side < field < math.inf:
            seen[name] += ', more than the picture has'
    return seen


def _tested(network: Opened, folder: Path) -> dict[str, str]:
    """Returns the test's first metric, if the run has ended with this checkpoint."""
    metric = network.task.metric()
    name = f'{outcome.TEST}{metric.name}'
    result = files.usable_json(folder / workdir.RESULT, {name: float, 'steps': int})
    if not result or result['steps'] != network.step:
        return {}
    return {f'Test {metric.name}': metric.shown(result[name])}


def _maps(name: str, maps: np.ndarray, whole: str | None) -> dict[str, Any]:
    """Returns a stage's feature maps, float [h, w, c] or [units], as one picture below the other.

    All maps of a stage share one scale, so that a strong one looks strong; 0 is on it.
    """
    shape = maps.shape
    maps = np.nan_to_num(maps.astype(np.float32))  # a network may have diverged
    maps = maps.reshape(*(shape if len(shape) == 3 else (1, 1, -1)))
    count = maps.shape[2]
    shown = count if whole == name or len(shape) == 1 else min(count, MAPS)
    low, high = min(0.0, float(maps.min())), max(0.0, float(maps.max()))
    maps = _averaged(maps[..., :shown])
    levels = np.rint((maps - low) * (255 / ((high - low) or 1))).astype(np.uint8)
    height, width, _ = levels.shape
    strip = np.ascontiguousarray(levels.transpose(2, 0, 1)).reshape(shown * height, width, 1)
    return {
        'name': name,
        'size': 'x'.join(map(str, shape)),
        'spatial': len(shape) == 3,
        'count': count,
        'shown': shown,
        'height': height,
        'width': width,
        'low': low,
        'high': high,
        'strip': _png(strip),
    }


def _averaged(maps: np.ndarray) -> np.ndarray:
    """Returns maps [h, w, c] with at most _SIDE rows and columns, each the mean of some."""
    factor = math.ceil(max(maps.shape[:2]) / _SIDE)
    if factor == 1:
        return maps
    height, width, count = maps.shape
    rows, columns = -(-height // factor), -(-width // factor)
    padding = ((0, rows * factor - height), (0, columns * factor - width), (0, 0))
    padded = np.pad(maps, padding, mode='edge')
    return padded.reshape(rows, factor, columns, factor, count).mean((1, 3))


def _jpeg(pixels: np.ndarray) -> str:
    """Returns a picture, uint8 [h, w, 3], as the address of a JPEG that holds all of it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'JPEG', quality=85)
    return 'data:image/jpeg;base64,' + base64.b64encode(file.getvalue()).decode()


def _png(pixels: np.ndarray) -> str:
    """Returns a picture, uint8 [h, w, 1 or 3], as the address of a PNG that holds all of it."""
    file = io.BytesIO()
    image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    image.save(file, 'PNG', compress_level=1)
    return 'data:image/png;base64,' + base64.b64encode(file.getvalue()).decode()
