"""One request: its head is checked, a row of the table of routes answers it, and it is closed.

No part of a request becomes a path of the file system: what is not in the table does not exist.
"""

import dataclasses
import functools
import io
import json
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import files
from errors import UserError
from tools.page.limits import BoundedReader, Refused

_SCRIPT = 'text/javascript; charset=utf-8'
_SCRIPTS = ('page', 'views', 'boxes', 'drawing', 'camera')
_HERE = Path(__file__).parent
_PARAMETERS = 8  # of an address, at most
# The page runs its own script and style and shows pictures that the server or the user gives it.
# Nothing else is loaded or sent anywhere, and no other page shows this one in a frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    'Content-Security-Policy': _POLICY,
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cache-Control': 'no-store',
    'Connection': 'close',
}


@dataclasses.dataclass(frozen=True)
class Reply:
    """The answer to a request.

    Attributes:
      body: its bytes.
      kind: its media type.
      status: the code of HTTP.
      headers: further headers.
    """

    body: bytes
    kind: str
    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Returns the reply that holds a value as JSON."""
    body = json.dumps(files.nan_to_null(value), allow_nan=False).encode()
    return Reply(body, 'application/json; charset=utf-8', status, headers or {})


def refusal(refused: Refused) -> Reply:
    """Returns the reply that says in a sentence why a request is refused."""
    return as_json({'error': refused.sentence}, refused.status, refused.headers)


@functools.cache
def _file(name: str, kind: str) -> Reply:
    """Returns a file of the page."""
    return Reply((_HERE / name).read_bytes(), kind)


class Handler(BaseHTTPRequestHandler):
    """Serves one request of a connection; every connection has one."""

    protocol_version = 'HTTP/1.1'
    default_request_version = 'HTTP/1.1'  # of a request that names none: it gets a whole answer

    def setup(self) -> None:
        """Reads within the limits of the server."""
        super().setup()
        limits = self.server.limits
        self._bounded = BoundedReader(self.request, limits.seconds, limits.head)
        self.rfile = io.BufferedReader(self._bounded)

    def handle(self) -> None:
        """Answers one request, whatever it is."""
        self.raw_requestline = b''
        self.requestline, self.request_version, self.command = '', self.protocol_version, ''
        try:
            self.raw_requestline = self.rfile.readline(self.server.limits.head)
            if not self.raw_requestline or not self.parse_request():
                return  # nobody is there, or `send_error` has said why
            reply = self._answered()
        except Refused as refused:
            reply = refusal(refused)
        except TimeoutError:
            if not self.raw_requestline:  # a browser connects before it knows what for
                return
            reply = refusal(Refused(408, 'The request did not arrive in time: send it again.'))
        except OSError:
            return  # the client is gone
        self._send(reply)

    def _answered(self) -> Reply:
        """Returns the reply to a request whose head was read.

        Raises:
          Refused: it is not served.
          OSError: the connection is lost, or too slow.
        """
        self._check_sender()
        path, _, query = self.path.partition('?')
        if path not in ROUTES:
            raise Refused(404, 'There is no such page; the address / has the only one.')
        method, reply = ROUTES[path]
        allowed = ('GET', 'HEAD') if method == 'GET' else (method,)
        if self.command not in allowed:
            listed = ', '.join(allowed)
            raise Refused(405, f'This address takes {listed}.', {'Allow': listed})
        return reply(self, query)

    def _check_sender(self) -> None:
        """Refuses what another site asks through the browser of somebody here.

        Its name might have been given our address (DNS rebinding), which the header Host betrays;
        or its script sends us something, which Origin betrays.
        """
        hosts = self.headers.get_all('Host', [])
        if len(hosts) != 1:
            raise Refused(400, 'The request needs one header Host.')
        if not self.server.serves(_name_of(hosts[0])):
            raise Refused(403, 'Open the page by the address that the command has printed.')
        origin = self.headers.get('Origin')
        if origin is not None and origin.partition('://')[2] != hosts[0]:
            raise Refused(403, 'Another site may not use this server.')

    def body(self) -> bytes:
        """Returns what the request carries.

        Raises:
          Refused: its length is not given, wrong or too large.
          TimeoutError: it does not come in time.
        """
        lengths = self.headers.get_all('Content-Length', [])
        if 'Transfer-Encoding' in self.headers or not lengths:
            raise Refused(411, 'The request has to say its Content-Length, and come in one piece.')
        if len(lengths) > 1 or not re.fullmatch('[0-9]{1,15}', lengths[0]):
            raise Refused(400, 'The Content-Length of the request is not a number of bytes.')
        length, most = int(lengths[0]), self.server.limits.body
        if length > most:
            raise Refused(
                413, f'The picture has more than {most >> 20} MB: scale it down, and send it again.'
            )
        if self.headers.get('Expect', '').lower() == '100-continue':
            self.send_response_only(100)
            self.end_headers()
        self._bounded.allow(length)
        data = self.rfile.read(length)
        if len(data) < length:
            raise Refused(400, 'The connection ended before the whole picture had come.')
        return data

    def handle_expect_100(self) -> bool:
        """Leaves it to `body` to ask for the rest, once it is known to be wanted."""
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None):
        """Sends what the standard library finds wrong, as our other errors are sent."""
        del explain
        said = message or self.responses.get(code, ('the request is wrong',))[0]
        self._send(refusal(Refused(int(code), f'The request cannot be served: {said}.')))

    def _send(self, reply: Reply) -> None:
        """Sends a reply; a client that is gone does not get it."""
        try:
            self.request.settimeout(self.server.limits.seconds)
            self.send_response(reply.status)
            for name, value in {**_HEADERS, **reply.headers}.items():
                self.send_header(name, value)
            self.send_header('Content-Type', reply.kind)
            self.send_header('Content-Length', str(len(reply.body)))
            self.end_headers()
            if self.command != 'HEAD':
                self.wfile.write(reply.body)
        except OSError:
            pass

    def version_string(self) -> str:
        """Returns what answers call the server: its name, without the versions of its parts."""
        return 'page'

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing: a drawing makes ten requests a second."""


