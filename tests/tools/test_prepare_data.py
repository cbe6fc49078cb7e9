"""prepare_data as a command: real MNIST, downloads, kills, and every mistake of a user."""

import functools
import gzip
import hashlib
import http.server
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from configs import base
from data_sources import arrays
from preparation import mnist
from tools import prepare_data
from training import experiment

ROOT = Path(prepare_data.__file__).resolve().parents[1]


def tree(folder):
    """Relative path -> sha256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def write_idx(path, values):
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f'>{values.ndim}I', *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def make_source(folder, train=300, test=50, classes=4):
    """A folder with the four files of a small idx set."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for stem, n in (('train', train), ('t10k', test)):
        write_idx(folder / f'{stem}-images-idx3-ubyte', rng.integers(0, 256, (n, 28, 28)))
        write_idx(folder / f'{stem}-labels-idx1-ubyte', np.arange(n) % classes)
    return folder


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path / 'source')


@pytest.fixture(scope='module')
def prepared(tmp_path_factory, mnist_idx_dir):
    """A data folder with MNIST, prepared by the command in a process of its own."""
    folder = tmp_path_factory.mktemp('data')
    command = ['mnist', f'--source={mnist_idx_dir}', f'--data_dir={folder}']
    done = subprocess.run(
        [sys.executable, '-W', 'error', '-m', 'tools.prepare_data', *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == (
        f'mnist: prepared in {folder}/mnist (60,000 train, 10,000 test).\n'
        'The last examples of train will be used for validation.\n'
        'Next: python train.py --config=configs/mnist_lenet.py --workdir=runs/mnist_lenet '
        f'--config.data.dir={folder}\n'
    )
    return folder


@pytest.fixture(scope='module')
def originals(mnist_idx_dir):
    """MNIST as plain gzip and struct see it: stem -> (images [n, 28, 28], labels [n])."""
    arrays = {}
    for stem in ('train', 't10k'):
        images = gzip.decompress((mnist_idx_dir / f'{stem}-images-idx3-ubyte.gz').read_bytes())
        labels = gzip.decompress((mnist_idx_dir / f'{stem}-labels-idx1-ubyte.gz').read_bytes())
        magic, n, height, width = struct.unpack('>4I', images[:16])
        assert (magic, height, width, len(labels) - 8) == (0x803, 28, 28, n)
        arrays[stem] = (
            np.frombuffer(images, np.uint8, offset=16).reshape(n, 28, 28),
            np.frombuffer(labels, np.uint8, offset=8),
        )
    return arrays


@pytest.mark.slow
def test_stock_tfds_reads_mnist_as_published(prepared, originals):
    builder = tfds.builder_from_directory(prepared / 'mnist' / '3.0.1')
    assert (builder.name, str(builder.version)) == ('mnist', '3.0.1')
    assert builder.info.features['label'].names == list('0123456789')
    for split, stem, step in (('train', 'train', 59), ('test', 't10k', 11)):
        stored, (images, labels) = builder.as_data_source(split), originals[stem]
        assert len(stored) == len(images)
        for i in range(0, len(images), step):
            assert stored[i]['image'].shape == (28, 28, 1)
            np.testing.assert_array_equal(stored[i]['image'][..., 0], images[i])
            assert stored[i]['label'] == labels[i]
        with pytest.raises(ValueError, match='Record key'):
            stored[len(images)]


def test_load_gives_all_of_mnist_with_the_last_5000_for_validation(prepared, originals):
    splits = {split: arrays.load('mnist', split, str(prepared)) for split in arrays.SPLITS}
    (train_images, train_labels), (test_images, test_labels) = originals.values()
    for split, images, labels in (
        ('train', train_images[:55_000], train_labels[:55_000]),
        ('validation', train_images[55_000:], train_labels[55_000:]),
        ('test', test_images, test_labels),
    ):
        np.testing.assert_array_equal(splits[split].images[..., 0], images)
        np.testing.assert_array_equal(splits[split].labels, labels)
    assert splits['test'].class_names == tuple('0123456789')


def test_a_prepared_set_is_checked_and_left_alone(prepared, capsys):
    before = tree(prepared)
    assert prepare_data.main(['mnist', f'--data_dir={prepared}']) == 0
    assert 'mnist: already prepared in' in capsys.readouterr().out
    assert tree(prepared) == before
    assert sorted(before) == [
        'mnist/3.0.1/dataset_info.json',
        'mnist/3.0.1/features.json',
        'mnist/3.0.1/label.labels.txt',
        'mnist/3.0.1/mnist-test.array_record-00000-of-00001',
        'mnist/3.0.1/mnist-train.array_record-00000-of-00001',
    ]


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; the first component of the path is the fault to simulate."""

    def do_GET(self):
        _, fault, name = self.path.split('/')
        data = (Path(self.directory) / name).read_bytes()
        self.server.asked.append(f'{fault}/{name}')
        if fault == 'missing':
            return self.send_error(404)
        self.send_response(200)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        if fault == 'cut':
            data = data[: len(data) // 2]
        elif fault == 'garbled':
            data = data[:-1] + bytes([data[-1] ^ 1])
        return self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(mnist_idx_dir, monkeypatch):
    """A function that sets the mirrors by their faults and returns the list of their requests."""
    handler = functools.partial(Mirror, directory=str(mnist_idx_dir))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        address = f'http://127.0.0.1:{server.server_address[1]}'

        def use(*faults):
            monkeypatch.setattr(mnist, 'MIRRORS', [f'{address}/{fault}/' for fault in faults])
            server.asked.clear()
            return server.asked

        yield use
        server.shutdown()
        thread.join()


def test_downloads_go_on_at_the_next_mirror_and_are_kept(tmp_path, mirror, mnist_idx_dir):
    asked = mirror('missing', 'cut', 'garbled', 'good')
    mnist.download(tmp_path)
    assert tree(tmp_path) == tree(mnist_idx_dir)
    assert len(asked) == 16
    (tmp_path / 't10k-labels-idx1-ubyte.gz').unlink()
    (tmp_path / 'train-labels-idx1-ubyte.gz').write_bytes(b'cut')
    asked = mirror('good')
    mnist.download(tmp_path)
    assert tree(tmp_path) == tree(mnist_idx_dir)
    assert asked == ['good/train-labels-idx1-ubyte.gz', 'good/t10k-labels-idx1-ubyte.gz']


@pytest.mark.parametrize(
    ('fault', 'reason'),
    [
        ('missing', 'Not Found'),
        ('cut', '4956211 bytes, expected 9912422'),
        ('garbled', 'sha256 [0-9a-f]{64}, expected 440fcabf'),
    ],
)
def test_a_bad_download_is_an_error_and_leaves_nothing(tmp_path, mirror, capsys, fault, reason):
    mirror(fault)
    assert prepare_data.main(['mnist', f'--data_dir={tmp_path}']) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    pattern = rf'error: Cannot download train-images-idx3-ubyte\.gz \(http.*: {reason}.*--source='
    assert re.match(pattern, message)
    assert tree(tmp_path) == {}


def test_no_network_is_said_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mnist, 'MIRRORS', ['http://127.0.0.1:9/'])
    assert prepare_data.main(['mnist', f'--data_dir={tmp_path}']) == 2
    message = capsys.readouterr().err
    assert 'Connection refused' in message
    assert (
        'Check the network, or download the four MNIST .gz files elsewhere and pass '
        '--source=FOLDER.' in message
    )


def test_a_source_that_is_not_mnist_is_refused(tmp_path, mnist_idx_dir, capsys):
    copy = tmp_path / 'copy'
    shutil.copytree(mnist_idx_dir, copy, copy_function=shutil.copyfile)
    copy.chmod(0o755)
    path = copy / 't10k-labels-idx1-ubyte.gz'
    path.write_bytes(path.read_bytes()[:-1] + b'\x01')
    assert prepare_data.main(['mnist', f'--source={copy}', f'--data_dir={tmp_path}/data']) == 2
    assert f'{path} is not the MNIST file of that name: sha256 ' in capsys.readouterr().err
    path.unlink()
    assert prepare_data.main(['mnist', f'--source={copy}', f'--data_dir={tmp_path}/data']) == 2
    assert f'{path} is missing: the four MNIST .gz files are needed' in capsys.readouterr().err
    assert not (tmp_path / 'data').exists()


def test_any_idx_folder(tmp_path, source, capsys):
    command = ['idx', '--name=tiny', f'--source={source}', f'--data_dir={tmp_path}']
    assert prepare_data.main([*command, '--class_names=a, b,c,d']) == 0
    assert '--config.data.name=tiny' in capsys.readouterr().out
    test = arrays.load('tiny', 'test', str(tmp_path))
    assert test.class_names == ('a', 'b', 'c', 'd')
    np.testing.assert_array_equal(test.labels, np.arange(50) % 4)
    pixels = np.frombuffer((source / 't10k-images-idx3-ubyte').read_bytes(), np.uint8, offset=16)
    np.testing.assert_array_equal(test.images.ravel(), pixels)
    assert prepare_data.main([*command, '--class_names=a,b,c,d']) == 0
    assert 'already prepared' in capsys.readouterr().out
    assert prepare_data.main(command) == 2
    assert 'contains other examples than the source. Remove that folder' in capsys.readouterr().err


def test_idx_files_of_handwriting_are_known_as_such(tmp_path, source, capsys):
    command = ['idx', '--name=letters', f'--source={source}', f'--data_dir={tmp_path}']
    assert prepare_data.main(command) == 0
    assert not arrays.load('letters', 'train', str(tmp_path)).handwriting
    assert prepare_data.main([*command, '--handwriting']) == 2
    error = capsys.readouterr().err
    assert 'was prepared without --handwriting: remove that folder to prepare it again' in error
    shutil.rmtree(tmp_path / 'letters')
    assert prepare_data.main([*command, '--handwriting']) == 0
    for split in ('train', 'validation', 'test'):
        assert arrays.load('letters', split, str(tmp_path)).handwriting
    config = base.get_config()
    config.data.name, config.data.dir = 'letters', str(tmp_path)
    assert experiment.open_train(config)[0].handwriting


def repeat_a_label(source):
    write_idx(source / 't10k-labels-idx1-ubyte', np.array([0, 1, 7] + [0] * 47))


def resize_the_test_images(source):
    write_idx(source / 't10k-images-idx3-ubyte', np.zeros((50, 14, 28)))


def cut(source):
    path = source / 'train-images-idx3-ubyte'
    path.write_bytes(path.read_bytes()[:-1])


MISTAKES = {
    'no folder': (shutil.rmtree, [], 'is not a folder: --source must be a folder with idx files.'),
    'cut file': (cut, [], 'which is 235200 bytes, but only '),
    'label out of range': (
        repeat_a_label,
        [],
        't10k-labels-idx1-ubyte has label 7 at position 2, which is out of range for the 4 classes '
        'of the train labels.',
    ),
    'too few class names': (
        lambda _: None,
        ['--class_names=a,b,c'],
        'train-labels-idx1-ubyte has label 3 at position 3, which is out of range for the 3 '
        'classes of --class_names.',
    ),
    'repeated class name': (
        lambda _: None,
        ['--class_names=a,b,b,c'],
        '--class_names=a,b,b,c has an empty or repeated name',
    ),
    'sizes differ': (resize_the_test_images, [], 'differ in size between splits'),
    'bad name': (
        lambda _: None,
        ['--name=My set'],
        '--name=My set is invalid: use lower-case letters, digits and underscores, starting with a '
        'letter.',
    ),
    'reserved name': (
        lambda _: None,
        ['--name=mnist'],
        '--name=mnist is reserved: choose another name.',
    ),
    'data_dir is a file': (
        lambda _: None,
        [f'--data_dir={__file__}'],
        f'Cannot write {__file__}/tiny/1.0.0: Not a directory',
    ),
    'data_dir is not writable': (
        lambda _: None,
        ['--data_dir=/proc'],
        'Cannot write /proc/tiny/1.0.0: ',
    ),
}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_mistakes_end_with_a_sentence_and_code_2(tmp_path, source, capsys, mistake):
    spoil, options, message = MISTAKES[mistake]
    spoil(source)
    command = ['idx', '--name=tiny', f'--source={source}', f'--data_dir={tmp_path}/data', *options]
    assert prepare_data.main(command) == 2
    printed = capsys.readouterr()
    assert printed.out == ''
    assert printed.err.startswith('error: ')
    assert printed.err.count('\n') == 1
    assert message in printed.err
    assert tree(tmp_path / 'data') == {}


@pytest.mark.parametrize(
    ('argv', 'message'),
    [
        ([], 'the following arguments are required: COMMAND'),
        (['mnits'], "invalid choice: 'mnits'"),
        (['idx', '--name=a'], 'the following arguments are required: --source'),
        (['idx', '--name=a', f'--source={"a" * 5000}'], 'used as a path (File name too long)'),
        (['mnist', '--data_dir=~nobody_of_this_name/a'], 'argument --data_dir: ~nobody_of_this_n'),
    ],
)
def test_wrong_usage(capsys, argv, message):
    with pytest.raises(SystemExit, match='2'):
        prepare_data.main(argv)
    assert message in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason='needs root, to mount a small tmpfs')
def test_a_full_disk(tmp_path, source, capsys):
    disk = tmp_path / 'disk'
    disk.mkdir()
    mounted = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=128k', 'tmpfs', disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f'cannot mount: {mounted.stderr.decode().strip()}')
    try:
        command = ['idx', '--name=tiny', f'--source={source}', f'--data_dir={disk}']
        assert prepare_data.main(command) == 2
        message = capsys.readouterr().err
        assert message.startswith(f'error: Cannot write {disk}/tiny/1.0.0: ')
        assert 'No space left on device' in message
        assert tree(disk) == {}
    finally:
        subprocess.run(['umount', disk], check=True)


@pytest.mark.slow
def test_kills_leave_nothing_that_looks_finished(tmp_path):
    """SIGKILL at several moments of the writing; each run starts from what the last one left."""
    source = make_source(tmp_path / 'source', train=6000, test=1000)
    command = [sys.executable, '-m', 'tools.prepare_data', 'idx', '--name=tiny']
    command += [f'--source={source}', '--data_dir']
    subprocess.run([*command, tmp_path / 'whole'], cwd=ROOT, check=True, capture_output=True)
    expected = tree(tmp_path / 'whole')
    data = tmp_path / 'data'
    killed = 0
    for delay in (0, 0.05, 0.1, 0.2, 0.4, 0.8):
        (data / 'tiny').mkdir(parents=True, exist_ok=True)
        untouched = (data / 'tiny').stat().st_mtime_ns
        child = subprocess.Popen(
            [*command, data], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while child.poll() is None and (data / 'tiny').stat().st_mtime_ns == untouched:
            time.sleep(0.005)  # until it makes its folder, or removes the last one's
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
        if (data / 'tiny' / '1.0.0').exists():  # then it must be whole
            assert tree(data) == expected
            shutil.rmtree(data)
    assert killed
    subprocess.run([*command, data], cwd=ROOT, check=True, capture_output=True)
    assert tree(data) == expected
    assert os.listdir(data / 'tiny') == ['1.0.0']
