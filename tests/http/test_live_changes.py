"""An operator changes what one payer may use, while the app runs."""

import gc
import logging
import os
import threading
from datetime import UTC, datetime, timedelta
from threading import Event
from weakref import ref

import pytest
from flask import Flask, request
from limited_apps import ADDRESS, limited

from flask_ailimit import (
    AILimiter,
    Caller,
    ChangeError,
    ConfigurationError,
    Payer,
    StoreError,
    api_key,
    request_refused,
)
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.limits.plans import watching
from flask_ailimit.limits.plans.change import RAISE, Change, PayerName, WhichLimit, written
from flask_ailimit.limits.plans.plan import Plan, PlanLimit, Source
from flask_ailimit.limits.plans.trail import InForce
from flask_ailimit.limits.plans.watching import LiveChanges
from flask_ailimit.testing import ManualClock

WHY = {"reason": "a phone call", "by": "ann"}
PLANS = {
    "default_plan": "free",
    "plans": {
        "free": {"requests": "2 per minute; 20 per day", "concurrency": 2, "models": ["small-*"]},
        "pro": {"requests": "5 per minute", "models": {"large-*": {"requests": "1 per minute"}, "small-*": True}},
        "team": {"requests": {"limit": "6 per minute", "burst": 12}, "tokens": "unlimited"},
    },
    "service": {"requests": "100 per minute"},
}


def answer():
    return {}


def who():
    payers = {}
    for role, value in request.args.items():
        name, _, plan = value.rpartition("/")
        payers[role] = Payer(name or value, plan=plan if name else None)
    return Caller(**payers)


def planned(plans=PLANS, *, storage_uri="memory://", **options):
    """An app with a view by plan, at ``/``."""
    served = limited(None, plans=plans, storage_uri=storage_uri, **options)
    served.limiter.identify(who)
    served.app.post("/", endpoint="completions")(served.limiter.limit_by_plan()(answer))
    return served


@pytest.fixture
def two_apps(tmp_path):
    """Opens apps over one directory, as two processes would. Each looks when it is told to, and at its start."""
    opened = []

    def open_one(plans=PLANS, **options):
        opened.append(planned(plans, storage_uri=f"local://{tmp_path}/limits", **options))
        return opened[-1]

    yield open_one
    for each in opened:
        changes_of(each).close()
        each.limiter.engine.close()


def changes_of(served):
    return served.limiter._states[served.app].changes


def post(served, model="small-1", **payers):
    return served.client().post("/", query_string=payers, json={"model": model})


def statuses(served, times, **wanted):
    return [post(served, **wanted).status_code for _ in range(times)]


def told(served, model="small-1", **payers):
    """The limits that a caller is told, by name, each with its source."""
    with served.app.test_request_context("/", query_string=payers, method="POST", json={"model": model}):
        verdicts = served.limiter.peek("completions").told().verdicts
    return {verdict.quota.name: verdict.quota.limit for verdict in verdicts}


# Limits


def test_raised_limit_is_in_force_for_this_payer_alone():
    served = planned()
    served.limiter.admin.raise_limit("user:7", "requests", "4 per minute", plan="free", **WHY)
    assert statuses(served, 5, user="7") == [200, 200, 200, 200, 429]
    assert statuses(served, 3, user="8") == [200, 200, 429]
    assert statuses(served, 3, organisation="7") == [200, 200, 429]


def test_lowered_limit_is_in_force():
    served = planned()
    served.limiter.admin.lower_limit("user:7", "requests", "1 per minute", **WHY)
    assert statuses(served, 2, user="7/free") == [200, 429]
    assert statuses(served, 2, user="7/pro") == [429, 429]  # The same count: a minute's requests of user 7.


def test_change_for_one_plan_sleeps_under_another():
    served = planned()
    served.limiter.admin.raise_limit("user:7", "requests", "4 per minute", plan="free", **WHY)
    assert told(served, user="7/free")["requests-per-minute"] == 4
    assert told(served, user="7/pro")["requests-per-minute"] == 5


def test_change_of_one_window_leaves_the_other_and_the_other_units():
    served = planned()
    served.limiter.admin.raise_limit("user:7", "requests", "30 per day", **WHY)
    served.limiter.admin.raise_limit("user:7", "concurrency", "3", **WHY)
    wanted = {"requests-per-minute": 2, "requests-per-day": 30, "concurrency": 3}
    assert told(served, user="7") == wanted


def test_limit_of_a_model_is_changed_for_that_model():
    served = planned()
    served.limiter.admin.raise_limit("user:7", "requests", "3 per minute", model="large-*", **WHY)
    assert statuses(served, 4, model="large-1", user="7/pro") == [200, 200, 200, 429]
    assert statuses(served, 2, user="7/pro") == [200, 200]


