"""Redis goes away under load: nobody sees an error, all machines together grant the limit once, and it comes back."""

import os
import signal
from contextlib import ExitStack, closing, contextmanager

import pytest
from redis_fleet import INPUT, Crowd, Upstream, added, admit, enroll, event, fleet_of
from redis_servers import binary_of, start_server, wait_until

CLIENTS = 300
LIMIT = 60
PATH = admit(requests=LIMIT)
TIMEOUT = 2.0
"""Seconds to wait for Redis. The machine may be busy with something else, and that is no outage."""

MACHINES = {"one machine": ["here", "here"], "two machines": ["here", "there"]}

both_ways = pytest.mark.parametrize("how", ["killed", "hung"])
everywhere = pytest.mark.parametrize("names", MACHINES.values(), ids=MACHINES)


@pytest.fixture
def redis_server():
    with closing(start_server(binary_of("valkey"))) as server:
        yield server


@contextmanager
def machines(place, redis_server, names, *arguments, **options):
    """A server for each name, on the machine of that name. Redis knew all machines before."""
    options = {"timeout": TIMEOUT, **options}
    with ExitStack() as stack:
        for name in sorted(set(names)):
            (place / name).mkdir()
            enroll(place / name, redis_server.uri)
        servers = [["gthread", *arguments, {"machine": str(place / name)}] for name in names]
        yield stack.enter_context(fleet_of(place, redis_server.uri, *servers, **options))


def take_away(redis_server, how):
    """As someone who pulls the plug, or as someone who stops answering."""
    redis_server.kill() if how == "killed" else redis_server.stop_process()


def bring_back(redis_server, how, fleet):
    """Wait, too, until it decides for every worker again."""
    redis_server.restart() if how == "killed" else redis_server.continue_process()
    wait_until(lambda: server_decides(fleet))


def server_decides(fleet):
    """Whether Redis decides again for all who serve. Each call asks one of them."""
    fleet.call("/answer", "is it back?").rest()
    return all(len(pids) >= 2 for pids in fleet.deciders("is it back?"))


def admitted_by_redis(fleet, key):
    return sum(len(server.books.entries("taken", key)) for server in fleet.servers)


@everywhere
@both_ways
def test_machines_together_grant_the_limit_once_while_redis_is_away_and_redis_when_it_is_back(
    names, how, redis_server, tmp_path
):
    with machines(tmp_path, redis_server, names) as fleet:
        take_away(redis_server, how)
        assert fleet.ask_all(PATH, "hot", CLIENTS) == {200: LIMIT, 429: CLIENTS - LIMIT}
        bring_back(redis_server, how, fleet)
        # What is still on its way from before takes nothing, or is given back.
        wait_until(lambda: fleet.servers[0].books.used("hot", "admit", PATH)["requests"] == 0)
        assert admitted_by_redis(fleet, "hot") == 0
        assert fleet.ask_all(PATH, "hot", CLIENTS) == {200: LIMIT, 429: CLIENTS - LIMIT}
        assert admitted_by_redis(fleet, "hot") == LIMIT


@both_ways
def test_redis_and_the_machines_each_grant_the_limit_at_most_once_when_it_goes_in_the_middle(
    how, redis_server, tmp_path
):
    with machines(tmp_path, redis_server, MACHINES["two machines"]) as fleet:
        crowds = [Crowd(server.port, PATH, ["hot"] * CLIENTS) for server in fleet.servers]
        for crowd in crowds:
            crowd.ask(LIMIT // 3)
            crowd.collect(LIMIT // 6)
            crowd.ask()
        take_away(redis_server, how)
        counts = added(crowd.collect() for crowd in crowds)
        by_redis = admitted_by_redis(fleet, "hot")
        assert set(counts) == {200, 429}
        assert LIMIT // 3 <= by_redis <= LIMIT
        assert counts[200] - by_redis <= LIMIT
        bring_back(redis_server, how, fleet)
        remembered = by_redis if how == "hung" else 0
        wait_until(lambda: fleet.servers[0].books.used("hot", "admit", PATH)["requests"] == remembered)
        rest = LIMIT - remembered
        assert fleet.ask_all(PATH, "hot", CLIENTS) == {200: rest, 429: CLIENTS - rest} if rest else {429: CLIENTS}


@pytest.mark.parametrize(
    ("names", "preload"),
    [(MACHINES["one machine"], []), (MACHINES["two machines"], []), (MACHINES["two machines"], ["--preload"])],
    ids=["one machine", "two machines", "two machines, preloaded"],
)
def test_worker_that_is_killed_while_redis_is_away_does_not_grant_the_limit_again(
    names, preload, redis_server, tmp_path
):
    with machines(tmp_path, redis_server, names, *preload) as fleet:
        take_away(redis_server, "killed")
        assert fleet.ask_all(PATH, "hot", CLIENTS) == {200: LIMIT, 429: CLIENTS - LIMIT}
        for server in fleet.servers:
            victim, other = server.workers()
            os.kill(victim, signal.SIGKILL)
            server.wait_for_workers(3)
            os.kill(other, signal.SIGKILL)
            server.wait_for_workers(4)
        assert fleet.ask_all(PATH, "hot", CLIENTS) == {429: CLIENTS}


def test_stream_that_ends_while_redis_hangs_is_settled_when_it_is_back(redis_server, tmp_path):
    with (
        closing(Upstream()) as upstream,
        machines(tmp_path, redis_server, ["here"], upstream_port=upstream.port) as fleet,
    ):
        (server,) = fleet.servers
        call = server.call("/stream", "streams")
        conversation = upstream.called()
        conversation.say(event("one two "))
        assert call.chunk()
        redis_server.stop_process()
        conversation.say("data: [DONE]\n\n")
        conversation.close()
        assert call.rest() == b"data: [DONE]\n\n"
        redis_server.continue_process()
        wait_until(lambda: server.books.used("streams") == {"requests": 1, "tokens": INPUT + 2, "concurrency": 0})
        assert server.call("/stream", "streams", method="HEAD").status == 200


def test_slot_that_was_taken_while_redis_was_away_is_given_back_where_it_was_taken(redis_server, tmp_path):
    with (
        closing(Upstream()) as upstream,
        machines(tmp_path, redis_server, ["here"], upstream_port=upstream.port) as fleet,
    ):
        (server,) = fleet.servers
        redis_server.stop_process()
        call = server.call("/stream", "streams")
        conversation = upstream.called()
        conversation.say(event("one two "))
        assert call.chunk()
        assert server.call("/stream", "streams", method="HEAD").status == 429
        bring_back(redis_server, "hung", fleet)
        conversation.close()
        assert call.rest() == b""
        assert server.books.entries("taken", "streams") == []
        redis_server.stop_process()
        assert server.call("/stream", "streams", method="HEAD").status == 200
