"""The sheets of tools.show_batch: a batch, and its examples under each augmentation."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

import input_pipeline
from augmentation import registry as augmentations
from augmentation.row import Augmentation
from configs import base
from data_sources.draws import Draws
from errors import UserError
from tasks import registry
from tasks.task import Task
from tools.contact_sheet import Sheet, Tile
from training import experiment, inputs

# Images uint8 [h, w, 3], and the lines of text below each.
Pictures = tuple[list[np.ndarray], list[tuple[str, ...]]]
EXAMPLES, VISITS, COLUMNS = 4, 6, 8


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
    def config(self) -> Any:
        """The checked configuration."""
        return self.experiment.config

    @property
    def streamed(self) -> bool:
        """Whether the pictures are decoded and augmented on the host."""
        return self.config.data.image_size is not None

    @property
    def task(self) -> Task:
        """The task, which captions and draws."""
        return registry.get(self.config.task).create(self.config, self.experiment.class_names)

    def pictures(self, images: Sequence[np.ndarray], targets: Mapping[str, np.ndarray]) -> Pictures:
        """Returns images with their targets drawn into them, and their captions.

        Args:
          images: uint8 [n, h, w, c].
          targets: {name: array [n, ...]}, as the step gets them.
        """
        task, pictures, captions = self.task, [], []
        for row, image in enumerate(images):
            own = {name: array[row] for name, array in targets.items()}
            coloured = np.broadcast_to(image, (*image.shape[:2], 3)).copy()
            pictures.append(task.drawn(coloured, own))
            captions.append(task.caption(own, self.experiment.class_names))
        return pictures, captions

    def moved(self, targets: Mapping[str, Any], *matrices: np.ndarray) -> dict[str, Any]:
        """Returns one example's targets, moved as the pixels of a picture of the training size."""
        shape = self.experiment.image_shape[:2]
        moved = dict(targets)
        for matrix, name in itertools.product(matrices, moved):
            moved[name] = self.task.targets[name].moved(moved[name], matrix, shape)
        return moved


def sheets(shown: Shown, everything: bool) -> Iterator[tuple[str, Callable[[], Sheet]]]:
    """Yields (name, function that makes the sheet) of all that is to be shown."""
    yield 'batch', lambda: batch_sheet(shown)
    if shown.split != 'train' and not everything:
        return
    if shown.streamed:
        yield 'crop', lambda: crop_sheet(shown)
    for row, name in augmentation_sheets(shown):
        on = is_on(shown.config, row, name)
        alone = only(shown.config, row, name)
        if on or (everything and fits(shown, row, name, alone)):
            visits = on_host if shown.streamed and row.host else on_device
            yield name, lambda n=name, v=visits, c=alone: visits_sheet(shown, n, v(shown, c))
    if shown.streamed and everything:
        from data_sources import host_augment

        for policy in host_augment.POLICIES:
            yield f'operations_{policy}', lambda p=policy: operations_sheet(shown, p)


def augmentation_sheets(shown: Shown) -> list[tuple[Augmentation, str]]:
    """Returns (augmentation, name of its sheet) of what the data set can have, host first."""
    streamed = shown.streamed
    fitting = [r for r in augmentations.rows() if (r.streamed if streamed else r.device)]
    fitting.sort(key=lambda row: not (streamed and row.host))
    return [(row, name) for row in fitting for name in row.usual]


def is_on(config: Any, row: Augmentation, name: str) -> bool:
    """Returns whether the configuration switches on what a sheet of the augmentation shows."""
    default = {field.leaf: field.default for field in row.fields}
    for leaf, usual in row.usual[name].items():
        value = config.augment[leaf]
        # Of a text, such as a policy, the sheet shows one value.
        if value != default[leaf] and (value == usual or not isinstance(usual, str)):
            return True
    return False


def only(config: Any, row: Augmentation, name: str) -> Any:
    """Returns the configuration with what a sheet shows, and no other augmentation.

    Where it is off, its switches get their usual strengths. The augmentation's fields that are no
    switches stay as they are.
    """
    usual = row.usual[name]
    switches = {leaf: config.augment[leaf] for leaf in usual}
    if not is_on(config, row, name):
        switches = dict(usual)
    others = {leaf: v for leaf, v in row.values(config).items() if leaf not in row.switches}
    config = config.copy_and_resolve_references()
    config.augment.update(base.get_config().augment)
    config.augment.update(others | switches)
    return config


def fits(shown: Shown, row: Augmentation, name: str, config: Any) -> bool:
    """Returns whether the task and its images can have what a sheet of an augmentation shows.

    Args:
      shown: the examples.
      row, name: the augmentation, and its sheet.
      config: what `only` returns for them.
    """
    spec = dataclasses.replace(shown.experiment, config=config).spec()
    hyper = experiment.hyperparameters(config)
    try:
        for leaf in row.usual[name]:
            augmentations.check_use(row, leaf, config)
        jax.eval_shape(lambda batch: inputs.training_inputs(spec, batch, hyper), shown.batch)
    except UserError:
        return False
    return True


def batch_sheet(shown: Shown) -> Sheet:
    """Returns the sheet of the batch as the network gets it."""
    images, captions = network_input(shown, shown.config, shown.split == 'train')(shown.batch)
    tiles = [Tile(*pair) for pair in zip(images, captions, strict=True)][: shown.count]
    rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
    return Sheet(f'{shown.config.data.name}, {shown.split}, batch {shown.step}', rows)


