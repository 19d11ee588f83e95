"""A real gunicorn, and a load that comes over kept connections from processes of its own."""

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from requests_to import bodies

HERE = Path(__file__).parent
PATIENCE = 30

_FORK = get_context("fork")


@dataclass(frozen=True)
class Server:
    """A running gunicorn.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        arbiter: Its process, the parent of the workers.
    """

    port: int
    arbiter: int

    @property
    def workers(self) -> list[int]:
        """The workers' processes."""
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                if int(status.read_text().rpartition(")")[2].split()[1]) == self.arbiter:
                    found.append(int(status.parent.name))
        return found

    def memory(self) -> float:
        """Megabytes that a worker keeps in memory, on average, those included that it shares with the arbiter."""
        lines = [line for pid in self.workers for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        kept = [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")]
        return sum(kept) / len(kept)


@contextmanager
def serving(
    apps: Mapping[str, str],
    *,
    workers: int,
    threads: int = 4,
    module: str = "limited_flask",
    answers: Callable[[int], object] | None = None,
) -> Iterator[dict[str, Server]]:
    """Serve apps, each under its own gunicorn, until the context ends.

    When this begins each has answered once.

    Args:
        apps: How each is made, such as ``bare()``, by its name.
        workers: Of each, of class gthread.
        threads: Of each worker.
        module: Where they are.
        answers: Is called with a port and raises if no answer comes; :func:`ask_once` if not given.
    """
    started: dict[str, tuple[int, subprocess.Popen[bytes]]] = {}
    try:
        for name, app in apps.items():
            started[name] = _start(f"{module}:{app}", workers, threads)
        for port, _ in started.values():
            (answers or ask_once)(port)
        yield {name: Server(port, process.pid) for name, (port, process) in started.items()}
    finally:
        for _, process in started.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


def _start(app: str, workers: int, threads: int) -> tuple[int, "subprocess.Popen[bytes]"]:
    # The socket is bound here, so no port is guessed, and a client that comes too early waits.
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    command = [sys.executable, "-m", "gunicorn", app, "--bind", f"fd://{listener.fileno()}"]
    command += ["--worker-class", "gthread", "--workers", str(workers), "--threads", str(threads)]
    command += ["--keep-alive", "60", "--log-level", "error", "--no-control-socket"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        command, cwd=HERE, env=environ, pass_fds=[listener.fileno()], start_new_session=True, stdin=subprocess.DEVNULL
    )
    port = listener.getsockname()[1]
    listener.close()
    return port, process


def ask_once(port: int) -> None:
    """Wait for an answer.

    Raises:
        RuntimeError: It was not 200.
    """
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(_request("/predict", 0, next(iter(bodies()))))
        answer = client.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"gunicorn answered {answer[:60]!r}.")


def load(port: int, path: str, seconds: float, *, processes: int, connections: int) -> float:
    """Requests a second that a server answers, each connection sending the next one when the answer has come.

    Raises:
        RuntimeError: An answer was not 200, or a connection broke.
    """
    told = _FORK.SimpleQueue()
    senders = [
        _FORK.Process(target=_send, args=(port, path, seconds, connections, number, told))
        for number in range(processes)
    ]
    for sender in senders:
        sender.start()
    answers = [told.get() for _ in senders]
    for sender in senders:
        sender.join()
    for answer in answers:
        if isinstance(answer, str):
            raise RuntimeError(answer)  # noqa: TRY004  it is what the sender said
    return sum(answers)


def _send(port: int, path: str, seconds: float, connections: int, number: int, told: object) -> None:
    try:
        told.put(_rate(port, path, seconds, connections, number))
    except Exception as error:  # noqa: BLE001  the other process raises it
        told.put(f"{type(error).__name__}: {error}")


def _rate(port: int, path: str, seconds: float, connections: int, number: int) -> float:
    waiting, body = selectors.DefaultSelector(), next(iter(bodies()))
    for each in range(connections):
        client = socket.create_connection(("127.0.0.1", port), PATIENCE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = _request(path, number * connections + each, body)
        waiting.register(client, selectors.EVENT_READ, request)
        client.sendall(request)
    answered, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for ready, _ in waiting.select(1):
            answer = ready.fileobj.recv(65536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"Under load gunicorn answered {answer[:60]!r}.")
            while not _complete(answer):
                answer += ready.fileobj.recv(65536)
            answered += 1
            ready.fileobj.sendall(ready.data)
    rate = answered / (time.perf_counter() - start)
    for ready in [*waiting.get_map().values()]:
        ready.fileobj.close()
    return rate


def _complete(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    at = head.lower().index(b"content-length:") + len(b"content-length:")
    return len(body) >= int(head[at:].split(b"\r\n", 1)[0])


def _request(path: str, user: int, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer key-{user}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
