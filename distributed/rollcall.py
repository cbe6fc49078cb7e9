"""The roll call before several processes connect: who is missing is said by number.

JAX's own connection ends a process that waits in vain by an abort that names nobody. So process 0
first listens on the coordinator's port itself, until all others have said that they are there; then
it gives the port to JAX's service, on which nobody has to wait any more.
"""

import socket
import time

from errors import PeerError, UserError

GREETING = 'functional-cnn'
PAUSE = 0.2  # seconds between two attempts to reach process 0
RELEASE = 30.0  # seconds in which a job that was queued again may find its port still in use
PATIENCE = 5.0  # seconds for a stranger's connection to say what it wants


def hold(address: str, count: int, rank: int, timeout: float) -> float:
    """Returns when all processes are there: the seconds that are left.

    Args:
      address: 'host:port' of process 0, as the others reach it.
      count: of processes.
      rank: this process's number.
      timeout: seconds to wait.

    Raises:
      PeerError: some did not come in time, named by number; or process 0 cannot be reached.
      UserError: the port is in use.
    """
    host, _, port = address.rpartition(':')
    end = time.monotonic() + timeout
    if rank == 0:
        _call(int(port), count, timeout, end)
    else:
        _answer((host.strip('[]'), int(port)), count, rank, timeout, end)
    return end - time.monotonic()


def _call(port: int, count: int, timeout: float, end: float) -> None:
    """Process 0: waits for the others, and tells them the outcome."""
    here: dict[int, socket.socket] = {}
    refused = ''
    try:
        with _server(port, min(end, time.monotonic() + RELEASE)) as server:
            while _missing(here, count) and (left := end - time.monotonic()) > 0:
                server.settimeout(left)
                try:
                    connection = server.accept()[0]
                except TimeoutError:
                    break
                refused = _admit(connection, here, count) or refused
        problem = ''
        if missing := _missing(here, count):
            problem = f'{absent(missing, count, timeout)} {refused}'.strip()
        for connection in here.values():
            _tell(connection, problem or 'go')
        if problem:
            raise PeerError(problem)
    finally:
        for connection in here.values():
            connection.close()


def _admit(connection: socket.socket, here: dict[int, socket.socket], count: int) -> str:
    """Counts a process in; one that cannot be right is told why, and so is the caller."""
    rank, said = _greeted(connection)
    problem = ''
    if said and said != count:
        problem = (
            f'Process {rank} was started as one of {said} processes, and process 0 as one of '
            f'{count}: start all of them alike.'
        )
    elif rank in here and _open(here[rank]):
        problem = f'Two processes say that they are number {rank} of {count}.'
    elif 0 < rank < count:
        here[rank] = connection
        return ''
    if problem:
        _tell(connection, problem)
    connection.close()  # a stranger's without a word
    return problem


def _missing(here: dict[int, socket.socket], count: int) -> list[int]:
    """Who is not there, or not any more; drops the latter's connections."""
    for rank in [rank for rank, connection in here.items() if not _open(connection)]:
        here.pop(rank).close()
    return [rank for rank in range(1, count) if rank not in here]


def absent(missing: list[int], count: int, timeout: float) -> str:
    """Returns the sentence about processes that did not come."""
    one = len(missing) == 1
    return (
        f'Process{"" if one else "es"} {", ".join(map(str, missing))} of {count} did not start '
        f'within {timeout:g} s: look at {"its" if one else "their"} output, or raise '
        'config.distributed_timeout.'
    )


def _server(port: int, end: float) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    while True:
        try:
            return socket.create_server(('', port), family=family, dualstack_ipv6=both)
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f'Process 0 cannot listen on port {port}, where the others look for it: '
                    f'{error.strerror}. Choose another port, or end what uses it.'
                ) from error
        time.sleep(PAUSE)


def _greeted(connection: socket.socket) -> tuple[int, int]:
    """The number that a connection gives as its own, and of how many; zeros for a stranger."""
    connection.settimeout(PATIENCE)
    try:
        words = connection.recv(64).decode('ascii', 'replace').split()
    except OSError:
        return 0, 0
    if len(words) != 3 or words[0] != GREETING or not (words[1] + words[2]).isdigit():
        return 0, 0
    return int(words[1]), int(words[2])


def _open(connection: socket.socket) -> bool:
    """Whether the other end is still there; it says nothing after its greeting."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b''
    except BlockingIOError:
        return True
    except OSError:
        return False


def _tell(connection: socket.socket, text: str) -> None:
    """Sends the outcome, and lets the other end close first: that leaves the port free here."""
    connection.settimeout(PATIENCE)
    try:
        connection.sendall(f'{text}\n'.encode())
        connection.recv(1)
    except OSError:
        pass  # it has gone; JAX's connection will notice


def _answer(place: tuple[str, int], count: int, rank: int, timeout: float, end: float) -> None:
    """Another process: says that it is there, until process 0 has said the outcome."""
    problem = 'nothing listens there'
    while (left := end - time.monotonic()) > 0:
        try:
            with socket.create_connection(place, timeout=min(left, PATIENCE)) as connection:
                connection.sendall(f'{GREETING} {rank} {count}\n'.encode())
                # Process 0 may have begun to wait later than this one, so it ends later, too.
                connection.settimeout(timeout + PATIENCE)
                answer = connection.makefile().readline().strip()
        except (OSError, UnicodeDecodeError) as error:
            problem = getattr(error, 'strerror', None) or str(error)
            answer = ''
        if answer == 'go':
            return
        if answer.startswith(('Process', 'Two')):
            raise PeerError(answer)
        time.sleep(PAUSE)  # nobody yet, or the remains of an earlier job on that port
    raise PeerError(
        f'Process {rank} of {count} could not reach process 0 at {place[0]}:{place[1]} within '
        f'{timeout:g} s: {problem}. Has it started, and is the name known on this machine?'
    )
