"""The embedded scenes: their bytes, and what has to hold for every one of them."""

import hashlib

import numpy as np
import pytest

from data_sources import arrays, digits, scenes

# Of images, masks, objects and boxes. Another value means that published figures no longer hold.
HASHES = {
    'train': '0f3c995567c7a7e8ce83de4d74d98a75b494e0f2d742226a45ebc4bec4e4b636',
    'validation': '1346cc72176ad589dd4eb03f3b82740b54bb1f76a250b2a4b2feae00834646ee',
    'test': 'ebea5bd26afed5dd1a3ec6fc24b3e57da0ffa4136925d14d8c0edba85a919bac',
}


def digest(source):
    found = hashlib.sha256()
    for name in ('image', 'segmentation_mask', 'instance_map', 'boxes'):
        array = source.targets['objects'][..., :4] if name == 'boxes' else source.arrays[name]
        found.update(np.ascontiguousarray(array, array.dtype.newbyteorder('<')).tobytes())
    return found.hexdigest()


@pytest.mark.parametrize('split', HASHES)
def test_bytes_are_pinned(split):
    source = arrays.load('scenes', split, '', scenes.KINDS)
    assert source.images.shape == (scenes.SIZES[split], 64, 64, 1)
    assert digest(source) == HASHES[split]


def test_a_scene_does_not_depend_on_others():
    source = scenes.load('validation')
    pixels, classes, instances, boxes, found = scenes.scene(
        'validation', 7, *digits.source_images('validation')
    )
    np.testing.assert_array_equal(source.images[7, ..., 0], pixels)
    np.testing.assert_array_equal(source.targets['segmentation_mask'][7], classes)
    np.testing.assert_array_equal(source.targets['instance_map'][7], instances)
    expected = np.column_stack([boxes, found, np.zeros(len(boxes))])
    np.testing.assert_array_equal(source.targets['objects'][7, : len(boxes)], expected)
    assert not source.targets['objects'][7, len(boxes) :].any()


def iou(one, other):
    """Intersection over union of two boxes, pixel by pixel."""
    sets = [{(y, x) for y in range(int(t), int(b)) for x in range(int(left), int(r))}
            for t, left, b, r in (one, other)]  # fmt: skip
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_boxes_masks_and_objects_agree():
    source = scenes.load('test')
    counts = set()
    for number in range(source.size):
        targets = {name: values[number] for name, values in source.targets.items()}
        objects, mask = targets['instance_map'], targets['segmentation_mask']
        found = [row for row in targets['objects'] if row[2] > row[0]]
        boxes = [row[:4] for row in found]
        counts.add(len(boxes))
        # Each digit is seen, whatever lies on top of it.
        assert set(np.unique(objects)) - {0} == set(range(1, len(boxes) + 1))
        np.testing.assert_array_equal(objects > 0, mask > 0)
        for place, (top, left, bottom, right) in enumerate(boxes, start=1):
            y, x = np.nonzero(objects == place)
            assert set(mask[y, x]) == {1 + found[place - 1][4]}
            assert top <= y.min() <= y.max() < bottom
            assert left <= x.min() <= x.max() < right
            assert max(bottom - top, right - left) <= 28
            assert len(y) >= 10
        if number < 60:
            for i, box in enumerate(boxes):
                assert all(iou(box, other) <= 0.1 for other in boxes[:i])
    assert counts == {1, 2, 3, 4, 5, 6}


def test_digits_of_a_split_are_in_no_other():
    seen = [{image.tobytes() for image in digits.source_images(split)[0]} for split in HASHES]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_ink_is_brighter_than_its_ground():
    source = scenes.load('validation')
    for image, mask in zip(source.images, source.targets['segmentation_mask'], strict=True):
        ground, ink = image[mask == 0], image[mask > 0]
        assert np.median(ink) > np.median(ground) + 30
