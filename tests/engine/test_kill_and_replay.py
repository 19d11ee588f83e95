"""Eight processes on one local store, killed at random; afterwards every single answer is worked out again."""

import time

import lmdb
import pytest
from replay import Replay
from soak import soak

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def kill_and_replay(place, *, least_killed, **sizes):
    start = time.monotonic()
    log, killed = soak(place, **sizes)
    seconds = time.monotonic() - start
    replay = Replay()
    with lmdb.open(str(place / "limits"), readonly=True, lock=False) as environment:
        replay.run(log, environment.info()["last_txnid"])
    print(  # noqa: T201  the figures, with -s
        f"\n{replay.decisions} decisions ({replay.allowed} allowed), {replay.settled} settlements in {seconds:.1f} s, "
        f"{(replay.decisions + replay.settled) / seconds:.0f}/s; {killed} kill -9, {replay.uncommitted} inside a "
        f"transaction; {replay.different} answers differ, {replay.over_admitted()} over-admitted"
    )
    assert replay.different == 0
    assert replay.over_admitted() == 0
    assert replay.uncommitted <= killed
    assert replay.passed
    assert killed >= least_killed  # Some moments fall together, more of them in a short run.
    assert min(replay.allowed, replay.decisions - replay.allowed) >= 100
    assert replay.decisions >= sizes["processes"] * sizes["decisions"]


def test_no_answer_differs_and_nothing_is_over_admitted_though_processes_are_killed(tmp_path):
    kill_and_replay(tmp_path, processes=8, decisions=400, kills=25, least_killed=10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_answer_differs_in_800_000_decisions_and_250_kills(tmp_path):
    kill_and_replay(tmp_path, processes=8, decisions=100_000, kills=250, least_killed=200)
