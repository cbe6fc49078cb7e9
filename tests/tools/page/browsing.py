"""The page in a real browser: a server of its own process, Chromium, and a hand that draws."""

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
# A browser that says nothing to anybody, in a container and without a graphics card.
OPTIONS = (
    '--no-sandbox',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-first-run',
)
PATIENCE = 60.0  # seconds; nothing depends on how fast the machine is
# Points in parts of the paper.
SEVEN = (((0.3, 0.22), (0.7, 0.22), (0.45, 0.8)),)
FOUR = (((0.55, 0.2), (0.3, 0.6), (0.72, 0.6)), ((0.6, 0.42), (0.6, 0.84)))


def chromium() -> str | None:
    """The program, or None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def launched(playwright, *options: str) -> Iterator:
    """Starts Chromium; yields Playwright's browser."""
    browser = playwright.chromium.launch(executable_path=chromium(), args=[*OPTIONS, *options])
    try:
        yield browser
    finally:
        browser.close()


@contextlib.contextmanager
def served(workdir: Path, port: int = 0) -> Iterator[str]:
    """Runs `python -m tools.page` in a process of its own; yields its address.

    At the end it is stopped by Ctrl-C, and has to say that all is well.
    """
    command = ['-m', 'tools.page', f'--workdir={workdir}', f'--port={port}']
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            printed = ''
            while not (found := re.search(r'open (http://\S+/) in a browser', printed)):
                line = process.stdout.readline()
                assert line, f'the page is not served: {printed}'
                printed += line
            yield found[1]
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def draw(page, strokes=SEVEN) -> None:
    """Draws strokes with the mouse."""
    for stroke in strokes:
        places = [place(page, point) for point in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for x, y in places[1:]:
            page.mouse.move(x, y, steps=8)
        page.mouse.up()


def place(page, point: tuple[float, float]) -> tuple[float, float]:
    """Where a point of the paper is on the page, in pixels."""
    paper = page.locator('#paper')
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    return box['x'] + point[0] * box['width'], box['y'] + point[1] * box['height']


def wait_for_answer(page, name: str | None = None) -> None:
    """Waits until an answer is shown: this one, or any; then until it is settled."""
    until(
        page,
        """(name) => {
          const first = document.querySelector('#bars .first .name');
          return first && (name === null || first.textContent === name);
        }""",
        name,
    )
    settle(page)


def settle(page) -> None:
    """Waits until what is shown is of what the page looks at now."""
    until(page, '() => !document.body.classList.contains("asking")')


def until(page, script: str, argument=None) -> None:
    """Waits until a function of JavaScript, given the argument, is true.

    Playwright's own wait_for_function is stopped by the page's Content-Security-Policy.
    """
    deadline = time.monotonic() + PATIENCE
    while not page.evaluate(script, argument):
        assert time.monotonic() < deadline, f'not true: {script} of {argument!r}'
        page.wait_for_timeout(20)
