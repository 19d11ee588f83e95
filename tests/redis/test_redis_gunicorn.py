"""Many clients, several machines, one limit in Redis: exactly as many are admitted as it says."""

import os
import signal
import time
from contextlib import closing

import pytest
from redis_fleet import COST, INPUT, LEASE, RESERVED, Crowd, Upstream, added, admit, event, fleet_of
from redis_servers import binary_of, start_server, wait_until

CLIENTS = 1000
LIMIT = 100

SOON = 5.0
"""Seconds from the end of a lease to when a test has seen it, on a machine that may be busy."""

KEEP_ALIVE = ("--keep-alive", "60")
"""A connection over which nothing is asked yet does not end while the machine is busy with something else."""

SKEW = 180
"""Seconds by which the machines' clocks are wrong."""


@pytest.fixture(scope="module")
def redis_server():
    """One for all tests here: the programs differ in nothing that these look at."""
    with closing(start_server(binary_of("valkey"))) as server:
        yield server


def exactly_the_limit(fleet, path, key, clients=CLIENTS):
    """Ask each machine, then send everybody at once: so many are admitted, and just those have paid, on all books."""
    for server in fleet.servers:
        assert server.call(path, key).status == 200
    admitted = LIMIT - len(fleet.servers)
    assert fleet.ask_all(path, key, clients) == {200: admitted, 429: clients - admitted}
    wait_until(lambda: fleet.settled(key) == LIMIT)
    for server in fleet.servers:
        used = server.books.used(key, "admit", path)
        assert used == {"requests": LIMIT, "tokens": LIMIT * COST, "concurrency": 0}
    assert "Traceback" not in fleet.log()


@pytest.mark.parametrize("worker_class", ["gthread", "gevent"])
def test_exactly_the_limit_is_admitted_by_machines_whose_clocks_differ(worker_class, redis_server, tmp_path):
    servers = [[worker_class, {"ahead": seconds}] for seconds in (-SKEW, 0, SKEW)]
    with fleet_of(tmp_path, redis_server.uri, *servers, max_connections=CLIENTS) as fleet:
        exactly_the_limit(fleet, admit(requests=LIMIT), f"requests bind {worker_class}")
        exactly_the_limit(fleet, admit(tokens=LIMIT * COST + COST - 1), f"tokens bind {worker_class}")
        deciders = fleet.deciders(f"requests bind {worker_class}")
        assert all(deciders)
        assert sum(map(len, deciders)) > len(deciders)


