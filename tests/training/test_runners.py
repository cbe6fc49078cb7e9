"""Both runners, plain jit and the lanes of a vmap agree on any number of devices.

The cases run in children with eight virtual CPU devices (runners_child.py), one for the few of
`make test` and one for the rest; here they are compared, with the same update written in plain
words and with each other.
"""

from pathlib import Path

import numpy as np
import pytest

from tests.support import most_slow, on_eight_devices, once, slow
from tests.training import runners_child as child

every_kind = pytest.mark.parametrize('kind', most_slow(child.KINDS, [child.FEW_KIND]))
every_network = pytest.mark.parametrize('network', most_slow(child.NETWORKS, [child.FEW_NETWORK]))


def on_devices(numbers, few):
    """Each kind on each number of devices; all but the few are slow."""
    cases = [(kind, devices) for kind in child.KINDS for devices in numbers]
    return [case if case in few else slow(*case) for case in cases]


@pytest.fixture
def results(request):
    """{name: array}, as the child wrote them that runs this test's cases."""
    part = 'rest' if request.node.get_closest_marker('slow') else 'few'
    return request.getfixturevalue(f'results_of_the_{part}')


@pytest.fixture(scope='session')
def results_of_the_few(tmp_path_factory):
    return _run_child(tmp_path_factory, 'few')


@pytest.fixture(scope='session')
def results_of_the_rest(tmp_path_factory):
    return _run_child(tmp_path_factory, 'rest')


def _run_child(tmp_path_factory, part):
    def run(file: Path) -> None:
        # Without optimisation the programs compile three times as fast, and say the same.
        on_eight_devices('-m', child.__name__, str(file), part, JAX_DISABLE_MOST_OPTIMIZATIONS='1')

    with np.load(once(tmp_path_factory, f'runners_{part}.npz', run)) as stored:
        return dict(stored)


def case(results, prefix):
    return {
        k.removeprefix(f'{prefix}/'): v for k, v in results.items() if k.startswith(prefix + '/')
    }


def assert_same(found, expected, tolerance=1e-5):
    """Each array within `tolerance` of its own size; one that is rounding noise, of the largest.

    (Batch norm makes the gradient of the biases before it zero.)
    """
    assert found.keys() == expected.keys()
    assert len(found) > 10
    groups = {name.partition('/')[0] for name in expected}
    for group in groups:
        names = [name for name in expected if name.startswith(group + '/')]
        largest = max(np.abs(expected[name]).max() for name in names)
        for name in names:
            size = np.abs(expected[name]).max()
            scale = size if size > 1e-4 * largest else largest
            error = np.abs(found[name] - expected[name]).max()
            assert error <= tolerance * scale, (name, error, scale)


@pytest.mark.parametrize('mask', child.MASKS)
class TestUpdates:
    """Loss, gradient, new parameters and running statistics of one update."""

    @pytest.mark.parametrize(
        ('network', 'kind', 'devices'),
        [
            (n, k, d) if child.is_few(n, k, d) else slow(n, k, d)
            for n, some in child.NETWORKS.items()
            for k in child.KINDS
            for d in some
        ],
    )
    def test_a_runner_equals_the_plain_update(self, results, network, mask, kind, devices):
        truth = case(results, f'{network}/{mask}/truth1')
        assert_same(case(results, f'{network}/{mask}/{kind}{devices}'), truth)

    @pytest.mark.parametrize('lane', range(len(child.LANES)))
    @every_network
    @pytest.mark.parametrize('how', ['jit', 'vmap'])
    def test_jit_and_a_lane_of_vmap_equal_the_plain_update(self, results, network, mask, how, lane):
        found = case(results, f'{network}/{mask}/{how}{lane}')
        assert_same(found, case(results, f'{network}/{mask}/truth{lane}'))

    @pytest.mark.parametrize('lane', range(len(child.LANES)))
    @every_network
    def test_a_lane_with_dropout_equals_the_run_alone(self, results, network, mask, lane):
        alone = case(results, f'{network}/{mask}/dropoutjit{lane}')
        assert_same(case(results, f'{network}/{mask}/dropoutvmap{lane}'), alone)
        without = results[f'{network}/{mask}/vmap{lane}/gradient/head/kernel']
        assert np.abs(alone['gradient/head/kernel'] - without).max() > 1e-3

    @every_network
    def test_the_lanes_differ(self, results, network, mask):
        lanes = [case(results, f'{network}/{mask}/vmap{lane}') for lane in (0, 1)]
        for name in lanes[0].keys() - {'metrics/count', 'metrics/correct'}:
            assert not np.array_equal(lanes[0][name], lanes[1][name]), name


ALONE = ('jit', 'vmap')
FEW_PARTITIONED = (*ALONE, *(f'{kind}_{norm}' for kind, norm in child.FEW_PARTITIONED))


class TestPartition:
    """deep_cnn with its first block frozen, and factors on the rates of the rest."""

    @pytest.mark.parametrize(
        'how', most_slow(['vmap', *(f'{kind}_sync' for kind in child.KINDS)], FEW_PARTITIONED)
    )
    def test_runners_and_lanes_agree(self, results, how):
        found, alone = (case(results, f'partitioned/{name}') for name in (how, 'jit'))
        assert_same(found, alone)

    @pytest.mark.parametrize(
        'how',
        most_slow(
            [*ALONE, *(f'{kind}_{norm}' for kind in child.KINDS for norm in ('sync', 'own'))],
            FEW_PARTITIONED,
        ),
    )
    def test_what_is_frozen_keeps_its_bytes(self, results, how):
        found, start = (case(results, f'partitioned/{name}') for name in (how, 'start'))
        for name in child.FROZEN:
            group = 'stats' if name in ('norm1/mean', 'norm1/var') else 'params'
            collection = 'batch_stats' if group == 'stats' else 'params'
            for copy in (found[f'{group}/{name}'], found[f'ema/{collection}/{name}']):
                assert copy.tobytes() == start[f'{group}/{name}'].tobytes(), name
        for name in start.keys() - {f'params/{n}' for n in child.FROZEN}:
            if name.partition('/')[2] not in child.FROZEN:
                assert np.abs(found[name] - start[name]).max() > 0, name


