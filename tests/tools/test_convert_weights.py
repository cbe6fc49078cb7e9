"""python -m tools.convert_weights: conversion in both directions, and its error messages."""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import types

import huggingface_hub
import jax
import ml_dtypes
import numpy as np
import pytest
from huggingface_hub import errors
from safetensors.numpy import load_file, save_file

import command
import models
from configs import base, schema
from models import pretrained
from models.pretrained import torch_files, torch_names, torch_weights
from tasks.classification import Classification
from tests.conftest import ROOT
from tests.golden import parity
from tests.models.pretrained.torch_writer import pickled, write
from tests.support import slow
from tools import convert_weights
from training import checkpoints, experiment, workdir


def state_dict(model, layout='torchvision', num_classes=3, channels=3, counters=True):
    found = {}
    for tensor in torch_weights.tensors(model, layout, num_classes, channels):
        found[tensor.key] = parity.value(tensor.key, tensor.torch_shape)
        if counters and tensor.key.endswith('running_var'):
            found[tensor.key.replace('running_var', 'num_batches_tracked')] = np.array(5)
    return found


@pytest.fixture(scope='module')
def resnet(tmp_path_factory):
    """A file of torchvision's names for resnet18, three classes."""
    path = tmp_path_factory.mktemp('weights') / 'resnet18.safetensors'
    save_file(state_dict('resnet18'), path)
    return path


def call(arguments):
    return command.call(convert_weights.main, arguments)


def convert(source, out, *more, model='resnet18'):
    return call([f'--model={model}', f'--source={source}', f'--out={out}', *more])


def refused(capsys, code):
    """The error, which is one line; no traceback."""
    assert code == 2
    text = capsys.readouterr().err
    assert text.startswith('error: ')
    assert text.count('\n') == 1
    return text


def test_a_conversion_says_what_was_done_and_what_is_next(resnet, tmp_path, capsys):
    out = tmp_path / 'converted'
    assert convert(resnet, out) == 0
    printed = capsys.readouterr().out
    digest = hashlib.sha256(resnet.read_bytes()).hexdigest()
    assert 'layout torchvision: 102 tensors, 11,178,051 parameters, 3 classes' in printed
    assert digest in printed
    assert str(out / 'weights.safetensors') in printed
    assert f'--config.model.name=resnet18 --config.init_from={out}' in printed
    assert json.loads((out / 'weights.json').read_text()) == {
        'model': 'resnet18',
        'options': {},
        'layout': 'torchvision',
        'num_classes': 3,
        'channels': 3,
        'source': 'resnet18.safetensors',
        'source_sha256': digest,
        'source_key': '.',
        'averaged': False,
    }
    before = (out / 'weights.safetensors').read_bytes()
    message = f'{out} already exists and is not empty: choose a new folder.'
    assert message in refused(capsys, convert(resnet, out))
    assert (out / 'weights.safetensors').read_bytes() == before


def test_the_network_takes_the_converted_weights(resnet, tmp_path):
    assert convert(resnet, tmp_path / 'converted') == 0
    variables, about = pretrained.load(tmp_path / 'converted')
    model = models.create(about['model'], num_classes=about['num_classes'], **about['options'])
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    wanted = jax.eval_shape(model.init, jax.random.key(0), images)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), variables) == jax.tree.map(
        lambda a: (a.shape, a.dtype), wanted
    )


