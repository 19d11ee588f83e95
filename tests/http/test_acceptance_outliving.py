"""Work that outlives its answer: another process settles what the request has reserved."""

import json

import pytest
from acceptance_apps import BODY, RESERVED, by_unit, hearing
from flask import Response, stream_with_context
from limited_apps import limited

LEASE = 60


def queue(storage_uri="memory://", clock=None, secret="0123456789abcdef", **options):
    """An app whose view hands its work over, and answers the token."""
    limits = limited(storage_uri=storage_uri, secret=secret, token_counter=lambda text: len(text.split()), **options)
    if clock is not None:
        limits.clock.set(clock())

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit("100 per minute")
    @limits.limiter.limit_tokens("1000 per minute")
    @limits.limiter.limit_concurrency(1, lease=LEASE)
    def answer():
        token = limits.limiter.hand_over()
        return {"job": token, "text": "a b c d e f g"}, 202

    return limits


def handed(limits):
    response = limits.client().post("/", json=BODY)
    assert response.status_code == 202
    response.close()
    return response.json["job"], response


def used(limits):
    counts = by_unit(limits.used())
    return counts["tokens"], counts["concurrency"]


def test_reservation_stands_after_the_answer_until_the_work_is_settled():
    limits = queue()
    token, _ = handed(limits)
    assert used(limits) == (RESERVED, 1)
    with limits.app.app_context():
        work = limits.limiter.take_over(token)
        work.record_usage(input_tokens=9, output_tokens=5)
        work.settle()
    assert used(limits) == (14, 0)


def test_work_in_a_with_statement_is_settled_at_its_end():
    limits = queue()
    token, _ = handed(limits)
    with limits.app.app_context(), limits.limiter.take_over(token) as work:
        work.record_usage(input_tokens=9)
        work.record_usage(output_tokens=5)
        assert used(limits)[1] == 1
    assert used(limits) == (14, 0)


def test_cancelled_work_gives_back_its_tokens_and_its_slot():
    limits = queue()
    token, _ = handed(limits)
    with limits.app.app_context():
        limits.limiter.take_over(token).cancel()
    assert used(limits) == (0, 0)


def test_work_that_fails_keeps_what_it_recorded_and_frees_its_slot():
    limits = queue()
    token, _ = handed(limits)

    def fail():
        with limits.limiter.take_over(token) as work:
            work.record_usage(input_tokens=9)
            raise ZeroDivisionError

    with limits.app.app_context(), pytest.raises(ZeroDivisionError):
        fail()
    tokens, slots = used(limits)
    assert slots == 0
    assert tokens >= 9


def test_work_that_uses_more_than_reserved_owes_it():
    limits = queue()
    token, _ = handed(limits)
    with limits.app.app_context(), limits.limiter.take_over(token) as work:
        work.record_usage(output_tokens=3000)
    assert limits.client().post("/", json=BODY).status_code == 429
    limits.clock.advance(60)
    assert limits.client().post("/", json=BODY).status_code == 429
    limits.clock.advance(300)
    assert limits.client().post("/", json=BODY).status_code == 202


@pytest.mark.parametrize("second", ["settle", "cancel"])
@pytest.mark.parametrize("first", ["settle", "cancel"])
def test_work_ends_once(first, second):
    limits = queue()
    token, _ = handed(limits)
    with limits.app.app_context():
        work = limits.limiter.take_over(token)
        work.record_usage(input_tokens=9, output_tokens=5)
        getattr(work, first)()
        expected = used(limits)
        getattr(work, second)()
    assert used(limits) == expected


def test_work_that_two_take_over_is_charged_once():
    """A queue may deliver twice."""
    limits = queue()
    token, _ = handed(limits)
    with limits.app.app_context():
        for _ in range(3):
            try:
                work = limits.limiter.take_over(token)
                work.record_usage(input_tokens=9, output_tokens=5)
                work.settle()
            except Exception:  # noqa: BLE001  to refuse the second is as right as to ignore it
                pass
    assert used(limits) == (14, 0)


def test_two_at_once_are_charged_once():
    limits = queue()
    token, _ = handed(limits)
    with limits.app.app_context():
        works = [limits.limiter.take_over(token) for _ in range(2)]
        for work in works:
            work.record_usage(input_tokens=9, output_tokens=5)
            work.settle()
    assert used(limits) == (14, 0)


def test_token_is_a_text_that_any_queue_takes_and_holds_no_secret():
    limits = queue()
    token, _ = handed(limits)
    assert isinstance(token, str)
    assert token.isascii()
    assert token.isprintable()
    assert json.loads(json.dumps(token)) == token
    for secret in ("alice", "0123456789abcdef", "one two three"):
        assert secret not in token
    assert len(token) < 5000


