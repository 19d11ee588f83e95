"""What the OpenAI and Anthropic SDKs make of our answers, over real HTTP."""

import json
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import anthropic
import openai
import pytest
from header_decisions import SECOND, allowed, decided, refused

from flask_ailimit.engine.quota import Quota
from flask_ailimit.headers import DIALECTS, limit_headers
from flask_ailimit.http.responses import (
    content_type,
    refusal_body,
    refusal_headers,
    refusal_message,
    refusal_status,
    unavailable_body,
    unavailable_headers,
)

TOKENS = Quota(10_000, 60, "tokens")
WAIT = decided(allowed(Quota(60, 60), 30, 30 * SECOND), refused(TOKENS, 10, 59 * SECOND, 7_150_001, cost=1202))
LONG = decided(refused(Quota(200, 86400), 0, 86400 * SECOND, 432 * SECOND))
NEVER = decided(refused(TOKENS, 9_000, 6 * SECOND, None, cost=30_601))
REQUEST_ID = "req_0123456789abcdef01234567"


def refusal(decision, *, too_large_status=413, error_format="hybrid"):
    status = refusal_status(decision, too_large_status)
    headers = limit_headers(decision, DIALECTS) + refusal_headers(decision, REQUEST_ID)
    return status, headers, refusal_body(decision, status, REQUEST_ID, error_format), content_type(error_format)


UNAVAILABLE = (503, unavailable_headers(REQUEST_ID), unavailable_body(REQUEST_ID), content_type("hybrid"))


class Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.retry_counts.append(self.headers["x-stainless-retry-count"])
        self.rfile.read(int(self.headers["Content-Length"]))
        status, headers, body, kind = self.server.answer
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in [*headers, ("Content-Type", kind), ("Content-Length", str(len(data)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def ask(server, monkeypatch):
    """Ask through an SDK; answers its exception, the retries that reached the server, and the seconds it slept."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)

    def ask(sdk, answer, max_retries=0):
        server.answer, server.retry_counts = answer, []
        slept.clear()
        with (
            SDKS[sdk](f"http://127.0.0.1:{server.server_port}", max_retries) as call,
            pytest.raises(STATUS_ERRORS) as raised,
        ):
            call()
        return raised.value, len(server.retry_counts) - 1, list(slept)

    return ask


@contextmanager
def openai_call(url, max_retries):
    with (
        openai.DefaultHttpxClient(trust_env=False) as http,
        openai.OpenAI(base_url=url, api_key="k", max_retries=max_retries, http_client=http) as client,
    ):
        yield lambda: client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


@contextmanager
def anthropic_call(url, max_retries):
    with (
        anthropic.DefaultHttpxClient(trust_env=False) as http,
        anthropic.Anthropic(base_url=url, api_key="k", max_retries=max_retries, http_client=http) as client,
    ):
        yield lambda: client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])


STATUS_ERRORS = (openai.APIStatusError, anthropic.APIStatusError)
SDKS = {"openai": openai_call, "anthropic": anthropic_call}
BOTH = pytest.mark.parametrize("sdk", SDKS)


def test_openai_types_a_refusal(ask):
    error, *_ = ask("openai", refusal(WAIT))
    assert type(error) is openai.RateLimitError
    assert (error.status_code, error.code, error.type, error.param) == (
        429,
        "token_limit_exceeded",
        "rate_limit_error",
        None,
    )
    assert error.request_id == REQUEST_ID
    assert refusal_message(WAIT) in str(error)
    assert error.body["limit"]["retry_after"] == 7.151
    assert error.response.headers["x-ratelimit-remaining-tokens"] == "10"


def test_anthropic_types_a_refusal(ask):
    error, *_ = ask("anthropic", refusal(WAIT))
    assert type(error) is anthropic.RateLimitError
    assert (error.status_code, error.type, error.api_message) == (429, "rate_limit_error", refusal_message(WAIT))
    assert error.request_id == REQUEST_ID
    assert error.error_code is None
    assert error.details is None
    assert error.body["error"]["limit"]["retry_after"] == 7.151
    assert error.response.headers["anthropic-ratelimit-tokens-remaining"] == "10"


def test_openai_types_what_never_fits(ask):
    error, *_ = ask("openai", refusal(NEVER))
    assert type(error) is openai.APIStatusError
    assert (error.status_code, error.code, error.request_id) == (413, "cost_exceeds_limit", REQUEST_ID)
    assert "Waiting does not help" in str(error)


def test_anthropic_types_what_never_fits(ask):
    error, *_ = ask("anthropic", refusal(NEVER))
    assert type(error) is anthropic.ContentTooLargeError
    assert (error.status_code, error.type, error.request_id) == (413, "request_too_large", REQUEST_ID)
    assert "Waiting does not help" in error.api_message


@pytest.mark.parametrize(
    ("status", "openai_class", "anthropic_class", "anthropic_type"),
    [
        (400, openai.BadRequestError, anthropic.BadRequestError, "invalid_request_error"),
        (429, openai.RateLimitError, anthropic.RateLimitError, "rate_limit_error"),
    ],
)
def test_status_of_what_never_fits_chooses_the_exception(ask, status, openai_class, anthropic_class, anthropic_type):
    answer = refusal(NEVER, too_large_status=status)
    error, retries, _ = ask("openai", answer, max_retries=2)
    assert (type(error), error.code, retries) == (openai_class, "cost_exceeds_limit", 0)
    error, retries, _ = ask("anthropic", answer, max_retries=2)
    assert (type(error), error.type, retries) == (anthropic_class, anthropic_type, 0)


def test_openai_types_an_absent_store_and_comes_back_after_a_second(ask):
    error, retries, slept = ask("openai", UNAVAILABLE, max_retries=2)
    assert type(error) is openai.InternalServerError
    assert (error.status_code, error.code, error.request_id) == (503, "limiter_unavailable", REQUEST_ID)
    assert (retries, slept) == (2, [1.0, 1.0])


def test_anthropic_types_an_absent_store_and_comes_back_after_a_second(ask):
    error, retries, slept = ask("anthropic", UNAVAILABLE, max_retries=2)
    assert type(error) is anthropic.ServiceUnavailableError
    assert (error.status_code, error.type, error.request_id) == (503, "api_error", REQUEST_ID)
    assert (retries, slept) == (2, [1.0, 1.0])


@BOTH
def test_sdk_sleeps_exactly_what_we_say(ask, sdk):
    _, retries, slept = ask(sdk, refusal(WAIT), max_retries=2)
    assert (retries, slept) == (2, [7.151, 7.151])


@BOTH
def test_sdk_without_our_milliseconds_sleeps_the_whole_seconds(ask, sdk):
    status, headers, body, kind = refusal(WAIT)
    plain = [header for header in headers if header[0] != "retry-after-ms"]
    assert ask(sdk, (status, plain, body, kind), max_retries=2)[1:] == (2, [8.0, 8.0])


@BOTH
@pytest.mark.parametrize("decision", [NEVER, LONG], ids=["never-fits", "waits-too-long"])
def test_sdk_does_not_retry_in_vain(ask, sdk, decision):
    _, retries, slept = ask(sdk, refusal(decision), max_retries=2)
    assert (retries, slept) == (0, [])


@BOTH
def test_without_our_header_the_sdk_would_retry_what_never_fits(ask, sdk):
    """The control: the test above can fail."""
    status, headers, body, kind = refusal(NEVER, too_large_status=429)
    mute = [header for header in headers if header[0] != "x-should-retry"]
    assert ask(sdk, (status, mute, body, kind), max_retries=2)[1] == 2


@pytest.mark.parametrize("error_format", ["problem", "openai", "anthropic"])
@BOTH
def test_sdk_raises_its_rate_limit_error_whatever_the_format(ask, sdk, error_format):
    error, *_ = ask(sdk, refusal(WAIT, error_format=error_format))
    assert type(error).__name__ == "RateLimitError"
    assert error.request_id == REQUEST_ID
    assert refusal_message(WAIT) in str(error.body)


def test_openai_format_has_openai_s_own_words(ask):
    error, *_ = ask("openai", refusal(WAIT, error_format="openai"))
    assert (error.type, error.code) == ("tokens", "rate_limit_exceeded")


def test_anthropic_format_has_anthropic_s_own_words(ask):
    error, *_ = ask("anthropic", refusal(WAIT, error_format="anthropic"))
    assert error.body["type"] == "error"
    assert (error.type, error.api_message) == ("rate_limit_error", refusal_message(WAIT))


def test_openai_reads_the_problem_format_s_code(ask):
    error, *_ = ask("openai", refusal(WAIT, error_format="problem"))
    assert error.code == "token_limit_exceeded"
