"""``flask ailimit``: in the process, and as a person types it."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from socket import socket

import click
import pytest
from flask import Blueprint, Flask, abort, g, request
from flask_limiter import ExemptionScope, Limiter
from limited_apps import limited, route

from flask_ailimit import UNLIMITED, AILimiter, TokenLimit, api_key, remote_address, usage_settled
from flask_ailimit.cli import cli
from flask_ailimit.engine import StoreError
from flask_ailimit.limits.in_words import name_of

ROOT = Path(__file__).parents[2]


UNUSED = "Nothing of this is used. SUBJECT is what flask_ailimit.limits.keys.api_key returns."


@pytest.fixture
def limits(made):
    options = {"default_limits": ["60 per minute"], "default_token_limits": ["900 per hour"], "headers": ["openai"]}
    limits = made(default_output_tokens=50, **options)
    blueprint = Blueprint("v1", __name__, url_prefix="/v1")

    @blueprint.post("/chat")
    @limits.limiter.limit("20 per minute")
    @limits.limiter.limit_tokens("100 per minute", burst=200)
    @limits.limiter.limit_concurrency(4)
    def chat():
        limits.limiter.record_usage(output_tokens=50)
        return {}

    limits.app.register_blueprint(blueprint)

    @limits.app.get("/plain")
    def plain():
        return {}

    @limits.app.get("/free")
    @limits.limiter.exempt
    def free():
        return {}

    return limits


def run_on(limits, *arguments, given=None):
    ran = limits.app.test_cli_runner().invoke(cli, arguments, input=given)
    assert ran.exception is None, ran.output
    return ran.output.splitlines()


def failure_of(app, *arguments, given=None):
    """The one line that a command says when it fails."""
    ran = app.test_cli_runner().invoke(cli, arguments, input=given)
    assert ran.exit_code in (1, 2)
    (line,) = ran.output.splitlines()
    return line


@pytest.fixture
def run(limits):
    return partial(run_on, limits)


def test_config_tells_settings_and_store(run, tmp_path):
    told = run("config")
    assert "default_token_limits: ['900 per hour']" in told
    assert "headers: ['openai']" in told
    assert "too_large_status: 413" in told
    assert "key_func: flask_ailimit.limits.keys.api_key" in told
    assert "strategy: fixed-window" in told
    assert "store: LocalStore" in told
    assert f"where: {tmp_path / 'limits'}" in told
    assert "secret: None" in told


def test_config_says_that_memory_is_each_process_s_own_and_names_functions():
    limits = limited(default_token_limits=[plan_of_nobody], secret="0123456789abcdef")
    told = run_on(limits, "config")
    assert "store: MemoryStore" in told
    assert "where: in the memory of each process of the app; this one has its own" in told
    assert "default_token_limits: [test_cli.plan_of_nobody]" in told
    assert "secret: (set)" in told
    assert "0123456789abcdef" not in "".join(told)


def test_limits_tells_every_route_with_its_methods(run):
    assert run("limits") == [
        "GET /free  (free)",
        "    no limit",
        "GET /plain  (plain)",
        "    60 requests per 60 s  (fixed-window)",
        "    900 tokens per 3600 s  (token-bucket)",
        "POST /v1/chat  (v1.chat)",
        "    4 in flight  (concurrency)",
        "    100 tokens per 60 s  (token-bucket), up to 200 at once",
        "    20 requests per 60 s  (fixed-window)",
    ]


def test_limits_works_where_the_counts_are_in_memory():
    limits = limited(default_limits=["10 per day"])
    route(limits)
    assert run_on(limits, "limits") == ["GET /  (answer)", "    10 requests per 86400 s  (fixed-window)"]


def test_usage_tells_what_a_subject_has_left_and_reset_forgets_it(limits, run):
    chat = slice(5, 9)
    for _ in range(2):
        limits.client("alice").post("/v1/chat", json={})
    limits.client("bob").post("/v1/chat", json={})
    assert run("usage", "alice")[chat] == [
        "POST /v1/chat  (v1.chat)",
        "    concurrency: 4 of 4 left, full again in 0.0 s",
        "    tokens-per-minute: 100 of 200 left, full again in 60.0 s, up to 200 at once",
        "    requests-per-minute: 18 of 20 left, full again in 60.0 s",
    ]
    assert "    tokens-per-minute: 150 of 200 left, full again in 30.0 s, up to 200 at once" in run("usage", "bob")
    assert run("reset", "alice") == ["2 counts are forgotten."]
    assert "    tokens-per-minute: 200 of 200 left, full again in 0.0 s, up to 200 at once" in run("usage", "alice")
    assert "    tokens-per-minute: 150 of 200 left, full again in 30.0 s, up to 200 at once" in run("usage", "bob")
    assert limits.client("alice").post("/v1/chat", json={}).status_code == 200


def test_reset_says_when_nothing_was_counted(limits, run):
    assert run("reset", "alice") == ["Nothing was counted for this subject."]
    limits.client("alice").get("/plain")
    limits.clock.advance(7200)
    assert run("reset", "alice") == ["Nothing was counted for this subject."]
    limits.client("alice").post("/v1/chat", json={})
    limits.clock.advance(60)
    limits.client("alice").get("/plain")
    limits.clock.advance(59)
    assert run("reset", "alice") == ["1 count is forgotten."]


def test_reset_forgets_counts_in_scopes_that_only_requests_name(made):
    limits = made()
    route(limits, limits.limiter.limit("9 per day", scope=lambda _: request.headers["X-Model"]))
    for model in ("large", "small"):
        assert limits.client("alice").get("/", headers={"X-Model": model}).status_code == 200
    assert run_on(limits, "reset", "alice") == ["2 counts are forgotten."]


def test_reset_says_when_the_store_does_not_tell_how_much(limits, run, monkeypatch):
    with limits.app.app_context():
        store = limits.limiter.engine.store
    limits.client("alice").get("/plain")
    monkeypatch.setattr(type(store), "reset", lambda *_: None)
    assert run("reset", "alice") == [
        "Every count of this subject is forgotten. The store does not say how many there were."
    ]


def test_forgive_lifts_debts_and_tells_which(limits, run):
    limits.client("bob").post("/v1/chat", json={})
    owe(limits, "alice", "v1.chat")
    assert limits.client("alice").post("/v1/chat", json={}).status_code == 429
    assert run("usage", "alice")[7] == (
        "    tokens-per-minute: 0 of 200 left, full again in 300.0 s, up to 200 at once"
    )
    assert run("forgive", "alice") == ["POST /v1/chat  (v1.chat)", "    tokens-per-minute: debt lifted"]
    assert run("forgive", "alice") == ["Nothing is owed."]
    assert "    tokens-per-minute: 200 of 200 left, full again in 0.0 s, up to 200 at once" in run("usage", "alice")
    assert "    tokens-per-minute: 150 of 200 left, full again in 30.0 s, up to 200 at once" in run("usage", "bob")
    assert limits.client("alice").post("/v1/chat", json={}).status_code == 200


def owe(limits, key, endpoint):
    """Let the key owe 300 tokens and more of the endpoint's limit."""
    with limits.app.test_request_context():
        verdicts = limits.limiter.peek(endpoint, key).verdicts
        (count,) = [verdict.charge._replace(dry=False) for verdict in verdicts if verdict.quota.unit == "tokens"]
        limits.limiter.engine.reserve([count.costing(0)]).settle({"tokens": 500})


