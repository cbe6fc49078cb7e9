"""Converts weights between PyTorch's libraries and the networks here. PyTorch is not needed.

    python -m tools.convert_weights --model=resnet50 --source=resnet50.pth --out=weights/resnet50
    python -m tools.convert_weights --model=resnet50 --pretrained=hub:timm/resnet50.a1_in1k \\
        --out=weights/resnet50
    python -m tools.convert_weights --to=torch --source=weights/resnet50 --out=resnet50.safetensors

The layouts of torchvision, timm and transformers are told apart by their names. Every tensor has to
be used and every parameter to be filled. With --to=torch the source is a folder of converted
weights, or the workdir of a run. Nothing is overwritten.
"""

import argparse
import hashlib
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
        raise UserError(f'{overrides[0]} means nothing here: weights have no configuration.')
    (_to_torch if args.to == 'torch' else _from_torch)(args)


def _from_torch(args: argparse.Namespace) -> None:
    """Reads a file of weights and writes a folder."""
    import models  # slow to import; not for --help
    from models import pretrained
    from models.pretrained import hub, torch_files, torch_names, torch_weights

    if not args.model:
        raise UserError('--model is missing: name the network, such as --model=resnet50.')
    if args.model not in models.names():
        raise UserError(f'--model={args.model} is not one of {", ".join(torch_names.known())}.')
    # What can be said before anything is downloaded.
    torch_names.modules(args.model, args.layout or torch_names.layouts(args.model)[0])
    pretrained.check_new(args.out)
    source = hub.download(args.pretrained) if args.pretrained else args.source
    origin = f'{args.pretrained}/{source.name}' if args.pretrained else str(source)
    state = torch_files.read(source)
    try:
        variables, found = torch_weights.from_torch(state, args.model, args.layout)
    except UserError as error:
        raise UserError(f'{origin}: {error}') from error
    digest = _sha256(source)
    about = {
        'model': args.model,
        'options': {},
        **found,
        'source': args.pretrained or source.name,
        'source_sha256': digest,
    }
    pretrained.save(args.out, variables, about)
    head = f'{found["num_classes"]:,} classes' if found['num_classes'] else 'no head'
    print(f'{args.model} from {origin}, layout {found["layout"]}: {_counted(variables)}, {head}.')
    print(f'sha256 of the source: {digest}')
    print(f'Written: {args.out / pretrained.WEIGHTS}, {args.out / pretrained.ABOUT}')
    print(
        f'Next: python train.py --config=... --config.model.name={args.model} '
        f'--config.init_from={args.out}\n      with the mean and std of pixels that they were '
        'trained with; for most:\n      --config.data.mean=0.485,0.456,0.406 '
        '--config.data.std=0.229,0.224,0.225'
    )


def _to_torch(args: argparse.Namespace) -> None:
    """Reads a folder of weights or a workdir and writes a file."""
    if args.pretrained or args.model:
        raise UserError('with --to=torch give a folder as --source, which knows its model.')
    write = _writer(args.out)
    if args.out.exists():
        raise UserError(f'--out={args.out} is there already: choose another file.')

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
        raise UserError(f'--out={args.out} cannot be written: {reason}.') from error
    print(f'{model} as a state dict of {layout}: {_counted(variables)}.')
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
    found = trained.load(folder)
    return found.experiment.config.model.name, found.variables


def _writer(path: Path):
    """Returns what writes {name: array} to a file with this suffix."""
    if path.suffix == '.safetensors':
        from safetensors.numpy import save_file

        # transformers wants to be told that the names and shapes are PyTorch's.
        return lambda state, file: save_file(state, file, metadata={'format': 'pt'})
    if path.suffix not in _TORCH_SUFFIXES:
        raise UserError(f'--out={path} should end in .safetensors or .pth.')
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f'--out={path} needs PyTorch, which is not installed: write '
            f'{path.with_suffix(".safetensors").name} instead, which PyTorch reads as well.'
        ) from error
    return lambda state, file: torch.save({k: torch.tensor(v) for k, v in state.items()}, file)


def _counted(variables: dict[str, Any]) -> str:
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
    add('--model', help='network that the weights are for, such as resnet50')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--source', type=_path, help='.safetensors or .pth file; or a folder')
    source.add_argument(
        '--pretrained', metavar='hub:OWNER/NAME', help='repository of the Hugging Face Hub'
    )
    add('--out', type=_path, required=True, help='folder to write; with --to=torch, the file')
    add(
        '--layout',
        choices=('torchvision', 'timm', 'huggingface'),
        help='whose names the tensors have (default: recognised; with --to=torch, torchvision)',
    )
    add('--to', choices=('here', 'torch'), default='here', help='direction (default: %(default)s)')
    return parser


def _path(text: str) -> Path:
    return Path(text).expanduser()


if __name__ == '__main__':
    command.run(main)
