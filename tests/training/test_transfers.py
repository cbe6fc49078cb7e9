"""In its steady state the loop sends nothing to the devices and waits for nothing but old metrics.

JAX's guard sees what goes to the devices. On a CPU it does not see what comes back, because there
an array is host memory already; so everything that the compiled step returns is wrapped into
objects that note each time somebody wants their numbers.
"""

import jax
import numpy as np
import pytest

from tests.support import slow, train_here
from training import start
from training.runner import RUN_AHEAD

METRICS = ['correct', 'count', 'grad_norm', 'learning_rate', 'loss']


class Watched:
    """An array on a device whose numbers nobody gets unnoticed.

    It has no other methods than these: what asks for more fails.
    """

    def __init__(self, array, name, note):
        self._array, self._name, self._note = array, name, note

    @property
    def size(self):
        return self._array.size

    def addressable_data(self, index):
        return Watched(self._array.addressable_data(index), self._name, self._note)

    def _value(self):
        self._note(self._name)
        return np.array(self._array)

    def __array__(self, dtype=None, copy=None):
        return self._value()

    def item(self):
        return self._value().item()

    def __float__(self):
        return float(self._value())

    def __int__(self):
        return int(self._value())

    def __bool__(self):
        return bool(self._value())

    def block_until_ready(self):
        self._note(self._name)
        return self


def watch(tree, name, note):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    found = [Watched(leaf, (*name, jax.tree_util.keystr(path)), note) for path, leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(tree), found)


def bare(tree):
    return jax.tree.map(lambda x: x._array if isinstance(x, Watched) else x, tree)


class WatchedStep:
    """A mapped train step; `asked` lists (calls begun by then, what, of which call, leaf)."""

    begun = 0
    asked = ()

    def __init__(self, mapped):
        self._mapped = mapped

    def lower(self, *given):
        return self._mapped.lower(*bare(given))

    def __call__(self, *given):
        with jax.transfer_guard('disallow'):
            state, metrics = self._mapped(*bare(given))
        WatchedStep.begun += 1
        number = self.begun

        def note(name):
            WatchedStep.asked += ((self.begun, *name),)

        return watch(state, ('state', number), note), watch(metrics, ('metrics', number), note)


@pytest.fixture
def watched(monkeypatch):
    """The class that tells what was asked for, in runs from now on."""

    class Runner(start.Runner):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            for program in (self.train, self.train_many):
                program._mapped = WatchedStep(program._mapped)
            evaluate = self.evaluate
            self.evaluate = lambda *given: evaluate(*bare(given))

    monkeypatch.setattr(start, 'Runner', Runner)
    monkeypatch.setattr(WatchedStep, 'begun', 0)
    monkeypatch.setattr(WatchedStep, 'asked', ())
    return WatchedStep


@pytest.mark.parametrize('kind', ['pmap', slow('shard_map')])
@pytest.mark.parametrize('updates', [1, 2])
def test_each_call_the_loop_asks_for_the_metrics_of_the_call_before_last(
    updates, kind, small, watched, tmp_path
):
    settings = {'log_every': 12, 'eval_every': 1.0, 'checkpoint__every_steps': 12}
    assert train_here(small, tmp_path, runner=kind, steps_per_call=updates, **settings) == 0
    calls = 12 // updates
    assert watched.begun == calls
    for begun in range(1, calls):  # after the last there is a record, with all that belongs to it
        found = sorted(asked[1:] for asked in watched.asked if asked[0] == begun)
        old = begun - RUN_AHEAD
        assert found == [('metrics', old, f"['{name}']") for name in METRICS if old > 0], begun
    kinds = {asked[1] for asked in watched.asked if asked[0] == calls}
    assert kinds == {'metrics', 'state'}  # it is noticed where it has to happen


@pytest.mark.parametrize(
    'ask',
    [float, int, bool, np.array, np.asarray, np.isfinite, jax.device_get, jax.block_until_ready,
     lambda x: x.item(), lambda x: np.array(x.addressable_data(0)), lambda x: np.float32(x)],
)  # fmt: skip
def test_nobody_gets_a_number_unnoticed(ask):
    noted = []
    ask(Watched(jax.device_put(np.float32(1)), ('metrics', 1, 'loss'), noted.append))
    assert noted == [('metrics', 1, 'loss')]
