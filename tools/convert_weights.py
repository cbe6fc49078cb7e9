"""Converts weights between PyTorch's libraries and the networks here; PyTorch is not needed.

    python -m tools.convert_weights --model=resnet50 --source=resnet50.pth --out=weights/resnet50
    python -m tools.convert_weights --model=resnet50 --pretrained=hub:timm/resnet50.a1_in1k \\
        --out=weights/resnet50
    python -m tools.convert_weights --to=torch --source=weights/resnet50 --out=resnet50.safetensors

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
    from models.pretrained import hub, torch_files, torch_names, torch_weights

    if not args.model:
        raise UserError('--model is missing: name the network, such as --model=resnet50.')
    if args.model not in models.names():
        raise UserError(
            f'--model={args.model} is unknown: use one of {", ".join(torch_names.known())}.'
        )
    # These checks need no file, so they come before the download.
    torch_names.modules(args.model, args.layout or torch_names.layouts(args.model)[0])
    pretrained.check_new(args.out)
    source = hub.download(args.pretrained) if args.pretrained else args.source
    origin = f'{args.pretrained}/{source.name}' if args.pretrained else str(source)
    state = torch_files.read(source)
    try:
        variables, network = torch_weights.from_torch(state, args.model, args.layout)
    except UserError as error:
        raise UserError(f'{origin}: {error}') from error
    digest = _sha256(source)
    about = {
        'model': args.model,
        'options': {},
        **network,
        'source': args.pretrained or source.name,
        'source_sha256': digest,
    }
    pretrained.save(args.out, variables, about)
    head = f'{network["num_classes"]:,} classes' if network['num_classes'] else 'no head'
    print(f'{args.model} from {origin}, layout {network["layout"]}: {_sizes(variables)}, {head}.')
    print(f'sha256 of the source: {digest}')
    print(f'Written: {args.out / pretrained.WEIGHTS}, {args.out / pretrained.ABOUT}')
    print(
        f'Next: python train.py --config=... --config.model.name={args.model} '
        f'--config.init_from={args.out}\n      with the pixel mean and std that the weights were '
        'trained with; for most:\n      --config.data.mean=0.485,0.456,0.406 '
        '--config.data.std=0.229,0.224,0.225'
    )


def _to_torch(args: argparse.Namespace) -> None:
    """Reads a folder of weights or a workdir and writes a file."""
    if args.pretrained or args.model:
        raise UserError(
            '--to=torch converts a folder, which records its model: give it as --source, without '
            '--model and --pretrained.'
        )
    write = _writer(args.out)
    if args.out.exists():
        raise UserError(f'--out={args.out} already exists: choose another file.')

    from models.pretrained import torch_weights

    model, variables = _read_folder(args.source)
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
    print(f'Written: {args.out}')
    read = 'torch.load' if args.out.suffix in _TORCH_SUFFIXES else 'safetensors.torch.load_file'
    print(f"Next, in Python: model.load_state_dict({read}('{args.out}'))")


def _read_folder(folder: Path) -> tuple[str, dict[str, Any]]:
    """Returns (model, variables) of converted weights, or of the last checkpoint of a run."""
    from models import pretrained

    if pretrained.is_weights(folder):
        variables, about = pretrained.load(folder)
        return about['model'], variables
    from training import trained, workdir

    if not (folder / workdir.CONFIG).is_file():
        raise UserError(
            f'--source={folder} is neither a folder of converted weights ({pretrained.WEIGHTS}) '
            f'nor the workdir of a run ({workdir.CONFIG}).'
        )
    run = trained.load(folder)
    return run.experiment.config.model.name, run.variables


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
        '--to',
        choices=('here', 'torch'),
        default='here',
        help='direction of the conversion (default: %(default)s)',
    )
    return parser


def _path(text: str) -> Path:
    return Path(text).expanduser()


if __name__ == '__main__':
    command.run(main)
