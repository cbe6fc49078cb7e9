"""What a run says of its own speed and size, and that it compiles its step once."""

import json
import shutil

import jax
import pytest

from tests.support import curve, result, slow, train_here
from training import flops, start
from training.records import read_metrics

# fcn of one hidden layer of 16 units: 784 x 16 + 16 x 10 multiply-adds.
FLOPS = 6 * (784 * 16 + 16 * 10)


@pytest.fixture
def compilations(monkeypatch):
    """How often each call of the train step compiled something, in runs from now on."""
    counts, events = [], []

    def listen(event, *_, **__):
        if event == '/jax/core/compile/backend_compile_duration':
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)

    class Runner(start.Runner):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.train, self.train_many = map(self._counted, (self.train, self.train_many))

        @staticmethod
        def _counted(original):
            def call(*given):
                before = len(events)
                found = original(*given)
                counts.append(len(events) - before)
                return found

            return call

    monkeypatch.setattr(start, 'Runner', Runner)
    yield counts
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize('kind', ['pmap', slow('shard_map')])
def test_a_run_of_several_periods_compiles_its_step_once(kind, small, compilations, tmp_path):
    assert train_here(small, tmp_path, runner=kind) == 0
    assert compilations == [1] + [0] * 11


def test_several_updates_per_call_are_a_second_program(small, compilations, tmp_path):
    assert train_here(small, tmp_path, steps_per_call=2) == 0
    assert compilations == [1, 1] + [0] * 6


def test_the_figures_of_a_run(small, tmp_path):
    """Twelve steps of 64 images, with records at 3, 4, 6, 8, 9 and 12."""
    assert train_here(small, tmp_path, peak_tflops=0.001) == 0
    training = [r for r in read_metrics(tmp_path) if 'train/loss' in r]
    assert [record['step'] for record in training] == [3, 4, 6, 8, 9, 12]
    for record in training:
        rate = record['train/images_per_second']
        assert rate > 0
        assert 0 <= record['train/input_wait'] <= 1
        utilisation = record['train/model_flops_utilisation']
        assert utilisation == pytest.approx(rate * FLOPS / 1e9, rel=1e-6)
    assert 'images_per_second' not in ''.join(map(str, curve(tmp_path)))

    found = result(tmp_path)
    rates = [record['train/images_per_second'] for record in training]
    assert min(rates) <= found['examples_per_second'] <= max(rates)
    assert found['model_flops_per_image'] == FLOPS
    # The first layer's input needs no gradient; the rest is small.
    assert 0.6 < found['step_flops'] / (64 * FLOPS) < 1.2
    assert found['step_bytes'] > 4 * 3 * (784 * 16)  # Adam's state and the parameters, at least
    assert found['peak_memory_of'] == 'host'
    assert 50e6 < found['peak_memory_bytes'] < 1e12


def test_on_a_device_that_nobody_knows_there_is_no_utilisation(small_run):
    assert flops.peak(jax.devices(), 'float32') is None
    text = (small_run / 'metrics.jsonl').read_text()
    assert 'images_per_second' in text
    assert 'utilisation' not in text


def test_a_start_with_nothing_left_to_train_has_no_figures_of_the_step(small, small_run, tmp_path):
    workdir = tmp_path / 'run'
    shutil.copytree(small_run, workdir)
    (workdir / 'result.json').unlink()
    assert train_here(small, workdir) == 0
    found = json.loads((workdir / 'result.json').read_text())
    assert found['step_flops'] is found['step_bytes'] is None
    assert found['examples_per_second'] == 0.0
    assert found['model_flops_per_image'] == FLOPS
