"""Files of the local store that somebody cut, overwrote or deleted."""

import os
import random
import shutil

import pytest
from children import exit_code_of_child
from filling import fill, used_bytes

from flask_ailimit.engine import Charge, Quota, StoreError
from flask_ailimit.engine.decide import Bucket
from flask_ailimit.engine.stores import directory
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.testing import ALICE, charge, remaining, reserve


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
