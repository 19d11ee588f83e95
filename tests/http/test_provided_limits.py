"""What a limit may be: a count and a period, nothing at all, or no limit; and a callable that answers anything else."""

import itertools
import logging

import flask_limiter
import pytest
from flask import Blueprint, abort, request
from limited_apps import limited

from flask_ailimit import UNLIMITED, AILimiter, ConfigurationError
from flask_ailimit.cli import cli
from flask_ailimit.http.problems import ERROR_FORMATS


def on_view(served, limit):
    served.app.route("/", methods=["GET", "POST"])(limit(dict))


def on_blueprint(served, limit):
    blueprint = Blueprint("some", __name__)
    limit(blueprint)
    blueprint.route("/", methods=["GET", "POST"], endpoint="answer")(dict)
    served.app.register_blueprint(blueprint)


def in_block(served, limit):
    @served.app.route("/", methods=["GET", "POST"])
    def answer():
        with limit:
            return {}


def on_helper(served, limit):
    helper = limit(dict)

    def answer():
        return helper()

    served.app.route("/", methods=["GET", "POST"])(answer)


PLACES = {place.__name__: place for place in (on_view, on_blueprint, in_block, on_helper)}
KINDS = {
    "limit": (lambda limiter, value, **options: limiter.limit(value, **options), "0 per minute", "1 per day"),
    "shared_limit": (lambda limiter, value, **options: limiter.shared_limit(value, "s", **options), "0/hour", "1/day"),
    "limit_tokens": (
        lambda limiter, value, **options: limiter.limit_tokens(value, **options),
        "0 per day",
        "1 per day",
    ),
    "output_tokens": (
        lambda limiter, value, **options: limiter.limit_tokens(value, unit="output_tokens", **options),
        " 00/ second",
        "1 per day",
    ),
    "limit_concurrency": (lambda limiter, value, **options: limiter.limit_concurrency(value, **options), 0, 1),
}
DEFAULTS = ("default_limits", "application_limits", "default_token_limits", "meta_limits")
NO_LIMITS = [
    None,
    "",
    " ",
    "2/sec",
    "-1",
    "-1 per day",
    "5",
    5,
    -1,
    1.5,
    True,
    [],
    {},
    b"1 per day",
    "x" * 999,
]
every_place = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
every_kind = pytest.mark.parametrize("kind", KINDS)
written_and_asked = pytest.mark.parametrize("asked", [False, True], ids=["written", "asked"])


def told(value, asked):
    return (lambda: value) if asked else value


def send(served):
    return served.client().post("/", json={"prompt": "hi", "max_tokens": 1})


@every_place
@every_kind
@written_and_asked
def test_unlimited_is_no_limit(place, kind, asked):
    served = limited()
    place(served, KINDS[kind][0](served.limiter, told(UNLIMITED, asked)))
    assert [send(served).status_code for _ in range(5)] == [200] * 5


@every_place
@every_kind
@written_and_asked
def test_limit_of_zero_allows_nothing(place, kind, asked):
    served = limited()
    place(served, KINDS[kind][0](served.limiter, told(KINDS[kind][1], asked)))
    for _ in range(3):
        response = send(served)
        assert response.status_code == 403
        assert response.json["error"]["code"] == "not_allowed"
        assert response.json["error"]["type"] == "permission_error"
        assert response.headers["x-should-retry"] == "false"
        assert "Retry-After" not in response.headers
        assert response.headers["x-request-id"] == response.json["request_id"]


@every_place
@every_kind
@pytest.mark.parametrize("answer", NO_LIMITS, ids=lambda answer: repr(answer)[:20])
def test_callable_that_answers_no_limit_makes_a_503_that_the_log_explains(place, kind, answer, caplog):
    if kind == "limit_concurrency" and answer == 5 and type(answer) is int:
        pytest.skip("it is one")

    def plan_of_customer():
        return answer

    served = limited()
    place(served, KINDS[kind][0](served.limiter, plan_of_customer))
    with caplog.at_level(logging.ERROR):
        response = send(served)
    assert response.status_code == 503
    assert response.json["error"]["code"] == "limiter_unavailable"
    assert "plan_of_customer" in caplog.text
    assert repr(answer)[:40] in caplog.text
    assert len(caplog.messages[0]) < 800


