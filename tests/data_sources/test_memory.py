"""Pictures from outside cost memory by their declared size, and no more."""

import subprocess
import sys

from tests.conftest import ROOT

# One process for all cases: the peak is that of the most expensive one.
SCRIPT = """
import struct, sys, zlib
from PIL import Image
from data_sources import decoding, images, png
from preparation import picture_check

def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

def zipped(size):
    packer = zlib.compressobj(1)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    return b''.join(parts) + packer.compress(bytes(size & 0xFFFFF)) + packer.flush()

def file(side, kind, idat, *more):
    header = struct.pack('>IIBBBBB', side, side, 8, kind, 0, 0, 0)
    parts = chunk(b'IHDR', header), *more, chunk(b'IDAT', idat), chunk(b'IEND', b'')
    return b'\\x89PNG\\r\\n\\x1a\\n' + b''.join(parts)

def peak():
    # getrusage's figure starts with that of the process that started this one.
    with open('/proc/self/status') as lines:
        return next(int(line.split()[1]) >> 10 for line in lines if line.startswith('VmHWM'))

def tiled(data, side):
    tags = {256: 28, 257: 28, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8}
    entries = [struct.pack('<HHII', tag, 4, 1, n) for tag, n in {**tags, 325: len(data)}.items()]
    head = b'II*' + bytes(1) + struct.pack('<I', 8 + len(data))
    return head + data + struct.pack('<H', len(entries)) + b''.join(entries) + bytes(4)

path = sys.argv[1]
bomb, rows = zipped(256 << 20), zipped(29 * 28)
encoded = {
    'transparent': file(3000, 6, zipped(3000 * 12001)),
    'pixels': file(28, 0, bomb),
    'text': file(28, 0, rows, chunk(b'zTXt', b'Comment\\0\\0' + bomb)),
    'international text': file(28, 0, rows, chunk(b'iTXt', b'Comment\\0\\1\\0\\0\\0' + bomb)),
    'a tile': tiled(bomb, 1 << 14),
    'profile': file(28, 0, rows, chunk(b'iCCP', b'icc\\0\\0' + bomb)),
}
before = peak()
for name, data in encoded.items():
    open(path, 'wb').write(data)
    for read in (
        decoding.decode, picture_check.check, lambda d: picture_check.check(d, 20),
        lambda d: images.read_image(path, 28, 28, 1), lambda d: png.decode_many([d], (28, 28, 1)),
    ):
        try:
            read(data)
        except Exception as error:
            assert name != 'transparent' or 'not uint8' in str(error), error
print(peak() - before)
"""


def test_bombs_do_not_go_off(tmp_path):
    """9 million transparent pixels (40 bytes each when they were floats), and 256 MB in 1 MB."""
    command = [sys.executable, '-c', SCRIPT, str(tmp_path / 'a.png')]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200  # MB