@pytest.mark.parametrize(
    ('model', 'layout'),
    [('resnet18', 'torchvision'), ('resnet18', 'huggingface'), ('densenet121', 'timm')],
)
def test_there_and_back_gives_the_same_file(model, layout, tmp_path, capsys):
    state = state_dict(model, layout)
    save_file(state, tmp_path / 'source.safetensors')
    out, back = tmp_path / 'converted', tmp_path / 'new' / 'back.safetensors'
    assert convert(tmp_path / 'source.safetensors', out, model=model) == 0
    arguments = ['--to=torch', f'--source={out}', f'--out={back}']
    assert call([*arguments, f'--layout={layout}']) == 0
    assert f'state dict of {layout}' in capsys.readouterr().out
    found = load_file(back)
    assert found.keys() == state.keys()
    for key, value in state.items():
        if key.endswith('num_batches_tracked'):
            assert (found[key].dtype, found[key].shape, found[key]) == (np.int64, (), 0)
        else:
            np.testing.assert_array_equal(found[key], value)
    (tmp_path / 'plain').touch()  # with the permissions that the user gives to files
    modes = {path.stat().st_mode for path in (tmp_path / 'plain', back, *out.iterdir())}
    assert len(modes) == 1, 'the group can read all of them, or none'
    before = back.read_bytes()
    assert f'--out={back} already exists: choose another file.' in refused(capsys, call(arguments))
    assert back.read_bytes() == before


def test_a_file_that_cannot_be_written_is_named(resnet, tmp_path, capsys):
    assert convert(resnet, tmp_path / 'converted') == 0
    capsys.readouterr()
    arguments = ['--to=torch', f'--source={tmp_path / "converted"}', '--out=/proc/x.safetensors']
    assert '--out=/proc/x.safetensors cannot be written (' in refused(capsys, call(arguments))


@pytest.mark.parametrize('format', [slow('legacy'), 'zip'])
def test_averaged_weights_of_a_checkpoint_are_chosen_by_key(format, tmp_path, capsys):
    """A checkpoint of timm's, with its arguments and the state of its optimizer."""
    averaged = state_dict('resnet18')
    raw = {key: np.broadcast_to(np.float32(3), value.shape) for key, value in averaged.items()}
    content = {
        'epoch': 7, 'arch': 'resnet18', 'args': argparse.Namespace(lr=0.1),
        'metric': np.float64(71.5), 'state_dict': raw, 'state_dict_ema': averaged,
        'optimizer': {'state': {0: {'step': np.float32([9])}}, 'param_groups': [{'params': [0]}]},
    }  # fmt: skip
    path = write(tmp_path / 'x.pth.tar', format, *pickled(content))
    text = refused(capsys, convert(path, tmp_path / 'out'))
    assert (
        f'{path}: it has several weights of a resnet18: choose --key=state_dict (raw weights, 122 '
        'tensors), or --key=state_dict_ema (averaged weights, 122 tensors).'
    ) in text
    assert convert(path, tmp_path / 'out', '--key=state_dict_ema') == 0
    printed = capsys.readouterr().out
    assert 'Taken: --key=state_dict_ema (averaged weights, 122 tensors)' in printed
    assert 'Not taken: --key=state_dict (raw weights, 122 tensors)' in printed
    variables, about = pretrained.load(tmp_path / 'out')
    assert (about['source_key'], about['averaged']) == ('state_dict_ema', True)
    expected, _ = torch_weights.from_torch(averaged, 'resnet18')
    jax.tree.map(np.testing.assert_array_equal, variables, expected)


@pytest.mark.parametrize(
    ('way', 'before', 'after', 'factor'),
    [('sum', 3, 1, 1), ('mean', 3, 1, 1 / 3), ('repeat', 1, 3, 1), ('repeat', 3, 5, 1)],
)
def test_the_first_convolution_is_fitted_to_other_channels(way, before, after, factor):
    """Features of a picture that is the same in all channels, but for the factor."""
    state = state_dict('resnet18', channels=before)
    variables, about = torch_weights.from_torch(state, 'resnet18')
    adapted = torch_weights.adapt_input(variables, 'resnet18', about['layout'], way, after)
    old, new = (v['params']['stem']['conv']['kernel'] for v in (variables, adapted))
    assert (old.shape, new.shape) == ((7, 7, before, 64), (7, 7, after, 64))
    if way != 'repeat' or after % before == 0:
        np.testing.assert_allclose(new.sum(2), factor * old.sum(2), rtol=1e-5, atol=1e-6)
    else:  # channels of a repeated kernel as timm has them: 0 1 2 0 1, times 3 / 5
        np.testing.assert_allclose(new, old[:, :, [0, 1, 2, 0, 1]] * 0.6, rtol=1e-6)