def test_limit_of_everybody_together_is_changed():
    served = planned()
    served.limiter.admin.lower_limit("service", "requests", "3 per minute", **WHY)
    assert statuses(served, 2, user="7") == [200, 200]
    assert statuses(served, 2, user="8") == [200, 429]


def test_client_without_an_account_is_changed_by_its_address():
    served = planned()
    served.limiter.admin.lower_limit(f"address:{ADDRESS}", "requests", "1 per minute", **WHY)
    assert statuses(served, 2) == [200, 429]
    assert statuses(served, 2, user=ADDRESS) == [200, 200]


@pytest.mark.parametrize("name", ["a:b", "::", "ü", "7 8", "user:7"])
def test_any_printable_id_of_the_app_is_known_again(name):
    served = planned()
    served.limiter.admin.lower_limit(f"user:{name}", "requests", "1 per minute", **WHY)
    assert statuses(served, 2, user=f"{name}/free") == [200, 429]


def test_apps_with_a_key_function_change_the_payers_that_it_names():
    served = limited(api_key, plans=PLANS)
    served.app.post("/")(served.limiter.limit_by_plan()(answer))
    served.limiter.admin.lower_limit("user:alice", "requests", "1 per minute", **WHY)
    served.limiter.admin.suspend("user:bob", **WHY)
    codes = [served.client(key).post("/", json={"model": "small-1"}).status_code for key in ("alice", "alice", "bob")]
    assert codes == [200, 429, 403]


def test_usage_is_kept_when_a_limit_is_raised():
    served = planned()
    assert statuses(served, 3, user="7") == [200, 200, 429]
    served.limiter.admin.raise_limit("user:7", "requests", "3 per minute", plan="free", **WHY)
    assert statuses(served, 2, user="7") == [200, 429]


def test_usage_is_kept_when_a_limit_is_lowered_and_when_that_is_undone():
    served = planned()
    assert statuses(served, 1, user="7") == [200]
    change = served.limiter.admin.lower_limit("user:7", "requests", "1 per minute", plan="free", **WHY)
    assert statuses(served, 1, user="7") == [429]
    served.limiter.admin.undo(change.number, **WHY)
    assert statuses(served, 2, user="7") == [200, 429]


# Boosts


def test_boost_ends_by_the_clock_without_another_look():
    served = planned()
    change = served.limiter.admin.boost(
        "user:7", "requests", "4 per minute", until=timedelta(hours=1), plan="free", **WHY
    )
    assert told(served, user="7")["requests-per-minute"] == 4
    served.clock.advance_us((change.until * 10**6) - served.clock() - 1)
    assert told(served, user="7")["requests-per-minute"] == 4
    served.clock.advance_us(1)
    assert told(served, user="7")["requests-per-minute"] == 2


def test_boost_lies_over_a_change_and_what_is_changed_meanwhile_holds_after_it():
    served = planned()
    admin = served.limiter.admin
    admin.boost("user:7", "requests", "9 per minute", until=timedelta(hours=1), **WHY)
    admin.raise_limit("user:7", "requests", "3 per minute", plan="free", **WHY)
    assert told(served, user="7")["requests-per-minute"] == 9
    served.clock.advance(3600)
    assert told(served, user="7")["requests-per-minute"] == 3


def test_values_say_where_they_come_from():
    served = planned()
    admin, changes = served.limiter.admin, changes_of(served)
    change = admin.raise_limit("user:7", "requests", "30 per day", **WHY)
    boost = admin.boost("user:7", "requests", "9 per minute", until=timedelta(hours=1), **WHY)
    plan = changes.plan_of(("user", "7"), changes.in_force()["user", "7"], served.limiter.app_state.plans.plans["free"])
    assert [(limit.value, limit.source) for limit in plan.limits] == [
        ("9 per minute", Source("boost", boost.until)),
        ("30 per day", Source("change")),
        (2, Source("plan")),
    ]
    assert change.before == "20 per day"


# Suspended payers


BODIES = {
    "hybrid": lambda body: (body["error"]["code"], body["error"]["message"], body["error"]["type"]),
    "problem": lambda body: (body["code"], body["detail"], "permission_error"),
    "openai": lambda body: (body["error"]["code"], body["error"]["message"], "permission_error"),
    "anthropic": lambda body: ("suspended", body["error"]["message"], body["error"]["type"]),
}


