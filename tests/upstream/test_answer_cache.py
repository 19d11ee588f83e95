"""The cache gives out what was put there for the same question, for as long as it may, and keeps to its size."""

import json
import os
import random
import sqlite3
import sys
from contextlib import closing

import pytest
from cached_answers import (
    BODY,
    EVENTS,
    JSON,
    SECRET,
    answer,
    asked,
    chat,
    files_of,
    manual_clock,
    numbered,
    opened,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_ailimit import ConfigurationError
from flask_ailimit.upstream.cache import AnswerCache, StoredAnswer

HOUR_S = 3600.0


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


def count(file):
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT count(*) FROM answers").fetchone()[0]


# What is found


def test_answer_is_found_by_the_same_question(cache):
    assert cache.get(asked()) is None
    assert cache.put(asked(), answer())
    assert cache.get(asked()) == answer()


@pytest.mark.parametrize(
    "other", [{"tenant": "bob"}, {"account": "second"}, {"headers": {}}, {"body": {**BODY, "n": 1}}]
)
def test_answer_is_not_found_by_another_question(cache, other):
    cache.put(asked(), answer())
    assert cache.get(asked(**other)) is None


def test_answer_of_one_secret_is_nothing_to_another(cache, file, clock):
    cache.put(asked(), answer())
    with opened(file, clock=clock, secret=b"another secret of somebody") as other:
        assert other.get(asked()) is None


def test_only_the_headers_that_belong_to_the_answer_are_kept(cache):
    cache.put(asked(), answer(headers={**JSON, "x-request-id": "7", "x-ratelimit-remaining-tokens": "1"}))
    assert cache.get(asked()).headers == JSON


def test_stream_is_kept_as_it_came(cache):
    body = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    question = asked({**BODY, "stream": True})
    assert cache.put(question, StoredAnswer(200, EVENTS, body))
    assert cache.get(question) == StoredAnswer(200, EVENTS, body)


def test_answer_that_is_not_whole_is_not_kept(cache):
    cut = StoredAnswer(200, JSON, json.dumps(chat(finish_reason="length")).encode())
    assert not cache.put(asked(), cut)
    assert not cache.put(asked({**BODY, "stream": True}), answer())
    assert cache.get(asked()) is None


def test_later_answer_takes_the_place_of_the_first(cache, file):
    cache.put(asked(), answer("one"))
    cache.put(asked(), answer("two"))
    assert cache.get(asked()) == answer("two")
    assert count(file) == 1


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["get", "put", "wait", "back"]), st.integers(0, 4), st.integers(0, 4000))))
def test_cache_is_a_table_in_which_nothing_gets_too_old(tmp_path_factory, steps):
    """Compared with a dict. After the clock was put back it may know less, and never what is too old."""
    clock, kept, was_put_back = manual_clock(), {}, False
    with opened(tmp_path_factory.mktemp("cache") / "answers", clock=clock, max_age=HOUR_S) as cache:
        for step, number, amount in steps:
            if step == "put":
                cache.put(numbered(number), answer(str(amount)))
                kept[number] = clock(), answer(str(amount))
            elif step == "get":
                at, expected = kept.get(number, (0, None))
                may = expected if at <= clock() < at + HOUR_S * 1e6 else None
                found = cache.get(numbered(number))
                assert found == may or (was_put_back and found is None)
            else:
                was_put_back = was_put_back or step == "back"
                clock.advance(amount if step == "wait" else -amount)


def test_nothing_of_an_answer_is_in_its_text():
    assert repr(answer("nobody reads this")) == "StoredAnswer(status=200)"


# Age


def test_answer_is_given_out_until_it_is_too_old(cache, clock):
    cache.put(asked(), answer())
    clock.advance(HOUR_S - 0.001)
    assert cache.get(asked()) == answer()
    clock.advance(0.001)
    assert cache.get(asked()) is None


def test_use_makes_no_answer_younger(cache, clock):
    cache.put(asked(), answer())
    for _ in range(59):
        clock.advance(60.5)
        assert cache.get(asked()) == answer()
    clock.advance(60)
    assert cache.get(asked()) is None


