"""Writes large data sets as tfds ArrayRecord shards, in bounded memory, and goes on after a kill.

While a set is being written there is only <name>/<version>.incomplete/:

    plan.json           what it is made of; another source or other options do not go on in it
    train-00012.json    shard 12 of train is on the disk, and this is where the next one starts
    data/train-00012    its records; data/ becomes <name>/<version>/ by one rename

A shard without its JSON file was cut short and is written anew. Where a shard ends depends on the
records alone, so the result is the same whether or not anything was interrupted.
"""

import collections
import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import tensorflow_datasets as tfds

from errors import UserError
from preparation.shards import ShardWriter, alone, flush_to_disk, is_sound, read_json, write_json

SHARD_BYTES = 256 << 20
RECORD_FILE = 'prepared.json'  # in a finished set: what it was made of, and its shards
REJECTED_FILE = 'rejected.jsonl'
_NAMED = 3  # defects in an error message
_STOP_AFTER = 1000  # rejected beyond what is allowed: then the source is not what it should be


@dataclasses.dataclass(frozen=True)
class Item:
    """What a source gives next: a record, or a file that gives none.

    Attributes:
      cursor: any JSON value; `Source.items(split, cursor)` goes on after this item.
      size: bytes of the source that it took, for the progress bar.
      record: the serialised example, or None.
      kinds: words under which it is counted.
      file: where it came from, if there is a fault.
      fault: why it gives no record.
      defective: the fault counts as one (not that of a file that was never meant as an example).
      ends_shard: the shard is closed after it, whatever its size.
    """

    cursor: Any
    size: int
    record: bytes | None = None
    kinds: tuple[str, ...] = ()
    file: str = ''
    fault: str = ''
    defective: bool = True
    ends_shard: bool = False


class Source(Protocol):
    """What is written: named splits of items in an order that never changes.

    Attributes:
      name: of the data set, a tfds name.
      version: 'major.minor.patch'.
      splits: split -> bytes of the source, about.
      shard_bytes: a shard is closed when its records have this many bytes.
    """

    name: str
    version: str
    splits: Mapping[str, int]
    shard_bytes: int

    def identity(self) -> dict[str, Any]:
        """JSON: what the set is made of. Two sources that differ in it give different sets."""

    def stamp(self) -> Any:
        """JSON: changes when the source is changed between two runs, e.g. times of files."""

    def items(self, split: str, cursor: Any) -> Iterator[Item]:
        """A generator over the items of a split after `cursor` (None: from the start)."""

    def describe(self, folder: Path, splits: Mapping[str, 'Totals']) -> None:
        """Writes dataset_info.json, features.json and what belongs to them beside the shards."""


@dataclasses.dataclass(frozen=True)
class Totals:
    """What was written of a split.

    Attributes:
      shards: (records, bytes of records, bytes of the file) of each shard.
      kinds: word -> how many records it was said of.
      defective: how many files gave no record and should have.
      first_defects: the first few of them, each with its fault.
    """

    shards: tuple[tuple[int, int, int], ...]
    kinds: Mapping[str, int]
    defective: int
    first_defects: tuple[str, ...]

    @property
    def records(self) -> int:
        """How many examples there are."""
        return sum(shard[0] for shard in self.shards)


