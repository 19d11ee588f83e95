"""What an answer of a provider means: the table, each provider's bodies, our own refusals, and bodies of nobody's."""

import json
import random
import time
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import Charge, Engine, Quota, open_store
from flask_ailimit.http.problems import ERROR_FORMATS
from flask_ailimit.http.responses import (
    never_taken_body,
    never_taken_headers,
    refusal_body,
    refusal_headers,
    refusal_status,
    unavailable_body,
    unavailable_headers,
)
from flask_ailimit.testing import SECRET, ManualClock
from flask_ailimit.upstream.answers import POLICIES, Answer, Kind, answer_of
from flask_ailimit.upstream.header_values import LONGEST_SECONDS

NOW = 1_755_780_058.0
STOPS_OTHERS = {Kind.SPENT, Kind.CREDENTIAL}


def answer(status, body=b"", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answer_of(status, {name.replace("_", "-"): value for name, value in headers.items()}, data, NOW)


def openai(message="", kind="invalid_request_error", code=None):
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic(kind, message="", error_code=None):
    details = {"details": {"error_code": error_code}} if error_code else {}
    return {"type": "error", "error": {"type": kind, "message": message, **details}, "request_id": "req_1"}


def google(code, status, message="", *details):
    return [{"error": {"code": code, "message": message, "status": status, "details": list(details)}}]


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.07s"}
QUOTA_FAILURE = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "PerMinute"}]}
TOKENS_A_MINUTE = (
    "Rate limit reached for gpt-4 in organization org-x on tokens per min (TPM): Limit 10000, Used 8554, "
    "Requested 3082. Please try again in 9.816s."
)
TOO_LARGE = "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 30601."
AZURE = "Requests to the ChatCompletions_Create Operation have exceeded token rate limit of your current tier."
LONG = "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens."


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        pytest.param(200, b"", Kind.GOOD, id="good"),
        pytest.param(201, b"\xff", Kind.GOOD, id="good whatever it holds"),
        # OpenAI
        pytest.param(429, openai(TOKENS_A_MINUTE, "tokens", "rate_limit_exceeded"), Kind.THROTTLED, id="openai tokens"),
        pytest.param(429, openai("", "insufficient_quota", "insufficient_quota"), Kind.SPENT, id="openai spent"),
        pytest.param(429, openai("", "insufficient_quota"), Kind.SPENT, id="openai spent, by its type"),
        pytest.param(429, openai(TOO_LARGE, "tokens", "rate_limit_exceeded"), Kind.NEVER_FITS, id="openai too large"),
        pytest.param(400, openai(LONG, code="context_length_exceeded"), Kind.TOO_LONG, id="openai long prompt"),
        pytest.param(400, openai(code="content_filter"), Kind.FILTERED, id="openai filter"),
        pytest.param(400, openai("Invalid value"), Kind.CALLER, id="openai bad request"),
        pytest.param(401, openai(code="invalid_api_key"), Kind.CREDENTIAL, id="openai key"),
        pytest.param(403, openai(code="model_not_found"), Kind.NOT_IN_PLAN, id="openai project without the model"),
        pytest.param(403, openai(code="unsupported_country_region_territory"), Kind.CREDENTIAL, id="openai country"),
        pytest.param(404, openai(code="model_not_found"), Kind.NOT_IN_PLAN, id="openai model"),
        pytest.param(404, openai("Unknown request URL"), Kind.CALLER, id="openai address"),
        pytest.param(500, openai("", "server_error"), Kind.OVERLOADED, id="openai broken"),
        # Azure
        pytest.param(429, openai(AZURE, "", "429"), Kind.THROTTLED, id="azure"),
        pytest.param(404, openai(code="DeploymentNotFound"), Kind.NOT_IN_PLAN, id="azure deployment"),
        pytest.param(
            400,
            {"error": {"code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            Kind.FILTERED,
            id="azure filter",
        ),
        # Anthropic
        pytest.param(429, anthropic("rate_limit_error"), Kind.THROTTLED, id="anthropic"),
        pytest.param(
            429,
            anthropic("rate_limit_error", error_code="enforced_spend_limit_reached"),
            Kind.SPENT,
            id="anthropic spend limit",
        ),
        pytest.param(
            429,
            anthropic("rate_limit_error", error_code="contract_spend_limit_reached"),
            Kind.SPENT,
            id="anthropic contract",
        ),
        pytest.param(
            429, anthropic("rate_limit_error", error_code="ramp_limit_exceeded"), Kind.THROTTLED, id="anthropic ramp"
        ),
        pytest.param(402, anthropic("billing_error"), Kind.SPENT, id="anthropic billing"),
        pytest.param(
            400,
            anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
            Kind.SPENT,
            id="anthropic credit",
        ),
        pytest.param(
            400,
            anthropic("invalid_request_error", "You have reached your specified API usage limits. You will regain"),
            Kind.SPENT,
            id="anthropic own spend limit",
        ),
        pytest.param(
            400,
            anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
            Kind.TOO_LONG,
            id="anthropic long prompt",
        ),
        pytest.param(413, anthropic("request_too_large"), Kind.CALLER, id="anthropic large body"),
        pytest.param(401, anthropic("authentication_error"), Kind.CREDENTIAL, id="anthropic key"),
        pytest.param(403, anthropic("permission_error"), Kind.CREDENTIAL, id="anthropic permission"),
        pytest.param(529, anthropic("overloaded_error"), Kind.OVERLOADED, id="anthropic overloaded"),
        # Google
        pytest.param(
            429, google(429, "RESOURCE_EXHAUSTED", "", QUOTA_FAILURE, RETRY_INFO), Kind.THROTTLED, id="google"
        ),
        pytest.param(503, google(503, "UNAVAILABLE"), Kind.OVERLOADED, id="google overloaded"),
        pytest.param(
            400, google(400, "INVALID_ARGUMENT", "", {"reason": "API_KEY_INVALID"}), Kind.CREDENTIAL, id="google key"
        ),
        pytest.param(
            400,
            google(400, "INVALID_ARGUMENT", "The input token count (2000000) exceeds the maximum number of tokens"),
            Kind.TOO_LONG,
            id="google long prompt",
        ),
        # Others
        pytest.param(
            429,
            {"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "code": "1300"},
            Kind.THROTTLED,
            id="mistral",
        ),
        pytest.param(
            400, {"object": "error", "message": LONG, "type": "BadRequestError", "code": 400}, Kind.TOO_LONG, id="vllm"
        ),
        pytest.param(400, {"error": {"code": 400, "type": "exceed_context_size_error"}}, Kind.TOO_LONG, id="llama.cpp"),
        pytest.param(503, {"error": {"code": 503, "type": "unavailable_error"}}, Kind.OVERLOADED, id="llama.cpp loads"),
        pytest.param(429, {"id": "too_many_requests", "message": "Too many"}, Kind.THROTTLED, id="digitalocean"),
        pytest.param(
            413, openai(TOO_LARGE, "tokens", "rate_limit_exceeded"), Kind.NEVER_FITS, id="groq says 413 of its limits"
        ),
        pytest.param(413, openai("", "tokens", "rate_limit_exceeded"), Kind.NEVER_FITS, id="groq without numbers"),
        pytest.param(402, openai("Insufficient Balance", "unknown_error"), Kind.SPENT, id="deepseek"),
        pytest.param(429, {"error": {"type": "engine_overloaded_error"}}, Kind.OVERLOADED, id="moonshot overloaded"),
        pytest.param(
            429,
            {"error": {"message": "Your current subscription plan does not yet include access to GLM-5"}},
            Kind.NOT_IN_PLAN,
            id="plan lacks the model",
        ),
        pytest.param(422, {"detail": [{"loc": ["body"], "type": "missing"}]}, Kind.CALLER, id="fastapi"),
        # Statuses of which nothing more is known
        *(pytest.param(status, b"", Kind.UNSENT, id=str(status)) for status in (408, 409, 425)),
        *(pytest.param(status, b"", Kind.OVERLOADED, id=str(status)) for status in (500, 502, 503, 504, 524, 529, 599)),
        *(pytest.param(status, b"", Kind.CALLER, id=str(status)) for status in (304, 400, 404, 405, 418, 422, 501)),
        *(pytest.param(status, b"", Kind.UNCERTAIN, id=str(status)) for status in (-1, 0, 499, 600, 999, 10**400)),
        pytest.param(403, b"<html>blocked</html>", Kind.CALLER, id="firewall before the provider"),
        pytest.param(401, b"<html>", Kind.CREDENTIAL, id="key refused by a page"),
        pytest.param(429, b"<html>429</html>", Kind.THROTTLED, id="page of a proxy"),
        pytest.param(502, b"<html>Bad gateway</html>", Kind.OVERLOADED, id="page of a broken proxy"),
    ],
)
def test_answers_of_the_providers_are_told_apart(status, body, kind):
    assert answer(status, body).kind is kind


def test_every_kind_has_its_row():
    assert POLICIES.keys() == set(Kind)
    assert {kind for kind in Kind if POLICIES[kind].pause == "account"} == {Kind.SPENT}
    assert {kind for kind in Kind if POLICIES[kind].retry} == {Kind.THROTTLED, Kind.OVERLOADED, Kind.UNSENT}
    assert {kind for kind in Kind if POLICIES[kind].fault} == {
        *(Kind.OVERLOADED, Kind.UNSENT, Kind.UNCERTAIN, Kind.TRUNCATED)
    }


@pytest.mark.parametrize("status", [408, 409, 425, 429, 401, 402, 400, 499])
def test_what_was_declined_in_good_order_is_no_fault_of_the_provider(status):
    assert not answer(status).is_fault


@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
def test_what_is_broken_is_a_fault_of_the_provider(status):
    assert answer(status).is_fault


# How long to wait


def test_wait_comes_from_the_headers_first():
    limited = google(429, "RESOURCE_EXHAUSTED", "", RETRY_INFO)
    assert answer(429, limited, retry_after="5").retry_after == 5
    assert answer(429, limited).retry_after == 34.07
    assert answer(429, limited, retry_after="soon").retry_after == 34.07


def test_wait_of_days_is_still_throttled_and_the_caller_s_to_compare():
    days = answer(429, retry_after_ms="274579000")
    assert days == Answer(Kind.THROTTLED, 429, 274_579.0, "throttled")
    assert not days.is_worth_retrying(60)
    assert days.is_worth_retrying(300_000)


def test_throttled_without_a_wait_waits_for_the_reset_of_what_is_used_up():
    headers = {"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "7m12s"}
    assert answer(429, **headers).retry_after == 432
    assert answer(503, **headers).retry_after is None
    assert answer(429, x_ratelimit_remaining_tokens="9", x_ratelimit_reset_tokens="7m12s").retry_after is None


def test_good_answer_asks_for_no_wait():
    """Flask-Limiter sends Retry-After with every answer."""
    assert answer(200, retry_after="60").retry_after is None


def test_provider_s_hint_is_followed_where_it_says_nothing_of_a_wait():
    assert not answer(503, x_should_retry="false").is_worth_retrying(60)
    assert answer(429, x_should_retry="false", retry_after="90").is_worth_retrying(120)
    assert not answer(429, x_should_retry="false", retry_after="90").is_worth_retrying(60)
    assert not answer(400, x_should_retry="true").is_worth_retrying(60)
    assert answer(503, x_should_retry="perhaps").should_retry is None


def test_uncertain_is_sent_again_only_when_asked_for():
    uncertain = answer(499)
    assert not uncertain.is_worth_retrying(60)
    assert uncertain.is_worth_retrying(60, uncertain=True)
    assert not answer(400).is_worth_retrying(60, uncertain=True)


# Our own refusals


def refused(*asked):
    """A real refusal: each pair is a quota and a cost, and the whole quota is used."""
    engine = Engine(open_store("memory://", name="a", clock=ManualClock(), options={}), secret=SECRET)
    subject = engine.subject("somebody")
    for quota, _ in asked:
        engine.reserve([Charge(subject, quota, quota.limit)])
    return engine.reserve([Charge(subject, quota, cost) for quota, cost in asked]).decision


BUDGET = Quota(1000, 86400, "nano_usd", "budget", every="day")
OURS = [
    pytest.param(refused((Quota(60, 60), 1)), Kind.THROTTLED, id="requests"),
    pytest.param(refused((Quota(60, 60, "tokens"), 30)), Kind.THROTTLED, id="tokens"),
    pytest.param(refused((Quota(1, 86400, "output_tokens"), 1)), Kind.THROTTLED, id="a day"),
    pytest.param(refused((Quota(2, 60, "concurrency", "concurrency"), 1)), Kind.THROTTLED, id="slots"),
    pytest.param(refused((Quota(60, 60, "tokens"), 61)), Kind.NEVER_FITS, id="larger than the limit"),
]


@pytest.mark.parametrize("error_format", ERROR_FORMATS)
@pytest.mark.parametrize("too_large_status", [400, 413, 429])
@pytest.mark.parametrize(("decision", "kind"), OURS)
def test_our_own_refusals_are_understood_in_every_form(decision, kind, error_format, too_large_status):
    status = refusal_status(decision, too_large_status)
    body = refusal_body(decision, status, "req_1", error_format)
    headers = {name.lower(): value for name, value in refusal_headers(decision, "req_1")}
    read = answer_of(status, headers, json.dumps(body).encode(), NOW)
    assert read.kind is kind
    stripped = answer_of(status, {}, json.dumps(body).encode(), NOW)
    assert stripped.kind is kind
    if kind is Kind.THROTTLED:
        wait = decision.retry_after
        assert wait <= read.retry_after < wait + 0.0011
        assert wait <= stripped.retry_after < wait + 0.0011


@pytest.mark.parametrize("error_format", ERROR_FORMATS)
def test_spent_budget_of_ours_is_spent(error_format):
    engine = Engine(open_store("memory://", name="a", clock=ManualClock(), options={}), secret=SECRET)
    charge = Charge(engine.subject("somebody"), BUDGET, 1000)
    engine.reserve([charge]).settle({})
    decision = engine.reserve([charge]).decision
    assert decision.refused[0].is_spent
    body = json.dumps(refusal_body(decision, 429, "req_1", error_format)).encode()
    assert answer_of(429, {}, body, NOW).kind is Kind.SPENT


@pytest.mark.parametrize("error_format", set(ERROR_FORMATS) - {"anthropic"})  # It has no word for these.
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "model_not_allowed", Kind.NOT_IN_PLAN),
        (403, "model_not_priced", Kind.NOT_IN_PLAN),
        (403, "not_allowed", Kind.NOT_IN_PLAN),
        (403, "suspended", Kind.CREDENTIAL),
        (400, "invalid_body", Kind.CALLER),
        (413, "body_too_large", Kind.CALLER),
    ],
)
def test_our_other_errors_are_understood(status, code, kind, error_format):
    body = never_taken_body(status, code, "It can't be taken.", "req_1", error_format)
    headers = {name.lower(): value for name, value in never_taken_headers("req_1")}
    assert answer_of(status, headers, json.dumps(body).encode(), NOW).kind is kind


