"""What may lie in the way to a local store: others' links, files and directories. Only root can give files away."""

import logging
import os
import stat
from pathlib import Path

import pytest
from children import exit_code_of_child

from flask_ailimit.engine import ConfigurationError, StoreError
from flask_ailimit.engine.stores import directory, places
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.testing import charge, remaining, reserve

NOBODY = 65534
ME = os.geteuid()
OWN = f"flask_ailimit-{ME}"
needs_root = pytest.mark.skipif(ME != 0, reason="only root can give files away")
owners = pytest.mark.parametrize("owner", [ME, pytest.param(NOBODY, marks=needs_root)])


@pytest.fixture(autouse=True)
def nothing_was_said(monkeypatch):
    monkeypatch.setattr(places, "_said", set())


@pytest.fixture
def shm(tmp_path, monkeypatch):
    """A directory for everybody, as ``/dev/shm`` is, in its place."""
    shm = tmp_path / "shm"
    shm.mkdir()
    shm.chmod(0o1777)
    monkeypatch.delenv(directory.BASE)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(directory, "_IN_MEMORY", shm)
    return shm


@pytest.fixture
def start(clock):
    """Starts an app that names no store; all are closed at the end."""
    stores = []

    def start(path=None):
        stores.append(LocalStore(path, name="app", clock=clock))
        stores[-1].secret()
        assert reserve(stores[-1], charge()).allowed
        return stores[-1]

    yield start
    for store in stores:
        store.close()


def give(path, owner):
    os.chown(path, owner, owner, follow_symlinks=False)


def test_default_store_is_made_in_memory_for_its_user_only(shm, start):
    assert start().path == shm / OWN / "app"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (shm / OWN, shm / OWN / "app")] == [0o700, 0o700]


@owners
@pytest.mark.parametrize("at", [OWN, f"{OWN}/app"])
@pytest.mark.parametrize("dangles", [False, True])
def test_link_in_the_way_is_not_followed_whoever_made_it(shm, tmp_path, start, owner, at, dangles):
    target = tmp_path / "of_somebody"
    if not dangles:
        target.mkdir()
        target.chmod(0o777)
    (shm / at).parent.mkdir(mode=0o700, exist_ok=True)
    (shm / at).symlink_to(target)
    give(shm / at, owner)
    with pytest.raises(ConfigurationError, match=rf"{at} (is a link|belongs to uid {NOBODY}).* Remove it, or name a"):
        start()
    assert not dangles or not target.exists()
    assert dangles or not list(target.iterdir())
    assert not (tmp_path / "state").exists()


def make_file(path):
    path.touch()


def make_pipe(path):
    os.mkfifo(path)


@owners
@pytest.mark.parametrize("make", [make_file, make_pipe])
@pytest.mark.parametrize("at", [OWN, f"{OWN}/app"])
def test_something_else_in_the_way_stops_the_start(shm, start, owner, make, at):
    (shm / at).parent.mkdir(mode=0o700, exist_ok=True)
    make(shm / at)
    give(shm / at, owner)
    with pytest.raises(ConfigurationError, match=rf"{at} (is not a directory|belongs to uid {NOBODY}).* Remove it, or"):
        start()


@needs_root
@pytest.mark.parametrize("at", [OWN, f"{OWN}/app"])
def test_directory_of_a_stranger_stops_the_start_and_nothing_is_made_in_it(shm, start, at):
    (shm / at).mkdir(mode=0o777, parents=True)
    give(shm / at, NOBODY)
    with pytest.raises(ConfigurationError, match=rf"{at} belongs to uid {NOBODY}, not to uid 0.* Remove it, or name"):
        start()
    assert not list((shm / at).iterdir())


@pytest.mark.parametrize("at", [OWN, f"{OWN}/app"])
@pytest.mark.parametrize(("mode", "group"), [(0o777, ME), (0o702, ME), pytest.param(0o770, NOBODY, marks=needs_root)])
def test_own_directory_that_others_can_write_to_stops_the_start(shm, start, at, mode, group):
    (shm / at).mkdir(mode=0o700, parents=True)
    os.chown(shm / at, ME, group)
    (shm / at).chmod(mode)
    with pytest.raises(ConfigurationError, match=rf"others can write to .*{at}\. Run: chmod 700 .*{at}"):
        start()


