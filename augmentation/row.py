"""The contract of an augmentation: one row that says all there is to know about it.

To add one: write the function, declare a row with its fields, register it (a row of this repository
stands in augmentation/rows.py), and test it. The step, what may vary in a sweep, the checks of
a configuration, --help and contact sheets follow from the rows; nothing else names an augmentation.

    def brightness(images, batch, hyper):
        draws = jax.vmap(jax.random.uniform)(augment.keys('brightness', batch, hyper))
        return images * (1 - hyper['brightness'] * draws)[:, None, None, None]

    augmentations.register(Augmentation(
        'brightness',
        fields=(Field('augment.brightness', 0.0, 'Largest fraction of light that is taken away.',
                      low=0, high=1, traced=True),),
        usual={'brightness': {'brightness': 0.5}},
        device=brightness,
        stage=Stage.PIXELS,
    ))
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

from field import Field


class Stage(enum.IntEnum):
    """When in the step an augmentation is applied; rows of one stage follow in their order.

    Whoever draws does so by augmentation.augment.keys, so that a picture depends on (seed, epoch,
    example) alone.

    PIXELS: values in [0, 1]; returns images.
    GEOMETRY: values in [0, 1]; returns (images, function without arguments that returns the
      matrices float32 [batch, 2, 3] of data_sources/geometry.py, or, for a row that `bends`, the
      places float32 [batch, height, width, 2] in the image that pixels come from). It is called
      only where a target of the task moves.
    NORMALIZED: values less the mean, by the deviation; returns images.
    MIXTURE: the same, and the images of the batch mix; the function also takes the task's targets,
      and returns (images, {name: array} that the task's loss finds in the batch).
    """

    PIXELS = 0
    GEOMETRY = 1
    NORMALIZED = 2
    MIXTURE = 3


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """One row.

    Attributes:
      name: of the row.
      fields: its fields, 'augment.<leaf>' each. The traced ones enter the step as scalars.
      usual: {name of a contact sheet: {leaf: usual strength}}. These fields are its switches: it is
        on where one of them has not its default.
      device: a function of the step, (images, batch, hyper, **static): images float32 [batch,
        height, width, channels]; batch with 'index', 'epoch', 'mask' and targets; hyper the
        scalars by their leaf, and 'seed'; static the values of fields that are not traced.
      stage: when it is applied; None without `device`.
      host: a function for the pictures of a streamed set, (image, draws, **values) -> (image,
        matrices): image uint8 [height, width, 3]; draws data_sources.draws.Draws; values of all
        fields by their leaf; matrices a tuple, one for each time that the pixels moved. Worker
        processes import its module, which should not import JAX. It is called where the
        augmentation is off, too, and then returns the image itself: what others draw after it need
        not depend on its switch.
      bends: whether pixels move as no matrix says; targets whose kind cannot follow are refused.
      streamed: whether a streamed set takes it, on the host if `host` is given.
      instead: for the message where it does not: what there is in its place.
      scalars: section augment.* of a configuration -> leaves of the traced fields that enter the
        step; all of them without it.
      idle: section augment.* of a configuration -> {leaf: (leaves, sentence)} of the fields that
        mean nothing beside the values of the leaves, even where the augmentation is on.
      check: (config, leaves of its fields that have not their defaults); raises UserError for what
        no single field can say.
    """

    name: str
    fields: tuple[Field, ...]
    usual: Mapping[str, Mapping[str, Any]] = dataclasses.field(hash=False)
    device: Callable[..., Any] | None = None
    stage: Stage | None = None
    host: Callable[..., Any] | None = None
    bends: bool = False
    streamed: bool = True
    instead: str = ''
    scalars: Callable[[Any], tuple[str, ...]] | None = None
    idle: Callable[[Any], Mapping[str, tuple[tuple[str, ...], str]]] | None = None
    check: Callable[[Any, tuple[str, ...]], None] | None = None

    def __post_init__(self):
        if (self.device is None) != (self.stage is None):
            raise ValueError(f'augmentation {self.name}: a stage belongs to a device function')
        leaves = {field.leaf for field in self.fields}
        if not leaves >= set(self.switches):
            raise ValueError(f'augmentation {self.name}: a usual strength of no field of its own')
        if any(field.name != f'augment.{field.leaf}' for field in self.fields):
            raise ValueError(f'augmentation {self.name}: fields have to be named augment.<leaf>')

    @property
    def switches(self) -> tuple[str, ...]:
        """The leaves of the fields that switch it on."""
        return tuple(leaf for strengths in self.usual.values() for leaf in strengths)

    def values(self, config: Any) -> dict[str, Any]:
        """Returns the values of all its fields by their leaf."""
        return {field.leaf: config.augment[field.leaf] for field in self.fields}

    def given(self, config: Any) -> tuple[str, ...]:
        """Returns the leaves of the fields that have not their defaults."""
        return tuple(f.leaf for f in self.fields if config.augment[f.leaf] != f.default)

    def is_on(self, config: Any) -> bool:
        """Returns whether a configuration switches it on."""
        return not set(self.switches).isdisjoint(self.given(config))

    def leaves_in_step(self, config: Any) -> tuple[str, ...]:
        """Returns the leaves of the fields that enter the step as scalars, where it is on."""
        if self.scalars:
            return self.scalars(config.augment)
        return tuple(field.leaf for field in self.fields if field.traced)

    def applied(self, config: Any) -> 'Applied':
        """Returns what of it is compiled into the step."""
        static = tuple((f.leaf, config.augment[f.leaf]) for f in self.fields if not f.traced)
        return Applied(self.name, self.stage, self.device, static)

    def in_step(self, config: Any) -> bool:
        """Returns whether it is on, and applied by the step."""
        on_host = self.host is not None and config.data.image_size is not None
        return self.device is not None and not on_host and self.is_on(config)


@dataclasses.dataclass(frozen=True)
class Applied:
    """An augmentation as it is compiled into the step.

    Attributes:
      name: of its row.
      stage: when it is applied.
      function: see Augmentation.device.
      static: (leaf, value) of the fields that are compiled in.
    """

    name: str
    stage: Stage
    function: Callable[..., Any]
    static: tuple[tuple[str, Any], ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        """Applies it; arguments and result are those of its stage."""
        return self.function(*arguments, **dict(self.static))
