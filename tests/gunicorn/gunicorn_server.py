"""A real gunicorn, on a socket that the test has bound: no port is guessed, and nothing waits for a fixed time."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from gunicorn_books import PATIENCE, Books, wait_for
from gunicorn_client import Call

HERE = Path(__file__).parent
THREADS = 4


class Server:
    """A running gunicorn.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        worker_class: As gunicorn names it.
        process: The arbiter.
        books: What its store says.
        directory: Where it keeps what it keeps.
    """

    def __init__(self, port, worker_class, process, directory, **options):
        self.port = port
        self.worker_class = worker_class
        self.process = process
        self.books = Books(directory, **options)
        self.directory = directory
        self._calls = []

    def call(self, path, key="anybody", **options):
        """Send a request; see :class:`gunicorn_client.Call`."""
        call = Call(self.port, path, key, **options)
        self._calls.append(call)
        return call

    def state(self):
        """What a worker says of itself."""
        return json.loads(self.call("/ready", method="GET").rest())

    def workers(self):
        """Process numbers of the workers that have ever begun to serve."""
        return [int(entry.name) for entry in (self.directory / "workers").iterdir()]

    def wait_for_workers(self, count):
        """Wait until so many workers have begun to serve."""

        def begun():
            assert self.process.poll() is None, "gunicorn ended"
            return self.workers()

        return wait_for(begun, lambda workers: len(workers) >= count)

    def log(self, since=0):
        """What it said on standard error."""
        return (self.directory / "log").read_text()[since:]

    def hang_up(self):
        """Close every call that is still open."""
        while self._calls:
            self._calls.pop().leave()


@contextmanager
def serving(directory, worker_class, *arguments, workers=2, threads=THREADS, environ=(), **options):
    """Serve ``gunicorn_app`` until the context ends. ``options`` are those of its ``create_app``."""
    given = ", ".join(f"{name}={value!r}" for name, value in {"directory": str(directory), **options}.items())
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    command = [sys.executable, "-m", "gunicorn", f"gunicorn_app:create_app({given})"]
    command += ["--config", "gunicorn_settings.py", "--bind", f"fd://{listener.fileno()}", *arguments]
    command += ["--worker-class", worker_class, "--workers", str(workers)]
    if worker_class == "gthread":
        command += ["--threads", str(threads)]
    (directory / "workers").mkdir()
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # The package that this process tests.
        "WORKERS_THAT_SERVE": str(directory / "workers"),
        **dict(environ),
    }
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=HERE,
            env=environ,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    port = listener.getsockname()[1]
    listener.close()  # The server's own now: if it ends, so do the calls that wait for it.
    of_store = {name: value for name, value in options.items() if name not in ("upstream_port", "settling_takes")}
    server = Server(port, worker_class, process, directory, **of_store)
    try:
        server.wait_for_workers(workers)
        yield server
    except BaseException:
        print(f"--- {worker_class} said:\n{server.log()[-10_000:]}")  # noqa: T201  pytest shows it
        raise
    finally:
        server.hang_up()
        end_session(process)
        server.books.close()


def end_session(process):
    """End the arbiter and its workers; the session is theirs alone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
