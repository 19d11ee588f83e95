"""What a request is charged in the end, whatever it was answered with."""

import io
import json
import shutil

import flask
import pytest
from flask import Response, abort, redirect, request, send_file, stream_with_context
from flask_limiter import Limiter, RateLimitExceeded
from limited_apps import limited
from werkzeug.test import EnvironBuilder

from flask_ailimit import AILimiter, QuotaExceeded, Usage, api_key
from flask_ailimit.engine import Charge, Quota
from flask_ailimit.testing import ManualClock

TOKENS, INPUT, OUTPUT = "tokens-per-day", "input-tokens-per-day", "output-tokens-per-day"
REQUESTS, SLOTS = "requests-per-day", "concurrency"
BODY = {"prompt": "one two three", "max_tokens": 40}  # 43 tokens to reserve, by the counter below


def words(text):
    return len(text.split())


words.exact = True


def served(answer, **options):
    """An app with a view that answers so; limited in requests, in tokens of every kind, and in calls in flight."""
    limits = limited(token_counter=words, **options)

    @limits.app.route("/", methods=["GET", "POST"], endpoint="answer")
    @limits.limiter.limit("100 per day")
    @limits.limiter.limit_tokens("1000 per day")
    @limits.limiter.limit_tokens("1000 per day", unit="input_tokens")
    @limits.limiter.limit_tokens("1000 per day", unit="output_tokens")
    @limits.limiter.limit_concurrency(1)
    def view():
        assert limits.used() == {REQUESTS: 1, TOKENS: 43, INPUT: 3, OUTPUT: 40, SLOTS: 1}
        return answer(limits.limiter) if answer.__code__.co_argcount else answer()

    return limits


def assert_charged(limits, given, output):
    """Exactly this was charged, and the slot is free."""
    assert limits.used() == {REQUESTS: 1, TOKENS: given + output, INPUT: given, OUTPUT: output, SLOTS: 0}


def ask(limits, **options):
    return limits.client().post("/", json=BODY, **options)


# The usage that an answer reports

OPENAI_DETAILS = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}
REPORTS = {
    "chat completions": ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}, 9, 5),
    "chat completions, cached": ({"prompt_tokens": 9, "completion_tokens": 5, **OPENAI_DETAILS}, 9, 5),
    "responses": ({"input_tokens": 9, "output_tokens": 5, "total_tokens": 14}, 9, 5),
    "embeddings": ({"prompt_tokens": 9, "total_tokens": 9}, 9, 0),
    "messages": ({"input_tokens": 9, "output_tokens": 5}, 9, 5),
    "messages, cached": (
        {
            "input_tokens": 2,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 4,
            "output_tokens": 5,
        },
        9,
        5,
    ),
    "nothing at all": ({"prompt_tokens": 0, "completion_tokens": 0}, 0, 0),
    "more than reserved": ({"prompt_tokens": 300, "completion_tokens": 400}, 300, 400),
}


@pytest.mark.parametrize(("report", "given", "output"), REPORTS.values(), ids=REPORTS)
def test_reported_usage_is_charged(report, given, output):
    limits = served(lambda: {"choices": [{"text": "a b c" if output else ""}], "usage": report})
    assert ask(limits).status_code == 200
    assert_charged(limits, given, output)


def test_report_of_less_than_the_text_that_was_certainly_seen_is_not_believed():
    limits = served(lambda: {"choices": [{"text": "word " * 100}], "usage": REPORTS["chat completions"][0]})
    ask(limits)
    assert_charged(limits, 9, 100)


@pytest.mark.parametrize(("api", "counted"), [("chat completions, cached", 5 + 5), ("messages, cached", 5 + 5)])
def test_cached_input_can_be_free(api, counted):
    limits = served(lambda: {"usage": REPORTS[api][0]}, count_cached_tokens=False)
    ask(limits)
    assert limits.used()[TOKENS] == counted
    assert limits.used()[INPUT] == 5


# The usage that a view records


def test_recorded_usage_wins_over_the_answer_and_several_calls_add_up():
    def answer(limiter):
        limiter.record_usage(input_tokens=10, output_tokens=1)
        limiter.record_usage(input_tokens=20)
        limiter.record_usage(output_tokens=3)
        return {"text": "a b c", "usage": {"prompt_tokens": 500, "completion_tokens": 500}}

    limits = served(answer)
    ask(limits)
    assert_charged(limits, 30, 4)


def test_recorded_cached_input_can_be_free():
    limits = served(
        lambda limiter: limiter.record_usage(input_tokens=10, cached_input_tokens=8, output_tokens=1) or {},
        count_cached_tokens=False,
    )
    ask(limits)
    assert_charged(limits, 2, 1)


