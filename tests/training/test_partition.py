"""What is frozen stays as it is, to the byte; what learns does so at its own rate."""

import functools

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import models
from configs import base
from errors import UserError
from tests.support import QUICKLY
from training import checks, experiment, optimizers, partition, state, step

CLASSES = tuple('abcde')
SHAPE = (16, 16, 1)


def configuration(model, **fields):
    """A configuration; a__b=v sets config.a.b."""
    config = base.get_config()
    with config.ignore_type():
        for name, value in {'model__name': model, 'batch_size': 8, **fields}.items():
            *sections, leaf = name.split('__')
            owner = functools.reduce(lambda part, section: part[section], sections, config)
            owner[leaf] = value
    return config


def make(model, **fields):
    """(experiment, its spec) on images of 16x16 and five classes."""
    config = configuration(model, **fields)
    checks.check(config)
    exp = experiment.Experiment(config, SHAPE, CLASSES, 100)
    return exp, exp.spec()


def start(exp, spec):
    optimizer = optimizers.make(
        spec.optimizer, experiment.hyperparameters(exp.config), spec.nesterov
    )
    create = functools.partial(
        state.create, spec.model, optimizer, SHAPE, use_ema=spec.ema, frozen=spec.frozen
    )
    return jax.device_get(jax.jit(create, compiler_options=QUICKLY)(seed=np.uint32(3)))


def batch_of(count=8):
    draw = np.random.default_rng(0)
    return {
        'index': np.arange(count, dtype=np.int32),
        'epoch': np.zeros(count, np.int32),
        'mask': np.ones(count, np.float32),
        'image': draw.integers(0, 256, (count, *SHAPE)).astype(np.uint8),
        'label': draw.integers(0, len(CLASSES), count).astype(np.int32),
    }


def train(exp, spec, first, steps=1):
    compiled = jax.jit(functools.partial(step.train_step, spec), compiler_options=QUICKLY)
    now = first
    for _ in range(steps):
        now, metrics = compiled(now, experiment.hyperparameters(exp.config), batch_of(), {})
    return jax.device_get(now), jax.device_get(metrics)


def flat(tree):
    return flatten_dict(jax.device_get(tree), sep='/')


def leaves(tree):
    return dict(state.named_leaves(jax.device_get(tree)))


@pytest.fixture(scope='module')
def outcome():
    """Two steps with the first block frozen: (state before, state after)."""
    exp, spec = make(
        'deep_cnn',
        freeze=('conv1/*', 'norm1/*'),
        accumulate=2,
        ema_decay=0.9,
        optimizer__name='adamw',
        optimizer__weight_decay=0.1,
    )
    first = start(exp, spec)
    # Numbers whose averages with themselves are not themselves, once rounded.
    draw = np.random.default_rng(1)
    stats = jax.tree.map(
        lambda x: draw.uniform(0.5, 1.5, x.shape).astype(x.dtype), first.batch_stats
    )
    first = first.replace(batch_stats=stats, ema={**first.ema, 'batch_stats': stats})
    return first, train(exp, spec, first, steps=2)[0]


