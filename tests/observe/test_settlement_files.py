"""What is wrong with the file of settlements is said when the app starts."""

import os
import sqlite3
from contextlib import closing

import pytest
from flask import Flask
from observed_apps import observed, opened, settlement

from flask_ailimit import AILimiter, ConfigurationError, api_key
from flask_ailimit.engine import shared_file


@pytest.fixture
def file(tmp_path):
    return tmp_path / "settlements.sqlite"


def refusal(file):
    with pytest.raises(ConfigurationError) as caught, observed(file):
        pass
    return str(caught.value)


def test_directory_that_is_missing_is_named(tmp_path):
    file = tmp_path / "gone" / "settlements.sqlite"
    assert refusal(file) == f"settlements: there is no directory {file.parent}. Make it, or name another file."


def test_path_is_that_in_the_folder_of_the_app(tmp_path):
    app = Flask("shop", root_path=str(tmp_path))
    app.config["AILIMIT_SETTLEMENTS"] = "settlements.sqlite"
    limiter = AILimiter(api_key, app=app, storage_uri="memory://")
    with app.app_context():
        assert limiter.settlements.path == tmp_path / "settlements.sqlite"
        limiter.engine.close()


def test_file_of_another_version_is_left_alone(file):
    with closing(opened(file)) as book:
        book.add([settlement("a")])
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 2")
    before = file.read_bytes()
    assert "is of version 2, and this is for version 1. Name another file" in refusal(file)
    assert file.read_bytes() == before


def test_database_of_something_else_is_left_alone(file):
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE bills (amount)")
    file.chmod(0o600)
    before = file.read_bytes()
    assert refusal(file).endswith("is a database of something else. Name another file.")
    assert file.read_bytes() == before


@pytest.mark.parametrize("content", [b"customer,amount\n" * 100, b"SQLite format 3\0" + bytes(range(256)) * 8])
def test_file_that_is_no_database_is_left_alone(file, content):
    file.write_bytes(content)
    file.chmod(0o600)
    assert "can't be used" in refusal(file)
    assert file.read_bytes() == content


def test_empty_file_is_used(file):
    file.touch(0o600)
    with observed(file) as served:
        assert served.ask().status_code == 200
        assert served.writer.flush()


@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o640, True), (0o604, True), (0o666, True)])
def test_file_that_others_can_read_is_refused(file, mode, is_open):
    opened(file)
    file.chmod(mode)
    if is_open:
        assert "is open to others: chmod 600 closes it" in refusal(file)
    else:
        with observed(file):
            pass


def test_link_and_directory_are_refused(file, tmp_path):
    (tmp_path / "target").touch(0o600)
    file.symlink_to(tmp_path / "target")
    assert "is a link" in refusal(file)
    file.unlink()
    file.mkdir()
    assert "is no plain file" in refusal(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_file_of_somebody_else_is_refused(file):
    opened(file)
    os.chown(file, 65534, 65534)
    assert "belongs to uid 65534, not to uid 0 of this process" in refusal(file)


def test_network_file_system_is_refused(file, monkeypatch):
    monkeypatch.setattr(shared_file, "file_system", lambda _: "fuse.sshfs")  # None can be mounted in a test.
    assert "is on sshfs, on which SQLite can't share a file" in refusal(file)


@pytest.mark.parametrize("value", ["", ".", "/", 3, b"bytes", "a\0b", True])
def test_setting_that_is_no_path_is_refused(value):
    with pytest.raises(ConfigurationError, match=r"^settlements: the path of a file is needed"):
        AILimiter(api_key, app=Flask("shop"), storage_uri="memory://", settlements=value)


@pytest.mark.parametrize("value", [0, -1, 36_501, "400", 1.5, True])
def test_days_that_are_none_are_refused(value):
    with pytest.raises(ConfigurationError, match=r"^settlements_days: a whole number from 1 to 36500"):
        AILimiter(api_key, app=Flask("shop"), storage_uri="memory://", settlements_days=value)


def test_app_whose_file_is_refused_is_not_limited_by_halves(file):
    file.mkdir()
    app = Flask("shop")
    with pytest.raises(ConfigurationError):
        AILimiter(api_key, app=app, storage_uri="memory://", settlements=file)
    assert "ailimit" not in app.extensions
    assert app.before_request_funcs == {}
    assert app.after_request_funcs == {}
