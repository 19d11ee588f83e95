"""What an app settles is written, also when it ends; and no answer waits for the file, or is lost with it."""

import logging
import subprocess
import sys
from contextlib import closing
from threading import Thread

import pytest
from observed_apps import REPORT, kept, observed, opened, sums_kept, sums_of, wait_for

from flask_ailimit import Usage
from flask_ailimit.engine.shared_file import connect
from flask_ailimit.money.cost import Cost
from flask_ailimit.observe import writer as writer_file
from flask_ailimit.observe.settlement import settlement_of


@pytest.fixture
def file(tmp_path):
    return tmp_path / "settlements.sqlite"


@pytest.fixture
def served(file):
    with observed(file) as served:
        yield served


EVENT = {
    "request_id": "req-1",
    "number": 2,
    "subject": "0a" * 16,
    "endpoint": "chat",
    "plan": "pro",
    "label": "Ada & Co",
    "model": "large-*",
    "source": "reported",
    "ending": "complete",
    "status": 200,
    "usage": Usage(10, 20, 4, cache_write_tokens=3, reasoning_tokens=5, service_tier="flex"),
    "units": {"pages": 3},
    "charged": {"requests": 1, "tokens": 30},
    "client_request_id": "what the client says",
    "decision": None,
}
COST = Cost(1_250_000, "USD", "large-*", "own table", {"input": "2.50", "output": "10"})


def test_settlement_has_what_the_event_says_and_nothing_of_the_client():
    found = settlement_of(5, {**EVENT, "cost": COST})
    assert {name: value for name, value in found._asdict().items() if value} == {
        "request_id": "req-1",
        "number": 2,
        "at_us": 5,
        "subject": b"\n" * 16,
        "endpoint": "chat",
        "plan": "pro",
        "label": "Ada & Co",
        "model": "large-*",
        "service_tier": "flex",
        "source": "reported",
        "ending": "complete",
        "status": 200,
        "input_tokens": 10,
        "output_tokens": 20,
        "cached_input_tokens": 4,
        "cache_write_tokens": 3,
        "reasoning_tokens": 5,
        "units": '{"pages": 3}',
        "cost_nano": 1_250_000,
        "currency": "USD",
        "price": "large-*",
        "price_source": "own table",
        "rates": '{"input": "2.50", "output": "10"}',
    }


def test_cost_that_is_not_known_is_none_and_not_zero():
    for cost in ({}, {"cost": None}):
        assert settlement_of(0, {**EVENT, **cost}).cost_nano is None
    assert settlement_of(0, {**EVENT, "cost": Cost(0, "USD")}).cost_nano == 0


def test_request_of_which_nothing_is_metered_makes_no_settlement():
    nothing = {**EVENT, "usage": Usage(), "units": {}, "charged": {"requests": 1, "concurrency": 0}}
    assert settlement_of(0, nothing) is None
    assert settlement_of(0, {**nothing, "charged": {"requests": 1, "tokens": 0}})
    assert settlement_of(0, {**nothing, "units": {"pages": 1}})
    assert settlement_of(0, {**nothing, "cost": COST})


@pytest.mark.parametrize("tier", ["a b", "x" * 33, "<script>", "\ud800"])
def test_tier_that_is_no_word_is_left_out(tier):
    assert settlement_of(0, {**EVENT, "usage": Usage(1, service_tier=tier)}).service_tier == ""


def test_text_that_utf_8_can_not_hold_is_written_all_the_same(file):
    with closing(opened(file)) as book:
        book.add([settlement_of(0, {**EVENT, "label": "\ud800"})])
    assert kept(file)[0].label == "?"


def test_each_request_is_written_by_itself_soon(served, file):
    answers = [served.ask(key) for key in ("alice", "bob", "alice")]
    rows = wait_for(lambda: kept(file), lambda rows: len(rows) == 3)
    assert [each.request_id for each in rows] == [each.headers["x-request-id"] for each in answers]
    assert [each.subject for each in rows] == [
        served.limiter.engine.subject(each) for each in ("alice", "bob", "alice")
    ]
    assert {(each.at_us, each.input_tokens, each.cached_input_tokens, each.output_tokens) for each in rows} == {
        (served.clock(), 10, 4, 20)
    }
    assert sums_kept(file) == sums_of(rows)


def test_no_key_is_in_any_file(served, file):
    served.ask("key-of-alice-1234", prompt="a prompt that nobody may read", user="somebody")
    assert served.writer.flush()
    for each in file.parent.iterdir():
        content = each.read_bytes()
        assert b"key-of-alice" not in content
        assert b"prompt" not in content
        assert b"somebody" not in content


def test_thread_that_has_nothing_to_do_ends_and_another_one_takes_over(served, file, monkeypatch):
    monkeypatch.setattr(writer_file, "_IDLE_S", 0.01)
    for count in (1, 2, 3):
        served.ask()
        wait_for(lambda count=count: len(kept(file)) == count)
        wait_for(lambda: not served.writer._thread.is_alive())