@pytest.mark.parametrize("error_format", BODIES)
def test_suspended_payer_gets_a_403_with_the_operators_words(error_format):
    served = planned(error_format=error_format)
    served.limiter.admin.suspend("user:7", tell="Call us: +49 30 1234.", **WHY)
    refused = post(served, user="7")
    assert refused.status_code == 403
    assert BODIES[error_format](refused.json) == ("suspended", "Call us: +49 30 1234.", "permission_error")
    assert refused.headers["x-should-retry"] == "false"
    assert refused.headers["x-request-id"]
    assert "a phone call" not in refused.text
    assert post(served, user="8").status_code == 200


def test_suspended_payer_is_charged_nothing_and_its_body_is_not_read():
    served = planned(application_limits=["10 per minute"])
    assert statuses(served, 3, user="7") == [200, 200, 429]
    served.limiter.admin.suspend("user:7", **WHY)
    ambiguous = '{"model": "small-1", "model": "small-2"}'
    for body in (ambiguous, '{"model": "small-1"}'):
        refused = served.client().post("/", query_string={"user": "7"}, data=body, content_type="application/json")
        assert refused.json["error"]["code"] == "suspended"
    served.limiter.admin.resume("user:7", **WHY)
    assert told(served, user="7")["requests-per-day"] == 20
    with served.app.test_request_context("/", query_string={"user": "7"}, json={"model": "small-1"}, method="POST"):
        used = {verdict.quota.name: verdict.used for verdict in served.limiter.peek("completions").verdicts}
    assert used["requests-per-day"] == 2


def test_event_says_that_a_suspended_payer_was_refused():
    served = planned()
    served.limiter.admin.suspend("user:7", **WHY)
    seen = []
    with request_refused.connected_to(lambda _, **facts: seen.append(facts), served.app):
        post(served, user="7/pro")
    (facts,) = seen
    assert (facts["plan"], facts["model"], facts["decision"]) == ("pro", None, None)
    assert facts["subject"] == served.limiter.engine.subject("user", "7").hex()


def test_suspended_organisation_takes_its_users_with_it():
    served = planned()
    served.limiter.admin.suspend("organisation:9", **WHY)
    assert statuses(served, 1, user="7", organisation="9/team") == [403]
    assert statuses(served, 1, user="7") == [200]


def test_everybody_can_be_suspended():
    served = planned()
    served.limiter.admin.suspend("service", tell="Closed until noon.", **WHY)
    assert post(served, user="7").json["error"]["message"] == "Closed until noon."


def test_suspended_payer_still_reaches_what_is_not_limited_by_plan():
    served = planned()
    served.app.get("/bill")(lambda: "what you owe")
    served.limiter.admin.suspend("user:7", **WHY)
    assert served.client().get("/bill", query_string={"user": "7"}).status_code == 200
    assert told(served, user="7")["requests-per-minute"] == 2


# Other plans


def test_moved_payer_has_the_other_plan_whatever_the_app_names():
    served = planned()
    assert post(served, "large-1", user="7").status_code == 403
    served.limiter.admin.move("user:7", "pro", **WHY)
    assert post(served, "large-1", user="7/free").status_code == 200
    served.limiter.admin.move("user:7", None, **WHY)
    assert post(served, "large-1", user="7/free").status_code == 403


def test_payer_that_was_moved_to_a_plan_that_is_no_more_has_that_of_the_app(two_apps):
    first = two_apps()
    first.limiter.admin.move("user:7", "team", **WHY)
    assert told(first, user="7")["requests-per-minute"] == 6
    without = {**PLANS, "plans": {name: plan for name, plan in PLANS["plans"].items() if name != "team"}}
    assert told(two_apps(without), user="7")["requests-per-minute"] == 2


def test_burst_is_changed_in_proportion():
    served = planned()
    served.limiter.admin.lower_limit("user:7", "requests", "1 per minute", plan="team", **WHY)
    assert statuses(served, 3, user="7/team") == [200, 200, 429]


# Undo


def test_undone_change_is_as_if_never_made():
    served = planned()
    admin = served.limiter.admin
    first = admin.raise_limit("user:7", "requests", "3 per minute", plan="free", **WHY)
    second = admin.raise_limit("user:7", "requests", "4 per minute", plan="free", **WHY)
    admin.undo(first.number, **WHY)
    assert told(served, user="7")["requests-per-minute"] == 4
    admin.undo(second.number, **WHY)
    assert told(served, user="7")["requests-per-minute"] == 2


def test_undone_resumption_suspends_again():
    served = planned()
    admin = served.limiter.admin
    admin.suspend("user:7", **WHY)
    admin.undo(admin.resume("user:7", **WHY).number, **WHY)
    assert statuses(served, 1, user="7") == [403]


