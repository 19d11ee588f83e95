"""How many connections there are to each server, who waits for one, and what making one takes."""

import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import pytest
from redis.connection import AbstractConnection
from redis_certificates import make_certificates
from redis_servers import PATIENCE, wait_until
from redis_stores import link_to, store_at
from redis_traffic import AMPLE, subjects_of_node

from flask_ailimit.engine import Charge, StoreError, system_clock
from flask_ailimit.engine.stores import directory
from flask_ailimit.engine.stores.redis import links, open_uri
from flask_ailimit.engine.stores.redis import pool as pools
from flask_ailimit.engine.stores.redis.dialing import TlsContext
from flask_ailimit.engine.stores.redis.links import UnansweredError

SUBJECT = bytes(16)


@pytest.fixture
def patient(monkeypatch):
    """The machine may be busy with something else."""
    monkeypatch.setattr(pools, "PATIENCE", PATIENCE)


@pytest.fixture(params=["one server", "cluster"])
def place(request, redis_binary):
    """A server or a cluster: its URI, the proxies before it, and a subject for each of these."""
    if request.param == "cluster":
        cluster = request.getfixturevalue("cluster")
        return cluster.uri, cluster.proxies, [subjects_of_node(cluster, node)[0] for node in cluster.nodes]
    proxy = request.getfixturevalue("proxy")
    return proxy.uri, [proxy], [SUBJECT]


def reserved_at_once(store, subjects, callers, calls):
    """So many callers reserve so often, beginning at the same time; how many were allowed."""
    start = Barrier(callers)

    def call(number):
        start.wait()
        leases = [1 + number * calls + each for each in range(calls)]
        charges = [Charge(subjects[(number + each) % len(subjects)], AMPLE) for each in range(calls)]
        return sum(store.reserve([charge], lease).allowed for charge, lease in zip(charges, leases, strict=True))

    with ThreadPoolExecutor(callers) as threads:
        return sum(threads.map(call, range(callers)))


def test_fewer_connections_than_callers_serve_them_all_and_no_more_are_made(place, patient):
    uri, proxies, subjects = place
    before = [proxy.accepted for proxy in proxies]
    with closing(store_at(uri, most=2)) as store:
        assert reserved_at_once(store, subjects, callers=12, calls=10) == 120
        made = [proxy.accepted - was for proxy, was in zip(proxies, before, strict=True)]
        assert max(made) <= 2


def test_more_than_a_hundred_calls_at_once_are_all_answered(place, patient):
    uri, proxies, subjects = place
    for proxy in proxies:
        proxy.delay = 0.02
    try:
        with closing(store_at(uri)) as store:
            assert reserved_at_once(store, subjects[:1], callers=130, calls=1) == 130
    finally:
        for proxy in proxies:
            proxy.delay = 0


def test_who_finds_no_free_connection_says_so_and_the_server_is_not_to_blame(place, monkeypatch):
    uri, _, subjects = place
    with closing(store_at(uri, most=1)) as store:
        store.reserve([Charge(subjects[0], AMPLE)], 1)
        wire = store._link.wire
        taken = [node.pool.take() for node in (wire._nodes.values() if wire.slotted else [wire])]
        monkeypatch.setattr(pools, "PATIENCE", 0.01)
        for lease in range(2, 6):
            with pytest.raises(StoreError, match="none of 1 connections was free"):
                store.reserve([Charge(subjects[0], AMPLE)], lease)
        assert taken
        assert not any(breaker._failures for breaker in store._link._breakers.values())


def test_connection_whose_answer_was_not_read_is_never_used_again(place):
    """Else whoever has it next would read an answer that is not its own, or wait for one that somebody else had."""
    uri, proxies, subjects = place
    with closing(store_at(uri, timeout=1, connect_timeout=PATIENCE)) as store:
        wait_until(lambda: allowed(store, subjects[0], 1))
        before = sum(proxy.accepted for proxy in proxies)
        faults = [proxy.inject("drop_reply", command="EVALSHA") for proxy in proxies]
        assert not allowed(store, subjects[0], 2)
        wait_until(lambda: sum(fault.hits for fault in faults) == 1)
        for proxy in proxies:
            proxy.heal()
        wait_until(lambda: allowed(store, subjects[0], 3))
        assert sum(proxy.accepted for proxy in proxies) > before


