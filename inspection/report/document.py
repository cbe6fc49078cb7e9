"""One HTML file of sections, with nothing outside of it: no script, no address, no other file.

Every text goes through `element`, which escapes it: names of classes and folders are anybody's.
The markup is at the same time well-formed XML, which a strict parser can check.
"""

import base64
import functools
import html
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.section import Gallery, Picture, Section, Table, Verbatim

# Of a plot, so that its text is about as large as the page's, and sharp on a fine screen.
_PLOT_PIXELS = 1.35  # for each pixel of the page
_WIDE = 640  # pixels of the page; a wider picture is not made smaller than can be read
# Nothing is loaded and no script is run, whatever may stand in the file.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
# Characters that no HTML or XML may have: most control characters, halves of surrogate pairs.
_FORBIDDEN = re.compile(
    r'[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]'
)


class Markup(str):
    """A text that is HTML already."""

    __slots__ = ()


def element(tag: str, /, *content: str, **attributes: str) -> Markup:
    """Returns an element.

    Args:
      tag: its name.
      content: what is in it, joined; all that is no Markup is escaped.
      attributes: with '-' for '_', and without a '_' at the end, as in class_.
    """
    given = ''.join(
        f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for key, value in attributes.items()
    )
    inner = ''.join(c if isinstance(c, Markup) else _escaped(c) for c in content)
    if tag in ('img', 'meta'):
        return Markup(f'<{tag}{given} />')
    return Markup(f'<{tag}{given}>{inner}</{tag}>')


def page(title: str, lead: str, figures: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Returns a page.

    Args:
      title: its heading.
      lead: a paragraph below it.
      figures: {name: value} of the few numbers that matter most.
      sections: what follows, listed in a table of contents.
    """
    head = element(
        'head',
        element('meta', charset='utf-8'),
        element('meta', name='viewport', content='width=device-width, initial-scale=1'),
        element('meta', http_equiv='Content-Security-Policy', content=_POLICY),
        element('title', title),
        Markup(f'<style>\n{_style()}</style>'),
    )
    tiles = [
        element('div', element('dt', name), element('dd', value)) for name, value in figures.items()
    ]
    header = element(
        'header',
        element('h1', title),
        element('p', lead),
        element('dl', *tiles, class_='figures'),
    )
    anchors = {f'part-{number}': section for number, section in enumerate(sections, 1)}
    body = element(
        'body',
        header,
        _contents(anchors),
        element('main', *(_section(*pair) for pair in anchors.items())),
    )
    return f'<!DOCTYPE html>\n{element("html", head, body, lang="en")}\n'


@functools.cache
def _style() -> str:
    return Path(__file__).with_name('document.css').read_text()


def _contents(anchors: Mapping[str, Section]) -> Markup:
    links = [
        element('li', element('a', section.title, href=f'#{anchor}'))
        for anchor, section in anchors.items()
    ]
    return element('nav', element('h2', 'Contents'), element('ol', *links), aria_label='Contents')


def _section(anchor: str, section: Section) -> Markup:
    heading = element('h2', section.title, id=anchor)
    return element('section', heading, *map(_part, section.parts), aria_labelledby=anchor)


def _part(part: str | Picture | Gallery | Table | Verbatim) -> Markup:
    if isinstance(part, Picture):
        return _picture(part)
    if isinstance(part, Gallery):
        return element('div', *map(_picture, part.pictures), class_='gallery')
    if isinstance(part, Table):
        return _titled(part.title, _table(part), part.folded)
    if isinstance(part, Verbatim):
        return _titled(part.title, _scrolled(part.title, element('pre', part.text)), part.folded)
    return element('p', part)


def _picture(picture: Picture) -> Markup:
    width, height = struct.unpack('>II', picture.png[16:24])  # of the PNG's first chunk
    if picture.plot:
        width, height = (round(side / _PLOT_PIXELS) for side in (width, height))
    image = element(
        'img',
        src='data:image/png;base64,' + base64.b64encode(picture.png).decode(),
        alt=picture.description,
        width=str(width),
        height=str(height),
    )
    if width > _WIDE:
        image = _scrolled(picture.description, image)
    lines = [element('span', line) for line in picture.caption]
    caption = [element('figcaption', *lines)] if lines else []
    return element('figure', image, *caption, class_='plot' if picture.plot else 'picture')


def _titled(title: str, content: Markup, folded: bool) -> Markup:
    if folded:
        return element('details', element('summary', title), content)
    return element('div', element('h3', title), content, class_='titled')


def _scrolled(title: str, content: Markup) -> Markup:
    """Returns a box in which what is too wide can be scrolled, with the keyboard as well."""
    return element('div', content, class_='wide', role='region', tabindex='0', aria_label=title)


def _table(table: Table) -> Markup:
    def row(texts: Sequence[str], header: bool) -> Markup:
        cells = []
        for column, text in enumerate(texts):
            kind = {} if column < table.left_columns else {'class_': 'number'}
            if header or column == 0:
                kind['scope'] = 'col' if header else 'row'
            cells.append(element('th' if 'scope' in kind else 'td', text, **kind))
        return element('tr', *cells)

    head, *rows = table.rows
    return _scrolled(
        table.title,
        element(
            'table',
            element('thead', row(head, header=True)),
            element('tbody', *(row(texts, header=False) for texts in rows)),
        ),
    )


def _escaped(text: str) -> str:
    return html.escape(_FORBIDDEN.sub('\ufffd', text))
