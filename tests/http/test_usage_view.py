"""``limiter.usage`` and its view: what the caller has used and has left of its own limits, and where each was set."""

import re
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from random import Random

import pytest
from flask import Blueprint, Flask, abort, g, jsonify, request
from limited_apps import ADDRESS, commandable, limited
from test_plans import another, answer, code_of, named_in_query, planned, post
from test_plans_against_rules import MODELS, Rules, kept_of, limits_in, number_in, some_payers, some_plans

from flask_ailimit import UNLIMITED, AILimiter, Caller, LimitSource, Payer, RequestsLimit, StoreError, api_key
from flask_ailimit.cli import cli
from flask_ailimit.testing import ManualClock

PLANS = {
    "plans": {
        "pro": {
            "requests": "5 per minute; 100 per day",
            "tokens": {"limit": "1000 per minute", "burst": 1500},
            "models": {"large-*": {"requests": "2 per minute"}, "old-*": False, "tiny": True},
        },
        "free": {"requests": "3 per minute"},
        "team": {"requests": "6 per minute"},
    },
    "service": {"requests": "80 per minute"},
    "default_plan": "free",
}


def named():
    payers = {role: value.split(":") for role, value in request.args.items() if role != "inherited"}
    return Caller(**{role: Payer(*payer) for role, payer in payers.items()})


def showing(plans=PLANS, *, caller=named, **options):
    """An app with one view by plan, and one that shows what is used."""
    served = planned(plans, caller=caller, **options)
    served.app.add_url_rule("/usage", view_func=served.limiter.usage_view)
    return served


def seen(served, *, path="/usage", **query):
    answered = served.client().get(path, query_string=query)
    assert answered.status_code == 200, answered.text
    return answered.json["limits"]


def short(rows):
    """Of each limit who has it for which models, its name, what is used, what is left, and where it was set."""
    return [
        [row["role"], row["model"], row["name"], row["used"], row["remaining"], row["source"]["type"]] for row in rows
    ]


# What is shown


def test_caller_sees_all_limits_of_its_plan_for_all_models_and_no_others():
    served = showing()
    post(served, "large-1", user="7:pro", organisation="9:team")
    post(served, "small", user="8:pro", organisation="9:team")
    (minute, day, tokens, large) = seen(served, user="7:pro", organisation="9:team")
    assert short([minute, day, tokens, large]) == [
        ["user", None, "requests-per-minute", 1, 4, "plan"],
        ["user", None, "requests-per-day", 1, 99, "plan"],
        ["user", None, "tokens-per-minute", 0, 1500, "plan"],
        ["user", "large-*", "requests-per-minute", 1, 1, "model"],
    ]
    assert minute == {
        "role": "user",
        "model": None,
        "route": None,
        "methods": None,
        "name": "requests-per-minute",
        "unit": "requests",
        "limit": 5,
        "burst": 5,
        "period": 60,
        "used": 1,
        "remaining": 4,
        "reset_after": 60.0,
        "reset": served.clock() // 10**6 + 60,
        "source": {"type": "plan", "plan": "pro", "until": None},
    }
    assert (tokens["limit"], tokens["burst"]) == (1000, 1500)


def test_payer_without_a_plan_sees_that_its_plan_is_the_default():
    served = showing()
    for named in ("7", "7:gone"):
        (row,) = seen(served, user=named)
        assert row["source"] == {"type": "default", "plan": "free", "until": None}
    assert seen(served, user="7:free")[0]["source"]["type"] == "plan"


def test_stranger_sees_the_default_plan_of_its_address():
    served = showing()
    post(served)
    assert short(seen(served)) == [["address", None, "requests-per-minute", 1, 2, "default"]]
    elsewhere = served.client(REMOTE_ADDR="198.51.100.1").get("/usage")
    assert short(elsewhere.json["limits"]) == [["address", None, "requests-per-minute", 0, 3, "default"]]


