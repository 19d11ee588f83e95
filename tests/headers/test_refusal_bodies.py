"""A refusal's JSON body, in each format."""

import json
import re

import pytest
from header_decisions import (
    DAILY,
    NEVER,
    OUT_OF_REQUESTS,
    OUT_OF_SLOTS,
    OUT_OF_TOKENS,
    OUTPUT,
    PAGES,
    REQUESTS,
    SECOND,
    allowed,
    decided,
    refusals,
    refused,
)
from hypothesis import given

from flask_ailimit.engine.quota import Quota
from flask_ailimit.headers.ietf import ietf_headers
from flask_ailimit.http.responses import (
    ERROR_FORMATS,
    content_type,
    refusal_body,
    refusal_headers,
    refusal_status,
    unavailable_body,
)

MESSAGE = "Token limit reached: limit 10000 tokens per 60 s, used 9990, requested 1202. Try again in 7.2 s."
LIMIT = {
    "name": "tokens-per-minute",
    "text": "10000 tokens per 60 s",
    "limit": 10_000,
    "burst": 10_000,
    "remaining": 10,
    "used": 9990,
    "requested": 1202,
    "reset_after": 59.94,
    "retry_after": 7.151,
}
PROBLEM = {
    "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
    "title": "Quota exceeded",
    "status": 429,
    "detail": MESSAGE,
    "violated-policies": ["tokens-per-minute"],
}


@pytest.mark.parametrize(
    ("error_format", "body"),
    [
        (
            "hybrid",
            PROBLEM
            | {
                "error": {
                    "type": "rate_limit_error",
                    "code": "token_limit_exceeded",
                    "param": None,
                    "message": MESSAGE,
                    "limit": LIMIT,
                },
                "request_id": "req_1",
            },
        ),
        ("problem", PROBLEM | {"code": "token_limit_exceeded", "limit": LIMIT, "request_id": "req_1"}),
        (
            "openai",
            {
                "error": {
                    "message": MESSAGE,
                    "type": "tokens",
                    "param": None,
                    "code": "rate_limit_exceeded",
                    "limit": LIMIT,
                }
            },
        ),
        (
            "anthropic",
            {
                "type": "error",
                "error": {"type": "rate_limit_error", "message": MESSAGE, "limit": LIMIT},
                "request_id": "req_1",
            },
        ),
    ],
)
def test_body_of_each_format(error_format, body):
    assert refusal_body(OUT_OF_TOKENS, 429, "req_1", error_format) == body


@pytest.mark.parametrize(
    ("decision", "code", "openai_type", "openai_code"),
    [
        pytest.param(OUT_OF_REQUESTS, "rate_limit_exceeded", "requests", "rate_limit_exceeded", id="requests"),
        pytest.param(OUT_OF_TOKENS, "token_limit_exceeded", "tokens", "rate_limit_exceeded", id="tokens"),
        pytest.param(
            decided(refused(OUTPUT, 0, SECOND, SECOND)),
            "token_limit_exceeded",
            "tokens",
            "rate_limit_exceeded",
            id="output-tokens",
        ),
        pytest.param(
            OUT_OF_SLOTS, "concurrency_limit_exceeded", "concurrency", "rate_limit_exceeded", id="concurrency"
        ),
        pytest.param(
            decided(refused(PAGES, 0, SECOND, SECOND)),
            "rate_limit_exceeded",
            "pages_read",
            "rate_limit_exceeded",
            id="a-unit-of-one's-own",
        ),
        pytest.param(NEVER, "cost_exceeds_limit", "tokens", "cost_exceeds_limit", id="never-fits"),
    ],
)
def test_code_names_what_ran_out(decision, code, openai_type, openai_code):
    status = refusal_status(decision)
    assert refusal_body(decision, status, "req_1")["error"]["code"] == code
    assert refusal_body(decision, status, "req_1", "problem")["code"] == code
    error = refusal_body(decision, status, "req_1", "openai")["error"]
    assert (error["type"], error["code"]) == (openai_type, openai_code)


def test_body_lists_every_refused_policy_by_the_name_in_the_ratelimit_header():
    decision = decided(
        allowed(REQUESTS, 9, 51 * SECOND),
        refused(REQUESTS, 0, 60 * SECOND, 3 * SECOND, scope="/predict"),
        refused(DAILY, 0, 86400 * SECOND, 432 * SECOND),
    )
    body = refusal_body(decision, 429, "req_1")
    assert body["violated-policies"] == ["requests-per-minute-2", "requests-per-day"]
    assert body["error"]["limit"]["name"] == "requests-per-day"
    assert '"requests-per-minute-2";r=0;t=3' in dict(ietf_headers(decision))["RateLimit"]


@pytest.mark.parametrize("error_format", ERROR_FORMATS)
def test_nothing_that_names_a_client_or_a_route_is_in_a_body(error_format):
    quota = Quota(10, 60, "tokens")
    decision = decided(refused(quota, 0, SECOND, SECOND, scope="canary-route\r\n"))
    body = json.dumps(refusal_body(decision, 429, "req_1", error_format))
    assert "canary" not in body
    assert "\\r" not in body
    assert decision.verdicts[0].charge.subject.hex() not in body


@pytest.mark.parametrize(
    ("error_format", "body"),
    [
        (
            "hybrid",
            {
                "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
                "title": "Temporary reduced capacity",
                "status": 503,
                "detail": "Limits can't be checked right now, so this request was refused. Try again shortly.",
                "error": {
                    "type": "api_error",
                    "code": "limiter_unavailable",
                    "param": None,
                    "message": "Limits can't be checked right now, so this request was refused. Try again shortly.",
                    "limit": None,
                },
                "request_id": "req_1",
            },
        ),
        (
            "openai",
            {
                "error": {
                    "message": "Limits can't be checked right now, so this request was refused. Try again shortly.",
                    "type": "server_error",
                    "param": None,
                    "code": "limiter_unavailable",
                    "limit": None,
                }
            },
        ),
    ],
)
def test_body_when_the_store_is_away(error_format, body):
    assert unavailable_body("req_1", error_format) == body


@given(refusals)
def test_headers_and_body_of_a_refusal_tell_one_story(decision):
    status = refusal_status(decision)
    headers = refusal_headers(decision, "req_1")
    body = refusal_body(decision, status, "req_1")
    limit = body["error"]["limit"]
    assert ("Retry-After" in dict(headers)) == (status == 429) == (limit["retry_after"] is not None)
    assert all(re.fullmatch(r"[\x21-\x7e][\x20-\x7e]*", value) for _, value in headers)
    assert limit["used"] + limit["remaining"] == limit["burst"]
    assert 0 <= limit["remaining"] < limit["requested"]
    names = re.findall(r'"([^"]+)";q', dict(ietf_headers(decision))["RateLimit-Policy"])
    assert set(body["violated-policies"]) <= set(names)
    assert len(body["violated-policies"]) == len(decision.refused)
    assert limit["name"] in body["violated-policies"]
    assert json.loads(json.dumps(body)) == body


def test_content_type_is_json_unless_the_body_is_a_problem_alone():
    assert {name: content_type(name) for name in ERROR_FORMATS} == {
        "hybrid": "application/json",
        "problem": "application/problem+json",
        "openai": "application/json",
        "anthropic": "application/json",
    }
