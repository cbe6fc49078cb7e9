"""A model of one's own: registered from outside, it has its fields, checks and help at once."""

import dataclasses
import json
import re
from collections import OrderedDict
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import models
import train
from configs import base, reading, schema
from errors import UserError
from models import registry
from models.trace import trace
from tests.conftest import ROOT
from training import checks

pytestmark = pytest.mark.usefixtures('own_are_forgotten')

# What `config.model` has had from the start, with the type of each option.
OPTIONS = {
    'dropout_rate': float, 'initialization': str, 'activation': str, 'pooling': str,
    'normalization': str, 'stem': str, 'stochastic_depth': float, 'zero_init': bool, 'remat': bool,
    'downsample': str, 'units': int, 'depth': int, 'width': float,
}  # fmt: skip


class Mine(models.Network):
    """A dense layer for each entry of `units_of`."""

    units_of: tuple[int, ...] = models.option((8, 4), 'Units of each layer.', at_least=1)
    slope: float = models.option(0.1, 'Slope below zero.', at_least=0, below=1)
    shape: Literal['flat', 'mean'] = models.option('flat', 'How images are read, flat or mean.')
    width: float = models.option(1, 'Factor on the units.', at_least=0.01)

    def setup(self):
        layer = self.factory()
        self.layers = [layer.dense(self.widened(units)) for units in self.units_of]
        self.dropout = layer.dropout()
        if self.num_classes:
            self.head = layer.dense(self.num_classes)

    def stages(self, images, train=False, mask=None):
        stages, x = OrderedDict(), self.prepare(images)
        x = x.reshape(x.shape[0], -1) if self.shape == 'flat' else x.mean((1, 2))
        for i, layer in enumerate(self.layers, start=1):
            stages[f'layer{i}'] = x = self.dropout(nn.leaky_relu(layer(x), self.slope), train)
        return stages


def fields():
    return {field.name: field for field in base.fields() if field.name.startswith('model.')}


def configured(*arguments):
    config = base.get_config()
    schema.override(config, [f'--config.{argument}' for argument in arguments], base.fields())
    config = schema.validate(config, base.fields())
    checks.check(config)
    return config


def test_the_options_of_the_models_here_are_fields():
    found, names = fields(), [field.name for field in base.fields()]
    start = names.index('model.name')
    assert names[start : start + len(found)] == list(found)  # side by side in --help
    assert {name.removeprefix('model.'): f.kind for name, f in found.items()} == {
        'name': str,
        **OPTIONS,
    }
    assert all(f.default is None and not f.choices for f in list(found.values())[1:])
    bounds = {
        name: (f.low, f.above, f.high, f.below)
        for name, f in found.items()
        if f.kind in (int, float)
    }
    assert bounds == {
        'model.dropout_rate': (0, None, None, 1),
        'model.stochastic_depth': (0, None, None, 1),
        'model.units': (1, None, 100_000, None),
        'model.depth': (1, None, 1000, None),
        'model.width': (0.01, None, 100, None),
    }
    assert [name for name, f in found.items() if f.traced] == ['model.dropout_rate']
    assert [name for name, f in found.items() if f.regularizer] == ['model.dropout_rate']
    assert found['model.dropout_rate'].doc == 'Probability that dropout sets a unit to zero.'
    assert found['model.width'].doc.startswith('alexnet, densenet, resnet, strided_cnn, vgg: ')
    assert found['model.depth'].doc.startswith('fcn: ')
    # Two meanings of one name are both told, with whose they are.
    assert re.fullmatch(r'lenet: .*max.* strided_cnn: .*last map.*', found['model.pooling'].doc)


