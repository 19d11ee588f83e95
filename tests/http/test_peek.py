"""``limiter.peek``: for the caller, and for a subject that is named, of whom the app's functions know nothing."""

import pytest
from flask import g, request
from limited_apps import limited, route
from werkzeug.exceptions import Forbidden

from flask_ailimit import UNLIMITED, Decision, StoreError, api_key
from flask_ailimit.http.errors import NotAllowed

PLANS = {"alice": "100 per day", "admin": "900 per day"}


def plan_of_caller():
    return PLANS[api_key()]


def organisation():
    return request.headers.get("X-Org", "")


def is_admin():
    return api_key() == "admin"


def of_model(endpoint):
    return f"{endpoint}:{request.headers.get('X-Model')}"


def peeked(limits, *subject, path="/usage", key="admin", endpoint="answer", headers=(), **named):
    """What a view of the app hears that asks about a subject, while a key calls it."""
    sent = {"Authorization": f"Bearer {key}", **dict(headers)}
    with limits.app.test_request_context(path, headers=sent):
        return limits.limiter.peek(endpoint, *subject, **named)


def left(decision):
    return {verdict.charge.quota.text: verdict.remaining for verdict in decision.verdicts}


def test_caller_is_told_what_its_own_callable_limit_has_left():
    limits = limited()
    route(limits, limits.limiter.limit(plan_of_caller))
    limits.client("alice").get("/")
    assert left(peeked(limits, key="alice")) == {"100 requests per 86400 s": 99}
    assert left(peeked(limits, key="admin")) == {"900 requests per 86400 s": 900}
    assert peeked(limits, key="alice").uncertain == ()


def test_named_subject_is_not_told_the_limits_of_the_caller():
    limits = limited()
    route(limits, limits.limiter.limit(plan_of_caller), limits.limiter.limit_tokens("50 per day"))
    limits.client("alice").get("/")
    told = peeked(limits, "alice")
    assert list(left(told)) == ["50 tokens per 86400 s"]
    assert isinstance(told, Decision)
    (uncertain,) = told.uncertain
    assert uncertain.text == "requests, depends on the request: the limit is test_peek.plan_of_caller"
    assert uncertain.verdicts == ()


def test_exemption_of_the_caller_is_not_the_subject_s():
    limits = limited()
    route(limits, limits.limiter.limit("5 per day", exempt_when=is_admin), limits.limiter.limit("7 per hour"))
    limits.client("alice").get("/")
    assert left(peeked(limits, key="admin")) == {"7 requests per 3600 s": 7}
    assert left(peeked(limits, key="alice")) == {"5 requests per 86400 s": 4, "7 requests per 3600 s": 6}
    told = peeked(limits, "alice")
    assert left(told) == {"7 requests per 3600 s": 6}
    (uncertain,) = told.uncertain
    assert uncertain.text == "5 requests per 86400 s, unless test_peek.is_admin"
    assert [verdict.remaining for verdict in uncertain.verdicts] == [4]


def test_scope_of_the_caller_is_not_the_subject_s():
    limits = limited()
    route(limits, limits.limiter.limit("5 per day", scope=of_model))
    limits.client("alice").get("/", headers={"X-Model": "large"})
    for model, remaining in (("large", 4), ("small", 5)):
        own = peeked(limits, key="alice", headers={"X-Model": model})
        assert left(own) == {"5 requests per 86400 s": remaining}
    told = peeked(limits, "alice", headers={"X-Model": "large"})
    assert told.verdicts == ()
    assert told.uncertain[0].text == "5 requests per 86400 s, depends on the request: the scope is test_peek.of_model"


def test_subject_is_no_key_of_another_key_function_unless_this_is_named():
    limits = limited()
    route(limits, limits.limiter.limit("5 per day", key_func=organisation), limits.limiter.limit("7 per hour"))
    limits.client("alice").get("/", headers={"X-Org": "acme"})
    told = peeked(limits, "alice")
    assert left(told) == {"7 requests per 3600 s": 6}
    assert told.uncertain[0].text == (
        "5 requests per 86400 s, not known for this subject: it counts by test_peek.organisation"
    )
    told = peeked(limits, "acme", key_func=organisation)
    assert left(told) == {"5 requests per 86400 s": 4}
    assert told.uncertain[0].text.endswith("it counts by flask_ailimit.limits.keys.api_key")
    own = peeked(limits, key="alice", headers={"X-Org": "acme"})
    assert left(own) == {"5 requests per 86400 s": 4, "7 requests per 3600 s": 6}


def test_other_endpoint_is_looked_at_with_its_own_methods():
    limits = limited(default_limits=["60 per day"])
    decorators = [limits.limiter.limit("5 per day", methods=["POST"])]
    route(limits, *decorators, methods=["POST"])
    route(
        limits, limits.limiter.limit("9 per day", per_method=True), path="/both", methods=["GET", "POST"], endpoint="b"
    )
    limits.client("alice").post("/")
    limits.client("alice").post("/both")
    for subject in ((), ("alice",)):
        assert left(peeked(limits, *subject, key="alice")) == {"5 requests per 86400 s": 4}
        both = peeked(limits, *subject, key="alice", endpoint="b")
        assert {verdict.charge.scope: verdict.remaining for verdict in both.verdicts} == {"b:GET": 9, "b:POST": 8}


