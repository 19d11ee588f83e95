"""A request whose upstream can't answer gets our answer, and is charged nothing."""

import logging
from contextlib import ExitStack, contextmanager

import anthropic
import flask
import httpx2
import openai
import pytest
from app_server import serving
from flask import request

from flask_ailimit import AILimiter, UpstreamRefused, api_key, upstream_refused
from flask_ailimit.engine.algorithms.gate import FAULT, NEUTRAL, Outcome, packed
from flask_ailimit.request.upstream_refusal import meaning_of
from flask_ailimit.testing import FakeProvider, Fault
from flask_ailimit.tokens import Usage
from flask_ailimit.upstream.answers import Answer, Kind
from flask_ailimit.upstream.pacing import Asked, Place

ASK = {"model": "gpt-test", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 5}
LIMITS = {"default_limits": ["10 per hour"], "default_token_limits": ["1000 per hour"]}


OPENED = ExitStack()


@pytest.fixture(autouse=True)
def closed():
    """Clients are closed after each test."""
    with OPENED:
        yield


class Gateway:
    """An app that passes chats on to a provider, and what is left of its client's limits."""

    def __init__(self, provider, *, how="raise", error_format="hybrid", upstream=None, **needs):
        self.app = flask.Flask("gateway")
        self.limiter = AILimiter(api_key, app=self.app, storage_uri="memory://", error_format=error_format, **LIMITS)
        self.upstream = self.limiter.upstream("openai-main", **(upstream or {"attempts": 1, "max_wait": 0}))
        http = OPENED.enter_context(self.upstream.http_client())
        self.client = openai.OpenAI(base_url=provider.url, api_key="test", http_client=http)
        self.seen = []
        upstream_refused.connect(self._saw)

        @self.app.post("/chat")
        @(self.upstream.needed(**needs) if needs else self.upstream.needed)
        def chat():
            return self.answer(how)

        @self.app.post("/unchecked")
        def unchecked():
            return self.answer(how)

    def answer(self, how):
        try:
            return self.client.chat.completions.create(**request.json).model_dump()
        except openai.APIError as error:
            if how == "raise":
                raise self.upstream.refusal(error) from None
            return self.upstream.refusal(error)

    def _saw(self, app, **facts):
        self.seen.append(facts)

    def post(self, path="/unchecked", **body):
        client = self.app.test_client()
        return client.post(path, json={**ASK, **body}, headers={"x-api-key": "alice"})

    def left(self, endpoint="unchecked"):
        with self.app.test_request_context(method="POST", headers={"x-api-key": "alice"}):
            return [verdict.remaining for verdict in self.limiter.peek(endpoint).verdicts]

    def group(self):
        return self.upstream.group("gpt-test")

    def settle(self, outcome, times=1):
        """Let calls of other workers come to this."""
        taken = [self.group().reserve(Asked("gpt-test", Usage()), Place(is_batch=False)) for _ in range(times)]
        for each in taken:
            self.group().settle(each, packed(outcome), Usage())


@pytest.fixture
def provider():
    with FakeProvider(key="test") as provider:
        yield provider


UNTOUCHED = [10, 1000]


# Before the view


def test_request_with_room_is_answered_and_charged_once(provider):
    gateway = Gateway(provider)
    assert gateway.post("/chat").status_code == 200
    assert gateway.left("chat") == [9, 1000 - 4]
    assert provider.count(200) == 1
    assert gateway.seen == []


def test_looking_for_room_takes_nothing(provider):
    gateway = Gateway(provider, upstream={"requests": {"limit": "2 per hour", "burst": 2}, "max_wait": 0})
    with gateway.app.test_request_context(json=ASK, headers={"x-api-key": "alice"}):
        for _ in range(20):
            gateway.upstream.require_room()
    assert gateway.post("/chat").status_code == gateway.post("/chat").status_code == 200


def test_request_without_room_is_refused_before_the_view_with_the_upstream_s_wait(provider):
    gateway = Gateway(provider, upstream={"requests": {"limit": "1 per minute", "burst": 1}, "max_wait": 0})
    gateway.post("/unchecked")
    refused = gateway.post("/chat")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ailimit-upstream"] == "openai-main"
    assert refused.headers["x-ailimit-limited-by"] == "app"
    assert refused.json["error"]["code"] == "upstream_busy"
    assert gateway.left("chat") == UNTOUCHED
    assert len(provider.calls) == 1
    (seen,) = gateway.seen
    assert (seen["upstream"], seen["code"], seen["endpoint"]) == ("openai-main", "upstream_busy", "chat")


