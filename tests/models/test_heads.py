"""A network with another head keeps its backbone's paths, first bytes and what relies on them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

import models
from configs import base
from errors import UserError
from models import densenet, resnet
from models import trace as tracing
from models.heads import HeadedNetwork
from models.layers import LayerFactory
from models.network import Network, abstract_variables
from models.trace import trace
from tests.models.ours import state_dict
from tests.support import most_slow
from tools import convert_weights
from training import optimizers, partition, state, transfer

pytestmark = pytest.mark.usefixtures('compiled_in_haste')

SHAPE, CLASSES = (32, 32, 3), 5
OPTIONS = {
    'lenet': {},
    'resnet18': {'stem': 'cifar', 'width': 0.1},
    'densenet121': {'stem': 'cifar', 'width': 0.25, 'remat': True},
}
every_backbone = pytest.mark.parametrize('name', most_slow(OPTIONS, ('lenet',)))


class Boxes(nn.Module):
    """Two dense layers with a norm and dropout between: whatever a head may hold."""

    layer: LayerFactory

    def setup(self):
        self.hidden = self.layer.dense(6)
        self.norm = self.layer.norm()
        self.dropout = self.layer.dropout()
        self.last = self.layer.dense(4)

    def __call__(self, x, train, mask):
        x = nn.relu(self.norm(self.hidden(x), train, mask))
        return self.last(self.dropout(x, train))


class BoxNetwork(HeadedNetwork):
    """Reads the last stage but one, pooled, as no classifier does."""

    def make_head(self, layer):
        return Boxes(layer)

    def outputs(self, stages, train, mask):
        x = list(stages.values())[-2]
        x = x.mean((1, 2)) if x.ndim == 4 else x
        return {'boxes': self.head(x, train, mask)}


class Classifier(HeadedNetwork):
    """The head that the registry's networks have themselves."""

    def make_head(self, layer):
        return layer.dense(CLASSES)

    def outputs(self, stages, train, mask):
        return self.head(self.pooled(stages))


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """Fewer of the same blocks, which are traced and compiled in seconds."""
    monkeypatch.setitem(densenet.BLOCKS, 121, ((2, 1, 1, 2), 32))
    monkeypatch.setitem(resnet.BLOCKS, 18, ((1, 1, 1, 1), False))


def make(name, head=BoxNetwork):
    """(classifier, backbone, the backbone with a head)."""
    classifier = models.create(name, num_classes=CLASSES, **OPTIONS[name])
    return classifier, classifier.headless(), head(classifier.headless())


def first_variables(model, shape=SHAPE):
    images = jnp.zeros((1, *shape))
    return flatten_dict(jax.jit(model.init)(jax.random.key(3), images), sep='/')


def first_state(model, shape=SHAPE):
    """The state before the first update, of drawn numbers."""
    optimizer = optimizers.make('sgd', {'learning_rate': 0.1, 'weight_decay': 0.0, 'momentum': 0.9})
    create = functools.partial(state.create, model, optimizer, shape, np.uint32(0), True)
    draw = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: draw.normal(size=leaf.shape).astype(leaf.dtype), jax.eval_shape(create)
    )


def named(tree):
    return dict(state.named_leaves(tree))


@every_backbone
def test_the_backbone_keeps_its_paths_and_first_bytes(name):
    classifier, backbone, headed = make(name)
    found, alone, classified = map(first_variables, (headed, backbone, classifier))
    of_head = {path for path in found if path.split('/')[1] == partition.HEAD}
    assert {path.split('/', 2)[2] for path in of_head} == {
        'hidden/kernel', 'hidden/bias', 'norm/scale', 'norm/bias', 'norm/mean', 'norm/var',
        'last/kernel', 'last/bias',
    }  # fmt: skip
    assert found.keys() - of_head == alone.keys()
    assert classified.keys() - alone.keys() == {'params/head/kernel', 'params/head/bias'}
    for path, leaf in alone.items():
        assert leaf.tobytes() == found[path].tobytes() == classified[path].tobytes(), path


@every_backbone
def test_a_dense_head_is_the_classifier(name):
    """The same program, to the letter: what classification compiles does not change."""
    classifier, _, headed = make(name, Classifier)
    images = jnp.zeros((2, *SHAPE))
    texts = []
    for model in (classifier, headed):
        variables = abstract_variables(model, SHAPE)

        def outputs(variables, images, model=model):
            return model.apply(variables, images, train=True, mutable=['batch_stats'])

        first = jax.jit(model.init).lower(jax.random.key(0), images)
        texts.append([first.as_text(), jax.jit(outputs).lower(variables, images).as_text()])
    assert texts[0] == texts[1]


@every_backbone
def test_globs_and_layer_decay_reach_the_backbone_as_they_did(name):
    classifier, _, headed = make(name)
    config = base.get_config()
    config.layer_decay = 0.5
    config.freeze = {'lenet': ('conv1/*',)}.get(name, ('stem*',))
    of_classifier, of_headed = (partition.of(config, m, SHAPE) for m in (classifier, headed))
    assert of_headed[0] == of_classifier[0] != frozenset()
    factors, expected = of_headed[1], of_classifier[1]
    assert {path: f for path, f in factors.items() if not path.startswith('head/')} == expected
    assert len(set(expected.values())) > 2
    # The head learns at the full rate, as the layer nearest to the loss.
    assert not any(path.startswith('head/') for path in factors)
    config.freeze, config.layer_decay = ('[!h]*',), 1.0
    frozen, _ = partition.of(config, headed, SHAPE)
    paths = flatten_dict(abstract_variables(headed, SHAPE)['params'], sep='/')
    assert paths.keys() - frozen == {path for path in paths if path.startswith('head/')}


