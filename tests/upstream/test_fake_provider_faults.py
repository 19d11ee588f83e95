"""Each fault, as the users of the real SDKs see it."""

import json

import anthropic
import httpx2
import openai
import pytest
from sdk_users import PROMPT, SDKS

from flask_ailimit.testing import HOSTILE_HEADERS, Fault, ManualClock
from flask_ailimit.testing import FakeProvider as Provider

streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])

CODES = {
    "openai": lambda error: error.code,
    "azure": lambda error: error.code,
    "anthropic": lambda error: error.type,
}

ERRORS = [
    # fault, OpenAI's status and code, Azure's code, Anthropic's status and type
    (Fault.throttled(2), 429, "rate_limit_exceeded", "429", 429, "rate_limit_error"),
    (Fault.spent(), 429, "insufficient_quota", "insufficient_quota", 402, "billing_error"),
    (Fault.too_large(), 429, "rate_limit_exceeded", "rate_limit_exceeded", 413, "request_too_large"),
    (Fault.not_in_plan(), 429, "model_not_in_plan", "model_not_in_plan", 429, "rate_limit_error"),
    (Fault.overloaded(), 503, "overloaded", "overloaded", 529, "overloaded_error"),
    (Fault.too_long(), 400, "context_length_exceeded", "context_length_exceeded", 400, "invalid_request_error"),
    (Fault.filtered(), 400, "content_filter", "content_filter", 400, "invalid_request_error"),
    (Fault.error(400), 400, None, None, 400, "invalid_request_error"),
    (Fault.error(401), 401, "invalid_api_key", "invalid_api_key", 401, "authentication_error"),
    (Fault.error(403), 403, *["unsupported_country_region_territory"] * 2, 403, "permission_error"),
    (Fault.error(404), 404, "model_not_found", "model_not_found", 404, "not_found_error"),
    (Fault.error(408), 408, None, None, 408, "invalid_request_error"),
    (Fault.error(409), 409, None, None, 409, "invalid_request_error"),
    (Fault.error(413), 413, None, None, 413, "request_too_large"),
    (Fault.error(422), 422, None, None, 422, "invalid_request_error"),
    (Fault.error(500), 500, None, None, 500, "api_error"),
    (Fault.error(502), 502, None, None, 502, None),
    (Fault.error(503), 503, None, None, 503, "api_error"),
    (Fault.error(504), 504, None, None, 504, None),
    (Fault.error(529), 529, None, None, 529, "overloaded_error"),
    (Fault.ok().failing(after=1), 529, None, None, 529, "overloaded_error"),
]


@pytest.mark.parametrize(("fault", "status", "code", "azure", "its_status", "its_type"), ERRORS, ids=repr)
def test_error_is_the_one_of_the_api(provider, sdk, fault, status, code, azure, its_status, its_type):
    provider.then(fault)
    seen = sdk.ask(provider)
    expected = {"openai": (status, code), "azure": (status, azure), "anthropic": (its_status, its_type)}
    assert (seen.status, CODES[sdk.dialect](seen.error)) == expected[sdk.dialect]
    assert [(call.status, call.delivered) for call in provider.calls] == [(seen.status, True)]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("enforced_spend_limit_reached", "EnforcedSpendLimitReachedError"),
        ("contract_spend_limit_reached", "ContractSpendLimitReachedError"),
    ],
)
def test_spend_limit_of_anthropic_is_a_429_that_names_it(provider, code, error):
    provider.then(Fault.spent(code))
    seen = SDKS["anthropic"].ask(provider)
    assert (type(seen.error).__name__, seen.status, seen.error.error_code) == (error, 429, code)
    assert "retry-after" not in seen.error.response.headers


@pytest.mark.parametrize(
    ("fault", "hints"),
    [
        (Fault.throttled(), {}),
        (Fault.throttled(2), {"retry-after": "2"}),
        (Fault.throttled(1.5), {"retry-after": "1.5"}),
        (Fault.throttled(retry_after_ms=1500), {"retry-after-ms": "1500"}),
        (Fault.throttled(90, as_date=True), {"retry-after": "Fri, 04 Oct 2024 00:01:30 GMT"}),
        (Fault.throttled(90, as_date=True).clock_off(60), {"retry-after": "Fri, 04 Oct 2024 00:02:30 GMT"}),
        (Fault.overloaded(9), {"retry-after": "9"}),
        (Fault.error(503, retry_after=9), {"retry-after": "9"}),
    ],
    ids=repr,
)
def test_error_hints_at_the_wait_as_it_is_ordered(sdk, fault, hints):
    with Provider(clock=ManualClock()) as provider:
        provider.then(fault)
        headers = sdk.ask(provider).error.response.headers
    assert {name: headers[name] for name in headers if name.startswith(("retry", "x-ratelimit", "anthropic-"))} == hints


