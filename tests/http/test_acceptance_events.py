"""What receivers are told, and that nothing which they do is felt by a client; and the sentences of a refusal."""

import json
import logging

import flask
import pytest
from acceptance_apps import (
    BODY,
    ENCODERS,
    GIVEN,
    RESERVED,
    charged,
    chat,
    chat_usage,
    document,
    event,
    events,
    metered,
    send,
    streamed,
)
from flask import Response, abort, stream_with_context
from limited_apps import limited

from flask_ailimit import request_refused, usage_settled

REPORT = {"usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}}
SAID = [event(chat("a b "))]


def recorded(limiter):
    limiter.record_usage(input_tokens=9, output_tokens=5)
    return "a b"


def failing_after(limiter):
    limiter.record_usage(input_tokens=9)
    abort(502)


# name: the answer, chunks that are read, source, ending, status, input and output

CASES = {
    "recorded": (recorded, None, "recorded", "complete", 200, (9, 5)),
    "reported": (document({"choices": [], **REPORT}), None, "reported", "complete", 200, (9, 5)),
    "counted": (document({"text": "a b"}), None, "counted", "complete", 200, (GIVEN, 2)),
    "text": (lambda: "a b", None, "counted", "complete", 200, (GIVEN, 2)),
    "picture": (lambda: Response(b"\x89PNG\xff", mimetype="image/png"), None, "reserved", "complete", 200, (3, 40)),
    "unknown coding": (
        lambda: Response(b"\xff\xfe", mimetype="text/plain", headers={"Content-Encoding": "rot13"}),
        None,
        "reserved",
        "complete",
        200,
        (3, 40),
    ),
    "gzip that reports": (
        lambda: Response(
            ENCODERS["gzip"](json.dumps({"choices": [], **REPORT}).encode()),
            mimetype="application/json",
            headers={"Content-Encoding": "gzip"},
        ),
        None,
        "reported",
        "complete",
        200,
        (9, 5),
    ),
    "stream that reports": (
        streamed([*SAID, *events(chat_usage(9, 5), "[DONE]")]),
        None,
        "reported",
        "complete",
        200,
        (9, 5),
    ),
    "stream": (streamed([*SAID, event("[DONE]")]), None, "counted", "complete", 200, (GIVEN, 2)),
    "stream that is left": (streamed(SAID * 3), 1, "counted", "abandoned", 200, (GIVEN, 2)),
    "passed through": (
        lambda: Response(iter([b"a ", b"b"]), mimetype="text/plain", direct_passthrough=True),
        None,
        "counted",
        "complete",
        200,
        (GIVEN, 2),
    ),
    "error": (lambda: ({"error": "a b"}, 500), None, "counted", "complete", 500, (0, 0)),
    "error after a use": (failing_after, None, "recorded", "complete", 502, (9, 0)),
    "created": (lambda: ("a b", 201), None, "counted", "complete", 201, (GIVEN, 2)),
}


@pytest.mark.parametrize(("answer", "chunks", "source", "ending", "status", "usage"), CASES.values(), ids=CASES)
def test_settlement_is_told_once_with_what_a_bill_needs(answer, chunks, source, ending, status, usage):
    limits = metered(answer)
    outcome = send(limits, chunks=chunks, headers={"X-Request-Id": "the-client-s-own"})
    [told] = outcome.events
    assert (told["source"], told["ending"], told["status"]) == (source, ending, status)
    assert (told["usage"].input_tokens, told["usage"].output_tokens) == usage
    assert told["charged"]["tokens"] == sum(usage)
    assert (told["charged"]["input_tokens"], told["charged"]["output_tokens"]) == usage
    assert told["endpoint"] == "answer"
    assert told["client_request_id"] == "the-client-s-own"
    assert told["request_id"] == outcome.headers["x-request-id"]
    with limits.app.app_context():
        assert bytes.fromhex(told["subject"]) == limits.limiter.subject("alice")
    assert {"plan", "model", "label"} <= told.keys()


@pytest.mark.parametrize(("answer", "chunks", "source", "ending", "status", "usage"), CASES.values(), ids=CASES)
def test_bill_is_what_the_limits_counted(answer, chunks, source, ending, status, usage):
    limits = metered(answer)
    bills = {"tokens": 0, "input_tokens": 0, "output_tokens": 0}
    for _ in range(3):
        for told in send(limits, chunks=chunks).events:
            bills = {unit: total + told["charged"][unit] for unit, total in bills.items()}
    used = send(limits, chunks=chunks)
    for told in used.events:
        bills = {unit: total + told["charged"][unit] for unit, total in bills.items()}
    assert bills == {
        "tokens": used.used["tokens"],
        "input_tokens": used.used["input"],
        "output_tokens": used.used["output"],
    }


def test_ids_differ_from_request_to_request_and_are_never_the_client_s():
    limits = metered(lambda: "a")
    ids = {send(limits, headers={"X-Request-Id": "same"}).events[0]["request_id"] for _ in range(5)}
    assert len(ids) == 5
    assert "same" not in ids


HOSTILE = ["", " ", "a b", "x" * 129, "x" * 4000, "<script>", "req_ä", "a\tb", "../../etc", '{"a":1}', "%0d%0a", "a;b"]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("name", ["X-Request-Id", "Request-Id"])
def test_client_s_id_is_a_second_field_and_harmless(value, name):
    outcome = charged(lambda: "a", request={"headers": {name: value}})
    [told] = outcome.events
    assert told["request_id"].startswith("req_")
    kept = told["client_request_id"]
    assert kept is None or kept == "" or kept.isascii()
    assert outcome.headers["x-request-id"] == told["request_id"]


LIMITED = {
    "served": (lambda: "a", {}),
    "error": (lambda: abort(404), {}),
    "raised": (lambda: 1 / 0, {"config": {"PROPAGATE_EXCEPTIONS": False}}),
    "stream": (streamed(SAID), {}),
    "passed through": (lambda: Response(iter([b"a"]), direct_passthrough=True), {}),
    "redirect": (lambda: flask.redirect("/x"), {}),
    "no content": (lambda: ("", 204), {}),
}


@pytest.mark.parametrize(("answer", "options"), LIMITED.values(), ids=LIMITED)
def test_every_answer_of_a_limited_route_has_our_id(answer, options):
    seen = []
    limits = metered(
        answer,
        setup=lambda limits: limits.app.before_request(lambda: seen.append(limits.limiter.request_id)),
        **options,
    )
    outcome = send(limits)
    assert outcome.headers["x-request-id"] == outcome.headers["request-id"] == seen[-1]
    assert seen[-1].startswith("req_")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-id": "provider"},
        {"X-Request-ID": "provider"},
        {"request-id": "provider"},
        {"x-request-id": "provider", "request-id": "provider"},
    ],
    ids=str,
)
@pytest.mark.parametrize("how", ["plain", "stream"])
def test_header_that_a_provider_has_set_stays(headers, how):
    answer = (lambda: Response("a", headers=headers)) if how == "plain" else streamed(SAID, **headers)
    outcome = charged(answer)
    for name in headers:
        assert outcome.headers.getlist(name) == ["provider"]
    assert outcome.events[0]["request_id"].startswith("req_")


