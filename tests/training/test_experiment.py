"""What a run says of its data before it trains: too few classes, too large a batch."""

import numpy as np
import pytest

import command
import train
from data_sources import arrays
from data_sources.arrays import ArraySource
from tests.conftest import SMALL
from tests.support import arguments, write_config


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


@pytest.mark.parametrize(('batch_size', 'warned'), [(21, True), (20, False), (4, False)])
def test_a_batch_larger_than_the_training_split_is_said(tiny, tmp_path, capsys, batch_size, warned):
    config = tiny(('cat', 'dog'), batch_size=batch_size)
    assert command.call(train.main, arguments(config, tmp_path / 'run')) == 0
    sentence = (
        f'warning: config.batch_size={batch_size} is larger than the training split, which has 20 '
        'images, so that every batch has some of them more than once: lower it to 20 or less.'
    )
    assert (sentence in ' '.join(capsys.readouterr().out.split())) == warned
