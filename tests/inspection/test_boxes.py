"""Looking into a detector: a box is explained by its own place, and sheets say what lines mean."""

import io

import numpy as np
import pytest
from PIL import Image

from inspection import extremes, overlay, shown, why
from inspection.drawing import png
from inspection.examples import Chunk
from inspection.grad_cam import combined, grad_cam
from inspection.legend import MOST, Legend
from inspection.methods import METHODS
from inspection.mistakes import Mistakes
from inspection.sheet import LINE
from inspection.survey import Glance
from tasks import box_overlays
from tasks.overlays import color_of
from tests.inspection import boxed


@pytest.fixture(scope='module')
def network():
    return boxed.network()


@pytest.fixture(scope='module')
def pixels():
    return np.stack([boxed.picture(squares)[0] for squares in boxed.SQUARES])


@pytest.fixture(scope='module')
def predictions(network, pixels):
    look = network.look(pixels)
    return [look.prediction(row) for row in range(len(pixels))]


def box_of(squares, label):
    """The edges of a picture's square of a class."""
    [(top, left, side, _)] = [square for square in squares if square[3] == label]
    return np.array([top, left, top + side, left + side])


@pytest.mark.parametrize('row', range(2))
@pytest.mark.parametrize('label', range(2))
def test_what_speaks_for_a_box_is_in_it_or_near(network, pixels, predictions, row, label):
    choice = network.choice(predictions[row], f'{boxed.NAMES[label]} #1')
    box = box_of(boxed.SQUARES[row], label)
    np.testing.assert_allclose(choice.values['box'], box, atol=2)
    assert choice.stage == 'pool2'
    [heat] = grad_cam(network, pixels[row : row + 1], choice)
    assert heat.shape == (12, 16)
    y, x = 4 * np.array(np.unravel_index(heat.argmax(), heat.shape)) + 2
    assert box[0] - 6 <= y <= box[2] + 6
    assert box[1] - 6 <= x <= box[3] + 6
    # The other half of the picture, where the other square is, says next to nothing.
    halves = heat[:, :8].max(), heat[:, 8:].max()
    other = halves[1] if box[1] < 32 else halves[0]
    assert other < 0.3 * heat.max()


def test_a_score_of_one_place_weighs_each_place_by_itself():
    random = np.random.default_rng(0)
    maps, slopes = random.normal(size=(2, 2, 3, 4, 5))
    expected = np.zeros((2, 3, 4))
    for channel in range(5):
        expected += maps[..., channel] * slopes[..., channel]
    np.testing.assert_allclose(
        combined(maps, slopes, placed=True), np.maximum(expected, 0), rtol=1e-5, atol=1e-6
    )


def test_all_boxes_can_be_explained_and_an_empty_answer_has_none(network, predictions):
    names = [choice.name for choice in network.task.choices(predictions[0], boxed.NAMES)]
    assert set(names) >= {'light #1', 'dark #1'}
    assert len(names) == np.count_nonzero(predictions[0]['scores'])
    assert network.task.choices(predictions[0], boxed.NAMES, 1)[0].name == names[0]
    nothing = {name: np.zeros_like(values) for name, values in predictions[0].items()}
    assert network.task.choices(nothing, boxed.NAMES) == ()


def test_the_box_lies_over_the_heat_map(network, pixels, predictions):
    choice = network.choice(predictions[0], 'light #1')
    large = overlay.enlarged(pixels[0])
    factor = large.shape[0] / boxed.SHAPE[0]
    assert factor > 1
    marks = network.task.marked(large, choice, factor)
    laid = overlay.marked(overlay.lay_over(large, np.ones((4, 4))), large, marks)
    white = (laid == 255).all(-1)
    rows, columns = white.any(1).nonzero()[0], white.any(0).nonzero()[0]
    found = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
    np.testing.assert_allclose(found, factor * choice.values['box'], atol=1)


def test_why_draws_a_row_for_each_box(network, pixels, predictions):
    choices = [network.choice(predictions[0], name) for name in ('light #1', 'dark #1')]
    method = METHODS['grad_cam']
    found = {'grad_cam': [method.explain(network, pixels[0], choice, None) for choice in choices]}
    assert found['grad_cam'][0].note == 'pool2, 12x16'
    made = Image.open(io.BytesIO(png(why.drawn(network, pixels[0], choices, found, '', ''))))
    assert (np.asarray(made) > 250).all(-1).any()


