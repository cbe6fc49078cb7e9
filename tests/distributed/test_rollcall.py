"""The roll call: every process that is there learns which one is missing or wrongly started."""

import socket
import threading
import time

import pytest

from distributed import rollcall
from errors import PeerError, UserError
from tests.support import free_port


class Calls:
    """Roll calls in threads of this process."""

    def __init__(self, ranks, count: int, timeout: float = 20.0):
        self.port, self.outcomes = free_port(), {}
        self.threads = [
            threading.Thread(target=self._hold, args=(number, rank, count, timeout))
            for number, rank in enumerate(ranks)
        ]

    def _hold(self, number: int, rank: int, count: int, timeout: float) -> None:
        try:
            rollcall.hold(f'127.0.0.1:{self.port}', count, rank, timeout)
            self.outcomes[number] = 'go'
        except UserError as error:
            self.outcomes[number] = f'{type(error).__name__}: {error}'

    def ended(self) -> list[str]:
        for thread in self.threads:
            thread.join(60)
        return [self.outcomes[number] for number in range(len(self.threads))]

    def start(self) -> 'Calls':
        for thread in self.threads:
            thread.start()
        return self


def test_all_are_there_in_any_order_and_the_port_is_free_again():
    calls = Calls((3, 1, 0, 2), 4)
    for thread in calls.threads:
        thread.start()
        time.sleep(0.05)
    assert calls.ended() == ['go'] * 4
    with socket.socket() as again:
        again.bind(('127.0.0.1', calls.port))


def test_who_is_missing_is_said_to_all():
    sentence = (
        'PeerError: Processes 1, 4 of 5 did not start within 3 s: look at their output, or raise '
        'config.distributed_timeout.'
    )
    assert Calls((0, 2, 3), 5, timeout=3.0).start().ended() == [sentence] * 3


@pytest.mark.parametrize(
    ('greeting', 'sentence'),
    [
        (
            '2 3',
            'Two processes have the number 2 of 3: start each with a number of its own.',
        ),
        (
            '1 4',
            'Process 1 was started as one of 4 processes, and process 0 as one of 3: start all of '
            'them with the same number.',
        ),
    ],
)
def test_who_cannot_be_right_is_told_so_and_the_others_who_is_missing(greeting, sentence):
    calls = Calls((0,), 3, timeout=3.0).start()
    with connected(calls.port) as right:
        right.sendall(b'functional-cnn 2 3\n')
        answer = answer_of_process_0(calls.port, f'functional-cnn {greeting}\n'.encode())
        assert answer == f'{sentence}\n'
        last = right.makefile().readline().strip()
    assert last.startswith('Process 1 of 3 did not start within 3 s: look at its output, or raise')
    assert last.endswith(sentence)
    assert calls.ended() == [f'PeerError: {last}']


@pytest.mark.slow
def test_one_that_went_away_again_is_missing():
    calls = Calls((0,), 3, timeout=3.0).start()
    with connected(calls.port) as connection:
        connection.sendall(b'functional-cnn 1 3\n')
    with pytest.raises(PeerError, match='Process 1 of 3 did not start within 3 s'):
        rollcall.hold(f'127.0.0.1:{calls.port}', 3, 2, 3.0)
    assert 'Process 1 of 3 did not start' in calls.ended()[0]


def connected(port: int) -> socket.socket:
    """A connection to a process 0 that may not listen yet."""
    end = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(('127.0.0.1', port))
        except ConnectionRefusedError:
            assert time.monotonic() < end


def answer_of_process_0(port: int, greeting: bytes) -> str:
    with connected(port) as connection:
        connection.sendall(greeting)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile().read()


def test_nobody_to_call_them():
    port = free_port()
    with pytest.raises(PeerError, match=rf'could not reach process 0 at 127.0.0.1:{port} within'):
        rollcall.hold(f'127.0.0.1:{port}', 2, 1, 0.5)


def test_a_port_in_use_is_the_users_to_mend():
    with socket.create_server(('', 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f'cannot listen on port {port}'):
            rollcall.hold(f'127.0.0.1:{port}', 2, 0, 0.5)


def test_a_port_that_an_earlier_job_still_holds_is_waited_for():
    calls = Calls((0, 1), 2)
    with socket.create_server(('', calls.port)):
        calls.threads[0].start()
        time.sleep(0.5)
        assert calls.threads[0].is_alive()
    calls.threads[1].start()
    assert calls.ended() == ['go', 'go']


def test_strangers_on_the_port_count_for_nothing():
    calls = Calls((0,), 2)
    calls.start()
    requests = b'GET / HTTP/1.1\r\n\r\n', b'functional-cnn 2 2\n', b'functional-cnn x 2\n', b''
    for request in requests:
        assert answer_of_process_0(calls.port, request) == ''
    rollcall.hold(f'127.0.0.1:{calls.port}', 2, 1, 20.0)
    assert calls.ended() == ['go']
