"""A page is well-formed, says what it was given and nothing else, and needs no other file."""

import base64
import functools
import io
from xml.etree import ElementTree

import hypothesis
from hypothesis import strategies as st
from PIL import Image

from inspection.report import document
from tasks.section import Gallery, Picture, Section, Table, Verbatim

HOSTILE = '</td><script>alert(1)</script>" onload="x" & <b>\'"'


@functools.cache
def png(side=3):
    file = io.BytesIO()
    Image.new('L', (side, side)).save(file, 'PNG')
    return file.getvalue()


def parsed(page):
    """The page's root element, by a parser that forgives nothing."""
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    return ElementTree.fromstring(page)


def whole(text):
    """A page with a text in every place that takes one."""
    parts = [
        text,
        Picture(png(), text, [text, text]),
        Gallery([Picture(png(), text, plot=True), Picture(png(900), text, plot=True)]),
        Table(text, [(text, text), (text, text)]),
        Table(text, [(text, text), (text, text)], folded=True),
        Verbatim(text, text),
        Verbatim(text, text, folded=True),
    ]
    return document.page(text, text, {text: text}, [Section(text, parts), Section('b', [])])


def kinds(root):
    return [node.tag for node in root.iter()]


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.text(st.characters(), max_size=12))
def test_no_text_adds_an_element_or_an_attribute(text):
    root, plain = parsed(whole(text)), parsed(whole('plain'))
    assert kinds(root) == kinds(plain)
    assert [set(node.attrib) for node in root.iter()] == [set(n.attrib) for n in plain.iter()]


def test_hostile_names_are_text():
    page = whole(HOSTILE)
    root = parsed(page)
    assert '<script' not in page
    assert root.find('head/title').text == HOSTILE
    assert [cell.text for cell in root.iter('td')] == [HOSTILE] * 2
    assert [row.text for row in root.iter('th')] == [HOSTILE] * 6
    assert {image.get('alt') for image in root.iter('img')} == {HOSTILE}
    assert {pre.text for pre in root.iter('pre')} == {HOSTILE}


def test_letters_of_all_scripts_are_kept_and_what_no_page_may_hold_is_replaced():
    root = parsed(whole('猫 قطة \U0001f431'))
    assert root.find('body/header/h1').text == '猫 قطة \U0001f431'
    assert parsed(whole('a\x00b\ud800c\x1b')).find('body/header/h1').text == 'a\ufffdb\ufffdc\ufffd'


def test_a_page_can_be_found_through_and_read_aloud():
    sections = [Section('One & two', ['text']), Section('猫', []), Section('犬', [])]
    root = parsed(document.page('Title', 'lead', {'accuracy': '9 %'}, sections))
    links = root.findall('body/nav/ol/li/a')
    assert [link.text for link in links] == ['One & two', '猫', '犬']
    identities = {node.get('id'): node for node in root.iter() if node.get('id')}
    assert [identities[link.get('href')[1:]].text for link in links] == [s.title for s in sections]
    assert kinds(root).count('h1') == kinds(root).count('main') == 1
    assert len(identities) == 3
    table = parsed(whole('x')).find('.//table')
    assert [c.get('scope') for c in table.find('thead/tr')] == ['col', 'col']
    assert [c.get('scope') for c in table.find('tbody/tr')] == ['row', None]


def test_a_page_holds_its_pictures_in_their_size():
    root = parsed(whole('x'))
    first, second, wide = root.iter('img')
    kind, _, content = first.get('src').partition(',')
    assert (kind, base64.b64decode(content)) == ('data:image/png;base64', png())
    assert (first.get('width'), second.get('width')) == ('3', '2')
    assert int(wide.get('width')) > 640
    parents = {child: parent for parent in root.iter() for child in parent}
    assert parents[wide].get('class') == 'wide'  # it is scrolled in a box of its own


def test_a_page_refers_to_nothing_outside_and_runs_nothing():
    page = whole('x')
    root = parsed(page)
    policy = root.find('head/meta[@http-equiv]').get('content')
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert not {'script', 'link', 'iframe', 'object', 'base', 'form'} & {*kinds(root)}
    for node in root.iter():
        for name in ('src', 'href'):
            assert node.get(name, '#').startswith(('#', 'data:image/png;base64,'))
    style = root.find('head/style').text
    assert 'url(' not in style
    assert '@import' not in style
