"""Rates of the loop: what they count, and that the clock stands still where it should."""

import itertools

import pytest

from training.meter import Meter


class Clock:
    now = 100.0

    def __call__(self):
        return self.now

    def batches(self, seconds):
        """Batches that take so long to come."""
        for number in itertools.count():
            self.now += seconds
            yield number


@pytest.fixture
def clock():
    return Clock()


def test_rates_are_of_the_steps_since_the_last_record(clock):
    meter, batches = Meter(clock), clock.batches(0.25)
    meter.start()
    for _ in range(4):
        meter.next(batches)
        clock.now += 0.75
        meter.done(10)
    meter.stop()
    first = meter.take()
    assert (first.images_per_second, first.input_wait) == (10.0, 0.25)
    clock.now += 1000  # an evaluation
    meter.start()
    for _ in range(2):
        meter.next(batches)
        clock.now += 0.25
        meter.done(10)
    meter.stop()
    second = meter.take()
    assert (second.images_per_second, second.input_wait) == (20.0, 0.5)
    assert meter.images_per_second == 60 / 5


def test_the_call_that_compiles_does_not_count(clock):
    meter, batches = Meter(clock), clock.batches(5.0)
    meter.next(batches)
    clock.now += 60
    meter.done(10)
    meter.start()
    assert meter.take() is None
    clock.now += 2
    meter.done(10)
    found = meter.take()
    assert (found.images_per_second, found.input_wait) == (5.0, 0.0)


def test_nothing_measured_is_no_rate(clock):
    meter = Meter(clock)
    assert meter.take() is None
    assert meter.images_per_second == 0.0
    meter.start()
    clock.now += 1
    meter.stop()
    assert meter.take() is None


def test_a_clock_too_coarse_gives_no_rate(clock):
    meter = Meter(clock)
    meter.start()
    meter.done(10)
    assert meter.take() is None
    assert meter.images_per_second == 0.0
