"""Ends a run of several processes when one of them hangs or is gone, and names that one.

A collective waits forever where a process hangs or is gone: XLA has no time limit for it, and JAX's
own heartbeat notices only dead processes. Here each process publishes a heartbeat every second in
the key-value store of JAX's distributed client. It holds the number of common points (steps,
gathers, ...) that the main thread has reached, and the name of the last one. A process that has
waited for long compares the heartbeats: a process that is behind hangs, and one whose heartbeat no
longer changes is gone.
"""

import atexit
import dataclasses
import faulthandler
import json
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from errors import PeerError, UserError

EXIT_CODE = PeerError.exit_code
INTERVAL = 1.0  # seconds between two heartbeats
# Seconds of waiting after which a process reads the others' heartbeats, and seconds without a new
# heartbeat after which a process counts as gone; shorter where config.distributed_timeout is short.
READ_AFTER, SILENCE_LIMIT = 3.0, 30.0
BROKEN_SILENCE_LIMIT = 4.0  # seconds that replace SILENCE_LIMIT once a connection has broken
MAX_POINTS = 100  # common points whose names a process remembers
SUSPENDED_AFTER = 5.0  # a one-second sleep that takes so many seconds means a suspended process
STORE_TIMEOUT = 2.0  # seconds for the store to accept the reason why the run ends
FINISH_TIMEOUT = 60.0  # seconds for a checkpoint that is being written when the process has to end
# What Gloo, NCCL and gRPC write when the other end of a connection is gone,
CONNECTION = re.compile(
    'gloo|nccl|connection|socket|broken pipe|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED',
    re.IGNORECASE,
)
# and what they and the devices write when the fault is on this side.
OWN_FAULT = re.compile(
    'RESOURCE_EXHAUSTED|out of memory|no space left|unhandled cuda error|'
    'unable to initialize backend(?!.*DEADLINE_EXCEEDED)',
    re.IGNORECASE | re.DOTALL,
)
FOLDER = 'functional-cnn/watchdog'  # of the keys in the store


@dataclasses.dataclass(frozen=True)
class Heartbeat:
    """The state that a process publishes about itself.

    Attributes:
      count: the number of this heartbeat; it changes even while the process waits.
      reached: the number of common points that the main thread has reached.
      point: the name of the last one, such as 'step 12'.
      host: the name of the machine.
    """

    count: int
    reached: int
    point: str
    host: str


def verdict(
    heartbeats: dict[int, Heartbeat],
    silent: dict[int, float],
    points: dict[int, str],
    waited: float,
    limits: tuple[float, float],
) -> str | None:
    """Returns why a waiting process should give up, or None while it should keep waiting.

    Args:
      heartbeats: the last heartbeat of each process, by its number.
      silent: for each other process, the seconds since its heartbeat last changed.
      points: the names of the last common points that this process reached, by their numbers.
      waited: seconds for which this process has waited at the last of them.
      limits: (seconds that another process may be silent, seconds that this one may wait).
    """
    silence_limit, timeout = limits
    gone = [rank for rank, seconds in silent.items() if seconds >= silence_limit]
    if gone:
        return (
            f'{_names(gone, heartbeats)} no longer answer{"s" if len(gone) == 1 else ""} (killed, '
            f'stopped, or its machine or network is gone); last seen {_seen(gone, heartbeats)}.'
        )
    if waited < timeout:
        return None
    here = max(points)
    behind = [rank for rank, heartbeat in heartbeats.items() if heartbeat.reached < here]
    limit = f'within {timeout:g} s (config.distributed_timeout)'
    if behind:
        missed = min(heartbeats[rank].reached for rank in behind) + 1
        return (
            f'{_names(behind, heartbeats)} did not arrive at {points.get(missed, points[here])} '
            f'{limit}; last seen {_seen(behind, heartbeats)}.'
        )
    return (
        f'All processes arrived at {points[here]}, but it did not end {limit}: a device or the '
        'network hangs.'
    )


def _names(ranks: list[int], heartbeats: dict[int, Heartbeat]) -> str:
    """Returns text such as 'Processes 1 (node1), 3 (node3)'."""
    names = [f'{r} ({heartbeats[r].host})' if r in heartbeats else str(r) for r in sorted(ranks)]
    return f'Process{"" if len(ranks) == 1 else "es"} {", ".join(names)}'


def _seen(ranks: list[int], heartbeats: dict[int, Heartbeat]) -> str:
    """Returns text such as 'at step 12', or 'never'."""
    points = {heartbeats[rank].point for rank in ranks if rank in heartbeats}
    return 'at ' + ', '.join(sorted(points)) if points else 'never'