@pytest.mark.parametrize("error_format", ERROR_FORMATS)
def test_limiter_that_is_away_is_overloaded(error_format):
    headers = {name.lower(): value for name, value in unavailable_headers("req_1")}
    body = json.dumps(unavailable_body("req_1", error_format)).encode()
    assert answer_of(503, headers, body, NOW) == Answer(Kind.OVERLOADED, 503, 1.0, "server-error")


# What a client can bring about


@pytest.mark.parametrize(
    "text",
    [
        "insufficient_quota",
        "x Your credit balance is too low",
        '"}, "code": "insufficient_quota", "x": {"y": "',
        "invalid_api_key account_deactivated billing_error",
    ],
)
def test_text_of_a_client_that_a_sentence_repeats_stops_nobody_else(text):
    plain, echoed = openai("Invalid value: 'x'"), openai(f"Invalid value: {text!r}")
    for status in range(400, 600):
        if answer(status, plain).kind not in STOPS_OTHERS:
            assert answer(status, echoed).kind not in STOPS_OTHERS


def test_reason_is_a_word_of_ours_and_never_a_text_of_the_provider_s():
    secret = "sk-of-somebody"
    for status in (400, 401, 403, 404, 413, 429, 500, 529):
        for body in (openai(secret, secret, secret), anthropic(secret, secret, secret), secret.encode()):
            assert secret not in repr(answer(status, body))


