"""Limits are decided when the app knows who calls, and those by address before anything else."""

import functools

import pytest
from flask import Blueprint, abort, g, request
from limited_apps import limited

from flask_ailimit import UNLIMITED

OK, REFUSED, STRANGER = 200, 429, 401
KEYS = {"alice": "a", "bob": "b"}


def who():
    return g.user


def authenticate():
    g.user = KEYS.get(request.headers.get("Authorization", "").removeprefix("Bearer ")) or abort(STRANGER)


def statuses(served, key, count=4, path="/", **options):
    return [served.client(key).get(path, **options).status_code for _ in range(count)]


def with_authentication(where, **options):
    """An app whose authentication is registered after the limiter, on the app or a blueprint."""
    served = limited(who, **options)
    blueprint = Blueprint("some", __name__)
    (served.app if where == "app" else blueprint).before_request(authenticate)
    return served, blueprint


@pytest.mark.parametrize("where", ["app", "blueprint"])
@pytest.mark.parametrize("kind", ["application_limits", "default_limits", "blueprint", "view", "default_token_limits"])
def test_key_function_may_ask_what_authentication_found_out_whatever_the_order(where, kind):
    options = {kind: ["2 per day"]} if kind.endswith("s") else {}
    served, blueprint = with_authentication(where, **options)
    view = served.limiter.limit("2 per day")(dict) if kind == "view" else lambda: {"usage": {"prompt_tokens": 1}}
    if kind == "blueprint":
        served.limiter.limit("2 per day")(blueprint)
    blueprint.get("/", endpoint="view")(view)
    served.app.register_blueprint(blueprint)
    for key in KEYS:
        assert statuses(served, key) == [OK, OK, REFUSED, REFUSED] or kind == "default_token_limits"
    assert statuses(served, "stranger") == [STRANGER] * 4


def test_stranger_uses_up_nothing_of_anybody():
    served, blueprint = with_authentication("app", application_limits=["2 per day"])
    served.limiter.limit("2 per day")(blueprint)
    blueprint.get("/", endpoint="view")(dict)
    served.app.register_blueprint(blueprint)
    assert statuses(served, "stranger", 9) == [STRANGER] * 9
    assert not served.limiter.engine.store._records


@pytest.mark.parametrize("metas", [0, 1])
@pytest.mark.parametrize("limited_view", [True, False])
def test_limits_of_application_and_view_are_one_decision(limited_view, metas, monkeypatch):
    meta_limits = ["5 per day"] * metas
    served = limited(application_limits=["9 per day"], default_limits=["8 per hour"], meta_limits=meta_limits)
    view = served.limiter.limit("2 per day")(dict) if limited_view else dict
    served.app.add_url_rule("/", "view", view)
    engine, asked = served.limiter.engine, []
    reserve = engine.reserve
    monkeypatch.setattr(engine, "reserve", lambda charges: asked.append(len(charges)) or reserve(charges))
    statuses(served, "alice", 2)
    assert asked == [2 + metas] * 2


def test_request_that_its_view_refuses_uses_up_nothing_of_the_application():
    served = limited(application_limits=["3 per day"])
    served.app.add_url_rule("/", "view", served.limiter.limit("1 per day")(dict))
    served.app.add_url_rule("/other", "other", dict)
    assert statuses(served, "alice", 3) == [OK, REFUSED, REFUSED]
    assert statuses(served, "alice", 3, "/other") == [OK, OK, REFUSED]


def test_view_that_turns_away_above_its_limit_charges_nothing():
    served = limited(application_limits=["1 per day"])

    def login_required(view):
        @functools.wraps(view)
        def inner():
            return view() if "in" in request.args else ("who?", STRANGER)

        return inner

    served.app.add_url_rule("/", "view", login_required(served.limiter.limit("1 per day")(dict)))
    assert statuses(served, "alice", 3) == [STRANGER] * 3
    assert statuses(served, "alice", 2, "/?in") == [OK, REFUSED]


def test_limits_by_address_come_first_of_all():
    served = limited(who, address_limits=["3 per day"], meta_limits=["9 per day"])
    asked = []
    served.app.before_request(lambda: asked.append(1))
    served.app.before_request(authenticate)
    served.app.get("/")(served.limiter.limit("9 per day")(dict))
    assert statuses(served, "guess", 5) == [STRANGER] * 3 + [REFUSED] * 2
    assert len(asked) == 3
    assert statuses(served, "alice", 1) == [REFUSED]
    assert served.client("alice", REMOTE_ADDR="198.51.100.7").get("/").status_code == OK


def test_limits_by_address_count_what_is_not_found_and_no_preflight():
    served = limited(address_limits=["2 per day"])
    served.app.get("/")(dict)
    client = served.client()
    assert [client.options("/").status_code for _ in range(3)] == [OK] * 3
    assert [client.get("/nowhere").status_code for _ in range(3)] == [404, 404, REFUSED]


def test_refusal_by_address_is_told_as_any_other():
    served = limited(address_limits=["1 per day"])
    served.app.get("/")(served.limiter.limit("9 per day")(dict))
    first, second = served.client().get("/"), served.client().get("/")
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert second.json["error"]["code"] == "rate_limit_exceeded"
    assert second.headers["Retry-After"]


@pytest.mark.parametrize(
    ("limit", "expected"), [("0 per day", 403), (UNLIMITED, OK), (lambda: None, 503), (lambda: "1 per day", OK)]
)
def test_limits_by_address_are_read_as_all_others(limit, expected):
    served = limited(address_limits=[limit])
    served.app.get("/")(dict)
    assert served.client().get("/").status_code == expected


@pytest.mark.parametrize("error", [KeyError, AttributeError, RuntimeError, ValueError])
def test_key_function_that_fails_is_a_503_and_the_log_says_where(error, caplog):
    def failing():
        raise error("sk-secret")

    served = limited(failing)
    served.app.get("/")(served.limiter.limit("2 per day")(dict))
    response = served.client().get("/")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert error.__name__ in caplog.text
    assert "test_when_it_is_decided.py:" in caplog.text
    assert "sk-secret" not in caplog.text


def test_key_function_that_turns_away_has_answered():
    served = limited(lambda: abort(418), application_limits=["1 per day"])
    served.app.get("/")(dict)
    assert statuses(served, "alice") == [418] * 4


def test_two_limiters_decide_both_after_authentication():
    served, blueprint = with_authentication("app", application_limits=["3 per day"])
    other = type(served.limiter)(who, application_limits=["2 per day"], storage_uri="memory://")
    other.init_app(served.app)
    blueprint.get("/", endpoint="view")(dict)
    served.app.register_blueprint(blueprint)
    assert statuses(served, "alice") == [OK, OK, REFUSED, REFUSED]
