"""Who was refused a moment ago is refused again before the body is read, and nobody else is."""

import io

import pytest
from flask import request
from hypothesis import given, settings
from hypothesis import strategies as st
from limited_apps import limited

from flask_ailimit import request_refused
from flask_ailimit.engine import Charge, Quota, StoreError, Verdict
from flask_ailimit.limits import refused_lately
from flask_ailimit.limits.refused_lately import RefusedLately
from flask_ailimit.testing import ManualClock

BODY = {"prompt": "hello", "max_tokens": 20}
OK, REFUSED = 200, 429


class Served:
    """An app under a limit on requests and one on tokens, and what it did."""

    def __init__(self, limit="2 per minute", *more, **options):
        self.counted = 0
        self.served = limited(token_counter=self.count, **options)
        self.limiter, self.clock = self.served.limiter, self.served.clock

        def view():
            return {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}

        for decorator in (self.limiter.limit(limit), self.limiter.limit_tokens("1000 per minute"), *more):
            view = decorator(view)
        self.served.app.post("/", endpoint="answer")(view)

    def count(self, text):
        self.counted += 1
        return len(text.split())

    def ask(self, key="alice", body=BODY):
        """The answer, and whether the body was counted."""
        before = self.counted
        response = self.served.client(key).post("/", json=body)
        return response, self.counted > before

    def exhaust(self, times=3):
        for _ in range(times):
            response, _ = self.ask()
        assert response.status_code == REFUSED
        return response


def test_body_of_who_was_refused_a_moment_ago_is_not_read():
    app = Served()
    app.exhaust()
    assert [(response.status_code, counted) for response, counted in (app.ask(), app.ask())] == [(REFUSED, False)] * 2


def ids(response):
    return {name: response.headers[name] for name in ("x-request-id", "request-id")}


def test_answer_says_the_same_and_the_wait_is_shorter_by_the_time_that_has_passed():
    app = Served()
    app.clock.advance(20)
    first = app.exhaust()
    app.clock.advance(0.4)
    second, counted = app.ask()
    assert not counted
    assert (first.headers["retry-after-ms"], second.headers["retry-after-ms"]) == ("40000", "39600")
    assert second.json["error"]["limit"] == {
        **first.json["error"]["limit"],
        "retry_after": 39.6,
        "reset_after": 39.6,
    }
    assert set(dict(first.headers)) == set(dict(second.headers))
    app.clock.advance(0.8)
    read, (unread, _) = app.ask()[0], app.ask()
    assert {**read.headers, **ids(read)} == {**unread.headers, **ids(read)}
    assert read.json["detail"] == unread.json["detail"]


def test_refusal_is_remembered_for_a_second_and_no_longer_than_it_lasts():
    app = Served()
    app.exhaust()
    app.clock.advance(0.99)
    assert not app.ask()[1]
    app.clock.advance(0.02)
    response, counted = app.ask()
    assert (response.status_code, counted) == (REFUSED, True)
    app.clock.advance(58.5)
    assert app.ask()[1]
    app.clock.advance(0.5)
    assert app.ask()[0].status_code == OK


def test_nobody_is_refused_because_somebody_else_was():
    app = Served()
    app.exhaust()
    assert app.ask("bob")[0].status_code == OK
    assert app.ask("alice")[0].status_code == REFUSED


def resets(app):
    return {
        "of everything": app.limiter.reset,
        "of a subject": lambda: app.limiter.engine.reset(app.limiter.subject("alice")),
        "by another process": lambda: app.limiter.engine.store.reset(app.limiter.subject("alice")),
    }


@pytest.mark.parametrize("which", resets(Served()))
def test_reset_is_seen_at_once(which):
    app = Served()
    app.exhaust()
    resets(app)[which]()
    assert app.ask()[0].status_code == OK


def test_refusal_is_told_and_called_back_and_counted_as_ever():
    calls, told = [], []
    app = Served("2 per minute", on_breach=lambda limit: calls.append(str(limit.limit)), meta_limits=["3 per hour"])
    receiver = lambda _, **event: told.append(event["decision"].binding.quota.name)  # noqa: E731  kept until the end
    with request_refused.connected_to(receiver, app.served.app):
        app.exhaust()
        for number in (2, 3):
            response, counted = app.ask()
            assert (response.status_code, counted) == (REFUSED, False)
            assert (len(calls), told) == (number, ["requests-per-minute"] * number)
        response, counted = app.ask()
    assert not counted
    assert response.json["error"]["limit"]["text"] == "3 per 1 hour"
    assert len(calls) == 3


