"""An augmentation from outside, and targets that move, in all that follows from a row."""

import contextlib
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from augmentation import augment
from augmentation import registry as augmentations
from augmentation.row import Applied, Augmentation, Stage
from configs import base, reading, schema, search
from data_sources.draws import Draws
from data_sources.label_maps import LabelMap
from data_sources.targets import Label, Points
from errors import UserError
from field import Field
from sweeps import population
from tasks import registry
from tasks.classification import Classification
from tests.training import probe
from tests.training.test_checks import config_of
from tools import show_batch
from training import checks, experiment, inputs, step

DIGITS = '--config=configs/digits_lenet.py'


def dim(images, batch, hyper, dim_mode):
    """Takes away a random fraction of the light, of each image or of its lower half."""
    draws = jax.vmap(jax.random.uniform)(augment.keys('dim', batch, hyper))
    factor = (1 - hyper['dim'] * draws)[:, None, None, None]
    if dim_mode == 'all':
        return images * factor
    lower = jnp.arange(images.shape[1]) >= images.shape[1] / 2
    return images * jnp.where(lower[None, :, None, None], factor, 1.0)


def dim_on_host(image, draws, dim, dim_mode):
    """The same of a decoded picture."""
    if not dim:
        return image, ()
    return np.uint8(image * (1 - dim * draws.uniform())), ()


DIM = Augmentation(
    'dim',
    fields=(
        Field('augment.dim', 0.0, 'Largest fraction of light taken away.', low=0, high=1,
              traced=True),
        Field('augment.dim_mode', 'all', 'What is dimmed.', choices=('all', 'lower')),
    ),
    usual={'dim': {'dim': 0.5}},
    device=dim,
    stage=Stage.PIXELS,
)  # fmt: skip


@contextlib.contextmanager
def registered(row):
    augmentations.register(row)
    try:
        yield row
    finally:
        augmentations.unregister(row.name)


@pytest.fixture
def dimming():
    with registered(DIM) as row:
        yield row


def dimmed(images, hyper, mode='all', first=0):
    index = np.arange(first, first + len(images), dtype=np.int32)
    batch = {'index': index, 'epoch': np.zeros_like(index)}
    return np.asarray(dim(images, batch, hyper, mode))


# --- an augmentation from outside -------------------------------------------------------------


@pytest.mark.parametrize('mode', ['all', 'lower'])
def test_one_from_outside_is_in_the_step(dimming, mode):
    """Before a flip, as its stage says, and whatever was registered first."""
    fields = {'augment.dim': 0.5, 'augment.dim_mode': mode, 'augment.flip': 1.0}
    config = config_of(fields)
    checks.check(config)
    spec = probe.spec(4, augmentations=augmentations.applied(config))
    assert [applied.name for applied in spec.augmentations] == ['dim', 'flip']
    hyper = probe.hyper(3, **augmentations.scalars(config))
    assert hyper['dim'] == np.float32(0.5)
    assert experiment.hyperparameters(config).keys() >= {'dim', 'flip'}
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 1)).astype(np.uint8)
    batch = {
        'image': pixels,
        'label': np.arange(4, dtype=np.int32),
        'index': np.arange(4, dtype=np.int32),
        'epoch': np.zeros(4, np.int32),
        'mask': np.ones(4, np.float32),
    }
    _, metrics = step.train_step(spec, probe.start((6, 5, 1)), hyper, batch, {})
    plain = pixels.astype(np.float32) / 255
    expected = dimmed(plain, hyper, mode)[:, :, ::-1].reshape(4, -1)
    np.testing.assert_allclose(metrics['seen'], expected, atol=1e-6)
    assert np.abs(expected - plain[:, :, ::-1].reshape(4, -1)).max() > 0.05


def test_one_from_outside_is_checked(dimming):
    with pytest.raises(UserError, match=r'dim_mode needs config.augment.dim'):
        checks.check(config_of({'augment.dim_mode': 'lower'}))
    with pytest.raises(UserError, match=r'linear_probe .* config.augment.dim must be 0.0'):
        checks.check(config_of({'augment.dim': 0.1, 'linear_probe': True, 'init_from': 'x'}))
    with pytest.raises(UserError, match=r'augment.dim must be at most 1'):
        config_of({'augment.dim': 2.0})
    checks.check(config_of({'augment.dim': 0.1, 'data.image_size': 32}))


