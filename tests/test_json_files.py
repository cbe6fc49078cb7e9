"""The one door for JSON files: whatever a file holds, it is read or refused in a sentence."""

import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import files
from errors import UserError
from tests.conftest import ROOT
from tests.test_architecture import product_files

LIKE = {'name': str, 'steps': [int], 'about': {'rate': float}}
SOUND = {'name': 'a', 'steps': [1, 2], 'about': {'rate': 1}, 'more': None}
DAMAGE = {
    'empty': (b'', 'not valid JSON'),
    'half': (b'{"name": "a', 'not valid JSON'),
    'not UTF-8': (b'{"name": "\xff"}', 'not valid JSON'),
    'too many digits': (b'[' + b'9' * 5000 + b']', 'not valid JSON'),
    'deep lists': (b'[' * 5000 + b']' * 5000, 'nested more than 50 deep'),
    'deep objects': (b'{"a":' * 5000 + b'1' + b'}' * 5000, 'nested more than 50 deep'),
    'a little too deep': (b'[' * 51 + b']' * 51, 'nested more than 50 deep'),
    'too large': (b' ' * (files.MOST_JSON + 1), 'too large'),
    'a list': (b'[]', 'it is a list, not an object'),
    'null': (b'null', 'it is null, not an object'),
    'no name': (b'{}', 'it has no "name"'),
    'a number': (json.dumps(SOUND | {'name': 1}).encode(), '"name" is a whole number, not a text'),
    'true': (json.dumps(SOUND | {'steps': [1, True]}).encode(), 'item 1 of "steps" is true or'),
    'nested': (
        json.dumps(SOUND | {'about': {'rate': 'x'}}).encode(),
        '"rate" of "about" is a text',
    ),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_a_file_that_holds_something_else_is_named(tmp_path, damage):
    content, words = DAMAGE[damage]
    (tmp_path / 'a.json').write_bytes(content)
    with pytest.raises(UserError) as caught:
        files.read_json(tmp_path / 'a.json', LIKE, 'Copy it again.')
    message = str(caught.value)
    assert message.startswith(str(tmp_path / 'a.json'))
    assert words in message
    assert message.endswith('. Copy it again.')
    assert files.usable_json(tmp_path / 'a.json', LIKE) is None


def test_a_sound_file_is_read(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(SOUND))
    assert files.read_json(path, LIKE) == files.usable_json(path, LIKE) == SOUND
    path.write_bytes(b'[' * 50 + b']' * 50)
    assert files.read_json(path, list)


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda path: None, 'No such file'),
        (os.mkfifo, 'is a pipe'),
        (os.mkdir, 'is a folder'),
        (lambda path: os.symlink('/dev/zero', path), 'is a device'),
    ],
    ids=['missing', 'pipe', 'folder', 'device'],
)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, make, words):
    make(tmp_path / 'a.json')
    with pytest.raises(UserError, match=words):
        files.read_json(tmp_path / 'a.json')


@pytest.mark.parametrize('name', ['a' * 5000, 'a\0b', '\ud800'])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, name):
    with pytest.raises(UserError) as caught:
        files.read_json(f'{tmp_path}/{name}')
    assert len(str(caught.value)) < 400


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(['name', 'steps', 'about', 'rate']), inner, max_size=4
            )
        ),
    )
)
def test_any_json_fits_or_is_described(value):
    problem = files.mismatch(value, LIKE)
    if problem is None:
        assert isinstance(value['name'], str)
        assert all(type(step) is int for step in value['steps'])
        assert type(value['about']['rate']) in (int, float)
    else:
        assert len(problem.split()) >= 4


def test_no_other_module_reads_json_from_files():
    reading = re.compile(r'json\.load\(|json\.loads\([^\n]*read_(text|bytes)')
    found = [path for path in product_files() if reading.search((ROOT / path).read_text())]
    # It runs in an environment of its own, without this repository.
    assert found == ['benchmarks/contestants/tensorflow_data.py']


def test_a_link_of_a_stranger_leads_nowhere(tmp_path):
    mine = tmp_path / 'mine'
    mine.write_text('kept')
    for name in ('.a.json.tmp', 'a.json'):
        (tmp_path / name).symlink_to(mine)
    files.write_json(tmp_path / 'a.json', {'b': 1})
    assert mine.read_text() == 'kept'
    assert files.read_json(tmp_path / 'a.json') == {'b': 1}
