"""The printed table of a sweep: no word of it is broken, whatever its width."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps import table

WORDS = st.from_regex(r'[a-z]{1,20}', fullmatch=True)
NAMES = st.lists(st.lists(WORDS, min_size=1, max_size=3).map('.'.join), max_size=12, unique=True)


@settings(max_examples=25)
@given(NAMES, st.integers(50, 200), st.integers(1, 5), st.data())
def test_every_word_and_value_stands_in_one_piece(fields, width, count, data):
    names = ['trial', 'validation/accuracy', *fields]
    value = st.from_regex(r'[a-z0-9.-]{1,9}', fullmatch=True)
    rows = [[data.draw(value) for _ in names] for _ in range(count)]
    text = table.layout(names, rows, width)
    found = text.split()
    assert set(names) <= set(found)
    assert {value for row in rows for value in row} <= set(found)
    widest = max(width, 34 + max(map(len, names)))  # beside the first two columns
    assert all(len(line) <= widest for line in text.splitlines())
    assert all('trial' in block.split() for block in text.split('\n\n'))


def test_the_columns_of_a_narrow_terminal_follow_in_blocks():
    names = ['trial', 'validation/accuracy', 'optimizer.learning_rate', 'model.pooling', 'seed']
    rows = [['3', '98.61 %', '0.00321', 'average', '17'], ['12', '98.33 %', '0.0107', 'max', '4']]
    assert table.layout(names, rows, 80) == (
        'trial  validation/accuracy  optimizer.learning_rate  model.pooling  seed\n'
        '------------------------------------------------------------------------\n'
        '    3              98.61 %                  0.00321        average    17\n'
        '   12              98.33 %                   0.0107            max     4'
    )
    assert table.layout(names, rows, 60) == (
        'trial  validation/accuracy  optimizer.learning_rate\n'
        '---------------------------------------------------\n'
        '    3              98.61 %                  0.00321\n'
        '   12              98.33 %                   0.0107\n'
        '\n'
        'trial  validation/accuracy  model.pooling  seed\n'
        '-----------------------------------------------\n'
        '    3              98.61 %        average    17\n'
        '   12              98.33 %            max     4'
    )


@pytest.mark.parametrize('width', [20, 40, 80])
def test_a_text_that_no_line_has_room_for_loses_its_middle(width):
    name = 'weights/' + 'x' * 100 + '/last'
    text = table.layout(['trial', 'loss', 'init_from'], [['0', '0.1', name]], width)
    shown = text.splitlines()[-1].split()[-1]
    assert shown.startswith('weight')
    assert shown.endswith('/last')
    assert '…' in shown
