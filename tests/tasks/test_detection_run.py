"""What a run promises, for object detection: on a set in memory, and on a streamed one."""

import contextlib
import io
import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

import evaluate
import input_pipeline
import predict
import sweep
from configs import reading
from data_sources import scenes
from errors import UserError
from tests.support import (
    Child,
    Several,
    arguments,
    curve,
    finished,
    last_step,
    on_eight_devices,
    once,
    outputs,
    result,
    saved_arrays,
    saved_steps,
    slow,
    train_here,
    trials_of,
    write_config,
)
from tests.tasks import boxed_pictures
from tools import preflight, show_batch
from training import checks, experiment, trained
from training.evaluation import Evaluator
from training.runner import Runner

HEAD = {
    'task': 'detection',
    'model__name': 'deep_cnn',
    'head__channels': 8,
    'head__depth': 1,
    'head__strides': (4,),
    'head__extra': 1,
    'detection__candidates': 64,
    'detection__most': 20,
    'data__max_boxes': 6,
    'optimizer__name': 'adam',
    'optimizer__learning_rate': 0.003,
    'batch_size': 16,
    'log_every': 2,
    'steps': 8,
    'checkpoint__every_steps': 2,
    'checkpoint__keep': 4,
    'ema_decay': 0.9,
    # Every augmentation that moves boxes, and one that does not.
    'augment__shift': 3.0,
    'augment__rotate': 20.0,
    'augment__scale': 0.2,
    'augment__flip': 0.5,
    'augment__quarter_turns': 0.5,
    'augment__erase': 0.5,
}
SCENES = {
    **HEAD,
    'data__name': 'scenes',
    'data__mean': (0.3,),
    'data__std': (0.2,),
    'eval_batch_size': 100,
    'eval_every': 0.032,  # four steps
    'augment__crop': 3,
    'augment__brightness': 0.2,
    'augment__contrast': 0.2,
}
PATCHES = {
    **HEAD,
    'data__name': boxed_pictures.NAME,
    'data__image_size': 64,
    'data__crop': 'fit',
    'data__crop_zoom': (0.7, 1.4),
    'eval_every': 8 / 3,  # four steps of 16 of 24 pictures
    'eval_batch_size': 16,
    'augment__color_jitter': (0.2, 0.2, 0.2, 0.1),
    'augment__policy': 'trivialaugment',
}
METRICS = ('AP', 'AP50', 'AP75')


@pytest.fixture(scope='module')
def patches(tmp_path_factory):
    """The folder of data sets with the streamed set."""
    return once(tmp_path_factory, 'patches', boxed_pictures.prepare)


@pytest.fixture(scope='module')
def configs(patches, tmp_path_factory):
    """A configuration file for each data set."""
    folder = tmp_path_factory.mktemp('configs')
    return {
        'scenes': write_config(folder, **SCENES),
        'patches': write_config(folder, **PATCHES, data__dir=str(patches)),
    }


@pytest.fixture(scope='module')
def runs(configs, tmp_path_factory):
    """A function of a data set that gives a run that was left alone; copy it to change it."""
    folder = tmp_path_factory.mktemp('runs')

    def run(name):
        if not (folder / name).exists():
            assert train_here(configs[name], folder / name) == 0
        return folder / name

    return run


def evaluated(workdir, folder, **fields):
    """What evaluate.py writes."""
    options = [f'--config.{name}={value}' for name, value in fields.items()]
    assert evaluate.main([f'--workdir={workdir}', f'--output={folder}', *options]) == 0
    return json.loads((folder / 'evaluation_test.json').read_text())