@pytest.mark.parametrize("unit", ["requests", "tokens"])
def test_wait_may_stand_in_the_rate_limit_headers_alone(sdk, unit):
    with Provider(clock=ManualClock()) as provider:
        provider.then(Fault.throttled(reset=366, unit=unit))
        headers = sdk.ask(provider).error.response.headers
    assert not {"retry-after", "retry-after-ms"} & set(headers)
    if sdk.dialect == "anthropic":
        assert headers[f"anthropic-ratelimit-{unit}-remaining"] == "0"
        assert headers[f"anthropic-ratelimit-{unit}-reset"] == "2024-10-04T00:06:06Z"
    else:
        assert headers[f"x-ratelimit-remaining-{unit}"] == "0"
        assert headers[f"x-ratelimit-reset-{unit}"] == "6m6s"


def test_message_of_a_429_says_which_of_them_it_is(provider):
    def message(fault):
        provider.then(fault)
        return SDKS["openai"].ask(provider).error.body["message"]

    assert "requests per min (RPM)" in message(Fault.throttled())
    assert "tokens per min (TPM)" in message(Fault.throttled(unit="tokens"))
    assert message(Fault.too_large()).startswith("Request too large for test-model ")
    assert message(Fault.not_in_plan()) == "Your plan does not include the model test-model."


def test_answer_of_the_content_filter_says_so(provider, sdk):
    provider.then(Fault.filtered(200), Fault.filtered(200))
    seen = [sdk.ask(provider, stream=stream) for stream in (False, True)]
    assert {each.finish for each in seen} == {"refusal" if sdk.dialect == "anthropic" else "content_filter"}


# No answer


def is_timeout(error):
    return isinstance(error, openai.APITimeoutError | anthropic.APITimeoutError)


def is_connection_error(error):
    return isinstance(error, openai.APIConnectionError | anthropic.APIConnectionError) and not is_timeout(error)


@streamed
def test_silence_is_a_timeout_and_the_call_ends_when_the_client_leaves(provider, sdk, stream):
    provider.then(Fault.silent())
    assert is_timeout(sdk.ask(provider, stream=stream, timeout=0.3).error)
    (call,) = provider.wait_for_calls(1)
    assert (call.status, call.delivered, call.body["messages"][0]["content"]) == (0, False, PROMPT)


@streamed
def test_late_answer_is_a_timeout_for_who_does_not_wait_and_an_answer_for_who_does(provider, sdk, stream):
    provider.always(Fault.ok().late(0.5))
    assert is_timeout(sdk.ask(provider, stream=stream, timeout=0.1).error)
    assert sdk.ask(provider, stream=stream).text == PROMPT
    calls = provider.wait_for_calls(2)
    assert [(call.status, call.delivered) for call in calls] == [(0, False), (200, True)]


@streamed
@pytest.mark.parametrize(
    "fault",
    [Fault.dropped(), Fault.dropped(ending="close"), Fault.dropped(unread=True)],
    ids=repr,
)
def test_dropped_connection_is_a_connection_error(provider, sdk, stream, fault):
    provider.then(fault)
    assert is_connection_error(sdk.ask(provider, stream=stream).error)
    (call,) = provider.wait_for_calls(1)
    assert (call.status, call.delivered) == (0, False)
    assert (call.body is None) == fault.is_unread


@streamed
def test_provider_that_is_away_refuses_connections_and_is_told_of_none(provider, sdk, stream):
    with provider.away():
        assert is_connection_error(sdk.ask(provider, stream=stream).error)
    assert provider.count() == 0
    assert sdk.ask(provider, stream=stream).text == PROMPT


# Half an answer


def events_before_words(sdk):
    return 3 if sdk.dialect == "anthropic" else 1


# In the middle of a stream, Anthropic's SDK lets the errors of its transport through.
MID_STREAM = {
    "openai": openai.APIConnectionError,
    "azure": openai.APIConnectionError,
    "anthropic": httpx2.TransportError,
}


@pytest.mark.parametrize("ending", ["reset", "close"])
def test_stream_that_breaks_off_gives_what_came_before_and_an_error(provider, sdk, ending):
    provider.then(Fault.ok().cut(after=events_before_words(sdk) + 2, ending=ending))
    seen = sdk.ask(provider, stream=True)
    assert seen.texts == ["one", " two"]
    assert isinstance(seen.error, MID_STREAM[sdk.dialect])
    (call,) = provider.wait_for_calls(1)
    assert (call.status, call.delivered) == (200, False)


def test_stream_that_ends_too_early_is_no_error_for_an_sdk(provider, sdk):
    provider.then(Fault.ok().cut(after=events_before_words(sdk) + 2, ending="clean"))
    seen = sdk.ask(provider, stream=True)
    assert (seen.texts, seen.finish, seen.error) == (["one", " two"], None, None)
    assert provider.calls[0].delivered is False


