"""The page in Chromium, as somebody uses it: `make test-page`."""

import base64
import io
import json
import re
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.support import once, train_here
from tests.tools.page import browsing
from tests.tools.page.browsing import (
    FOUR,
    SEVEN,
    draw,
    place,
    settle,
    until,
    wait_for_answer,
)
from tests.tools.page.served import serving
from tools.page.answer import Answers
from training import trained

pytestmark = pytest.mark.page

PICTURE = ROOT / 'docs' / 'images' / 'seven.png'
HEAT = '#heat-caption'


@pytest.fixture(scope='session')
def run(tmp_path_factory):
    """The workdir that `make train` leaves."""

    def make(workdir):
        assert train_here(ROOT / 'configs' / 'digits_lenet.py', workdir) == 0

    return once(tmp_path_factory, 'page_run', make)


@pytest.fixture(scope='module')
def url(run):
    skip_without_browser()
    with browsing.served(run) as url:
        yield url


def skip_without_browser():
    if not browsing.chromium():
        pytest.skip(f'needs one of {", ".join(browsing.NAMES)}: apt-get install chromium')


@pytest.fixture(scope='module')
def playwright():
    skip_without_browser()
    sync_api = pytest.importorskip('playwright.sync_api', reason='needs requirements-page.txt')
    with sync_api.sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope='module')
def browser(playwright):
    with browsing.launched(playwright) as browser:
        yield browser


@pytest.fixture
def opened(browser, url):
    """Returns a function that opens the page; at the end, nothing has gone wrong in it."""
    contexts, problems = [], []

    def open_page(url=url, **options):
        context = browser.new_context(**{'viewport': {'width': 1400, 'height': 900}} | options)
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.allowed = ()
        watch(page, url, problems)
        page.goto(url)
        page.wait_for_selector('#bars li')
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def watch(page, url, problems):
    """Collects errors of a page, and what it asks of anybody but its server."""

    def on_console(message):
        expected = any(text in message.text for text in page.allowed)
        if message.type in ('error', 'warning') and not expected:
            problems.append(message.text)

    def on_request(request):
        if not request.url.startswith((url, 'data:', f'blob:{url}')):
            problems.append(request.url)

    page.on('console', on_console)
    page.on('pageerror', lambda error: problems.append(str(error)))
    page.on('request', on_request)


def answer(page) -> str:
    return page.locator('#bars .first .name').inner_text()


def message(page, text: str):
    until(page, 'text => document.querySelector("#message").textContent.includes(text)', text)


def heat_of(page, name: str):
    until(page, 'name => document.querySelector("#heat-caption").textContent.endsWith(name)', name)
    settle(page)


def is_empty(page) -> bool:
    return page.locator('#answer').inner_text() == '' and page.locator('#heat').is_hidden()


def pixels(page, selector: str) -> np.ndarray:
    """A picture that the page shows."""
    source = page.locator(selector).get_attribute('src')
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(',')[2]))), float)


# --- drawing -------------------------------------------------------------------------------------


def test_a_seven_that_is_drawn_is_read_and_explained(opened):
    page = opened()
    assert page.locator('#invitation').inner_text() == 'Draw a digit'
    assert is_empty(page)
    assert '98.' in page.locator('#facts').inner_text()
    draw(page, SEVEN)
    wait_for_answer(page, '7')
    assert re.match(r'7\s*\d\d\.\d %', page.locator('#answer').inner_text())
    assert pixels(page, '#given').shape == (28, 28)
    assert page.locator(HEAT).inner_text() == 'What speaks for 7'
    assert page.locator('.stage h3').all_inner_texts() == [
        'conv1', 'pool1', 'conv2', 'pool2', 'dense1', 'dense2',
    ]  # fmt: skip
    assert '28x28x6 · each value sees 5x5 pixels' in page.locator('.stage').first.inner_text()


