"""The server of the page: what it serves, what it refuses, and that nothing makes it stop."""

import contextlib
import json
import random
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import ROOT
from tests.tools.page.served import connected, head, look, received, sent, serving
from tools.page.limits import Limits

PAGE = ROOT / 'tools' / 'page'


class Recorder:
    """Answers with the size of a picture; `free` lets them go on."""

    def __init__(self):
        self.free = threading.Event()
        self.free.set()
        self.inside = 0

    def about(self):
        return {'title': 'a network'}

    def example(self):
        return None

    def look(self, encoded, **wanted):
        self.inside += 1
        assert self.inside == 1, 'one at a time'
        assert self.free.wait(60)
        self.inside -= 1
        if encoded == b'defect':
            raise ZeroDivisionError
        if encoded == b'missing':
            raise FileNotFoundError
        return {'size': len(encoded), **wanted}


@pytest.fixture(scope='module')
def server():
    with serving(Recorder(), body=1000) as server:
        yield server


@pytest.fixture
def impatient():
    with serving(Recorder(), seconds=0.3, linger=0.1) as server:
        yield server


# --- what is served ------------------------------------------------------------------------------


def test_all_files_of_the_page_are_served_and_nothing_else_is_loaded(server):
    for path in PAGE.glob('*.*'):
        if path.suffix in ('.html', '.css', '.js', '.svg'):
            route = '/' if path.suffix == '.html' else f'/{path.name}'
            got = sent(server, head(server, f'GET {route} HTTP/1.1'))
            assert (got.status, got.body) == (200, path.read_bytes())
            assert got.headers['content-security-policy'].startswith("default-src 'none'; ")
            assert 'unsafe' not in got.headers['content-security-policy']
            text = path.read_text().replace('http://www.w3.org/2000/svg', '')
            assert not re.search(r'(https?:)?//\w[^\s]*\.\w', text.replace('http://localhost', ''))
            assert not re.search(r'<script>|\son\w+=|\sstyle=|innerHTML|eval\(', text)


def test_head_is_get_without_a_body(server):
    for path in ('/', '/page.css', '/about'):
        got, short = (sent(server, head(server, f'{m} {path} HTTP/1.1')) for m in ('GET', 'HEAD'))
        assert short.status == got.status == 200
        assert short.body == b''
        assert (
            short.headers['content-length'] == got.headers['content-length'] == str(len(got.body))
        )


def test_a_picture_and_what_is_wanted_of_it_arrive(server):
    got = look(server, b'x' * 1000, '?choice=%C3%A9t%C3%A9&stage=conv1&whole=a%26b')
    wanted = {'size': 1000, 'choice': 'été', 'stage': 'conv1', 'whole': 'a&b'}
    assert (got.status, json.loads(got.body)) == (200, wanted)


def test_a_client_that_asks_before_it_sends_is_answered(server):
    with connected(server) as client:
        expect = ('Content-Length: 5', 'Expect: 100-continue')
        client.sendall(head(server, 'POST /look HTTP/1.1', *expect))
        assert client.recv(100) == b'HTTP/1.1 100 Continue\r\n\r\n'
        client.sendall(b'12345')
        assert json.loads(received(client).body) == {'size': 5}


# --- what is refused -----------------------------------------------------------------------------


def test_other_paths_and_methods_do_not_exist(server):
    for path in ('/page.py', '/../page.html', '/page.css/', '/PAGE.css', '/%2e%2e/page.css', '*'):
        assert sent(server, head(server, f'GET {path} HTTP/1.1')).status == 404
    for method, path, allowed in (
        ('POST', '/', 'GET, HEAD'),
        ('DELETE', '/page.js', 'GET, HEAD'),
        ('OPTIONS', '/look', 'POST'),
        ('HEAD', '/look', 'POST'),
        ('BREW', '/about', 'GET, HEAD'),
    ):
        got = sent(server, head(server, f'{method} {path} HTTP/1.1'))
        assert (got.status, got.headers['allow']) == (405, allowed.lower())


@pytest.mark.parametrize('name', ['localhost', '127.0.0.1:80', '[::1]:9', 'LocalHost:0'])
def test_names_of_this_machine_are_served(server, name):
    got = sent(server, f'GET / HTTP/1.1\r\nHost: {name}\r\n\r\n'.encode())
    assert got.status == 200