@pytest.mark.parametrize(
    ('row', 'fields', 'message'),
    [
        (dataclasses.replace(DIM, streamed=False, instead='is bright enough'),
         {'data.image_size': 32}, r'is for sets in memory, .* \(config.data.*\), which is bright'),
        (dataclasses.replace(DIM, device=None, stage=None, host=dim_on_host), {},
         'augment.dim is for streamed sets: it needs config.data.image_size'),
    ],
)  # fmt: skip
def test_one_is_refused_where_it_does_not_belong(row, fields, message):
    with registered(row), pytest.raises(UserError, match=message):
        checks.check(config_of({'augment.dim': 0.5, **fields}))


def test_one_for_both_runs_on_the_host_for_a_streamed_set():
    with registered(dataclasses.replace(DIM, host=dim_on_host)):
        streamed = config_of({'augment.dim': 0.5, 'data.image_size': 32})
        checks.check(streamed)
        assert augmentations.applied(streamed) == ()
        image = np.full((4, 4, 3), 200, np.uint8)
        changed = augmentations.on_host(streamed)(image, Draws(0, 'augment', 0, 0))
        assert 100 <= changed.max() < 200
        in_memory = config_of({'augment.dim': 0.5})
        assert [applied.name for applied in augmentations.applied(in_memory)] == ['dim']


def test_one_from_outside_may_vary_in_a_sweep(dimming):
    assert 'augment.dim' in population.values()
    assert 'augment.dim_mode' not in population.values()
    weak, strong, off = (config_of({'augment.dim': value}) for value in (0.1, 0.5, 0.0))
    lower = config_of({'augment.dim': 0.1, 'augment.dim_mode': 'lower'})
    assert population.alike(weak) == population.alike(strong)
    assert population.alike(weak) not in (population.alike(off), population.alike(lower))
    sweep = search.Sweep({'augment.dim': search.Float(0.1, 0.9)})
    search.check(sweep)


def test_one_from_outside_is_in_help_and_on_the_command_line(dimming):
    text = train.parser().format_help()
    assert 'augment.dim ' in text
    assert 'Largest fraction of light taken away.' in text
    config = reading.from_arguments('configs/digits_lenet.py', ['--config.augment.dim=0.25'])
    assert config.augment.dim == 0.25


def test_one_from_outside_has_a_contact_sheet(dimming, tmp_path):
    from tests.tools.test_show_batch import read, tiles

    out, arguments = tmp_path / 'on', ['--count=2', '--config.augment.dim=0.75']
    assert show_batch.main([DIGITS, f'--out={out}', *arguments]) == 0
    assert {path.stem for path in out.iterdir()} == {'batch', 'affine', 'dim'}
    sheet = tiles(read(out / 'dim.png'), 28, 2, 7)[..., 0]
    for plain, *visits in sheet.astype(float):
        for tile in visits:
            factor = tile.max() / plain.max()
            assert 0.24 <= factor <= 1
            np.testing.assert_allclose(tile, factor * plain, atol=1)
    assert show_batch.main([DIGITS, f'--out={tmp_path / "all"}', '--count=2', '--all']) == 0
    assert (tmp_path / 'all' / 'dim.png').exists(), 'at its usual strength'


def test_what_is_unregistered_leaves_nothing(tmp_path):
    before = base.fields(), population.values()
    with registered(DIM):
        assert base.fields() != before[0]
    assert (base.fields(), population.values()) == before
    with pytest.raises(UserError, match=r'augment.dim is not a field'):
        reading.from_arguments('configs/digits_lenet.py', ['--config.augment.dim=0.25'])


def test_names_that_are_taken_are_refused():
    for name, match in (
        ('augment.flip', 'augment.flip'),
        ('augment.learning_rate', 'learning_rate'),
    ):
        field = Field(name, 0.0, 'Something else.', traced=True)
        row = Augmentation('own', (field,), {'own': {field.leaf: 1.0}}, dim, Stage.PIXELS)
        with registered(row), pytest.raises(ValueError, match=f'are named.* {match}.*: rename one'):
            base.fields()
    again = dataclasses.replace(DIM, streamed=False)
    with registered(DIM):
        assert augmentations.register(again) in augmentations.rows(), 'a cell that is run twice'


