"""Starting from another run or from converted weights, the linear probe, and resuming both."""

import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

import command
import evaluate
import input_pipeline
import models
import train
from configs import reading
from errors import UserError
from models import pretrained
from tests.support import (
    Child,
    arguments,
    curve,
    go_back,
    result,
    saved_arrays,
    saved_steps,
    train_here,
    write_config,
)
from tests.training.test_resume import HANGING_SAVE
from training import checkpoints, experiment, linear_probe, records, state, transfer

FIELDS = {
    'model__name': 'deep_cnn',
    'model__dropout_rate': 0.2,
    'optimizer__name': 'adam',
    'optimizer__learning_rate': 0.01,
    'batch_size': 32,
    'log_every': 2,
    'eval_every': 100,
    'ema_decay': 0.5,
}
NEW = {
    'data__train_per_class': 6,
    'seed': 4,
    'steps': 6,
    'checkpoint__every_steps': 2,
    'checkpoint__keep': 5,
}


@pytest.fixture(scope='module')
def parent(tmp_path_factory) -> Path:
    """The workdir of a run to start from, whose averaged weights are not its last ones."""
    folder = tmp_path_factory.mktemp('parent')
    assert train_here(write_config(folder, **FIELDS, steps=4), folder / 'run') == 0
    return folder / 'run'


@pytest.fixture(scope='module')
def weights(parent) -> dict[str, np.ndarray]:
    """What a run from there has to start from: {'params/...', 'batch_stats/...': array}."""
    arrays = saved_arrays(parent, 4)
    averaged = {k.removeprefix('ema/'): v for k, v in arrays.items() if k.startswith('ema/')}
    assert any(np.abs(averaged[name] - arrays[name]).max() > 1e-4 for name in averaged)
    return averaged


