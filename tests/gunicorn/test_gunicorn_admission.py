"""Many clients, several processes, one limit: exactly as many are admitted as it says."""

import signal
from collections import Counter

import pytest
from conftest import WORKER_CLASSES
from gunicorn_books import wait_for
from gunicorn_client import Crowd
from gunicorn_server import serving

CLIENTS = 500
LIMIT = 50
COST = 100
AMPLE = 1_000_000

pytestmark = pytest.mark.parametrize("worker_class", WORKER_CLASSES)


def admit(*, requests=AMPLE, tokens=AMPLE, slots=CLIENTS, hold=""):
    """The address of a view under limits of these sizes."""
    return f"/admit?requests={requests}&tokens={tokens}&slots={slots}{hold}"


def paid(server, path, key):
    return server.books.used(key, "admit", path)


def ask_all(server, path, key, count=LIMIT):
    """Send everybody at once: so many are admitted, and exactly those have paid."""
    crowd = Crowd(server.port, path, [key] * CLIENTS)
    crowd.ask()
    assert crowd.collect() == {200: count, 429: CLIENTS - count}
    assert paid(server, path, key) == {"requests": count, "tokens": count * COST, "concurrency": 0}
    server.books.wait_settled(key, count)


def test_exactly_the_limit_is_admitted_whichever_unit_binds(worker_class, tmp_path):
    with serving(tmp_path, worker_class, workers=4) as server:
        ask_all(server, admit(requests=LIMIT), "requests-bind")
        ask_all(server, admit(tokens=LIMIT * COST + COST - 1, requests=LIMIT + 1), "tokens-bind")
        assert len({line["pid"] for line in server.books.entries("taken", "requests-bind")}) > 1
        assert "Traceback" not in server.log()


def test_crowd_that_passes_a_soft_limit_is_told_of_by_one_worker(worker_class, tmp_path):
    """Limits on requests and on tokens, all of which cost what was reserved; and clients that are far from them."""
    with serving(tmp_path, worker_class, workers=4, settings={"soft_percent": 80}) as server:
        path, keys = admit(requests=LIMIT, tokens=LIMIT * COST), [f"crowd-{number}" for number in range(8)]
        crowds = [Crowd(server.port, path, [key] * (LIMIT + 10)) for key in keys]
        few = Crowd(server.port, path, ["few"] * (LIMIT * 8 // 10 - 1))
        for crowd in [*crowds, few]:
            crowd.ask()
        for crowd in [*crowds, few]:
            crowd.collect()
        for key in [*keys, "few"]:
            server.books.wait_settled(key)
        told = {key: server.books.entries("told", key) for key in [*keys, "few"]}
        assert {key: sorted(line["unit"] for line in lines) for key, lines in told.items()} == {
            **{key: ["requests", "tokens"] for key in keys},
            "few": [],
        }
        used = {(line["unit"], line["used"] >= LIMIT * 8 // 10) for lines in told.values() for line in lines}
        assert used == {("requests", True), ("tokens", True)}
        assert "Traceback" not in server.log()


def test_the_higher_limit_is_admitted_once_while_old_and_new_workers_serve(worker_class, tmp_path):
    higher, clients = LIMIT + LIMIT // 2, 200
    with serving(tmp_path, worker_class, workers=4) as server:
        for key, unit, cost in (("requests", "requests", 1), ("tokens", "tokens", COST)):
            old, new = (admit(**{unit: limit * cost}) for limit in (LIMIT, higher))
            crowds = [Crowd(server.port, path, [key] * (clients // 2)) for path in (old, new)]
            for crowd in crowds:
                crowd.ask()
            statuses = sum((Counter(crowd.collect()) for crowd in crowds), Counter())
            assert statuses == {200: higher, 429: clients - higher}
            assert paid(server, new, key) == {"requests": higher, "tokens": higher * COST, "concurrency": 0}
        assert "Traceback" not in server.log()


def test_exactly_the_limit_is_in_flight(worker_class, upstream, tmp_path):
    threads = 64
    slots = {"sync": 2, "gthread": 50, "gevent": 50}[worker_class]  # Fewer than a single worker can hold, or all four.
    with serving(tmp_path, worker_class, workers=4, threads=threads, upstream_port=upstream.port) as server:
        path = admit(slots=slots, hold="&hold")
        crowd = Crowd(server.port, path, ["held"] * CLIENTS)
        crowd.ask()
        conversations = [upstream.called() for _ in range(slots)]
        assert crowd.collect(CLIENTS - slots) == {429: CLIENTS - slots}
        assert paid(server, path, "held") == {"requests": slots, "tokens": slots * COST, "concurrency": slots}
        for conversation in conversations:
            conversation.close()
        assert crowd.collect() == {200: slots, 429: CLIENTS - slots}
        assert paid(server, path, "held") == {"requests": slots, "tokens": slots * COST, "concurrency": 0}


def test_exactly_the_limit_is_admitted_by_a_preloaded_app(worker_class, tmp_path):
    with serving(tmp_path, worker_class, "--preload", workers=4) as server:
        ask_all(server, admit(requests=LIMIT), "preloaded")
        assert len({line["pid"] for line in server.books.entries("taken", "preloaded")}) > 1


def test_streams_that_begin_at_once_are_all_answered_by_a_preloaded_app(worker_class, tmp_path):
    with serving(tmp_path, worker_class, "--preload", workers=1) as server:
        crowd = Crowd(server.port, "/story", [f"key-{number}" for number in range(100)])
        crowd.ask()
        assert crowd.collect() == {200: 100}
        # The last answers may have arrived before their threads have put everything away.
        wait_for(server.state, lambda state: (state["held"], state["watched"]) == (0, 0))


@pytest.mark.parametrize("replaced_by", ["a reload", "max-requests"])
def test_exactly_the_limit_is_admitted_while_workers_are_replaced(worker_class, tmp_path, replaced_by):
    clients = 300
    arguments = ["--max-requests", "40"] if replaced_by == "max-requests" else []
    with serving(tmp_path, worker_class, *arguments, workers=4) as server:
        path = admit(requests=LIMIT)
        crowd = Crowd(server.port, path, ["replaced"] * clients)
        crowd.ask(LIMIT // 2)
        crowd.collect(LIMIT // 4)
        if replaced_by == "a reload":
            server.process.send_signal(signal.SIGHUP)
        crowd.ask()
        counts = crowd.collect()
        # gunicorn's own: a gevent worker that stops drops a connection that it accepts at that moment.
        lost = counts.pop("no answer", 0)
        assert lost <= (20 if worker_class == "gevent" else 0)
        assert counts == {200: LIMIT, 429: clients - LIMIT - lost}
        assert paid(server, path, "replaced") == {"requests": LIMIT, "tokens": LIMIT * COST, "concurrency": 0}
        server.wait_for_workers(5)
