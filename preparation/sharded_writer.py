"""Writes large data sets as tfds ArrayRecord shards, in bounded memory, and resumes after a kill.

While a set is being written, there is only the folder <name>/<version>.incomplete/:

    plan.json           the source and the options; a run with others refuses to resume
    train-00012.json    written when shard 12 of train is on disk: where the next shard starts
    data/train-00012    the records of that shard

The process may be killed at any moment, because a later file vouches for an earlier one:

 1. A shard is flushed to disk before its JSON file is written, in one atomic step. A shard without
    a JSON file is incomplete and is written again.
 2. Where a shard ends depends on the records alone, so the bytes are the same whether or not the
    run was interrupted.
 3. At the end, data/ is flushed to disk and becomes <name>/<version>/ by one rename. A set under
    its final name is complete.
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

import files
from errors import UserError
from preparation.shards import ShardWriter, is_sound, locked

SHARD_BYTES = 256 << 20
RECORD_FILE = 'prepared.json'  # in a finished set: its source and its shards
REJECTED_FILE = 'rejected.jsonl'
_LISTED = 3  # defects listed in an error message
_STOP_AFTER = 1000  # defects beyond those allowed; with so many, the source is probably a wrong one


@dataclasses.dataclass(frozen=True)
class Item:
    """One step through a source: a record, or a file that is left out.

    Attributes:
      cursor: any JSON value; `Source.items(split, cursor)` continues after this item.
      size: the bytes of the source that the item took up, for the progress bar.
      record: the serialised example, or None.
      kinds: the words under which the record is counted, such as 'resized'.
      file: the name of the file, if there is a fault.
      fault: why the file has no record, or ''. With a record: what the user should know of it; it
        is listed with what is left out, as kept.
      defective: whether the fault counts as a defect; False for a file that is no example.
      ends_shard: whether the shard is closed after this item, whatever its size.
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
    """A data set to be written: named splits of items in a fixed order.

    Attributes:
      name: the tfds name of the data set.
      version: 'major.minor.patch'.
      splits: split -> approximate bytes of the source.
      shard_bytes: a shard is closed once its records have at least this many bytes.
    """

    name: str
    version: str
    splits: Mapping[str, int]
    shard_bytes: int

    def identity(self) -> dict[str, Any]:
        """Returns as JSON what defines the examples; sets of different identity differ."""

    def stamp(self) -> Any:
        """Returns JSON that changes when the source changes between two runs, e.g. file times."""

    def items(self, split: str, cursor: Any) -> Iterator[Item]:
        """Yields the items of a split after `cursor`, or all of them for None; a generator."""

    def describe(self, folder: Path, splits: Mapping[str, 'Totals']) -> None:
        """Writes dataset_info.json, features.json and related files beside the shards."""


@dataclasses.dataclass(frozen=True)
class Totals:
    """The contents of a written split.

    Attributes:
      shards: (records, bytes of records, bytes of the file) of each shard.
      kinds: word -> number of records counted under it.
      defective: the number of defective files.
      first_defects: the first few of these files, each with its fault.
    """

    shards: tuple[tuple[int, int, int], ...]
    kinds: Mapping[str, int]
    defective: int
    first_defects: tuple[str, ...]

    @property
    def records(self) -> int:
        """The number of examples."""
        return sum(shard[0] for shard in self.shards)


def prepare(
    source: Source,
    data_dir: Path,
    max_rejected: int = 0,
    advance: Callable[[int, int], None] = lambda records, size: None,
) -> bool:
    """Writes `source` to <data_dir>/<name>/<version>/, or resumes an interrupted run.

    Args:
      source: the data set to write.
      data_dir: the folder of prepared data sets.
      max_rejected: the number of defective files that may be left out.
      advance: called with (records, bytes of the source), also for what an earlier run wrote.

    Returns:
      True if the set was written, False if it was there already (counts and sizes are checked).

    Raises:
      UserError: the folder holds another set (which is left unchanged) or is damaged; more files
        are defective than allowed; the source has changed since the interrupted run; another
        process is preparing the set; the disk is full or not writable. What was written is kept for
        the next run.
    """
    folder = data_dir / source.name / source.version
    unfinished = folder.with_name(f'{folder.name}.incomplete')
    try:
        with locked(folder.parent):
            if folder.exists():
                check_finished(source, folder)
                if not (unfinished / 'data').exists():  # killed between the rename and the rmtree
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
            # The order is that of the module's docstring: the contents before the rename, the
            # rename before the notes that resume a run are removed.
            files.flush_folder(data)
            os.rename(data, folder)
            files.flush_folder(folder.parent)
            shutil.rmtree(unfinished)
    except OSError as error:
        kept = ' The finished shards are kept: run the same command again to resume.'
        raise UserError(
            f'Cannot write {folder}: {error.strerror or error}.' + kept * os.path.exists(unfinished)
        ) from error
    return True