def test_caller_that_may_wait_longer_is_not_refused(provider):
    limits = {"requests": {"limit": "60 per minute", "burst": 1}}
    gateway = Gateway(provider, upstream=limits, wait=30)
    gateway.post("/unchecked")
    assert gateway.post("/chat").status_code == 200
    with gateway.app.test_request_context(json=ASK, headers={"x-api-key": "alice"}):
        gateway.upstream.require_room(wait=30)
        with pytest.raises(UpstreamRefused), gateway.upstream.calling(within=0.01):
            gateway.upstream.require_room()
        with pytest.raises(UpstreamRefused):
            gateway.upstream.require_room(wait=0)


def test_tokens_of_the_request_are_looked_at_and_others_if_they_are_named(provider):
    upstream = {"tokens": {"limit": "100 per hour", "burst": 100}, "max_wait": 0}
    gateway = Gateway(provider, upstream=upstream)
    gateway.group().reserve(Asked("gpt-test", Usage(60, 0)), Place(is_batch=False))
    assert gateway.post("/chat").status_code == 200
    assert gateway.post("/chat", max_tokens=60).status_code == 429
    assert gateway.post("/chat", model="gpt-other", max_tokens=60).status_code == 200  # Another group.
    with gateway.app.test_request_context(json=ASK, headers={"x-api-key": "alice"}):
        gateway.upstream.require_room(tokens=10)
        gateway.upstream.require_room(tokens=80, model="gpt-third")
        with pytest.raises(UpstreamRefused):
            gateway.upstream.require_room(tokens=80)


def test_request_that_nobody_can_read_is_not_refused_for_that(provider):
    gateway = Gateway(provider)
    with gateway.app.test_request_context(method="POST", data=b"{", content_type="application/json"):
        gateway.upstream.require_room()


def test_pause_of_the_provider_is_its_limit(provider):
    gateway = Gateway(provider)
    gateway.settle(Outcome(NEUTRAL, 429, 7000))
    refused = gateway.post("/chat")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    assert refused.headers["x-ailimit-limited-by"] == "provider"
    assert refused.json["error"]["code"] == "upstream_limited"
    assert gateway.left("chat") == UNTOUCHED


def test_open_breaker_is_a_503(provider):
    gateway = Gateway(provider)
    gateway.settle(Outcome(FAULT, 500), times=10)
    refused = gateway.post("/chat")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json["error"]["code"] == "upstream_unavailable"
    assert gateway.left("chat") == UNTOUCHED


def test_room_at_a_fallback_is_room(provider, monkeypatch):
    gateway = Gateway(provider, upstream={"concurrency": 1, "max_wait": 0, "fallback": ["spare"]})
    gateway.limiter.upstream("spare", base_url=provider.url, headers={"authorization": "Bearer test"})
    gateway.settle(Outcome(NEUTRAL, 429, 60_000))
    answered = gateway.post("/chat")
    assert answered.status_code == 200


def test_before_request_function_may_ask_for_room(provider):
    gateway = Gateway(provider)
    gateway.app.before_request(gateway.upstream.require_room)
    gateway.settle(Outcome(NEUTRAL, 429, 7000))
    assert gateway.post("/unchecked").status_code == 429
    assert gateway.left() == UNTOUCHED


def test_decorator_below_the_limits_gives_back_what_they_took(provider):
    gateway = Gateway(provider)
    limiter, upstream = gateway.limiter, gateway.upstream

    @gateway.app.post("/limited")
    @limiter.limit("5 per hour")
    @limiter.limit_concurrency(1)
    @upstream.needed()
    def limited():
        return {}

    gateway.settle(Outcome(NEUTRAL, 429, 7000))
    for _ in range(8):
        assert gateway.post("/limited").json["error"]["code"] == "upstream_limited"


def test_async_view_may_need_an_upstream(provider):
    gateway = Gateway(provider)

    @gateway.app.post("/async")
    @gateway.upstream.needed
    async def view():
        return {"is": "async"}

    assert gateway.post("/async").json == {"is": "async"}


def test_nobody_is_turned_away_where_limits_are_switched_off(provider):
    gateway = Gateway(provider)
    gateway.settle(Outcome(NEUTRAL, 429, 7000))
    gateway.limiter.enabled = False
    with gateway.app.test_request_context(json=ASK):
        gateway.upstream.require_room()


# After the provider's answer


@pytest.mark.parametrize("how", ["raise", "return"])
def test_provider_s_429_becomes_ours_and_charges_nothing(provider, how, caplog):
    gateway = Gateway(provider, how=how)
    provider.then(Fault.throttled(retry_after=20))
    refused = gateway.post()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "20")
    assert refused.headers["x-ailimit-limited-by"] == "provider"
    assert refused.headers["x-ailimit-upstream"] == "openai-main"
    assert refused.headers["x-request-id"].startswith("req_")
    assert refused.json["error"]["code"] == "upstream_limited"
    assert gateway.left() == UNTOUCHED
    line = [each.getMessage() for each in caplog.records if "upstream_limited" in each.getMessage()]
    told = f"request {refused.headers['x-request-id']} is answered with 429 upstream_limited (throttled)."
    assert line == [f"upstream openai-main: {told}"]
    (seen,) = gateway.seen
    assert (seen["limited_by"], seen["retry_after"], seen["status"]) == ("provider", 20, 429)


