"""``flask ailimit usage``, ``reset`` and ``forgive`` for payers of plans, as operators have changed these."""

import re

import pytest
from flask import request

from flask_ailimit import Caller, Payer, StoreError, api_key
from flask_ailimit.cli import cli
from flask_ailimit.engine.stores.local import LocalStore

PLANS = {
    "plans": {
        "free": {"tokens": "10 per hour", "concurrency": 2},
        "pro": {"tokens": "100 per hour", "models": {"large-*": {"input_tokens": "20 per hour"}, "*": True}},
    },
    "service": {"requests": "50 per hour"},
}
WHY = {"reason": "a phone call", "by": "ann"}
TYPED = ["--reason", "a phone call", "--by", "ann"]
NOTE = "Note: nothing is counted for this payer now"
HINT = "What a payer, such as user:7, has left of its plan is shown with --plan NAME. The plans are free, pro.\n"


def who():
    return Caller(user=Payer(request.args["user"], plan=request.args["plan"]))


def planned(make, *arguments, **options):
    served = make(*arguments, plans=PLANS, default_output_tokens=0, **options)
    served.limiter.identify(who)

    @served.app.post("/")
    @served.limiter.limit_by_plan()
    def answer():
        served.limiter.record_usage(input_tokens=int(request.args.get("tokens", 1)))
        return {}

    return served


@pytest.fixture
def served(made):
    return planned(made)


def post(served, user="7", plan="free", tokens=1, model="small", key="a"):
    query = {"user": user, "plan": plan, "tokens": tokens}
    return served.client(key).post("/", query_string=query, json={"model": model}).status_code


def run(served, *arguments, fails=False, given=None):
    """What a command prints, without times; of one that fails its error."""
    result = served.app.test_cli_runner().invoke(cli, [*arguments], input=given)
    assert (result.exit_code != 0) == fails, result.output
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z|[\d.]+ s\b", "TIME", result.output)


# usage


def test_usage_of_a_payer_shows_what_operators_changed(served):
    post(served, plan="pro")
    run(served, "boost", "user:7", "tokens", "1000 per hour", "--plan", "pro", "--for", "2h", *TYPED)
    assert (
        "    tokens-per-hour: 999 of 1000 left, full again in TIME  (boost until TIME, in the plan 100 per TIME)\n"
        in run(served, "usage", "user:7", "--plan", "pro")
    )
    hashed = served.limiter.engine.subject("user", "7").hex()
    assert "999 of 1000 left" in run(served, "usage", "--hash", hashed, "--plan", "pro")
    assert "100 of 100 left" in run(served, "usage", "user:8", "--plan", "pro")


def test_usage_says_that_a_payer_is_suspended(served):
    served.limiter.admin.suspend("user:7", tell="Call us.", **WHY)
    assert run(served, "usage", "user:7", "--plan", "free").startswith("suspended: Call us.\nby the plan free\n")
    assert "suspended: Call us.\n" in run(served, "usage", "user:7")
    assert "suspended" not in run(served, "usage", "user:8")


def test_usage_of_a_payer_that_was_moved_is_of_its_plan_whatever_is_named(served):
    served.limiter.admin.move("user:7", "pro", **WHY)
    of_pro = "moved to pro\nby the plan pro\n    tokens-per-hour: 100 of 100 left"
    assert run(served, "usage", "user:7", "--plan", "free").startswith(of_pro)
    assert of_pro in run(served, "usage", "user:7")
    assert "--plan NAME" not in run(served, "usage", "user:7")


def test_usage_without_a_plan_says_how_that_of_a_payer_is_seen(served):
    assert HINT in run(served, "usage", "user:7")
    assert HINT in run(served, "usage", "alice")
    assert "by the plan service\n    requests-per-hour: 50 of 50 left" in run(served, "usage", "service")


def test_key_that_looks_like_a_payer_is_not_repeated(served):
    for command in ("usage", "reset", "forgive"):
        assert "secret" not in run(served, command, "-", given="sk:secret\n")
    assert "secret" not in run(served, "usage", "-", "--plan", "free", given="Sk:secret\n", fails=True)


def test_app_without_plans_hints_at_none(made):
    served = made(api_key)
    assert "--plan" not in run(served, "usage", "user:7")
    assert "this app has no plans" in run(served, "usage", "user:7", "--plan", "free", fails=True)


# reset and forgive