def test_the_answer_changes_while_it_is_drawn(opened):
    page = opened()
    page.mouse.move(*place(page, SEVEN[0][0]))
    page.mouse.down()
    page.mouse.move(*place(page, SEVEN[0][1]), steps=8)
    wait_for_answer(page)  # the pen is still on the paper
    first = page.locator('#given').get_attribute('src')
    page.mouse.move(*place(page, SEVEN[0][2]), steps=8)
    wait_for_answer(page, '7')
    assert page.locator('#given').get_attribute('src') != first
    page.mouse.up()


def test_undo_and_clear_take_strokes_away(opened):
    page = opened()
    assert page.locator('#undo').is_disabled()
    draw(page, FOUR)
    wait_for_answer(page, '4')
    both = page.locator('#given').get_attribute('src')
    page.click('#undo')
    until(page, 'both => document.querySelector("#given").src !== both', both)
    page.keyboard.press('Control+z')
    assert is_empty(page)
    draw(page, SEVEN)
    wait_for_answer(page, '7')
    page.click('#clear')
    assert is_empty(page)
    assert page.locator('#undo').is_disabled()


def test_an_answer_that_comes_after_clear_is_dropped(opened):
    page = opened()
    held = []
    page.route('**/look*', lambda route: held.append(route))
    draw(page, SEVEN)
    page.wait_for_timeout(300)
    assert len(held) == 1, 'one request at a time'
    page.click('#clear')
    page.unroute('**/look*')  # those that were held go on
    page.wait_for_timeout(300)
    assert is_empty(page)
    assert page.locator('#message').inner_text() == ''
    draw(page, FOUR)
    wait_for_answer(page, '4')


def test_a_wider_pen_draws_wider_strokes(opened):
    page = opened()

    def ink() -> int:
        shot = page.locator('#paper').screenshot()
        return int((np.asarray(Image.open(io.BytesIO(shot)).convert('L')) < 100).sum())

    draw(page, SEVEN)
    thin = ink()
    page.click('#clear')
    page.locator('#pen').fill('14')
    draw(page, SEVEN)
    assert 1.6 * thin < ink() < 2.4 * thin
    wait_for_answer(page)


def test_a_finger_draws_and_does_not_scroll(opened):
    page = opened(viewport={'width': 400, 'height': 800}, has_touch=True, is_mobile=True)
    finger = page.context.new_cdp_session(page)

    def touch(kind, *points):
        given = [{'x': x, 'y': y} for x, y in points]
        finger.send('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': given})

    start, corner, end = (place(page, point) for point in SEVEN[0])
    touch('touchStart', start)
    for way in (np.linspace(start, corner, 8), np.linspace(corner, end, 8)):
        for x, y in way[1:]:
            touch('touchMove', (float(x), float(y)))
    touch('touchEnd')
    wait_for_answer(page, '7')
    assert page.evaluate('scrollY') == 0
    # The answer and the whole paper are in sight together.
    assert page.locator('#bars').bounding_box()['y'] + 60 < 800


# --- pictures ------------------------------------------------------------------------------------


def transfer(page, content: bytes, kind: str = 'image/png'):
    """A handle of a DataTransfer with one file."""
    return page.evaluate_handle(
        """([data, type]) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], 'picture', { type }));
          return transfer;
        }""",
        [base64.b64encode(content).decode(), kind],
    )


def drop(page, content: bytes):
    page.dispatch_event('main', 'drop', {'dataTransfer': transfer(page, content)})


def test_a_picture_is_dropped(opened):
    page = opened()
    drop(page, PICTURE.read_bytes())
    wait_for_answer(page, '7')
    assert page.locator('#shown').is_visible()
    assert page.locator('input[value=picture]').is_checked()
    page.check('input[value=draw]', force=True)
    assert is_empty(page)


def test_a_picture_is_pasted(opened):
    page = opened()
    page.evaluate(
        """(clipboardData) => document.body.dispatchEvent(
          new ClipboardEvent('paste', { clipboardData, bubbles: true }))""",
        transfer(page, PICTURE.read_bytes()),
    )
    wait_for_answer(page, '7')