def test_key_sees_what_is_left_if_nothing_identifies_callers():
    served = limited(api_key, plans=PLANS)
    served.app.post("/")(served.limiter.limit_by_plan()(answer))
    served.app.add_url_rule("/usage", view_func=served.limiter.usage_view)
    served.client("alice").post("/")
    for key, role, used in (("alice", "user", 1), ("bob", "user", 0), ("", "address", 0)):
        rows = served.client(key).get("/usage").json["limits"]
        assert short(rows) == [[role, None, "requests-per-minute", used, 3 - used, "default"]]


@pytest.mark.parametrize(
    ("told_roles", "roles"),
    [
        ((), ["user"]),
        (["organisation"], ["user", "organisation"]),
        (["service"], ["user", "service"]),
        (["organisation", "service"], ["user", "organisation", "service"]),
    ],
)
def test_limits_of_other_roles_are_shown_only_if_configured(told_roles, roles):
    served = showing(told_roles=told_roles)
    post(served, user="7:free", organisation="9:team")
    rows = seen(served, user="7:free", organisation="9:team")
    assert [row["role"] for row in rows] == roles
    assert all(row["used"] == 1 for row in rows)


def test_limit_that_is_in_no_header_is_not_shown_and_its_count_is_not_asked_for(monkeypatch):
    plans = {
        "plans": {
            "p": {
                "requests": "5 per day",
                "tokens": {"limit": "9 per day", "in_headers": False},
                "models": {"a": {"tokens": "7 per day", "requests": {"limit": "2 per day", "in_headers": False}}},
            }
        }
    }
    application = [RequestsLimit("50 per day", in_headers=False), "60 per day"]
    served = showing(plans, application_limits=application)
    asked = asked_of(served, monkeypatch)
    rows = seen(served, user="7:p", inherited="1")
    assert [(row["model"], row["unit"], row["limit"]) for row in rows] == [
        (None, "requests", 5),
        ("a", "tokens", 7),
        (None, "requests", 60),
    ]
    assert rows[1]["inherited"] == []  # What all models have is not told.
    assert asked == [("peek", 3)]


def test_no_limit_nothing_at_all_and_calls_in_flight_are_told_apart():
    plans = {"plans": {"p": {"tokens": "unlimited", "requests": 0, "concurrency": 2, "output_tokens": "9 per day"}}}
    rows = seen(showing(plans), user="7:p")
    members = ("name", "limit", "burst", "period", "used", "remaining", "reset_after")
    assert [[row[name] for name in members] for row in rows] == [
        ["tokens", None, None, None, None, None, None],
        ["requests", 0, 0, None, 0, 0, None],
        ["concurrency", 2, 2, None, 0, 2, None],
        ["output-tokens-per-day", 9, 9, 86400, 0, 9, 0.0],
    ]


def test_call_in_flight_is_seen_until_it_ends():
    served = showing({"plans": {"p": {"concurrency": 2}}}, view=lambda: jsonify(served.limiter.usage().to_dict()))
    (row,) = post(served, user="7:p").json["limits"]
    assert (row["used"], row["remaining"]) == (1, 1)
    assert seen(served, user="7:p")[0]["used"] == 0


def test_debt_is_shown_as_nothing_left():
    plans = {"plans": {"p": {"tokens": "100 per minute"}}}
    served = showing(plans, view=lambda: served.limiter.record_usage(output_tokens=250) or {})
    post(served, user="7:p")
    (row,) = seen(served, user="7:p")
    assert (row["used"], row["remaining"], row["reset_after"]) == (100, 0, 150.0)


def test_name_of_a_limit_is_its_name_in_headers():
    served = showing({"plans": {"p": {"requests": {"limit": "5 per day", "name": "calls"}, "tokens": "unlimited"}}})
    assert [row["name"] for row in seen(served, user="7:p")] == ["calls", "tokens"]


