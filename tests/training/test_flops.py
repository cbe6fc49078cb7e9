"""What a network's arithmetic amounts to, by hand, by XLA's count, and against the devices."""

import dataclasses
import types

import flax.linen as nn
import jax
import numpy as np
import pytest

import models
from models.arithmetic import convolution_multiply_adds
from models.fcn import FCN
from models.lowering import NATIVE
from models.trace import trace
from tasks.classification import Classification
from tests.support import slow
from training import flops, optimizers, state
from training.runner import Runner
from training.spec import StepSpec

# LeNet-5 at 28x28x1: two convolutions, three dense layers.
LENET = (
    convolution_multiply_adds(5, 1, 6, 28, 28),
    convolution_multiply_adds(5, 6, 16, 10, 10),
    400 * 120,
    120 * 84,
    84 * 10,
)
HYPER = {'learning_rate': 0.1, 'weight_decay': 0.0, 'label_smoothing': 0.0, 'momentum': 0.9}


def spec_of(name, **options):
    model = models.create(name, num_classes=10, **options)
    return StepSpec(model, Classification(10), 'sgd', lambda step: 1.0, (0.1,), (0.3,))


def frozen(*layers):
    paths = {f'{layer}/{kind}' for layer in layers for kind in ('kernel', 'bias')}
    return dataclasses.replace(spec_of('lenet'), frozen=frozenset(paths))


class TestPerImage:
    def test_six_for_each_multiply_add(self):
        assert flops.per_image(spec_of('lenet'), (28, 28, 1)) == 6 * sum(LENET) == 2_499_120

    def test_a_frozen_layer_at_the_bottom_costs_its_forward_pass(self):
        expected = 2 * sum(LENET[:2]) + 6 * sum(LENET[2:])
        assert flops.per_image(frozen('conv1', 'conv2'), (28, 28, 1)) == expected

    def test_a_frozen_layer_in_the_middle_passes_the_gradient_on(self):
        expected = 6 * sum(LENET) - 2 * LENET[1]
        assert flops.per_image(frozen('conv2'), (28, 28, 1)) == expected

    def test_a_probe_costs_its_head(self):
        below = [layer.name for layer in trace(spec_of('lenet').model, (28, 28, 1)).layers][:-1]
        assert flops.per_image(frozen(*below), (28, 28, 1), probe=True) == 6 * LENET[-1]


def device(kind):
    return types.SimpleNamespace(device_kind=kind)


class TestPeak:
    @pytest.mark.parametrize(
        ('kind', 'dtype', 'tflops'),
        [
            ('NVIDIA A100-SXM4-80GB', 'bfloat16', 312),
            ('NVIDIA A100-SXM4-40GB', 'float32', 156),
            ('NVIDIA H100 80GB HBM3', 'bfloat16', 989.4),
            ('NVIDIA H100 PCIe', 'bfloat16', 756),
            ('NVIDIA H200', 'float32', 494.7),
            ('NVIDIA B200', 'bfloat16', 2250),
            ('NVIDIA L4', 'bfloat16', 121),
            ('Tesla T4', 'float32', 8.1),
            ('Tesla V100-SXM2-16GB', 'float32', 15.7),
            ('TPU v2', 'bfloat16', 23),
            ('TPU v3', 'bfloat16', 61.5),
            ('TPU v4', 'bfloat16', 275),
            ('TPU v5 lite', 'bfloat16', 197),
            ('TPU v5p', 'bfloat16', 459),
            ('TPU v6 lite', 'float32', 918),
        ],
    )
    def test_of_known_devices(self, kind, dtype, tflops):
        assert flops.peak([device(kind)], dtype) == pytest.approx(tflops * 1e12)

    @pytest.mark.parametrize('kind', ['cpu', 'NVIDIA L40S', 'NVIDIA H100 80GB HBM3 MIG 1g.10gb'])
    def test_of_others_nothing_is_known(self, kind):
        assert flops.peak([device(kind)], 'float32') is None

    def test_adds_up_over_devices_and_may_be_given(self):
        assert flops.peak([device('NVIDIA H200')] * 8, 'bfloat16') == 8 * 989.4e12
        assert flops.peak([device('NVIDIA H200')] * 2, 'bfloat16', 100.0) == 200e12
        assert flops.peak([device('cpu')] * 2, 'float32', 0.5) == 1e12


def counted(name, shape, size, **options):
    """(FLOPs that XLA counts in the compiled step, what one is to expect)."""
    spec = spec_of(name, **options)
    hyper = {k: np.float32(v) for k, v in HYPER.items()} | {'seed': np.uint32(0)}
    optimizer = optimizers.make('sgd', hyper)
    abstract = jax.eval_shape(
        lambda: state.create(spec.model, optimizer, shape, np.uint32(0), False)
    )
    first = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)
    batch = {
        'image': np.zeros((size, *shape), np.uint8),
        'label': np.zeros(size, np.int32),
        'index': np.arange(size, dtype=np.int32),
        'epoch': np.zeros(size, np.int32),
        'mask': np.ones(size, np.float32),
    }
    runner = Runner(spec, 'shard_map', jax.devices()[:1])
    placed = (runner.replicate(first), runner.replicate(hyper), runner.split(batch), {})
    runner.train.compile(*placed)
    layers = [layer.multiply_adds for layer in trace(spec.model, shape).layers]
    # The images need no gradient: the first layer has no product for its input.
    return runner.cost()['flops'], (6 * sum(layers) - 2 * layers[0]) * size


@pytest.mark.parametrize(
    ('name', 'shape', 'size', 'options'),
    [
        # The wide patches of few channels meet zeros, which is no arithmetic of the model's.
        ('lenet', (28, 28, 1), 16, {'lowering': NATIVE}),
        slow('resnet18', (16, 16, 3), 8, {'stem': 'cifar', 'width': 0.25}),
    ],
)
def test_the_compiled_step_does_the_models_arithmetic_and_little_else(name, shape, size, options):
    """XLA counts element-wise work as well, and no products with padding: 0.94 and 1.05 of it.

    A second forward pass would be 1.33, a second backward pass 1.63, one without gradients of the
    weights 0.65.
    """
    found, expected = counted(name, shape, size, **options)
    assert 0.85 < found / expected < 1.25


def test_a_layer_of_an_unknown_kind_leaves_the_number_unknown():
    class Normed(FCN):
        def setup(self):
            super().setup()
            self.extra = nn.LayerNorm()

        def stages(self, images, train=False, mask=None):
            stages = super().stages(images, train, mask)
            stages['extra'] = self.extra(next(reversed(stages.values())))
            return stages

    model = Normed(num_classes=10, units=4, depth=1)
    spec = StepSpec(model, Classification(10), 'sgd', lambda step: 1.0, (0.0,), (1.0,))
    assert flops.per_image(spec, (8, 8, 1)) is None
