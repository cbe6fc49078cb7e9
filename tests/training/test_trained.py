"""What a workdir of somebody else's may decide: the network, and nothing of this machine."""

import json
import shutil
from pathlib import Path

import jax
import pytest
from PIL import Image

import evaluate
import predict
from configs import reading
from data_sources import digits
from tests.support import go_back, result, train_here
from training import trained

HOSTILE = {
    'distributed': '203.0.113.1:1234,2,1',  # an address that nobody has
    'distributed_timeout': 0.1,
    'devices': 7,
    'init_from': '/nowhere/weights',
}


@pytest.fixture
def foreign(small_run, tmp_path) -> Path:
    """A run whose config.json has been changed to do something to this machine."""
    workdir = Path(shutil.copytree(small_run, tmp_path / 'foreign'))
    trap = tmp_path / 'trap'
    trap.mkdir()
    change(
        workdir,
        compilation_cache=str(trap / 'cache'),
        tensorboard=str(trap),
        **HOSTILE,
        data={'dir': str(trap / 'data'), 'threads': 1000, 'workers': 1000},
        profile={'steps': [0, 1]},
    )
    return workdir


def change(workdir: Path, **values):
    """Changes config.json; a dict changes the members of a section."""
    stored = json.loads((workdir / 'config.json').read_text())
    for name, value in values.items():
        if isinstance(value, dict):
            stored[name].update(value)
        elif name in stored:
            stored[name] = value
    (workdir / 'config.json').write_text(json.dumps(stored))


@pytest.fixture
def picture(tmp_path) -> str:
    Image.fromarray(digits.load('test').images[0, ..., 0]).save(tmp_path / 'digit.png')
    return str(tmp_path / 'digit.png')


@pytest.mark.parametrize('name', ['predict', 'evaluate'])
def test_the_machine_is_not_the_workdirs_to_decide(foreign, tmp_path, picture, name):
    main, more = {
        'predict': (predict.main, [picture]),
        'evaluate': (evaluate.main, [f'--output={tmp_path / "out"}']),
    }[name]
    assert main([f'--workdir={foreign}', *more]) == 0
    assert list((tmp_path / 'trap').iterdir()) == []
    assert str(tmp_path) not in str(jax.config.jax_compilation_cache_dir)


def test_the_command_line_decides_of_the_machine(foreign, tmp_path):
    own = str(tmp_path / 'own')
    config = trained.load_config(foreign, [f'--config.compilation_cache={own}'])
    assert config.compilation_cache == own
    assert (config.devices, config.distributed, config.data.workers) == (0, 'auto', 0)
    assert config.data.dir == str(tmp_path / 'trap' / 'data')


def test_a_stored_cache_and_address_are_not_used_to_resume(small_run, tmp_path, capsys):
    foreign = Path(shutil.copytree(small_run, tmp_path / 'foreign'))
    go_back(foreign, 8)
    own = tmp_path / 'own'
    own.mkdir()
    change(foreign, compilation_cache=str(own), distributed=HOSTILE['distributed'])
    assert train_here(None, foreign) == 0
    assert result(foreign)['params_sha256'] == result(small_run)['params_sha256']
    said = capsys.readouterr().err
    assert f'says compilation_cache={own}, which only the command line may say' in said
    assert f'says distributed={HOSTILE["distributed"]}' in said
    assert list(own.iterdir()) == []


def test_the_command_line_may_name_the_cache_of_a_stored_run(small_run, tmp_path, capsys):
    foreign = Path(shutil.copytree(small_run, tmp_path / 'foreign'))
    change(foreign, compilation_cache='/nowhere/cache')
    path, own = str(foreign / 'config.json'), f'--config.compilation_cache={tmp_path}'
    assert reading.from_arguments(path, [own]).compilation_cache == str(tmp_path)
    assert capsys.readouterr().err == ''
