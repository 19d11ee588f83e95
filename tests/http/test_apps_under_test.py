"""Apps that tests use: where they count, what a reset clears, and whose time they follow."""

import datetime as dt
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import freezegun
import pytest
import time_machine
from limited_apps import apps_of_two, statuses

from flask_ailimit.engine import clock
from flask_ailimit.engine.stores.directory import BASE
from flask_ailimit.testing import START_US, limits_clock  # noqa: F401  a fixture

ONE = {"AILIMIT_NAME": "one"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Where default stores are."""
    monkeypatch.setenv(BASE, str(tmp_path / "stores"))
    return tmp_path / "stores"


@pytest.fixture
def serve(home):
    """Makes apps of one name that allow two requests a day; their stores are closed at the end."""
    with apps_of_two() as make:
        yield lambda config=(), **options: make(ONE | dict(config), import_name="one", **options)


LIMITED = [200, 200, 429]


@pytest.mark.parametrize("options", [{}, {"storage_options": {"map_size": 1 << 20}}])
def test_testing_app_without_a_store_counts_in_memory(home, serve, options):
    app, limiter = serve({"TESTING": True}, **options)
    assert statuses(app) == LIMITED
    assert repr(limiter.engine.store) == "MemoryStore()"
    assert statuses(serve({"TESTING": True})[0]) == LIMITED
    assert not home.exists()


@pytest.mark.parametrize("named", ["keyword", "config"])
def test_testing_app_that_names_a_store_gets_it(tmp_path, serve, named):
    uri = f"local://{tmp_path}/limits"
    app, limiter = serve(
        {"TESTING": True} | ({"RATELIMIT_STORAGE_URI": uri} if named == "config" else {}),
        **({"storage_uri": uri} if named == "keyword" else {}),
    )
    assert statuses(app) == LIMITED
    assert limiter.engine.store.path == tmp_path / "limits"


def test_testing_that_is_said_after_init_app_is_in_time_before_the_first_use(home, serve):
    app, limiter = serve()
    app.config.update(TESTING=True)
    assert statuses(app) == LIMITED
    assert repr(limiter.engine.store) == "MemoryStore()"
    assert not [*home.rglob("data.mdb")]  # Nothing was ever counted in it.


def test_first_requests_at_once_of_an_app_that_says_testing_late_count_together(serve):
    app, _ = serve()
    app.testing = True
    start = threading.Barrier(8)

    def ask(_):
        start.wait()
        return statuses(app, 1)[0]

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(ask, range(8))) == [200, 200] + [429] * 6


@pytest.mark.parametrize("says_it", ["before", "after"])
def test_reset_in_a_test_leaves_the_counts_of_a_live_server(serve, says_it):
    live, _ = serve()
    assert statuses(live) == LIMITED
    tested, limiter = serve({"TESTING": says_it == "before"})
    tested.config["TESTING"] = True
    limiter.reset()
    assert statuses(tested) == LIMITED
    with tested.app_context():
        limiter.reset()
    assert statuses(tested, 1) == [200]
    assert statuses(live, 1) == [429]


def test_app_that_is_not_tested_keeps_its_counts(serve):
    assert statuses(serve()[0]) == LIMITED
    assert statuses(serve()[0], 1) == [429]


# Time


def test_limits_clock_moves_every_limiter(limits_clock, serve):  # noqa: F811  the fixture
    apps = [serve(config, limit="2 per minute")[0] for config in ({"TESTING": True}, {})]
    assert clock.system_clock() == START_US
    for app in apps:
        assert statuses(app) == LIMITED
    limits_clock.advance(59.9)
    assert [statuses(app, 1) for app in apps] == [[429], [429]]
    limits_clock.advance(0.1)
    assert [statuses(app) for app in apps] == [LIMITED, LIMITED]


def test_limits_clock_leaves_the_machine_s_time_alone(limits_clock):  # noqa: F811
    assert abs(clock.seconds_running() - time.monotonic()) < 60
    assert time.time() > START_US / 1e6 + 86400


def of_freezegun():
    return freezegun.freeze_time("2030-01-01"), lambda frozen: frozen.tick(60)


def of_freezegun_that_ticks():
    # Its tick forgets what time has passed by itself, and the requests may have taken some.
    return freezegun.freeze_time("2030-01-01", tick=True), lambda frozen: frozen.tick(3600)


def of_time_machine():
    start = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    return time_machine.travel(start, tick=False), lambda traveller: traveller.shift(60)


def of_hiro():
    hiro = pytest.importorskip("hiro")
    return hiro.Timeline().freeze(dt.datetime(2030, 1, 1)), lambda line: line.forward(60)  # noqa: DTZ001


def of_hiro_that_runs():
    hiro = pytest.importorskip("hiro")
    return hiro.Timeline(), lambda line: line.forward(60)


@pytest.mark.parametrize("moved", [of_freezegun, of_freezegun_that_ticks, of_time_machine, of_hiro, of_hiro_that_runs])
@pytest.mark.parametrize("config", [{"TESTING": True}, {}])
def test_libraries_that_move_the_time_move_the_limits(serve, moved, config):
    context, go_on = moved()
    with context as mover:
        assert type(clock.system_clock()) is int
        app, _ = serve(config, strategy="moving-window", limit="2 per minute")
        assert statuses(app) == LIMITED
        go_on(mover)
        assert statuses(app, 1) == [200]
