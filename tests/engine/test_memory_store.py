import threading

import pytest
from children import exit_code_of_child

from flask_ailimit.engine import ConfigurationError, Settlement, StoreError, open_store
from flask_ailimit.engine.stores.memory import MemoryStore, count_workers
from flask_ailimit.testing import ALICE, ManualClock, StoreContract, charge, remaining, reserve


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store_and_advance(self):
        clock = ManualClock()
        return MemoryStore(clock), clock.advance_us

    def count_records(self, store):
        return len(store._records)


@pytest.mark.parametrize(
    ("argv", "environment", "workers"),
    [
        (["/usr/bin/gunicorn", "-w", "4", "app:app"], {}, 4),
        (["gunicorn", "-w4", "app:app"], {}, 4),
        (["gunicorn", "--workers", "3", "app:app"], {}, 3),
        (["gunicorn", "--workers=3", "app:app"], {}, 3),
        (["gunicorn", "app:app"], {}, 1),
        (["gunicorn", "app:app"], {"WEB_CONCURRENCY": "5"}, 5),
        (["gunicorn", "-w", "1", "app:app"], {"WEB_CONCURRENCY": "5"}, 1),
        (["gunicorn", "app:app"], {"GUNICORN_CMD_ARGS": "--threads 2 --workers=6"}, 6),
        (["gunicorn", "--workers=2", "app:app"], {"GUNICORN_CMD_ARGS": "--workers=6"}, 2),
        (["/venv/lib/gunicorn/__main__.py", "-w", "4", "app:app"], {}, 4),  # python -m gunicorn
        (["gunicorn", "-w", "many"], {}, 1),
        (["gunicorn", "-w"], {}, 1),
        (["flask", "run", "-w", "4"], {"WEB_CONCURRENCY": "5"}, 1),
        (["gunicorn_notes.py", "-w", "4"], {}, 1),
        ([], {"WEB_CONCURRENCY": "5"}, 1),
    ],
)
def test_workers_are_counted_from_what_gunicorn_was_told(argv, environment, workers):
    assert count_workers(argv, environment) == workers


def test_memory_store_warns_when_there_are_several_workers(monkeypatch):
    monkeypatch.setattr("sys.argv", ["gunicorn", "-w", "4", "app:app"])
    with pytest.warns(RuntimeWarning, match="once per worker"):
        MemoryStore()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_while_a_thread_decides_leaves_a_store_that_works():
    store = MemoryStore(ManualClock())
    stop = threading.Event()

    def keep_deciding():
        while not stop.is_set():
            reserve(store, charge(1, limit=10**6))

    def count_on():
        before = remaining(store, charge(1, limit=10**6))[0]
        reserve(store, charge(1, limit=10**6))
        return remaining(store, charge(1, limit=10**6)) != [before - 1]

    thread = threading.Thread(target=keep_deciding)
    thread.start()
    try:
        assert [exit_code_of_child(count_on) for _ in range(50)] == [0] * 50
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("uri", ["memory://somewhere", "memory", "", "foo://", "local://relative", None, 7])
def test_uri_that_names_no_store_is_refused_with_the_fix(uri):
    fix = r"storage_uri: .*(Use one of: local://, memory://|takes nothing|three slashes)"
    with pytest.raises(ConfigurationError, match=fix):
        open_store(uri, name="app", clock=ManualClock(), options={})


def test_option_that_the_store_does_not_take_is_refused():
    with pytest.raises(ConfigurationError, match="storage_options: memory:// doesn't take these: \\['map_size'\\]"):
        open_store("memory://", name="app", clock=ManualClock(), options={"map_size": 1 << 20})


def test_made_up_subjects_are_kept_as_long_as_there_is_room_and_those_who_count_already_go_on():
    clock = ManualClock()
    store = MemoryStore(clock, max_counts=80)
    for number in range(70):
        assert reserve(store, charge(1, subject=number.to_bytes(16, "big"))).allowed
    with pytest.raises(StoreError, match=r"keeps 80 counts, and nearly as many live\. Give a larger max_counts"):
        reserve(store, charge())
    for scope in "abcdefghij":
        assert reserve(store, charge(1, subject=bytes(16))._replace(scope=scope)).allowed
    with pytest.raises(StoreError, match="max_counts"):
        reserve(store, charge(1, subject=bytes(16))._replace(scope="k"))
    assert reserve(store, charge(9, subject=bytes(16))).allowed
    assert store.settle([Settlement(charge(9, subject=bytes(16)), clock(), 3, 0)]).unknown == 0
    clock.advance(60)
    for number in range(70):
        assert reserve(store, charge(1, subject=number.to_bytes(16, "little"))).allowed


def test_subjects_that_are_made_up_one_after_the_other_leave_no_more_than_those_that_live():
    clock = ManualClock()
    store = MemoryStore(clock)
    for number in range(5000):
        clock.advance(1)
        reserve(store, charge(10, subject=number.to_bytes(16, "big")))
        assert len(store._records) <= 130  # 60 live at once.


def test_ended_counts_of_a_busy_subject_go_with_each_write():
    clock = ManualClock()
    store = MemoryStore(clock)
    for number in range(5000):
        clock.advance(1)
        assert reserve(store, charge(10)._replace(scope=str(number))).allowed
        assert len(store.read(ALICE)) <= 61


@pytest.mark.parametrize("most", [0, 7, -1, 8.0, True, "100", None])
def test_most_counts_that_are_none_are_refused(most):
    with pytest.raises(ConfigurationError, match="max_counts: the most counts that memory:// keeps, at least 8"):
        open_store("memory://", name="app", clock=ManualClock(), options={"max_counts": most})