def allowed(store, subject, lease):
    try:
        return store.reserve([Charge(subject, AMPLE)], lease).allowed
    except StoreError:
        return False


# TLS, and what connecting takes


def test_process_makes_one_tls_context_for_all_its_connections(
    tls_server, certificates, tmp_path, monkeypatch, patient
):
    monkeypatch.setattr(directory, "default_directory", lambda name: tmp_path / name)
    made, make = [], ssl.create_default_context

    def counted(*arguments, **named):
        made.append(make(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", counted)
    options = {"ssl_ca_certs": certificates.ca, "timeout": 3, "connect_timeout": 2}
    with closing(open_uri(tls_server.uri, "tls", system_clock, **options)) as store:
        assert reserved_at_once(store, [SUBJECT], callers=8, calls=2) == 16
        assert len(store._link.wire.pool._open) > 1
        with closing(store.apart()) as another:
            assert another.reserve([Charge(SUBJECT, AMPLE)], 99).allowed
    assert len(made) == 1


def test_tls_goes_by_files_as_they_are_now_and_as_they_were_while_they_do_not_fit(tmp_path):
    certificates = make_certificates(tmp_path)
    (tmp_path / "others").mkdir()
    others = make_certificates(tmp_path / "others")
    tls = TlsContext(
        {"ssl_ca_certs": certificates.ca, "ssl_certfile": certificates.certificate, "ssl_keyfile": certificates.key}
    )
    first = tls.get()
    assert tls.get() is first

    def replace(path, other):
        draft = tmp_path / "draft"
        draft.write_bytes(Path(other).read_bytes() if other else b"half of one")
        draft.replace(path)

    replace(certificates.ca, None)
    assert tls.get() is first
    replace(certificates.ca, others.ca)
    second = tls.get()
    assert second is not first
    assert second.get_ca_certs(binary_form=True) != first.get_ca_certs(binary_form=True)
    assert tls.get() is second


@pytest.mark.parametrize("by_tls", [False, True], ids=["plain", "tls"])
def test_to_connect_has_a_time_out_of_its_own_in_each_step(by_tls, request, server, certificates, monkeypatch):
    """So a handshake that takes longer than an answer may is no failure."""
    seen = {"tls": [], "login": []}
    wrap, send = ssl.SSLContext.wrap_socket, AbstractConnection.send_command

    def wrapped(context, sock, *arguments, **named):
        if named.get("server_hostname") and sock.gettimeout() is not None:  # That of a server, or for no handshake.
            seen["tls"].append(sock.gettimeout())
        return wrap(context, sock, *arguments, **named)

    def sent(connection, *arguments, **named):
        seen["login"].append(connection._sock.gettimeout())
        return send(connection, *arguments, **named)

    uri, options = server.uri, {"client_name": "me"}
    if by_tls:
        uri, options = request.getfixturevalue("tls_server").uri, {**options, "ssl_ca_certs": certificates.ca}
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrapped)
    monkeypatch.setattr(AbstractConnection, "send_command", sent)
    link = link_to(uri, timeout=11, connect_timeout=17, **options)
    with closing(link):
        connection = link.wire.pool.take()
        assert connection._sock.gettimeout() == 11
        assert set(seen["login"]) == {17}
        assert seen["tls"] == [17] * by_tls
        assert connection.socket_connect_timeout == 17


def test_call_whose_connection_broke_is_not_sent_again_when_its_marker_may_be_forgotten(server, proxy, monkeypatch):
    """It has waited for a connection meanwhile. Whether it was obeyed is not known, so it is undone later."""
    with closing(store_at(proxy.uri)) as store:
        assert allowed(store, SUBJECT, 1)
        monkeypatch.setattr(links, "_SENT_AGAIN_WITHIN", -1)
        cut = proxy.inject("cut_reply", command="EVALSHA")
        sent = proxy.commands["EVALSHA"]
        with pytest.raises(UnansweredError, match="was not asked again: the wait for a connection was too long"):
            store.decide([Charge(SUBJECT, AMPLE)], 2)
        assert (cut.hits, proxy.commands["EVALSHA"] - sent) == (1, 1)