def test_recorded_zero_stays_zero():
    limits = served(lambda limiter: limiter.record_usage() or {"text": "a b c"})
    ask(limits)
    assert_charged(limits, 0, 0)


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -1},
        {"output_tokens": 1.5},
        {"output_tokens": True},
        {"input_tokens": float("nan")},
        {"input_tokens": float("inf")},
        {"output_tokens": "5"},
        {"output_tokens": None},
        {"input_tokens": 2**53},
        {"input_tokens": 2**52, "output_tokens": 2**52},
        {"cached_input_tokens": 1},
        {"input_tokens": 5, "cached_input_tokens": 6},
    ],
    ids=str,
)
def test_recording_nonsense_is_a_value_error_and_records_nothing(usage):
    def answer(limiter):
        limiter.record_usage(output_tokens=2)
        with pytest.raises(ValueError, match="tokens"):
            limiter.record_usage(**usage)
        return {}

    limits = served(answer)
    assert ask(limits).status_code == 200
    assert_charged(limits, 0, 2)


def test_recording_more_than_can_be_counted_is_all_that_can_be():
    def answer(limiter):
        limiter.record_usage(output_tokens=2**53 - 1)
        limiter.record_usage(input_tokens=2**53 - 1)
        return {}

    limits = served(answer)
    assert ask(limits).status_code == 200
    assert limits.used()[TOKENS] == 1000


def test_usage_is_recorded_for_errors_too():
    """An agent that failed in its third call has paid for two."""

    def answer(limiter):
        limiter.record_usage(input_tokens=7, output_tokens=8)
        abort(502)

    limits = served(answer)
    assert ask(limits).status_code == 502
    assert_charged(limits, 7, 8)


# Text that is counted because nobody reported anything


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        pytest.param(lambda: "four five", 2, id="text"),
        pytest.param(lambda: ("four five", 201), 2, id="created"),
        pytest.param(lambda: ("", 204), 0, id="no content"),
        pytest.param(lambda: {"text": "four five"}, 2, id="text in JSON"),
        pytest.param(lambda: {"choices": [{"message": {"role": "assistant", "content": "four five"}}]}, 2, id="chat"),
        pytest.param(lambda: {"content": [{"type": "text", "text": "four five"}]}, 2, id="messages"),
        pytest.param(lambda: {"answer": "four five", "id": 7}, 2, id="own JSON"),
        pytest.param(lambda: Response("<p> four five </p>", mimetype="text/html"), 4, id="HTML"),
        pytest.param(lambda: Response("[" * 10_000, mimetype="application/json"), 1, id="deep JSON"),
        pytest.param(lambda: Response(b"\xff four", mimetype="text/plain"), 2, id="no UTF-8"),
        pytest.param(lambda: Response(["four ", b"five"], mimetype="text/plain"), 2, id="list of pieces"),
    ],
)
def test_unreported_text_is_counted(answer, output, caplog):
    limits = served(answer)
    assert ask(limits).status_code < 300
    assert_charged(limits, 3, output)
    assert not caplog.records


def test_body_of_events_reports_its_usage_though_it_is_no_stream():
    events = ['data: {"choices": []}\n\n', 'data: {"usage": {"prompt_tokens": 9, "completion_tokens": 5}}\n\n']
    limits = served(lambda: Response("".join(events), mimetype="text/event-stream"))
    ask(limits)
    assert_charged(limits, 9, 5)


@pytest.mark.parametrize("mimetype", ["image/png", "audio/wav", "application/octet-stream"])
def test_body_that_can_t_be_counted_stays_charged_as_reserved(mimetype, caplog):
    limits = served(lambda: Response(b"\x89PNG\xff\xfe", mimetype=mimetype))
    assert ask(limits).status_code == 200
    assert_charged(limits, 3, 40)
    assert not caplog.records


def test_file_stays_charged_as_reserved():
    limits = served(lambda: send_file(io.BytesIO(b"four five"), mimetype="text/plain"))
    response = ask(limits)
    assert response.data == b"four five"
    assert_charged(limits, 3, 40)


def test_file_that_was_not_modified_costs_nothing():
    limits = served(lambda: send_file(io.BytesIO(b"four"), mimetype="text/plain", etag="a", conditional=True))
    response = limits.client().get("/", headers={"If-None-Match": '"a"'}, json=BODY)
    assert response.status_code == 304
    assert_charged(limits, 0, 0)


def test_estimate_of_the_app_s_own_stands_if_nobody_reports(caplog):
    """It knows what was put in; the text of the answer alone would be too little."""
    limits = limited(token_counter=words)

    @limits.app.post("/")
    @limits.limiter.limit_tokens("1000 per day", estimate=lambda _: 500)
    def answer():
        return {"usage": {"prompt_tokens": 7, "completion_tokens": 8}} if request.args else "four five"

    ask(limits)
    assert limits.tokens() == 500
    assert not caplog.records
    limits.client().post("/?report=1", json=BODY)
    assert limits.tokens() == 515


