"""An operator grants credit, and a payer whose budget is spent goes on with it."""

from datetime import UTC, datetime, timedelta

import pytest
from flask import request
from limited_apps import limited

from flask_ailimit import Caller, ChangeError, Payer, StoreError
from flask_ailimit.cli import cli
from flask_ailimit.engine.quota import LATEST_SECOND, MAX_EXACT, MOST_GRANTS, NANO
from flask_ailimit.limits.plans.change import EVERYBODY, PayerName
from flask_ailimit.testing import START_US

WHY = {"reason": "a top-up", "by": "ann"}
TYPED = ["--reason", "a top-up", "--by", "ann"]
BODY = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello."}]}
PLANS = {
    "default_plan": "pro",
    "prices": {"*": {"input": "1 USD", "output": "1 USD"}},
    "plans": {
        "pro": {"budget": "10 USD per calendar month", "requests": "1000 per minute"},
        "both": {"budget": "10 USD per calendar month; 5 USD per calendar day"},
        "models": {"budget": "10 USD per calendar month", "models": {"*": {"budget": "9 USD per calendar year"}}},
        "free": {"requests": "9 per minute"},
        "prepaid": {"budget": "0 USD"},
    },
    "service": {"budget": "1000 USD per calendar month"},
}
NOW = datetime.fromtimestamp(START_US / 10**6, UTC)


def who():
    return Caller(**{role: Payer(*value.split("/", 1)) for role, value in request.args.items()})


def answer():
    return {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3}}


def planned(plans=PLANS, *, storage_uri="memory://", **options):
    served = limited(None, plans=plans, storage_uri=storage_uri, **options)
    served.limiter.identify(who)
    served.app.post("/", endpoint="completions")(served.limiter.limit_by_plan()(answer))
    return served


@pytest.fixture
def two_apps(tmp_path):
    """Opens apps over one directory, as two processes would."""
    opened = []

    def open_one(plans=PLANS):
        opened.append(planned(plans, storage_uri=f"local://{tmp_path}/limits"))
        return opened[-1]

    yield open_one
    for each in opened:
        each.limiter._states[each.app].changes.close()
        each.limiter.engine.close()


def status(served, **payers):
    return served.client().post("/", query_string=payers, json=BODY).status_code


def verdicts(served, **payers):
    """What the limits on money of a caller say, by their names."""
    with served.app.test_request_context("/", query_string=payers, method="POST", json=BODY):
        found = served.limiter.peek("completions").verdicts
    return {(each.charge.subject, each.quota.name): each for each in found if each.spending}


def named(served, name, **payers):
    (found,) = [each for (_, each_name), each in verdicts(served, **payers).items() if each_name == name]
    return found


def budget(served, user="7", name="usd-per-calendar-month"):
    """The user's budget; that of everybody together is another one."""
    served_for_all = served.limiter.engine.subject("service", "")
    found = {key: each for key, each in verdicts(served, user=user).items() if key[0] != served_for_all}
    return next(each for (_, each_name), each in found.items() if each_name == name)


def credit_left(served, user="7", name="usd-per-calendar-month"):
    return budget(served, user, name).spending.credit


def spend(served, dollars, user="7", name="usd-per-calendar-month"):
    """Let the user spend so much, as a request would; answers whether it was allowed."""
    charge = budget(served, user, name).charge
    reservation = served.limiter.engine.reserve([charge._replace(dry=False).costing(round(dollars * NANO))])
    if reservation.allowed:
        reservation.settle({})
    return reservation.allowed


def run(served, *arguments, fails=False):
    result = served.app.test_cli_runner().invoke(cli, [*arguments])
    assert (result.exit_code != 0) == fails, result.output
    return result.output


# What a grant does


def test_payer_whose_budget_is_spent_goes_on_with_its_credit_and_nobody_else_does():
    served = planned()
    assert spend(served, 10)
    assert spend(served, 10, user="8")
    assert status(served, user="7") == 429
    served.limiter.admin.credit("user:7", "2 USD", **WHY)
    assert status(served, user="7") == 200
    assert status(served, user="8") == 429
    assert status(served, organisation="7") == 200  # It has a budget of its own, and has not spent it.


def test_request_after_a_grant_has_the_credit_although_one_before_it_was_the_same():
    served = planned({"default_plan": "pro", "prices": PLANS["prices"], "plans": PLANS["plans"]})
    assert spend(served, 10)
    assert status(served, user="7") == 429
    served.limiter.admin.credit("user:7", "2 USD", **WHY)
    assert status(served, user="7") == 200
    served.limiter.admin.undo(1, **WHY)
    assert status(served, user="7") == 429


