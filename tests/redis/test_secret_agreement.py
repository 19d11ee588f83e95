"""All that use a store hash identities with one secret: Flask's own will do, and who has another one is told so."""

import threading
from contextlib import ExitStack, closing
from secrets import token_hex

import pytest
from flask import Flask
from redis_servers import wait_until

from flask_ailimit import AILimiter, ConfigurationError, api_key
from flask_ailimit.engine.stores import directory
from flask_ailimit.engine.stores.redis import agreement, machines

KEY = "ailimit:{}:fingerprint"
SECRET, OTHER = "a-secret-of-all-the-machines", "a-secret-of-nobody-else-here"
HEADERS = {"x-api-key": "alice"}


@pytest.fixture(autouse=True)
def _nearby_in(tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "default_directory", lambda name: tmp_path / name)


@pytest.fixture
def start(server):
    """Starts an app, as a worker or a machine does, and answers its limiter."""
    with ExitStack() as ending:

        def start_app(uri=None, options=(), settings=(), **config):
            app = Flask(f"app-{token_hex(4)}")
            app.config.update(config)
            limiter = AILimiter(
                api_key,
                storage_uri=uri or server.uri,
                storage_options=dict(options) or {"timeout": 3, "connect_timeout": 2},
                **dict(settings),
            )

            @app.get("/")
            @limiter.limit("3 per hour")
            def view():
                return ""

            limiter.init_app(app)
            ending.enter_context(closing(limiter.engine))
            limiter.get = lambda: app.test_client().get("/", headers=HEADERS).status_code
            return limiter

        yield start_app


def refused(start, **given):
    with pytest.raises(ConfigurationError) as raised:
        start(**given)
    return str(raised.value)


def test_app_with_a_secret_key_needs_no_secret_of_ours(start):
    first, second = start(SECRET_KEY=SECRET), start(SECRET_KEY=SECRET)
    assert [first.get(), second.get(), first.get(), second.get()] == [200, 200, 200, 429]


def test_secret_of_ours_goes_before_flask_s(start):
    first, second = (
        start(SECRET_KEY=SECRET, AILIMIT_SECRET=OTHER),
        start(SECRET_KEY=token_hex(16), AILIMIT_SECRET=OTHER),
    )
    assert first.subject("alice") == second.subject("alice")
    assert start(settings={"secret": OTHER}).subject("alice") == first.subject("alice")


def test_what_is_made_of_a_secret_key_is_not_the_key(start, server):
    """Else what is signed for one use would pass in another."""
    made = start(SECRET_KEY=SECRET).subject("alice")
    server.clear()
    assert start(AILIMIT_SECRET=SECRET).subject("alice") != made


def test_each_type_of_a_secret_key_does(start):
    assert start(SECRET_KEY=SECRET).subject("a") == start(SECRET_KEY=SECRET.encode()).subject("a")


@pytest.mark.parametrize("key", [None, "", b""], ids=repr)
def test_without_any_secret_it_is_refused_as_ever(key, start):
    said = refused(start, SECRET_KEY=key)
    assert "AILIMIT_SECRET" in said
    assert "SECRET_KEY" in said


def test_short_secret_key_is_refused_and_not_repeated(start, server):
    """Whoever can read the store could try all such keys."""
    said = refused(start, SECRET_KEY="hunter2")
    assert "SECRET_KEY" in said
    assert "hunter2" not in said
    assert not server.ask("EXISTS", KEY)


def test_workers_that_each_make_a_secret_key_are_refused_from_the_second_on(start):
    start(SECRET_KEY=token_hex(16))
    said = refused(start, SECRET_KEY=token_hex(16))
    for words in ("SECRET_KEY", "each worker", "AILIMIT_SECRET", f'redis-cli DEL "{KEY}"'):
        assert words in said


def test_machine_with_another_secret_is_refused(start):
    start(AILIMIT_SECRET=SECRET)
    said = refused(start, AILIMIT_SECRET=OTHER)
    assert "Give all machines the same AILIMIT_SECRET" in said
    assert SECRET not in said
    assert OTHER not in said
    start(AILIMIT_SECRET=SECRET)


def test_who_is_refused_leaves_no_thread_behind(start):
    start(AILIMIT_SECRET=SECRET)
    before = set(threading.enumerate())
    refused(start, AILIMIT_SECRET=OTHER)
    wait_until(lambda: set(threading.enumerate()) <= before)


