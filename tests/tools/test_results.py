"""Tables are made of the results that are there, and only of those that are the table's own."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time

import pytest

from errors import UserError
from tests.conftest import ROOT
from tools import results
from tools.experiments import TABLES, Row, Table, run_folder

# Stands in for train.py: is asked to stop at its first start, fails when told to.
TRAIN = """
import json, os, pathlib, sys, time
flags = dict(argument.lstrip('-').split('=', 1) for argument in sys.argv[1:])
workdir = pathlib.Path(flags['workdir'])
workdir.mkdir(parents=True, exist_ok=True)
if 'config.hang' in flags:
    print(os.getpid(), flush=True)
    time.sleep(60)
starts = workdir / 'starts'
starts.write_text(starts.read_text() + '.' if starts.exists() else '.')
if starts.read_text() == '.':
    sys.exit(75)
seed = int(flags['config.seed'])
if flags['config.model.pooling'] == 'average' and seed == 1:
    sys.exit('no such pooling')
config = {'model': {'pooling': flags['config.model.pooling']}, 'seed': seed}
result = {'config': config, 'seed': seed, 'steps': 1350, 'test_accuracy': 0.98 + seed / 1000,
          'test_examples': 359, 'wall_seconds': 20.0 + seed, 'device': 'CPU', 'devices': 1}
