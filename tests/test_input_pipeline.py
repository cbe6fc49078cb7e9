"""Which examples come when: a function of (data set, seed, step), and of nothing else."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import input_pipeline
from configs import base
from data_sources import arrays, plans
from errors import UserError

ORDERS = {
    (0, 0): [4, 0, 3, 8, 7, 1, 5, 6, 9, 2],
    (0, 1): [8, 3, 2, 0, 5, 6, 9, 7, 1, 4],
    (2**32 - 1, 7): [2, 8, 5, 4, 3, 6, 0, 7, 1, 9],
}
SEEDS = st.integers(0, 2**32 - 1)


def config(**values):
    result = base.get_config()
    for name, value in values.items():
        result[name] = value
    return result


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, size=st.integers(1, 50), batch=st.integers(1, 120), step=st.integers(0, 30))
def test_a_batch_asked_for_directly_is_the_one_reached_from_the_start(seed, size, batch, step):
    settings_ = config(seed=seed, batch_size=batch)
    reached = take(input_pipeline.train_batches(settings_, size), step + 1)[-1]
    asked = next(input_pipeline.train_batches(settings_, size, step))
    assert_same(asked, reached)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, size=st.integers(1, 50), batch=st.integers(1, 120))
def test_every_example_comes_once_an_epoch(seed, size, batch):
    count = 3 * size // batch + 1
    plan = take(input_pipeline.train_batches(config(seed=seed, batch_size=batch), size), count)
    index, epoch = (np.concatenate([b[name] for b in plan]) for name in ('index', 'epoch'))
    assert (np.diff(epoch) >= 0).all()
    for number in range(len(index) // size):
        assert sorted(index[epoch == number]) == list(range(size))
        order = index[number * size : (number + 1) * size]
        np.testing.assert_array_equal(order, input_pipeline.permutation(seed, number, size))
    assert all(b['mask'].all() and len(b['mask']) == batch for b in plan)


@settings(max_examples=30, deadline=None)
@given(
    seed=SEEDS, size=st.integers(1, 50), share=st.integers(1, 20), step=st.integers(0, 10),
    processes=st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_the_parts_of_the_processes_make_the_global_batch(seed, size, share, step, processes):
    settings_ = config(seed=seed, batch_size=share * processes)
    whole = next(input_pipeline.train_batches(settings_, size, step))
    parts = [
        next(input_pipeline.train_batches(settings_, size, step, process, processes))
        for process in range(processes)
    ]
    assert_same({name: np.concatenate([p[name] for p in parts]) for name in whole}, whole)


@settings(max_examples=100, deadline=None)
@given(
    size=st.integers(1, 60), batch=st.integers(1, 100),
    processes=st.sampled_from([1, 2, 4]), each=st.sampled_from([1, 2, 3, 4]),
)  # fmt: skip
def test_evaluation_holds_every_example_once(size, batch, processes, each):
    devices = processes * each
    found = [
        list(plans.EvalPlan(size, batch, devices, process, processes))
        for process in range(processes)
    ]
    assert len({len(plan) for plan in found}) == 1, 'every process takes part in every call'
    seen = [b['index'][b['mask'] > 0] for plan in found for b in plan]
    assert sorted(np.concatenate(seen)) == list(range(size))
    for b in itertools.chain(*found):
        assert b['mask'].shape == b['index'].shape == found[0][0]['index'].shape
        assert len(b['index']) % each == 0, 'an equal share for each device'
        assert ((b['index'] >= 0) & (b['index'] < size)).all(), 'padding reads a real example'
        assert b['index'].dtype == np.int32
        assert b['mask'].dtype == np.float32
    # In order, process by process within a batch: what a confusion matrix of names relies on.
    assert len(found[0][0]['index']) * processes < min(batch, size) + devices


def test_the_order_does_not_change_between_releases():
    """Another order here means that every seeded run of the past sees other batches."""
    for (seed, epoch), order in ORDERS.items():
        assert input_pipeline.permutation(seed, epoch, 10).tolist() == order
    example, epoch = input_pipeline.indices(0, 10, 4, 2)
    assert example.tolist() == [*ORDERS[0, 0][8:], *ORDERS[0, 1][:2]]
    assert epoch.tolist() == [0, 0, 1, 1]


def test_the_order_is_a_fair_shuffle():
    size, epochs = 8, 2000
    orders = np.array([input_pipeline.permutation(3, epoch, size) for epoch in range(epochs)])
    counts = np.array([np.bincount(column, minlength=size) for column in orders.T])
    expected = epochs / size
    # Each cell has 63 degrees of freedom's share; 5 standard deviations of a binomial.
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    chi_squared = (np.square(counts - expected) / expected).sum()
    assert 20 < chi_squared < 90  # 49 degrees of freedom
    assert len(np.unique(orders, axis=0)) > 0.95 * 1900
    fixed = (orders == np.arange(size)).sum(1).mean()
    assert abs(fixed - 1) < 0.12


def test_an_order_cannot_be_changed_by_who_reads_it():
    with pytest.raises(ValueError, match='read-only'):
        input_pipeline.permutation(0, 0, 5)[0] = 1


def test_a_late_step_of_a_large_set_does_not_overflow():
    example, epoch = input_pipeline.indices(1, 1000, 4096, 10**8)
    position = 10**8 * 4096 + np.arange(4096)
    np.testing.assert_array_equal(epoch, position // 1000)
    assert ((example >= 0) & (example < 1000)).all()


def test_train_batches_hold_the_images_of_their_indices():
    settings_ = config(batch_size=300)
    source = arrays.load('digits', 'train', '')
    found = take(input_pipeline.batches(settings_, 'train', start_step=3), 3)
    plan = take(input_pipeline.train_batches(settings_, len(source.labels), 3), 3)
    for batch, indices in zip(found, plan, strict=True):
        expected = {
            **indices,
            'image': source.images[indices['index']],
            'label': source.labels[indices['index']],
        }
        assert_same(batch, expected)
        assert batch['image'].dtype == np.uint8


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_evaluation_batches_hold_the_split_in_order(split):
    source = arrays.load('digits', split, '')
    found = list(input_pipeline.batches(config(eval_batch_size=50), split))
    mask = np.concatenate([batch['mask'] for batch in found]) > 0
    assert {len(batch['mask']) for batch in found} == {50}
    for name, expected in (('image', source.images), ('label', source.labels)):
        np.testing.assert_array_equal(np.concatenate([b[name] for b in found])[mask], expected)


def test_a_mean_for_other_channels_is_refused():
    settings_ = config()
    settings_.data.mean = (0.4, 0.5, 0.6)
    with pytest.raises(UserError, match=r'config\.data\.mean has 3 values.*1 channel'):
        input_pipeline.open_split(settings_, 'train')


def few(count, seed=0, split='train'):
    settings_ = config(seed=seed)
    with settings_.ignore_type():
        settings_.data.train_per_class = count
    return input_pipeline.open_split(settings_, split)


def places(part, whole):
    """Where the images of `part` stand in `whole`; a hundred real digits are all different."""
    known = {image.tobytes(): place for place, image in enumerate(whole.images)}
    return [known[image.tobytes()] for image in part.images]


def test_few_per_class_are_so_many_of_each_in_the_order_of_the_data_set():
    whole, part = few(None), few(10)
    assert np.bincount(part.labels).tolist() == [10] * 10
    chosen = places(part, whole)
    assert chosen == sorted(set(chosen))
    np.testing.assert_array_equal(part.labels, whole.labels[chosen])
    np.testing.assert_array_equal(part.images, few(10).images)


def test_few_per_class_are_drawn_by_the_seed_and_nested():
    whole = few(None)
    three, ten, other = (set(places(few(n, seed), whole)) for n, seed in ((3, 1), (10, 1), (10, 2)))
    assert three < ten
    # Two draws of 10 from each 129 or so share less than one a class.
    assert len(ten & other) < 30


def test_few_per_class_leave_the_other_splits_whole():
    assert len(few(2, split='validation').labels) == 143
    assert len(few(2, split='test').labels) == 359


def test_a_class_with_too_few_is_named():
    sizes = np.bincount(few(None).labels)
    part = few(int(sizes.min()))
    assert len(part.labels) == 10 * sizes.min()
    with pytest.raises(UserError) as caught:
        few(int(sizes.min()) + 1)
    smallest = f'only {sizes.min()} training examples of class {sizes.argmin()}.'
    assert f'config.data.train_per_class={sizes.min() + 1}, but digits has {smallest}' in str(
        caught.value
    )


def test_batches_are_of_the_few():
    settings_ = config(seed=3, batch_size=20)
    with settings_.ignore_type():
        settings_.data.train_per_class = 2
    part = few(2, seed=3)
    found = next(input_pipeline.batches(settings_, 'train', start_step=5))
    assert sorted(found['index']) == list(range(20))  # one epoch a batch
    np.testing.assert_array_equal(found['image'], part.images[found['index']])