@pytest.mark.parametrize("unit", ["tokens", "input_tokens", "output_tokens"])
def test_estimate_may_tell_input_and_output_apart(unit):
    limits = limited(token_counter=words)
    seen = []

    @limits.app.post("/")
    @limits.limiter.limit_tokens("1000 per day", unit=unit, estimate=lambda _: Usage(30, 200))
    def answer():
        seen.append(limits.tokens())
        return {}

    ask(limits)
    assert seen == [{"tokens": 230, "input_tokens": 30, "output_tokens": 200}[unit]]


# Answers without an answer


def test_get_request_without_a_body_reserves_the_default():
    limits = limited(default_output_tokens=70)
    seen = []

    @limits.app.get("/")
    @limits.limiter.limit_tokens("1000 per day")
    def answer():
        seen.append(limits.tokens())
        return ""

    limits.client().get("/")
    assert (seen, limits.tokens()) == ([70], 0)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 502, 503])
@pytest.mark.parametrize("how", ["returned", "aborted", "streamed"])
def test_error_costs_the_request_and_no_tokens(status, how):
    def answer():
        if how == "aborted":
            abort(status)
        if how == "streamed":  # as from an upstream, passed on
            return Response(iter([b'{"error": "one two ', b'three"}']), status, mimetype="application/json")
        return {"error": {"message": "one two three"}}, status

    limits = served(answer)
    response = ask(limits, buffered=True)
    assert response.status_code == status
    assert_charged(limits, 0, 0)
    assert "Retry-After" not in response.headers
    assert "RateLimit" in response.headers


def test_error_that_reports_usage_is_charged():
    limits = served(lambda: ({"error": "overloaded", "usage": {"prompt_tokens": 9, "completion_tokens": 5}}, 500))
    ask(limits)
    assert_charged(limits, 9, 5)


def test_redirect_costs_no_tokens():
    limits = served(lambda: redirect("/elsewhere"))
    assert ask(limits).status_code == 302
    assert_charged(limits, 0, 0)


@pytest.mark.parametrize("propagate", [True, False])
def test_exception_costs_the_request_and_no_tokens(propagate):
    limits = served(lambda: 1 / 0, config={"PROPAGATE_EXCEPTIONS": propagate})
    if propagate:
        with pytest.raises(ZeroDivisionError):
            ask(limits)
    else:
        assert ask(limits).status_code == 500
    assert_charged(limits, 0, 0)


@pytest.mark.parametrize("propagate", [True, False])
def test_exception_after_recorded_usage_costs_that(propagate):
    def answer(limiter):
        limiter.record_usage(input_tokens=7, output_tokens=8)
        raise ZeroDivisionError

    limits = served(answer, config={"PROPAGATE_EXCEPTIONS": propagate})
    if propagate:
        with pytest.raises(ZeroDivisionError):
            ask(limits)
    else:
        ask(limits)
    assert_charged(limits, 7, 8)


def test_exception_with_a_handler_is_an_answer_like_any_other():
    limits = served(lambda: 1 / 0)
    limits.app.register_error_handler(ZeroDivisionError, lambda _: ("no such luck", 422))
    assert ask(limits).status_code == 422
    assert_charged(limits, 0, 0)


def test_worker_that_is_told_to_stop_gives_nothing_back():
    def answer():
        raise SystemExit

    limits = served(answer)
    with pytest.raises(SystemExit):
        ask(limits)
    assert_charged(limits, 3, 40)


def test_broken_after_request_of_the_app_costs_no_slot():
    limits = served(lambda: "four five")
    limits.app.after_request(lambda _: 1 / 0)
    assert ask(limits).status_code == 500
    assert_charged(limits, 0, 0)


def test_head_of_a_plain_answer_costs_what_it_used():
    """The view, and so its model, has run; only the client doesn't read it."""
    limits = served(lambda: {"usage": {"prompt_tokens": 9, "completion_tokens": 5}})
    assert limits.client().head("/", json=BODY).status_code == 200
    assert_charged(limits, 9, 5)


# Streams


def sse(*events):
    return [f"data: {json.dumps(event)}\n\n" if isinstance(event, dict) else f"data: {event}\n\n" for event in events]


def named(*events):
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]


def delta(text):
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