@pytest.mark.parametrize(("sent", "known"), [("trace-7", "trace-7"), ("two words", None), (None, None)])
def test_view_can_read_the_client_s_id_if_it_is_harmless(sent, known):
    seen = []
    limits = metered(lambda limiter: seen.append(limiter.client_request_id) or "a")
    outcome = send(limits, headers={} if sent is None else {"X-Request-Id": sent})
    assert seen == [known]
    assert outcome.events[0]["client_request_id"] == known


def test_there_are_no_ids_outside_a_request():
    limits = metered(lambda: "a")
    assert (limits.limiter.request_id, limits.limiter.client_request_id) == ("", None)
    with limits.app.app_context():
        assert (limits.limiter.request_id, limits.limiter.client_request_id) == ("", None)


def test_answer_of_a_route_without_limits_has_no_id_of_ours():
    limits = metered(lambda: "a")
    limits.app.add_url_rule("/free", "free", lambda: "a")
    assert "x-request-id" not in limits.client().get("/free").headers


# Receivers that raise


class UnspeakableError(Exception):
    def __str__(self):
        raise RuntimeError("one two three")

    __repr__ = __str__


def chained():
    try:
        {}["one two three"]
    except KeyError as error:
        raise ValueError("the prompt: one two three") from error


def endless():
    return endless()


FAILING = {
    "ValueError": lambda: (_ for _ in ()).throw(ValueError("one two three")),
    "KeyError": lambda: {}["one two three"],
    "ZeroDivisionError": lambda: 1 / 0,
    "RuntimeError": lambda: (_ for _ in ()).throw(RuntimeError("one two three")),
    "HTTPException": lambda: abort(418, "one two three"),
    "StopIteration": lambda: next(iter(())),
    "RecursionError": endless,
    "chained": chained,
    "TypeError": lambda: "one two three" + 1,
    "unspeakable": lambda: (_ for _ in ()).throw(UnspeakableError),
}
ANSWERS = {
    "plain": (lambda: "a b", b"a b", 200),
    "stream": (streamed([*SAID, *events("[DONE]")]), "".join([*SAID, *events("[DONE]")]).encode(), 200),
    "passed through": (lambda: Response(iter([b"a b"]), mimetype="text/plain", direct_passthrough=True), b"a b", 200),
    "error": (lambda: ("no", 500), b"no", 500),
}


@pytest.mark.parametrize("fail", FAILING.values(), ids=FAILING)
@pytest.mark.parametrize(("answer", "body", "status"), [ANSWERS["plain"], ANSWERS["stream"]], ids=["plain", "stream"])
def test_receiver_that_raises_changes_nothing_and_its_message_is_not_logged(fail, answer, body, status, caplog):
    limits = metered(answer)

    def failing(sender, **event):
        fail()

    with usage_settled.connected_to(failing, limits.app), caplog.at_level(logging.DEBUG):
        outcome = send(limits)
    assert (outcome.status, outcome.body) == (status, body)
    assert len(outcome.events) == 1
    assert outcome.used["concurrency"] == 0
    assert "one two three" not in caplog.text
    assert "test_acceptance_events.py" in caplog.text