def prepare(
    source: Source,
    data_dir: Path,
    max_rejected: int = 0,
    advance: Callable[[int, int], None] = lambda records, size: None,
) -> bool:
    """Writes `source` to <data_dir>/<name>/<version>/, or goes on where an earlier run stopped.

    Args:
      source: what to write.
      data_dir: the folder of prepared data sets.
      max_rejected: how many files may be left out as defective.
      advance: called with (records, bytes of the source), also for what an earlier run did.

    Returns:
      True if it was written, False if it was there already (counts and sizes are checked).

    Raises:
      UserError: the folder holds another set (it is left as it is) or is damaged; more files are
        defective than allowed; the source changed since an interrupted run began; another process
        is at it; the disk is full or not writable. What was written is kept for the next run.
    """
    folder = data_dir / source.name / source.version
    unfinished = folder.with_name(f'{folder.name}.incomplete')
    try:
        with alone(folder.parent):
            if folder.exists():
                check_finished(source, folder)
                if not (unfinished / 'data').exists():  # killed just after the rename
                    shutil.rmtree(unfinished, ignore_errors=True)
                return False
            _begin(source, unfinished)
            data = unfinished / 'data'
            with (unfinished / REJECTED_FILE).open('w') as rejected:
                totals = {
                    split: _write_split(source, split, data, rejected, max_rejected, advance)
                    for split in source.splits
                }
            _check_rejected(totals, unfinished, max_rejected)
            _finish(source, data, totals)
            flush_to_disk(data)
            os.rename(data, folder)
            flush_to_disk(folder.parent)
            shutil.rmtree(unfinished)
    except OSError as error:
        kept = ' What is finished is kept: run the same command again to go on.'
        raise UserError(
            f'Cannot write {folder}: {error.strerror or error}.' + kept * os.path.exists(unfinished)
        ) from error
    return True


def check_finished(source: Source, folder: Path) -> None:
    """Refuses `folder` unless it was made of `source` and has all its shards at their sizes."""
    made = read_json(folder / RECORD_FILE)
    if made is None:
        raise UserError(
            f'{folder} holds a data set that this command did not make: it is left as it is. '
            'Choose another --data_dir, or another --name where there is one.'
        )
    if made['source'] != _as_json(source.identity()):
        raise UserError(
            f'{folder} holds other examples than the source, or was made with other options: '
            'remove that folder to prepare it again, or choose another name or --data_dir.'
        )
    for name, (records, size) in made['shards'].items():
        if not is_sound(folder / name, records, size):
            raise UserError(
                f'{folder / name} is missing or damaged ({records} records in {size} bytes are '
                f'expected): remove {folder} and prepare it again.'
            )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _begin(source: Source, unfinished: Path) -> None:
    """Makes the folder of an unfinished set, or looks whether the one there may be gone on with."""
    plan = {
        'source': source.identity(),
        'stamp': source.stamp(),
        'shard_bytes': source.shard_bytes,
    }
    (unfinished / 'data').mkdir(parents=True, exist_ok=True)
    path = unfinished / 'plan.json'
    if not path.exists():
        write_json(path, plan)
    elif read_json(path) != _as_json(plan):
        raise UserError(
            f'{unfinished} was begun from other files or with other options (the source has '
            'changed since): remove that folder to begin anew.'
        )
    # A run may have been killed while the shards got their final names: take them back.
    for shard in (unfinished / 'data').iterdir():
        if found := re.fullmatch(r'[^.]*-(\w+)\.array_record-(\d+)-of-\d+', shard.name):
            shard.rename(shard.with_name(f'{found[1]}-{found[2]}'))


def _write_split(
    source: Source,
    split: str,
    data: Path,
    rejected: TextIO,
    max_rejected: int,
    advance: Callable[[int, int], None],
) -> Totals:
    """Writes the shards of a split that are not there yet; lists what all of them leave out."""
    parts = _finished_parts(data, split)
    for part in parts:
        advance(part['records'], part['size'])
        rejected.writelines(part['rejected'])
    cursor = parts[-1]['cursor'] if parts else None
    done = bool(parts) and parts[-1]['last']
    left = max_rejected + _STOP_AFTER - sum(part['defective'] for part in parts)
    with contextlib.closing(source.items(split, cursor)) as items:
        while not done:
            path = data / f'{split}-{len(parts):05d}'
            part = _write_part(items, split, path, left, source.shard_bytes, advance)
            rejected.writelines(part['rejected'])
            parts.append(part)
            left -= part['defective']
            if left <= 0:  # cut short, so it is not kept for the next run
                break
            write_json(_part_file(path), part)
            done = part['last']
    return _sum(parts)


def _sum(parts: Sequence[Mapping[str, Any]]) -> Totals:
    kinds = collections.Counter()
    for part in parts:
        kinds.update(part['kinds'])
    shards = tuple(
        (part['records'], part['bytes'], part['file_bytes']) for part in parts if part['records']
    )
    defects = [defect for part in parts for defect in part['first_defects']]
    defective = sum(part['defective'] for part in parts)
    return Totals(shards, dict(sorted(kinds.items())), defective, tuple(defects[:_NAMED]))


