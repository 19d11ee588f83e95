"""What is in force follows from the trail alone, whoever reads it and however often."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit import StoreError
from flask_ailimit.engine.grant import Grant
from flask_ailimit.engine.quota import LATEST_SECOND, MAX_EXACT
from flask_ailimit.limits.plans.change import (
    BOOST,
    CREDIT,
    EVERYBODY,
    FORGET,
    LOWER,
    MOVE,
    RAISE,
    RESUME,
    SUSPEND,
    UNDO,
    Change,
    PayerName,
    WhichLimit,
    read,
    written,
)
from flask_ailimit.limits.plans.credit import Credit
from flask_ailimit.limits.plans.derived import derived, limits_in
from flask_ailimit.limits.plans.plan import IN_PLAN, ModelRule, Plan, PlanLimit, Source
from flask_ailimit.limits.plans.trail import InForce, Trail, in_force
from flask_ailimit.unlimited import UNLIMITED

NOW = 1000
PAYERS = [PayerName("user", "7"), PayerName("organisation", "7"), PayerName("user", "a:b"), EVERYBODY]
MINUTE, HOUR = WhichLimit("requests", 60, None), WhichLimit("tokens", 3600, "large-*")
IN_FLIGHT = WhichLimit("concurrency", 0, None)
DAY, BUDGET = WhichLimit("tokens", 86400, None, "day"), WhichLimit("nano_usd", 31 * 86400, None, "month")

texts = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20)
plans = st.sampled_from([None, "free", "pro"])


@st.composite
def changes(draw):
    """One change, which may undo any of the first eight."""
    kind = draw(st.sampled_from([RAISE, LOWER, BOOST, SUSPEND, RESUME, MOVE, CREDIT, UNDO]))
    change = Change(kind=kind, at=draw(st.integers(0, 2000)), by=draw(texts), reason=draw(texts))
    if kind == UNDO:
        return replace(change, undone=draw(st.integers(1, 8)))
    change = replace(change, payer=draw(st.sampled_from(PAYERS)))
    if kind == CREDIT:
        begins = draw(st.integers(0, NOW))
        ends = draw(st.integers(begins + 1, NOW + 2) | st.just(LATEST_SECOND))
        unit = draw(st.sampled_from(["nano_usd", "pages"]))
        return replace(change, credit=Credit(unit, draw(st.integers(1, MAX_EXACT)), begins, ends))
    change = replace(change, before=draw(st.none() | texts))
    if kind == SUSPEND:
        return replace(change, words=draw(texts))
    if kind == MOVE:
        return replace(change, plan=draw(plans))
    if kind == RESUME:
        return change
    limit = draw(st.sampled_from([MINUTE, HOUR, IN_FLIGHT, DAY, BUDGET]))
    number = draw(st.integers(1, 9))
    value = {
        MINUTE: f"{number} per minute",
        HOUR: f"{number} per hour",
        IN_FLIGHT: number,
        DAY: f"{number} per calendar day",
        BUDGET: f"{number} USD per calendar month",
    }[limit]
    until = draw(st.sampled_from([NOW - 1, NOW, NOW + 1])) if kind == BOOST else None
    return replace(change, limit=limit, value=value, plan=draw(plans), until=until)


trails = st.lists(changes(), max_size=12)


def numbered(trail):
    return [replace(change, number=number) for number, change in enumerate(trail, 1)]


def trail_of(some):
    trail = Trail()
    for change in some:
        trail.add(change.number, written(change), change)
    return trail


def undone_in(trail):
    """The numbers of what is undone: the plain rule."""
    undone = set()
    for change in trail:
        if change.kind == UNDO and change.undone < change.number:
            target = trail[change.undone - 1]
            if target.kind != UNDO:
                undone.add(target.number)
    return undone


@given(changes())
def test_entry_is_read_as_it_was_written(change):
    assert read(7, written(change)) == replace(change, number=7)
    assert "\n" not in written(change)


@given(trails)
def test_payers_do_not_meet_and_undone_changes_were_never_made(some):
    some = numbered(some)
    undone = undone_in(some)
    kept = [change for change in some if change.kind != UNDO and change.number not in undone]
    for payer in PAYERS:
        alone = in_force([change for change in kept if change.payer == payer])
        assert trail_of(some).in_force.get(payer) == alone


@given(trails)
def test_last_word_on_each_matter_holds(some):
    """Against a plain reading of the trail from its end."""
    some = numbered(some)
    undone = undone_in(some)
    for payer in PAYERS:
        own = [change for change in some if change.payer == payer and change.number not in undone]
        found = trail_of(some).in_force.get(payer) or InForce()
        status = [change for change in own if change.kind in (SUSPEND, RESUME)]
        assert found.suspended == (status[-1].words if status else None)
        granted = {change.number: change.credit for change in own if change.kind == CREDIT}
        grants = [(unit, grant) for unit, some in found.grants.items() for grant in some]
        assert sorted(grants) == sorted((unit, Grant(number, *lasting)) for number, (unit, *lasting) in granted.items())
        moves = [change for change in own if change.kind == MOVE]
        assert found.plan == (moves[-1].plan if moves else None)
        for plan in ("free", "pro"):
            values = {limit: (value, source) for limit, value, source in found.values(plan, NOW)}
            for limit in (MINUTE, HOUR, IN_FLIGHT):
                about = [change for change in own if change.limit == limit and change.plan in (None, plan)]
                boosts = [change for change in about if change.kind == BOOST and change.until > NOW]
                lasting = [change for change in about if change.kind in (RAISE, LOWER)]
                wanted = (boosts or lasting or [None])[-1]
                source = Source("boost", boosts[-1].until) if boosts else Source("change")
                assert values.get(limit) == (wanted and (wanted.value, source))


@given(trails, st.sampled_from(PAYERS), trails)
def test_forgotten_payer_leaves_what_a_trail_without_it_would_be(before, payer, after):
    some = numbered(before)
    trail = trail_of(some)
    gone = tuple(trail.of_payer(payer))
    forget = Change(number=len(some) + 1, kind=FORGET, at=0, by="ann", reason="asked", forgotten=gone)
    later = [replace(change, number=forget.number + number) for number, change in enumerate(after, 1)]
    for change in [forget, *later]:
        trail.add(change.number, written(change), change)
    erased = trail_of([change for change in [*some, forget, *later] if change.number not in gone])
    assert trail.in_force == erased.in_force
    assert trail.entries == erased.entries
    assert trail.undone == erased.undone
    about = [change for change in trail.entries.values() if change.number <= forget.number]
    assert payer not in [change.payer for change in about]


def test_entry_of_a_newer_version_is_none_of_ours():
    assert read(3, '{"v":9,"kind":"pause","what":["ever"]}') is None


def entry(**changed):
    """A good entry, with some keys changed; None takes a key out."""
    limit = {
        "unit": "requests",
        "period": 60,
        "model": None,
        "plan": None,
        "value": "2 per minute",
        "from": "1 per minute",
    }
    good = {"v": 1, "at": 1, "by": "ann", "reason": "r", "kind": "raise", "role": "user", "id": "7", **limit, **changed}
    return {key: value for key, value in good.items() if value != "gone"}


def credit_entry(**changed):
    """The same of a grant."""
    grant = {"role": "user", "id": "7", "unit": "nano_usd", "amount": 20, "begins": 0, "ends": 2000}
    good = {"v": 3, "at": 1, "by": "ann", "reason": "r", "kind": "credit", **grant, **changed}
    return {key: value for key, value in good.items() if value != "gone"}


def test_good_entry_is_read():
    assert read(1, json.dumps(entry())).value == "2 per minute"
    assert read(1, json.dumps(credit_entry())).credit == Credit("nano_usd", 20, 0, 2000)


def test_grant_is_of_a_version_that_older_libraries_pass_over():
    change = Change(kind=CREDIT, by="ann", reason="r", payer=PAYERS[0], credit=Credit("nano_usd", 1, 0, 1))
    assert json.loads(written(change))["v"] == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[1]", "it has no version"),
        (json.dumps(entry(v="1")), "it has no version"),
        (json.dumps(entry(kind="rise")), "there is no kind 'rise'"),
        (json.dumps(entry(kind=["raise"])), r"there is no kind \['raise'\]"),
        (json.dumps(entry(by="gone")), "missing: 'by'"),
        (json.dumps(entry(more=1)), "missing: 'more'"),
        (json.dumps(entry(by="")), "by can't be ''"),
        (json.dumps(entry(reason="two\nlines")), r"reason can't be 'two\\nlines'"),
        (json.dumps(entry(role="Service")), "role can't be 'Service'"),
        (json.dumps(entry(id="\u0000")), "id can't be"),
        (json.dumps(entry(id="")), "there is no payer user"),
        (json.dumps(entry(role="service")), "there is no payer service:7"),
        (json.dumps(entry(period=True)), "period can't be True"),
        (json.dumps(entry(value=0)), "value can't be 0"),
        (json.dumps(entry(value=4)), "4 is no limit on requests per 60 s"),
        (json.dumps(entry(value="2 per hour")), "'2 per hour' is no limit on requests per 60 s"),
        (json.dumps(entry(unit="concurrency", period=0)), "'2 per minute' is no limit on concurrency per 0 s"),
        (json.dumps(credit_entry(amount=0)), "amount can't be 0"),
        (json.dumps(credit_entry(amount=2**53)), f"amount can't be {2**53}"),
        (json.dumps(credit_entry(amount=1.5)), "amount can't be 1.5"),
        (json.dumps(credit_entry(amount=True)), "amount can't be True"),
        (json.dumps(credit_entry(begins=-1)), "begins can't be -1"),
        (json.dumps(credit_entry(ends=2**32)), f"ends can't be {2**32}"),
        (json.dumps(credit_entry(begins=2000)), "its credit ends at 2000, which is not after 2000"),
        (json.dumps(credit_entry(unit="")), "unit can't be ''"),
        (json.dumps(credit_entry(ends="gone")), "missing: 'ends'"),
        (json.dumps(credit_entry(value="2 per minute")), "too many, or missing: 'value'"),
        (json.dumps(credit_entry(role="service")), "there is no payer service:7"),
    ],
)
def test_damaged_entry_says_which_it_is_and_what_is_wrong(text, says):
    with pytest.raises(StoreError, match=f"^The entry 12 of the changes of plans is damaged: .*{says}") as raised:
        read(12, text)
    assert not raised.value.transient


@given(
    st.recursive(st.none() | st.integers() | st.floats() | st.text() | st.booleans(), st.lists, max_leaves=4),
    st.sampled_from([entry, credit_entry]),
    st.data(),
)
def test_no_entry_crashes_the_reader(value, made, data):
    key = data.draw(st.sampled_from(list(made())))
    with suppress(StoreError):
        assert read(1, json.dumps(made(**{key: value}))) is not None or value > 1


# A plan with other values

PRO = Plan(
    "pro",
    (
        PlanLimit("requests", "10 per minute; 200/day", burst=30, name="calls"),
        PlanLimit("tokens", UNLIMITED),
        PlanLimit("concurrency", 2, lease=30),
        PlanLimit("pages", "0 per 30 second"),
    ),
    (ModelRule("large-*", limits=(PlanLimit("tokens", "900 per hour"),)), ModelRule("small-*")),
)
CHANGE = Source("change")


def test_only_the_limit_of_that_window_gets_the_value():
    found = derived(PRO, ((MINUTE, "20 per minute", CHANGE),))
    assert found.limits == (
        PlanLimit("requests", "20 per minute", burst=60, name="calls-per-minute", source=CHANGE),
        PlanLimit("requests", "200/day", burst=30, name="calls-per-day"),
        *PRO.limits[1:],
    )
    assert found.models == PRO.models
    assert found.name == PRO.name


def test_value_of_a_model_is_not_that_of_all_models():
    found = derived(PRO, ((HOUR, "5 per hour", CHANGE), (WhichLimit("tokens", 3600, None), "6 per hour", CHANGE)))
    assert found.limits == PRO.limits
    assert found.models[0].limits == (PlanLimit("tokens", "5 per hour", source=CHANGE),)


def test_each_limit_of_a_plan_is_known_by_unit_window_and_model():
    assert {str(key.unit) + str(key.period): limit.value for key, limit in limits_in(PRO).items()} == {
        "requests60": "10 per minute",
        "requests86400": "200/day",
        "concurrency0": 2,
        "pages30": "0 per 30 second",
        "tokens3600": "900 per hour",
    }


def test_values_that_a_plan_does_not_have_change_nothing():
    assert derived(PRO, ((WhichLimit("requests", 3600, None), "5 per hour", CHANGE),)) is PRO


def test_burst_follows_the_limit_and_never_falls_below_the_cost():
    limit = PlanLimit("pages", "100 per minute", burst=50, cost=20)
    (found,) = derived(Plan("a", (limit,)), ((WhichLimit("pages", 60, None), "10 per minute", CHANGE),)).limits
    assert (found.burst, found.source) == (20, CHANGE)


def test_equal_values_have_one_key_and_others_another():
    values = [((MINUTE, f"{number} per minute", source),) for number in (20, 30) for source in (CHANGE, IN_PLAN)]
    keys = [derived(PRO, each).key for each in values]
    assert len({*keys, PRO.key}) == len(keys) + 1
    assert [derived(PRO, each).key for each in values] == keys
