"""Trials of what is read: mutated configurations and files. They end as read or with a sentence.

A batch of them is read in a process of its own, since the worst of them would end the process.
"""

import gzip
import io
import json
import random
import resource
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from errors import UserError
from tools.drill import damage
from tools.drill.trial import Command, DidNotHoldError, Ground, Held, Kind

BATCH = {'configs': 50, 'files': 250}
MOST_MEMORY = 10**9  # bytes
_CODE = 'from tools.drill import inputs; inputs.read_batch({kind!r}, {seed}, {first}, {folder!r})'
_ODD = (
    None, True, -1, 0, 1, 2, 10**9, 10**30, -0.5, 1e-300, 1e300, float('inf'), float('nan'), '',
    'x', '٣', '\0', 'a' * 5000, [], [0], [1e23], [[]], ['x'], {}, {'name': 1}, '../..', '/dev/zero',
)  # fmt: skip
# A state dict of one tensor as PyTorch pickles it: {'a.weight': 2 x 2 numbers of the storage '0'}.
_STATE_DICT = (
    b'\x80\x02}X\x08\x00\x00\x00a.weightctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00'
    b'storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x02K\x02\x86K\x02'
    b'K\x01\x86\x89ccollections\nOrderedDict\n)RtRs.'
)


def _batch(ground: Ground, shared: object, folder: Path, number: int) -> Held:
    """Reads a batch of mutated inputs in a process of its own."""
    kind = ground.folder.name
    first, log = number * BATCH[kind], folder / 'log'
    code = _CODE.format(kind=kind, seed=ground.seed, first=first, folder=str(folder))
    with Command(['-c', code], log) as command:
        status = command.wait()
    lines = log.read_text(errors='replace').splitlines()
    words = [line.split(' ', 2) for line in lines if line.startswith('drill ')]
    tried = [word[2] for word in words if word[1] == 'tried']
    odd = [word[2] for word in words if word[1] == 'odd']
    memory = [int(word[2]) for word in words if word[1] == 'memory']
    if odd:
        some = f'{len(odd)} of {BATCH[kind]} inputs, such as {odd[0]} ({log})'
        raise DidNotHoldError(some, BATCH[kind], BATCH[kind] - len(odd))
    if status or not memory:
        last = tried[-1] if tried else first
        raise DidNotHoldError(f'the process ended with {status} at input {last} ({log})')
    if memory[0] > MOST_MEMORY:
        raise DidNotHoldError(f'{memory[0] / 1e6:,.0f} MB of memory ({log})')
    return Held(BATCH[kind], memory[0] if kind == 'files' else 0)


