"""What a run says of its data before it trains: too few classes, too large a batch."""

import numpy as np
import pytest

import command
import train
from configs import base, reading
from data_sources import arrays
from data_sources.arrays import ArraySource
from tests.conftest import SMALL
from tests.support import arguments, write_config
from training import experiment


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A function that registers the set "tiny" with some classes and writes its configuration."""

    def make(class_names, **fields):
        def load(split):
            rng = np.random.default_rng(len(split))
            images = rng.integers(0, 256, (20, 8, 8, 1), np.uint8)
            labels = (np.arange(20) % len(class_names)).astype(np.int32)
            return ArraySource('tiny', split, images, {'label': labels}, class_names)

        monkeypatch.setitem(arrays.EMBEDDED, 'tiny', load)
        return write_config(tmp_path, **SMALL | {'data__name': 'tiny', 'steps': 2} | fields)

    return make


def test_a_classifier_of_one_class_is_refused(tiny, tmp_path, capsys):
    argv = arguments(tiny(('pets',)), tmp_path / 'run')
    assert command.call(train.main, argv) == 2
    message = capsys.readouterr().err
    assert message.startswith('error: Data set "tiny" has 1 class ("pets"), and config.task=class')
    assert 'Was --source one level too high' in message
    assert message.count('\n') == 1
    assert not (tmp_path / 'run').exists()


def sentence(batch_size):
    return (
        f'warning: config.batch_size={batch_size} is larger than the training split, which has 20 '
        'images, so that every batch has some of them more than once: lower it to 20 or less.'
    )


@pytest.mark.parametrize(('batch_size', 'warned'), [(21, True), (20, False), (4, False)])
def test_a_batch_larger_than_the_training_split_is_a_warning(tiny, batch_size, warned):
    config = reading.from_arguments(str(tiny(('cat', 'dog'), batch_size=batch_size)), [])
    assert experiment.open_train(config)[0].warning == (sentence(batch_size) if warned else '')


@pytest.mark.parametrize(('tile', 'warned'), [(64, True), (128, False), (None, False)])
def test_tiles_smaller_than_the_training_crops_are_a_warning(tile, warned):
    config = base.get_config()
    config.data.image_size, config.data.tile = 96, tile
    found = experiment.Experiment(config, (96, 96, 3), ('a', 'b'), 10**6).warning
    assert ('config.data.tile=64 is smaller than the training crops' in found) == warned


@pytest.mark.slow
def test_a_run_says_that_its_batch_is_larger_than_the_training_split(tiny, tmp_path, capsys):
    argv = arguments(tiny(('cat', 'dog')), tmp_path / 'run')
    assert command.call(train.main, argv) == 0
    assert sentence(64) in ' '.join(capsys.readouterr().out.split())
