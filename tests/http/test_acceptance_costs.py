"""What a client can make a worker do: read, decode and count, and never more than half a second of it."""

import json

import pytest
from acceptance_apps import charged, metered, send
from flask import Response
from limited_apps import limited
from processor_time import require_done_within

from flask_ailimit import request_refused

MEGABYTE = 1 << 20
JSON = "application/json"


def prompt(text):
    return b'{"max_tokens": 40, "prompt": "' + text + b'"}'


HEAVY = {
    "brackets": b'{"prompt": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    "brackets side by side": b'{"prompt": [' + b"[]," * 350_000 + b"[]]}",
    "brackets without end": b"[" * MEGABYTE,
    "objects": b'{"prompt": [' + b"{}," * 350_000 + b"{}]}",
    "objects with names": b'{"prompt": [' + b'{"a":1},' * 130_000 + b"{}]}",
    "names of one object": ("{" + ",".join(f'"{i}":0' for i in range(110_000)) + ',"max_tokens":40}').encode(),
    "one name, again and again": b"{" + b'"prompt":"a",' * 80_000 + b'"max_tokens":40}',
    "one maximum, again and again": b"{" + b'"max_tokens":1,' * 70_000 + b'"prompt":"a"}',
    "names that differ by case": (
        "{"
        + ",".join(
            '"' + "".join(c.upper() if i >> k & 1 else c for k, c in enumerate("max_tokens")) + '":1'
            for i in range(1024)
        )
        + "}"
    ).encode(),
    "token ids": b'{"prompt": [' + b"1," * 500_000 + b"1]}",
    "numbers with fractions": b'{"prompt": [' + b"1.5," * 250_000 + b"1.5]}",
    "one number": b'{"max_tokens": ' + b"9" * MEGABYTE + b"}",
    "one fraction": b'{"max_tokens": 0.' + b"9" * MEGABYTE + b"}",
    "exponent": b'{"max_tokens": 1e' + b"9" * MEGABYTE + b"}",
    "texts": b'{"prompt": [' + b'"a",' * 250_000 + b'"a"]}',
    "messages": b'{"messages": [' + b'{"role":"user","content":"a"},' * 33_000 + b"{}]}",
    "dashes": prompt(b"-" * MEGABYTE),
    "spaces": prompt(b" " * MEGABYTE),
    "one letter": prompt(b"a" * MEGABYTE),
    "capitals": prompt(b"aB" * (MEGABYTE // 2)),
    "signs": prompt(b"!?" * (MEGABYTE // 2)),
    "emoji": prompt("\U0001f600".encode() * (MEGABYTE // 4)),
    "halves of emoji": prompt(b"\\ud83d" * (MEGABYTE // 6)),
    "escapes": prompt(b"\\u0061" * (MEGABYTE // 6)),
    "escaped quotes": prompt(b'\\"' * (MEGABYTE // 2)),
    "backslashes": prompt(b"\\\\" * (MEGABYTE // 2)),
    "quotes alone": b'"' * MEGABYTE,
    "zero bytes": b"\0" * MEGABYTE,
    "white space": b" " * MEGABYTE + b"{}",
    "picture": prompt(b"data:image/png;base64," + b"QUJD" * (4 * MEGABYTE)),
    "text of 16 MB": prompt(b"word " * (3 * MEGABYTE)),
    "brackets of 16 MB": b'{"prompt": [' + b"[]," * (5 * MEGABYTE) + b"[]]}",
    "dashes of 16 MB": prompt(b"-" * (16 * MEGABYTE)),
    "emoji of 16 MB": prompt("\U0001f600".encode() * (4 * MEGABYTE)),
    "names of 16 MB": b"{" + b'"prompt":"a",' * (MEGABYTE + 200_000) + b'"max_tokens":40}',
    "escapes of 16 MB": prompt(b"\\ud83d" * (5 * MEGABYTE // 2)),
}


@pytest.mark.parametrize("body", HEAVY.values(), ids=HEAVY)
def test_no_body_costs_more_than_half_a_second(body):
    limits = metered(lambda: "", token_counter="estimate")
    # Werkzeug's test client copies the body; it is counted in, as it is small.
    client = limits.client()
    require_done_within(0.75, lambda: client.post("/", data=body, content_type=JSON))


@pytest.mark.parametrize("mimetype", ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream"])
@pytest.mark.parametrize("body", [b"a=1&" * (4 * MEGABYTE), b"-" * (16 * MEGABYTE)], ids=["fields", "dashes"])
def test_no_other_body_costs_more_than_half_a_second(body, mimetype):
    limits = metered(lambda: "", token_counter="estimate")
    client = limits.client()
    require_done_within(0.75, lambda: client.post("/", data=body, content_type=mimetype))


def test_dashes_that_are_counted_exactly_cost_no_more_than_half_a_second():
    limits = metered(lambda: "", token_counter="o200k_base")
    client = limits.client()
    require_done_within(0.75, lambda: client.post("/", data=prompt(b"-" * MEGABYTE), content_type=JSON))


def test_text_beyond_a_megabyte_is_reserved_by_its_length_and_never_as_nothing():
    words = b"word " * (MEGABYTE // 2)
    outcome = charged(lambda: "", request={"data": prompt(words), "content_type": JSON}, token_counter="estimate")
    assert outcome.status == 200
    assert MEGABYTE // 8 <= outcome.reserved["input"] <= len(words)
    assert outcome.reserved["output"] >= 40


@pytest.mark.parametrize("where", ["before", "after"])
def test_maximum_counts_in_a_body_beyond_a_megabyte(where):
    text = b'"prompt": "' + b"word " * (MEGABYTE // 2) + b'"'
    number = b'"max_tokens": 50000'
    body = b"{" + (number + b"," + text if where == "before" else text + b"," + number) + b"}"
    outcome = charged(lambda: "", request={"data": body, "content_type": JSON}, token_counter="estimate")
    assert outcome.reserved["output"] >= 50_000


@pytest.mark.parametrize(
    "line", [b"data:\n", b"data: \n\n", b"\n", b": ping\n\n", b"id:\n", b"data", b"data: {}\n\n", b"event: x\n"]
)
def test_nine_megabytes_of_empty_events_cost_little(line):
    piece = line * (65536 // len(line))

    def answer():
        outcome = charged(lambda: Response(iter([piece] * (9 * MEGABYTE // 65536)), mimetype="text/event-stream"))
        assert outcome.status == 200

    require_done_within(3, answer, attempts=1)


# A refusal that is remembered


def refusing(limit="1 per minute", **options):
    """An app that counts how often it counts."""
    counted = []

    def counter(text):
        counted.append(len(text))
        return len(text.split())

    limits = limited(token_counter=counter)

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit(limit, **options)
    @limits.limiter.limit_tokens("100000000 per minute")
    def answer():
        return ""

    return limits, counted


LARGE = {"prompt": "word " * 20_000, "max_tokens": 40}


def test_client_that_is_refused_for_its_requests_is_read_once():
    limits, counted = refusing()
    client = limits.client()
    assert client.post("/", json=LARGE).status_code == 200
    counted.clear()
    answers = [client.post("/", json=LARGE) for _ in range(20)]
    assert {each.status_code for each in answers} == {429}
    assert len(counted) <= 2
    for answer in answers:
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.headers["x-request-id"]
        assert "RateLimit" in answer.headers
    assert len({answer.headers["x-request-id"] for answer in answers}) == 20


def test_every_remembered_refusal_is_told():
    limits, _ = refusing()
    told = []

    def receive(sender, **event):
        told.append(event)

    with request_refused.connected_to(receive, limits.app):
        [limits.client().post("/", json=LARGE) for _ in range(11)]
    assert len(told) == 10
    assert len({event["request_id"] for event in told}) == 10


def test_remembered_refusal_is_another_client_s_matter_not():
    limits, _ = refusing()
    [limits.client("alice").post("/", json=LARGE) for _ in range(5)]
    assert limits.client("bob").post("/", json=LARGE).status_code == 200


def test_remembered_refusal_is_forgotten_when_the_limit_lets_in_again():
    limits, _ = refusing()
    client = limits.client()
    assert [client.post("/", json=LARGE).status_code for _ in range(4)] == [200, 429, 429, 429]
    limits.clock.advance(60)
    assert client.post("/", json=LARGE).status_code == 200


def test_short_limit_lets_in_after_the_wait_that_it_names():
    limits, _ = refusing("1 per second")
    client = limits.client()
    assert [client.post("/", json=LARGE).status_code for _ in range(3)] == [200, 429, 429]
    limits.clock.advance(1)
    assert client.post("/", json=LARGE).status_code == 200


def test_full_slots_are_not_remembered():
    limits = limited(token_counter=lambda text: len(text.split()))
    inner = []

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_concurrency(1)
    @limits.limiter.limit_tokens("100000000 per minute")
    def answer():
        if not inner:
            inner.append(0)
            inner[0] = limits.client().post("/", json=LARGE).status_code
        return ""

    assert limits.client().post("/", json=LARGE).status_code == 200
    assert inner == [429]
    assert limits.client().post("/", json=LARGE).status_code == 200


def test_too_large_a_request_does_not_shut_out_a_small_one():
    limits = limited(token_counter=lambda text: len(text.split()))

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("1000 per minute")
    def answer():
        return ""

    client = limits.client()
    assert client.post("/", json={"prompt": "a", "max_tokens": 5000}).status_code == 413
    assert client.post("/", json={"prompt": "a", "max_tokens": 5}).status_code == 200


def test_request_that_wants_more_tokens_than_left_does_not_shut_out_a_smaller_one():
    limits = limited(token_counter=lambda text: len(text.split()))

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("1000 per minute")
    def answer():
        limits.limiter.record_usage(output_tokens=600)
        return ""

    client = limits.client()
    sizes = [600, 600, 100]
    assert [client.post("/", json={"prompt": "a", "max_tokens": n}).status_code for n in sizes] == [200, 429, 200]


def test_request_that_is_given_back_lets_in_the_next_at_once():
    """It was refused while another was in flight, which then failed and so did not count."""
    limits = limited(token_counter=lambda text: len(text.split()))
    inner = []

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit("1 per minute", deduct_when=lambda response: response.status_code == 200)
    @limits.limiter.limit_tokens("100000000 per minute")
    def answer():
        if not inner:
            inner.append(0)
            inner[0] = limits.client().post("/", json=LARGE).status_code
            return "", 500
        return ""

    client = limits.client()
    answers = [client.post("/", json=LARGE).status_code for _ in range(3)]
    # The one inside may have been served or refused; one of the requests that did not fail was, and no other.
    assert [*inner, *answers].count(200) == 1
    assert answers[0] == 500
    assert 200 in (inner[0], answers[1])


def test_exempt_request_is_not_refused_from_memory():
    exempt = []
    limits, _ = refusing("1 per minute", exempt_when=lambda: bool(exempt))
    client = limits.client()
    assert [client.post("/", json=LARGE).status_code for _ in range(3)] == [200, 429, 429]
    exempt.append(1)
    assert client.post("/", json=LARGE).status_code == 200


def test_reset_of_a_client_is_felt_within_a_second():
    limits, _ = refusing()
    client = limits.client()
    assert [client.post("/", json=LARGE).status_code for _ in range(3)] == [200, 429, 429]
    with limits.app.app_context():
        limits.limiter.engine.reset(limits.limiter.subject("alice"))
    limits.clock.advance(1.05)
    assert client.post("/", json=LARGE).status_code == 200


def test_chat_of_four_kilobytes_still_counts_what_it_says():
    body = {"messages": [{"role": "user", "content": "word " * 800}], "max_tokens": 40}
    outcome = send(metered(lambda: ""), json=body)
    assert 800 <= outcome.reserved["input"] <= 810
    assert json.dumps(body)