def test_a_registered_model_has_its_fields_at_once():
    before = base.fields()
    models.register('mine', Mine, defaults={'slope': 0.2})
    added = [field for field in base.fields() if field not in before]
    assert {f.name for f in added} == {
        'model.units_of', 'model.slope', 'model.shape',
        'model.width',  # whose doc and bounds now are those of both
    }  # fmt: skip
    found = fields()
    assert found['model.slope'].doc == 'mine: Slope below zero.'
    assert (found['model.slope'].low, found['model.slope'].below) == (0, 1)
    assert (found['model.units_of'].kind, found['model.units_of'].items) == (tuple, int)
    assert found['model.width'].low == 0.01
    assert found['model.width'].high is None
    assert found['model.width'].doc.endswith('mine: Factor on the units.')
    assert found['model.dropout_rate'] in before
    text = train.parser().format_help()
    assert re.search(r'\n  model\.slope +mine: Slope below zero\. \[None\]\n', text)
    assert (
        'mine\n      dropout_rate=0.0, initialization=he|uniform, units_of=(8, 4), slope=0.2'
        in (train.listing())
    )


def test_a_model_of_ones_own_is_configured_checked_and_made():
    models.register('mine', Mine, defaults={'slope': 0.2})
    config = configured('model.name=mine', 'model.units_of=(6,)', 'model.width=200')
    options = checks.model_options(config)
    assert options == {'units_of': (6,), 'width': 200.0}
    model = models.create('mine', num_classes=3, **options)
    assert model == Mine(3, units_of=(6,), width=200.0, slope=0.2)
    images = jnp.zeros((2, 4, 4, 1))
    variables = model.init(jax.random.key(0), images)
    assert model.apply(variables, images).shape == (2, 3)
    assert model.headless().apply(variables, images).shape == (2, 1200)
    assert [layer.name for layer in trace(model, (4, 4, 1)).layers] == ['layers_0', 'head']
    for argument, words in (
        ('model.units_of=(6, 0)', 'config.model.units_of must be at least 1, not .6, 0.'),
        ('model.shape=round', 'shape is "round", and should be one of flat, mean'),
        ('model.slope=1', 'config.model.slope must be less than 1'),
        ('model.units_of=(0.5,)', 'config.model.units_of must be a tuple of whole numbers'),
        ('model.stem=cifar', 'config.model.stem means nothing to mine, which takes dropout_rate'),
    ):
        with pytest.raises(UserError, match=words):
            configured('model.name=mine', argument)
    with pytest.raises(UserError, match='slope means nothing to lenet'):
        configured('model.slope=0.5')
    # The others' own bounds stay.
    with pytest.raises(UserError, match='width means nothing to fcn'):
        configured('model.name=fcn', 'model.width=2')
    with pytest.raises(UserError, match=r'width is 200\.0, .* at least 0.01 and at most 100'):
        configured('model.name=resnet18', 'model.width=200')


def test_a_name_may_settle_options():
    models.register('mine', Mine, settled={'shape': 'mean'})
    models.register('mine', Mine, settled={'shape': 'mean'})  # as a notebook does
    models.register('thin_resnet18', registry.ResNet, settled={'depth': 18, 'width': 0.1})
    assert models.create('mine', num_classes=2).shape == 'mean'
    assert 'shape' not in models.options('mine')
    assert 'model.shape' not in fields()
    with pytest.raises(UserError, match='mine has no option "shape"'):
        models.create('mine', num_classes=2, shape='flat')
    assert models.create('thin_resnet18', num_classes=2).widened(64) == 6
    assert 'thin_resnet18' not in fields()['model.stem'].doc  # one of the ResNets


class Plain(nn.Module):
    num_classes: int = 10

    @nn.compact
    def __call__(self, images):
        return nn.Dense(self.num_classes)(images.reshape(len(images), -1))


class Unfinished(models.Network):
    def setup(self):
        pass


def with_option(annotation, default):
    """A network with one option more."""
    body = {'__annotations__': {'extra': annotation}, '__module__': __name__}
    body |= {} if default is dataclasses.MISSING else {'extra': default}
    return type('Odd', (Mine,), body)


