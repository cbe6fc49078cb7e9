"""What is printed decides over no run; for a command that only prints, it is all there is."""

import errno
import io
import json
import subprocess
import sys

import pytest

import command
import train
from tests.conftest import ROOT
from tests.support import Broken, arguments, result, run_child, slow

GONE = BrokenPipeError(errno.EPIPE, 'Broken pipe')
FULL = OSError(errno.ENOSPC, 'No space left on device')
NO_TERMINAL = OSError(errno.EIO, 'Input/output error')


@pytest.mark.parametrize(
    ('error', 'stream'),
    [(GONE, 'stdout'), slow(FULL, 'stdout'), slow(NO_TERMINAL, 'stdout'), slow(FULL, 'both'),
     slow(ValueError('I/O operation on closed file.'), 'stdout')],
)  # fmt: skip
def test_a_run_ends_as_if_all_had_been_printed(
    error, stream, small, small_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, 'stdout', Broken(error))
    if stream == 'both':
        monkeypatch.setattr(sys, 'stderr', Broken(error))
    assert command.call(train.main, arguments(small, tmp_path / 'run')) == 0
    assert result(tmp_path / 'run')['params_sha256'] == result(small_run)['params_sha256']
    why = getattr(error, 'strerror', None) or str(error)
    assert result(tmp_path / 'run')['output_problem'] == why
    if stream != 'both':
        said = f'warning: standard output could not be written: {why}\n'
        assert capsys.readouterr().err == said
    assert result(small_run)['output_problem'] is None


@pytest.mark.parametrize('code', [0, 2])
def test_a_reader_that_has_seen_enough_changes_no_exit_code(code, monkeypatch, capsys):
    class Closed(Broken):
        def write(self, text):
            return io.StringIO.write(self, text)

    monkeypatch.setattr(sys, 'stdout', Closed(GONE))
    assert command.call(lambda argv: print('a line') or code, []) == code
    assert capsys.readouterr().err == ''


def test_a_command_whose_output_has_no_room_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'stdout', Broken(FULL))
    assert command.call(lambda argv: print('a line'), []) == 2
    assert capsys.readouterr().err == (
        'error: Standard output cannot be written: No space left on device.\n'
    )
    monkeypatch.setattr(sys, 'stderr', Broken(FULL))
    assert command.call(lambda argv: print('a line'), []) == 2


def test_what_the_caller_has_closed_is_not_taken_for_a_file_of_ours(tmp_path):
    path = tmp_path / 'records'
    code = (
        'import command, os\n'
        'def main(argv):\n'
        f'    with open({str(path)!r}, "w") as file:\n'
        '        print("printed", flush=True)\n'
        '        os.write(1, b"by a library"); os.write(2, b"by a library")\n'
        '        file.write("recorded")\n'
        'command.run(main)\n'
    )
    closed = '>&- 2>&- <&-'
    done = subprocess.run(
        ['sh', '-c', f'exec "$0" -c "$1" {closed}', sys.executable, code], cwd=ROOT, check=False
    )
    assert done.returncode == 0
    assert path.read_text() == 'recorded'


@pytest.mark.slow
def test_a_reader_of_a_real_pipe_that_goes_ends_nothing(small, tmp_path):
    script = (
        'import json, os, subprocess, sys\n'
        'read, write = os.pipe(); os.close(read)\n'
        'done = subprocess.run([sys.executable, "train.py", *sys.argv[1:]], stdout=write)\n'
        'sys.exit(done.returncode)\n'
    )
    child = run_child(arguments(small, tmp_path / 'run'), tmp_path / 'log', script)
    assert child.process.returncode == 0, child.output
    assert json.loads((tmp_path / 'run' / 'result.json').read_text())['output_problem']