def test_many_threads_lose_nothing(served, file):
    threads = [Thread(target=lambda: [served.ask() for _ in range(25)]) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    wait_for(lambda: len(kept(file)) == 200)
    assert sums_kept(file) == sums_of(kept(file))


# A file that can't be written


def broken(served):
    """Let the file be one that SQLite can't open."""
    path = served.writer.settlements.path
    served.writer.settlements.close()
    content = path.read_bytes()
    path.write_bytes(b"no database" * 500)

    def mend():
        served.writer.settlements.close()
        path.write_bytes(content)

    return mend


def test_file_that_can_not_be_written_is_logged_once_and_takes_no_answer_away(served, file, caplog):
    mend = broken(served)
    for _ in range(5):
        assert served.ask().json == {"choices": [], "usage": REPORT}
        assert not served.writer.flush()
    errors = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    (error,) = errors
    assert error.startswith(f"Settlements can't be written to {file}: file is not a database. They wait in memory")
    mend()
    wait_for(lambda: len(kept(file)) == 5)
    wait_for(lambda: "Settlements are written again. 0 were lost." in caplog.text)


def test_settlements_that_find_no_room_to_wait_are_counted(served, file, caplog, monkeypatch):
    monkeypatch.setattr(writer_file, "MOST_WAITING", 3)
    monkeypatch.setattr(writer_file, "_BATCH", 1)
    mend = broken(served)
    for _ in range(10):
        assert served.ask().status_code == 200
        served.writer.flush()
    mend()
    wait_for(lambda: "Settlements are written again. 6 were lost." in caplog.text)
    assert len(kept(file)) == 4  # Three waited, and one was in the thread's hands.


def test_other_process_that_writes_for_long_is_waited_for_without_a_word(served, file, caplog):
    with closing(connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert served.ask().status_code == 200
        assert not served.writer.flush()
        other.execute("COMMIT")
    wait_for(lambda: len(kept(file)) == 1)
    assert caplog.text == ""


def test_full_disk_loses_nothing_once_there_is_room_again(served, file, caplog):
    served.ask()
    assert served.writer.flush()
    connection = served.writer.settlements._file._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite says "full", as when the disk is.
    for _ in range(200):
        assert served.ask().status_code == 200
    wait_for(lambda: "database or disk is full" in caplog.text)
    connection.execute("PRAGMA max_page_count = 1000000")
    wait_for(lambda: len(kept(file)) == 201)
    assert sums_kept(file) == sums_of(kept(file))


def test_app_that_ends_while_others_write_waits_for_them(served, file, caplog):
    with closing(connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        served.ask()
        closing_it = Thread(target=served.writer.close)
        closing_it.start()
        wait_for(lambda: served.writer._busy_since)  # It has tried, and waits.
        other.execute("COMMIT")
        closing_it.join()
    assert len(kept(file)) == 1
    assert caplog.text == ""


def test_app_that_ends_without_a_file_to_write_to_says_how_many_are_lost(served, caplog, monkeypatch):
    monkeypatch.setattr(writer_file, "_LONGEST_BUSY_S", 0.1)
    broken(served)
    for _ in range(3):
        served.ask()
    served.writer.close()
    assert "3 settlements are lost: they can't be written, and the app ends." in caplog.text
    assert served.writer.flush()


# Ends and beginnings of processes

SERVES = """
import atexit, os, sys
atexit.register(lambda: (sys.stdout.flush(), os._exit(0)))  # Nothing is done after what the package does at the end.
sys.path[:0] = {paths!r}
from observed_apps import observed
from pathlib import Path
context = observed(Path(sys.argv[1]))
served = context.__enter__()
{code}
"""


def run(file, code):
    script = SERVES.format(paths=sys.path, code=code)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(file)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise SystemExit", "1 / 0"])
def test_process_that_ends_writes_what_it_has_settled(file, end):
    late = "from flask_ailimit.observe import writer\nwriter.MOMENT_S = 600"  # The thread comes too late.
    run(file, f"{late}\nfor _ in range(20): served.ask()\n{end}")
    assert len(kept(file)) == 20


def test_forked_children_write_theirs_and_none_of_their_parents(file):
    code = """
for _ in range(3): served.ask("parent")
for number in range(4):
    child = os.fork()
    if not child:
        served.ask(f"child {number}")
        while not served.writer.flush(): pass
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
served.ask("parent")
"""
    ran = run(file, code)
    assert (ran.returncode, ran.stderr) == (0, "")
    rows = kept(file)
    assert len(rows) == 8
    assert len({each.subject for each in rows}) == 5
    assert sums_kept(file) == sums_of(rows)


def test_greenlets_are_not_held_up(file):
    code = """
import gevent
thread = monkey.get_original("_thread", "get_ident")
wrote, add = [], served.writer.settlements.add
def noted(settlements):
    wrote.append(thread())
    add(settlements)
served.writer.settlements.add = noted
served.ask()
while served.writer._waiting or not wrote:
    gevent.sleep(0.001)
print(wrote.count(thread()), len(wrote))
"""
    script = "from gevent import monkey; monkey.patch_all()\n" + SERVES.format(paths=sys.path, code=code)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(file)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    of_greenlets, of_all = map(int, ran.stdout.split())
    assert (of_greenlets, of_all > 0) == (0, True)
    assert len(kept(file)) == 1


def test_app_that_nobody_has_any_more_is_heard_no_more(file):
    code = """
import gc, weakref
from flask_ailimit import usage_settled
writer = weakref.ref(served.writer)
assert usage_settled.receivers
app = weakref.ref(served.app)
context.__exit__(None, None, None)
del served, context
gc.collect()
print(writer(), app())
"""
    ran = run(file, code)
    assert ran.stdout == "None None\n", ran.stderr