def test_answer_is_never_kept_and_is_no_view_of_another_method():
    served = showing()
    answered = served.client().get("/usage")
    assert (answered.headers["Cache-Control"], answered.content_type) == ("no-store", "application/json")
    assert served.client().post("/usage").status_code == 405


# Without plans


def test_app_without_plans_shows_the_limits_over_all_routes():
    served = limited(api_key, application_limits=["50 per day"], application_token_limits=["900 per minute"])
    served.app.post("/")(served.limiter.limit("5 per day")(answer))
    served.app.add_url_rule("/usage", view_func=served.limiter.usage_view)
    served.client("alice").post("/")
    for key, used in (("alice", 1), ("bob", 0)):
        rows = served.client(key).get("/usage").json["limits"]
        assert short(rows) == [
            [None, None, "requests-per-day", used, 50 - used, "application"],
            [None, None, "tokens-per-minute", 0, 900, "application"],
        ]
        assert rows[0]["source"] == {"type": "application", "plan": None, "until": None}


def test_limits_of_routes_are_shown_if_the_app_names_them():
    application = ["50 per day", RequestsLimit("60 per day", exempt_when=lambda: True)]
    served = planned(
        {"plans": {"free": {"requests": "3 per minute", "tokens": "unlimited"}}},
        application_limits=application,
        default_limits=["40 per day"],
        meta_limits=["30 per day"],
    )
    limiter, app = served.limiter, served.app
    named = {"endpoints": ["completions", "both", "plain"]}
    app.add_url_rule("/usage", view_func=limiter.usage_view, defaults=named)
    both = limiter.limit("7 per hour", per_method=True, key_func=lambda: "a")(another())
    app.add_url_rule(
        "/v1/both", "both", limiter.limit_tokens("9 per day", methods=["POST"])(both), methods=["GET", "POST"]
    )
    app.get("/plain", endpoint="plain")(another())
    served.client().get("/v1/both", query_string={"user": "7:free"})
    rows = [row for row in seen(served, user="7:free") if row["role"] is None]
    assert [[row[name] for name in ("route", "methods", "limit", "used")] for row in rows] == [
        [None, None, 50, 1],
        ["/", None, 40, 0],
        ["/v1/both", ["GET"], 7, 1],
        ["/v1/both", ["POST"], 7, 0],
        ["/v1/both", ["POST"], 9, 0],
        ["/plain", None, 40, 0],
    ]
    assert [row["source"]["type"] for row in rows] == ["application"] + 5 * ["route"]


def test_limit_of_a_route_is_that_of_the_caller():
    served = limited(api_key)
    limits = {"alice": "9 per day", "bob": UNLIMITED, "carol": "0 per day", "root": "9 per day"}
    view = served.limiter.limit(lambda: limits[api_key()], exempt_when=lambda: api_key() == "root")(answer)
    served.app.post("/", endpoint="chat")(view)
    served.app.get("/usage")(lambda: served.limiter.usage("chat").to_dict())
    found = {key: served.client(key).get("/usage").json["limits"] for key in limits}
    assert {key: [row["limit"] for row in rows] for key, rows in found.items()} == {
        "alice": [9],
        "bob": [None],
        "carol": [0],
        "root": [],
    }
    assert served.client("dave").get("/usage").status_code == 503


def test_route_that_is_not_there_is_an_error():
    served = showing()
    with served.app.test_request_context("/?user=7:pro"), pytest.raises(ValueError, match="has no endpoint 'chat'"):
        served.limiter.usage("chat")


def test_app_whose_limits_are_switched_off_has_none_to_show():
    served = showing(config={"RATELIMIT_ENABLED": False})
    assert seen(served, user="7:pro") == []


# What it inherits