def test_a_picture_is_chosen(opened):
    page = opened()
    page.check('input[value=picture]', force=True)
    page.set_input_files('#file', PICTURE)
    wait_for_answer(page, '7')


def test_a_broken_picture_gets_a_sentence_and_the_page_goes_on(opened):
    page = opened()
    page.allowed = ('status of 422',)
    drop(page, PICTURE.read_bytes()[:300])
    message(page, 'The picture cannot be read as a picture')
    assert is_empty(page)
    drop(page, b'no picture at all')
    message(page, 'The picture is not a picture that can be read')
    until(page, '() => document.querySelector("#shown").hidden')
    page.check('input[value=draw]', force=True)
    assert page.locator('#message').inner_text() == ''
    draw(page, SEVEN)
    wait_for_answer(page, '7')


def test_a_picture_that_is_too_large_is_not_sent(opened):
    page = opened()
    asked = []
    page.on('request', lambda request: asked.append(request.url))
    large = page.evaluate_handle(
        """() => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(9 << 20)], 'picture'));
          return transfer;
        }"""
    )
    page.dispatch_event('main', 'drop', {'dataTransfer': large})
    message(page, 'The picture has more than 8 MB: scale it down first.')
    assert not any('/look' in url for url in asked)


def test_a_network_that_reads_no_handwriting_is_given_pictures_first(
    opened, run, tmp_path, monkeypatch
):
    monkeypatch.setattr('tools.page.answer.MAPS', 4)
    other = shutil.copytree(run, tmp_path / 'run')
    facts = json.loads((other / 'data.json').read_text())
    (other / 'data.json').write_text(json.dumps(facts | {'handwriting': False}))
    with serving(Answers(trained.load(other), other)) as server:
        page = opened(url=server.url)
        assert page.locator('#invitation').inner_text() == 'Give it a picture'
        assert page.locator('#ways span').all_inner_texts() == ['Picture', 'Camera', 'Draw']
        assert page.locator('#drop-hint').is_visible()
        page.click('#example')
        wait_for_answer(page)
        assert page.locator('#shown').is_visible()
        stage = page.locator('.stage').first
        assert '4 of 6 maps' in stage.inner_text()
        width = stage.locator('canvas').bounding_box()['width']
        stage.locator('button').click()
        settle(page)
        until(page, '() => document.querySelector(".stage footer").textContent.includes("6 maps")')
        assert '4 of 6' not in stage.inner_text()
        assert page.locator('.stage').nth(1).inner_text().count('4 of 6 maps') == 1
        until(
            page,
            'width => document.querySelector("canvas[aria-label^=conv1]").clientWidth > width',
            width,
        )


# --- the camera ----------------------------------------------------------------------------------


def film(path):
    """Writes a film of a seven on paper, of one picture: YUV4MPEG2, which Chromium reads."""
    seven = Image.open(PICTURE).convert('L').resize((320, 320))
    light = bytes(np.asarray(seven)) + bytes([128]) * (2 * 160 * 160)
    path.write_bytes(b'YUV4MPEG2 W320 H320 F10:1 C420jpeg\nFRAME\n' + light)


def test_the_camera_is_looked_at_and_held(playwright, url, tmp_path):
    film(tmp_path / 'seven.y4m')
    with browsing.launched(
        playwright,
        '--use-fake-ui-for-media-stream',
        '--use-fake-device-for-media-stream',
        f'--use-file-for-fake-video-capture={tmp_path / "seven.y4m"}',
    ) as browser:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector('#bars li')
        page.check('input[value=camera]', force=True)
        page.wait_for_selector('#bars .first')
        assert answer(page) == '7'
        page.click('#shoot')
        assert page.locator('#shoot').inner_text() == 'Go on'
        assert page.locator('#held').is_visible()
        assert page.evaluate('() => document.querySelector("#video").srcObject') is None
        settle(page)
        assert answer(page) == '7'
        page.click('#shoot')
        until(page, '() => document.querySelector("#shoot").textContent !== "Go on"')
        page.check('input[value=draw]', force=True)
        assert page.evaluate('document.querySelector("#video").srcObject') is None


