import ctypes
import os
import stat
import sys
import threading
from pathlib import Path

import pytest
from children import exit_code_of_child

from flask_ailimit.engine import ConfigurationError, Engine, StoreError, open_store
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.testing import ManualClock, StoreContract, charge, remaining, reserve

MAP = 1 << 20


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store_and_advance(self, tmp_path):
        clock = ManualClock()
        store = LocalStore(tmp_path / "limits", clock=clock)
        yield store, clock.advance_us
        store.close()

    def count_records(self, store):
        with store.transaction() as transaction:
            return transaction._lmdb.stat()["entries"]


def test_files_are_for_their_user_only(open_local, place):
    store = open_local()
    store.secret()
    reserve(store, charge())
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in place.iterdir()}
    assert modes == dict.fromkeys(["data.mdb", "lock", "secret"], 0o600)


def test_file_takes_the_space_of_its_use_and_not_of_its_map(open_local, place):
    reserve(open_local(), charge())
    data = (place / "data.mdb").stat()
    assert data.st_size == 1 << 30
    assert data.st_blocks * 512 < 64 << 10


def test_what_the_process_had_in_its_memory_does_not_get_into_the_file(open_local, place):
    # A little larger than a page, and every second one given back, so that pages come to lie where they were.
    prompts = [b"a prompt of somebody " * 200 for _ in range(2000)]
    del prompts[::2]
    store = open_local(map_size=MAP)
    reserve(store, charge())
    store.close()
    assert (place / "data.mdb").read_bytes().find(b"a prompt of somebody") == -1
    assert len(prompts) == 1000


def test_two_stores_of_one_directory_in_one_process_count_together(open_local, place):
    one, other = open_local(), open_local()
    reserve(one, charge(4))
    reserve(other, charge(4))
    one.close()
    assert remaining(other, charge()) == [2]
    assert remaining(one, charge()) == [2]


def test_directory_has_many_spellings_and_one_count(open_local, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    spellings = [
        tmp_path / "real/limits",
        tmp_path / "link/limits",
        tmp_path / "link/../real/limits",
        Path("real/limits"),
    ]
    for path in spellings:
        reserve(open_local(path), charge())
    assert remaining(open_local(spellings[0]), charge()) == [6]


def test_counts_outlive_the_process_that_made_them(open_local, place, clock):
    assert exit_code_of_child(lambda: not reserve(LocalStore(place, clock=clock), charge(3)).allowed) == 0
    assert remaining(open_local(), charge()) == [7]


def test_secret_is_shared_by_all_who_open_the_directory(open_local, place, clock):
    def is_different():
        return LocalStore(place, clock=clock).secret() != secret

    secret = open_local().secret()
    assert len(secret) == 32
    assert exit_code_of_child(is_different) == 0
    assert Engine(open_local()).subject("user-1") == Engine(open_local()).subject("user-1")
    assert open_local(place.with_name("other")).secret() != secret


def test_secret_of_the_wrong_length_is_refused(open_local, place):
    open_local().secret()
    (place / "secret").write_bytes(b"short")
    with pytest.raises(StoreError, match=r"secret is not 32 bytes long\. Delete it") as refused:
        open_local().secret()
    assert not refused.value.transient


@pytest.mark.parametrize("map_size", [0, MAP - 1, -MAP, 1.5 * MAP, True, None, "1GiB"])
def test_map_size_that_is_no_fit_number_is_refused(place, map_size):
    with pytest.raises(ConfigurationError, match=r"map_size: .* at least 1048576"):
        LocalStore(place, map_size=map_size)


def test_uri_names_the_directory_or_leaves_it_to_the_app(tmp_path, clock, monkeypatch):
    assert open_store(f"local://{tmp_path}/x", name="app", clock=clock, options={}).path == tmp_path.resolve() / "x"
    monkeypatch.delenv("AILIMIT_STORES_DIRECTORY")
    monkeypatch.setattr(os, "access", lambda *_: False)  # A system without a place in memory.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    default = open_store("local://", name="app", clock=clock, options={"map_size": MAP})
    assert default.path == tmp_path.resolve() / "flask_ailimit" / "app"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_parent_and_child_both_go_on_with_a_store_that_was_open(open_local):
    store = open_local()
    many = charge(1, limit=1000)
    reserve(store, many)

    def go_on():
        return not all(reserve(store, many).allowed for _ in range(100))

    assert [exit_code_of_child(go_on) for _ in range(3)] == [0] * 3
    assert all(reserve(store, many).allowed for _ in range(100))
    assert remaining(store, many) == [1000 - 401]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_while_threads_decide_loses_and_doubles_nothing(open_local):
    store = open_local()
    many = charge(1, limit=10**6)
    stop = threading.Event()
    counts = [0, 0]

    def keep_deciding(i):
        while not stop.is_set():
            reserve(store, many)
            counts[i] += 1

    def go_on():
        for _ in range(10):
            reserve(store, many)

    threads = [threading.Thread(target=keep_deciding, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    try:
        codes = [exit_code_of_child(go_on) for _ in range(40)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * 40
    assert 10**6 - remaining(store, many)[0] == sum(counts) + 400


def test_fork_that_python_is_not_told_of_is_noticed(open_local):
    """As an application server written in C may do: the child inherits the open lock, which would let both in."""
    store = open_local()
    many = charge(1, limit=10**6)
    reserve(store, many)
    child = ctypes.CDLL(None).fork()
    try:
        for _ in range(500):
            reserve(store, many)
    finally:
        if child == 0:
            os._exit(sys.exc_info()[0] is not None)
    assert os.waitpid(child, 0)[1] == 0
    assert remaining(store, many) == [10**6 - 1001]
