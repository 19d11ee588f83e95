import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

BASE = "AILIMIT_STORES_DIRECTORY"

# The machine may be busy: no example has a deadline, and none is too slow to make.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# A shell lets what it starts in the background ignore Ctrl-C, and so would the processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

NEEDED_FOR = {
    "chromedriver": "browser",
    "chromium": "browser",
    "gunicorn": "server",
    "redis-server": "server",
    "valkey-server": "server",
}
"""Programs that only a test with the marker may start."""

NEEDED_BY = {
    "browser": "browser",
    "demo": "server",
    "redis_binary": "server",
    "redis_server": "server",
    "redis_url": "server",
    "running": "server",
    "valkey": "server",
}
"""Fixtures that start one of them, and so give their tests the marker. ``running`` is the bench's."""

# Before any test imports it: the store contract's asserts are to tell what they compared.
pytest.register_assert_rewrite("flask_ailimit.testing")


@pytest.fixture(scope="session", autouse=True)
def default_stores(tmp_path_factory):
    """Keep the default stores of all tests, and of the processes that they start, out of the user's own place."""
    home = tmp_path_factory.mktemp("stores")
    before = os.environ.get(BASE)
    os.environ[BASE] = str(home)
    yield home
    if before is None:
        del os.environ[BASE]
    else:
        os.environ[BASE] = before


@pytest.fixture(autouse=True)
def whole_log():
    """What a test before has logged leaves out nothing of this one's log."""
    few_lines = sys.modules.get("flask_ailimit.engine.few_lines")
    if few_lines:
        few_lines.few_lines.forget()


# What needs a server or a browser


def pytest_itemcollected(item):
    """Mark what needs one, so that ``make check`` can leave it out."""
    for fixture in NEEDED_BY.keys() & set(getattr(item, "fixturenames", ())):
        item.add_marker(NEEDED_BY[fixture])
    if item.path.parent.name == "gunicorn":
        item.add_marker("server")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Let no other test start one."""
    start = subprocess.Popen.__init__

    def start_what_is_marked(process, command, *arguments, **options):
        words = [command] if isinstance(command, str | bytes | os.PathLike) else command
        needed = {NEEDED_FOR.get(Path(os.fsdecode(word)).name) for word in words} - {None}
        for marker in needed:
            if not item.get_closest_marker(marker):
                raise AssertionError(f"{item.nodeid} starts a {marker}: it needs @pytest.mark.{marker}")
        start(process, command, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", start_what_is_marked)
        return (yield)
