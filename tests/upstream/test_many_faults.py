"""Faults at random points of calls and streams, and workers that are killed: what is held, counted and delivered."""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from subprocess import Popen

import pytest
from fault_caller import IN_FLIGHT, LEASE, RESERVED_OUTPUT, THREADS, upstream_in

from flask_ailimit.engine.quota import CONCURRENCY, TURNS
from flask_ailimit.testing import FakeProvider, Fault
from flask_ailimit.tokens import Usage
from flask_ailimit.upstream.pacing import PLACE_LEASE, Asked

CALLER = Path(__file__).with_name("fault_caller.py")
WORKERS = 3
FAULTS = (
    *(Fault.throttled(retry_after_ms=20), Fault.throttled(), Fault.overloaded(), Fault.error(500), Fault.error(400)),
    *(Fault.dropped(), Fault.dropped(unread=True), Fault.dropped(ending="close"), Fault.too_long(), Fault.error(408)),
    *(Fault.ok().cut(after) for after in (0, 1, 2, 3)),
    *(Fault.ok().cut(after, ending) for after in (1, 3) for ending in ("close", "clean")),
    *(Fault.ok().failing(after) for after in (0, 2)),
    *(Fault.ok().slow(0.02), Fault.ok().late(0.1), Fault.ok().without_usage(), Fault.ok().late(0.05).cut(2)),
)
NOT_BILLED = {400, 408, 429, 500, 503}
MOST_INPUT = 60
"""Tokens that are reserved for the input of a call at most."""


@pytest.mark.parametrize(
    ("faults", "kills"), [(60, 2), pytest.param(1000, 25, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_everything_that_was_held_is_ended_and_nothing_is_answered_twice(faults, kills, tmp_path):
    store, random = f"local://{tmp_path}/store", Random(faults)
    with FakeProvider() as provider:
        provider.at_random(faults, 0.25, FAULTS)
        workers, notes = [], []

        def start():
            name = f"w{len(notes)}"
            notes.append(tmp_path / name)
            arguments = [store, provider.url, str(notes[-1]), name, str(faults)]
            workers.append(Popen([sys.executable, str(CALLER), *arguments]))

        def kill(worker):
            worker.kill()
            worker.wait()
            workers.remove(worker)

        try:
            for _ in range(WORKERS):
                start()
            while met(provider) < faults:
                killed = len(notes) - WORKERS
                if killed < kills and met(provider) > faults * (killed + 1) / (kills + 1):
                    kill(random.choice(workers))
                    start()
                time.sleep(0.05 * random.random())
        finally:
            for worker in [*workers]:
                kill(worker)
        provider.wait_for_calls(timeout=10)
        calls = provider.calls
    upstream = upstream_in(store)
    wait_until_free(upstream)
    check(upstream, calls, [json.loads(line) for path in notes for line in path.read_text().splitlines()], len(notes))


def met(provider):
    return sum(call.fault != Fault.ok() for call in provider.calls)


def standing_of(upstream):
    """How each count stands, by unit."""
    group, engine = upstream.group("m"), upstream.budget._engine
    charges = [verdict.charge.costing(0) for verdict in group.peek(Asked("m", Usage(1, 1))).verdicts]
    return {verdict.quota.unit: verdict for verdict in engine.peek(charges).verdicts}


def wait_until_free(upstream):
    """The slots and places of workers that were killed are free when their leases have ended."""
    end = time.monotonic() + LEASE + PLACE_LEASE + 20
    while any(standing_of(upstream)[unit].reset_after_us for unit in (CONCURRENCY, TURNS)):
        assert time.monotonic() < end
        time.sleep(0.2)


def check(upstream, calls, notes, processes):
    began = [note["call"] for note in notes if "status" not in note]
    ended = {note["call"]: note for note in notes if "status" in note}
    assert len(began) == len(set(began))
    standing = standing_of(upstream)
    # Nothing is held.
    assert standing[CONCURRENCY].remaining == IN_FLIGHT
    assert standing[TURNS].remaining == standing[TURNS].quota.limit
    # Nobody is answered twice: after an answer that is one, the same call never comes again.
    by_name = {}
    for call in calls:
        by_name.setdefault(name_of(call), []).append(call)
    by_name.pop(None, None)
    for came in by_name.values():
        statuses = [call.status for call in came]
        assert 200 not in statuses[:-1], statuses
        assert len(came) <= 3
    # Nothing is charged for what was never sent. A worker that is killed may have taken what it did not send.
    lost = processes * THREADS
    sent = len(calls)
    requests = standing["requests"]
    counted = requests.quota.limit - requests.remaining
    assert sent - lost <= counted <= sent + lost, (sent, counted)
    # Tokens: at least those of the answers that were told, and nothing for what is not billed.
    names_lost = set(began) - set(ended)
    tokens = standing["tokens"]
    used = tokens.quota.limit - tokens.remaining
    billed = [call for call in calls if call.status not in NOT_BILLED]
    whole = [call for call in billed if call.delivered and call.status == 200 and name_of(call) not in names_lost]
    assert used <= len(billed) * (RESERVED_OUTPUT + MOST_INPUT) + lost * (RESERVED_OUTPUT + MOST_INPUT)
    assert used >= sum(2 * len(said(call).split()) for call in whole)
    assert Counter(note["status"] for note in ended.values())[200] > 0


def said(call):
    return call.body["messages"][0]["content"]


def name_of(call):
    return said(call).split()[0] if call.body else None
