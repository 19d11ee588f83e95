"""Stores and apps as users open them, each as if on a machine of its own, and what they do while Redis is away."""

import shutil
import time
from base64 import urlsafe_b64encode
from collections import Counter
from contextlib import contextmanager, suppress
from secrets import token_hex
from threading import Thread

import pytest
from flask import Flask, request
from redis_servers import wait_until

from flask_ailimit import AILimiter, api_key
from flask_ailimit.engine import StoreError, open_store, system_clock
from flask_ailimit.engine.stores import redis
from flask_ailimit.signals import store_changed

SECRET = "x" * 32
LIMIT, TOKEN_LIMIT, IN_FLIGHT = 8, 10_000, 4
COST, USED = 500, 30
POLICIES = ("local", "allow", "deny")

# The longest that there are: nobody is taken for away while the machine is busy with something else.
UNHURRIED = {"timeout": 3, "connect_timeout": 2}


@contextmanager
def on_machine(name):
    """Stores that are opened meanwhile are on a machine of this name: they have a place of their own there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis, "nearby_of", lambda address, prefix: f"{name}-nearby")
        yield


@contextmanager
def machine(uri, name=None, clock=system_clock, **options):
    """A store as the apps of the machine of this name open it: another one has another directory, as machines have."""
    with on_machine(name or f"machine-{token_hex(4)}"):
        store = open_store(uri, name="app", clock=clock, options=UNHURRIED | options)
    try:
        yield store
    finally:
        put_away(store)


def put_away(store):
    """Close a store, wait until nothing of it runs any more, and remove its directory."""
    place = store.nearby.whole.path
    store.close()
    wait_until(lambda: not store._machines._thread.is_alive())
    shutil.rmtree(place, ignore_errors=True)


class App:
    """An app with a view for each policy, ``/local`` and so on, each limited in requests, tokens and calls in flight.

    Attributes:
        app: The Flask app; ``limiter`` its limiter.
        changes: What the signal said, in order.
        answers: How many answers there were, by status.
        inside: Called in the views, while a request is being served.
        usage: The tokens that a view says it used.
    """

    def __init__(self, uri, *, name=None, options=None, limit=LIMIT, policies=POLICIES, **settings):
        self.app = Flask(name or f"outage-{token_hex(4)}", static_folder=None)
        self.limiter = AILimiter(
            api_key,
            storage_uri=uri,
            storage_options=UNHURRIED | (options or {}),
            secret=SECRET,
            strategy="moving-window",
            **settings,
        )
        self.changes = []
        self.answers = Counter()
        self.inside = lambda: None
        self.usage = USED
        for policy in policies:
            self.app.add_url_rule(f"/{policy}", policy, self._limited(policy, limit), methods=["POST"])
        store_changed.connect(self._changed, self.app)
        with on_machine(self.app.name):
            self.limiter.init_app(self.app)

    def post(self, path, key="alice"):
        """Ask once; the answer, and how many seconds it took."""
        client = self.app.test_client()
        began = time.perf_counter()
        answer = client.post(path, headers={"Authorization": f"Bearer {key}"}, json={"prompt": "Hello"})
        seconds = time.perf_counter() - began
        self.answers[answer.status_code] += 1
        return answer, seconds

    def posts(self, path, times, key="alice"):
        """Ask several times; the statuses."""
        return [self.post(path, key)[0].status_code for _ in range(times)]

    def at_once(self, path, times, key="alice"):
        """Ask several times at the same time; the statuses."""
        statuses = []
        threads = [Thread(target=lambda: statuses.append(self.post(path, key)[0].status_code)) for _ in range(times)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return statuses

    def used(self, endpoint, key="alice"):
        """What the store has counted for a key, by the limit's name; None if it doesn't answer."""
        with self.app.test_request_context(), suppress(StoreError):
            return {verdict.charge.quota.name: verdict.used for verdict in self.limiter.peek(endpoint, key).verdicts}

    def key_of(self, key="alice"):
        """The name under which the store keeps a key's counts."""
        return b"ailimit:{%b}" % urlsafe_b64encode(self.limiter.subject(key)).rstrip(b"=")

    def close(self):
        engine = self.limiter.app_state.engine  # Not that of Flask-Limiter's fallback.
        engine.close()
        put_away(engine.store)

    def _changed(self, app, available):
        self.changes.append(available)

    def _limited(self, policy, limit):
        limiter = self.limiter

        def view():
            self.inside()
            limiter.record_usage(input_tokens=self.usage)
            return {"asked": request.json["prompt"]}

        view.__name__ = policy  # The decorators go by it.
        for limited in (
            limiter.limit(f"{limit} per hour", on_store_error=policy),
            limiter.limit_tokens(
                f"{TOKEN_LIMIT} per hour", algorithm="moving-window", estimate=lambda _: COST, on_store_error=policy
            ),
            limiter.limit_concurrency(IN_FLIGHT, lease=5, on_store_error=policy),
        ):
            view = limited(view)
        return view


def require_consistent(answer):
    """The limit headers of an answer agree with each other, and with a refusal's wait."""
    headers = answer.headers
    assert 0 <= int(headers["X-RateLimit-Remaining"]) <= int(headers["X-RateLimit-Limit"])
    for unit in ("requests", "tokens"):
        assert 0 <= int(headers[f"x-ratelimit-remaining-{unit}"]) <= int(headers[f"x-ratelimit-limit-{unit}"])
    assert headers["RateLimit"]
    assert headers["RateLimit-Policy"]
    assert ("Retry-After" in headers) == (answer.status_code == 429)