@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'stage': None}, 'a stage belongs to a device function'),
        ({'usual': {'dim': {'bright': 1.0}}}, 'a usual strength of no field'),
        ({'fields': (Field('dim', 0.0, 'Elsewhere.'),)}, 'have to be named augment'),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(DIM, **changes)


def test_rows_have_what_everything_derives_from():
    """No field of augmentation stands elsewhere, and every sheet is off by default."""
    config = base.get_config()
    leaves = [field.leaf for field in augmentations.fields()]
    assert sorted(config.augment) == sorted(leaves)
    assert augmentations.applied(config) == ()
    assert augmentations.scalars(config) == {}
    for row in augmentations.rows():
        assert not row.is_on(config)
        for strengths in row.usual.values():
            on = schema.validate(config, base.fields())
            on.augment.update(strengths)
            assert row.is_on(schema.validate(on, base.fields()))


# --- targets that move ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Places(Classification):
    """A class, some points and a map: what its targets are in the step is what is tested."""

    name = 'places'
    fields = ()
    targets: ClassVar = {'label': Label(), 'points': Points(), 'map': LabelMap(fill=7)}


@pytest.fixture
def places():
    registry.register(Places)
    yield Places
    del registry._TASKS[Places.name]


def spotted(count, seed=0):
    """Images of one bright pixel each, its place, and a map that is 1 there."""
    draw = np.random.default_rng(seed)
    points = draw.integers((5, 4), (11, 9), (count, 2))
    images = np.zeros((count, 16, 13, 1), np.uint8)
    images[np.arange(count), points[:, 0], points[:, 1]] = 255
    return {
        'image': images,
        'points': points[:, None].astype(np.float32),
        'map': (images[..., 0] > 0).astype(np.uint8),
        'label': np.arange(count, dtype=np.int32),
        'index': np.arange(count, dtype=np.int32),
        'epoch': np.zeros(count, np.int32),
        'mask': np.ones(count, np.float32),
    }


def step_inputs(fields, batch, task):
    config = config_of(fields)
    spec = dataclasses.replace(
        probe.spec(4, augmentations=augmentations.applied(config)), task=task
    )
    hyper = probe.hyper(3, **augmentations.scalars(config))
    made = jax.jit(lambda batch: inputs.training_inputs(spec, batch, hyper))
    return {name: np.asarray(array) for name, array in made(batch).items()}


def test_targets_of_a_task_move_with_its_images(places):
    batch = spotted(32)
    fields = {'augment.crop': 4, 'augment.flip': 0.5}
    part = step_inputs(fields, batch, Places(32))
    np.testing.assert_array_equal(part['label'], batch['label'])
    for image, label_map, (point,) in zip(
        part['inputs'][..., 0], part['map'], part['points'], strict=True
    ):
        np.testing.assert_array_equal(np.argwhere(image == 1), [np.rint(point)])
        np.testing.assert_array_equal(label_map == 1, image == 1)
    assert (part['map'] == 7).any(), 'zeros of the crop belong to no class'
    moved = (part['points'] != batch['points']).any((1, 2))
    assert moved.mean() > 0.8


def test_without_a_target_that_moves_nothing_is_added(places):
    """Made where they are not asked for, matrices would be dead operations of the step."""
    asked = []

    def still(images, batch, hyper):
        return images, lambda: asked.append(1) or jnp.zeros((8, 2, 3))

    applied = (Applied('still', Stage.GEOMETRY, still),)
    for task, times in ((Classification(8), 0), (Places(8), 1)):
        spec = dataclasses.replace(probe.spec(8, augmentations=applied), task=task)
        inputs.training_inputs(spec, spotted(8), probe.hyper())
        assert len(asked) == times


@pytest.mark.parametrize('name', ['mixup', 'cutmix'])
def test_a_task_whose_targets_do_not_mix_refuses_mixtures(places, name):
    fields = {'task': 'places', f'augment.{name}': 0.2}
    with pytest.raises(UserError, match=rf'augment.{name} mixes .* points \(Points\)'):
        augmentations.check(config_of(fields))
    augmentations.check(config_of({'task': 'places', 'augment.flip': 0.5}))
    augmentations.check(config_of({f'augment.{name}': 0.2}))
