"""Apps that keep their settlements, and what is in their files."""

import sqlite3
import time
from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass

from flask import Flask

from flask_ailimit import AILimiter, api_key
from flask_ailimit.observe.book_file import SUMMED
from flask_ailimit.observe.settlement import Settlement
from flask_ailimit.observe.settlements import Settlements
from flask_ailimit.testing import ManualClock

PATIENCE = 60
"""Seconds to wait for what a thread or another process does, before the test fails."""

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US

SECRET = "the same in every process of the test"
REPORT = {"prompt_tokens": 10, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 4}}


@dataclass(frozen=True)
class Observed:
    """An app with one view, which reports what it used, and usage pages."""

    app: Flask
    limiter: AILimiter
    clock: ManualClock

    def ask(self, key="alice", **body):
        return self.app.test_client().post("/chat", json={"messages": [], **body}, headers={"X-Api-Key": key})

    def page(self, query="", key="alice", path="/usage?bucket_width=1d"):
        return self.app.test_client().get(f"{path}&{query}", headers={"X-Api-Key": key})

    @property
    def writer(self):
        return self.limiter._writers[self.app]


@contextmanager
def observed(path, *, key_func=api_key, **options):
    """An app on a clock that stands still until it is moved. It is closed at the end."""
    clock = ManualClock()
    options = {"storage_uri": "memory://", "clock": clock, "secret": SECRET, "settlements": path, **options}
    app = Flask("observed", static_folder=None)
    limiter = AILimiter(key_func, app=app, **options)

    @app.post("/chat")
    @limiter.limit_tokens("1000000 per minute")
    def chat():
        return {"choices": [], "usage": REPORT}

    app.add_url_rule("/usage", view_func=limiter.usage_view)
    app.add_url_rule("/v1/organization/usage/completions", view_func=limiter.usage_page_view)
    costs = {"endpoint": "costs", "defaults": {"of": "costs"}}
    app.add_url_rule("/v1/organization/costs", view_func=limiter.usage_page_view, **costs)
    try:
        yield Observed(app, limiter, clock)
    finally:
        with app.app_context():
            limiter.engine.close()


_GIVEN = {"subject": b"s" * 16, "service_tier": "", "source": "reported", "ending": "complete", "currency": ""}


def settlement(request_id, number=1, at_us=0, **given):
    """A settlement in which the rest is nothing."""
    numbers = dict.fromkeys((name for name in SUMMED if name != "cost_nano"), 0)
    nothing = dict.fromkeys(Settlement._fields)
    return Settlement(
        **{**nothing, **numbers, **_GIVEN, "request_id": request_id, "number": number, "at_us": at_us, **given}
    )


def kept(path):
    """All settlements of a file."""
    with closing(sqlite3.connect(path)) as connection:
        return [Settlement(*row) for row in connection.execute("SELECT * FROM settlements ORDER BY rowid")]


def sums_kept(path):
    """The sums of a file: by subject, hour, model, tier and currency, without those that are zero."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        names = ("requests", *SUMMED)
        rows = connection.execute(
            f"SELECT subject, hour, model, service_tier, currency, {', '.join(names)} FROM hours"
        ).fetchall()
    return {(*row[:5], name): value for row in rows for name, value in zip(names, row[5:], strict=True) if value}


def sums_of(settlements):
    """The same, added up here."""
    found = Counter()
    for each in settlements:
        key = each.subject, each.at_us // HOUR_US, each.model or "", each.service_tier, each.currency
        found[*key, "requests"] += each.number == 1
        for name in SUMMED:
            found[*key, name] += getattr(each, name) or 0
    return {key: value for key, value in found.items() if value}


def opened(path, days=36_500, clock=lambda: DAY_US * 20_000):
    """The settlements of a file, as an app has them."""
    return Settlements(path, days, clock)


def wait_for(ask, enough=bool):
    """Ask until the answer is enough, and answer it."""
    deadline = time.monotonic() + PATIENCE
    while not enough(answer := ask()):
        assert time.monotonic() < deadline, f"still {answer!r} after {PATIENCE} s"
        time.sleep(0.01)
    return answer