def predicted(workdir, *paths, options=()):
    """What predict.py prints for each picture, by its path."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        argv = [f'--workdir={workdir}', *map(str, paths), '--json', *options]
        assert predict.main(argv) == 0
    lines = [json.loads(line) for line in printed.getvalue().splitlines()]
    return {line['image']: line for line in lines}


# --- training -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('name', ['scenes', 'patches'])
def test_killed_and_resumed_it_ends_with_the_same_bits(name, configs, runs, tmp_path):
    with Child(arguments(configs[name], tmp_path / 'run'), tmp_path / 'log') as child:
        assert child.wait_until(lambda: saved_steps(tmp_path / 'run'))
        child.kill()
    assert last_step(tmp_path / 'run') < 8
    assert train_here(None, tmp_path / 'run') == 0
    values, alone = result(tmp_path / 'run'), result(runs(name))
    assert values['params_sha256'] == alone['params_sha256']
    assert curve(tmp_path / 'run') == curve(runs(name))
    sizes = {'scenes': scenes.SIZES['test'], 'patches': boxed_pictures.COUNTS['test']}
    assert values['test_examples'] == sizes[name]
    for metric in (*METRICS, 'loss'):
        assert values[f'test_{metric}'] == alone[f'test_{metric}']
    assert 'test_threshold' not in values  # it is chosen by the validation split
    last = curve(tmp_path / 'run')[-1]
    assert {f'validation/{n}' for n in (*METRICS, 'loss', 'threshold')} <= last.keys()


def params(workdir, step=8):
    found = saved_arrays(workdir, step)
    return {name: array for name, array in found.items() if name.startswith('params/')}


@pytest.mark.slow
def test_room_for_more_boxes_changes_nothing(configs, runs, tmp_path):
    """But the last digits: absent rows take part in sums, with weights of 0."""
    assert train_here(configs['patches'], tmp_path / 'run', data__max_boxes=40) == 0
    for mine, other in zip(curve(tmp_path / 'run'), curve(runs('patches')), strict=True):
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-4)
    narrow = params(runs('patches'))
    for name, array in params(tmp_path / 'run').items():
        np.testing.assert_allclose(array, narrow[name], atol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    'fields',
    [{'accumulate': 4}, {'dtype': 'bfloat16'}, {'head__depth': 0, 'optimizer__clip_norm': 1.0}],
    ids=lambda fields: next(iter(fields)),
)
def test_it_trains_in_parts_and_in_half_precision(fields, configs, runs, tmp_path):
    assert train_here(configs['patches'], tmp_path / 'run', **fields) == 0
    losses = [r['validation/loss'] for r in curve(tmp_path / 'run') if 'validation/loss' in r]
    assert np.isfinite(losses).all()
    alone = [r['validation/loss'] for r in curve(runs('patches')) if 'validation/loss' in r]
    if 'head__depth' not in fields:
        assert losses == pytest.approx(alone, rel=0.05)


def assert_close(workdir, alone):
    """The losses are alike; of a network that has learned nothing AP may be anything small."""
    for mine, other in zip(curve(workdir), curve(alone), strict=True):
        losses = [name for name in other if name.endswith('/loss')]
        assert mine.keys() == other.keys()
        for name in losses:
            assert mine[name] == pytest.approx(other[name], rel=2e-2), name


@pytest.mark.parametrize('name', [slow('patches'), pytest.param('scenes', marks=pytest.mark.full)])
def test_devices_and_processes_train_as_one_device(name, configs, runs, tmp_path):
    for devices in (2, 4, 8):
        folder = tmp_path / str(devices)
        folder.mkdir()
        assert_close(finished(configs[name], folder, devices=devices), runs(name))
    with Several(configs[name], tmp_path / 'two', tmp_path / 'log') as children:
        assert [child.wait() for child in children] == [0, 0], outputs(children)
    assert_close(tmp_path / 'two', runs(name))
    # What two processes found together is what one finds.
    found = evaluated(tmp_path / 'two', tmp_path)
    for metric in METRICS:
        assert found[metric] == result(tmp_path / 'two')[f'test_{metric}']


# --- evaluation ---------------------------------------------------------------------------------

EVALUATIONS = """
import json, pathlib, sys
import jax
from training import experiment, trained
from training.evaluation import Evaluator
from training.runner import Runner
import input_pipeline