@pytest.mark.parametrize("fail", FAILING.values(), ids=FAILING)
def test_receiver_that_raises_leaves_a_refusal_a_refusal(fail, caplog):
    limits = limited()

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit("1 per day")
    def answer():
        return ""

    def failing(sender, **event):
        fail()

    with request_refused.connected_to(failing, limits.app):
        assert [limits.client().post("/").status_code for _ in range(3)] == [200, 429, 429]
    assert "one two three" not in caplog.text


@pytest.mark.parametrize(("answer", "body", "status"), ANSWERS.values(), ids=ANSWERS)
def test_receiver_may_use_the_app_s_context(answer, body, status):
    limits = metered(answer)
    names = []

    def receive(sender, **event):
        names.append((flask.current_app.name, flask.g.get("nothing")))

    with usage_settled.connected_to(receive, limits.app):
        send(limits)
        send(limits, chunks=0)
    assert names == [("limited", None)] * len(names)
    assert len(names) == 2


def test_receiver_of_a_refusal_may_use_the_app_s_context():
    limits = limited()

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit("1 per day")
    def answer():
        return ""

    names = []

    def receive(sender, **event):
        names.append(flask.current_app.name)

    with request_refused.connected_to(receive, limits.app):
        [limits.client().post("/") for _ in range(3)]
    assert names == ["limited"] * 2


# record_usage, late


def late(how):
    """A stream, and the moment at which it records 20 and 30."""

    def answer(limiter):
        def record(*_):
            limiter.record_usage(input_tokens=20, output_tokens=30)

        def generate():
            yield from SAID
            yield event("[DONE]")
            if how == "after the last event":
                record()

        response = Response(stream_with_context(generate()), mimetype="text/event-stream")
        if how == "between":

            def between():
                yield from SAID
                record()
                yield event("[DONE]")

            response = Response(stream_with_context(between()), mimetype="text/event-stream")
        return response

    return answer


@pytest.mark.parametrize("how", ["between", "after the last event"])
def test_usage_recorded_before_the_answer_is_closed_is_charged(how):
    outcome = charged(late(how))
    assert outcome.usage == (20, 30)
    assert sum(each["charged"]["tokens"] for each in outcome.events) == 50
    assert outcome.events[-1]["source"] == "recorded"


def test_usage_recorded_in_the_generator_s_end_is_charged():
    def answer(limiter):
        def generate():
            try:
                yield from SAID
                yield event("[DONE]")
            finally:
                limiter.record_usage(input_tokens=20, output_tokens=30)

        return Response(stream_with_context(generate()), mimetype="text/event-stream")

    for chunks in (None, 1, 2):
        outcome = charged(answer, chunks=chunks)
        assert outcome.usage == (20, 30)


def test_usage_recorded_after_all_warns(caplog):
    limits = metered(streamed(SAID))
    with limits.app.test_request_context("/", method="POST", json=BODY):
        response = limits.app.full_dispatch_request()
        list(response.iter_encoded())
        response.close()
        before = limits.used()
        with caplog.at_level(logging.WARNING):
            limits.limiter.record_usage(input_tokens=20)
    assert caplog.records
    assert limits.used() == before


# The sentence of a refusal


def refusal(body, error_format="hybrid", default=500):
    limits = limited(
        error_format=error_format, default_output_tokens=default, token_counter=lambda text: len(text.split())
    )

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("502 per minute")
    def answer():
        limits.limiter.record_usage(output_tokens=2)
        return ""

    client = limits.client()
    assert client.post("/", json={"prompt": "one two", "max_tokens": 5}).status_code == 200
    refused = client.post("/", json=body)
    assert refused.status_code == 429
    return refused.text


@pytest.mark.parametrize("error_format", ["hybrid", "problem", "openai", "anthropic"])
@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "one two"},
        {"prompt": "one two", "max_tokens": None},
        {"messages": [{"role": "user", "content": "one two"}]},
        {"prompt": "one two", "max_tokens": 0},
    ],
    ids=str,
)
def test_refusal_says_what_was_reserved_because_no_maximum_is_named(body, error_format):
    text = refusal(body, error_format)
    assert "500" in text
    assert "maximum" in text
    assert "max_tokens" in text or "names no maximum" in text


@pytest.mark.parametrize("error_format", ["hybrid", "problem", "openai", "anthropic"])
def test_refusal_of_a_request_that_names_its_maximum_says_nothing_of_it(error_format):
    assert "no maximum" not in refusal({"prompt": "one two", "max_tokens": 500}, error_format)


def test_refusal_names_the_number_that_is_configured():
    assert "501" in refusal({"prompt": "one"}, default=501)


def test_file_is_not_told_as_nothing():
    limits = metered(lambda: Response(b"\xff\x00" * 50, mimetype="application/octet-stream"))
    [told] = send(limits).events
    assert told["charged"]["tokens"] == told["usage"].total_tokens == RESERVED
    assert "exact" not in told or told["exact"] is not True
