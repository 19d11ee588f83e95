"""What exceptions mean: those of the real SDKs, of httpx and httpx2, and of everybody else."""

import asyncio
import socket
import ssl
from http import HTTPStatus
from threading import Thread

import anthropic
import httpx
import httpx2
import openai
import pytest
from sdk_calls import NAMES, answering, call, raising

from flask_ailimit.upstream.answers import Answer, Kind
from flask_ailimit.upstream.failures import answer_of_error, answer_of_response, failure_of

LIBRARIES = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
SDK = pytest.mark.parametrize("sdk", NAMES)


def error_of(sdk, handler, **options):
    with pytest.raises((openai.OpenAIError, anthropic.AnthropicError)) as raised:
        call(sdk, handler, **options)
    return raised.value


@SDK
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, {"error": {"type": "rate_limit_error", "message": "Too many"}}, Kind.THROTTLED),
        (429, {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}, Kind.SPENT),
        (429, {"error": {"details": {"error_code": "enforced_spend_limit_reached"}}}, Kind.SPENT),
        (402, {"error": {"type": "billing_error"}}, Kind.SPENT),
        (400, {"error": {"code": "context_length_exceeded"}}, Kind.TOO_LONG),
        (400, {"error": {"message": "prompt is too long: 9 > 8"}}, Kind.TOO_LONG),
        (401, {}, Kind.CREDENTIAL),
        (404, {}, Kind.CALLER),
        (409, {}, Kind.UNSENT),
        (413, {"error": {"code": "cost_exceeds_limit"}}, Kind.NEVER_FITS),
        (500, b"<html>", Kind.OVERLOADED),
        (529, {"error": {"type": "overloaded_error"}}, Kind.OVERLOADED),
    ],
)
def test_sdk_s_exception_is_understood_as_the_answer_that_it_carries(sdk, status, body, kind):
    answer = answer_of_error(error_of(sdk, answering(status, body, retry_after_ms="1500")))
    assert (answer.kind, answer.status, answer.retry_after) == (kind, status, 1.5)


@SDK
def test_date_in_an_sdk_s_exception_is_measured_against_the_answer_s_own(sdk):
    error = error_of(sdk, answering(429, retry_after="Thu, 21 Aug 2025 12:40:09 GMT"))
    assert answer_of_error(error).retry_after == 9


@SDK
@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("ConnectError", Kind.UNSENT, "connect"),
        ("ConnectTimeout", Kind.UNSENT, "connect"),
        ("ProxyError", Kind.UNSENT, "connect"),
        ("PoolTimeout", Kind.UNSENT, "pool"),
        ("ReadTimeout", Kind.UNCERTAIN, "timeout"),
        ("WriteTimeout", Kind.UNCERTAIN, "timeout"),
        ("ReadError", Kind.UNCERTAIN, "connection-lost"),
        ("WriteError", Kind.UNCERTAIN, "connection-lost"),
        ("CloseError", Kind.UNCERTAIN, "connection-lost"),
        ("RemoteProtocolError", Kind.UNCERTAIN, "connection-lost"),
        ("LocalProtocolError", Kind.CALLER, "misuse"),
        ("UnsupportedProtocol", Kind.CALLER, "misuse"),
    ],
)
def test_connection_that_failed_is_known_through_the_sdk_and_without_it(sdk, name, kind, reason):
    expected = Answer(kind, 0, None, reason)
    error = error_of(sdk, raising(getattr(httpx2, name)("text with sk-secret")))
    assert answer_of_error(error) == failure_of(error) == expected
    for library in (httpx, httpx2):
        plain = getattr(library, name)("text")
        assert answer_of_error(plain) == failure_of(plain) == expected


@LIBRARIES
def test_every_transport_exception_of_the_library_is_known(library):
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    for kind in below(library.TransportError):
        answer = answer_of_error(kind("x"))
        assert answer is not None, kind
        assert answer.reason != "failed"


def test_own_full_pool_and_own_cancelling_are_no_faults_of_the_provider():
    assert failure_of(httpx2.ConnectError("x")).is_fault
    assert failure_of(httpx2.ReadTimeout("x")).is_fault
    assert not failure_of(httpx2.PoolTimeout("x")).is_fault
    assert not failure_of(asyncio.CancelledError()).is_fault
    assert not failure_of(KeyboardInterrupt()).is_fault
    assert failure_of(GeneratorExit()).kind is Kind.UNCERTAIN


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError(), Kind.UNSENT),
        (socket.gaierror(), Kind.UNSENT),
        (ssl.SSLCertVerificationError(), Kind.UNSENT),
        (ConnectionResetError(), Kind.UNCERTAIN),
        (BrokenPipeError(), Kind.UNCERTAIN),
        (TimeoutError(), Kind.UNCERTAIN),
    ],
)
def test_standard_library_s_failures_are_known(error, kind):
    assert answer_of_error(error).kind is kind


class HostileError(Exception):
    @property
    def response(self):
        raise RuntimeError

    @property
    def status_code(self):
        raise KeyError


