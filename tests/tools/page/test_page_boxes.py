"""The page with a detector: boxes in the picture's own pixels, one of which is explained."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.inspection import boxed
from tests.tools.page import browsing
from tests.tools.page.served import serving
from tools.page import answer
from tools.page.answer import Answers
from tools.page.handler import as_json

FACTOR = 3  # of the picture that is given, beside those that the network learned


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
    return Answers(boxed.learned(), tmp_path_factory.mktemp('page'))


def encoded(image):
    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1)).save(file, 'PNG')
    return file.getvalue()


PICTURE = encoded(boxed.picture(boxed.SQUARES[0], FACTOR)[0])


def test_boxes_are_in_the_pixels_of_the_picture(answers):
    found = answers.look(PICTURE)
    json.loads(as_json(found).body)
    assert found['drawn'] is None
    boxes = found['boxes']
    assert (boxes['height'], boxes['width']) == (144, 192)
    assert 0 < boxes['least'] < 1
    best = {box['name']: box for box in boxes['found']}
    for top, left, side, label in boxed.SQUARES[0]:
        box = best[f'{boxed.NAMES[label]} #1']
        expected = FACTOR * np.array([left, top, left + side, top + side])
        np.testing.assert_allclose(box['box'], expected, atol=2 * FACTOR)
        assert box['label'] == boxed.NAMES[label]
        assert box['sureness'] >= boxes['least']
    assert [box['name'] for box in boxes['found']] == [c['name'] for c in found['choices']]
    sureness = [box['sureness'] for box in boxes['found']]
    assert sureness == sorted(sureness, reverse=True)


def test_the_box_that_is_chosen_is_explained_by_the_stage_it_was_found_on(answers):
    for name in ('light #1', 'dark #1'):
        heat = answers.look(PICTURE, choice=name)['heat']
        assert (heat['choice'], heat['stage']) == (name, 'pool2')
        assert heat['strongest'] > 0
    assert answers.look(PICTURE, choice='dark #1', stage='conv1')['heat']['stage'] == 'conv1'
    problem = answers.look(PICTURE, choice='light #99')['heat']['problem']
    assert '"light #99" is no part of the answer' in problem


@pytest.mark.parametrize('size', [(4, 3), (20, 20), (3000, 40), (4000, 3000)])
def test_pictures_of_any_size_are_shown_no_larger_than_a_page(answers, size):
    found = answers.look(encoded(np.full((*size, 1), 90, np.uint8)))['boxes']
    assert (found['height'], found['width']) == size
    kind, _, data = found['picture'].partition(',')
    assert kind == 'data:image/jpeg;base64'
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert max(shown.size) == min(max(size), answer.LARGEST)
    for box in found['found']:
        left, top, right, bottom = box['box']
        assert 0 <= left <= right <= size[1]
        assert 0 <= top <= bottom <= size[0]


@pytest.mark.page
def test_boxes_lie_over_the_picture_and_follow_the_slider(answers, tmp_path):
    if not browsing.chromium():
        pytest.skip(f'needs one of {", ".join(browsing.NAMES)}: apt-get install chromium')
    sync_api = pytest.importorskip('playwright.sync_api')
    file = tmp_path / 'squares.png'
    file.write_bytes(PICTURE)
    with (
        serving(answers) as server,
        sync_api.sync_playwright() as playwright,
        browsing.launched(playwright) as browser,
    ):
        page = browser.new_page(viewport={'width': 1200, 'height': 900})
        failures = []
        page.on('pageerror', lambda error: failures.append(str(error)))
        page.goto(f'http://localhost:{server.server_address[1]}/')
        page.wait_for_selector('#facts div', state='attached')
        page.set_input_files('#file', file)
        browsing.until(page, '() => document.querySelector("#heat").src')
        browsing.settle(page)
        assert page.inner_text('#answer') == 'dark: 1, light: 1'
        frame = page.locator('#boxed-picture').bounding_box()
        for top, left, side, label in boxed.SQUARES[0]:
            box = page.locator(f'[data-box="{boxed.NAMES[label]} #1"]').bounding_box()
            scale = frame['width'] / boxed.SHAPE[1]
            assert box['x'] - frame['x'] == pytest.approx(scale * left, abs=3 * scale)
            assert box['y'] - frame['y'] == pytest.approx(scale * top, abs=3 * scale)
            assert box['width'] == pytest.approx(scale * side, abs=3 * scale)
        page.click('[data-box="dark #1"]')
        until = '() => document.querySelector("#heat-caption").textContent.endsWith("dark #1")'
        browsing.until(page, until)
        slide = (
            '(value) => { const least = document.querySelector("#least"); least.value = value; '
            'least.dispatchEvent(new Event("input")); }'
        )
        page.evaluate(slide, 100)
        assert page.inner_text('#answer') == 'no objects'
        assert page.locator('#boxes button').count() == 0
        page.evaluate(slide, 0)
        assert page.locator('#boxes button').count() == len(answers.look(PICTURE)['choices'])
        assert failures == []