def test_limits_of_models_show_those_of_all_models_on_request():
    served = showing()
    rows = seen(served, user="7:pro", inherited="1")
    source = {"type": "plan", "plan": "pro", "until": None}
    assert [row["inherited"] for row in rows] == [
        [],
        [],
        [],
        [
            {"limit": 5, "burst": 5, "period": 60, "source": source},
            {"limit": 100, "burst": 100, "period": 86400, "source": source},
        ],
    ]
    assert all(
        "inherited" not in row for query in ({}, {"inherited": "0"}) for row in seen(served, user="7:pro", **query)
    )


WHY = {"reason": "They asked.", "by": "Olga"}


@pytest.mark.parametrize("until", [None, 1_800_000_000])
def test_limit_that_an_operator_set_says_so_and_shows_that_of_the_plan_on_request(until):
    served = showing(told_roles=["service"])
    change = served.limiter.admin.raise_limit
    if until:
        served.clock.set((until - 3600) * 10**6)
        change = partial(served.limiter.admin.boost, until=datetime.fromtimestamp(until, UTC))
    change("user:7", "requests", "9 per minute", plan="pro", **WHY)
    change("user:7", "requests", "9 per minute", plan="pro", model="large-*", **WHY)
    change("service", "requests", "90 per minute", **WHY)
    kind = "boost" if until else "change"
    rows = seen(served, user="7:pro", inherited="1")
    assert [(row["role"], row["model"], row["limit"], row["source"]) for row in rows] == [
        ("user", None, 9, {"type": kind, "plan": "pro", "until": until}),
        ("user", None, 100, {"type": "plan", "plan": "pro", "until": None}),
        ("user", None, 1000, {"type": "plan", "plan": "pro", "until": None}),
        ("user", "large-*", 9, {"type": kind, "plan": "pro", "until": until}),
        ("service", None, 90, {"type": kind, "plan": "service", "until": until}),
    ]
    inherited = [[(each["limit"], each["source"]["type"]) for each in row["inherited"]] for row in rows]
    assert inherited == [[(5, "plan")], [], [], [(2, "model")], [(80, "plan")]]


def test_payer_that_an_operator_moved_does_not_have_the_default_plan():
    served = showing()
    served.limiter.admin.move("user:7", "pro", **WHY)
    assert {row["source"]["type"] for row in seen(served, user="7")} == {"plan", "model"}


# What it costs


def asked_of(served, monkeypatch):
    """What the store is asked from now on: the method, and the number of charges."""
    with served.app.app_context():
        store = served.limiter.engine.store
    asked = []

    def counting(name):
        method = getattr(store, name)

        def count(charges, *more):
            asked.append((name, len(charges)))
            return method(charges, *more)

        return count

    for name in ("peek", "reserve", "settle"):
        monkeypatch.setattr(store, name, counting(name))
    return asked


def test_usage_asks_the_store_once_about_all_limits(monkeypatch):
    served = showing(told_roles=["organisation", "service"], application_limits=["50 per day"])
    asked = asked_of(served, monkeypatch)
    assert len(seen(served, user="7:pro", organisation="9:team", inherited="1")) == 7
    assert asked == [("peek", 7)]


def test_usage_charges_nothing_and_makes_no_count(tmp_path):
    with commandable(tmp_path / "counts") as make:
        served = make(None, plans=PLANS, told_roles=["service"], application_limits=["50 per day"])
        served.limiter.identify(named_in_query)
        served.app.add_url_rule("/usage", view_func=served.limiter.usage_view)
        before = [seen(served, user="7:pro") for _ in range(20)]
        assert all(rows == before[0] for rows in before)
        engine = served.limiter.engine
        subjects = [engine.subject("user", "7"), engine.subject("service", ""), engine.subject("user:7")]
        assert [engine.reset(subject) for subject in subjects] == [0, 0, 0]


@pytest.mark.parametrize(
    "options", [{"plan_everywhere": True}, {"default_limits": ["1 per day"]}, {"application_limits": ["1 per day"]}]
)
def test_view_is_exempt_from_the_limits_of_all_routes(options):
    served = showing(**options)
    assert [row["used"] for _ in range(9) for row in seen(served, user="7:free") if row["used"]] == []


