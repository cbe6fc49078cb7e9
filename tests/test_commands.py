"""The commands as a user types them: train, evaluate, predict, their messages and exit codes."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from command import has_accelerator
from data_sources import digits
from tests.conftest import ROOT
from tests.support import slow

SHORT = (
    '--config=configs/digits_lenet.py',
    '--config.epochs=6',
    '--config.batch_size=32',
    '--config.eval_every=2',
    '--config.checkpoint.every=2',
)


def command(*arguments, env=None):
    """Runs a command of the project; warnings of our own code are errors there, too."""
    # JAX, which this process has imported, sets a level of its own there.
    own = {name: value for name, value in os.environ.items() if name != 'TF_CPP_MIN_LOG_LEVEL'}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**own, **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A workdir with a short finished run, and what the command printed."""
    folder = tmp_path_factory.mktemp('run') / 'digits'
    done = command('train.py', *SHORT, f'--workdir={folder}')
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def pictures(tmp_path):
    """A folder with test digits as files of several kinds; returns (folder, labels)."""
    source = digits.load('test')
    folder = tmp_path / 'pictures'
    folder.mkdir()
    labels = {}
    for number in range(8):
        image = Image.fromarray(source.images[number, ..., 0])
        if number % 4 == 1:
            image = image.resize((90, 90)).convert('RGB')
        elif number % 4 == 2:
            image = Image.fromarray(255 - np.asarray(image)).convert('RGBA')
        name = f'{number}.{"jpg" if number % 4 == 3 else "png"}'
        image.save(folder / name, **({'quality': 95} if number % 4 == 3 else {}))
        labels[name] = str(source.labels[number])
    return folder, labels


def test_train_ends_with_its_result_and_what_to_do_next(trained):
    folder, printed = trained
    result = json.loads((folder / 'result.json').read_text())
    wanted = {'config', 'seed', 'steps', 'test_accuracy', 'test_examples', 'params_sha256',
              'wall_seconds', 'examples_per_second', 'device', 'devices', 'versions'}  # fmt: skip
    assert wanted <= set(result)
    assert result['test_examples'] == 359
    assert result['test_accuracy'] > 0.9
    assert result['steps'] == round(6 * 1295 / 32)
    assert result['parameters'] == 61_706
    assert f'{result["test_accuracy"]:.2%}'.replace('%', ' %') in printed
    assert f'evaluate.py --workdir={folder}' in printed
    assert 'images/s' in printed
    for name in ('config.json', 'metrics.jsonl', 'curves.png', 'checkpoints', 'tensorboard'):
        assert (folder / name).exists(), name
        assert name in printed


@pytest.mark.slow
def test_a_start_with_everything_compiled_says_nothing_else(trained, tmp_path):
    """XLA:CPU writes an error for each program out of the cache, unless it is told not to."""
    _, printed = trained
    done = command('train.py', *SHORT, f'--workdir={tmp_path}/again')
    assert done.returncode == 0
    assert done.stderr == ''
    assert len(done.stdout.splitlines()) <= len(printed.splitlines()) + 1


@pytest.mark.slow
def test_images_sent_by_the_batch_give_the_same_parameters(trained, tmp_path):
    folder, _ = trained
    done = command('train.py', *SHORT, f'--workdir={tmp_path}', '--config.data.placement=host')
    assert done.returncode == 0, done.stderr
    results = [json.loads((where / 'result.json').read_text()) for where in (folder, tmp_path)]
    assert results[0]['params_sha256'] == results[1]['params_sha256']
    assert results[0]['test_loss'] == results[1]['test_loss']


def test_evaluate_agrees_with_the_result_and_writes_its_files(trained, tmp_path):
    folder, _ = trained
    done = command('evaluate.py', f'--workdir={folder}', f'--output={tmp_path}')
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / 'result.json').read_text())
    written = json.loads((tmp_path / 'evaluation_test.json').read_text())
    assert written['accuracy'] == result['test_accuracy']
    assert written['loss'] == pytest.approx(result['test_loss'], rel=1e-6)
    assert np.sum(written['confusion']) == 359
    assert np.trace(written['confusion']) == result['test_correct']
    assert sum(b['count'] for b in written['calibration_bins']) == 359
    for name in ('confusion', 'calibration'):
        with Image.open(tmp_path / f'{name}_test.png') as picture:
            assert picture.size[0] > 300
    assert f'{tmp_path}/calibration_test.png' in done.stdout
    assert 'precision' in done.stdout


def test_evaluate_validation_of_the_best_checkpoint(trained, tmp_path):
    folder, _ = trained
    records = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    best = max(r['validation/accuracy'] for r in records if 'validation/accuracy' in r)
    done = command(
        'evaluate.py', f'--workdir={folder}', '--split=validation', '--checkpoint=best',
        f'--output={tmp_path}', '--config.eval_batch_size=7', '--config.runner=shard_map',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / 'evaluation_validation.json').read_text())
    assert written['accuracy'] == pytest.approx(best, abs=1e-12)


def test_predict_reads_a_folder_of_any_pictures(trained, pictures):
    folder, _ = trained
    where, labels = pictures
    done = command('predict.py', f'--workdir={folder}', '--json', where)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [os.path.basename(row['image']) for row in rows] == sorted(labels)
    right = sum(row['top'][0]['class'] == labels[os.path.basename(row['image'])] for row in rows)
    assert right >= 7
    for row in rows:
        p = [entry['probability'] for entry in row['top']]
        assert len(p) == 5
        assert p == sorted(p, reverse=True)
        assert 0 < sum(p) <= 1 + 1e-6


