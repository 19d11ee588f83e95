"""Stores that nobody uses any more are removed by whoever comes next, and only those."""

import multiprocessing
import os
import threading

import pytest
from children import exit_code_of_child

from flask_ailimit.engine import system_clock
from flask_ailimit.engine.stores import directory, housekeeping
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.testing import ManualClock, charge, reserve

OWN = f"flask_ailimit-{os.geteuid()}"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv(directory.BASE, str(tmp_path))
    return tmp_path / OWN


@pytest.fixture
def opened():
    """Opens the default store of a name, whose counts live if it has the real clock; all are closed at the end."""
    stores = []

    def opened(name, clock=system_clock):
        stores.append(LocalStore(name=name, clock=clock, lock_timeout=60))
        stores[-1].secret()
        reserve(stores[-1], charge())
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


LONG_AGO = ManualClock()


def names(home):
    return sorted(path.name for path in home.iterdir())


def test_store_in_which_nothing_lives_is_removed_by_who_comes_next(home, opened):
    opened("gone", LONG_AGO).close()
    assert names(home) == ["gone"]
    opened("next")
    assert names(home) == ["next"]


def test_store_with_a_living_count_is_kept_with_its_secret(home, opened):
    store = opened("resting")
    secret = store.secret()
    store.close()
    opened("next")
    assert names(home) == ["next", "resting"]
    assert opened("resting").secret() == secret


@pytest.mark.parametrize(("hours", "kept"), [(0, True), (23, True), (25, False)])
def test_machine_of_a_redis_keeps_its_name_for_a_day(hours, kept, home, opened):
    opened("machine", LONG_AGO).close()
    said = home / "machine" / "machines"
    said.write_text("0 2", encoding="ascii")
    at = said.stat().st_mtime - hours * 3600
    os.utime(said, (at, at))
    opened("next")
    assert names(home) == (["machine", "next"] if kept else ["next"])


def test_store_that_somebody_has_open_is_kept(home, opened):
    opened("other", LONG_AGO)
    assert exit_code_of_child(lambda: len(names(home)) != 1 or LocalStore(name="next").secret() is None) == 0
    assert names(home) == ["next", "other"]


def test_store_whose_app_has_forked_and_not_answered_yet_is_kept(home, opened):
    """The file is closed before a fork and opened at the next request; the directory stays open."""
    store = opened("preloaded", LONG_AGO)
    assert exit_code_of_child(lambda: 0) == 0
    assert store._environment._lmdb is None
    opened("next")
    assert names(home) == ["next", "preloaded"]


def test_store_of_which_only_the_secret_is_used_is_kept_while_it_is_open(home, opened):
    """As the one that names this machine to a Redis."""
    nearby = LocalStore(name="app-nearby", clock=LONG_AGO)
    nearby.secret()
    opened("next").close()
    assert names(home) == ["app-nearby", "next"]
    nearby.close()
    opened("later")
    assert "app-nearby" not in names(home)


@pytest.mark.parametrize("what", ["data.mdb.damaged-1", "notes.txt", "lock.mdb", "folder"])
def test_store_with_something_that_is_not_ours_is_kept(home, opened, what):
    opened("gone", LONG_AGO).close()
    (home / "gone" / what).mkdir() if what == "folder" else (home / "gone" / what).touch()
    opened("next")
    assert what in {path.name for path in (home / "gone").iterdir()}


def test_store_that_can_not_be_read_is_left_to_its_app(home, opened):
    opened("damaged", LONG_AGO).close()
    (home / "damaged" / "data.mdb").write_bytes(b"garbage")
    opened("next")
    assert names(home) == ["damaged", "next"]


def test_links_and_files_beside_the_stores_are_left_alone(home, tmp_path, opened):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "data.mdb").touch(mode=0o600)
    home.mkdir(mode=0o700)
    (home / "link").symlink_to(elsewhere)
    (home / "file").touch()
    opened("next")
    assert names(home) == ["file", "link", "next"]
    assert (elsewhere / "data.mdb").exists()


