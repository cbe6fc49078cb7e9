"""A task whose target is no label: its data set, batches, streams, placement and features.

No file of the product knows the target 'angle' or the set "turned".
"""

import io
import itertools

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import input_pipeline
from configs import base
from data_sources import arrays
from data_sources.label_maps import LabelMap
from data_sources.targets import Label, Points, Vector
from errors import UserError
from tasks import registry
from tests.support_targets import SIZES, Turned, turned, write_set
from tools.preflight import prepared, sampling
from training import experiment, inputs, linear_probe
from training.placement import Placement
from training.runner import Runner


class Both(Turned):
    """Two targets at once."""

    name = 'both'
    targets = {'label': Label(), 'angle': Vector(1)}  # noqa: RUF012


@pytest.fixture(autouse=True)
def registered(own_are_forgotten, monkeypatch):
    """The tasks and the set "turned", known for as long as a test runs."""
    monkeypatch.setattr(arrays, 'EMBEDDED', dict(arrays.EMBEDDED))
    for task in (Turned, Both, Located):
        registry.register(task)
    arrays.register('turned', turned)


def config(task='turned', **values):
    result = base.get_config()
    result.task, result.data.name = task, 'turned'
    result.model.name, result.batch_size, result.eval_batch_size = 'fcn', 12, 6
    with result.ignore_type():
        result.model.units, result.model.depth = 4, 1
        for name, value in values.items():
            owner = result.data if name in result.data else result
            owner[name] = value
    return result


# --- in memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize('split', SIZES)
def test_a_registered_set_opens_with_the_targets_of_the_task(split):
    source = input_pipeline.open_split(config(), split)
    assert (source.size, source.kinds, source.class_names) == (SIZES[split], Turned.targets, ())
    input_pipeline.check_test_split(config())


def test_training_batches_hold_the_target_of_their_indices():
    source = turned('train')
    [batch] = itertools.islice(input_pipeline.batches(config(), 'train', 2), 1)
    assert batch.keys() == {'image', 'angle', 'index', 'epoch', 'mask'}
    np.testing.assert_array_equal(batch['angle'], source.targets['angle'][batch['index']])
    np.testing.assert_array_equal(batch['image'], source.images[batch['index']])


def test_evaluation_batches_hold_the_target_in_order():
    found = list(input_pipeline.batches(config(), 'test'))
    mask, angle = (np.concatenate([batch[name] for batch in found]) for name in ('mask', 'angle'))
    np.testing.assert_array_equal(angle[mask > 0], turned('test').targets['angle'])
    assert {batch['angle'].shape for batch in found} == {(6, 1)}


def test_a_target_that_the_set_lacks_is_said_with_the_task():
    with pytest.raises(UserError) as caught:
        input_pipeline.open_split(config(name='digits'), 'train')
    assert str(caught.value) == (
        'Data set "digits" has no "angle"; it has label. config.task=turned needs it.'
    )


def test_examples_without_classes_are_not_counted_by_class():
    with pytest.raises(UserError, match=r'train_per_class counts .* config.task \(angle\) are no'):
        input_pipeline.open_split(config(train_per_class=2), 'train')


def test_a_number_of_classes_is_missed():
    with pytest.raises(UserError, match='num_classes=3, but data set "turned" in data has 0 '):
        input_pipeline.open_split(config(num_classes=3), 'train')


def test_a_registered_set_is_not_streamed():
    with pytest.raises(
        UserError, match=r'"turned" is held in memory: leave config.data.image_size'
    ):
        input_pipeline.open_split(config(image_size=8), 'train')


def ready(**values):
    """An experiment, its runner on one device, and its training split."""
    found, split = experiment.open_train(config(**values))
    return found, Runner(found.spec(), 'pmap', jax.devices()[:1]), split


@pytest.mark.parametrize('placement', ['device', 'host'])
def test_placement_brings_the_target_to_the_step(placement):
    found, runner, split = ready(placement=placement)
    place = Placement(runner, split, found.config)
    assert place.resident is (placement == 'device')
    batch = next(place.train_batches(3))
    assert ('angle' in batch) is (placement == 'host')
    local, dataset = jax.tree.map(lambda x: np.asarray(x)[0], batch), jax.device_get(place.dataset)
    whole = inputs.gathered(local, dataset)
    np.testing.assert_array_equal(whole['angle'], split.targets['angle'][whole['index']])

    state = runner.replicate(found.initial_state(runner.spec))
    hyper = runner.replicate(experiment.hyperparameters(found.config))
    _, metrics = runner.train(state, hyper, batch, place.dataset)
    assert float(metrics['angles']) == pytest.approx(whole['angle'].sum(), rel=1e-6)