def test_our_own_limit_is_told_apart_from_theirs(provider):
    gateway = Gateway(provider, upstream={"requests": {"limit": "1 per minute", "burst": 1}, "max_wait": 0})
    gateway.post()
    left = gateway.left()
    refused = gateway.post()
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ailimit-limited-by"] == "app"
    assert refused.json["error"]["code"] == "upstream_busy"
    assert gateway.left() == left


@pytest.mark.parametrize(
    ("fault", "status", "code", "headers", "is_charged"),
    [
        (Fault.throttled(), 429, "upstream_limited", {"retry-after": "1"}, False),
        (Fault.throttled(retry_after=300), 429, "upstream_limited", {"x-should-retry": "false"}, False),
        (Fault.spent(), 503, "upstream_limited", {"x-should-retry": "false"}, False),
        (Fault.overloaded(), 503, "upstream_unavailable", {"retry-after": "1"}, False),
        (Fault.dropped(), 502, "upstream_failed", {"x-should-retry": "false"}, False),
        (Fault.error(401), 502, "upstream_failed", {"x-should-retry": "false"}, False),
        (Fault.not_in_plan(), 502, "upstream_rejected", {"x-should-retry": "false"}, False),
        (Fault.too_large(), 413, "upstream_too_large", {"x-should-retry": "false"}, True),
        (Fault.too_long(), 413, "upstream_too_large", {"x-should-retry": "false"}, True),
        (Fault.filtered(), 400, "upstream_rejected", {"x-should-retry": "false"}, True),
        (Fault.error(400), 502, "upstream_rejected", {"x-should-retry": "false"}, True),
    ],
    ids=repr,
)
def test_what_each_answer_of_a_provider_becomes(provider, fault, status, code, headers, is_charged):
    gateway = Gateway(provider)
    provider.then(fault)
    refused = gateway.post()
    assert (refused.status_code, refused.json["error"]["code"]) == (status, code)
    assert headers.items() <= {name.lower(): value for name, value in refused.headers}.items()
    assert ("retry-after" in refused.headers) == (refused.json["error"]["message"].count("Try again in") == 1)
    assert gateway.left() == ([9, 1000] if is_charged else UNTOUCHED)


@pytest.mark.parametrize("fault", [Fault.throttled(retry_after=20), Fault.spent()], ids=repr)
def test_call_that_is_not_sent_after_a_provider_s_limit_is_told_as_that_limit(provider, fault):
    gateway = Gateway(provider)
    provider.always(fault)
    told = []
    for path in ("/unchecked", "/unchecked", "/chat"):
        refused = gateway.post(path)
        told.append((refused.status_code, refused.json["error"]["code"], refused.headers["x-ailimit-limited-by"]))
        told.append(refused.headers.get("x-should-retry"))
    assert told[:2] == told[2:4] == told[4:]
    assert len(provider.calls) == 1


def test_provider_that_is_away_is_a_503(provider):
    gateway = Gateway(provider)
    with provider.away():
        refused = gateway.post()
    assert (refused.status_code, refused.json["error"]["code"]) == (503, "upstream_unavailable")
    assert "x-ailimit-limited-by" not in refused.headers
    assert gateway.left() == UNTOUCHED


def test_provider_s_words_and_keys_reach_nobody(provider, caplog):
    caplog.set_level(logging.DEBUG)
    gateway = Gateway(provider)
    secret = "sk-of-the-app: limit reached for org-1234"
    provider.then(Fault.throttled(retry_after=2).with_body(f'{{"error": {{"message": "{secret}"}}}}'.encode()))
    refused = gateway.post()
    said = f"{refused.get_data(as_text=True)}{refused.headers}{gateway.seen}"
    said += "".join(each.getMessage() for each in caplog.records if each.name == "flask_ailimit")
    assert refused.status_code == 429
    assert "sk-of" not in said
    assert "org-1234" not in said


@pytest.mark.parametrize(
    ("error_format", "place"), [("openai", ("error", "code")), ("problem", ("code",)), ("hybrid", ("error", "code"))]
)
def test_body_is_in_the_app_s_format(provider, error_format, place):
    gateway = Gateway(provider, error_format=error_format)
    provider.then(Fault.throttled(retry_after=2))
    found = gateway.post().json
    for each in place:
        found = found[each]
    assert found == "upstream_limited"


