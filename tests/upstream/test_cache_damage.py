"""What is wrong with the file of a cache is a miss and a line in the log, and never an error for a call."""

import os
import random
import sqlite3
import threading
from contextlib import closing

import pytest
from cached_answers import SECRET, answer, asked, files_of, manual_clock, numbered, opened
from children import exit_code_of_child

from flask_ailimit import ConfigurationError
from flask_ailimit.engine import shared_file
from flask_ailimit.engine.shared_file import connect
from flask_ailimit.upstream import cache as cache_file
from flask_ailimit.upstream import cache_rows

NOBODY = 65534


@pytest.fixture
def file(tmp_path):
    return tmp_path / "answers.sqlite"


def filled(file, size=20):
    with opened(file) as cache:
        for number in range(size):
            assert cache.put(numbered(number), answer(f"{number} " + "x" * 3000))
    assert files_of(file) == [file]


def works(cache):
    """Whether a call goes its way, as it would without the cache."""
    turn = cache.begin(asked())
    found = turn.answer or answer()
    cache.end(turn, answer())
    return found == answer() and turn.wait_s == 0


def changed(file, statement, *values):
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement, values)


def refusal(file):
    with pytest.raises(ConfigurationError) as caught, opened(file):
        pass
    return str(caught.value)


# Files


@pytest.mark.parametrize("content", [b"question,answer\n" * 1000, b"SQLite format 3\0" + bytes(range(256)) * 40])
def test_file_that_is_no_database_is_a_miss_and_left_alone(file, content, caplog):
    file.write_bytes(content)
    file.chmod(0o600)
    with opened(file) as cache:
        assert works(cache)
        assert cache.get(asked()) is None
        assert file.read_bytes() == content
        assert "can't be used" in caplog.text
        assert "move it away" in caplog.text
        file.rename(file.with_name("aside"))
        assert works(cache)
        assert cache.get(asked()) == answer()


def test_truncated_file_is_a_miss(file):
    filled(file)
    whole = file.read_bytes()
    for size in (0, 1, 99, 100, 4096, 5000, 8192, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        file.write_bytes(whole[:size])
        with opened(file) as cache:
            assert works(cache), size
            for number in range(20):
                found = cache.get(numbered(number))
                assert found is None or found.body == answer(f"{number} " + "x" * 3000).body


def test_file_with_any_bytes_changed_gives_no_wrong_answer(file):
    filled(file)
    whole, rng = file.read_bytes(), random.Random(5)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 10, 300])):
            damaged[rng.randrange(100 if rng.random() < 0.9 else 0, len(whole))] = rng.randrange(256)
        file.write_bytes(damaged)
        file.chmod(0o600)
        try:
            with opened(file) as cache:
                works(cache)
                for number in range(20):
                    found = cache.get(numbered(number))
                    assert found is None or found.body == answer(f"{number} " + "x" * 3000).body
        except ConfigurationError:  # It may look like the database of something else.
            assert damaged[:100] != whole[:100]
        for each in files_of(file):
            each.unlink()


def test_file_of_another_version_is_emptied(file):
    filled(file)
    changed(file, "PRAGMA user_version = 2")
    with opened(file) as cache:
        assert cache.get(numbered(1)) is None
        assert works(cache)
        assert cache.get(asked()) == answer()


def test_database_of_something_else_is_refused_and_left_alone(file):
    changed(file, "CREATE TABLE bills (amount)")
    file.chmod(0o600)
    before = file.read_bytes()
    assert refusal(file) == f"cache: {file} is a database of something else. Name another file."
    assert file.read_bytes() == before


def test_tables_that_are_gone_are_a_miss(file, caplog):
    filled(file)
    with opened(file) as cache:
        changed(file, "DROP TABLE answers")
        changed(file, "DROP TABLE asking")
        assert works(cache)
        assert cache.get(numbered(1)) is None
    assert "no such table" in caplog.text


def test_file_that_is_put_in_the_place_of_a_fit_one_is_checked(file, tmp_path, caplog):
    with opened(file) as cache:
        assert works(cache)
        other = tmp_path / "other"
        filled(other, 1)
        other.chmod(0o644)
        for each in files_of(file):
            each.unlink()
        other.rename(file)
        assert cache.get(numbered(0)) is None
        assert works(cache)
        assert "is open to others: chmod 600 closes it" in caplog.text
        file.chmod(0o600)
        assert cache.get(numbered(0)) is not None


def test_file_that_is_deleted_without_those_beside_it_is_begun_anew(file):
    with opened(file) as cache:
        for number in range(20):
            cache.put(numbered(number), answer())
        file.unlink()
        assert {cache.get(numbered(number)) for number in range(20)} == {None}
        assert works(cache)
        assert cache.get(asked()) == answer()


# Rows


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE answers SET ends_us = ends_us + 3600000000",
        "UPDATE answers SET made_us = made_us - 1",
        "UPDATE answers SET sealed = substr(sealed, 1, length(sealed) - 1)",
        "UPDATE answers SET sealed = sealed || x'00'",
        "UPDATE answers SET sealed = x''",
        "UPDATE answers SET sealed = zeroblob(20)",
        "UPDATE answers SET sealed = zeroblob(40000000)",
        "UPDATE answers SET sealed = 'a text'",
        "UPDATE answers SET sealed = 7",
        "UPDATE answers SET made_us = 'long ago'",
        "UPDATE answers SET ends_us = 1.5e300",
        "UPDATE answers SET sealed = (SELECT sealed FROM answers AS other WHERE other.rowid != answers.rowid)",
    ],
)
def test_row_that_was_changed_is_a_miss_and_is_replaced(file, change):
    filled(file, 2)
    changed(file, change)
    with opened(file) as cache:
        assert cache.get(numbered(0)) is None
        turn = cache.begin(numbered(0))
        assert (turn.answer, turn.wait_s) == (None, 0)
        cache.end(turn, answer())
        assert cache.get(numbered(0)) == answer()