def test_budget_is_spent_first_and_then_the_grant_that_ends_soonest():
    served = planned()
    admin = served.limiter.admin
    admin.credit("user:7", "2 USD", **WHY)
    admin.credit("user:7", "3 USD", until=timedelta(days=2), **WHY)
    assert credit_left(served) == 5 * NANO
    assert spend(served, 11)
    assert credit_left(served) == 4 * NANO
    served.clock.advance(2 * 86400)  # What was left of the one that ended is lost, and nothing of the other was used.
    assert credit_left(served) == 2 * NANO
    assert spend(served, 2)
    assert not spend(served, 0.01)


def test_credit_hides_nothing_of_what_is_used_of_the_budget():
    served = planned()
    served.limiter.admin.credit("user:7", "20 USD", **WHY)
    assert budget(served).used == 0
    assert spend(served, 4)
    assert budget(served).used == 4 * NANO
    assert spend(served, 10)
    assert (budget(served).used, credit_left(served)) == (10 * NANO, 16 * NANO)
    with served.app.test_request_context("/", query_string={"user": "7"}):
        shown = [each for each in served.limiter.usage().limits if each.unit == "nano_usd"]
    assert [(each.used, each.remaining) for each in shown] == [(10 * NANO, 0)]


def test_shorter_budget_still_bounds_what_is_spent_in_its_window():
    served = planned()
    served.limiter.admin.credit("user:7", "20 USD", **WHY)
    month = budget(served, "7/both")
    day = budget(served, "7/both", "usd-per-calendar-day")
    assert [grant.amount for grant in month.quota.credit] == [20 * NANO]
    assert day.quota.credit == ()
    assert day.remaining == 5 * NANO


def test_budget_of_models_takes_no_credit():
    served = planned()
    served.limiter.admin.credit("user:7", "20 USD", **WHY)
    with served.app.test_request_context("/", query_string={"user": "7/models"}, method="POST", json=BODY):
        usage = served.limiter.usage()
    assert len([each for each in usage.limits if each.unit == "nano_usd"]) == 2
    assert credit_left(served, "7/models") == 20 * NANO
    spent = [each for each in verdicts(served, user="7/models").values() if each.quota.name == "usd-per-calendar-year"]
    assert all(each.quota.credit == () for each in spent)


def test_plan_without_money_of_its_own_is_prepaid():
    served = planned()
    assert not spend(served, 1, "7/prepaid", "usd")
    served.limiter.admin.credit("user:7", "2 USD", **WHY)
    assert spend(served, 1.5, "7/prepaid", "usd")
    assert not spend(served, 1, "7/prepaid", "usd")
    assert spend(served, 0.5, "7/prepaid", "usd")


def test_prepaid_plan_refuses_a_request_without_credit_as_spent_and_lets_it_in_with_some():
    served = planned()
    assert status(served, user="7/prepaid") == 429
    served.limiter.admin.credit("user:7", "2 USD", **WHY)
    assert status(served, user="7/prepaid") == 200


def test_everybody_together_may_have_credit():
    served = planned({**PLANS, "service": {"budget": "1 USD per calendar month"}})
    served.limiter.admin.credit("service", "2 USD", **WHY)
    everybody = served.limiter.engine.subject("service", "")
    found = verdicts(served, user="7")
    assert found[everybody, "usd-per-calendar-month"].spending.credit == 2 * NANO
    assert budget(served).quota.credit == ()


def test_grant_that_begins_later_is_used_from_then_on():
    served = planned()
    served.limiter.admin.credit("user:7", "2 USD", begins=NOW + timedelta(days=1), until=timedelta(days=1), **WHY)
    assert credit_left(served) == 0
    served.clock.advance(86400)
    assert credit_left(served) == 2 * NANO
    served.clock.advance(86400)
    assert credit_left(served) == 0


def test_grants_that_have_ended_are_not_handed_to_the_store_for_ever():
    served = planned()
    for _ in range(3):
        served.limiter.admin.credit("user:7", "2 USD", until=timedelta(minutes=1), **WHY)
    served.clock.advance(2 * 3600)
    assert budget(served).quota.credit == ()


def test_budget_that_is_only_tried_beside_another_has_the_credit_too():
    served = planned({**PLANS, "plans": {"pro": {"budget": {"limit": "10 USD per day", "candidate": "5 USD per day"}}}})
    served.limiter.admin.credit("user:7", "2 USD", **WHY)
    with served.app.test_request_context("/", query_string={"user": "7"}, method="POST", json=BODY):
        found = [each for each in served.limiter.peek("completions").verdicts if each.quota.credit]
    assert sorted((each.charge.shadow, each.quota.limit) for each in found) == [(False, 10 * NANO), (True, 5 * NANO)]