def test_recorded_usage_is_charged_all_the_same(provider):
    gateway = Gateway(provider)

    @gateway.app.post("/agent")
    def agent():
        gateway.limiter.record_usage(input_tokens=30)
        return gateway.answer("raise")

    provider.then(Fault.throttled(retry_after=2))
    gateway.post("/agent")
    with gateway.app.test_request_context(method="POST", headers={"x-api-key": "alice"}):
        _, tokens = gateway.limiter.peek("agent").verdicts
    assert tokens.used == 30


def test_view_that_answers_something_else_is_charged_as_ever(provider):
    gateway = Gateway(provider)

    @gateway.app.post("/cached")
    def cached():
        gateway.answer("return")
        return {"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}

    provider.then(Fault.throttled(retry_after=2))
    assert gateway.post("/cached").status_code == 200
    with gateway.app.test_request_context(method="POST", headers={"x-api-key": "alice"}):
        assert [verdict.used for verdict in gateway.limiter.peek("cached").verdicts] == [1, 7]


def test_handlers_of_the_app_get_the_error_and_the_client_its_headers(provider):
    gateway = Gateway(provider)
    gateway.app.register_error_handler(429, lambda error: ({"mine": error.problem_code}, 418))
    provider.then(Fault.throttled(retry_after=20))
    refused = gateway.post()
    assert (refused.status_code, refused.json) == (418, {"mine": "upstream_limited"})
    assert refused.headers["retry-after"] == "20"
    assert gateway.left() == UNTOUCHED


@pytest.mark.parametrize("how", ["raise", "return"])
def test_provider_s_429_becomes_ours_also_where_limits_are_switched_off(provider, how):
    gateway = Gateway(provider, how=how)
    gateway.limiter.enabled = False
    provider.always(Fault.throttled(retry_after=20))
    refused = gateway.post()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "20")
    assert refused.headers["x-ailimit-limited-by"] == "provider"
    assert refused.json["error"]["code"] == "upstream_limited"


def test_error_that_is_no_failure_of_a_call_stays_what_it_is(provider):
    gateway = Gateway(provider)
    with gateway.app.test_request_context(), pytest.raises(ZeroDivisionError):
        raise gateway.upstream.refusal(ZeroDivisionError())
    with gateway.app.test_request_context():
        error = gateway.upstream.refusal(openai.APIConnectionError(request=httpx2.Request("GET", "http://x")))
        assert gateway.upstream.refusal(error) is error
        assert error.code == 502


@contextmanager
def front(gateway, kind):
    """A client of the gateway that is an official SDK."""
    with serving(gateway.app) as address:
        if kind == "openai":
            with openai.OpenAI(base_url=f"{address}", api_key="alice", max_retries=1) as client:
                yield lambda: client.post("/unchecked", body=ASK, cast_to=object)
        else:
            with anthropic.Anthropic(base_url=address, api_key="alice", max_retries=1) as client:
                yield lambda: client.post("/unchecked", body=ASK, cast_to=object)


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_sdks_of_clients_wait_as_the_provider_said_and_succeed(provider, kind):
    gateway = Gateway(provider)
    provider.then(Fault.throttled(retry_after=1))
    with front(gateway, kind) as ask:
        ask()
    assert [call.status for call in provider.calls] == [429, 200]


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_sdks_of_clients_do_not_repeat_what_waiting_does_not_help(provider, kind):
    gateway = Gateway(provider)
    provider.always(Fault.spent())
    sdk = {"openai": openai, "anthropic": anthropic}[kind]
    with front(gateway, kind) as ask, pytest.raises(sdk.InternalServerError):
        ask()
    assert provider.count() == 1


def test_anthropic_s_errors_are_understood_too(provider):
    gateway = Gateway(provider)
    http = OPENED.enter_context(gateway.upstream.http_client())
    claude = anthropic.Anthropic(base_url=provider.anthropic_url, api_key="test", http_client=http)

    @gateway.app.post("/claude")
    def view():
        try:
            return claude.messages.create(**ASK).model_dump()
        except anthropic.APIError as error:
            raise gateway.upstream.refusal(error) from None

    provider.then(Fault.throttled(retry_after=9), Fault.overloaded())
    assert gateway.post("/claude").headers["retry-after"] == "9"


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("headers", [{}, {"x-ailimit-limited-by": "app"}, {"x-ailimit-limited-by": "provider"}])
@pytest.mark.parametrize("retry_after", [None, 0.0, 1e9])
def test_every_kind_of_answer_has_a_meaning(kind, headers, retry_after):
    meaning = meaning_of(Answer(kind, 500, retry_after, "x"), headers)
    assert meaning.status in (400, 413, 429, 502, 503)
    assert meaning.code.startswith("upstream_")
