"""The benchmark of the input pipeline, with numbers so small that they say nothing."""

import json
import mmap
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

import command
from benchmarks import input_pipeline, reader
from benchmarks.contestants import ours
from tests.support_pictures import imagenet_files

TINY = ['--batch_size=8', '--size=64', '--batches=1', '--rounds=2', '--warm_up=1']


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    """Two real JPEG files, which scikit-learn brings along."""
    folder = tmp_path_factory.mktemp('photographs')
    for file in (Path(sklearn.datasets.__file__).parent / 'images').glob('*.jpg'):
        shutil.copy(file, folder)
    assert len(list(folder.iterdir())) == 2
    return folder


@pytest.fixture(scope='module')
def work(photographs, tmp_path_factory):
    options = [f'--source={photographs}', '--batch_size=8', '--size=64']
    arguments = input_pipeline._make_parser().parse_args(options)
    return input_pipeline.make_work(arguments, tmp_path_factory.mktemp('scratch'))


def run(*argv):
    return command.call(input_pipeline.main, [str(word) for word in argv])


def test_the_contest(photographs, tmp_path, capsys):
    output = tmp_path / 'result.json'
    python = '--torch_python=/nowhere/python'
    assert run(f'--source={photographs}', f'--output={output}', python, *TINY) == 0
    printed = capsys.readouterr().out
    assert 'tf.data is left out: give --tensorflow_python, a Python that has it.' in printed
    assert 'Pillow is left out: /nowhere/python cannot be started' in printed.replace('\n', ' ')
    result = json.loads(output.read_text())
    assert [score['name'] for score in result['scores']] == ['ours', 'ours, without Grain']
    assert all(f' {score["rate"]:.0f} ' in printed for score in result['scores'])
    for name, turns in result['turns'].items():
        assert [turn['images'] for turn in turns] == [8, 8]
        assert result['about'][name]['shape'] == [8, 64, 64, 3]
        assert result['about'][name]['dtype'] == 'uint8'
    assert set(result['left_out']) == {'tf.data', 'torch DataLoader, Pillow'}


def test_results_are_not_overwritten(photographs, tmp_path, capsys):
    output = tmp_path / 'result.json'
    output.write_text('precious')
    assert run(f'--source={photographs}', f'--output={output}', *TINY) == 2
    assert 'is there already' in capsys.readouterr().err
    assert output.read_text() == 'precious'


def test_mistakes_end_with_a_sentence_and_code_2(photographs, tmp_path, capsys):
    for argv, message in (
        (['--source=/nowhere'], '/nowhere is not a folder: --source must name one with JPEG files'),
        ([f'--source={tmp_path}'], f'There are no JPEG files in {tmp_path}'),
        ([f'--source={photographs}', '--output=/nowhere/a.json'], 'in a folder that does not exis'),
    ):
        assert run(*argv) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith('error: ')
        assert message in printed.err
    for option in ('--rounds=0', '--size=-1', '--threads=two'):
        with pytest.raises(SystemExit, match='2'):
            run(f'--source={photographs}', option)
        assert 'is not a whole number above 0' in capsys.readouterr().err


def test_all_pictures_are_for_training(photographs, work):
    files = sorted(path.resolve().name for path in Path(work['pictures']).glob('*/*'))
    assert files == sorted(path.name for path in photographs.iterdir())
    crops = reader.draw_crops(work, visits=1)
    assert sorted(crop.encoded for crop in crops) == sorted(
        path.read_bytes() for path in photographs.iterdir()
    )


def test_plain_threads_make_the_same_images_but_for_the_flip(work):
    batches = (ours.pipeline(work), ours.threads_alone(work))
    for _ in range(3):
        for expected, image in zip(*map(next, batches), strict=True):
            assert any(np.array_equal(image, it) for it in (expected, expected[:, ::-1]))


def test_one_that_ends_in_its_turn_is_a_sentence(photographs, tmp_path, capsys):
    """Stands in for a Python with TensorFlow whose pipeline fails after its first batch."""
    python = tmp_path / 'python'
    answer = json.dumps({'shape': [8, 64, 64, 3], 'dtype': 'uint8', 'versions': {}})
    python.write_text(f"#!/bin/sh\necho '{answer}'\nread turn\necho 'out of memory' >&2\n")
    python.chmod(0o755)
    assert run(f'--source={photographs}', f'--tensorflow_python={python}', *TINY) == 2
    assert capsys.readouterr().err == 'error: tf.data: it ended by itself: out of memory.\n'


