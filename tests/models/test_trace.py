"""Receptive fields, strides and counts of the traced networks against independent ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import models
from models import densenet
from models.lowering import NATIVE
from models.trace import trace
from tests.models.declared import FEW, draw_variables
from tests.support import most_slow, slow

pytestmark = pytest.mark.usefixtures('compiled_in_haste')

# At 224x224x3 and 1000 classes: multiply-adds of convolutions and dense layers in units of 10^9
# (torchvision's table of weights), receptive fields of the last map (Araujo et al. 2019, table 1;
# for resnet50 with the stride in the 3x3).
PUBLISHED = {
    'alexnet': (0.714, 'pool5', 195),
    'vgg16': (15.47, 'pool5', 212),
    'resnet18': (1.814, 'stage4', 435),
    'resnet50': (4.089, 'stage4', 427),
    'densenet121': (2.834, 'norm', 2071),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_multiply_adds_and_receptive_field_are_the_published_ones(name):
    giga, stage, field = PUBLISHED[name]
    found = trace(models.create(name, num_classes=1000), (224, 224, 3))
    assert found.multiply_adds / 1e9 == pytest.approx(giga, rel=1e-3)
    assert found.stages[stage].receptive_field == field
    assert found.stages[stage].stride == 32


@pytest.mark.parametrize('name', most_slow(models.names(), FEW))
def test_every_parameter_and_stage_is_listed(name):
    model, shape = models.create(name, num_classes=10), (64, 64, 3)
    found = trace(model, shape)
    # By the layers' default forms; trace takes XLA's own, and has to find the same parameters.
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert found.parameters == sum(x.size for x in jax.tree.leaves(variables['params']))
    stages = jax.eval_shape(lambda v, x: model.apply(v, x, method='stages'), variables, images)
    assert [(k, s.shape) for k, s in found.stages.items()] == [
        (k, s.shape[1:]) for k, s in stages.items()
    ]
    assert len({layer.name for layer in found.layers}) == len(found.layers)
    assert found.layers[-1].name == 'head'


SEEN = [
    ('lenet', {}, 'pool2', 40),
    ('lenet', {'pooling': 'average'}, 'pool2', 40),
    ('deep_cnn', {}, 'pool2', 40),
    ('strided_cnn', {'width': 0.05}, 'conv5', 101),
    ('strided_cnn', {'width': 0.05, 'downsample': 'max_pool'}, 'conv4', 101),
    ('resnet18', {'width': 0.05, 'stem': 'cifar'}, 'stage2', 73),
    slow('resnet50', {'width': 0.05, 'stem': 'imagenet'}, 'stage2', 161),
    ('densenet121', {'width': 0.05, 'stem': 'mnist'}, 'block1', 81),
    ('vgg11', {'width': 0.05, 'stem': 'cifar'}, 'pool4', 120),
    ('alexnet', {'width': 0.05}, 'pool2', 140),
]


@pytest.mark.parametrize(('name', 'options', 'stage', 'size'), SEEN)
def test_receptive_field_is_what_a_spoilt_pixel_reaches(name, options, stage, size, monkeypatch):
    """A column of NaN spoils just the outputs that see it, through ReLU and pooling, too."""
    # What comes after the first block would only be compiled.
    monkeypatch.setitem(densenet.BLOCKS, 121, ((6, 1, 1, 1), 32))
    # Wide patches meet zeros of a band, and NaN times 0 is NaN.
    model = models.create(name, num_classes=0, lowering=NATIVE, **options)
    images = np.ones((1, 67, size, 1), np.float32)
    variables = draw_variables(model, images)

    @jax.jit
    def middle(images):
        row = model.apply(variables, images, method='stages')[stage][0, 0]
        return [jnp.isnan(row[position]).any() for position in (len(row) // 2, len(row) // 2 + 1)]

    spoilt = []
    for column in range(size):
        image = images.copy()
        image[:, :, column] = np.nan
        spoilt.append([bool(x) for x in middle(image)])
    one, beside = (np.flatnonzero(seen) for seen in np.array(spoilt).T)
    found = trace(model, images.shape[1:]).stages[stage]
    assert one[0] > 0, 'the image has to be larger than what is seen'
    assert one[-1] < size - 1
    assert found.receptive_field == one[-1] - one[0] + 1
    assert found.stride == beside[0] - one[0]
    assert found.start + found.shape[1] // 2 * found.stride == one[0]


@pytest.mark.parametrize(
    ('name', 'size', 'layer', 'drops'),
    [
        ('lenet', 28, 'pool2', ''),
        ('lenet', 30, 'pool2', 'pixels'),  # 11 columns in pairs
        ('resnet18', 224, 'stem/conv', 'padding'),  # 223 / 2, but three columns are padding
        ('resnet18', 224, 'stage2_block1/shortcut_conv', 'pixels'),
        ('resnet18', 225, 'stem/conv', ''),
    ],
)
def test_what_a_stride_leaves_over_is_told(name, size, layer, drops):
    found = trace(models.create(name, num_classes=10), (size, size, 1))
    assert {row.name: row.drops for row in found.layers}[layer] == drops


@pytest.mark.parametrize(('size', 'positions'), [(64, 2), (224, 1), (448, 2), (480, 3)])
def test_a_bin_of_adaptive_pooling_sees_its_positions(size, positions):
    """From 2, 7, 14 and 15 rows to 7."""
    fields = {
        layer.name: layer.receptive_field
        for layer in trace(models.create('vgg11', num_classes=10), (size, size, 3)).layers
    }
    assert fields['last_pool'] == fields['pool5'] + 32 * (positions - 1)


def test_remat_and_dtype():
    plain, small = (
        trace(models.create('resnet18', num_classes=10, **options), (64, 64, 3))
        for options in ({}, {'remat': True, 'dtype': 'bfloat16'})
    )
    assert [a.name for a in plain.layers] == [a.name for a in small.layers]
    assert small.multiply_adds == plain.multiply_adds
    # The logits are float32 all the same, but they are no layer's output.
    assert small.activation_bytes == plain.activation_bytes / 2
