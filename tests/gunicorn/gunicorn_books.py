"""What the server's store says, asked by a process of its own."""

import json
import time
from collections import defaultdict
from os import SEEK_CUR

from gunicorn_app import LIMITER, create_app
from gunicorn_client import token_of

from flask_ailimit.engine import system_clock
from flask_ailimit.engine.clock import MICROSECONDS

PATIENCE = 60
"""Seconds to wait for what another process does, before the test fails."""


class Books:
    """Reads the store of a server, and the ledger that its app keeps. ``options`` are those of its ``create_app``."""

    def __init__(self, directory, **options):
        self._ahead = 0.0
        self._app = create_app(directory, clock=lambda: system_clock() + int(self._ahead * MICROSECONDS), **options)
        self._limiter = self._app.extensions[LIMITER]
        self._ledger = (directory / "ledger").open("rb")
        self._entries = defaultdict(list)

    def used(self, key, endpoint="stream", path="/", ahead=0.0):
        """What is taken of each unit by this key, now or so many seconds ahead if nobody does anything."""
        self._ahead = ahead
        with self._app.test_request_context(path, method="POST", headers={"x-api-key": token_of(key)}):
            decision = self._limiter.peek(endpoint)
        return {each.charge.quota.unit: each.charge.quota.burst - each.remaining for each in decision.verdicts}

    def entries(self, what, key):
        """The lines of the ledger about this key."""
        while (line := self._ledger.readline()).endswith(b"\n"):
            entry = json.loads(line)
            self._entries[entry["what"], entry["subject"]].append(entry)
        self._ledger.seek(-len(line), SEEK_CUR)  # The rest is being written.
        return self._entries[what, self._limiter.subject(token_of(key)).hex()]

    def wait_settled(self, key, count=1):
        """Wait for so many settlements, and answer them. More than that fails: each request is settled once."""
        settled = wait_for(lambda: self.entries("settled", key), lambda lines: len(lines) >= count)
        taken = self.entries("taken", key)
        assert sorted(line["lease"] for line in settled) == sorted(line["lease"] for line in taken)
        return settled

    def close(self):
        self._ledger.close()
        self._limiter.engine.close()


def wait_for(ask, enough=bool, patience=PATIENCE):
    """Ask until the answer is enough, and answer it."""
    deadline = time.monotonic() + patience
    while not enough(answer := ask()):
        assert time.monotonic() < deadline, f"still {answer!r} after {patience} s"
        time.sleep(0.01)
    return answer
