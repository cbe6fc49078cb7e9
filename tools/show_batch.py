"""Writes contact sheets, to look at what the network gets and at what each augmentation does.

    python -m tools.show_batch --config=configs/digits_lenet.py
    python -m tools.show_batch --config=configs/digits_lenet.py --step=500 --count=32 --out=sheets
    python -m tools.show_batch --config=configs/digits_lenet.py --split=validation
    python -m tools.show_batch --config=configs/digits_lenet.py --all

batch.png shows the first pictures of a batch after everything that is done to them, with the mean
and standard deviation put back. For each augmentation that is on there is a sheet of it alone: an
example a row, first the plain picture, then what its first visits make of it. --all adds those that
are off, at a usual strength, and the operations of the policies one by one.
"""

import argparse
import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from errors import UserError, did_you_mean
from training import command

if TYPE_CHECKING:  # imported when it is known what for
    from tools.contact_sheet import Sheet

SPLITS = ('train', 'validation')
EXAMPLES, VISITS, COLUMNS = 4, 6, 8
# Augmentation -> its fields under config.augment, at a usual strength.
ON_HOST = {
    'flip': {'flip': 0.5},
    'color_jitter': {'color_jitter': (0.4, 0.4, 0.4, 0.1)},
    'randaugment': {
        'policy': 'randaugment',
        'layers': 2,
        'magnitude': 9.0,
        'magnitude_std': 0.5,
        'op_probability': 1.0,
    },
    'trivialaugment': {'policy': 'trivialaugment'},
}
ON_DEVICE = {'affine': {'shift': 2.0, 'rotate': 15.0, 'scale': 0.2}}


