"""Under gevent a view that computes lets no greenlet run; its slot is its own all the same."""

import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from gunicorn_app import LEASE
from gunicorn_books import wait_for
from gunicorn_server import serving

sys.path.append(str(Path(__file__).parents[1] / "redis"))

from redis_servers import binary_of, start_server

UNHURRIED = 3.0
"""Seconds for an answer of Redis."""

COMPUTES = 2 * LEASE + 1


@pytest.mark.parametrize("store", ["local", "redis"])
def test_view_that_computes_for_longer_than_its_lease_keeps_its_slot(store, tmp_path):
    if store == "local":
        keeps_its_slot(tmp_path)
        return
    with closing(start_server(binary_of("valkey"))) as redis:
        keeps_its_slot(tmp_path, redis=redis.uri, timeout=UNHURRIED)


def keeps_its_slot(directory, **options):
    with serving(directory, "gevent", workers=2, **options) as server:
        busy = server.call(f"/compute?seconds={COMPUTES}", "busy")
        wait_for(lambda: server.books.used("busy", "compute")["concurrency"])
        (taken,) = server.books.entries("taken", "busy")
        ends = taken["at"] + COMPUTES  # The view has begun to compute only after that.
        statuses = []
        # Only the other worker can answer. What is answered after the view may have ended tells nothing.
        while (status := server.call("/compute?seconds=0", "busy").status) == 429 or time.monotonic() < ends:
            statuses.append(status)
            last = time.monotonic()
            time.sleep(0.1)
        assert set(statuses) == {429}
        assert last - taken["at"] > LEASE
        assert busy.status == 200
        wait_for(lambda: not server.books.used("busy", "compute")["concurrency"])
        assert server.call("/compute?seconds=0", "busy").status == 200
