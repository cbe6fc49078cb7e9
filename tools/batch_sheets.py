"""What tools.show_batch shows: the batch, and what each augmentation makes of its examples."""

import dataclasses
from typing import Any

import jax
import numpy as np

from configs import base
from data_sources.draws import Draws
from tools.contact_sheet import Sheet, Tile
from training import experiment, inputs

EXAMPLES, VISITS, COLUMNS = 4, 6, 8
# Augmentation -> the fields under config.augment that switch it on, at a usual strength, and others
# that belong to it.
ON_HOST = {
    'flip': ({'flip': 0.5}, ()),
    'color_jitter': ({'color_jitter': (0.4, 0.4, 0.4, 0.1)}, ()),
    'randaugment': (
        {'policy': 'randaugment'},
        ('layers', 'magnitude', 'magnitude_std', 'op_probability'),
    ),
    'trivialaugment': ({'policy': 'trivialaugment'}, ()),
}
# In the step: of sets in memory, and of all.
IN_MEMORY = {'crop': ({'crop': 4}, ()), 'flip': ({'flip': 0.5}, ())}
ON_DEVICE = {
    'affine': ({'shift': 2.0, 'rotate': 15.0, 'scale': 0.2}, ()),
    'mixup': ({'mixup': 0.2}, ('mix_probability',)),
    'cutmix': ({'cutmix': 1.0}, ('mix_probability',)),
    'erase': ({'erase': 1.0}, ('erase_mode',)),
}


@dataclasses.dataclass(frozen=True)
class Shown:
    """The examples that are shown.

    Attributes:
      experiment: with its configuration.
      source: the open split.
      split: its name.
      step: the number of the batch.
      count: how many of the rows are shown.
      batch: the first rows of the batch, as the step gets them; an even number, for those that are
        mixed in pairs.
    """

    experiment: Any
    source: Any
    split: str
    step: int
    count: int
    batch: dict[str, np.ndarray]

    @property
    def config(self):
        """The checked configuration."""
        return self.experiment.config

    @property
    def streamed(self) -> bool:
        """Whether the pictures are decoded and augmented on the host."""
        return self.config.data.image_size is not None

    def class_name(self, label: int) -> str:
        """Returns the name of a class."""
        return self.experiment.class_names[label]


def sheets(shown: Shown, everything: bool):
    """Yields (name, function that makes the sheet) of all that is to be shown."""
    yield 'batch', lambda: batch_sheet(shown)
    if shown.split != 'train' and not everything:
        return
    kinds = [(IN_MEMORY | ON_DEVICE, on_device)]
    if shown.streamed:
        yield 'crop', lambda: crop_sheet(shown)
        kinds = [(ON_HOST, on_host), (ON_DEVICE, on_device)]
    for augmentations, augmented in kinds:
        for name, (switches, more) in augmentations.items():
            on = is_on(shown.config, switches)
            if on or everything:
                alone = only(shown.config, {} if on else switches, (*switches, *more))
                yield name, lambda a=augmented, n=name, c=alone: visits_sheet(shown, n, a(shown, c))
    if shown.streamed and everything:
        from data_sources import host_augment

        for policy in host_augment.POLICIES:
            yield f'operations_{policy}', lambda p=policy: operations_sheet(shown, p)


def is_on(config, switches: dict[str, Any]) -> bool:
    """Whether the configuration switches an augmentation on; `switches` as in ON_DEVICE."""
    if 'policy' in switches:
        return config.augment.policy == switches['policy']
    return any(np.any(config.augment[name]) for name in switches)


def only(config, values: dict[str, Any], kept: tuple[str, ...]):
    """Returns the configuration with one augmentation and no other.

    Its fields `kept` are as they were, or as `values` says.
    """
    values = {name: config.augment[name] for name in kept} | values
    config = config.copy_and_resolve_references()
    config.augment.update(base.get_config().augment)
    config.augment.update(values)
    return config


def batch_sheet(shown: Shown) -> Sheet:
    """Returns the sheet of the batch as the network gets it."""
    images, captions = network_input(shown, shown.config, shown.split == 'train')(shown.batch)
    tiles = [Tile(*pair) for pair in zip(images, captions, strict=True)][: shown.count]
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    return Sheet(f'{shown.config.data.name}, {shown.split}, batch {shown.step}', rows)