# What can't be done


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (
            lambda a: a.raise_limit("user:7", "requests", "1 per minute", plan="free", **WHY),
            "1 per minute is not higher than 2 per minute",
        ),
        (
            lambda a: a.raise_limit("user:7", "requests", "2 per minute", plan="free", **WHY),
            "not higher than 2 per minute",
        ),
        (
            lambda a: a.lower_limit("user:7", "requests", "9 per minute", plan="free", **WHY),
            "not lower than 2 per minute",
        ),
        (
            lambda a: a.boost("user:7", "requests", "1 per minute", until=timedelta(1), plan="free", **WHY),
            "not higher than",
        ),
        (
            lambda a: a.raise_limit("user:7", "requests", "3 per minute", **WHY),
            r"2 per minute \(free\), 5 per minute \(pro\).*--plan",
        ),
        (
            lambda a: a.raise_limit("user:7", "requests", "3 per hour", **WHY),
            r"no limit on requests in this window. There are: requests 2 per minute \(free\)",
        ),
        (
            lambda a: a.raise_limit("user:7", "tokens", "3 per hour", plan="team", **WHY),
            r"There are: requests 6 per minute \(team\)",
        ),
        (
            lambda a: a.raise_limit("user:7", "requests", "3 per minute", model="tiny", **WHY),
            "no limit on requests of tiny",
        ),
        (lambda a: a.raise_limit("user:7", "requests", "3 per minute; 4 per day", **WHY), "one limit at a time"),
        (lambda a: a.raise_limit("user:7", "requests", "many", **WHY), "can't read 'many'"),
        (lambda a: a.raise_limit("user:7", "requests", 5, **WHY), "can't read '5'"),
        (lambda a: a.lower_limit("user:7", "requests", "0 per minute", **WHY), "To stop the payer, suspend it"),
        (lambda a: a.raise_limit("user:7", "concurrency", "4 per minute", **WHY), "a number of calls in flight"),
        (lambda a: a.raise_limit("user:7", "concurrency", True, **WHY), "a number of calls in flight"),
        (lambda a: a.raise_limit("user:7", "concurrency", 10**30, **WHY), "a number of calls in flight"),
        (
            lambda a: a.raise_limit("user:7", "requests", "3 per minute", plan="fre", **WHY),
            "no plan 'fre'. Did you mean free",
        ),
        (lambda a: a.raise_limit("user:7", "requests", f"{10**40} per minute", **WHY), "."),
        (
            lambda a: a.boost("user:7", "requests", "9 per minute", until=timedelta(0), **WHY),
            "from 1 second to 366 days",
        ),
        (
            lambda a: a.boost("user:7", "requests", "9 per minute", until=datetime.max.replace(tzinfo=UTC), **WHY),
            "366 days",
        ),
        (
            lambda a: a.boost("user:7", "requests", "9 per minute", until=datetime.fromisoformat("2030-01-01"), **WHY),
            "time zone",
        ),
        (lambda a: a.suspend("7", **WHY), "A payer is a role and an id"),
        (lambda a: a.suspend("User:7", **WHY), "A payer is a role and an id"),
        (lambda a: a.suspend("user:", **WHY), "A payer is a role and an id"),
        (lambda a: a.suspend("user:7\x1b[31m", **WHY), "A payer is a role and an id"),
        (lambda a: a.suspend("user:" + "7" * 257, **WHY), "A payer is a role and an id"),
        (lambda a: a.suspend("service:7", **WHY), "A payer is a role and an id"),
        (lambda a: a.suspend("user:7", reason="", by="ann"), "reason: a text"),
        (lambda a: a.suspend("user:7", reason="a\nb", by="ann"), "reason: a text"),
        (lambda a: a.suspend("user:7", reason="a", by="a" * 101), "by: a text"),
        (lambda a: a.suspend("user:7", tell="", **WHY), "tell: a text"),
        (lambda a: a.resume("user:7", **WHY), "is not suspended"),
        (lambda a: a.move("user:7", "prro", **WHY), "Did you mean pro"),
        (lambda a: a.move("user:7", None, **WHY), "already"),
        (lambda a: a.move("service", "pro", **WHY), r"no plan but \[service\]"),
        (lambda a: a.undo(1, **WHY), "There is no change 1"),
    ],
)
def test_what_can_not_be_done_is_said_and_changes_nothing(ask, says):
    admin = planned().limiter.admin
    with pytest.raises(ChangeError, match=says):
        ask(admin)
    assert admin.changes() == []


def test_suspension_undo_and_move_are_not_made_twice():
    admin = planned().limiter.admin
    change = admin.suspend("user:7", **WHY)
    undone = admin.undo(change.number, **WHY)
    for ask, says in (
        (lambda: admin.undo(change.number, **WHY), "undone already, by change 2"),
        (lambda: admin.undo(undone.number, **WHY), "can't be undone. Make the change again"),
        (lambda: admin.resume("user:7", **WHY), "is not suspended"),
    ):
        with pytest.raises(ChangeError, match=says):
            ask()


