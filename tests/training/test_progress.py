"""Progress in a log is plain lines, in a terminal a bar; time left does not count compilation."""

import io
import re

import pytest
from rich.console import Console

from tasks.classification import Classification
from training.progress import Progress, format_seconds, pictures, summary


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run(progress, clock, steps, seconds_per_step=1.0, compile_seconds=0.0):
    clock.now += compile_seconds
    for step in steps:
        clock.now += seconds_per_step
        progress.update(step, {'loss': 0.12345, 'accuracy': 0.9612}, 5120.4)


@pytest.fixture
def clock():
    return Clock()


def plain(clock, total=450, steps_per_epoch=45, **options):
    file = io.StringIO()
    console = Console(file=file, force_terminal=False)
    return Progress(
        total,
        steps_per_epoch,
        metrics=Classification.metrics,
        console=console,
        clock=clock,
        **options,
    ), file


def test_a_log_gets_plain_lines_at_most_one_in_ten_seconds(clock):
    progress, file = plain(clock)
    with progress:
        run(progress, clock, range(1, 451), seconds_per_step=0.12)
    lines = file.getvalue().splitlines()
    assert '\x1b' not in file.getvalue()
    assert len(lines) == 1 + int(449 * 0.12 / 10) + 1  # the first, one in ten seconds, the last
    assert lines[0] == 'step 1/450  epoch 0.0/10  loss 0.123  accuracy 96.1 %  5,120 images/s'
    assert re.fullmatch(
        r'step 85/450  epoch 1\.9/10  loss 0\.123  accuracy 96\.1 %  5,120 images/s  44 s left',
        lines[1],
    )
    assert lines[-1].startswith('step 450/450  epoch 10.0/10')
    assert 'left' not in lines[-1]


def test_long_messages_are_not_broken_in_a_log(clock):
    progress, file = plain(clock)
    text = 'validation [bold] ' + 'x' * 200
    with progress:
        progress.message(text)
    assert file.getvalue() == text + '\n'


def test_time_left_leaves_out_compilation_and_follows_the_recent_rate(clock):
    progress, _ = plain(clock, total=1000)
    assert progress.seconds_left(0) is None
    run(progress, clock, [1], compile_seconds=300)
    assert progress.seconds_left(1) is None
    run(progress, clock, range(2, 12))
    assert progress.seconds_left(11) == pytest.approx(989)
    run(progress, clock, range(12, 500), seconds_per_step=0.25)
    assert progress.seconds_left(499) == pytest.approx(501 * 0.25)


def test_values_left_out_keep_what_they_were(clock):
    progress, file = plain(clock, interval=0)
    progress.update(10, {'loss': 0.04567})
    progress.update(11, {'accuracy': 0.5})
    progress.update(12, {'loss': float('nan')})
    assert [line.split('  ')[2:4] for line in file.getvalue().splitlines()] == [
        ['loss 0.0457'],
        ['loss 0.0457', 'accuracy 50.0 %'],
        ['loss nan', 'accuracy 50.0 %'],
    ]


@pytest.mark.parametrize(
    ('width', 'present', 'absent'),
    [
        (120, ['epoch', 'loss', 'accuracy', 'images/s', 'left'], []),
        (80, ['loss', 'accuracy', 'images/s', 'left'], ['epoch']),
        (40, ['225/450', 'loss'], ['epoch', 'images/s']),
    ],
)
def test_a_terminal_gets_a_bar_that_fits(clock, width, present, absent):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, legacy_windows=False)
    with Progress(
        450, 45, metrics=Classification.metrics, console=console, clock=clock
    ) as progress:
        run(progress, clock, range(1, 226), seconds_per_step=0.2)
        progress.message('evaluation [red] done')
    shown = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]', '', file.getvalue())
    assert 'compiling' in shown
    assert 'evaluation [red] done\n' in shown
    bar = re.split(r'[\r\n]+', shown.strip())[-1]
    assert len(bar) <= width
    assert '━━━' in bar
    for text in present:
        assert text in bar
    for text in absent:
        assert text not in bar


def test_other_processes_show_nothing(clock):
    for terminal in (True, False):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal)
        with Progress(10, console=console, clock=clock, enabled=False) as progress:
            run(progress, clock, range(1, 11))
            progress.message('hello')
        assert file.getvalue() == ''


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0.4, '0 s'), (59.6, '1 min 00 s'), (200, '3 min 20 s'), (7530, '2 h 05 min')],
)
def test_durations(seconds, text):
    assert format_seconds(seconds) == text


def test_predictions_are_counted_in_a_terminal_alone():
    terminal, log = io.StringIO(), io.StringIO()
    for file, is_terminal in ((terminal, True), (log, False)):
        console = Console(file=file, force_terminal=is_terminal, width=80)
        assert list(pictures(iter('abc'), 3, console)) == ['a', 'b', 'c']
    assert '3 of 3 pictures' in terminal.getvalue()
    assert log.getvalue() == ''
    console = Console(file=terminal, force_terminal=True, width=80)
    assert list(pictures(iter(['ab', 'cde']), 5, console, of=len)) == ['ab', 'cde']
    assert '5 of 5 pictures' in terminal.getvalue()


def test_summary_names_the_files_that_are_there_and_commands_to_paste(tmp_path):
    workdir = tmp_path / 'my run'
    workdir.mkdir()
    (workdir / 'curves.png').write_bytes(b'')
    text = summary(
        workdir=workdir,
        headline=('test accuracy', '99.05 % (9,905 of 10,000 images)'),
        wall_seconds=200,
        device='a CPU',
    )
    assert 'test accuracy  99.05 % (9,905 of 10,000 images)' in text
    assert 'wall time      3 min 20 s on a CPU' in text
    assert 'curves.png' in text
    assert 'checkpoints' not in text
    for command in ('evaluate.py', 'predict.py'):
        assert f"{command} --workdir='{workdir}'" in text
    assert f"tensorboard --logdir='{workdir}'" in text