@every_place
@every_kind
@pytest.mark.parametrize("error", [ValueError, KeyError, ConfigurationError])
def test_callable_that_fails_makes_a_503_and_its_text_is_in_no_log(place, kind, error, caplog):
    def plan_of_customer():
        raise error("sk-secret")

    served = limited()
    place(served, KINDS[kind][0](served.limiter, plan_of_customer))
    assert send(served).status_code == 503
    assert "plan_of_customer" in caplog.text
    assert error.__name__ in caplog.text
    assert "sk-secret" not in caplog.text


@every_place
@every_kind
def test_callable_may_turn_the_client_away(place, kind):
    served = limited()
    place(served, KINDS[kind][0](served.limiter, lambda: abort(401)))
    assert send(served).status_code == 401


@pytest.mark.parametrize("setting", DEFAULTS)
@written_and_asked
def test_defaults_of_the_constructor_are_read_as_the_decorators_are(setting, asked, caplog):
    statuses = []
    for value in [UNLIMITED, "0 per day", *(["2/sec", None] if asked else [])]:
        served = limited(**{setting: [told(value, asked)]})
        served.app.post("/")(dict)
        statuses.append(send(served).status_code)
    assert statuses == [200, 403, *([503, 503] if asked else [])]
    assert ("2/sec" in caplog.text) == asked


@pytest.mark.parametrize("key", ["RATELIMIT_DEFAULT", "RATELIMIT_APPLICATION", "RATELIMIT_META"])
@written_and_asked
def test_defaults_of_the_config_are_read_as_the_decorators_are(key, asked):
    statuses = []
    for value in [UNLIMITED, "0 per day", *(["2/sec", None] if asked else [])]:
        served = limited(config={key: told(value, asked)})
        served.app.post("/")(dict)
        statuses.append(send(served).status_code)
    assert statuses == [200, 403, *([503, 503] if asked else [])]


@pytest.mark.parametrize("answer", ["2/sec", None])
def test_fallback_in_memory_is_read_as_the_decorators_are(answer):
    served = limited(in_memory_fallback=[lambda: answer])
    served.app.post("/")(served.limiter.limit("5 per day")(dict))
    served.limiter._storage_dead = True  # As Flask-Limiter notes it.
    served.limiter.storage.check = lambda: False
    assert send(served).status_code == 503


def test_flask_limiters_own_limit_objects_are_read_as_ours_are():
    served = limited(
        default_limits=[flask_limiter.Limit(lambda: request.args.get("plan"))],
        application_limits=[flask_limiter.ApplicationLimit(lambda: "9 per day")],
    )
    served.app.get("/")(dict)
    raw = flask_limiter.RouteLimit(lambda: request.args.get("own"), limiter=served.limiter, override_defaults=True)

    def own():  # Flask-Limiter's own decorator knows it by its name.
        return {}

    served.app.get("/own")(raw(own))
    client = served.client()
    plans = [
        "/?plan=1/day",
        "/?plan=0/day",
        "/?plan=2/sec",
        "/",
        "/own?own=1/day",
        "/own?own=0/day",
        "/own?own=x",
        "/own",
    ]
    assert [client.get(path).status_code for path in plans] == [200, 403, 503, 503] * 2


def test_meta_limits_of_a_decorator_are_read_as_the_decorators_are():
    for meta, status in [
        ("1 per day", 200),
        (lambda: "2/sec", 503),
        (lambda: None, 503),
        ("0 per day", 403),
        (UNLIMITED, 200),
    ]:
        served = limited()
        served.app.post("/")(served.limiter.limit("1 per day", meta_limits=[meta])(dict))
        assert send(served).status_code == status