USAGE = {"prompt_tokens": 9, "completion_tokens": 5}
FOUR, FIVE = delta("four "), delta("five")
CLAUDE_START = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}
CLAUDE_TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "four five"}}
CLAUDE_END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
STREAMS = {
    "openai": ("text/event-stream", sse(FOUR, FIVE, {"choices": [], "usage": USAGE}, "[DONE]"), 9, 5),
    "openai without usage": ("text/event-stream", sse(FOUR, FIVE, "[DONE]"), 3, 2),
    "openai without end": ("text/event-stream", sse(FOUR, FIVE), 3, 2),
    "responses": (
        "text/event-stream",
        named(
            {"type": "response.output_text.delta", "delta": "four five"},
            {"type": "response.completed", "response": {"usage": {"input_tokens": 9, "output_tokens": 5}}},
        ),
        9,
        5,
    ),
    "anthropic": ("text/event-stream", named(CLAUDE_START, CLAUDE_TEXT, CLAUDE_END, {"type": "message_stop"}), 9, 5),
    "ndjson": (
        "application/x-ndjson",
        ['{"response": "four"}\n', '{"response": " five", "done": true, "prompt_eval_count": 9, "eval_count": 5}\n'],
        9,
        5,
    ),
    "ndjson without usage": ("application/x-ndjson", ['{"text": "four "}\n', '{"text": "five"}\n'], 3, 2),
    "plain text": ("text/plain", ["four ", "five"], 3, 2),
    "JSON in pieces": ("application/json", ['{"usage": {"prompt_tok', 'ens": 9, "completion_tokens": 5}}'], 9, 5),
    "sound": ("audio/wav", ["four ", "five"], 3, 40),
    "nothing": ("text/plain", [], 3, 0),
}


@pytest.mark.parametrize("announced", [False, True], ids=["chunked", "with its length"])
@pytest.mark.parametrize("binary", [False, True], ids=["text", "bytes"])
@pytest.mark.parametrize(("mimetype", "pieces", "given", "output"), STREAMS.values(), ids=STREAMS)
def test_stream_is_settled_and_passes_unchanged(mimetype, pieces, given, output, binary, announced):
    chunks = [piece.encode() for piece in pieces] if binary else pieces
    whole = "".join(pieces)

    def answer():
        response = Response(iter(chunks), mimetype=mimetype)
        if announced:
            response.content_length = len(whole)
        return response

    limits = served(answer)
    response = ask(limits)
    assert response.text == whole
    assert_charged(limits, given, output)


def test_stream_is_charged_as_reserved_and_holds_its_slot_until_it_ends():
    def pieces():
        for piece in ("four ", "five"):
            assert limits.used() == {REQUESTS: 1, TOKENS: 43, INPUT: 3, OUTPUT: 40, SLOTS: 1}
            assert ask(limits).json["error"]["code"] == "concurrency_limit_exceeded"
            yield piece

    limits = served(lambda: Response(pieces(), mimetype="text/plain"))
    assert ask(limits).text == "four five"
    assert_charged(limits, 3, 2)


def test_usage_recorded_in_a_stream_wins():
    def answer(limiter):
        @stream_with_context
        def pieces():
            yield "four five"
            limiter.record_usage(input_tokens=9, output_tokens=1)
            limiter.record_usage(output_tokens=4)

        return Response(pieces(), mimetype="text/plain")

    limits = served(answer)
    assert ask(limits).text == "four five"
    assert_charged(limits, 9, 5)


def test_usage_recorded_before_a_stream_wins():
    def answer(limiter):
        limiter.record_usage(input_tokens=9, output_tokens=5)
        return Response(iter(STREAMS["openai"][1][:2]), mimetype="text/event-stream")

    limits = served(answer)
    ask(limits)
    assert_charged(limits, 9, 5)


def test_stream_read_in_part_costs_what_was_seen():
    limits = served(lambda: Response(iter(["four ", "five ", "six"]), mimetype="text/plain"))
    response = limits.client().post("/", json=BODY, buffered=False)
    pieces = response.iter_encoded()
    assert [next(pieces), next(pieces)] == [b"four ", b"five "]
    response.close()
    assert_charged(limits, 3, 2)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_stream_that_nobody_reads_costs_no_tokens(method):
    limits = served(lambda: Response(iter(["four ", "five"]), mimetype="text/plain"))
    environ = EnvironBuilder(method=method, json=BODY, headers={"x-api-key": "alice"}).get_environ()
    limits.app(environ, lambda *_: None).close()
    assert_charged(limits, 0, 0)


# Several limits


def test_limits_of_every_unit_are_decided_and_settled_together():
    limits = served(lambda: {"usage": USAGE})
    response = ask(limits)
    assert_charged(limits, 9, 5)
    policies = response.headers["RateLimit-Policy"]
    assert [name in policies for name in (REQUESTS, TOKENS, INPUT, OUTPUT, SLOTS)] == [True] * 5


