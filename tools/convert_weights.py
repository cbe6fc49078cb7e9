"""Converts weights between PyTorch's libraries and the networks here; PyTorch is not needed.

    python -m tools.convert_weights --model=resnet50 --source=resnet50.pth --out=weights/resnet50
    python -m tools.convert_weights --model=resnet50 --pretrained=hub:timm/resnet50.a1_in1k \\
        --out=weights/resnet50
    python -m tools.convert_weights --to=torch --source=weights/resnet50 --out=resnet50.safetensors

A checkpoint of a training program may have other things beside the weights. Where it has several
weights, such as averaged ones, --key=NAME chooses. --input fits the first convolution to pictures
with another number of channels.

The layouts of torchvision, timm and transformers are recognized by the names of the tensors. Every
tensor must be used, and every parameter must be filled. With --to=torch, the source is a folder of
converted weights or the workdir of a run. Nothing is overwritten.
"""

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

import command
from errors import UserError

_MOST_CHANNELS = 1000
_TORCH_SUFFIXES = ('.pth', '.pt', '.bin')


def main(argv: list[str]) -> None:
    """Converts one file or folder."""
    args, overrides = command.parse(_make_parser(), argv)
    if overrides:
        raise UserError(f'{overrides[0]} has no effect here: leave it out.')
    (_to_torch if args.to == 'torch' else _from_torch)(args)


def _from_torch(args: argparse.Namespace) -> None:
    """Reads a file of weights and writes a folder."""
    import models  # slow to import; not for --help
    from models import pretrained
    from models.pretrained import hub, torch_names

    if not args.model:
        raise UserError('--model is missing: name the network, such as --model=resnet50.')
    if args.model not in models.names():
        raise UserError(
            f'--model={args.model} is unknown: use one of {", ".join(torch_names.known())}.'
        )
    if args.channels and args.input != 'repeat':
        raise UserError('--channels is the number of channels for --input=repeat: give both.')
    # These checks need no file, so they come before the download.
    torch_names.modules(args.model, args.layout or torch_names.layouts(args.model)[0])
    pretrained.check_new(args.out)
    source = hub.download(args.pretrained) if args.pretrained else args.source
    origin = f'{args.pretrained}/{source.name}' if args.pretrained else str(source)
    variables, about, which = _read_file(args, source, origin)
    digest = _sha256(source)
    about |= {'source': args.pretrained or source.name, 'source_sha256': digest}
    pretrained.save(args.out, variables, about)
    head = f'{about["num_classes"]:,} classes' if about['num_classes'] else 'no head'
    print(f'{args.model} from {origin}, layout {about["layout"]}: {_sizes(variables)}, {head}.')
    print(which, end='')
    print(f'sha256 of the source: {digest}')
    print(f'Written: {args.out / pretrained.WEIGHTS}, {args.out / pretrained.ABOUT}')
    grey = about['channels'] == 1
    print(
        f'Next: python train.py --config=... --config.model.name={args.model} '
        f'--config.init_from={args.out}\n      with the pixel mean and std that the weights were '
        'trained with; for most:\n      --config.data.mean='
        + ('0.449 --config.data.std=0.226' if grey else
           '0.485,0.456,0.406 --config.data.std=0.229,0.224,0.225')
    )  # fmt: skip