def lines(picture, label):
    """Which pixels have the color of a class."""
    return (picture == color_of(label + 1)).all(-1)


@pytest.mark.parametrize('size', [(12, 16), (48, 64), (480, 640)])
def test_boxes_are_drawn_at_the_size_that_is_shown(network, predictions, size):
    image, objects = boxed.picture(boxed.SQUARES[0])
    task, targets = network.task, {'objects': objects}
    plain, truth, answer = shown.drawn(task, image, targets, predictions[0], *size)
    assert plain.shape == truth.shape == answer.shape == (*size, 3)
    box = box_of(boxed.SQUARES[0], 0) * size[0] / boxed.SHAPE[0]
    rows = lines(truth, 0).any(1).nonzero()[0]
    assert abs(rows[0] - box[0]) <= 1
    assert abs(rows[-1] + 1 - box[2]) <= 1
    middle = round((box[1] + box[3]) / 2)
    across = lines(truth, 0)[:, middle].sum()
    assert across == {12: 2, 48: 2, 480: 6}[size[0]]  # both lines: of one pixel, or of three


def test_the_sheet_of_mistakes_has_misses_false_alarms_and_a_legend(network, predictions):
    image, objects = boxed.picture(boxed.SQUARES[0])
    other = boxed.picture(boxed.SQUARES[1])[1]  # as if the squares were elsewhere

    class Looked:
        def images(self, positions):
            return np.stack([image] * len(positions))

        def note(self):
            return ''

    mistakes = Mistakes(network.task, boxed.NAMES)
    empty = {name: {} for name in ('strongest', 'places', 'means', 'weakest', 'active')}
    stacked = {name: values[None] for name, values in predictions[0].items()}
    for position, targets in enumerate((objects, other)):
        chunk = Chunk(image[None], {'objects': targets[None]}, np.array([position], np.int32))
        mistakes.add(chunk, Glance(stacked, **empty))
    assert mistakes.count == 1
    [worst] = mistakes.worst()
    assert worst.truth == 'light: 1, dark: 1'
    assert worst.badness == 1
    sheet = np.asarray(Image.open(io.BytesIO(mistakes.sheet(Looked(), 'title'))))
    # In the legend and in both pictures; the answer has crosses and dashes beside its lines.
    left = lines(sheet, 0)[:, : sheet.shape[1] // 2]
    assert left.sum() > 300
    height, width = 144, 192
    _, truth, answer = shown.drawn(
        network.task, image, worst.targets, worst.prediction, height, width
    )
    assert lines(answer, 0).sum() > 1.2 * lines(truth, 0).sum()


@pytest.mark.parametrize(('count', 'told'), [(0, 0), (3, 3), (30, 30), (1000, MOST)])
def test_a_legend_takes_the_lines_that_it_needs_and_keeps_what_lines_mean(count, told):
    names = [f'class number {i}' for i in range(count)]
    entries = [(name, color_of(i + 1)) for i, name in enumerate(names)]
    entries += box_overlays.samples()
    legend = Legend(entries, 600)
    assert legend.height == LINE * -(-legend.height // LINE)
    drawn = np.asarray(Image.open(io.BytesIO(legend.png())))
    assert drawn.shape == (legend.height, 600, 3)
    squares = sum(lines(drawn, i).sum() >= 100 for i in range(min(count, 30)))
    assert squares == min(told, 30)
    lines_shown = (drawn == 90).all(-1)  # they come last, whatever is left out
    assert lines_shown.sum() > 150
    assert lines_shown[-LINE:].any()


def test_thirty_classes_have_thirty_colors():
    assert len({color_of(i) for i in range(1, 31)}) == 30
    assert color_of(31) == color_of(1)


def test_the_sheet_of_extremes_needs_no_more_room_than_its_pictures(network, predictions):
    targets = {'objects': boxed.picture(boxed.SQUARES[0])[1]}
    image = boxed.picture(boxed.SQUARES[0])[0]
    parts = shown.drawn(network.task, image, targets, predictions[0], 144, 192)
    rows = [extremes.Drawn(extremes.Row('best', [(7, 1.0)]), [parts])]
    entries = network.task.legend(boxed.NAMES)
    sheet = Image.open(io.BytesIO(extremes.joined(rows, network.task, entries, 'title')))
    assert sheet.size[1] < 144 + 8 * LINE
    assert [name for name, _ in entries] == ['light', 'dark', 'right', 'missed', 'false alarm']
