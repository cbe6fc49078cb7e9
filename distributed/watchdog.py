"""Ends a run of several processes that waits for one that does not come, and names that one.

A collective waits for ever where a process hangs or is gone: XLA has no time limit of its own for
it, and JAX's heartbeat notices a dead process only. So each process says every second, in the store
that JAX's distributed client has, how many common points its main thread has reached, and where it
is. One whose main thread waits for long compares: who is behind does not arrive, who says nothing
any more is gone.
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
BEAT = 1.0  # seconds between two signs of life
# Seconds of waiting after which a process looks at the others, and seconds without a sign of life
# after which one counts as gone; less where config.distributed_timeout is short.
LOOK, SILENCE = 3.0, 30.0
BROKEN = 4.0  # seconds in place of SILENCE once a connection has broken
POINTS = 100  # common points that a process remembers
PAUSED = 5.0  # seconds after which a thread that wakes each second has been stopped meanwhile
ANSWER = 2.0  # seconds in which the store has to take the reason of an end
FINISH = 60.0  # seconds for a checkpoint under way when the process has to end
# Words of Gloo, NCCL and gRPC when the other end of a connection is gone, and those that they and
# the devices have for what is wrong at this end.
CONNECTION = re.compile(
    'gloo|nccl|connection|socket|broken pipe|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED',
    re.IGNORECASE,
)
OWN = re.compile(
    'RESOURCE_EXHAUSTED|out of memory|no space left|unhandled cuda error|'
    'unable to initialize backend(?!.*DEADLINE_EXCEEDED)',
    re.IGNORECASE | re.DOTALL,
)
FOLDER = 'functional-cnn/watchdog'


@dataclasses.dataclass(frozen=True)
class Sign:
    """What a process says of itself.

    Attributes:
      beats: a counter of signs.
      reached: how many common points its main thread has come to.
      place: the last of them, such as 'step 12'.
      host: its machine's name.
    """

    beats: int
    reached: int
    place: str
    host: str


def verdict(
    signs: dict[int, Sign],
    silent: dict[int, float],
    points: dict[int, str],
    waited: float,
    limits: tuple[float, float],
) -> str | None:
    """Returns why a process that waits should give up; None as long as it should not.

    Args:
      signs: the last of each process.
      silent: seconds for which each of the others has said nothing.
      points: the latest common points that this process reached, by their numbers.
      waited: seconds for which it has waited at the last of them.
      limits: seconds for which another may say nothing, and for which this one may wait.
    """
    silence, timeout = limits
    gone = [rank for rank, seconds in silent.items() if seconds >= silence]
    if gone:
        return (
            f'{_named(gone, signs)} no longer answer{"s" if len(gone) == 1 else ""} (killed, '
            f'stopped, or its machine or network is gone); last seen {_where(gone, signs)}.'
        )
    if waited < timeout:
        return None
    here = max(points)
    behind = [rank for rank, sign in signs.items() if sign.reached < here]
    limit = f'within {timeout:g} s (config.distributed_timeout)'
    if behind:
        missed = min(signs[rank].reached for rank in behind) + 1
        return (
            f'{_named(behind, signs)} did not arrive at {points.get(missed, points[here])} '
            f'{limit}; last seen {_where(behind, signs)}.'
        )
    return (
        f'All processes arrived at {points[here]}, but it did not end {limit}: a device or the '
        'network hangs.'
    )


def _named(ranks: list[int], signs: dict[int, Sign]) -> str:
    listed = ', '.join(f'{r} ({signs[r].host})' if r in signs else str(r) for r in sorted(ranks))
    return f'Process{"" if len(ranks) == 1 else "es"} {listed}'


def _where(ranks: list[int], signs: dict[int, Sign]) -> str:
    places = {signs[rank].place for rank in ranks if rank in signs}
    return 'at ' + ', '.join(sorted(places)) if places else 'never'


class Watchdog:
    """One process's watchdog: two threads beside the main one.

    Args:
      client: JAX's distributed client.
      rank: this process's number.
      count: of processes.
      timeout: seconds for which the main thread may wait.
    """

    def __init__(self, client, rank: int, count: int, timeout: float):
        self._client, self.rank, self._timeout = client, rank, timeout
        self._look = min(LOOK, timeout / 4)
        self._silence = min(SILENCE, max(timeout / 2, 3 * BEAT))
        self._host = socket.gethostname()
        self._reached, self._step, self._since = 0, 'the start', None
        self._points = {0: self._step}
        self._stopped = 0.0  # seconds for which this process stood still; its clock leaves them out
        self._answered = now = self._now()
        self._signs: dict[int, Sign] = {}
        # When each process's sign was another than before, and when that was last looked at.
        self._changed, self._looked = dict.fromkeys(range(count), now), now
        self._broken: tuple[str, float] | None = None  # what, and when
        self._leaving, self._ended = threading.Lock(), threading.Event()
        with suppress(Exception):
            self._say(0)  # now: who dies within the first second is known by name
        for loop in (self._beat, self._judge):
            threading.Thread(target=loop, name=f'watchdog {loop.__name__}', daemon=True).start()
        atexit.register(self._ended.set)

    @contextmanager
    def waiting(self, step: str | None) -> Iterator[None]:
        """Around what all processes do together, the same number of times in the same order."""
        self._step = step or self._step
        self._points[self._reached + 1] = step or f'an exchange after {self._step}'
        self._points.pop(self._reached + 1 - POINTS, None)
        self._reached += 1
        self._since = self._now()
        try:
            yield
        except Exception as error:
            if not _is_of_connection(error):
                raise
            self._broken = ' '.join(str(error).split())[:200], self._now()
            self._ended.wait(10 * BROKEN)  # the threads find out who is gone, and end the process
            raise
        finally:
            self._since = None

    def leave(self, text: str, code: int) -> None:
        """Ends this process, after telling the others why."""
        with self._leaving:  # for good
            try:
                text, code = self._agree(text, code)
                # Nobody may read what is printed, or its disk may be full.
                _within(ANSWER, lambda: self._print(text, code))
                if self.rank == 0:  # the store is here: the others have to read the reason first
                    time.sleep(3 * BEAT)
                for function in tuple(_unfinished):
                    _within(FINISH, function)
            finally:
                os._exit(code)

    def _print(self, text: str, code: int) -> None:
        print(f'error: {text}', file=sys.stderr, flush=True)
        if self._since is None and code == EXIT_CODE:
            print('This process was not waiting; its threads are at:', file=sys.stderr, flush=True)
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
        sys.stdout.flush()  # last: nobody may read that

    def _agree(self, text: str, code: int) -> tuple[str, int]:
        """Returns the first reason that a process gave; later ones are of what followed from it."""

        def publish() -> tuple[str, int]:
            try:
                self._client.key_value_set(f'{FOLDER}/verdict/0', json.dumps([text, code]))
            except Exception:  # there is one
                return self._known_verdict() or (text, code)
            return text, code

        return _within(ANSWER, publish) or (text, code)  # the store may be what is gone

    def _known_verdict(self) -> tuple[str, int] | None:
        found = self._client.key_value_dir_get(f'{FOLDER}/verdict/')
        return tuple(json.loads(found[0][1])) if found else None

    def _beat(self) -> None:
        """Gives signs of life, and reads those of others while the main thread waits."""
        beats = 0
        while not self._ended.wait(BEAT):
            beats += 1
            try:
                self._say(beats)
                found = self._known_verdict()
                if found:
                    self.leave(*found)
                if self._waited() > self._look or self._broken or 0 not in self._signs:
                    self._read()
                self._answered = self._now()
            except Exception:
                continue  # _judge sees that nothing is answered

    def _say(self, beats: int) -> None:
        reached = self._reached
        own = Sign(beats, reached, self._points[reached], self._host)
        text = json.dumps(dataclasses.astuple(own))
        self._client.key_value_set(f'{FOLDER}/sign/{self.rank}', text, allow_overwrite=True)

    def _read(self) -> None:
        now = self._now()
        fresh = now - self._looked > 5 * BEAT  # nobody has looked while nobody waited
        changed = dict.fromkeys(self._changed, now) if fresh else dict(self._changed)
        signs = dict(self._signs)
        for key, text in self._client.key_value_dir_get(f'{FOLDER}/sign/'):
            rank, sign = int(key.rpartition('/')[2]), Sign(*json.loads(text))
            if sign != signs.get(rank):
                signs[rank], changed[rank] = sign, now
        self._signs, self._changed, self._looked = signs, changed, now

    def _judge(self) -> None:
        """Ends the process when it is time. A thread of its own: the store may not answer."""
        last = time.monotonic()
        while not self._ended.wait(BEAT):
            gap, last = time.monotonic() - last, time.monotonic()
            if gap > PAUSED:
                # This process was stopped, or its machine was; so perhaps were the others, and what
                # they have said since is not known yet.
                self._stopped += gap
                continue
            broken, now = self._broken, self._now()
            if self._waited() > self._look or broken:
                silence = BROKEN if broken else self._silence
                text = self._gone(silence, now) or self._late(silence, broken, now)
                if text:
                    self.leave(text, EXIT_CODE)

    def _gone(self, silence: float, now: float) -> str | None:
        """Why to give up where the store does not answer."""
        if now - self._answered <= silence:
            return None
        name = _named([0], self._signs)
        return f'{name}, through which the others are connected, no longer answers.'

    def _late(self, silence: float, broken: tuple | None, now: float) -> str | None:
        """Why to give up by what the others say."""
        changed, looked = self._changed, self._looked
        if not (self._since or 0.0) <= looked <= now:
            return None  # nothing has been read yet since it began to wait, or since it was stopped
        silent = {rank: looked - since for rank, since in changed.items() if rank != self.rank}
        limits = silence, self._timeout
        text = verdict(self._signs, silent, self._points.copy(), self._waited(), limits)
        if not text and broken and now - broken[1] > 2 * BROKEN:
            where = self._points[self._reached]
            text = f'The connection to another process broke at {where}: {broken[0]}'
        return text

    def _waited(self) -> float:
        """Seconds for which the main thread has waited."""
        since = self._since
        return 0.0 if since is None else self._now() - since

    def _now(self) -> float:
        return time.monotonic() - self._stopped


def _is_of_connection(error: Exception) -> bool:
    """Whether an error may come from another process's end, and not from this one's own work."""
    text = str(error)
    own = isinstance(error, UserError) or OWN.search(text)
    return not own and bool(CONNECTION.search(text))


def _within(seconds: float, function: Callable[[], Any]) -> Any:
    """Returns what the function does, None if it fails or takes longer."""
    found = []

    def call():
        with suppress(Exception):
            found.append(function())

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


_watchdog: Watchdog | None = None
_unfinished: list[Callable[[], Any]] = []


def start(timeout: float) -> None:
    """Starts this process's watchdog, if it has none; jax.distributed is initialised."""
    global _watchdog
    from jax._src import distributed  # JAX has no public name for its key-value store

    state = distributed.global_state
    if _watchdog is None:
        _watchdog = Watchdog(state.client, state.process_id, state.num_processes, timeout)


@contextmanager
def finishing(function: Callable[[], Any]) -> Iterator[None]:
    """A context in which this process does not end before `function` has, FINISH seconds at most.

    Args:
      function: waits for what is under way, such as a checkpoint; called in another thread.
    """
    _unfinished.append(function)
    try:
        yield
    finally:
        _unfinished.remove(function)


@contextmanager
def waiting(step: str | None = None) -> Iterator[None]:
    """Around a collective: names who does not come.

    Args:
      step: where the run is, for people, such as 'step 12'; None: what follows the last such.
    """
    if _watchdog is None:
        yield
        return
    with _watchdog.waiting(step):
        yield


def leave(text: str, code: int) -> None:
    """Ends this process and the others, if it is one of several."""
    if _watchdog is not None:
        _watchdog.leave(text, code)


@contextmanager
def telling() -> Iterator[None]:
    """Around a run: a failure that is not the user's is told to the other processes at once."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if _watchdog is not None:
            text = traceback.format_exc()
            _within(ANSWER, lambda: sys.stderr.write(text))
            leave(f'Process {_watchdog.rank} has failed: {type(error).__name__}: {error}', 1)
        raise