def test_budget_that_is_only_tried_in_another_window_takes_nothing_from_the_one_that_holds():
    both = {"limit": "0 USD per calendar month", "candidate": "0 USD per calendar year"}
    served = planned({**PLANS, "plans": {"pro": {"budget": both}}})
    served.limiter.admin.credit("user:7", "1 USD", **WHY)
    for used in range(3):
        assert budget(served).spending.credit == NANO - used * 5000
        assert status(served, user="7") == 200
    assert budget(served, name="usd-per-calendar-year").spending.credit == NANO - 15_000


# Two processes, moves, reloads, and what takes credit back


def test_other_process_sees_a_grant_at_its_next_look_and_burns_the_same_one(two_apps):
    first, second = two_apps(), two_apps()
    assert spend(first, 10)
    first.limiter.admin.credit("user:7", "2 USD", **WHY)
    assert credit_left(second) == 0
    second.limiter._states[second.app].changes.look()
    assert spend(second, 1.5)
    assert credit_left(first) == NANO // 2
    assert not spend(first, 1)


def test_grant_and_what_was_used_of_it_outlive_the_processes(two_apps):
    first = two_apps()
    first.limiter.admin.credit("user:7", "2 USD", **WHY)
    assert spend(first, 11.5)
    assert credit_left(two_apps()) == NANO // 2


def test_payer_under_a_plan_without_a_budget_keeps_its_credit_unused():
    served = planned()
    admin = served.limiter.admin
    admin.credit("user:7", "2 USD", **WHY)
    admin.move("user:7", "free", **WHY)
    assert verdicts(served, user="7").keys() == {
        (served.limiter.engine.subject("service", ""), "usd-per-calendar-month")
    }
    assert status(served, user="7") == 200
    with pytest.raises(ChangeError, match=r"no budget in USD over all models.*: none\."):
        admin.credit("user:7", "2 USD", **WHY)
    admin.move("user:7", None, **WHY)
    assert credit_left(served) == 2 * NANO


def test_credit_that_was_used_beside_one_budget_is_used_beside_every_other():
    prices = {"*": {"input": "1 USD", "output": "1 USD"}}
    texts = {
        "month": "0 USD per calendar month",
        "ever": "0 USD",
        "two": "9 USD per calendar month; 0 USD per calendar year",
        "session": "0 USD per session of 5 hours",
        "hours": "0 USD per 5 hours",
    }
    plans = {"prices": prices, "plans": {name: {"budget": text} for name, text in texts.items()}}
    served = planned(plans)
    served.limiter.admin.credit("user:7", "1 USD", **WHY)
    for used, name in enumerate(texts):
        before = {each: credit_under(served, each) for each in texts}
        assert set(before.values()) == {NANO - used * 5000}
        assert status(served, user=f"7/{name}") == 200


def credit_under(served, plan):
    return max(each.spending.credit for each in verdicts(served, user=f"7/{plan}").values())


def test_credit_stays_used_when_the_file_is_read_again_with_other_budgets(tmp_path):
    file = tmp_path / "plans.toml"
    prices = '[prices."*"]\ninput = "1 USD"\noutput = "1 USD"\n'

    def write(budget):
        file.write_text(f'default_plan = "pro"\n[plans.pro]\nbudget = "{budget}"\n{prices}')

    write("0 USD per session of 5 hours")
    served = planned(str(file))
    served.limiter.admin.credit("user:7", "1 USD", **WHY)
    for used, budget in enumerate(["0 USD per session of 4 hours", "0 USD per 3 hours", "0 USD per calendar week"]):
        assert credit_under(served, "pro") == NANO - used * 5000
        assert status(served, user="7/pro") == 200
        write(budget)
        served.limiter.admin.reload(**WHY)
        with served.app.app_context():
            served.limiter.app_state.changes.look()


def test_undone_grant_is_gone_and_what_was_used_of_it_stays_used():
    served = planned()
    admin = served.limiter.admin
    admin.credit("user:7", "2 USD", **WHY)
    assert spend(served, 11)
    admin.undo(1, **WHY)
    assert credit_left(served) == 0
    assert not spend(served, 0.01)
    admin.credit("user:7", "3 USD", **WHY)
    assert credit_left(served) == 3 * NANO


def test_forgotten_payer_has_neither_credit_nor_entries():
    served = planned()
    admin = served.limiter.admin
    admin.credit("user:7", "2 USD", **WHY)
    assert spend(served, 12)
    admin.forget("user:7", **WHY)
    assert (credit_left(served), budget(served).spending.spent) == (0, 0)
    assert admin.changes("user:7") == []
    admin.credit("user:7", "2 USD", **WHY)  # Its number is another one.
    assert credit_left(served) == 2 * NANO