def network_input(shown: Shown, config, training: bool = True):
    """Returns a function of a batch that gives (images, lines of text for each).

    The images are what the network gets, uint8 [b, h, w, c], with mean and deviation put back.
    """
    spec = dataclasses.replace(shown.experiment, config=config).spec()
    hyper = experiment.hyperparameters(config)
    if training:
        made = jax.jit(lambda batch: inputs.training_inputs(spec, batch, hyper))
    else:
        made = jax.jit(lambda batch: {'inputs': inputs.evaluation_inputs(spec, batch)})

    def seen(batch):
        part = made(batch)
        pixels = np.asarray(part['inputs']) * np.float32(spec.std) + np.float32(spec.mean)
        captions = [(shown.class_name(label),) for label in batch['label']]
        if 'share' in part:
            captions = mixed_captions(shown, part)
        return np.rint(255 * pixels.clip(0, 1)).astype(np.uint8), captions

    return seen


def mixed_captions(shown: Shown, part) -> list[tuple[str, str]]:
    """Returns two lines for each example: the two classes and their shares."""
    columns = (np.asarray(part[name]) for name in ('label', 'other_label', 'share'))
    return [
        (f'{share:.0%} {shown.class_name(own)}', f'{1 - share:.0%} {shown.class_name(other)}')
        for own, other, share in zip(*columns, strict=True)
    ]


def plain(shown: Shown) -> np.ndarray:
    """Returns the examples before augmentation, uint8 [n, h, w, c]; the centre of streamed ones."""
    chosen = shown.batch['index']
    if not shown.streamed:
        return shown.source.images[chosen]
    from data_sources import cropping

    size = shown.config.data.image_size
    pictures = [record.image for record in shown.source.read(chosen)]
    return np.stack([cropping.centre(one, size, round(size * 8 / 7)) for one in pictures])


def visits_sheet(shown: Shown, name: str, visits) -> Sheet:
    """Returns the sheet of an augmentation.

    Args:
      shown: the examples.
      name: of the augmentation.
      visits: for each visit (images uint8 [n, h, w, c], lines of text each).
    """
    first = [
        Tile(image, (shown.class_name(label),))
        for image, label in zip(plain(shown), shown.batch['label'], strict=True)
    ]
    columns = [
        [Tile(*pair) for pair in zip(images, captions, strict=True)] for images, captions in visits
    ]
    rows = list(zip(first, *columns, strict=True))[: min(EXAMPLES, shown.count)]
    return Sheet(f'{name}: plain, then visit 0, 1, ...', rows)


def on_device(shown: Shown, config):
    """Returns what the step makes of the plain pictures, visit by visit."""
    seen, zeros = network_input(shown, config), np.zeros_like(shown.batch['index'])
    batch = {**shown.batch, 'image': plain(shown)}
    return [seen({**batch, 'epoch': zeros + visit}) for visit in range(VISITS)]


def on_host(shown: Shown, config):
    """Returns what data_sources.host_augment makes of them, visit by visit."""
    from data_sources import host_augment

    settings = host_augment.Settings.of(config.augment)
    examples = list(zip(plain(shown), shown.batch['index'].tolist(), strict=True))
    for visit in range(VISITS):
        images = [
            host_augment.augment(image, Draws(config.seed, 'augment', visit, example), settings)
            for image, example in examples
        ]
        yield images, [()] * len(images)


def crop_sheet(shown: Shown) -> Sheet:
    """Returns the sheet of the random crops of a streamed set; the plain picture is its centre."""
    from data_sources import stream

    data = shown.config.data
    crop = stream.TrainTransform(
        shown.config.seed, data.image_size, data.crop_scale, data.crop_ratio
    )
    chosen = shown.batch['index'].tolist()
    examples = list(zip(shown.source.read(chosen), chosen, strict=True))
    crops = (
        [crop(record.image, visit, example) for record, example in examples]
        for visit in range(VISITS)
    )
    return visits_sheet(shown, 'crop', ((images, [()] * len(images)) for images in crops))


def operations_sheet(shown: Shown, policy: str) -> Sheet:
    """Returns the sheet of a policy's operations on the first example, at several strengths."""
    from data_sources import host_augment

    table, fill = host_augment.POLICIES[policy]
    image, rows = plain(shown)[0], []
    for entry in table:
        row = [Tile(image, ('plain',))]
        shares = (-1.0, -0.5, 0.5, 1.0) if entry.signed else (0.25, 0.5, 0.75, 1.0)
        if entry.value(1.0) == entry.value(0.0):  # an operation without strengths
            row.append(Tile(entry.apply(image, 1.0, False, fill), (entry.operation,)))
            shares = ()
        for share in shares:
            done = entry.apply(image, abs(share), share < 0, fill)
            value = entry.value(abs(share)) * (-1 if share < 0 else 1)
            row.append(Tile(done, (f'{entry.operation} {value:.3g}',)))
        rows.append(row)
    return Sheet(f'{policy}: its operations at several strengths', rows)
