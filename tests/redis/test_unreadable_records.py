"""What is under a subject's key and is no record: it is that subject's trouble, it is replaced, and it is said once."""

from contextlib import closing
from struct import pack

import pytest
from redis_stores import store_at

from flask_ailimit.engine import Charge, Quota, Settlement

SUBJECT, OTHER = b"0123456789abcdef", b"fedcba9876543210"
KEY = "ailimit:{MDEyMzQ1Njc4OWFiY2RlZg}"
DAY = 86_400
"""Seconds. No window that is as long ends during a test, and no token comes back."""

QUOTAS = {
    name: Quota(10, DAY, algorithm=name)
    for name in ("fixed-window", "sliding-window-counter", "token-bucket", "moving-window")
} | {"concurrency": Quota(10, 3600, "concurrency", "concurrency")}
NEVER = 2**53 - 1
LATEST = 2**32 - 1


def one_count(quota, *numbers, ends=LATEST):
    """A record as it should be, whatever its numbers are."""
    return b"\x01" + pack("<8sIH", quota.bucket(""), ends, len(numbers)) + b"".join(pack("<q", n) for n in numbers)


ANY = QUOTAS["fixed-window"]
NO_RECORDS = {
    "nothing": b"",
    "a version byte only": b"\x01",
    "text": b"what is this?",
    "another version": b"\x02" + one_count(ANY, 1, 2)[1:],
    "zeros": bytes(1000),
    "half a head": one_count(ANY, 1, 2)[:9],
    "half a number": one_count(ANY, 1, 2)[:-3],
    "a byte too many": one_count(ANY, 1, 2) + b"!",
    "more numbers than there are": b"\x01" + pack("<8sIH", ANY.bucket(""), LATEST, 65535) + bytes(16),
    "more than anybody has": b"\x01" + bytes(14 * 300_000),
}


@pytest.fixture
def store(server):
    with closing(store_at(server.uri)) as store:
        store.told = []
        store.watch(store.told.append)
        yield store


def take(store, quota=ANY, lease=1, cost=1):
    (verdict,) = store.reserve([Charge(SUBJECT, quota, cost)], lease).verdicts
    return verdict


def lines(caplog):
    return [record.getMessage() for record in caplog.records if "no counts could be read" in record.getMessage()]


@pytest.mark.parametrize("found", NO_RECORDS.values(), ids=NO_RECORDS)
def test_what_is_no_record_is_replaced_ends_and_is_logged_once(found, store, server, caplog):
    server.ask("SET", KEY, found)
    assert [take(store, lease=lease).remaining for lease in (1, 2, 3)] == [9, 8, 7]
    assert 0 < server.ask("PTTL", KEY) <= 1000 * DAY
    (line,) = lines(caplog)
    assert KEY in line
    assert not store.told


@pytest.mark.parametrize(
    "command",
    [
        ("HSET", KEY, "a", "b"),
        ("RPUSH", KEY, "a"),
        ("SADD", KEY, "a"),
        ("ZADD", KEY, 1, "a"),
        ("XADD", KEY, "*", "a", "b"),
    ],
    ids=lambda command: command[0],
)
def test_key_of_another_type_is_replaced_too(command, store, server, caplog):
    server.ask(*command)
    assert [take(store, lease=lease).remaining for lease in (1, 2, 3)] == [9, 8, 7]
    assert 0 < server.ask("PTTL", KEY) <= 1000 * DAY
    assert len(lines(caplog)) == 1


STRANGE = [(), (1,), (-1, -1, -1, -1), (-(2**63),) * 2, (2**63 - 1,) * 2, (2**53,) * 3, (NEVER, 5), (1,) * 5, (1,) * 12]
STRANGE += [(3, 2, 1) * 50, (NEVER,) * 4]


