"""``docs/background-work.md`` is run: a real Celery worker ends what a request reserved.

In a process of its own, because Celery's worker changes what the whole process logs.
"""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from flask import request
from limited_apps import limited

from flask_ailimit import usage_settled

PAGE = Path(__file__).parents[2] / "docs" / "background-work.md"
if not PAGE.exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)


def test_job_of_the_page_settles_what_its_request_reserved():
    from page_blocks import texts  # noqa: PLC0415  the process below can't import it and needn't

    (code,) = texts("docs/background-work.md", "python")
    done = subprocess.run(
        [sys.executable, __file__], input=code, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["settled"]


def main():
    queue = Celery("summaries", broker="memory://", backend="cache+memory://")
    limits = limited(default_output_tokens=200)
    events, jobs = [], []
    usage_settled.connect(lambda _, **event: events.append(event), limits.app, weak=False)
    code = sys.stdin.read()

    def model(text):
        jobs.append(limits.used("alice", "summarise"))
        return SimpleNamespace(text=text.upper(), input_tokens=3, output_tokens=4)

    exec(code, {"app": limits.app, "limiter": limits.limiter, "queue": queue, "request": request, "model": model})
    queue.set_default()
    response = limits.client().post("/v1/summaries", json={"text": "one two", "max_tokens": 40})
    assert response.status_code == 202
    reserved = limits.used("alice", "summarise")
    assert reserved["concurrency"] == 1
    assert reserved["tokens-per-minute"] > 40
    with start_worker(queue, perform_ping_check=False, pool="solo", concurrency=1, shutdown_timeout=60):
        assert queue.AsyncResult(response.json["id"]).get(timeout=200) == "ONE TWO"
    assert jobs == [reserved]
    assert limits.used("alice", "summarise") == {"tokens-per-minute": 7, "concurrency": 0}
    (event,) = events
    assert (event["ending"], event["source"], event["charged"]) == ("handed_over", "recorded", {"tokens": 7})
    assert event["request_id"] == response.headers["x-request-id"]
    sys.stdout.write("settled\n")


if __name__ == "__main__":
    main()
