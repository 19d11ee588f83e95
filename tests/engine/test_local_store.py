import os
import random
import shutil
import stat
import threading
from pathlib import Path

import pytest
from children import exit_code_of_child

from flask_ailimit.engine import Charge, ConfigurationError, Engine, Quota, StoreError, open_store
from flask_ailimit.engine.decide import Bucket
from flask_ailimit.engine.stores import directory
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.testing import ALICE, ManualClock, StoreContract, charge, remaining, reserve

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


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "limits"


@pytest.fixture
def open_local(place, clock):
    opened = []

    def open_another(path=place, **options):
        opened.append(LocalStore(path, clock=clock, **options))
        return opened[-1]

    yield open_another
    for store in opened:
        store.close()


def fill(store, subjects, seed=0):
    draw = random.Random(seed)
    for _ in range(subjects):
        reserve(store, charge(subject=draw.randbytes(16)))


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
    monkeypatch.setattr(os, "access", lambda *_: False)  # A system without a place in memory.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    default = open_store("local://", name="app", clock=clock, options={"map_size": MAP})
    assert default.path == tmp_path.resolve() / "flask_ailimit" / "app"


# Full


def test_full_map_is_a_store_error_for_new_subjects_only(open_local, clock):
    store = open_local(map_size=MAP)
    reserve(store, charge())
    with pytest.raises(StoreError, match=r"is full at 1048576 bytes\. Give a larger map_size") as refused:
        fill(store, 20_000)
    assert refused.value.transient
    assert [reserve(store, charge()).allowed for _ in range(10)] == [True] * 9 + [False]
    assert remaining(store, charge(subject=b"new".ljust(16))) == [10]
    store.reset(ALICE)
    assert remaining(store, charge()) == [10]


def test_full_map_takes_new_subjects_in_again_when_old_ones_have_expired(open_local, clock):
    store = open_local(map_size=MAP)
    with pytest.raises(StoreError):
        fill(store, 20_000)
    clock.advance(3600)
    with pytest.raises(StoreError):  # This one pays for sweeping.
        fill(store, 1, seed=1)
    fill(store, 5_000, seed=2)


def test_full_map_can_be_reset(open_local):
    store = open_local(map_size=MAP)
    with pytest.raises(StoreError):
        fill(store, 20_000)
    store.reset()
    fill(store, 5_000, seed=1)


def used_bytes(place):
    return (place / "data.mdb").stat().st_blocks * 512


def test_file_of_subjects_that_come_and_go_stays_as_large_as_those_who_are_there(open_local, place, clock):
    store = open_local()
    sizes = []
    for hour in range(20):
        fill(store, 1_000, seed=hour)
        clock.advance(3600)
        sizes.append(used_bytes(place))
    assert max(sizes[5:]) <= 3 * sizes[0]


def test_subject_with_three_limits_takes_less_than_300_bytes(open_local, place):
    store = open_local()
    quotas = [Quota(60, 60), Quota(10_000, 60, "tokens"), Quota(4, 60, "concurrency", "concurrency")]
    draw = random.Random(0)
    sizes = {}
    for number in range(1, 20_001):
        subject = draw.randbytes(16)
        assert reserve(store, *(Charge(subject, quota) for quota in quotas)).allowed
        if number in (10_000, 20_000):
            sizes[number] = used_bytes(place)
    assert (sizes[20_000] - sizes[10_000]) / 10_000 <= 300


# Damaged


def is_fresh_and_works(place, clock):
    """In a child: a file that LMDB maps and can't read is a signal."""

    def use():
        with pytest.warns(RuntimeWarning, match=r"moved to .*data\.mdb\.damaged-"):
            fresh = remaining(LocalStore(place, clock=clock), charge())
        return fresh != [10]

    return exit_code_of_child(use) == 0 and len(list(place.glob("data.mdb.damaged-*"))) == 1


def filled(place, clock):
    """A data file with counts that nobody has open, and how much of it is in use."""

    def use():
        store = LocalStore(place, clock=clock)
        reserve(store, charge(5))
        fill(store, 2_000)

    assert exit_code_of_child(use) == 0
    return place / "data.mdb", used_bytes(place)


