"""Batches of streamed sets: batch t is the same bytes however it is decoded, and by whom."""

import dataclasses
import itertools
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import input_pipeline
from configs import base
from data_sources import cropping, decoding, plans, record_source, selection, stream
from data_sources.draws import Draws
from errors import UserError
from tests.support import slow

SEEDS = st.integers(0, 2**32 - 1)


def config(folder, **values):
    result = base.get_config()
    result.data.name, result.data.dir = 'pictures', str(folder)
    result.augment.flip = 0.5
    with result.ignore_type():
        result.data.image_size = 32
        for name, value in values.items():
            owner = result.data if name in result.data else result
            owner[name] = value
    return result


def batches(config, start=0, count=4, process=0, processes=1):
    """Some training batches of one process."""
    source = input_pipeline.open_split(config, 'train')
    found = iter(input_pipeline.train_stream(config, source, start, process, processes))
    try:
        return list(itertools.islice(found, count))
    finally:
        found.close()


def assert_same(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
            assert ours[name].dtype == theirs[name].dtype


@pytest.fixture(scope='module')
def expected(digit_set):
    """Four batches, decoded one after the other as plainly as can be."""
    settings_ = config(digit_set, batch_size=20, seed=3)
    source = input_pipeline.open_split(settings_, 'train')
    found = []
    for step in range(4):
        batch = {'image': [], 'label': [], 'index': [], 'epoch': []}
        index, epoch = plans.stream_indices(3, source.size, 20, 1, step * 20, 20)
        for example, visit in zip(index.tolist(), epoch.tolist(), strict=True):
            [record] = source.read([example])
            frame = decoding.read_frame(record.image)
            draws = Draws(3, 'crop', visit, example)
            box = cropping.crop_box(
                draws, frame.height, frame.width, 32, (0.08, 1.0), (0.75, 4 / 3)
            )
            image = cropping.decode_crop(record.image, frame, box, 32)
            if Draws(3, 'augment', visit, example).happens(0.5):
                image = image[:, ::-1]
            values = (image, record.targets['label'], example, visit)
            for name, value in zip(batch, values, strict=True):
                batch[name].append(value)
        arrays = {name: np.array(column, np.int32) for name, column in batch.items()}
        arrays |= {'image': np.array(batch['image']), 'mask': np.ones(20, np.float32)}
        found.append(arrays)
    return found


@pytest.mark.parametrize(('threads', 'workers'), [(1, 0), (2, 0), (8, 0), slow(0, 2), (2, 3)])
def test_threads_and_workers_do_not_matter(digit_set, expected, threads, workers):
    settings_ = config(digit_set, batch_size=20, seed=3, threads=threads, workers=workers)
    assert_same(batches(settings_), expected)


@pytest.mark.parametrize('processes', [2, 4, 5])
def test_hosts_do_not_matter(digit_set, expected, processes):
    settings_ = config(digit_set, batch_size=20, seed=3, threads=2)
    shares = [batches(settings_, process=i, processes=processes) for i in range(processes)]
    whole = [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*shares, strict=True)
    ]
    assert_same(whole, expected)


@pytest.mark.parametrize('start', [1, 3])
def test_position_is_the_step(digit_set, expected, start):
    settings_ = config(digit_set, batch_size=20, seed=3)
    assert_same(batches(settings_, start, 4 - start), expected[start:])


@pytest.mark.parametrize('workers', [0, 2])
def test_a_large_batch_is_decoded_in_parts(digit_set, expected, monkeypatch, workers):
    monkeypatch.setattr(stream, 'PART', 7)
    settings_ = config(digit_set, batch_size=20, seed=3, workers=workers)
    assert_same(batches(settings_), expected)


def test_another_epoch_and_another_seed_crop_otherwise(digit_set, expected):
    size = input_pipeline.open_split(config(digit_set), 'train').size
    settings_ = config(digit_set, batch_size=size, seed=3)
    first, second = batches(settings_, 0, 2)
    [other] = batches(config(digit_set, batch_size=size, seed=4), 0, 1)
    by_example = [
        batch['image'][np.argsort(batch['index'])].reshape(size, -1)
        for batch in (first, second, other)
    ]
    for one, another in itertools.combinations(by_example, 2):
        assert (one != another).any(1).mean() > 0.95
    assert (np.sort(first['index']) == np.arange(size)).all()
    assert (second['epoch'] == 1).all()


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, size=st.integers(1, 60), batch=st.integers(1, 90))
def test_every_example_comes_once_an_epoch(seed, size, batch):
    example, visit = plans.stream_indices(seed, size, batch, 1, 0, 3 * size)
    for epoch in range(3):
        assert sorted(example[visit == epoch]) == list(range(size))
    assert (np.diff(visit) >= 0).all()


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    size=st.integers(1, 60),
    batch=st.integers(1, 40),
    repeats=st.integers(1, 4),
    first=st.integers(0, 300),
)
def test_any_slice_of_the_list_is_that_slice(seed, size, batch, repeats, first):
    whole = plans.stream_indices(seed, size, batch, repeats, 0, 340)
    part = plans.stream_indices(seed, size, batch, repeats, first, 40)
    for ours, theirs in zip(part, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs[first : first + 40])