def test_looking_takes_nothing(limits, run):
    for _ in range(3):
        run("usage", "alice")
        run("limits")
    assert set(limits.used("alice", "v1.chat").values()) == {0}


def test_subject_is_found_under_a_key_prefix(made):
    limits = made(key_prefix="shop", default_limits=["10 per day"])
    route(limits)
    limits.client("alice").get("/")
    assert "9 of 10 left" in run_on(limits, "usage", "alice")[1]
    assert run_on(limits, "reset", "alice") == ["1 count is forgotten."]
    assert "10 of 10 left" in run_on(limits, "usage", "alice")[1]


def plan_of_nobody():
    return {"alice": "10 per day"}[api_key()]


def plan_of_a_member():
    abort(401)


def plan_of_all():
    return "5 per day"


def is_staff():
    return bool(g.staff)


def organisation():
    return request.headers.get("X-Org", "")


def of_model(endpoint):
    return f"{endpoint} {request.headers.get('X-Model')}"


def failed(response):
    return response.status_code >= 400


@pytest.mark.parametrize("plan", [plan_of_nobody, plan_of_a_member, plan_of_all])
def test_callable_limit_is_named_and_hides_no_other_limit(made, plan):
    limits = made(default_limits=["10 per day"])
    route(limits, limits.limiter.limit_tokens(plan), limits.limiter.limit_concurrency(2), endpoint="member")
    reason = f"depends on the request: the limit is test_cli.{plan.__name__}"
    assert run_on(limits, "limits") == [
        "GET /  (member)",
        "    10 requests per 86400 s  (fixed-window)",
        "    2 in flight  (concurrency)",
        f"    tokens, {reason}",
    ]
    assert run_on(limits, "usage", "alice") == [
        "GET /  (member)",
        "    requests-per-day: 10 of 10 left, full again in 0.0 s",
        "    concurrency: 2 of 2 left, full again in 0.0 s",
        f"    tokens: {reason}",
        UNUSED,
    ]
    assert run_on(limits, "forgive", "alice") == [
        "GET /  (member)",
        f"    tokens: not looked at, {reason}",
        "Nothing is owed, as far as could be looked at.",
    ]


