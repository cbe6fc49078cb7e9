"""Child of test_lowering.py: prints, as JSON, how far each form's gradient is from the truth.

It is started with eight virtual CPU devices, over which the examples are spread. The truth is XLA's
own convolution of all of them. Under shard_map the kernel is the same on every device, and nothing
says that its gradient is summed over them.
"""

import functools
import json

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from models import convolution, winograd

FORMS = {
    'patches': convolution.patches,
    'by_parts': convolution.by_parts,
    'winograd': winograd.winograd,
}


def gradient(convolve, kernel, x, weight):
    """The kernel's gradient of a sum that weighs each number of the result."""
    return jax.grad(lambda kernel: (convolve(x, kernel, 1, 1) * weight).sum())(kernel)


def by_pmap(convolve, kernel, x, weight):
    """The sum of the devices' gradients, each of its part of the examples."""

    def summed(*arguments):
        return jax.lax.psum(gradient(convolve, *arguments), 'batch')

    parts = [a.reshape(8, 2, *a.shape[1:]) for a in (x, weight)]
    return jax.pmap(summed, 'batch', in_axes=(None, 0, 0))(kernel, *parts)[0]


def by_shard_map(convolve, kernel, x, weight):
    """The gradient by a kernel that all devices share: its sum is JAX's own."""
    one, spread = PartitionSpec(), PartitionSpec('batch')
    mapped = jax.shard_map(
        functools.partial(gradient, convolve),
        mesh=Mesh(jax.devices(), ('batch',)), in_specs=(one, spread, spread), out_specs=one,
    )  # fmt: skip
    return jax.jit(mapped)(kernel, x, weight)


def main():
    """Prints {form: {runner: largest difference as a share of the largest value}}."""
    rng = np.random.default_rng(0)
    shapes = (3, 3, 4, 7), (16, 6, 5, 4), (16, 6, 5, 7)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    truth = np.asarray(gradient(convolution.native, *arrays))
    report = {
        name: {
            runner.__name__: float(np.abs(runner(form, *arrays) - truth).max() / abs(truth).max())
            for runner in (by_pmap, by_shard_map)
        }
        for name, form in FORMS.items()
    }
    print(json.dumps(report))


if __name__ == '__main__':
    main()
