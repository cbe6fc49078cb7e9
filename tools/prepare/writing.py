"""Writing sets of pictures in shards, and saying what became of them."""

import argparse
import collections
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import files
from tools.prepare import common

if TYPE_CHECKING:  # slow to import; not for --help
    import tensorflow_datasets as tfds

    from preparation.sharded_writer import Source


class Written(NamedTuple):
    """A finished set.

    Attributes:
      folder: <data_dir>/<name>/<version>.
      info: tfds's information on it.
      counts: {split: examples}.
      size: bytes of its source.
    """

    folder: Path
    info: 'tfds.core.DatasetInfo'
    counts: dict[str, int]
    size: int


def write(prepared: 'Source', args: argparse.Namespace) -> Written:
    """Writes a set with a progress bar, or checks the one that is there, and says what it has.

    Args:
      prepared: the set.
      args: the options; of them data_dir and max_rejected.
    """
    from preparation import sharded_writer

    size = sum(prepared.splits.values())
    with common.progress(prepared.name, size, 'pictures') as advance:
        new = sharded_writer.prepare(prepared, args.data_dir, args.max_rejected, advance)
    folder = args.data_dir / prepared.name
    info, counts = common.read_info(folder / prepared.version)
    kinds = collections.Counter()
    for split_kinds in info.metadata['kinds'].values():
        kinds.update(split_kinds)
    facts = [f'{count:,} {split}' for split, count in counts.items()]
    common.report(prepared.name, folder, new, facts)
    if kinds:
        print('Of these: ' + ', '.join(f'{count:,} {kind}' for kind, count in kinds.items()) + '.')
    return Written(folder / prepared.version, info, counts, size)


def report_missing_splits(counts: dict[str, int]) -> None:
    """Prints what training will use in place of splits that the set lacks."""
    if 'test' not in counts and 'train' in counts:
        if 'validation' in counts:
            print(
                'There is no test split: validation will be used as the test split, and a part of '
                'train for validation.'
            )
        else:
            print(
                'There is no test split: add one to the source. A part of train will be used for '
                'validation.'
            )
    elif 'validation' not in counts:
        print('There is no validation split: a part of train will be used for it.')


def report_rejected(written: Written) -> None:
    """Prints how many defective files were left out, by their suffixes."""
    rejected = sum(written.info.metadata['rejected'].values())
    if rejected:
        from preparation import folder_listing, sharded_writer

        names = [Path(entry['file']).name for entry in listed(written) if entry['defective']]
        counts = collections.Counter(map(folder_listing.kind_of, names))
        where = written.folder / sharded_writer.REJECTED_FILE
        kinds = folder_listing.counted(counts)
        print(f'{rejected} defective files were left out; they are listed in {where}. {kinds}.')


def listed(written: Written) -> list[dict]:
    """Returns the entries of rejected.jsonl: what was left out, or kept with a note."""
    from preparation import sharded_writer

    path = written.folder / sharded_writer.REJECTED_FILE
    if not path.exists():
        return []
    with path.open() as lines:
        return [files.parse_json(line) for line in lines]


def summary_of(written: Written) -> str:
    """Returns the summary of a finished set, which is read for it once."""
    from preparation import summary

    with common.progress('summary', written.size, 'pictures') as advance:
        return summary.text(summary.of(written.folder, advance), written.folder)


def add_max_rejected(command: argparse.ArgumentParser) -> None:
    """Adds the option --max_rejected to a subcommand."""
    command.add_argument(
        '--max_rejected',
        type=_count,
        default=0,
        help='number of defective files that may be left out (default: 0)',
    )


def _count(text: str) -> int:
    if not re.fullmatch('[0-9]{1,9}', text):
        raise argparse.ArgumentTypeError(f'{text} is not a whole number from 0')
    return int(text)
