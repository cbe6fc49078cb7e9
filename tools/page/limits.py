"""What a request may cost: bytes, seconds, threads and places in the queue."""

import contextlib
import dataclasses
import io
import socket
import threading
import time
from collections.abc import Iterator, Mapping


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of the server.

    Attributes:
      body: bytes of a picture that is sent.
      head: bytes of a request's first line and headers together.
      seconds: from the connection to the last byte of the request; and once more for the answer.
      linger: seconds in which a client that was refused may go on sending, so that it reads why.
      threads: that serve connections. With `body` they bound the memory of requests.
      queued: connections that wait for a thread; further ones are turned away.
      waiting: pictures that wait until the one before is done; further ones are turned away.
    """

    body: int = 8 << 20
    head: int = 32 << 10
    seconds: float = 15.0
    linger: float = 1.0
    threads: int = 32
    queued: int = 64
    waiting: int = 24


class Refused(Exception):  # noqa: N818 (an answer, and no defect)
    """A request that is not served.

    Attributes:
      status: the code of HTTP.
      sentence: what is wrong, and what to do.
      headers: further headers of the answer.
    """

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None):
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = dict(headers or {})


class Gate:
    """Lets one in at a time and a few wait; the others are told to come back.

    Args:
      waiting: how many may wait.
    """

    def __init__(self, waiting: int):
        self._places = threading.BoundedSemaphore(1 + waiting)
        self._inside = threading.Lock()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Waits for its turn.

        Raises:
          Refused: 503, all places are taken.
        """
        if not self._places.acquire(blocking=False):
            raise busy()
        try:
            with self._inside:
                yield
        finally:
            self._places.release()


def busy() -> Refused:
    """Returns the answer to a request that comes while too many others are served."""
    return Refused(503, 'The server is busy: try again in a second.', {'Retry-After': '1'})


class BoundedReader(io.RawIOBase):
    """The bytes that a connection receives, until a deadline, and only so many.

    A timeout of the socket alone would not do: it begins anew with each byte of a slow sender.

    Args:
      connection: the socket.
      seconds: until the deadline, from now.
      most: bytes that may be read; `allow` adds to them.
    """

    def __init__(self, connection: socket.socket, seconds: float, most: int):
        self._connection = connection
        self._end = time.monotonic() + seconds
        self._left = most

    def allow(self, more: int) -> None:
        """Lets so many further bytes be read."""
        self._left += more

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer) -> int:
        """Receives what is there.

        Raises:
          TimeoutError: the deadline is over.
          Refused: 431, the bytes are used up.
          OSError: the connection is lost.
        """
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        if not self._left:
            raise Refused(431, 'The head of the request is too long.')
        self._connection.settimeout(seconds)
        with memoryview(buffer) as view:
            count = self._connection.recv_into(view[: self._left])
        self._left -= count
        return count
