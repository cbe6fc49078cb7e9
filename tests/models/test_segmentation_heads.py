"""U-Net and FCN-8s on the backbones of the zoo, and against PyTorch's layers."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import models
from errors import UserError
from models import registry
from models.heads.places import interpolated, laid_under, maps_of
from models.heads.segmentation import HEADS, FCN8s, UNet
from models.trace import trace
from tests.golden import head_parity, parity
from tests.support import most_slow

CONVOLUTIONAL = [name for name in registry.names() if name != 'fcn']
FEW = ('lenet', 'strided_cnn', 'deep_cnn', 'resnet18')
# Largest difference from PyTorch, relative to the largest value or the norm.
TOLERANCE = 1e-5
# {(model, head): parameters for three channels and classes}.
PARAMETERS = {
    ('lenet', 'unet'): 29_323,
    ('lenet', 'fcn8s'): 2_995,
    ('alexnet', 'unet'): 5_063_603,
    ('vgg11_bn', 'unet'): 13_548_019,
    ('resnet18', 'unet'): 14_328_115,
    ('resnet18', 'fcn8s'): 11_179_209,
    ('densenet121', 'unet'): 13_607_539,
}


def network(name, head, **options):
    backbone = models.create(name, num_classes=0, **options).adjusted(convolutional=True)
    return HEADS[head](backbone, num_classes=3)


def shapes(model, size):
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images), images


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('name', most_slow(CONVOLUTIONAL, FEW))
def test_logits_have_the_size_of_the_image(name, head):
    model = network(name, head)
    variables, images = shapes(model, (97, 131))
    logits = jax.eval_shape(model.apply, variables, images)
    assert (logits.shape, logits.dtype) == ((2, 97, 131, 3), jnp.float32)
    # The parameters of another size are the same, and those of the backbone have its own paths.
    assert jax.tree.map(lambda x: x.shape, shapes(model, (64, 64))[0]) == jax.tree.map(
        lambda x: x.shape, variables
    )
    plain, _ = shapes(models.create(name, num_classes=0), (97, 131))
    paths = flatten_dict(variables['params'], sep='/')
    own = {path for path in paths if not path.startswith('head/')}
    known = flatten_dict(plain['params'], sep='/')
    assert own == {path for path in known if not path.startswith('dense')}
    assert all(paths[path].shape == known[path].shape for path in own)
    if (name, head) in PARAMETERS:
        assert sum(x.size for x in paths.values()) == PARAMETERS[name, head]


@pytest.mark.parametrize(
    ('name', 'stages'),
    [
        ('lenet', ['conv1', 'conv2', 'pool2']),
        ('alexnet', ['conv1', 'conv2', 'conv5', 'pool5']),
        ('vgg11', ['block1', 'block2', 'block3', 'block4', 'block5', 'pool5']),
        ('resnet18', ['stem', 'stage1', 'stage2', 'stage3', 'stage4']),
        ('densenet121', ['stem', 'block1', 'block2', 'block3', 'norm']),
    ],
)
def test_of_maps_with_equal_stride_the_last_is_taken(name, stages):
    places = maps_of(models.create(name, num_classes=0).adjusted(convolutional=True))
    assert [place.stage for place in places] == stages
    assert [place.stride for place in places] == sorted({place.stride for place in places})


def test_a_network_without_maps_is_refused():
    with pytest.raises(UserError, match='FCN has no feature maps'):
        shapes(network('fcn', 'unet'), (32, 32))


@pytest.mark.parametrize('name', most_slow(['lenet', 'strided_cnn'], ['lenet']))
def test_an_answer_lies_where_its_pixels_are(name):
    """What changes in the logits lies around the pixel that changed, also at odd sizes."""
    model = network(name, 'unet')
    images = jnp.zeros((1, 95, 131, 3))
    variables = jax.jit(model.init)(jax.random.key(1), images)
    spoilt = images.at[0, 60, 90].set(5.0)
    logits = jax.jit(model.apply)
    changed = np.abs(logits(variables, spoilt) - logits(variables, images))[0].sum(-1)
    y, x = np.indices(changed.shape)
    centre = [(changed * place).sum() / changed.sum() for place in (y, x)]
    np.testing.assert_allclose(centre, (60, 90), atol=4)


@pytest.mark.parametrize('name', FEW)
def test_maps_lie_under_finer_ones(name):
    """Maps of the rows and columns that their positions see, enlarged to the next stride."""
    places = maps_of(models.create(name, num_classes=0).adjusted(convolutional=True))
    for to, place in itertools.pairwise(places):
        factor = place.stride // to.stride
        at = place.centre + place.stride * np.arange(12.0, dtype=np.float32)
        x = jnp.stack(jnp.meshgrid(at, at, indexing='ij'), axis=-1)[None]
        size = (11 * factor, 9 * factor)
        wanted = to.centre + to.stride * np.indices(size).transpose(1, 2, 0)
        inside = ((at[0] <= wanted) & (wanted <= at[-1])).all(-1)
        assert inside.sum() > 100
        found = np.asarray(interpolated(x, place, to, size))[0]
        np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-3)
        # The nearest position is at most half a position away.
        found = np.asarray(laid_under(x, place, to, size))[0]
        assert abs(found - wanted)[inside].max() <= place.stride / 2


def test_the_trace_lists_the_layers_of_the_head():
    traced = trace(network('resnet18', 'unet', width=0.25), (64, 64, 3))
    names = [layer.name for layer in traced.layers]
    assert 'head/stride1_conv2' in names
    assert 'head/logits' in names
    layer = traced.layers[names.index('head/logits')]
    assert layer.out_shape == (64, 64, 3)
    assert layer.multiply_adds == 64 * 64 * 16 * 3


def test_masked_examples_change_nothing_in_training():
    model = network('deep_cnn', 'unet')
    images = jax.random.normal(jax.random.key(0), (4, 20, 24, 3))
    variables = jax.jit(model.init)(jax.random.key(1), images)
    mask = jnp.array([1.0, 1, 0, 1])

    @jax.jit
    def applied(x):
        return model.apply(variables, x, train=True, mask=mask, mutable=['batch_stats'])

    one, two = applied(images), applied(images.at[2].mul(7))
    for a, b in zip(jax.tree.leaves(one[1]), jax.tree.leaves(two[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    keep = np.array([0, 1, 3])
    np.testing.assert_allclose(one[0][keep], two[0][keep], rtol=1e-4, atol=1e-4)


def test_bfloat16_gives_logits_in_float32():
    model = network('resnet18', 'unet', width=0.25, dtype=jnp.bfloat16)
    variables, images = shapes(model, (64, 64))
    assert jax.eval_shape(model.apply, variables, images).dtype == jnp.float32


# --- PyTorch ------------------------------------------------------------------------------------


def filled(model):
    """The head's variables by the formula of parity.py, under the names of PyTorch's layouts."""
    variables, _ = shapes(model, head_parity.SIZE)
    names = {'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}

    def value(path, leaf):
        _, layer, part = path
        if part != 'kernel':
            return parity.value(f'{layer}.{names[part]}', leaf.shape)
        height, width, inner, outer = leaf.shape
        return parity.value(f'{layer}.weight', (outer, inner, height, width)).transpose(2, 3, 1, 0)

    found = {}
    for kind, tree in variables.items():
        flat = {path: leaf for path, leaf in flatten_dict(tree).items() if path[0] == 'head'}
        values = {path: value(path, leaf) for path, leaf in flat.items()}
        found[kind] = unflatten_dict(values) if values else {}
    return found


@pytest.fixture(scope='module', params=list(HEADS))
def computed(request):
    """(name, logits, {stride: gradient of their squares' sum}), in PyTorch's layout."""
    name = request.param
    backbone = models.create('resnet18', num_classes=0, width=0.25).adjusted(convolutional=True)
    head = {'unet': UNet(backbone, num_classes=head_parity.CLASSES, width=head_parity.WIDTH),
            'fcn8s': FCN8s(backbone, num_classes=head_parity.CLASSES)}[name]  # fmt: skip
    variables = filled(head)
    places = maps_of(backbone)
    maps = [jnp.asarray(x.transpose(0, 2, 3, 1)) for x in head_parity.maps().values()]

    def squares(maps):
        pairs = list(zip(places, maps, strict=True))
        logits = head.bind(variables).head(pairs, head_parity.SIZE, False, None)
        return jnp.square(logits).sum(), logits

    (_, logits), slopes = jax.jit(jax.value_and_grad(squares, has_aux=True))(maps)
    logits, *slopes = (np.asarray(x).transpose(0, 3, 1, 2) for x in (logits, *slopes))
    return name, logits, dict(zip(head_parity.CHANNELS, slopes, strict=True))


def test_heads_equal_those_of_pytorch(computed):
    name, logits, slopes = computed
    golden = json.loads(head_parity.GOLDEN.read_text())[name]
    pairs = [(golden.pop('logits'), parity.summary(name, logits))]
    for kind, wanted in golden.items():
        stride = int(kind.removeprefix('gradient '))
        pairs.append((wanted, parity.summary(f'{name} {stride}', slopes[stride])))
    for wanted, found in pairs:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * wanted[0])
    unused = {stride for stride, slope in slopes.items() if not slope.any()}
    assert unused == {stride for stride in slopes if f'gradient {stride}' not in golden}


def test_heads_equal_those_of_the_pytorch_installed(computed):
    torch = pytest.importorskip('torch', reason='PyTorch is for comparison only')
    from tests.golden import make_head_parity

    name, logits, slopes = computed
    maps = {
        stride: torch.from_numpy(x).requires_grad_() for stride, x in head_parity.maps().items()
    }
    expected = getattr(make_head_parity, name)(maps)
    expected.square().sum().backward()
    pairs = [(logits, expected.detach().numpy())]
    pairs += [(slopes[s], x.grad.numpy()) for s, x in maps.items() if x.grad is not None]
    for found, wanted in pairs:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE * abs(wanted).max())