def test_app_without_plans_or_service_has_nothing_to_change():
    with pytest.raises(ConfigurationError, match="this app has none"):
        _ = limited().limiter.admin
    served = planned({"plans": {"a": {"requests": "1 per day"}}})
    with pytest.raises(ChangeError, match=r"the plans have no \[service\]"):
        served.limiter.admin.lower_limit("service", "requests", "1 per day", **WHY)


# The trail


def test_trail_says_who_changed_what_when_and_why():
    served = planned()
    admin = served.limiter.admin
    made = [
        admin.raise_limit("user:7", "requests", "4 per minute", plan="free", reason="a phone call", by="ann"),
        admin.suspend("organisation:9", reason="fraud", by="bob"),
        admin.undo(1, reason="a mistake", by="ann"),
    ]
    assert admin.changes() == made
    assert [change.number for change in made] == [1, 2, 3]
    assert made[0].at == served.clock() // 10**6
    assert (made[0].before, made[0].after, made[0].by) == ("2 per minute", "4 per minute", "ann")
    assert admin.changes("user:7") == [made[0], made[2]]
    assert admin.undone() == {1: 3}


def test_each_change_is_compared_with_what_holds_by_then():
    admin = planned().limiter.admin
    admin.raise_limit("user:7", "requests", "4 per minute", plan="free", **WHY)
    assert admin.lower_limit("user:7", "requests", "3 per minute", plan="free", **WHY).before == "4 per minute"
    with pytest.raises(ChangeError, match="not higher than 3 per minute"):
        admin.raise_limit("user:7", "requests", "3 per minute", plan="free", **WHY)


def test_change_that_another_one_overtakes_is_made_of_what_holds_then(two_apps, monkeypatch):
    ann, bob = two_apps().limiter.admin, two_apps()
    store = bob.limiter.engine.store
    add = store.add_change
    overtaken = []

    def add_late(text, last, without=()):
        if not overtaken:
            overtaken.append(ann.raise_limit("user:7", "requests", "4 per minute", plan="free", **WHY))
        return add(text, last, without)

    monkeypatch.setattr(store, "add_change", add_late, raising=True)
    change = bob.limiter.admin.raise_limit("user:7", "requests", "9 per minute", plan="free", **WHY)
    assert (change.number, change.before) == (2, "4 per minute")
    overtaken.clear()
    with pytest.raises(ChangeError, match="9 per minute is not higher than"):
        ann.raise_limit("user:7", "requests", "9 per minute", plan="free", **WHY)


def test_change_whose_answer_was_lost_is_not_made_twice(two_apps, monkeypatch):
    """The script of Redis may run a second time, and then finds its own entry."""
    served = two_apps()
    store = served.limiter.engine.store
    add = store.add_change

    def add_twice(*arguments):
        add(*arguments)
        return add(*arguments)

    monkeypatch.setattr(store, "add_change", add_twice)
    change = served.limiter.admin.suspend("user:7", **WHY)
    assert served.limiter.admin.changes() == [change]


# Several processes


def test_change_is_in_force_in_another_process_after_one_look(two_apps):
    first, second = two_apps(), two_apps()
    assert statuses(second, 1, user="7") == [200]
    first.limiter.admin.suspend("user:7", **WHY)
    first.limiter.admin.raise_limit("user:8", "requests", "9 per minute", **WHY)
    changes_of(second).look()
    assert statuses(second, 1, user="7") == [403]
    assert told(second, user="8")["requests-per-minute"] == 9
    second.limiter.admin.undo(1, **WHY)
    changes_of(first).look()
    assert statuses(first, 1, user="7") == [200]


def test_first_request_of_a_process_knows_the_trail(two_apps, monkeypatch):
    monkeypatch.setattr(watching, "LOOK_EVERY", 0)
    first, second = two_apps(), two_apps()
    changes_of(second)._thread.ensure = lambda: None
    first.limiter.admin.suspend("user:7", **WHY)
    assert statuses(second, 1, user="7") == [403]
    assert statuses(two_apps(), 1, user="7") == [403]


def test_first_request_of_a_process_that_has_just_looked_asks_nothing_more(two_apps, monkeypatch):
    monkeypatch.setattr(watching, "LOOK_EVERY", 3600)
    first, second = two_apps(), two_apps()
    first.limiter.admin.suspend("user:7", **WHY)
    assert statuses(second, 1, user="7") == [200]
    assert statuses(two_apps(), 1, user="7") == [403]


