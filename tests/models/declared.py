"""What every registered model declares: parameters, stages, and a small variant to compile."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import models
from models import network

MNIST, IMAGENET = (28, 28, 1), (224, 224, 3)
# Parameters at 10 classes of MNIST for the small networks; for the others at 1000 of ImageNet, as
# torchvision's table of weights has them.
PARAMETERS = {
    'alexnet': 61_100_840,
    'deep_cnn': 29_034,
    'densenet121': 7_978_856,
    'densenet161': 28_681_000,
    'densenet169': 14_149_480,
    'densenet201': 20_013_928,
    'fcn': 669_706,
    'lenet': 61_706,
    'resnet18': 11_689_512,
    'resnet34': 21_797_672,
    'resnet50': 25_557_032,
    'resnet101': 44_549_160,
    'resnet152': 60_192_808,
    'strided_cnn': 3_916_234,
    'vgg11': 132_863_336,
    'vgg11_bn': 132_868_840,
    'vgg13': 133_047_848,
    'vgg13_bn': 133_053_736,
    'vgg16': 138_357_544,
    'vgg16_bn': 138_365_992,
    'vgg19': 143_667_240,
    'vgg19_bn': 143_678_248,
}
BASIC, BOTTLENECK = (64, 128, 256, 512), (256, 512, 1024, 2048)


def resnet(channels):
    sizes = zip((56, 28, 14, 7), (4, 8, 16, 32), channels, strict=True)
    stages = {f'stage{i}': ((n, n, c), s) for i, (n, s, c) in enumerate(sizes, start=1)}
    return {'stem': ((112, 112, 64), 2), **stages}


def densenet(first, *channels):
    sizes = zip((56, 28, 14, 7), (4, 8, 16, 32), channels, strict=True)
    blocks = {f'block{i}': ((n, n, c), s) for i, (n, s, c) in enumerate(sizes, start=1)}
    return {'stem': ((112, 112, first), 2), **blocks, 'norm': blocks['block4']}


VGG = {
    'block1': ((224, 224, 64), 1), 'pool1': ((112, 112, 64), 2),
    'block2': ((112, 112, 128), 2), 'pool2': ((56, 56, 128), 4),
    'block3': ((56, 56, 256), 4), 'pool3': ((28, 28, 256), 8),
    'block4': ((28, 28, 512), 8), 'pool4': ((14, 14, 512), 16),
    'block5': ((14, 14, 512), 16), 'pool5': ((7, 7, 512), 32),
    'dense1': ((4096,), None), 'dense2': ((4096,), None),
}  # fmt: skip
# name -> stage -> (shape, stride in pixels of the image).
STAGES = {
    'alexnet': {
        'conv1': ((55, 55, 64), 4),
        'pool1': ((27, 27, 64), 8),
        'conv2': ((27, 27, 192), 8),
        'pool2': ((13, 13, 192), 16),
        'conv3': ((13, 13, 384), 16),
        'conv4': ((13, 13, 256), 16),
        'conv5': ((13, 13, 256), 16),
        'pool5': ((6, 6, 256), 32),
        'dense1': ((4096,), None),
        'dense2': ((4096,), None),
    },
    'deep_cnn': {
        'conv1': ((28, 28, 16), 1),
        'pool1': ((14, 14, 16), 2),
        'conv2': ((14, 14, 32), 2),
        'pool2': ((7, 7, 32), 4),
    },
    'fcn': {'dense1': ((512,), None), 'dense2': ((512,), None)},
    'lenet': {
        'conv1': ((28, 28, 6), 1),
        'pool1': ((14, 14, 6), 2),
        'conv2': ((10, 10, 16), 2),
        'pool2': ((5, 5, 16), 4),
        'dense1': ((120,), None),
        'dense2': ((84,), None),
    },
    'strided_cnn': {
        'conv1': ((28, 28, 64), 1),
        'conv2': ((14, 14, 128), 2),
        'conv3': ((7, 7, 256), 4),
        'conv4': ((4, 4, 512), 8),
        'conv5': ((2, 2, 512), 16),
    },
    'densenet121': densenet(64, 256, 512, 1024, 1024),
    'densenet161': densenet(96, 384, 768, 2112, 2208),
    'densenet169': densenet(64, 256, 512, 1280, 1664),
    'densenet201': densenet(64, 256, 512, 1792, 1920),
    **{f'resnet{n}': resnet(BASIC) for n in (18, 34)},
    **{f'resnet{n}': resnet(BOTTLENECK) for n in (50, 101, 152)},
    **{f'vgg{n}{suffix}': VGG for n in (11, 13, 16, 19) for suffix in ('', '_bn')},
}
# One of each family and kind of block: what the others repeat is for `make test-slow`.
FEW = (
    'alexnet', 'deep_cnn', 'densenet121', 'fcn', 'lenet', 'resnet18', 'resnet50', 'strided_cnn',
    'vgg11', 'vgg11_bn',
)  # fmt: skip
# The smallest of each family, small, for what has to be compiled: options and size of the image.
SMALL = {
    'alexnet': ({'stem': 'cifar', 'width': 0.05}, 12),
    'deep_cnn': ({}, 12),
    'densenet121': ({'stem': 'mnist', 'width': 0.25}, 16),
    'fcn': ({'units': 32}, 12),
    'lenet': ({}, 12),
    'resnet18': ({'stem': 'cifar', 'width': 0.1}, 12),
    'strided_cnn': ({'width': 0.05}, 12),
    'vgg11_bn': ({'stem': 'cifar', 'width': 0.05}, 16),
}
# What pools its last stage globally for its features.
POOLED = ('densenet', 'resnet', 'strided')


def image_of(name):
    return MNIST if PARAMETERS[name] < 5e6 else IMAGENET


def classes_of(name):
    return 10 if image_of(name) == MNIST else 1000


def abstract_variables(model, shape=MNIST):
    """The variables' shapes, traced with XLA's own layers, which is done sooner; and two images."""
    return network.abstract_variables(model, shape), jax.ShapeDtypeStruct((2, *shape), jnp.float32)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def draw_variables(model, images):
    """Weights as initialization has them but for the numbers: compiling it takes longer."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key != 'kernel':
            return (
                jnp.ones(leaf.shape) if path[-1].key in ('scale', 'var') else jnp.zeros(leaf.shape)
            )
        return jnp.asarray(rng.normal(size=leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5,
                           jnp.float32)  # fmt: skip

    shapes = network.abstract_variables(model, images.shape[1:])
    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_small(name):
    options, size = SMALL[name]
    model = models.create(name, num_classes=5, **options)
    images = jax.random.normal(jax.random.key(1), (8, size, size, 1))
    return model, draw_variables(model, images), images


@functools.partial(jax.jit, static_argnames='model')
def evaluate(model, variables, images):
    return model.apply(variables, images)


@functools.partial(jax.jit, static_argnames='model')
def train(model, variables, images, seed=0, mask=None):
    rngs = {'dropout': jax.random.key(seed)}
    return model.apply(variables, images, train=True, mask=mask, mutable=['batch_stats'], rngs=rngs)
