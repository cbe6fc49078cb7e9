"""Draws a digit on the page and takes the picture of docs/page.md.

    python -m tests.tools.page.picture --workdir=runs/digits_lenet --output=docs/images/page.png

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
        page.wait_for_selector('#bars li')
        browsing.draw(page, browsing.FOUR)
        browsing.wait_for_answer(page)
        page.mouse.move(0, 0)
        page.wait_for_timeout(300)  # until the bars have grown
        shot = page.screenshot(full_page=True)
    image = Image.open(io.BytesIO(shot)).convert('RGB')
    image.quantize(COLORS, dither=Image.Dither.NONE).save(arguments.output, optimize=True)
    print(f'wrote {arguments.output}, {arguments.output.stat().st_size:,} bytes')


if __name__ == '__main__':
    main()