def test_first_request_of_a_forked_process_knows_the_trail(two_apps):
    first, second = two_apps(), two_apps()
    assert statuses(second, 1, user="7") == [200]
    first.limiter.admin.suspend("user:7", **WHY)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"%d" % post(second, user="7").status_code)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"403"
    os.close(reading)
    os.close(writing)


def test_thread_brings_changes_and_ends_with_close(two_apps, monkeypatch):
    monkeypatch.setattr(watching, "LOOK_EVERY", 0.001)
    first, second = two_apps(), two_apps()
    assert statuses(second, 1, user="7") == [200]
    seen = Event()
    look = changes_of(second).look_if_possible

    def look_and_tell():
        look()
        if changes_of(second).trail.last:
            seen.set()

    monkeypatch.setattr(changes_of(second), "look_if_possible", look_and_tell)
    first.limiter.admin.suspend("user:7", **WHY)
    assert seen.wait(60)
    assert statuses(second, 1, user="7") == [403]
    for served in (first, second):
        served.limiter.engine.close()
    for thread in threads_of_changes():
        thread.join(60)
    assert not threads_of_changes()


@pytest.fixture(autouse=True)
def threads_of_before():
    """Those of apps that other tests have left open."""
    _of_before[:] = threading.enumerate()


_of_before = []


def threads_of_changes():
    """Those that the test has begun."""
    every = [thread for thread in threading.enumerate() if thread.name == "flask_ailimit changes of plans"]
    return [thread for thread in every if thread not in _of_before]


def test_thread_ends_when_nobody_has_the_app_any_more(monkeypatch, tmp_path):
    changes = LiveChanges(limited(storage_uri=f"local://{tmp_path}/limits").limiter.engine.store, ManualClock(), 0.001)
    changes.in_force()
    (thread,) = threads_of_changes()
    gone = ref(changes)
    del changes
    gc.collect()
    thread.join(60)
    assert gone() is None
    assert not thread.is_alive()


def test_nothing_looks_where_nobody_else_can_change_anything(two_apps, tmp_path):
    served = planned()
    assert statuses(served, 1, user="7") == [200]
    without = limited(api_key, storage_uri=f"local://{tmp_path}/limits", default_limits=["9 per day"])
    without.app.get("/")(lambda: "")
    without.client().get("/")
    assert not threads_of_changes()


# What goes wrong


def test_damaged_trail_leaves_what_was_known_and_stops_a_start(two_apps, tmp_path, caplog):
    served = two_apps()
    served.limiter.admin.suspend("user:7", **WHY)
    with (tmp_path / "limits" / "changes.jsonl").open("a") as file:
        file.write('{"number":2,"entry":{"v":1}}\n')
    changes_of(served).look_if_possible()
    assert "Changes of plans are not known anew, those known before hold: The entry 2 of" in caplog.text
    assert statuses(served, 1, user="7") == [403]
    with pytest.raises(StoreError, match="The entry 2 of the changes of plans is damaged"):
        two_apps()
    with pytest.raises(StoreError, match="The entry 2"):
        served.limiter.admin.suspend("user:8", **WHY)


def test_trail_that_is_gone_leaves_what_was_known(two_apps, tmp_path, caplog):
    served = two_apps()
    served.limiter.admin.suspend("user:7", **WHY)
    (tmp_path / "limits" / "changes.jsonl").unlink()
    changes_of(served).look_if_possible()
    assert "The store has lost all changes of plans" in caplog.text
    assert statuses(served, 1, user="7") == [403]


def test_trail_that_was_put_back_or_replaced_is_read_anew(two_apps, tmp_path):
    served, other = two_apps(), two_apps()
    file = tmp_path / "limits" / "changes.jsonl"
    served.limiter.admin.suspend("user:7", **WHY)
    copy = file.read_bytes()
    served.limiter.admin.resume("user:7", **WHY)
    changes_of(other).look()
    file.write_bytes(copy)
    changes_of(other).look()
    assert statuses(other, 1, user="7") == [403]


def test_entry_of_a_newer_version_is_left_out_and_said(two_apps, caplog):
    served = two_apps()
    served.limiter.engine.store.add_change('{"v":9,"kind":"pause"}', 0)
    served.limiter.admin.suspend("user:7", **WHY)
    assert "A newer version made the change of plans 1." in caplog.text
    assert statuses(served, 1, user="7") == [403]
    assert [change.number for change in served.limiter.admin.changes()] == [2]


def test_start_says_where_changes_do_not_survive(two_apps, monkeypatch, caplog):
    monkeypatch.setattr("flask_ailimit.engine.stores.directory.file_system", lambda _: "tmpfs")
    two_apps()
    two_apps()
    said = [record for record in caplog.records if "don't survive a restart of the machine" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.WARNING]
    assert "storage_uri='local:///" in said[0].getMessage()