def test_shorter_age_holds_at_once_for_what_is_there(cache, file, clock):
    cache.put(asked(), answer())
    clock.advance(60)
    with opened(file, clock=clock, max_age=60) as stricter, opened(file, clock=clock, max_age=10 * HOUR_S) as laxer:
        assert stricter.get(asked()) is None
        assert laxer.get(asked()) == answer()
        clock.advance(HOUR_S)
        assert laxer.get(asked()) is None


def test_answers_that_are_too_old_are_removed_with_the_next_that_is_put(cache, clock, file):
    for number in range(50):
        cache.put(numbered(number), answer())
    clock.advance(HOUR_S)
    cache.put(numbered(50), answer())
    assert count(file) == 1


def test_clock_that_goes_back_makes_nothing_live_longer(cache, clock):
    cache.put(asked(), answer())
    clock.advance(-86_400)
    assert cache.get(asked()) is None
    cache.put(numbered(1), answer("new"))
    assert cache.get(numbered(1)) == answer("new")
    clock.advance(86_400)
    assert cache.get(numbered(1)) is None


def test_answers_of_a_clock_that_was_wrong_keep_no_others_out(file, clock):
    """They were used in the future, so they would be the last to go."""
    with opened(file, clock=clock, max_bytes=1 << 20) as cache:
        clock.advance(86_400 * 300)
        for number in range(400):
            cache.put(numbered(number), answer("x" * 4000))
        clock.advance(-86_400 * 300)
        for number in range(1000, 1100):
            assert cache.put(numbered(number), answer("x" * 4000))
        assert all(cache.get(numbered(number)) for number in range(1000, 1100))


# Size


def test_file_keeps_to_its_size_through_thousands_of_answers(file, clock):
    most, rng = 2 << 20, random.Random(1)
    with opened(file, clock=clock, max_bytes=most) as cache:
        for number in range(5000):
            clock.advance(0.01)
            assert cache.put(numbered(number), answer("x" * rng.choice([10, 1000, 5000, 50_000])))
            if number % 100 == 0:
                assert file.stat().st_size <= most
        newest = [number for number in range(5000) if cache.get(numbered(number))]
    assert newest == [*range(newest[0], 5000)]
    assert sum(each.stat().st_size for each in files_of(file)) <= most + (16 << 20)


def test_what_was_used_longest_ago_goes_first(file, clock):
    with opened(file, clock=clock, max_age=86_400 * 30, max_bytes=1 << 20) as cache:
        cache.put(asked(), answer())
        for number in range(1000):
            clock.advance(61)
            if number < 50:
                assert cache.get(asked()) == answer()
            cache.put(numbered(number), answer("x" * 4000))
        assert cache.get(asked()) is None


def test_what_is_used_stays(file, clock):
    with opened(file, clock=clock, max_age=86_400 * 30, max_bytes=1 << 20) as cache:
        cache.put(asked(), answer())
        for number in range(1000):
            clock.advance(61)
            assert cache.get(asked()) == answer()
            cache.put(numbered(number), answer("x" * 4000))
        assert cache.get(numbered(0)) is None


def test_answer_that_takes_a_large_part_of_the_file_is_not_kept(file):
    with opened(file, max_bytes=1 << 20) as cache:
        assert not cache.put(asked(), answer("x" * (1 << 18)))
        assert cache.put(asked(), answer("x" * (1 << 17)))


def test_cache_that_is_made_smaller_comes_down_to_its_size(file, clock):
    with opened(file, clock=clock, max_bytes=16 << 20) as large:
        for number in range(2000):
            large.put(numbered(number), answer("x" * 5000))
    with opened(file, clock=clock, max_bytes=1 << 20) as small:
        kept = [small.put(numbered(number), answer("x")) for number in range(3000, 3020)]
    assert kept[-1]
    assert count(file) < 300


