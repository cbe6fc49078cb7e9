"""A network whose set was stretched gets new pictures stretched in the same way."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from configs import imagenet
from data_sources import stretching
from data_sources.picture_files import InMemory
from errors import UserError
from training.experiment import Experiment
from training.prediction import reading

SIZE = 32


@pytest.fixture
def experiment():
    config = imagenet.streamed()
    config.data.image_size = config.data.eval_resize = SIZE
    names = ('a', 'b')
    return Experiment(config, (SIZE, SIZE, 3), names, 100, upright=True, stretch=2.0)


@pytest.fixture
def deep():
    """A dim picture of 16 bits, of the size of the network's input."""
    return np.random.default_rng(0).integers(300, 900, (SIZE, SIZE)).astype(np.uint16)


def in_memory(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG', **options)
    return InMemory(file.getvalue(), 'dim.png')


def test_whole_pictures_and_crops_are_stretched(experiment, deep):
    expected = np.repeat(stretching.stretched(deep, 2.0)[..., None], 3, -1)
    assert np.ptp(expected) == 255
    _, crop = reading.reader(experiment)
    for read in (crop, reading.whole_reader(experiment)):
        np.testing.assert_array_equal(read(in_memory(deep)), expected)
    plain = dataclasses.replace(experiment, stretch=None)
    _, crop = reading.reader(plain)
    for read in (crop, reading.whole_reader(plain)):
        assert read(in_memory(deep)).max() < 5


def test_it_is_turned_once(experiment, deep):
    exif = Image.Exif()
    exif[0x0112] = 6
    expected = np.rot90(stretching.stretched(deep, 2.0), -1)
    _, crop = reading.reader(experiment)
    for read in (crop, reading.whole_reader(experiment)):
        np.testing.assert_array_equal(read(in_memory(deep, exif=exif))[..., 0], expected)


def test_what_is_no_picture_is_named(experiment):
    _, crop = reading.reader(experiment)
    for read in (crop, reading.whole_reader(experiment)):
        with pytest.raises(UserError, match=r'^dim.png cannot be read as a picture: '):
            read(InMemory(b'Not Found', 'dim.png'))