@every_backbone
def test_a_classifiers_weights_are_taken_in_all_but_the_head(name):
    classifier, _, headed = make(name)
    trained, blank = first_state(classifier), first_state(headed)
    variables = {'params': trained.params, 'batch_stats': trained.batch_stats}
    source = transfer.WeightSource('folder', name, 7, variables)
    transfer.check_fits(source, blank, name)
    started = transfer.applied(source, blank)
    assert named(started.params).keys() == named(blank.params).keys()
    for found in ({'params': started.params, 'batch_stats': started.batch_stats}, started.ema):
        for path, leaf in named(found).items():
            if path.split('/')[1] != partition.HEAD:
                np.testing.assert_array_equal(leaf, named(variables)[path], err_msg=path)


def test_converted_weights_fit(tmp_path, monkeypatch):
    monkeypatch.undo()  # the whole network
    save_file(state_dict('resnet18', 'torchvision'), tmp_path / 'torch.safetensors')
    out = tmp_path / 'converted'
    arguments = ['--model=resnet18', f'--source={tmp_path / "torch.safetensors"}', f'--out={out}']
    convert_weights.main(arguments)
    source = transfer.read(str(out))
    headed = BoxNetwork(models.create('resnet18', num_classes=0))
    blank = first_state(headed, (64, 64, 3))
    transfer.check_fits(source, blank, 'resnet18')
    found = named(transfer.applied(source, blank).params)
    weights = named(source.variables['params'])
    assert len(weights) == 62
    for path in weights.keys() - {'head/kernel', 'head/bias'}:
        np.testing.assert_array_equal(found[path], weights[path], err_msg=path)


def test_a_head_drops_by_the_rate_of_the_step():
    _, _, headed = make('lenet')
    images = jax.random.normal(jax.random.key(1), (4, *SHAPE))
    variables = jax.jit(headed.init)(jax.random.key(0), images)

    @jax.jit
    def boxes(rate):
        model = headed.adjusted(dropout_rate=rate)
        rngs = {'dropout': jax.random.key(2)}
        return model.apply(variables, images, train=True, rngs=rngs, mutable=['batch_stats'])[0]

    dropping = boxes(0.5)['boxes']
    np.testing.assert_array_equal(dropping, boxes(jnp.float32(0.5))['boxes'])
    assert np.abs(dropping - boxes(0.0)['boxes']).max() > 1e-3
    # The backbone drops as well, so look at the head's own layer.
    bound = headed.adjusted(dropout_rate=0.9).bind(variables, rngs={'dropout': jax.random.key(2)})
    assert (bound.head.dropout(jnp.ones((8, 8)), True) == 0).mean() > 0.5


def test_a_heads_norm_counts_the_real_examples_of_all_devices():
    _, _, headed = make('lenet')
    images = jax.random.normal(jax.random.key(1), (4, *SHAPE))
    mask = jnp.array([1.0, 1.0, 1.0, 0.0])
    variables = jax.jit(headed.init)(jax.random.key(0), images)

    def statistics(model, images, mask):
        _, new = model.apply(variables, images, train=True, mask=mask, mutable=['batch_stats'])
        return new['batch_stats']['head']['norm']

    expected = jax.jit(functools.partial(statistics, headed, mask=None))(images[:3])
    parts = images.reshape(2, 2, *SHAPE), mask.reshape(2, 2)
    model = headed.adjusted(axis_name='devices')
    found = jax.jit(jax.vmap(functools.partial(statistics, model), axis_name='devices'))(*parts)
    for key, leaf in expected.items():
        np.testing.assert_allclose(found[key][0], leaf, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(found[key][0], found[key][1])


@every_backbone
def test_the_trace_lists_the_head_after_the_backbone(name):
    _, backbone, headed = make(name)
    found, alone = trace(headed, SHAPE), trace(backbone, SHAPE)
    assert found.stages == alone.stages
    of_head = [layer.name for layer in found.layers if layer.name.startswith('head/')]
    assert of_head == ['head/hidden', 'head/norm', 'head/last']
    assert [layer.name for layer in found.layers[-3:]] == of_head
    parameters = abstract_variables(headed, SHAPE)['params']
    assert found.parameters == sum(leaf.size for leaf in jax.tree.leaves(parameters))


class Normed(HeadedNetwork):
    """A head of a kind of layer that the trace does not know."""

    def make_head(self, layer):
        return nn.LayerNorm()

    def outputs(self, stages, train, mask):
        return self.head(self.pooled(stages))


def test_a_layer_that_the_trace_does_not_know_is_named(monkeypatch):
    _, backbone, headed = make('lenet', Normed)
    with pytest.raises(UserError, match=r'^head/\w+: .* of a LayerNorm\..*KINDS\[LayerNorm\]'):
        trace(headed, SHAPE)
    monkeypatch.setitem(tracing.KINDS, nn.LayerNorm, 'layer norm')
    last = trace(headed, SHAPE).layers[-1]
    assert (last.name, last.kind, last.parameters) == ('head', 'layer norm', 2 * 84)
    assert trace(headed, SHAPE).multiply_adds == trace(backbone, SHAPE).multiply_adds


class Headstrong(Network):
    """Makes a head whether it has classes or not."""

    def setup(self):
        self.head = self.factory().dense(self.num_classes or 1)

    def stages(self, images, train=False, mask=None):
        return {'image': self.prepare(images)}


def test_a_backbone_with_a_head_is_refused():
    with pytest.raises(UserError, match=r'^Headstrong makes a head .* needs "if self\.num'):
        Classifier(Headstrong(num_classes=0)).init(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    with pytest.raises(ValueError, match='has 3 logits: give num_classes=0'):
        Classifier(models.create('lenet', num_classes=3)).init(
            jax.random.key(0), jnp.zeros((1, *SHAPE))
        )
