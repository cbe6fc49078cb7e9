"""Child of test_lowering.py: prints, as JSON, how far each form's gradient is from the truth.

It is started with eight virtual CPU devices, over which the examples are spread. The truth is XLA's
own convolution of all of them. The kernel is the same on every device, and nothing but the form
says that its gradient is summed over them.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from models import convolution, winograd

FORMS = {
    'patches': convolution.patches,
    'by_parts': convolution.by_parts,
    'winograd': winograd.winograd,
}


def main():
    """Prints {form: {runner: largest difference as a share of the largest value}}."""
    rng = np.random.default_rng(0)
    arrays = ((16, 6, 5, 4), (3, 3, 4, 7), (16, 6, 5, 7))
    x, kernel, weight = (rng.normal(size=shape).astype(np.float32) for shape in arrays)

    def gradient(convolve, kernel, x, weight):
        return jax.grad(lambda kernel: (convolve(x, kernel, 1, 1) * weight).sum())(kernel)

    truth = gradient(convolution.native, kernel, x, weight)
    one, spread = PartitionSpec(), PartitionSpec('batch')
    mesh, report = Mesh(jax.devices(), ('batch',)), {}
    for name, form in FORMS.items():

        def summed(kernel, x, weight, form=form):
            return jax.lax.psum(gradient(form, kernel, x, weight), 'batch')

        def sums_itself(kernel, x, weight, form=form):
            return gradient(form, kernel, x, weight)

        parts = [a.reshape(8, 2, *a.shape[1:]) for a in (x, weight)]
        by_pmap = jax.pmap(summed, 'batch', in_axes=(None, 0, 0))(kernel, *parts)[0]
        mapped = jax.shard_map(
            sums_itself, mesh=mesh, in_specs=(one, spread, spread), out_specs=one
        )
        found = {'pmap': by_pmap, 'shard_map': jax.jit(mapped)(kernel, x, weight)}
        report[name] = {
            runner: float(jnp.abs(jax.device_get(value) - truth).max() / jnp.abs(truth).max())
            for runner, value in found.items()
        }
    print(json.dumps(report))


if __name__ == '__main__':
    main()
