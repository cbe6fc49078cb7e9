"""The installed libraries compute what they should: known miscompilations are not present."""

import jax
import jax.numpy as jnp
import numpy as np


def test_jitted_row_norms_are_right():
    """Jax-ml/jax issue 39103: jax 0.10.2 on a CPU gives 1071645696 here."""
    last = 32_768
    rows = np.zeros((last + 1, 3), np.float32)
    rows[:, 0] = np.arange(last + 1)
    identity = jnp.eye(3, dtype=jnp.float32)

    @jax.jit
    def squared_norms(rows):
        return jax.vmap(lambda row: jnp.sum(jnp.square(identity @ row)))(rows)

    assert float(squared_norms(rows)[-1]) == last**2 == 1073741824