def test_one_of_several_limits_that_is_zero_allows_nothing():
    for limit in ["5 per day; 0 per hour", "0/second, 5/day", "5 per day|0 per 2 hours"]:
        for kind in ("limit", "limit_tokens"):
            served = limited()
            on_view(served, KINDS[kind][0](served.limiter, limit))
            assert send(served).status_code == 403


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        ("limit", "default_limits"),
        ("shared_limit", "default_limits"),
        ("limit_tokens", "default_token_limits"),
    ],
)
def test_unlimited_takes_the_place_of_the_defaults_as_any_limit_does(kind, default):
    """A customer without a limit must not fall under the limits of those who have none of their own."""
    served = limited(**{default: ["1 per day"]})
    on_view(served, KINDS[kind][0](served.limiter, lambda: UNLIMITED))
    assert [send(served).status_code for _ in range(3)] == [200, 200, 200]


def test_refusal_of_a_limit_of_zero_charges_nothing():
    served = limited(application_limits=["2 per day"])
    plans = iter(["0 per day", "0 per day", "5 per day", "5 per day", "5 per day"])
    on_view(served, served.limiter.limit(lambda: next(plans)))
    assert [send(served).status_code for _ in range(5)] == [403, 403, 200, 200, 429]


def test_limit_of_zero_is_for_its_methods_and_not_for_the_exempt():
    served = limited()
    on_view(served, served.limiter.limit("0 per day", methods=["post"], exempt_when=lambda: "vip" in request.args))
    client = served.client()
    assert client.post("/").status_code == 403
    assert client.get("/").status_code == client.post("/?vip").status_code == 200


@pytest.mark.parametrize("error_format", ERROR_FORMATS)
def test_not_allowed_is_said_in_every_error_format(error_format):
    served = limited(error_format=error_format)
    on_view(served, served.limiter.limit("0 per day"))
    response = send(served)
    assert response.status_code == 403
    assert "not_allowed" in response.text or error_format == "anthropic"
    assert "permission_error" in response.text or error_format in ("openai", "problem")


def test_what_is_left_of_a_limit_of_zero_is_said_by_the_same_403():
    served = limited()
    on_view(served, served.limiter.limit_concurrency(0))
    lines = served.app.test_cli_runner().invoke(cli, ["limits"]).output.splitlines()
    assert [line.strip() for line in lines[1:]] == ["nothing is allowed"]


def test_no_limit_is_told_as_unlimited():
    served = limited()
    on_view(served, served.limiter.limit(UNLIMITED))
    lines = served.app.test_cli_runner().invoke(cli, ["limits"]).output.splitlines()
    assert [line.strip() for line in lines[1:]] == ["unlimited requests"]


@every_kind
@pytest.mark.parametrize("methods", ["GET", "", [], (), 5, [5], [""], ["GET POST"], {"GET": 1}], ids=repr)
def test_methods_that_are_no_list_are_refused_where_they_are_written(kind, methods):
    limiter = AILimiter(lambda: "k")
    with pytest.raises(ConfigurationError, match="methods: a list"):
        KINDS[kind][0](limiter, KINDS[kind][2], methods=methods)


@pytest.mark.parametrize("methods", [["POST"], ("post",), {"POST"}], ids=repr)
def test_view_that_limits_one_method_leaves_the_default_token_limit_to_the_others(methods):
    served = limited(default_token_limits=["1 per day"])
    on_view(served, served.limiter.limit_tokens("1000 per day", methods=methods))
    assert send(served).status_code == 200
    assert [served.client().get("/?prompt=a+b+c+d+e+f").status_code for _ in range(2)] == [200, 429]


def test_view_that_limits_one_method_leaves_its_blueprints_limit_to_the_others():
    served = limited(default_limits=["3 per day"])
    blueprint = Blueprint("some", __name__)
    served.limiter.limit("2 per day")(blueprint)
    blueprint.route("/", methods=["GET", "POST"], endpoint="answer")(
        served.limiter.limit("9 per day", methods=["POST"])(dict)
    )
    served.app.register_blueprint(blueprint)
    client = served.client()
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]
    assert [client.post("/").status_code for _ in range(3)] == [200, 200, 200]


def test_limit_that_changes_with_the_request_is_counted_by_what_it_was():
    plans = itertools.cycle(["2 per day", UNLIMITED])
    served = limited()
    on_view(served, served.limiter.limit(lambda: next(plans)))
    assert [send(served).status_code for _ in range(7)] == [200] * 4 + [429, 200, 429]
