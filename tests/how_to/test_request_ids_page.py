"""The log of the page, under gunicorn: each line has the ids of its request."""

import logging
import re
import subprocess

import httpx2
import pytest
from app_server import serving
from flask import Response
from pages import blocks, environment_of, imported, served_as_written
from real_servers import PATIENCE

PAGE = "how-to/request-ids.md"
ASKED = {"json": {"prompt": "hello", "max_tokens": 50}, "timeout": PATIENCE}
KEY = {"Authorization": "Bearer key-of-ada"}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """The lines that two requests and a refused one have left, and the ids on their answers."""
    directory = tmp_path_factory.mktemp("log")
    with served_as_written(PAGE, directory) as (address, file):
        sent = ["trace-7", "two words", None]
        answers = [
            httpx2.post(f"{address}/v1/generate", headers=KEY | ({"X-Request-Id": each} if each else {}), **ASKED)
            for each in sent
        ]
    return directory, file.read_text(encoding="utf-8").splitlines(), answers


@pytest.mark.server
def test_request_writes_the_lines_of_the_page(log):
    _, lines, answers = log
    request_id = answers[0].headers["x-request-id"]
    (shown,) = blocks(PAGE, "text")
    wanted = re.sub(r"req_[0-9a-f]{24}", request_id, shown)
    written = [line for line in lines if request_id in line and line.startswith("INFO")]
    assert written == wanted.splitlines()


@pytest.mark.server
def test_client_s_id_that_is_unfit_is_left_out(log):
    _, lines, answers = log
    request_id = answers[1].headers["x-request-id"]
    assert f"INFO {request_id} - app: The model begins." in lines
    assert not any("two words" in line for line in lines if line.startswith("INFO"))


@pytest.mark.server
def test_refusal_is_logged_with_its_id(log):
    _, lines, answers = log
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    request_id = answers[2].headers["x-request-id"]
    assert answers[2].json()["request_id"] == request_id
    assert f"INFO {request_id} - app: refused {request_id} -: ['requests-per-minute']" in lines


@pytest.mark.server
def test_access_log_has_both_ids(log):
    _, lines, answers = log
    assert f"POST /v1/generate 200 {answers[0].headers['x-request-id']} trace-7" in lines


@pytest.mark.server
def test_command_finds_the_client_s_id(log):
    directory, _, answers = log
    grep = blocks(PAGE, "sh")[0]
    found = subprocess.run(
        ["bash", "-euc", grep], cwd=directory, env=environment_of(directory), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(found) >= 2
    assert all(answers[0].headers["x-request-id"] in line for line in found)


def test_lines_outside_a_request_have_no_id(tmp_path):
    with imported(PAGE, tmp_path) as page:
        said = []

        @page.app.get("/stream")
        @page.limiter.limit("9 per minute")
        def stream():
            def chunks():
                said.append(ids(page))
                yield "a"

            said.append(ids(page))
            return Response(chunks())

        assert ids(page) == ("-", "-")
        with serving(page.app) as address:
            answer = httpx2.get(f"{address}/stream", headers=KEY | {"X-Request-Id": "trace-7"}, timeout=PATIENCE)
    assert said == [(answer.headers["x-request-id"], "trace-7"), ("-", "-")]


def ids(page):
    record = logging.makeLogRecord({})
    assert page.add_ids(record)
    return record.request_id, record.client_id
