"""A server of the page in this process, and requests to it byte by byte."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple

from tools.page.limits import Limits
from tools.page.server import Server


class Got(NamedTuple):
    """An answer: its status, headers in lower case, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        return json.loads(self.body)['error']


@contextlib.contextmanager
def serving(answers, host='127.0.0.1', **limits) -> Iterator[Server]:
    """Serves answers on a free port."""
    server = Server(host, 0, Limits(**limits))
    server.start(answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def connected(server) -> socket.socket:
    return socket.create_connection(('127.0.0.1', server.server_address[1]), timeout=60)


def sent(server, request: bytes, ends: bool = True) -> Got | None:
    """Sends bytes and returns the answer; None if the connection is closed without one.

    Args:
      server: the server.
      request: the bytes.
      ends: whether the client says that nothing follows.
    """
    with connected(server) as client:
        with contextlib.suppress(OSError):  # the server may have refused what is still sent
            client.sendall(request)
            if ends:
                client.shutdown(socket.SHUT_WR)
        return received(client)


def received(client: socket.socket) -> Got | None:
    data = b''
    while part := client.recv(1 << 16):
        data += part
    data = data.removeprefix(b'HTTP/1.1 100 Continue\r\n\r\n')
    if not data:
        return None
    head, _, body = data.partition(b'\r\n\r\n')
    first, *lines = head.decode('latin-1').split('\r\n')
    headers = dict(line.lower().split(': ', 1) for line in lines)
    return Got(int(first.split()[1]), headers, body)


def head(server, line: str = 'GET / HTTP/1.1', *headers: str) -> bytes:
    """The head of a request as a browser writes it."""
    lines = [line, f'Host: localhost:{server.server_address[1]}', *headers]
    return '\r\n'.join([*lines, '', '']).encode()


def look(server, picture: bytes, query: str = '', *headers: str) -> Got:
    length = f'Content-Length: {len(picture)}'
    return sent(server, head(server, f'POST /look{query} HTTP/1.1', length, *headers) + picture)