def parser() -> argparse.ArgumentParser:
    """Returns the command line's parser."""
    parser = argparse.ArgumentParser(
        prog='python -m tools.show_batch',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--config', metavar='FILE', required=True, help='the experiment')
    add('--out', metavar='FOLDER', help='where to write [runs/sheets/NAME_OF_CONFIG]')
    add('--split', metavar='NAME', default='train', help='train or validation [train]')
    add('--step', type=int, metavar='N', default=0, help='number of the batch [0]')
    add('--count', type=int, metavar='N', default=16, help='pictures in batch.png [16]')
    add('--all', action='store_true', help='augmentations that are off, too')
    return parser


def main(argv: list[str]) -> int:
    """Runs the command; returns its exit code."""
    arguments, overrides = command.parse(parser(), argv)
    if arguments.split not in SPLITS:
        hint = did_you_mean(arguments.split, SPLITS)
        why = ' The test split is read once, at the end of a run.'
        raise UserError(
            f'--split={arguments.split} must be one of {", ".join(SPLITS)}.'
            + (why if arguments.split == 'test' else hint)
        )
    for name, least in (('step', 0), ('count', 1)):
        if getattr(arguments, name) < least:
            raise UserError(f'--{name}={getattr(arguments, name)} must be at least {least}.')
    from configs import schema
    from tools import contact_sheet
    from training import devices

    config = schema.from_arguments(arguments.config, overrides)
    config.devices, config.distributed = 0, 'off'  # one is enough to look
    devices.start(config)
    shown = open_batch(config, arguments.split, arguments.step, arguments.count)
    out = Path(arguments.out or Path('runs/sheets') / Path(arguments.config).stem)
    to_write = [(out / f'{name}.png', make) for name, make in sheets(shown, arguments.all)]
    for path, _ in to_write:
        contact_sheet.check_free(path)
    for path, make in to_write:
        contact_sheet.write(make(), path)
        print(path)
    return 0


@dataclasses.dataclass(frozen=True)
class Shown:
    """The examples that are shown.

    Attributes:
      experiment: with its configuration.
      source: the open split.
      split: its name.
      step: the number of the batch.
      count: how many of the rows are shown.
      batch: the first rows of the batch, an even number: some are mixed in pairs.
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


def open_batch(config, split: str, step: int, count: int) -> Shown:
    """Reads the first rows of a batch.

    Raises:
      UserError: whatever is wrong with the configuration or the data set; no such step.
    """
    import input_pipeline
    from training import experiment

    experiment.check(config)
    train = input_pipeline.open_split(config, 'train')
    source = train if split == 'train' else input_pipeline.open_split(config, split)
    shape = tuple(input_pipeline.image_shape(config, train))
    made = experiment.Experiment(config, shape, tuple(train.class_names), train.size)
    per_call = min(config.eval_batch_size, source.size)
    batches = made.steps if split == 'train' else -(-source.size // per_call)
    if step >= batches:
        raise UserError(
            f'--step={step}: the {split} split has the batches 0 .. {batches - 1} in this run.'
        )
    if split == 'train':
        batch = next(iter(input_pipeline.batches(config, split, step)))
    else:
        batch = next(itertools.islice(input_pipeline.batches(config, split), step, None))
    count = min(count, int(batch['mask'].sum()))
    rows = {name: np.asarray(array)[: count + count % 2] for name, array in batch.items()}
    return Shown(made, source, split, step, count, rows)


def sheets(shown: Shown, everything: bool):
    """Yields (name, function that makes the sheet) of all that is to be shown."""
    yield 'batch', lambda: batch_sheet(shown)
    if shown.split != 'train' and not everything:
        return
    kinds = [(ON_DEVICE, on_device)]
    if shown.streamed:
        yield 'crop', lambda: crop_sheet(shown)
        kinds.append((ON_HOST, on_host))
    for augmentations, augmented in kinds:
        for name, usual in augmentations.items():
            fields = strengths(shown.config, name, usual)
            if fields or everything:
                alone = only(shown.config, fields or usual)
                yield name, lambda a=augmented, n=name, c=alone: visits_sheet(shown, n, a(shown, c))
    if shown.streamed and everything:
        from data_sources import host_augment

        for policy in host_augment.POLICIES:
            yield f'operations_{policy}', lambda p=policy: operations_sheet(shown, p)


def strengths(config, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Returns what the configuration says of an augmentation's fields; {} if it is off."""
    given = {field: config.augment[field] for field in fields}
    on = given['policy'] == name if 'policy' in given else any(map(np.any, given.values()))
    return given if on else {}


def only(config, fields: dict[str, Any]):
    """Returns the configuration with one augmentation, and no other."""
    from configs import base

    config = config.copy_and_resolve_references()
    config.augment.update(base.get_config().augment)
    config.augment.update(fields)
    return config


# --- what is on the sheets --------------------------------------------------------------------


def batch_sheet(shown: Shown) -> 'Sheet':
    """Returns the sheet of the batch as the network gets it."""
    from tools.contact_sheet import Sheet, Tile

    images, captions = network_input(shown, shown.config, shown.batch, shown.split == 'train')
    tiles = [Tile(*pair) for pair in zip(images, captions, strict=True)][: shown.count]
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    return Sheet(f'{shown.config.data.name}, {shown.split}, batch {shown.step}', rows)


def network_input(shown: Shown, config, batch, training: bool):
    """Returns (images uint8 [b, h, w, c] with mean and deviation put back, lines of text each)."""
    import jax

    from training import experiment, step

    spec = dataclasses.replace(shown.experiment, config=config).spec()
    hyper = experiment.hyperparameters(config) if training else None
    inputs = np.asarray(jax.jit(lambda b, h: step._inputs(spec, b, h))(batch, hyper))
    pixels = (inputs * np.float32(spec.std) + np.float32(spec.mean)) * 255
    captions = [(shown.class_name(label),) for label in batch['label']]
    return np.rint(pixels.clip(0, 255)).astype(np.uint8), captions


def plain(shown: Shown) -> np.ndarray:
    """Returns the examples before augmentation, uint8 [n, h, w, c]; the centre of streamed ones."""
    chosen = shown.batch['index']
    if not shown.streamed:
        return shown.source.images[chosen]
    from data_sources import cropping

    size = shown.config.data.image_size
    pictures = [record.image for record in shown.source.read(chosen)]
    return np.stack([cropping.centre(one, size, round(size * 8 / 7)) for one in pictures])


def visits_sheet(shown: Shown, name: str, visits) -> 'Sheet':
    """Returns the sheet of an augmentation.

    Args:
      shown: the examples.
      name: of the augmentation.
      visits: for each visit (images uint8 [n, h, w, c], lines of text each).
    """
    from tools.contact_sheet import Sheet, Tile

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
    images, zeros = plain(shown), np.zeros_like(shown.batch['index'])
    return [
        network_input(shown, config, {**shown.batch, 'image': images, 'epoch': zeros + visit}, True)
        for visit in range(VISITS)
    ]


def on_host(shown: Shown, config):
    """Returns what data_sources.host_augment makes of them, visit by visit."""
    from data_sources import host_augment
    from data_sources.draws import Draws

    settings = host_augment.Settings.of(config.augment)
    examples = list(zip(plain(shown), shown.batch['index'].tolist(), strict=True))
    for visit in range(VISITS):
        images = [
            host_augment.augment(image, Draws(config.seed, 'augment', visit, example), settings)
            for image, example in examples
        ]
        yield images, [()] * len(images)


def crop_sheet(shown: Shown) -> 'Sheet':
    """Returns the sheet of the random crops of a streamed set; the plain picture is its centre."""
    from data_sources import stream

    data = shown.config.data
    crop = stream.TrainTransform(
        shown.config.seed, data.image_size, data.crop_scale, data.crop_ratio
    )
    chosen = shown.batch['index'].tolist()
    examples = list(zip(shown.source.read(chosen), chosen, strict=True))
    visits = [
        ([crop(record.image, visit, example) for record, example in examples], [()] * len(chosen))
        for visit in range(VISITS)
    ]
    return visits_sheet(shown, 'crop', visits)


def operations_sheet(shown: Shown, policy: str) -> 'Sheet':
    """Returns the sheet of a policy's operations on the first example, at several strengths."""
    from data_sources import host_augment
    from tools.contact_sheet import Sheet, Tile

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


if __name__ == '__main__':
    command.run(main)