network, found = trained.load(pathlib.Path(sys.argv[1])), []
for devices in (1, 2, 4, 8):
    for runner in ('pmap', 'shard_map'):
        runner = Runner(network.spec, runner, jax.devices()[:devices])
        config = network.experiment.config.copy_and_resolve_references()
        config.eval_batch_size = 8
        exp, _ = experiment.open_train(config)
        split = input_pipeline.open_split(config, 'test')
        evaluation = Evaluator(exp, runner, split)(runner.replicate(network.variables))
        values = network.spec.task.summarize(evaluation.sums, evaluation.rows)
        found.append({'order': evaluation.rows['example'].tolist(), **values})
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize('name', ['patches', 'scenes'])
def test_an_evaluation_is_the_same_on_any_number_of_devices(name, runs):
    found = json.loads(on_eight_devices('-c', EVALUATIONS, str(runs(name))).splitlines()[-1])
    assert len(found) == 8
    for other in found:
        assert other['order'] == list(range(len(other['order'])))
        assert other['loss'] == pytest.approx(found[0]['loss'], rel=1e-6)
        for metric in (*METRICS, 'threshold'):
            assert other[metric] == found[0][metric]


@pytest.mark.parametrize('name', [slow('scenes'), 'patches'])
def test_an_evaluation_does_not_depend_on_the_batch_size(name, runs, tmp_path):
    found = [
        evaluated(runs(name), tmp_path, eval_batch_size=size)
        for size in ((3, 8) if name == 'patches' else (37, 400))
    ]
    expected = result(runs(name))
    for values in found:
        assert values['examples'] == expected['test_examples']
        assert values['loss'] == pytest.approx(expected['test_loss'], rel=1e-6)
        for metric in METRICS:
            assert values[metric] == expected[f'test_{metric}']
        assert values['threshold'] == found[0]['threshold']
        assert values['classes'] == found[0]['classes']
    for picture in ('precision_recall_test.png', 'pictures_test.png'):
        with Image.open(tmp_path / picture) as image:
            assert image.size[0] > 700
    sheet = np.asarray(Image.open(tmp_path / 'pictures_test.png').convert('HSV'))
    assert (sheet[..., 1] > 100).any()  # boxes are drawn


