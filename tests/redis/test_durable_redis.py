"""Whether money lasts in a Redis: what servers with other configurations and rights say, and what an app does then."""

import threading
from contextlib import ExitStack, closing

import pytest
from flask import Flask
from redis_servers import wait_until
from redis_stores import store_at

from flask_ailimit import AILimiter, ConfigurationError, StoreError

PLANS = {
    "default_plan": "pro",
    "prices": {"*": {"input": "1 USD", "output": "1 USD"}},
    "plans": {"pro": {"budget": "10 USD per calendar month"}},
}
LASTING = ("--appendonly", "yes")


@pytest.fixture
def opened():
    """Opens stores, which are closed at the end."""
    with ExitStack() as ending:

        def open_one(uri):
            store = store_at(uri)
            ending.callback(store.close)
            return store

        yield open_one


def shop(uri, **options):
    limiter = AILimiter(lambda: "7", app=Flask("shop"), plans=PLANS, storage_uri=uri, secret="x" * 32, **options)
    return closing(limiter._latest.opened)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), ["loses all counts when it restarts: it saves nothing", "appendonly yes"]),
        (LASTING, None),
        (("--save", "60 1"), None),
        ((*LASTING, "--maxmemory-policy", "volatile-ttl"), ["maxmemory-policy volatile-ttl", "CONFIG SET maxmemory-p"]),
        ((*LASTING, "--maxmemory-policy", "allkeys-lru"), ["throws counts away", "allkeys-lru"]),
    ],
)
def test_store_says_whether_its_counts_last(new_server, opened, options, says):
    found = opened(new_server(*options).uri).may_lose_counts()
    assert found is says is None or [words for words in says if words not in found] == []


def test_store_of_which_it_can_not_be_seen_says_so(new_server, opened):
    server = new_server()
    server.ask("ACL", "SETUSER", "default", "-config")
    assert "whether it makes snapshots" in opened(server.uri).may_lose_counts()
    server.ask("ACL", "SETUSER", "default", "-info")
    assert "Give the user the right +info" in opened(server.uri).may_lose_counts()


def test_user_without_the_right_to_configure_sees_an_append_only_file(new_server, opened):
    server = new_server(*LASTING)
    server.ask("ACL", "SETUSER", "default", "-config")
    assert opened(server.uri).may_lose_counts() is None


def test_store_that_is_away_does_not_say_that_counts_last(new_server, opened):
    server = new_server(*LASTING)
    store = opened(server.uri)
    server.kill()
    with pytest.raises(StoreError, match="didn't answer"):
        store.may_lose_counts()


def test_cluster_without_append_only_files_says_that_counts_may_not_last(cluster, opened):
    assert "may lose its counts when it restarts" in opened(cluster.uri).may_lose_counts()


def test_app_with_money_starts_over_a_server_that_saves_and_over_no_other(new_server):
    with pytest.raises(
        ConfigurationError, match=r"money is limited.*it saves nothing.*AILIMIT_ACCEPT_MONEY_LOSS = True"
    ):
        shop(new_server().uri)
    with shop(new_server(*LASTING).uri), shop(new_server().uri, accept_money_loss=True):
        pass


def test_app_with_money_that_starts_while_its_server_is_away_says_later_what_is_wrong(new_server, caplog, monkeypatch):
    monkeypatch.setattr("flask_ailimit.durable._ASKED_AGAIN_AFTER", 0.1)
    server = new_server()
    server.kill()
    with shop(server.uri):
        assert "Whether money lasts is looked at later" in caplog.text
        server.restart()
        wait_until(lambda: "Money is not safe. storage_uri: money is limited" in caplog.text)
    wait_until(lambda: not [each for each in threading.enumerate() if "durability" in each.name])
