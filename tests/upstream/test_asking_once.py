"""Of those who want the same answer one asks, and the others wait for it, in all processes of a machine."""

import gc
import signal
import threading
import time

import pytest
from cached_answers import answer, asked, manual_clock, numbered, opened, ran, started
from children import exit_code_of_child

from flask_ailimit.upstream import cache as cache_file
from flask_ailimit.upstream import cache_rows


@pytest.fixture
def file(tmp_path):
    return tmp_path / "answers.sqlite"


@pytest.fixture
def clock():
    return manual_clock()


@pytest.fixture
def cache(file, clock):
    with opened(file, clock=clock) as cache:
        yield cache


def may_ask(turn):
    return turn.answer is None and turn.wait_s == 0


# Turns


def test_first_asks_and_the_next_waits_and_gets_its_answer(cache):
    first, second = cache.begin(asked()), cache.begin(asked())
    assert may_ask(first)
    assert second.answer is None
    assert 0 < second.wait_s <= 0.5
    cache.end(first, answer())
    assert cache.begin(asked()).answer == answer()


def test_others_questions_are_not_waited_for(cache):
    turns = [cache.begin(numbered(number)) for number in range(20)]
    turns += [cache.begin(asked(tenant=name)) for name in "abc"]
    assert all(map(may_ask, turns))


def test_without_a_whole_answer_the_next_asks(cache):
    cache.end(cache.begin(asked()))
    second = cache.begin(asked())
    assert may_ask(second)
    cache.end(second, cache_file.StoredAnswer(500, {}, b""))
    assert may_ask(cache.begin(asked()))


def test_end_of_a_turn_that_another_has_taken_over_takes_nothing_from_it(cache, clock):
    first = cache.begin(asked())
    clock.advance(cache_rows.LEASE_S + 1)
    second = cache.begin(asked())
    assert may_ask(second)
    cache.end(first)
    cache.end(first)
    assert cache.begin(asked()).wait_s > 0
    cache.end(second)
    assert may_ask(cache.begin(asked()))


def test_turn_of_who_waits_ends_nothing(cache):
    first, second = cache.begin(asked()), cache.begin(asked())
    cache.end(second)
    assert cache.begin(asked()).wait_s > 0
    cache.end(first)


def test_the_longer_somebody_asks_the_less_often_others_look(cache, clock):
    turn = cache.begin(asked())
    waits = []
    for _ in range(8):
        waits.append(cache.begin(asked()).wait_s)
        clock.advance(1)
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.01, 0.5)
    clock.advance(1.75)
    assert cache.begin(asked()).wait_s == pytest.approx(0.25)  # Until its lease ends, and no longer.
    cache.end(turn)


def test_answer_that_comes_between_the_look_and_the_turn_is_not_asked_for_again(cache, file, clock, monkeypatch):
    find = cache_rows.find

    def find_late(connection, key, now):
        found = find(connection, key, now)
        monkeypatch.setattr(cache_rows, "find", find)
        with opened(file, clock=clock) as other:
            other.put(asked(), answer())
        return found

    monkeypatch.setattr(cache_rows, "find", find_late)
    assert cache.begin(asked()).answer == answer()


def test_clock_that_goes_back_makes_nobody_wait_longer(cache, clock):
    turn = cache.begin(asked())
    clock.advance(-86_400)
    assert may_ask(cache.begin(asked()))
    cache.end(turn)


def test_leases_of_the_dead_do_not_gather(cache, file, clock):
    for number in range(50):
        cache.begin(numbered(number))
    clock.advance(cache_rows.LEASE_S + 1)
    cache.put(asked(), answer())
    rows = cache._file._connection.execute("SELECT count(*) FROM asking").fetchone()
    assert rows == (0,)


# Who asks for long, and who dies


@pytest.fixture
def short(monkeypatch):
    """Leases of 0.3 s."""
    monkeypatch.setattr(cache_file, "LEASE_S", 0.3)
    monkeypatch.setattr(cache_rows, "_LEASE_US", 300_000)