def test_reset_takes_no_grant_away():
    served = planned()
    served.limiter.admin.credit("user:7", "2 USD", **WHY)
    assert spend(served, 11)
    served.limiter.engine.reset()
    assert credit_left(served) == 2 * NANO


def test_raised_budget_has_the_credit_beside_it():
    served = planned()
    served.limiter.admin.credit("user:7", "2 USD", **WHY)
    served.limiter.admin.raise_limit("user:7", "budget", "20 USD per calendar month", plan="pro", **WHY)
    found = budget(served)
    assert (found.quota.limit, found.spending.credit) == (20 * NANO, 2 * NANO)


# What is refused


@pytest.mark.parametrize(
    ("payer", "amount", "options", "says"),
    [
        (
            "user:7",
            "2 EUR",
            {},
            r"user:7 has no budget in EUR over all models.*10.00 USD per calendar month \(UTC\) \(pro",
        ),
        ("user:7", "1000 tokens", {}, "user:7 has no budget in tokens over all models"),
        ("user:7", "-5 USD", {}, "to take credit back, undo its grant.*flask ailimit changes user:7"),
        ("user:7", "\N{MINUS SIGN}5 USD", {}, "undo its grant"),
        ("user:7", "5", {}, "an amount and its unit are needed, such as '20 USD'"),
        ("user:7", "0 USD", {}, "more than nothing is needed"),
        ("user", "5 USD", {}, "A payer is a role and an id"),
        ("user:7", "5 USD", {"until": NOW}, "credit ends after it begins"),
        ("user:7", "5 USD", {"until": timedelta(0)}, "credit ends after it begins"),
        ("user:7", "5 USD", {"until": datetime(2107, 1, 1, tzinfo=UTC)}, "before 2106"),
        ("user:7", "5 USD", {"until": datetime(2030, 1, 1)}, "until: a time with a time zone"),  # noqa: DTZ001
        ("user:7", "5 USD", {"begins": datetime(2030, 1, 1)}, "begins: a time with a time zone"),  # noqa: DTZ001
        ("user:7", "5 USD", {"begins": NOW + timedelta(2), "until": NOW + timedelta(1)}, "credit ends after it begins"),
        ("user:7", "5 USD", {"begins": datetime(1960, 1, 1, tzinfo=UTC)}, "credit ends after it begins"),
        ("user:7", "5 USD", {"reason": ""}, "reason: a text of one line is needed"),
    ],
)
def test_what_can_not_be_granted_is_refused_with_a_sentence(payer, amount, options, says):
    served = planned()
    with pytest.raises(ChangeError, match=says):
        served.limiter.admin.credit(payer, amount, **{**WHY, **options})
    assert served.limiter.admin.changes() == []


def test_payer_has_no_more_grants_than_a_decision_looks_at():
    served = planned()
    admin = served.limiter.admin
    admin.credit("user:7", "1 USD", until=timedelta(minutes=1), **WHY)
    for _ in range(MOST_GRANTS - 1):
        admin.credit("user:7", "1 USD", **WHY)
    with pytest.raises(ChangeError, match="has 64 grants that have not ended"):
        admin.credit("user:7", "1 USD", **WHY)
    assert spend(served, 10 + MOST_GRANTS)
    served.clock.advance(60)
    admin.credit("user:7", "1 USD", **WHY)
    assert credit_left(served) == NANO


def test_payer_is_granted_no_more_than_is_counted_exactly():
    served = planned()
    admin = served.limiter.admin
    admin.credit("user:7", f"{MAX_EXACT // NANO} USD", **WHY)
    with pytest.raises(ChangeError, match=r"more than 9007199.254740991 USD by all its grants"):
        admin.credit("user:7", "1 USD", **WHY)
    admin.credit("user:7", "0.25 USD", **WHY)
    assert credit_left(served) == MAX_EXACT // NANO * NANO + NANO // 4


def test_service_without_limits_has_no_credit():
    served = planned({name: value for name, value in PLANS.items() if name != "service"})
    with pytest.raises(ChangeError, match=r"no \[service\]"):
        served.limiter.admin.credit("service", "1 USD", **WHY)


def test_store_that_may_lose_credit_is_granted_none(monkeypatch):
    served = planned()
    state = served.limiter._states[served.app]
    monkeypatch.setattr(state.durability, "_is_accepted", lambda: False)
    with pytest.raises(ChangeError, match="storage_uri is memory://"):
        served.limiter.admin.credit("user:7", "1 USD", **WHY)


