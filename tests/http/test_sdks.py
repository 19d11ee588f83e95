"""The real OpenAI and Anthropic SDKs against a limited app on a real server.

What they would sleep moves the app's clock instead, so that a retry comes exactly when it was told to come.
"""

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import chain
from threading import Event

import anthropic
import openai
import pytest
from app_server import serving
from flask import Response, request
from limited_apps import limited

USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
WORDS = ("All ", "good ", "things")


def chat_completion(body):
    message = {"role": "assistant", "content": "".join(WORDS)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [choice],
        "usage": USAGE,
    }


def chat_chunks(body):
    def chunk(choices, usage=None):
        made = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": body["model"], "choices": choices}
        return made if usage is None else made | {"usage": usage}

    for word in WORDS:
        yield chunk([{"index": 0, "delta": {"content": word}, "finish_reason": None}])
    yield chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    if body.get("stream_options", {}).get("include_usage"):
        yield chunk([], USAGE)


def message(body):
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [{"type": "text", "text": "".join(WORDS)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 5},
    }


def message_events(body):
    begun = message(body) | {"content": [], "stop_reason": None, "usage": {"input_tokens": 9, "output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for word in WORDS:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
    yield {"type": "content_block_stop", "index": 0}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": 5}}
    yield {"type": "message_stop"}


@dataclass
class Served:
    """A limited app that answers like both APIs, and what reached it."""

    limits: object
    address: str
    retries: list = field(default_factory=list)  # What each request that came said of itself.
    slept: list = field(default_factory=list)
    may_go_on: Event = field(default_factory=Event)  # Streams wait for it after their first event.

    @property
    def requests(self):
        return len(self.retries)

    def openai(self, **options):
        http = openai.DefaultHttpxClient(trust_env=False)
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key="alice", http_client=http, **options)

    def anthropic(self, **options):
        http = anthropic.DefaultHttpxClient(trust_env=False)
        return anthropic.Anthropic(base_url=self.address, api_key="alice", http_client=http, **options)

    def sleep(self, seconds):
        """In place of ``time.sleep``."""
        self.slept.append(seconds)
        self.limits.clock.advance(seconds)


@pytest.fixture
def serve(monkeypatch):
    """Serve an app with the limits that a function puts on a view, for the time of a context."""

    @contextmanager
    def serve(decorate, **options):
        limits = limited(headers=["openai", "anthropic", "ietf"], **options)
        retries = []
        served = Served(limits, "", retries)
        served.may_go_on.set()
        limits.app.before_request(lambda: retries.append(request.headers.get("x-stainless-retry-count")))

        def chat():
            body = request.get_json()
            if not body.get("stream"):
                return chat_completion(body)
            events = (f"data: {limits.app.json.dumps(chunk)}\n\n" for chunk in chat_chunks(body))
            return Response(sent(events, "data: [DONE]\n\n"), mimetype="text/event-stream")

        def messages():
            body = request.get_json()
            if not body.get("stream"):
                return message(body)
            dumps = limits.app.json.dumps
            events = (f"event: {event['type']}\ndata: {dumps(event)}\n\n" for event in message_events(body))
            return Response(sent(events), mimetype="text/event-stream")

        def sent(events, *last):
            for event in chain(events, last):
                yield event
                assert served.may_go_on.wait(60)

        for path, view in {"/v1/chat/completions": chat, "/v1/messages": messages}.items():
            limits.app.post(path)(decorate(limits.limiter, view))
        with serving(limits.app) as address:
            served.address = address
            monkeypatch.setattr(time, "sleep", served.sleep)
            yield served

    return serve


ASK = {"model": "m", "messages": [{"role": "user", "content": "Say something."}], "max_tokens": 50}


def ask_openai(client, **more):
    return client.chat.completions.create(**ASK | more).choices[0].message.content


def ask_anthropic(client, **more):
    return client.messages.create(**ASK | more).content[0].text


def stream_openai(client):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(**ASK, **options))
    assert chunks[-1].usage.completion_tokens == 5
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])


def stream_anthropic(client):
    with client.messages.stream(**ASK) as stream:
        text = "".join(stream.text_stream)
        assert stream.get_final_message().usage.output_tokens == 5
    return text


