import socket
import ssl
import threading
import time
from contextlib import closing

import pytest
import redis
from fault_proxy import FAULTS, FOREVER, FaultProxy
from redis_servers import PATIENCE

SCRIPT = "return redis.call('INCRBY', KEYS[1], 1)"
LOST = (redis.ConnectionError, redis.TimeoutError)


@pytest.fixture
def through(server, proxy):
    """A client that goes through the proxy, and tries nothing twice."""
    client = server.client(port=proxy.port)
    client.ping()
    return client


@pytest.fixture
def hasty(server, proxy):
    """One that gives up soon, but not while the machine is only busy."""
    client = server.client(port=proxy.port, socket_timeout=1)
    client.ping()
    return client


def increment(client):
    return client.eval(SCRIPT, 1, "n")


def executed(server):
    return int(server.ask("GET", "n") or 0)


def test_proxy_passes_everything_on_and_counts_commands(proxy, through, server):
    assert [increment(through) for _ in range(3)] == [1, 2, 3]
    assert through.set("a", "x" * 1_000_000) is True
    assert through.get("a") == b"x" * 1_000_000
    assert through.config_get("maxmemory") == {"maxmemory": "0"}
    names = ("EVAL", "SET", "GET", "CONFIG", "PING")
    assert [proxy.commands[name] for name in names] == [3, 1, 1, 1, 1]
    assert proxy.accepted == 1


@pytest.mark.parametrize("what", ["cut_reply", "drop_reply"])
def test_command_whose_reply_is_lost_was_executed_once(what, proxy, hasty, server):
    fault = proxy.inject(what, command="EVAL")
    with pytest.raises(LOST):
        increment(hasty)
    assert (fault.hits, executed(server)) == (1, 1)
    assert increment(hasty) == 2


@pytest.mark.parametrize("what", ["cut_request", "drop_request"])
def test_command_that_is_lost_was_not_executed(what, proxy, hasty, server):
    fault = proxy.inject(what, command="EVAL")
    with pytest.raises(LOST):
        increment(hasty)
    assert (fault.hits, executed(server)) == (1, 0)
    assert increment(hasty) == 1


def test_duplicate_is_executed_twice_and_answered_once(proxy, through, server):
    fault = proxy.inject("duplicate_request", command="EVAL")
    assert increment(through) == 1
    assert (fault.hits, executed(server)) == (1, 2)
    assert through.echo("in step") == b"in step"
    assert proxy.accepted == 1


def test_dropped_reply_leaves_the_connection_as_it_was(proxy, server):
    with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as connection:
        fault = proxy.inject("drop_reply", command="INCR")
        connection.sendall(b"INCR n\r\n")
        fault.wait()
        connection.sendall(b"ECHO next\r\n")
        assert connection.recv(100) == b"$4\r\nnext\r\n"


@pytest.mark.parametrize(("reset", "ending"), [(True, ConnectionResetError), (False, None)])
def test_cut_is_a_reset_or_an_end(reset, ending, proxy, server):
    with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as connection:
        proxy.inject("cut_reply", reset=reset)
        connection.sendall(b"INCR n\r\n")
        if ending:
            with pytest.raises(ending):
                connection.recv(100)
        else:
            assert connection.recv(100) == b""
    assert executed(server) == 1


def test_only_the_commands_that_match_are_counted(proxy, through, server):
    third = proxy.inject("cut_reply", at=3, command={"EVAL", "EVALSHA"})
    key = proxy.inject("cut_request", command=lambda words: b"special" in words)
    for _ in range(2):
        through.ping()
        increment(through)
    with pytest.raises(LOST):
        increment(through)
    assert (third.hits, key.hits, executed(server)) == (1, 0, 3)
    with pytest.raises(LOST):
        through.get("special")
    assert key.hits == 1


def test_fault_befalls_as_many_as_it_is_told(proxy, through, server):
    twice = proxy.inject("cut_request", at=2, times=2, command="EVAL")
    outcomes = []
    for _ in range(5):
        try:
            outcomes.append(increment(through))
        except LOST:
            outcomes.append("lost")
    assert outcomes == [1, "lost", "lost", 2, 3]
    assert twice.hits == 2


def test_fault_happens_to_the_right_command_of_a_pipeline(proxy, through, server):
    proxy.inject("corrupt_reply", at=2, command="INCRBY", offset=1, flip=0x04)
    with through.pipeline(transaction=False) as pipeline:
        for _ in range(3):
            pipeline.incr("n")
        assert pipeline.execute() == [1, 6, 3]