@pytest.mark.parametrize("numbers", STRANGE, ids=lambda numbers: f"{len(numbers)} from {numbers[:1]}")
@pytest.mark.parametrize("name", QUOTAS)
def test_numbers_that_no_algorithm_writes_are_no_outage_and_end(name, numbers, store, server):
    """Where they might be a count all the same, what they mean doesn't matter; the store goes on."""
    charge = Charge(SUBJECT, QUOTAS[name])
    steps = {
        "reserve": lambda: store.reserve([charge], 1),
        "refuse": lambda: store.reserve([charge.costing(11)], 2),
        "peek": lambda: store.peek([charge]),
        "settle": lambda: store.settle([Settlement(charge, 1, 1, 3)]),
        "give back": lambda: store.settle([Settlement(charge, 1, 0, 4)]),
        "renew": lambda: store.renew([(charge, 5)]),
        "forget": lambda: store.reset(SUBJECT, charge.bucket),
    }
    for step in steps.values():
        server.ask("SET", KEY, one_count(charge.quota, *numbers), "EX", 600)
        step()
    assert not store.told


@pytest.mark.parametrize("name", QUOTAS)
def test_count_with_impossible_numbers_starts_afresh_and_its_neighbours_stay(name, store, server, caplog):
    neighbour = Quota(77, DAY, "tokens")
    take(store, neighbour, lease=9, cost=7)
    well = server.ask("GET", KEY)
    server.ask("SET", KEY, well + one_count(QUOTAS[name], -5, 1, 1, 1, 1, 1)[1:])
    assert take(store, QUOTAS[name]).remaining == 9
    assert take(store, neighbour, lease=2).remaining == 69
    assert len(lines(caplog)) == 1


def test_refused_request_replaces_it_too(store, server, caplog):
    """Somebody who is refused all day would otherwise leave it there for ever."""
    for lease in (1, 2):
        server.ask("SET", KEY, "what is this?")
        store.reserve([Charge(SUBJECT, ANY), Charge(OTHER, ANY, 11)], lease)
        assert not server.ask("EXISTS", KEY)
    assert len(lines(caplog)) == 2


def test_who_only_looks_replaces_nothing(store, server, caplog):
    server.ask("SET", KEY, "what is this?")
    (verdict,) = store.peek([Charge(SUBJECT, ANY)]).verdicts
    assert verdict.remaining == 10
    assert server.ask("STRLEN", KEY) == len("what is this?")
    assert not lines(caplog)


@pytest.mark.parametrize("work", ["settle", "give back", "renew", "forget"])
def test_all_that_writes_replaces_it(work, store, server, caplog):
    charge = Charge(SUBJECT, QUOTAS["concurrency"] if work == "renew" else ANY)
    server.ask("SET", KEY, "what is this?")
    if work == "renew":
        store.renew([(charge, 1)])
    elif work == "forget":
        store.reset(SUBJECT, charge.bucket)
    else:
        assert store.settle([Settlement(charge, 1, int(work == "settle"), 1)]).unknown == 1
    assert server.ask("PTTL", KEY) != -1
    assert len(lines(caplog)) == 1


def test_its_neighbour_in_a_request_is_charged_as_ever(store, server):
    store.reserve([Charge(OTHER, ANY)], 1)
    server.ask("SET", KEY, "what is this?")
    decision = store.reserve([Charge(OTHER, ANY), Charge(SUBJECT, ANY)], 2)
    assert [verdict.remaining for verdict in decision.verdicts] == [8, 9]


def test_script_s_own_complaint_is_no_outage(store, server):
    """Whatever else a script may stumble over, no probe finds it: the server would be away and back for ever."""
    store.reserve([Charge(SUBJECT, ANY)], 1)
    server.ask("SET", f"{KEY}:r1", "?")
    for _ in range(5):
        with pytest.raises(Exception, match="didn't answer"):
            store.reserve([Charge(SUBJECT, ANY)], 1)
    assert take(store, lease=2).allowed
    assert not store.told
    assert not any(breaker.is_open for breaker in store._link._breakers.values())
