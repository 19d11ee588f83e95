"""Processes that die, or stop, in the middle."""

import os
import signal
import subprocess
import sys
import time

import pytest

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


@pytest.fixture
def store(tmp_path):
    store = LocalStore(tmp_path / "limits", clock=ManualClock())
    reserve(store, charge(1))
    yield store
    store.close()


@pytest.fixture
def inside(store):
    """Another process that has written its decision, and not committed it."""
    process = subprocess.Popen(
        [sys.executable, "-c", DECIDES, store.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout.readline() == "written, not committed\n"
    yield process
    process.communicate()


def test_process_killed_inside_its_decision_took_nothing_and_holds_nobody_up(store, inside):
    inside.kill()
    start = time.monotonic()
    assert remaining(store, charge()) == [9]
    assert time.monotonic() - start < 1  # Milliseconds; but the machine may be busy.
    assert inside.wait() == -signal.SIGKILL


def test_process_terminated_inside_its_decision_took_nothing(store, inside):
    inside.terminate()
    assert remaining(store, charge()) == [9]


def test_decision_that_another_process_is_in_the_middle_of_is_waited_for(store, inside):
    inside.stdin.close()
    assert remaining(store, charge()) == [2]
    assert inside.stdout.readline() == "committed\n"
    inside.stdin = None
