"""Standard output and error that cannot be written: a full disk, a closed pipe or terminal."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from errors import UserError


class Output:
    """A text stream in place of standard output or error.

    Args:
      stream: the stream; None if it was closed before the process started.
      lasting: whether what cannot be written is dropped, because no run may end for what it prints.
        If not, a reader that has gone is a BrokenPipeError, and anything else a UserError.

    Attributes:
      problem: why something could not be written, such as 'Broken pipe'; None if nothing was lost.
    """

    def __init__(self, stream: TextIO | None, lasting: bool):
        self._stream, self._lasting = stream, lasting
        self.problem: str | None = None

    def last(self) -> 'Output':
        """Drops from now on what cannot be written; returns the stream."""
        self._lasting = True
        return self

    def write(self, text: str) -> int:
        """Writes a text; returns its length."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Passes what was written to the system."""
        self._attempt(lambda: self._stream.flush())

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close_quietly(self) -> None:
        """Writes what is left in the buffer, or drops it.

        Otherwise the interpreter would try again at its end, and change the exit code.
        """
        with contextlib.suppress(OSError, ValueError, AttributeError):
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._remember(error)
                devnull = os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, self._stream.fileno())
                os.close(devnull)
                self._stream.flush()

    def _remember(self, error: Exception) -> None:
        self.problem = self.problem or getattr(error, 'strerror', None) or str(error)

    def _attempt(self, call: Callable[[], object]) -> None:
        if self._stream is None:
            return
        try:
            call()
        except (OSError, ValueError) as error:  # a ValueError if it has been closed since
            self._remember(error)
            if self._lasting:
                return
            if isinstance(error, BrokenPipeError):
                raise
            raise UserError(f'Standard output cannot be written: {self.problem}.') from error


@contextlib.contextmanager
def checked() -> Iterator[None]:
    """A context in which standard output that cannot be written is an error of the user's.

    Raises:
      UserError: it cannot be written.
      BrokenPipeError: its reader has gone.
    """
    stream = Output(sys.stdout, lasting=False)
    with contextlib.redirect_stdout(stream):
        try:
            yield
            stream.flush()
        finally:
            stream.close_quietly()


@contextlib.contextmanager
def lasting() -> Iterator[Output]:
    """A context in which nothing fails because standard output or error cannot be written.

    Yields:
      Standard output; its `problem` says whether something was lost.
    """
    output, errors = (
        stream.last() if isinstance(stream, Output) else Output(stream, lasting=True)
        for stream in (sys.stdout, sys.stderr)
    )
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            yield output
        finally:
            output.close_quietly()
            if output.problem:
                text = f'warning: standard output could not be written: {output.problem}'
                print(text, file=sys.stderr)
            errors.close_quietly()
