"""`make` on a machine whose Python lacks something: a sentence, and nothing left behind."""

import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# A stand-in for a Python that fails where a word is in its arguments.
STAND_IN = f"""#!/bin/sh
case "$*" in
*"{{word}}"*) echo "stand-in: no" >&2; mkdir -p .venv/bin; exit 1 ;;
*) exec {sys.executable} "$@" ;;
esac
"""


def make(folder, python):
    shutil.copy(ROOT / 'Makefile', folder)
    (folder / 'requirements.txt').touch()
    done = subprocess.run(
        ['make', '.venv/bin/python', f'PYTHON={python}'],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    return done.stderr


@pytest.mark.parametrize(
    ('word', 'sentence'),
    [
        ('-c', 'cannot be run: it is missing, or it is a shim without a Python behind it.'),
        ('version_info', 'Python 3.11 or newer is needed, but'),
        ('ensurepip', 'On Debian and Ubuntu: apt install python3-venv'),
    ],
)
def test_what_python_lacks_is_said(word, sentence, tmp_path):
    python = tmp_path / 'stand_in'
    python.write_text(STAND_IN.format(word=word))
    python.chmod(0o755)
    error = make(tmp_path, python)
    assert sentence in error
    assert str(python) in error


def test_a_python_that_is_missing_is_said(tmp_path):
    assert 'nosuch cannot be run: it is missing' in make(tmp_path, 'nosuch')


def test_half_an_environment_is_removed(tmp_path):
    python = tmp_path / 'stand_in'
    python.write_text(STAND_IN.format(word='-m venv'))
    python.chmod(0o755)
    assert 'stand-in: no' in make(tmp_path, python)
    assert not (tmp_path / '.venv').exists()