def test_place_where_anybody_could_take_the_counts_away_stops_the_start(shm, start):
    shm.chmod(0o777)
    with pytest.raises(
        ConfigurationError, match=r"others can write to .*shm, which has no sticky bit.* chmod \+t .*shm"
    ):
        start()
    assert not list(shm.iterdir())


@needs_root
def test_runtime_directory_of_another_user_stops_the_start(shm, tmp_path, monkeypatch, start):
    shm.rmdir()
    kept_by_sudo = tmp_path / "1000"
    kept_by_sudo.mkdir(mode=0o700)
    give(kept_by_sudo, NOBODY)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(kept_by_sudo))
    with pytest.raises(ConfigurationError, match=r"1000 belongs to uid 65534, not to uid 0.* Set XDG_RUNTIME_DIR"):
        start()
    assert not list(kept_by_sudo.iterdir())


# Places that are missing or read-only


@pytest.mark.parametrize("why", ["missing", "read-only"])
def test_place_that_is_missing_or_read_only_is_skipped_and_the_log_says_what_to_do(
    shm, tmp_path, monkeypatch, start, caplog, why
):
    if why == "missing":
        shm.rmdir()
    else:
        access = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: path != shm and access(path, mode))
    for _ in range(2):
        assert start().path == tmp_path / "state" / "flask_ailimit" / "app"
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("flask_ailimit", logging.WARNING)
    assert f"because {shm} is {why}. For counts in memory, mount a tmpfs on /dev/shm" in record.getMessage()
    assert "storage_uri='local:///var/lib/myapp/limits'" in record.getMessage()


def test_relative_runtime_directory_is_ignored_as_its_specification_says(shm, tmp_path, monkeypatch, start):
    shm.rmdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run")
    (tmp_path / "run").mkdir()
    assert start().path == tmp_path / "state" / "flask_ailimit" / "app"


def test_user_without_any_place_is_told_what_to_do(shm, monkeypatch, start):
    shm.rmdir()
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(
        StoreError, match=r"no place for the counts: .*shm is missing, and this user has no home"
    ) as refused:
        start()
    assert not refused.value.transient


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_home_that_can_not_be_written_to_is_a_sentence(shm, monkeypatch, start):
    shm.rmdir()
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nothing")
    with pytest.raises(StoreError, match=r"can't make /proc/nothing: .* or name a directory"):
        start()


def test_directory_of_the_environment_goes_before_all_others(shm, tmp_path, monkeypatch, start):
    monkeypatch.setenv(directory.BASE, str(tmp_path / "elsewhere"))
    assert start().path == tmp_path / "elsewhere" / OWN / "app"
    monkeypatch.setenv(directory.BASE, "relative")
    with pytest.raises(ConfigurationError, match=r"AILIMIT_STORES_DIRECTORY: an absolute directory is needed"):
        start()


# A directory that the operator named


def test_own_link_among_the_parents_of_a_named_directory_is_followed(tmp_path, start):
    (tmp_path / "releases/1").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/1")
    start(tmp_path / "current/limits")
    assert (tmp_path / "releases/1/limits/data.mdb").exists()


@needs_root
@pytest.mark.parametrize("what", ["link", "directory"])
def test_parent_that_a_stranger_put_where_anybody_can_is_refused(shm, tmp_path, start, what):
    (tmp_path / "of_somebody").mkdir()
    (shm / "x").symlink_to(tmp_path / "of_somebody") if what == "link" else (shm / "x").mkdir()
    give(shm / "x", NOBODY)
    with pytest.raises(ConfigurationError, match=r"x belongs to uid 65534.* and others can write to .*shm\. Remove it"):
        start(shm / "x/limits")
    assert not list((tmp_path / "of_somebody").iterdir())


@needs_root
def test_parent_of_another_user_is_the_operator_s_choice(tmp_path, start):
    (tmp_path / "deploy").mkdir()
    give(tmp_path / "deploy", NOBODY)
    start(tmp_path / "deploy/limits")


def test_named_directory_beside_which_anybody_can_write_is_warned_of_once(tmp_path, start, caplog):
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume").chmod(0o777)
    for _ in range(2):
        start(tmp_path / "volume/limits")
    (record,) = caplog.records
    assert "others can write to" in record.getMessage()
    assert f"chmod +t {tmp_path}/volume" in record.getMessage()


