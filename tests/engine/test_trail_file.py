"""The changes of plans in a local store's directory outlive everything but its removal by hand."""

import os
import resource
import stat
from contextlib import contextmanager
from multiprocessing import get_context

import pytest

from flask_ailimit.engine import ConfigurationError, StoreError
from flask_ailimit.engine.stores import directory, housekeeping
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.testing import charge, reserve

TEXTS = ['{"a":1}', '{"ü":"€"}', '{"b":2}']


@pytest.fixture
def store(open_local):
    store = open_local()
    for number, text in enumerate(TEXTS):
        assert store.add_change(text, number)
    return store


def file_of(place):
    return place / directory.CHANGES


def test_changes_are_there_after_a_restart(store, open_local):
    store.close()
    assert open_local().changes_from(1) == list(enumerate(TEXTS, 1))


def test_file_is_for_this_user_only_and_each_line_is_json(store, place):
    assert stat.S_IMODE(file_of(place).stat().st_mode) == 0o600
    lines = file_of(place).read_text(encoding="utf-8").splitlines()
    assert lines == [f'{{"number":{number},"entry":{text}}}' for number, text in enumerate(TEXTS, 1)]


def test_file_that_others_can_read_is_refused(store, place):
    file_of(place).chmod(0o644)
    with pytest.raises(ConfigurationError, match="is open to others"):
        store.changes_from(1)


def test_directory_without_changes_has_no_such_file(open_local, place):
    store = open_local()
    reserve(store, charge(1))
    assert store.changes_from(1) == []
    assert not file_of(place).exists()


def test_last_entry_counts_without_the_end_of_its_line_as_an_editor_leaves_it(store, place):
    file_of(place).write_bytes(file_of(place).read_bytes().removesuffix(b"\n"))
    assert store.changes_from(1) == list(enumerate(TEXTS, 1))
    assert store.changes_from(3) == [(3, TEXTS[2])]
    assert store.add_change('{"c":3}', 3)
    assert store.changes_from(1) == [*enumerate(TEXTS, 1), (4, '{"c":3}')]


@contextmanager
def room_for(path, size):
    """This process can make no file larger than this one will be with so many bytes more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("end", [b"\n", b""])
def test_entry_for_which_there_is_no_room_takes_no_other_away(store, place, end):
    file_of(place).write_bytes(file_of(place).read_bytes().removesuffix(b"\n") + end)
    before = file_of(place).read_bytes()
    with room_for(file_of(place), 9), pytest.raises(StoreError, match="No space left"):
        store.add_change('{"c":3}', 3)
    assert file_of(place).read_bytes() == before


@pytest.mark.parametrize("cut", [2, 5, 28])
def test_half_a_line_of_a_killed_process_never_counted(store, place, cut):
    whole = file_of(place).read_bytes()
    file_of(place).write_bytes(whole[:-cut])
    assert store.changes_from(1) == [(1, TEXTS[0]), (2, TEXTS[1])]
    assert not store.add_change("{}", 3)
    assert store.add_change(TEXTS[2], 2)
    assert file_of(place).read_bytes() == whole


@pytest.mark.parametrize("line", ["", "{}", '{"number":2,"entry":{}}', '{"number":x,"entry":{}}'])
def test_damaged_line_is_said_and_nothing_is_appended_behind_it(store, place, line):
    with file_of(place).open("a") as file:
        file.write(f"{line}\n")
    before = file_of(place).read_bytes()
    for ask in (lambda: store.changes_from(3), lambda: store.changes_from(1), lambda: store.add_change("{}", 4)):
        with pytest.raises(StoreError, match=r"changes\.jsonl: a line is damaged, after the entry 3") as raised:
            ask()
        assert not raised.value.transient
    assert file_of(place).read_bytes() == before


def test_draft_of_a_killed_process_is_in_nobody_s_way(store, place):
    (place / f"{directory.CHANGES}.draft").write_text("half of it")
    assert store.add_change("{}", 3, [1])
    assert store.changes_from(1) == [(2, TEXTS[1]), (3, TEXTS[2]), (4, "{}")]
    assert not (place / f"{directory.CHANGES}.draft").exists()


def test_no_sweep_and_no_reset_takes_changes_away(store, place, open_local):
    reserve(store, charge(1))
    store.reset()
    assert store.changes_from(1)
    store.close()
    store.discard()
    housekeeping.remove_if_ended(place)
    other = LocalStore(place.parent / "other")
    other.secret()
    descriptor = os.open(place.parent / "other", os.O_RDONLY)
    housekeeping.remove_ended(place.parent / "other", descriptor)
    os.close(descriptor)
    other.close()
    assert open_local().changes_from(1) == list(enumerate(TEXTS, 1))


def test_damaged_counts_leave_the_changes(store, place):
    reserve(store, charge(1))
    data = place / directory.DATA
    with pytest.warns(RuntimeWarning, match="was damaged"):
        directory.move_aside(place)
    assert not data.exists()
    assert store.changes_from(1) == list(enumerate(TEXTS, 1))


def append_some(path, count):
    store, own = LocalStore(path, lock_timeout=60), 0
    while own < count:
        last = max((number for number, _ in store.changes_from(1)), default=0)
        own += store.add_change(f'{{"by":{os.getpid()}}}', last)


def test_processes_that_append_at_once_number_all_entries_in_one_order(place):
    spawn = get_context("spawn")
    processes = [spawn.Process(target=append_some, args=(place, 20)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    entries = LocalStore(place).changes_from(1)
    assert [number for number, _ in entries] == [*range(1, 61)]
    assert sorted(text for _, text in entries) == sorted(
        f'{{"by":{each.pid}}}' for each in processes for _ in range(20)
    )


def test_store_in_memory_says_that_changes_do_not_survive_the_machine(store, monkeypatch):
    monkeypatch.setattr(directory, "file_system", lambda _: "tmpfs")
    assert "don't survive a restart of the machine" in store.may_lose_changes()
    monkeypatch.setattr(directory, "file_system", lambda _: "ext4")
    assert store.may_lose_changes() is None