def test_a_network_for_color_serves_grey_pictures(resnet, tmp_path, capsys):
    assert convert(resnet, tmp_path / 'out', '--input=sum') == 0
    assert '--config.data.mean=0.449 --config.data.std=0.226' in capsys.readouterr().out
    variables, about = pretrained.load(tmp_path / 'out')
    assert (about['channels'], about['input']) == (1, 'sum')
    kernel = load_file(resnet)['conv1.weight'].transpose(2, 3, 1, 0)
    found = variables['params']['stem']['conv']['kernel']
    np.testing.assert_allclose(found, kernel.sum(2, keepdims=True), rtol=1e-6, atol=1e-6)
    text = refused(capsys, convert(resnet, tmp_path / 'other', '--input=repeat'))
    assert 'its weights read pictures of 3 channels already: leave out --input=repeat.' in text
    text = refused(capsys, convert(resnet, tmp_path / 'other', '--channels=4'))
    assert '--channels is the number of channels for --input=repeat: give both.' in text


@pytest.mark.parametrize(
    ('model', 'more', 'words'),
    [('lenet', (), 'lenet exists in this project only; models that PyTorch libraries have as well'),
     ('vgg16', ('--layout=huggingface',),
      'huggingface has no vgg16: use one of the layouts torchvision, timm.')],
)  # fmt: skip
def test_a_mistake_is_named_before_anything_is_downloaded(
    model, more, words, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', None)
    arguments = [f'--model={model}', '--pretrained=hub:a/b', f'--out={tmp_path / "out"}', *more]
    assert words in refused(capsys, call(arguments))


def test_weights_without_channels_and_of_another_model_are_refused(resnet, tmp_path, capsys):
    state = load_file(resnet) | {'conv1.weight': np.zeros((64, 0, 7, 7), np.float32)}
    save_file(state, tmp_path / 'none.safetensors')
    text = refused(capsys, convert(tmp_path / 'none.safetensors', tmp_path / 'none'))
    assert 'wrong (1) conv1.weight (64, 0, 7, 7) instead of (64, 3, 7, 7)' in text
    assert convert(resnet, tmp_path / 'converted') == 0
    about = tmp_path / 'converted' / 'weights.json'
    about.write_text(about.read_text().replace('"resnet18"', '"vgg11"'))
    capsys.readouterr()
    out = tmp_path / 'x.safetensors'
    arguments = ['--to=torch', f'--source={tmp_path / "converted"}', f'--out={out}']
    assert 'these weights are of a vgg11 with options' in refused(capsys, call(arguments))
    kernel = {'params/block1_conv1/kernel': np.zeros((), np.float32)}  # of no shape at all
    save_file(kernel, tmp_path / 'converted' / 'weights.safetensors')
    assert 'these weights are of a vgg11 with options' in refused(capsys, call(arguments))


def test_a_pth_is_written_through_torch(resnet, tmp_path):
    torch = pytest.importorskip('torch', reason='needs torch: pip install torch')
    assert convert(resnet, tmp_path / 'converted') == 0
    out = tmp_path / 'back.pth'
    assert call(
        ['--to=torch', f'--source={tmp_path / "converted"}', f'--out={out}']
    ) == 0  # fmt: skip
    file = torch_files.read(out)
    state, read = torch.load(out, weights_only=True), file.arrays(file.content)
    assert len(state) == len(read) == 122
    for key, value in load_file(resnet).items():
        if not key.endswith('num_batches_tracked'):
            np.testing.assert_array_equal(state[key].numpy(), value)
            np.testing.assert_array_equal(read[key], value)


def test_a_pth_without_torch_is_refused_with_what_works(resnet, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    assert convert(resnet, tmp_path / 'converted') == 0
    arguments = ['--to=torch', f'--source={tmp_path / "converted"}', f'--out={tmp_path}/x.pth']
    text = refused(capsys, call(arguments))
    assert 'needs PyTorch, which is not installed: write x.safetensors instead' in text


def test_other_types_channels_and_no_head(tmp_path):
    state = state_dict('resnet18', num_classes=0, channels=1, counters=False)
    half = {key: value.astype(np.float16) for key, value in state.items()}
    save_file(half, tmp_path / 'half.safetensors')
    assert convert(tmp_path / 'half.safetensors', tmp_path / 'half') == 0
    variables, about = pretrained.load(tmp_path / 'half')
    assert (about['num_classes'], about['channels']) == (0, 1)
    assert 'head' not in variables['params']
    kernel = variables['params']['stem']['conv']['kernel']
    assert (kernel.shape, kernel.dtype) == ((7, 7, 1, 64), np.float32)
    wanted = half['conv1.weight'].transpose(2, 3, 1, 0).astype(np.float32)
    np.testing.assert_array_equal(kernel, wanted)


def test_bfloat16_is_read(tmp_path):
    state = {key: value.astype(ml_dtypes.bfloat16) for key, value in state_dict('resnet18').items()}
    save_file(state, tmp_path / 'x.safetensors')
    assert convert(tmp_path / 'x.safetensors', tmp_path / 'out') == 0
    variables, _ = pretrained.load(tmp_path / 'out')
    np.testing.assert_array_equal(
        variables['params']['head']['bias'], state['fc.bias'].astype(np.float32)
    )


def test_names_of_older_densenets(tmp_path):
    state = state_dict('densenet121', counters=False)
    old = {re.sub(r'(layer\d+\.(?:norm|conv))([12])', r'\1.\2', k): v for k, v in state.items()}
    assert len(old.keys() - state.keys()) == 58 * 10
    assert 'features.denseblock1.denselayer1.norm.1.running_mean' in old
    check_same(old, state, 'densenet121', tmp_path)


def test_names_of_a_transformers_model_without_head(tmp_path):
    state = state_dict('resnet18', 'huggingface', num_classes=0)
    short = {key.removeprefix('resnet.'): value for key, value in state.items()}
    check_same(short, state, 'resnet18', tmp_path)


def check_same(other, state, model, tmp_path):
    save_file(other, tmp_path / 'other.safetensors')
    assert convert(tmp_path / 'other.safetensors', tmp_path / 'out', model=model) == 0
    expected, about = torch_weights.from_torch(state, model)
    found, stored = pretrained.load(tmp_path / 'out')
    assert about.items() <= stored.items()
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def change(state, how):
    if how == 'missing':
        del state['layer1.0.bn1.bias']
    elif how == 'unused':
        state |= {f'extra.{i}': np.zeros(2, np.float32) for i in range(1200)}
    elif how == 'counter':
        state['conv1.num_batches_tracked'] = np.array(0)  # a convolution counts nothing
    elif how == 'shape':
        state['layer1.0.conv1.weight'] = np.zeros((64, 64, 1, 1), np.float32)
    elif how == 'type':
        state['fc.bias'] = np.zeros(3, np.int64)
    return state


@pytest.mark.parametrize(
    ('how', 'message'),
    [
        ('missing', 'missing (1) layer1.0.bn1.bias.'),
        ('unused', 'unused (1,200) extra.0, extra.1, extra.10 and 1,197 more.'),
        ('counter', 'unused (1) conv1.num_batches_tracked.'),
        ('shape', 'wrong (1) layer1.0.conv1.weight (64, 64, 1, 1) instead of (64, 64, 3, 3).'),
        ('type', 'wrong (1) fc.bias of type int64.'),
    ],
)
def test_every_tensor_is_used_and_every_parameter_filled(how, message, tmp_path, capsys):
    save_file(change(state_dict('resnet18'), how), tmp_path / 'x.safetensors')
    text = refused(capsys, convert(tmp_path / 'x.safetensors', tmp_path / 'out'))
    assert 'x.safetensors: these are not the weights of a resnet18 as torchvision' in text
    assert message in text
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--model=resnet34', '--source=FILE'], 'missing (80).*The names are those of resnet18.'),
        (['--model=resnet18', '--source=FILE', '--layout=huggingface'], 'as huggingface names'),
        (['--model=vgg11', '--source=FILE', '--layout=huggingface'], 'huggingface has no vgg11'),
        (['--model=lenet', '--source=FILE'], 'lenet exists in this project only'),
        (['--model=resnet', '--source=FILE'], '--model=resnet is unknown: use one of alexnet'),
        (['--source=FILE'], '--model is missing: name the network, such as --model=resnet50.'),
        (['--model=resnet18', '--source=nowhere.pth'], 'nowhere.pth cannot be read (No such file'),
        (['--model=resnet18', '--pretrained=resnet18'],
         '--pretrained=resnet18 is invalid: it must be hub:OWNER/NAME, a repository of the Hub.'),
        (['--to=torch', '--source=nowhere'], 'neither a folder of converted weights'),
        (['--to=torch', '--source=FILE', '--model=resnet18'], 'give it as --source, without '),
    ],
)  # fmt: skip
def test_mistakes(arguments, message, resnet, tmp_path, capsys):
    arguments = [argument.replace('FILE', str(resnet)) for argument in arguments]
    code = call([*arguments, f'--out={tmp_path / "out.safetensors"}'])
    text = refused(capsys, code)
    for part in message.split('.*'):
        assert part in text
    assert not (tmp_path / 'out.safetensors').exists()


