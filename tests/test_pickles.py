"""A pickle is looked through before it is read: what would end the interpreter is refused."""

import io
import pickle
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pickles

KEYS = st.one_of(st.text(max_size=5), st.integers(), st.binary(max_size=5), st.none())
VALUES = st.recursive(
    st.one_of(KEYS, st.floats(allow_nan=False), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.frozensets(KEYS, max_size=4),
        st.sets(KEYS, max_size=4),
    ),
    max_leaves=12,
)


@given(value=VALUES, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL), before=st.binary(max_size=3))
def test_whatever_python_pickles_passes_and_is_read_from_where_it_began(value, protocol, before):
    file = io.BytesIO(before + pickle.dumps(value, protocol) + b'what follows')
    file.seek(len(before))
    pickles.check(file)
    assert file.tell() == len(before)
    assert pickle.load(file) == value


def nested(depth):
    value = ()
    for _ in range(depth):
        value = (value,)
    return value


@given(depth=st.integers(0, 2 * pickles.MAX_DEPTH), protocol=st.integers(2, 5))
def test_the_depth_of_tuples_is_that_of_the_value(depth, protocol):
    file = io.BytesIO(pickle.dumps(nested(depth), protocol))
    if depth <= pickles.MAX_DEPTH:
        pickles.check(file)
    else:
        with pytest.raises(ValueError, match='nests objects more than 100 deep'):
            pickles.check(file)


DEEP = b'\x80\x02}' + b')' + b'\x85' * 1_000_000 + b'Ns.'
# Each tuple is the one before, twice: its hash would take 2 to the power of 60.
DOUBLED = b'\x80\x02})' + b'2\x86' * 60 + b'Ns.'
THROUGH_THE_MEMO = b'\x80\x02})' + b''.join(b'q%ch%c\x86' % (n, n) for n in range(60)) + b'Ns.'
HOSTILE = {
    'a deep key': (DEEP, 'more than 100 deep'),
    'a deep key by marks': (b'\x80\x02}' + b'(' * 1000 + b't' * 1000 + b'Ns.', '100 deep'),
    'a deep frozenset': (b'\x80\x04' + b'(' * 1000 + b'\x91' * 1000 + b'.', '100 deep'),
    'doubled': (DOUBLED, 'more than 1,000,000 parts'),
    'doubled through the memo': (THROUGH_THE_MEMO, 'more than 1,000,000 parts'),
    'a memo of 16 GB': (b'\x80\x02]r' + struct.pack('<I', 2**31 - 1) + b'.', 'stores object 2,147'),
    'the same in text': (b']p2147483647\n.', 'stores object 2,147'),
    'a frame of 30 GB': (b'\x80\x04\x95' + struct.pack('<Q', 30 << 30) + b'N.', 'a frame of 32,'),
    'bytes of 30 GB': (b'\x80\x04\x8e' + struct.pack('<Q', 30 << 30) + b'N.', 'expected 32'),
    'a bytearray': (b'\x80\x05\x96' + struct.pack('<Q', 30 << 30) + b'N.', 'expected 32'),
    'many objects': (b'\x80\x02(' + b'}' * 1_000_001 + b'l.', 'more than 1,000,000 operations'),
    'an empty stack': (b'\x80\x02\x85.', 'take more than there is'),
    'no such object': (b'\x80\x02h\x05.', 'take more than there is'),
    'no mark': (b'\x80\x02Nt.', 'take more than there is'),
    'cut': (pickle.dumps([1, 2, 3])[:-1], 'pickle exhausted before seeing STOP'),
    'no pickle': (b'\xff\xd8\xff', 'opcode'),
}


@pytest.mark.parametrize('case', HOSTILE)
def test_what_would_cost_too_much_is_refused(case):
    data, message = HOSTILE[case]
    with pytest.raises(ValueError, match=message):
        pickles.check(io.BytesIO(data))
