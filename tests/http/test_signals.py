"""What a meter hears: one event a settlement, which can be billed and joined to an answer."""

import logging
from dataclasses import dataclass

import flask
import pytest
from flask import Response, abort, request, stream_with_context
from limited_apps import Limited, limited

from flask_ailimit import Usage, request_refused, usage_settled

BODY = {"prompt": "one two three", "max_tokens": 40}
CHAT = {"choices": [{"message": {"role": "assistant", "content": "four five"}}]}
REPORT = {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}


def words(text):
    return len(text.split())


words.exact = True


@dataclass(frozen=True)
class Heard(Limited):
    """A limited app, and what was heard of it."""

    settled: list
    refused: list


def served(answer, **options):
    """An app with a view that answers so, limited in requests and tokens, and what is heard of it."""
    limits = limited(token_counter=words, **options)
    settled, refused = heard(usage_settled, limits.app), heard(request_refused, limits.app)
    limits = Heard(limits.app, limits.limiter, limits.clock, settled, refused)

    @limits.app.route("/", methods=["GET", "POST"], endpoint="answer")
    @limits.limiter.limit("2 per day")
    @limits.limiter.limit_tokens("1000 per day")
    @limits.limiter.limit_tokens("1000 per day", unit="output_tokens")
    @limits.limiter.limit_concurrency(1)
    def view():
        return answer(limits.limiter)

    return limits


@pytest.fixture(autouse=True)
def nobody_listens_afterwards():
    yield
    for signal in (usage_settled, request_refused):
        signal.receivers.clear()


def heard(signal, app):
    events = []
    receiver = lambda sender, **event: events.append({"sender": sender, **event})  # noqa: E731
    signal.connect(receiver, app, weak=False)
    return events


def ask(limits, **options):
    response = limits.client().post("/", json=BODY, **options)
    response.get_data()
    response.close()
    return response


def test_settled_request_is_told_with_all_that_a_bill_needs():
    limits = served(lambda limiter: {**CHAT, "usage": REPORT})
    response = ask(limits, headers={"X-Request-Id": "trace-7"})
    [event] = limits.settled
    assert event["sender"] is limits.app
    assert event["usage"] == Usage(9, 5, 4)
    assert event["charged"] == {"requests": 1, "tokens": 14, "output_tokens": 5}
    assert (event["source"], event["ending"], event["status"]) == ("reported", "complete", 200)
    assert event["endpoint"] == "answer"
    with limits.app.app_context():
        assert bytes.fromhex(event["subject"]) == limits.limiter.subject("alice")
    assert event["request_id"] == response.headers["x-request-id"] == response.headers["request-id"]
    assert event["client_request_id"] == "trace-7"
    assert event["number"] == 1
    assert event["decision"].allowed
    assert event.keys() >= {"plan", "model", "label"}


def test_what_is_charged_leaves_out_cached_input_where_that_is_free():
    limits = served(lambda limiter: {**CHAT, "usage": REPORT}, count_cached_tokens=False)
    ask(limits)
    [event] = limits.settled
    assert event["charged"] == {"requests": 1, "tokens": 10, "output_tokens": 5}
    assert event["usage"] == Usage(9, 5, 4)


def recorded(limiter):
    limiter.record_usage(input_tokens=7, output_tokens=5)
    return CHAT


def stopped(limiter):
    abort(502)


def streamed(_):
    return Response(iter(["four ", "five"]), mimetype="text/plain")


def silent(_):
    return Response(iter([b"\x00\x01", b"\xff"]), mimetype="application/octet-stream")


@pytest.mark.parametrize(
    ("answer", "source", "usage", "charged", "status"),
    [
        pytest.param(recorded, "recorded", Usage(7, 5), {"tokens": 12, "output_tokens": 5}, 200, id="recorded"),
        pytest.param(lambda _: CHAT, "counted", Usage(3, 2), {"tokens": 5, "output_tokens": 2}, 200, id="counted"),
        pytest.param(streamed, "counted", Usage(3, 2), {"tokens": 5, "output_tokens": 2}, 200, id="stream"),
        pytest.param(silent, "reserved", Usage(3, 40), {"tokens": 43, "output_tokens": 40}, 200, id="bytes"),
        pytest.param(stopped, "counted", Usage(0, 0), {"tokens": 0, "output_tokens": 0}, 502, id="error"),
    ],
)
def test_source_says_how_the_usage_is_known(answer, source, usage, charged, status):
    limits = served(answer)
    ask(limits)
    [event] = limits.settled
    assert (event["source"], event["usage"], event["status"]) == (source, usage, status)
    assert event["charged"] == {"requests": 1, **charged}
    assert limits.used()["tokens-per-day"] == charged["tokens"]


def test_request_that_raises_is_told_without_a_status():
    limits = served(lambda _: 1 / 0, config={"PROPAGATE_EXCEPTIONS": True})
    with pytest.raises(ZeroDivisionError):
        ask(limits)
    [event] = limits.settled
    assert (event["status"], event["ending"], event["charged"]["tokens"]) == (None, "failed", 0)


