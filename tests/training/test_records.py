"""Records survive what happens to runs: kills, resumes, full disks, numbers that are not finite."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import files
from errors import UserError
from tasks.classification import Classification
from tasks.detection import Detection
from tests.conftest import ROOT
from tests.support import files_of_at_most
from training.curves import plot_curves
from training.records import Records, read_metrics


def write_steps(workdir, first, last, resume_step=None, **options):
    with Records(workdir, resume_step, **options) as records:
        for step in range(first, last + 1):
            records.write(step, {'train/loss': 1 / step})


def steps(workdir):
    return [record['step'] for record in read_metrics(workdir)]


def tensorboard_points(workdir, tag):
    events = EventAccumulator(str(workdir / 'tensorboard'))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_record_is_one_line_of_valid_json(tmp_path):
    with Records(tmp_path) as records:
        records.write(
            np.int64(7),
            {
                'train/loss': np.float32(0.5),
                'train/accuracy': np.asarray([0.25]),
                'train/images_per_second': math.inf,
                'train/learning_rate': math.nan,
            },
        )
        line = (tmp_path / 'metrics.jsonl').read_text()  # before the file is closed

    def refuse(constant):
        raise AssertionError(f'{constant} is not JSON')

    written = json.loads(line, parse_constant=refuse)
    assert line.endswith('\n')
    assert written.pop('wall_seconds') >= 0
    assert written == {
        'step': 7,
        'train/loss': 0.5,
        'train/accuracy': 0.25,
        'train/images_per_second': None,
        'train/learning_rate': None,
    }
    (read,) = read_metrics(tmp_path)
    assert math.isnan(read['train/learning_rate'])


def test_values_that_are_not_numbers_are_refused(tmp_path):
    with Records(tmp_path) as records:
        with pytest.raises(TypeError, match='train/loss must be a number'):
            records.write(1, {'train/loss': 'low'})
        with pytest.raises(ValueError, match='set by Records'):
            records.write(1, {'wall_seconds': 1.0})
    assert read_metrics(tmp_path) == []


def test_no_records_yet(tmp_path):
    assert read_metrics(tmp_path) == []
    assert plot_curves(tmp_path, Classification.metrics) is None


def test_resume_drops_what_came_after_the_checkpoint(tmp_path):
    write_steps(tmp_path, 1, 9)
    write_steps(tmp_path, 6, 12, resume_step=5)
    assert steps(tmp_path) == list(range(1, 13))


def test_a_start_without_a_checkpoint_drops_everything(tmp_path):
    write_steps(tmp_path, 1, 9)
    write_steps(tmp_path, 1, 2)
    assert steps(tmp_path) == [1, 2]
    assert [step for step, _ in tensorboard_points(tmp_path, 'train/loss')] == [1, 2]


def test_resume_at_step_zero_keeps_the_record_of_step_zero(tmp_path):
    with Records(tmp_path) as records:
        records.write(0, {'validation/loss': 2.3})
        records.write(1, {'train/loss': 2.2})
    with Records(tmp_path, 0) as records:
        records.write(0, {'validation/loss': 2.3})
    assert steps(tmp_path) == [0]


def test_the_restored_step_is_never_recorded_twice(tmp_path):
    with Records(tmp_path) as records:
        records.write(5, {'train/loss': 1.0})
        records.write(5, {'validation/loss': 1.5})
    with Records(tmp_path, 5) as records:
        records.write(5, {'validation/loss': 1.5})
        records.write(5, {'validation/loss': 1.5, 'validation/accuracy': 0.5})
        records.write(5, {'validation/accuracy': 0.5})
    found = [set(record) - {'step', 'wall_seconds'} for record in read_metrics(tmp_path)]
    assert found == [{'train/loss'}, {'validation/loss'}, {'validation/accuracy'}]
    assert tensorboard_points(tmp_path, 'validation/loss') == [(5, 1.5)]
    assert tensorboard_points(tmp_path, 'validation/accuracy') == [(5, 0.5)]


@pytest.mark.parametrize('tail', [b'{"step": 3, "train/lo', b'{', b'\0' * 100, b'\xff\xfe'])
def test_a_torn_last_line_is_left_out_and_dropped_on_resume(tmp_path, tail):
    write_steps(tmp_path, 1, 2)
    path = tmp_path / 'metrics.jsonl'
    with path.open('ab') as file:
        file.write(tail)
    assert steps(tmp_path) == [1, 2]
    write_steps(tmp_path, 3, 3, resume_step=2)
    assert steps(tmp_path) == [1, 2, 3]
    assert [json.loads(line)['step'] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_complete_last_line_without_its_newline_is_kept(tmp_path):
    write_steps(tmp_path, 1, 2)
    path = tmp_path / 'metrics.jsonl'
    path.write_bytes(path.read_bytes().rstrip(b'\n'))
    write_steps(tmp_path, 3, 3, resume_step=2)
    assert steps(tmp_path) == [1, 2, 3]


@pytest.mark.parametrize('line', ['not json', '[1]', '{"loss": 1}', '{"step": null}', '12'])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, line):
    (tmp_path / 'metrics.jsonl').write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(UserError, match=r'metrics\.jsonl, line 2'):
        read_metrics(tmp_path)


def test_wall_seconds_go_on_from_the_last_kept_record(tmp_path):
    lines = [{'step': s, 'wall_seconds': 100.0 * s, 'train/loss': 1.0} for s in (1, 2, 3)]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in lines))
    with Records(tmp_path, 2) as records:
        assert 200 <= records.wall_seconds < 210
        records.write(3, {'train/loss': 1.0})
    assert 200 <= read_metrics(tmp_path)[-1]['wall_seconds'] < 210


def test_tensorboard_shows_the_same_single_run(tmp_path):
    write_steps(tmp_path, 1, 9)
    write_steps(tmp_path, 6, 7, resume_step=5)
    write_steps(tmp_path, 8, 12, resume_step=7)
    points = tensorboard_points(tmp_path, 'train/loss')
    assert [step for step, _ in points] == list(range(1, 13))
    assert [value for _, value in points] == pytest.approx([1 / s for s in range(1, 13)])


def test_tensorboard_sees_a_point_at_once(tmp_path):
    with Records(tmp_path) as records:
        records.write(3, {'train/loss': 0.5})
        assert tensorboard_points(tmp_path, 'train/loss') == [(3, 0.5)]


def test_other_processes_write_nothing(tmp_path):
    with Records(tmp_path / 'run', enabled=False) as records:
        records.write(1, {'train/loss': 1.0})
    assert not (tmp_path / 'run').exists()
    write_steps(tmp_path, 1, 1, tensorboard=False)
    assert os.listdir(tmp_path) == ['metrics.jsonl']


CHILD = """
import sys
from training.records import Records, read_metrics
workdir = sys.argv[1]
last = max((r['step'] for r in read_metrics(workdir)), default=-1)
resume_step = None if last < 0 else last - last % 10  # as if there were a checkpoint every 10
with Records(workdir, resume_step) as records:
    print('open', flush=True)
    for step in range((resume_step or 0) + 1, 10**9):
        records.write(step, {'train/loss': 1 / step, 'train/accuracy': 0.5})
