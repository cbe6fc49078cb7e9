"""mixup and CutMix against slow, obvious mixtures, their draws, and what those depend on."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

import rng
from augmentation import mixing
from data_sources.targets import Label
from tests.support import QUICKLY, most_slow
from tests.training import probe
from training import step

HYPER = {
    'seed': np.uint32(7),
    'mixup': np.float32(0.4),
    'cutmix': np.float32(1.0),
    'mix_probability': np.float32(0.8),
    'cutmix_share': np.float32(0.5),
}
KINDS = {'mixup': (True, False), 'cutmix': (False, True), 'both': (True, True)}


@functools.partial(jax.jit, static_argnames=('mixup', 'cutmix'), compiler_options=QUICKLY)
def mixed(images, batch, hyper, mixup, cutmix):
    on = {'mixup': mixup, 'cutmix': cutmix}
    hyper = {name: value for name, value in hyper.items() if on.get(name, True)}
    return mixing.mixed(images, batch, hyper, {'label': Label()})


def batch_of(count, first=0, epoch=0):
    return {
        'index': np.arange(first, first + count, dtype=np.int32),
        'epoch': np.full(count, epoch, np.int32),
        'label': np.arange(count, dtype=np.int32),
        'mask': np.ones(count, np.float32),
    }


def images_of(count, shape=(9, 14, 3)):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32)


def slowly(images, batch, hyper, mixup, cutmix):
    """The same by loops; the draws from the documented keys, pair by pair."""
    images, out, shares = images.astype(np.float64), images.astype(np.float64), []
    height, width = images.shape[1:3]
    for k in range(0, len(images), 2):
        shares += [1.0, 1.0]
        key = rng.stream(hyper['seed'], 'mix', batch['epoch'][k], batch['index'][k])
        key, share_key = jax.random.split(key)
        applied, which, centre_y, centre_x = np.asarray(jax.random.uniform(key, (4,)))
        if applied >= hyper['mix_probability'] or not batch['mask'][k : k + 2].all():
            continue
        cut = cutmix and (not mixup or which < hyper['cutmix_share'])
        alpha = hyper['cutmix' if cut else 'mixup']
        share = float(jax.random.beta(share_key, alpha, alpha))
        if cut:
            tall, wide = int(height * np.sqrt(1 - share)), int(width * np.sqrt(1 - share))
            y, x, kept = int(centre_y * height), int(centre_x * width), height * width
            for row in range(max(y - tall // 2, 0), min(y + tall // 2, height)):
                for column in range(max(x - wide // 2, 0), min(x + wide // 2, width)):
                    out[k, row, column] = images[k + 1, row, column]
                    out[k + 1, row, column] = images[k, row, column]
                    kept -= 1
            share = kept / (height * width)
        else:
            out[k] = share * images[k] + (1 - share) * images[k + 1]
            out[k + 1] = share * images[k + 1] + (1 - share) * images[k]
        shares[-2:] = [share, share]
    return out, np.array(shares)


@pytest.mark.parametrize('kind', most_slow(KINDS, ('cutmix', 'both')))
def test_equals_the_slow_mixture(kind):
    images, batch = images_of(40), batch_of(40, first=100, epoch=3)
    batch['mask'][[4, 11]] = 0
    found, mixture = mixed(images, batch, HYPER, *KINDS[kind])
    expected, shares = slowly(images, batch, HYPER, *KINDS[kind])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(mixture['share'], shares, atol=1e-6)
    np.testing.assert_array_equal(mixture['other_label'], batch['label'] ^ 1)
    assert 4 < (shares == 1).sum() < 30, 'some pairs are mixed, some are not'


@pytest.mark.parametrize('kind', most_slow(KINDS, ('cutmix', 'both')))
def test_what_is_masked_is_not_mixed(kind):
    images, batch = images_of(40), batch_of(40)
    batch['mask'][[1, 6]] = 0
    images[[1, 6]] = 1e30
    hyper = HYPER | {'mix_probability': np.float32(1)}
    found, mixture = mixed(images, batch, hyper, *KINDS[kind])
    alone = [0, 1, 6, 7]
    np.testing.assert_array_equal(np.asarray(found)[alone], images[alone])
    np.testing.assert_array_equal(np.asarray(mixture['share'])[alone], 1)
    others = [2, 3, 4, 5, *range(8, 40)]
    assert (np.asarray(mixture['share'])[others] < 1).any()
    assert np.abs(np.asarray(found)[others]).max() < 10


def test_cutmix_moves_pixels_as_they_are():
    images = images_of(40)
    found, mixture = mixed(images, batch_of(40), HYPER, False, True)
    own = np.asarray(found) == images
    other = np.asarray(found) == images[np.arange(40) ^ 1]
    assert (own ^ other).all()
    np.testing.assert_allclose(mixture['share'], own.mean((1, 2, 3)), atol=1e-6)


def test_a_pair_depends_on_seed_epoch_and_its_first_example_alone():
    images, batch = images_of(8), batch_of(8)
    run = functools.partial(mixed, mixup=True, cutmix=True)
    hyper = HYPER | {'mix_probability': np.float32(1)}
    found, mixture = run(images, batch, hyper)
    order = np.array([6, 7, 2, 3])
    some, part = run(images[order], {k: v[order] for k, v in batch.items()}, hyper)
    np.testing.assert_allclose(some, np.asarray(found)[order], atol=1e-6)
    np.testing.assert_array_equal(part['share'], np.asarray(mixture['share'])[order])

    second = batch['index'] + 50 * (np.arange(8) % 2)
    _, same = run(images, batch | {'index': second.astype(np.int32)}, hyper)
    np.testing.assert_array_equal(same['share'], mixture['share'])
    others = {
        'epoch': (batch | {'epoch': batch['epoch'] + 1}, hyper),
        'first': (batch | {'index': batch['index'] + 8}, hyper),
        'seed': (batch, hyper | {'seed': np.uint32(8)}),
    }
    for name, arguments in others.items():
        _, other = run(images, *arguments)
        assert (np.asarray(other['share']) != mixture['share']).all(), name


def shares_of(kind, count, height=64, width=64, **hyper):
    """Shares of `count` pairs, and the images of each one's first member: 1 its own, 0 not."""
    images = np.zeros((2 * count, height, width, 1), np.float32)
    images[::2] = 1
    values = HYPER | {'mix_probability': 1.0, **hyper}
    found, mixture = mixed(images, batch_of(2 * count), values, *KINDS[kind])
    return np.asarray(mixture['share'])[::2], np.asarray(found)[::2, ..., 0]


