"""Changes of plans in a Redis: on all machines within seconds, and there after everything was restarted."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest
from redis_servers import PATIENCE, free_port, wait_until
from redis_stores import store_at

from flask_ailimit.engine import StoreError

KEY = "ailimit:{}:changes"
SOON = 5.0
"""Seconds within which a change is in force everywhere."""


@pytest.fixture
def opened():
    """Opens stores, which are closed at the end."""
    with ExitStack() as ending:

        def open_one(uri, **options):
            store = store_at(uri, **options)
            ending.callback(store.close)
            return store

        yield open_one


def test_changes_never_expire_and_are_in_one_key(server, opened):
    opened(server.uri).add_change('{"a":1}', 0)
    assert server.ask("TTL", KEY) == -1
    assert server.ask("ZRANGE", KEY, 0, -1) == [b'1 {"a":1}']
    assert server.ask("DBSIZE") == 1


def test_other_prefix_has_other_changes(server, opened):
    opened(server.uri).add_change('{"a":1}', 0)
    assert opened(server.uri, prefix="other").changes_from(1) == []


def test_something_else_under_the_key_is_an_error_and_stays(server, opened):
    server.ask("SET", KEY, "mine")
    store = opened(server.uri)
    for ask in (lambda: store.changes_from(1), lambda: store.add_change("{}", 0)):
        with pytest.raises(StoreError, match="WRONGTYPE"):
            ask()
    assert server.ask("GET", KEY) == b"mine"


def test_change_is_kept_when_the_memory_is_full(new_server, opened):
    server = new_server()
    store = opened(server.uri)
    store.changes_from(1)
    server.ask("CONFIG", "SET", "maxmemory", "1")
    assert store.add_change('{"a":1}', 0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "it saves nothing"),
        (("--appendonly", "yes"), None),
        (("--save", "60 1"), None),
    ],
)
def test_store_says_whether_a_restart_loses_changes(new_server, opened, options, says):
    found = opened(new_server(*options).uri).may_lose_changes()
    assert (found and says in found and "appendonly yes" in found) or found is says is None


def test_store_says_nothing_of_what_it_may_not_see_or_can_not_ask(new_server, opened):
    server = new_server()
    server.ask("ACL", "SETUSER", "default", "-config")
    assert opened(server.uri).may_lose_changes() is None
    store = opened(server.uri)
    server.kill()
    assert store.may_lose_changes() is None


def test_cluster_says_that_changes_may_not_survive(cluster, opened):
    assert "may not survive a restart" in opened(cluster.uri).may_lose_changes()


# The whole way

APP = """
import os
from flask import Flask, request
from flask_ailimit import AILimiter, Caller, Payer

app = Flask(__name__)
plans = {"default_plan": "free", "plans": {"free": {"requests": "100000 per minute"}}}
limiter = AILimiter(app=app, plans=plans, storage_uri="URI", secret="x" * 32)


@limiter.identify
def who():
    return Caller(user=Payer(request.args["user"]))


@app.after_request
def say_who(response):
    response.headers["x-pid"] = str(os.getpid())
    return response


@app.get("/")
@limiter.limit_by_plan()
def answer():
    return {}
"""


class Gunicorn:
    """A server of two workers, on a machine of its own as far as it can tell."""

    def __init__(self, folder, name):
        self.port = free_port()
        self._log = folder / f"{name}.log"
        home = folder / name
        home.mkdir(exist_ok=True)
        paths = os.pathsep.join([str(folder), *filter(None, sys.path)])
        environ = {**os.environ, "PYTHONPATH": paths, "AILIMIT_STORES_DIRECTORY": str(home)}
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "live_shop:app",
            "--workers",
            "2",
            "--bind",
            f"127.0.0.1:{self.port}",
        ]
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True
            )

    def ask(self, user):
        """The process that answered, and the status; None if nobody did."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", f"/?user={user}")
            answer = connection.getresponse()
            return int(answer.headers["x-pid"]), answer.status, json.loads(answer.read())
        return None

    def kill(self):
        """``kill -9`` to all of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


@contextmanager
def two_servers(folder):
    servers = [Gunicorn(folder, name) for name in ("first", "second")]
    try:
        yield servers
    finally:
        for server in servers:
            server.kill()


def wait_for_all(servers, user, status):
    """Ask until both workers of each server have answered with this status last."""
    last = [{} for _ in servers]

    def everywhere():
        for server, seen in zip(servers, last, strict=True):
            answer = server.ask(user)
            if answer:
                seen[answer[0]] = answer[1]
        return all(len(seen) == 2 and set(seen.values()) == {status} for seen in last)

    wait_until(everywhere)


def command(folder, *arguments):
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}
    environ["AILIMIT_STORES_DIRECTORY"] = str(folder)
    ran = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "live_shop", "ailimit", *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.server
def test_change_is_in_force_on_all_workers_within_seconds_and_after_every_restart(new_server, tmp_path):
    redis = new_server("--appendonly", "yes", "--appendfsync", "always")
    (tmp_path / "live_shop.py").write_text(APP.replace("URI", redis.uri))
    with two_servers(tmp_path) as servers:
        wait_for_all(servers, "7", 200)
        said = command(tmp_path, "suspend", "user:7", "--tell", "Call us.", "--reason", "fraud", "--by", "ann")
        assert said == "Change 1: suspend user:7: from not suspended to suspended: Call us.\n"
        began = time.monotonic()
        wait_for_all(servers, "7", 403)
        assert time.monotonic() - began <= SOON
        assert servers[0].ask("7")[2]["error"]["message"] == "Call us."
        wait_for_all(servers, "8", 200)
        # While Redis is away, what is known holds.
        redis.kill()
        wait_for_all(servers, "7", 403)
    redis.restart()
    with two_servers(tmp_path) as servers:
        for server in servers:
            assert wait_until(lambda: server.ask("7"))[1] == 403  # noqa: B023  asked at once
        wait_for_all(servers, "8", 200)
        command(tmp_path, "undo", "1", "--reason", "a mistake", "--by", "ann")
        wait_for_all(servers, "7", 200)