class OddError(Exception):
    def __init__(self, **attributes):
        super().__init__()
        vars(self).update(attributes)


@pytest.mark.parametrize(
    "error",
    [
        *(ValueError(), KeyError("x"), RuntimeError(), HostileError(), asyncio.CancelledError()),
        *(
            KeyboardInterrupt(),
            OSError(),
            OddError(status_code="429"),
            OddError(status_code=True),
            OddError(status=5),
            OddError(status_code=10**30),
            OddError(response=None),
        ),
        *(OddError(response=OddError(status_code=None)), openai.OpenAIError(), anthropic.AnthropicError()),
    ],
    ids=repr,
)
def test_error_of_something_else_is_no_answer(error):
    assert answer_of_error(error) is None
    assert failure_of(error).kind is Kind.UNCERTAIN


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OddError(status_code=429, headers={"Retry-After": "3"}, body=b"{}"),
            Answer(Kind.THROTTLED, 429, 3.0, "throttled"),
        ),
        (OddError(status_code=429, body={"code": "insufficient_quota"}), Answer(Kind.SPENT, 429, None, "spent")),
        (OddError(status_code=429, body='{"code": "insufficient_quota"}'), Answer(Kind.SPENT, 429, None, "spent")),
        (OddError(status=503, headers={}), Answer(Kind.OVERLOADED, 503, None, "server-error")),
        (OddError(status_code=429, headers={b"x": 1, 5: 5}, body=5), Answer(Kind.THROTTLED, 429, None, "throttled")),
        (OddError(status_code=429, headers=[], body=["x"]), Answer(Kind.THROTTLED, 429, None, "throttled")),
        (OddError(status_code=HTTPStatus.BAD_GATEWAY), Answer(Kind.OVERLOADED, 502, None, "server-error")),
    ],
)
def test_exceptions_of_other_libraries_are_known_by_their_attributes(error, expected):
    assert answer_of_error(error) == expected


@LIBRARIES
def test_httpx_s_own_status_error_and_response_mean_the_same(library):
    request = library.Request("POST", "http://provider/")
    response = library.Response(429, headers={"Retry-After": "3"}, json={"error": {"type": "x"}}, request=request)
    with pytest.raises(library.HTTPStatusError) as raised:
        response.raise_for_status()
    assert (
        answer_of_error(raised.value) == answer_of_response(response) == Answer(Kind.THROTTLED, 429, 3.0, "throttled")
    )
    assert answer_of_response(library.Response(200)).kind is Kind.GOOD


@LIBRARIES
def test_response_whose_body_was_not_read_is_known_by_its_status(library):
    stream = library.Response(402, stream=library.ByteStream(b"{}"))
    assert answer_of_response(stream) == Answer(Kind.SPENT, 402, None, "spent")


@pytest.mark.parametrize("other", [None, 5, "text", {"status_code": 429}, object(), OddError(status_code=429)])
def test_result_that_is_no_response_is_no_answer(other):
    assert answer_of_response(other) is None


EVENT = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\n\n'


@pytest.mark.parametrize(
    ("sdk", "stream"),
    [
        ("openai", EVENT + b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n'),
        ("openai", EVENT + b'data: {"error":"overloaded"}\n\n'),
        ("anthropic", b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n'),
        ("anthropic", b'event: error\ndata: {"type":"error","error":{"type":"rate_limit_error","message":"x"}}\n\n'),
    ],
)
def test_error_in_the_middle_of_a_stream_truncates_the_answer(sdk, stream):
    error = error_of(sdk, answering(200, stream, content_type="text/event-stream"), stream=True)
    answer = answer_of_error(error)
    assert (answer.kind, answer.reason) == (Kind.TRUNCATED, "error-in-stream")


@pytest.mark.parametrize("options", [{}, {"timeout": 0.2}], ids=["closed", "silent"])
def test_server_that_takes_the_request_and_says_nothing_is_uncertain(options):
    """On the wire: a server that reads, and then closes the connection or is silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = []

        def serve():
            connection, _ = server.accept()
            connection.recv(65_536)
            taken.append(connection)
            if not options:
                connection.close()

        thread = Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with (
            openai.DefaultHttpxClient(trust_env=False) as http,
            openai.OpenAI(base_url=url, api_key="k", max_retries=0, http_client=http, **options) as client,
            pytest.raises(openai.APIConnectionError) as raised,
        ):
            client.models.list()
        thread.join()
        taken[0].close()
    assert answer_of_error(raised.value).kind is Kind.UNCERTAIN


def test_port_on_which_nobody_listens_was_sent_nothing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        anthropic.DefaultHttpxClient(trust_env=False) as http,
        anthropic.Anthropic(
            base_url=f"http://127.0.0.1:{port}", api_key="k", max_retries=0, http_client=http
        ) as client,
        pytest.raises(anthropic.APIConnectionError) as raised,
    ):
        client.models.list()
    assert answer_of_error(raised.value) == Answer(Kind.UNSENT, 0, None, "connect")