def test_no_function_of_the_app_is_asked_about_a_subject(made):
    def never():
        raise AssertionError("it was asked")

    def never_of(_):
        never()

    limits = made(never, default_limits=[never], address_limits=[never])
    limits.limiter.request_filter(never)
    for place, decorator in enumerate(
        [
            limits.limiter.limit(never),
            limits.limiter.limit_concurrency(never),
            limits.limiter.limit("1 per day", exempt_when=never),
            limits.limiter.limit("1 per day", key_func=never, cost=never),
            limits.limiter.limit("1 per day", scope=never_of, deduct_when=never_of),
            limits.limiter.limit("1 per day", meta_limits=[never]),
        ]
    ):
        route(limits, decorator, path=f"/{place}", endpoint=f"e{place}")
    for command in (["limits"], ["usage", "alice"], ["forgive", "alice"], ["reset", "alice"]):
        assert run_on(limits, *command)
    with limits.app.test_request_context():
        for place in range(6):
            limits.limiter.peek(f"e{place}", "alice")


@pytest.mark.parametrize(
    ("decorator", "line", "left"),
    [
        (
            lambda limiter: limiter.limit("5 per minute", exempt_when=is_staff),
            "5 requests per 60 s  (fixed-window), unless test_cli.is_staff",
            "requests-per-minute: 5 of 5 left, full again in 0.0 s, unless test_cli.is_staff",
        ),
        (
            lambda limiter: limiter.limit("5 per minute", scope=of_model),
            "5 requests per 60 s, depends on the request: the scope is test_cli.of_model",
            "5 requests per 60 s: depends on the request: the scope is test_cli.of_model",
        ),
        (
            lambda limiter: limiter.limit_tokens("5 per minute", key_func=organisation),
            "5 tokens per 60 s  (token-bucket), by test_cli.organisation",
            "5 tokens per 60 s: not known for this subject: it counts by test_cli.organisation",
        ),
        (
            lambda limiter: limiter.limit("5 per minute", methods=["POST"]),
            "5 requests per 60 s  (fixed-window), only POST",
            "requests-per-minute: 5 of 5 left, full again in 0.0 s, only POST",
        ),
        (
            lambda limiter: limiter.limit("5 per minute", deduct_when=failed),
            "5 requests per 60 s  (fixed-window), counted only if test_cli.failed says so",
            "requests-per-minute: 5 of 5 left, full again in 0.0 s, counted only if test_cli.failed says so",
        ),
        (
            lambda limiter: limiter.limit("5 per minute", key_func=api_key),
            "5 requests per 60 s  (fixed-window)",
            "requests-per-minute: 5 of 5 left, full again in 0.0 s",
        ),
        (lambda limiter: limiter.limit("0 per minute"), "nothing is allowed", "nothing is allowed"),
        (lambda limiter: limiter.limit_concurrency(0), "nothing is allowed", "nothing is allowed"),
        (
            lambda limiter: limiter.limit("0 per minute", exempt_when=is_staff),
            "nothing is allowed, unless test_cli.is_staff",
            "nothing is allowed, unless test_cli.is_staff",
        ),
        (lambda limiter: limiter.limit(UNLIMITED), "unlimited requests", "unlimited requests"),
        (
            lambda limiter: limiter.limit_tokens(UNLIMITED, unit="input_tokens"),
            "unlimited input tokens",
            "unlimited input tokens",
        ),
        (
            lambda limiter: limiter.limit_concurrency(lambda: 3),
            "concurrency, depends on the request: the limit is test_cli.<lambda>.<locals>.<lambda> (line {})",
            "concurrency: depends on the request: the limit is test_cli.<lambda>.<locals>.<lambda> (line {})",
        ),
    ],
)
def test_limit_is_shown_beside_another_with_what_it_depends_on(made, decorator, line, left):
    limits = made()
    route(limits, limits.limiter.limit("7 per day"), decorator(limits.limiter), methods=["GET", "POST"])
    places = str(decorator.__code__.co_firstlineno)
    assert f"    {line}".replace("{}", places) in run_on(limits, "limits")
    told = run_on(limits, "usage", "alice")
    assert f"    {left}".replace("{}", places) in told
    assert "    requests-per-day: 7 of 7 left, full again in 0.0 s" in told


