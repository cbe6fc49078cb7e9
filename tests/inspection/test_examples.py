"""A pass over a split: each example once, in order, and a word on what is left out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import input_pipeline
from configs import base
from data_sources import digits
from errors import UserError
from inspection import examples
from tests.test_streams import spoil
from training import experiment, trained


def collected(looked):
    """All chunks as one: images, labels and positions."""
    chunks = list(looked)
    assert all(len(chunk) == len(chunk.images) > 0 for chunk in chunks)
    return (
        np.concatenate([chunk.images for chunk in chunks]),
        np.concatenate([chunk.targets['label'] for chunk in chunks]),
        np.concatenate([chunk.positions for chunk in chunks]),
    )


@pytest.fixture(scope='module')
def of_digits(lenet_run):
    return trained.load(lenet_run).experiment


def streamed(folder, **fields):
    """An experiment on the streamed digits."""
    config = base.get_config()
    config.model.name = 'lenet'
    config.data.update({'name': 'pictures', 'dir': str(folder)})
    with config.ignore_type():
        config.data.update({'image_size': 28, 'mean': (0.5,), 'std': (0.5,), **fields})
    return experiment.open_train(config)[0]


@pytest.mark.parametrize('split', ['train', 'validation', 'test'])
def test_a_set_in_memory_is_seen_whole_and_in_order(of_digits, split):
    looked = examples.of(of_digits, split)
    images, labels, positions = collected(looked)
    source = digits.load(split)
    np.testing.assert_array_equal(images, source.images)
    np.testing.assert_array_equal(labels, source.labels)
    np.testing.assert_array_equal(positions, np.arange(source.size))
    assert looked.note() == ''


@settings(max_examples=15)
@given(batch=st.integers(1, 400), most=st.integers(1, 400))
def test_the_size_of_chunks_does_not_matter(of_digits, batch, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, 'BATCH', batch)
        images, labels, positions = collected(examples.of(of_digits, 'test', most))
    source = digits.load('test')
    assert len(positions) == min(most, source.size)
    assert (np.diff(positions) > 0).all()
    np.testing.assert_array_equal(images, source.images[positions])
    np.testing.assert_array_equal(labels, source.labels[positions])
    _, _, more = collected(examples.of(of_digits, 'test', most + 1))
    assert {*positions} <= {*more}


def test_a_limit_draws_from_the_whole_split_and_is_said(of_digits):
    looked = examples.of(of_digits, 'test', 50)
    positions = collected(looked)[2]
    assert 0.3 * digits.load('test').size < positions.mean() < 0.7 * digits.load('test').size
    assert looked.note() == (
        '50 of the 359 examples of the test split were drawn and looked at; --most=N sets another '
        'number.'
    )


def test_a_streamed_set_is_seen_as_evaluation_sees_it(digit_set):
    of_pictures = streamed(digit_set)
    expected = list(input_pipeline.batches(of_pictures.config, 'test'))
    assert len(expected) == 1
    images, labels, positions = collected(examples.of(of_pictures, 'test'))
    np.testing.assert_array_equal(images, expected[0]['image'])
    np.testing.assert_array_equal(labels, expected[0]['label'])
    np.testing.assert_array_equal(positions, expected[0]['index'])
    part, _, chosen = collected(examples.of(of_pictures, 'test', 7))
    np.testing.assert_array_equal(part, images[chosen])


def test_records_that_do_not_decode_are_left_out_and_counted(digit_set, tmp_path):
    folder = spoil(digit_set, tmp_path, 'test')
    with pytest.raises(UserError, match="on_bad_record='skip'"):
        list(examples.of(streamed(folder), 'test'))
    looked = examples.of(streamed(folder, on_bad_record='skip'), 'test')
    for _ in range(2):  # they are counted anew in each pass
        _, _, positions = collected(looked)
        assert len(positions) + looked.bad == looked.count == looked.size
        assert looked.note() == '3 record(s) did not decode and were left out.'


def test_a_set_that_is_not_there_or_another_one_is_a_sentence(of_digits, digit_set, tmp_path):
    of_pictures = streamed(digit_set)
    of_pictures.config.data.dir = str(tmp_path)
    with pytest.raises(UserError, match=r'is not prepared in .*give that by --config.data.dir=DIR'):
        examples.of(of_pictures, 'test')
    other = experiment.Experiment(of_digits.config, (28, 28, 1), ('a', 'b'), 10)
    with pytest.raises(UserError, match='is not of the set that the network was trained on'):
        examples.of(other, 'test')
