"""How many machines share a server: each learns it, and knows its share when the server is away."""

import time
from contextlib import ExitStack, closing

import pytest
from outage_apps import UNHURRIED, machine
from redis_servers import wait_until

from flask_ailimit.engine import Charge, ConfigurationError, Quota, StoreError, open_store, system_clock
from flask_ailimit.engine.stores import directory, redis
from flask_ailimit.engine.stores.redis import machines
from flask_ailimit.engine.stores.redis.addresses import parse
from flask_ailimit.engine.stores.share import Share

KEY = b"ailimit:{}:machines"
SUBJECT = b"0123456789abcdef"
QUOTA = Quota(12, 3600, algorithm="moving-window")


def fleet_of(store):
    return store._machines


def share_of(store):
    return fleet_of(store).share()


def enrolled(*stores):
    """Have each say twice that it is there, so that all have heard of each other; their shares."""
    for _ in range(2):
        for store in stores:
            fleet_of(store).enroll()
    return [share_of(store) for store in stores]


def name_of(store):
    return fleet_of(store)._own


def send_away(server, name, seconds):
    """Have a machine been seen so long ago, by the server's clock."""
    assert name in server.ask("ZRANGE", KEY, 0, -1)
    server.ask("ZADD", KEY, server.ask("TIME")[0] - seconds, name)


def granted(store):
    """How many requests the machine's own store lets through."""
    lease = 0
    while store.nearby.reserve([Charge(SUBJECT, QUOTA)], lease).allowed:
        lease += 1
    return lease


@pytest.fixture
def often(monkeypatch):
    """Machines that say that they are there every few milliseconds in place of every 5 seconds."""
    monkeypatch.setattr(machines, "_INTERVAL", 0.02)


def test_each_of_several_machines_learns_a_share_of_its_own(server):
    with machine(server.uri) as one:
        assert enrolled(one) == [Share(0, 1)]
        with machine(server.uri) as two:
            assert set(enrolled(one, two)) == {Share(0, 2), Share(1, 2)}
            with machine(server.uri) as three:
                assert set(enrolled(one, two, three)) == {Share(0, 3), Share(1, 3), Share(2, 3)}
                assert [granted(store) for store in (one, two, three)] == [4, 4, 4]


def test_processes_of_one_machine_are_one(server):
    with machine(server.uri, "the-app") as one, machine(server.uri, "the-app") as same, machine(server.uri) as other:
        first, second, third = enrolled(one, same, other)
        assert first == second
        assert {first, third} == {Share(0, 2), Share(1, 2)}
        # They count together, too.
        assert granted(one) == 6
        assert granted(same) == 0


def test_stores_with_other_prefixes_are_no_machines_of_this_one(server):
    with machine(server.uri) as one, machine(server.uri, prefix="another") as other:
        assert enrolled(one, other) == [Share(0, 1), Share(0, 1)]


def test_a_machine_enrols_by_itself_once_it_has_decided(server, often):
    with machine(server.uri) as one, machine(server.uri) as other:
        enrolled(other)
        assert share_of(one) == Share(0, 1)
        one.reserve([Charge(SUBJECT, QUOTA)], 1)
        wait_until(lambda: share_of(one).of == 2)


def test_it_says_again_and_again_that_it_is_there_and_so_hears_of_others(server, often):
    with machine(server.uri) as one:
        one.reserve([Charge(SUBJECT, QUOTA)], 1)
        wait_until(lambda: server.ask("EXISTS", KEY))
        with machine(server.uri) as other:
            other.reserve([Charge(SUBJECT, QUOTA)], 2)
            wait_until(lambda: {share_of(one), share_of(other)} == {Share(0, 2), Share(1, 2)})
            server.ask("DEL", KEY)  # As after a restart without persistence.
            wait_until(lambda: server.ask("ZCARD", KEY) == 2)
            name = name_of(other)
        send_away(server, name, 61)
        wait_until(lambda: share_of(one) == Share(0, 1))


def test_a_machine_that_was_not_seen_for_a_minute_is_gone(server):
    with machine(server.uri) as one, machine(server.uri) as other:
        enrolled(one, other)
        send_away(server, name_of(other), 50)
        assert enrolled(one)[0].of == 2
        send_away(server, name_of(other), 62)
        assert enrolled(one) == [Share(0, 1)]
        assert server.ask("ZCARD", KEY) == 1
        assert {share.of for share in enrolled(one, other)} == {2}


def test_when_nobody_is_left_nothing_is_left(server):
    with machine(server.uri) as one:
        enrolled(one)
        assert 50 < server.ask("TTL", KEY) <= 60


def test_while_the_server_is_away_the_last_answer_stands(server, caplog):
    with machine(server.uri, machines=7) as one, machine(server.uri, machines=7) as other:
        shares = enrolled(one, other)
        server.kill()
        for store in (one, other):
            with pytest.raises(StoreError):
                fleet_of(store).enroll()
        assert [share_of(store) for store in (one, other)] == shares
        assert [granted(store) for store in (one, other)] == [6, 6]


def test_a_failing_enrolment_is_logged_and_tried_again(server, often, caplog):
    with machine(server.uri) as one, machine(server.uri) as other:
        enrolled(one, other)
        one.reserve([Charge(SUBJECT, QUOTA)], 1)
        server.kill()
        wait_until(lambda: "The number of machines is not known anew, 2 stands" in caplog.text)
        server.restart()
        wait_until(lambda: share_of(one) == Share(0, 1))


