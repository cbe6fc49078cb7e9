"""The structure of JPEG files (ITU-T T.81, annex B), and whether one lacks a part of its data.

libjpeg-turbo decodes half a picture without an error: what is missing becomes grey, and it gives a
warning, which Pillow does not pass on. Only its first warning can be read. So a picture with any
is looked at again without all that gives harmless ones.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import simplejpeg

BASELINE = (0xC0, 0xC1)
PROGRESSIVE = (0xC2, 0xCA)
LOSSLESS = (0xC3, 0xCB)
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
ALONE = {0x01, *range(0xD0, 0xDA)}  # markers without a length
END = b'\xff\xd9'
_START, _SCAN = b'\xff\xd8', 0xDA
_COMMENTS = {0xFE, *range(0xE0, 0xF0)}
# Of arithmetic coding libjpeg-turbo does not say that data are missing: its coder drops zeros.
_JUDGED = (*BASELINE, 0xC2, 0xC3)
_SPACES = {1: 'GRAY', 3: 'RGB', 4: 'CMYK'}
_PREMATURE = 'remature end'  # of a data segment, or of the file
_MARKER = re.compile(rb'\xff[^\x00\xff\xd0-\xd7]')  # the first one behind entropy-coded data
MISSING = 'image file is truncated: a part of its data is missing'
_FILL = 16  # equal bytes at the end that look as if a file was filled up


class MissingDataError(ValueError):
    """A JPEG lacks a part of its data."""


class Segment(NamedTuple):
    """A marker with its parameters, encoded[start:stop], from 0xFF on."""

    marker: int
    start: int
    stop: int


class Examined(NamedTuple):
    """A JPEG that lacks nothing, as far as libjpeg-turbo can tell, or a file that is no JPEG.

    Attributes:
      data: the file, with an end marker where that was all that was missing.
      clean: whether libjpeg-turbo has decoded all of it without a warning.
    """

    data: bytes
    clean: bool


def examined(encoded: bytes) -> Examined:
    """Decodes a JPEG, one pixel for each block, and looks for missing data.

    What libjpeg-turbo fills in without loss, such as the last two bytes, is not missing.

    Raises:
      MissingDataError: it lacks a part of its data.
    """
    frame = _frame(encoded)
    if frame is None:
        return Examined(encoded, False)
    if not has_all_scans(encoded):
        raise MissingDataError(MISSING)
    if frame.marker not in _JUDGED:
        return Examined(encoded, False)
    if not _warning(encoded):
        return Examined(encoded, True)
    if _lacks_data(encoded):
        raise MissingDataError(MISSING)
    if encoded.rfind(END) > frame.start:
        return Examined(encoded, False)
    try:
        _decode(encoded + END, strict=False)
    except ValueError:  # of a kind that Pillow decodes alone
        return Examined(encoded, False)
    return Examined(encoded + END, False)


def lacks_data(encoded: bytes) -> bool:
    """Returns whether `examined` finds that data are missing."""
    try:
        examined(encoded)
    except MissingDataError:
        return True
    return False


def kind(encoded: bytes) -> str:
    """Returns bits and kind of coding of a JPEG, in words; '' for another file."""
    frame = _frame(encoded)
    if frame is None:
        return ''
    return f'{encoded[frame.start + 4]} bits, frame type {frame.marker - 0xC0}'


def looks_cut(encoded: bytes, position: int) -> bool:
    """Returns whether a JPEG has no end, or one behind a filling; takes a microsecond.

    Args:
      encoded: the file.
      position: of its frame header; the thumbnail before it has an end of its own.
    """
    if encoded.rfind(END) < position:
        return True
    return encoded.endswith(END) and len(set(encoded[-_FILL - 2 : -2])) == 1


def _lacks_data(encoded: bytes) -> bool:
    """Returns whether the warnings about a JPEG mean that data are missing."""
    bare = _bare(encoded).removesuffix(END)
    found = _warning(bare + END)
    if found and _PREMATURE not in found and bare[-_FILL:] == bare[-1:] * _FILL:
        # It may have taken for data what the file was filled up with.
        found = _warning(bare.rstrip(bare[-1:]) + END)
    return _PREMATURE in found


def has_all_scans(encoded: bytes) -> bool:
    """Returns whether all components were sent, and of a progressive JPEG in all of their bits."""
    frame, left = _frame(encoded), set()
    for segment in _segments(encoded):
        if segment == frame:
            count, bits = encoded[frame.start + 9], range(1)
            if frame.marker in PROGRESSIVE:
                bits = range(64)
            ids = encoded[frame.start + 10 : frame.stop : 3][:count]
            left = {(component, bit) for component in ids for bit in bits}
        if segment.marker != _SCAN:
            continue
        if segment.stop >= len(encoded):
            return False
        count = encoded[segment.start + 4]
        ids = encoded[segment.start + 5 : segment.start + 5 + 2 * count : 2]
        first, last, precision = encoded[segment.stop - 3 : segment.stop]
        if frame and frame.marker not in PROGRESSIVE:
            first = last = precision = 0
        if precision & 15 == 0:
            left -= {(component, bit) for component in ids for bit in range(first, last + 1)}
    return not left


def _warning(encoded: bytes) -> str:
    """Returns the first warning or error of libjpeg-turbo, or ''; the whole file is read."""
    try:
        _decode(encoded, strict=True)
    except ValueError as error:
        return str(error)
    return ''


def _decode(encoded: bytes, strict: bool) -> None:
    """Decodes a JPEG of a kind of _JUDGED, one pixel for each block."""
    frame = _frame(encoded)
    space = _SPACES.get(encoded[frame.start + 9], 'RGB')
    # simplejpeg writes beyond its buffer if a lossless JPEG is scaled, and crashes.
    scale = {} if frame.marker in LOSSLESS else {'min_height': 1, 'min_width': 1}
    simplejpeg.decode_jpeg(encoded, space, strict=strict, **scale)


def _segments(encoded: bytes) -> Iterator[Segment]:
    """Yields the segments of a JPEG as libjpeg-turbo finds them; nothing for another file."""
    offset = 2 if encoded.startswith(_START) else len(encoded)
    while 0 <= (offset := encoded.find(b'\xff', offset)) < len(encoded) - 3:
        marker = encoded[offset + 1]
        if marker in (0x00, 0xFF):  # stuffing, padding
            offset += 1
            continue
        if marker in ALONE:
            if encoded[offset : offset + 2] == END:
                return
            offset += 2
            continue
        length = int.from_bytes(encoded[offset + 2 : offset + 4])
        segment = Segment(marker, offset, offset + 2 + max(length, 2))
        yield segment
        offset = segment.stop
        if marker == _SCAN:
            found = _MARKER.search(encoded, offset)
            offset = found.start() if found else len(encoded)


def _frame(encoded: bytes) -> Segment | None:
    """Returns the frame header; None if there is none."""
    frame = next((s for s in _segments(encoded) if s.marker in FRAMES or s.marker == _SCAN), None)
    whole = frame is not None and frame.marker != _SCAN and frame.start + 10 <= len(encoded)
    return frame if whole else None


def _bare(encoded: bytes) -> bytes:
    """Returns a JPEG without that which gives warnings though the pixels are sound.

    These are comments, application data, bytes between segments, and odd parameters of a scan.
    """
    parts, frame = [_START], _frame(encoded)
    for segment in _segments(encoded):
        if segment.marker == _SCAN:
            header = encoded[segment.start : segment.stop]
            if frame.marker in BASELINE:
                header = header[:-3] + bytes((0, 63, 0))
            return b''.join((*parts, header, encoded[segment.stop :]))
        if segment.marker not in _COMMENTS:
            parts.append(encoded[segment.start : segment.stop])
    return encoded