def test_limit_whose_cost_a_callable_asks_of_the_body_is_no_reason():
    app = Served(default_output_tokens=0)
    asked = []
    costly = app.limiter.limit("3 per minute", cost=lambda: asked.append(request.json) or request.json["n"])
    view = app.limiter.limit_tokens("1000 per minute")(costly(lambda: "ok"))
    app.served.app.post("/costly")(view)
    client = app.served.client()
    assert [client.post("/costly", json={"n": n}).status_code for n in (2, 2, 1, 1)] == [OK, REFUSED, OK, REFUSED]
    assert len(asked) == 4


def test_tokens_alone_are_no_reason():
    app = Served("100 per minute")
    large = {"prompt": "hello", "max_tokens": 990}
    assert [app.ask(body=large)[1] for _ in range(3)] == [True] * 3


def test_store_that_fails_meanwhile_answers_as_ever(monkeypatch):
    app = Served(on_store_error="deny")
    app.exhaust()

    def away(*_):
        raise StoreError("away")

    monkeypatch.setattr(app.limiter.engine.store, "transaction", away)
    assert app.ask()[0].status_code == 503


@pytest.mark.parametrize("length", [1, 100_000, 3_000_000])
def test_rest_of_a_body_is_read_when_the_answer_is_closed(length):
    app = Served(max_body_bytes=1_000_000)
    app.exhaust()
    sent = io.BytesIO(b"[" * length)
    response = app.served.client().post("/", input_stream=sent, content_type="application/json", content_length=length)
    assert response.status_code == REFUSED
    assert sent.tell() == 0
    response.close()
    assert sent.tell() == min(length, 1_000_000)


def test_rest_of_a_body_is_read_after_the_apps_own_handler_which_can_still_read_it():
    app = Served()
    seen = []

    @app.served.app.errorhandler(429)
    def refused(error):
        seen.append(request.get_json())
        return error.get_response()

    app.exhaust()
    response, counted = app.ask()
    response.close()
    assert (counted, seen) == (False, [BODY] * 2)


def test_client_that_is_gone_while_the_rest_is_read_harms_nobody():
    class Gone(io.BytesIO):
        def read(self, *_):
            raise ConnectionResetError

    app = Served()
    app.exhaust()
    response = app.served.client().post("/", input_stream=Gone(), content_type="application/json", content_length=9)
    response.close()
    assert response.status_code == REFUSED


def test_so_many_counts_are_remembered_and_no_more(monkeypatch):
    monkeypatch.setattr(refused_lately, "_MOST_COUNTS", 3)
    lately = RefusedLately(ManualClock())
    charges = [Charge(bytes([number]) * 16, Quota(1, 60)) for number in range(5)]
    lately.note([Verdict(charge, False, 0, 60, 60) for charge in charges])
    assert [lately.has_any([charge]) for charge in charges] == [False, False, True, True, True]


TRAFFIC = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(["alice", "bob"]), st.sampled_from(["/", "/two", "/conditional"])),
        st.tuples(st.just("wait"), st.sampled_from([0, 0.2, 0.7, 1, 5, 30, -0.5])),
        st.tuples(st.just("reset"), st.sampled_from(["alice", "bob", None])),
        st.tuples(st.just("fail"), st.booleans()),
    ),
    max_size=40,
)


def statuses(traffic, *, remembers):
    """What clients get for this traffic."""
    limits = limited(application_limits=["6 per minute"], meta_limits=["9 per minute"], strategy="moving-window")
    limiter, fails = limits.limiter, [False]
    if not remembers:
        limiter.limit_manager.refused_lately.note = lambda _: None

    shared = limiter.shared_limit("3 per 10 seconds", scope="both")
    costly = limiter.shared_limit("3 per 10 seconds", scope="both", cost=2)
    deducted = limiter.limit("2 per minute", deduct_when=lambda response: response.status_code == OK)
    for path, limit in {"/": shared, "/two": costly, "/conditional": deducted}.items():

        def view():
            return ({}, 500) if fails[0] else {}

        view.__qualname__ = path  # A limiter knows what it limits by its name.
        each = limiter.limit_tokens("200 per minute")(limiter.limit_concurrency(1)(limit(view)))
        limits.app.post(path, endpoint=f"view{path}")(each)
    answers = []
    for step, *of in traffic:
        if step == "ask":
            answers.append(limits.client(of[0]).post(of[1], json=BODY).status_code)
        elif step == "wait":
            limits.clock.advance(of[0])
        elif step == "reset":
            limiter.engine.reset(limiter.subject(of[0]) if of[0] else None)
        else:
            fails[0] = of[0]
    return answers


@given(TRAFFIC)
@settings(max_examples=60, deadline=None)
def test_everybody_gets_the_status_that_they_would_get_without_a_memory(traffic):
    assert statuses(traffic, remembers=True) == statuses(traffic, remembers=False)
