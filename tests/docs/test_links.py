"""Links in the documentation lead somewhere, and README.md stays short."""

import re
from pathlib import Path
from urllib.parse import urlparse

import pytest

from tests.conftest import ROOT
from tests.docs import pages

LINKING = (*pages.PAGES, 'ARCHITECTURE.md', 'CHANGELOG.md')
README_LINES = 250


def links(page: str) -> list[str]:
    return re.findall(r'\]\(([^)\s]*)\)', pages.prose(page))


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    text = re.sub(r'^```.*?^```$', '', path.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r'^#+ (.+)$', text, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', LINKING)
def test_every_link_leads_somewhere(page):
    for link in links(page):
        url = urlparse(link)
        if url.scheme:
            assert url.scheme == 'https', link
            assert re.fullmatch(r'[\w-]+(\.[\w-]+)+', url.netloc), link
            continue
        target = (ROOT / page).parent / url.path if url.path else ROOT / page
        assert target.exists(), f'{page}: {link}'
        if url.fragment:
            assert url.fragment in anchors(target), f'{page}: {link}'


def test_every_page_can_be_found_from_the_readme():
    found, new = set(), {ROOT / 'README.md'}
    while new:
        page = new.pop()
        found.add(page)
        paths = [link.partition('#')[0] for link in links(str(page.relative_to(ROOT)))]
        linked = {(page.parent / path).resolve() for path in paths if path.endswith('.md')}
        new |= {path for path in linked if path.is_relative_to(ROOT)} - found
    assert found >= {ROOT / page for page in LINKING}


def test_every_picture_is_shown():
    shown = {Path(link).name for page in pages.PAGES for link in links(page)}
    mentioned = ' '.join(command.text for page in pages.PAGES for command in pages.commands(page))
    for path in (ROOT / 'docs' / 'images').iterdir():
        assert path.name in shown or path.name in mentioned
        assert path.stat().st_size < 100_000


def test_the_readme_is_short():
    assert len(pages.read('README.md').splitlines()) <= README_LINES


def test_the_readme_and_the_results_agree():
    rows = re.findall(r'^\| (?:Digits|MNIST) \| (.*) \|$', pages.read('README.md'), re.MULTILINE)
    assert len(rows) == 6
    results = pages.read('docs/results.md')
    for row in rows:
        assert f'| {row} |' in results
