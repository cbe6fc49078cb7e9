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
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from errors import PeerError, UserError

EXIT_CODE = PeerError.exit_code
BEAT = 1.0  # seconds between two signs of life
# Seconds of waiting after which a process looks at the others, and seconds without a sign of life
# after which one counts as gone; less where config.distributed_timeout is short.
LOOK, SILENCE = 3.0, 30.0
POINTS = 100  # common points that a process remembers
BROKEN = 4.0  # the same once a connection has broken
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
      timeout: seconds for which the main thread may wait.
    """

    def __init__(self, client, rank: int, timeout: float):
        self._client, self.rank, self._timeout = client, rank, timeout
        self._look = min(LOOK, timeout / 4)
        self._silence = min(SILENCE, max(timeout / 2, 3 * BEAT))
        self._host = socket.gethostname()
        self._reached, self._step, self._since = 0, 'the start', None
        self._points = {0: self._step}
        self._signs: dict[int, Sign] = {}
        self._changed: dict[int, float] = {}  # when each process's sign was another than before
        self._silent: dict[int, float] = {}  # seconds from then to the last look
        self._answered = time.monotonic()
        self._broken: tuple[str, float] | None = None  # what, and when
        self._leaving = threading.Lock()
        self._ended = threading.Event()
        for loop in (self._beat, self._judge):
            threading.Thread(target=loop, name=f'watchdog {loop.__name__}', daemon=True).start()
        atexit.register(self._ended.set)

    @contextmanager
    def waiting(self, step: str | None) -> Iterator[None]:
        """Around what all processes do together, the same number of times in the same order."""
        self._step = step or self._step
        self._points[self._reached + 1] = step or f'what follows {self._step}'
        self._points.pop(self._reached + 1 - POINTS, None)
        self._reached += 1
        self._since = time.monotonic()
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # a broken connection has several types
            self._broken = ' '.join(str(error).split())[:200], time.monotonic()
            self._ended.wait(10 * BROKEN)  # the threads find out who is gone, and end the process
            raise
        finally:
            self._since = None

    def leave(self, text: str, code: int) -> None:
        """Ends this process, after telling the others why."""
        with self._leaving:  # for good
            text, code = self._agree(text, code)
            print(f'error: {text}', file=sys.stderr, flush=True)
            if self._since is None and code == EXIT_CODE:
                print('This process was not waiting; its threads are at:', file=sys.stderr)
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
            sys.stderr.flush()
            sys.stdout.flush()
            if self.rank == 0:  # the store is here: the others have to read the reason first
                time.sleep(3 * BEAT)
            os._exit(code)

    def _agree(self, text: str, code: int) -> tuple[str, int]:
        """Returns the first reason that a process gave; later ones are of what followed from it."""
        try:
            self._client.key_value_set(f'{FOLDER}/verdict/0', json.dumps([text, code]))
        except Exception:  # there is one, or there is no store any more
            return self._known_verdict() or (text, code)
        return text, code

    def _known_verdict(self) -> tuple[str, int] | None:
        try:
            found = self._client.key_value_dir_get(f'{FOLDER}/verdict/')
        except Exception:
            return None
        return tuple(json.loads(found[0][1])) if found else None

    def _beat(self) -> None:
        """Gives signs of life, and reads those of others while the main thread waits."""
        beats = 0
        while not self._ended.wait(BEAT):
            beats += 1
            reached = self._reached
            own = Sign(beats, reached, self._points[reached], self._host)
            try:
                name = f'{FOLDER}/sign/{self.rank}'
                text = json.dumps(dataclasses.astuple(own))
                self._client.key_value_set(name, text, allow_overwrite=True)
                found = self._known_verdict()
                if found:
                    self.leave(*found)
                if self._waited() > self._look or self._broken:
                    self._read()
                else:
                    self._changed.clear()
                    self._silent.clear()
                self._answered = time.monotonic()
            except Exception:
                continue  # _judge sees that nothing is answered

    def _read(self) -> None:
        now = time.monotonic()
        for key, text in self._client.key_value_dir_get(f'{FOLDER}/sign/'):
            rank, sign = int(key.rpartition('/')[2]), Sign(*json.loads(text))
            if sign != self._signs.get(rank) or rank not in self._changed:
                self._signs[rank], self._changed[rank] = sign, now
            self._silent[rank] = now - self._changed[rank]

    def _judge(self) -> None:
        """Ends the process when it is time. A thread of its own: the store may not answer."""
        while not self._ended.wait(BEAT):
            broken, waited = self._broken, self._waited()
            if waited <= self._look and not broken:
                continue
            limit = BROKEN if broken else self._silence
            if time.monotonic() - self._answered > limit:
                text = 'Process 0, through which the others are connected, no longer answers.'
                self.leave(text, EXIT_CODE)
            if self.rank not in self._silent:
                continue  # nothing has been read yet
            others = {rank: t for rank, t in self._silent.copy().items() if rank != self.rank}
            limits = limit, self._timeout
            text = verdict(self._signs.copy(), others, self._points.copy(), waited, limits)
            if not text and broken and time.monotonic() - broken[1] > 2 * BROKEN:
                where = self._points[self._reached]
                text = f'The connection to another process broke at {where}: {broken[0]}'
            if text:
                self.leave(text, EXIT_CODE)

    def _waited(self) -> float:
        since = self._since
        return 0.0 if since is None else time.monotonic() - since


_watchdog: Watchdog | None = None


def start(timeout: float) -> None:
    """Starts this process's watchdog; jax.distributed is initialised."""
    global _watchdog
    from jax._src import distributed  # JAX has no public name for its key-value store

    state = distributed.global_state
    _watchdog = Watchdog(state.client, state.process_id, timeout)


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
            traceback.print_exc()
            leave(f'Process {_watchdog.rank} has failed: {type(error).__name__}: {error}', 1)
        raise
