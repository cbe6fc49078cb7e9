"""Draws a digit on the page and takes the picture of docs/page.md.

    python -m tests.tools.page.picture --workdir=runs/digits_lenet --output=docs/images/page.png

With --picture it gives that file to a detector, chooses a box, and takes that part of the page.

Needs what `make test-page` installs, and Chromium.
"""

import argparse
import io
from pathlib import Path

from PIL import Image

from tests.tools.page import browsing

COLORS = 256  # of the palette, so that the file is small


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog='python -m tests.tools.page.picture', description=__doc__)
    parser.add_argument('--workdir', type=Path, required=True, help='folder of the run')
    parser.add_argument('--output', type=Path, required=True, help='PNG file to write')
    parser.add_argument('--width', type=int, default=1200, help='of the window, in pixels [1200]')
    parser.add_argument('--scheme', choices=('light', 'dark'), default='light')
    parser.add_argument('--picture', type=Path, help='file to give instead of a drawing')
    parser.add_argument('--colors', type=int, default=COLORS, help=f'of the file [{COLORS}]')
    parser.add_argument('--box', help='the box to explain, such as "WBC #1"')
    arguments = parser.parse_args(argv)
    from playwright.sync_api import sync_playwright

    with (
        browsing.served(arguments.workdir) as url,
        sync_playwright() as playwright,
        browsing.launched(playwright) as browser,
    ):
        window = {'width': arguments.width, 'height': 900}
        page = browser.new_page(viewport=window, color_scheme=arguments.scheme)
        page.goto(url)
        if arguments.picture:
            shot = _boxes(page, arguments.picture, arguments.box)
        else:
            page.wait_for_selector('#bars li')
            browsing.draw(page, browsing.FOUR)
            browsing.wait_for_answer(page)
            page.mouse.move(0, 0)
            page.wait_for_timeout(300)  # until the bars have grown
            shot = page.screenshot(full_page=True)
    image = Image.open(io.BytesIO(shot)).convert('RGB')
    image.quantize(arguments.colors, dither=Image.Dither.NONE).save(arguments.output, optimize=True)
    print(f'wrote {arguments.output}, {arguments.output.stat().st_size:,} bytes')


def _boxes(page, picture: Path, box: str | None) -> bytes:
    """Gives the page a picture, and returns what is said of it, above the stages."""
    page.wait_for_selector('#facts div', state='attached')
    page.set_input_files('#file', picture)
    browsing.until(page, '() => document.querySelector("#heat").src')
    browsing.settle(page)
    if box:
        page.click(f'[data-box="{box}"]')
        browsing.until(
            page,
            '(box) => document.querySelector("#heat-caption").textContent.endsWith(box)',
            box,
        )
        browsing.settle(page)
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)
    said, inside = (page.locator(name).bounding_box() for name in ('.answer', '.inside'))
    left, top = said['x'] - 8, said['y'] - 8
    size = {'width': page.viewport_size['width'] - left, 'height': inside['y'] - top - 8}
    return page.screenshot(clip={'x': left, 'y': top, **size})


if __name__ == '__main__':
    main()
