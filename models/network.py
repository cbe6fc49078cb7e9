"""The base of all networks: their fields, and the way from the last stage to the logits."""

from collections import OrderedDict
from typing import Any, Literal, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from models.declaration import option
from models.layers import LayerFactory
from models.lowering import AUTO, NATIVE, Lowering
from models.normalization import at_least_float32


class Model(nn.Module):
    """A module that can be trained: a `Network`, or one with a head (models/heads/head.py)."""

    def stages(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> OrderedDict[str, jax.Array]:
        """Returns stage name -> feature map, in order; what the head reads is among them.

        A feature map is [b, h, w, c], or [b, units] after a fully connected layer. (An OrderedDict
        keeps its order through jit, and a dict does not.)

        Args:
          images: float [b, h, w, channels].
          train: whether dropout drops, and batch norm uses the batch's statistics.
          mask: [b], 0 where an example is padding, which then does not count in batch norm's
            statistics; None is all ones.

        Raises:
          UserError: the images are too small; shows the arithmetic.
        """
        raise NotImplementedError

    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> Any:
        """Returns the outputs, [b, ...] and float32 at least; arguments as for `stages`."""
        raise NotImplementedError

    @nn.nowrap
    def adjusted(self, **fields: Any) -> Self:
        """Returns the same model with other values of the fields that `Network` has.

        Such as `dropout_rate`, `axis_name` or `lowering`: what whoever applies the model decides.
        """
        raise NotImplementedError

    @nn.nowrap
    def headless(self) -> 'Network':
        """Returns the network that gives pooled features and has no parameters of a head."""
        raise NotImplementedError


class Network(Model):
    """An image classifier, and the backbone of whatever else is learned.

    A family defines `setup` and `stages`. `setup` makes the layers with `self.factory()`, and with
    `if self.num_classes:` the last one, `self.head`.

    Attributes:
      num_classes: how many logits there are; 0 gives features instead, and makes no head.
      dtype: in which it computes.
      param_dtype: in which it keeps its parameters.
      dropout_rate: in [0, 1); may be a traced scalar.
      axis_name: the mapped axis over which batch norm synchronizes its statistics; None: it does
        not.
      frozen: globs over parameter paths; batch norm keeps its statistics where they match.
      lowering: by which of several equal forms its layers are computed.
      convolutional: leaves out the fully connected stages, which ask for images of one size, for
        heads that read maps; it then has no pooled features.
      initialization: of the kernels; see layers.INITIALIZATIONS.
    """

    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    dropout_rate: float = option(
        0.0,
        'Probability that dropout sets a unit to zero.',
        at_least=0,
        below=1,
        traced=True,
        regularizer=True,
    )
    axis_name: str | None = None
    frozen: tuple[str, ...] = ()
    lowering: Lowering = AUTO
    convolutional: bool = False
    initialization: Literal['he', 'uniform'] = option(
        'he', "How kernels are first drawn: he (truncated normal) or uniform (PyTorch's default)."
    )

    @nn.nowrap
    def adjusted(self, **fields: Any) -> Self:
        """Returns a copy with other values of some fields."""
        return self.clone(**fields)

    @nn.nowrap
    def headless(self) -> 'Network':
        """Returns a copy that gives pooled features and has no head."""
        return self.clone(num_classes=0)

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

    def pool_features(self, features: jax.Array) -> jax.Array:
        """Turns the last stage into [b, features], what `num_classes=0` returns: flattens it."""
        return features.reshape(features.shape[0], -1)

    def classify(self, features: jax.Array, train: bool) -> jax.Array:
        """Turns the pooled features [b, features] into logits [b, num_classes]."""
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

        Called like the network itself, of which this is the end; it does not use `mask`.
        """
        del mask
        return self.classify(features, train).astype(at_least_float32(self.dtype))

    def widened(self, filters: int) -> int:
        """Returns filters x width, at least 1; for networks that have a `width`."""
        return max(1, round(filters * self.width))

    def prepare(self, images: jax.Array) -> jax.Array:
        """Returns the images in the compute dtype.

        Raises:
          TypeError: they are not floats [b, h, w, c].
        """
        if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(
                'images must be normalized floats [batch, height, width, channels], '
                f'not {images.dtype} {images.shape}'
            )
        return images.astype(self.dtype)


def remat_option() -> Any:
    """Returns the field of the option `remat`."""
    return option(
        False, 'Compute activations again for the gradient: less memory, a third more arithmetic.'
    )


def width_option() -> Any:
    """Returns the field of the option `width`, for networks that call `widened`."""
    return option(1.0, 'Factor on the number of filters.', at_least=0.01, at_most=100)


def abstract_variables(model: Model, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Returns the shapes and types of a model's variables for images (h, w, channels).

    Nothing is computed and no device is started: the key is made inside the trace, and no layer
    asks what device it runs on.

    Raises:
      UserError: the images are too small; shows the arithmetic.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    model = model.adjusted(lowering=NATIVE)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
