"""mixup and CutMix on the device: two images of the batch, and their targets, become a mixture.

Examples 2k and 2k + 1 of the global batch are each other's partner, so that no image leaves its
device where every device's part is even. What is drawn is keyed by (seed, epoch, example) of the
pair's first member: it does not depend on how the batch is spread. (input_pipeline keeps the visits
of an example that comes several times in a batch apart.)
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

import rng
from data_sources.targets import Kind
from tasks.task import Batch, Hyper


def swapped(array: jax.Array) -> jax.Array:
    """Returns the array [batch, ...] with each row in its partner's position."""
    return array.reshape(-1, 2, *array.shape[1:])[:, ::-1].reshape(array.shape)


def mixed(
    images: jax.Array, batch: Batch, hyper: Hyper, targets: Mapping[str, Kind]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mixed images and what the task is to know of the mixture.

    Both members of a pair keep the same fraction of themselves and get the rest from the other. A
    pair with a masked member is left alone.

    mixup averages pixels (Zhang et al. 2018, "mixup: beyond empirical risk minimization"); CutMix
    replaces a box of pixels by the other image's (Yun et al. 2019, "CutMix: regularization strategy
    to train strong classifiers with localizable features"). Either is on if `hyper` has its scalar.

    Args:
      images: float32 [batch, height, width, channels]; batch is even.
      batch: 'index', 'epoch' int32 [batch], 'mask' float32 [batch] and the targets.
      hyper: 'seed'; 'mixup' and 'cutmix', the alpha of the Beta distribution from which their
        fractions are drawn; 'mix_probability', of a pair being mixed; 'cutmix_share', the
        probability of CutMix where both are on.
      targets: the task's, by name; all of kinds that mix.

    Returns:
      images, and 'share' float32 [batch], the fraction of each image that is its own (1 where it is
      left alone), and each target of the partner, such as 'other_label' for 'label'.
    """
    _, height, width, _ = images.shape
    first = (jnp.repeat(batch[name][::2], 2) for name in ('epoch', 'index'))
    keys = rng.for_each(hyper['seed'], 'mix', *first)
    own, share = jax.vmap(lambda key: _draw(key, height, width, hyper))(keys)
    real = batch['mask'] * swapped(batch['mask']) > 0
    own, share = jnp.where(real[:, None, None], own, 1.0)[..., None], jnp.where(real, share, 1.0)
    # With a weight of exactly 0 or 1 this is exactly one of the two pixels.
    images = own * images + (1 - own) * swapped(images)
    others = {f'other_{name}': swapped(batch[name]) for name in targets}
    return images, {**others, 'share': share}


def _draw(key: jax.Array, height: int, width: int, hyper: Hyper) -> tuple[jax.Array, jax.Array]:
    """Returns one pair's weights of its own pixels, float32 [height, width], and their mean."""
    cutmix = 'cutmix' in hyper
    key, share_key = jax.random.split(key)
    applied, which, *centre = jax.random.uniform(key, (4,))
    is_cut = jnp.bool_(cutmix)
    if cutmix and 'mixup' in hyper:
        is_cut = which < hyper['cutmix_share']
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


def cut_box(
    share: jax.Array, centre_y: jax.Array, centre_x: jax.Array, height: int, width: int
) -> tuple[jax.Array, ...]:
    """Returns (top, bottom, left, right) of the box that CutMix pastes; without its ends.

    Before it is clipped its area is the fraction 1 - share of the image, up to rounding (Yun et al.
    2019, section 3.1; the rounding is that of the authors' published program).

    Args:
      share: the fraction that is kept, in [0, 1].
      centre_y, centre_x: in [0, 1), of the image's size.
      height, width: of the image; may be traced.
    """

    def ends(centre: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
        half = jnp.floor(size * jnp.sqrt(1 - share)).astype(jnp.int32) // 2
        middle = jnp.floor(centre * size).astype(jnp.int32)
        return jnp.clip(middle - half, 0, size), jnp.clip(middle + half, 0, size)

    return *ends(centre_y, height), *ends(centre_x, width)
