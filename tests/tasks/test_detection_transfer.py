"""A detector whose backbone starts from the weights of a classifier: a run, or converted ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import models
from configs import reading
from models import pretrained
from tests.support import once, result, saved_arrays, train_here, write_config
from tests.tasks import boxed_pictures
from training import experiment, transfer

SCENES = {
    'task': 'detection',
    'data__name': 'scenes',
    'data__max_boxes': 6,
    'model__name': 'lenet',
    'head__channels': 8,
    'head__depth': 0,
    'head__strides': (4,),
    'detection__candidates': 20,
    'detection__most': 10,
    'optimizer__name': 'adam',
    'batch_size': 16,
    'eval_batch_size': 200,
    'steps': 2,
    'eval_every': 100,
}


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """The workdir of LeNet, whose fully connected layers a detector leaves out."""
    folder = tmp_path_factory.mktemp('classifier')
    fields = {'model__name': 'lenet', 'batch_size': 32, 'steps': 2, 'eval_every': 100}
    assert train_here(write_config(folder, **fields), folder / 'run') == 0
    return folder / 'run'


@pytest.mark.slow
def test_a_frozen_backbone_keeps_the_bytes_of_the_classifier(classifier, tmp_path):
    config = write_config(tmp_path, **SCENES, init_from=str(classifier), freeze=('conv*',))
    assert train_here(config, tmp_path / 'run') == 0
    before, after = saved_arrays(classifier, 2), saved_arrays(tmp_path / 'run', 2)
    copied = [name for name in after if name.startswith('params/conv')]
    assert len(copied) == 4
    for name in copied:
        np.testing.assert_array_equal(after[name], before[name])
    assert not any('dense' in name for name in after)
    assert result(tmp_path / 'run')['init_from_sha256'] == result(classifier)['params_sha256']


@pytest.mark.slow
def test_layers_may_learn_at_different_rates(classifier, tmp_path):
    config = write_config(
        tmp_path, **SCENES, init_from=str(classifier), layer_decay=0.5, multipliers=('head/*=10',)
    )
    assert train_here(config, tmp_path / 'run') == 0
    before, after = saved_arrays(classifier, 2), saved_arrays(tmp_path / 'run', 2)
    moved = [
        np.abs(after[f'params/{name}/kernel'] - before[f'params/{name}/kernel']).max()
        for name in ('conv1', 'conv2')
    ]
    assert 0 < moved[0] < moved[1]


def test_converted_weights_load_into_the_backbone(tmp_path_factory, tmp_path):
    """configs/detection_finetune.py, with random weights in place of trained ones."""
    data = once(tmp_path_factory, 'patches', boxed_pictures.prepare)
    model = models.create('resnet50', num_classes=10)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)
    about = {'model': 'resnet50', 'options': {}, 'num_classes': 10}
    pretrained.save(tmp_path / 'weights', variables, about)
    config = reading.from_arguments(
        'configs/detection_finetune.py',
        [f'--config.init_from={tmp_path / "weights"}', f'--config.data.dir={data}',
         f'--config.data.name={boxed_pictures.NAME}'],
    )  # fmt: skip
    exp, _ = experiment.open_train(config)
    template = exp.abstract_state(exp.spec())
    source = transfer.read(config.init_from)
    transfer.check_fits(source, template, 'resnet50', convolutional=True)
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), template)
    started = flatten_dict(transfer.applied(source, blank).params, sep='/')
    given = flatten_dict(variables['params'], sep='/')
    own = {path for path in started if not path.startswith('head/')}
    assert own == {path for path in given if not path.startswith('head/')}
    assert all(np.array_equal(started[path], given[path]) for path in own)
    assert any(path.startswith('head/lateral16') for path in started)