def test_view_is_limited_if_the_app_decorates_it():
    served = planned(PLANS)
    limiter, app = served.limiter, served.app
    app.add_url_rule("/a", "a", limiter.limit("2 per day", key_func=lambda: "all")(limiter.usage_view))
    app.add_url_rule("/b", "b", limiter.limit_by_plan()(limiter.usage_view))
    app.add_url_rule("/usage", view_func=limiter.usage_view)
    client = served.client()
    assert [client.get("/a?user=7:free").status_code for _ in range(3)] == [200, 200, 429]
    assert [client.get("/b?user=7:free").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert [client.get("/usage?user=7:free").status_code for _ in range(9)] == [200] * 9
    assert short(seen(served, user="7:free")) == [["user", None, "requests-per-minute", 3, 0, "plan"]]


@pytest.mark.parametrize(("by_plan", "statuses"), [(False, [200, 200, 429, 429]), (True, [200] * 4)])
def test_limits_of_the_view_s_blueprint_hold_and_its_plan_does_not(by_plan, statuses):
    served = planned({"plans": {"p": {"requests": "2 per day"}}})
    blueprint, limiter = Blueprint("account", "x"), served.limiter
    (limiter.limit_by_plan() if by_plan else limiter.limit("2 per day", key_func=lambda: "all"))(blueprint)
    blueprint.add_url_rule("/usage", view_func=limiter.usage_view)
    served.app.register_blueprint(blueprint)
    assert [served.client().get("/usage?user=7:p").status_code for _ in range(4)] == statuses


def test_caller_is_asked_once_for_its_usage():
    asked = []

    def caller():
        asked.append(g.account)
        return Caller(user=Payer(g.account, plan="pro"))

    served = showing(caller=caller, application_limits=["50 per day"])
    served.app.before_request(lambda: setattr(g, "account", request.args["user"]))
    assert len(seen(served, user="7")) == 5
    assert asked == ["7"]


# Who is turned away


@pytest.mark.parametrize("status", [401, 403])
def test_caller_that_the_app_turns_away_gets_the_app_s_answer(status):
    served = showing(caller=lambda: abort(status))
    assert served.client().get("/usage").status_code == status


def test_usage_that_nobody_can_tell_is_a_503(caplog):
    failing = showing(caller=lambda: {}["sk-secret"])
    assert code_of(failing.client().get("/usage")) == (503, "limiter_unavailable")
    without_default = showing({"plans": PLANS["plans"]})
    assert code_of(without_default.client().get("/usage")) == (503, "limiter_unavailable")
    assert "sk-secret" not in caplog.text


@pytest.mark.parametrize("policy", ["deny", "local", "allow"])
def test_usage_is_a_503_while_the_store_is_away_whatever_the_policy(policy, monkeypatch, caplog):
    served = showing(on_store_error=policy)

    def away(_):
        raise StoreError("away")

    monkeypatch.setattr(served.limiter.engine.store, "peek", away)
    refused = served.client().get("/usage?user=7:pro")
    assert code_of(refused) == (503, "limiter_unavailable")
    assert (refused.headers["Retry-After"], refused.headers["Cache-Control"]) == ("1", "no-store")
    assert "Usage can't be shown: away" in caplog.text
    with served.app.test_request_context("/?user=7:pro"), pytest.raises(StoreError):
        served.limiter.usage()


def test_answer_names_no_payer_no_key_and_no_hash():
    served = showing(told_roles=["organisation", "service"], application_limits=["50 per day"])
    for user in ("alice-secret", "bob-secret"):
        post(served, user=f"{user}:pro", organisation="acme-secret:team")
    text = served.client("sk-secret").get("/usage?user=alice-secret:pro&organisation=acme-secret:team").text
    subject = served.limiter.engine.subject("user", "alice-secret")
    assert not re.search(f"secret|{subject.hex()}|{ADDRESS}", text)


def test_each_app_of_a_limiter_shows_its_own_plans_and_counts():
    limiter = AILimiter(api_key, storage_uri="memory://", clock=ManualClock())
    apps = []
    for name, limit in (("a", "4 per day"), ("b", "9 per day")):
        app = Flask(name)
        app.config["AILIMIT_PLANS"] = {"plans": {"p": {"requests": limit}}, "default_plan": "p"}
        limiter.init_app(app)
        app.post("/")(limiter.limit_by_plan()(another()))
        app.add_url_rule("/usage", view_func=limiter.usage_view)
        apps.append(app)
    sent = {"headers": {"x-api-key": "alice"}}
    for app, times in zip(apps, (1, 2), strict=True):
        for _ in range(times):
            app.test_client().post("/", **sent)
    found = [app.test_client().get("/usage", **sent).json["limits"] for app in apps]
    assert [[(row["limit"], row["used"]) for row in rows] for rows in found] == [[(4, 1)], [(9, 2)]]


def test_two_limiters_of_one_app_show_each_their_own():
    app = Flask("shop")
    limiters = [
        AILimiter(api_key, app=app, storage_uri="memory://", application_limits=[limit])
        for limit in ("4 per day", "9 per day")
    ]
    for number, limiter in enumerate(limiters):
        app.add_url_rule(f"/usage{number}", f"usage{number}", limiter.usage_view)
    app.get("/")(answer)
    app.test_client().get("/", headers={"x-api-key": "a"})
    found = [app.test_client().get(f"/usage{number}", headers={"x-api-key": "a"}).json["limits"] for number in (0, 1)]
    assert [[(row["limit"], row["used"]) for row in rows] for rows in found] == [[(4, 1)], [(9, 1)]]


def test_python_gets_what_the_view_answers():
    served = showing()
    with served.app.test_request_context("/?user=7:pro"):
        report = served.limiter.usage(inherited=True)
    assert report.limits[0].source == LimitSource("plan", "pro")
    assert jsonable(report.to_dict()) == {"limits": seen(served, user="7:pro", inherited="1")}


def jsonable(value):
    if isinstance(value, dict):
        return {name: jsonable(each) for name, each in value.items()}
    return [jsonable(each) for each in value] if isinstance(value, (list, tuple)) else value


# Random plans, payers and requests


def with_hidden(random, table):
    """The table with some of its limits in no header."""
    found = {}
    for unit, given in table.items():
        text = given["limit"] if isinstance(given, dict) and "limit" in given else given
        found[unit] = given
        if unit in ("requests", "tokens", "output_tokens") and random.random() < 0.2:
            found[unit] = {"limit": text, "in_headers": False}
        elif unit == "models" and isinstance(given, dict):
            found[unit] = {
                name: with_hidden(random, rule) if isinstance(rule, dict) else rule for name, rule in given.items()
            }
    return found


def told_in(table):
    return {
        unit: given
        for unit, given in table.items()
        if not (isinstance(given, dict) and given.get("in_headers") is False)
    }


def paying(rules, named):
    """Role, id and plan of each payer; last everybody together, if they have limits."""
    found = [(role, payer, rules.plans.get(plan) or rules.plans[rules.default]) for role, payer, plan in named]
    return [*found, ("service", "", rules.service)] if rules.service else found


def limits_of(role, payer, plan):
    """Each limit of a payer: role, id, pattern, unit, what is written, and whether clients may be told of it."""
    models = plan.get("models", {})
    rules = (
        [(name, rule) for name, rule in models.items() if isinstance(rule, dict)] if isinstance(models, dict) else []
    )
    for model, table in [(None, plan), *rules]:
        told = [*limits_in(told_in(table))]
        yield from ((role, payer, model, unit, text, (unit, text) in told) for unit, text in limits_in(table))


def expected_usage(used, payers, told_roles):
    """Role, model, unit, limit and use of each limit that the payers are told of."""
    found = Counter()
    for place, payer in enumerate(payers):
        for role, name, model, unit, text, is_told in limits_of(*payer):
            if not is_told or (place and role not in told_roles):
                continue
            most = None if text == "unlimited" else number_in((*payer, unit, str(text)))
            taken = None if most is None else min(used[role, name, model, unit, text], most)
            found[role, model, unit, most, taken] += 1
    return found


def policies(headers):
    """Unit, quota, window and rest of each limit in the headers of an answer."""
    if "RateLimit" not in headers:
        return Counter()
    pairs = zip(headers["RateLimit-Policy"].split(", "), headers["RateLimit"].split(", "), strict=True)
    found = Counter()
    for policy, left in pairs:
        given = dict(part.partition("=")[::2] for part in policy.split(";")[1:])
        rest = dict(part.partition("=")[::2] for part in left.split(";")[1:])
        unit = given.get("qu", '"requests"').strip('"').replace("-", "_").replace("concurrent_requests", "concurrency")
        found[unit, int(given["q"]), int(given["w"]) if "w" in given else None, int(rest["r"])] += 1
    return found


@pytest.mark.parametrize("tens", range(4))
def test_usage_is_what_was_counted_and_what_the_next_answer_s_headers_tell(tens):
    assert sum(limits_compared(seed, "memory://") for seed in range(10 * tens, 10 * tens + 10)) > 200


def test_usage_of_a_local_store_is_what_was_counted(tmp_path):
    assert sum(limits_compared(seed, f"local://{tmp_path}/{seed}") for seed in (40, 41)) > 30


def kept_of_row(row, floor):
    """The units that a request leaves to others."""
    return kept_of((row["role"], "", "", row["unit"], str(row["limit"])), floor)


def limits_compared(seed, uri):
    """Send random requests under random plans; of how many limits the answers' headers told the same as the usage."""
    random = Random(seed)
    plans = some_plans(random)
    plans["plans"] = {name: with_hidden(random, plan) for name, plan in plans["plans"].items()}
    told_roles = random.sample(("organisation", "team_2", "service"), random.randint(0, 3))
    rules, used, plan_of = Rules(plans), Counter(), {}
    served = limited(None, plans=plans, storage_uri=uri, told_roles=told_roles)
    served.limiter.identify(lambda: Caller(**{role: Payer(name, plan) for role, name, plan in g.payers}))
    served.app.before_request(lambda: setattr(g, "payers", now))
    served.app.add_url_rule("/usage", view_func=served.limiter.usage_view)

    @served.app.post("/")
    @served.limiter.limit_by_plan()
    def view():
        served.limiter.record_usage(output_tokens=request.json["max_tokens"], units={"pages": 3})
        return {}

    compared = 0
    for number in range(60):
        if random.random() < 0.1:
            served.clock.advance(10 * 86_400)
            used.clear()
        now, model, tokens = some_payers(random), random.choice(MODELS), random.choice((1, 2, 5, 30))
        # Each keeps its plan: what goes on under another one is not asked here.
        now = [(role, name, plan_of.setdefault((role, name), plan)) for role, name, plan in now]
        asked = served.client().get("/usage")
        if any(rules.plans.get(plan) is None for *_, plan in now) and rules.default is None:
            assert asked.status_code == 503
            continue
        where = (seed, number, plans, now, told_roles, asked.json)
        payers = paying(rules, now)
        rows = asked.json["limits"]
        got = Counter((row["role"], row["model"], row["unit"], row["limit"], row["used"]) for row in rows)
        assert got == expected_usage(used, payers, told_roles), where
        assert all(row["limit"] is None or row["used"] + row["remaining"] == row["burst"] for row in rows), where
        body = {"prompt": "", "max_tokens": tokens} | ({} if model is None else {"model": model})
        answered = served.client().post("/", json=body)
        if answered.status_code == 200:
            costs = {"requests": 1, "tokens": tokens, "output_tokens": tokens, "input_tokens": 1, "pages": 1}
            held = {role: rules.rule_of(plan, model)[0] for role, _, plan in payers}
            for role, name, pattern, unit, text, _ in (limit for payer in payers for limit in limits_of(*payer)):
                if pattern in (None, held[role]) and unit != "concurrency":
                    used[role, name, pattern, unit, text] += {**costs, "input_tokens": 0, "pages": 3}[unit]
            floor = rules.floor_of(plan for *_, plan in payers)
            told = Counter(
                (
                    *(row["unit"], row["limit"], row["period"]),
                    max(0, row["remaining"] - costs.get(row["unit"], 1) - kept_of_row(row, floor)),
                )
                for row in rows
                if row["limit"] is not None and row["model"] in (None, held[row["role"]])
            )
            assert policies(answered.headers) == told, (*where, answered.headers)
            compared += len(told)
    served.limiter.engine.close()
    return compared


# The command


def test_command_prints_what_a_payer_has_left_of_a_plan_and_where_it_was_set(tmp_path):
    with commandable(tmp_path / "counts") as make:
        plans = {
            **PLANS,
            "plans": {
                **PLANS["plans"],
                "odd": {"tokens": "unlimited", "requests": {"limit": 0, "in_headers": False}, "concurrency": 2},
            },
        }
        served = make(None, plans=plans)
        served.limiter.identify(named_in_query)
        served.app.post("/")(served.limiter.limit_by_plan()(answer))
        post(served, "large-1", user="7:pro")
        run = served.app.test_cli_runner().invoke

        def printed(*arguments):
            ran = run(cli, args=["usage", *arguments])
            return ran.exit_code, re.sub(r"[\d.]+ s", "… s", ran.output).splitlines()

        pro = [
            "by the plan pro",
            "    requests-per-minute: 4 of 5 left, full again in … s  (plan)",
            "    requests-per-day: 99 of 100 left, full again in … s  (plan)",
            "    tokens-per-minute: 1500 of 1500 left, full again in … s  (plan)",
            "    model large-*",
            "        requests-per-minute: 1 of 2 left, full again in … s  (model)",
        ]
        assert printed("user:7", "--plan", "pro") == (0, pro)
        subject = served.limiter.engine.subject("user", "7").hex()
        assert printed("--hash", subject, "--plan", "pro") == (0, pro)
        assert printed("service", "--plan", "service")[1][1].startswith("    requests-per-minute: 79 of 80 left")
        assert printed("user:9", "--plan", "odd") == (
            0,
            [
                "by the plan odd",
                "    tokens: unlimited  (plan)",
                "    requests: nothing is allowed  (plan)",
                "    concurrency: 2 of 2 left  (plan)",
            ],
        )
        assert printed("user:7", "--plan", "gold") == (
            1,
            ["Error: --plan: the plans of this app are pro, free, team, odd."],
        )
        for wrong in ("7", "user:", "User:7", ":7"):
            status, (line,) = printed(wrong, "--plan", "pro")
            assert status == 1
            assert line.startswith("Error: --plan: SUBJECT is the role and the id of a payer, such as user:7, or")


def test_method_of_a_marked_limit_is_shown_as_it_is():
    served = limited(lambda: "a", storage_uri="memory://")
    limit = served.limiter.limit
    view = limit("5 per minute", per_method=True)(limit("7 per minute", per_method=True)(another()))
    served.app.get("/", endpoint="both")(view)
    served.app.add_url_rule("/usage", view_func=served.limiter.usage_view, defaults={"endpoints": ["both"]})
    assert [row["methods"] for row in seen(served)] == [["GET"], ["GET"]]
