"""tools.inspect as a command: which parts it does, what it refuses, and what is its own."""

import pytest

from tools import inspect


@pytest.fixture
def filters(lenet_run, tmp_path):
    """Runs --only=filters into a folder; returns (exit code, the folder)."""

    def run(*more, folder='seen'):
        output = tmp_path / folder
        return inspect.main([f'--workdir={lenet_run}', f'--output={output}', *more]), output

    return run


def test_files_are_listed_and_shown_on_the_page(filters, capsys):
    code, folder = filters('--only=filters')
    assert code == 0
    assert '<img src="filters-conv1.png"' in (folder / 'index.html').read_text()
    assert str(folder / 'filters-conv1.png') in capsys.readouterr().out
