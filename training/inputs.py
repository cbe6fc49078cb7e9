"""The network's input, made of a batch inside the step: gathered, augmented and normalized."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from augmentation.row import Stage
from data_sources.targets import Kind
from tasks.task import Batch, Hyper
from training.spec import StepSpec


def gathered(batch: Batch, dataset: Batch) -> Batch:
    """Returns the batch with its targets and 'image', or 'features' in place of images.

    A batch of a resident data set holds only 'index'; the rest is gathered here.
    """
    if 'image' in batch or 'features' in batch:
        return batch
    return {**batch, **{key: array[batch['index']] for key, array in dataset.items()}}


def network_input(spec: StepSpec, pixels: jax.Array) -> jax.Array:
    """Returns what the network gets of pixels, uint8 [b, h, w, c], that are not augmented."""
    return _normalized(spec, _fractions(pixels))


def _fractions(pixels: jax.Array) -> jax.Array:
    """Returns pixels as fractions of white, float32 in [0, 1]."""
    return pixels.astype(jnp.float32) / 255.0


def _normalized(spec: StepSpec, images: jax.Array) -> jax.Array:
    """Returns images with the data set's mean removed, divided by its standard deviation."""
    return (images - jnp.asarray(spec.mean)) / jnp.asarray(spec.std)


def evaluation_inputs(spec: StepSpec, batch: Batch) -> jax.Array:
    """Returns what the network gets in evaluation: images float32 [b, h, w, c].

    Features float32 [b, f] (see training/linear_probe.py) are taken as they are.
    """
    if 'features' in batch:
        return batch['features']
    return network_input(spec, batch['image'])


def training_inputs(spec: StepSpec, batch: Batch, hyper: Hyper) -> dict[str, jax.Array]:
    """Returns 'inputs', 'mask' and the task's targets, and what it is to know of mixed images.

    Targets follow their pixels. The order of augmentations is that of augmentation.row.Stage.
    """
    part = {name: batch[name] for name in (*spec.task.targets, 'mask')}
    if 'features' in batch:
        return {'inputs': batch['features'], **part}
    stages = {stage: [a for a in spec.augmentations if a.stage is stage] for stage in Stage}
    images = _fractions(batch['image'])
    for augmentation in stages[Stage.PIXELS]:
        images = augmentation(images, batch, hyper)
    moves = any(kind.moves for kind in spec.task.targets.values())
    for augmentation in stages[Stage.GEOMETRY]:
        images, changes = augmentation(images, batch, hyper)
        if moves:
            part |= _moved(spec.task.targets, part, changes(), images.shape[1:3])
    images = _normalized(spec, images)
    for augmentation in stages[Stage.NORMALIZED]:
        images = augmentation(images, batch, hyper)
    for augmentation in stages[Stage.MIXTURE]:
        images, mixture = augmentation(images, batch, hyper, spec.task.targets)
        part |= mixture
    return {'inputs': images, **part}


def _moved(
    kinds: Mapping[str, Kind], batch: Batch, changes: jax.Array, shape: tuple[int, int]
) -> dict[str, jax.Array]:
    """Returns the targets of a batch where its pixels went; arguments as in Kind.moved_batch."""
    return {name: kind.moved_batch(batch[name], changes, shape) for name, kind in kinds.items()}