def test_predict_names_a_broken_picture_and_predicts_the_others(trained, pictures):
    folder, _ = trained
    where, labels = pictures
    (where / 'empty.png').write_bytes(b'')
    (where / 'torn.png').write_bytes((where / '0.png').read_bytes()[:60])
    (where / 'text.jpg').write_text('not a picture')
    done = command('predict.py', f'--workdir={folder}', where)
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == len(labels)
    for name in ('empty.png', 'torn.png', 'text.jpg'):
        assert name in done.stderr
    assert 'Traceback' not in done.stderr
    assert re.search(r'0\.png: \d+ \d+\.\d%', done.stdout)


@pytest.mark.parametrize('name', ['train.py', 'evaluate.py', 'predict.py'])
def test_help_explains_itself(name):
    done = command(name, '--help')
    assert done.returncode == 0
    assert 'examples:' in done.stdout
    assert '--workdir' in done.stdout


def test_list_names_configurations_and_models():
    done = command('train.py', '--list')
    assert done.returncode == 0
    for word in ('configs/digits_lenet.py', 'configs/mnist_strided_cnn.py', 'deep_cnn', 'fcn'):
        assert word in done.stdout
    for word in ('base.py', 'imagenet.py', 'schema.py', 'smoke.py'):
        assert word not in done.stdout


MISTAKES = [
    (['train.py', '--config=configs/digits_lenett.py', '--workdir=X'], 'digits_lenet.py'),
    (['train.py', '--config=configs/digits_lenet.py'], '--workdir'),
    (['train.py', '--workdir=X'], '--config'),
    (['train.py', *SHORT, '--workdir=X', '--config.batch_size=31', '--config.devices=2'], '30'),
    (['train.py', *SHORT, '--workdir=X', '--config.data.name=mnist', '--config.data.dir=X/none'],
     'tools.prepare_data mnist'),
    (['train.py', *SHORT, '--workdir=/proc/nowhere'], '/proc/nowhere'),
    (['train.py', *SHORT, '--workdir=X', '--config.distributed=host'], 'config.distributed'),
    (['evaluate.py', '--workdir=X/none'], 'config.json'),
    (['predict.py', '--workdir=X/none', 'tests/configs'], 'tests/configs'),
    (['predict.py', '--workdir=X/none', 'nothing.png'], 'nothing.png'),
]  # fmt: skip


@pytest.mark.parametrize(
    ('arguments', 'word'),
    # One of each program; each of the others starts a process to say another sentence.
    [mistake if n in (0, 7, 9) else slow(*mistake) for n, mistake in enumerate(MISTAKES)],
    ids=range(len(MISTAKES)),
)
def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path, arguments, word):
    arguments = [a.replace('X', str(tmp_path)) for a in arguments]
    done = command(*arguments)
    assert done.returncode == 2, done.stderr
    assert word.replace('X', str(tmp_path)) in done.stderr
    assert 'Traceback' not in done.stderr
    assert done.stderr.startswith('error: ')
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / 'config.json').exists()


def test_evaluate_refuses_another_experiment(trained):
    folder, _ = trained
    done = command('evaluate.py', f'--workdir={folder}', '--config.seed=4')
    assert (done.returncode, 'config.seed' in done.stderr) == (2, True)
    done = command('evaluate.py', f'--workdir={folder}', '--checkpoint=17')
    assert (done.returncode, '--checkpoint=17' in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ('module', 'sentence'),
    [
        (
            'tools.contact_sheet',
            'tools.contact_sheet is no command; there are tools.convert_weights',
        ),
        ('tools.preflight.verdict', 'tools.preflight.verdict is no command'),
        ('tools.show_bach', 'Did you mean "tools.show_batch"?'),
        ('benchmarks.tables', 'benchmarks.tables is no command'),
    ],
)
def test_a_module_that_is_no_command_says_so(module, sentence):
    done = command('-m', module)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.count('\n') == 1


@pytest.mark.parametrize(
    ('name', 'arguments', 'near'),
    [
        ('train.py', ('--workdri=x',), '--workdir'),
        ('evaluate.py', ('--workdir=x', '--splot=test'), '--split'),
        ('predict.py', ('--workdir=x', 'y.png', '--jsno'), '--json'),
    ],
)
def test_an_unknown_option_names_the_commands_own(name, arguments, near):
    done = command(name, *arguments)
    assert done.returncode == 2
    wrong = arguments[-1]
    assert done.stderr == (
        f'error: {wrong} is not an option of {name}; see `python {name} --help`. '
        f'Did you mean "{near}"?\n'
    )


@pytest.mark.skipif(
    sys.platform != 'linux' or has_accelerator(), reason='a setting for Linux on CPUs'
)
@pytest.mark.parametrize('own', [None, 'glibc.malloc.check=0'])
def test_memory_comes_in_huge_pages_unless_the_user_has_a_setting(own):
    code = 'import os, sys; import command\n'
    code += "command.run(lambda argv: print(os.environ.get('GLIBC_TUNABLES'), *argv))"
    environment = {k: v for k, v in os.environ.items() if k != 'GLIBC_TUNABLES'}
    environment |= {'GLIBC_TUNABLES': own} if own else {}
    command = [sys.executable, '-W', 'error', '-c', code, 'one', 'two words']
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == f'{own or "glibc.malloc.hugetlb=1"} one two words\n'