@pytest.fixture(scope='module')
def config(parent, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('config')
    return write_config(folder, **FIELDS, **NEW, init_from=str(parent))


@pytest.fixture(scope='module')
def probed(config, tmp_path_factory) -> Path:
    """The workdir of a linear probe."""
    workdir = tmp_path_factory.mktemp('probed') / 'run'
    assert train_here(config, workdir, linear_probe=True) == 0
    return workdir


def nested(weights):
    return {'batch_stats': {}, **unflatten_dict(weights, sep='/')}


def assert_only_the_head_is_new(workdir: Path, weights, step: int = 6):
    found = saved_arrays(workdir, step)
    for name, leaf in weights.items():
        for copy in (found[name], found[f'ema/{name}']):
            assert (copy.tobytes() == leaf.tobytes()) is ('/head/' not in name), name


class TestStart:
    def test_the_averaged_weights_are_taken_and_a_frozen_one_keeps_its_bytes(
        self, config, weights, tmp_path, capfd
    ):
        fields = {'augment__shift': 2.0, 'freeze': '[!h]*'}
        assert train_here(config, tmp_path, **fields) == 0
        assert_only_the_head_is_new(tmp_path, weights)
        assert 'deep_cnn, averaged weights, step 4); the head is new' in capfd.readouterr().out
        params = nested(weights)['params']
        assert result(tmp_path)['init_from_sha256'] == state.sha256(params)

    def test_converted_weights(self, config, weights, tmp_path):
        about = {'model': 'deep_cnn', 'options': {}, 'num_classes': 0}
        headless = {name: leaf for name, leaf in weights.items() if '/head/' not in name}
        pretrained.save(tmp_path / 'weights', nested(headless), about)
        source = tmp_path / 'weights'
        assert train_here(config, tmp_path / 'run', init_from=source, linear_probe=True) == 0
        assert_only_the_head_is_new(tmp_path / 'run', weights)

    def test_without_init_from_nothing_is_recorded(self, parent):
        assert result(parent)['init_from_sha256'] is None
        assert not (parent / 'init_from.json').exists()

    def test_the_head_starts_from_zero_and_the_rest_from_the_source(self, weights):
        draw = np.random.default_rng(0)
        first = {name: draw.normal(size=leaf.shape) for name, leaf in weights.items()}
        blank = state.TrainState(0, **nested(first), opt_state=(), ema=nested(first))
        source = transfer.WeightSource('folder', 'deep_cnn', None, nested(weights))
        started = transfer.applied(source, blank)
        for variables in (started.variables(), started.replace(ema=None).variables()):
            for name, leaf in state.named_leaves(variables):
                expected = np.zeros_like(leaf) if '/head/' in name else weights[name]
                np.testing.assert_array_equal(leaf, expected, err_msg=name)


class TestRefusals:
    def test_a_folder_that_is_neither(self, config, tmp_path, capsys):
        argv = arguments(config, tmp_path / 'run', init_from=tmp_path)
        assert command.call(train.main, argv) == 2
        said = capsys.readouterr().err
        assert said.startswith(
            f'error: config.init_from={tmp_path} is neither the workdir of a run'
        )
        assert 'weights.safetensors' in said
        assert said.count('\n') == 1

    def test_a_run_without_a_checkpoint(self, config, parent, tmp_path):
        shutil.copytree(parent, tmp_path / 'parent')
        shutil.rmtree(tmp_path / 'parent' / 'checkpoints')
        with pytest.raises(UserError, match='has no checkpoint yet'):
            train_here(config, tmp_path / 'run', init_from=tmp_path / 'parent')

    def test_a_damaged_checkpoint(self, config, parent, tmp_path):
        shutil.copytree(parent, tmp_path / 'parent')
        files = (tmp_path / 'parent' / 'checkpoints' / '4' / 'default').rglob('*head*/**/0*')
        next(file for file in files if file.is_file()).write_text('')
        with pytest.raises(UserError, match=r'checkpoints/4 is damaged: .* has changed'):
            train_here(config, tmp_path / 'run', init_from=tmp_path / 'parent')

    @pytest.mark.parametrize(
        ('change', 'words'),
        [
            (lambda w: w.pop('params/conv2/kernel'), ['missing: params/conv2/kernel.']),
            (
                lambda w: w.update({f'params/conv3/{i}': np.zeros(1) for i in 'abcd'}),
                ['left over: params/conv3/a, params/conv3/b, params/conv3/c and 1 more'],
            ),
            (lambda w: w.pop('batch_stats/norm1/var'), ['missing: batch_stats/norm1/var']),
            (
                lambda w: w.update({'params/conv2/bias': np.zeros(7, np.float32)}),
                ['of another shape: params/conv2/bias (7,), not (32,).'],
            ),
        ],
    )  # fmt: skip
    def test_weights_of_another_network(self, change, words, config, weights, tmp_path):
        other = dict(weights)
        change(other)
        about = {'model': 'vgg11', 'options': {}, 'num_classes': 10}
        pretrained.save(tmp_path / 'weights', nested(other), about)
        with pytest.raises(UserError) as caught:
            train_here(config, tmp_path / 'run', init_from=tmp_path / 'weights')
        for word in ['weights (vgg11) does not fit this deep_cnn', *words]:
            assert word in str(caught.value)

    @pytest.mark.parametrize(
        ('channels', 'step', 'words'),
        [
            (3, None, 'for pictures of 3 channels, not 1: convert them again with --input=sum.'),
            (3, 7, 'for pictures of 3 channels, not 1.'),
        ],
    )
    def test_weights_for_pictures_with_other_channels(self, channels, step, words, weights):
        blank = state.TrainState(0, **nested(weights), opt_state=(), ema=None)
        kernel = weights['params/conv1/kernel']
        other = weights | {'params/conv1/kernel': np.repeat(kernel, channels, axis=2)}
        source = transfer.WeightSource('folder', 'deep_cnn', step, nested(other))
        with pytest.raises(UserError, match=re.escape(words) + '$'):
            transfer.check_fits(source, blank, 'deep_cnn')

    def test_a_file_is_to_be_converted_first(self, tmp_path):
        (tmp_path / 'x.pth').write_bytes(b'PK')
        with pytest.raises(UserError, match=r'is a file: convert it by .*--source=.*x\.pth --out='):
            transfer.read(str(tmp_path / 'x.pth'))

    def test_a_frozen_head_that_starts_from_zero(self, config, tmp_path):
        with pytest.raises(UserError, match='the head is new and starts from zero'):
            train_here(config, tmp_path / 'run', freeze='head/*')

    def test_another_source_is_another_experiment(self, probed):
        with pytest.raises(UserError, match=r'differs in init_from \(.* there, elsewhere now\)'):
            train_here(probed / 'config.json', probed, init_from='elsewhere')


class TestProbe:
    def test_it_leaves_a_full_checkpoint(self, probed, weights):
        assert_only_the_head_is_new(probed, weights)
        moments = [name for name in saved_arrays(probed, 6) if name.startswith('opt_state/')]
        assert {name.split('/')[-2] for name in moments if '/mu/' in name} == {'head'}

    def test_it_equals_the_head_trained_on_images(self, probed, config, tmp_path):
        assert train_here(config, tmp_path, freeze='[!h]*') == 0
        found, expected = saved_arrays(probed, 6), saved_arrays(tmp_path, 6)
        for name in ('params/head/kernel', 'params/head/bias', 'ema/params/head/kernel'):
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5)
        for ours, theirs in zip(curve(probed), curve(tmp_path), strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)

    def test_it_is_evaluated_like_any_other_run(self, probed, tmp_path, capfd):
        assert evaluate.main([f'--workdir={probed}', f'--output={tmp_path}']) == 0
        found = json.loads((tmp_path / 'evaluation_test.json').read_text())
        assert found['correct'] == result(probed)['test_correct']
        assert found['loss'] == result(probed)['test_loss']
        # The last record is of features, the evaluation of images.
        evaluate.main([f'--workdir={probed}', f'--output={tmp_path}', '--split=validation'])
        found = json.loads((tmp_path / 'evaluation_validation.json').read_text())
        last = [r for r in records.read_metrics(probed) if 'validation/loss' in r][-1]
        assert found['loss'] == pytest.approx(last['validation/loss'], rel=1e-5)
        assert found['accuracy'] == last['validation/accuracy']

    @pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
    def test_features_are_the_networks_own(self, dtype, weights, monkeypatch):
        import jax

        config = reading.from_arguments(
            'configs/digits_lenet.py', ['--config.model.name=deep_cnn', f'--config.dtype={dtype}']
        )
        split = input_pipeline.open_split(config, 'validation')
        spec = experiment.from_split(config, split).spec()
        monkeypatch.setattr(linear_probe, 'BATCH', 64)  # 143 images in three calls
        found = linear_probe.compute(config, spec, nested(weights), split, jax.devices()[:1])
        assert found.features.dtype == np.float32
        assert found.features.shape == (143, 7 * 7 * 32)
        np.testing.assert_array_equal(found.targets['label'], split.labels)
        images = (split.images / np.float32(255) - 0.1307) / np.float32(0.3081)
        model = models.create('deep_cnn', num_classes=0)
        expected = jax.jit(model.apply)(nested(weights), images)
        room = {'float32': 1e-5, 'bfloat16': 0.03}[dtype] * np.abs(expected).max()
        np.testing.assert_allclose(found.features, expected, rtol=0, atol=room)