def _part_file(path: Path) -> Path:
    """The file that says that shard data/<split>-<number> is finished."""
    return path.parent.with_name(f'{path.name}.json')


def _finished_parts(data: Path, split: str) -> list[dict[str, Any]]:
    """Returns what is said of the finished shards, up to the first that is not as it should be."""
    parts = []
    while True:
        path = data / f'{split}-{len(parts):05d}'
        part = read_json(_part_file(path))
        if part is None or not is_sound(path, part['records'], part['file_bytes']):
            return parts
        parts.append(part)


def _write_part(
    items: Iterator[Item],
    split: str,
    path: Path,
    max_defective: int,
    shard_bytes: int,
    advance: Callable[[int, int], None],
) -> dict[str, Any]:
    """Writes one shard, and returns what is to be said of it."""
    rejected, defects, kinds = [], [], collections.Counter()
    records = written = size = 0
    cursor, last = None, True
    shard = ShardWriter(path)
    for item in items:
        cursor, size = item.cursor, size + item.size
        if item.record is not None:
            shard.write(item.record)
            records, written = records + 1, written + len(item.record)
            kinds.update(item.kinds)
        if item.fault:
            entry = {'file': item.file, 'split': split, 'reason': item.fault}
            rejected.append(json.dumps({**entry, 'defective': item.defective}) + '\n')
            if item.defective:
                defects.append(f'{item.file} ({item.fault})')
        advance(item.record is not None, item.size)
        if written >= shard_bytes or item.ends_shard or len(defects) >= max_defective:
            last = False
            break
    shard.close()
    return {
        'records': records,
        'bytes': written,
        'file_bytes': path.stat().st_size,
        'size': size,
        'kinds': dict(kinds),
        'defective': len(defects),
        'first_defects': defects[:_NAMED],
        'rejected': rejected,
        'cursor': cursor,
        'last': last,
    }


def _check_rejected(totals: Mapping[str, Totals], unfinished: Path, max_rejected: int) -> None:
    defective = sum(total.defective for total in totals.values())
    if defective <= max_rejected:
        return
    first = [defect for total in totals.values() for defect in total.first_defects][:_NAMED]
    first += ['...'] * (defective > _NAMED)
    stopped = ' Not all files were looked at.' * (defective >= max_rejected + _STOP_AFTER)
    raise UserError(
        f'{defective} files are defective, more than --max_rejected={max_rejected}: '
        f'{"; ".join(first)}.{stopped} The list is in {unfinished / REJECTED_FILE}: run again '
        f'with --max_rejected={defective} to leave them out, or mend them, remove {unfinished} '
        'and run again.'
    )


def _finish(source: Source, data: Path, totals: Mapping[str, Totals]) -> None:
    """Gives the shards their names, and writes what belongs to them."""
    shards = {}
    for split, total in totals.items():
        if not total.records:
            raise UserError(f'The {split} split of "{source.name}" has no examples.')
        count = len(total.shards)
        for number, (records, _, size) in enumerate(total.shards):
            name = f'{source.name}-{split}.array_record-{number:05d}-of-{count:05d}'
            (data / f'{split}-{number:05d}').rename(data / name)
            shards[name] = (records, size)
    _remove_all_but(data, shards)
    rejected = data.with_name(REJECTED_FILE)
    if rejected.stat().st_size:
        rejected.rename(data / REJECTED_FILE)
    source.describe(data, totals)
    write_json(data / RECORD_FILE, {'source': source.identity(), 'shards': shards})
    check_finished(source, data)
    stored = tfds.builder_from_directory(data).info.splits
    if {split: info.num_examples for split, info in stored.items()} != {
        split: total.records for split, total in totals.items()
    }:
        raise UserError(f'{data} does not read back with the numbers of examples written.')


def _remove_all_but(data: Path, shards: Mapping[str, Any]) -> None:
    """Removes empty shards, and what a run that was killed while finishing left."""
    for path in data.iterdir():
        if path.name not in shards:
            path.unlink()