def test_tokens_differ():
    limits = queue()
    first, _ = handed(limits)
    with limits.app.app_context():
        limits.limiter.take_over(first).settle()
    second, _ = handed(limits)
    assert first != second


CHANGED = {
    "empty": lambda token: "",
    "cut": lambda token: token[:-4],
    "its first half": lambda token: token[: len(token) // 2],
    "one letter other": lambda token: token[:10] + ("A" if token[10] != "A" else "B") + token[11:],
    "its last letters other": lambda token: token[:-3] + "".join("A" if c != "A" else "B" for c in token[-3:]),
    "twice": lambda token: token + token,
    "rubbish": lambda token: "rubbish",
    "no ASCII": lambda token: "ключ",
    "long": lambda token: "A" * 100_000,
    "with a line feed": lambda token: "\n" + token[1:],
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_token_that_was_changed_is_refused(change):
    limits = queue()
    token, _ = handed(limits)
    with limits.app.app_context(), pytest.raises(Exception) as refused:  # noqa: PT011  any error that is ours
        limits.limiter.take_over(change(token))
    assert type(refused.value).__module__.startswith("flask_ailimit")
    assert used(limits) == (RESERVED, 1)


def test_another_process_settles(tmp_path):
    """Two apps, each with its own limiter, over one directory."""
    ours = queue(f"local://{tmp_path}/store")
    theirs = queue(f"local://{tmp_path}/store")
    token, _ = handed(ours)
    with theirs.app.app_context(), theirs.limiter.take_over(token) as work:
        work.record_usage(input_tokens=9, output_tokens=5)
    assert used(ours) == used(theirs) == (14, 0)


def test_slot_of_work_that_nobody_takes_comes_back_with_its_lease():
    limits = queue()
    handed(limits)
    assert limits.client().post("/", json=BODY).status_code == 429
    limits.clock.advance(LEASE + 1)
    assert used(limits)[1] == 0
    assert limits.client().post("/", json=BODY).status_code == 202


def test_work_that_is_taken_after_its_lease_is_still_charged():
    limits = queue()
    token, _ = handed(limits)
    limits.clock.advance(LEASE + 1)
    before = used(limits)[0]
    with limits.app.app_context(), limits.limiter.take_over(token) as work:
        work.record_usage(input_tokens=500, output_tokens=200)
    tokens, slots = used(limits)
    assert slots == 0
    assert tokens - before >= 700 - RESERVED


def test_answer_that_hands_over_is_not_counted_itself():
    limits = queue()
    with hearing(limits.app) as events:
        token, response = handed(limits)
        assert [each for each in events if each["charged"]["tokens"]] == []
        with limits.app.app_context(), limits.limiter.take_over(token) as work:
            work.record_usage(input_tokens=9, output_tokens=5)
    told = events[-1]
    assert told["source"] == "recorded"
    assert told["charged"]["tokens"] == 14
    assert told["request_id"] == response.headers["x-request-id"]
    assert told["endpoint"] == "answer"
    assert told["number"] == 1
    with limits.app.app_context():
        assert bytes.fromhex(told["subject"]) == limits.limiter.subject("alice")
    assert sum(each["charged"]["tokens"] for each in events) == 14
    assert sum(each["charged"]["requests"] for each in events) == 1


def test_work_that_is_handed_over_after_a_settlement_is_settled_with_the_next_number():
    limits = limited(token_counter=lambda text: len(text.split()))
    tokens = []

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("1000 per minute")
    @limits.limiter.limit_concurrency(1)
    def answer():
        def events():
            yield "data: [DONE]\n\n"
            yield 'data: {"choices": [{"delta": {"content": "a b"}}]}\n\n'
            tokens.append(limits.limiter.hand_over())

        return Response(stream_with_context(events()), mimetype="text/event-stream")

    with hearing(limits.app) as events:
        limits.client().post("/", json=BODY).get_data()
        with limits.app.app_context(), limits.limiter.take_over(tokens[0]) as work:
            work.record_usage(input_tokens=9, output_tokens=5)
    assert [each["number"] for each in events] == [1, 2]
    assert len({each["request_id"] for each in events}) == 1


@pytest.mark.parametrize("goes_on", [True, False])
def test_work_that_is_handed_over_after_a_settlement_is_charged_what_it_uses_from_then_on(goes_on):
    limits = limited(token_counter=lambda text: len(text.split()))
    tokens = []

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_units("pages", "100 per day")
    @limits.limiter.limit_tokens("1000 per minute")
    @limits.limiter.limit_concurrency(1)
    def answer():
        def events():
            limits.limiter.record_usage(input_tokens=100, units={"pages": 4})
            yield "data: [DONE]\n\n"
            if goes_on:
                yield 'data: {"choices": [{"delta": {"content": "a b"}}]}\n\n'
            tokens.append(limits.limiter.hand_over())

        return Response(stream_with_context(events()), mimetype="text/event-stream")

    with hearing(limits.app) as events:
        limits.client().post("/", json=BODY).get_data()
        assert by_unit(limits.used()) == {"tokens": 100, "pages": 4, "concurrency": 1}
        with limits.app.app_context(), limits.limiter.take_over(tokens[0]) as work:
            work.record_usage(output_tokens=5, units={"pages": 1})
    assert by_unit(limits.used()) == {"tokens": 105, "pages": 5, "concurrency": 0}
    assert [each["usage"].total_tokens for each in events] == [100, 5]
    assert [each["units"] for each in events] == [{"pages": 4}, {"pages": 1}]
    assert [each["charged"] for each in events] == [{"tokens": 100, "pages": 4}, {"tokens": 5, "pages": 1}]


@pytest.mark.parametrize(
    ("record", "charged"), [({"units": {"pages": 2}}, (0, 2)), ({"input_tokens": 3}, (3, 0)), ({}, (0, 0))]
)
def test_work_that_fails_is_charged_what_it_recorded_and_nothing_else(record, charged):
    limits = limited()

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_units("pages", "100 per day", cost=5)
    @limits.limiter.limit_tokens("2000 per minute")
    def answer():
        return {"job": limits.limiter.hand_over()}, 202

    token = limits.client().post("/", json=BODY).json["job"]

    def fail():
        with limits.limiter.take_over(token) as work:
            if record:
                work.record_usage(**record)
            raise ZeroDivisionError

    with limits.app.app_context(), pytest.raises(ZeroDivisionError):
        fail()
    counts = by_unit(limits.used())
    assert (counts["tokens"], counts["pages"]) == charged


def test_work_whose_record_fits_into_no_token_stays_with_its_request():
    limits = limited()

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_concurrency(1)
    def answer():
        limits.limiter.record_usage(units={f"unit_{number}": 1 for number in range(1000)})
        with pytest.raises(ValueError, match="at most 4096 bytes"):
            limits.limiter.hand_over()
        return {"in flight": limits.used()["concurrency"]}

    assert limits.client().post("/", json=BODY).json == {"in flight": 1}
    assert limits.used()["concurrency"] == 0


def test_work_without_a_word_of_usage_costs_no_less_than_reserved():
    limits = queue()
    token, _ = handed(limits)
    with limits.app.app_context():
        limits.limiter.take_over(token).settle()
    assert used(limits) == (RESERVED, 0)


@pytest.mark.parametrize(
    "usage",
    [{"input_tokens": -1}, {"output_tokens": 1.5}, {"output_tokens": True}, {"cached_input_tokens": 1}],
    ids=str,
)
def test_nonsense_is_refused_there_too(usage):
    limits = queue()
    token, _ = handed(limits)
    with limits.app.app_context():
        work = limits.limiter.take_over(token)
        with pytest.raises(ValueError, match="tokens"):
            work.record_usage(**usage)
        work.cancel()
    assert used(limits) == (0, 0)


def test_handing_over_twice_settles_once():
    limits = limited(token_counter=lambda text: len(text.split()))

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("1000 per minute")
    @limits.limiter.limit_concurrency(1)
    def answer():
        return {"tokens": [limits.limiter.hand_over(), limits.limiter.hand_over()]}, 202

    tokens = limits.client().post("/", json=BODY).json
    assert tokens is not None
    if "tokens" in tokens:
        with limits.app.app_context():
            for token in tokens["tokens"]:
                with limits.limiter.take_over(token) as work:
                    work.record_usage(input_tokens=9, output_tokens=5)
        assert by_unit(limits.used())["tokens"] in (14, 28)
    assert by_unit(limits.used())["concurrency"] == 0


def test_stream_may_hand_over_and_keep_its_slot():
    limits = limited(token_counter=lambda text: len(text.split()))

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("1000 per minute")
    @limits.limiter.limit_concurrency(1)
    def answer():
        token = limits.limiter.hand_over()
        return Response(iter([token]), mimetype="text/plain", status=202)

    token = limits.client().post("/", json=BODY).text
    assert used(limits) == (RESERVED, 1)
    with limits.app.app_context(), limits.limiter.take_over(token) as work:
        work.record_usage(input_tokens=9, output_tokens=5)
    assert used(limits) == (14, 0)


def test_request_that_reserved_nothing_may_hand_over():
    limits = limited()

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit("5 per minute")
    def answer():
        return {"job": limits.limiter.hand_over()}, 202

    token = limits.client().post("/").json["job"]
    with limits.app.app_context(), limits.limiter.take_over(token) as work:
        work.record_usage(input_tokens=9)
    assert limits.used()["requests-per-minute"] == 1