def test_crowd_that_passes_a_soft_limit_is_told_of_by_one_worker_of_all_machines(redis_server, tmp_path):
    servers = [["gthread"], ["gevent"], ["sync"]]
    settings = {"soft_percent": 80}
    with fleet_of(tmp_path, redis_server.uri, *servers, max_connections=CLIENTS, settings=settings) as fleet:
        for number in range(4):
            key = f"soft {number}"
            exactly_the_limit(fleet, admit(requests=LIMIT, tokens=LIMIT * COST), key, 150)
            told = [line for server in fleet.servers for line in server.books.entries("told", key)]
            assert sorted(line["unit"] for line in told) == ["requests", "tokens"]
            assert all(line["used"] >= LIMIT * 8 // 10 * (COST if line["unit"] == "tokens" else 1) for line in told)


def test_exactly_the_limit_is_admitted_by_preloaded_apps(redis_server, tmp_path):
    """Also by sync workers: one of each class on one machine of its own."""
    servers = [[worker_class, "--preload"] for worker_class in ("sync", "gthread", "gevent")]
    with fleet_of(tmp_path, redis_server.uri, *servers, max_connections=CLIENTS) as fleet:
        exactly_the_limit(fleet, admit(requests=LIMIT), "preloaded")
        assert all(fleet.deciders("preloaded"))


@pytest.mark.parametrize("replaced_by", ["a reload", "max-requests"])
def test_exactly_the_limit_is_admitted_while_workers_are_replaced(replaced_by, redis_server, tmp_path):
    arguments = ["--max-requests", "40"] if replaced_by == "max-requests" else []
    servers = [["gthread", *KEEP_ALIVE, *arguments], ["gthread", *KEEP_ALIVE, "--preload", *arguments]]
    with fleet_of(tmp_path, redis_server.uri, *servers) as fleet:
        crowds = [Crowd(server.port, admit(requests=LIMIT), [replaced_by] * 200) for server in fleet.servers]
        for crowd in crowds:
            crowd.ask(LIMIT // 3)
            crowd.collect(LIMIT // 4)
        if replaced_by == "a reload":
            for server in fleet.servers:
                server.process.send_signal(signal.SIGHUP)
        for crowd in crowds:
            crowd.ask()
        assert added(crowd.collect() for crowd in crowds) == {200: LIMIT, 429: 400 - LIMIT}
        wait_until(lambda: fleet.settled(replaced_by) == LIMIT)
        for server in fleet.servers:
            server.wait_for_workers(3)
            assert server.books.used(replaced_by, "admit", admit(requests=LIMIT))["requests"] == LIMIT


def test_exactly_the_limit_is_in_flight_on_all_machines_together(upstream, redis_server, tmp_path):
    slots, clients = 30, 300
    path = admit(slots=slots, hold="&hold")
    servers = [["gthread", {"threads": 40}], ["gevent"], ["gevent", "--preload"]]
    with fleet_of(tmp_path, redis_server.uri, *servers, upstream_port=upstream.port) as fleet:
        crowds = [Crowd(server.port, path, ["held"] * (clients // 3)) for server in fleet.servers]
        for crowd in crowds:
            crowd.ask()
        held = [upstream.called() for _ in range(slots)]
        wait_until(lambda: added(crowd.read() for crowd in crowds) == {429: clients - slots})
        assert fleet.servers[0].books.used("held", "admit", path)["concurrency"] == slots
        for conversation in held:
            conversation.close()
        assert added(crowd.collect() for crowd in crowds) == {200: slots, 429: clients - slots}
        assert fleet.servers[1].books.used("held", "admit", path) == {
            "requests": slots,
            "tokens": slots * COST,
            "concurrency": 0,
        }


@pytest.fixture(scope="module")
def machines(redis_server, upstream, tmp_path_factory):
    """Two machines for the tests that leave them as they were."""
    place = tmp_path_factory.mktemp("machines")
    with fleet_of(place, redis_server.uri, ["gthread"], ["gevent"], upstream_port=upstream.port) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def upstream():
    """What the streams of the apps speak with."""
    with closing(Upstream()) as upstream:
        yield upstream
        upstream.hang_up()


def taken(fleet, key):
    return [server.books.used(key)["concurrency"] for server in fleet.servers]


@pytest.mark.parametrize("ending", ["[DONE]", "the end", "the client and then the upstream goes"])
def test_slot_of_a_stream_is_free_on_all_machines_when_it_has_ended(machines, upstream, ending):
    here, there = machines.servers
    call = here.call("/stream", ending)
    conversation = upstream.called()
    conversation.say(event("one two "))
    assert call.chunk()
    assert there.call("/stream", ending, method="HEAD").status == 429
    assert taken(machines, ending) == [1, 1]
    if ending == "the client and then the upstream goes":
        call.leave()
        assert conversation.client_gone()
        assert taken(machines, ending) == [1, 1]
        conversation.close()
        wait_until(lambda: taken(machines, ending) == [0, 0])
    elif ending == "the end":
        conversation.close()
        assert call.rest() == b""
    else:
        conversation.say("data: [DONE]\n\n")
        assert call.chunk() == b"data: [DONE]\n\n"
    assert there.call("/stream", ending, method="HEAD").status == 200
    assert there.books.used(ending) == {"requests": 2, "tokens": INPUT + 2, "concurrency": 0}


@pytest.mark.parametrize(("path", "count"), [("/answer", 100), ("/story?ends=event", 100), ("/story", 100)])
def test_client_that_goes_from_machine_to_machine_is_never_refused_for_its_own_last_request(machines, path, count):
    statuses = []
    for _ in range(count):
        call = machines.call(path, path)
        statuses.append(call.status)
        if "event" in path:
            while call.chunk() not in (b"data: [DONE]\n\n", b""):
                pass
        else:
            call.rest()
    assert statuses == [200] * count


def test_slot_of_a_killed_worker_is_free_within_the_lease_and_that_of_a_silent_stream_is_kept(machines, upstream):
    here, there = machines.servers
    began = time.monotonic()
    for server, key in ((there, "silent"), (here, "killed")):
        call = server.call("/stream", key)
        upstream.called().say(event("one two "))
        assert call.chunk()
    (entry,) = here.books.entries("taken", "killed")
    os.kill(entry["pid"], signal.SIGKILL)
    killed = time.monotonic()
    assert there.call("/stream", "killed", method="HEAD").status == 429
    wait_until(lambda: taken(machines, "killed") == [0, 0])
    assert time.monotonic() - killed <= LEASE + SOON
    assert there.books.used("killed") == {"requests": 1, "tokens": RESERVED, "concurrency": 0}
    wait_until(lambda: time.monotonic() > began + LEASE + 0.5)
    assert taken(machines, "silent") == [1, 1]
    assert here.call("/stream", "silent", method="HEAD").status == 429
