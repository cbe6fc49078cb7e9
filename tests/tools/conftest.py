"""Sources of pictures and a prepared set, shared by several test files."""

import pytest

from tests.support_pictures import imagenet_tars
from tests.tools.prepare_child import blood_folder, defective_tars, run


@pytest.fixture(scope='session')
def tars(tmp_path_factory):
    return imagenet_tars(tmp_path_factory.mktemp('tars'))


@pytest.fixture(scope='session')
def prepared(tmp_path_factory, tars):
    """A data folder with the sample of ImageNet in many shards."""
    data = tmp_path_factory.mktemp('data')
    assert run(['imagenet2012', f'--source={tars}', f'--data_dir={data}']) == 0
    return data


@pytest.fixture
def defective(tmp_path):
    return defective_tars(tmp_path / 'defective')


@pytest.fixture(scope='session')
def blood(tmp_path_factory):
    return blood_folder(tmp_path_factory.mktemp('blood'))