def test_values_are_looked_for_by_an_index(cache):
    cache.put(asked(), answer())
    seen = []
    connection = cache._file._connection
    connection.set_trace_callback(seen.append)
    cache.get(asked())
    cache.put(numbered(1), answer())
    cache.end(cache.begin(numbered(2)))
    connection.set_trace_callback(None)
    statements = [text for text in seen if text.startswith(("SELECT", "DELETE", "UPDATE"))]
    assert len(statements) > 5
    for text in statements:
        plan = [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
        assert [step for step in plan if step.startswith("SCAN")] in ([], ["SCAN asking"]), (text, plan)


# What is in the file


def test_file_has_nothing_of_question_or_answer_in_it(file):
    """Looked for in each file, as plain text and in pieces, while the log is full and after it was taken over."""
    body = {**BODY, "messages": [{"role": "user", "content": "QUESTION-of-alice"}], "user": "USER-of-alice"}
    question = asked(body, tenant="TENANT-of-alice", account="ACCOUNT-main")
    secrets = [
        *(b"QUESTION", b"USER-of", b"ANSWER", b"TENANT", b"ACCOUNT", b"key-of-the-account", b"alice", b"completions"),
        *(b"application/json", b"choices", SECRET, question.digest, question.digest[:16], question.key(SECRET)),
    ]
    with opened(file) as cache:
        turn = cache.begin(question)
        cache.end(turn, answer("ANSWER-of-the-model"))
        assert cache.get(question) == answer("ANSWER-of-the-model")
        asking = cache.begin(numbered(1))
        found = b"".join(each.read_bytes() for each in files_of(file))
        assert len(files_of(file)) == 3
        assert question.id(SECRET) in found  # The control: this is where it would be.
        assert [secret for secret in secrets if secret in found] == []
        del asking
    found = b"".join(each.read_bytes() for each in files_of(file))
    assert question.id(SECRET) in found
    assert [secret for secret in secrets if secret in found] == []


def test_same_answer_to_two_questions_looks_different(cache, file):
    cache.put(numbered(1), answer())
    cache.put(numbered(2), answer())
    with closing(sqlite3.connect(file)) as connection:
        (one,), (other,) = connection.execute("SELECT sealed FROM answers").fetchall()
    assert len(one) == len(other)
    assert not {one[at : at + 8] for at in range(len(one))} & {other[at : at + 8] for at in range(len(other))}


def test_who_has_the_file_and_the_secret_needs_the_question(cache, file):
    """What is found by the id of one question does not open with the key of another."""
    cache.put(numbered(1), answer())
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE answers SET id = ?", (numbered(2).id(SECRET),))
    assert cache.get(numbered(2)) is None


def test_files_are_of_this_user_alone(cache, file):
    cache.put(asked(), answer())
    assert {each.stat().st_mode & 0o777 for each in files_of(file)} == {0o600}


def test_umask_opens_nothing(tmp_path):
    before = os.umask(0)
    try:
        with opened(tmp_path / "answers") as cache:
            cache.put(asked(), answer())
            assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}
    finally:
        os.umask(before)


def test_file_that_is_deleted_while_it_is_used_is_begun_anew(cache, file):
    cache.put(asked(), answer())
    for each in files_of(file):
        each.unlink()
    assert cache.get(asked()) is None
    assert cache.put(asked(), answer())
    assert cache.get(asked()) == answer()


# Settings


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("max_age", value) for value in (0, -1, float("nan"), float("inf"), "60", None, 366 * 86_400 + 1)],
        *[("max_bytes", value) for value in (0, (1 << 20) - 1, 1e9, "8 MB", None, True)],
        *[("secret", value) for value in (b"", b"short", b"x" * 65)],
    ],
)
def test_settings_that_are_none_are_refused(file, option, value):
    options = {"secret": SECRET, "max_age": 60, "max_bytes": 1 << 20, option: value}
    with pytest.raises(ConfigurationError, match=option):
        AnswerCache(file, **options)
    assert not file.exists()


def test_missing_package_is_named_with_the_extra(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'flask-ailimit\[cache\]'"):
        AnswerCache(file, secret=SECRET, max_age=60, max_bytes=1 << 20)