@pytest.mark.parametrize('placement', ['device', 'host'])
def test_evaluation_counts_every_target_once(placement):
    found, runner, _ = ready(placement=placement)
    split = input_pipeline.open_split(found.config, 'validation')
    place = Placement(runner, split, found.config)
    variables = runner.replicate(found.initial_state(runner.spec).variables())
    sums = [runner.evaluate(variables, batch, place.dataset)[0] for batch in place.eval_batches()]
    assert sum(int(one['count']) for one in sums) == SIZES['validation']
    angles = sum(float(one['angles']) for one in sums)
    assert angles == pytest.approx(split.targets['angle'].sum(), rel=1e-6)


@pytest.mark.parametrize('placement', ['device', 'host'])
def test_a_linear_probe_keeps_the_target(placement, monkeypatch):
    monkeypatch.setattr(linear_probe, 'BATCH', 20)  # 48 examples in three calls, the last padded
    found, runner, split = ready(placement=placement)
    state = found.initial_state(runner.spec)
    probe = linear_probe.compute(
        found.config, runner.spec, state.variables(), split, jax.devices()[:1]
    )
    assert probe.arrays.keys() == {'features', 'angle'}
    np.testing.assert_array_equal(probe.targets['angle'], split.targets['angle'])
    assert (probe.size, len(probe.features)) == (SIZES['train'], SIZES['train'])
    place = Placement(runner, probe, found.config)
    hyper = runner.replicate(experiment.hyperparameters(found.config))
    batch = next(place.train_batches(0))
    _, metrics = runner.train(runner.replicate(state), hyper, batch, place.dataset)
    chosen = next(input_pipeline.train_batches(found.config, split.size))['index']
    expected = split.targets['angle'][chosen].sum()
    assert float(metrics['angles']) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize('placement', ['device', 'host'])
def test_preflight_compiles_what_a_run_calls(placement):
    settings = config(placement=placement)
    found, splits = prepared.open_splits(settings)
    run = prepared.prepare(found, found.spec(), splits, jax.devices()[:1])
    assert sampling.check(splits, skip=False).text.startswith('all 72 are in memory')
    batch = next(run.used[0].place.train_batches(0))
    state, hyper = run.runner.replicate(run.state), run.runner.replicate(run.hyper)
    run.programs[0](state, hyper, batch, run.used[0].place.dataset)


