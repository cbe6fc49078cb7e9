"""mixup and CutMix on the device: two images of the batch, and their labels, become a mixture.

Examples 2k and 2k + 1 of the global batch are each other's partner, so that no image leaves its
device where every device's part is even. What is drawn is keyed by (seed, epoch, example) of the
pair's first member: it does not depend on how the batch is spread. (input_pipeline keeps the visits
of an example apart that comes several times in a batch.)
"""

import jax
import jax.numpy as jnp

from training import rng


def swapped(array):
    """Returns the array [batch, ...] with each row in its partner's place."""
    return array.reshape(-1, 2, *array.shape[1:])[:, ::-1].reshape(array.shape)


def mixed(images, batch, hyper, mixup: bool, cutmix: bool):
    """Returns (images, {'other_label' int32 [batch], 'share' float32 [batch]}).

    Both members of a pair keep the same share of themselves and get the rest from the other. A pair
    of which one is masked is left alone, with a share of 1.

    Args:
      images: float32 [batch, height, width, channels]; batch is even.
      batch: 'label', 'index', 'epoch' int32 [batch] and 'mask' float32 [batch].
      hyper: 'seed'; 'mixup' and 'cutmix', the parameter of Beta, of those that are on;
        'mix_probability', of a pair being mixed; 'cutmix_share', of CutMix where both are on.
      mixup: Zhang et al. 2018, "mixup: beyond empirical risk minimization": pixels are averaged.
      cutmix: Yun et al. 2019, "CutMix: regularization strategy to train strong classifiers with
        localizable features": a box of pixels is the other's.
    """
    _, height, width, _ = images.shape
    first = (jnp.repeat(batch[name][::2], 2) for name in ('epoch', 'index'))
    keys = rng.for_each(hyper['seed'], 'mix', *first)
    own, share = jax.vmap(lambda key: _draw(key, height, width, hyper, mixup, cutmix))(keys)
    real = batch['mask'] * swapped(batch['mask']) > 0
    own, share = jnp.where(real[:, None, None], own, 1.0)[..., None], jnp.where(real, share, 1.0)
    # With a weight of exactly 0 or 1 this is exactly one of the two pixels.
    images = own * images + (1 - own) * swapped(images)
    return images, {'other_label': swapped(batch['label']), 'share': share}


def _draw(key, height, width, hyper, mixup, cutmix):
    """One pair's weights of its own pixels, float32 [height, width], and their mean, its share."""
    key, share_key = jax.random.split(key)
    applied, which, *centre = jax.random.uniform(key, (4,))
    is_cut = which < hyper['cutmix_share'] if mixup and cutmix else jnp.bool_(cutmix)
    alpha = jnp.where(is_cut, hyper.get('cutmix', 0.0), hyper.get('mixup', 0.0))
    share = jax.random.beta(share_key, alpha, alpha)
    own = jnp.full((height, width), share)
    if cutmix:
        top, bottom, left, right = cut_box(share, *centre, height, width)
        y, x = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
        outside = (y < top) | (y >= bottom) | (x < left) | (x >= right)
        own = jnp.where(is_cut, outside.astype(own.dtype), own)
        share = jnp.where(is_cut, outside.mean(), share)
    applied = applied < hyper['mix_probability']
    return jnp.where(applied, own, 1.0), jnp.where(applied, share, 1.0)


def cut_box(share, centre_y, centre_x, height, width):
    """Returns (top, bottom, left, right) of the box that CutMix pastes; the ends do not belong.

    Its area is 1 - share of the image before it is clipped, but for rounding (Yun et al. 2019,
    section 3.1, and the authors' published program for the rounding).

    Args:
      share: what is to be kept, in [0, 1].
      centre_y, centre_x: in [0, 1), of the image's size.
      height, width: of the image; may be traced.
    """

    def ends(centre, size):
        half = jnp.floor(size * jnp.sqrt(1 - share)).astype(jnp.int32) // 2
        middle = jnp.floor(centre * size).astype(jnp.int32)
        return jnp.clip(middle - half, 0, size), jnp.clip(middle + half, 0, size)

    return *ends(centre_y, height), *ends(centre_x, width)