def test_value_that_no_answer_can_have_is_not_even_read(file):
    filled(file, 1)
    changed(file, f"UPDATE answers SET sealed = zeroblob({cache_rows.LONGEST_VALUE + 1})")
    with opened(file) as cache:
        assert cache._file.run(lambda each: cache_rows.find(each, numbered(0).id(SECRET), 0)) is None


@pytest.mark.parametrize("change", ["used_us = 'never'", "used_us = 1e300", "used_us = -1", "used_us = x'00'"])
def test_time_of_use_decides_only_what_goes_first(file, change):
    filled(file, 1)
    changed(file, f"UPDATE answers SET {change}")
    with opened(file) as cache:
        assert cache.get(numbered(0)) is not None


@pytest.mark.parametrize(
    "change", ["since_us = 'x'", "since_us = 1e300", "until_us = 'x'", "until_us = 1e300", "lease = 'x'", "lease = -1"]
)
def test_who_asks_is_waited_for_no_longer_than_a_lease_whatever_its_row_says(file, change):
    clock = manual_clock()
    with opened(file, clock=clock) as cache:
        turn = cache.begin(asked())
        changed(file, f"UPDATE asking SET {change}")
        assert 0 <= cache.begin(asked()).wait_s <= 0.5
        cache._turns.clear()
        clock.advance(11)
        assert cache.begin(asked()).wait_s == 0
        cache.end(turn)


def test_damaged_row_is_logged_without_what_is_in_it(file, caplog):
    filled(file, 1)
    changed(file, "UPDATE answers SET sealed = zeroblob(50)")
    with opened(file) as cache:
        for _ in range(5):
            assert cache.get(numbered(0)) is None
    assert f"A row of the cache {file} is damaged, or somebody has changed it. It is a miss." in caplog.text
    assert all("xxx" not in record.getMessage() for record in caplog.records)


# Places


def test_directory_that_is_missing_is_refused(tmp_path):
    file = tmp_path / "gone" / "answers"
    assert refusal(file) == f"cache: there is no directory {file.parent}. Make it, or name another file."


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_file_that_is_open_to_others_is_refused(file, mode):
    filled(file, 1)
    file.chmod(mode)
    assert "is open to others: chmod 600 closes it" in refusal(file)


def test_link_and_directory_are_refused(file, tmp_path):
    (tmp_path / "target").touch(0o600)
    file.symlink_to(tmp_path / "target")
    assert "is a link" in refusal(file)
    file.unlink()
    file.mkdir()
    assert "is no plain file" in refusal(file)


def test_network_file_system_is_refused(file, monkeypatch):
    monkeypatch.setattr(shared_file, "file_system", lambda _: "nfs4")  # None can be mounted in a test.
    assert "is on nfs4, on which SQLite can't share a file" in refusal(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o400, 0o700), (0o600, 0o500), (0o400, 0o500), (0, 0o700)])
def test_file_that_can_not_be_written_is_a_miss(tmp_path, file_mode, folder_mode):
    folder = tmp_path / "mine"
    folder.mkdir()
    for each in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
        each.chmod(0o755)
    file = folder / "answers"
    filled(file, 1)
    os.chown(folder, NOBODY, NOBODY)
    os.chown(file, NOBODY, NOBODY)
    file.chmod(file_mode)
    folder.chmod(folder_mode)

    def child():
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        with opened(file) as cache:
            assert works(cache)
            assert cache.get(numbered(0)) in (None, answer("0 " + "x" * 3000))
            assert cache.begin(numbered(5)).wait_s == 0

    assert exit_code_of_child(child) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_directory_that_can_not_be_written_is_a_miss(tmp_path):
    for each in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
        each.chmod(0o755)

    def child():
        os.setuid(NOBODY)
        with opened(tmp_path / "answers") as cache:
            assert works(cache)
            assert cache.get(asked()) is None

    assert exit_code_of_child(child) == 0


def test_full_disk_is_a_miss_and_what_is_there_is_still_found(file, caplog):
    with opened(file) as cache:
        cache.put(numbered(0), answer())
        connection = cache._file._connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite says "full", as when the disk is.
        assert not cache.put(numbered(1), answer("x" * 100_000))
        assert "database or disk is full" in caplog.text
        assert cache.get(numbered(0)) == answer()
        assert works(cache)
        connection.execute("PRAGMA max_page_count = 1000000")
        assert cache.put(numbered(1), answer("x" * 100_000))


def test_other_process_that_writes_for_long_holds_up_one_call_and_not_all(file, caplog, monkeypatch):
    now, tries = [100.0], []
    monkeypatch.setattr(cache_file, "seconds_running", lambda: now[0])
    with opened(file) as cache, closing(connect(file)) as other:
        cache.put(numbered(0), answer())
        write = cache._file.write
        monkeypatch.setattr(cache._file, "write", lambda work: tries.append(work) or write(work))
        other.execute("BEGIN IMMEDIATE")
        assert cache.get(numbered(0)) == answer()
        for _ in range(20):
            assert works(cache)
        assert len(tries) == 1
        assert "database is locked" in caplog.text
        now[0] += cache_file.REST_S
        assert cache.get(numbered(0)) == answer()
        other.execute("ROLLBACK")
        assert cache.put(asked(), answer())


def test_other_process_that_writes_for_a_moment_is_waited_for(file, caplog):
    with opened(file) as cache, closing(connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.1, lambda: other.execute("ROLLBACK")).start()
        assert cache.put(asked(), answer())
    assert caplog.text == ""