def test_a_tensor_under_both_names_is_refused(tmp_path, capsys):
    state = state_dict('densenet121')
    state['features.denseblock1.denselayer1.norm.1.bias'] = np.zeros(64, np.float32)
    save_file(state, tmp_path / 'x.safetensors')
    code = convert(tmp_path / 'x.safetensors', tmp_path / 'out', model='densenet121')
    assert 'there twice' in refused(capsys, code)


def test_other_suffixes_are_refused(tmp_path, capsys):
    arguments = ['--to=torch', f'--source={tmp_path}', f'--out={tmp_path}/x.npz']
    text = refused(capsys, call(arguments))
    assert f'--out={tmp_path}/x.npz must end in .safetensors or .pth.' in text


class Hub:
    """Replaces the Hub: repositories as {file: path}, with the errors of huggingface_hub."""

    def __init__(self, repositories, online=True):
        self.repositories, self.online = repositories, online

    def hf_hub_download(self, repository, file):
        if not self.online:
            raise errors.LocalEntryNotFoundError('no network')
        if repository.count('/') != 1:
            raise errors.HFValidationError('no name')
        if repository not in self.repositories:
            response = types.SimpleNamespace(headers={}, request=None)
            raise errors.RepositoryNotFoundError('no repository', response=response)
        if file not in self.repositories[repository]:
            raise errors.EntryNotFoundError('no file')
        return str(self.repositories[repository][file])


