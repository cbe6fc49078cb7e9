"""The embedding of a split against a plain singular value decomposition."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from data_sources import digits
from errors import UserError
from inspection import embedding, survey
from inspection.embedding import MOST_COLORS, OTHERS, Features, embed, thinned
from inspection.examples import Chunk
from inspection.survey import Glance
from tasks.classification import Classification
from tests.tasks.turned import Turned
from tools import inspect


def slowly(features):
    """(points, explained, components) by NumPy's SVD, each component with its largest entry up."""
    centered = features.astype(np.float64) - features.astype(np.float64).mean(0)
    _, sizes, directions = np.linalg.svd(centered, full_matrices=False)
    components = np.stack([d if d[np.abs(d).argmax()] > 0 else -d for d in directions[:2]])
    return centered @ components.T, (sizes**2 / (sizes**2).sum())[:2], components


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.integers(3, 12), st.booleans())
def test_it_is_the_decomposition_of_the_centered_features(seed, count, width, large):
    draw = np.random.default_rng(seed)
    scales = 3.0 ** -np.arange(width)  # so that no two components are alike
    features = (draw.normal(size=(count, width)) * scales + 5).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, 'LARGE', 0 if large else 10**9)
        found = embed(features)
    points, explained, components = slowly(features)
    np.testing.assert_allclose(found.explained, explained, atol=1e-9)
    np.testing.assert_allclose(found.components, components, atol=1e-6)
    np.testing.assert_allclose(found.points, points, atol=1e-5)


def test_the_order_of_the_examples_and_their_place_do_not_matter():
    features = np.random.default_rng(0).normal(size=(30, 6)) * [5, 3, 1, 1, 1, 1]
    order = np.random.default_rng(1).permutation(30)
    np.testing.assert_allclose(
        embed(features[order] + 7).points, embed(features).points[order], atol=1e-9
    )


@pytest.mark.parametrize(
    ('features', 'message'),
    [
        (np.eye(2), 'needs three examples and two features at least; here are 2 examples'),
        (np.arange(5.0)[:, None], 'here are 5 examples and 1 features'),
        (np.full((5, 4), 3.0), 'All examples have the same features'),
        (np.array([[1, 2], [3, np.nan], [4, 5.0]]), 'no finite numbers'),
    ],
)
def test_what_cannot_be_embedded_is_a_sentence(features, message):
    with pytest.raises(UserError, match=message):
        embed(features)


PLACES = arrays.arrays(
    np.float64, st.tuples(st.integers(1, 25), st.just(2)), elements=st.floats(-60, 60)
)


@given(PLACES, st.floats(1, 40))
def test_thumbnails_do_not_hide_each_other_and_none_is_left_out_that_has_room(places, side):
    shown = thinned(places, side).tolist()
    assert shown[0] == 0
    for number, place in enumerate(places):
        earlier = [other for other in shown if other < number]
        free = all(np.abs(places[other] - place).max() >= side for other in earlier)
        assert (number in shown) == free


@pytest.mark.parametrize('stage', [None, 'pool2'])
def test_the_features_are_the_means_of_a_stage(network, looked, stage):
    features = Features(network.task, network.class_names, stage)
    survey.run(network, looked, [features])
    source = digits.load('validation')
    stages = network.look(source.images).stages
    expected = stages['dense2'] if stage is None else stages[stage].mean((1, 2))
    assert features.stage == (stage or 'dense2')
    np.testing.assert_allclose(features.features, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(features.positions, np.arange(source.size))
    assert features.classes() == [str(label) for label in source.labels]


def collected(task, names, targets):
    """Features of two dimensions, of examples with these targets."""
    count = len(next(iter(targets.values())))
    means = {'a': np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)}
    features = Features(task, names)
    chunk = Chunk(np.zeros((count, 28, 28, 1), np.uint8), targets, np.arange(count))
    features.add(chunk, Glance(None, {}, {}, means, {}, {}))
    return features


def test_rare_classes_share_a_color():
    names = [f'class {i}' for i in range(MOST_COLORS + 5)]
    labels = np.repeat(np.arange(len(names)), np.arange(len(names)) + 1)
    classes = collected(Classification(len(names)), names, {'label': labels}).classes()
    assert classes.count(OTHERS) == sum(range(1, 6))
    assert len({*classes}) == MOST_COLORS + 1


def test_targets_that_are_no_classes_have_no_colors(looked):
    angles = np.linspace(-60, 60, 40, dtype=np.float32)[:, None]
    features = collected(Turned(5.0), (), {'angle': angles})
    assert features.classes() == []
    found = embed(features.features)
    for drawn in (features.points(found, ''), features.thumbnails(found, looked, '')):
        with Image.open(io.BytesIO(drawn.png)) as picture:
            assert len(np.unique(np.asarray(picture.convert('L')))) > 20


def test_the_command_draws_points_and_pictures(lenet_run, tmp_path, capsys):
    argv = [f'--workdir={lenet_run}', f'--output={tmp_path}', '--only=embedding', '--stage=conv2']
    assert inspect.main(argv) == 0
    for name in ('', '-pictures'):
        assert (tmp_path / f'embedding-validation-conv2{name}.png').exists()
    assert 'of 143 pictures at their points' in capsys.readouterr().out
    assert inspect.main([*argv, '--most=2']) == 2
    assert 'needs three examples' in capsys.readouterr().err