# Bodies of nobody's

ODD = [
    *(b"", b" ", b"null", b"true", b"0", b"-1e999", b"NaN", b"Infinity", b'"x"', b"[]", b"[[]]", b"{}", b"[null]"),
    *(b"{", b"}", b"\xff\xfe", b"\x00", b"\xef\xbb\xbf{}", b"<html>", b"data: {}", b"9" * 5000, b"[" * 70_000),
    *(b'{"error":' * 10_000, b'{"a":' * 900 + b"1" + b"}" * 900, b'{"error":null}', b'{"error":[]}', b'{"error":5}'),
    *(b'{"error":{"code":[],"type":{},"message":7,"details":{"a":{}}}}', b'{"error":"insufficient_quota"}'),
    *(b'{"error":{"details":[null,1,"x",[],{}]}}', b'{"error":{"details":[{"retryDelay":"1e9s"}]}}'),
    *(b'{"error":{"details":[{"retryDelay":{"seconds":1}}]}}', b'{"limit":{"retry_after":NaN}}'),
    *(b'{"limit":{"retry_after":1e400}}', b'{"limit":{"retry_after":-5}}', b'{"limit":{"retry_after":"9"}}'),
    *(b'{"limit":{"retry_after":1' + b"0" * 400 + b"}}", b'{"limit":7}', b'{"limit":{"burst":null}}'),
    *(b'{"error":{"message":"' + b"Limit 1," * 2000 + b'"}}', b'{"message":"\\ud800"}', b'{"code":"\\ud800"}'),
    *(b'{"error":{"message":"Limit ' + b"9" * 400 + b", Requested " + b"9" * 500 + b'"}}', '{"code":"٣"}'.encode()),
]