class TestFreeze:
    def test_bytes_stay(self, outcome):
        before, after = (leaves(s) for s in outcome)
        frozen = [
            name for name in before
            if ('conv1' in name or 'norm1' in name) and not name.startswith('opt_state/')
        ]  # fmt: skip
        assert len(frozen) == 2 * (4 + 2)
        for name in frozen:
            assert before[name].tobytes() == after[name].tobytes(), name

    def test_the_rest_moves(self, outcome):
        before, after = (leaves(s) for s in outcome)
        moving = [name for name in before if 'conv2' in name or 'norm2' in name or 'head' in name]
        assert len(moving) == 2 * (6 + 2) + 2 * 6  # with both of adam's moments
        for name in moving:
            assert np.abs(before[name] - after[name]).max() > 0, name

    def test_the_optimiser_does_not_know_it(self, outcome):
        names = [name for name in leaves(outcome[1]) if name.startswith('opt_state/')]
        assert any('conv2/kernel' in name for name in names)
        assert not any('conv1' in name or 'norm1' in name for name in names)

    def test_a_frozen_norm_uses_its_running_statistics(self):
        """With all norms frozen, training sees the network as evaluation does."""
        exp, spec = make('deep_cnn', freeze=('norm*',), optimizer__weight_decay=0.0)
        first = start(exp, spec)
        draw = np.random.default_rng(2)
        stats = jax.tree.map(
            lambda x: draw.uniform(0.5, 1.5, x.shape).astype(x.dtype), first.batch_stats
        )
        first = first.replace(batch_stats=stats)
        after, metrics = train(exp, spec, first)
        batch = batch_of()
        images = (batch['image'] / np.float32(255) - 0.1307) / np.float32(0.3081)

        def loss(params):
            logits = models.create('deep_cnn', num_classes=len(CLASSES)).apply(
                {'params': params, 'batch_stats': stats}, images, train=False
            )
            log_p = jax.nn.log_softmax(logits)
            return -log_p[np.arange(8), batch['label']].mean()

        expected = flat(jax.jit(jax.grad(loss), compiler_options=QUICKLY)(first.params))
        trace = next(part.trace for part in after.opt_state if hasattr(part, 'trace'))
        assert flat(trace).keys() == expected.keys() - {
            f'norm{i}/{leaf}' for i in (1, 2) for leaf in ('scale', 'bias')
        }
        for name, found in flat(trace).items():
            np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
        norm = np.sqrt(sum(np.square(g).sum() for g in flat(trace).values()))
        assert metrics['grad_norm'] == pytest.approx(norm, rel=1e-5)

    def test_a_norm_that_is_frozen_in_part_keeps_learning_its_statistics(self):
        exp, spec = make('deep_cnn', freeze=('norm1/scale',))
        first = start(exp, spec)
        before, after = flat(first.batch_stats), flat(train(exp, spec, first)[0].batch_stats)
        assert all(np.abs(before[name] - after[name]).max() > 0 for name in before)

    @pytest.mark.parametrize('name', optimizers.OPTIONS)
    def test_every_optimiser_forgets_what_is_frozen(self, name):
        exp, spec = make('fcn', freeze=('dense*',), optimizer__name=name, optimizer__clip_norm=1.0)
        before = exp.abstract_state(spec)
        hyper = experiment.hyperparameters(exp.config)
        update = functools.partial(step.train_step, spec)
        after, _ = jax.eval_shape(update, before, hyper, batch_of(), {})
        assert jax.tree.structure(after) == jax.tree.structure(before)
        names = [path for path, _ in state.named_leaves(before.opt_state)]
        assert not any('dense' in path for path in names)
        assert any('head/kernel' in path for path in names)