"""


def test_sigkill_at_any_moment_leaves_a_file_that_goes_on(tmp_path):
    rng = random.Random(0)
    reached = 0
    for _ in range(5):
        command = [sys.executable, '-c', CHILD, str(tmp_path)]
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        with child:
            assert child.stdout.readline() == b'open\n'
            time.sleep(rng.uniform(0.05, 0.3))
            child.send_signal(signal.SIGKILL)
        found = steps(tmp_path)
        assert found == list(range(1, len(found) + 1))
        assert len(found) > reached
        reached = len(found)
    write_steps(tmp_path, reached + 1, reached + 1, resume_step=reached)
    whole = (tmp_path / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line)['step'] for line in whole] == list(range(1, reached + 2))
    # TensorBoard thins long series out; what it keeps must be in order, up to the last step.
    points = [step for step, _ in tensorboard_points(tmp_path, 'train/loss')]
    assert points == sorted(set(points))
    assert points[-1] == reached + 1


def test_a_full_disk_is_reported_by_file(tmp_path):
    records = Records(tmp_path)

    def write_until_full():
        for step in range(100):
            records.write(step, {'train/loss': 1.0})

    with files_of_at_most(1000), pytest.raises(UserError, match=r'Cannot write .*(jsonl|board)'):
        write_until_full()
    with files_of_at_most(1000):
        records.close()  # a second failure would hide the first
    assert steps(tmp_path) == list(range(len(steps(tmp_path))))


def test_a_full_disk_leaves_the_old_json_file(tmp_path):
    path = tmp_path / 'result.json'
    files.write_json(path, {'a': 1})
    with files_of_at_most(1000), pytest.raises(UserError, match=r'Cannot write .*result\.json'):
        files.write_json(path, list(range(1000)))
    assert json.loads(path.read_text()) == {'a': 1}
    assert os.listdir(tmp_path) == ['result.json']


def test_a_workdir_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'Cannot write .*file/run/metrics\.jsonl'):
        Records(tmp_path / 'file' / 'run')
    with pytest.raises(UserError, match=r'Cannot write .*missing/a\.json: No such file'):
        files.write_json(tmp_path / 'missing' / 'a.json', {})


def test_json_files_are_sorted_indented_and_never_nan(tmp_path):
    path = tmp_path / 'a.json'
    files.write_json(path, {'b': (1, np.float32(0.5)), 'a': {'x': math.nan, 'y': np.eye(1)}})
    expected = {'a': {'x': None, 'y': [[1.0]]}, 'b': [1, 0.5]}
    assert path.read_text() == json.dumps(expected, indent=2) + '\n'


@pytest.mark.parametrize(
    'values',
    [
        [],
        [{'train/loss': 2.3, 'train/accuracy': 0.1}],
        [{'train/loss': math.nan}],
        [{'train/loss': 2.0 / s, 'validation/accuracy': 1 - 1 / s} for s in range(1, 99)],
    ],
)
def test_curves_are_drawn_from_any_number_of_records(tmp_path, values):
    with Records(tmp_path, tensorboard=False) as records:
        for step, record in enumerate(values, start=1):
            records.write(step, record)
    files.write_json(tmp_path / 'result.json', {'steps': 9, 'test_accuracy': 0.9})
    for steps_per_epoch in (None, 4.5):
        path = plot_curves(tmp_path, Classification.metrics, steps_per_epoch)
        assert (path is None) == (not values)
        if path:
            height, width, _ = imread(path).shape
            assert width > height > 400


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, in place of their pictures."""
    drawn = []
    monkeypatch.setattr(Figure, 'savefig', lambda self, *_, **__: drawn.append(self))
    return drawn