def is_sane(read):
    return (
        isinstance(read.kind, Kind)
        and (read.retry_after is None or 0 <= read.retry_after <= LONGEST_SECONDS)
        and len(read.reason) <= 20
        and read.is_worth_retrying(1) in (True, False)
    )


def test_odd_bodies_never_raise():
    start = time.process_time()
    for body in ODD:
        for status in (-1, 0, 100, 200, *range(400, 430), 499, 500, 503, 529, 700):
            assert is_sane(answer(status, body))
    assert time.process_time() - start < 60


FIELDS = st.sampled_from(["error", "type", "code", "status", "details", "message", "limit", "retryDelay"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.integers(0, 700), JSON, st.booleans())
def test_json_of_any_shape_never_raises(status, document, is_cut):
    body = json.dumps(document).encode()
    assert is_sane(answer(status, body[: len(body) // 2] if is_cut else body))


@given(st.integers(), st.binary(max_size=200))
def test_bytes_of_any_kind_never_raise(status, body):
    assert is_sane(answer(status, body))


def test_bodies_with_a_byte_changed_never_raise():
    numbers = random.Random(47)
    samples = [json.dumps(body).encode() for body in (google(429, "X", "m", RETRY_INFO), openai(TOO_LARGE, "a", "b"))]
    for _ in range(5000):
        body = bytearray(numbers.choice(samples))
        body[numbers.randrange(len(body))] = numbers.randrange(256)
        assert is_sane(answer(429, bytes(body)))


def test_a_status_of_the_standard_library_is_a_status():
    assert answer(HTTPStatus.TOO_MANY_REQUESTS).kind is Kind.THROTTLED


def test_own_answer_in_place_of_a_lost_one_is_uncertain():
    body = b'{"error": {"code": "upstream_silent"}}'
    assert answer_of(504, {}, body, 0.0).kind is Kind.UNCERTAIN
    assert answer_of(504, {}, b"{}", 0.0).kind is Kind.OVERLOADED