class Watchdog:
    """The watchdog of one process: two threads beside the main thread.

    One thread exchanges heartbeats through the store, the other decides when to give up. They are
    separate because a call to the store may never return, which must not stop the decision.

    Args:
      client: JAX's distributed client.
      rank: the number of this process.
      count: the number of processes.
      timeout: seconds for which the main thread may wait at a common point.
    """

    def __init__(self, client: Any, rank: int, count: int, timeout: float):
        self._client, self.rank, self._timeout = client, rank, timeout
        self._read_after = min(READ_AFTER, timeout / 4)
        self._silence_limit = min(SILENCE_LIMIT, max(timeout / 2, 3 * INTERVAL))
        self._host = socket.gethostname()
        self._reached, self._step, self._since = 0, 'the start', None
        self._points = {0: self._step}
        self._suspended = 0.0  # seconds for which this process stood still; _now leaves them out
        self._answered = now = self._now()
        self._heartbeats: dict[int, Heartbeat] = {}
        # When each process's heartbeat last changed, and when the heartbeats were last read.
        self._changed, self._last_read = dict.fromkeys(range(count), now), now
        self._broken: tuple[str, float] | None = None  # (message, time) of a broken connection
        self._aborting, self._ended = threading.Lock(), threading.Event()
        # The first heartbeat is sent before the threads start, so that a process which dies within
        # its first second is known by the name of its machine.
        with suppress(Exception):
            self._publish(0)
        for loop in (self._exchange, self._judge):
            threading.Thread(target=loop, name=f'watchdog {loop.__name__}', daemon=True).start()
        atexit.register(self._ended.set)

    @contextmanager
    def waiting(self, point: str | None) -> Iterator[None]:
        """A context for what all processes do together, equally often and in the same order."""
        self._step = point or self._step
        # The name is stored before the counter is raised: the other thread looks it up by the
        # counter at any moment.
        self._points[self._reached + 1] = point or f'an exchange after {self._step}'
        self._points.pop(self._reached + 1 - MAX_POINTS, None)
        self._reached += 1
        self._since = self._now()
        try:
            yield
        except Exception as error:
            if not is_of_connection(error):
                raise
            # Probably another process has died. The threads find out which one and end this
            # process; only if they do not is the error of the connection raised.
            self._broken = ' '.join(str(error).split())[:200], self._now()
            self._ended.wait(10 * BROKEN_SILENCE_LIMIT)
            raise
        finally:
            self._since = None

    def abort(self, message: str, code: int) -> None:
        """Ends this process after publishing the reason for the others, which then end as well."""
        with self._aborting:  # never released: the process ends inside
            try:
                # The order matters: the store first, so that the others learn the first reason;
                # then the message here; a checkpoint may take longest and comes last.
                message, code = self._agree(message, code)
                # Printing may block or fail: nobody may read the pipe, or the disk may be full.
                _run_within(STORE_TIMEOUT, lambda: self._print(message, code))
                if self.rank == 0:  # it holds the store, from which the others read the reason
                    time.sleep(3 * INTERVAL)
                for function in tuple(_unfinished):
                    _run_within(FINISH_TIMEOUT, function)
            finally:
                os._exit(code)

    def _print(self, message: str, code: int) -> None:
        print(f'error: {message}', file=sys.stderr, flush=True)
        if self._since is None and code == EXIT_CODE:
            print('This process was not waiting; its threads are at:', file=sys.stderr, flush=True)
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
        sys.stdout.flush()  # comes last because it may block

    def _agree(self, message: str, code: int) -> tuple[str, int]:
        """Returns the reason that was published first; later ones are consequences of it."""

        def publish() -> tuple[str, int]:
            try:
                self._client.key_value_set(f'{FOLDER}/verdict/0', json.dumps([message, code]))
            except Exception:  # another process has published its reason already
                return self._published_verdict() or (message, code)
            return message, code

        # The store itself may be gone.
        return _run_within(STORE_TIMEOUT, publish) or (message, code)

    def _published_verdict(self) -> tuple[str, int] | None:
        entries = self._client.key_value_dir_get(f'{FOLDER}/verdict/')
        return tuple(json.loads(entries[0][1])) if entries else None

    def _exchange(self) -> None:
        """Publishes heartbeats, and reads those of the others while the main thread waits."""
        count = 0
        while not self._ended.wait(INTERVAL):
            count += 1
            try:
                self._publish(count)
                published = self._published_verdict()
                if published:
                    self.abort(*published)
                waits = self._waited() > self._read_after
                if waits or self._broken or 0 not in self._heartbeats:
                    self._read()
                self._answered = self._now()
            except Exception:
                continue  # _judge notices that the store does not answer

    def _publish(self, count: int) -> None:
        reached = self._reached
        heartbeat = Heartbeat(count, reached, self._points[reached], self._host)
        text = json.dumps(dataclasses.astuple(heartbeat))
        self._client.key_value_set(f'{FOLDER}/heartbeat/{self.rank}', text, allow_overwrite=True)

    def _read(self) -> None:
        now = self._now()
        # Heartbeats are not read while the main thread does not wait. After such a gap nothing is
        # known about when they changed, so all processes count as alive now.
        after_gap = now - self._last_read > 5 * INTERVAL
        changed = dict.fromkeys(self._changed, now) if after_gap else dict(self._changed)
        heartbeats = dict(self._heartbeats)
        for key, text in self._client.key_value_dir_get(f'{FOLDER}/heartbeat/'):
            rank, heartbeat = int(key.rpartition('/')[2]), Heartbeat(*json.loads(text))
            if heartbeat != heartbeats.get(rank):
                heartbeats[rank], changed[rank] = heartbeat, now
        self._heartbeats, self._changed, self._last_read = heartbeats, changed, now

    def _judge(self) -> None:
        """Ends the process when it has waited too long, even if the store does not answer."""
        last = time.monotonic()
        while not self._ended.wait(INTERVAL):
            gap, last = time.monotonic() - last, time.monotonic()
            if gap > SUSPENDED_AFTER:
                # This process or its machine was suspended, perhaps together with the others. Their
                # heartbeats since then have not been read yet, so nothing is judged now.
                self._suspended += gap
                continue
            broken, now = self._broken, self._now()
            if self._waited() > self._read_after or broken:
                silence_limit = BROKEN_SILENCE_LIMIT if broken else self._silence_limit
                # The store is asked about first: if it is gone, the heartbeats are out of date.
                message = self._find_store_gone(silence_limit, now) or self._find_late(
                    silence_limit, broken, now
                )
                if message:
                    self.abort(message, EXIT_CODE)

    def _find_store_gone(self, silence_limit: float, now: float) -> str | None:
        """Returns why to give up if the store, which is in process 0, does not answer."""
        if now - self._answered <= silence_limit:
            return None
        name = _names([0], self._heartbeats)
        return f'{name}, through which the others are connected, no longer answers.'

    def _find_late(
        self, silence_limit: float, broken: tuple[str, float] | None, now: float
    ) -> str | None:
        """Returns why to give up according to the heartbeats of the others."""
        changed, last_read = self._changed, self._last_read
        if not (self._since or 0.0) <= last_read <= now:
            return None  # no heartbeats were read since this process began to wait or was resumed
        silent = {rank: last_read - since for rank, since in changed.items() if rank != self.rank}
        limits = silence_limit, self._timeout
        message = verdict(self._heartbeats, silent, self._points.copy(), self._waited(), limits)
        if not message and broken and now - broken[1] > 2 * BROKEN_SILENCE_LIMIT:
            point = self._points[self._reached]
            message = f'The connection to another process broke at {point}: {broken[0]}'
        return message

    def _waited(self) -> float:
        """Returns the seconds for which the main thread has been waiting, 0 if it is not."""
        since = self._since
        return 0.0 if since is None else self._now() - since

    def _now(self) -> float:
        return time.monotonic() - self._suspended