def test_limit_per_method_has_a_count_for_each_method(made):
    limits = made()
    route(limits, limits.limiter.limit("5 per day", per_method=True), methods=["GET", "POST"])
    for method in ("POST", "GET", "HEAD"):
        limits.client("alice").open("/", method=method)
    assert run_on(limits, "limits")[1:] == ["    5 requests per 86400 s  (fixed-window), each method by itself"]
    assert [line.partition(",")[0] for line in run_on(limits, "usage", "alice")[1:]] == [
        "    requests-per-day (GET): 3 of 5 left",
        "    requests-per-day (POST): 4 of 5 left",
    ]


def test_defaults_hold_on_the_methods_that_a_limit_leaves_out(made):
    limits = made(default_limits=["60 per day"], default_token_limits=["900 per day"])
    decorators = [limits.limiter.limit("5 per day", methods=["POST"])]
    decorators += [limits.limiter.limit_tokens("80 per day", methods=["POST"])]
    route(limits, *decorators, methods=["GET", "POST"])
    assert sorted(run_on(limits, "limits")[1:]) == [
        "    5 requests per 86400 s  (fixed-window), only POST",
        "    60 requests per 86400 s  (fixed-window), only GET",
        "    80 tokens per 86400 s  (token-bucket), only POST",
        "    900 tokens per 86400 s  (token-bucket), only GET",
    ]


def test_limits_that_count_together_name_their_count(made):
    limits = made(application_limits=["99 per day"])
    for name in ("a", "b"):
        route(limits, limits.limiter.shared_limit("7 per day", scope="plan"), path=f"/{name}", endpoint=name)
    limits.client("alice").get("/a")
    assert run_on(limits, "limits") == [
        line
        for name in ("a", "b")
        for line in (
            f"GET /{name}  ({name})",
            "    99 requests per 86400 s  (fixed-window), shared count 'global'",
            "    7 requests per 86400 s  (fixed-window), shared count 'plan'",
        )
    ]
    told = run_on(limits, "usage", "alice")
    assert [line for line in told if "6 of 7 left" in line] == [told[2], told[5]]
    assert told[2].endswith("shared count 'plan'")