@pytest.mark.parametrize("kept", [1, 100, 4095, 4096, 8192, 0.5, 0.99])
def test_cut_file_is_moved_aside_by_the_first_who_opens_it(place, clock, kept):
    data, used = filled(place, clock)
    os.truncate(data, kept if kept >= 1 else int(used * kept))
    assert is_fresh_and_works(place, clock)


@pytest.mark.parametrize(
    "garbage", [b"not a database", b"\0" * 8192, b"\xff" * 100_000, random.Random(0).randbytes(9999)]
)
def test_file_of_something_else_is_moved_aside(place, clock, garbage):
    data, _ = filled(place, clock)
    data.write_bytes(garbage)
    assert is_fresh_and_works(place, clock)


def test_empty_file_is_a_new_one(open_local, place):
    place.mkdir(mode=0o700)
    (place / "data.mdb").touch()
    assert reserve(open_local(), charge()).allowed


@pytest.mark.parametrize("seed", range(5))
def test_damaged_pages_are_an_error_once_and_then_the_file_is_moved_aside(place, clock, seed):
    data, used = filled(place, clock)
    draw = random.Random(seed)
    with data.open("r+b") as file:
        for page in range(2, used // 4096):
            file.seek(page * 4096)
            file.write(draw.randbytes(4096))

    def use():
        store = LocalStore(place, clock=clock)
        with pytest.warns(RuntimeWarning, match="moved to"), pytest.raises(StoreError, match="CORRUPTED"):
            reserve(store, charge())
        return remaining(store, charge()) != [10]

    assert exit_code_of_child(use) == 0


def test_healthy_file_is_never_called_damaged(open_local, place, clock):
    store = open_local(map_size=8 << 20)
    data = place / "data.mdb"
    draw = random.Random(0)
    subjects = [draw.randbytes(16) for _ in range(3000)]
    big = Quota(10_000, 3600, "concurrency", "concurrency")
    for _ in range(2000):
        kind = draw.random()
        if kind < 0.7:
            for subject in draw.sample(subjects, draw.choice([1, 1, 20])):
                reserve(store, charge(subject=subject))
        elif kind < 0.8:
            reserve(store, Charge(draw.choice(subjects), big, draw.choice([1, 300, 700])))
        elif kind < 0.95:
            store.reset(draw.choice(subjects))
        elif kind < 0.97:
            clock.advance(draw.choice([1, 60, 3600]))
        elif kind < 0.99:
            with store.transaction() as transaction:
                several = [draw.randbytes(16) for _ in range(300)]
                transaction.write({subject: {subject[:8]: Bucket((1, 2) * 20, clock())} for subject in several})
                transaction.write({subject: {} for subject in several})
        else:
            store.reset()
        assert not directory.is_cut(data)


def test_record_of_another_version_starts_afresh(open_local):
    store = open_local()
    with store.transaction() as transaction:
        transaction._lmdb.put(ALICE, b"\x02 of a later version")
    assert remaining(store, charge()) == [10]
    assert reserve(store, charge()).allowed


# Deleted


@pytest.mark.parametrize("what", [".", "data.mdb", "lock"])
def test_deleted_files_are_noticed_within_a_second(open_local, place, clock, what):
    """A process that still held the old file would count alone: here, the store and a child that opens it anew."""
    store = open_local()
    secret = store.secret()
    reserve(store, charge(3))
    clock.advance(0.5)
    reserve(store, charge(3))
    shutil.rmtree(place) if what == "." else (place / what).unlink()
    clock.advance(1.1)

    def count_together():
        child = LocalStore(place, clock=clock)
        return not reserve(child, charge(1)).allowed or child.secret() != secret

    assert reserve(store, charge(1)).allowed
    before = remaining(store, charge())[0]
    assert exit_code_of_child(count_together) == 0
    assert remaining(store, charge()) == [before - 1]


def test_refusals_notice_a_deleted_directory_as_well(open_local, place, clock):
    store = open_local()
    reserve(store, charge(10))
    assert not reserve(store, charge(10)).allowed
    shutil.rmtree(place)
    clock.advance(1.1)
    assert reserve(store, charge(10)).allowed


# Forks


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
