"""The file of settlements: whole transactions, each settlement once, sums that are those of the rows."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observed_apps import DAY_US, HOUR_US, kept, opened, settlement, sums_kept, sums_of

from flask_ailimit.engine.shared_file import connect
from flask_ailimit.observe.book_file import SUMMED
from flask_ailimit.observe.settlement import Settlement
from flask_ailimit.observe.settlements import Sum
from flask_ailimit.tokens.usage import COUNTS, MAX_TOKENS

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
TIMES = st.integers(0, 50 * HOUR_US)
SETTLEMENTS = st.builds(
    settlement,
    request_id=st.sampled_from("abcdef"),
    number=st.integers(1, 3),
    at_us=TIMES,
    subject=st.sampled_from([b"", b"a" * 16, b"b" * 16]),
    model=st.none() | TEXTS.filter(bool),
    service_tier=st.sampled_from(["", "flex"]),
    currency=st.sampled_from(["", "USD", "EUR"]),
    cost_nano=st.none() | st.integers(0, 2**40),
    **{name: st.integers(0, 2**40) for name in COUNTS},
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "settlements.sqlite"


@pytest.fixture
def book(file):
    with closing(opened(file)) as settlements:
        yield settlements


def first_of_each(batches):
    found = {}
    for each in (each for batch in batches for each in batch):
        found.setdefault((each.request_id, each.number), each)
    return [*found.values()]


def test_every_kind_of_tokens_is_kept_and_added_up():
    assert set(COUNTS) < set(SUMMED) < set(Settlement._fields)
    assert Sum._fields == ("bucket", "model", "service_tier", "currency", "requests", *SUMMED)


@settings(max_examples=50)
@given(st.lists(st.lists(SETTLEMENTS, max_size=5), max_size=5))
def test_each_settlement_is_kept_once_and_the_sums_are_those_of_the_rows(tmp_path_factory, batches):
    file = tmp_path_factory.mktemp("book") / "settlements.sqlite"
    with closing(opened(file)) as book:
        for batch in batches:
            book.add(batch)
        first = first_of_each(batches)
        assert kept(file) == first
        assert sums_kept(file) == sums_of(first)
        assert [*book.between(0, DAY_US * 100)] == sorted(first, key=lambda each: each.at_us)


@settings(max_examples=50)
@given(st.lists(SETTLEMENTS, max_size=12), st.integers(0, 40), st.sampled_from([1, 24]), st.integers(1, 30))
def test_sums_of_a_time_are_those_of_its_settlements(tmp_path_factory, some, start, width, count):
    file = tmp_path_factory.mktemp("book") / "settlements.sqlite"
    subjects = {b"a" * 16, b"b" * 16}
    with closing(opened(file)) as book:
        book.add(some)
        found = book.sums(subjects, start, width, count)
    expected = {}
    for each in first_of_each([some]):
        bucket = (each.at_us // HOUR_US - start) // width
        if each.subject in subjects and 0 <= bucket < count:
            key = bucket, each.model or "", each.service_tier, each.currency
            values = [int(each.number == 1), *(getattr(each, name) or 0 for name in SUMMED)]
            expected[key] = [a + b for a, b in zip(expected.get(key, [0] * len(values)), values, strict=True)]
    assert {each[:4]: [*each[4:]] for each in found} == expected
    assert [each.bucket for each in found] == sorted(each.bucket for each in found)


def test_sums_stay_whole_numbers_that_every_reader_can_hold(book):
    for number in range(1100):  # so many of the largest would be beyond 2**63
        book.add([settlement(str(number), input_tokens=MAX_TOKENS)])
    (found,) = book.sums([b"s" * 16], 0, 24, 1)
    assert found.input_tokens == MAX_TOKENS
    assert found.requests == 1100


def test_batch_with_a_settlement_that_can_not_be_kept_is_not_kept_at_all(book, file):
    book.add([settlement("before")])
    with pytest.raises(sqlite3.IntegrityError):
        book.add([settlement("a"), settlement("b", source=None)])
    assert [each.request_id for each in kept(file)] == ["before"]
    book.add([settlement("after")])
    assert sums_kept(file) == sums_of(kept(file))


def test_settlements_are_read_a_page_at_a_time_in_the_order_of_time_and_none_twice(book):
    some = [settlement(str(number), at_us=number // 700) for number in range(2500)]
    random.Random(1).shuffle(some)
    book.add(some)
    read = [*book.between(0, DAY_US)]
    assert [each.at_us for each in read] == sorted(each.at_us for each in some)
    assert {each.request_id for each in read} == {each.request_id for each in some}
    assert [*book.between(1, 2, [b"s" * 16])] == [each for each in read if each.at_us == 1]
    assert [*book.between(1, 2, [b"nobody"])] == []


def test_time_and_payer_are_found_by_an_index(book):
    book.add([settlement("a")])
    seen = []
    book._file._connection.set_trace_callback(seen.append)
    [*book.between(0, 1)]
    book.sums([b"s" * 16], 0, 1, 1)
    book.add([])
    book._file._connection.set_trace_callback(None)
    asked = [text for text in seen if text.startswith(("SELECT", "DELETE"))]
    assert len(asked) == 5  # After the last settlement, whoever reads asks once more.
    for text in asked:
        plan = [row[-1] for row in book._file._connection.execute(f"EXPLAIN QUERY PLAN {text}")]
        assert not [step for step in plan if step.startswith("SCAN")], (text, plan)


def test_settlements_older_than_the_days_are_neither_shown_nor_kept_for_ever(file):
    now = [0]
    with closing(opened(file, days=2, clock=lambda: now[0])) as book:
        book.add([settlement(str(number), at_us=number * HOUR_US) for number in range(24 * 4)])
        now[0] = 4 * DAY_US + HOUR_US
        assert min(each.at_us for each in book.between(0, DAY_US * 9)) == 2 * DAY_US
        assert {each.bucket for each in book.sums([b"s" * 16], 0, 24, 9)} == {2, 3}
        assert len(kept(file)) == 96
        for number in range(3):  # Whoever writes removes a few.
            book.add([settlement(f"new {number}", at_us=now[0])])
        assert min(each.at_us for each in kept(file)) == 2 * DAY_US
        assert sums_kept(file) == sums_of(kept(file))


def test_removing_goes_in_small_pieces(file):
    now = [0]
    with closing(opened(file, days=1, clock=lambda: now[0])) as book:
        book.add([settlement(str(number)) for number in range(1000)])
        now[0] = 9 * DAY_US
        book.add([settlement("new", at_us=now[0])])
        assert len(kept(file)) == 951


# Processes

ADDS = """
import sys
sys.path[:0] = {paths!r}
from observed_apps import opened, settlement
from pathlib import Path
book = opened(Path(sys.argv[1]))
for batch in range(100_000):
    while True:
        try:
            book.add([settlement(f"{{sys.argv[2]}} {{batch}} {{n}}", input_tokens=n + 1) for n in range(7)])
            break
        except Exception as error:
            assert "locked" in str(error), error
    print(batch, flush=True)