@pytest.mark.parametrize(
    ('error', 'sentence'),
    [
        (None, 'only to pages of this machine'),
        ('NotAllowedError', 'The camera was not allowed'),
        ('NotFoundError', 'No camera was found'),
        ('OddError', 'The camera cannot be used (OddError)'),
    ],
)
def test_without_a_camera_there_is_a_sentence(opened, error, sentence):
    page = opened()
    page.evaluate(
        """(error) => {
          if (error === null) delete Navigator.prototype.mediaDevices;
          else navigator.mediaDevices.getUserMedia = () =>
            Promise.reject(new DOMException('no', error));
        }""",
        error,
    )
    page.check('input[value=camera]', force=True)
    message(page, sentence)
    page.check('input[value=draw]', force=True)
    assert page.locator('#message').inner_text() == ''


# --- what is explained ---------------------------------------------------------------------------


def test_another_class_has_another_heat_map(opened):
    page = opened()
    draw(page, SEVEN)
    wait_for_answer(page, '7')
    own = pixels(page, '#heat')
    page.click('#bars button[title="2"]')
    heat_of(page, '2')
    assert np.abs(pixels(page, '#heat') - own).max() > 50
    assert page.locator('#bars [aria-pressed=true]').count() == 1
    page.click('#bars button[title="2"]')
    heat_of(page, '7')
    np.testing.assert_array_equal(pixels(page, '#heat'), own)
    source = page.locator('#heat').get_attribute('src')
    page.select_option('#stage', 'conv1')
    until(page, 'source => document.querySelector("#heat").src !== source', source)
    assert np.abs(pixels(page, '#heat') - own).max() > 50


# --- for everybody -------------------------------------------------------------------------------


def focused(page) -> str:
    return page.evaluate('document.activeElement.id || document.activeElement.textContent')


def test_everything_is_done_with_the_keyboard(opened):
    page = opened()
    seen = []
    for _ in range(8):
        page.keyboard.press('Tab')
        seen.append(focused(page))
        if seen[-1] == 'sample':
            break
    assert seen[-1] == 'sample'
    style = page.evaluate('getComputedStyle(document.activeElement).outlineStyle')
    assert style == 'solid', 'the focus is seen'
    page.keyboard.press('Enter')
    wait_for_answer(page, '7')
    for _ in range(14):
        page.keyboard.press('Tab')
        if focused(page).startswith('2'):
            break
    page.keyboard.press('Enter')
    heat_of(page, '2')
    assert focused(page).startswith('2'), 'the focus stays'
    page.keyboard.press('Shift+Tab')
    assert focused(page).startswith('1')


def test_each_example_is_what_it_says(opened):
    page = opened()
    for name in '7352094861':
        page.click('#sample')
        wait_for_answer(page, name)


def test_a_screen_reader_hears_the_answer_once_it_has_settled(opened):
    page = opened()
    page.evaluate(
        """() => {
          window.heard = [];
          new MutationObserver(() => heard.push(spoken.textContent))
            .observe(spoken, { childList: true, characterData: true, subtree: true });
        }"""
    )
    draw(page, FOUR)
    draw(page, SEVEN)
    page.click('#clear')
    draw(page, SEVEN)
    until(page, '() => heard.length > 0')
    page.wait_for_timeout(500)
    [said] = page.evaluate('heard')
    assert said.startswith('The answer is 7 ')
    assert page.locator('#spoken').get_attribute('role') == 'status'
    for control in page.locator('button:visible, input, select, canvas, video, img:visible').all():
        assert page.evaluate(
            """(e) => e.labels?.length || e.textContent.trim() || e.ariaLabel || e.alt""",
            control.element_handle(),
        )


CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => {
    const [r, g, b] = color.map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest(':disabled, .heard, noscript')) continue;
    let behind = element;
    while (behind && rgba(getComputedStyle(behind).backgroundColor)[3] === 0) {
      behind = behind.parentElement;
    }
    const pair = [rgba(getComputedStyle(element).color),
      rgba(getComputedStyle(behind ?? document.documentElement).backgroundColor)].map(light);
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    found.push([ratio, element.textContent]);
  }
  return found;
}"""


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_text_can_be_read_in_light_and_dark(opened, scheme):
    page = opened(color_scheme=scheme)
    draw(page, SEVEN)
    wait_for_answer(page, '7')
    page.click('#bars button[title="2"]')
    settle(page)
    found = page.evaluate(CONTRASTS)
    assert len(found) > 60
    assert min(found)[0] >= 4.5, min(found)  # WCAG 2.1, 1.4.3, level AA
    background = page.evaluate('getComputedStyle(document.documentElement).backgroundColor')
    dark = int(re.search(r'\d+', background)[0]) < 60
    assert dark == (scheme == 'dark')


def test_whoever_wants_less_motion_gets_none(opened):
    page = opened(reduced_motion='reduce')
    fill = 'getComputedStyle(document.querySelector("#bars .fill")).transitionProperty'
    assert page.evaluate(fill) == 'none'


FITS = """() => {
  const widths = [...document.querySelectorAll('section, canvas')]
    .map((part) => part.getBoundingClientRect())
    .filter((box) => box.width)
    .map((box) => [box.left, box.right]);
  return document.documentElement.scrollWidth <= innerWidth
    && widths.every(([left, right]) => left >= 0 && right <= innerWidth);
}"""
MAPS_WIDTH = 'document.querySelector("canvas[aria-label^=pool2]").clientWidth'


def test_it_fits_from_a_phone_to_a_desktop(opened):
    page = opened(viewport={'width': 400, 'height': 800})
    draw(page, SEVEN)
    wait_for_answer(page, '7')
    until(page, f'() => {MAPS_WIDTH} > 200')  # the maps are laid out when their picture is there
    narrow = page.evaluate(MAPS_WIDTH)
    for width in (320, 720, 1100, 1400):
        page.set_viewport_size({'width': width, 'height': 900})
        until(page, FITS)
        assert answer(page) == '7'
    until(page, f'(narrow) => {MAPS_WIDTH} > narrow', narrow)  # more of them stand side by side
    page.set_viewport_size({'width': 400, 'height': 800})
    until(page, f'(narrow) => {MAPS_WIDTH} === narrow', narrow)
    until(page, FITS)
    page.click('#undo')
    assert is_empty(page)


# --- the server ----------------------------------------------------------------------------------


def test_it_works_again_when_the_server_does(browser, run):
    page = browser.new_page()
    with browsing.served(run) as url:
        page.goto(url)
        page.wait_for_selector('#bars li')
        draw(page, SEVEN)
        wait_for_answer(page, '7')
    page.click('#bars button[title="2"]')
    message(page, 'The server does not answer. Is python -m tools.page still running?')
    port = int(re.search(r':(\d+)/', url)[1])
    with browsing.served(run, port):
        heat_of(page, '2')
        assert page.locator('#message').inner_text() == ''
        page.click('#clear')
        draw(page, FOUR)
        wait_for_answer(page, '4')
        page.close()


def test_a_busy_server_is_asked_again(opened):
    page = opened()
    page.allowed = ('status of 503',)
    busy = {'status': 503, 'body': '{"error": "The server is busy."}'}
    page.route('**/look*', lambda route: route.fulfill(**busy), times=1)
    draw(page, SEVEN)
    wait_for_answer(page, '7')
    assert page.locator('#message').inner_text() == ''


def test_nothing_is_stored(opened, run):
    before = sorted((path, path.stat().st_mtime) for path in run.rglob('*'))
    page = opened()
    draw(page, SEVEN)
    wait_for_answer(page, '7')
    assert page.context.cookies() == []
    assert page.evaluate('localStorage.length + sessionStorage.length') == 0
    time.sleep(0.01)
    assert sorted((path, path.stat().st_mtime) for path in run.rglob('*')) == before
