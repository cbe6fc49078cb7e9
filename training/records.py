"""The records of a run: metrics.jsonl and TensorBoard events.

metrics.jsonl has one line per record, {"step", "wall_seconds", name: value, ...}; TensorBoard's
events repeat it. A record at step s is written after update s. A run that is resumed from the
checkpoint of step r keeps the records with step <= r and drops the rest. So the file always reads
as one run, however often that run was stopped.
"""

import collections
import contextlib
import json
import math
import numbers
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import files
from errors import UserError

METRICS_FILE = 'metrics.jsonl'
TENSORBOARD_FOLDER = 'tensorboard'
RESERVED_NAMES = ('step', 'wall_seconds')
LONGEST_LINE = 1 << 20  # bytes


class Records:
    """Writes a run's records; every line is given to the system before `write` returns.

    with Records(workdir, resume_step=None) as records:
        records.write(100, {'train/loss': 0.3, 'train/accuracy': 0.91})

    Args:
      workdir: the run's folder; it is created if it does not exist.
      resume_step: the step of the restored checkpoint. None for a run from the start, which drops
        all earlier records: without a checkpoint they are no part of this run.
      enabled: False writes nothing at all (every process but the first).
      tensorboard: False leaves out the TensorBoard events.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        resume_step: int | None = None,
        *,
        enabled: bool = True,
        tensorboard: bool = True,
    ):
        self.path = Path(workdir) / METRICS_FILE
        self._file = None
        self._events = None
        self._names_at_step = collections.defaultdict(set)
        self._earlier_seconds = 0.0
        self._start = time.monotonic()
        if not enabled:
            return
        last_step = -1 if resume_step is None else int(resume_step)
        with files.explaining_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._keep_until(last_step)
            self._file = self.path.open('ab')
        if tensorboard:
            self._events = _Events(self.path.parent / TENSORBOARD_FOLDER, last_step + 1)

    def __enter__(self) -> 'Records':
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def wall_seconds(self) -> float:
        """Seconds spent in this run so far, including earlier parts of a resumed run."""
        return round(self._earlier_seconds + time.monotonic() - self._start, 3)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes one record without the values that were already recorded at this step.

        There are such values after a resume, when the restored step is evaluated again.
        """
        step, values = int(step), {name: _number(name, v) for name, v in values.items()}
        if self._file is None:
            return
        values = {name: v for name, v in values.items() if name not in self._names_at_step[step]}
        if not values:
            return
        if not files.is_open_at(self._file, self.path):
            raise UserError(
                f'{self.path} was removed, moved or replaced while the run was writing it, so the '
                'run has stopped. Put it back: the same command resumes from the last checkpoint.'
            )
        record = {'step': step, 'wall_seconds': self.wall_seconds, **values}
        with files.explaining_errors(self.path):
            self._file.write(
                json.dumps(files.nan_to_null(record), allow_nan=False).encode() + b'\n'
            )
            self._file.flush()
        self._names_at_step[step].update(values)
        if self._events is not None:
            self._events.write(step, values)

    def close(self) -> None:
        """Closes the files; may be called twice."""
        # After a failed write (disk full) the buffers still hold data, and closing fails as well.
        # The first failure has been reported, and the second would only hide it.
        for stream in (self._file, self._events):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._file = self._events = None

    def _keep_until(self, last_step: int) -> None:
        """Drops an incomplete last line and the records after `last_step`."""
        if not self.path.exists():
            return
        kept = [(line, r) for line, r in _parse(self.path) if r['step'] <= last_step]
        for _, record in kept:
            self._names_at_step[record['step']].update(set(record) - set(RESERVED_NAMES))
            self._earlier_seconds = max(self._earlier_seconds, record.get('wall_seconds') or 0.0)
        content = b''.join(line + b'\n' for line, _ in kept)
        if content != self.path.read_bytes():
            files.replace(self.path, content)


class _Events:
    """TensorBoard's event file, written together with metrics.jsonl.

    tensorboardX's SummaryWriter passes events to a thread. Events in its queue are lost on SIGKILL,
    and if the disk is full the thread dies and training waits for it forever. The EventsWriter that
    is used here writes at once and raises errors.
    """

    def __init__(self, folder: Path, purge_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event, self._summary = event_pb2, summary_pb2
        self._folder = folder
        with files.explaining_errors(folder):
            folder.mkdir(exist_ok=True)
            # The name has whole seconds only, and two starts in one second must not share a file.
            self._writer = EventsWriter(str(folder / 'events'), f'.{time.time_ns()}')
        # Tells TensorBoard to drop the events of earlier parts of the run from this step on.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(step=purge_step, session_log=start)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        value = self._summary.Summary.Value
        summary = [value(tag=name, simple_value=float(v)) for name, v in values.items()]
        self._add(step=step, summary=self._summary.Summary(value=summary))

    def close(self) -> None:
        self._writer.close()

    def _add(self, **content: Any) -> None:
        with files.explaining_errors(self._folder):
            self._writer.write_event(self._event.Event(wall_time=time.time(), **content))
            self._writer.flush()


def read_metrics(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Returns the records of a run in the order written; a value that was not finite is NaN.

    It may be called while the run is going on: an incomplete last line is left out. Without any
    records the list is empty.
    """
    path = Path(workdir) / METRICS_FILE
    if not path.exists():
        return []
    records = [record for _, record in _parse(path)]
    return [{k: math.nan if v is None else v for k, v in record.items()} for record in records]


def _parse(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yields each line of a metrics file with its record; an incomplete last line is left out."""
    with files.open_regular(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b''), start=1):
            if not line.strip():
                continue
            try:
                record = _record(line)
            except ValueError as error:
                if not line.endswith(b'\n') and len(line) < LONGEST_LINE:
                    return  # the process was killed while writing it
                raise UserError(
                    f'{path}, line {number} is not a record ({line[:40]!r}). Remove that line, '
                    'or move the file away to resume without the earlier records.'
                ) from error
            yield line.removesuffix(b'\n'), record


def _record(line: bytes) -> dict[str, Any]:
    """Returns the record of a line; raises a ValueError if it is none."""
    record = files.parse_json(line, {'step': int})
    for name, value in record.items():
        if value is not None and (
            files.mismatch(value, float) or not abs(value) <= sys.float_info.max
        ):
            raise ValueError(f'"{name}" is not a finite number')
    return record


def _number(name: str, value: Any) -> float | int:
    """Returns a plain Python number for a number, a NumPy scalar or an array of one element."""
    if name in RESERVED_NAMES:
        raise ValueError(f'"{name}" is set by Records itself')
    if hasattr(value, 'item'):
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise TypeError(f'{name} must be a number, not {value!r}')
    return int(value) if isinstance(value, numbers.Integral) else float(value)
