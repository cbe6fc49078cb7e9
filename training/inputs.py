"""What the network gets of a batch: gathered, augmented and normalized, as part of the step."""

import jax.numpy as jnp

from training import augment, mixing
from training.spec import StepSpec


def gathered(batch, dataset) -> dict:
    """Returns the batch with its targets and 'image', or 'features' in place of images.

    A batch of a resident data set holds only 'index'; the rest is gathered here.
    """
    if 'image' in batch or 'features' in batch:
        return batch
    return {**batch, **{key: array[batch['index']] for key, array in dataset.items()}}


def normalized(spec: StepSpec, images):
    """Returns images with the data set's mean removed, divided by its standard deviation."""
    return (images - jnp.asarray(spec.mean)) / jnp.asarray(spec.std)


def evaluation_inputs(spec, batch):
    """Returns what the network gets in evaluation: images float32 [b, h, w, c].

    Features float32 [b, f] (see training/linear_probe.py) are taken as they are.
    """
    if 'features' in batch:
        return batch['features']
    return normalized(spec, batch['image'].astype(jnp.float32) / 255.0)


def training_inputs(spec, batch, hyper) -> dict:
    """Returns 'inputs', 'mask' and the task's targets, and what it is to know of mixed images.

    The order: pixels to [0, 1]; affine map, crop, flip; normalize; erase; mixup or CutMix.
    """
    part = {name: batch[name] for name in (*spec.task.targets, 'mask')}
    if 'features' in batch:
        return {'inputs': batch['features'], **part}
    who = batch['index'], batch['epoch'], hyper['seed']
    images = batch['image'].astype(jnp.float32) / 255.0
    if spec.augment:
        strength = (hyper[name] for name in ('shift', 'rotate', 'scale'))
        images = augment.affine(images, *who, *strength)
    if spec.crop:
        images = augment.crop(images, *who, hyper['crop'])
    if spec.flip:
        images = augment.flip(images, *who, hyper['flip'])
    images = normalized(spec, images)
    if spec.erase:
        images = augment.erase(images, *who, hyper['erase'], spec.erase == 'noise')
    if spec.mixup or spec.cutmix:
        images, mixture = mixing.mixed(images, batch, hyper, spec.mixup, spec.cutmix)
        part |= mixture
    return {'inputs': images, **part}
