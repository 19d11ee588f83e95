"""The store contract, word for word, on one server, behind sentinels and on a cluster."""

import pytest
from redis_stores import store_at

from flask_ailimit.testing import ManualClock, StoreContract


class OverRedis(StoreContract):
    @pytest.fixture
    def store_and_advance(self, uri):
        clock = ManualClock()
        store = store_at(uri, clock)
        yield store, clock.advance_us
        store.close()

    def test_secret_is_the_same_each_time_it_is_asked_for(self, store):
        pytest.skip("No secret belongs into Redis: see test_redis_startup.py")


class TestOneServer(OverRedis):
    @pytest.fixture
    def uri(self, server):
        return server.uri


class TestBehindSentinels(OverRedis):
    @pytest.fixture
    def uri(self, sentinels):
        return sentinels.uri


class TestCluster(OverRedis):
    @pytest.fixture
    def uri(self, cluster):
        return cluster.uri
