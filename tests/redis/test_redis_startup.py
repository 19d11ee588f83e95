"""What an app that uses Redis is told when it starts: what is wrong is refused with the fix, who is away is waited for.

No message holds a password. Users and their rights: test_redis_acl.py.
"""

import socket
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from threading import Thread
from urllib.parse import quote

import pytest
from fault_proxy import FaultProxy
from flask import Flask
from outage_apps import LIMIT, SECRET, USED, App, machine, put_away
from outage_faults import fill_up, mend
from redis_certificates import make_certificates
from redis_servers import wait_until

from flask_ailimit import AILimiter, ConfigurationError, api_key
from flask_ailimit.engine.stores import directory
from flask_ailimit.engine.stores.redis.addresses import parse

PASSWORD = "hunter2-and-more"

HASTY = 1.0
"""Seconds, where a test waits for a time-out. A machine that is busy keeps nobody from answering for so long."""

on_one_server = pytest.mark.parametrize("redis_binary", ["valkey"], indirect=True)


@pytest.fixture(autouse=True)
def in_a_place_of_its_own(tmp_path, monkeypatch):
    """Who is refused leaves nothing where the next test, or a real app, would find it."""
    monkeypatch.setattr(directory, "default_directory", lambda name: tmp_path / name)


def refused(*words, uri, caplog=None, **options):
    """The app doesn't start; what it is told has all of these words and no password."""
    with pytest.raises(ConfigurationError) as raised:
        App(uri, options=options)
    said = _chain(raised.value) + (caplog.text if caplog else "")
    assert [word for word in words if word not in str(raised.value)] == [], str(raised.value)
    assert PASSWORD not in said
    assert "hunter2" not in said
    assert len(str(raised.value)) < 600


def _chain(error):
    """What a traceback would show of an error and its causes."""
    said = ""
    while error is not None:
        said += f"{error!r} {error}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return said


# Away at the start


@pytest.mark.parametrize("away", ["killed", "hung", "swallowed"])
def test_server_that_is_away_at_the_start_is_logged_and_waited_for(away, server, caplog):
    with closing(FaultProxy(server.port)) as proxy:
        if away == "killed":
            server.kill()
        elif away == "hung":
            server.stop_process()
        proxy.black_hole = away == "swallowed"
        with closing(App(proxy.uri, options={"timeout": HASTY, "connect_timeout": HASTY})) as app:
            assert "is not to be reached, limits follow on_store_error" in caplog.text
            statuses = {policy: app.posts(f"/{policy}", LIMIT + 2) for policy in ("local", "allow", "deny")}
            assert statuses == {
                "local": [200] * LIMIT + [429] * 2,
                "allow": [200] * (LIMIT + 2),
                "deny": [503] * (LIMIT + 2),
            }
            server.restart()
            mend(proxy)
            wait_until(lambda: app.changes == [False, True])
            assert app.posts("/deny", LIMIT + 1) == [200] * LIMIT + [429]
            wait_until(lambda: app.used("deny") == _all_used())


def _all_used():
    return {"requests-per-hour": LIMIT, "tokens-per-hour": LIMIT * USED, "concurrency": 0}


@on_one_server
def test_server_that_is_away_does_not_keep_an_app_from_starting_for_long(server):
    """Three tries of a time-out each, at the most."""
    server.stop_process()
    with closing(FaultProxy(server.port)) as proxy:
        began = time.perf_counter()
        with closing(App(proxy.uri, options={"timeout": HASTY, "connect_timeout": HASTY})):
            assert time.perf_counter() - began < 3 * HASTY + 10  # The machine may be busy.
            assert proxy.accepted <= 3


# Users and passwords


def test_wrong_password_is_refused(new_server, caplog):
    server = new_server(password="right-password")
    refused("refuses the user", "right password", uri=f"redis://:{PASSWORD}@127.0.0.1:{server.port}", caplog=caplog)
    refused("refuses the user", uri=f"redis://127.0.0.1:{server.port}", caplog=caplog, password=PASSWORD)
    refused("refuses the user", uri=f"redis://somebody:{PASSWORD}@127.0.0.1:{server.port}", caplog=caplog)


