"""The embedded digits: who is in which split, and how they are enlarged."""

import hashlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from data_sources import arrays, digits
from errors import UserError


@pytest.fixture(scope='module')
def splits():
    return {split: arrays.load('digits', split, '') for split in arrays.SPLITS}


def test_splits_are_disjoint_complete_and_stratified(splits):
    labels = load_digits().target
    indices = digits.split_indices(labels)
    assert sorted(np.concatenate(list(indices.values())).tolist()) == list(range(1797))
    assert {split: len(part) for split, part in indices.items()} == {
        'train': 1295,
        'validation': 143,
        'test': 359,
    }
    total = np.bincount(labels)
    for split, share in (('test', 0.2), ('validation', 0.08), ('train', 0.72)):
        assert np.abs(np.bincount(labels[indices[split]]) - share * total).max() <= 1
        np.testing.assert_array_equal(splits[split].labels, labels[indices[split]])


def test_the_split_never_changes(splits):
    # Published accuracies rest on these bytes: a change here is a new data set.
    expected = {
        'train': 'da19a59a8be27767',
        'validation': '44852cd4e6704c64',
        'test': 'd9d0490a0d4b942a',
    }
    for split, source in splits.items():
        data = source.images.tobytes() + source.labels.astype('<i4').tobytes()
        assert hashlib.sha256(data).hexdigest()[:16] == expected[split], split


def test_the_order_of_the_examples_is_not_the_criterion():
    """The set lists writers one after another; each split must draw from its whole length."""
    for part in digits.split_indices(load_digits().target).values():
        assert (
            np.abs(np.histogram(part, bins=4, range=(0, 1797))[0] / len(part) - 0.25).max() < 0.08
        )


def test_images_are_bicubic_enlargements_in_a_frame(splits):
    """Pillow's bicubic filter, on the digit with its edge continued, is the independent judge."""
    raw = load_digits()
    chosen = digits.split_indices(raw.target)['test'][:50]
    for image, original in zip(splits['test'].images, raw.images[chosen], strict=False):
        padded = Image.fromarray(np.pad(original, 3, 'edge').astype(np.float32))
        judged = padded.resize((20, 20), Image.Resampling.BICUBIC, box=(3, 3, 11, 11))
        judged = np.clip(np.asarray(judged) * 255 / 16, 0, 255)
        assert np.abs(image[4:24, 4:24, 0] - judged).max() <= 0.51
        assert image.sum() == image[4:24, 4:24].sum()
    assert splits['test'].images.shape == (359, 28, 28, 1)


def test_a_flat_picture_stays_flat():
    flat = digits.enlarge(np.full((1, 8, 8), 16, np.int64))[0, 4:24, 4:24, 0]
    assert (flat == 255).all()


def test_unknown_split_is_refused():
    with pytest.raises(UserError, match=r'no split "valid": choose .* Did you mean "validation"\?'):
        arrays.load('digits', 'valid', '')