class TestRates:
    @pytest.mark.parametrize(
        ('name', 'fields', 'factors'),
        [
            (
                'sgd',
                {'multipliers': ('head/bias=8', 'head*=0.25', 'dense2/*=3')},
                {'head/bias': 8, 'head/kernel': 0.25, 'dense2/kernel': 3, 'dense2/bias': 3},
            ),
            (
                'sgd',
                {'layer_decay': 0.5},
                {
                    'dense1/kernel': 1 / 8, 'dense2/kernel': 1 / 4, 'dense3/kernel': 1 / 2,
                    'dense1/bias': 1 / 8, 'dense2/bias': 1 / 4, 'dense3/bias': 1 / 2,
                },
            ),
            (
                'lars',
                {'layer_decay': 0.5, 'multipliers': ('dense1/bias=64', '*1/*=0.5', '*d/*=7'),
                 'freeze': ('dense2/*', 'dense3/bias')},
                {
                    'dense1/bias': 8, 'dense1/kernel': 1 / 16, 'dense3/kernel': 1 / 2,
                    'head/kernel': 7, 'head/bias': 7,
                    'dense2/kernel': 0, 'dense2/bias': 0, 'dense3/bias': 0,
                },
            ),
        ],
    )  # fmt: skip
    def test_each_update_is_multiplied_by_its_factor(self, name, fields, factors):
        """Without momentum the trace is what the rate multiplies, for sgd and for lars."""
        exp, spec = make(
            'fcn', model__depth=3, model__units=8, schedule__name='constant',
            optimizer__name=name, optimizer__momentum=0.0, optimizer__nesterov=False,
            # So large that what is left of the old parameter is lost in rounding.
            optimizer__learning_rate=2.0**40, **fields,
        )  # fmt: skip
        before = start(exp, spec)
        after, _ = train(exp, spec, before)
        trace = flat(next(part.trace for part in after.opt_state if hasattr(part, 'trace')))
        before, after = flat(before.params), flat(after.params)
        assert len(after) == 8
        for path, found in after.items():
            factor = factors.get(path, 1)
            if not factor:
                assert found.tobytes() == before[path].tobytes()
                continue
            assert np.abs(trace[path]).max() > 0
            np.testing.assert_allclose(
                found, before[path] - 2.0**40 * factor * trace[path], rtol=1e-6, err_msg=path
            )

    @pytest.mark.parametrize(
        ('model', 'order'),
        [
            ('deep_cnn', [['conv1', 'norm1'], ['conv2', 'norm2'], ['head']]),
            ('fcn', [['dense1'], ['dense2'], ['head']]),
            (
                'resnet18',
                [
                    ['stem'],
                    *([f'stage{i}_block{j}'] for i in (1, 2, 3, 4) for j in (1, 2)),
                    ['head'],
                ],
            ),
            (
                'vgg11_bn',
                [
                    *([f'block{i}_conv{j}', f'block{i}_norm{j}']
                      for i, count in enumerate((1, 1, 2, 2, 2), start=1)
                      for j in range(1, count + 1)),
                    ['dense1'], ['dense2'], ['head'],
                ],
            ),
        ],
    )  # fmt: skip
    def test_layers_count_in_the_order_in_which_they_are_called(self, model, order):
        fields = {'model__stem': 'cifar'} if model in ('resnet18', 'vgg11_bn') else {}
        _, spec = make(model, layer_decay=0.5, **fields)
        decays = {
            module: 0.5 ** (len(order) - 1 - number)
            for number, layer in enumerate(order)
            for module in layer
        }
        for path, factor in spec.factors.items():
            assert factor == decays[path.partition('/')[0]], path
        assert {path.partition('/')[0] for path in spec.factors} == decays.keys() - {'head'}

    def test_densenets_last_norm_belongs_to_the_layer_before(self):
        _, spec = make('densenet121', layer_decay=0.5, model__stem='cifar')
        assert spec.factors['norm/scale'] == spec.factors['block4_layer16/conv1/kernel'] == 0.5
        assert spec.factors['block4_layer15/conv1/kernel'] == 0.25
        assert spec.factors['stem/conv/kernel'] == 0.5 ** (58 + 3 + 1)

    def test_nothing_said_is_nothing_compiled_in(self):
        _, spec = make('lenet')
        assert (spec.frozen, spec.factors) == (frozenset(), {})


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'freeze': ('conv1',)}, ['config.freeze: "conv1"', 'whole path', 'mean "conv1/*"']),
        ({'freeze': ('conv1/*', 'conv3/*')}, ['"conv3/*" matches no parameter']),
        ({'freeze': ('zzzz',)}, ['"zzzz"', 'conv1, conv2, dense1, dense2, head']),
        ({'freeze': ('*',)}, ['leaves nothing to be trained']),
        ({'freeze': ('c*', 'd*', 'h*')}, ['leaves nothing to be trained']),
        ({'multipliers': ('hed/*=2',)}, ['config.multipliers: "hed/*"', 'mean "head/*"']),
        ({'multipliers': ('head/*',)}, ['"head/*" is not a glob and a positive number']),
        ({'multipliers': ('=2',)}, ['"=2" is not a glob']),
        ({'multipliers': ('head/*=-1',)}, ['"head/*=-1"', 'positive']),
        ({'multipliers': ('head/*=nan',)}, ['"head/*=nan"', 'positive']),
        ({'multipliers': ('head/*=inf',)}, ['"head/*=inf"', 'positive']),
        ({'multipliers': ('head/*=0',)}, ["config.freeze='head/*'"]),
        ({'multipliers': ('*=2', 'head/*=3')}, ['"head/*=3" has no effect']),
        ({'freeze': ('conv1/*',), 'multipliers': ('conv1/*=3',)}, ['has no effect', 'frozen']),
        ({'linear_probe': True}, ['needs config.init_from']),
        ({'linear_probe': True, 'init_from': 'x', 'augment__rotate': 3.0}, ['augment.rotate']),
        ({'linear_probe': True, 'init_from': 'x', 'freeze': ('conv1/*',)}, ['config.freeze at ()']),
        ({'linear_probe': True, 'init_from': 'x', 'layer_decay': 0.5}, ['config.layer_decay']),
    ],
)  # fmt: skip
def test_a_mistake_is_named(fields, words):
    with pytest.raises(UserError) as caught:
        make('lenet', **fields)
    for word in words:
        assert word in str(caught.value)


def test_trees_are_taken_apart_and_put_together():
    tree = {'a': {'kernel': 1, 'bias': 2}, 'b': {'kernel': 3}}
    frozen = frozenset({'a/kernel'})
    part = partition.trained_part(tree, frozen)
    assert part == {'a': {'bias': 2}, 'b': {'kernel': 3}}
    assert partition.joined(tree, part) == tree
    other = {'a': {'kernel': 7, 'bias': 8}, 'b': {'kernel': 9}}
    assert partition.kept(other, tree, frozen) == {
        'a': {'kernel': 1, 'bias': 8},
        'b': {'kernel': 9},
    }
    assert partition.trained_part(tree, frozenset({'b/kernel'})) == {'a': tree['a']}