def test_limits_of_all_routes_and_of_one_s_own_units_are_shown_with_their_names(made):
    limits = made(
        default_output_tokens=0,
        application_token_limits=["100 per day", TokenLimit(plan_of_all, key_func=organisation, name="plan")],
        application_concurrency=4,
    )
    route(limits, limits.limiter.limit_units("pages", "100 per day", name="scans"))
    reason = "depends on the request: the limit is test_cli.plan_of_all"
    everywhere = "shared count 'global'"
    assert sorted(run_on(limits, "limits")) == [
        "    100 pages per 86400 s  (token-bucket), named 'scans'",
        f"    100 tokens per 86400 s  (token-bucket), {everywhere}",
        f"    4 in flight  (concurrency), {everywhere}",
        f"    tokens, named 'plan', {everywhere}, by test_cli.organisation, {reason}",
        "GET /  (answer)",
    ]
    assert sorted(run_on(limits, "usage", "alice")) == [
        f"    concurrency: 4 of 4 left, full again in 0.0 s, {everywhere}",
        "    scans: 100 of 100 left, full again in 0.0 s",
        f"    tokens-per-day: 100 of 100 left, full again in 0.0 s, {everywhere}",
        f"    tokens: {reason}, named 'plan', {everywhere}",
        "GET /  (answer)",
        UNUSED,
    ]


def test_limits_of_blueprints_addresses_refusals_filters_and_functions_are_shown(made):
    limits = made(address_limits=["600 per day"], meta_limits=["3 per day"])
    blueprint = Blueprint("v1", __name__, url_prefix="/v1")
    limits.limiter.limit("40 per day")(blueprint)
    blueprint.get("/chat", endpoint="chat")(dict)
    limits.app.register_blueprint(blueprint)
    limits.limiter.request_filter(is_staff)

    @limits.limiter.limit("2 per day")
    def helper():
        pass

    assert run_on(limits, "limits") == [
        "No limit holds for a request for which test_cli.is_staff returns True.",
        "every route, before all other limits",
        "    600 requests per 86400 s  (fixed-window), named 'address', shared count 'address', by "
        + name_of(remote_address),
        "GET /v1/chat  (v1.chat)",
        "    40 requests per 86400 s  (fixed-window)",
        "    3 requests per 86400 s  (fixed-window), shared count 'meta', counts refusals",
        f"{helper_name(helper)}, if a view calls it",
        "    2 requests per 86400 s  (fixed-window)",
    ]


def helper_name(function):
    return f"{function.__module__}.{function.__name__}.{function.__qualname__}"


def test_route_with_several_rules_is_shown_once_with_all_of_them(made):
    limits = made(default_limits=["5 per day"])
    limits.app.get("/a", endpoint="answer")(dict)
    limits.app.post("/b", endpoint="answer")(dict)
    assert run_on(limits, "limits") == [
        "GET /a  (answer)",
        "POST /b  (answer)",
        "    5 requests per 86400 s  (fixed-window)",
    ]


def test_exempt_route_keeps_the_limits_from_which_it_is_not_exempt(made):
    limits = made(default_limits=["5 per day"], application_limits=["9 per day"])
    route(limits, limits.limiter.exempt(flags=ExemptionScope.DEFAULT))
    assert run_on(limits, "limits")[1:] == ["    9 requests per 86400 s  (fixed-window), shared count 'global'"]


def test_counts_that_a_function_of_the_app_names_are_said_to_depend_on_it(made):
    limits = made(
        request_identifier=lambda: request.path, application_limits=["9 per day"], default_limits=["5 per day"]
    )
    route(limits)
    ours, theirs, unused = run_on(limits, "usage", "alice")[1:]
    assert unused == UNUSED
    assert ours == "    requests-per-day: 9 of 9 left, full again in 0.0 s, shared count 'global'"
    assert re.fullmatch(
        r"    5 requests per 86400 s: depends on the request: the name of the count is test_cli.*", theirs
    )


