"""What a run promises, for the tasks with an answer for each pixel."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

import command
import evaluate
import predict
import sweep
from configs import reading
from data_sources import scenes
from errors import UserError
from inspection import extremes
from tests.support import (
    Child,
    arguments,
    curve,
    finished,
    free_port,
    last_step,
    once,
    result,
    run_child,
    saved_steps,
    slow,
    train_here,
    trials_of,
    write_config,
)
from tests.tasks import masked_pictures
from tools import preflight, show_batch
from tools.page.answer import Answers
from training import checks, experiment, trained
from training.evaluation import Evaluator
from training.runner import Runner

SCENES = {
    'task': 'segmentation',
    'data__name': 'scenes',
    'data__mean': (0.3,),
    'data__std': (0.2,),
    'model__name': 'deep_cnn',
    'head__width': 4,
    'segmentation__losses': ('cross_entropy', 'dice', 'focal'),
    'optimizer__name': 'adam',
    'optimizer__learning_rate': 0.003,
    'batch_size': 16,
    'eval_batch_size': 100,
    'steps': 8,
    'log_every': 2,
    'eval_every': 0.032,  # four steps
    'checkpoint__every_steps': 2,
    'checkpoint__keep': 4,
    'ema_decay': 0.9,
    # Every augmentation that moves pixels, and one that does not.
    'augment__shift': 3.0,
    'augment__rotate': 20.0,
    'augment__scale': 0.2,
    'augment__crop': 3,
    'augment__flip': 0.5,
    'augment__quarter_turns': 0.5,
    'augment__elastic': 1.0,
    'augment__brightness': 0.2,
    'augment__contrast': 0.2,
    'augment__erase': 0.5,
}
EVALUATE = 'import sys, command, evaluate; sys.exit(command.call(evaluate.main, sys.argv[1:]))'
IN_MEMORY = ('augment__crop', 'augment__brightness', 'augment__contrast')
DISCS = {
    **{name: value for name, value in SCENES.items() if name not in IN_MEMORY},
    'task': 'instances',
    'data__name': masked_pictures.NAME,
    'data__image_size': 48,
    'data__crop': 'pixels',
    'data__crop_zoom': (0.8, 1.25),
    'data__tile': 64,
    'eval_every': 8 / 3,  # four steps of 16 of 24 pictures
    'batch_size': 16,
    'augment__color_jitter': (0.2, 0.2, 0.2, 0.1),
}


@pytest.fixture(scope='module')
def discs(tmp_path_factory):
    """The folder of data sets with the streamed set."""
    return once(tmp_path_factory, 'discs', masked_pictures.prepare)


@pytest.fixture(scope='module')
def configs(discs, tmp_path_factory):
    """A configuration file for each task."""
    folder = tmp_path_factory.mktemp('configs')
    return {
        'segmentation': write_config(folder, **SCENES),
        'instances': write_config(folder, **DISCS, data__dir=str(discs)),
    }


@pytest.fixture(scope='module')
def runs(configs, tmp_path_factory):
    """The workdirs of runs that were left alone; copy one before changing it."""
    folder = tmp_path_factory.mktemp('runs')
    for task, config in configs.items():
        assert train_here(config, folder / task) == 0
    return folder


def test_records_and_result_have_the_metrics_of_the_task(runs):
    for task, names in (
        ('segmentation', {'mean_iou', 'dice', 'pixel_accuracy', 'loss'}),
        ('instances', {'ap50', 'ap', 'dice', 'pooled_dice', 'loss'}),
    ):
        values = result(runs / task)
        assert {f'test_{name}' for name in names} <= values.keys()
        assert {f'validation/{name}' for name in names} <= curve(runs / task)[-1].keys()
    assert result(runs / 'segmentation')['test_examples'] == scenes.SIZES['test']
    assert result(runs / 'instances')['test_examples'] == masked_pictures.COUNTS['test']


@pytest.mark.parametrize('task', ['segmentation', 'instances'])
def test_killed_and_resumed_it_ends_with_the_same_bits(task, configs, runs, tmp_path):
    with Child(arguments(configs[task], tmp_path / 'run'), tmp_path / 'log') as child:
        assert child.wait_until(lambda: saved_steps(tmp_path / 'run'))
        child.kill()
    assert last_step(tmp_path / 'run') < 8
    assert train_here(None, tmp_path / 'run') == 0
    assert result(tmp_path / 'run')['params_sha256'] == result(runs / task)['params_sha256']
    assert curve(tmp_path / 'run') == curve(runs / task)


def evaluated(workdir, folder, **fields):
    """What evaluate.py writes."""
    options = [f'--config.{name}={value}' for name, value in fields.items()]
    assert evaluate.main([f'--workdir={workdir}', f'--output={folder}', *options]) == 0
    return json.loads((folder / 'evaluation_test.json').read_text())


@pytest.mark.parametrize('task', [slow('segmentation'), 'instances'])
def test_an_evaluation_does_not_depend_on_the_batch_size(task, runs, tmp_path):
    expected = result(runs / task)
    for size in (1 if task == 'instances' else 37, 8 if task == 'instances' else 400):
        found = evaluated(runs / task, tmp_path, eval_batch_size=size)
        assert found['examples'] == expected['test_examples']
        for name in ('dice', 'loss', 'mean_iou', 'ap50', 'pooled_dice'):
            if f'test_{name}' in expected:
                assert found[name] == pytest.approx(expected[f'test_{name}'], rel=1e-5)


def test_every_pixel_counts_once_and_padding_never(runs, discs, tmp_path):
    found = evaluated(runs / 'instances', tmp_path)
    masks = (discs / 'source' / 'test' / 'labels').iterdir()
    sizes = [np.asarray(Image.open(path)).size for path in masks]
    assert np.sum(found['confusion']) == sum(sizes)


def test_tiles_give_what_the_whole_picture_gives_away_from_their_edges(runs):
    """One tile or several: the answers differ where a tile has not seen the surroundings."""
    found = {}
    for tile in (64, 192):
        network = trained.load(runs / 'instances')
        config = network.experiment.config.copy_and_resolve_references()
        config.data.tile = tile
        exp, split = experiment.open_train(config)
        runner = Runner(network.spec, 'pmap', network.devices[:1])
        variables = runner.replicate(network.variables)
        rows = Evaluator(exp, runner, split)(variables).rows
        found[tile] = rows['confusion']
    assert found[64].sum() == found[192].sum()
    changed = np.abs(found[64].astype(float) - found[192]).sum() / 2 / found[64].sum()
    assert 0 < changed < 0.1


def test_void_pixels_change_nothing(runs):
    """Neither those of the map nor what an example whose mask is 0 has."""
    network = trained.load(runs / 'segmentation')
    task = network.spec.task
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(2, 8, 8, 11)).astype(np.float32)
    labels = rng.integers(0, 11, (2, 8, 8)).astype(np.uint8)
    labels[0, :4] = 255
    batch = {'segmentation_mask': labels, 'mask': np.array([1, 0], np.float32)}
    hyper = {'label_smoothing': 0.1, 'focal_gamma': 2.0}
    other = outputs.copy()
    other[0, :4] += 5
    other[1] *= 3
    for function in (lambda x: task.loss(x, batch, hyper), lambda x: task.sums(x, batch)):
        for one, two in zip(function(outputs).values(), function(other).values(), strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize('task', [slow('segmentation'), 'instances'])
def test_predictions_are_written_for_pictures_of_any_size(task, runs, tmp_path, capsys):
    rng = np.random.default_rng(1)
    folder = tmp_path / 'pictures'
    folder.mkdir()
    sizes = {'wide.png': (31, 170), 'one.png': (1, 1), 'large.jpg': (300, 260)}
    for name, shape in sizes.items():
        Image.fromarray(rng.integers(0, 256, (*shape, 3)).astype(np.uint8)).save(folder / name)
    (folder / 'broken.png').write_bytes(b'no picture')
    argv = [f'--workdir={runs / task}', str(folder), f'--output={tmp_path / "out"}']
    assert predict.main([*argv, '--tta=flips']) == 2
    said = capsys.readouterr()
    assert 'broken.png' in said.err
    assert len(said.out.splitlines()) == len(sizes)
    with (tmp_path / 'out' / 'objects.csv').open() as file:
        rows = list(csv.DictReader(file))
    for name, shape in sizes.items():
        stem = name.rpartition('.')[0]
        labels, instances, overlay = (
            np.asarray(Image.open(tmp_path / 'out' / kind / f'{stem}.png'))
            for kind in ('labels', 'instances', 'overlays')
        )
        assert labels.shape == instances.shape == shape
        assert overlay.shape == (*shape, 3)
        assert instances.dtype == np.uint16
        listed = {int(row['id']): row for row in rows if row['file'] == stem}
        assert set(listed) == set(np.unique(instances)) - {0}
        for number, row in listed.items():
            assert int(row['area']) == (instances == number).sum()
    assert command.call(predict.main, argv) == 2
    assert 'is not an empty folder' in capsys.readouterr().err


def test_show_batch_draws_the_masks(configs, tmp_path):
    argv = [f'--config={configs["segmentation"]}', f'--out={tmp_path / "sheets"}']
    assert show_batch.main(argv) == 0
    for name in ('batch', 'affine', 'flip'):
        pixels = np.asarray(Image.open(tmp_path / 'sheets' / f'{name}.png').convert('RGB'))
        assert (pixels.max(-1).astype(int) - pixels.min(-1) > 60).any()  # the pictures are gray


def test_classification_has_nothing_to_draw(small_run, tmp_path, capsys):
    picture = tmp_path / 'a.png'
    Image.new('L', (28, 28)).save(picture)
    for option, sentence in (
        (f'--output={tmp_path / "out"}', '--output writes what was found in a picture'),
        ('--tta=flips', '--tta=flips averages the answers for each pixel'),
    ):
        with pytest.raises(UserError, match=sentence):
            predict.main([f'--workdir={small_run}', str(picture), option])


@pytest.mark.parametrize(
    'task', [slow('instances'), pytest.param('segmentation', marks=pytest.mark.full)]
)
def test_devices_and_processes_train_as_one_device(task, configs, runs, tmp_path):
    for devices in (2, 4, 8):
        folder = tmp_path / str(devices)
        folder.mkdir()
        assert_close(finished(configs[task], folder, devices=devices), runs / task)
    address = f'127.0.0.1:{free_port()},2'
    children = [
        Child(
            arguments(configs[task], tmp_path / 'two', devices=1, distributed=f'{address},{i}'),
            tmp_path / f'log{i}',
        )
        for i in range(2)
    ]
    with children[0] as first, children[1] as second:
        assert [first.wait(), second.wait()] == [0, 0], first.output + second.output
    assert_close(tmp_path / 'two', runs / task)


def assert_close(workdir, alone):
    for mine, other in zip(curve(workdir), curve(alone), strict=True):
        assert mine == pytest.approx(other, rel=2e-2, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize('task', ['segmentation', 'instances'])
def test_an_evaluation_is_the_same_on_any_number_of_devices(task, runs, tmp_path):
    found = []
    for devices in (1, 4):
        argv = [f'--workdir={runs / task}', f'--output={tmp_path}', f'--config.devices={devices}']
        done = run_child(argv, tmp_path / f'log{devices}', EVALUATE)
        assert done.process.returncode == 0, done.output
        found.append(json.loads((tmp_path / 'evaluation_test.json').read_text()))
    assert found[0]['confusion'] == found[1]['confusion']
    assert found[0]['loss'] == pytest.approx(found[1]['loss'], rel=1e-6)


@pytest.mark.slow
def test_a_sweep_looks_for_the_largest_mean_iou(configs, tmp_path):
    space = tmp_path / 'space.py'
    space.write_text(
        'from configs.search import Categorical, Sweep\n\n\n'
        'def get_sweep():\n'
        "    return Sweep({'optimizer.learning_rate': Categorical((1e-5, 3e-3))}, trials=2)\n"
    )
    argv = [f'--config={configs["segmentation"]}', f'--sweep={space}']
    argv += [f'--workdir={tmp_path / "sweep"}', '--sampler=grid', '--pruner=none']
    assert sweep.main(argv) == 0
    trials = trials_of(tmp_path / 'sweep')
    values = [float(trial['validation/mean_iou']) for trial in trials]
    best = json.loads((tmp_path / 'sweep' / 'best_config.json').read_text())
    chosen = trials[int(np.argmax(values))]
    assert float(chosen['optimizer.learning_rate']) == best['optimizer']['learning_rate']
    # A lane is the run that train.py makes of the same configuration.
    assert train_here(tmp_path / 'sweep' / 'best_config.json', tmp_path / 'alone') == 0
    alone = curve(tmp_path / 'alone')[-1]['validation/mean_iou']
    assert alone == pytest.approx(max(values), abs=1e-3)  # rounding decides a pixel in 1,000


@pytest.mark.slow
def test_preflight_learns_one_batch(configs, capsys):
    argv = [f'--config={configs["segmentation"]}', '--config.augment.erase=0']
    assert preflight.main(argv) == 0
    said = capsys.readouterr().out
    assert said.rstrip().endswith('go')
    assert 'mean_iou' in said


@pytest.mark.parametrize(
    ('argument', 'sentence'),
    [
        ('--config.model.name=fcn', 'FCN has no feature maps'),
        ('--config.segmentation.losses=("dic",)', 'Did you mean "dice"'),
        ('--config.segmentation.class_weights=(1,2)', 'class_weights has 2 values'),
        ('--config.head.name=fcn8s', 'config.head.width belongs to head.name=unet'),
        ('--config.augment.mixup=0.2', 'mixup'),
        ('--config.data.tile=100', 'must be a multiple of 64'),
        ('--config.data.name=digits', 'digits'),
        ('--config.linear_probe=True', 'linear_probe'),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(argument, sentence, configs):
    def opened():
        config = reading.from_arguments(str(configs['segmentation']), [argument])
        checks.check(config)
        exp, _ = experiment.open_train(config)
        exp.abstract_state(exp.spec())

    with pytest.raises(UserError, match=sentence):
        opened()


@pytest.mark.parametrize('task', [slow('segmentation'), 'instances'])
def test_the_sheet_shows_the_best_median_and_worst_pictures(task, runs, tmp_path):
    found = evaluated(runs / task, tmp_path)
    sheet = Image.open(tmp_path / 'pictures_test.png').convert('HSV')
    assert sheet.size[0] > 1500
    assert (np.asarray(sheet)[..., 1] > 100).any()  # something is drawn over the gray pictures
    assert (tmp_path / 'confusion_test.png').stat().st_size > 5000
    qualities = [picture['quality'] for picture in found['pictures']]
    assert [picture['example'] for picture in found['pictures']] == list(range(len(qualities)))
    if task == 'instances':
        assert found['ap50'] == pytest.approx(np.mean(qualities))
        assert found['precision']['0.50'] == pytest.approx(found['ap50'])
        assert len(found['precision']) == 10


def test_few_pictures_are_shown_once():
    for count in (1, 2, 4, 9, 20):
        rows = extremes.chosen(np.linspace(0, 1, count), np.arange(count))
        shown = [example for row in rows for example, _ in row.examples]
        assert len(shown) == len(set(shown)) == min(count, 9)
        assert rows[0].examples[0][0] == count - 1


def test_the_page_draws_the_answer_and_explains_a_mask(runs):
    answers = Answers(trained.load(runs / 'segmentation'), runs / 'segmentation')
    file = io.BytesIO()
    Image.fromarray(scenes.load('test').images[0, ..., 0]).save(file, 'PNG')
    found = answers.look(file.getvalue(), choice='3', stage='conv2')
    assert found['drawn'].startswith('data:image/png;base64,')
    assert found['heat']['choice'] == '3'
    assert len(found['choices']) == 11


def test_tiles_that_are_too_small_for_the_network_are_refused_before_training(configs):
    """Training crops are larger than the smallest tiles, so that only an evaluation would fail."""
    arguments = ['--config.model.name=alexnet', '--config.data.image_size=64']
    config = reading.from_arguments(str(configs['instances']), arguments)
    with pytest.raises(UserError, match=r'data\.tile=64 is too small for alexnet.*set it to 128'):
        experiment.open_train(config)
    config.data.tile = 128
    experiment.open_train(config)


def test_a_small_network_learns_the_scenes(tmp_path):
    """In 200 steps. An untrained one reaches 2 %, and an answer of background alone 8 %."""
    fields = {name: value for name, value in SCENES.items() if not name.startswith('augment__')}
    fields |= {
        'head__width': 8,
        'optimizer__learning_rate': 0.01,
        'schedule__warmup': 0.1,
        'segmentation__losses': ('cross_entropy', 'dice'),
        'ema_decay': 0.0,
        'steps': 200,
        'eval_every': 100,
        'checkpoint__every_steps': 200,
    }
    config = write_config(tmp_path, **fields)
    assert train_here(config, tmp_path / 'run') == 0
    assert result(tmp_path / 'run')['test_mean_iou'] > 0.12
