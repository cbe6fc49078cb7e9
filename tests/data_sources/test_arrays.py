"""Sets in memory: images and targets by name, checked when made; embedded sets by their names."""

import dataclasses

import numpy as np
import pytest

from data_sources import arrays, targets
from data_sources.arrays import ArraySource
from data_sources.box_targets import Boxes
from data_sources.label_maps import LabelMap
from data_sources.targets import Label, Points, TargetError, Vector
from errors import UserError

COUNT = 6
KINDS = {
    'label': Label(),
    'angle': Vector(1),
    'map': LabelMap(),
    'corners': Points((3,)),
    'boxes': Boxes((2,)),
}


def make(**changes) -> ArraySource:
    """Six pictures with a target of each kind, some of which are changed."""
    draw = np.random.default_rng(0)
    values = {
        'label': draw.integers(3, size=COUNT, dtype=np.int32),
        'angle': draw.normal(size=(COUNT, 1)).astype(np.float32),
        'map': draw.choice([0, 1, 2, 255], size=(COUNT, 4, 5)).astype(np.uint8),
        'corners': draw.normal(size=(COUNT, 3, 2)).astype(np.float32),
        'boxes': np.sort(draw.uniform(0, 4, (COUNT, 2, 2, 2)), 2).reshape(COUNT, 2, 4).astype('f4'),
    }
    images = draw.integers(256, size=(COUNT, 4, 5, 3), dtype=np.uint8)
    return ArraySource('mine', 'train', images, values | changes, ('a', 'b', 'c'), KINDS)


def test_what_the_step_takes_are_the_images_and_all_targets():
    source = make()
    assert list(source.arrays) == ['image', *KINDS]
    assert source.arrays['image'] is source.images
    assert source.labels is source.targets['label']
    assert source.size == COUNT


def test_some_examples_have_their_own_images_and_targets():
    source, examples = make(), np.array([4, 1])
    taken = source.take(examples)
    assert (taken.name, taken.class_names, taken.kinds) == ('mine', ('a', 'b', 'c'), KINDS)
    for name, array in source.arrays.items():
        np.testing.assert_array_equal(taken.arrays[name], array[examples])


@pytest.mark.parametrize('name', KINDS)
def test_a_batch_of_zeros_looks_like_a_batch(name):
    zeros = KINDS[name].empty(2, (4, 5, 3))
    values = make().targets[name][:2]
    assert (zeros.dtype, zeros.shape) == (values.dtype, values.shape)
    assert not zeros.any()


def spoiled(name, row, value, where=()):
    """The target of that name with one value changed."""
    values = make().targets[name].copy()
    values[(row, *where)] = value
    return {name: values}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'label': np.zeros(6)}, r'"label" .* is float64 \[6\], not int32 \[6\], which Label\(\)'),
        ({'label': np.zeros(5, np.int32)}, r'"label" .* is int32 \[5\], not int32 \[6\]'),
        (
            {'angle': np.zeros((6, 2), np.float32)},
            r'"angle" .* is float32 \[6, 2\], not float32 \[6, 1\], which Vector\(size=1\)',
        ),
        ({'map': np.zeros((6, 5, 4), np.uint8)}, r'"map" .* uint8 \[6, 5, 4\], not uint8 \[6, 4, '),
        (spoiled('label', 2, 3), r'Example 2 of .* has label 3, out of range for 3 classes \(1 of'),
        (spoiled('label', 5, -1), r'Example 5 of .* has label -1, out of range for 3 classes'),
        (
            spoiled('angle', slice(3, None), np.nan),
            r'Example 3 of .* has angle with a number that is not finite \(3 of 6 examples',
        ),
        (spoiled('map', 1, 7, (2, 2)), r'Example 1 of .* has map with a pixel of class 7, out of '),
        (spoiled('corners', 4, np.inf, (1, 1)), r'Example 4 of .* has corners .* not finite'),
        (spoiled('boxes', 4, np.inf, (1, 2)), r'Example 4 of .* has boxes .* not finite'),
        (
            spoiled('boxes', 0, (0, 3, 2, 1), (1,)),
            r'Example 0 of .* has boxes with a box .* = \[0.0, 3.0, 2.0, 1.0\], which ends before',
        ),
    ],
)
def test_a_target_that_is_not_sound_is_named(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        make(**changes)
    assert 'of the train split of data set "mine"' in str(caught.value)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'images': np.zeros((6, 4, 5, 3))}, r'images of .* are float64 \[6, 4, 5, 3\], not uint8'),
        ({'images': np.zeros((6, 4, 5), np.uint8)}, r'images of .* are uint8 \[6, 4, 5\], not'),
        ({'images': np.zeros((0, 4, 5, 3), np.uint8)}, 'train split of .* has no examples'),
        ({'targets': {}}, 'targets of .* are none, but it declares kinds for label, angle, map'),
        ({'kinds': {'label': Label()}}, 'are label, angle, .* but it declares kinds for label:'),
    ],
)
def test_a_source_that_is_not_sound_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(make(), **changes)


@pytest.fixture
def embedded(monkeypatch):
    """The set "mine", registered for as long as the test runs."""
    monkeypatch.setattr(arrays, 'EMBEDDED', dict(arrays.EMBEDDED))
    arrays.register('mine', lambda split: dataclasses.replace(make(), split=split))


def test_a_registered_set_gives_the_targets_that_are_wanted(embedded):
    wanted = {'angle': Vector(1), 'label': Label()}
    source = arrays.load('mine', 'validation', '/nowhere', wanted)
    assert (source.split, source.kinds, list(source.targets)) == ('validation', wanted, [*wanted])
    np.testing.assert_array_equal(source.targets['angle'], make().targets['angle'])
    assert list(arrays.load('mine', 'test', '/nowhere').targets) == ['label']


def test_a_set_registered_again_is_the_new_one(embedded):
    arrays.register('mine', lambda split: make().take(np.arange(2)))
    assert arrays.load('mine', 'train', '').size == 2


def test_a_target_that_a_set_has_not_is_named(embedded):
    with pytest.raises(TargetError, match=r'^Data set "digits" has no "angle"; it has label\.$'):
        arrays.load('digits', 'train', '', {'angle': Vector(1)})
    with pytest.raises(
        TargetError, match=r'^Data set "mine" has Vector\(size=1\) for "angle", not '
    ):
        arrays.load('mine', 'train', '', {'angle': Vector(2)})


def test_registered_sets_are_known_where_names_are_asked_for(embedded, tmp_path):
    arrays.check_split('mine', 'test', str(tmp_path))
    with pytest.raises(UserError, match=r'"mines" is not prepared .*Did you mean "mine"\?'):
        arrays.check_split('mines', 'test', str(tmp_path))


def test_a_kind_of_the_programs_own_needs_its_zeros_alone():
    """The other methods have defaults, so that a task in one file can bring a kind."""

    class Halves(targets.Kind):
        def empty(self, examples, image_shape):
            return np.zeros((examples, 2), np.float16)

    images = np.zeros((3, 2, 2, 1), np.uint8)
    values = np.ones((3, 2), np.float16)
    source = ArraySource('own', 'test', images, {'half': values}, kinds={'half': Halves()})
    assert source.arrays['half'] is values
    assert source.class_names == ()
    values[2] = np.nan
    with pytest.raises(
        UserError, match=r'Example 2 of .* has half with a number that is not finite'
    ):
        dataclasses.replace(source)
