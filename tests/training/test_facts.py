"""data.json: a copied workdir predicts where its data set is not, and the set is checked by it."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import command
import evaluate
import predict
from data_sources import arrays, digits
from errors import UserError
from tests.support import go_back, result, train_here
from training import trained, transfer


@pytest.fixture
def picture(tmp_path) -> str:
    Image.fromarray(digits.load('test').images[0, ..., 0]).save(tmp_path / 'digit.png')
    return str(tmp_path / 'digit.png')


@pytest.fixture
def copied(small_run, tmp_path) -> Path:
    """A copy of a run, under a name that a person might give it."""
    return Path(shutil.copytree(small_run, tmp_path / 'von Jürgen' / '数字 1'))


@pytest.fixture
def elsewhere(monkeypatch):
    """A machine that does not have the data set."""
    monkeypatch.delitem(arrays.EMBEDDED, 'digits')


@pytest.fixture
def prepared_anew(monkeypatch):
    """Returns a function that gives the splits of the set other contents."""

    def change(**fields):
        def load_split(split):
            return dataclasses.replace(digits.load(split), **fields)

        monkeypatch.setitem(arrays.EMBEDDED, 'digits', load_split)

    return change


def said(capsys, main, *argv) -> str:
    """The error of a command that is refused."""
    assert command.call(main, list(argv)) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    return error


def changed(workdir: Path, **facts):
    path = workdir / 'data.json'
    stored = json.loads(path.read_text()) | facts
    path.write_text(json.dumps({k: v for k, v in stored.items() if v != 'gone'}))


def test_what_the_file_holds(small_run):
    assert json.loads((small_run / 'data.json').read_text()) == {
        'image_shape': [28, 28, 1],
        'class_names': list('0123456789'),
        'train_examples': 1295,
        'upright': False,
        'handwriting': True,
        'stretch': None,
    }


def test_a_copy_predicts_where_the_data_set_is_not(
    small_run, copied, picture, elsewhere, capsys, monkeypatch
):
    def answer(workdir, *more):
        assert predict.main([f'--workdir={workdir}', picture, '--json', *more]) == 0
        return json.loads(capsys.readouterr().out)

    # Nothing but the best checkpoint was copied, and what is needed beside.
    best = trained.find(copied, 'best', trained.load(copied).spec.task.metric())
    for other in [*copied.iterdir(), *best.parent.iterdir()]:
        if other.is_dir() and other not in (best, best.parent):
            shutil.rmtree(other)
        elif other.is_file() and other.name not in ('config.json', 'data.json'):
            other.unlink()
    before = {path: path.stat().st_mtime_ns for path in (copied, *copied.rglob('*'))}
    there = answer(copied)
    assert there == answer(copied, '--checkpoint=best')
    assert before == {path: path.stat().st_mtime_ns for path in (copied, *copied.rglob('*'))}
    monkeypatch.undo()
    assert there == answer(small_run, f'--checkpoint={best.name}')


def test_an_old_workdir_predicts_where_its_data_set_is(
    copied, picture, capsys, monkeypatch, tmp_path
):
    (copied / 'data.json').unlink()
    assert predict.main([f'--workdir={copied}', picture]) == 0
    capsys.readouterr()
    monkeypatch.delitem(arrays.EMBEDDED, 'digits')
    data = f'--config.data.dir={tmp_path}'
    error = said(capsys, predict.main, f'--workdir={copied}', picture, data)
    assert 'has no data.json' in error
    assert 'the set is needed' in error


def test_an_old_workdir_that_is_resumed_gets_the_file(copied, small_run):
    (copied / 'data.json').unlink()
    assert train_here(None, copied) == 0
    assert (copied / 'data.json').read_bytes() == (small_run / 'data.json').read_bytes()


def test_a_workdir_that_was_moved_is_resumed_with_the_same_bits(copied, small_run):
    go_back(copied, 4)
    assert train_here(None, copied) == 0
    assert result(copied)['params_sha256'] == result(small_run)['params_sha256']


@pytest.mark.parametrize(
    ('names', 'sentence'),
    [
        ('012345678X', 'class 9 is X there and 9 in the workdir'),
        ('0123456789X', 'the number of classes is 11 there and 10 in the workdir'),
    ],
)
def test_a_set_with_other_classes_is_noticed(
    copied, small, prepared_anew, names, sentence, tmp_path, capsys
):
    prepared_anew(class_names=tuple(names))
    error = said(capsys, evaluate.main, f'--workdir={copied}', f'--output={tmp_path}')
    assert 'The test split of data set "digits"' in error
    assert sentence in error
    assert_resume_is_refused(copied, small, sentence)


def test_a_set_with_other_images_is_noticed(copied, small, prepared_anew, tmp_path, capsys):
    labels = {'label': np.zeros(7, np.int32)}
    prepared_anew(images=np.zeros((7, 28, 28, 3), np.uint8), targets=labels)
    sentence = 'image_shape is [28, 28, 3] there and [28, 28, 1] in the workdir'
    error = said(capsys, evaluate.main, f'--workdir={copied}', f'--output={tmp_path}')
    assert sentence in error
    assert_resume_is_refused(copied, small, sentence)
    prepared_anew(images=np.zeros((7, 28, 28, 1), np.uint8), targets=labels)
    assert_resume_is_refused(copied, small, 'train_examples is 7 there and 1295 in the workdir')


def assert_resume_is_refused(workdir, config, sentence):
    """Though it has not reached its end; and nothing in the folder is changed."""
    go_back(workdir, 4)
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob('*') if path.is_file()}
    with pytest.raises(UserError) as caught:
        train_here(config, workdir)
    assert sentence in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_weights_of_a_run_are_taken_without_its_data_set(copied):
    stored = json.loads((copied / 'config.json').read_text())
    stored['data'] |= {'name': 'gone', 'dir': '/nowhere'}
    (copied / 'config.json').write_text(json.dumps(stored))
    assert transfer.read(str(copied)).step == 12


def test_evaluation_reads_one_split(copied, tmp_path, monkeypatch):
    opened = []

    def load_split(split):
        opened.append(split)
        return digits.load(split)

    monkeypatch.setitem(arrays.EMBEDDED, 'digits', load_split)
    assert evaluate.main([f'--workdir={copied}', f'--output={tmp_path}']) == 0
    assert opened == ['test']


def test_somebody_elses_file_is_not_written_over(small, tmp_path):
    (tmp_path / 'data.json').write_text('of great value')
    with pytest.raises(UserError, match=r'data.json exists, but there is no config.json'):
        train_here(small, tmp_path)
    assert (tmp_path / 'data.json').read_text() == 'of great value'


@pytest.mark.parametrize(
    ('facts', 'sentence'),
    [
        ({'image_shape': [28, 28]}, '"image_shape" is not three whole numbers'),
        ({'image_shape': [28, 28, True]}, '"image_shape" is not three whole numbers'),
        ({'image_shape': [2**20, 2**20, 3]}, 'product of at most'),
        ({'image_shape': [28, 28, 2]}, 'of another model'),
        ({'class_names': 'ab'}, '"class_names" is not a list of texts'),
        ({'class_names': [1] * 10}, '"class_names" is not a list of texts'),
        ({'class_names': list('ab')}, 'of another model'),
        ({'class_names': [*'012345678', '\ud800']}, '"class_names" is not a list of texts'),
        ({'train_examples': 0}, '"train_examples" is not a whole number from 1'),
        ({'train_examples': 10**30}, '"train_examples" is not a whole number from 1'),
        ({'train_examples': 'gone'}, '"train_examples" is missing'),
        ({'upright': 1}, '"upright" is not true or false'),
        ({'stretch': 50}, '"stretch" is not null or a number from 0'),
        ({'handwriting': 'yes'}, '"handwriting" is not true or false'),
        ({'moon': 'full'}, '"moon" is unknown to this version'),
    ],
)
def test_a_damaged_file_is_a_sentence(copied, picture, facts, sentence, capsys):
    changed(copied, **facts)
    error = said(capsys, predict.main, f'--workdir={copied}', picture)
    assert sentence in error


@pytest.mark.parametrize('content', ['', '{"image_shape": [28,', '[]', '[' * 5000, 'null'])
def test_half_a_file_is_a_sentence_also_on_resume(copied, small, content, picture, capsys):
    (copied / 'data.json').write_text(content)
    error = said(capsys, predict.main, f'--workdir={copied}', picture)
    assert 'data.json cannot be used' in error
    with pytest.raises(UserError, match=r'data\.json cannot be used'):
        train_here(small, copied)
    assert (copied / 'data.json').read_text() == content
