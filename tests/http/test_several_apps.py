"""One limiter serves several apps, and a request of one may look at another one; and what is asked from outside."""

import logging

import pytest
from flask import Flask, abort
from flask_limiter import MetaLimit
from limited_apps import limited

from flask_ailimit import AILimiter, StoreError, usage_settled
from flask_ailimit.testing import ManualClock

CONFIG = {"RATELIMIT_STRATEGY": "token-bucket", "AILIMIT_DEFAULT_TOKEN_LIMITS": ["50 per minute"]}


@pytest.fixture
def two():
    """A limiter, an app with two requests a minute, and another with five, a token limit and another strategy."""
    limiter = AILimiter(lambda: "alice", storage_uri="memory://", clock=ManualClock())
    first, second = Flask("first"), Flask("second")
    second.config.update(CONFIG)
    for app, limit in ((first, "2 per minute"), (second, "5 per minute")):
        limiter.init_app(app)
        app.get("/", endpoint=app.name)(limiter.limit(limit)(lambda: "ok"))
    return limiter, first, second


def shown(decision):
    return [(verdict.quota.text, verdict.quota.algorithm, verdict.used) for verdict in decision.verdicts]


SECOND = [("5 requests per 60 s", "token-bucket"), ("50 tokens per 60 s", "token-bucket")]


def test_request_that_looks_at_another_app_is_charged_by_its_own(two):
    limiter, first, second = two
    senders = []

    @first.before_request
    def look():
        with second.app_context():
            limiter.peek("second", "alice")

    def receive(sender, **_):
        senders.append(sender.name)

    with usage_settled.connected_to(receive):
        client = first.test_client()
        assert [client.get("/").status_code for _ in range(4)] == [200, 200, 429, 429]
    assert senders == ["first", "first"]
    with first.test_request_context("/"):
        assert shown(limiter.peek("first")) == [("2 requests per 60 s", "fixed-window", 2)]


def test_peek_tells_of_the_current_app_whichever_was_asked_before(two):
    limiter, first, second = two
    first.test_client().get("/")
    second.test_client().get("/")
    with first.test_request_context("/"):
        assert [count[2] for count in shown(limiter.peek("first"))] == [1]
        with second.app_context():
            assert [count[:2] for count in shown(limiter.peek("second"))] == SECOND
            assert limiter.peek("second").verdicts[0].used == 1
        assert [count[2] for count in shown(limiter.peek("first"))] == [1]


def test_view_without_limits_can_be_looked_at_without_a_request():
    served = limited()
    served.app.get("/", endpoint="free")(lambda: "ok")
    with served.app.app_context():
        assert served.limiter.peek("free", "alice").verdicts == ()


@pytest.mark.parametrize(("limit", "status"), [("no limit", 503), (401, 401)])
def test_function_that_is_limited_by_another_app_than_the_request_s_is_answered(two, limit, status):
    limiter, first, second = two
    outer = Flask("outer")
    outer.config["RATELIMIT_ENABLED"] = False
    limiter.init_app(outer)
    helper = limiter.limit(lambda: limit if isinstance(limit, str) else abort(limit))(lambda: "helped")

    @outer.get("/")
    def view():
        with first.app_context():
            return helper()

    assert outer.test_client().get("/").status_code == status
    assert second


def test_refusal_stands_though_a_meta_limit_can_not_be_counted(caplog):
    asked = []

    def fails_when_the_refusal_is_counted():
        asked.append(1)
        if len(asked) == 3:  # Each request has asked once before.
            raise StoreError("away")

    served = limited(lambda: "alice")
    metas = [MetaLimit("9 per day", exempt_when=fails_when_the_refusal_is_counted)]
    served.app.get("/")(served.limiter.limit("1 per day", meta_limits=metas)(lambda: "ok"))
    client = served.client()
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]
    assert "A refusal was not counted: away" in caplog.text


def test_lines_of_the_log_go_to_the_logger_that_the_app_has_given(caplog):
    served = limited(lambda: "alice")
    served.limiter.logger = logging.getLogger("shop.limits")
    served.limiter.logger.setLevel(logging.INFO)
    served.app.get("/")(served.limiter.limit("1 per day")(lambda: "ok"))
    served.app.get("/bad", endpoint="bad")(served.limiter.limit(lambda: "no limit")(lambda: "ok"))
    client = served.client()
    assert [client.get("/").status_code for _ in range(2)] == [200, 429]
    assert client.get("/bad").status_code == 503
    names = {record.name for record in caplog.records}
    assert names == {"shop.limits"}


def test_app_that_the_limiter_does_not_know_has_no_engine_also_while_the_fallback_is_in_use():
    served = limited(in_memory_fallback_enabled=True)
    served.limiter._storage_dead = True
    with Flask("stranger").app_context():
        with pytest.raises(RuntimeError, match="doesn't know the app"):
            _ = served.limiter.engine
        with pytest.raises(RuntimeError, match="doesn't know the app"):
            served.limiter.subject("alice")


def test_limits_of_an_app_that_is_switched_off_can_be_listed():
    limiter = AILimiter(lambda: "alice", storage_uri="memory://", default_token_limits=["5 per day"])
    app = Flask("off")
    app.config["RATELIMIT_ENABLED"] = False
    limiter.init_app(app)
    with app.test_request_context("/"):
        assert limiter.limit_manager.application_limits == []


def test_function_that_a_view_calls_for_another_app_counts_as_the_request_s_app_does(two):
    limiter, first, second = two
    helper = limiter.limit("9 per minute")(lambda: "helped")

    @first.get("/helped")
    @limiter.limit("2 per minute")
    def view():
        with second.app_context():
            helper()
        return {"counted": [[count[0], count[1]] for count in shown(limiter.decision)]}

    counted = first.test_client().get("/helped").json["counted"]
    assert counted == [["2 requests per 60 s", "fixed-window"], ["9 requests per 60 s", "fixed-window"]]
