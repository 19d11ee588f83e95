"""The Lua in the server gives the answers of the Python beside it, and keeps the states that it would keep."""

import secrets
import struct
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import redis
from redis_stores import store_at
from twin_numbers import LEASED, runs_of
from twin_traffic import Episode

from flask_ailimit import engine
from flask_ailimit.engine import ALGORITHMS, Charge, Quota, Settlement
from flask_ailimit.engine.decide import MOST_COUNTS
from flask_ailimit.engine.quota import MAX_EXACT
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.engine.stores.redis import packing
from flask_ailimit.engine.stores.redis.scripts import _CONSTANT as CONSTANT
from flask_ailimit.engine.stores.redis.scripts import load
from flask_ailimit.testing import START_US, ManualClock

ALWAYS = {
    "refused", "never to be allowed", "dry", "several subjects", "one count several times", "the clock went back",
    "unknown counts", "refunds", "debts", "decided again", "settled again", "undone", "undone early",
    "limits that change", "floors", "shadows that would refuse", "decided again, in part",
}  # fmt: skip
TICKS = {"ticks of 1 us", "ticks of 1000 us", "ticks of 1000000 us"}
TOLD = {"told of", "several told of at once"}
SEEN = {
    "budget": {"undone in part", *TOLD},
    "concurrency": {"more numbers than are read at once", "renewed", "held"},
    "fixed-window": {"most that can be counted", "undone in part", *TOLD},
    "gate": {"closed", "paused", "open", "half-open", "renewed", "held"},
    "moving-window": {"more numbers than are read at once", "most that can be counted", "undone in part", *TOLD},
    "provider-bucket": {*TICKS, "undone in part", "places and what is told", *TOLD},
    "sliding-window-counter": {"undone in part", *TOLD},
    "token-bucket": {*TICKS, "most that can be counted", "undone in part", *TOLD},
    "turns": {"more numbers than are read at once", "renewed", "places and what is told"},
    "window": {"undone in part", *TOLD},
}
NEVER_SEEN = {"gate": {"never to be allowed", "debts"}, "turns": {"debts"}}
"""A gate only lets calls wait, and nobody owes a turn."""

ENGINE = Path(engine.__file__).parent
SUBJECT = b"somebody".ljust(16)
PLACES = {SUBJECT: 1}
KEY = b"ailimit:{c29tZWJvZHkgICAgICAgIA}"
QUOTA = Quota(10, 60, "tokens")
NO_WHOLE_NUMBERS = (-1, -(2**53), -(2**63), MAX_EXACT + 1, MAX_EXACT + 2, 2**63 - 1)
TIMES = packing.Times(START_US, START_US)
MARKER = KEY + b":r1"

COST_AT = 20 + 3
"""Where the first cost is in a request: after the head, the subject's place and the flags."""

FLOOR_AT = COST_AT + 8
"""Where the first floor is."""

ACTUAL_AT = -16
"""Where the last settlement's number is."""


def compare(client, algorithms, steps, seed):
    seen = Counter()
    for number, length in enumerate(runs_of(steps)):
        episode = Episode(algorithms, f"{seed}-{number}")
        episode.run(client, length)
        seen += episode.seen
    return set(seen)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_twin_answers_and_keeps_what_its_python_does(server, algorithm):
    seen = compare(server.client(), [algorithm], 8500, "twins")
    assert seen >= ALWAYS - NEVER_SEEN.get(algorithm, set()) | SEEN[algorithm]


def test_twins_answer_together_what_their_python_does(server):
    assert compare(server.client(), sorted(ALGORITHMS), 8500, "together") >= ALWAYS | TICKS


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("algorithms", [*([name] for name in sorted(ALGORITHMS)), sorted(ALGORITHMS)], ids=str)
def test_twins_answer_for_long_what_their_python_does(server, algorithms):
    compare(server.client(), algorithms, 50_000, secrets.token_hex(4))


def test_each_step_alone_is_answered_as_it_is_among_others(server):
    """What is compared above in transactions, through the store as it is."""
    store = store_at(server.uri, lambda: START_US)
    quota = Quota(3, 3600, "requests", "moving-window")
    taken = [store.reserve([Charge(SUBJECT, quota)], lease) for lease in range(4)]
    assert [(v.allowed, v.remaining, v.retry_after_us) for d in taken for v in d.verdicts] == [
        (True, 2, 0),
        (True, 1, 0),
        (True, 0, 0),
        (False, 0, 3600 * 10**6),
    ]
    store.close()


@pytest.mark.parametrize("seed", range(3))
def test_subject_with_nearly_as_many_counts_as_it_may_have_is_answered_alike(server, seed):
    random = Random(seed)
    clock = ManualClock()
    store, python = store_at(server.uri, clock), MemoryStore(clock)
    quotas = [
        Quota(limit, period, name if name in LEASED else "nano_usd" if name == "budget" else "tokens", name)
        for name in sorted(ALGORITHMS) for period in (60, 3600) for limit in (10, 50)
    ]  # fmt: skip
    scopes = [str(number) for number in range(100)]
    most = crowded_out = tried_in_vain = 0
    for lease in range(400):
        clock.advance(random.choice((0, 0.1, 1, 3)))
        charges = [
            Charge(
                SUBJECT,
                random.choice(quotas),
                random.choice((0, 1, 3)),
                scope,
                dry=random.random() < 0.1,
                floor=random.choice((0, 0, 5)),
                shadow=random.random() < 0.1,
            )
            for scope in random.choices(scopes, k=random.choice((1, 8, 40)))
        ]
        before = python.read(SUBJECT)
        decision = python.reserve(charges, lease)
        assert store.reserve(charges, lease) == decision, f"lease {lease}"
        most = max(most, len(python.read(SUBJECT)))
        new = [verdict for verdict in decision.verdicts if verdict.charge.bucket not in before]
        crowded_out += any(not verdict.allowed and verdict.remaining == 0 for verdict in new)
        tried_in_vain += any(v.charge.shadow and not v.allowed and v.retry_after_us is None for v in decision.verdicts)
    assert MOST_COUNTS - 40 < most <= MOST_COUNTS
    assert crowded_out
    assert tried_in_vain
    store.close()