def test_reset_forgets_the_counts_of_a_payer_and_of_no_other(served):
    post(served, tokens=30)
    post(served, user="8", tokens=30)
    assert (post(served), post(served, user="8")) == (429, 429)
    assert run(served, "reset", "user:7") == "1 count is forgotten.\n"
    assert (post(served), post(served, user="8")) == (200, 429)
    assert run(served, "reset", "service") == "1 count is forgotten.\n"


def test_key_and_payer_of_one_name_are_both_reset(made):
    served = planned(made, api_key)
    served.app.get("/plain", endpoint="plain")(served.limiter.limit("2 per day")(dict))
    post(served)
    served.client("user:7").get("/plain")
    assert run(served, "reset", "user:7") == "2 counts are forgotten.\n"


def test_payer_is_forgiven_under_the_plan_that_is_named(served):
    post(served, tokens=30)
    assert post(served) == 429
    assert run(served, "forgive", "user:7", "--plan", "free") == "by plan\n    tokens-per-hour: debt lifted\n"
    assert post(served) == 200
    assert run(served, "forgive", "user:7", "--plan", "free") == "Nothing is owed.\n"


def test_payer_of_an_unknown_plan_is_forgiven_what_it_owes_under_each(served):
    post(served, plan="pro", tokens=300, model="large-1")
    assert run(served, "forgive", "user:7") == (
        "by plan\n    tokens-per-hour: debt lifted\n    input-tokens-per-hour of large-*: debt lifted\n"
    )
    assert post(served, plan="pro", model="large-1") == 200


def test_what_a_larger_plan_allows_is_not_forgiven_unless_the_plan_is_known(served):
    post(served, tokens=30)
    assert run(served, "forgive", "user:7") == (
        "by plan\n    tokens-per-hour: not lifted, it is owed under free, not under pro. "
        "Name the payer's plan (--plan)\n"
    )
    assert post(served) == 429
    served.limiter.admin.move("user:7", "pro", **WHY)
    assert run(served, "forgive", "user:7") == "Nothing is owed.\n"
    served.limiter.admin.move("user:7", "free", **WHY)
    assert "tokens-per-hour: debt lifted" in run(served, "forgive", "user:7")


def test_payer_is_forgiven_what_it_owes_under_a_limit_that_was_changed(served):
    served.limiter.admin.lower_limit("user:7", "tokens", "20 per hour", plan="pro", **WHY)
    post(served, plan="pro", tokens=30)
    assert post(served, plan="pro") == 429
    assert "debt lifted" in run(served, "forgive", "user:7", "--plan", "pro")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["user:7", "--plan", "gold"], "--plan: the plans of this app are free, pro."),
        (["7", "--plan", "free"], "--plan: SUBJECT is the role and the id of a payer"),
        (["service", "--plan", "free"], "has the limits of [service], and no other plan"),
        (["user:7", "--plan", "free", "--by", "who"], "either a key of this function, or a payer"),
    ],
)
def test_wrong_plan_is_said_and_nothing_is_lifted(served, arguments, says):
    post(served, tokens=30)
    assert says in run(served, "forgive", *arguments, fails=True)
    assert post(served) == 429


# Mistyped payers


def test_payer_of_whom_nothing_is_known_may_be_mistyped(served):
    post(served)
    assert NOTE not in run(served, "suspend", "user:7", *TYPED)
    assert NOTE not in run(served, "move", "user:7", "pro", *TYPED)
    assert NOTE in run(served, "suspend", "user:888", *TYPED)
    assert NOTE not in run(served, "resume", "user:888", *TYPED)
    assert NOTE in run(served, "move", "customer:7", "pro", *TYPED)
    assert NOTE not in run(served, "lower", "service", "requests", "9 per hour", *TYPED)
    assert NOTE not in run(served, "undo", "1", *TYPED)


def test_change_that_was_made_does_not_fail_because_counts_can_not_be_read(served, monkeypatch):
    def away(*_):
        raise StoreError("away")

    monkeypatch.setattr(LocalStore, "peek", away)
    assert NOTE not in run(served, "suspend", "user:888", *TYPED)


def test_limit_that_is_not_there_comes_with_a_hint(served):
    def error(*arguments):
        return run(served, "raise", "user:7", *arguments, *TYPED, fails=True)

    assert "Did you mean tokens? There are: tokens 10 per hour (free)" in error("token", "500 per hour")
    assert "There is one for models: --model 'large-*'. There are:" in error("input_tokens", "500 per hour")
    assert "input_tokens of large-* 20 per hour (pro)" in error("input-tokens", "500 per hour")
    assert "Did you mean" not in error("tokens", "500 per minute")