def test_no_password_where_one_is_needed_is_refused(new_server):
    server = new_server(password=PASSWORD)
    refused("refuses the user", "right password", uri=f"redis://127.0.0.1:{server.port}")


def test_password_where_none_is_needed_is_refused(server, caplog):
    refused("refuses the user", uri=f"redis://:{PASSWORD}@127.0.0.1:{server.port}", caplog=caplog)


@pytest.mark.parametrize("password", ["p@ss:w/rd?#[x]%", "ünïcode ☃", "%2F"])
def test_percent_encoded_password_is_understood(password, new_server):
    server = new_server()
    server.ask("ACL", "SETUSER", "app", "on", f">{password}", "~*", "+@all")
    with closing(App(f"redis://app:{quote(password, safe='')}@127.0.0.1:{server.port}")) as app:
        assert app.posts("/deny", 1) == [200]


@pytest.mark.parametrize(
    "rights",
    ["-evalsha", "-eval", "-set", "-get", "-time", "-del", "-@scripting", "-@write"],
)
def test_right_that_every_decision_needs_is_missed_at_once(rights, new_server):
    server = new_server()
    server.ask("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~ailimit:*", "+@all", rights)
    refused(
        "refuses the user", "~ailimit:*", "+evalsha", "+eval", uri=f"redis://app:{PASSWORD}@127.0.0.1:{server.port}"
    )


def test_keys_that_may_not_be_used_are_named(new_server):
    server = new_server()
    server.ask("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~elsewhere:*", "+@all")
    uri = f"redis://app:{PASSWORD}@127.0.0.1:{server.port}"
    refused("refuses the user", "~ailimit:*", uri=uri)
    refused("refuses the user", "~mine:*", uri=uri, prefix="mine")
    with closing(App(uri, options={"prefix": "elsewhere"})) as app:
        assert app.posts("/deny", 1) == [200]


def test_the_rights_that_the_message_names_are_enough(new_server):
    server = new_server()
    server.ask("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~ailimit:*")
    uri = f"redis://app:{PASSWORD}@127.0.0.1:{server.port}"
    with pytest.raises(ConfigurationError) as raised:
        App(uri)
    rights = [word.strip(".") for word in str(raised.value).split() if word[0] in "+~"]
    assert "+evalsha" in rights
    server.ask("ACL", "SETUSER", "app", *rights)
    with closing(App(uri)) as app:
        assert app.posts("/deny", LIMIT + 1) == [200] * LIMIT + [429]
        app.limiter.engine.store._machines.enroll()
        assert app.used("deny") == _all_used()
        app.limiter.engine.reset(app.limiter.subject("alice"))
        assert not app.changes


# TLS


@on_one_server
def test_tls_with_the_right_authority_works(tls_server, certificates):
    with closing(App(tls_server.uri, options={"ssl_ca_certs": certificates.ca})) as app:
        assert app.posts("/deny", LIMIT + 1) == [200] * LIMIT + [429]


def test_tls_of_an_unknown_authority_is_refused(tls_server):
    refused("can't be trusted", "ssl_ca_certs", uri=tls_server.uri)


def test_tls_for_another_name_is_refused(new_server, tmp_path):
    certificates = make_certificates(tmp_path, "elsewhere.example")
    with closing(FaultProxy(new_server().port, tls=certificates.server_context())) as proxy:
        refused("can't be trusted", uri=proxy.uri, ssl_ca_certs=certificates.ca)


def test_tls_that_has_expired_is_refused(new_server, tmp_path):
    certificates = make_certificates(tmp_path, "127.0.0.1", not_after=datetime(2020, 1, 2, tzinfo=UTC))
    with closing(FaultProxy(new_server().port, tls=certificates.server_context())) as proxy:
        refused("can't be trusted", "expired", uri=proxy.uri, ssl_ca_certs=certificates.ca)


