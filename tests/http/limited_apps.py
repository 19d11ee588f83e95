"""Apps with limits on them, on a clock that stands still, and what their limits have counted."""

from contextlib import contextmanager
from dataclasses import dataclass

from flask import Flask

from flask_ailimit import AILimiter, StoreError, api_key
from flask_ailimit.engine import Charge, Quota
from flask_ailimit.testing import ManualClock

ADDRESS = "192.0.2.1"


@dataclass(frozen=True)
class Limited:
    """An app with its limiter."""

    app: Flask
    limiter: AILimiter
    clock: ManualClock

    def client(self, key="alice", **environ):
        """A client that sends this key; none if it is empty."""
        client = self.app.test_client()
        client.environ_base["REMOTE_ADDR"] = ADDRESS
        client.environ_base.update(environ)
        if key:
            client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {key}"
        return client

    def used(self, key="alice", endpoint="answer"):
        """What each limit of an endpoint has counted for a key, by the limit's name; for no key, of the address."""
        with self.app.test_request_context(environ_base={"REMOTE_ADDR": ADDRESS}):
            decision = self.limiter.peek(endpoint, key or None)
        return {verdict.charge.quota.name: verdict.used for verdict in decision.verdicts}

    def tokens(self, key="alice", endpoint="answer"):
        """The one token limit's count."""
        (used,) = [used for name, used in self.used(key, endpoint).items() if "tokens" in name]
        return used


def limited(key_func=api_key, *, storage_uri="memory://", config=None, **options):
    """An app without views, and its limiter."""
    clock = ManualClock()
    options.setdefault("accept_money_loss", True)  # What is counted here is nobody's money.
    limiter = AILimiter(key_func, storage_uri=storage_uri, clock=clock, **options)
    app = Flask("limited", static_folder=None)
    app.config.update(config or {})
    limiter.init_app(app)
    return Limited(app, limiter, clock)


@contextmanager
def commandable(place):
    """Makes apps like :func:`limited`, whose counts commands can see, in a directory. They are closed at the end."""
    made = []

    def make(*arguments, **options):
        made.append(limited(*arguments, storage_uri=f"local://{place}", **options))
        return made[-1]

    yield make
    for each in made:
        with each.app.app_context():
            each.limiter.engine.close()


def twice_a_day(key_func=api_key, **options):
    """An app with one view, which answers each key twice a day."""
    served = limited(key_func, **options)

    @served.app.get("/")
    @served.limiter.limit("2 per day")
    def answer():
        return {}

    return served


@contextmanager
def apps_of_two():
    """Makes apps that answer alice twice a day, each with its limiter; their stores are closed at the end."""
    made = []

    def make(config=(), *, import_name="shop", root_path=None, limit="2 per day", **options):
        limiter = AILimiter(lambda: "alice", default_limits=[limit], **options)
        app = Flask(import_name, root_path=root_path)
        app.config.update(config)
        limiter.init_app(app)
        app.get("/")(lambda: "")
        made.append((app, limiter))
        return app, limiter

    yield make
    for app, limiter in made:
        with app.app_context():
            limiter.engine.close()


def statuses(app, times=3):
    """What an app answers to so many requests."""
    return [app.test_client().get("/").status_code for _ in range(times)]


def fill(limiter):
    """Fill a local store to the brim, so that it takes no further count."""
    day = Quota(1000, 86400)
    with_room = True
    number = 0
    while with_room:
        number += 1
        charges = [Charge(limiter.engine.subject("filling", str(number)), day, scope=str(i)) for i in range(50)]
        try:
            limiter.engine.reserve(charges)
        except StoreError:
            with_room = False


def route(limits, *decorators, path="/", methods=("GET",), endpoint="answer"):
    """Give the app a view with these decorators, the first outermost."""

    def view():
        return {}

    for decorator in reversed(decorators):
        view = decorator(view)
    limits.app.route(path, methods=methods, endpoint=endpoint)(view)
