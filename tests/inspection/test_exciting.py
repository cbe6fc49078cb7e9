"""What units like against a look at all answers, and what they see against spoilt pixels."""

import io
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_sources import digits
from errors import UserError
from inspection import exciting, nudging, survey
from inspection.examples import Chunk
from inspection.exciting import BEYOND, Likes, Window, named_units, window
from inspection.survey import Glance
from models.trace import Stage
from tools import inspect


@pytest.fixture(scope='module')
def likes(network, looked):
    found = Likes()
    survey.run(network, looked, [found])
    return found


@pytest.fixture(scope='module')
def stages(network):
    """Those of the whole split."""
    return network.look(digits.load('validation').images).stages


def test_the_pictures_are_those_of_the_strongest_answers(likes, stages):
    for name in ('conv1', 'pool2', 'dense2'):
        flat = stages[name].reshape(len(stages[name]), -1, stages[name].shape[-1])
        for unit in range(flat.shape[-1]):
            strongest = flat[..., unit].max(1)
            expected = np.sort(strongest[strongest > strongest.min()])[::-1][: exciting.KEPT]
            found = likes.liked(name, unit)
            np.testing.assert_allclose([one.value for one in found], expected, rtol=1e-5)
            for one in found:
                there = flat[one.position, one.place, unit]
                assert there == pytest.approx(one.value, rel=1e-5)
        deviation = flat.max(1).std(0)
        varied = likes.varied(name, 4)
        assert varied == sorted(varied)
        assert deviation[varied].min() >= 0.999 * np.sort(deviation)[-4]


@settings(max_examples=40)
@given(st.data(), st.integers(1, 5), st.integers(1, 4))
def test_it_does_not_matter_how_the_examples_come(data, most, size):
    """Few different values, so that some are equal."""
    rows = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1))
    values = np.array(rows, np.float32)
    likes = Likes(most)
    for start in range(0, len(values), size):
        part = values[start : start + size]
        positions = np.arange(start, start + len(part), dtype=np.int32)
        chunk = Chunk(np.zeros((len(part), 1, 1, 1), np.uint8), {}, positions)
        stages = {'a': part}
        likes.add(chunk, Glance(None, stages, {'a': part.astype(int)}, {}, {}, {}))
    for unit in range(2):
        own = values[:, unit]
        order = np.argsort(-own, kind='stable')[:most]
        expected = [(int(i), own[i], int(own[i])) for i in order if own[i] > own.min()]
        assert likes.liked('a', unit) == expected
    assert likes.varied('a') == [unit for unit in range(2) if len({*values[:, unit]}) > 1]


@pytest.fixture(scope='module')
def values(network):
    """A function of inputs and a stage that gives the values of its first unit, by place."""

    @jax.jit
    def all_stages(inputs):
        return nudging.nudged(network.model, network.variables, inputs, {})[0]

    return lambda inputs, stage: np.asarray(all_stages(inputs)[stage])[0, ..., 0].reshape(-1)


@settings(max_examples=60)
@given(st.sampled_from(['conv1', 'pool1', 'conv2', 'pool2']), st.data())
def test_a_unit_sees_its_window_and_nothing_else(network, values, name, data):
    """NaN spoils whatever sees it, through ReLU and pooling, too."""
    stage = network.trace.stages[name]
    place = data.draw(st.integers(0, stage.shape[0] * stage.shape[1] - 1))
    seen = window(stage, place)
    clean = np.random.default_rng(0).normal(size=(1, 28, 28, 1)).astype(np.float32)
    inside = np.zeros((1, 28, 28, 1), bool)
    rows, columns = (
        np.arange(max(first, 0), min(first + seen.size, 28)) for first in (seen.top, seen.left)
    )
    inside[0, rows[:, None], columns] = True
    outside = values(np.where(inside, clean, np.nan), name)[place]
    assert outside == pytest.approx(values(clean, name)[place], rel=1e-5, abs=1e-6)
    row, column = data.draw(st.sampled_from(list(rows))), data.draw(st.sampled_from(list(columns)))
    for y, x in ((row, columns[0]), (row, columns[-1]), (rows[0], column), (rows[-1], column)):
        spoilt = clean.copy()
        spoilt[0, y, x] = np.nan
        assert np.isnan(values(spoilt, name)[place]), (y, x)


@given(st.integers(-6, 8), st.integers(-6, 8), st.integers(1, 12), st.sampled_from([1, 3]))
def test_a_patch_is_cut_from_a_picture_with_a_pale_border(top, left, size, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, channels), dtype=np.uint8)
    padded = np.empty((7 + 40, 9 + 40, 3), np.uint8)
    padded[:] = BEYOND
    padded[20:27, 20:29] = pixels
    expected = padded[20 + top :, 20 + left :][:size, :size]
    np.testing.assert_array_equal(Window(0, top, left, size).cut(pixels), expected)


