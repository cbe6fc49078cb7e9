"""A server with a fixed number of threads, each of which serves one connection after another."""

import contextlib
import errno
import ipaddress
import queue
import socket
import threading
import time
from http.server import HTTPServer
from socketserver import TCPServer
from typing import Protocol

from errors import UserError
from tools.page.handler import Handler, refusal
from tools.page.limits import Gate, Limits, busy

_PATIENCE = 2.0  # seconds in which a picture that is looked at at the end may be finished
_LOOPBACK = ('127.0.0.1', '::1', 'localhost')


class Answers(Protocol):
    """What the page asks for."""

    def about(self) -> dict:
        """Returns what there is to say about the network, as values for JSON."""

    def example(self) -> bytes | None:
        """Returns an encoded picture to try, or None."""

    def look(self, encoded: bytes, **wanted: str) -> dict:
        """Returns what the network makes of an encoded picture, as values for JSON.

        Raises:
          UserError: it is no picture, or something else is wanted than there is.
        """


class Server(HTTPServer):
    """Serves the page. It is bound at once, and answers after `start`.

    Args:
      host: an address of this machine, or its name.
      port: 0 for any that is free.
      limits: see Limits.

    Attributes:
      answers: what is served, from `start` on.
      gate: through which pictures go to the network.

    Raises:
      UserError: the address cannot be used.
    """

    request_queue_size = 128

    def __init__(self, host: str, port: int, limits: Limits):
        family, address = _resolved(host, port)
        self.address_family = family
        self.limits = limits
        self.gate = Gate(limits.waiting)
        self._connections: queue.Queue = queue.Queue(limits.queued)
        self._threads: list[threading.Thread] = []
        super().__init__(address, Handler, bind_and_activate=False)
        try:
            self.server_bind()
        except OSError as error:
            self.server_close()
            raise _unusable(host, port, error) from error
        self.open_to_others = not ipaddress.ip_address(self.server_address[0]).is_loopback

    def server_bind(self) -> None:
        """Binds, without HTTPServer's look for the machine's name, which may take seconds."""
        TCPServer.server_bind(self)

    @property
    def url(self) -> str:
        """The address to open on this machine."""
        host, port = self.server_address[:2]
        if ipaddress.ip_address(host).is_unspecified:
            host = '127.0.0.1' if self.address_family == socket.AF_INET else '::1'
        return f'http://[{host}]:{port}/' if ':' in host else f'http://{host}:{port}/'

    def serves(self, name: str) -> bool:
        """Returns whether a request that calls the server by this name is meant for it."""
        if name in _LOOPBACK:
            return True
        if not self.open_to_others:
            return False
        own = socket.gethostname().lower()
        if name in (own, f'{own}.local', own.partition('.')[0]):
            return True
        try:  # an address, unlike a name, cannot be given to another machine
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def start(self, answers: Answers) -> None:
        """Begins to listen, and starts the threads that answer."""
        self.answers = answers
        self.server_activate()
        for number in range(self.limits.threads):
            thread = threading.Thread(target=self._serve, name=f'page {number}', daemon=True)
            thread.start()
            self._threads.append(thread)

    def process_request(self, request, client_address) -> None:
        """Leaves a connection to the threads; one too many is told to come back."""
        try:
            self._connections.put_nowait((request, client_address))
        except queue.Full:
            self._turn_away(request)

    def _turn_away(self, request: socket.socket) -> None:
        """Tells a client to come back, without waiting for anything."""
        reply = refusal(busy())
        head = f'HTTP/1.1 {reply.status} Busy\r\nContent-Type: {reply.kind}\r\nRetry-After: 1\r\n'
        length = f'Content-Length: {len(reply.body)}\r\nConnection: close\r\n\r\n'
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(f'{head}{length}'.encode() + reply.body)
        self.close_request(request)

    def _serve(self) -> None:
        """Serves connections until there is None."""
        while (connection := self._connections.get()) is not None:
            request, client_address = connection
            try:
                self.finish_request(request, client_address)
            except Exception:  # a defect, and none of the server's end
                self.handle_error(request, client_address)
            finally:
                self.shutdown_request(request)

    def shutdown_request(self, request) -> None:
        """Closes a connection so that what was sent arrives.

        Where something is left to be read, closing resets the connection, and the client might not
        see why its request was refused.
        """
        end = time.monotonic() + self.limits.linger
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            while (seconds := end - time.monotonic()) > 0:
                request.settimeout(seconds)
                if not request.recv(1 << 16):
                    break
        self.close_request(request)

    def server_close(self) -> None:
        """Stops listening and ends the threads that wait; others end with the process."""
        super().server_close()
        for _ in self._threads:
            with contextlib.suppress(queue.Full):
                self._connections.put_nowait(None)
        end = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple]:
    """Returns the family and the address to bind to.

    Raises:
      UserError: there is no such host.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UserError(
            f'--host={host} is no address of this machine: leave it out, or give 0.0.0.0 for all.'
        ) from error
    family, _, _, _, address = found[0]
    return family, address


def _unusable(host: str, port: int, error: OSError) -> UserError:
    """Returns the error of an address that cannot be bound."""
    if error.errno == errno.EADDRINUSE:
        return UserError(
            f'--port={port} is in use, perhaps by another page: choose another, such as '
            f'--port={port + 1}, or --port=0 for any that is free.'
        )
    if error.errno == errno.EACCES:
        return UserError(f'--port={port} may not be used: choose one from 1024 on.')
    return UserError(
        f'--host={host} is no address of this machine ({error.strerror}): leave it out, or give '
        '0.0.0.0 for all.'
    )
