"""The demo app as a provider: its scripted model, limits as asked for, and a count of its answers.

Served with one worker, whose memory has the counts; ``/counted`` tells them.
"""

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import Any

from places import ROOT

sys.path.append(str(ROOT))  # The demo is in no package.

from demo_app import create_app
from demo_app.keys import open_account
from demo_app.scripted import ScriptedModel

KEY = "key-of-the-bench"
ANSWER_WORDS = 60
A_WORD_TAKES = 0.001
WHO = "HTTP_X_BENCH_WHO"

Start = Callable[..., Any]


def provider(plan: Mapping[str, Any], *, slowly: bool = True) -> Callable[..., Iterable[bytes]]:
    """The WSGI app.

    Args:
        plan: Of the one account, as a plans file has it.
        slowly: Whether a word takes a millisecond; else nothing.
    """
    pause = (lambda: time.sleep(A_WORD_TAKES)) if slowly else (lambda: None)
    model = ScriptedModel(["word"] * ANSWER_WORDS, context=100_000, before_token=pause)
    accounts = (open_account("bench", "bench", KEY),)
    config = {
        "RATELIMIT_STORAGE_URI": "memory://",
        "DEMO_ACCOUNTS": accounts,
        "AILIMIT_PLANS": {"plans": {"bench": {"concurrency": 1000, **plan}}},
    }
    logging.disable(logging.INFO)  # The demo logs each call.
    return _Counting(create_app(model, config).wsgi_app)


class _Counting:
    """Counts answers by who asked, and their tokens."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._lock = Lock()
        self._statuses: Counter[str] = Counter()
        self._tokens = 0

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/counted":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps({"statuses": self._statuses, "tokens": self._tokens}).encode()]
        seen = []

        def start(status: str, headers: Any, *rest: Any) -> Any:
            seen.append(status[:3])
            return start_response(status, headers, *rest)

        answer = self._app(environ, start)
        try:
            body = b"".join(answer)
        finally:
            answer.close()  # Then the demo gives its slot back.
        tokens = json.loads(body).get("usage", {}).get("total_tokens", 0) if seen[-1] == "200" else 0
        with self._lock:
            self._statuses[f"{environ.get(WHO, 'us')} {seen[-1]}"] += 1
            self._tokens += tokens
        return [body]
