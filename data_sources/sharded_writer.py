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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from data_sources.tfds_writer import ARRAY_RECORD_OPTIONS, alone, flush_to_disk
from errors import UserError

SHARD_BYTES = 256 << 20
RECORD_FILE = 'prepared.json'  # in a finished set: what it was made of, and its shards
REJECTED_FILE = 'rejected.jsonl'
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
    """

    name: str
    version: str
    splits: Mapping[str, int]

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
      rejected: {'file', 'split', 'reason', 'defective'} of each file that gave no record.
    """

    shards: tuple[tuple[int, int, int], ...]
    kinds: Mapping[str, int]
    rejected: tuple[Mapping[str, Any], ...]

    @property
    def records(self) -> int:
        """How many examples there are."""
        return sum(shard[0] for shard in self.shards)

    @property
    def defective(self) -> tuple[Mapping[str, Any], ...]:
        """Those of the rejected that --max_rejected is about."""
        return tuple(entry for entry in self.rejected if entry['defective'])


def prepare(
    source: Source,
    data_dir: Path,
    max_rejected: int = 0,
    shard_bytes: int = SHARD_BYTES,
    advance: Callable[[int, int], None] = lambda records, size: None,
) -> bool:
    """Writes `source` to <data_dir>/<name>/<version>/, or goes on where an earlier run stopped.

    Args:
      source: what to write.
      data_dir: the folder of prepared data sets.
      max_rejected: how many files may be left out as defective.
      shard_bytes: a shard is closed when its records have this many bytes.
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
                return False
            _begin(source, unfinished, shard_bytes)
            data = unfinished / 'data'
            totals = {}
            for split in source.splits:
                totals[split] = _write_split(
                    source, split, data, max_rejected, shard_bytes, advance
                )
            _check_rejected(totals, unfinished, max_rejected)
            _finish(source, data, totals)
            flush_to_disk(data)
            os.rename(data, folder)
            flush_to_disk(folder.parent)
            shutil.rmtree(unfinished)
    except OSError as error:
        kept = ' What is finished is kept: run the same command again to go on.'
        raise UserError(
            f'Cannot write {folder}: {error.strerror or error}.' + kept * unfinished.exists()
        ) from error
    return True


def check_finished(source: Source, folder: Path) -> None:
    """Refuses `folder` unless it was made of `source` and has all its shards at their sizes."""
    try:
        made = json.loads((folder / RECORD_FILE).read_text())
    except (OSError, ValueError):
        made = {}
    if not isinstance(made, dict) or 'shards' not in made:
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
        if not _sound(folder / name, records, size):
            raise UserError(
                f'{folder / name} is missing or damaged ({records} records in {size} bytes are '
                f'expected): remove {folder} and prepare it again.'
            )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _sound(path: Path, records: int, size: int) -> bool:
    """Whether a shard has its size and can be opened; its footer tells the number of records."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    try:
        reader = array_record_module.ArrayRecordReader(str(path))
        found = reader.num_records()
        reader.close()
    except (RuntimeError, ValueError, IndexError):
        return False
    return found == records


def _begin(source: Source, unfinished: Path, shard_bytes: int) -> None:
    """Makes the folder of an unfinished set, or looks whether the one there may be gone on with."""
    plan = {'source': source.identity(), 'stamp': source.stamp(), 'shard_bytes': shard_bytes}
    (unfinished / 'data').mkdir(parents=True, exist_ok=True)
    path = unfinished / 'plan.json'
    if not path.exists():
        _write_json(path, plan)
    elif json.loads(path.read_text()) != _as_json(plan):
        raise UserError(
            f'{unfinished} was begun from other files or with other options (the source has '
            'changed since): remove that folder to begin anew.'
        )
    # A run may have been killed while the shards got their final names: take them back.
    for shard in (unfinished / 'data').iterdir():
        if found := re.fullmatch(r'[^.]*-(\w+)\.array_record-(\d+)-of-\d+', shard.name):
            shard.rename(shard.with_name(f'{found[1]}-{found[2]}'))