def _name_of(host: str) -> str:
    """Returns the name or address in a header Host, in lower case; '' if it holds none."""
    try:
        return urlsplit(f'//{host}').hostname or ''
    except ValueError:
        return ''


def _answer(answer: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Calls what answers a request.

    Raises:
      Refused: it cannot, for a reason that is the user's (422) or a defect of ours (500), after
        which the next request is served all the same.
    """
    try:
        return answer(*arguments, **options)
    except UserError as error:
        raise Refused(422, str(error)) from error
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        sentence = 'The server failed on this request; its terminal says more.'
        raise Refused(500, sentence) from error


def _about(request: Handler, query: str) -> Reply:
    del query
    about = _answer(request.server.answers.about)
    return as_json({**about, 'limit': request.server.limits.body})


def _example(request: Handler, query: str) -> Reply:
    del query
    picture = _answer(request.server.answers.example)
    if picture is None:
        raise Refused(404, 'There is no example for this network.')
    return Reply(picture, 'image/jpeg')


def _look(request: Handler, query: str) -> Reply:
    """Returns what the network makes of the picture that was sent."""
    try:
        pairs = parse_qsl(query, True, bool(query), errors='strict', max_num_fields=_PARAMETERS)
    except ValueError as error:
        raise Refused(400, 'The address is not written as this page writes it.') from error
    wanted = dict(pairs)
    if not wanted.keys() <= {'choice', 'stage', 'whole'} or len(wanted) < len(pairs):
        raise Refused(400, 'The address asks for something else than choice, stage and whole.')
    encoded = request.body()
    with request.server.gate.entered():
        return as_json(_answer(request.server.answers.look, encoded, **wanted))


Route = tuple[str, Callable[[Handler, str], Reply]]


def _static(name: str, kind: str) -> Route:
    return 'GET', lambda request, query: _answer(_file, name, kind)


# {path: (method, what answers it)}; HEAD is served where GET is.
ROUTES: dict[str, Route] = {
    '/': _static('page.html', 'text/html; charset=utf-8'),
    '/page.css': _static('page.css', 'text/css; charset=utf-8'),
    **{f'/{name}.js': _static(f'{name}.js', _SCRIPT) for name in _SCRIPTS},
    '/icon.svg': _static('icon.svg', 'image/svg+xml'),
    '/about': ('GET', _about),
    '/example': ('GET', _example),
    '/look': ('POST', _look),
}