def test_key_of_another_key_function_can_be_named(made):
    limits = made(address_limits=["600 per day"], default_limits=["5 per day"])
    route(limits, limits.limiter.limit("50 per day", key_func=organisation, override_defaults=False))
    limits.client("alice").get("/", headers={"X-Org": "acme"})
    by_organisation = run_on(limits, "usage", "acme", "--by", "organisation")
    assert "    requests-per-day: 49 of 50 left, full again in 86400.0 s" in by_organisation
    assert "    5 requests per 86400 s: not known for this subject: it counts by flask_ailimit.limits.keys.api_key" in (
        by_organisation
    )
    by_address = run_on(limits, "usage", "192.0.2.1", "--by", name_of(remote_address))
    assert "address: 599 of 600 left" in by_address[1]
    assert "    requests-per-day: 4 of 5 left, full again in 86400.0 s" in run_on(limits, "usage", "alice")
    assert failure_of(limits.app, "usage", "acme", "--by", "nobody") == (
        "Error: --by: no limit counts by a function of this name. Use one of: "
        "flask_ailimit.limits.keys.api_key, flask_ailimit.limits.keys.remote_address, test_cli.organisation."
    )


def test_subject_is_named_by_its_hash_as_events_have_it(limits, run):
    told = []

    def bill(_, *, subject, **_facts):
        told.append(subject)

    with usage_settled.connected_to(bill):
        limits.client("alice").post("/v1/chat", json={})
    with limits.app.app_context():
        assert told == [limits.limiter.subject("alice").hex()]
    by_hash = run("usage", "--hash", told[0])
    assert by_hash == run("usage", "alice") == run("usage", told[0].upper(), "--hash")
    assert by_hash == run("usage", "--hash", "-", given=f"{told[0]}\n")
    assert "19 of 20 left" in "".join(by_hash)
    owe(limits, "alice", "v1.chat")
    assert run("forgive", "--hash", told[0])[1:] == ["    tokens-per-minute: debt lifted"]
    assert run("reset", "--hash", told[0]) == ["1 count is forgotten."]
    assert run("reset", told[0]) == ["Nothing was counted for this subject."]


@pytest.mark.parametrize("command", ["usage", "reset", "forgive"])
def test_text_that_is_no_hash_is_refused_and_not_repeated(limits, command):
    assert failure_of(limits.app, command, "--hash", "sk-secret-of-alice") == (
        "Error: --hash: 32 hex digits are needed, such as limiter.subject(key).hex() returns. "
        "Got 18 characters, not all of them hex digits."
    )
    assert failure_of(limits.app, command, "--hash", "ab" * 8).endswith("Got 16 characters.")


def test_key_is_read_from_the_standard_input(limits, run):
    limits.client("alice").get("/plain")
    for given in ("alice\n", "alice", "alice\r\n"):
        assert run("usage", "-", given=given) == run("usage", "alice")
    assert run("reset", "-", given="alice\n") == ["1 count is forgotten."]
    assert failure_of(limits.app, "reset", "-", given="") == (
        "Error: SUBJECT is empty. Requests without a key are counted by their addresses."
    )
    assert failure_of(limits.app, "reset", "-", given="alice\nbob\n") == (
        "Error: SUBJECT is -, so one line is read from the standard input. Got 2 lines."
    )


@pytest.mark.parametrize("command", ["usage", "reset", "forgive"])
def test_counts_in_memory_are_said_to_be_out_of_reach(command):
    in_memory = limited(default_limits=["10 per day"])
    said = failure_of(in_memory.app, command, "alice")
    assert said == (
        "Error: The counts are in the memory of each process of the app, because storage_uri is memory://. This "
        "command is a process of its own, and its store is empty. Use local:// or a Redis, or call limiter.peek() and "
        "limiter.engine.reset() inside the app."
    )
    in_tests = Flask("in_tests")
    in_tests.testing = True
    AILimiter(api_key, app=in_tests)
    assert "because the app is TESTING and names no store" in failure_of(in_tests, command, "alice")