def test_links_that_lead_in_a_circle_are_a_sentence(tmp_path, start):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(ConfigurationError, match="too many links"):
        start(tmp_path / "one/limits")


def test_what_is_made_is_for_its_user_only_whatever_the_mask(tmp_path, start):
    before = os.umask(0)
    try:
        start(tmp_path / "a/b/limits")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a", *(tmp_path / "a").rglob("*"))}
    assert modes == {"a": 0o700, "b": 0o700, "limits": 0o700, "data.mdb": 0o600, "lock": 0o600, "secret": 0o600}


# Files


def make_link(path, elsewhere):
    path.symlink_to(elsewhere)


def make_dangling_link(path, elsewhere):
    elsewhere.unlink()
    path.symlink_to(elsewhere)


def make_hard_link(path, elsewhere):
    path.hardlink_to(elsewhere)


def make_writable_file(path, elsewhere):
    path.touch()
    path.chmod(0o666)


def make_file_of_a_stranger(path, elsewhere):
    path.touch(mode=0o600)
    give(path, NOBODY)


@pytest.mark.parametrize("name", ["data.mdb", "lock", "secret"])
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (make_link, "is a link"),
        (make_dangling_link, "is a link"),
        (make_hard_link, "has another name somewhere"),
        (make_writable_file, "is open to others"),
        (lambda path, _: os.mkfifo(path), "is no plain file"),
        pytest.param(make_file_of_a_stranger, "belongs to uid 65534", marks=needs_root),
    ],
)
def test_foreign_file_in_the_directory_stops_the_start_and_is_left_as_it_is(tmp_path, place, start, name, make, told):
    place.mkdir(mode=0o700)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"of somebody")
    make(place / name, elsewhere)
    with pytest.raises(ConfigurationError, match=rf"limits/{name} {told}.*\. Remove it"):
        start(place)
    assert not elsewhere.exists() or elsewhere.read_bytes() == b"of somebody"


def test_secret_that_others_can_read_stops_the_start(place, start):
    start(place).close()
    (place / "secret").chmod(0o644)
    with pytest.raises(ConfigurationError, match="limits/secret is open to others"):
        start(place)


# Between the look and the use, and while the app runs


def test_directory_that_is_swapped_after_it_was_looked_at_is_not_used(tmp_path, place, start, monkeypatch):
    (tmp_path / "of_somebody").mkdir()
    lock = directory.lock

    def swapped(inside, patience):
        if not place.is_symlink():
            place.rename(tmp_path / "moved")
            place.symlink_to(tmp_path / "of_somebody")
        return lock(inside, patience)

    monkeypatch.setattr(directory, "lock", swapped)
    with pytest.raises(ConfigurationError, match="is a link"):  # At the next look.
        start(place)
    assert (tmp_path / "moved" / "secret").exists()
    assert not list((tmp_path / "of_somebody").iterdir())


def test_stranger_who_comes_while_the_app_runs_is_a_store_error_until_he_is_gone(tmp_path, place, start, clock):
    store = start(place)
    place.rename(tmp_path / "moved")
    place.touch()
    for _ in range(2):
        clock.advance(2)
        with pytest.raises(StoreError, match="is not a directory") as refused:
            reserve(store, charge())
        assert not refused.value.transient
    place.unlink()
    assert reserve(store, charge()).allowed
    assert remaining(store, charge()) == [9]


def test_opening_and_failing_to_open_leave_no_descriptor_behind(tmp_path, place, start):
    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    start(place).close()
    (tmp_path / "link").symlink_to(place)
    before = descriptors()
    for _ in range(9):
        start(place).close()
        with pytest.raises(ConfigurationError):
            start(tmp_path / "link")
        with pytest.raises(StoreError):
            start(Path("/proc/limits"))
    assert descriptors() == before


@needs_root
def test_user_who_is_not_root_finds_his_way_through_directories_that_he_can_not_read(tmp_path, clock):
    home = tmp_path / "home"
    home.mkdir()
    give(home, NOBODY)
    for parent in (*tmp_path.parents[:-1], tmp_path):
        if not parent.stat().st_mode & 0o001:
            parent.chmod(0o711)

    def as_nobody():
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return not reserve(LocalStore(home / "limits", clock=clock), charge()).allowed

    assert exit_code_of_child(as_nobody) == 0