def network_input(
    shown: Shown, config: Any, training: bool = True
) -> Callable[[Mapping[str, np.ndarray]], Pictures]:
    """Returns a function of a batch that gives the pictures that the network gets.

    The mean and standard deviation are put back.
    """
    spec = dataclasses.replace(shown.experiment, config=config).spec()
    hyper = experiment.hyperparameters(config)

    @jax.jit
    def made(batch):
        if training:
            return inputs.training_inputs(spec, batch, hyper)
        targets = {name: batch[name] for name in (*spec.task.targets, 'mask')}
        return {'inputs': inputs.evaluation_inputs(spec, batch), **targets}

    def seen(batch):
        part = {name: np.asarray(array) for name, array in made(batch).items()}
        pixels = part.pop('inputs') * np.float32(spec.std) + np.float32(spec.mean)
        del part['mask']
        return shown.pictures(np.rint(255 * pixels.clip(0, 1)).astype(np.uint8), part)

    return seen


def plain(shown: Shown) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns the examples before augmentation: uint8 [n, h, w, c], and their targets.

    Of the pictures of a streamed set it is the centre.
    """
    chosen, names = shown.batch['index'], shown.task.targets
    if not shown.streamed:
        return shown.source.images[chosen], {name: shown.batch[name] for name in names}
    from data_sources import stream

    data, upright = shown.config.data, shown.source.upright
    size, own_scale = data.image_size, data.crop == 'pixels'
    transform = stream.EvalTransform(size, round(size * 8 / 7), upright, own_scale)
    if data.crop == 'fit':
        transform = input_pipeline.eval_transform(shown.config, upright)
    images, targets = [], []
    for record in shown.source.read(chosen):
        image, matrices = transform.with_matrices(record.image)
        images.append(image)
        targets.append(shown.moved(record.targets, *matrices))
    return np.stack(images), _stacked(targets)


def _stacked(targets: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.stack([own[name] for own in targets]) for name in targets[0]}


def visits_sheet(shown: Shown, name: str, visits: Iterable[Pictures]) -> Sheet:
    """Returns the sheet of an augmentation.

    Args:
      shown: the examples.
      name: the augmentation's.
      visits: for each visit the pictures of all examples.
    """
    columns = [
        [Tile(*pair) for pair in zip(images, captions, strict=True)]
        for images, captions in (shown.pictures(*plain(shown)), *visits)
    ]
    rows = list(zip(*columns, strict=True))[: min(EXAMPLES, shown.count)]
    return Sheet(f'{name}: plain, then visit 0, 1, ...', rows)


def on_device(shown: Shown, config: Any) -> Iterator[Pictures]:
    """Yields what the step makes of the plain pictures, visit by visit."""
    seen, zeros = network_input(shown, config), np.zeros_like(shown.batch['index'])
    images, targets = plain(shown)
    batch = {**shown.batch, **targets, 'image': images}
    for visit in range(VISITS):
        yield seen({**batch, 'epoch': zeros + visit})


def on_host(shown: Shown, config: Any) -> Iterator[Pictures]:
    """Yields what the augmentations of the host make of them, visit by visit."""
    pipeline = augmentations.on_host(config)
    images, targets = plain(shown)
    for visit in range(VISITS):
        moved_images, moved_targets = [], []
        for row, example in enumerate(shown.batch['index'].tolist()):
            draws = Draws(config.seed, 'augment', visit, example)
            image, matrices = pipeline.with_matrices(images[row], draws)
            moved_images.append(image)
            own = {name: array[row] for name, array in targets.items()}
            moved_targets.append(shown.moved(own, *matrices))
        yield shown.pictures(moved_images, _stacked(moved_targets))


def crop_sheet(shown: Shown) -> Sheet:
    """Returns the sheet of the random crops of a streamed set; the plain picture is its centre."""
    transform = input_pipeline.train_transform(shown.config, shown.source.upright)
    chosen = shown.batch['index'].tolist()
    records = shown.source.read(chosen)

    def crop(record: Any, visit: int, example: int) -> tuple[np.ndarray, dict[str, Any]]:
        image, matrices = transform.with_matrices(record.image, visit, example)
        return image, shown.moved(record.targets, *matrices)

    def visits() -> Iterator[Pictures]:
        for visit in range(VISITS):
            pairs = zip(records, chosen, strict=True)
            images, targets = zip(*(crop(record, visit, i) for record, i in pairs), strict=True)
            yield shown.pictures(images, _stacked(targets))

    return visits_sheet(shown, 'crop', visits())


def operations_sheet(shown: Shown, policy: str) -> Sheet:
    """Returns the sheet of a policy's operations on the first example, at several strengths."""
    from data_sources import host_augment

    table, fill = host_augment.POLICIES[policy]
    image, rows = plain(shown)[0][0], []
    for operation in table:
        row = [Tile(image, ('plain',))]
        fractions = (-1.0, -0.5, 0.5, 1.0) if operation.signed else (0.25, 0.5, 0.75, 1.0)
        if operation.value(1.0) == operation.value(0.0):  # an operation without strengths
            row.append(Tile(operation.apply(image, 1.0, False, fill), (operation.operation,)))
            fractions = ()
        for fraction in fractions:
            changed = operation.apply(image, abs(fraction), fraction < 0, fill)
            value = operation.value(abs(fraction)) * (-1 if fraction < 0 else 1)
            row.append(Tile(changed, (f'{operation.operation} {value:.3g}',)))
        rows.append(row)
    return Sheet(f'{policy}: its operations at several strengths', rows)
