"""A pytest plugin that puts AILimiter where Flask-Limiter's own suite imports ``Limiter``."""

import functools
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import flask_limiter
import pytest
from flask import Flask
from flask_limiter.constants import ConfigVars
from limits.strategies import FixedWindowRateLimiter

from flask_ailimit import AILimiter
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.limits.rate_limiter import EngineRateLimiter

BOUNDARY = 58 * 360 * 86_400
"""A time, in the year 2027, at which a window of every length begins: seconds to years of 360 days."""


class SuiteLimiter(AILimiter):
    """AILimiter with the suite's clock, and with the storage that the suite relies on: one for each app."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, clock=now_us, **kwargs)

    def init_app(self, app: Flask) -> None:
        app.config.setdefault(ConfigVars.STORAGE_URI, "memory://")
        super().init_app(app)


def now_us() -> int:
    """Tell the time as the suite sees it: it travels by replacing ``time.time``."""
    return int(time.time() * 1_000_000)


@pytest.fixture(autouse=True)
def start_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test begin where a window begins.

    The windows of ``limits`` begin with the first request, as the suite expects; ours are aligned to the clock.
    """
    clock = time.time
    offset = BOUNDARY + 0.001 - clock()
    monkeypatch.setattr(time, "time", lambda: clock() + offset)


def broken_with(name: str, ours: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``ours`` fail while a test has patched the method of limits' strategy: so the suite breaks the storage."""

    @functools.wraps(ours)
    def breakable(*args: object, **kwargs: object) -> object:
        theirs = getattr(FixedWindowRateLimiter, name)
        if isinstance(theirs, Mock):
            theirs()
        return ours(*args, **kwargs)

    return breakable


MemoryStore.reserve = broken_with("hit", MemoryStore.reserve)
EngineRateLimiter.get_window_stats = broken_with("get_window_stats", EngineRateLimiter.get_window_stats)

# Here, and not in a hook, since the suite's conftest imports the name before the first hook that a plugin has.
flask_limiter.Limiter = SuiteLimiter
