"""The base of heads: a network whose stages end in something other than its own logits."""

from collections import OrderedDict
from typing import Any, Self

import flax.linen as nn
import jax
from flax.errors import NameInUseError

from errors import UserError
from models.layers import LayerFactory
from models.network import Model, Network


class HeadedNetwork(Model):
    """A backbone with a task's head. A subclass defines `make_head` and `outputs`.

    The two share a scope (`flax.linen.share_scope`): every parameter and statistic of the backbone
    has the path, and from the same key the initial value, that it has in the backbone alone, and
    all that the head has is below 'head'. So globs of parameters, layer decay, another run's
    weights and converted ones serve a network with any head.

        class BoxHead(HeadedNetwork):
            boxes: int = 10

            def make_head(self, layer):
                return layer.dense(4 * self.boxes)

            def outputs(self, stages, train, mask):
                return self.head(self.pooled(stages)).reshape(-1, self.boxes, 4)

    Attributes:
      backbone: a model of the registry with `num_classes=0`.
    """

    backbone: Network

    def setup(self) -> None:
        """Makes the head in the backbone's scope."""
        network = self.backbone
        if network.num_classes:
            raise ValueError(f'the backbone has {network.num_classes} logits: give num_classes=0')
        nn.share_scope(self, network)
        try:
            self.head = self.make_head(network.factory())
        except NameInUseError as error:
            raise UserError(
                f'{type(network).__name__} makes a head of its own where num_classes is 0: its '
                'setup needs "if self.num_classes:" before "self.head = ...".'
            ) from error

    def make_head(self, layer: LayerFactory) -> nn.Module:
        """Returns the head: one module, which holds all parameters that the backbone has not.

        Args:
          layer: makes layers with the backbone's dtypes, dropout rate and mapped axis; hand it on
            to a head that is a module of several layers, as the blocks of ResNet get theirs.
        """
        raise NotImplementedError

    def outputs(
        self, stages: OrderedDict[str, jax.Array], train: bool, mask: jax.Array | None
    ) -> Any:
        """Returns what `self.head` makes of the backbone's stages, [b, ...].

        Arguments as for `stages`. Outputs are float32 at least (normalization.at_least_float32).
        """
        raise NotImplementedError

    def pooled(self, stages: OrderedDict[str, jax.Array]) -> jax.Array:
        """Returns the features [b, features] that a classifier's head would read."""
        return self.backbone.pool_features(next(reversed(stages.values())))

    def stages(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> OrderedDict[str, jax.Array]:
        """Returns the stages of the backbone; see Model."""
        return self.backbone.stages(images, train, mask)

    def __call__(
        self, images: jax.Array, train: bool = False, mask: jax.Array | None = None
    ) -> Any:
        """Returns the outputs; arguments as for `stages`."""
        return self.outputs(self.stages(images, train, mask), train, mask)

    @nn.nowrap
    def adjusted(self, **fields: Any) -> Self:
        """Returns a copy whose backbone has other values of some fields."""
        return self.clone(backbone=self.backbone.adjusted(**fields))

    @nn.nowrap
    def headless(self) -> Network:
        """Returns the backbone, whose parameters are those of this network but for the head."""
        return self.backbone
