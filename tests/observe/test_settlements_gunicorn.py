"""Settlements of a real gunicorn with several workers, of which some are killed in the middle of it."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest
from observed_apps import PATIENCE, kept, sums_kept, sums_of, wait_for

pytestmark = pytest.mark.server


@contextmanager
def gunicorn(place, *arguments):
    """The address of a gunicorn with three workers, and its arbiter."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    command = [sys.executable, "-m", "gunicorn", "settling_app:app", "--no-control-socket", "--workers", "3"]
    command += ["--bind", f"fd://{listener.fileno()}", *arguments]
    paths = os.pathsep.join(filter(None, sys.path))
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONPATH": paths, "PLACE": str(place)},
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    try:
        yield address, process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # Its session is its own.
        process.wait(PATIENCE)
        print((place / "log").read_text()[-5000:])  # noqa: T201  pytest shows it if the test fails


def asked(address, count):
    """Ask so often, and answer the ids of the requests that were answered, with the worker of each."""

    def ask(number):
        headers = {"Authorization": f"Bearer key-{number % 5}", "Connection": "close"}
        with suppress(httpx2.HTTPError):
            answer = client.post(f"{address}/chat", json={"messages": []}, headers=headers)
            return answer.headers["x-request-id"], answer.json()["pid"]
        return None

    with httpx2.Client(timeout=PATIENCE) as client, ThreadPoolExecutor(8) as threads:
        return dict(filter(None, threads.map(ask, range(count))))


def ids(place):
    return {each.request_id for each in kept(place / "settlements.sqlite")}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--worker-class", "sync"),
        ("--worker-class", "gthread", "--threads", "4", "--preload"),
        ("--worker-class", "gevent"),
    ],
    ids=" ".join,
)
def test_killed_worker_takes_along_only_what_it_had_just_settled(tmp_path, arguments):
    with gunicorn(tmp_path, *arguments) as (address, process):
        before = asked(address, 60)
        assert len(before) == 60
        while len(set(before.values())) == 1:  # On a busy machine one worker may have answered all.
            before |= asked(address, 60)
        wait_for(lambda: before.keys() <= ids(tmp_path))  # This is safe from now on.
        with ThreadPoolExecutor(1) as thread:
            meanwhile = thread.submit(asked, address, 150)
            time.sleep(0.05)
            killed = before.popitem()[1]
            os.kill(killed, signal.SIGKILL)
            during = meanwhile.result()
        after = asked(address, 60)
        assert len(after) == 60
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    found = ids(tmp_path)
    assert before.keys() | after.keys() <= found
    lost = during.keys() - found
    assert {during[each] for each in lost} <= {killed}
    rows = kept(tmp_path / "settlements.sqlite")
    assert len(rows) == len(found)
    assert sums_kept(tmp_path / "settlements.sqlite") == sums_of(rows)
    assert {each.input_tokens for each in rows} == {10}
