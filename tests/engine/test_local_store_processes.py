"""Processes that die, or stop, in the middle."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest
from flask import Flask

from flask_ailimit import AILimiter
from flask_ailimit.engine.errors import AwayError, StoreError
from flask_ailimit.engine.stores import file_lock
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.testing import ManualClock, charge, remaining, reserve

DECIDES = """
import sys
from pathlib import Path
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.testing import ManualClock, charge, reserve

class StopsInside(LocalStore):
    def transaction(self):
        return Inside(super().transaction())

class Inside:
    def __init__(self, transaction):
        self.transaction = transaction
    def __enter__(self):
        return self.transaction.__enter__()
    def __exit__(self, *error):
        print("written, not committed", flush=True)
        sys.stdin.read()
        return self.transaction.__exit__(*error)

reserve(StopsInside(Path(sys.argv[1]), clock=ManualClock()), charge(7))
print("committed", flush=True)
"""

PATHS = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture
def store(tmp_path):
    store = LocalStore(tmp_path / "limits", clock=ManualClock())
    store.secret()
    reserve(store, charge(1))
    yield store
    store.close()


@pytest.fixture
def inside(store):
    """Another process that has written its decision, and not committed it."""
    process = subprocess.Popen(
        [sys.executable, "-c", DECIDES, store.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=PATHS
    )
    assert process.stdout.readline() == "written, not committed\n"
    yield process
    process.communicate()


def test_process_killed_inside_its_decision_took_nothing_and_holds_nobody_up(store, inside):
    inside.kill()
    assert inside.wait() == -signal.SIGKILL
    start = time.monotonic()
    assert remaining(store, charge()) == [9]
    assert time.monotonic() - start < 10  # Milliseconds; but the machine may be busy.


def test_process_terminated_inside_its_decision_took_nothing(store, inside):
    inside.terminate()
    inside.wait()
    assert remaining(store, charge()) == [9]


def test_decision_that_another_process_is_in_the_middle_of_is_waited_for(store, inside):
    inside.stdin.close()
    with closing(LocalStore(store.path, clock=ManualClock(), lock_timeout=60)) as patient:
        assert remaining(patient, charge()) == [2]
    assert inside.stdout.readline() == "committed\n"
    inside.stdin = None


# A process that was stopped inside


@pytest.fixture
def stopped(inside):
    inside.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, inside.pid, os.WSTOPPED)
    yield inside
    inside.send_signal(signal.SIGCONT)


@pytest.fixture
def waits(monkeypatch):
    """The waits for the lock, in seconds of a clock that only they move."""
    waits = []
    monkeypatch.setattr(file_lock, "pause", waits.append)
    monkeypatch.setattr(file_lock, "seconds_running", lambda: sum(waits))
    return waits


def test_nobody_waits_for_a_stopped_process_longer_than_the_bound(store, stopped, waits):
    with pytest.raises(AwayError, match="kill -STOP"):
        reserve(store, charge(1))
    assert sum(waits) == pytest.approx(1, abs=0.002)


def test_once_somebody_has_waited_in_vain_the_others_hardly_wait(store, stopped, waits):
    """Else a queue of requests in one worker would wait a second each."""
    for _ in range(2):
        waits.clear()
        with pytest.raises(AwayError):
            reserve(store, charge(1))
    assert sum(waits) == pytest.approx(0.01, abs=0.002)


def test_bound_is_configurable(store, stopped, waits):
    with closing(LocalStore(store.path, clock=ManualClock(), lock_timeout=0.2)) as other, pytest.raises(AwayError):
        reserve(other, charge(1))
    assert sum(waits) == pytest.approx(0.2, abs=0.002)


def test_nothing_is_charged_twice_and_all_go_on_after_sigcont(store, stopped, waits):
    for _ in range(3):
        with pytest.raises(StoreError):
            reserve(store, charge(1))
    stopped.send_signal(signal.SIGCONT)
    stopped.stdin.close()
    assert stopped.stdout.readline() == "committed\n"
    stopped.stdin = None
    assert reserve(store, charge(1)).allowed
    assert remaining(store, charge()) == [10 - 1 - 7 - 1]


def test_stopped_process_that_is_killed_holds_nobody_up(store, stopped, waits):
    with pytest.raises(StoreError):
        reserve(store, charge(1))
    stopped.kill()
    stopped.wait()
    assert remaining(store, charge()) == [9]


def test_process_that_comes_while_another_is_stopped_is_told_so_and_gets_in_afterwards(store, stopped, waits):
    reserves = "reserve(LocalStore(Path(sys.argv[1]), clock=ManualClock(), lock_timeout=0.01), charge(1))"
    newcomer = [sys.executable, "-c", DECIDES.partition("class")[0] + reserves, store.path]
    ran = subprocess.run(newcomer, env=PATHS, capture_output=True, text=True, check=False)
    assert "AwayError" in ran.stderr
    stopped.kill()
    stopped.wait()
    subprocess.run(newcomer, env=PATHS, check=True)


def test_app_starts_while_another_process_is_stopped(store, stopped, waits):
    store.secret()
    store.introduce("0" * 32, "shop")


@pytest.mark.parametrize(("policy", "statuses"), [("deny", [503, 503]), ("allow", [200, 200])])
def test_policy_of_the_app_holds_while_another_process_is_stopped(store, stopped, waits, policy, statuses):
    app = Flask("shop")
    limiter = AILimiter(lambda: "user-1", app=app, storage_uri=f"local://{store.path}", on_store_error=policy)
    app.add_url_rule("/limited", "limited", limiter.limit("5 per minute")(lambda: "done"))
    app.add_url_rule("/free", "free", lambda: "done")
    client = app.test_client()
    waits.clear()
    assert [client.get("/limited").status_code for _ in statuses] == statuses
    assert client.get("/free").status_code == 200
    assert sum(waits) < 1.1
    limiter.engine.close()