def is_of_connection(error: Exception) -> bool:
    """Whether another process may have caused an error; False for this process's own faults."""
    text = str(error)
    own = isinstance(error, UserError) or OWN_FAULT.search(text)
    return not own and bool(CONNECTION.search(text))


def _run_within(seconds: float, function: Callable[[], Any]) -> Any:
    """Returns the function's result, or None if it fails or takes longer."""
    results = []

    def call():
        with suppress(Exception):
            results.append(function())

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else None


_watchdog: Watchdog | None = None
_unfinished: list[Callable[[], Any]] = []


def start(timeout: float) -> None:
    """Starts this process's watchdog unless it runs; needs an initialised jax.distributed."""
    global _watchdog
    from jax._src import distributed  # JAX has no public name for its key-value store

    state = distributed.global_state
    if _watchdog is None:
        _watchdog = Watchdog(state.client, state.process_id, state.num_processes, timeout)


@contextmanager
def finishing(function: Callable[[], Any]) -> Iterator[None]:
    """A context in which `abort` calls `function` before the process ends.

    Args:
      function: waits for work under way, such as a checkpoint; it is called in another thread and
        given FINISH_TIMEOUT seconds.
    """
    _unfinished.append(function)
    try:
        yield
    finally:
        _unfinished.remove(function)


@contextmanager
def waiting(point: str | None = None) -> Iterator[None]:
    """A context around a collective, in which a process that does not arrive is named.

    All processes must enter it equally often and in the same order.

    Args:
      point: names the point in the run for the user, such as 'step 12'; None: an exchange after the
        last named point.
    """
    if _watchdog is None:
        yield
        return
    with _watchdog.waiting(point):
        yield


def abort(message: str, code: int) -> None:
    """Ends this process and the others, if there are others; otherwise returns."""
    if _watchdog is not None:
        _watchdog.abort(message, code)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """A context around a run: an error other than a UserError ends the other processes at once.

    They print it. A UserError does not need this: `hosts.on_each` raises it on every process.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _watchdog is not None:
            text = traceback.format_exc()
            _run_within(STORE_TIMEOUT, lambda: sys.stderr.write(text))
            abort(f'Process {_watchdog.rank} has failed: {type(error).__name__}: {error}', 1)
        raise