def _write_json(path: Path, value: Any) -> None:
    """Writes a file that is whole or not there, also after a power cut."""
    part = path.with_name(f'{path.name}.part')
    with part.open('w') as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _write_split(
    source: Source,
    split: str,
    data: Path,
    max_rejected: int,
    shard_bytes: int,
    advance: Callable[[int, int], None],
) -> Totals:
    """Writes the shards of a split that are not there yet."""
    parts = _finished_parts(data, split)
    for part in parts:
        advance(part['records'], part['size'])
    cursor = parts[-1]['cursor'] if parts else None
    done = bool(parts) and parts[-1]['last']
    left = max_rejected + _STOP_AFTER - sum(part['defective'] for part in parts)
    with contextlib.closing(source.items(split, cursor)) as items:
        while not done:
            path = data / f'{split}-{len(parts):05d}'
            part = _write_part(items, split, path, left, shard_bytes, advance)
            parts.append(part)
            left -= part['defective']
            if left <= 0:  # cut short, so it is not kept for the next run
                break
            _write_json(_part_file(path), part)
            done = part['last']
    kinds = collections.Counter()
    for part in parts:
        kinds.update(part['kinds'])
    shards = tuple(
        (part['records'], part['bytes'], part['file_bytes']) for part in parts if part['records']
    )
    rejected = tuple(entry for part in parts for entry in part['rejected'])
    return Totals(shards, dict(sorted(kinds.items())), rejected)


def _part_file(path: Path) -> Path:
    """The file that says that shard data/<split>-<number> is finished."""
    return path.parent.with_name(f'{path.name}.json')


def _finished_parts(data: Path, split: str) -> list[dict[str, Any]]:
    """Returns what is said of the finished shards, up to the first that is not as it should be."""
    parts = []
    while (note := _part_file(path := data / f'{split}-{len(parts):05d}')).exists():
        part = json.loads(note.read_text())
        if part['records'] and not _sound(path, part['records'], part['file_bytes']):
            break
        parts.append(part)
    return parts


def _write_part(
    items: Iterator[Item],
    split: str,
    path: Path,
    max_defective: int,
    shard_bytes: int,
    advance: Callable[[int, int], None],
) -> dict[str, Any]:
    """Writes one shard, and returns what is to be said of it."""
    rejected, kinds = [], collections.Counter()
    records = written = size = defective = 0
    cursor, last = None, True
    shard = _Shard(path)
    for item in items:
        cursor, size = item.cursor, size + item.size
        if item.record is not None:
            shard.write(item.record)
            records, written = records + 1, written + len(item.record)
            kinds.update(item.kinds)
        if item.fault:
            defective += item.defective
            entry = {'file': item.file, 'split': split, 'reason': item.fault}
            rejected.append({**entry, 'defective': item.defective})
        advance(item.record is not None, item.size)
        if written >= shard_bytes or item.ends_shard or defective >= max_defective:
            last = False
            break
    shard.close()
    return {
        'records': records,
        'bytes': written,
        'file_bytes': path.stat().st_size,
        'size': size,
        'kinds': dict(kinds),
        'defective': defective,
        'rejected': rejected,
        'cursor': cursor,
        'last': last,
    }


class _Shard:
    """An ArrayRecord file that is on the disk once it is closed."""

    def __init__(self, path: Path):
        self._path = path
        with self._disk_errors():
            self._writer = array_record_module.ArrayRecordWriter(str(path), ARRAY_RECORD_OPTIONS)

    def write(self, record: bytes) -> None:
        with self._disk_errors():
            self._writer.write(record)

    def close(self) -> None:
        with self._disk_errors():
            self._writer.close()
        with self._path.open('rb') as file:
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # what array_record makes of a full disk
            raise OSError(str(error).partition(';')[0]) from error


def _check_rejected(totals: Mapping[str, Totals], unfinished: Path, max_rejected: int) -> None:
    defective = [entry for split in totals.values() for entry in split.defective]
    if len(defective) <= max_rejected:
        return
    path = unfinished / REJECTED_FILE
    _write_rejected(path, totals)
    first = '; '.join(f'{entry["file"]} ({entry["reason"]})' for entry in defective[:3])
    raise UserError(
        f'{len(defective)} files are defective, more than --max_rejected={max_rejected}: {first}'
        f'{"; ..." if len(defective) > 3 else ""}. The list is in {path}: run again with '
        f'--max_rejected={len(defective)} to leave them out, or mend them, remove '
        f'{unfinished} and run again.'
    )


def _write_rejected(path: Path, totals: Mapping[str, Totals]) -> None:
    entries = [entry for split in totals.values() for entry in split.rejected]
    if entries:
        path.write_text(''.join(json.dumps(entry) + '\n' for entry in entries))


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
    _write_rejected(data / REJECTED_FILE, totals)
    source.describe(data, totals)
    _write_json(data / RECORD_FILE, {'source': source.identity(), 'shards': shards})
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
