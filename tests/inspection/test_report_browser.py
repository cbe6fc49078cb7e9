"""report.html in Chromium, on the screen and on paper: `make test-page`."""

import shutil
from pathlib import Path

import pytest

import evaluate
from tests.tools.page import browsing

pytestmark = pytest.mark.page


@pytest.fixture(scope='module')
def browser():
    if not browsing.chromium():
        pytest.skip(f'needs one of {", ".join(browsing.NAMES)}: apt-get install chromium')
    sync_api = pytest.importorskip('playwright.sync_api', reason='needs requirements-page.txt')
    with sync_api.sync_playwright() as playwright, browsing.launched(playwright) as browser:
        yield browser


@pytest.fixture(scope='module')
def address(lenet_run, tmp_path_factory):
    workdir = Path(shutil.copytree(lenet_run, tmp_path_factory.mktemp('report') / 'run'))
    assert evaluate.main([f'--workdir={workdir}', '--report']) == 0
    return (workdir / 'report.html').as_uri()


@pytest.fixture
def opened(browser, address):
    """Opens the page with options of a context; nothing but its file may be asked for."""
    contexts, asked, said = [], [], []

    def open_page(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on('request', lambda request: asked.append(request.url))
        page.on('console', lambda message: said.append(message.text))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith('data:')] == [address] * len(contexts)
    assert said == []


@pytest.mark.parametrize('width', [320, 400, 768, 1400])
def test_the_page_is_never_scrolled_sideways(opened, width):
    page = opened(viewport={'width': width, 'height': 900})

    def widest():
        return page.evaluate('document.documentElement.scrollWidth')

    assert widest() <= width
    for summary in page.locator('summary').all():
        summary.click()
    assert page.locator('details table').first.is_visible()
    assert widest() <= width


def test_what_is_folded_is_open_on_paper(opened):
    page = opened()
    rows = page.locator('details tr')
    assert not rows.first.is_visible()
    page.emulate_media(media='print', color_scheme='dark')
    assert all(row.is_visible() for row in rows.all())
    ground = page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert ground == 'rgb(255, 255, 255)'


def test_the_page_is_dark_where_the_screen_is(opened):
    grounds = {
        scheme: opened(color_scheme=scheme).evaluate(
            'getComputedStyle(document.body).backgroundColor'
        )
        for scheme in ('light', 'dark')
    }
    assert grounds == {'light': 'rgb(255, 255, 255)', 'dark': 'rgb(20, 25, 31)'}


def test_the_contents_lead_to_every_section(opened):
    page = opened()
    links = page.locator('nav a')
    assert links.count() == page.locator('section').count() == 8
    for link in links.all():
        link.click()
        heading = page.locator(page.evaluate('location.hash'))
        assert heading.inner_text() == link.inner_text()
        assert heading.is_visible()
