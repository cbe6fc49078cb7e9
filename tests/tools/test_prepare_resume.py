"""prepare_data imagenet2012 and folder: killed at any moment, and over many pictures."""

import random
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.support_pictures import imagenet_files, imagenet_tars
from tests.tools.prepare_child import child, run, tree


@pytest.mark.parametrize('kill_at', [1, 60, 201, 249])
def test_killed_in_the_middle_of_a_shard_it_goes_on_to_the_same_bytes(
    tars, prepared, tmp_path, kill_at
):
    command = ['imagenet2012', f'--source={tars}', f'--data_dir={tmp_path}']
    assert run(command, kill_at=kill_at) == -signal.SIGKILL
    unfinished = tmp_path / 'imagenet2012' / '5.1.0.incomplete'
    notes = sorted(unfinished.glob('*-?????.json'))
    assert len(notes) < len(list((unfinished / 'data').iterdir()))  # one was begun
    kept = {path: path.stat().st_ino for path in notes}
    assert run(command, kill_at=30) in (0, -signal.SIGKILL)
    assert all(path.stat().st_ino == kept[path] for path in kept if path.exists())
    assert run(command) == 0
    assert tree(tmp_path) == tree(prepared)


@pytest.mark.slow
def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(tars, prepared, tmp_path):
    command = ['imagenet2012', f'--source={tars}', f'--data_dir={tmp_path}']
    rng, killed = random.Random(0), 0
    for _ in range(10):
        process = child(command, stdout=subprocess.DEVNULL)
        version = tmp_path / 'imagenet2012' / '5.1.0.incomplete'
        before = version.stat().st_mtime_ns if version.exists() else 0
        while process.poll() is None and (
            not version.exists() or version.stat().st_mtime_ns == before
        ):
            time.sleep(0.002)
        time.sleep(rng.expovariate(30))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        if (tmp_path / 'imagenet2012' / '5.1.0').exists():
            break
    assert killed
    assert run(command) == 0
    assert tree(tmp_path) == tree(prepared)


def test_control_c_says_how_to_go_on(tars, prepared, tmp_path):
    command = ['imagenet2012', f'--source={tars}', f'--data_dir={tmp_path}']
    pipes = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.PIPE}
    process = child(command, kill_at=100, number=signal.SIGINT, text=True, **pipes)
    assert process.communicate()[1] == 'Stopped: run the same command again to resume.\n'
    assert process.returncode == 130
    assert run(command) == 0
    assert tree(tmp_path) == tree(prepared)


def test_a_set_with_defects_is_the_same_after_a_kill(defective, tmp_path):
    command = ['imagenet2012', f'--source={defective}', '--max_rejected=4']
    options = {'shard_bytes': 200_000}
    assert run([*command, f'--data_dir={tmp_path}/whole'], **options) == 0
    for kill_at in (3, 12):
        run([*command, f'--data_dir={tmp_path}/data'], kill_at=kill_at, **options)
    assert run([*command, f'--data_dir={tmp_path}/data'], **options) == 0
    assert tree(tmp_path / 'data') == tree(tmp_path / 'whole')


def test_a_killed_folder_goes_on_to_the_same_bytes_and_summary(blood, tmp_path):
    command = ['folder', '--name=blood', f'--source={blood}']
    printed = said([*command, f'--data_dir={tmp_path}/whole'])
    for kill_at in (150, 100):
        code = run([*command, f'--data_dir={tmp_path}/data'], kill_at=kill_at)
        assert code == -signal.SIGKILL
    again = said([*command, f'--data_dir={tmp_path}/data'])
    assert tree(tmp_path / 'data') == tree(tmp_path / 'whole')
    assert again.replace(f'{tmp_path}/data', f'{tmp_path}/whole') == printed
    assert 'Formats: 364 JPEG. Modes: 364 RGB.' in printed
    assert 'Left out: 1 .xml.' in printed


def said(command):
    """Runs the command in a separate process; returns what it prints."""
    process = child(command, stdout=subprocess.PIPE, text=True)
    printed = process.communicate()[0]
    assert process.returncode == 0
    return printed


# Runs the command, and prints the resident memory after every thousandth picture.
MEASURED = """
import os, sys
from preparation import sharded_writer
from tools import prepare_data

prepare = sharded_writer.prepare

def measured(source, data_dir, max_rejected, advance):
    done = 0

    def count(records, size):
        nonlocal done
        done += records
        if records and done % 1000 == 0:
            pages = int(open('/proc/self/statm').read().split()[1])
            print(done, pages * os.sysconf('SC_PAGE_SIZE') / 1e6, file=sys.stderr)

    return prepare(source, data_dir, max_rejected, count)

sharded_writer.prepare = measured
sys.exit(prepare_data.main())
"""


@pytest.mark.full
def test_memory_stays_flat_over_20000_pictures(tmp_path):
    """A train tar of 20,000 JPEGs, 2.2 GB: a hundred times the sample, in eight shards."""
    files = imagenet_files()
    more = {
        path.name[:9]: [(f'{path.stem}_{n}.JPEG', path.read_bytes()) for n in range(99)]
        for path in files
    }
    imagenet_tars(tmp_path / 'tars', files, 1, more)
    command = ['imagenet2012', f'--source={tmp_path}/tars', f'--data_dir={tmp_path}/data']
    done = subprocess.run(
        [sys.executable, '-c', MEASURED, *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    memory = [float(line.split()[1]) for line in done.stderr.splitlines()]
    print(f'resident MB after each 1,000 pictures: {memory}\n{done.stdout}')
    assert len(memory) == 20
    assert max(memory) < memory[2] + 25
    assert len(list((tmp_path / 'data').glob('*/*/*-train.array*'))) == 9