@pytest.mark.parametrize('alpha', [0.1, 1.0, 4.0])
def test_mixup_shares_are_of_beta(alpha):
    count = 3000
    shares, seen = shares_of('mixup', count, 1, 1, mixup=alpha)
    np.testing.assert_allclose(seen[:, 0, 0], shares, atol=1e-6)
    # float32 has no numbers between 1 - 6e-8 and 1, where Beta(0.1, 0.1) has a tenth of its mass.
    expected = np.random.default_rng(0).beta(alpha, alpha, 20 * count).astype(np.float32)
    assert stats.ks_2samp(shares, expected).pvalue > 1e-3


def test_cutmix_boxes_have_the_area_and_the_place_of_the_paper():
    count = 2000
    shares, seen = shares_of('cutmix', count, 40, 60, cutmix=1.0)
    draw = np.random.default_rng(3)
    kept, centres = [], []
    for _ in range(count):
        side = np.sqrt(1 - draw.beta(1, 1))
        tall, wide = int(40 * side), int(60 * side)
        y, x = draw.integers(40), draw.integers(60)
        top, bottom = max(y - tall // 2, 0), min(y + tall // 2, 40)
        left, right = max(x - wide // 2, 0), min(x + wide // 2, 60)
        kept.append(1 - (bottom - top) * (right - left) / 2400)
        centres.append(((top + bottom) / 2, (left + right) / 2))
    assert stats.ks_2samp(shares, kept).pvalue > 1e-3
    cut = seen == 0
    np.testing.assert_allclose(1 - cut.mean((1, 2)), shares, atol=1e-6)
    some = cut.any((1, 2))
    places = np.arange(40)[:, None] + 0.5, np.arange(60) + 0.5
    for axis, place in enumerate(places):
        middle = (cut * place).sum((1, 2))[some] / cut.sum((1, 2))[some]
        wanted = np.array(centres)[np.array(kept) < 1, axis]
        assert stats.ks_2samp(middle, wanted).pvalue > 1e-3


def test_pairs_are_mixed_with_the_probability_and_by_the_share_of_cutmix():
    count = 3000
    options = {'mixup': 1.0, 'mix_probability': 0.7, 'cutmix_share': 0.2}
    shares, seen = shares_of('both', count, 16, 16, **options)
    is_mixup = (np.ptp(seen, (1, 2)) == 0) & (shares < 1)
    is_cutmix = np.ptp(seen, (1, 2)) > 0
    # Four standard deviations; a box of no pixels is missed, one time in 64.
    assert abs(is_mixup.mean() - 0.7 * 0.8) < 4 * 0.0091
    assert abs(is_cutmix.mean() - 0.7 * 0.2 * 63 / 64) < 4 * 0.0064
    np.testing.assert_array_equal(seen[shares == 1], 1)


box = jax.jit(mixing.cut_box, compiler_options=QUICKLY)
part = st.floats(0, 1, exclude_max=True, width=32, allow_subnormal=False)
side = st.integers(1, 4000)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1, width=32, allow_subnormal=False), part, part, side, side)
@example(0.0, 0.5, 0.5, 1, 1)
@example(1.0, 0.0, 0.0, 30, 4000)
def test_a_box_lies_in_the_image_around_its_centre(share, centre_y, centre_x, height, width):
    top, bottom, left, right = map(int, box(share, centre_y, centre_x, height, width))
    ends = ((top, bottom, centre_y, height), (left, right, centre_x, width))
    for start, end, centre, size in ends:
        assert 0 <= start <= end <= size
        length = size * np.sqrt(1 - share)
        assert end - start <= length + 1e-3 * size
        middle = int(np.float32(centre) * np.float32(size))
        assert start <= middle <= end
        # Where nothing is cut off, only rounding is missing.
        if start > 0 and end < size:
            assert end - start > length - 2 - 1e-3 * size


def test_the_step_mixes_after_standardising_and_tells_the_task():
    count, shape = 6, (5, 5, 1)
    data = {
        'image': np.random.default_rng(1).integers(0, 256, (count, *shape)).astype(np.uint8),
        'label': np.arange(count, dtype=np.int32),
    }
    batch = {k: v for k, v in batch_of(count).items() if k != 'label'}
    hyper = probe.hyper(7, mixup=0.4, mix_probability=1.0)
    spec = probe.spec(count, augmentations=probe.applied('mixing'))
    first = probe.start(shape)
    run = jax.jit(functools.partial(step.train_step, spec), compiler_options=QUICKLY)
    _, metrics = run(first, hyper, batch, data)
    plain = data['image'].astype(np.float32) / 255
    expected, _ = mixed(plain, batch | {'label': data['label']}, hyper, mixup=True, cutmix=False)
    np.testing.assert_allclose(metrics['seen'], np.reshape(expected, (count, -1)), atol=1e-6)
    assert np.abs(metrics['seen'] - plain.reshape(count, -1)).max() > 0.1
    sums, _ = step.eval_step(spec, first.variables(), batch, data)
    np.testing.assert_array_equal(sums['seen'], plain.reshape(count, -1))
