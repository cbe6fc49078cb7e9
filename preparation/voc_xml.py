"""Reads annotations of a picture in the XML of Pascal VOC (host.robots.ox.ac.uk/pascal/VOC).

VOC counts pixels from 1, and the pixels of both ends belong to the box: xmin = 1 and xmax = width
is the whole width. Many tools write numbers from 0 instead, of the edges between pixels. The file
does not say which; whoever reads it has to.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from data_sources import picture_files
from errors import shortened, shown
from preparation import folder_listing
from preparation.box_sets import BoxFaultError, Marked

MOST = 2 << 20  # bytes of a file, some 7,000 boxes
FROM_ZERO = 'with boxes that start at 0'
_ENDS = ('ymin', 'xmin', 'ymax', 'xmax')
_YES = ('1', 'true', 'yes')


class Annotation(NamedTuple):
    """What a file says.

    Attributes:
      filename: of the picture, without folders; '' if it does not say.
      size: (height, width) of the picture; None if it does not say, or says 0.
      objects: (class, (ymin, xmin, ymax, xmax) as in the file, whether it is difficult) of each.
    """

    filename: str
    size: tuple[int, int] | None
    objects: tuple[tuple[str, tuple[float, ...], bool], ...]


def read(encoded: bytes) -> Annotation:
    """Returns the contents of a file.

    Raises:
      BoxFaultError: it is no such annotation.
    """
    root = _parsed(encoded)
    size = root.find('size')
    found = []
    for number, entry in enumerate(root.findall('object'), 1):
        name = _text(entry, 'name')
        if not name or not name.isprintable():
            raise BoxFaultError(f'has no <name> in object {number} that is a line of text')
        called = _called(number, name)
        boxes = entry.findall('bndbox')
        if len(boxes) != 1:
            raise BoxFaultError(f'has {len(boxes)} <bndbox> in {called}, and not one')
        ends = tuple(_number(boxes[0], end, called) for end in _ENDS)
        found.append((name, ends, _text(entry, 'difficult').lower() in _YES))
    filename = _text(root, 'filename').replace('\\', '/').rpartition('/')[2]
    return Annotation(filename, None if size is None else _size(size), tuple(found))


def marked(annotation: Annotation, numbers: dict[str, int], zero_based: bool) -> Marked:
    """Returns the objects of an annotation.

    Args:
      annotation: what a file says.
      numbers: {name: class}.
      zero_based: whether its numbers are edges that are counted from 0.

    Raises:
      BoxFaultError: an object is of another class.
    """
    names = tuple(_called(n, name) for n, (name, _, _) in enumerate(annotation.objects, 1))
    for (name, _, _), called in zip(annotation.objects, names, strict=True):
        if name not in numbers:
            raise BoxFaultError(f'has {called} of a class that is none of those given')
    ends = np.array([ends for _, ends, _ in annotation.objects], np.float64).reshape(-1, 4)
    kinds = ()
    if not zero_based:
        ends, starts = _edges(ends)
        kinds = (FROM_ZERO,) * starts
    return Marked(
        ends,
        tuple(numbers[name] for name, _, _ in annotation.objects),
        names,
        difficult=tuple(difficult for _, _, difficult in annotation.objects),
        size=annotation.size,
        kinds=kinds,
    )


def _edges(ends: np.ndarray) -> tuple[np.ndarray, bool]:
    """Returns the edges of boxes whose ends are pixels counted from 1, and whether one starts at 0.

    Such a start becomes the first edge. Ends that are equal are a box without area: nobody draws
    one of a single pixel.
    """
    starts, stops = ends[:, :2], ends[:, 2:]
    at_zero = (starts >= 0) & (starts < 1)
    edges = np.where(at_zero, 0.0, starts - 1)
    edges = np.where(starts == stops, stops, edges)
    return np.concatenate([edges, stops], axis=1), bool((at_zero & (starts != stops)).any())


def _parsed(encoded: bytes) -> Any:
    """Returns the root element; no entity is expanded, and nothing outside is read."""
    from defusedxml import ElementTree, common  # slow to import; only this origin needs it

    if not encoded.strip():
        raise BoxFaultError('is empty')
    if len(encoded) > MOST:
        raise BoxFaultError(f'has more than {MOST >> 20} MiB')
    try:
        root = ElementTree.fromstring(encoded)
    except common.DefusedXmlException as error:
        raise BoxFaultError(
            'declares entities, or refers to other files, which is not followed'
        ) from error
    # ParseError, and what unusual encodings and endless depths raise.
    except (SyntaxError, ValueError, LookupError, RecursionError, AssertionError) as error:
        raise BoxFaultError(f'is no XML: {shortened(_printable(error))}') from error
    if root.tag != 'annotation':
        raise BoxFaultError(f'is no annotation of Pascal VOC: its root is {shown(root.tag)}')
    return root


def _printable(error: Exception) -> str:
    return folder_listing.printable(' '.join(str(error).split()))


def _text(element: Any, name: str) -> str:
    found = element.find(name)
    return '' if found is None else (found.text or '').strip()


def _called(number: int, name: str) -> str:
    return f'object {number} ({shortened(name, 60)})'


def _number(box: Any, name: str, called: str) -> float:
    text = _text(box, name)
    try:
        value = float(text)
    except ValueError:
        raise BoxFaultError(f'has {shown(text)} for <{name}> in {called}, not a number') from None
    if not math.isfinite(value):
        raise BoxFaultError(f'has {shown(text)} for <{name}> in {called}, which is not finite')
    return value


def _size(element: Any) -> tuple[int, int] | None:
    sides = []
    for name in ('height', 'width'):
        text = _text(element, name)
        try:
            side = float(text or 0)
        except ValueError:
            raise BoxFaultError(f'has {shown(text)} for <{name}>, not a number') from None
        if not (side.is_integer() and 0 <= side <= picture_files.MAX_PIXELS):
            raise BoxFaultError(f'has {shown(text)} for <{name}>, not a number of pixels')
        sides.append(int(side))
    return tuple(sides) if all(sides) else None
