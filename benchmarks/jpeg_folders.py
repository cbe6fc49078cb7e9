"""The pictures of the input pipelines: as files, and as data sets that our pipeline reads."""

import sys
from pathlib import Path

import processes
from errors import UserError

NAME = 'benchmark'
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of random-resized crops, the usual defaults


def lay_out(source: Path, folder: Path) -> Path:
    """Makes class folders of links to all JPEG files below a folder; returns that of training.

    All are in train and in one class. Validation and test hold one each, so that no file is taken
    out of train for them.
    """
    if not source.is_dir():
        raise UserError(f'{source} is not a folder: --source must name one with JPEG files.')
    files = sorted(path for path in source.rglob('*') if path.suffix.lower() in ('.jpg', '.jpeg'))
    if not files:
        raise UserError(f'There are no JPEG files in {source}: name another folder by --source.')
    for split, chosen in (('train', files), ('val', files[:1]), ('test', files[:1])):
        target = folder / split / 'all'
        target.mkdir(parents=True)
        for number, file in enumerate(chosen):
            (target / f'{number:06d}_{file.name}').symlink_to(file.resolve())
    return folder / 'train'


def prepare(pictures: Path, data_dir: Path, shorter_side: int | None = None) -> str:
    """Prepares a laid-out folder as a data set, as a user would; returns its name."""
    command = [sys.executable, '-m', 'tools.prepare_data', 'folder', f'--name={NAME}']
    command += [f'--source={pictures.parent}', f'--data_dir={data_dir}']
    command += [f'--shorter_side={shorter_side}'] if shorter_side else []
    try:
        processes.watch(command)
    except UserError as error:
        raise UserError(f'tools.prepare_data: {str(error).partition(" ... failed: ")[2]}') from None
    return f'{NAME}_{shorter_side}' if shorter_side else NAME