@pytest.mark.parametrize(
    ('loss', 'how'),
    [
        case if case in child.FEW_MIXED else slow(*case)
        for case in [
            ('softmax', 'shard_map'),
            *(('bce', how) for how in (*child.KINDS, 'vmap', 'accumulate')),
        ]
    ],
)
def test_mixed_images_are_learned_alike_everywhere(results, loss, how):
    alone = case(results, f'mixed/{loss}/jit')
    assert_same(case(results, f'mixed/{loss}/{how}'), alone)
    plain = results['mixed/plain/gradient/head/kernel']
    assert np.abs(alone['gradient/head/kernel'] - plain).max() > 1e-3


@pytest.mark.parametrize(('kind', 'devices'), on_devices(child.DEVICES, child.FEW))
@pytest.mark.parametrize('size', child.EVAL_SIZES)
def test_evaluation_counts_every_example_once(results, kind, devices, size):
    found, truth = case(results, f'eval/{kind}{devices}/{size}'), case(results, 'eval/truth')
    np.testing.assert_array_equal(found['confusion'], truth['confusion'])
    assert found['count'] == truth['confusion'].sum() == 359
    assert found['correct'] == np.trace(truth['confusion'])
    assert found['loss'] == pytest.approx(truth['loss'], rel=1e-6)
    for name in ('bin_count', 'bin_correct', 'bin_confidence'):
        np.testing.assert_allclose(found[name], truth[name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(('kind', 'devices'), on_devices(child.SOME, child.FEW_DRAWN))
class TestDropout:
    """Masks at rate 0.25 of images that are all 1: what is left is 0 or 4/3."""

    def test_keeps_three_quarters(self, results, kind, devices):
        seen = results[f'dropout/{kind}{devices}/a']
        kept = seen > 0
        np.testing.assert_allclose(seen[kept], 4 / 3, rtol=1e-6)
        assert abs(kept.mean() - 0.75) < 0.06  # 1,024 draws: 4.4 standard deviations

    def test_repeats_for_the_same_seed_and_step(self, results, kind, devices):
        seen, again = (results[f'dropout/{kind}{devices}/{name}'] for name in ('a', 'again'))
        np.testing.assert_array_equal(seen, again)
        np.testing.assert_array_equal(seen, results[f'dropout/pmap{devices}/a'])

    @pytest.mark.parametrize('other', ['step', 'seed'])
    def test_differs_between_steps_and_seeds(self, results, kind, devices, other):
        seen, changed = (results[f'dropout/{kind}{devices}/{name}'] > 0 for name in ('a', other))
        # Independent masks agree in 0.75^2 + 0.25^2 of the places.
        assert abs((seen == changed).mean() - 0.625) < 0.07

    def test_differs_between_devices(self, results, kind, devices):
        parts = np.split(results[f'dropout/{kind}{devices}/a'] > 0, devices)
        agreement = [(a == b).mean() for i, a in enumerate(parts) for b in parts[:i]]
        assert max(agreement) < 0.8
        assert abs(np.mean(agreement) - 0.625) < 0.07


@pytest.mark.parametrize(('kind', 'devices'), on_devices(child.SOME, child.FEW_DRAWN))
def test_augmented_images_do_not_depend_on_the_devices(results, kind, devices):
    truth = results['augment/pmap1']
    assert np.ptp(truth) > 0.5
    np.testing.assert_allclose(results[f'augment/{kind}{devices}'], truth, atol=1e-6)


@every_kind
class TestSeveralUpdates:
    """Three updates in one call, on eight devices."""

    def test_equal_the_same_one_by_one(self, results, kind):
        found, expected = (case(results, f'several/{kind}/{how}') for how in ('many', 'one'))
        assert_same(found, expected)
        # Each update's own metrics, in order.
        assert found['metrics/count'].tolist() == [10, 16, 10]
        assert len(set(found['metrics/learning_rate'].tolist())) == 3
        assert found['step/number'] == child.LANES[1]['step'] + 3

    def test_the_old_state_is_given_up_to_the_new(self, results, kind):
        assert results[f'several/{kind}/donated'].all()
        for how in ('one', 'many'):
            # Every leaf of the new state lies where the old one lay.
            assert results[f'several/{kind}/aliases/{how}'] == results[f'several/{kind}/leaves']


@every_kind
class TestCompiledStep:
    """Five steps with other hyperparameters each time, on eight devices."""

    def test_is_compiled_once(self, results, kind):
        first, *later = results[f'compiled/{kind}/compilations']
        assert first >= 1
        assert later == [0, 0, 0, 0]

    def test_gives_the_old_state_up_and_nothing_else(self, results, kind):
        assert results[f'compiled/{kind}/donated'].all()
        assert results[f'compiled/{kind}/kept']

    def test_sends_nothing_that_was_not_placed(self, results, kind):
        # That the child came this far shows that the guard let the placed arguments pass.
        assert results[f'compiled/{kind}/refused']