class TestResume:
    def test_a_probe_goes_on_bit_for_bit_without_its_source(self, probed, tmp_path):
        """The features are computed anew, in a run that has only its own folder.

        They are the same wherever they wait, and whatever the batches of evaluation.
        """
        workdir = Path(shutil.copytree(probed, tmp_path / 'run'))
        stored = json.loads((workdir / 'config.json').read_text())
        stored['init_from'] = str(tmp_path / 'gone')
        (workdir / 'config.json').write_text(json.dumps(stored))
        go_back(workdir, 2)
        assert train_here(None, workdir, eval_batch_size=50, data__placement='host') == 0
        assert result(workdir)['init_from_sha256'] == result(probed)['init_from_sha256']
        assert saved_arrays(workdir, 6).keys() == saved_arrays(probed, 6).keys()
        for name, leaf in saved_arrays(workdir, 6).items():
            assert leaf.tobytes() == saved_arrays(probed, 6)[name].tobytes(), name

    @pytest.mark.slow
    def test_a_fine_tuning_killed_in_mid_save_goes_on_bit_for_bit_without_its_source(
        self, config, parent, tmp_path
    ):
        source = Path(shutil.copytree(parent, tmp_path / 'source'))
        fields = {
            'init_from': source, 'steps': 16, 'checkpoint__every_steps': 5, 'augment__shift': 2.0,
            'freeze': ('conv1/*', 'norm1/*'), 'multipliers': 'head/*=3', 'layer_decay': 0.7,
        }  # fmt: skip
        assert train_here(config, tmp_path / 'whole', **fields) == 0
        workdir = tmp_path / 'killed'
        argv = arguments(config, workdir, **fields)
        with Child(argv, tmp_path / 'log', HANGING_SAVE) as child:
            assert child.wait_until(lambda: any(workdir.glob('checkpoints/10.*tmp*/default/*'))), (
                child.output
            )
            assert child.kill() == -signal.SIGKILL
        assert saved_steps(workdir) == [5]
        shutil.rmtree(source)
        assert train_here(None, workdir) == 0
        for name in ('params_sha256', 'test_loss', 'init_from_sha256', 'config'):
            assert result(workdir)[name] == result(tmp_path / 'whole')[name], name
        assert curve(workdir) == curve(tmp_path / 'whole')


def test_a_run_from_before_these_fields_goes_on(parent, tmp_path):
    workdir = Path(shutil.copytree(parent, tmp_path / 'run'))
    stored = json.loads((workdir / 'config.json').read_text())
    for name in ('init_from', 'freeze', 'multipliers', 'layer_decay', 'linear_probe'):
        del stored[name]
    del stored['data']['train_per_class']
    (workdir / 'config.json').write_text(json.dumps(stored))
    (workdir / 'result.json').unlink()
    assert train_here(parent / 'config.json', workdir) == 0
    assert result(workdir)['params_sha256'] == result(parent)['params_sha256']
    assert checkpoints.steps_in(workdir / 'checkpoints') == saved_steps(parent)