@pytest.fixture
def hub(resnet, monkeypatch):
    repositories = {
        'timm/one': {'model.safetensors': resnet},
        'timm/two': {'pytorch_model.bin': resnet},
        'timm/none': {},
    }
    hub = Hub(repositories)
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', hub.hf_hub_download)
    return hub


def pretrained_from(name, out):
    return call(['--model=resnet18', f'--pretrained={name}', f'--out={out}'])


@pytest.mark.parametrize('name', ['hub:timm/one', 'hub:timm/two'])
def test_weights_of_the_hub(hub, name, tmp_path, capsys):
    assert pretrained_from(name, tmp_path / 'out') == 0
    assert f'resnet18 from {name}/resnet18.safetensors' in capsys.readouterr().out
    assert pretrained.load(tmp_path / 'out')[1]['source'] == name


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        (
            'hub:timm/none',
            'The repository "timm/none" has neither model.safetensors nor pytorch_model.bin: '
            'choose another one.',
        ),
        ('hub:timm/other', 'The Hub has no repository "timm/other" that you may read: check the'),
        ('hub:timm', 'The Hub has no repository "timm" that you may read: check the name'),
    ],
)
def test_what_the_hub_does_not_have(hub, name, message, tmp_path, capsys):
    assert message in refused(capsys, pretrained_from(name, tmp_path / 'out'))