def test_plain_client_at_a_tls_port_is_told_so(tls_server, caplog):
    """What it sees is a connection that breaks, as of a server that is away: so it asks."""
    refused("speaks TLS", "rediss://", uri=f"redis://:{PASSWORD}@127.0.0.1:{tls_server.port}", caplog=caplog)


def test_tls_client_never_falls_back_to_plain_text(certificates, caplog):
    """Whoever answers, and however: no password and no command is sent before TLS stands."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(reply):
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(1 << 16))
                connection.sendall(reply)

        for reply in (b"-ERR Protocol error\r\n", b"", b"+OK\r\n"):
            thread = Thread(target=answer, args=[reply])
            thread.start()
            uri = f"rediss://:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}"
            with (
                suppress(ConfigurationError),
                closing(App(uri, options={"ssl_ca_certs": certificates.ca, "connect_timeout": 0.2})),
            ):
                pass
            thread.join()
    assert len(heard) == 3
    for message in heard:
        assert message.startswith(b"\x16\x03")  # A TLS handshake.
        assert PASSWORD.encode() not in message
    assert PASSWORD not in caplog.text


@on_one_server
def test_authority_given_without_tls_is_refused_for_it_would_mean_nothing(server, certificates):
    refused("ssl_ca_certs", "rediss://", uri=server.uri, ssl_ca_certs=certificates.ca)


@on_one_server
@pytest.mark.parametrize("option", [{"ssl_ca_certs": "/nowhere/ca.pem"}, {"ssl_cert_reqs": "perhaps"}], ids=str)
def test_tls_option_that_can_t_be_used_is_refused(tls_server, option):
    refused("storage_options", uri=tls_server.uri, **option)


@on_one_server
@pytest.mark.parametrize("kind", ["redis", "rediss", "redis+sentinel", "redis+cluster", "redis+unix"])
def test_tls_option_that_redis_py_does_not_know_is_refused(kind, server):
    rest = {"redis+sentinel": f"127.0.0.1:{server.port}/mymaster", "redis+unix": f"{server.directory}/socket"}
    uri = f"{kind}://{rest.get(kind, f'127.0.0.1:{server.port}')}"
    refused("storage_options", "ssl_bogus", uri=uri, ssl_bogus=1)


# What is answered clearly, and no waiting will mend


def at(server, scheme="redis", path=""):
    return f"{scheme}://127.0.0.1:{server.port}{path}"


def test_database_that_is_not_there_is_refused(server):
    refused("has no database 99", "databases", uri=at(server, path="/99"))
    refused("has no database 99", uri=f"{server.unix_uri}?db=99")


def test_cluster_that_is_none_is_refused(server):
    refused("is no cluster", "Write redis:// for redis+cluster://", uri=at(server, "redis+cluster"))


def test_sentinel_that_is_none_is_refused(server):
    refused("is no sentinel", "26379", "redis://", uri=at(server, "redis+sentinel", "/mymaster"))


def test_node_of_a_cluster_is_not_taken_for_a_server(cluster):
    refused("node of a cluster", "redis+cluster:// for redis://", uri=f"redis://127.0.0.1:{cluster.ports[1]}")


def test_sentinel_is_not_taken_for_a_server(sentinels):
    refused("is a sentinel", "redis+sentinel://", uri=at(sentinels.sentinels[0]))
    refused("is a sentinel", uri=at(sentinels.sentinels[0], "redis+cluster"))


def test_primary_that_no_sentinel_knows_is_refused(sentinels):
    refused("'yourmaster'", "mymaster", uri=sentinels.uri.replace("mymaster", "yourmaster"))


def test_sentinel_among_several_may_be_none(sentinels, server):
    """Another one answers."""
    uri = sentinels.uri.replace("://", f"://127.0.0.1:{server.port},")
    with closing(App(uri)) as app:
        assert app.posts("/deny", 1) == [200]


def test_wrong_password_of_sentinels_is_refused_as_that_of_a_server_is(new_server):
    sentinel = new_server(password="right-password")
    kwargs = {"sentinel_kwargs": {"password": PASSWORD}}
    refused("refuses the user", "right password", uri=at(sentinel, "redis+sentinel", "/mymaster"), **kwargs)


def test_wrong_password_of_a_cluster_is_refused(new_server):
    server = new_server("--cluster-enabled", "yes", password="right-password")
    refused("refuses the user", "right password", uri=f"redis+cluster://:{PASSWORD}@127.0.0.1:{server.port}")


@pytest.mark.parametrize("scheme", ["rediss", "rediss+cluster"])
def test_tls_to_a_plain_port_is_refused(scheme, server):
    refused(
        "doesn't speak TLS",
        f"Write {scheme.replace('rediss', 'redis')}://",
        uri=at(server, scheme),
        connect_timeout=HASTY,
    )


def test_tls_to_plain_sentinels_is_refused(sentinels):
    uri = sentinels.uri.replace("redis+", "rediss+")
    refused("doesn't speak TLS", "redis+sentinel://", uri=uri, connect_timeout=HASTY)


def test_command_that_the_server_does_not_know_is_refused(new_server):
    refused("can't do what is needed", "EVAL", uri=at(new_server("--rename-command", "EVAL", "")))


def test_something_that_is_no_redis_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            with suppress(OSError):
                while True:
                    with listener.accept()[0] as connection:
                        connection.recv(1 << 16)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = Thread(target=answer)
        thread.start()
        refused("something else listens there", uri=f"redis://127.0.0.1:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@on_one_server
def test_what_may_pass_is_waited_for(server, caplog):
    """A server that starts, that is full, or that is about to be another one's replica is no mistake of the app's."""
    server.ask("REPLICAOF", "127.0.0.1", "1")
    with closing(App(server.uri)) as app:
        assert "is not to be reached" in caplog.text
        server.ask("REPLICAOF", "NO", "ONE")
        wait_until(lambda: app.post("/deny")[0].status_code == 200)


# What the server is like


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "volatile-lru", "allkeys-random"])
def test_eviction_is_warned_of_with_the_command_that_ends_it(policy, new_server, caplog):
    server = new_server("--maxmemory-policy", policy)
    with machine(server.uri):
        pass
    assert f"has maxmemory-policy {policy}" in caplog.text
    assert "CONFIG SET maxmemory-policy noeviction" in caplog.text
    caplog.clear()
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    with machine(server.uri):
        pass
    assert not caplog.records


def test_server_that_does_not_tell_of_itself_is_used_all_the_same(new_server, caplog):
    server = new_server()
    server.ask("ACL", "SETUSER", "default", "-info")
    with closing(App(server.uri)) as app:
        assert app.posts("/deny", 1) == [200]
    assert "doesn't let this user see INFO" in caplog.text


def test_server_that_is_too_full_at_the_start_is_away_until_it_is_not(new_server):
    server = new_server()
    fill_up(server)
    with closing(App(server.uri)) as app:
        assert app.posts("/deny", 4) == [503] * 4
        server.ask("CONFIG", "SET", "maxmemory", "0")
        wait_until(lambda: app.changes == [False, True])
        assert app.posts("/deny", 1) == [200]


# The secret


@pytest.mark.parametrize("given", [{}, {"AILIMIT_SECRET": None}], ids=["missing", "None"])
def test_missing_secret_is_refused_with_a_command_that_makes_one(given, server):
    app = Flask("without-secret")
    app.config.update(given)
    with pytest.raises(ConfigurationError) as raised:
        AILimiter(api_key, app=app, storage_uri=server.uri, storage_options={"timeout": 3})
    for words in ("every machine", "AILIMIT_SECRET", "python -c", "token_hex(32)"):
        assert words in str(raised.value)


@pytest.mark.parametrize("secret", ["short", "x" * 65, ""], ids=len)
def test_secret_of_the_wrong_length_is_refused_and_not_repeated(secret, server):
    with pytest.raises(ConfigurationError, match="16 to 64 bytes are needed") as raised:
        AILimiter(api_key, app=Flask("app"), storage_uri=server.uri, storage_options={"timeout": 3}, secret=secret)
    assert not secret or secret not in str(raised.value)


# URIs


HOST = ("a host is missing", "redis://10.0.0.5:6379/0")
PORT = ("a port is not from 1 to 65535", "redis://10.0.0.5:6379/0")
DATABASE = ("the database is not a number", "redis://10.0.0.5:6379/0")
OPTIONS_IN_URI = ("options are not read behind a '?'", "storage_options", "redis://10.0.0.5:6379/0")
BEHIND_A_SLASH = ("the database goes behind a slash", "redis://10.0.0.5:6379/0")
SOCKET = ("storage_uri", "redis+unix:///run/redis/redis.sock?db=0")
UNREADABLE = {
    "redis://": HOST,
    "redis://:hunter2@": HOST,
    "redis://[::1": HOST,
    "redis://::1:6379": HOST,
    "redis://ho st": HOST,
    "redis:///0": HOST,
    "redis://h:": HOST,
    "redis://h:6379#0": HOST,
    "redis://:hunter2@h:port": HOST,
    "redis://:hun/ter2@h:99999": PORT,
    "redis://:hunter2@h:99999": PORT,
    "redis://hunter2@h:0": PORT,
    "redis://h:65536/0": PORT,
    "redis://h/x": DATABASE,
    "redis://h/-1": DATABASE,
    "redis://h/0/1": DATABASE,
    "redis://h/0?ssl=true": OPTIONS_IN_URI,
    "redis://h/0?protocol=3": OPTIONS_IN_URI,
    "redis://h:1?protocol=3": OPTIONS_IN_URI,
    "redis://h?": OPTIONS_IN_URI,
    "redis://:hunter2@h:1?db=3": BEHIND_A_SLASH,
    "redis+sentinel://h/mymaster?db=3": ("behind a slash", "26379/mymaster"),
    "redis+cluster://h?protocol=3": ("storage_options", "redis+cluster://10.0.0.5:6379"),
    "redis://:hunter2@h1:6379,h2:6379": ("there is one host", "redis+sentinel://", "redis+cluster://"),
    "redis+sentinel://:hunter2@h:26379": ("the name of the primary is missing", "26379/mymaster"),
    "redis+sentinel://h:26379/": ("the name of the primary is missing", "26379/mymaster"),
    "redis+sentinel:///mymaster": ("a host is missing", "26379/mymaster"),
    "redis+sentinel://h/mymaster/x": ("the database is not a number", "26379/mymaster"),
    "redis+cluster://:hunter2@h:6379/1": ("database 0 only", "redis+cluster://10.0.0.5:6379,10.0.0.6:6379"),
    "redis+cluster://h,": ("a host is missing", "redis+cluster://10.0.0.5:6379,10.0.0.6:6379"),
    "redis+unix://": SOCKET,
    "redis+unix:///": SOCKET,
    "redis+unix:///run/redis.sock?db=x": SOCKET,
    "redis+unix://relative/redis.sock": SOCKET,
    "redis+unix:///run/redis.sock?protocol=3": ("only db is read", *SOCKET),
    "redis+unix:///run/redis.sock?db=1&protocol=3": ("only db is read", *SOCKET),
    "redis+unix:///run/redis.sock?db=": SOCKET,
    "REDIS://:hunter2@h": ("small letters, redis://.",),
    "Redis+Cluster://:hunter2@h": ("small letters, redis+cluster://.",),
    "redises://:hunter2@h": ("no store is called", "redis://", "redis+sentinel://"),
    "redis+tls://:hunter2@h": ("no store is called", "rediss://"),
}


@pytest.mark.parametrize("uri", UNREADABLE)
def test_unreadable_uri_is_refused_with_an_example_and_without_its_password(uri):
    refused(*UNREADABLE[uri], uri=uri)


@pytest.mark.parametrize(
    "password", ["hunter2\u2100", "[hunter2]", "[hunter2", "hunter2\uff20x", "%hunter2%", "hunter2?x"]
)
@pytest.mark.parametrize("kind", ["redis://:{}@127.0.0.1:1", "redis+unix://:{}@/nowhere/redis.sock"])
def test_password_that_should_have_been_percent_encoded_is_not_repeated(kind, password, caplog):
    """Whether it is refused or understood."""
    said = ""
    try:
        with closing(App(kind.format(password))) as app:
            assert app.posts("/deny", 1) == [503]
    except ConfigurationError as error:
        said = _chain(error)
    assert "hunter2" not in said + caplog.text


def test_address_shows_no_password():
    address = parse(f"redis://app:{PASSWORD}@h:6379/0")
    assert address.password == PASSWORD
    assert PASSWORD not in f"{address} {address!r}"


def test_port_of_a_thousand_digits_is_a_port_that_is_not():
    refused("storage_uri", "redis://10.0.0.5:6379/0", uri="redis://h:" + "9" * 5000)


# Options


SECONDS = ("timeout: seconds from 0.001 to 3, such as 0.25",)
TO_CONNECT = ("connect_timeout: seconds from 0.001 to 2, such as 1",)
CONNECTIONS = ("max_connections: a whole number from 1 to 10000",)
PREFIX = ("prefix: 1 to 32 letters, digits",)
OPTIONS = [
    *[({"timeout": value}, SECONDS) for value in (0, -1, None, True, "1", 11, 0.0001, float("nan"), float("inf"))],
    *[({"connect_timeout": value}, TO_CONNECT) for value in (0, -1, None, True, "1", 2.5, float("nan"))],
    *[({"max_connections": value}, CONNECTIONS) for value in (0, -1, None, True, "8", 1.5, 10_001)],
    *[({"machines": value}, ("machines: a whole number from 1 to 10000",)) for value in (0, 2.0)],
    *[({"prefix": value}, PREFIX) for value in ("", "a{b}", "a b", "a:b", "x" * 33, "é", "a*", "a\n", None, 5, b"a")],
    *[
        ({name: "hunter2"}, ("storage_options: there is no option", f"'{name}'", "timeout, max_connections"))
        for name in ("socket_timeout", "retry_on_timeout", "host", "db", "decode_responses", "time_out", "protocol")
    ],
    ({"retry": None}, ("no option 'retry'",)),
    ({"ssl_bogus": "hunter2"}, ("storage_options",)),
    ({"x" * 500: 1}, ("no option",)),
]


@on_one_server
@pytest.mark.parametrize(("option", "words"), OPTIONS, ids=lambda value: str(value)[:30])
def test_wrong_option_is_refused_at_once(option, words, server):
    refused(*words, uri=server.uri, **option)


@on_one_server
def test_each_option_that_there_is_works(new_server):
    server = new_server()
    server.ask("ACL", "SETUSER", "app", "on", f">{PASSWORD}", "~mine:*", "+@all")
    options = {
        "timeout": 1,
        "connect_timeout": 2,
        "max_connections": 3,
        "prefix": "mine",
        "machines": 4,
        "client_name": "the-app",
        "username": "app",
        "password": PASSWORD,
    }
    with closing(App(server.uri, options=options)) as app:
        assert app.posts("/deny", 1) == [200]
        # Keys of others are not in the way of its own.
        assert {key.split(b":")[0] for key in server.ask("KEYS", "*")} == {b"mine"}
        assert {client["name"] for client in server.client().client_list() if client["user"] == "app"} == {"the-app"}
        assert PASSWORD not in repr(vars(app.limiter.engine.store)) + repr(app.limiter.engine.store)


def test_config_of_the_app_does_as_well(server):
    app = Flask("configured")
    app.config.update(RATELIMIT_STORAGE_URI=server.uri, RATELIMIT_STORAGE_OPTIONS={"timeout": 3}, AILIMIT_SECRET=SECRET)
    limiter = AILimiter(api_key, app=app)
    assert repr(limiter.engine.store) == f"RedisStore('redis 127.0.0.1:{server.port}')"
    put_away(limiter.engine.store)