both = pytest.mark.parametrize(("sdk", "ask"), [("openai", ask_openai), ("anthropic", ask_anthropic)])
in_all_ways = pytest.mark.parametrize(
    ("sdk", "ask"),
    [
        pytest.param("openai", ask_openai, id="openai"),
        pytest.param("openai", stream_openai, id="openai stream"),
        pytest.param("anthropic", ask_anthropic, id="anthropic"),
        pytest.param("anthropic", stream_anthropic, id="anthropic stream"),
    ],
)


def per_minute(limiter, view):
    return limiter.limit_tokens("120 per minute")(limiter.limit("30 per minute")(view))


@in_all_ways
def test_sdk_gets_its_answer(serve, sdk, ask):
    with serve(per_minute) as served, getattr(served, sdk)(max_retries=0) as client:
        assert ask(client) == "All good things"
        endpoint = "chat" if sdk == "openai" else "messages"
        assert served.limits.used(endpoint=endpoint) == {"tokens-per-minute": 14, "requests-per-minute": 1}


@in_all_ways
def test_sdk_waits_what_it_is_told_and_then_succeeds(serve, sdk, ask):
    """The limit is for two calls; the third of each round has to wait."""
    with serve(per_minute) as served, getattr(served, sdk)(max_retries=1) as client:
        for _ in range(12):
            assert ask(client) == "All good things"
        waits = list(served.slept)
        assert len(waits) > 2
        assert all(0 < wait < 60 for wait in waits)
        assert served.requests == 12 + len(waits)
        assert served.retries.count("1") == len(waits)  # No wait was too short: nothing was asked a third time.


@both
def test_sdk_that_comes_a_moment_too_early_is_refused_again(serve, sdk, ask):
    """The control: it is the wait that the test above succeeds by, less the 0.9 s by which a first try gives way."""
    with serve(per_minute) as served, getattr(served, sdk)(max_retries=1) as client:
        impatient = lambda seconds: served.limits.clock.advance(seconds - 0.902)  # noqa: E731
        time.sleep = impatient  # The fixture's monkeypatch puts it back.
        with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)):
            any(ask(client) == "" for _ in range(12))


def test_openai_raises_what_it_knows_with_what_we_say(serve):
    with serve(per_minute) as served, served.openai(max_retries=0) as client:
        ask_openai(client, max_tokens=110)
        with pytest.raises(openai.RateLimitError) as raised:
            ask_openai(client, max_tokens=110)
    error = raised.value
    assert (error.status_code, error.code, error.type, error.param) == (
        429,
        "token_limit_exceeded",
        "rate_limit_error",
        None,
    )
    assert error.request_id == error.response.headers["x-request-id"]
    assert error.request_id.startswith("req_")
    limit = error.body["limit"]
    assert limit["name"] == "tokens-per-minute"
    assert limit["limit"] - limit["used"] == limit["remaining"] < limit["requested"]
    first_try_gives_way = 900
    assert int(error.response.headers["retry-after-ms"]) == round(limit["retry_after"] * 1000) + first_try_gives_way
    assert "Token limit reached: limit 120 tokens per 60 s" in str(error)


def test_anthropic_raises_what_it_knows_with_what_we_say(serve):
    with serve(per_minute) as served, served.anthropic(max_retries=0) as client:
        ask_anthropic(client, max_tokens=110)
        with pytest.raises(anthropic.RateLimitError) as raised:
            ask_anthropic(client, max_tokens=110)
    error = raised.value
    assert (error.status_code, error.type) == (429, "rate_limit_error")
    assert error.request_id == error.response.headers["request-id"]
    assert "Token limit reached: limit 120 tokens per 60 s" in error.api_message
    assert error.body["error"]["code"] == "token_limit_exceeded"


@both
@pytest.mark.parametrize("status", [413, 400, 429])
def test_sdk_does_not_retry_what_can_never_fit(serve, sdk, ask, status):
    with serve(per_minute, too_large_status=status) as served, getattr(served, sdk)(max_retries=3) as client:
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as raised:
            ask(client, max_tokens=200)
        assert raised.value.status_code == status
        assert "Waiting does not help" in str(raised.value.body)
        assert (served.requests, served.slept) == (1, [])
        assert ask(client) == "All good things"