def test_store_that_is_away_keeps_no_grant(monkeypatch):
    served = planned()

    def away(*_):
        raise StoreError("away")

    monkeypatch.setattr(served.limiter.engine.store, "add_change", away)
    with pytest.raises(StoreError):
        served.limiter.admin.credit("user:7", "1 USD", **WHY)


# What is known without a request


def test_trail_knows_what_was_granted():
    served = planned()
    admin = served.limiter.admin
    change = admin.credit("user:7", "+20.50 USD", until=NOW + timedelta(days=30), **WHY)
    assert (change.payer, change.after, change.before) == (PayerName("user", "7"), "20.50 USD", None)
    assert change.credit == ("nano_usd", 20_500_000_000, 0, START_US // 10**6 + 30 * 86400)
    forever = admin.credit("service", "1 USD", **WHY)
    assert (forever.payer, forever.credit.ends) == (EVERYBODY, LATEST_SECOND)
    assert admin.changes("user:7") == [change]


def test_commands_grant_credit_and_say_what_was_granted(made):
    served = made(None, plans=PLANS)
    served.app.post("/")(served.limiter.limit_by_plan()(answer))
    assert run(served, "credit", "user:7", "+20", "USD", "--until", "2099-12-31", *TYPED).splitlines()[0] == (
        "Change 1: credit user:7: 20.00 USD until 2100-01-01 00:00:00 UTC"
    )
    assert run(served, "credit", "user:7", "2.50 USD", *TYPED) == "Change 2: credit user:7: 2.50 USD, without an end\n"
    lasting = ["--from", "2098-01-01", "--until", "2099-01-01T12:00+01:00"]
    assert run(served, "credit", "user:7", "1", "USD", *lasting, *TYPED) == (
        "Change 3: credit user:7: 1.00 USD from 2098-01-01 00:00:00 UTC until 2099-01-01 11:00:00 UTC\n"
    )
    assert run(served, "undo", "2", *TYPED) == "Change 4: undo 2\n"
    assert "UTC  ann: credit user:7: 2.50 USD, without an end\n    reason: a top-up\n    undone by 4" in (
        run(served, "changes", "user:7")
    )
    said = run(served, "usage", "user:7", "--plan", "pro").splitlines()
    assert said[:3] == [
        "granted by change 3: 1.00 USD from 2098-01-01 00:00:00 UTC until 2099-01-01 11:00:00 UTC",
        "granted by change 1: 20.00 USD until 2100-01-01 00:00:00 UTC",
        "by the plan pro",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-5", "USD", *TYPED], "to take credit back, undo its grant"),
        (["+5", "USD"], "Missing option '--reason'"),
        (["+5", "USD", "--until", "soon", *TYPED], "--until: a time is needed, such as 2026-12-01T18:00"),
        (["+5", "USD", "--until", "9999-12-31", *TYPED], "--until: a day before the end of the year 9999 is needed"),
        (["+5", "USD", "--until", "9999-12-30", *TYPED], "before 2106. Got"),
        (["+5", "USD", "--from", "now", *TYPED], "--from: a time is needed"),
        (["+5", "USD", "--untli", "2030-01-01", *TYPED], "an amount and its unit are needed"),
        ([*TYPED], "Missing argument 'AMOUNT UNIT'"),
    ],
)
def test_wrong_command_says_what_is_wrong(made, arguments, says):
    served = made(None, plans=PLANS)
    assert says in run(served, "credit", "user:7", *arguments, fails=True)
    assert run(served, "changes") == "Nothing was changed.\n"


@pytest.mark.parametrize(
    ("limits", "credit", "granted"),
    [
        ({"tokens": {"limit": "30 per calendar day", "algorithm": "budget"}}, "30 tokens", 6),
        ({"requests": {"limit": "2 per calendar day", "algorithm": "budget"}}, "3 requests", 3),
    ],
    ids=["tokens", "requests"],
)
def test_credit_of_what_is_no_money_stands_beside_a_limit_that_is_counted_as_a_budget(limits, credit, granted):
    served = planned({"default_plan": "pro", "plans": {"pro": limits}})
    assert 429 in [status(served, user="7/pro") for _ in range(20)]
    with served.app.app_context():
        served.limiter.admin.credit("user:7", credit, **WHY)
    answers = [status(served, user="7/pro") for _ in range(20)]
    assert answers == [200] * granted + [429] * (20 - granted)
    refused = served.client().post("/", query_string={"user": "7/pro"}, json=BODY)
    assert refused.json["error"]["code"] == "insufficient_quota"
    served.clock.advance(86400)
    assert status(served, user="7/pro") == 200