def test_places_of_several_pictures_are_counted_on():
    stage = Stage((4, 5, 8), stride=2, receptive_field=7, start=-3)
    assert window(stage, 3 * 20 + 2 * 5 + 4) == Window(picture=3, top=1, left=5, size=7)


@pytest.mark.parametrize(
    ('stage', 'about', 'across'),
    [
        ('conv2', None, exciting.PAIRS),
        ('dense2', None, exciting.KEPT),
        ('conv2', Stage((10, 10, 16), 2, 43, -20), exciting.KEPT),
    ],
)
def test_a_sheet_has_a_row_for_each_unit(network, looked, likes, monkeypatch, stage, about, across):
    if about:
        monkeypatch.setitem(network.trace.stages, stage, about)
    units = likes.varied(stage, 3)
    drawn = likes.sheet(network, looked, stage, units, 'a title')
    assert drawn.caption.endswith(f'{", ".join(map(str, units))}.')
    with Image.open(io.BytesIO(drawn.png)) as picture:
        pixels = np.asarray(picture.convert('L'))
    first, width = exciting.MARGIN + exciting.LABEL, 4 * 28
    assert pixels.shape[1] >= first + across * width
    images = looked.images([likes.liked(stage, unit)[0].position for unit in units])
    for image in images:  # each unit's favorite stands at the beginning of its row
        large = image[..., 0].repeat(4, 0).repeat(4, 1)
        found = [
            top
            for top in range(len(pixels) - width)
            if (pixels[top : top + width, first : first + width] == large).mean() > 0.8
        ]
        assert found


COUNTS = {'conv1': 6, 'conv2': 16, 'dense1': 120}


@pytest.mark.parametrize(
    ('wanted', 'message'),
    [
        ('conv2:16', 'the units of conv2 have the numbers 0 to 15'),
        ('conv2:-1', 'the units of conv2 have the numbers 0 to 15'),
        ('conv2:', 'the units of conv2 have the numbers 0 to 15'),
        ('conv2:²', 'the units of conv2 have the numbers 0 to 15'),
        ('conv2:1,conv3:1', 'name a stage and the number of a unit.*Did you mean "conv'),
        ('conv2', 'name a stage and the number of a unit'),
        ('', 'name a stage and the number of a unit'),
    ],
)
def test_units_that_do_not_exist_are_a_sentence(wanted, message):
    with pytest.raises(UserError, match=message):
        named_units(wanted, COUNTS)


def test_units_are_named_by_stage_and_number():
    found = named_units('conv2:5, dense1:0,conv2:15', COUNTS)
    assert found == {'conv2': [5, 15], 'dense1': [0]}


def test_a_unit_that_answers_to_all_alike_likes_nothing(network, looked):
    likes = Likes()
    strongest = {'conv1': np.zeros((4, 6), np.float32)}
    places = {'conv1': np.zeros((4, 6), int)}
    chunk = looked.at([0, 1, 2, 3])
    likes.add(chunk, Glance(None, strongest, places, {}, {}, {}))
    assert likes.liked('conv1', 2) == likes.varied('conv1') == []
    with pytest.raises(UserError, match='like none more than another'):
        likes.sheet(network, looked, 'conv1', [2, 3], 'a title')


def test_units_of_a_network_that_diverged_are_a_sentence(looked):
    likes = Likes()
    strongest = {'conv1': np.array([[1, np.nan], [2, np.nan]], np.float32)}
    likes.add(
        looked.at([0, 1]), Glance(None, strongest, {'conv1': np.zeros((2, 2), int)}, *[{}] * 3)
    )
    assert likes.liked('conv1', 0)
    with pytest.raises(UserError, match='Unit 1 of conv1 has values that are no finite numbers'):
        likes.varied('conv1')


def test_the_command_writes_mistakes_and_likes(lenet_run, tmp_path, capsys):
    argv = [f'--workdir={lenet_run}', f'--output={tmp_path}', '--most=100', '--only=mistakes,likes']
    assert inspect.main([*argv, '--unit=conv2:5,conv2:7']) == 0
    said = capsys.readouterr().out
    assert '100 of the 143 examples of the validation split were drawn' in said
    assert (tmp_path / 'likes-validation-conv2-5-7.png').exists()
    table = json.loads((tmp_path / 'mistakes-validation.json').read_text())
    assert table['examples'] == 100
    assert len(table['worst']) == min(table['mistakes'], 24)
    assert inspect.main([*argv, '--unit=conv2:5', '--stage=conv2']) == 2
    assert 'leave --stage out' in capsys.readouterr().err
