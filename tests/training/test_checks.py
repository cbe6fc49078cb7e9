"""Fields of data and augmentation: what contradicts is refused, what the step gets of the rest."""

import jax
import pytest

from augmentation import registry as augmentations
from configs import base, schema
from errors import UserError
from training import checks, experiment

STREAMED = {'data.image_size': 224}


def config_of(fields):
    config = base.get_config()
    for name, value in fields.items():
        section, _, leaf = name.rpartition('.')
        with config.ignore_type():
            (config[section] if section else config)[leaf] = value
    return schema.validate(config, base.fields())


PROBE = {'linear_probe': True, 'init_from': 'x'}
ONE_EACH = {
    'augment.shift': 1.0, 'augment.rotate': 1.0, 'augment.scale': 0.1, 'augment.crop': 1,
    'augment.flip': 0.5, 'augment.mixup': 0.2, 'augment.cutmix': 1.0, 'augment.erase': 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        ({'augment.cutmix_share': 0.3}, ['cutmix_share', 'needs both']),
        ({'augment.cutmix_share': 0.3, 'augment.mixup': 1.0}, ['cutmix_share', 'needs both']),
        ({'augment.mix_probability': 0.3}, ['mix_probability needs', 'mixup', 'cutmix']),
        ({'augment.erase_mode': 'zero'}, ['erase_mode needs config.augment.erase']),
        ({'bce_threshold': 0.2}, ['bce_threshold belongs to loss=bce, not softmax']),
        ({'augment.policy': 'randaugment'}, ['augment.policy', 'needs config.data.image_size']),
        ({'augment.color_jitter': (0.1, 0, 0, 0)}, ['color_jitter', 'data.image_size']),
        ({'data.eval_image_size': 32}, ['data.eval_image_size', 'data.image_size']),
        ({'data.eval_resize': 32}, ['data.eval_resize', 'data.image_size']),
        ({'data.crop_scale': (0.5, 1)}, ['data.crop_scale', 'data.image_size']),
        ({'data.crop_ratio': (1, 1)}, ['data.crop_ratio', 'data.image_size']),
        ({'data.repeats': 2}, ['data.repeats', 'data.image_size']),
        ({'data.on_bad_record': 'skip'}, ['data.on_bad_record', 'data.image_size']),
        ({'augment.layers': 3}, ['augment.layers belongs to augment.policy=randaugment']),
        ({'augment.magnitude': 3.0}, ['augment.magnitude belongs', 'randaugment']),
        ({**STREAMED, 'augment.policy': 'trivialaugment', 'augment.magnitude_std': 0.5},
         ['augment.magnitude_std belongs', 'not trivialaugment']),
        ({**STREAMED, 'augment.op_probability': 0.5}, ['op_probability belongs', 'not none']),
        ({**STREAMED, 'augment.crop': 4}, ['augment.crop is for sets in memory', 'crop_scale']),
        ({**STREAMED, 'data.crop_scale': (0.5,)}, ['data.crop_scale', 'two increasing']),
        ({**STREAMED, 'data.crop_scale': (0.9, 0.5)}, ['data.crop_scale', 'two increasing']),
        ({**STREAMED, 'data.crop_scale': (0.0, 0.5)}, ['data.crop_scale', 'greater than 0']),
        ({**STREAMED, 'data.crop_scale': (0.5, 1.5)}, ['data.crop_scale', 'at most']),
        ({**STREAMED, 'data.crop_ratio': (2, 1)}, ['data.crop_ratio', 'two increasing']),
        ({**STREAMED, 'augment.color_jitter': (0.1,)}, ['color_jitter', 'four numbers']),
        ({**STREAMED, 'augment.color_jitter': (0.1, -0.1, 0, 0)}, ['color_jitter', 'least 0']),
        ({**STREAMED, 'augment.color_jitter': (0, 0, 0, 0.6)}, ['color_jitter', 'at most 0.5']),
        ({**STREAMED, 'data.eval_resize': 200}, ['eval_resize=200', 'smaller', '224']),
        ({**STREAMED, 'data.eval_resize': 240, 'data.eval_image_size': 256}, ['240', '256']),
        *(({**PROBE, name: value}, ['linear_probe', name]) for name, value in ONE_EACH.items()),
        ({**PROBE, **STREAMED, 'augment.policy': 'trivialaugment'}, ['probe', 'augment.policy']),
        ({**PROBE, **STREAMED, 'augment.flip': 0.5}, ['linear_probe', 'augment.flip']),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused(fields, words):
    with pytest.raises(UserError) as caught:
        checks.check(config_of(fields))
    text = str(caught.value)
    for word in words:
        assert word in text
    assert text.count('. ') == 0, 'one sentence'


@pytest.mark.parametrize(
    'fields',
    [
        {**ONE_EACH, 'augment.cutmix_share': 0.3, 'augment.erase_mode': 'zero'},
        {'loss': 'bce', 'bce_threshold': 0.0},
        {'augment.cutmix': 1.0, 'augment.mix_probability': 0.3},
        {**STREAMED, 'augment.policy': 'randaugment', 'augment.layers': 3},
        {**STREAMED, 'augment.shift': 3.0, 'augment.flip': 0.5, 'data.repeats': 3},
        {**STREAMED, 'data.crop_scale': (1, 1), 'data.crop_ratio': (1, 1)},
        {**STREAMED, 'augment.color_jitter': (0.4, 2, 0, 0.5), 'data.eval_resize': 224},
        PROBE,
    ],
)
def test_what_belongs_together_is_taken(fields):
    checks.check(config_of(fields))


def names_in_step(config):
    return [applied.name for applied in augmentations.applied(config)]


def test_the_step_gets_what_is_on_and_its_strengths():
    config = config_of(ONE_EACH)
    assert names_in_step(config) == ['affine', 'crop', 'flip', 'erase', 'mixing'], 'in this order'
    static = {a.name: dict(a.static) for a in augmentations.applied(config)}
    assert static.pop('erase') == {'erase_mode': 'noise'}
    assert not any(static.values())
    hyper = experiment.hyperparameters(config)
    wanted = {name.partition('.')[2] for name in ONE_EACH} | {'mix_probability', 'cutmix_share'}
    assert wanted <= hyper.keys()

    off = config_of({})
    assert names_in_step(off) == []
    assert not wanted & experiment.hyperparameters(off).keys()

    one = config_of({'augment.mixup': 0.3, 'augment.erase': 0.2, 'augment.erase_mode': 'zero'})
    erase, mixing = augmentations.applied(one)
    assert (erase.name, mixing.name) == ('erase', 'mixing')
    assert dict(erase.static) == {'erase_mode': 'zero'}
    assert hash((erase, mixing)) == hash(augmentations.applied(one)), 'as static arguments need it'
    names = experiment.hyperparameters(one).keys() & wanted
    assert names == {'mixup', 'mix_probability', 'erase'}


def test_a_streamed_set_is_mirrored_on_the_host_alone():
    config = config_of({**STREAMED, 'augment.flip': 0.5})
    assert names_in_step(config) == []
    assert augmentations.on_host(config) != augmentations.on_host(config_of(STREAMED))
    assert 'flip' not in experiment.hyperparameters(config)


@pytest.mark.parametrize('name', ['augment.mixup', 'augment.cutmix'])
@pytest.mark.parametrize(
    ('batch', 'accumulate', 'devices', 'sizes'),
    [
        (8, 1, 8, '16 or 32'),
        (7, 1, 1, '6 or 8'),
        (24, 1, 8, '16 or 32'),
        (24, 3, 8, '48 or 96'),
        (40, 5, 8, '80 or 160'),
    ],
)
def test_pairs_have_to_lie_within_a_device(name, batch, accumulate, devices, sizes):
    fields = {'batch_size': batch, 'accumulate': accumulate}
    checks.check_devices(config_of(fields), devices)
    with pytest.raises(UserError, match=f'pairs .* choose {sizes}'):
        checks.check_devices(config_of({**fields, name: 1.0}), devices)
    for size in map(int, sizes.split(' or ')):
        checks.check_devices(config_of({**fields, name: 1.0, 'batch_size': size}), devices)


@pytest.mark.parametrize(
    ('fields', 'shape', 'parameters', 'words'),
    [
        (
            {},
            (28, 28, 1),
            10**10,
            'The state of config.model.name=lenet .* takes 40.0 GB .* are 8.0 GB',
        ),
        ({'batch_size': 10**6}, (224, 224, 3), 10, 'A batch of 224x224x3 pixels .* config.batch'),
        ({'data.workers': 1000}, (28, 28, 1), 10, 'config.data.workers=1000 .* choose fewer'),
        (
            {'data.image_size': 224, 'data.eval_image_size': 9999},
            (224, 224, 3),
            10,
            'A batch in evaluation .* smaller config.eval_batch_size',
        ),
    ],
)
def test_what_no_machine_holds_is_refused_before_it_is_allocated(
    fields, shape, parameters, words, monkeypatch
):
    monkeypatch.setattr('distributed.devices.host_memory', lambda: 8_000_000_000)
    state = {'kernel': jax.ShapeDtypeStruct((parameters,), 'float32')}
    sound = {'kernel': jax.ShapeDtypeStruct((10**8,), 'float32')}
    checks.check_memory(config_of({}), (224, 224, 3), sound, jax.devices())
    with pytest.raises(UserError, match=f'^{words}'):
        checks.check_memory(config_of(fields), shape, state, jax.devices())