def seconds_until_somebody_may_ask(cache, most):
    begun = time.monotonic()
    while time.monotonic() - begun < most:
        turn = cache.begin(asked())
        if may_ask(turn):
            return time.monotonic() - begun
        time.sleep(turn.wait_s)
    return most


def test_who_asks_longer_than_a_lease_goes_on_asking(file, short):
    with opened(file) as cache:
        turn = cache.begin(asked())
        assert seconds_until_somebody_may_ask(cache, 1.5) == 1.5
        cache.end(turn)
        assert seconds_until_somebody_may_ask(cache, 1.5) < 0.3


def test_turn_that_is_dropped_without_an_end_is_another_ones(file, short):
    """As that of a stream which nobody reads and nobody closes."""
    with opened(file) as cache:
        turn = cache.begin(asked())
        assert seconds_until_somebody_may_ask(cache, 0.5) == 0.5
        del turn
        gc.collect()
        assert seconds_until_somebody_may_ask(cache, 30) < 30


def test_who_asks_too_long_is_not_waited_for(file, short, monkeypatch):
    monkeypatch.setattr(cache_file, "LONGEST_ASK_S", 0.5)
    with opened(file) as cache:
        turn = cache.begin(asked())
        assert 0.3 < seconds_until_somebody_may_ask(cache, 30) < 30
        cache.end(turn)


def test_thread_that_has_nothing_to_do_ends(file, short):
    with opened(file) as cache:
        for _ in range(2):
            turn = cache.begin(asked())
            assert cache._thread.is_alive() or seconds_until_somebody_may_ask(cache, 0.3)
            cache.end(turn)
            until = time.monotonic() + 30
            while cache._thread.is_alive() and time.monotonic() < until:
                time.sleep(0.01)
            assert not cache._thread.is_alive()


def test_process_that_is_killed_while_it_asks_is_waited_for_no_longer_than_its_lease(file):
    process = started(file, "cache = AnswerCache(file, secret=SECRET, max_age=3600, max_bytes=1 << 20)\n" + ASKS)
    try:
        assert process.stdout.readline() == "asks\n"
        with opened(file, max_bytes=1 << 20) as cache:
            assert cache.begin(asked()).wait_s > 0
            process.kill()
            process.wait()
            assert cache.begin(asked()).wait_s > 0
            waited = seconds_until_somebody_may_ask(cache, 60)
            assert waited <= cache_rows.LEASE_S + 2
            assert cache.put(asked(), answer())
    finally:
        process.kill()
        process.communicate()


ASKS = """
turn = cache.begin(asked())
print("asks", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("seed", range(5))
def test_process_that_is_killed_while_it_writes_leaves_a_whole_file(file, seed):
    code = """
cache = AnswerCache(file, secret=SECRET, max_age=3600, max_bytes=1 << 20)
print("begins", flush=True)
number = 0
while True:
    turn = cache.begin(numbered(number % 300))
    cache.end(turn, answer("x" * 5000))
    number += 1
"""
    processes = [started(file, code) for _ in range(2)]
    for each in processes:
        assert each.stdout.readline() == "begins\n"
    time.sleep(0.1 + seed / 10)  # Somewhere in the middle.
    for each in processes:
        each.send_signal(signal.SIGKILL)
        each.communicate()
    with opened(file, max_bytes=1 << 20) as cache:
        found = [cache.get(numbered(number)) for number in range(300)]
        assert {each.body for each in found if each} <= {answer("x" * 5000).body}
        assert cache.put(asked(), answer())
        assert cache._file._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# Many at once

WANTS = """
def wanted(cache, question):
    while True:
        turn = cache.begin(question)
        if turn.answer:
            return turn.answer
        if turn.wait_s:
            time.sleep(turn.wait_s)
            continue
        print("the provider is asked", flush=True)
        time.sleep(0.3)
        cache.end(turn, answer())