def _read_file(
    args: argparse.Namespace, source: Path, origin: str
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Returns variables, what weights.json says of them, and lines that say which were taken."""
    from models.pretrained import torch_checkpoints, torch_files, torch_weights

    file = torch_files.read(source)
    try:
        chosen, others = torch_checkpoints.choose(file.content, args.model, args.layout, args.key)
        state = file.arrays(chosen.tensors)
        variables, about = torch_weights.from_torch(state, args.model, args.layout)
        if args.input:
            channels = _new_channels(args, about['channels'])
            adapt = torch_weights.adapt_input
            variables = adapt(variables, args.model, about['layout'], args.input, channels)
            about |= {'channels': channels, 'input': args.input}
    except UserError as error:
        # The file itself names itself.
        known = str(error).startswith(str(source))
        raise UserError(str(error) if known else f'{origin}: {error}') from error
    about |= {'model': args.model, 'options': {}, 'source_key': chosen.key}
    about['averaged'] = chosen.averaged
    lines = [f'Taken: {chosen}'] if others or chosen.averaged or chosen.path else []
    lines += [f'Not taken: {weights}' for weights in others]
    return variables, about, ''.join(f'{line}\n' for line in lines)


def _new_channels(args: argparse.Namespace, channels: int) -> int:
    """Returns the number of channels that --input leads to."""
    new = (args.channels or 3) if args.input == 'repeat' else 1
    if new == channels:
        raise UserError(
            f'its weights read pictures of {_channels(channels)} already: leave out '
            f'--input={args.input}.'
        )
    return new


def _channels(number: int) -> str:
    return '1 channel' if number == 1 else f'{number} channels'


def _to_torch(args: argparse.Namespace) -> None:
    """Reads a folder of weights or a workdir and writes a file."""
    if args.pretrained or args.model or args.key or args.input:
        raise UserError(
            '--to=torch converts a folder, which records its model: give it as --source, without '
            '--model, --pretrained, --key and --input.'
        )
    write = _writer(args.out)
    if args.out.exists():
        raise UserError(f'--out={args.out} already exists: choose another file.')

    from models.pretrained import torch_weights

    model, variables, which = _read_folder(args.source)
    layout = args.layout or 'torchvision'
    try:
        state = torch_weights.to_torch(variables, model, layout)
    except UserError as error:
        raise UserError(f'{args.source}: {error}') from error
    temporary = args.out.with_name(f'{args.out.name}.tmp')
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write(state, temporary)
        temporary.rename(args.out)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UserError(
            f'--out={args.out} cannot be written ({reason}): free some space or choose another '
            'file.'
        ) from error
    print(f'{model} as a state dict of {layout}: {_sizes(variables)}.')
    print(which, end='')
    print(f'Written: {args.out}')
    read = 'torch.load' if args.out.suffix in _TORCH_SUFFIXES else 'safetensors.torch.load_file'
    print(f"Next, in Python: model.load_state_dict({read}('{args.out}'))")


def _read_folder(folder: Path) -> tuple[str, dict[str, Any], str]:
    """Returns model, variables and a line on which of a run's weights were taken.

    Args:
      folder: converted weights, or a run, whose last checkpoint is read.
    """
    from models import pretrained

    if pretrained.is_weights(folder):
        variables, about = pretrained.load(folder)
        return about['model'], variables, ''
    from training import trained, workdir

    if not (folder / workdir.CONFIG).is_file():
        raise UserError(
            f'--source={folder} is neither a folder of converted weights ({pretrained.WEIGHTS}) '
            f'nor the workdir of a run ({workdir.CONFIG}).'
        )
    run = trained.load(folder)
    kind = 'raw weights' if run.state.ema is None else 'averaged weights'
    return run.experiment.config.model.name, run.variables, f'Taken: {kind}, step {run.step:,}\n'


def _writer(path: Path) -> Callable[[dict[str, np.ndarray], Path], Any]:
    """Returns the function that writes {name: array} to a file with the suffix of `path`."""
    if path.suffix == '.safetensors':
        from safetensors.numpy import save

        # transformers requires this mark that the names and shapes are PyTorch's. Not by
        # `save_file`, whose files nobody but their owner can read.
        return lambda state, file: file.write_bytes(save(state, metadata={'format': 'pt'}))
    if path.suffix not in _TORCH_SUFFIXES:
        raise UserError(f'--out={path} must end in .safetensors or .pth.')
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f'--out={path} needs PyTorch, which is not installed: write '
            f'{path.with_suffix(".safetensors").name} instead, which PyTorch can read as well.'
        ) from error
    return lambda state, file: torch.save({k: torch.tensor(v) for k, v in state.items()}, file)


def _sizes(variables: dict[str, Any]) -> str:
    """Returns text such as '161 tensors, 25,557,032 parameters'."""
    import jax

    leaves = jax.tree.leaves(variables)
    parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(variables['params']))
    return f'{len(leaves):,} tensors, {parameters:,} parameters'


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m tools.convert_weights',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add('--model', help='network that the weights belong to, such as resnet50')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        '--source',
        type=_path,
        help='.safetensors or .pth file to read; with --to=torch, a folder of weights or a workdir',
    )
    source.add_argument(
        '--pretrained',
        metavar='hub:OWNER/NAME',
        help='repository of the Hugging Face Hub to download',
    )
    add('--out', type=_path, required=True, help='folder to write; with --to=torch, a file')
    add(
        '--layout',
        choices=('torchvision', 'timm', 'huggingface'),
        help='library whose names the tensors have (default: recognized by the names; with '
        '--to=torch, torchvision)',
    )
    add(
        '--key',
        metavar='NAME',
        help='which weights of a checkpoint, where it has several, such as state_dict_ema; the '
        'message that names them has the values',
    )
    add(
        '--input',
        choices=('sum', 'repeat', 'mean'),
        help='fit the first convolution to pictures with another number of channels: sum or mean '
        'of its kernel over the channels, for grey pictures (sum gives a grey picture the features '
        'that it has in RGB, as in timm), or repeat it for --channels, scaled so that features '
        'keep their size',
    )
    add(
        '--channels',
        type=_count,
        metavar='N',
        help='number of channels with --input=repeat (default: 3)',
    )
    add(
        '--to',
        choices=('here', 'torch'),
        default='here',
        help='direction of the conversion (default: %(default)s)',
    )
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= _MOST_CHANNELS):
        raise argparse.ArgumentTypeError(f'must be a number from 1 to {_MOST_CHANNELS}')
    return int(text)


def _path(text: str) -> Path:
    return Path(text).expanduser()


if __name__ == '__main__':
    command.run(main)