def test_corrupted_request_is_what_the_server_sees(proxy, through, server):
    proxy.inject("corrupt_request", command="SET", offset=-3, flip=0x01)
    through.set("a", "0")
    assert server.ask("GET", "a") == b"1"


def test_corrupted_reply_is_what_the_client_sees(proxy, through, server):
    server.ask("SET", "a", "0")
    proxy.inject("corrupt_reply", command="GET", offset=-3, flip=0x01)
    assert (through.get("a"), through.get("a")) == (b"1", b"0")


def test_reply_is_late_by_what_was_asked(proxy, through, server):
    fault = proxy.inject("delay_reply", command="EVAL", seconds=0.05)
    began = time.monotonic()
    assert increment(through) == 1
    assert time.monotonic() - began >= 0.05
    assert fault.hits == 1


def test_reply_that_is_too_late_was_executed_all_the_same(proxy, hasty, server):
    proxy.delay = 5
    with pytest.raises(redis.TimeoutError):
        increment(hasty)
    assert executed(server) == 1


def test_bytes_that_come_one_by_one_make_the_same_messages(proxy, through, server):
    proxy.split = True
    assert increment(through) == 1
    assert through.config_get("maxmemory*")["maxmemory"] == "0"


def test_new_connections_are_refused_until_it_heals(proxy, through, server):
    proxy.refuse()
    another = server.client(port=proxy.port)
    for _ in range(20):
        with pytest.raises(redis.ConnectionError, match=r"(?i)refused"):
            another.ping()
    assert through.ping()
    proxy.heal()
    assert another.ping()


def test_black_hole_swallows_all_until_it_heals(proxy, hasty, server):
    proxy.black_hole = True
    with pytest.raises(redis.TimeoutError):
        increment(hasty)
    with pytest.raises(redis.TimeoutError):
        increment(hasty)
    assert executed(server) == 0
    proxy.heal()
    assert increment(hasty) == 1


def test_healing_forgets_the_faults_that_have_not_happened(proxy, through, server):
    faults = [proxy.inject(what, times=FOREVER, seconds=9) for what in FAULTS]
    proxy.heal()
    assert increment(through) == 1
    assert not any(fault.hits for fault in faults)


def test_server_that_died_looks_dead_through_the_proxy(proxy, through, server):
    server.kill()
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            through.ping()
    server.restart()
    assert through.ping()


def test_client_may_speak_tls_to_a_server_that_does_not(server, certificates):
    with closing(FaultProxy(server.port, tls=certificates.server_context())) as proxy:
        client = server.client(port=proxy.port, ssl=True, ssl_ca_certs=certificates.ca)
        assert increment(client) == 1
        assert client.set("a", "x" * 100_000) is True
        assert client.get("a") == b"x" * 100_000
        proxy.inject("cut_reply", command="EVAL")
        with pytest.raises(redis.ConnectionError):
            increment(client)
        assert executed(server) == 2
        stranger = server.client(port=proxy.port, ssl=True, ssl_ca_certs=ssl.get_default_verify_paths().cafile)
        with pytest.raises(redis.ConnectionError, match="certificate"):
            stranger.ping()


def test_many_cuts_are_each_executed_once(proxy, through, server):
    for _ in range(100):
        fault = proxy.inject("cut_reply", command="EVAL")
        with pytest.raises(redis.ConnectionError):
            increment(through)
        assert fault.hits == 1
    assert executed(server) == 100


def test_concurrent_clients_meet_each_fault_once(proxy, server):
    fault = proxy.inject("duplicate_request", at=50, times=10, command="EVAL")

    def work():
        client = server.client(port=proxy.port)
        for _ in range(25):
            increment(client)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (fault.hits, executed(server), proxy.commands["EVAL"]) == (10, 110, 100)


def test_closed_proxy_leaves_no_thread_and_no_listener(server):
    before = set(threading.enumerate())
    proxy = FaultProxy(server.port)
    client = server.client(port=proxy.port)
    client.ping()
    proxy.delay = 60
    with socket.create_connection(("127.0.0.1", proxy.port)) as waiting:
        waiting.sendall(b"PING\r\n")
        proxy.close()
        with pytest.raises(ConnectionResetError):
            waiting.recv(1)
    assert not set(threading.enumerate()) - before  # One of an earlier test's may have ended meanwhile.
    with pytest.raises(redis.ConnectionError, match=r"(?i)refused"):
        server.client(port=proxy.port).ping()