@pytest.mark.parametrize("lives", [MOST_COUNTS - 2, MOST_COUNTS - 1, MOST_COUNTS])
def test_notice_that_finds_no_place_is_not_told_of(server, lives):
    clock = ManualClock()
    told = []
    for store in (store_at(server.uri, clock), MemoryStore(clock)):
        many = [Charge(SUBJECT, QUOTA, 1, str(number)) for number in range(lives - 1)]
        assert store.reserve(many, 1).allowed
        charges = [Charge(SUBJECT, quota, 9) for quota in (Quota(10, 60, "pages", soft_percent=90),)]
        settlements = [Settlement(charge, store.reserve(charges, 2).at_us, 9, 2) for charge in charges]
        told.append([store.settle(settlements), store.settle([each._replace(lease=3) for each in settlements])])
        store.close()
    assert told[0] == told[1]
    assert [len(settled.passed) for settled in told[0]] == [int(lives < MOST_COUNTS), 0]


def test_decisions_are_made_at_the_time_of_the_server(server):
    def now_us():
        seconds, microseconds = server.ask("TIME")
        return int(seconds) * 10**6 + int(microseconds)

    store = store_at(server.uri)
    for lease in range(50):
        before = now_us()
        at_us = store.reserve([Charge(SUBJECT, QUOTA, 0)], lease).at_us
        assert before <= at_us <= now_us()
    store.close()


@pytest.mark.parametrize("cost", NO_WHOLE_NUMBERS)
@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("place", [COST_AT, FLOOR_AT], ids=["cost", "floor"])
def test_script_refuses_to_reserve_what_is_no_whole_number(server, cost, dry, place):
    request = with_number(packing.pack_charges(PLACES, [Charge(SUBJECT, QUOTA, 1)], TIMES, 1, dry=dry), place, cost)
    refuses(server, "reserve", [KEY, *([] if dry else [MARKER])], request)


@pytest.mark.parametrize("cost", NO_WHOLE_NUMBERS)
@pytest.mark.parametrize("place", [COST_AT, ACTUAL_AT], ids=["cost", "actual"])
def test_script_refuses_to_settle_what_is_no_whole_number(server, cost, place):
    settlements = [Settlement(Charge(SUBJECT, QUOTA, 1), START_US, 1, 1)]
    refuses(
        server,
        "settle",
        [KEY, MARKER],
        with_number(packing.pack_settlements(PLACES, settlements, TIMES), place, cost),
    )


@pytest.mark.parametrize("script", ["reserve", "settle", "renew"])
def test_script_refuses_what_was_cut_short(server, script):
    charge = Charge(SUBJECT, QUOTA, 1)
    request = {
        "reserve": packing.pack_charges(PLACES, [charge, charge], TIMES, 1, dry=False),
        "settle": packing.pack_settlements(PLACES, [Settlement(charge, START_US, 1, 1)], TIMES),
        "renew": packing.pack_renewals(PLACES, [(charge, {1})], START_US),
    }[script]
    for length in range(len(request)):
        refuses(server, script, [KEY, MARKER], request[:length])
        server.ask("DEL", MARKER)


@pytest.mark.parametrize("script", ["reserve", "settle"])
def test_script_that_fails_does_not_remember_that_it_was_done(server, script):
    """Else what it never took would be given back: a decision that was not answered is undone."""
    request = {
        "reserve": packing.pack_charges(PLACES, [Charge(SUBJECT, QUOTA, 1)], TIMES, 1, dry=False),
        "settle": packing.pack_settlements(
            {SUBJECT: 1}, [Settlement(Charge(SUBJECT, QUOTA, 1), START_US, 1, 1)], TIMES
        ),
    }[script]
    refuses(server, script, [KEY, MARKER], with_number(request, COST_AT, -1))
    assert not server.ask("EXISTS", MARKER)


def test_constant_of_the_scripts_has_one_value():
    """They are written out over a whole script, whichever file they stand in."""
    values = {}
    for path in ENGINE.rglob("*.lua"):
        for name, value in CONSTANT.findall(path.read_text()):
            values.setdefault(name, set()).add(value)
    assert {name: found for name, found in values.items() if len(found) > 1} == {}
    assert len(values) > 50


def with_number(request, at, number):
    """A request with another number in a place."""
    changed = bytearray(request)
    struct.pack_into("<q", changed, at % len(request), number)
    return bytes(changed)


def refuses(server, script, keys, request):
    """The script raises an error, and leaves what is kept as it was."""
    server.ask("SET", KEY, "")
    with pytest.raises(redis.ResponseError):
        server.ask("EVAL", load(script).text, len(keys), *keys, request)
    assert server.ask("GET", KEY) == b""