@pytest.mark.parametrize("refusing", ["input_tokens", "output_tokens", "tokens"])
def test_refusal_by_one_limit_charges_none(refusing):
    limits = limited(token_counter=words)
    sizes = {"input_tokens": 1000, "output_tokens": 1000, "tokens": 1000, refusing: 3}

    @limits.app.post("/")
    @limits.limiter.limit("100 per day")
    @limits.limiter.limit_tokens(f"{sizes['input_tokens']} per day", unit="input_tokens")
    @limits.limiter.limit_tokens(f"{sizes['output_tokens']} per day", unit="output_tokens")
    @limits.limiter.limit_tokens(f"{sizes['tokens']} per day")
    @limits.limiter.limit_concurrency(5)
    def answer():
        return {"usage": {"prompt_tokens": 3, "completion_tokens": 3}}

    body = {"prompt": "one two three", "max_tokens": 0}
    assert limits.client().post("/", json={"prompt": "one", "max_tokens": 2}).status_code == 200
    before = limits.used()
    assert limits.client().post("/", json=body).status_code == 429
    assert limits.used() == before
    assert before[SLOTS] == 0


def test_overrun_is_debt_that_time_pays_off():
    limits = limited()

    @limits.app.post("/")
    @limits.limiter.limit_tokens("1000 per minute")
    def answer():
        return {"usage": {"prompt_tokens": 0, "completion_tokens": 3000}}

    assert limits.client().post("/", json={"max_tokens": 10}).status_code == 200
    assert limits.tokens() == 1000
    refused = limits.client().post("/", json={"max_tokens": 10})
    assert refused.status_code == 429
    assert refused.json["error"]["limit"]["remaining"] == 0
    wait = float(refused.headers["retry-after-ms"]) / 1000
    assert 120 < wait < 122  # 2,000 tokens too many at 1,000 a minute, and the next ten
    limits.clock.advance(wait - 1)
    assert limits.client().post("/", json={"max_tokens": 10}).status_code == 429
    limits.clock.advance(1)
    assert limits.client().post("/", json={"max_tokens": 10}).status_code == 200


