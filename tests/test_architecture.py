"""The map of rooms in ARCHITECTURE.md is that of the code, and files and functions stay small."""

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conftest import ROOT

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
MOST_MODULES_OF_TRAINING = 30
ROW = re.compile(r'^\| `([\w./]+)` \| [^|]+ \| ([^|]*) \|$', re.MULTILINE)


def room_of(path: str) -> str:
    """The room of a file: a top-level folder, or a top-level file without its suffix."""
    return path.partition('/')[0].removesuffix('.py')


def product_files() -> list[str]:
    listed = subprocess.run(
        ['git', 'ls-files', '*.py'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip('the map is compared with the files that git tracks')
    return [path for path in listed.stdout.split() if not path.startswith('tests/')]


def trees() -> dict[str, ast.Module]:
    return {path: ast.parse((ROOT / path).read_text()) for path in product_files()}


def imported_names(tree: ast.Module):
    """Yields (module, name or None, local name) of every import, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.module, alias.name, alias.asname or alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, alias.asname or alias.name.partition('.')[0]


def arrows() -> dict[str, set[str]]:
    """{room: rooms that it imports}."""
    parsed = trees()
    rooms, found = {room_of(path) for path in parsed}, defaultdict(set)
    for path, tree in parsed.items():
        for module, _, _ in imported_names(tree):
            other = module.partition('.')[0]
            if other in rooms - {room_of(path)}:
                found[room_of(path)].add(other)
    return {room: found[room] for room in rooms}


def mapped() -> dict[str, set[str]]:
    """{room: rooms that ARCHITECTURE.md lets it import}."""
    rows = ROW.findall((ROOT / 'ARCHITECTURE.md').read_text())
    return {
        room.rstrip('/').removesuffix('.py'): set(re.findall(r'[\w.]+', listed))
        for room, listed in rows
    }


def test_every_room_imports_what_the_map_says():
    assert arrows() == mapped()


def test_arrows_make_no_circle():
    left = mapped()
    while left:
        free = [room for room, imports in left.items() if not imports & left.keys()]
        assert free, f'a circle among {sorted(left)}'
        for room in free:
            del left[room]


def test_no_private_name_crosses_a_room():
    crossing = []
    for path, tree in trees().items():
        modules = {}
        for module, name, local in imported_names(tree):
            if module.partition('.')[0] == room_of(path):
                continue
            modules[local] = module
            if name and name.startswith('_') and not name.startswith('__'):
                crossing.append(f'{path}: from {module} import {name}')
        ours = {local for local, module in modules.items() if is_ours(module)}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Attribute)
                and node.attr.startswith('_')
                and not node.attr.startswith('__')
                and isinstance(node.value, ast.Name)
                and node.value.id in ours
            ):
                crossing.append(f'{path}:{node.lineno}: {node.value.id}.{node.attr}')
    assert crossing == []


def is_ours(module: str) -> bool:
    top = Path(ROOT, module.partition('.')[0])
    return top.is_dir() or top.with_suffix('.py').is_file()


def test_files_and_functions_fit():
    large = []
    for path, tree in trees().items():
        lines = len((ROOT / path).read_text().splitlines())
        if lines > MOST_LINES_OF_A_FILE:
            large.append(f'{path}: {lines} lines')
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > MOST_LINES_OF_A_FUNCTION:
                    large.append(f'{path}:{node.lineno} {node.name}: {length} lines')
    assert large == []


def test_training_stays_a_room_that_can_be_overlooked():
    flat = [p for p in product_files() if re.fullmatch(r'training/[a-z]\w*\.py', p)]
    assert len(flat) <= MOST_MODULES_OF_TRAINING, flat


def test_no_two_test_files_have_the_same_name():
    """pytest takes them for one module, and only where both are collected."""
    names = [path.name for path in (ROOT / 'tests').rglob('test_*.py')]
    assert sorted(set(names)) == sorted(names)