def test_time_that_a_test_made_up_ends_no_count_of_others(home, opened):
    opened("resting").close()
    opened("next", ManualClock(2**60))
    assert names(home) == ["next", "resting"]


def test_named_directories_are_not_looked_at(home, tmp_path):
    (tmp_path / "data").mkdir(mode=0o700)
    LocalStore(tmp_path / "data" / "gone").secret()
    store = LocalStore(tmp_path / "data" / "next")
    store.secret()
    store.close()
    assert names(tmp_path / "data") == ["gone", "next"]


def test_who_opens_a_store_that_is_being_removed_gets_a_new_one(home, opened):
    opened("gone", LONG_AGO).close()
    with housekeeping._opened(home) as parent, housekeeping._opened("gone", parent) as store:
        assert directory.take_alone(store)
        found = []
        other = threading.Thread(target=lambda: found.append(opened("gone", LONG_AGO)))
        other.start()
        other.join(0.1)
        assert not found
        housekeeping._remove(parent, "gone", store)
    other.join(60)
    assert found[0].path.joinpath("data.mdb").exists()


def test_directory_that_is_removed_as_soon_as_it_is_made_is_made_again(home, opened, monkeypatch):
    make, made = os.mkdir, []

    def make_and_remove(name, *args, **kwargs):
        make(name, *args, **kwargs)
        if name == "app" and len(made) < 3:
            made.append(name)
            os.rmdir(name, dir_fd=kwargs["dir_fd"])

    monkeypatch.setattr(os, "mkdir", make_and_remove)
    opened("app")
    assert made == ["app"] * 3
    assert names(home) == ["app"]


def open_and_close(name, times, failed):
    for _ in range(times):
        store = LocalStore(name=name, clock=LONG_AGO, lock_timeout=60)
        store.secret()
        one = charge(1, limit=10_000)
        if not reserve(store, one).allowed or not store.path.joinpath("data.mdb").exists():
            failed.value += 1
        store.close()


def test_many_that_open_and_remove_each_other_s_stores_never_lose_one_that_is_open(home):
    spawn = multiprocessing.get_context("spawn")
    failed = spawn.Value("i", 0)
    apps = [spawn.Process(target=open_and_close, args=(name, 200, failed)) for name in "aabb"]
    for app in apps:
        app.start()
    for app in apps:
        app.join()
    assert [app.exitcode for app in apps] == [0] * 4
    assert failed.value == 0


def test_standing_stores_are_told_with_size_age_and_who_has_them_open(home, opened):
    opened("one")
    opened("two").close()
    one, two = housekeeping.standing(home)
    assert (one.path, two.path) == (home / "one", home / "two")
    assert (one.is_open, two.is_open) == (True, False)
    assert 0 < one.size_bytes < 1 << 20
    assert abs(one.written_ns - system_clock() * 1000) < 60 * 10**9
    assert list(housekeeping.standing(home / "none")) == []


def test_other_configuration_is_told_of_once_while_the_first_is_in_use(home, opened, caplog):
    opened("shared").introduce("a" * 32, "shop")

    def another():
        caplog.clear()
        other = LocalStore(name="shared")
        other.introduce("b" * 32, "shop-staging")
        return len([record for record in caplog.records if "two configurations" in record.getMessage()])

    assert exit_code_of_child(another) == 1
    assert exit_code_of_child(another) == 0
    assert "shop" in (home / "shared" / "configurations").read_text()


def test_new_release_that_starts_after_the_old_one_ended_is_not_told_of(home, opened, caplog):
    old = opened("shared")
    old.introduce("a" * 32, "shop")
    old.close()
    opened("shared").introduce("b" * 32, "shop")
    assert not caplog.records


def test_two_configurations_in_one_process_are_told_of(home, opened, caplog):
    opened("shared").introduce("a" * 32, "shop")
    opened("shared").introduce("b" * 32, "admin")
    opened("shared").introduce("b" * 32, "admin")
    (record,) = caplog.records
    assert "'admin', and another one of 'shop'" in record.getMessage()
    assert "AILIMIT_NAME" in record.getMessage()