def test_unused_part_of_a_reservation_is_there_for_the_next():
    limits = served(lambda: {"usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    body = {"prompt": "one two three", "max_tokens": 40}
    first = limits.client().post("/", json=body)
    assert first.headers["x-ratelimit-remaining-tokens"] == str(1000 - 43)
    assert limits.used()[TOKENS] == 4


def test_limits_of_the_application_and_of_the_view_are_two_decisions_but_a_refusal_costs_nothing():
    limits = limited(application_limits=["100 per day"])

    @limits.app.post("/")
    @limits.limiter.limit_tokens("1000 per day")
    @limits.limiter.limit_concurrency(1)
    def answer():
        return {"usage": {"prompt_tokens": 0, "completion_tokens": 990}}

    assert limits.client().post("/", json={"max_tokens": 5}).status_code == 200
    before = limits.used()
    assert before == {REQUESTS: 1, TOKENS: 990, SLOTS: 0}
    refused = limits.client().post("/", json={"max_tokens": 11})
    assert refused.status_code == 429
    assert limits.used() == before
    # The headers show it too: the application's count is as before.
    assert refused.headers["x-ratelimit-remaining-requests"] == "99"


def test_refusal_by_the_application_s_limit_charges_nothing():
    limits = limited(application_limits=["1 per day"])

    @limits.app.post("/")
    @limits.limiter.limit_tokens("1000 per day")
    def answer():
        return {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}

    assert [limits.client().post("/", json={}).status_code for _ in range(3)] == [200, 429, 429]
    assert limits.used() == {REQUESTS: 1, TOKENS: 2}


def test_default_token_limits_are_lifted_by_a_token_limit_and_by_no_other():
    limits = limited(default_token_limits=["500 per day"], default_limits=["50 per day"], default_output_tokens=0)
    view = lambda: {"usage": {"prompt_tokens": 4, "completion_tokens": 4}}  # noqa: E731  one for four endpoints
    limiter = limits.limiter
    for endpoint, decorator in {
        "plain": lambda view: view,
        "requests": limiter.limit("10 per day"),
        "tokens": limiter.limit_tokens("300 per day"),
        "both": limiter.limit_tokens("300 per day", override_defaults=False),
    }.items():
        named_view = lambda view=view: view()  # noqa: E731  with a name of its own
        named_view.__name__ = named_view.__qualname__ = endpoint
        limits.app.post(f"/{endpoint}", endpoint=endpoint)(decorator(named_view))

    def limits_of(endpoint):
        assert limits.client().post(f"/{endpoint}", json={}).status_code == 200
        with limits.app.test_request_context():
            verdicts = limiter.peek(endpoint, "alice").verdicts
        return sorted((v.charge.quota.limit, v.used) for v in verdicts)

    assert limits_of("plain") == [(50, 1), (500, 8)]
    assert limits_of("requests") == [(10, 1), (500, 8)]
    assert limits_of("tokens") == [(50, 1), (300, 8)]
    assert limits_of("both") == [(50, 1), (300, 8), (500, 8)]


def test_limits_of_a_blueprint_are_lifted_only_by_limits_of_what_they_count():
    """Flask-Limiter takes any limit of a view in place of its blueprint's."""
    limits = limited(default_token_limits=["500 per day"], default_output_tokens=0)
    limiter, blueprint = limits.limiter, flask.Blueprint("v1", __name__)
    limiter.limit("60 per day")(blueprint)
    limiter.limit_tokens("100 per day")(blueprint)
    limiter.limit_concurrency(1)(blueprint)

    @blueprint.post("/plain")
    def plain():
        return {"usage": USAGE}

    @blueprint.post("/requests")
    @limiter.limit("10 per day")
    def requests():
        return {"usage": USAGE}

    @blueprint.post("/exempt")
    @limiter.exempt
    def exempt():
        return {"usage": USAGE}

    limits.app.register_blueprint(blueprint)

    def limits_of(endpoint):
        response = limits.client().post(f"/{endpoint}", json={})
        with limits.app.test_request_context():
            verdicts = limiter.peek(f"v1.{endpoint}", "alice").verdicts
        policies = response.headers["RateLimit-Policy"]
        assert all(f'"{v.charge.quota.name}";q={v.charge.quota.limit};' in policies for v in verdicts)
        assert len(verdicts) == policies.count(";q=")
        return {(v.charge.quota.name, v.charge.quota.limit, v.used) for v in verdicts}

    both = {(TOKENS, 100, 14), (SLOTS, 1, 0)}
    assert limits_of("plain") == {(REQUESTS, 60, 1), *both}
    assert limits_of("requests") == {(REQUESTS, 10, 1), *both}
    assert "tokens-per-day" not in {name for name, limit, _ in limits_of("exempt") if limit == 500}


def test_limits_of_an_outer_blueprint_are_lifted_only_by_limits_of_what_they_count():
    limits = limited(default_output_tokens=0)
    outer, inner = (flask.Blueprint(name, __name__, url_prefix=f"/{name}") for name in ("outer", "inner"))
    limits.limiter.limit("60 per day")(outer)
    limits.limiter.limit_tokens("100 per day")(outer)
    limits.limiter.limit_units("pages", "10 per day")(outer)
    limits.limiter.limit("50 per day")(inner)

    @inner.post("/")
    def answer():
        limits.limiter.record_usage(input_tokens=7, units={"pages": 2})
        return {}

    outer.register_blueprint(inner)
    limits.app.register_blueprint(outer)
    policies = limits.client().post("/outer/inner/", json={}).headers["RateLimit-Policy"]
    assert policies.count(";q=") == 3
    assert '"requests-per-day";q=50' in policies
    used = limits.used(endpoint="outer.inner.answer")
    assert used == {"requests-per-day": 1, "tokens-per-day": 7, "pages-per-day": 2}


def test_factory_that_runs_again_charges_no_token_twice():
    """A limiter at the module's top knows a view by its name, and so every view of that name."""
    limiter = AILimiter(api_key, storage_uri="memory://", clock=ManualClock())

    def create_app():
        app = flask.Flask("again", static_folder=None)
        limiter.init_app(app)

        def estimate(_):
            return 100

        @app.post("/")
        @limiter.limit_tokens("1000 per day")
        @limiter.limit_tokens("1000 per hour", estimate=estimate)
        @limiter.limit_concurrency(1)
        def answer():
            limiter.record_usage(output_tokens=300)
            return {}

        return app

    for _ in range(4):
        app = create_app()
        assert app.test_client().post("/", json={}, headers={"x-api-key": "alice"}).status_code == 200
        with app.test_request_context():
            assert {v.used for v in limiter.peek("answer", "alice").verdicts} == {300, 0}


# Conditional deductions, and limits inside a view


def test_conditional_deduction_is_decided_by_the_answer():
    limits = limited()

    @limits.app.get("/")
    @limits.limiter.limit("2 per day", deduct_when=lambda response: response.status_code == 400)
    @limits.limiter.limit_concurrency(1)
    def answer():
        return {}, int(request.args["status"])

    def send(status):
        return limits.client().get(f"/?status={status}").status_code

    assert [send(200) for _ in range(5)] == [200] * 5
    assert limits.used() == {REQUESTS: 0, SLOTS: 0}
    assert [send(400), send(400), send(400), send(200)] == [400, 400, 429, 429]
    assert limits.used() == {REQUESTS: 2, SLOTS: 0}


def test_exception_makes_no_conditional_deduction():
    limits = limited()
    limits.app.testing = True

    @limits.app.get("/")
    @limits.limiter.limit("2 per day", deduct_when=lambda _: True)
    def answer():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        limits.client().get("/")
    assert limits.used() == {REQUESTS: 0}


def with_helper(use):
    """An app whose view has limits, and uses a helper that has more; ``use`` says what the view makes of it."""
    limits = limited()

    @limits.limiter.limit("1 per day", scope="helper")
    @limits.limiter.limit_tokens("1000 per day", estimate=lambda _: 100, scope="helper")
    def helper():
        return "helped"

    @limits.app.post("/")
    @limits.limiter.limit("10 per day")
    @limits.limiter.limit_tokens("1000 per day")
    @limits.limiter.limit_concurrency(1)
    def answer():
        return use(limits, helper)

    return limits


def used_by_view(limits):
    with limits.app.test_request_context():
        verdicts = limits.limiter.peek("answer", "alice").verdicts
    return {v.charge.quota.name: v.used for v in verdicts if v.charge.scope == "answer"}


def test_refusal_inside_a_view_refuses_the_whole_request():
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    limits = with_helper(lambda limits, helper: {"text": helper(), "usage": usage})
    assert ask(limits).status_code == 200
    before = used_by_view(limits)
    assert before == {REQUESTS: 1, TOKENS: 2, SLOTS: 0}
    refused = ask(limits)
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "86400"
    assert used_by_view(limits) == before


def test_refusal_inside_a_view_can_be_caught():
    def use(limits, helper):
        try:
            return {"text": helper(), "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        except QuotaExceeded as refused:
            wait = refused.decision.retry_after
            return {"text": f"no help for {wait} s", "usage": {"prompt_tokens": 5, "completion_tokens": 5}}

    limits = with_helper(use)
    first, second = ask(limits), ask(limits)
    assert [first.json["text"], second.json["text"]] == ["helped", "no help for 86400.0 s"]
    assert "Retry-After" not in second.headers
    assert used_by_view(limits) == {REQUESTS: 2, TOKENS: 12, SLOTS: 0}


def test_refusal_inside_a_view_after_usage_charges_that():
    """Else every refusal would be a model call for nothing."""

    def use(limits, helper):
        limits.limiter.record_usage(input_tokens=30, output_tokens=4)
        return {"text": helper()}

    limits = with_helper(use)
    assert [ask(limits).status_code for _ in range(2)] == [200, 429]
    assert used_by_view(limits)[TOKENS] == 68
    assert used_by_view(limits)[SLOTS] == 0


def used_in_block(limits):
    charge = Charge(limits.limiter.subject("alice"), Quota(100, 86400, "tokens"), 0, "answer\x1f100/100")
    return limits.limiter.engine.peek([charge]).verdicts[0].used


@pytest.mark.parametrize("caught", [True, False])
def test_limit_around_a_block_of_a_view(caught):
    limits = limited()

    @limits.app.post("/")
    @limits.limiter.limit("10 per day")
    def answer():
        try:
            with limits.limiter.limit_tokens("100 per day", estimate=lambda _: 60):
                limits.limiter.record_usage(output_tokens=60)
                return {"text": "inside"}
        except QuotaExceeded:
            if not caught:
                raise
            return {"text": "outside"}

    answers = [ask(limits) for _ in range(3)]
    assert [answer.status_code for answer in answers] == ([200] * 3 if caught else [200, 429, 429])
    assert limits.used()[REQUESTS] == (3 if caught else 1)
    assert used_in_block(limits) == 60
    if caught:
        assert [answer.json["text"] for answer in answers] == ["inside", "outside", "outside"]


def test_block_entered_several_times_charges_once_what_the_request_used():
    limits = limited()

    @limits.app.post("/")
    def answer():
        for _ in range(3):
            with limits.limiter.limit_tokens("100 per day", estimate=lambda _: 10):
                pass
        return {"usage": {"prompt_tokens": 7, "completion_tokens": 0}}

    ask(limits)
    assert used_in_block(limits) == 7


# Two limiters


def test_two_limiters_settle_each_its_own():
    app = flask.Flask("two", static_folder=None)
    clock = ManualClock()
    users = AILimiter(api_key, storage_uri="memory://", clock=clock, app=app)
    everybody = AILimiter(lambda: "all", storage_uri="memory://", clock=clock, app=app, key_prefix="all")

    @app.post("/")
    @users.limit("100 per day")
    @users.limit_tokens("1000 per day")
    @everybody.limit_tokens("100 per day")
    @everybody.limit_concurrency(1)
    def answer():
        users.record_usage(output_tokens=7)
        return {"usage": {"prompt_tokens": 5, "completion_tokens": 5}}

    def used(limiter, key):
        with app.test_request_context():
            return {v.charge.quota.name: v.used for v in limiter.peek("answer", key).verdicts}

    def send(most):
        return app.test_client().post("/", json={"max_tokens": most}, headers={"x-api-key": "alice"})

    assert send(20).status_code == 200
    assert used(users, "alice") == {TOKENS: 7, REQUESTS: 1}
    assert used(everybody, "all") == {TOKENS: 10, SLOTS: 0}
    refused = send(95)
    assert refused.status_code == 429
    assert refused.json["error"]["limit"]["limit"] == 100
    # Each dialect speaks of the limiter that refused, whichever comes last to write.
    assert refused.headers["X-RateLimit-Limit"] == refused.headers["x-ratelimit-limit-tokens"] == "100"
    assert '"tokens-per-day";r=90' in refused.headers["RateLimit"]
    assert used(users, "alice") == {TOKENS: 7, REQUESTS: 2}  # It let the request pass, and knows no more.
    assert used(everybody, "all") == {TOKENS: 10, SLOTS: 0}


def test_plain_flask_limiter_beside_ours_sees_nothing_of_it():
    limits = served(lambda: {"usage": USAGE})
    Limiter(api_key, app=limits.app, storage_uri="memory://", default_limits=["100 per day"])
    assert ask(limits).status_code == 200
    assert_charged(limits, 9, 5)


# What the app does with refusals


def once_a_day(**options):
    """An app with a limit that the next request breaks; the request that reached it is still to be sent."""
    limits = limited()

    @limits.app.get("/")
    @limits.limiter.limit("1 per day", **options)
    def answer():
        return {}

    return limits


def refusal_of(limits):
    assert limits.client().get("/").status_code == 200
    return limits.client().get("/")


@pytest.mark.parametrize("handled", [429, QuotaExceeded, RateLimitExceeded])
def test_error_handler_s_answer_carries_the_wait_and_the_limits(handled):
    limits = once_a_day()

    @limits.app.errorhandler(handled)
    def slow_down(error):
        assert error.decision.binding.retry_after == 86400
        return {"own": error.description}, 429

    refused = refusal_of(limits)
    assert (refused.status_code, refused.json) == (429, {"own": "1 per 1 day"})
    assert refused.headers["Retry-After"] == "86400"
    assert refused.headers["X-RateLimit-Remaining"] == "0"


def test_error_handler_may_send_another_status_and_our_headers_stay_on_it():
    limits = once_a_day()
    limits.app.register_error_handler(429, lambda _: ("a page for people", 200))
    answer = refusal_of(limits)
    assert (answer.status_code, answer.text) == (200, "a page for people")
    assert answer.headers["Retry-After"] == "86400"
    assert limits.used() == {REQUESTS: 1}


def test_on_breach_s_answer_is_sent_with_the_wait():
    limits = once_a_day(on_breach=lambda limit: flask.make_response(f"no more than {limit.limit}", 429))
    refused = refusal_of(limits)
    assert refused.text == "no more than 1 per 1 day"
    assert refused.headers["Retry-After"] == "86400"
    assert refused.headers["x-should-retry"] == "false"


def test_own_sentence_takes_the_place_of_ours():
    limits = limited()

    @limits.app.get("/")
    @limits.limiter.limit_tokens("10 per day", estimate=lambda _: 10, error_message=lambda: "Buy more.")
    def answer():
        return {}

    refused = refusal_of(limits)
    assert refused.json["error"]["message"] == refused.json["detail"] == "Buy more."


@pytest.mark.parametrize(
    "answer", [dict, lambda: ("", 204), lambda: abort(400), lambda: ({}, 503), lambda: redirect("/x")]
)
def test_wait_is_told_in_refusals_only(answer):
    limits = served(answer)
    response = limits.client().post("/", json=BODY)
    assert {"Retry-After", "retry-after-ms", "x-should-retry"}.isdisjoint(response.headers.keys())
    assert {"RateLimit", "X-RateLimit-Limit", "x-ratelimit-remaining-tokens"} <= set(response.headers.keys())


# The store fails when it is too late to refuse


def test_answer_is_sent_though_the_store_has_gone(tmp_path, caplog):
    limits = limited(storage_uri=f"local://{tmp_path}/limits")

    @limits.app.post("/")
    @limits.limiter.limit_tokens("1000 per day")
    @limits.limiter.limit_concurrency(1)
    def answer():
        shutil.rmtree(tmp_path / "limits")
        (tmp_path / "limits").touch()
        limits.clock.advance(2)
        return {"usage": USAGE}

    response = ask(limits)
    assert response.status_code == 200
    assert "not settled" in caplog.text
    assert ask(limits).status_code == 503
    limits.limiter.engine.close()
