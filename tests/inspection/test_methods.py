"""Every way to explain an answer, for networks and tasks of every kind."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from data_sources import digits
from errors import UserError
from inspection import methods, why
from inspection.methods import METHODS, Explanation
from inspection.opened import Opened
from models.lenet import LeNet
from tasks.classification import Classification
from tests.inspection.untrained import chosen, noisy, untrained
from tests.support import most_slow, slow
from tests.tasks import turned

SHAPE = (28, 28, 1)
SIZES = {'grad_cam': (5, 5)}  # the others have a value for each pixel


class Frames(LeNet):
    """For images of two pictures, one above the other: the mean of their features is classified."""

    def stages(self, images, train=False, mask=None):
        return super().stages(images.reshape(-1, 28, 28, 1), train, mask)

    def pool_features(self, features):
        return features.reshape(-1, 2, features.shape[-1]).mean(1)


@dataclasses.dataclass(frozen=True)
class OfFrames(Classification):
    def pictures(self, image):
        return image[:28], image[28:]


def of_frames():
    plain = untrained('lenet', SHAPE)
    model, task = Frames(num_classes=4), OfFrames(**vars(plain.task))
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 56, 28, 1), np.float32))
    exp = dataclasses.replace(plain.experiment, image_shape=(56, 28, 1))
    return Opened(exp, dataclasses.replace(plain.spec, model=model, task=task), variables, 0)


@pytest.fixture(scope='module')
def opened_as(network):
    """Returns a function that gives a network by its name, made once."""
    make = {
        'classification': lambda: network,
        'turned': lambda: untrained('lenet', SHAPE, 0, task='turned', data__name=turned.NAME),
        'bfloat16': lambda: untrained('lenet', SHAPE, dtype='bfloat16'),
        'frames': of_frames,
    }
    return functools.cache(lambda name: make[name]())


NETWORKS = ('classification', 'turned', 'bfloat16', 'frames')
SOONEST = [('classification', method) for method in METHODS]


@pytest.mark.parametrize(
    ('name', 'method'),
    [
        (name, method) if (name, method) in SOONEST else slow(name, method)
        for name, method in itertools.product(NETWORKS, METHODS)
    ],
)
def test_every_answer_is_explained_by_every_method(opened_as, name, method):
    network = opened_as(name)
    pictures = 2 if name == 'frames' else 1
    image = np.concatenate(digits.load('test').images[:pictures])
    answers = {'turned': np.float32(9), 'classification': np.eye(10)[digits.load('test').labels[0]]}
    prediction = answers.get(name, np.zeros(len(network.class_names)))
    found = METHODS[method].explain(network, image, network.choice(prediction), None)
    assert len(found.maps) == pictures
    for heat in found.maps:
        assert heat.shape == SIZES.get(method, (28, 28))
        assert np.isfinite(heat).all()
    largest = max(abs(heat).max() for heat in found.maps)
    assert largest > 0
    if METHODS[method].signed:
        assert min(heat.min() for heat in found.maps) < 0
    else:
        assert min(heat.min() for heat in found.maps) >= 0


# SmoothGrad draws other noise for each, and a window of occlusion can lie on two of them.
@pytest.mark.parametrize(
    'method', most_slow(['grad_cam', 'integrated_gradients', 'gradient'], ['grad_cam'])
)
def test_each_picture_of_an_example_has_the_map_of_its_own_pixels(opened_as, method):
    network = opened_as('frames')
    first, second = digits.load('test').images[:2]
    image, turned_round = np.concatenate([first, second]), np.concatenate([second, first])
    choice = chosen(network, '2')
    found, other = (
        METHODS[method].explain(network, i, choice, None).maps for i in (image, turned_round)
    )
    np.testing.assert_allclose(found[::-1], other, atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.slow
def test_more_examples_of_several_pictures_than_a_batch_have_all_their_maps(opened_as, monkeypatch):
    network = opened_as('frames')
    images = noisy(3, (56, 28, 1))
    monkeypatch.setattr('inspection.opened.BATCH', 2)
    found = network.look(images).stages['pool2']
    assert found.shape == (6, 5, 5, 16)
    np.testing.assert_allclose(found[2:], network.look(images[1:]).stages['pool2'], atol=1e-5)


@pytest.mark.parametrize('method', METHODS)
def test_an_image_without_anything_on_it_has_finite_maps(network, method):
    choice = chosen(network, '3')
    for value in (0, 200):
        image = np.full(SHAPE, value, np.uint8)
        (heat,) = METHODS[method].explain(network, image, choice, None).maps
        assert np.isfinite(heat).all()


def test_the_stage_of_grad_cam_is_chosen_and_written_down(network):
    image, choice = digits.load('test').images[0], chosen(network, '3')
    found = METHODS['grad_cam'].explain(network, image, choice, 'conv1')
    assert found.maps[0].shape == (28, 28)
    assert found.note == 'conv1, 28x28'
    with pytest.raises(UserError, match=r'"conv11" is no stage.* Did you mean "conv1"\?'):
        METHODS['grad_cam'].explain(network, image, choice, 'conv11')


def test_classes_are_named_with_commas_which_a_name_may_have_itself(network):
    prediction = network.look(digits.load('test').images[:1]).prediction(0)
    surest = str(prediction.argmax())
    assert [c.name for c in methods.choices(network, prediction, None)] == [surest]
    assert [c.name for c in methods.choices(network, prediction, '8, 3')] == ['8', '3']
    with pytest.raises(UserError, match='"12" is no part of the answer'):
        methods.choices(network, prediction, '3,12')
    names = ('tench, Tinca tinca', 'tench', 'eft')
    exp = dataclasses.replace(network.experiment, class_names=names)
    fish = Opened(exp, network.spec, network.variables, 0)
    named = [
        [c.name for c in methods.choices(fish, np.array([0.5, 0.3, 0.2]), text)]
        for text in ('eft,tench, Tinca tinca', 'tench,eft', 'tench, Tinca tinca')
    ]
    assert named == [['eft', 'tench, Tinca tinca'], ['tench', 'eft'], ['tench, Tinca tinca']]


def test_the_sheet_has_a_column_for_each_method_and_one_scale_for_all_classes(opened_as):
    network = opened_as('frames')
    image = np.concatenate(digits.load('test').images[:2])
    choices = methods.choices(network, np.array([0.1, 0.2, 0.3, 0.4]), '1,3')
    random, names = np.random.default_rng(0), ('grad_cam', 'gradient')
    found = {
        name: [Explanation(tuple(random.random((2, 5, 5))), 'a note') for _ in choices]
        for name in names
    }
    figure = why.drawn(network, image, choices, found, 'Two pictures', 'of a test')
    texts = [axis.get_title() for axis in figure.axes]
    assert [text for text in texts if text.startswith('Grad-CAM')] == ['Grad-CAM\na note'] * 2
    assert [choice.caption for choice in choices] == [text for text in texts if '%' in text]
    shown = [axis for axis in figure.axes if axis.images]
    # Two classes of two pictures: the picture, and an overlay and a map for each method.
    assert len(shown) == 2 * 2 * (1 + 2 * len(names))
    labels = [axis.get_xlabel() for axis in figure.axes if axis.get_xlabel()]
    assert labels == [METHODS[name].meaning for name in names]


@pytest.mark.parametrize(('largest', 'note'), [(0, 'pool2, 5x5, 0 everywhere'), (1, 'pool2, 5x5')])
def test_a_grad_cam_of_zeros_says_so(network, monkeypatch, largest, note):
    """All of it has the color of nothing, which is easily taken for a defect."""
    monkeypatch.setattr(methods, 'grad_cam', lambda *_: np.full((1, 5, 5), largest, np.float32))
    image = digits.load('test').images[0]
    assert METHODS['grad_cam'].explain(network, image, chosen(network, '7'), None).note == note