"""


def test_eight_processes_that_want_the_same_ask_the_provider_once(file):
    code = f"""{WANTS}
sys.stdin.readline()
cache = AnswerCache(file, secret=SECRET, max_age=3600, max_bytes=1 << 20)
assert wanted(cache, asked()) == answer()
"""
    processes = [started(file, code) for _ in range(8)]
    printed = "".join(each.communicate("go\n", timeout=300)[0] for each in reversed(processes))
    assert [each.returncode for each in processes] == [0] * 8
    assert printed.count("the provider is asked") == 1


def test_many_threads_that_want_few_answers_ask_for_each_once(file):
    with opened(file) as cache:
        asked_for, errors, barrier = [], [], threading.Barrier(24)

        def wants(number):
            try:
                barrier.wait()
                while True:
                    turn = cache.begin(numbered(number))
                    if turn.answer:
                        assert turn.answer == answer(str(number))
                        return
                    if turn.wait_s:
                        time.sleep(turn.wait_s)
                        continue
                    asked_for.append(number)
                    time.sleep(0.05)
                    cache.end(turn, answer(str(number)))
            except BaseException as error:  # noqa: BLE001  told below
                errors.append(error)

        threads = [threading.Thread(target=wants, args=(number % 3,)) for number in range(24)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert errors == []
    assert sorted(asked_for) == [0, 1, 2]


def test_processes_that_put_and_get_at_once_find_only_what_was_put(file):
    code = """
import random
rng, cache = random.Random(os.getpid()), AnswerCache(file, secret=SECRET, max_age=3600, max_bytes=1 << 20)
hits = 0
for _ in range(1500):
    number = rng.randrange(300)
    found = cache.get(numbered(number))
    assert found in (None, answer(f"{number} " * 500))
    hits += found is not None
    if found is None:
        cache.put(numbered(number), answer(f"{number} " * 500))
print(hits)
"""
    processes = [started(file, code) for _ in range(4)]
    hits = [int(each.communicate(timeout=300)[0]) for each in processes]
    assert [each.returncode for each in processes] == [0] * 4
    assert min(hits) > 100
    assert file.stat().st_size <= 1 << 20


def test_child_of_a_process_that_asks_waits_for_its_parent(file):
    with opened(file) as cache:
        turn = cache.begin(asked())

        def child():
            assert cache._turns == {}
            assert cache.begin(asked()).wait_s > 0
            own = cache.begin(numbered(1))
            assert may_ask(own)
            cache.end(own, answer())

        assert exit_code_of_child(child) == 0
        cache.end(turn, answer("of the parent"))
        assert cache.get(asked()) == answer("of the parent")
        assert cache.get(numbered(1)) == answer()


def test_forks_while_threads_use_the_cache_hang_nobody(file):
    with opened(file) as cache:
        stop = threading.Event()

        def busy(number):
            while not stop.is_set():
                cache.end(cache.begin(numbered(number)), answer())
                cache.put(numbered(number + 10), answer())

        threads = [threading.Thread(target=busy, args=(number,)) for number in range(3)]
        for each in threads:
            each.start()
        try:
            codes = [
                exit_code_of_child(lambda: not (cache.put(asked(), answer()) and cache.get(asked()))) for _ in range(20)
            ]
        finally:
            stop.set()
            for each in threads:
                each.join()
    assert codes == [0] * 20


def test_greenlets_that_want_the_same_ask_once(file):
    code = f"""
from gevent import monkey; monkey.patch_all()
import gevent
{WANTS}
cache = AnswerCache(file, secret=SECRET, max_age=3600, max_bytes=1 << 20)
jobs = [gevent.spawn(wanted, cache, asked()) for _ in range(10)]
gevent.joinall(jobs, raise_error=True)
"""
    assert ran(file, code).count("the provider is asked") == 1


def test_turn_shows_nothing_of_its_answer(cache):
    cache.put(asked(), answer("nobody reads this"))
    assert "nobody" not in repr(cache.begin(asked()))