def check_finished(source: Source, folder: Path) -> None:
    """Checks that `folder` was made from `source` and that all its shards are complete.

    Raises:
      UserError: it holds another set, or a shard is missing or damaged.
    """
    record = files.usable_json(folder / RECORD_FILE, {'source': dict, 'shards': dict})
    if record is None:
        raise UserError(
            f'{folder} holds a data set that this command did not write, which is left unchanged. '
            'Choose another --data_dir, or another --name if the command has that option.'
        )
    if record['source'] != _as_json(source.identity()):
        raise UserError(
            f'{folder} was prepared from other examples or with other options. Remove that folder '
            'to prepare it again, or choose another --name or --data_dir.'
        )
    for name, (records, size) in record['shards'].items():
        if not is_sound(folder / name, records, size):
            raise UserError(
                f'{folder / name} is missing or damaged ({records} records in {size} bytes are '
                f'expected): remove {folder} and prepare it again.'
            )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically, with its keys in this order; raises OSError."""
    files.replace(path, json.dumps(value, indent=1).encode())


def _begin(source: Source, unfinished: Path) -> None:
    """Creates the folder of an unfinished set, or checks that the one there can be resumed."""
    plan = {
        'source': source.identity(),
        'stamp': source.stamp(),
        'shard_bytes': source.shard_bytes,
    }
    (unfinished / 'data').mkdir(parents=True, exist_ok=True)
    path = unfinished / 'plan.json'
    if not path.exists():
        _write_json(path, plan)
    elif files.usable_json(path) != _as_json(plan):
        raise UserError(
            f'{unfinished} was started with other options, or the source has changed since. Remove '
            'that folder to start again.'
        )
    # A run may have been killed while the shards were given their final names: undo that.
    for shard in (unfinished / 'data').iterdir():
        if match := re.fullmatch(r'[^.]*-(\w+)\.array_record-(\d+)-of-\d+', shard.name):
            shard.rename(shard.with_name(f'{match[1]}-{match[2]}'))


def _write_split(
    source: Source,
    split: str,
    data: Path,
    rejected: TextIO,
    max_rejected: int,
    advance: Callable[[int, int], None],
) -> Totals:
    """Writes the shards of a split that are missing; lists the rejected files of all its shards."""
    notes = read_notes(data, split)
    for note in notes:
        advance(note['records'], note['size'])
        rejected.writelines(note['rejected'])
    cursor = notes[-1]['cursor'] if notes else None
    done = bool(notes) and notes[-1]['last']
    left = max_rejected + _STOP_AFTER - sum(note['defective'] for note in notes)
    with contextlib.closing(source.items(split, cursor)) as items:
        while not done:
            path = data / f'{split}-{len(notes):05d}'
            # The note is written last: it tells the next run that the shard is on disk.
            note = _write_shard(items, split, path, left, source.shard_bytes, advance)
            rejected.writelines(note['rejected'])
            notes.append(note)
            left -= note['defective']
            if left <= 0:  # the shard was cut short, so the next run must write it again
                break
            _write_json(_note_path(path), note)
            done = note['last']
    return _sum(notes)


def _sum(notes: Sequence[Mapping[str, Any]]) -> Totals:
    kinds = collections.Counter()
    for note in notes:
        kinds.update(note['kinds'])
    shards = tuple(
        (note['records'], note['bytes'], note['file_bytes']) for note in notes if note['records']
    )
    defects = [defect for note in notes for defect in note['first_defects']]
    defective = sum(note['defective'] for note in notes)
    return Totals(shards, dict(sorted(kinds.items())), defective, tuple(defects[:_LISTED]))


def _note_path(shard: Path) -> Path:
    """Returns the path of the note that marks shard data/<split>-<number> as finished."""
    return shard.parent.with_name(f'{shard.name}.json')


def read_notes(data: Path, split: str) -> list[dict[str, Any]]:
    """Returns the notes of the finished shards, up to the first missing or damaged shard."""
    notes = []
    while True:
        path = data / f'{split}-{len(notes):05d}'
        note = files.usable_json(_note_path(path), {'records': int, 'file_bytes': int})
        if note is None or not is_sound(path, note['records'], note['file_bytes']):
            return notes
        notes.append(note)


def _write_shard(
    items: Iterator[Item],
    split: str,
    path: Path,
    max_defective: int,
    shard_bytes: int,
    advance: Callable[[int, int], None],
) -> dict[str, Any]:
    """Writes one shard and waits until it is on disk; returns its note."""
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
            entry |= {'kept': True} if item.record is not None else {}
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
        'first_defects': defects[:_LISTED],
        'rejected': rejected,
        'cursor': cursor,
        'last': last,
    }


def _check_rejected(totals: Mapping[str, Totals], unfinished: Path, max_rejected: int) -> None:
    defective = sum(total.defective for total in totals.values())
    if defective <= max_rejected:
        return
    first = [defect for total in totals.values() for defect in total.first_defects][:_LISTED]
    first += ['...'] * (defective > _LISTED)
    stopped = ' Not all files were checked.' * (defective >= max_rejected + _STOP_AFTER)
    raise UserError(
        f'{defective} files are defective, more than --max_rejected={max_rejected}: '
        f'{"; ".join(first)}.{stopped} The list is in {unfinished / REJECTED_FILE}. Run again '
        f'with --max_rejected={defective} to leave them out, or repair them, remove {unfinished} '
        'and run again.'
    )


def _finish(source: Source, data: Path, totals: Mapping[str, Totals]) -> None:
    """Gives the shards their final names, and writes the files that describe them."""
    shards = {}
    for split, total in totals.items():
        if not total.records:
            raise UserError(
                f'The {split} split of "{source.name}" has no examples: add some to the source, or '
                'remove that split from it.'
            )
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
    _write_json(data / RECORD_FILE, {'source': source.identity(), 'shards': shards})
    check_finished(source, data)
    stored = tfds.builder_from_directory(data).info.splits
    if {split: info.num_examples for split, info in stored.items()} != {
        split: total.records for split, total in totals.items()
    }:
        raise UserError(
            f'{data} does not read back with the number of examples that were written: check the '
            'disk, remove that folder and run again.'
        )


def _remove_all_but(data: Path, shards: Mapping[str, Any]) -> None:
    """Removes empty shards and the files of a run that was killed inside `_finish`."""
    for path in data.iterdir():
        if path.name not in shards:
            path.unlink()
