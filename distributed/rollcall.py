"""The roll call before several processes connect, which names the processes that are missing.

When a process waits in vain, JAX's own connection aborts it without naming the missing one. Process
0 therefore first listens on the coordinator's port itself until all other processes have reported;
then it frees the port for JAX's service, where nobody has to wait any more.
"""

import socket
import time

from errors import PeerError, UserError

GREETING = 'functional-cnn'
RETRY_PAUSE = 0.2  # seconds between two attempts to reach process 0, or to listen on the port
# Seconds for which the port may still be in use, for instance by the earlier run of a requeued job.
PORT_TIMEOUT = 30.0
MOST_LISTED = 20  # processes in a message
GREETING_TIMEOUT = 5.0  # seconds in which a new connection has to send its greeting


def hold(address: str, count: int, rank: int, timeout: float) -> float:
    """Waits until all processes have reported; returns the seconds that are left.

    Args:
      address: 'host:port' of process 0, as the others reach it.
      count: the number of processes.
      rank: the number of this process.
      timeout: seconds to wait.

    Raises:
      PeerError: some processes did not report in time, or process 0 cannot be reached; the message
        has their numbers.
      UserError: the port is in use.
    """
    host, _, port = address.rpartition(':')
    end = time.monotonic() + timeout
    if rank == 0:
        _call(int(port), count, timeout, end)
    else:
        _report((host.strip('[]'), int(port)), count, rank, timeout, end)
    return end - time.monotonic()


def _call(port: int, count: int, timeout: float, end: float) -> None:
    """Process 0: waits for the others, then sends each of them the outcome.

    The connections stay open until then: a connection that closes is a process that has died.
    """
    present: dict[int, socket.socket] = {}
    refusal = ''
    try:
        with _listen(port, min(end, time.monotonic() + PORT_TIMEOUT)) as server:
            while _find_missing(present, count) and (left := end - time.monotonic()) > 0:
                server.settimeout(left)
                try:
                    connection = server.accept()[0]
                except TimeoutError:
                    break
                refusal = _admit(connection, present, count) or refusal
        # The server is closed before the outcome is sent, because a process that has received 'go'
        # connects to JAX's service on the same port.
        problem = ''
        if missing := _find_missing(present, count):
            problem = f'{describe_missing(missing, count, timeout)} {refusal}'.strip()
        for connection in present.values():
            _send(connection, problem or 'go')
        if problem:
            raise PeerError(problem)
    finally:
        for connection in present.values():
            connection.close()


def _admit(connection: socket.socket, present: dict[int, socket.socket], count: int) -> str:
    """Adds a process to those present, or sends it the reason why it is refused.

    Returns:
      the reason, or '' for a process that was added or a connection of another program.
    """
    rank, claimed_count = _read_greeting(connection)
    problem = ''
    if claimed_count and claimed_count != count:
        problem = (
            f'Process {rank} was started as one of {claimed_count} processes, and process 0 as one '
            f'of {count}: start all of them with the same number.'
        )
    elif rank in present and _is_open(present[rank]):
        problem = (
            f'Two processes have the number {rank} of {count}: start each with a number of its own.'
        )
    elif 0 < rank < count:
        present[rank] = connection
        return ''
    if problem:
        _send(connection, problem)
    connection.close()  # another program's connection is closed without an answer
    return problem


def _find_missing(present: dict[int, socket.socket], count: int) -> list[int]:
    """Returns the processes that are not present; first drops those that closed the connection."""
    for rank in [rank for rank, connection in present.items() if not _is_open(connection)]:
        present.pop(rank).close()
    return [rank for rank in range(1, count) if rank not in present]


def describe_missing(missing: list[int], count: int, timeout: float) -> str:
    """Returns the error message about processes that did not report."""
    one = len(missing) == 1
    listed = ', '.join(map(str, missing[:MOST_LISTED]))
    if len(missing) > MOST_LISTED:
        listed += f' and {len(missing) - MOST_LISTED} more'
    return (
        f'Process{"" if one else "es"} {listed} of {count} did not start '
        f'within {timeout:g} s: look at {"its" if one else "their"} output, or raise '
        'config.distributed_timeout.'
    )


def _listen(port: int, end: float) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    while True:
        try:
            return socket.create_server(('', port), family=family, dualstack_ipv6=both)
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f'Process 0 cannot listen on port {port}, where the others look for it: '
                    f'{error.strerror}. Choose another port, or end the program that uses it.'
                ) from error
        time.sleep(RETRY_PAUSE)


def _read_greeting(connection: socket.socket) -> tuple[int, int]:
    """Returns the process number and count of a greeting, or zeros for another program's."""
    connection.settimeout(GREETING_TIMEOUT)
    try:
        words = connection.recv(64).decode('ascii', 'replace').split()
    except OSError:
        return 0, 0
    if len(words) != 3 or words[0] != GREETING or not (words[1] + words[2]).isdigit():
        return 0, 0
    return int(words[1]), int(words[2])


def _is_open(connection: socket.socket) -> bool:
    """Whether the other end still has the connection open; it sends nothing after its greeting."""
    connection.setblocking(False)
    try:
        return connection.recv(1) != b''
    except BlockingIOError:
        return True
    except OSError:
        return False


def _send(connection: socket.socket, text: str) -> None:
    """Sends the outcome, then waits for the other end to close the connection first.

    The side that closes first keeps its port in use for a while (TIME_WAIT), and JAX's service
    needs the port of process 0 at once.
    """
    connection.settimeout(GREETING_TIMEOUT)
    try:
        connection.sendall(f'{text}\n'.encode())
        connection.recv(1)
    except OSError:
        pass  # the other process is gone; JAX's connection will notice


def _report(address: tuple[str, int], count: int, rank: int, timeout: float, end: float) -> None:
    """Any other process: reports to process 0, and waits until that has sent the outcome."""
    problem = 'nothing listens there'
    while (left := end - time.monotonic()) > 0:
        try:
            connect_timeout = min(left, GREETING_TIMEOUT)
            with socket.create_connection(address, timeout=connect_timeout) as connection:
                connection.sendall(f'{GREETING} {rank} {count}\n'.encode())
                # Process 0 may have started later than this process, and then waits for longer.
                connection.settimeout(timeout + GREETING_TIMEOUT)
                answer = connection.makefile().readline().strip()
        except (OSError, UnicodeDecodeError) as error:
            problem = getattr(error, 'strerror', None) or str(error)
            answer = ''
        if answer == 'go':
            return
        if answer.startswith(('Process', 'Two')):
            raise PeerError(answer)
        # Nobody listens yet, or a process of an earlier job still does.
        time.sleep(RETRY_PAUSE)
    raise PeerError(
        f'Process {rank} of {count} could not reach process 0 at {address[0]}:{address[1]} within '
        f'{timeout:g} s: {problem}. Check that it has started, and that this machine can resolve '
        'the name.'
    )