def test_boxes_lie_in_the_pictures_in_the_order_of_the_files(work):
    boxes = json.loads(Path(input_pipeline.draw_boxes(work, visits=7)).read_text())
    files = sorted(Path(work['pictures']).glob('*/*'))
    assert [len(own) for own in boxes] == [7] * len(files)
    for file, own in zip(files, boxes, strict=True):
        with Image.open(file) as picture:
            for top, left, height, width in own:
                assert top >= 0 <= left
                assert 0 < top + height <= picture.height
                assert 0 < left + width <= picture.width
    assert len({tuple(box) for own in boxes for box in own}) > 7


def test_pictures_in_folders_are_found(tmp_path, photographs):
    shutil.copytree(photographs, tmp_path / 'source' / 'deep' / 'deeper')
    folder = input_pipeline.lay_out(tmp_path / 'source', tmp_path / 'pictures')
    assert len(list(folder.glob('all/*.jpg'))) == 2


def test_a_refusal_of_prepare_data_is_passed_on(photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(input_pipeline, 'NAME', 'Not a name')
    assert run(f'--source={photographs}', *TINY) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: tools.prepare_data: ')
    assert 'Not a name' in error


def test_accuracy_of_the_photographs(photographs, capsys):
    assert run(f'--source={photographs}', '--accuracy') == 0
    assert 'over 6 crops' in capsys.readouterr().out


def test_a_shifted_crop_is_found_out(work, monkeypatch):
    crops = reader.draw_crops(work, visits=3)
    assert reader.differences(crops, 64).max() < 5
    decode_crop = reader.cropping.decode_crop

    def shifted(*arguments):
        return np.roll(decode_crop(*arguments), 1, axis=1)

    monkeypatch.setattr(reader.cropping, 'decode_crop', shifted)
    assert reader.differences(crops, 64).mean() > 5


def test_accuracy_of_the_sample_reaches_its_goal():
    """Issue: at most 1 of 255 from Pillow's antialiased result."""
    encoded = enumerate(path.read_bytes() for path in imagenet_files())
    crops = [reader.draw_crop(0, 0, number, picture, 224) for number, picture in encoded]
    assert reader.differences(crops, 224).mean() <= 1


def test_stages_have_names_and_times(photographs, capsys):
    assert run(f'--source={photographs}', '--stages', '--size=64', '--rounds=1') == 0
    printed = capsys.readouterr().out
    for stage in ('entropy decoding', 'resize', 'read and parse the record'):
        assert stage in printed


def test_memory(photographs, tmp_path, capsys):
    output = tmp_path / 'memory.json'
    tiny = ['--batch_size=2', '--size=32', '--memory_batches=20', '--memory_indices=1000']
    assert run(f'--source={photographs}', '--memory', f'--output={output}', *tiny) == 0
    result = json.loads(output.read_text())
    assert [done for done, _ in result['decoded batches']['points']] == [*range(2, 21, 2)]
    assert [done for done, _ in result['record indices']['points']] == [*range(100, 1001, 100)]
    assert 'Resident memory: ' in capsys.readouterr().out


def test_growth_is_found_and_swings_are_not():
    assert reader.growth([10, 90, 100, 101, 99, 100, 100, 99, 101, 100]) == pytest.approx(0, abs=1)
    assert reader.growth([10, 90, 100, 110, 120, 130, 140, 150, 160, 170]) == pytest.approx(40)


def test_resident_memory_sees_what_is_kept():
    kept = []

    def keep():
        for number in range(1, 11):
            # Pages of its own: an array may come from memory that an earlier test has left.
            block = mmap.mmap(-1, 8 * 10**6)
            np.frombuffer(block, np.uint8)[:] = 1
            kept.append(block)
            yield number

    points = [megabytes for _, megabytes in reader.resident(keep(), 10)]
    assert len(points) == 10
    assert reader.growth(points) == pytest.approx(32, abs=8)
