"""``batch.run``: many items, a few threads, every answer in its place."""

import contextlib
import contextvars
import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest
from batch_provider import serving
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.money import PriceBook
from flask_ailimit.tokens import Usage
from flask_ailimit.upstream import batch_progress
from flask_ailimit.upstream.batch import LONGEST_WAIT, Failed, Interrupted, Work, run
from flask_ailimit.upstream.batch_progress import line
from flask_ailimit.upstream.calling import calling, calling_now

ROOT = Path(__file__).parents[2]


@given(st.lists(st.integers(-50, 50), max_size=60), st.integers(1, 9))
def test_answers_are_in_the_order_of_the_items_and_failures_in_their_places(items, workers):
    def inverse(item):
        return 100 // item

    answers = run(inverse, iter(items), workers=workers)
    assert len(answers) == len(items)
    for index, (item, answer) in enumerate(zip(items, answers, strict=True)):
        if item:
            assert answer == 100 // item
        else:
            assert (answer.index, type(answer.error)) == (index, ZeroDivisionError)


def test_order_is_kept_if_the_first_item_is_the_last_to_be_ready():
    others = threading.Barrier(3)

    def slow(item):
        others.wait(60)
        return item

    assert run(slow, [0, 1, 2], workers=3) == [0, 1, 2]


def test_never_more_calls_at_once_than_workers():
    with serving() as provider, httpx2.Client() as client:
        both = threading.Barrier(3, timeout=60)
        provider.answer = lambda content: (both.wait(), (200, {"content": content}))[1]

        def ask(number):
            body = {"messages": [{"content": str(number)}]}
            return client.post(f"{provider.url}/chat/completions", json=body).json()["content"]

        assert run(ask, range(12), workers=3) == [str(number) for number in range(12)]
        assert provider.most_in_flight == 3


def test_a_generator_is_read_only_a_little_ahead_of_its_answers():
    taken = itertools.count()
    ahead = []

    def items():
        for _ in range(20_000):
            yield next(taken)

    with Work(lambda item: item, items(), workers=4) as work:
        for done, _ in enumerate(work):
            ahead.append(next(taken) - 1 - 2 * done)  # Each look takes a number, too.
    assert done == 19_999
    assert max(ahead) <= 2 * 4


def test_error_of_the_iterable_is_raised_after_the_calls_that_run():
    ended = []

    def items():
        yield 1
        yield 2
        raise LookupError("the database is gone")

    with pytest.raises(LookupError, match="the database is gone"):
        run(ended.append, items(), workers=2)
    assert sorted(ended) == [1, 2]


def test_what_is_no_exception_ends_the_batch():
    def leave(item):
        raise SystemExit(item)

    with pytest.raises(SystemExit):
        run(leave, range(1000), workers=2)


@pytest.mark.parametrize("workers", [0, -1, 257, 1.0, True, "5"])
def test_wrong_number_of_workers_is_refused(workers):
    with pytest.raises(ValueError, match="workers: a whole number from 1 to 256"):
        run(print, [], workers=workers)


def test_calls_are_a_batch_s_and_have_the_caller_s_context_and_wait():
    name = contextvars.ContextVar("name")
    name.set("ann")
    seen = run(lambda _: (name.get(), calling_now().is_batch, calling_now().wait), [0], workers=1)
    with calling(wait=3, within=60):
        (inside,) = run(lambda _: calling_now(), [0], workers=1)
    assert seen == [("ann", True, LONGEST_WAIT)]
    assert inside.wait == 3
    assert inside.until is not None


def test_caller_s_tally_is_told_too():
    told = []

    def classify(item):
        calling_now().tally("openai-main", "small", Usage(item))

    with calling(tally=lambda *call: told.append(call)):
        run(classify, [1, 2], workers=1)
    assert told == [("openai-main", "small", Usage(1)), ("openai-main", "small", Usage(2))]


def test_interrupt_waits_for_what_runs_ends_what_waits_and_begins_nothing(monkeypatch):
    begun, may_end = [], threading.Event()

    def ask(item):
        begun.append(item)
        if item == 0:
            assert calling_now().stop.wait(60)  # As a call does that waits for its turn.
            may_end.set()
            raise TimeoutError
        assert may_end.wait(60)
        return item

    def items():
        yield from range(2)
        while len(begun) < 2:
            pass
        raise KeyboardInterrupt  # As at Ctrl-C while the next item is asked for.

    with pytest.raises(Interrupted) as caught:
        run(ask, items(), workers=2)
    assert sorted(begun) == [0, 1]
    assert isinstance(caught.value, KeyboardInterrupt)
    assert caught.value.done[1] == 1
    assert isinstance(caught.value.done[0], Failed)


def test_second_interrupt_before_the_waiting_begins_leaves_at_once():
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def ask(item):
        begun.set()
        if may_end.wait(5):
            ended.set()

    work = Work(ask, [0], workers=1)
    work._fill()
    assert begun.wait(60)
    work.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(60)
    assert work.stopped.wait(60)


def test_second_interrupt_leaves_at_once_with_what_is_answered(tmp_path):
    code = """
import threading
from flask_ailimit.upstream.batch import Interrupted, run
never = threading.Event()
def ask(item):
    if item:
        print("runs", flush=True)
        never.wait()
    return "answer"
try:
    run(ask, [0, 1], workers=2)
except Interrupted as error:
    print(error.done, flush=True)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = [sys.executable, "-c", code]
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "runs\n"
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        assert process.stdout.read() == "{0: 'answer'}\n"
    assert process.returncode == 0


# Progress


def test_progress_where_there_is_no_terminal_is_lines_of_counts(capsys, monkeypatch):
    seconds = itertools.count(0, 2.0)
    monkeypatch.setattr(batch_progress, "seconds_running", lambda: next(seconds))

    def classify(item):
        calling_now().tally("openai-main", "small" if item else "other", Usage(1000, 500))
        if item == 3:
            raise ValueError

    prices = PriceBook({"small": {"input": "1 USD", "output": "2 USD"}})
    run(classify, range(10), workers=1, progress=True, prices=prices)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4
    assert told[-1] == "10 of 10, 1 failed, 0.5 a second, 15000 tokens, at least 0.018 USD"
    assert all("left" in each for each in told[:-1])


def test_no_progress_is_shown_if_nobody_asked(capsys):
    run(str, range(10))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((120, 3, 1000, 0, 30.0), "120 of 1000, 3 failed, 4.0 a second, 9 tokens, 4 min left"),
        ((120, 0, 1000, 400, 30.0), "520 of 1000, 4.0 a second, 9 tokens, 2 min left"),
        ((1, 0, 100_000, 0, 1.0), "1 of 100000, 1.0 a second, 9 tokens, 27 h 47 min left"),
        ((1, 0, None, 0, 0.0), "1, 0.0 a second, 9 tokens"),
        ((9, 0, 10, 0, 9.0), "9 of 10, 1.0 a second, 9 tokens, 1 s left"),
    ],
)
def test_line_of_progress(arguments, words):
    assert line(*arguments, "9 tokens") == words


def test_bar_is_drawn_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(lambda item: 1 // item, range(3), progress=True)
    told = capsys.readouterr().err
    assert "3/3" in told
    assert "1 failed, 0 tokens" in told