"""


def adding(file, name):
    """A process that adds batches of seven, and tells of each when it is added."""
    code = ADDS.format(paths=sys.path)
    return subprocess.Popen([sys.executable, "-c", code, str(file), name], stdout=subprocess.PIPE, text=True)


def test_killed_process_leaves_whole_batches_and_none_that_it_had_written_is_lost(file):
    for round_number in range(4):
        processes = [adding(file, f"{round_number}{name}") for name in "ab"]
        told = 5 + 3 * round_number
        try:
            for process in processes:
                for _ in range(told):
                    process.stdout.readline()
        finally:
            for process in processes:
                process.send_signal(signal.SIGKILL)
        written = {}
        for name, process in zip("ab", processes, strict=True):
            written[f"{round_number}{name}"] = told + process.stdout.read().count("\n")
            process.stdout.close()
            process.wait()
        rows = kept(file)
        for name, batches in written.items():
            found = [each for each in rows if each.request_id.startswith(f"{name} ")]
            assert len(found) % 7 == 0
            assert len(found) // 7 in (batches, batches + 1)  # The last may have been written, and not yet told of.
        assert sums_kept(file) == sums_of(rows)


def test_processes_that_open_a_new_file_at_the_same_time_share_it(file):
    processes = [adding(file, str(number)) for number in range(6)]
    try:
        for process in processes:
            assert process.stdout.readline() == "0\n"
    finally:
        for process in processes:
            process.kill()
            process.stdout.close()
            process.wait()
    assert sums_kept(file) == sums_of(kept(file))


FORKS = """
import os, sys, threading
sys.path[:0] = {paths!r}
from observed_apps import opened, settlement
from pathlib import Path
book = opened(Path(sys.argv[1]))
stop = threading.Event()
def add(name):
    while True:
        try:
            return book.add([settlement(name)])
        except Exception as error:
            assert "locked" in str(error), error
def work(name):
    number = 0
    while not stop.is_set():
        add(f"{{name}} {{number}}")
        number += 1
threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
[thread.start() for thread in threads]
for number in range(60):
    child = os.fork()
    if not child:
        add(f"child {{number}}")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
[thread.join() for thread in threads]
"""


def test_child_of_a_process_that_is_writing_has_a_connection_of_its_own(file):
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS.format(paths=sys.path), str(file)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    rows = kept(file)
    assert {f"child {number}" for number in range(60)} < {each.request_id for each in rows}
    assert sums_kept(file) == sums_of(rows)


def test_file_that_was_moved_away_is_made_anew(book, file):
    book.add([settlement("a")])
    book.close()
    file.rename(file.with_name("old"))
    book.add([settlement("b")])
    assert [each.request_id for each in kept(file)] == ["b"]
    assert [each.request_id for each in kept(file.with_name("old"))] == ["a"]


def test_who_holds_the_lock_for_long_is_waited_for_a_moment_only(book, file):
    with closing(connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            book.add([settlement("a")])
        assert [*book.between(0, DAY_US)] == []  # Who reads waits for nobody.
        other.execute("COMMIT")
    book.add([settlement("a")])
    assert len(kept(file)) == 1


def test_files_are_for_their_user_alone_whatever_the_umask_is(file):
    before = os.umask(0)
    try:
        with closing(opened(file)) as book:
            book.add([settlement("a")])
            modes = {each.name: each.stat().st_mode & 0o777 for each in file.parent.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys((file.name, f"{file.name}-wal", f"{file.name}-shm"), 0o600)
