"""What all networks share: their fields, and the way from the last stage to the logits."""

import dataclasses
from collections import OrderedDict
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.layers import LayerFactory
from models.lowering import AUTO, NATIVE, Lowering
from models.normalization import at_least_float32


class Network(nn.Module):
    """An image classifier. A family defines `setup` (with `self.head`) and `stages`.

    Fields: `num_classes` (0: features instead of logits); `dtype`, in which it computes, and
    `param_dtype`, in which it keeps its parameters; `dropout_rate`, in [0, 1), which may be a
    traced scalar; `axis_name`, the mapped axis over which batch norm's statistics are synchronised,
    None for not; `frozen`, globs over parameter paths: batch norm keeps its statistics there;
    `lowering`, by which of several equal forms its layers are computed; `initialization` of the
    kernels, by layers.INITIALIZATIONS.
    """

    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    dropout_rate: float = dataclasses.field(default=0.0, metadata={'at_least': 0, 'below': 1})
    axis_name: str | None = None
    frozen: tuple[str, ...] = ()
    lowering: Lowering = AUTO
    initialization: Literal['he', 'uniform'] = 'he'

    def factory(self) -> LayerFactory:
        """Returns the maker of this network's layers."""
        return LayerFactory(
            self.dtype,
            self.param_dtype,
            self.dropout_rate,
            self.axis_name,
            self.frozen,
            self.lowering,
            self.initialization,
        )

    def stages(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> OrderedDict[str, jax.Array]:
        """Returns stage name -> feature map, in order; the logits come from the last.

        A feature map is [b, h, w, c], or [b, units] after a fully connected layer. `images` is
        [b, h, w, channels], float. `mask` [b] is 0 where an example is padding, which then does not
        count in batch norm's statistics; None is all ones. (An OrderedDict keeps its order through
        jit, a dict does not.)

        Raises UserError, with the arithmetic, where the images are too small.
        """
        raise NotImplementedError

    def pool_features(self, features: jax.Array) -> jax.Array:
        """Takes the last stage to [b, features], what `num_classes=0` returns: it flattens."""
        return features.reshape(features.shape[0], -1)

    def classify(self, features: jax.Array, train: bool) -> jax.Array:
        """Takes the pooled features [b, features] to [b, num_classes]."""
        del train
        return self.head(features)

    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Returns the logits [b, num_classes], float32 at least; arguments as for `stages`."""
        stages = self.stages(images, train, mask)
        features = self.pool_features(next(reversed(stages.values())))
        if self.num_classes:
            return self.logits(features, train)
        return features.astype(at_least_float32(self.dtype))

    def logits(
        self, features: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> jax.Array:
        """Returns the logits of pooled features [b, features], float32 at least.

        Called like the network itself, of which this is the end; `mask` means nothing to it.
        """
        del mask
        return self.classify(features, train).astype(at_least_float32(self.dtype))

    def widened(self, filters: int) -> int:
        """Returns filters x width, at least 1; for networks that have a `width`."""
        return max(1, round(filters * self.width))

    def prepare(self, images: jax.Array) -> jax.Array:
        """Returns the images in the compute dtype.

        Raises TypeError unless they are floats [b, h, w, c].
        """
        if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(
                'images are normalised floats [batch, height, width, channels], '
                f'not {images.dtype} {images.shape}'
            )
        return images.astype(self.dtype)


def abstract_variables(network: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Returns the shapes and types of a network's variables for images (h, w, channels).

    Nothing is computed, and no device started: the key is made inside the trace for that, and no
    layer asks what device it is on.

    Raises:
      UserError: the images are too small; shows the arithmetic.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    network = network.clone(lowering=NATIVE)
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x), images)