@pytest.mark.parametrize(
    'name', ['evil.example', 'localhost.evil.example', '10.0.0.7', '', '[', 'a@b']
)
def test_another_name_that_leads_here_is_refused(server, name):
    """As where the owner of that name has given it our address: DNS rebinding."""
    got = sent(server, f'GET /about HTTP/1.1\r\nHost: {name}\r\n\r\n'.encode())
    assert got.status == 403
    assert got.error == 'Open the page by the address that the command has printed.'


def test_open_to_others_it_is_served_by_address_alone():
    with serving(Recorder(), host='0.0.0.0') as server:
        assert server.open_to_others
        for name, status in {'192.0.2.7:8000': 200, 'evil.example': 403}.items():
            got = sent(server, f'GET / HTTP/1.1\r\nHost: {name}\r\n\r\n'.encode())
            assert got.status == status


def test_another_site_may_not_send_pictures(server):
    port = server.server_address[1]
    assert look(server, b'x', '', f'Origin: http://localhost:{port}').status == 200
    for origin in ('http://evil.example', 'null', f'http://localhost:{port + 1}'):
        got = look(server, b'x', '', f'Origin: {origin}')
        assert (got.status, got.error) == (403, 'Another site may not use this server.')
        assert not any(name.startswith('access-control') for name in got.headers)


def test_who_sends_slowly_is_cut_off(impatient):
    """Also if each byte comes in time: the limit is on the request."""
    with connected(impatient) as client:
        client.sendall(head(impatient, 'POST /look HTTP/1.1', 'Content-Length: 1000'))
        count = 0
        with contextlib.suppress(OSError):  # cut off
            for _ in range(900):
                client.sendall(b'x')
                count += 1
                time.sleep(0.02)
        assert count < 900
    with connected(impatient) as client:
        client.sendall(b'GET / HTTP/1.1\r\nHost: loc')
        got = received(client)
        assert (got.status, got.error) == (
            408,
            'The request did not arrive in time: send it again.',
        )
    with connected(impatient) as client:
        assert received(client) is None


def test_a_defect_is_one_of_a_request_alone(server, capfd):
    server.answers.inside = 0
    for picture, error in ((b'defect', 'ZeroDivisionError'), (b'missing', 'FileNotFoundError')):
        got = look(server, picture)
        assert got.status == 500
        assert got.error == 'The server failed on this request; its terminal says more.'
        assert error in capfd.readouterr().err
    assert look(server, b'whole').status == 200


def test_a_few_wait_and_the_others_are_told_to_come_back():
    answers = Recorder()
    answers.free.clear()
    with serving(answers, threads=4, waiting=1) as server, ThreadPoolExecutor(3) as pool:
        three = [pool.submit(look, server, b'x') for _ in range(3)]
        while not any(future.done() for future in three):
            time.sleep(0.01)
        answers.free.set()
        got = sorted((future.result() for future in three), key=lambda got: got.status)
        assert [one.status for one in got] == [200, 200, 503]
        assert got[2].headers['retry-after'] == '1'
        assert got[2].error == 'The server is busy: try again in a second.'


def test_connections_beyond_the_queue_are_turned_away():
    answers = Recorder()
    answers.free.clear()
    with serving(answers, threads=1, queued=1) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(look, server, b'x')
        while not answers.inside:
            time.sleep(0.01)
        with connected(server) as second, connected(server) as third:
            assert received(third).status == 503
            answers.free.set()
            assert first.result().status == 200
            second.sendall(head(server))
            assert received(second).status == 200


# --- a thousand requests that are wrong ----------------------------------------------------------


