"""A task that no file of the product knows goes through all of its commands: turned.py.

The commands are started by a child that registers the task, as a user's own program would; some
run in this process. config.json says only the task's name.
"""

import json
import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import jax
import numpy as np
import pytest
from matplotlib.image import imread

import evaluate
import predict
import sweep
import train
from configs import base, reading, schema
from data_sources import arrays
from errors import UserError
from tests.conftest import ROOT
from tests.support import (
    LONG,
    Child,
    arguments,
    curve,
    free_port,
    last_step,
    result,
    saved_steps,
    train_here,
    trials_of,
    write_config,
)
from tests.tasks import turned
from training import checks, experiment, step
from training.runner import Runner

FIELDS = {
    'task': 'turned',
    'data__name': turned.NAME,
    'model__name': 'lenet',
    'optimizer__name': 'adam',
    'optimizer__learning_rate': 0.003,
    'batch_size': 64,
    'steps': 12,
    'log_every': 3,
    'eval_every': 0.2,  # four steps
    'checkpoint__every_steps': 4,
    'checkpoint__keep': 3,
}


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp('turned'), **FIELDS)


@pytest.fixture(scope='module')
def finished(config, plot_curves, tmp_path_factory):
    """The workdir of a run that was left alone, with its curves; copy it before changing it."""
    workdir = tmp_path_factory.mktemp('finished') / 'run'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('training.curves.plot_curves', plot_curves)
        assert train_here(config, workdir) == 0
    return workdir


class TurnedChild(Child):
    """A command of the product in a process of its own, in which the task is registered."""

    def __init__(self, name, argv, log):
        super().__init__(argv, log)
        self._command = [sys.executable, '-m', 'tests.tasks.turned_child', name, *argv]


def ran(name, argv, log, **environment):
    """Runs a command to its end in a process of its own; returns its output."""
    given = os.environ | environment
    command = [sys.executable, '-m', 'tests.tasks.turned_child', name, *argv]
    done = subprocess.run(
        command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=LONG, check=False
    )
    log.write_text(done.stdout + done.stderr)
    assert done.returncode == 0, log.read_text()
    return done.stdout


def test_a_run_records_and_keeps_what_the_task_says(config, finished):
    values = result(finished)
    assert {'test_error', 'test_median_error', 'test_loss', 'test_examples'} <= values.keys()
    assert not {'test_accuracy', 'test_correct'} & values.keys()
    records = curve(finished)
    assert {'train/error', 'train/loss'} <= records[0].keys()
    assert not any('train/median_error' in record for record in records)  # it needs rows
    last = records[-1]
    assert {'validation/error', 'validation/median_error', 'validation/loss'} <= last.keys()
    stored = json.loads((finished / 'config.json').read_text())
    assert stored['task'] == 'turned'
    assert 'tests' not in (finished / 'config.json').read_text()
    assert imread(finished / 'curves.png').shape[1] > 1500  # three panels
    # The best checkpoint is that with the smallest error.
    errors = {r['step']: r['validation/error'] for r in records if 'validation/error' in r}
    assert min(errors, key=errors.get) in saved_steps(finished)


def test_killed_and_resumed_it_ends_with_the_same_bits(config, finished, tmp_path):
    with TurnedChild('train', arguments(config, tmp_path / 'run'), tmp_path / 'log') as child:
        assert child.wait_until(lambda: saved_steps(tmp_path / 'run'))
        child.kill()
    assert last_step(tmp_path / 'run') < 12
    ran('train', [f'--workdir={tmp_path / "run"}'], tmp_path / 'again')
    assert result(tmp_path / 'run')['params_sha256'] == result(finished)['params_sha256']
    assert curve(tmp_path / 'run') == curve(finished)