def test_stream_that_nobody_reads_to_its_end_is_told_as_abandoned():
    limits = served(lambda _: Response(iter(["four ", "five ", "six"]), mimetype="text/plain"))
    response = limits.client().post("/", json=BODY)
    next(response.response)
    response.close()
    [event] = limits.settled
    assert (event["ending"], event["source"], event["usage"]) == ("abandoned", "counted", Usage(3, 1))


def test_refused_request_is_told_once_and_settles_nothing():
    limits = served(lambda _: CHAT)
    ask(limits)
    ask(limits)
    limits.settled.clear()
    answer = ask(limits)
    [event] = limits.refused
    assert answer.status_code == 429
    assert not event["decision"].allowed
    assert event["request_id"] == answer.headers["x-request-id"] == answer.json["request_id"]
    assert event["endpoint"] == "answer"
    assert limits.settled == []


# Receivers that fail


def failing(sender, **event):
    raise ValueError("the prompt was: one two three")


@pytest.mark.parametrize("answer", [recorded, streamed], ids=["plain", "stream"])
def test_receiver_that_raises_changes_no_answer_and_leaves_no_message_in_the_log(answer, caplog):
    limits = served(answer)
    usage_settled.connect(failing, limits.app)
    also = heard(usage_settled, limits.app)
    with caplog.at_level(logging.ERROR):
        response = ask(limits)
    assert response.status_code == 200
    assert len(limits.settled) == len(also) == 1
    assert limits.used()["concurrency"] == 0
    [record] = caplog.records
    assert "ValueError" in record.getMessage()
    assert "test_signals.py" in record.getMessage()
    assert "one two three" not in caplog.text


