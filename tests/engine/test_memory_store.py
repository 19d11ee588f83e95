import threading

import pytest
from children import exit_code_of_child

from flask_ailimit.engine import ConfigurationError, open_store
from flask_ailimit.engine.stores.memory import MemoryStore, count_workers
from flask_ailimit.testing import ManualClock, StoreContract, charge, remaining, reserve


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
        assert [exit_code_of_child(count_on, seconds=5) for _ in range(50)] == [0] * 50
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