@pytest.mark.parametrize("command", [["config"], ["limits"], ["usage", "a"], ["reset", "a"], ["forgive", "a"]])
def test_app_without_a_limiter_is_told_what_to_do(command):
    for app in (Flask("x"), Limiter(api_key, app=Flask("y"), storage_uri="memory://").app or Flask("z")):
        assert failure_of(app, *command) == (
            "Error: This app has no AILimiter. Call limiter.init_app(app) in its factory."
        )
    switched_off = Flask("off")
    switched_off.config["RATELIMIT_ENABLED"] = False
    AILimiter(api_key, app=switched_off)
    assert failure_of(switched_off, *command) == (
        "Error: Limits are switched off in this app (RATELIMIT_ENABLED), so nothing is counted."
    )


def test_limits_says_that_limits_are_switched_off(limits, run):
    limits.app.config["RATELIMIT_ENABLED"] = False
    assert run("limits")[0] == "Limits are switched off (RATELIMIT_ENABLED): no request is limited."


@pytest.mark.parametrize("command", ["usage", "reset", "forgive"])
def test_store_that_is_away_is_one_line(limits, command, monkeypatch):
    def away(*_):
        raise StoreError("the disk is full:\nno space left")

    with limits.app.app_context():
        store = type(limits.limiter.engine.store)
    monkeypatch.setattr(store, "alone", away)
    assert failure_of(limits.app, command, "alice") == "Error: the disk is full: no space left"


def test_several_limiters_are_all_looked_at_or_the_one_that_is_chosen(made, tmp_path):
    limits = made(default_limits=["5 per day"])
    second = AILimiter(
        organisation, storage_uri=f"local://{tmp_path / 'second'}", application_limits=["9 per day"], clock=limits.clock
    )
    second.init_app(limits.app)
    second.init_app(limits.app)
    route(limits)
    limits.client("alice").get("/", headers={"X-Org": "alice"})
    ours = ["GET /  (answer)", "    requests-per-day: 4 of 5 left, full again in 86400.0 s"]
    theirs = ["GET /  (answer)", "    requests-per-day: 8 of 9 left, full again in 86400.0 s, shared count 'global'"]
    first_line = "Limiter 1 of 2, by flask_ailimit.limits.keys.api_key:"
    second_line = "Limiter 2 of 2, by test_cli.organisation:"
    assert run_on(limits, "usage", "alice") == [first_line, *ours, second_line, *theirs]
    assert run_on(limits, "usage", "alice", "--limiter", "2") == [second_line, *theirs]
    assert run_on(limits, "reset", "--limiter", "1", "alice") == [first_line, "1 count is forgotten."]
    assert run_on(limits, "reset", "alice") == [
        first_line,
        "Nothing was counted for this subject.",
        second_line,
        "1 count is forgotten.",
    ]
    assert [line for line in run_on(limits, "config") if line.startswith("where:")] == [
        f"where: {tmp_path / 'limits'}",
        f"where: {tmp_path / 'second'}",
    ]
    with limits.app.app_context():
        second.engine.close()
    assert failure_of(limits.app, "limits", "--limiter", "3") == "Error: --limiter: this app has 2. Got 3."


def test_every_command_and_every_option_of_it_is_explained():
    for name, command in cli.commands.items():
        assert re.match(r"[A-Z].*\.$", command.get_short_help_str(200)), name
        assert all(option.help for option in command.params if isinstance(option, click.Option)), name


def test_mistyped_command_is_one_line(limits):
    assert failure_of(limits.app, "used").endswith("See: flask ailimit --help")
    assert failure_of(limits.app, "usage") == "Error: Missing argument 'SUBJECT'."
    for typed in (["alice", "bob"], ["--alice"], ["alice", "--limiter", "0"], ["alice", "--limiter", "bob"]):
        assert failure_of(limits.app, "usage", *typed) == (
            "Error: The command can't be read. It is not repeated here, because there may be a key in it. "
            "See: flask ailimit usage --help"
        )


APP = """
import os
from flask import Flask
from flask_ailimit import AILimiter, api_key

app = Flask(__name__)
limiter = AILimiter(
    api_key,
    app=app,
    storage_uri=os.environ.get("STORE", "local://{limits}"),
    secret="a secret of sixteen bytes or more",
    default_token_limits=["900 per hour"],
)

@app.get("/")
@limiter.limit_tokens("100 per day", estimate=lambda request: 40)
def answer():
    limiter.record_usage(output_tokens=40)
    return "fine"

@app.cli.command("ask")
def ask():
    print(app.test_client().get("/", headers={{"x-api-key": "alice"}}).text)
"""