def test_without_its_registration_the_task_is_refused_in_a_sentence(finished, tmp_path):
    done = subprocess.run(
        [sys.executable, 'evaluate.py', f'--workdir={finished}'],
        cwd=ROOT, capture_output=True, text=True, timeout=LONG, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert 'there is no task "turned". A task of your own has to be registered' in done.stderr


@pytest.mark.slow
def test_its_page_has_what_its_report_gives(finished, tmp_path):
    assert evaluate.main([f'--workdir={finished}', f'--output={tmp_path}', '--report']) == 0
    root = ElementTree.parse(tmp_path / 'report.html').getroot()
    names = [tile.text for tile in root.findall('body/header/dl/div/dt')]
    assert names[:3] == ['error (degrees)', 'median error (degrees)', 'loss']
    sections = {node.find('h2').text: node for node in root.iter('section')}
    assert sections['Angles'].find('.//table') is not None
    shown = [image.get('alt') for image in sections['The surest mistakes'].iter('img')]
    assert len(shown) == 12
    about = r'Example \d+, and its heat map\. True: -?\d+ degrees\. Answer: -?[\d.]+ degrees\.'
    assert all(re.fullmatch(about, text) for text in shown)


@pytest.mark.parametrize('size', [7, 50, 1000])
def test_an_evaluation_does_not_depend_on_the_batch_size(finished, tmp_path, size):
    """Rows are in the order of the data set, without those of padding."""
    argv = [f'--workdir={finished}', f'--output={tmp_path}', f'--config.eval_batch_size={size}']
    assert evaluate.main(argv) == 0
    written = json.loads((tmp_path / 'evaluation_test.json').read_text())
    assert written['error'] == pytest.approx(result(finished)['test_error'], rel=1e-5)
    assert written['median_error'] == pytest.approx(result(finished)['test_median_error'], rel=1e-5)
    assert written['examples'] == result(finished)['test_examples'] == len(written['predicted'])
    images = turned.load_split('test')
    assert (tmp_path / 'angles_test.png').stat().st_size > 1000
    # The first and the last example's rows are theirs.
    both = np.array(written['predicted'])[[0, -1]]
    assert np.all(np.isfinite(both))
    assert len(images.targets['angle']) == written['examples']


def test_prediction_speaks_of_angles_also_where_the_data_set_is_not(
    finished, tmp_path, capsys, monkeypatch
):
    from PIL import Image

    Image.fromarray(turned.load_split('test').images[0, :, :, 0]).save(tmp_path / 'digit.png')
    monkeypatch.delitem(arrays.EMBEDDED, turned.NAME)
    argv = [f'--workdir={finished}', str(tmp_path / 'digit.png'), '--invert=no']
    assert predict.main(argv) == 0
    assert capsys.readouterr().out.endswith('degrees\n')
    assert predict.main([*argv, '--json']) == 0
    assert json.loads(capsys.readouterr().out).keys() == {'image', 'angle'}


def test_a_sweep_looks_for_the_smallest_error(config, tmp_path):
    """Trials that differ in a field of the task are lanes of one program."""
    space = tmp_path / 'space.py'
    space.write_text(
        'from configs.search import Categorical, Sweep\n\n\n'
        'def get_sweep():\n'
        "    values = {'optimizer.learning_rate': Categorical((1e-5, 3e-3)),\n"
        "              'turned.side_weight': Categorical((0.0, 0.1))}\n"
        '    return Sweep(values, trials=4)\n'
    )
    argv = [f'--config={config}', f'--sweep={space}', f'--workdir={tmp_path / "sweep"}']
    assert sweep.main([*argv, '--sampler=grid', '--pruner=none']) == 0
    trials = trials_of(tmp_path / 'sweep')
    assert [trial['state'] for trial in trials] == ['complete'] * 4
    errors = [float(trial['validation/error']) for trial in trials]
    best = json.loads((tmp_path / 'sweep' / 'best_config.json').read_text())
    assert best['optimizer']['learning_rate'] == 3e-3
    chosen = trials[int(np.argmin(errors))]
    assert float(chosen['turned.side_weight']) == best['turned']['side_weight']
    # A lane is the run that train.py makes of the same configuration.
    assert train_here(tmp_path / 'sweep' / 'best_config.json', tmp_path / 'alone') == 0
    assert curve(tmp_path / 'alone')[-1]['validation/error'] == pytest.approx(min(errors), rel=1e-5)


def open_checked(file, argument):
    config = reading.from_arguments(file, [argument])
    checks.check(config)
    return experiment.open_train(config)


def test_fields_are_in_the_help_and_refused_under_another_task(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main(['--help'])
    assert 'turned.margin' in capsys.readouterr().out
    config = base.get_config()
    config.turned.margin = 7.0
    with pytest.raises(UserError, match=r'config.turned.margin belongs to task=turned, not'):
        checks.check(config)
    file = write_config(tmp_path, **FIELDS)
    for argument, sentence in (
        ('--config.augment.rotate=5', 'config.augment.rotate changes the angle'),
        ('--config.label_smoothing=0.1', 'config.label_smoothing belongs to task=classification'),
        ('--config.augment.mixup=0.2', 'mixup'),
        ('--config.checkpoint.best=validation/accuracy', 'config.checkpoint.best must be one of'),
        ('--config.data.name=digits', 'digits'),
    ):
        with pytest.raises(UserError, match=sentence):
            open_checked(str(file), argument)


# --- the loss of two terms ----------------------------------------------------------------------


def opened(config, **fields):
    """The experiment of the configuration with other values, and its training split."""
    overrides = [f'--config.{name.replace("__", ".")}={value}' for name, value in fields.items()]
    return experiment.open_train(reading.from_arguments(str(config), overrides))


def an_update(config, mask, devices=1, **fields):
    """The state after one update of a runner, and its metrics."""
    exp, split = opened(config, **fields)
    spec = exp.spec()
    runner = Runner(spec, 'pmap', jax.devices()[:devices])
    batch = {
        'index': np.arange(64, dtype=np.int32),
        'epoch': np.zeros(64, np.int32),
        'mask': mask.astype(np.float32),
    }
    data = runner.replicate(split.arrays)
    hyper = runner.replicate(experiment.hyperparameters(exp.config))
    state = runner.replicate(exp.initial_state(spec))
    state, metrics = runner.train(state, hyper, runner.split(batch), data)
    return runner.fetch(state.params), runner.fetch(metrics), (exp, split)


@pytest.fixture(scope='module')
def uneven():
    """A mask of 64 of which every micro-batch has another number of real examples."""
    mask = np.ones(64)
    mask[::5] = mask[3:9] = 0
    return mask


def test_each_term_is_divided_by_its_own_weight(config, uneven):
    """One update by SGD equals the gradient of the formula, written without the step."""
    options = {
        'optimizer__name': 'sgd',
        'optimizer__learning_rate': 1.0,
        'optimizer__momentum': 0.0,
        'optimizer__nesterov': False,
        'schedule__name': 'constant',
        'turned__margin': 30.0,
    }
    params, _, (exp, split) = an_update(config, uneven, **options)
    first = exp.initial_state(exp.spec())
    real = np.flatnonzero(uneven)
    angle = split.targets['angle'][real, 0]
    pixels = split.images[real].astype(np.float32) / 255 - exp.config.data.mean[0]
    pixels /= np.float32(exp.config.data.std[0])

    def loss(tree):
        outputs = exp.spec().model.apply({'params': tree}, pixels, train=True)
        sided = np.abs(angle) > 30.0
        squares = ((outputs[:, 0] - angle / turned.LARGEST) ** 2).mean()
        log_p = jax.nn.log_sigmoid(np.where(angle > 0, 1, -1) * outputs[:, 1])
        return squares - 0.1 * log_p[sided].mean()

    gradient = jax.jit(jax.grad(loss))(first.params)
    for old, new, slope in zip(
        *map(jax.tree.leaves, (first.params, params, gradient)), strict=True
    ):
        np.testing.assert_allclose(old - slope, new, atol=2e-5)


def test_micro_batches_change_nothing(config, uneven):
    whole, whole_metrics, _ = an_update(config, uneven)
    parts, parts_metrics, _ = an_update(config, uneven, accumulate=4)
    for one, other in zip(*map(jax.tree.leaves, (whole, parts)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    for name in ('count', 'sided', 'error'):
        np.testing.assert_allclose(whole_metrics[name], parts_metrics[name], rtol=1e-5)


def test_an_evaluation_step_gives_the_rows_of_its_examples(config):
    exp, split = opened(config)
    spec = exp.spec()
    variables = exp.initial_state(spec).variables()
    batch = {'index': np.array([3, 1, 2], np.int32), 'mask': np.array([1, 0, 1], np.float32)}
    sums, rows = jax.jit(lambda v, b, d: step.eval_step(spec, v, b, d))(
        variables, batch, split.arrays
    )
    assert int(sums['count']) == 2
    np.testing.assert_array_equal(rows['index'], [3, 1, 2])
    np.testing.assert_array_equal(rows['true'], split.targets['angle'][[3, 1, 2], 0])


# --- devices and processes ----------------------------------------------------------------------


@pytest.mark.slow
def test_four_devices_and_two_processes_train_as_one_device(config, finished, tmp_path):
    for runner in ('pmap', 'shard_map'):
        argv = arguments(config, tmp_path / runner, devices=4, runner=runner)
        ran('train', argv, tmp_path / f'log_{runner}')
    address = f'127.0.0.1:{free_port()},2'
    children = [
        TurnedChild(
            'train',
            arguments(config, tmp_path / 'two', devices=1, distributed=f'{address},{i}'),
            tmp_path / f'log{i}',
        )
        for i in range(2)
    ]
    with children[0] as first, children[1] as second:
        assert [first.wait(), second.wait()] == [0, 0], first.output + second.output
    for workdir in (tmp_path / 'pmap', tmp_path / 'shard_map', tmp_path / 'two'):
        for mine, alone in zip(curve(workdir), curve(finished), strict=True):
            assert mine == pytest.approx(alone, rel=2e-3, abs=1e-5)
        for name in ('test_error', 'test_median_error', 'test_loss'):
            assert result(workdir)[name] == pytest.approx(result(finished)[name], rel=2e-3)
    # The rows of four devices are those of one: the same network, evaluated by both.
    for devices in (1, 4):
        argv = [f'--workdir={finished}', f'--output={tmp_path / str(devices)}']
        argv += [f'--config.devices={devices}', '--config.eval_batch_size=37']
        ran('evaluate', argv, tmp_path / f'evaluate{devices}')
    one, four = (
        json.loads((tmp_path / str(n) / 'evaluation_test.json').read_text()) for n in (1, 4)
    )
    np.testing.assert_allclose(one['predicted'], four['predicted'], atol=1e-3)
    assert one['median_error'] == pytest.approx(four['median_error'], rel=1e-5)


@pytest.mark.slow
def test_preflight_learns_one_batch_of_it(config, tmp_path):
    output = ran('tools.preflight', [f'--config={config}', '--config.turned.side_weight=0'],
                 tmp_path / 'log')  # fmt: skip
    assert output.rstrip().endswith('go')
    assert 'error' in output


def test_a_run_of_another_task_stores_nothing_of_this_one(small_run, tmp_path, small):
    """Though the task is registered here, a program without it can read the file."""
    assert train_here(small, tmp_path, steps=1) == 0
    stored = json.loads((tmp_path / 'config.json').read_text())
    assert 'turned' not in stored
    assert stored['label_smoothing'] == 0.0
    assert stored.keys() >= {'task', 'model', 'data', 'augment', 'optimizer'}
    config = reading.load(str(tmp_path / 'config.json'))
    assert config.turned.margin == 5.0
    assert stored.keys() == json.loads((small_run / 'config.json').read_text()).keys()


def test_a_stored_configuration_without_a_task_is_one_of_classification(tmp_path):
    stored = schema.plain(base.get_config())
    del stored['task']
    (tmp_path / 'config.json').write_text(json.dumps(stored))
    assert reading.load(str(tmp_path / 'config.json')).task == 'classification'