def test_limits_on_one_method_stand_beside_the_defaults_of_the_others():
    limits = limited(default_limits=["60 per day"])
    route(limits, limits.limiter.limit("5 per day", methods=["POST"]), methods=["GET", "POST"])
    limits.client("alice").post("/")
    expected = {"60 requests per 86400 s": 60, "5 requests per 86400 s": 4}
    assert left(peeked(limits, "alice")) == expected
    with limits.app.test_request_context("/", method="POST", headers={"x-api-key": "alice"}):
        assert left(limits.limiter.peek()) == {"5 requests per 86400 s": 4}


def test_subject_may_be_its_hash():
    limits = limited()
    route(limits, limits.limiter.limit("5 per day"))
    limits.client("alice").get("/")
    with limits.app.app_context():
        subject = limits.limiter.subject("alice")
    assert left(peeked(limits, subject)) == {"5 requests per 86400 s": 4}
    assert peeked(limits, subject) == peeked(limits, "alice")


def test_named_subject_needs_no_request():
    limits = limited(default_limits=["9 per hour"])
    route(limits, limits.limiter.limit("5 per day", per_method=True, override_defaults=False))
    limits.client("alice").get("/")
    with limits.app.app_context():
        told = limits.limiter.peek("answer", "alice")
    assert left(told) == {"9 requests per 3600 s": 8, "5 requests per 86400 s": 4}


@pytest.mark.parametrize("subject", ["", b"", b"alice", bytes(32)])
def test_text_or_bytes_that_name_nobody_are_refused(subject):
    limits = limited()
    route(limits, limits.limiter.limit("5 per day"))
    with pytest.raises(ValueError, match="subject: "):
        peeked(limits, subject)


def test_key_function_without_a_key_is_refused():
    limits = limited()
    with pytest.raises(ValueError, match="key_func: give the subject too"):
        peeked(limits, key_func=organisation)


@pytest.mark.parametrize("subject", [(), ("alice",)])
def test_limit_of_0_is_raised_whoever_asks_and_on_which_method(subject):
    limits = limited()
    route(limits, limits.limiter.limit("0 per day", methods=["POST"]), methods=["POST"])
    with pytest.raises(NotAllowed):
        peeked(limits, *subject)
    assert issubclass(NotAllowed, Forbidden)


def test_limit_of_0_that_may_not_hold_is_uncertain():
    limits = limited()
    route(limits, limits.limiter.limit("0 per day", exempt_when=is_admin), limits.limiter.limit(UNLIMITED))
    told = peeked(limits, "alice")
    assert [each.text for each in told.uncertain] == ["nothing is allowed, unless test_peek.is_admin"]
    assert peeked(limits, key="admin").verdicts == ()
    with pytest.raises(NotAllowed):
        peeked(limits, key="alice")


def test_nothing_of_the_app_is_called_for_a_named_subject():
    limits = limited(lambda: g.never, application_limits=[lambda: g.never], default_token_limits=[lambda: g.never])
    torn_down = []
    limits.app.teardown_request(torn_down.append)
    route(limits, limits.limiter.limit("5 per day", cost=lambda: g.never, deduct_when=lambda _: g.never))
    with limits.app.test_request_context("/usage"):
        told = limits.limiter.peek("answer", "alice")
        assert torn_down == []
    assert left(told) == {"5 requests per 86400 s": 5}
    assert [each.text.split(",")[0] for each in told.uncertain] == ["requests", "tokens"]


def test_peek_asks_the_store_once(monkeypatch):
    limits = limited(application_limits=["99 per day"])
    decorators = [limits.limiter.limit("5 per day"), limits.limiter.limit("7 per day", exempt_when=is_admin)]
    route(limits, *decorators, methods=["GET", "POST"])
    with limits.app.app_context():
        store = limits.limiter.engine.store
    asked = []
    peek = store.peek
    monkeypatch.setattr(store, "peek", lambda charges: asked.append(len(charges)) or peek(charges))
    peeked(limits, "alice")
    assert asked == [3]


def test_peek_raises_if_the_store_is_away(monkeypatch):
    limits = limited(default_limits=["5 per day"])
    route(limits)

    def away(_):
        raise StoreError("away")

    with limits.app.app_context():
        monkeypatch.setattr(limits.limiter.engine.store, "peek", away)
    with pytest.raises(StoreError):
        peeked(limits, "alice")


def test_limits_that_let_pass_while_the_store_is_away_are_left_out(monkeypatch):
    limits = limited(default_limits=["5 per day"], on_store_error="allow")
    route(limits)

    def away(_):
        raise StoreError("away")

    with limits.app.app_context():
        monkeypatch.setattr(limits.limiter.engine.store, "peek", away)
    assert peeked(limits, "alice").verdicts == ()