@pytest.mark.parametrize("ending", ["reset", "close"])
def test_whole_answer_that_breaks_off_is_a_connection_error(provider, sdk, ending):
    provider.then(Fault.ok().cut(after=0, ending=ending))
    assert is_connection_error(sdk.ask(provider).error)
    (call,) = provider.wait_for_calls(1)
    assert (call.status, call.delivered) == (200, False)


def test_half_of_a_body_that_claims_to_be_whole_is_no_json(provider, sdk):
    provider.then(Fault.ok().cut(after=0, ending="clean"))
    with pytest.raises(json.JSONDecodeError):
        sdk.ask(provider)


def test_error_in_the_middle_of_a_stream_is_raised_after_what_came_before(provider, sdk):
    provider.then(Fault.ok().failing(after=events_before_words(sdk) + 2, status=529))
    seen = sdk.ask(provider, stream=True)
    assert seen.texts == ["one", " two"]
    assert isinstance(seen.error, openai.APIError | anthropic.APIError)
    assert CODES["anthropic"](seen.error) == ("overloaded_error" if sdk.dialect == "anthropic" else "server_error")
    assert provider.calls[0].status == 200


def test_slow_stream_is_a_timeout_between_its_events_or_whole(provider, sdk):
    provider.then(Fault.ok().slow(0.5), Fault.ok().slow(0.02))
    assert isinstance(sdk.ask(provider, stream=True, timeout=0.1).error, openai.APITimeoutError | httpx2.ReadTimeout)
    assert sdk.ask(provider, stream=True).text == PROMPT
    assert [call.delivered for call in provider.wait_for_calls(2)] == [False, True]


# Wrong answers


@streamed
@pytest.mark.parametrize("told", [(10**9, 10**9), (0, 0), (-5, -7), (3, 10**30)])
def test_usage_is_told_as_it_is_ordered(provider, sdk, stream, told):
    provider.then(Fault.ok().telling(input_tokens=told[0], output_tokens=told[1]), Fault.ok())
    assert [sdk.ask(provider, stream=stream).usage for _ in range(2)] == [told, (3, 3)]


@streamed
def test_missing_usage_is_missing(provider, sdk, stream):
    provider.then(Fault.ok().without_usage())
    seen = sdk.ask(provider, stream=stream)
    assert (seen.text, seen.usage, seen.error) == (PROMPT, None, None)


def test_clock_that_is_off_shows_in_every_time_of_the_headers():
    with Provider(clock=ManualClock(), limits={"requests": 1}) as provider:
        provider.always(Fault.ok().clock_off(-3600))
        sdk = SDKS["anthropic"]
        sdk.ask(provider)
        headers = sdk.ask(provider).error.response.headers
    assert headers["date"] == "Thu, 03 Oct 2024 23:00:00 GMT"
    assert headers["anthropic-ratelimit-requests-reset"] == "2024-10-03T23:01:00Z"
    assert headers["retry-after"] == "60"


@pytest.mark.parametrize("fault", [Fault.ok(), Fault.throttled(7)], ids=repr)
@pytest.mark.parametrize("headers", HOSTILE_HEADERS, ids=lambda headers: f"{headers[0][0]} {headers[0][1]:.12}")
def test_hostile_headers_reach_the_client_in_place_of_the_usual_ones(provider, headers, fault):
    provider.then(fault.with_headers(headers))
    with SDKS["openai"].client(provider) as client:
        raw = client._client.post(f"{provider.url}/chat/completions", json={"messages": []})
    for name, value in headers:
        sent = [told.strip() for key, told in raw.headers.raw if key.decode().lower() == name]
        assert sent == [_as_bytes(each).strip() for key, each in headers if key == name], value


def _as_bytes(value):
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode()


def test_body_may_be_anything(provider, sdk):
    provider.always(Fault.error(500).with_body(b"<html>\xff", "text/html"))
    seen = sdk.ask(provider)
    assert (seen.status, seen.error.response.content) == (500, b"<html>\xff")
    assert seen.error.response.headers["content-type"] == "text/html"


def test_faults_say_what_they_are():
    assert repr(Fault.ok()) == "Fault()"
    assert repr(Fault.throttled(2).late(1)) == "Fault(name='throttled', retry_after=2, delay=1)"


@pytest.mark.parametrize(
    "order",
    [
        lambda: Fault.error(200),
        lambda: Fault.error("500"),
        lambda: Fault.spent("much"),
        lambda: Fault.ok().cut(-1),
        lambda: Fault.ok().cut(1, ending="gone"),
        lambda: Fault.dropped(ending="gone"),
        lambda: Fault.ok().late(-1),
        lambda: Fault.ok().slow(float("nan")),
        lambda: Fault.ok().failing(after=1, status=99),
    ],
)
def test_order_without_sense_is_refused_with_what_is_needed(order):
    with pytest.raises(ValueError, match=r"needed\. Got "):
        order()
