"""A process that hangs, dies or never comes ends the others, which say which one it is."""

import signal
import socket
import threading
import time

import pytest

from errors import PeerError, UserError
from tests.support import Several, free_port, last_step, outputs
from training import rollcall, watchdog
from training.watchdog import Sign

LIMITS = (30.0, 600.0)


def sign(reached: int, host: str = 'a', beats: int = 1) -> Sign:
    return Sign(beats, reached, f'step {reached}', host)


@pytest.mark.parametrize(
    ('signs', 'silent', 'waited', 'sentence'),
    [
        ([sign(3), sign(3), sign(3)], {1: 2.0, 2: 2.0}, 599.0, None),
        ([sign(3), sign(2, 'b')], {1: 1.0}, 599.0, None),
        (
            [sign(3), sign(2, 'b')],
            {1: 1.0},
            600.0,
            'Process 1 (b) did not arrive at step 3 within 600 s (config.distributed_timeout); '
            'last seen at step 2.',
        ),
        (
            [sign(4), sign(4), sign(1, 'c'), sign(2, 'd')],
            {1: 1.0, 2: 1.0, 3: 1.0},
            700.0,
            'Processes 2 (c), 3 (d) did not arrive at step 2 within 600 s '
            '(config.distributed_timeout); last seen at step 1, step 2.',
        ),
        (
            [sign(3), sign(3)],
            {1: 1.0},
            601.0,
            'All processes arrived at step 3, but it did not end within 600 s '
            '(config.distributed_timeout): a device or the network hangs.',
        ),
        # Dead ones need not be waited for, wherever they were.
        (
            [sign(3), sign(3), sign(3, 'c')],
            {1: 29.0, 2: 30.0},
            40.0,
            'Process 2 (c) no longer answers (killed, stopped, or its machine or network is gone); '
            'last seen at step 3.',
        ),
    ],
)
def test_who_is_to_blame(signs, silent, waited, sentence):
    points = {number: f'step {number}' for number in range(1, signs[0].reached + 1)}
    found = watchdog.verdict(dict(enumerate(signs)), silent, points, waited, LIMITS)
    assert found == sentence


class Calls:
    """Roll calls in threads of this process."""

    def __init__(self, ranks, count: int, timeout: float = 20.0):
        self.port, self.said = free_port(), {}
        self.threads = [
            threading.Thread(target=self._hold, args=(place, rank, count, timeout))
            for place, rank in enumerate(ranks)
        ]

    def _hold(self, place: int, rank: int, count: int, timeout: float) -> None:
        try:
            rollcall.hold(f'127.0.0.1:{self.port}', count, rank, timeout)
            self.said[place] = 'go'
        except UserError as error:
            self.said[place] = f'{type(error).__name__}: {error}'

    def ended(self) -> list[str]:
        for thread in self.threads:
            thread.join(60)
        return [self.said[place] for place in range(len(self.threads))]

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
        'PeerError: Processes 1, 4 of 5 did not start within 1 s: look at their output, or raise '
        'config.distributed_timeout.'
    )
    assert Calls((0, 2, 3), 5, timeout=1.0).start().ended() == [sentence] * 3


def test_a_number_that_is_given_twice():
    sentence = 'PeerError: Two processes say that they are number 1 of 3.'
    assert sentence in Calls((0, 1, 1), 3, timeout=3.0).start().ended()


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
    for words in (b'GET / HTTP/1.1\r\n\r\n', b'functional-cnn 1 3\n', b'functional-cnn 2 2\n', b''):
        end = time.monotonic() + 20
        while True:
            try:
                connection = socket.create_connection(('127.0.0.1', calls.port))
                break
            except ConnectionRefusedError:
                assert time.monotonic() < end
        with connection:
            connection.sendall(words)
            connection.shutdown(socket.SHUT_WR)
            assert connection.makefile('rb').read() == b''
    rollcall.hold(f'127.0.0.1:{calls.port}', 2, 1, 20.0)
    assert calls.ended() == ['go']


HANGING = """
import time
import train
from training import command, placement

original = placement.Placement.train_batches

def a_disk_that_does_not_answer():
    time.sleep(10_000)

def train_batches(self, *arguments):
    for number, batch in enumerate(original(self, *arguments)):
        if number == 4:
            a_disk_that_does_not_answer()
        yield batch

placement.Placement.train_batches = train_batches
command.run(train.main)
"""


def test_one_that_hangs_is_named_and_shows_where_it_is(small, tmp_path):
    fields = {'distributed_timeout': 4, 'log_every': 1}
    with Several(small, tmp_path / 'run', tmp_path / 'log', (None, HANGING), **fields) as children:
        assert [child.wait() for child in children] == [69, 69], outputs(children)
    sentence = (
        f'error: Process 1 ({socket.gethostname()}) did not arrive at step 5 within 4 s '
        '(config.distributed_timeout); last seen at '
    )
    assert all(sentence in child.output for child in children), outputs(children)
    assert 'Traceback' not in children[0].output
    assert 'in a_disk_that_does_not_answer' in children[1].output
    assert 'in a_disk_that_does_not_answer' not in children[0].output


@pytest.mark.parametrize(
    'number', [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.full)], ids=str
)
def test_one_that_is_killed_or_stopped_is_named_by_all_others(number, small, tmp_path):
    workdir, scripts = tmp_path / 'run', (None,) * 3
    fields = {'distributed_timeout': 10, 'steps': 100_000, 'log_every': 10, 'batch_size': 60}
    with Several(small, workdir, tmp_path / 'log', scripts, **fields) as children:
        assert children[0].wait_until(lambda: last_step(workdir) >= 10), outputs(children)
        children[2].process.send_signal(number)
        assert [child.wait() for child in children[:2]] == [69, 69], outputs(children)
    sentence = f'error: Process 2 ({socket.gethostname()}) no longer answers'
    assert all(sentence in child.output for child in children[:2]), outputs(children)
    assert not any('Traceback' in child.output for child in children[:2])


def test_one_that_never_starts_is_named(small, tmp_path):
    fields = {'distributed_timeout': 3}
    scripts = (None, Several.ABSENT, None)
    with Several(small, tmp_path / 'run', tmp_path / 'log', scripts, **fields) as children:
        assert [child.wait() for child in children] == [69, 69], outputs(children)
    for child in children:
        assert 'error: Process 1 of 3 did not start within 3 s: look at its' in child.output
        assert 'Traceback' not in child.output


FAILING = """
import train
from training import command, loop

def fetch(*arguments):
    raise KeyError('a defect')

loop.Loop._collect = fetch
command.run(train.main)
"""


def test_a_defect_of_one_is_told_to_the_other_at_once(small, tmp_path):
    with Several(small, tmp_path / 'run', tmp_path / 'log', (None, FAILING)) as children:
        assert [child.wait() for child in children] == [1, 1], outputs(children)
    sentence = "error: Process 1 has failed: KeyError: 'a defect'"
    assert all(sentence in child.output for child in children), outputs(children)
    assert 'Traceback' in children[1].output
    assert 'Traceback' not in children[0].output
