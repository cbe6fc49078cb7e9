"""The checked-in recipes for streamed pictures, shrunk, on real ones from end to end."""

import pytest

from tests.conftest import ROOT
from tests.support import result, train_here

RECIPES = sorted(path.stem for path in (ROOT / 'configs').glob('imagenet_*.py'))


def run(name, imagenet_set, folder, **fields):
    fields |= {'smoke': True, 'data__dir': str(imagenet_set)}
    assert train_here(ROOT / 'configs' / f'{name}.py', folder / 'run', **fields) == 0
    found = result(folder / 'run')
    assert (found['steps'], found['test_examples']) == (4, 50)
    assert found['test_loss'] < 20
    return found['config']


@pytest.mark.full
@pytest.mark.parametrize('name', RECIPES)
def test_a_recipe_runs_on_real_pictures(name, imagenet_set, tmp_path):
    config = run(name, imagenet_set, tmp_path)
    assert config['data']['image_size'] == (160 if name.endswith('a3') else 224)


@pytest.mark.slow
def test_a_narrow_network_runs_the_recipe_of_strikes_back(imagenet_set, tmp_path):
    """RandAugment, repeats, mixup, CutMix, BCE, LAMB: all that A2 has, in seconds."""
    fields = {'model__name': 'resnet18', 'model__width': 0.125, 'data__image_size': 64}
    fields |= {'data__eval_image_size': 64, 'data__eval_resize': 68}
    config = run('imagenet_resnet50_rsb_a2', imagenet_set, tmp_path, **fields)
    assert config['data']['repeats'] == 3