def malformed(server, draw: random.Random) -> list[tuple[bytes, set[int | None]]]:
    """Requests that are wrong, with the codes that each may be answered by; None is no answer."""

    def post(*headers: str, body: bytes = b'', query: str = '') -> bytes:
        return head(server, f'POST /look{query} HTTP/1.1', *headers) + body

    def length(text: object, body: bytes = b'', **more) -> bytes:
        return post(f'Content-Length: {text}', body=body, **more)

    noise = draw.randbytes(draw.randrange(1, 500))
    path = draw.choice(['../' * 5 + 'etc/passwd', '%2e%2e%2f' * 4, '.git/config', '%00', 'page.py'])
    text = noise.hex()
    bomb = b'[' * 900
    refused = {400, 403, 404, 405, 408, 411, 413, 414, 422, 431, 505}
    return [
        (noise, {*refused, None}),
        (noise + b'\r\n\r\n', {*refused, None}),
        (b'\r\n\r\n', {None}),
        (b'GET', {400}),
        (b'GET /\r\n\r\n', {400}),
        (b'GET / HTTP/1.1\r\n\r\n', {400}),
        (b'GET / HTTP/9.9\r\nHost: localhost\r\n\r\n', {505}),
        (b'GET / HTTP/x\r\nHost: localhost\r\n\r\n', {400}),
        (b'GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n', {400}),
        (b'GET /\xff\xfe\x80 HTTP/1.1\r\nHost: localhost\r\n\r\n', {404}),
        (b'GET /' + b'a' * 70_000 + b' HTTP/1.1\r\n\r\n', {400, 414, 431}),
        (head(server, f'GET /{path} HTTP/1.1'), {404}),
        (head(server, f'GET {path} HTTP/1.1'), {404}),
        (head(server, f'{text[:8]} / HTTP/1.1'), {405}),
        (head(server, 'GET /look HTTP/1.1'), {405}),
        (head(server, 'GET / HTTP/1.1', *[f'X-{i}: y' for i in range(150)]), {431}),
        (head(server, 'GET / HTTP/1.1', 'X: ' + 'y' * 40_000), {431}),
        (head(server, 'GET / HTTP/1.1', 'X: ' + 'y' * 70_000), {431}),
        (b'GET / HTTP/1.1\r\n\xff\xfe: \x80\r\nHost: localhost\r\n\r\n', {200, 400}),
        (b'GET / HTTP/1.1\r\nno colon\r\nHost: localhost\r\n\r\n', {200, 400}),
        (post(), {411}),
        (length('-1'), {400}),
        (length('+5', b'12345'), {400}),
        (length('1e3'), {400}),
        (length('٣', b'123'), {400}),
        (length(''), {400}),
        (length(10**12), {413}),
        (length('9' * 400), {400}),
        (length(1001, b'x' * 1001), {413}),
        (length(1000, noise[:100]), {400}),
        (length('5\r\nContent-Length: 6', b'123456'), {400}),
        (post('Transfer-Encoding: chunked', body=b'5\r\n12345\r\n0\r\n\r\n'), {411}),
        (post('Transfer-Encoding: chunked', body=b'fffffffff\r\n' + noise), {411}),
        (length('5\r\nTransfer-Encoding: chunked', b'0\r\n\r\n'), {411}),
        (length(len(bomb), bomb, query='?choice=%ff%fe'), {400}),
        (length(0, query='?' + '&'.join(f'a{i}=' for i in range(50))), {400}),
        (length(0, query='?choice=a&choice=b'), {400}),
        (length(0, query='?path=/etc/passwd'), {400}),
        (length(0, query='?choice'), {400}),
        (post('Content-Length: 5', 'Expect: 100-continue'), {400}),
    ]  # fmt: skip


def test_a_thousand_malformed_requests_are_answered_and_harm_nothing(server, capfd):
    draw = random.Random(0)
    requests = [one for _ in range(25) for one in malformed(server, draw)]
    assert len(requests) == 1000
    server.answers.inside = 0
    before = threading.active_count()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda one: sent(server, one[0]), requests))
        assert threading.active_count() <= before + 20
    for (request, codes), got in zip(requests, answers, strict=True):
        assert (got and got.status) in codes, (request[:200], got)
        if got and got.status >= 400:
            assert re.fullmatch(r'[A-Z].*\.', got.error), got.error
            assert got.headers['content-type'].startswith('application/json')
    assert look(server, b'x').status == 200
    assert capfd.readouterr().err == ''


def test_clients_that_leave_in_the_middle_harm_nothing(server, capfd):
    for _ in range(50):
        with connected(server) as client:
            # Closed with a reset, while the server reads or writes.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\1\0\0\0\0\0\0\0')
            client.sendall(head(server, 'POST /look HTTP/1.1', 'Content-Length: 900') + b'x')
    assert look(server, b'x').status == 200
    assert capfd.readouterr().err == ''


def test_twenty_at_once_are_all_answered():
    with serving(Recorder()) as server, ThreadPoolExecutor(20) as pool:
        pictures = [b'x' * size for size in range(1, 21)]
        got = list(pool.map(lambda picture: look(server, picture), pictures))
    assert [json.loads(one.body) for one in got] == [{'size': size} for size in range(1, 21)]
    assert Limits().waiting >= 20