@both
def test_sdk_does_not_wait_for_a_day(serve, sdk, ask):
    def decorate(limiter, view):
        return limiter.limit("1 per day")(view)

    with serve(decorate) as served, getattr(served, sdk)(max_retries=3) as client:
        ask(client)
        with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)):
            ask(client)
        assert (served.requests, served.slept) == (2, [])


@both
def test_sdk_comes_back_for_a_slot_that_becomes_free(serve, sdk, ask):
    def decorate(limiter, view):
        return limiter.limit_concurrency(1, shared=True, scope="model")(view)

    with (
        serve(decorate) as served,
        getattr(served, sdk)(max_retries=1) as client,
        served.openai(max_retries=0) as other,
    ):
        served.may_go_on.clear()
        stream = other.chat.completions.create(**ASK, stream=True)
        next(stream)

        def let_it_end(seconds):
            served.sleep(seconds)
            served.may_go_on.set()
            list(stream)

        time.sleep = let_it_end  # The fixture's monkeypatch puts it back.
        assert ask(client) == "All good things"
        assert (served.slept, served.requests) == ([1.0], 3)


@pytest.mark.parametrize("ask", [ask_openai, stream_openai, ask_anthropic, stream_anthropic], ids=lambda f: f.__name__)
def test_client_that_asks_one_thing_after_another_never_meets_itself(serve, ask):
    """One slot is enough for it: when it has the whole answer, the slot is free and the tokens are settled."""

    def decorate(limiter, view):
        return limiter.limit_concurrency(1)(limiter.limit_tokens("1000000 per day")(view))

    sdk = ask.__name__.partition("_")[2]
    with serve(decorate) as served, getattr(served, sdk)(max_retries=0) as client:
        endpoint = "chat" if sdk == "openai" else "messages"
        for number in range(1, 31):
            assert ask(client) == "All good things"
            assert served.limits.used(endpoint=endpoint) == {"concurrency": 0, "tokens-per-day": 14 * number}


def test_openai_reads_our_headers(serve):
    with serve(per_minute) as served, served.openai(max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(**ASK)
        headers = raw.headers
        assert raw.parse().usage.total_tokens == 14
    assert headers["x-ratelimit-limit-requests"] == "30"
    assert headers["x-ratelimit-remaining-requests"] == "29"
    assert headers["x-ratelimit-limit-tokens"] == "120"
    assert 0 < int(headers["x-ratelimit-remaining-tokens"]) < 120 - 50
    assert headers["x-ratelimit-reset-tokens"].endswith("s")
    assert "retry-after" not in headers


def test_anthropic_reads_our_headers(serve):
    with serve(per_minute) as served, served.anthropic(max_retries=0) as client:
        raw = client.messages.with_raw_response.create(**ASK)
        headers = raw.headers
        assert raw.parse().usage.output_tokens == 5
    assert headers["anthropic-ratelimit-requests-limit"] == "30"
    assert headers["anthropic-ratelimit-requests-remaining"] == "29"
    assert headers["anthropic-ratelimit-tokens-limit"] == "120"
    assert headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
    assert "retry-after" not in headers


def test_stream_s_headers_come_before_its_first_event(serve):
    with serve(per_minute) as served, served.openai(max_retries=0) as client:
        with client.chat.completions.with_streaming_response.create(**ASK, stream=True) as streamed:
            assert streamed.headers["x-ratelimit-remaining-requests"] == "29"
            events = [line for line in streamed.iter_lines() if line]
        assert events[-1] == "data: [DONE]"


def test_plain_http_client_sees_the_same(serve):
    """Without an SDK's help: a loop that sleeps Retry-After's whole seconds."""
    headers = {"x-api-key": "alice", "Content-Type": "application/json"}
    with serve(per_minute) as served:
        client = HTTPConnection(served.address.removeprefix("http://"), timeout=60)
        answered = 0
        while answered < 12:
            client.request("POST", "/v1/messages", json.dumps(ASK), headers)
            answer = client.getresponse()
            answer.read()
            answered += answer.status == 200
            if answer.status == 429:
                served.sleep(int(answer.headers["Retry-After"]))
        client.close()
        assert served.requests == 12 + len(served.slept)
        assert served.slept