# --- streamed -------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def streamed(digit_set, tmp_path_factory):
    """A data folder with the streamed set "angles": JPEGs with labels and angles."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp('angles')
    files = sorted(digit_set.glob('source/*/*.jpg'))
    splits = {}
    for number, (split, size) in enumerate(SIZES.items()):
        splits[split] = [
            {
                'image': file.read_bytes(),
                'label': int(file.parent.name),
                'angle': draw.normal(size=1).astype(np.float32),
            }
            for file in files[number :: len(SIZES)][:size]
        ]
    features = {
        'image': tfds.features.Image(shape=(None, None, 3), encoding_format='jpeg'),
        'label': tfds.features.ClassLabel(num_classes=10),
        'angle': tfds.features.Scalar(dtype=np.float32),
    }
    write_set(folder, 'angles', features, splits)
    return folder, splits


def stream_config(streamed, task='both', **values):
    folder, _ = streamed
    return config(task, **{'name': 'angles', 'dir': str(folder), 'image_size': 16} | values)


def first_batches(settings, count=5):
    found = iter(
        input_pipeline.train_stream(settings, input_pipeline.open_split(settings, 'train'))
    )
    try:
        return list(itertools.islice(found, count))
    finally:
        found.close()


@pytest.mark.parametrize('workers', [0, 2])
def test_a_stream_stacks_every_target(streamed, workers):
    examples = streamed[1]['train']
    for batch in first_batches(stream_config(streamed, workers=workers)):
        assert batch.keys() == {'image', 'label', 'angle', 'index', 'epoch', 'mask'}
        assert (batch['label'].dtype, batch['label'].shape) == (np.int32, (12,))
        assert (batch['angle'].dtype, batch['angle'].shape) == (np.float32, (12, 1))
        for row, example in enumerate(batch['index']):
            assert batch['label'][row] == examples[example]['label']
            assert batch['angle'][row] == examples[example]['angle']


def test_a_stream_has_the_targets_of_the_task_alone(streamed):
    both, alone = (first_batches(stream_config(streamed, task)) for task in ('both', 'turned'))
    for ours, theirs in zip(alone, both, strict=True):
        assert ours.keys() == theirs.keys() - {'label'}
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs[name])


def test_streamed_evaluation_holds_every_target_once(streamed):
    settings = stream_config(streamed)
    found = list(input_pipeline.batches(settings, 'test'))
    mask = np.concatenate([batch['mask'] for batch in found]) > 0
    for name in ('label', 'angle'):
        values = np.concatenate([batch[name] for batch in found])[mask]
        np.testing.assert_array_equal(values, [row[name] for row in streamed[1]['test']])


def test_a_replacement_brings_its_own_targets(streamed, tmp_path):
    """A picture that does not decode is replaced with all that belongs to the next one."""
    features, splits = tfds.builder_from_directory(streamed[0] / 'angles/1.0.0'), dict(streamed[1])
    splits['train'] = [dict(row) for row in splits['train']]
    splits['train'][4]['image'] = b'no picture'
    write_set(tmp_path, 'angles', dict(features.info.features), splits)
    settings = stream_config((tmp_path, splits), on_bad_record='skip')
    rows = [
        (int(batch['label'][row]), float(batch['angle'][row, 0]))
        for batch in first_batches(settings)
        for row in np.flatnonzero(batch['index'] == 4)
    ]
    assert rows
    assert set(rows) == {(splits['train'][5]['label'], float(splits['train'][5]['angle'][0]))}


def test_a_streamed_set_is_placed_with_its_targets(streamed):
    settings = stream_config(streamed, mean=(0.5,), std=(0.5,))
    found, split = experiment.open_train(settings)
    runner = Runner(found.spec(), 'pmap', jax.devices()[:1])
    place = Placement(runner, split, found.config)
    state = runner.replicate(found.initial_state(runner.spec))
    hyper = runner.replicate(experiment.hyperparameters(found.config))
    batches = place.train_batches(0)
    batch = next(batches)
    angles = float(np.asarray(batch['angle']).sum())
    _, metrics = runner.train(state, hyper, batch, place.dataset)
    batches.close()
    assert float(metrics['angles']) == pytest.approx(angles, rel=1e-6)


def test_what_a_streamed_set_lacks_is_said_with_the_task(digit_set):
    settings = stream_config((digit_set, None), 'turned', name='pictures')
    with pytest.raises(
        UserError, match=r'has no "angle"; it has .* config.task=turned needs it\.$'
    ):
        input_pipeline.open_split(settings, 'train')
    with pytest.raises(UserError, match=r'has no "angle"; it has '):
        input_pipeline.check_test_split(settings)


class Located(Turned):
    """Two targets that move with the pixels: where a spot is, and which pixels are its."""

    name = 'located'
    targets = {'place': Points(), 'spot': LabelMap()}  # noqa: RUF012


@pytest.fixture(scope='module')
def located(tmp_path_factory):
    """A set of pictures of many sizes, each with a white square of 9 pixels' side on black."""
    folder, draw = tmp_path_factory.mktemp('located'), np.random.default_rng(0)
    splits = {
        split: [spotted(draw) for _ in range(24)] for split in ('train', 'validation', 'test')
    }
    features = {
        'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
        'place': tfds.features.Tensor(shape=(2,), dtype=np.float32),
        'spot': tfds.features.LabeledImage(
            labels=['ground', 'spot'], shape=(None, None, 1), encoding_format='png'
        ),
    }
    write_set(folder, 'located', features, splits)
    return folder


def spotted(draw):
    height, width = (int(side) for side in draw.integers(60, 120, 2))
    y, x = int(draw.integers(10, height - 10)), int(draw.integers(10, width - 10))
    spot = np.zeros((height, width), np.uint8)
    spot[y - 4 : y + 5, x - 4 : x + 5] = 1
    return {
        'image': as_png(255 * np.repeat(spot[..., None], 3, axis=-1)),
        'place': np.array([y, x], np.float32),
        'spot': as_png(spot),
    }


def as_png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format='PNG')
    return file.getvalue()


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_targets_of_a_stream_move_with_their_pixels(located, split):
    values = {'name': 'located', 'image_size': 64, 'crop_scale': (0.3, 1.0)}
    settings = stream_config((located, None), 'located', **values)
    settings.augment.flip = 0.5
    seen = 0
    for batch in itertools.islice(input_pipeline.batches(settings, split), 3):
        for image, place, spot in zip(batch['image'], batch['place'], batch['spot'], strict=True):
            bright = image[..., 0] > 127
            # They differ by pixels at the edge, which are resized in one and chosen in the other.
            assert (bright != spot.astype(bool)).sum() <= 0.35 * max(bright.sum(), 30)
            if ((place > 8) & (place < 55)).all():  # the whole spot is in the image
                middle = np.argwhere(bright).mean(axis=0)
                np.testing.assert_allclose(middle, place, atol=1.0)
                seen += 1
    assert seen > 5