def test_repeats_come_in_the_same_batch_and_apart():
    """Three views of a third of the examples an epoch, another third the next; no view twice."""
    size, batch = 3030, 300
    example, visit = plans.stream_indices(0, size, batch, 3, 0, 6 * size)
    assert len(set(zip(example.tolist(), visit.tolist(), strict=True))) == 6 * size
    for start in range(0, 60 * batch, batch):
        own = example[start : start + batch]
        assert len(np.unique(own)) == 101
        assert np.bincount(own).max() == 3
    # In 30 batches every example has had its turn, and none a second one.
    assert sorted(np.unique(example[: 30 * batch])) == list(range(size))
    assert set(visit[: 30 * batch].tolist()) == {0, 1, 2}
    # Those that are mixed: never an example with itself, and not with one partner each time.
    pairs = example[: 30 * batch].reshape(-1, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    partners = {}
    for one, other in np.concatenate([pairs, pairs[:, ::-1]]).tolist():
        partners.setdefault(one, set()).add(other)
    assert np.mean([len(found) for found in partners.values()]) > 1.9


@pytest.mark.parametrize('repeats', [2, 3, 5])
def test_no_picture_is_mixed_with_itself_in_any_small_batch(repeats):
    for batch in (2, 4, 6, 8, 12):
        example, visit = plans.stream_indices(1, 30, batch, repeats, 0, 600)
        pairs = example.reshape(-1, 2)
        assert set(example.tolist()) == set(range(30))
        assert len(set(zip(example.tolist(), visit.tolist(), strict=True))) == 600
        # Two epochs may meet between two neighbours.
        assert (pairs[:, 0] == pairs[:, 1]).mean() < 0.02


def test_a_late_step_of_a_huge_set(digit_set, monkeypatch):
    """Step 100,000 at the size of ImageNet and of a thousand ImageNets: nothing is replayed."""
    source = input_pipeline.open_split(config(digit_set), 'train')
    real = source.read(range(8))
    monkeypatch.setattr(record_source.RecordSource, 'read', lambda self, rows: real[: len(rows)])
    for size in (1_281_167, 1_281_167_000):
        large = dataclasses.replace(source, size=size, stored_size=size)
        settings_ = config(digit_set, batch_size=8)
        found = iter(input_pipeline.train_stream(settings_, large, 100_000))
        batch = next(found)
        found.close()
        assert (batch['epoch'] == 100_000 * 8 // size).all()
        assert len(set(batch['index'].tolist())) == 8
        assert 0 <= batch['index'].min() <= batch['index'].max() < size


@pytest.mark.parametrize('batch_size', [1, 7, 30, 64, 1000])
def test_evaluation_holds_every_example_once(digit_set, batch_size):
    settings_ = config(digit_set, eval_batch_size=batch_size, threads=2)
    source = input_pipeline.open_split(settings_, 'test')
    found = list(input_pipeline.batches(settings_, 'test'))
    mask = np.concatenate([batch['mask'] for batch in found]) > 0
    index, label, image = (
        np.concatenate([batch[name] for batch in found])[mask]
        for name in ('index', 'label', 'image')
    )
    assert index.tolist() == list(range(source.size))
    assert len({len(batch['mask']) for batch in found}) == 1
    for number, record in enumerate(source.read(index)):
        assert label[number] == record.targets['label']
        np.testing.assert_array_equal(image[number], cropping.centre(record.image, 32, 37))


def test_evaluation_may_have_a_size_of_its_own(digit_set):
    settings_ = config(digit_set, eval_image_size=40, eval_resize=48)
    batch = next(input_pipeline.batches(settings_, 'validation'))
    [record] = input_pipeline.open_split(settings_, 'validation').read([0])
    np.testing.assert_array_equal(batch['image'][0], cropping.centre(record.image, 40, 48))


# --- records that do not decode -----------------------------------------------------------------


def spoil(digit_set, folder, split, count=3):
    """A copy of the set in which some records of a split are no pictures any more."""
    shutil.copytree(digit_set / 'pictures', folder / 'pictures')
    spoil_split(folder, split, count)
    return folder


def spoil_split(folder, split, count=3, first=4):
    [shard] = (folder / 'pictures' / '1.0.0').glob(f'pictures-{split}.array_record-*')
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2

    reader = array_record_module.ArrayRecordReader(str(shard))
    examples = reader.read_all()
    reader.close()
    writer = array_record_module.ArrayRecordWriter(str(shard), 'group_size:1,uncompressed')
    for number, serialised in enumerate(examples):
        if first <= number < first + count:
            example = tf_example_pb2.Example.FromString(serialised)
            image = example.features.feature['image'].bytes_list
            image.value[0] = image.value[0][: len(image.value[0]) // 3]
            serialised = example.SerializeToString()
        writer.write(serialised)
    writer.close()
    record_source._open.cache_clear()


@pytest.mark.parametrize('workers', [0, 1])
def test_a_bad_record_stops_the_run_and_is_named(digit_set, tmp_path, workers):
    folder = spoil(digit_set, tmp_path, 'train')
    settings_ = config(folder, batch_size=100, workers=workers)
    with pytest.raises(UserError) as caught:
        batches(settings_, count=3)
    assert 'Record ' in str(caught.value)
    assert f'of split "train" in {folder}/pictures/1.0.0 (data set "pictures")' in str(caught.value)
    assert "config.data.on_bad_record='skip'" in str(caught.value)


@pytest.mark.parametrize('workers', [0, 2])
def test_a_bad_record_may_be_replaced(digit_set, tmp_path, workers):
    folder = spoil(digit_set, tmp_path, 'train')
    settings_ = config(folder, batch_size=60, on_bad_record='skip', workers=workers)
    sound = batches(config(digit_set, batch_size=60), count=4)
    found = batches(settings_, count=4)
    source = input_pipeline.open_split(settings_, 'train')
    for ours, theirs in zip(found, sound, strict=True):
        bad = (ours['index'] >= 4) & (ours['index'] < 7)
        np.testing.assert_array_equal(ours['bad'], bad)
        np.testing.assert_array_equal(ours['image'][~bad], theirs['image'][~bad])
        np.testing.assert_array_equal(ours['index'], theirs['index'])
        # 7 is the next that decodes.
        assert (ours['label'][bad] == source.read([7])[0].targets['label']).all()
        assert (ours['mask'] == 1).all()
    assert sum(batch['bad'].sum() for batch in found) >= 2


def test_a_bad_record_is_not_counted_in_evaluation(digit_set, tmp_path):
    folder = spoil(digit_set, tmp_path, 'test', 2)
    with pytest.raises(UserError, match=r'Record 4 of split "test"'):
        list(input_pipeline.batches(config(folder), 'test'))
    found = list(input_pipeline.batches(config(folder, on_bad_record='skip'), 'test'))
    mask = np.concatenate([batch['mask'] for batch in found])
    bad = np.concatenate([batch['bad'] for batch in found])
    assert np.flatnonzero(bad).tolist() == [4, 5]
    assert mask.sum() == input_pipeline.open_split(config(digit_set), 'test').size - 2


def test_a_set_of_bad_records_is_refused(digit_set, tmp_path):
    folder = spoil(digit_set, tmp_path, 'train', 1000)
    with pytest.raises(UserError, match='100 records in a row of the train split'):
        batches(config(folder, batch_size=60, on_bad_record='skip'), count=1)


def test_a_smoke_run_is_evaluated_on_a_sample(digit_set):
    whole = input_pipeline.open_split(config(digit_set), 'train')
    sample = selection.sample(whole, 64)
    labels = [record.targets['label'] for record in sample.read(range(64))]
    assert sample.size == 64 < whole.size
    assert len(set(labels)) == 10  # files are in the order of the classes
    for split in ('train', 'validation'):
        smoke = input_pipeline.open_split(config(digit_set, smoke=True), split)
        assert smoke == input_pipeline.open_split(config(digit_set), split)  # small, or training


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'name': 'picture'}, r'"picture" is not prepared in .*Did you mean "pictures"\?'),
        ({'num_classes': 12}, r'config.data.num_classes=12, but .* has 10 classes'),
        ({'mean': (0.1, 0.2)}, r'config.data.mean has 2 values, but .* 3 channel'),
        ({'train_per_class': 3}, r'train_per_class needs a data set in memory'),
        ({'image_size': None}, r'are streamed with config.data.image_size, such as 224'),
        ({'name': 'digits'}, r'"digits" is held in memory: leave config.data.image_size out'),
        ({'dir': '/nowhere'}, r'"pictures" is not prepared in /nowhere'),
    ],
)
def test_mistakes_are_found_when_the_split_is_opened(digit_set, values, message):
    with pytest.raises(UserError, match=message):
        input_pipeline.open_split(config(digit_set, **values), 'train')
