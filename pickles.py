"""Reads through a pickle before anything is built of it, and refuses what would cost too much.

`pickle.Unpickler.find_class` decides what a pickle may call. It does not protect the interpreter:
the hash of a tuple that is nested a million times overflows the C stack, an index into the memo
makes Python allocate a table of that length, and a length is allocated before it is found to be
wrong. The operations themselves say all of this, and `pickletools` reads them without building
anything.
"""

import os
import pickletools
from typing import Any, BinaryIO

MAX_OPERATIONS = 1_000_000  # an object costs up to 216 bytes; a published file has 300,000
MAX_DEPTH = 100
MAX_PARTS = 1_000_000

_MARK = object()
_PLAIN = (0, 1)  # depth and parts of what has no parts that count
# What is filled in place cannot be hashed, so that the hash of a tuple ends there.
_FILLED = {'LIST', 'DICT', 'APPEND', 'APPENDS', 'SETITEM', 'SETITEMS', 'ADDITEMS'}
_PUT = {'PUT', 'BINPUT', 'LONG_BINPUT'}
_GET = {'GET', 'BINGET', 'LONG_BINGET'}


def check(file: BinaryIO) -> None:
    """Reads one pickle, to its end, and goes back to where it began. Nothing is built.

    Args:
      file: seekable; the pickle begins at its position.

    Raises:
      ValueError: it is no whole pickle, has more than MAX_OPERATIONS, nests tuples or calls deeper
        than MAX_DEPTH, has a tuple of more than MAX_PARTS when what it shares is counted each time,
        or declares more than the file has.
    """
    start = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(start)
    stack: list[Any] = []
    memo: dict[int, tuple[int, int]] = {}
    try:
        for number, (operation, argument, position) in enumerate(pickletools.genops(file)):
            if number == MAX_OPERATIONS:
                raise ValueError(f'it has more than {MAX_OPERATIONS:,} operations')
            # Picklers count from 0 or 1.
            if operation.name in _PUT and argument > number:
                raise ValueError(f'it stores object {argument:,} after {number:,} operations')
            if operation.name == 'FRAME' and argument > end - position:
                raise ValueError(f'it has a frame of {argument:,} bytes, more than the file has')
            _apply(operation, argument, stack, memo)
    except (IndexError, KeyError) as error:
        raise ValueError('its operations take more than there is') from error
    file.seek(start)


def _apply(
    operation: pickletools.OpcodeInfo, argument: Any, stack: list, memo: dict[int, tuple[int, int]]
) -> None:
    """Does to a stack of (depth, parts) what the operation does to the unpickler's."""
    name = operation.name
    if name == 'MARK':
        stack.append(_MARK)
    elif name == 'DUP':
        stack.append(stack[-1])
    elif name in _GET:
        stack.append(memo[argument])
    elif name in _PUT:
        memo[argument] = stack[-1]
    elif name == 'MEMOIZE':
        memo[len(memo)] = stack[-1]
    else:
        taken = _take(operation, stack)
        if operation.stack_after:
            stack.append(_PLAIN if name in _FILLED else _joined(taken))


def _take(operation: pickletools.OpcodeInfo, stack: list) -> list[tuple[int, int]]:
    """Takes from the stack what the operation uses up, and returns it."""
    before, taken = operation.stack_before, []
    if pickletools.markobject in before:
        while (top := stack.pop()) is not _MARK:
            taken.append(top)
        before = before[: before.index(pickletools.markobject)]
    taken += [stack.pop() for _ in before]
    return [value for value in taken if value is not _MARK]  # POP may take a mark


def _joined(values: list[tuple[int, int]]) -> tuple[int, int]:
    """Returns depth and parts of an object made of others."""
    if not values:
        return _PLAIN
    depth = 1 + max(depth for depth, _ in values)
    parts = 1 + sum(parts for _, parts in values)
    if depth > MAX_DEPTH:
        raise ValueError(f'it nests objects more than {MAX_DEPTH} deep')
    if parts > MAX_PARTS:
        raise ValueError(f'it nests an object of more than {MAX_PARTS:,} parts')
    return depth, parts
