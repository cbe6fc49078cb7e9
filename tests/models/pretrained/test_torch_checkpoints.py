"""Which of the tensors in a checkpoint are the network's, whoever wrote it."""

import argparse

import numpy as np
import pytest

from errors import UserError
from models.pretrained import torch_checkpoints, torch_weights
from models.pretrained.torch_files import read
from tests.models.pretrained.torch_writer import FORMATS, Named, named, pickled, write

MODEL = 'resnet18'


def network(model=MODEL, layout='torchvision', classes=3):
    """A state dict with the model's names and shapes, whose zeros take no memory."""
    found = {}
    for tensor in torch_weights.tensors(model, layout, classes, 3):
        found[tensor.key] = zeros(*tensor.torch_shape)
        if tensor.key.endswith('running_var'):
            found[tensor.key.replace('running_var', 'num_batches_tracked')] = np.array(5)
    return found


def zeros(*shape):
    return np.broadcast_to(np.float32(0), shape)


def under(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


RAW, EMA = network(), network()
PARAMETERS = {n: t for n, t in EMA.items() if 'running' not in n and 'tracked' not in n}
COUNT = np.array(3)
SLOTS = {'state': {0: {'momentum_buffer': zeros(64, 3, 7, 7)}}, 'param_groups': [{'params': [0]}]}
BY_NAME = {'state': {n: {'exp_avg': t} for n, t in PARAMETERS.items()}, 'param_groups': []}

# name -> (content, the keys of the weights); all of them have RAW.
ONE = {
    'bare': RAW,
    'torchvision': {'model': RAW, 'optimizer': SLOTS, 'epoch': 1},
    'an example of PyTorch': {
        'state_dict': under('module.', RAW), 'best_acc1': np.array(70.0), 'optimizer': SLOTS,
    },
    'lightning': {
        'state_dict': under('model.', RAW), 'optimizer_states': [SLOTS],
        'loops': {'state_dict': {}},
        'callbacks': {'ModelCheckpoint': {'best_model_score': np.array(0.5)}},
    },
    'tutorial': {'model_state_dict': RAW, 'loss': np.array(0.5), 'optimizer_state_dict': SLOTS},
    'compiled': under('_orig_mod.', RAW),
    'compiled in parallel': under('module._orig_mod.', RAW),
    'parallel and compiled': {'model': under('_orig_mod.module.', RAW)},
    'compiled by layer': {n.replace('layer1.', 'layer1._orig_mod.'): t for n, t in RAW.items()},
    'sharded and checkpointed': {
        'model': under('module._fsdp_wrapped_module.', {
            n.replace('layer1.0.', 'layer1._checkpoint_wrapped_module.0._fsdp_wrapped_module.'): t
            for n, t in RAW.items()
        })
    },
    'a backbone': under('backbone.', network(classes=0)),
    'an encoder': {'state_dict': under('encoder.', RAW)},
    'a network': {'network': under('network.net.', RAW)},
    'an own name': under('feature_extractor.', RAW),
    'averaged model': {'n_averaged': COUNT, **under('module.', RAW)},
    'averaged parallel model': {'n_averaged': COUNT, **under('module.module.', RAW)},
    'deep': {'checkpoint': {'net': RAW}},
    'a tuple': (RAW, SLOTS),
    'by epoch': {5: RAW},
    'optimizer by name': {'model': RAW, 'optimizer': BY_NAME},
    'momentum by name': {'model': RAW, 'exp_avg': dict(PARAMETERS)},
    'a loss beside it': {'model': RAW, 'criterion': {'weight': zeros(3)}},
    'another network beside it': {'student': RAW, 'teacher': network('resnet50')},
    'twice the same': {'model': RAW, 'state_dict': RAW},
    'transformers': under('module.', network(layout='huggingface')),
    'without a head': {
        'model': {
            name.removeprefix('resnet.'): tensor
            for name, tensor in network(layout='huggingface', classes=0).items()
        }
    },
}  # fmt: skip


@pytest.mark.parametrize('case', ONE)
def test_one_set_of_weights_is_found(case):
    chosen, _ = torch_checkpoints.choose(ONE[case], MODEL)
    variables, _ = torch_weights.from_torch(chosen.tensors, MODEL)
    assert variables['params']['stem']['conv']['kernel'].shape == (7, 7, 3, 64)
    assert chosen.averaged == case.startswith('averaged')


# name -> (content, {key: averaged})
SEVERAL = {
    'timm': ({'state_dict': RAW, 'state_dict_ema': EMA}, {'state_dict': 0, 'state_dict_ema': 1}),
    'torchvision': (
        {'model': RAW, 'model_ema': {'n_averaged': COUNT, **under('module.', EMA)}},
        {'model': 0, 'model_ema': 1},
    ),
    'names alike, n_averaged': (
        {'a': RAW, 'b': {'n_averaged': COUNT, **under('module.', EMA)}}, {'a': 0, 'b': 1},
    ),
    'lightning': (
        {'state_dict': {**under('model.', RAW), **under('ema.module.', EMA)}},
        {'state_dict/model': 0, 'state_dict/ema.module': 1},
    ),
    'a callback of lightning': (
        {'state_dict': under('model.', EMA), 'current_model_state': under('model.', RAW),
         'averaging_state': {'n_averaged': COUNT}},
        {'state_dict': 1, 'current_model_state': 0},
    ),
    'ema_pytorch': (
        {'ema': {'step': COUNT, **under('online_model.', RAW), **under('ema_model.', EMA)}},
        {'ema/online_model': 0, 'ema/ema_model': 1},
    ),
    'bare and averaged': ({**RAW, **under('ema.', EMA)}, {'.': 0, 'ema': 1}),
    'swa': ({'model': RAW, 'swa_model': under('module.', EMA)}, {'model': 0, 'swa_model': 1}),
    'basicsr': ({'params': RAW, 'params_ema': EMA}, {'params': 0, 'params_ema': 1}),
    'best': ({'last': RAW, 'best': EMA}, {'last': 0, 'best': 0}),
    'teacher': ({**under('student.', RAW), **under('teacher.', EMA)}, {'student': 0, 'teacher': 0}),
}  # fmt: skip


@pytest.mark.parametrize('case', SEVERAL)
def test_several_sets_are_named_and_key_chooses(case):
    content, keys = SEVERAL[case]
    with pytest.raises(UserError, match='it has several weights of a resnet18: choose') as error:
        torch_checkpoints.choose(content, MODEL)
    for key, averaged in keys.items():
        kind = 'averaged' if averaged else 'raw'
        assert f'--key={key} ({kind} weights, 122 tensors)' in str(error.value)
        chosen, others = torch_checkpoints.choose(content, MODEL, key=key)
        assert (chosen.key, chosen.averaged) == (key, bool(averaged))
        assert [other.key for other in others] == [other for other in keys if other != key]
        assert chosen.tensors.keys() == RAW.keys()
    raw, averaged = (chosen_tensors(content, key) for key in keys)
    assert raw is not averaged


def chosen_tensors(content, key):
    return torch_checkpoints.choose(content, MODEL, key=key)[0].tensors['fc.weight']


class ResNet:
    pass


def whole_model():
    model = ResNet()
    model.__dict__ |= {'_parameters': {}, '_modules': {'conv1': ResNet()}}
    return model


USELESS = {
    'an object': (whole_model(), '"ema" is a pickled .*ResNet'),
    'a list': ({'shadow_params': [zeros(2), zeros(3)]}, '"ema/shadow_params" is a list of tensors'),
    'parameters alone': (dict(list(PARAMETERS.items())), '"ema" lacks some tensors'),
}


@pytest.mark.parametrize('case', USELESS)
def test_raw_weights_are_not_taken_in_silence_beside_averages(case, tmp_path):
    average, message = USELESS[case]
    content = {'model': RAW, 'ema': average}
    if case == 'an object':
        small = {name: np.zeros(1, np.float32) for name in ('conv1.weight', 'fc.weight')}
        data, storages = pickled({'model': small, 'ema': average})
        content = read(write(tmp_path / 'x.pth', 'zip', data, storages)).content | {'model': RAW}
    with pytest.raises(
        UserError, match=f'averaged weights cannot be converted .{message}'
    ) as error:
        torch_checkpoints.choose(content, MODEL)
    assert '--key=model takes the raw ones, which are not averaged.' in str(error.value)
    assert torch_checkpoints.choose(content, MODEL, key='model')[0].tensors.keys() == RAW.keys()


def test_what_stands_beside_the_prefix_is_left_out_on_demand_only():
    headless = under('backbone.', network(classes=0))
    content = {'state_dict': headless | {'head.weight': zeros(5, 512), 'head.bias': zeros(5)}}
    with pytest.raises(UserError, match=r'beside.*head.weight, head.bias.*--key=state_dict/backb'):
        torch_checkpoints.choose(content, MODEL)
    for key in ('backbone', 'state_dict/backbone', 'state_dict.backbone.', 'state_dict'):
        chosen, _ = torch_checkpoints.choose(content, MODEL, key=key)
        assert len(chosen.tensors) == len(headless)


def test_a_key_that_names_nothing_is_answered_with_those_that_do():
    with pytest.raises(UserError, match=r'--key=emma names none .*choose --key=model \(raw wei'):
        torch_checkpoints.choose({'model': RAW, 'model_ema': EMA}, MODEL, key='emma')


@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (whole_model(), r'a whole model, a .*ResNet, .* torch.save.torch.load.FILE, weights'),
        ([3, whole_model()], r'torch.load\(FILE, weights_only=False\)\[1\].state_dict\(\)'),
        ({'ema': None, 'model': whole_model()}, r"weights_only=False\)\['model'\].state_dict\(\)"),
        ({'epoch': 1, 'optimizer': SLOTS}, 'it has the state of an optimizer, and no weights'),
        (SLOTS, 'it has the state of an optimizer, and no weights: save the state_dict of the mod'),
        ({'conv1.weight': Named('a.Quantized')}, '"conv1.weight" is of type a.Quantized: save'),
        (argparse.Namespace(model=1), 'its content is of type argparse.Namespace: save the'),
        ({'epoch': 3}, '"epoch" is of type int: save the state_dict of the model'),
        ([1, 2], 'it has no state dict: save the state_dict of the model, and convert that.'),
        ({}, 'it has no state dict: save the state_dict of the model, and convert that.'),
    ],
)  # fmt: skip
def test_what_has_no_weights_is_said_to_be_so(format, content, message, tmp_path):
    content, storages = pickled(content)
    path = write(tmp_path / 'x.pth', format, content, storages)
    with pytest.raises(UserError, match=message):
        torch_checkpoints.choose(read(path).content, MODEL)


def test_a_torchscript_program_is_answered_with_what_to_do(tmp_path):
    content = b'\x80\x02' + named('__torch__.torchvision.ResNet') + b')\x81}b.'
    path = write(tmp_path / 'x.pth', 'zip', content, {})
    with pytest.raises(UserError, match=r'TorchScript program.*torch\.jit\.load\(FILE\)\.state_'):
        torch_checkpoints.choose(read(path).content, MODEL)


def test_content_without_an_end_is_walked_through_once():
    content = {'model': RAW, 'list': [1]}
    content |= {'self': content}
    content['list'].append(content['list'])
    for _ in range(10_000):
        content = {'model': content['model'], 'inner': content}
    assert torch_checkpoints.choose(content, MODEL)[0].path == ('model',)


def test_the_names_of_another_model_are_recognized_under_a_prefix():
    chosen, _ = torch_checkpoints.choose({'model': under('module.', network('vgg11'))}, MODEL)
    with pytest.raises(UserError, match='The names are those of vgg11'):
        torch_weights.from_torch(chosen.tensors, MODEL)
