"""Files of a workdir that hold something else, or are none: a sentence, and nothing hangs."""

import json
import os
import shutil
from pathlib import Path

import pytest

import command
import train
from errors import UserError
from tasks.classification import Classification
from tests.support import go_back
from training import trained
from training.checkpoints import Checkpoints

JSON = [
    'config.json', 'data.json', 'extensions.json', 'history.json', 'init_from.json',
    'checkpoints/12/manifest.json', 'checkpoints/12/note.json', 'checkpoints/12/window.json',
    'checkpoints/12/metrics/metrics', 'checkpoints/8/metrics/metrics',
    'checkpoints/12/_CHECKPOINT_METADATA', 'result.json', 'metrics.jsonl',
]  # fmt: skip
CONTENTS = {
    'list': b'[]',
    'number': b'3',
    'null': b'null',
    'empty': b'',
    'object': b'{}',
    'half': b'{"a": ',
    'binary': bytes(range(256)),
    'deep': b'[' * 5000,
    'deep object': b'{"a":' * 5000 + b'1' + b'}' * 5000,
    'odd members': b'[{"at_step": "x"}]\n',
    'huge': b'{"step": 1e999, "run": ' + b'9' * 4000 + b'}\n',
    'texts': b'{"step": "5"}\n{"step": 6, "wall_seconds": "x"}\n{"step": 7}\n',
}


def put(path: Path, damage: str) -> None:
    path.unlink(missing_ok=True)
    if damage == 'pipe':
        os.mkfifo(path)
    elif damage == 'device':
        path.symlink_to('/dev/zero')
    elif damage == 'folder':
        path.mkdir()
    else:
        path.write_bytes(CONTENTS[damage])


@pytest.fixture
def workdir(small_run, tmp_path) -> Path:
    """A run that was killed after its last checkpoint."""
    folder = Path(shutil.copytree(small_run, tmp_path / 'run'))
    go_back(folder, 12)
    return folder


def ends_in_a_sentence(workdir: Path, capsys) -> None:
    """Resumes the run; whatever the code is, it is no traceback."""
    code = command.call(train.main, [f'--workdir={workdir}'])
    error = capsys.readouterr().err
    assert code in (0, 2)
    assert 'Traceback' not in error
    assert len(error) < 1500
    if code == 2:
        assert error.splitlines()[-1].startswith('error: ')
        assert str(workdir) in error


@pytest.mark.parametrize(
    ('name', 'damage'),
    [
        ('config.json', 'list'),
        ('extensions.json', 'odd members'),
        ('metrics.jsonl', 'texts'),
        ('metrics.jsonl', 'pipe'),
        ('.lock', 'pipe'),
        ('checkpoints/8/metrics/metrics', 'deep'),
        ('checkpoints/12/_CHECKPOINT_METADATA', 'list'),
    ],
)
def test_an_odd_file_is_named(workdir, capsys, name, damage):
    put(workdir / name, damage)
    assert command.call(train.main, [f'--workdir={workdir}']) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith('error: ')
    assert str(workdir / name) in error


@pytest.mark.full
@pytest.mark.parametrize('damage', [*CONTENTS, 'pipe', 'device', 'folder'])
@pytest.mark.parametrize('name', [*JSON, '.lock'])
def test_any_odd_file_ends_in_a_sentence(workdir, capsys, name, damage):
    put(workdir / name, damage)
    ends_in_a_sentence(workdir, capsys)


@pytest.mark.parametrize('sums', [{'loss': 'x'}, {'loss': [1, [2]]}, {'loss': {}}, {'a': True}])
def test_sums_that_are_no_numbers_are_refused(tmp_path, sums):
    folder = tmp_path / 'checkpoints' / '4'
    folder.mkdir(parents=True)
    with Checkpoints(tmp_path, Classification.metrics[0]) as found:
        (folder / 'window.json').write_text(json.dumps(sums))
        with pytest.raises(UserError, match=r'window\.json cannot be used'):
            found.window(4)


@pytest.mark.parametrize('which', ['²', '\u0661\u0662', '012', '-1', '9' * 5000, 'x' * 5000])
def test_a_step_that_no_checkpoint_has_is_refused(workdir, which):
    for name in ('²', '\u0663', '9' * 200):  # what someone else may have made there
        (workdir / 'checkpoints' / name).mkdir()
    with pytest.raises(UserError, match='choose last, best, or one of the steps 4, 8, 12'):
        trained.load(workdir, which)


@pytest.mark.parametrize('name', ['a' * 5000, 'a/' * 2500])
def test_a_workdir_with_a_name_that_no_folder_can_have_is_refused(small, tmp_path, name, capsys):
    for arguments in ([f'--config={small}'], []):
        assert command.call(train.main, [*arguments, f'--workdir={tmp_path}/{name}']) == 2
        assert 'File name too long' in capsys.readouterr().err
    config = json.loads(small.read_text())
    for field in ('data.dir', 'init_from'):
        path = tmp_path / 'config.json'
        path.write_text(json.dumps(config | {'data.name': 'none', field: name[:3999]}))
        assert command.call(train.main, [f'--config={path}', f'--workdir={tmp_path}/run']) == 2
        assert capsys.readouterr().err.startswith('error: ')