def read_batch(kind: str, seed: int, first: int, folder: str) -> None:
    """Reads the inputs `first`, `first` + 1, ... and prints what came of them."""
    read = {'configs': _read_config, 'files': _read_file}[kind]
    bases = _files() if kind == 'files' else {}
    for number in range(first, first + BATCH[kind]):
        draw = random.Random(f'{seed} {kind} {number}')
        print('drill tried', number, flush=True)
        try:
            read(draw, Path(folder), bases)
        except UserError as error:
            if not str(error) or len(str(error)) > 1000:
                print(f'drill odd {number}: a sentence of {len(str(error))} characters', flush=True)
        except Exception as error:  # whatever it is, a user would have seen a traceback
            print(f'drill odd {number}: {type(error).__name__}: {error!s:.200}', flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print('drill memory', peak, flush=True)


def _read_config(draw: random.Random, folder: Path, _: Mapping[str, bytes]) -> None:
    """Reads a configuration with a mutated file, odd values, or odd arguments."""
    from configs import base, reading, schema
    from training import checks, experiment

    values = schema.flatten(base.get_config())
    path, arguments = folder / 'config.json', []
    way = draw.choice(('bytes', 'values', 'arguments'))
    odd = {name: draw.choice(_ODD) for name in draw.sample(sorted(values), draw.randint(1, 3))}
    if way == 'arguments':
        arguments = [f'--config.{name}={value}' for name, value in odd.items()]
    elif way == 'values':
        values |= odd
    data = json.dumps(values).encode()
    path.write_bytes(damage.mutated(data, draw) if way == 'bytes' else data)
    config = reading.from_arguments(str(path), arguments)
    checks.check(config)
    found = experiment.Experiment(config, (28, 28, 1), tuple('0123456789'), 1437)
    found.check_lengths()
    experiment.hyperparameters(config)


def _read_file(draw: random.Random, folder: Path, bases: Mapping[str, bytes]) -> None:
    """Reads a mutated file by all that reads files of its kind."""
    name = draw.choice(sorted(bases))
    path = folder / name
    path.write_bytes(damage.mutated(bases[name], draw))
    for read in _readers(path.suffix):
        try:
            read(path)
        except UserError:
            continue


def _readers(suffix: str) -> tuple[Callable[[Path], Any], ...]:
    """Returns the functions that read files of a suffix."""
    import files
    from data_sources import decoding, images
    from models.pretrained import torch_checkpoints, torch_files
    from preparation import idx, picture_check
    from training import records

    def decoded(path: Path) -> None:
        try:
            decoding.decode(path.read_bytes())
        except decoding.DecodeError as error:
            raise UserError(str(error)) from error

    def weights(path: Path) -> None:
        file = torch_files.read(path)
        chosen, _ = torch_checkpoints.choose(file.content, 'resnet18')
        file.arrays(chosen.tensors)

    return {
        '.gz': (lambda path: idx.read(path, 3),),
        '.json': (files.read_json,),
        '.jsonl': (lambda path: records.read_metrics(path.parent),),
        '.pth': (weights,),
        '.safetensors': (weights,),
    }.get(
        suffix,
        (
            lambda path: images.read_image(path, 28, 28, 1),
            decoded,
            lambda path: picture_check.check(path.read_bytes(), 16),
        ),
    )


def _files() -> dict[str, bytes]:
    """Returns sound files of the kinds that are read, by name."""
    import numpy as np
    import safetensors.numpy

    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    found = _pictures(pixels)
    images = (
        b'\0\0\x08\x03' + b''.join(n.to_bytes(4) for n in (5, 40, 48)) + pixels.tobytes()[:9600]
    )
    found['digits.gz'] = gzip.compress(images)
    found['config.json'] = json.dumps({'a': [1, {'b': None}], 'c': 'x' * 50}).encode()
    found['metrics.jsonl'] = b'{"step": 1, "wall_seconds": 0.5, "train/loss": 2.0}\n' * 9
    found['weights.safetensors'] = safetensors.numpy.save(
        {'conv.weight': np.ones((3, 4), np.float32)}
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, 'w') as file:
        file.writestr('archive/data.pkl', _STATE_DICT)
        file.writestr('archive/byteorder', 'little')
        file.writestr('archive/data/0', bytes(16))
    found['weights.pth'] = archive.getvalue()
    return found


def _pictures(pixels: Any) -> dict[str, bytes]:
    """Returns one picture as files of many formats and modes, by name."""
    import numpy as np
    from PIL import Image

    color = Image.fromarray(pixels)
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    clear = color.copy()
    clear.putalpha(color.getchannel(0))
    kinds = {
        'baseline.jpg': ('JPEG', color, {}),
        'progressive.jpg': ('JPEG', color, {'progressive': True}),
        'grey.jpg': ('JPEG', color.convert('L'), {}),
        'cmyk.jpg': ('JPEG', color.convert('CMYK'), {}),
        'color.png': ('PNG', color, {}),
        'palette.png': ('PNG', color.convert('P'), {'transparency': 3}),
        'deep.png': ('PNG', deep, {}),
        'clear.png': ('PNG', clear, {}),
        'color.gif': ('GIF', color, {}),
        'color.bmp': ('BMP', color, {}),
        'color.tiff': ('TIFF', color, {'compression': 'tiff_lzw'}),
        'clear.webp': ('WEBP', clear, {'lossless': True}),
        'color.ppm': ('PPM', color, {}),
    }
    found = {}
    for name, (kind, picture, options) in kinds.items():
        file = io.BytesIO()
        picture.save(file, kind, **options)
        found[name] = file.getvalue()
    return found


KINDS = (
    Kind('configs', 'mutated configurations and arguments: accepted, or refused in a sentence',
         lambda ground: None, _batch),
    Kind('files', 'mutated pictures, weights, idx and JSON files: read, or refused in a sentence, '
         f'below {MOST_MEMORY // 10**9} GB', lambda ground: None, _batch),
)  # fmt: skip
