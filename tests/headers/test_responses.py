"""A refusal's status and headers, and the id it carries."""

import re
from fractions import Fraction

import pytest
from header_decisions import (
    NEVER,
    OUT_OF_REQUESTS,
    OUT_OF_TOKENS,
    REQUESTS,
    SECOND,
    TOKENS,
    allowed,
    decided,
    decisions,
    refused,
    waits,
)
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.http.responses import (
    clean_request_id,
    new_request_id,
    refusal_body,
    refusal_headers,
    refusal_message,
    refusal_status,
    unavailable_headers,
)


@pytest.mark.parametrize(
    ("decision", "status", "headers"),
    [
        pytest.param(OUT_OF_REQUESTS, 429, {"Retry-After": "12", "retry-after-ms": "12000"}, id="requests"),
        pytest.param(OUT_OF_TOKENS, 429, {"Retry-After": "8", "retry-after-ms": "7151"}, id="rounded-up"),
        pytest.param(
            decided(refused(REQUESTS, 0, 60 * SECOND, 1)),
            429,
            {"Retry-After": "1", "retry-after-ms": "1"},
            id="never-zero",
        ),
        pytest.param(
            decided(refused(REQUESTS, 0, SECOND, SECOND), refused(TOKENS, 0, 60 * SECOND, 60 * SECOND)),
            429,
            {"Retry-After": "60", "retry-after-ms": "60000"},
            id="the-longest-of-several",
        ),
        pytest.param(
            decided(refused(TOKENS, 0, 61 * SECOND, 60 * SECOND + 1)),
            429,
            {"Retry-After": "61", "retry-after-ms": "60001", "x-should-retry": "false"},
            id="too-long-to-sleep",
        ),
        pytest.param(NEVER, 413, {"x-should-retry": "false"}, id="never-fits-has-no-wait"),
    ],
)
def test_status_and_headers_of_a_refusal(decision, status, headers):
    assert refusal_status(decision) == status
    assert refusal_headers(decision, "req_1") == [
        *headers.items(),
        ("x-request-id", "req_1"),
        ("request-id", "req_1"),
        ("Cache-Control", "no-store"),
    ]


@pytest.mark.parametrize("status", [400, 413, 429])
def test_status_of_what_never_fits_is_configurable_and_that_of_a_wait_is_not(status):
    assert refusal_status(NEVER, status) == status
    assert refusal_status(OUT_OF_TOKENS, status) == 429


@given(waits)
def test_who_waits_what_any_part_of_the_refusal_says_is_never_early(decision):
    headers = dict(refusal_headers(decision, "req_1"))
    seconds, milliseconds = int(headers["Retry-After"]), int(headers["retry-after-ms"])
    assert seconds * 1000 >= milliseconds >= 1
    assert milliseconds * 1000 >= decision.retry_after_us > (milliseconds - 1) * 1000
    assert seconds - 1 < Fraction(decision.retry_after_us, SECOND)
    assert ("x-should-retry" in headers) == (decision.retry_after_us > 60 * SECOND)
    told = Fraction(re.search(r"Try again in (\d+(?:\.\d)?) s", refusal_message(decision))[1])
    assert 0 <= told * SECOND - decision.retry_after_us < SECOND
    limit = refusal_body(decision, 429, "req_1")["error"]["limit"]
    assert limit["retry_after"] == milliseconds / 1000


def test_headers_when_the_store_is_away():
    assert unavailable_headers("req_1", 2) == [
        ("Retry-After", "2"),
        ("retry-after-ms", "2000"),
        ("x-request-id", "req_1"),
        ("request-id", "req_1"),
        ("Cache-Control", "no-store"),
    ]
    assert dict(unavailable_headers("req_1"))["Retry-After"] == "1"


@pytest.mark.parametrize("decision", [decided(), decided(allowed(REQUESTS, 59, SECOND))])
@pytest.mark.parametrize(
    "write",
    [
        refusal_status,
        refusal_message,
        lambda decision: refusal_headers(decision, "req_1"),
        lambda decision: refusal_body(decision, 429, "req_1"),
    ],
)
def test_there_is_no_refusal_of_what_was_allowed(write, decision):
    with pytest.raises(ValueError, match="refuses nothing"):
        write(decision)


@pytest.mark.parametrize("value", ["a", "req_1", "0b4f6b1e-98a2-4f5e-9d3e-1f2a3b4c5d6e", "A.b_c-9", "x" * 128])
def test_a_sane_request_id_is_kept(value):
    assert clean_request_id(value) == value


@pytest.mark.parametrize(
    "value",
    [None, "", "x" * 129, "x" * 10_240, "a b", "a\r\nSet-Cookie: b", "a\n", "\x00", "é", "a,b", "<script>", "\ud800"],
)
def test_any_other_request_id_is_replaced(value):
    fresh = clean_request_id(value)
    assert re.fullmatch(r"req_[0-9a-f]{24}", fresh)
    assert fresh != value


@given(st.binary(max_size=200))
def test_no_bytes_of_a_client_break_the_headers_once_cleaned(value):
    for name, text in refusal_headers(OUT_OF_TOKENS, clean_request_id(value.decode("latin-1"))):
        assert (name + text).isascii()
        assert (name + text).isprintable()


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "", "a\n", "x" * 129])
def test_a_request_id_that_was_not_cleaned_never_becomes_a_header(value):
    with pytest.raises(ValueError, match="clean_request_id"):
        refusal_headers(OUT_OF_TOKENS, value)
    with pytest.raises(ValueError, match="clean_request_id"):
        unavailable_headers(value)


def test_request_ids_are_not_repeated():
    assert len({new_request_id() for _ in range(1000)}) == 1000


@given(decisions)
def test_a_decision_has_a_refusal_to_write_exactly_when_it_refuses(decision):
    try:
        refusal_headers(decision, "req_1")
    except ValueError:
        assert decision.allowed
    else:
        assert not decision.allowed