def test_the_hub_s_own_library_without_network(tmp_path):
    """In a separate process, because the library reads the variables when it is imported."""
    command = [sys.executable, '-m', 'tools.convert_weights', '--model=resnet18']
    command += ['--pretrained=hub:timm/resnet18.a1_in1k', f'--out={tmp_path / "out"}']
    offline = {'HF_HUB_OFFLINE': '1', 'HF_HOME': str(tmp_path / 'cache')}
    child = subprocess.run(
        command, cwd=ROOT, env=os.environ | offline, capture_output=True, text=True, timeout=120
    )
    assert (child.returncode, child.stdout) == (2, '')
    assert re.fullmatch(r'error: hub:timm/resnet18.a1_in1k is not in the cache.*\n', child.stderr)


def test_no_network_and_no_library(hub, tmp_path, capsys, monkeypatch):
    hub.online = False
    text = refused(capsys, pretrained_from('hub:timm/one', tmp_path / 'out'))
    assert 'is not in the cache, and the Hub cannot be reached: check the network' in text
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    text = refused(capsys, pretrained_from('hub:timm/one', tmp_path / 'out'))
    assert 'needs huggingface_hub: run `pip install huggingface_hub`, or download' in text


def test_the_weights_of_a_run_are_handed_over(tmp_path, capsys):
    # The folder of a run, written by the code of a run but without compiling a step for a minute.
    config = base.get_config()
    schema.override(config, ['--config.model.name=resnet18'], base.fields())
    (tmp_path / 'run').mkdir()
    workdir.store(tmp_path / 'run', config)
    run, _ = experiment.open_train(config)
    template = run.abstract_state(run.spec())
    random = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), template)
    with checkpoints.Checkpoints(tmp_path / 'run', Classification.metrics[0]) as saved:
        saved.save(3, state)
        saved.wait()
    out = tmp_path / 'run.safetensors'
    arguments = ['--to=torch', f'--source={tmp_path / "run"}', f'--out={out}']
    assert call(arguments) == 0
    assert 'Taken: raw weights, step 3' in capsys.readouterr().out
    found, about = torch_weights.from_torch(load_file(out), 'resnet18')
    assert about == {'layout': 'torchvision', 'num_classes': 10, 'channels': 1}
    jax.tree.map(np.testing.assert_array_equal, found, state.variables())


def test_a_network_that_the_library_has_not_is_not_handed_over(tmp_path, capsys):
    model = models.create('resnet18', num_classes=3, stem='cifar', width=0.1)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    about = {'model': 'resnet18', 'options': {'stem': 'cifar', 'width': 0.1}, 'num_classes': 3}
    pretrained.save(tmp_path / 'own', variables, about)
    out = tmp_path / 'x.safetensors'
    code = call(['--to=torch', f'--source={tmp_path / "own"}', f'--out={out}'])
    assert 'with options (stem, normalization, width)' in refused(capsys, code)
    assert not out.exists()


def test_known_models_are_those_that_torchvision_has():
    assert len(torch_names.known()) == 18
    assert not {'lenet', 'fcn', 'deep_cnn', 'strided_cnn'} & set(torch_names.known())