@pytest.mark.parametrize(
    ('name', 'network', 'words'),
    [
        ('mine', Plain, 'Plain is a plain flax module; make it a subclass of models.Network, as'),
        ('mine', dict, 'dict is no network; make it a subclass'),
        ('mine', Plain(), 'register a class, not an instance of Plain'),
        ('mine', Unfinished, 'Unfinished does not define stages()'),
        ('my-net', Mine, '"my-net" is not an identifier'),
        ('resnet18', Mine, 'the model name "resnet18" is taken by ResNet'),
        ('mine', with_option(dict, None), 'annotated as .*dict.*, which no field'),
        ('mine', with_option(int | None, None), r'annotated as int \| None, which no field'),
        ('mine', with_option(Literal['a', 1], 'a'), 'which no field of the configuration can hold'),
        ('mine', with_option('Unknown', 1), 'types of the fields of Odd cannot be read: .*Unknown'),
        ('mine', with_option(int, 'three'), 'the option "extra" of Odd is .three., and should be '),
        (
            'mine',
            with_option(int, models.option(0, 'Count.', at_least=1)),
            'the option "extra" of Odd is 0, and should be at least 1',
        ),
    ],
)
def test_what_is_no_model_is_refused_in_a_sentence(name, network, words):
    with pytest.raises(UserError, match=words):
        models.register(name, network)
    assert name not in models.names() or name == 'resnet18'


def test_an_option_that_means_another_type_elsewhere_is_refused():
    class Conflict(Mine):
        units: float = models.option(0.5, 'Not a number of units.')

    with pytest.raises(UserError, match='"units" is of type float, but in fcn of type int'):
        models.register('conflict', Conflict)
    with pytest.raises(UserError, match=r'mine has no option "slop".* Did you mean "slope"'):
        models.register('mine', Mine, defaults={'slop': 1})
    with pytest.raises(UserError, match='mine: slope is 2, and should be at least 0 and below 1'):
        models.register('mine', Mine, settled={'slope': 2})


def page_file(tmp_path, number: int = 0) -> str:
    """The example of the page, as the user saves it."""
    page = (ROOT / 'docs/models.md').read_text().partition('## Your own model')[2]
    blocks = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    path = tmp_path / 'my_net.py'
    path.write_text(blocks[number])
    return str(path)


@pytest.mark.parametrize('future', ['', 'from __future__ import annotations\n'])
def test_the_pages_example_is_a_model(future, tmp_path):
    path = page_file(tmp_path)
    with open(path) as file:
        text = file.read()
    with open(path, 'w') as file:
        file.write(future + text)
    config = reading.from_arguments(path, ['--config.model.channels=(4, 8)'])
    checks.check(config)
    options = checks.model_options(config)
    assert options == {'channels': (4, 8), 'dropout_rate': 0.2}
    model = models.create(config.model.name, num_classes=10, **options)
    layers = {layer.name: layer for layer in trace(model, (28, 28, 1)).layers}
    assert layers['convs_1'].parameters == 9 * 4 * 8 + 8
    assert layers['head'].in_shape == (7 * 7 * 8,)
    assert list(trace(model, (28, 28, 1)).stages) == ['block1', 'block2']
    assert models.create(config.model.name, num_classes=0).headless().num_classes == 0
    # config.json has names and values, which mean something where the model is registered.
    stored = tmp_path / 'config.json'
    stored.write_text(json.dumps(schema.plain(config)))
    assert reading.from_arguments(str(stored), []).model == config.model
    models.register('my_net', Mine)
    with pytest.raises(UserError, match=r'config\.model\.channels is not a field'):
        reading.from_arguments(str(stored), [])


def test_a_model_that_nobody_registered_is_named():
    with pytest.raises(UserError, match=r'=my_net is not a model; .* has to be registered first'):
        configured('model.name=my_net')


def test_a_refusal_names_the_config_file(tmp_path):
    path = tmp_path / 'plain.py'
    path.write_text(
        'import flax.linen as nn\nimport models\n\n\nclass Plain(nn.Module):\n    pass\n\n\n'
        "models.register('plain', Plain)\n"
    )
    with pytest.raises(UserError, match=r'plain.py, line 9: UserError: plain: Plain is a plain'):
        reading.from_arguments(str(path), [])
