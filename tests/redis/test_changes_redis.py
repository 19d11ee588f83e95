"""Changes of plans in a Redis: on all machines within seconds, and there after everything was restarted."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta

import pytest
from flask import Flask
from redis_servers import PATIENCE, free_port, wait_until
from redis_stores import store_at

from flask_ailimit import AILimiter
from flask_ailimit.engine import StoreError
from flask_ailimit.engine.quota import NANO

KEY = "ailimit:{}:changes"
SOON = 5.0
"""Seconds within which a change is in force everywhere."""

HOUR = timedelta(hours=1)


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
limiter = AILimiter(app=app, plans="plans.toml", storage_uri="URI", storage_options={"timeout": 3}, secret="x" * 32)


@limiter.identify
def who():
    user = request.args["user"]
    return Caller(user=Payer(user, plan="paid" if user == "6" else None))


@app.get("/who")
def worker():
    return str(os.getpid())


@app.get("/")
@limiter.limit_by_plan()
def answer():
    quotas = {verdict.charge.quota.unit: verdict.charge.quota for verdict in limiter.decision.verdicts}
    if "nano_usd" in quotas:
        return {"credit": sum(grant.amount for grant in quotas["nano_usd"].credit)}
    return {"limit": quotas["requests"].limit}
"""

PLANS = """
default_plan = "free"

[plans.free]
requests = "100000 per minute"

[plans.pro]
requests = "700000 per minute"

[plans.paid]
budget = "10 USD per calendar month"
unknown_price = "free"

[prices."large-*"]
input = "1 USD"
output = "1 USD"
"""

WORKERS = 4
"""Of each server."""


class Gunicorn:
    """A server of several workers, on a machine of its own as far as it can tell."""

    def __init__(self, folder, name):
        self.port = free_port()
        self._connections = []
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
            str(WORKERS),
            "--threads",
            "2",
            "--keep-alive",
            str(2 * PATIENCE),
            "--bind",
            f"127.0.0.1:{self.port}",
        ]
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environ, stdout=log, stderr=log, start_new_session=True
            )

    def workers(self):
        """Wait for all workers; a connection to each, which it keeps open."""
        found = {}

        def all_found():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            self._connections.append(connection)
            with suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/who")
                found.setdefault(connection.getresponse().read(), connection)
            return len(found) == WORKERS

        wait_until(all_found)
        return [*found.values()]

    def kill(self):
        """``kill -9`` to all of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        for connection in self._connections:
            connection.close()


@contextmanager
def two_servers(folder):
    """Their workers."""
    servers = [Gunicorn(folder, name) for name in ("first", "second")]
    try:
        yield [worker for server in servers for worker in server.workers()]
    finally:
        for server in servers:
            server.kill()


def ask(worker, user):
    """The status, and the body."""
    worker.request("GET", f"/?user={user}")
    answer = worker.getresponse()
    return answer.status, json.loads(answer.read())


def known_by_all(workers, expected):
    """Ask until each worker answers as expected, and say when it was so.

    Args:
        workers: Those of all servers.
        expected: By user, the limit, the credit of one with a budget, or the status of a refusal.
    """
    to_ask, known = {user: [*workers] for user in expected}, {}

    def is_other(worker, user):
        status, body = ask(worker, user)
        return body.get("limit", body.get("credit", status)) != expected[user]

    def all_know():
        for user in expected.keys() - known.keys():
            to_ask[user] = [worker for worker in to_ask[user] if is_other(worker, user)]
            if not to_ask[user]:
                known[user] = time.monotonic()
        return len(known) == len(expected)

    wait_until(all_know)
    return known


def seconds_to(workers, changes):
    """Make changes, each for another user, and answer after how long each was in force on all workers.

    Args:
        workers: Those of all servers.
        changes: By user, what makes the change, and what is expected then.
    """
    began = {}
    for user, (make, _) in changes.items():
        began[user] = time.monotonic()
        make()
    known = known_by_all(workers, {user: expected for user, (_, expected) in changes.items()})
    return {user: known[user] - began[user] for user in changes}


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


@pytest.fixture
def folder(tmp_path):
    """Makes a folder with an app, which counts in a server, and its plans."""

    def make(uri):
        (tmp_path / "live_shop.py").write_text(APP.replace("URI", uri))
        write_plans(tmp_path, PLANS)
        return tmp_path

    return make


def write_plans(place, plans):
    """In one step: a worker that starts may read the file."""
    (place / "plans.new").write_text(plans)
    (place / "plans.new").rename(place / "plans.toml")


@contextmanager
def office(place, uri):
    """What changes plans, in a process beside all workers."""
    app = Flask("office", root_path=str(place), static_folder=None)
    limiter = AILimiter(app=app, plans="plans.toml", storage_uri=uri, storage_options={"timeout": 3}, secret="x" * 32)
    limiter.identify(lambda: None)
    with closing(limiter.engine):
        yield limiter.admin


@pytest.mark.server
def test_change_of_each_kind_is_in_force_on_all_workers_within_seconds_and_after_every_restart(new_server, folder):
    redis = new_server("--appendonly", "yes", "--appendfsync", "always")
    place = folder(redis.uri)
    why, free = {"reason": "a test", "by": "ann"}, {"plan": "free", "reason": "a test", "by": "ann"}
    with two_servers(place) as workers, office(place, redis.uri) as admin:
        known_by_all(workers, {**dict.fromkeys("12345", 100_000), "6": 0})
        first = seconds_to(
            workers,
            {
                "1": (lambda: admin.raise_limit("user:1", "requests", "200000 per minute", **free), 200_000),
                "2": (lambda: admin.lower_limit("user:2", "requests", "50000 per minute", **free), 50_000),
                "3": (lambda: admin.boost("user:3", "requests", "900000 per minute", until=HOUR, **why), 900_000),
                "4": (lambda: admin.move("user:4", "pro", **why), 700_000),
                "5": (lambda: admin.suspend("user:5", **why), 403),
                "6": (lambda: admin.credit("user:6", "20 USD", **why), 20 * NANO),
            },
        )
        write_plans(place, PLANS.replace("700000", "800000"))
        then = seconds_to(
            workers,
            {
                "1": (lambda: admin.undo(1, **why), 100_000),
                "2": (lambda: admin.forget("user:2", **why), 100_000),
                "4": (lambda: admin.reload(**why), 800_000),
                "5": (lambda: admin.resume("user:5", **why), 100_000),
            },
        )
        assert max(*first.values(), *then.values()) <= SOON, (first, then)
        said = command(place, "suspend", "user:7", "--tell", "Call us.", "--reason", "fraud", "--by", "ann")
        assert said == "Change 11: suspend user:7: from not suspended to suspended: Call us.\n"
        known_by_all(workers, {"7": 403, "8": 100_000})
        assert ask(workers[0], "7")[1]["error"]["message"] == "Call us."
        # While Redis is away, what is known holds.
        redis.kill()
        known_by_all(workers, {"7": 403, "3": 900_000})
        assert [ask(worker, "6")[0] for worker in workers] == [503] * WORKERS * 2  # Nobody knows what is spent.
    redis.restart()
    with two_servers(place) as workers:
        assert [ask(worker, "7")[0] for worker in workers] == [403] * WORKERS * 2
        known_by_all(workers, {"1": 100_000, "3": 900_000, "4": 800_000, "6": 20 * NANO, "7": 403, "8": 100_000})
        command(place, "undo", "6", "--reason", "a mistake", "--by", "ann")
        command(place, "undo", "11", "--reason", "a mistake", "--by", "ann")
        known_by_all(workers, {"6": 0, "7": 100_000})