def test_app_that_turns_out_to_be_one_of_tests_has_no_changes_of_a_live_store():
    app = Flask("tested")
    limiter = AILimiter(app=app, plans=PLANS, name="live-changes")
    limiter.identify(who)
    app.post("/")(limiter.limit_by_plan()(answer))
    limiter._states[app].opened.store.add_change(
        written(Change(kind="suspend", at=1, payer=PayerName("user", "7"), words="No.", before="-", **WHY)), 0
    )
    app.testing = True
    response = app.test_client().post("/", query_string={"user": "7"}, json={"model": "small-1"})
    assert response.status_code == 200


# Forgotten payers


def test_forgotten_payer_leaves_no_count_no_change_and_no_name(two_apps, tmp_path):
    served = two_apps(key_prefix="shop")
    admin = served.limiter.admin
    assert statuses(served, 2, user="seven") == [200, 200]
    assert statuses(served, 1, user="eight") == [200]
    admin.suspend("user:seven", **WHY)
    admin.lower_limit("user:eight", "requests", "1 per minute", plan="free", **WHY)
    admin.undo(1, **WHY)
    assert b"seven" in (tmp_path / "limits" / "changes.jsonl").read_bytes()
    admin.forget("user:seven", reason="asked for it", by="ann")
    assert [(change.number, change.kind) for change in admin.changes()] == [(2, "lower"), (4, "forget")]
    assert not [file for file in (tmp_path / "limits").iterdir() if b"seven" in file.read_bytes()[: 1 << 24]]
    assert statuses(served, 3, user="seven") == [200, 200, 429]
    assert admin.changes("user:seven") == []


# The plan file

FILE = """
default_plan = "free"
[plans.free]
requests = "{free} per minute"
[plans.pro]
requests = "{pro} per minute"
"""


@pytest.fixture
def plan_file(tmp_path):
    file = tmp_path / "plans.toml"
    file.write_text(FILE.format(free=2, pro=5))
    return file


def test_reload_brings_the_file_to_all_processes_and_keeps_what_was_changed(two_apps, plan_file):
    first, second = two_apps(plan_file), two_apps(plan_file)
    first.limiter.admin.raise_limit("user:8", "requests", "9 per minute", **WHY)
    for served in (first, second):
        assert statuses(served, 1, user="7") == [200]
    plan_file.write_text(FILE.format(free=3, pro=6))
    changes_of(second).look()
    assert told(second, user="7")["requests-per-minute"] == 2
    admin = first.limiter.admin
    admin.reload(**WHY)
    changes_of(second).look()
    for served in (first, second):
        assert told(served, user="7")["requests-per-minute"] == 3
        assert told(served, user="7/pro")["requests-per-minute"] == 6
        assert told(served, user="8")["requests-per-minute"] == 9
        assert statuses(served, 2, user=f"new-{id(served)}") == [200, 200]
    assert (
        admin.lower_limit("user:7", "requests", "2 per minute", **WHY).before
        == "3 per minute (free), 6 per minute (pro)"
    )


def test_limits_of_a_reloaded_plan_hold_for_requests_and_not_those_of_before(two_apps, plan_file):
    served = two_apps(plan_file)
    assert statuses(served, 3, user="7") == [200, 200, 429]
    plan_file.write_text(FILE.format(free=1, pro=5))
    served.limiter.admin.reload(**WHY)
    assert statuses(served, 2, user="8") == [200, 429]
    plan_file.write_text(FILE.format(free=2, pro=5))
    served.limiter.admin.reload(**WHY)
    assert statuses(served, 3, user="9") == [200, 200, 429]


NONE_STARTS = "No process of the app can start until the file is put right."


def test_file_that_can_not_be_read_leaves_the_plans_and_is_said(two_apps, plan_file, caplog):
    first, second = two_apps(plan_file), two_apps(plan_file)
    plan_file.write_text("[plans.free]\nrequest = 1")
    with pytest.raises(
        ChangeError, match=r"The plans stay as they are\. plans\.toml: plans\.free\.request: there is no such"
    ) as refused:
        first.limiter.admin.reload(**WHY)
    assert str(refused.value).endswith(f". {NONE_STARTS}")
    with pytest.raises(ConfigurationError):
        two_apps(plan_file)
    assert first.limiter.admin.changes() == []
    plan_file.write_text(FILE.format(free=3, pro=6))
    first.limiter.admin.reload(**WHY)
    plan_file.unlink()
    changes_of(second).look()
    assert "The plans stay as they were: plans: " in caplog.text
    assert caplog.records[-1].getMessage().endswith(f" {NONE_STARTS}")
    assert told(second, user="7")["requests-per-minute"] == 2
    assert told(first, user="7")["requests-per-minute"] == 3