def test_masked_examples_and_absent_rows_change_nothing(configs):
    exp, _ = experiment.open_train(reading.load(str(configs['patches'])))
    task = exp.spec().task
    rng = np.random.default_rng(0)
    places = 16 * 16 + 8 * 8
    outputs = {
        'logits': rng.normal(size=(3, places, 3)).astype(np.float32),
        'distances': rng.uniform(1, 20, (3, places, 4)).astype(np.float32),
        'centerness': rng.normal(size=(3, places)).astype(np.float32),
    }
    objects = np.zeros((3, 6, 6), np.float32)
    objects[:, :2] = [[4, 4, 20, 30, 1, 0], [30, 30, 60, 62, 2, 0]]
    batch = {
        'image': np.zeros((3, 64, 64, 3), np.uint8),
        'objects': objects,
        'placement': task.targets['placement'].empty(3, (64, 64, 3)),
        'mask': np.array([1, 1, 0], np.float32),
    }
    other = {name: array.copy() for name, array in outputs.items()}
    for array in other.values():
        array[2] *= 3
    changed = objects.copy()
    changed[2] = objects[0][::-1]  # of the masked example
    # A row without area is absent, whatever its class; and rows may be anywhere.
    changed[0] = 0
    changed[0, [5, 2]] = objects[0, :2]
    changed[1, 4] = [9, 9, 9, 30, 2, 1]
    more = {**batch, 'objects': changed}

    @jax.jit
    def numbers(outputs, batch):
        return {
            'loss': task.loss(outputs, batch, {'alpha': 0.25, 'focusing': 2.0}),
            'weights': task.weights(batch),
            'sums': task.sums(outputs, batch),
        }

    one, two = numbers(outputs, batch), numbers(other, more)
    assert min(one['weights'].values()) > 0
    for found, expected in zip(*map(jax.tree.leaves, (two, one)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


# --- prediction ---------------------------------------------------------------------------------


def boxes_of(answer):
    """Boxes (left, top, right, bottom), float64 [n, 4], the surest first."""
    return np.array([thing['box'] for thing in answer['objects']], np.float64).reshape(-1, 4)


def test_what_is_predicted_for_files_is_what_was_evaluated(runs, patches):
    """For all pictures of test, also those on their sides, by another way through the program."""
    network = trained.load(runs('patches'))
    exp, config = network.experiment, network.experiment.config
    split = input_pipeline.open_split(config, 'test')
    runner = Runner(network.spec, 'pmap', network.devices[:1])
    rows = Evaluator(exp, runner, split)(runner.replicate(network.variables)).rows
    folder = patches / 'source' / 'test'
    found = predicted(runs('patches'), folder, options=['--threshold=0'])
    assert len(found) == boxed_pictures.COUNTS['test'] == split.size
    for number in range(split.size):  # as they were written
        path = folder / f'test{number}.png'
        answer = found[str(path)]
        kept = rows['scores'][number] > 0
        assert kept.any()
        with Image.open(path) as picture:
            sides = picture.size
        height, width = sides if number % 5 == 4 else sides[::-1]
        boxes = np.clip(rows['boxes'][number][kept], 0, [height, width, height, width])
        np.testing.assert_allclose(boxes_of(answer), boxes[:, [1, 0, 3, 2]], atol=0.02)
        scores = [thing['score'] for thing in answer['objects']]
        np.testing.assert_allclose(scores, rows['scores'][number][kept], atol=1e-5)
        classes = [boxed_pictures.CLASSES[k] for k in rows['classes'][number][kept]]
        assert classes == [thing['class'] for thing in answer['objects']]
        assert answer['counts'] == {k: classes.count(k) for k in boxed_pictures.CLASSES}


def save(pixels, path, sideways=False):
    boxed_pictures.save(pixels, path, sideways)
    return path


def test_boxes_are_in_the_pixels_of_the_picture(runs, tmp_path):
    """A picture that the frame shows at another size or place has the same boxes there."""
    pixels, _ = boxed_pictures.picture(np.random.default_rng(3))
    pixels = np.resize(pixels[:48, :64], (48, 64, 3))
    framed = np.zeros((64, 64, 3), np.uint8)
    framed[8:56] = pixels  # what the network sees of all of them
    files = {
        'framed': save(framed, tmp_path / 'framed.png'),
        'own': save(pixels, tmp_path / 'own.png'),
        'twice': save(pixels.repeat(2, 0).repeat(2, 1), tmp_path / 'twice.png'),
        'side': save(pixels, tmp_path / 'side.png', sideways=True),
    }
    found = predicted(runs('patches'), *files.values(), options=['--threshold=0'])
    found = {name: found[str(path)] for name, path in files.items()}
    expected = boxes_of(found['framed'])
    assert len(expected) > 3
    expected = np.clip(expected - [0, 8, 0, 8], 0, [64, 48, 64, 48])
    for name, scale in (('own', 1), ('twice', 2), ('side', 1)):
        np.testing.assert_allclose(boxes_of(found[name]) / scale, expected, atol=0.02, err_msg=name)
        for one, other in zip(found[name]['objects'], found['framed']['objects'], strict=True):
            assert one['class'] == other['class']
            assert one['score'] == pytest.approx(other['score'], abs=1e-4)


def test_drawn_pictures_and_a_table_are_written(runs, tmp_path, capsys):
    rng = np.random.default_rng(1)
    folder = tmp_path / 'pictures'
    folder.mkdir()
    sizes = {'wide.png': (31, 170), 'one.png': (1, 1), 'large.jpg': (300, 260)}
    for name, shape in sizes.items():
        Image.fromarray(rng.integers(0, 256, (*shape, 3)).astype(np.uint8)).save(folder / name)
    (folder / 'broken.png').write_bytes(b'no picture')
    argv = [f'--workdir={runs("patches")}', str(folder), f'--output={tmp_path / "out"}']
    assert predict.main([*argv, '--threshold=0.1']) == 2
    said = capsys.readouterr()
    assert 'broken.png' in said.err
    assert len(said.out.splitlines()) == len(sizes)
    for name, shape in sizes.items():
        drawn = Image.open(tmp_path / 'out' / 'boxes' / f'{name.rpartition(".")[0]}.png')
        assert np.asarray(drawn).shape == (*shape, 3)
    table = (tmp_path / 'out' / 'objects.csv').read_text().splitlines()
    assert table[0] == 'picture,file,id,class,score,top,left,bottom,right'
    least = [float(row.split(',')[4]) for row in table[1:]]
    assert least
    assert min(least) >= 0.1
    assert not predicted(runs('patches'), folder / 'wide.png', options=['--threshold=0.99'])[
        str(folder / 'wide.png')
    ]['objects']


# --- tools --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('name', ['scenes', 'patches'])
def test_show_batch_draws_the_boxes(name, configs, tmp_path):
    argv = [f'--config={configs[name]}', f'--out={tmp_path / "sheets"}']
    assert show_batch.main(argv) == 0
    sheets = {path.stem for path in (tmp_path / 'sheets').glob('*.png')}
    assert {'batch', 'affine', 'flip', 'quarter_turns'} <= sheets
    if name == 'scenes':  # the pictures are gray
        pixels = np.asarray(Image.open(tmp_path / 'sheets' / 'batch.png').convert('RGB'))
        assert (pixels.max(-1).astype(int) - pixels.min(-1) > 60).any()


@pytest.mark.slow
def test_a_sweep_looks_for_the_largest_precision(configs, tmp_path):
    space = tmp_path / 'space.py'
    space.write_text(
        'from configs.search import Categorical, Sweep\n\n\n'
        'def get_sweep():\n'
        "    return Sweep({'optimizer.learning_rate': Categorical((1e-5, 3e-3))}, trials=2)\n"
    )
    argv = [f'--config={configs["scenes"]}', f'--sweep={space}']
    argv += [f'--workdir={tmp_path / "sweep"}', '--sampler=grid', '--pruner=none']
    assert sweep.main(argv) == 0
    trials = trials_of(tmp_path / 'sweep')
    values = [float(trial['validation/AP']) for trial in trials]
    best = json.loads((tmp_path / 'sweep' / 'best_config.json').read_text())
    chosen = trials[int(np.argmax(values))]
    assert float(chosen['optimizer.learning_rate']) == best['optimizer']['learning_rate']
    # A lane is the run that train.py makes of the same configuration.
    assert train_here(tmp_path / 'sweep' / 'best_config.json', tmp_path / 'alone') == 0
    alone = curve(tmp_path / 'alone')[-1]['validation/AP']
    assert alone == pytest.approx(max(values), abs=1e-3)


@pytest.mark.slow
def test_preflight_learns_one_batch(configs, capsys):
    argv = [f'--config={configs["patches"]}', '--config.augment.erase=0']
    assert preflight.main(argv) == 0
    said = capsys.readouterr().out
    assert said.rstrip().endswith('go')
    assert re.search(r'loss \S+ to \S+, in \d+ steps on one batch', said)


@pytest.mark.slow
def test_a_smoke_run_goes_through_everything(configs, tmp_path):
    config = configs['patches']
    assert train_here(config, tmp_path / 'run', smoke=True, steps=400, batch_size=24) == 0
    assert result(tmp_path / 'run')['steps'] == 4


@pytest.mark.parametrize(
    ('argument', 'sentence'),
    [
        ('--config.model.name=fcn', 'FCN has no feature maps'),
        ('--config.head.strides=(4,16)', 'config.head.strides has 16'),
        ('--config.head.width=4', r'config\.head\.width belongs to task='),
        ('--config.data.crop=pixels', 'cuts objects off: set it to fit'),
        ('--config.detection.most=65', r'more than config\.detection\.candidates=64'),
        ('--config.augment.mixup=0.2', 'mixup'),
        ('--config.augment.elastic=2', 'elastic'),
        ('--config.data.tile=64', r'config\.data\.tile is for tasks with an answer for each pixel'),
        ('--config.data.name=digits', 'digits'),
        ('--config.linear_probe=True', 'linear_probe'),
        ('--config.data.max_boxes=4', r'has objects with 5 boxes, more than config\.data\.max_boxes'
         r'=4: set it to 5 or more'),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_a_sentence(argument, sentence, configs):
    def opened():
        config = reading.from_arguments(str(configs['patches']), [argument])
        checks.check(config)
        exp, split = experiment.open_train(config)
        exp.abstract_state(exp.spec())
        split.read(range(split.size))

    with pytest.raises(UserError, match=sentence):
        opened()
