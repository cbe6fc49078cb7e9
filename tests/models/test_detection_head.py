"""The pyramid and towers of FCOS on the backbones of the zoo, and against PyTorch's layers."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import models
from errors import UserError
from models import registry
from models.heads.detection import LARGEST, DetectionHead, levels_of, locations
from models.trace import trace
from tests.golden import detection_parity, parity
from tests.support import QUICKLY, most_slow

CONVOLUTIONAL = [name for name in registry.names() if name != 'fcn']
FAMILIES = ('lenet', 'alexnet', 'strided_cnn', 'deep_cnn', 'vgg11', 'resnet18', 'densenet121')
FEW = ('lenet', 'alexnet', 'strided_cnn', 'deep_cnn', 'resnet18')
# Largest difference from PyTorch, relative to the largest value or the norm.
TOLERANCE = 1e-5
# {model: (parameters of its convolutions and norms, channels of the three maps together)}.
PARAMETERS = {
    'lenet': (2_872, 6 + 16 + 16),
    'alexnet': (2_469_696, 192 + 256 + 256),
    'vgg11_bn': (9_225_984, 512 + 512 + 512),
    'resnet18': (11_176_512, 128 + 256 + 512),
    'resnet50': (23_508_032, 512 + 1024 + 2048),
    'densenet121': (6_953_856, 512 + 1024 + 1024),
}

quickly = functools.partial(jax.jit, compiler_options=QUICKLY)


def network(name, head=None, **options):
    backbone = models.create(name, num_classes=0, **options).adjusted(convolutional=True)
    return DetectionHead(backbone, **{'num_classes': 3, **(head or {})})


def shapes(model, size):
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    outputs, variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x), images
    )
    return variables, outputs


@pytest.mark.parametrize('name', most_slow(CONVOLUTIONAL, FEW))
def test_every_place_has_its_outputs(name):
    """At odd sizes, with further maps."""
    model = network(name, {'extra': 2})
    variables, outputs = shapes(model, (97, 131))
    where = locations(model.backbone, (), 2, (97, 131, 3))
    count = len(where.places)
    assert {name: (x.shape, x.dtype) for name, x in outputs.items()} == {
        'logits': ((2, count, 3), jnp.float32),
        'distances': ((2, count, 4), jnp.float32),
        'centerness': ((2, count), jnp.float32),
        'places': ((count, 2), jnp.float32),
        'size': ((2,), jnp.float32),
    }
    assert where.strides.shape == (count,)
    assert len(set(where.strides)) == 5
    assert (np.diff(where.strides) >= 0).all()
    if name in PARAMETERS:
        body, channels = PARAMETERS[name]
        pyramid = 64 * channels + 3 * 64 + 5 * (9 * 64 * 64 + 64)
        towers = 2 * 2 * (9 * 64 * 64 + 2 * 64) + (9 * 64 + 1) * (3 + 4 + 1)
        scales = 5
        count = sum(x.size for x in jax.tree.leaves(variables['params']))
        assert count == body + pyramid + towers + scales


@pytest.mark.parametrize('name', most_slow(FAMILIES, ('alexnet', 'resnet18')))
def test_the_parameters_of_the_backbone_keep_their_paths(name):
    variables, _ = shapes(network(name), (97, 131))
    plain = models.create(name, num_classes=0)
    alone = jax.eval_shape(lambda x: plain.init(jax.random.key(0), x), jnp.zeros((1, 97, 131, 3)))
    found, known = (flatten_dict(x['params'], sep='/') for x in (variables, alone))
    own = {path: x.shape for path, x in found.items() if not path.startswith('head/')}
    assert own == {path: x.shape for path, x in known.items() if not path.startswith('dense')}


@pytest.mark.parametrize('size', [(63, 64), (65, 66), (67, 127)])
@pytest.mark.parametrize('head', [{}, {'extra': 1}, {'strides': (4, 16), 'extra': 3}])
def test_places_follow_from_the_size_of_the_image(size, head):
    model = network('resnet18', head, width=0.1)
    _, outputs = shapes(model, size)
    strides = head.get('strides', ())
    where = locations(model.backbone, strides, head.get('extra', 0), (*size, 3))
    assert outputs['centerness'].shape == (2, len(where.places))
    # A ResNet's maps begin at the first pixel, and have one place for each stride that begins.
    levels = list(strides or (8, 16, 32))
    levels += [levels[-1] * 2 ** (i + 1) for i in range(head.get('extra', 0))]
    expected = [
        (y + 0.5, x + 0.5, stride)
        for stride in levels
        for y in range(0, size[0], stride)
        for x in range(0, size[1], stride)
    ]
    found = np.concatenate([where.places, where.strides[:, None]], 1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('name', most_slow(FAMILIES, ('lenet', 'resnet18')))
def test_a_place_is_the_middle_of_what_it_sees(name):
    """Where the image changes the logit of a place of a further map, all weights being equal."""
    options = {'width': 0.05} if 'resnet' in name else {}
    backbone = models.create(name, num_classes=0, **options).adjusted(convolutional=True)
    size = (251, 301)
    usual = [place.stride for place in levels_of(backbone)]
    # The coarsest whose places see less than the image.
    stride = 8 if 8 in usual else max(usual)
    head = {'num_classes': 1, 'channels': 8, 'depth': 0, 'strides': (stride,), 'extra': 1}
    model = DetectionHead(backbone, **head)
    where = locations(backbone, head['strides'], 1, (*size, 3))
    draw = np.random.default_rng(0)
    images = jnp.asarray(draw.uniform(0.5, 1, (1, *size, 3)), jnp.float32)
    middle = np.argmin(abs(where.places - np.divide(size, 2)).sum(1) - 1e6 * where.strides)

    @quickly
    def seen(images):
        variables = model.init(jax.random.key(0), images)

        def constant(path, x):
            return jnp.full_like(x, 1 / x[..., 0].size) if path[-1].key == 'kernel' else x

        params = jax.tree_util.tree_map_with_path(constant, variables['params'])
        variables = {**variables, 'params': params}
        return jax.grad(lambda x: model.apply(variables, x)['logits'][0, middle, 0])(images)

    weights = np.asarray(seen(images))[0].sum(-1, dtype=np.float64)
    assert (weights >= 0).all()
    assert weights.any()
    centre = [(weights * axis).sum() / weights.sum() for axis in np.indices(size) + 0.5]
    np.testing.assert_allclose(centre, where.places[middle], atol=0.1 * where.strides[middle])


def test_a_network_without_maps_is_refused():
    with pytest.raises(UserError, match='FCN has no feature maps'):
        shapes(network('fcn'), (32, 32))


def test_strides_that_the_backbone_does_not_have_are_refused():
    said = 'config.head.strides has 3, 64, and the maps of ResNet have strides of 2, 4, 8, 16, 32'
    with pytest.raises(UserError, match=said):
        shapes(network('resnet18', {'strides': (3, 8, 64)}), (64, 64))


def test_the_trace_counts_shared_layers_once():
    model = network('resnet18', {'extra': 1}, width=0.1)
    variables, _ = shapes(model, (64, 96))
    traced = trace(model, (64, 96, 3))
    assert traced.parameters == sum(x.size for x in jax.tree.leaves(variables['params']))
    towers = [layer for layer in traced.layers if layer.name == 'head/boxes_conv1']
    assert [layer.out_shape[:2] for layer in towers] == [(8, 12), (4, 6), (2, 3), (1, 2)]
    assert sum(layer.multiply_adds for layer in towers) == (96 + 24 + 6 + 2) * 9 * 64 * 64
    assert [layer.parameters for layer in towers] == [9 * 64 * 64, 0, 0, 0]


@pytest.fixture(scope='module')
def small():
    """A model with its images, variables, compiled function and outputs."""
    model = network('deep_cnn', {'channels': 16, 'extra': 1})
    images = jax.random.normal(jax.random.key(0), (3, 40, 48, 3))
    variables = quickly(model.init)(jax.random.key(1), images)
    apply = quickly(model.apply)
    return model, images, variables, apply, apply(variables, images)


def test_it_starts_from_the_priors_of_the_papers(small):
    """A probability of 0.01 for each class, boxes with edges a stride away, and no centerness."""
    model, images, variables, _, outputs = small
    probabilities = jax.nn.sigmoid(outputs['logits'])
    assert probabilities.max() < 0.03
    np.testing.assert_allclose(probabilities.mean(), 0.01, atol=0.002)
    strides = locations(model.backbone, (), 1, images.shape[1:]).strides
    np.testing.assert_allclose(outputs['distances'] / strides[:, None], 1, atol=0.5)
    np.testing.assert_allclose(outputs['centerness'], 0, atol=0.5)
    for layer in ('boxes_conv1', 'classes_conv2', 'distances', 'logits'):
        kernel = variables['params']['head'][layer]['kernel']
        np.testing.assert_allclose(np.std(kernel), 0.01, rtol=0.15)


def test_an_example_does_not_depend_on_the_others(small):
    _, images, variables, apply, one = small
    two = apply(variables, images.at[1].mul(7))
    for name in ('logits', 'distances', 'centerness'):
        np.testing.assert_array_equal(one[name][::2], two[name][::2])
        assert (one[name][1] != two[name][1]).any()


@pytest.mark.parametrize(('bias', 'edge'), [(1e4, np.exp(LARGEST)), (-1e4, 0.0)])
def test_distances_never_overflow(small, bias, edge):
    """And none is below 0."""
    model, images, variables, apply, _ = small
    flat = flatten_dict(variables, sep='/')
    flat['params/head/distances/bias'] = jnp.full(4, bias)
    distances = apply(unflatten_dict(flat, sep='/'), images)['distances']
    strides = locations(model.backbone, (), 1, images.shape[1:]).strides
    np.testing.assert_allclose(distances, np.broadcast_to(edge * strides[:, None], distances.shape))
    assert jnp.isfinite(jnp.square(jnp.float32(2 * np.exp(LARGEST) * 2048) ** 2))


def test_bfloat16_gives_outputs_in_float32(small):
    model, images, variables, _, expected = small
    found = quickly(model.adjusted(dtype=jnp.bfloat16).apply)(variables, images)
    assert {x.dtype for x in found.values()} == {jnp.dtype('float32')}
    for name in ('logits', 'distances', 'centerness'):
        np.testing.assert_allclose(found[name], expected[name], rtol=0.05, atol=0.05)


def test_the_head_alone_has_no_statistics_of_the_batch():
    """In training the backbone's batch norm joins examples, and what is above it does not."""
    variables, _ = shapes(network('resnet18', width=0.1), (64, 64))
    assert not any(path[0] == 'head' for path in flatten_dict(variables['batch_stats']))