@pytest.fixture
def flask(tmp_path):
    """Run ``flask`` on an app of its own, in a process of its own each time."""
    (tmp_path / "shop.py").write_text(APP.format(limits=tmp_path / "limits"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLASK_")}

    def flask(*arguments, given=None, **more):
        command = [sys.executable, "-m", "flask", "--app", "shop", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": f"{tmp_path}:{ROOT}"} | more,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return flask


def test_flask_finds_the_command_and_it_sees_what_other_processes_counted(flask):
    help_text = flask("ailimit", "--help")
    assert "Look at limits and usage, and correct counts." in help_text.stdout, help_text.stderr
    assert flask("ask").stdout == "fine\n"
    usage = flask("ailimit", "usage", "alice")
    left = re.search(r"tokens-per-day: (\d+) of 100 left", usage.stdout)
    assert left, usage.stderr
    assert 60 <= int(left[1]) < 100  # Time has passed since.
    assert flask("ailimit", "reset", "alice").stdout == "1 count is forgotten.\n"
    assert flask("ailimit", "reset", "alice").stdout == "Nothing was counted for this subject.\n"
    assert "tokens-per-day: 100 of 100 left" in flask("ailimit", "usage", "alice").stdout


def test_key_that_is_piped_is_found(flask):
    flask("ask")
    assert "100 of 100 left" not in flask("ailimit", "usage", "-", given="alice\n").stdout
    assert flask("ailimit", "reset", "-", given="alice\n").stdout == "1 count is forgotten.\n"


def test_store_that_cannot_be_opened_is_one_line_without_a_traceback(flask, tmp_path):
    (tmp_path / "file").write_text("")
    for command in (["config"], ["limits"], ["usage", "alice"], ["reset", "alice"], ["forgive", "alice"]):
        ran = flask("ailimit", *command, STORE=f"local://{tmp_path}/file/limits")
        assert ran.returncode == 1
        assert ran.stdout == ""
        (line,) = ran.stderr.splitlines()
        assert line.startswith("Error: ")
        assert f"{tmp_path}/file is not a directory" in line


def test_redis_that_is_away_ends_in_one_line_and_is_named_without_its_password(flask):
    pytest.importorskip("redis")
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"redis://user:hidden@127.0.0.1:{taken.getsockname()[1]}/0"
        for command in (["usage", "alice"], ["reset", "alice"], ["forgive", "alice"]):
            ran = flask("ailimit", *command, STORE=uri)
            assert ran.returncode == 1
            assert ran.stderr.splitlines()[-1].startswith("Error: redis 127.0.0.1:")
            assert "Traceback" not in ran.stderr
        config = flask("ailimit", "config", STORE=uri).stdout
    where = uri.replace("user:hidden@", "")
    assert f"store: RedisStore\nwhere: {where} (keys begin with ailimit:)\n" in config
    assert "hidden" not in config + ran.stderr


def test_flask_limiter_s_own_commands_work_on_our_limiter(flask):
    pytest.importorskip("rich", reason="flask limiter needs flask-limiter[cli]")
    assert "100 tokens per 86400 s" in flask("limiter", "limits").stdout


def test_subject_of_which_nothing_is_used_may_be_a_wrong_one(made):
    """A key in place of a name looks like a new customer otherwise."""
    limits = made(default_limits=["10 per day"])
    route(limits)
    assert run_on(limits, "usage", "alice")[-1] == UNUSED
    limits.client("alice").get("/")
    assert UNUSED not in run_on(limits, "usage", "alice")


def test_limit_that_clients_are_not_told_of_is_marked(made):
    limits = made(default_limits=["10 per day"])
    route(limits, limits.limiter.limit_tokens("9 per day", in_headers=False, override_defaults=False))
    assert "    9 tokens per 86400 s  (token-bucket), clients are not told" in run_on(limits, "limits")
