"""Class names of any script are drawn by a font that has them, or as escapes."""

import pytest
from matplotlib import font_manager
from PIL import ImageFont

import fonts
from inspection import drawing


@pytest.fixture
def system_fonts(monkeypatch):
    """Sets the fonts of the system."""

    def set_fonts(*paths):
        fonts.for_text.cache_clear()
        fonts._system_fonts.cache_clear()
        monkeypatch.setattr(font_manager, 'findSystemFonts', lambda: [str(path) for path in paths])

    yield set_fonts
    monkeypatch.undo()
    fonts.for_text.cache_clear()
    fonts._system_fonts.cache_clear()


@pytest.fixture
def cats(tmp_path):
    """A font whose only character is a Chinese one."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for move, point in ((pen.moveTo, (0, 0)), (pen.lineTo, (0, 500)), (pen.lineTo, (500, 500))):
        move(point)
    pen.closePath()
    names = ['.notdef', 'cat']
    font = FontBuilder(1000)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord('猫'): 'cat'})
    font.setupGlyf(dict.fromkeys(names, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({'familyName': 'Cats', 'styleName': 'Regular'})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / 'cats.ttf')
    return tmp_path / 'cats.ttf'


@pytest.mark.parametrize('name', ['cat', 'кошка', 'γάτα', 'قط', '$5', ''])
def test_most_alphabets_need_no_font_of_the_system(name, system_fonts):
    system_fonts()
    text, font = fonts.for_text(name)
    assert text == name
    assert ImageFont.truetype(font, 11).getlength(text) >= len(text)


def test_a_font_of_the_system_draws_the_rest(system_fonts, cats, tmp_path):
    damaged = tmp_path / 'broken.ttf'
    damaged.write_bytes(b'no font')
    system_fonts(damaged, cats)
    assert fonts.for_text('猫') == ('猫', cats)
    assert fonts.for_text('猫').font != fonts.for_text('cat').font


def test_without_a_font_a_name_is_still_told_from_others(system_fonts):
    system_fonts()
    assert fonts.for_text('a猫').text == 'a\\u732b'
    assert fonts.for_text('犬').text != fonts.for_text('猫').text


def test_one_font_has_all_lines_of_a_figures_title(system_fonts, cats):
    """A font for most of the lines would draw boxes in the others."""
    system_fonts(cats)  # which has no Latin letters
    made = drawing.figure(
        4, 3, '猫', 'a note that is long enough for two lines at the least of them'
    )
    first, *others = made.get_suptitle().split('\n')
    assert first == '\\u732b'
    assert len(others) == 2
    assert drawing.figure(4, 3, '猫').get_suptitle() == '猫'
