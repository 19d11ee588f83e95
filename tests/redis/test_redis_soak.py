"""Eight processes on one Redis, killed and cut off at random; afterwards every single answer is worked out again."""

import time
from contextlib import closing

import pytest
from redis_replay import RedisReplay, snapshot
from redis_servers import binary_of, start_server
from redis_soak import soak

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def redis_server():
    with closing(start_server(binary_of("valkey"))) as server:
        yield server


def soak_and_replay(server, log, *, least_killed, **sizes):
    start = time.monotonic()
    killed = soak(server, log, **sizes)
    seconds = time.monotonic() - start
    kept = snapshot(server.client())
    replay = RedisReplay()
    replay.run(log)
    over_admitted = replay.over_admitted()
    differing = replay.differing(kept)
    print(  # noqa: T201  the figures, with -s
        f"\n{replay.decisions} decisions ({replay.allowed} allowed), {replay.settled} settlements in {seconds:.1f} s, "
        f"{(replay.decisions + replay.settled) / seconds:.0f}/s; {killed} kill -9, {sizes['disturbances']} "
        f"disturbances; {replay.repeated} sent again, {replay.undone} undone, {replay.given_up} given up; "
        f"{replay.different} answers differ, {over_admitted} over-admitted, {len(differing)} counts differ"
    )
    assert replay.different == 0
    assert replay.passed
    assert over_admitted == 0
    assert differing == []
    assert any(raw for raw, _, _ in kept.values())
    assert killed >= least_killed  # Some had done their part just then.
    assert min(replay.allowed, replay.decisions - replay.allowed) >= 100
    assert replay.decisions >= sizes["processes"] * sizes["decisions"] * 0.99
    assert replay.repeated + replay.undone + replay.given_up


def test_no_answer_differs_and_nothing_is_over_admitted_though_processes_are_killed(redis_server, tmp_path):
    sizes = {"processes": 8, "decisions": 1500, "kills": 60, "disturbances": 24}
    soak_and_replay(redis_server, tmp_path / "log", least_killed=55, **sizes)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_answer_differs_in_1_000_000_decisions_and_450_kills(redis_server, tmp_path):
    sizes = {"processes": 8, "decisions": 130_000, "kills": 450, "disturbances": 200}
    soak_and_replay(redis_server, tmp_path / "log", least_killed=440, **sizes)