@pytest.mark.parametrize(("expected", "share"), [(1, 12), (3, 4), (5, 2), (12, 1)])
def test_until_the_server_said_how_many_the_option_counts(server, expected, share):
    uri = server.uri
    server.kill()
    with machine(uri, machines=expected) as store:
        assert share_of(store) == Share(0, expected)
        assert granted(store) == share
        server.restart()
        wait_until(lambda: _enrolls(store))
        assert share_of(store) == Share(0, 1)


def _enrolls(store):
    try:
        fleet_of(store).enroll()
    except StoreError:
        return False
    return True


def test_where_the_option_leaves_no_share_nothing_is_granted(server):
    uri = server.uri
    server.kill()
    with machine(uri, machines=13) as store, pytest.raises(StoreError, match="one of 13, of 12 requests per 3600 s"):
        granted(store)


@pytest.mark.parametrize("machines", [0, -1, 10_001, 1.5, "3", None, True], ids=repr)
def test_number_of_machines_is_a_whole_number(server, machines):
    with pytest.raises(ConfigurationError, match="machines: a whole number from 1 to 10000 is needed"):  # noqa: SIM117
        with machine(server.uri, machines=machines):
            pass


def test_something_else_under_the_key_is_replaced_and_no_outage(server):
    """Somebody's mistake, which would otherwise stand for ever."""
    with machine(server.uri) as store:
        changes = []
        store.watch(changes.append)
        for mistake in (("SET", KEY, "what is this"), ("HSET", KEY, "a", "b")):
            server.ask("DEL", KEY)
            server.ask(*mistake)
            assert enrolled(store) == [Share(0, 1)]
            assert 0 < server.ask("TTL", KEY) <= 60
        assert store.reserve([Charge(SUBJECT, QUOTA)], 1).allowed
        assert not changes


@pytest.mark.parametrize("ahead", [3600, 10**9, "inf"])
def test_machine_that_is_gone_is_so_a_minute_after_the_clock_went_back(server, ahead):
    with machine(server.uri) as one, machine(server.uri) as other:
        enrolled(one, other)
        gone = name_of(other)
        server.ask("ZADD", KEY, ahead if ahead == "inf" else server.ask("TIME")[0] + ahead, gone)
        assert enrolled(one)[0].of == 2
        assert server.ask("ZSCORE", KEY, gone) <= server.ask("TIME")[0]
        send_away(server, gone, 61)
        assert enrolled(one) == [Share(0, 1)]


def test_apps_of_one_machine_are_one_whatever_they_are_called(server, tmp_path, monkeypatch):
    """Else each would have a half of what it may grant."""
    monkeypatch.setattr(directory, "default_directory", lambda name: tmp_path / name)
    with ExitStack() as ending:

        def opened(name, **options):
            options = UNHURRIED | options
            return ending.enter_context(closing(open_store(server.uri, name=name, clock=system_clock, options=options)))

        one, other, apart = opened("shop-1"), opened("blog-2"), opened("shop-1", prefix="apart")
        assert enrolled(one, other, apart) == [Share(0, 1)] * 3
        # Together they grant what one could: as Redis does.
        assert (granted(one), granted(other), granted(apart)) == (12, 0, 12)


def test_apps_with_other_servers_or_databases_are_apart():
    uris = [
        *("redis://h:1", "redis://h:2", "redis://h:1/1", "redis+cluster://h:1", "redis+sentinel://h:1/a"),
        *("redis+sentinel://h:1/b", "redis+unix:///h"),
    ]
    names = {redis.nearby_of(parse(uri), prefix) for uri in uris for prefix in ("a", "b")}
    assert len(names) == 2 * len(uris)


@pytest.mark.parametrize("uri", ["redis://user:hunter2@h:1", "redis+cluster://h:1,g:2"])
def test_login_and_order_of_hosts_make_no_other_place(uri):
    same = {"redis://user:hunter2@h:1": "redis://h:1", "redis+cluster://h:1,g:2": "redis+cluster://g:2,h:1"}[uri]
    assert redis.nearby_of(parse(uri), "ailimit") == redis.nearby_of(parse(same), "ailimit")


def test_who_may_not_end_the_key_does_not_make_it(new_server):
    server = new_server()
    with machine(server.uri) as store:
        server.ask("DEL", KEY)
        server.ask("ACL", "SETUSER", "default", "-expire")
        with pytest.raises(StoreError):
            fleet_of(store).enroll()
        assert not server.ask("EXISTS", KEY)


def test_closed_it_says_nothing_more(server, often):
    with machine(server.uri) as store:
        store.reserve([Charge(SUBJECT, QUOTA)], 1)
        wait_until(lambda: server.ask("EXISTS", KEY))
        thread = fleet_of(store)._thread
    wait_until(lambda: not thread.is_alive())
    server.ask("DEL", KEY)
    time.sleep(0.06)  # Three turns.
    assert not server.ask("EXISTS", KEY)


def test_machines_of_a_cluster_learn_of_each_other(cluster):
    with machine(cluster.uri) as one, machine(cluster.uri) as other:
        assert set(enrolled(one, other)) == {Share(0, 2), Share(1, 2)}


def test_no_name_of_a_machine_tells_where_it_is(server):
    with machine(server.uri, "secret-project") as store:
        enrolled(store)
        (name,) = server.ask("ZRANGE", KEY, 0, -1)
    assert len(name) == 16
    assert int(name, 16) >= 0