(workdir / 'result.json').write_text(json.dumps(result))
"""

TABLE = Table(
    'pooling',
    'Max against average.',
    tuple(
        Row(name, 'configs/digits_lenet.py', (('model.pooling', name),), seeds=(0, 1, 2))
        for name in ('max', 'average')
    ),
)
ROW = TABLE.rows[0]


def put(workdir, row=ROW, seed=0, **changes):
    folder = run_folder(workdir, TABLE, row, seed)
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        'config': {'model': {'pooling': row.label}, 'seed': seed},
        'seed': seed,
        'steps': 1350,
        'test_accuracy': 0.98 + 0.003 * seed,
        'test_examples': 359,
        'wall_seconds': 20.0 + 10 * seed**2,
        'device': '2 CPU cores (some | CPU)',
        'devices': 1,
    }
    result.update((key.removeprefix('result_'), value) for key, value in changes.items())
    (folder / 'result.json').write_text(json.dumps(result))


def cells(workdir, row=ROW):
    return results.cells(TABLE, row, workdir)


def test_a_row_is_mean_and_sample_deviation_of_its_seeds(tmp_path):
    for seed in ROW.seeds:
        put(tmp_path, seed=seed)
    percent = [98.0, 98.3, 98.6]
    expected = f'{statistics.mean(percent):.2f} ± {statistics.stdev(percent):.2f} %'
    assert expected == '98.30 ± 0.30 %'
    device = '2 CPU cores (some | CPU)'
    assert cells(tmp_path) == ['max', expected, '3', '1,350', '30 s', device, '-']
    table = results.markdown(TABLE, tmp_path).splitlines()
    assert table[0] == 'Max against average.'
    assert table[4].startswith('| max | 98.30 ± 0.30 % |')
    assert '2 CPU cores (some \\| CPU)' in table[4]
    assert '| average | not run | 3 |' in table[5]
    assert table[-1] == 'Reproduce: `python -m tools.results pooling`'


def test_one_seed_has_no_deviation_and_missing_seeds_are_said(tmp_path):
    assert cells(tmp_path)[1] == 'not run'
    put(tmp_path, seed=1, devices=8, device='NVIDIA H100')
    found = cells(tmp_path)
    assert found[1:3] == ['98.30 %', '1 of 3']
    assert found[5] == '8 x NVIDIA H100'
    put(tmp_path, seed=1, devices=4)
    assert cells(tmp_path)[5] == '2 CPU cores (some | CPU) as 4 devices'


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'config': {'model': {'pooling': 'average'}}}, r"model\.pooling = 'average'.*'max'"),
        ({'result_seed': 7}, r'seed = 7'),
        ({'config': {}}, r'is not a result of train\.py'),
        ({'test_accuracy': None}, r'is not a result of train\.py'),
        ({'test_accuracy': float('nan')}, r'not finite'),
    ],
)
def test_results_of_another_experiment_are_refused_by_name(tmp_path, changes, message):
    put(tmp_path, **changes)
    with pytest.raises(UserError, match=r'pooling/max/seed0/result\.json.*' + message):
        cells(tmp_path)


def test_what_is_missing_is_run_and_what_is_there_is_not(tmp_path, capfd):
    train = tmp_path / 'train.py'
    train.write_text(TRAIN)
    put(tmp_path, seed=1, wall_seconds=1.0)
    with pytest.raises(UserError) as failure:
        results.TableRuns(tmp_path, jobs=2, train=train).run(TABLE)
    # The failed run is named, with the reason and a command to look at it again.
    text = str(failure.value)
    assert text.startswith('1 of 5 runs failed:\n  average, seed 1: exit code 1, "no such pooling"')
    assert '--config=configs/digits_lenet.py --config.seed=1 --config.model.pooling=average' in text
    shown = capfd.readouterr().out
    assert 'runs to do: 5' in shown
    assert re.search(r'\[\d/5\] max, seed 2: 98\.20 % in 22 s', shown)
    assert cells(tmp_path)[2] == '3'
    assert cells(tmp_path)[4] == '20 s'
    assert cells(tmp_path, TABLE.rows[1])[2] == '2 of 3'
    # Exit code 75 was answered by a second start; the finished run was not touched.
    assert (run_folder(tmp_path, TABLE, ROW, 0) / 'starts').read_text() == '..'
    assert not (run_folder(tmp_path, TABLE, ROW, 1) / 'starts').exists()


def test_a_run_that_never_ends_its_stops_is_given_up(tmp_path, monkeypatch):
    train = tmp_path / 'train.py'
    train.write_text('import sys; sys.exit(75)')
    monkeypatch.setattr(results, 'MOST_STARTS', 2)
    table = Table('pooling', '', (Row('max', 'c.py', seeds=(0,)),))
    with pytest.raises(UserError, match='max, seed 0: exit code 75'):
        results.TableRuns(tmp_path, train=train).run(table)


def test_a_polite_kill_ends_the_children_too(tmp_path):
    train = tmp_path / 'train.py'
    train.write_text(TRAIN)
    code = (
        'import functools, sys\n'
        'from tools import results\n'
        f'results.TableRuns = functools.partial(results.TableRuns, train={str(train)!r})\n'
        f'sys.exit(results.main(["pooling", "--workdir={tmp_path}", "--", "--config.hang=1"]))'
    )
    with subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stderr=subprocess.PIPE) as parent:
        log = tmp_path / 'pooling' / 'max' / 'seed0.log'
        deadline = time.monotonic() + 30
        while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        child = int(log.read_text())
        parent.send_signal(signal.SIGTERM)
        message = parent.communicate(timeout=30)[1].decode()
    assert parent.returncode == 130, message
    assert 'the same command resumes' in message
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_the_page_is_updated_between_its_markers_only(tmp_path):
    put(tmp_path)
    page = tmp_path / 'results.md'
    text = '# Title\n<!-- results:pooling -->\nold\n<!-- /results:pooling -->\nend\n'
    page.write_text(text)
    results.update_docs(page, tmp_path, [TABLE])
    once = page.read_text()
    assert once.startswith('# Title\n<!-- results:pooling -->\nMax against average.\n\n| Model |')
    assert once.endswith('pooling`\n<!-- /results:pooling -->\nend\n')
    assert 'old' not in once
    results.update_docs(page, tmp_path, [TABLE])
    assert page.read_text() == once


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'Cannot read .*results.md'),
        ('# Title', 'needs one line "<!-- results:pooling -->"'),
        ('<!-- /results:pooling --><!-- results:pooling -->', 'and after it'),
        ('<!-- results:poling -->', 'no table "poling". Did you mean "pooling"'),
    ],
)
def test_a_page_without_the_markers_is_refused_and_kept(tmp_path, text, message):
    page = tmp_path / 'results.md'
    if text is not None:
        page.write_text(text)
    with pytest.raises(UserError, match=message):
        results.update_docs(page, tmp_path, [TABLE])
    assert text is None or page.read_text() == text


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    assert results.main(['--list']) == 0
    assert capsys.readouterr().out.count(' runs ') == len(TABLES)
    assert results.main([f'--workdir={tmp_path}']) == 0
    assert capsys.readouterr().out.count('Reproduce') == len(TABLES)
    assert results.main(['digit']) == 2
    assert 'Did you mean "digits"' in capsys.readouterr().err
    assert results.main(['digits', '--jobs=0']) == 2
    page = tmp_path / 'results.md'
    markers = [f'<!-- results:{t.name} -->\n<!-- /results:{t.name} -->\n' for t in TABLES]
    page.write_text('\n'.join(markers))
    assert results.main([f'--workdir={tmp_path}', '--update_docs', f'--docs={page}']) == 0
    assert page.read_text().count('not run') == sum(len(table.rows) for table in TABLES)


def test_declared_runs_do_not_share_a_folder(tmp_path):
    folders = [
        run_folder(tmp_path, table, row, seed)
        for table in TABLES
        for row in table.rows
        for seed in row.seeds
    ]
    assert len(set(folders)) == len(folders)
