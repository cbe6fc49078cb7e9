"""The benchmarks' command, with numbers so small that they say nothing."""

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

import command
from benchmarks import run
from benchmarks.tables import BenchmarkTable
from errors import UserError
from tests.conftest import ROOT

# Stands in for a Python with PyTorch: says its version, and takes half a second for each turn.
PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then echo 9.8.7; exit; fi
{first}
echo '{{"shape": [128], "dtype": "int64", "versions": {{}}}}'
while read -r turn; do echo '{{"images": 128, "seconds": 0.5}}'; done
"""


@pytest.fixture
def torch_python(tmp_path):
    return fake_python(tmp_path)


def fake_python(folder, first=''):
    path = folder / 'python'
    path.write_text(PYTHON.format(first=first))
    path.chmod(0o755)
    return path


def call(*argv):
    return command.call(run.main, [str(word) for word in argv])


class Fake(run.Section):
    """A section that measures nothing."""

    def run(self, context):
        if self.description.endswith('fails'):
            raise UserError('It is too hot.')
        if self.description.endswith('breaks'):
            raise ZeroDivisionError
        context.show('looking [there]')
        rows = [['it', f'{context.rounds}']]
        return BenchmarkTable('A caption.', ('who', 'how | fast'), rows, {'a': 1})


@pytest.fixture
def sections(monkeypatch):
    names = ('first', 'fails', 'breaks', 'last')
    found = {name: Fake('none', f'one that {name}', name == 'last') for name in names}
    monkeypatch.setattr(run, 'SECTIONS', found)
    monkeypatch.setattr(run, 'TORCH_PYTHON', ROOT / 'nowhere')


def test_the_sections_are_listed(capsys):
    assert call('--list') == 0
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()] == list(run.SECTIONS)


def test_the_step_beside_pytorch(torch_python, tmp_path, capsys):
    output = tmp_path / 'result.json'
    options = ['--only=step', '--quick', f'--torch_python={torch_python}', f'--output={output}']
    assert call(*options) == 0
    printed = ' '.join(capsys.readouterr().out.split())  # the terminal breaks lines
    result = json.loads(output.read_text())
    assert result['machine']['versions']['torch'] == '9.8.7'
    scores = result['sections']['step']['figures']['lenet']
    assert [score['name'] for score in scores] == ['ours', 'PyTorch', 'torch.compile']
    assert [round(score['rate']) for score in scores[1:]] == [256, 256]
    assert scores[1]['ratio'] == pytest.approx(scores[0]['rate'] / 256)
    for text in ('PyTorch 9.8.7', f'{scores[0]["rate"]:,.0f}', f'{scores[1]["ratio"]:.2f}'):
        assert text in printed
    assert 'processes' not in printed
    assert call(*options) == 2
    assert f'{output} is there already' in capsys.readouterr().err
    assert json.loads(output.read_text()) == result


@pytest.mark.slow
def test_the_other_sections_run(torch_python, tmp_path, capsys):
    output = tmp_path / 'result.json'
    names = ('trace', 'evaluation', 'growth', 'devices', 'sweep')
    options = [f'--only={",".join(names)}', '--quick', '--markdown', f'--output={output}']
    assert call(*options, f'--torch_python={torch_python}') == 0
    printed = capsys.readouterr().out
    sections = json.loads(output.read_text())['sections']
    assert sorted(sections) == sorted(names)
    assert [line[4:] for line in printed.splitlines() if line.startswith('### ')] == list(names)

    for cores in '12':
        times = sections['trace']['figures']['lenet'][cores]
        for layer in ('convolution', 'pooling', 'dense layers', 'activations, sums and loss'):
            assert times[f'{layer}, forward'] > 0 < times[f'{layer}, backward']
        assert times['batch, optimiser and metrics'] > 0
    assert sum(float(row[4].split()[0]) for row in sections['trace']['rows']) in range(97, 104)

    scores = sections['evaluation']['figures']['lenet']
    assert [score['name'] for score in scores] == ['ours', 'PyTorch', 'torch.compile']
    assert 0 < scores[0]['rate'] < 1e7  # the pass is in the turn, and not before it

    sizes, marks = (sections['growth']['figures'][name] for name in ('sizes', 'marks'))
    assert [size['examples'] for size in sizes] == [1000, 10_000]
    assert [size['data'] for size in sizes] == [788_000, 7_880_000]
    assert all(size['resident'] > 100e6 and size['step'] > 0 < size['order'] for size in sizes)
    assert [mark['step'] for mark in marks] == [20, 40, 60]
    assert [mark['cost'] is None for mark in marks] == [True, False, False]
    assert all(mark['resident'] > 100e6 for mark in marks)

    (scores,) = sections['devices']['figures'].values()
    assert [s['name'] for s in scores] == ['1 device', '2 devices, pmap', '2 devices, shard_map']


def test_without_pytorch_its_rows_are_left_out(sections, capsys):
    assert call('--only=first') == 0
    assert 'PyTorch' not in capsys.readouterr().err
    assert call('--only=last,first') == 0
    printed = capsys.readouterr()
    assert "PyTorch's rows are left out: `make bench` makes" in printed.err
    assert printed.err.index('[1/2] first: one that first') < printed.err.index('[2/2] last')
    assert 'A caption.' in printed.out


def test_markdown_alone_is_on_standard_output(sections, torch_python, capsys):
    python = f'--torch_python={torch_python}'
    assert call('--only=first,last', '--markdown', '--rounds=3', python) == 0
    first, last = capsys.readouterr().out.split('### last\n')
    lines = first.splitlines()
    assert lines[:7] == [
        '### first',
        '',
        'A caption.',
        '',
        r'| who | how \| fast |',
        '| --- | ---: |',
        '| it | 3 |',
    ]
    assert lines[8].endswith('Reproduce: `python -m benchmarks.run --only=first --rounds=3`')
    assert 'CPU cores' in lines[8]
    assert 'PyTorch' not in first
    assert 'PyTorch 9.8.7' in last


def test_the_docs_are_updated_between_its_markers_only(sections, tmp_path, capsys):
    docs = tmp_path / 'speed.md'
    text = '# Title\n<!-- speed:first -->\nold\n<!-- /speed:first -->\n<!-- speed:last -->'
    docs.write_text(text)
    options = ['--update_docs', f'--docs={docs}']
    assert call('--only=last', *options) == 2
    assert 'needs one line "<!-- speed:last -->" and after it one' in capsys.readouterr().err
    assert call('--only=first', '--quick', *options) == 2
    assert 'do not go into the docs' in capsys.readouterr().err
    assert docs.read_text() == text
    assert call('--only=first', *options) == 0
    before, after = docs.read_text().split('<!-- /speed:first -->')
    assert before.startswith('# Title\n<!-- speed:first -->\nA caption.\n\n| who |')
    assert before.endswith('--only=first`\n')
    assert after == '\n<!-- speed:last -->'


def test_every_section_has_its_place_in_the_docs():
    run.docs_tables.check(run.DOCS, run.MARKER, run.SECTIONS)
    assert sorted(run.docs_tables.names(run.DOCS, run.MARKER)) == sorted(run.SECTIONS)
    for section in run.SECTIONS.values():
        assert (ROOT / 'benchmarks' / f'{section.module}.py').is_file()


def test_a_failure_loses_no_other_result(sections, tmp_path, capsys):
    output, docs = tmp_path / 'result.json', tmp_path / 'speed.md'
    names = ('first', 'fails', 'last')
    docs.write_text('\n'.join(f'<!-- speed:{n} -->\n<!-- /speed:{n} -->' for n in names))
    update = ['--update_docs', f'--docs={docs}']
    assert call('--only=first,fails,last', f'--output={output}', *update) == 2
    printed = capsys.readouterr()
    assert '[2/3] fails FAILED: It is too hot.' in printed.err
    assert 'error: 1 of 3 sections failed: fails; why is said above.' in printed.err
    assert printed.out.count('A caption.') == 2
    assert set(json.loads(output.read_text())['sections']) == {'first', 'last'}
    assert docs.read_text().count('A caption.') == 2


def test_a_defect_loses_no_earlier_result(sections, tmp_path):
    output = tmp_path / 'result.json'
    with pytest.raises(ZeroDivisionError):
        call('--only=first,breaks,last', f'--output={output}')
    assert set(json.loads(output.read_text())['sections']) == {'first'}


def test_nothing_measured_leaves_no_file(sections, tmp_path):
    output = tmp_path / 'result.json'
    assert call('--only=fails', f'--output={output}') == 2
    assert not output.exists()


def test_mistakes_end_with_a_sentence_and_code_2(sections, tmp_path, capsys):
    broken = tmp_path / 'python'
    broken.write_text('#!/bin/sh\nexit 1\n')
    broken.chmod(0o755)
    for options, message in (
        (
            ['--only=firts'],
            'there is no section "firts"; there are first, fails, breaks, last. Did',
        ),
        (['--only='], 'there is no section ""'),
        (['--rounds=0'], 'argument --rounds: 0 is not a whole number above 0; see `python -m'),
        (['--round=1'], 'unrecognized arguments: --round=1; see `python -m benchmarks.run --help`'),
        (['--output=/nowhere/a.json'], '--output=/nowhere/a.json cannot be written: No such file'),
        (['--torch_python=/nowhere/python'], '/nowhere/python cannot be started: No such file'),
        ([f'--torch_python={broken}'], f'{broken} has no PyTorch: `make bench` makes one that'),
        (['--update_docs', '--docs=/nowhere/R.md'], 'Cannot read /nowhere/R.md: No such file'),
    ):
        assert call('--only=first', *options) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ')
        assert error.count('\n') == 1
        assert message in error


@pytest.fixture
def heeding_ctrl_c():
    """A shell may have started the tests with Ctrl-C ignored, which children inherit."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.mark.usefixtures('heeding_ctrl_c')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_no_contestant(tmp_path, number):
    """Ours waits for its turn, stopped, while PyTorch's never gets ready."""
    said = tmp_path / 'pid'
    python = fake_python(tmp_path, first=f'echo $$ > {said}; exec sleep 600')
    options = ['--only=step', '--quick', f'--torch_python={python}']
    argv = [sys.executable, '-m', 'benchmarks.run', *options]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True) as parent:
        deadline = time.monotonic() + 120
        while not (said.exists() and said.read_text().strip()):
            assert time.monotonic() < deadline
            assert parent.poll() is None
            time.sleep(0.05)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert int(said.read_text()) in {child.pid for child in children}
        assert len(children) == 2
        parent.send_signal(number)
        error = parent.communicate(timeout=60)[1]
    left = [child for child in children if child.is_running()]
    for child in left:
        child.kill()
    assert not left
    assert parent.returncode == 130
    assert 'interrupted' in error