def test_receiver_that_raises_leaves_a_refusal_a_refusal():
    limits = served(lambda _: CHAT)
    request_refused.connect(failing, limits.app)
    assert [ask(limits).status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("answer", [recorded, streamed], ids=["plain", "stream"])
def test_receivers_have_the_context_of_the_app(answer):
    limits = served(answer)
    seen = []
    receiver = lambda sender, **event: seen.append(flask.current_app.name)  # noqa: E731
    usage_settled.connect(receiver, limits.app, weak=False)
    ask(limits)
    assert seen == ["limited"]


def test_receiver_may_be_a_coroutine():
    limits = served(recorded)
    seen = []

    async def receiver(sender, **event):
        seen.append(event["source"])

    usage_settled.connect(receiver, limits.app)
    ask(limits)
    assert seen == ["recorded"]


# Ids


def test_every_answer_of_a_limited_route_has_our_id_and_the_view_knows_it():
    seen = []
    limits = served(lambda limiter: seen.append(limiter.request_id) or CHAT)
    answers = [ask(limits, headers={"X-Request-Id": "the-client-s"}) for _ in range(2)]
    assert [answer.headers["x-request-id"] for answer in answers] == seen
    assert [answer.headers["request-id"] for answer in answers] == seen
    assert len(set(seen)) == 2
    assert all(each.startswith("req_") for each in seen)


@pytest.mark.parametrize("name", ["x-request-id", "X-Request-ID", "request-id"])
def test_id_that_the_app_or_a_provider_has_set_stays(name):
    limits = served(lambda _: Response("four", headers={name: "provider-1"}))
    response = ask(limits)
    assert response.headers.getlist(name) == ["provider-1"]
    [event] = limits.settled
    assert event["request_id"].startswith("req_")


# What is used after the end


def test_usage_recorded_after_the_last_event_is_a_second_settlement():
    def answer(limiter):
        def events():
            yield 'data: {"choices": [{"delta": {"content": "four five"}}]}\n\n'
            yield 'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5}}\n\n'
            yield "data: [DONE]\n\n"
            limiter.record_usage(input_tokens=20, output_tokens=30)

        return Response(stream_with_context(events()), mimetype="text/event-stream")

    limits = served(answer)
    ask(limits)
    assert limits.used()["tokens-per-day"] == 50
    assert limits.used()["output-tokens-per-day"] == 30
    assert [event["source"] for event in limits.settled] == ["reported", "recorded"]
    assert [event["number"] for event in limits.settled] == [1, 2]
    assert len({event["request_id"] for event in limits.settled}) == 1
    assert [event["usage"] for event in limits.settled] == [Usage(9, 5), Usage(11, 25)]
    assert [event["charged"] for event in limits.settled] == [
        {"requests": 1, "tokens": 14, "output_tokens": 5},
        {"requests": 0, "tokens": 36, "output_tokens": 25},
    ]


def test_usage_recorded_by_a_later_hook_is_charged():
    limits = limited(token_counter=words)

    def later(response):  # Flask calls the hook that was registered first last.
        limits.limiter.record_usage(input_tokens=20, output_tokens=30)
        return response

    limits.app.after_request_funcs[None].insert(0, later)

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("1000 per day")
    def answer():
        return CHAT

    ask(limits)
    assert limits.tokens() == 50


def test_agent_s_second_message_is_charged_as_a_second_settlement_and_takes_its_slot_again():
    slots = []

    def answer(limiter):
        def events():
            yield 'data: {"choices": [{"delta": {"content": "four five"}}]}\n\n'
            yield "data: [DONE]\n\n"
            slots.append(limits.used()["concurrency"])
            yield 'data: {"choices": [{"delta": {"content": "six seven eight"}}]}\n\n'
            slots.append(limits.used()["concurrency"])
            yield "data: [DONE]\n\n"
            slots.append(limits.used()["concurrency"])

        return Response(events(), mimetype="text/event-stream")

    limits = served(answer)
    ask(limits)
    assert slots == [0, 1, 0]
    assert limits.used()["concurrency"] == 0
    assert [event["usage"] for event in limits.settled] == [Usage(3, 2), Usage(0, 3)]
    assert [event["number"] for event in limits.settled] == [1, 2]
    assert limits.used()["tokens-per-day"] == 8


def test_answer_that_goes_on_after_its_last_event_is_sent_whole_where_only_requests_are_limited():
    limits = limited()
    events = ["data: [DONE]\n\n", 'data: {"choices": [{"delta": {"content": "six"}}]}\n\n', "data: [DONE]\n\n"]

    @limits.app.post("/")
    @limits.limiter.limit("9 per day")
    def answer():
        return Response(iter(events), mimetype="text/event-stream")

    assert ask(limits).text == "".join(events)
    assert limits.used() == {"requests-per-day": 1}


def test_view_can_say_that_only_the_end_of_the_body_ends_an_answer():
    slots = []
    limits = limited(token_counter=words)

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.metering(ends_with_body=True)
    @limits.limiter.limit_concurrency(1)
    def answer():
        def events():
            yield "data: [DONE]\n\n"
            slots.append(limits.used()["concurrency"])
            yield "data: [DONE]\n\n"

        return Response(events(), mimetype="text/event-stream")

    ask(limits)
    assert slots == [1]
    assert limits.used()["concurrency"] == 0


def test_view_can_say_that_its_answer_is_a_model_s_and_reports_nothing():
    limits = limited(token_counter=words)

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("1000 per day")
    @limits.limiter.metering(recorded_only=True)
    def answer():
        return {"text": "four five six", "usage": {"prompt_tokens": 0, "completion_tokens": 0}}

    ask(limits)
    assert limits.tokens() >= 6


def test_usage_recorded_after_the_answer_was_closed_is_logged(caplog):
    limits = served(streamed)
    with limits.app.test_request_context("/", method="POST", json=BODY):
        response = limits.app.full_dispatch_request()
        list(response.iter_encoded())
        response.close()
        with caplog.at_level(logging.WARNING):
            limits.limiter.record_usage(input_tokens=1)
    assert "after the answer was closed" in caplog.text
    assert len(limits.settled) == 1


# Work that is handed over


def test_what_the_view_recorded_before_it_handed_over_counts_too(caplog):
    tokens = []

    def answer(limiter):
        limiter.record_usage(output_tokens=70)
        tokens.append(limiter.hand_over())
        with caplog.at_level(logging.WARNING):
            limiter.record_usage(output_tokens=1)
        return "accepted", 202

    limits = served(answer)
    ask(limits)
    assert "handed over" in caplog.text
    assert limits.settled == []
    with limits.app.app_context(), limits.limiter.take_over(tokens[0]) as work:
        work.record_usage(input_tokens=3, output_tokens=100)
    [event] = limits.settled
    assert (event["usage"], event["source"]) == (Usage(3, 170), "recorded")
    assert limits.used()["output-tokens-per-day"] == 170


def test_work_that_ends_without_a_record_is_told_with_what_was_reserved():
    tokens = []
    limits = served(lambda limiter: tokens.append(limiter.hand_over()) or "accepted")
    ask(limits)
    with limits.app.app_context():
        limits.limiter.take_over(tokens[0]).settle()
    [event] = limits.settled
    assert (event["usage"], event["source"], event["charged"]["tokens"]) == (Usage(3, 40), "reserved", 43)


def test_request_that_only_limits_by_address_count_is_on_no_bill():
    """Strangers could otherwise make an app write a row for each address that they make up."""
    served = limited(address_limits=["9 per minute"])
    told = []
    usage_settled.connect(lambda _, **facts: told.append(facts), served.app, weak=False)

    @served.app.get("/private")
    @served.limiter.limit("5 per minute")
    def private():
        return {}

    @served.app.get("/free")
    def free():
        return {}

    @served.app.get("/metered")
    def metered():
        served.limiter.record_usage(input_tokens=7)
        return {}

    @served.app.before_request
    def authenticate():
        if "Authorization" not in request.headers:
            abort(401)

    statuses = [
        served.client(None).get("/private").status_code,
        *(served.client().get(path).status_code for path in ("/free", "/nowhere")),
    ]
    assert (statuses, told) == ([401, 200, 404], [])
    for path in ("/private", "/metered"):
        served.client().get(path)
    assert [(event["endpoint"], event["usage"].input_tokens) for event in told] == [("private", 0), ("metered", 7)]