def test_points_of_the_training_curve_stand_for_equally_many_steps(tmp_path, figures):
    """A validation at step 51 must not make a record of one step look like one of twenty."""
    steps = [20, 40, 51, 60, 80, 100, 101, 120, 140, 147]
    with Records(tmp_path, tensorboard=False) as records:
        for before, step in zip((0, *steps), steps, strict=False):
            records.write(step, {'train/loss': float(np.mean(range(before + 1, step + 1)))})
    plot_curves(tmp_path, Classification.metrics, None, 'lenet on digits, runs/$1 and $2')
    (line,) = figures[0].axes[0].lines
    assert list(line.get_xdata()) == [20, 40, 60, 80, 100, 120, 140]
    assert list(line.get_ydata()) == pytest.approx([n - 9.5 for n in line.get_xdata()])
    assert figures[0].get_suptitle() == 'lenet on digits, runs/$1 and $2'


def test_names_of_metrics_keep_their_capitals(tmp_path, figures):
    with Records(tmp_path, tensorboard=False) as records:
        records.write(1, {'validation/AP50': 0.5, 'validation/loss': 1.0})
    plot_curves(tmp_path, Detection.metrics)
    titles = [axes.get_title('left') for axes in figures[0].axes]
    assert {'Loss', 'AP50'} <= set(titles)


@pytest.mark.parametrize('accuracies', [(0.3, 0.98, 0.994), (0.3, 0.98, 0.994, 1.0)])
def test_98_and_99_percent_are_told_apart(tmp_path, figures, accuracies):
    with Records(tmp_path, tensorboard=False) as records:
        for step, accuracy in enumerate(accuracies, start=1):
            records.write(step, {'validation/accuracy': accuracy})
    plot_curves(tmp_path, Classification.metrics)
    axes = figures[0].axes[1]
    height = [axes.transAxes.inverted().transform(axes.transData.transform((0, y)))[1]
              for y in (98, 99.4, max(accuracies) * 100)]  # fmt: skip
    assert height[1] - height[0] > 0.1  # of the axis
    assert 0 < height[2] < 1.001
