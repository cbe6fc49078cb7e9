"""Runs prepare_data in a separate process; its sources, and reading what it has written."""

import io
import shutil
import signal
import subprocess
import sys

import tensorflow_datasets as tfds
from PIL import Image

from tests.conftest import ROOT
from tests.support_pictures import blood_files, imagenet_files, imagenet_tars

# The command with small shards; instead of writing record n, it sends itself a signal.
CHILD = """
import os, signal, sys
from preparation import sharded_writer
from tools import prepare_data

# A shell may have started the tests with Ctrl-C ignored, which children inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
shard_bytes, kill_at, number = (int(sys.argv.pop(1)) for _ in range(3))
sharded_writer.SHARD_BYTES = shard_bytes
write, written = sharded_writer.ShardWriter.write, 0

def counting(self, record):
    global written
    written += 1
    if written == kill_at:
        os.kill(os.getpid(), number)
    write(self, record)

sharded_writer.ShardWriter.write = counting
sys.exit(prepare_data.main())
"""


def child(command, shard_bytes=1 << 20, kill_at=0, number=signal.SIGKILL, **options):
    settings = (str(int(value)) for value in (shard_bytes, kill_at, number))
    argv = [sys.executable, '-W', 'error', '-c', CHILD, *settings, *command]
    return subprocess.Popen(argv, cwd=ROOT, **options)


def run(command, **options):
    """Runs the command in a separate process; returns its exit code."""
    return child(command, stdout=subprocess.DEVNULL, **options).wait(240)


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def stored(folder, split, **options):
    """The examples of a split as stock tfds gives them."""
    source = tfds.builder_from_directory(folder).as_data_source(split, **options)
    return [source[index] for index in range(len(source))]


def as_stored(folder, split):
    """The same, without decoding the pictures."""
    return stored(folder, split, decoders={'image': tfds.decode.SkipDecoding()})


def encode(picture, form):
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


def defective_tars(folder):
    """Tar files with one defect of each kind, and with unusual but valid pictures."""
    first, second = (path.read_bytes() for path in imagenet_files()[:2])
    picture = Image.open(io.BytesIO(first))
    bomb = encode(Image.new('1', (20_000, 6_000)), 'PNG')
    more = {
        'n01440764': [
            ('cut.JPEG', first[: len(first) // 2]),
            ('cmyk.JPEG', encode(picture.convert('CMYK'), 'JPEG')),
            ('empty.JPEG', b''),
        ],
        'n02110806': [
            ('png.JPEG', encode(picture, 'PNG')),
            ('text.JPEG', b'Not Found'),
            ('bomb.JPEG', bomb),
            ('last.JPEG', second),
        ],
    }
    return imagenet_tars(folder, imagenet_files()[:20], 10, more)


def blood_folder(folder):
    """The blood cells in class folders: real pictures, made-up classes."""
    for number, path in enumerate(blood_files()):
        target = folder / ('even', 'odd', 'prime')[number % 3]
        target.mkdir(exist_ok=True)
        shutil.copy(path, target)
    (folder / 'odd' / 'boxes.xml').write_text('<annotation/>')
    return folder