def test_reload_while_a_process_starts_is_not_missed(two_apps, plan_file, monkeypatch):
    first = two_apps(plan_file)
    read_after = []

    def look_late(changes, look=LiveChanges.look):
        if not read_after:  # The file was read, and the trail was not.
            read_after.append(plan_file.write_text(FILE.format(free=3, pro=6)))
            first.limiter.admin.reload(**WHY)
        look(changes)

    monkeypatch.setattr(LiveChanges, "look", look_late)
    assert told(two_apps(plan_file), user="7")["requests-per-minute"] == 3


def test_plans_in_a_dictionary_are_not_reloaded():
    with pytest.raises(ChangeError, match="they are a dictionary of the app") as refused:
        planned().limiter.admin.reload(**WHY)
    assert NONE_STARTS not in str(refused.value)


def test_reload_is_in_the_trail_and_can_not_be_undone(two_apps, plan_file):
    admin = two_apps(plan_file).limiter.admin
    change = admin.reload(**WHY)
    assert (change.number, change.kind, change.by) == (1, "reload", "ann")
    with pytest.raises(ChangeError, match="Change 1 \\(reload\\) can't be undone"):
        admin.undo(1, **WHY)


# What breaks it


def test_everybody_can_be_suspended_where_everybody_together_has_no_limits():
    served = planned({"default_plan": "free", "plans": PLANS["plans"]})
    served.limiter.admin.suspend("service", tell="Closed until noon.", **WHY)
    assert post(served, user="7").status_code == 403


@pytest.mark.parametrize("number", [True, 1.0])
def test_number_that_is_no_whole_one_does_not_damage_the_trail(number):
    admin = planned().limiter.admin
    admin.suspend("user:7", **WHY)
    with pytest.raises(ChangeError, match="the trail can't keep this"):
        admin.undo(number, **WHY)
    assert admin.undo(1, **WHY).number == 2


def test_of_several_limits_of_one_period_the_lowest_is_changed():
    plan = {"requests": "20 per minute; 10 per minute"}
    admin = planned({"default_plan": "free", "plans": {"free": plan}}).limiter.admin
    with pytest.raises(ChangeError, match="15 per minute is not lower than 10 per minute"):
        admin.lower_limit("user:7", "requests", "15 per minute", **WHY)
    assert admin.raise_limit("user:7", "requests", "15 per minute", **WHY).before == "10 per minute"


def test_limit_is_changed_of_a_payer_that_was_moved_to_a_plan_that_is_gone(two_apps):
    before = two_apps()
    before.limiter.admin.move("user:7", "pro", **WHY)
    after = two_apps({"default_plan": "free", "plans": {"free": PLANS["plans"]["free"]}})
    after.limiter.admin.raise_limit("user:7", "requests", "4 per minute", **WHY)
    assert told(after, user="7")["requests-per-minute"] == 4


@pytest.mark.parametrize("key_func", [None, lambda: request.args.get("user")])
def test_forgotten_payer_has_no_counts_of_decorators_either(key_func):
    served = limited(key_func, plans=PLANS, storage_uri="memory://")
    if key_func is None:
        served.limiter.identify(who)
    served.app.post("/", endpoint="completions")(served.limiter.limit("1 per day")(answer))
    assert statuses(served, 2, user="7") == [200, 429]
    served.limiter.admin.forget("user:7", **WHY)
    assert statuses(served, 2, user="7") == [200, 429]


# What it costs


def test_many_changed_payers_share_the_plans_that_are_alike():
    changes = LiveChanges(MemoryStore(), ManualClock())
    plan = Plan("free", (PlanLimit("requests", "2 per minute"),))
    limit = WhichLimit("requests", 60, None)
    alike, apart = set(), set()
    for number in range(3000):
        for value, found in (("9 per minute", alike), (f"{number + 3} per minute", apart)):
            change = Change(kind=RAISE, at=1, limit=limit, value=value, payer=PayerName("user", str(number)), **WHY)
            found.add(changes.plan_of(("user", str(number)), InForce(limits=(change,)), plan).key)
    assert (len(alike), len(apart)) == (1, 3000)
    assert len(changes._derived) <= 1024
    assert len(changes._latest) <= 4096


def test_unchanged_payer_has_the_plan_itself():
    served = planned()
    served.limiter.admin.suspend("user:8", **WHY)
    changes = changes_of(served)
    free = served.limiter.app_state.plans.plans["free"]
    assert changes.plan_of(("user", "8"), changes.in_force()["user", "8"], free) is free