# --- PyTorch ------------------------------------------------------------------------------------


def parity_model():
    options = {'channels': detection_parity.CHANNELS, 'depth': detection_parity.DEPTH}
    options['extra'], options['num_classes'] = detection_parity.EXTRA, detection_parity.CLASSES
    return network('resnet18', options, width=0.25)


def torch_name(path):
    """Returns PyTorch's name of a parameter of the head."""
    layer, part = path
    if layer.startswith('scale'):
        return layer
    return f'{layer}.{"bias" if part == "bias" else "weight"}'


def filled(model):
    """The head's parameters by the formula of parity.py, under PyTorch's names and layouts."""
    variables, _ = shapes(model, (70, 90))

    def value(path, leaf):
        name = torch_name(path)
        if path[1] != 'kernel':
            return parity.value(f'{name}.weight' if name == path[0] else name, leaf.shape)
        height, width, inner, outer = leaf.shape
        return parity.value(name, (outer, inner, height, width)).transpose(2, 3, 1, 0)

    flat = flatten_dict(variables['params']['head'])
    return unflatten_dict({path: value(path, leaf) for path, leaf in flat.items()})


@pytest.fixture(scope='module')
def computed():
    """{output or 'gradient NAME': array in PyTorch's layout}, as in make_detection_parity.py."""
    model = parity_model()
    params = filled(model)
    maps = [jnp.asarray(x.transpose(0, 2, 3, 1)) for x in detection_parity.maps().values()]

    def total(params, maps):
        outputs = model.bind({'params': {'head': params}}).head(maps, True, None)
        squares = jnp.square(outputs['logits']).sum() + jnp.square(outputs['centerness']).sum()
        return squares + outputs['distances'].sum() / 100, outputs

    (_, found), slopes = quickly(jax.value_and_grad(total, (0, 1), has_aux=True))(params, maps)
    found = {name: np.asarray(x) for name, x in found.items()}
    for path, x in flatten_dict(slopes[0]).items():
        x = np.asarray(x)
        found[f'gradient {torch_name(path)}'] = x.transpose(3, 2, 0, 1) if x.ndim == 4 else x
    for stride, x in zip(detection_parity.LEVELS, slopes[1], strict=True):
        found[f'gradient {stride}'] = np.asarray(x).transpose(0, 3, 1, 2)
    return found


def test_the_head_equals_that_of_pytorch(computed):
    golden = json.loads(detection_parity.GOLDEN.read_text())
    assert golden.keys() == computed.keys()
    for name, wanted in golden.items():
        found = parity.summary(name, computed[name])
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * wanted[0], err_msg=name)


def test_the_head_equals_that_of_the_pytorch_installed(computed):
    pytest.importorskip('torch', reason='PyTorch is for comparison only')
    from tests.golden import make_detection_parity

    for name, wanted in make_detection_parity.computed().items():
        atol = TOLERANCE * abs(wanted).max()
        np.testing.assert_allclose(computed[name], wanted, rtol=0, atol=atol, err_msg=name)