def test_another_prefix_has_a_secret_of_its_own(start):
    start(AILIMIT_SECRET=SECRET)
    start(AILIMIT_SECRET=OTHER, options={"prefix": "other"})


def test_machines_of_a_cluster_agree_too(start, cluster):
    start(uri=cluster.uri, AILIMIT_SECRET=SECRET)
    assert "(for a cluster with -c)" in refused(start, uri=cluster.uri, AILIMIT_SECRET=OTHER)


def test_what_the_message_says_lets_a_new_secret_in(start, server):
    start(AILIMIT_SECRET=SECRET)
    command = refused(start, AILIMIT_SECRET=OTHER).partition("redis-cli DEL ")[2].split('"')[1]
    server.ask("DEL", command)
    start(AILIMIT_SECRET=OTHER)
    refused(start, AILIMIT_SECRET=SECRET)


def test_after_a_flush_the_next_that_starts_says_which_it_is(start, server):
    start(AILIMIT_SECRET=SECRET)
    server.ask("FLUSHALL")
    start(AILIMIT_SECRET=OTHER)
    refused(start, AILIMIT_SECRET=SECRET)


def test_fingerprint_tells_nothing_and_ends_when_nobody_starts_for_a_month(start, server):
    start(AILIMIT_SECRET=SECRET)
    kept = server.ask("GET", KEY)
    assert len(kept) == 32
    assert int(kept, 16) >= 0
    server.ask("PEXPIRE", KEY, 5000)
    start(AILIMIT_SECRET=SECRET)
    assert 29 < server.ask("TTL", KEY) / 86_400 <= 30


@pytest.mark.parametrize("found", ["SET {} nonsense", "SET {} zz345678901234567890123456789012", "RPUSH {} a"])
def test_what_is_no_fingerprint_is_replaced(found, start, server):
    server.ask(*found.format(KEY).split())
    start(AILIMIT_SECRET=SECRET)
    refused(start, AILIMIT_SECRET=OTHER)
    assert server.ask("TTL", KEY) > 0


def test_forgetting_everyone_does_not_forget_the_agreement(start):
    start(AILIMIT_SECRET=SECRET).engine.reset()
    refused(start, AILIMIT_SECRET=OTHER)


def test_who_starts_while_the_server_is_away_is_told_when_it_is_back_and_goes_on(start, proxy, caplog, monkeypatch):
    monkeypatch.setattr(machines, "_INTERVAL", 0.02)
    start(AILIMIT_SECRET=SECRET)
    proxy.refuse()
    late = start(proxy.uri, AILIMIT_SECRET=OTHER)
    assert late.get() == 200
    proxy.heal()
    wait_until(lambda: late.get() in (200, 429) and "hashes identities otherwise" in caplog.text)
    assert 'redis-cli DEL "ailimit:{}:fingerprint"' in caplog.text
    late.engine.reset()
    assert late.get() == 200


def test_who_runs_hears_once_of_another_secret_that_was_let_in(start, server, caplog, monkeypatch):
    monkeypatch.setattr(machines, "_INTERVAL", 0.02)
    monkeypatch.setattr(agreement, "_EACH", 0.0)
    running = start(AILIMIT_SECRET=SECRET)
    running.get()
    server.ask("DEL", KEY)
    server.ask("SET", KEY, "0" * 32)
    wait_until(lambda: "hashes identities otherwise" in caplog.text)
    assert running.get() == 200


def test_nobody_is_asked_again_before_an_hour_is_over(start, server, monkeypatch):
    limiter = start(AILIMIT_SECRET=SECRET)
    server.ask("SET", KEY, "0" * 32)
    limiter.engine.store._agreement.look_again()
    later = agreement.seconds_running() + 3601
    monkeypatch.setattr(agreement, "seconds_running", lambda: later)
    server.ask("DEL", KEY)
    limiter.engine.store._agreement.look_again()
    assert server.ask("EXISTS", KEY)


def test_local_store_takes_no_secret_from_flask(start, tmp_path):
    """It has one of its own, beside the counts: a SECRET_KEY that changes must not change who is who."""
    first, second = (
        start(uri=f"local://{tmp_path}/store", options={"map_size": 1 << 20}, SECRET_KEY=key) for key in (SECRET, OTHER)
    )
    assert first.subject("alice") == second.subject("alice")
