"""``docs/moving-from-flask-limiter.md``: each difference is seen, on Flask-Limiter's limiter and on ours."""

import logging
import re
import socket
import warnings
from contextlib import contextmanager
from itertools import chain
from types import SimpleNamespace

import pytest
from flask import Blueprint, Flask, Response, abort, request
from flask_limiter import Limiter
from limits.errors import ConfigurationError
from limits.storage import SCHEMES
from page_blocks import ROOT, texts
from test_flask_limiter_suite import TESTS_IN_SUITE, read_list

from flask_ailimit import AILimiter
from flask_ailimit.testing import ManualClock

FILE = ROOT / "docs" / "moving-from-flask-limiter.md"
if not FILE.exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)
PAGE = FILE.read_text(encoding="utf-8")
ROWS = [
    line.split(" | ")[0].removeprefix("| ") for line in PAGE.splitlines() if re.match(r"\| (?!difference|---)", line)
]
SECRET = "x" * 32

SUITE = {
    "test_decorators.py::test_exempt_routes": "a refused request",
    "test_flask_ext.py::test_no_fail_on_first_breach": "a refused request",
    "test_regressions.py::test_application_limits_from_config": "limits of the application",
    "test_regressions.py::test_default_limits_with_per_route_limit": "limits of the application",
    "test_regressions.py::test_invalid_ratelimit_key": "a client without a key",
    "test_flask_ext.py::test_multiple_apps": "windows of `fixed-window`",
    "test_blueprints.py::test_invalid_decorated_static_limit_blueprint": "a limit that can't be read",
    "test_decorators.py::test_invalid_decorated_static_limits": "a limit that can't be read",
    "test_blueprints.py::test_invalid_decorated_dynamic_limits_blueprint": "a callable that returns no limit",
    "test_decorators.py::test_invalid_decorated_dynamic_limits": "a callable that returns no limit",
    "test_decorators.py::test_decorated_limit_empty_exempt": "a callable that returns no limit",
    "test_decorators.py::test_decorated_dynamic_limits": "a limit that changes",
    "test_flask_ext.py::test_callable_application_limit": "a limit that changes",
    "test_decorators.py::test_non_route_decoration_static_limits_override_defaults": "a limited function that a view",
}
"""Where the page has what a test of Flask-Limiter's suite expects otherwise."""

SEEN = []
"""The differences that have a test below."""


def shows(difference):
    """Marks the test that shows a difference of the page, by the first cell of its row."""
    SEEN.append(difference)

    return lambda test: test


def test_each_test_of_the_suite_that_differs_is_on_the_page():
    assert {f"tests/{test}" for test in SUITE} == set(read_list("differs.txt"))
    for difference in SUITE.values():
        assert [row for row in ROWS if row.startswith(difference)], difference


def test_numbers_of_the_suite_are_those_on_the_page():
    numbers = re.search(
        r"suite of (\d+) tests runs on `AILimiter`: (\d+) pass, (\d+) differ on\npurpose, and (\d+) are left", PAGE
    )
    every, passed, differ, left_out = map(int, numbers.groups())
    assert (every, differ, left_out) == (
        TESTS_IN_SUITE,
        len(read_list("differs.txt")),
        len(read_list("needs_server.txt")),
    )
    assert passed == every - differ - left_out


def test_each_difference_of_the_page_has_a_test():
    assert sorted(ROWS) == sorted(SEEN)


def test_three_lines_are_all_that_changes(tmp_path, monkeypatch):
    """The page's app, and the app that it was before: each line back to what its comment says that it was."""
    monkeypatch.setenv("AILIMIT_STORES_DIRECTORY", str(tmp_path))
    (ours,) = texts("docs/moving-from-flask-limiter.md", "python")
    theirs, changed = re.subn(r"^( *)\S.*# was: (.*)$", r"\1\2", ours, flags=re.MULTILINE)
    assert changed == 3
    for code, kind in ((ours, AILimiter), (theirs, Limiter)):
        names = {"__name__": f"moved_{kind.__name__.lower()}"}
        exec(compile(code, str(FILE), "exec"), names)
        assert type(names["limiter"]) is kind
        client = names["app"].test_client()
        assert [client.get("/search").status_code for _ in range(9)] == [200] * 9
        assert {client.get("/search").status_code for _ in range(12)} == {200, 429}
        assert {client.get("/ping").status_code for _ in range(60)} == {200}
        for state in getattr(names["limiter"], "_states", {}).values():
            state.engine.close()


# Both limiters


@pytest.fixture(params=[Limiter, AILimiter], ids=["Flask-Limiter", "AILimiter"])
def kind(request):
    return request.param


@pytest.fixture
def ours(kind):
    return kind is AILimiter


@pytest.fixture
def clock(monkeypatch):
    """The time of both limiters. It begins in the middle of a minute."""
    clock = ManualClock()
    clock.advance(30)
    monkeypatch.setattr("time.time", lambda: clock() / 1e6)
    return clock


@pytest.fixture
def served(kind, ours, clock):
    """Makes an app with a limiter of either kind, and a client that asks it."""
    opened = []

    def make(key_func=lambda: "alice", app=None, config=None, **options):
        app = app or Flask("shop", static_folder=None)
        app.config.update(config or {})
        options = {"storage_uri": "memory://", **({"clock": clock} if ours else {}), **options}
        limiter = kind(key_func, app=app, **{name: value for name, value in options.items() if value is not None})
        opened.append(limiter)
        client = app.test_client()

        def ask(times=1, path="/", method="GET", **more):
            return [client.open(path, method=method, **more).status_code for _ in range(times)]

        return SimpleNamespace(app=app, limiter=limiter, client=client, ask=ask)

    yield make
    for limiter in opened:
        for state in getattr(limiter, "_states", {}).values():
            state.engine.close()


def view():
    return "done"


def other():
    return "done"


def third():
    return "done"


# What is counted


@shows("a refused request")
def test_refused_request(served, ours):
    it = served()
    shared = it.limiter.shared_limit("2 per minute", scope="all")
    it.app.get("/")(shared(it.limiter.limit("1 per hour")(view)))
    it.app.get("/other")(shared(other))
    assert it.ask(2) == [200, 429]
    assert it.ask(path="/other") == [200 if ours else 429]


@shows("a client without a key")
def test_client_without_a_key(served, ours):
    it = served(lambda: "")
    it.app.get("/")(it.limiter.limit("2 per minute")(view))
    it.app.get("/other")(it.limiter.limit("2 per minute", exempt_when=lambda: True)(other))
    assert it.ask(3) == [200, 200, 429 if ours else 200]
    assert it.ask(3, "/other") == [200] * 3


@shows("HEAD")
def test_head(served, ours):
    it = served()
    it.app.get("/")(it.limiter.limit("2 per minute", methods=["GET"])(view))
    it.app.get("/other")(it.limiter.limit("2 per minute", per_method=True)(other))
    it.app.get("/head")(it.limiter.limit("2 per minute", methods=["HEAD"])(third))
    assert it.ask(3, method="HEAD") == [200, 200, 429 if ours else 200]
    assert it.ask(2, "/other", "HEAD") + it.ask(1, "/other") == [200, 200, 429 if ours else 200]
    assert it.ask(3, "/head") + it.ask(3, "/head", "HEAD") == [200] * 5 + [429]


@shows("a preflight, which is an OPTIONS that Flask answers itself")
def test_preflight(served, ours):
    it = served(default_limits=["2 per minute"])
    it.app.get("/")(view)
    assert it.ask(3, method="OPTIONS") == [200, 200, 200 if ours else 429]
    assert it.ask() == [200 if ours else 429]


@shows("windows of `fixed-window`")
def test_windows(served, ours, clock):
    it = served(default_limits=["1 per minute"])
    it.app.get("/")(view)
    answers = []
    for _ in range(7):  # From the middle of a minute on.
        answers += it.ask()
        clock.advance(10)
    assert answers == [200, 429, 429, *([200, 429, 429, 429] if ours else [429, 429, 429, 200])]


@shows("`moving-window` beyond 64 requests")
def test_moving_window(served, ours, clock):
    it = served(strategy="moving-window", default_limits=["100 per minute"])
    it.app.get("/")(view)
    for _ in range(100):
        assert it.ask() == [200]
        clock.advance(0.1)
    clock.advance(50.1)
    waits = 0
    while it.ask() == [429]:
        clock.advance(0.1)
        waits += 1
    assert (0 < waits <= 10) if ours else waits == 0


@shows("`deduct_when`")
def test_deduct_when(served, ours):
    it = served()
    inner = []

    @it.app.get("/")
    @it.limiter.limit("1 per minute", deduct_when=lambda response: response.status_code == 200)
    def answer():
        if "inner" not in request.args:  # Meanwhile another request of the same client comes.
            inner.extend(it.ask(path="/?inner=1"))
        return "", int(request.args.get("status", 200))

    assert it.ask(path="/?status=404") == [404]
    inner.clear()
    it.limiter.reset()
    assert (it.ask(), inner) == ([200], [429 if ours else 200])
    it.limiter.reset()
    assert it.ask(3, "/?inner=1&status=404") == [404] * 3


@shows("a limit that changes: a callable returns another one, or a new version of the app has it")
def test_limit_that_changes(served, ours):
    it = served()
    now = ["2 per minute"]
    it.app.get("/")(it.limiter.limit(lambda: now[0])(view))
    assert it.ask(3) == [200, 200, 429]
    now[0] = "3 per minute"
    assert it.ask(4) == ([200, 429, 429, 429] if ours else [200, 200, 200, 429])


@shows('several limits of one period in a text, such as `"5 per minute; 10 per minute"`')
def test_several_limits_of_one_period(served, ours):
    it = served()
    seen = []
    it.app.after_request(lambda response: (seen.append(len(it.limiter.current_limits)), response)[1])
    it.app.get("/")(it.limiter.limit("2 per minute; 3 per minute")(view))
    assert it.ask(4) == [200, 200, 429, 429]
    assert seen[0] == (1 if ours else 2)


@shows("a limited function that a view calls")
def test_limited_function(served, ours):
    it = served(default_limits=["2 per minute"])
    helper = it.limiter.limit("10 per minute")(lambda: None)

    @it.app.get("/")
    def answer():
        if "help" in request.args:
            helper()
        return ""

    assert it.ask(path="/?help=1") == [200]
    assert it.ask(4) == [200, *([429] * 3 if ours else [200] * 3)]


@shows("a limit of a blueprint whose view calls a limited function")
def test_limit_of_a_blueprint(served, ours):
    it = served()
    blueprint = Blueprint("part", __name__)
    it.limiter.limit("3 per minute")(blueprint)
    helper = it.limiter.limit("10 per minute")(lambda: None)

    @blueprint.get("/")
    def answer():
        helper()
        return ""

    it.app.register_blueprint(blueprint)
    assert it.ask(4) == [200, 200, 200, 429 if ours else 200]


@shows("two functions of one name, such as lambdas")
def test_functions_of_one_name(served, ours):
    it = served()
    it.app.get("/", endpoint="one")(it.limiter.limit("1 per minute")(lambda: ""))
    it.app.get("/other", endpoint="two")(it.limiter.limit("3 per minute")(lambda: ""))
    assert it.ask(2, "/other") == [200, 200 if ours else 429]


@shows("counts of one key, such as scopes that a callable makes")
def test_counts_of_one_key(served, ours):
    it = served()
    it.app.get("/")(it.limiter.limit("9 per minute", scope=lambda _: request.args["scope"])(view))
    answers = [*chain.from_iterable(it.ask(path=f"/?scope={number}") for number in range(513))]
    assert answers == [200] * 512 + [429 if ours else 200]


@shows("several apps of one limiter")
def test_several_apps(served, ours):
    it = served(default_limits=["1 per minute"])
    second, off = Flask("second"), Flask("off")
    off.config["RATELIMIT_ENABLED"] = False
    for app in (it.app, second, off):
        app.get("/", endpoint="view")(view)
    it.limiter.init_app(second)
    second_client = second.test_client()
    assert it.ask() == [200]
    assert second_client.get("/").status_code == (200 if ours else 429)
    it.limiter.init_app(off)
    assert it.ask(2) == [429 if ours else 200] * 2
    assert [off.test_client().get("/").status_code for _ in range(2)] == [200, 200]


@shows("`cost=` raises, or returns nonsense")
def test_cost_that_raises(served, ours, caplog):
    it = served()
    it.app.get("/")(it.limiter.limit("2 per minute", cost=lambda: 1 // 0)(view))
    assert it.ask(3) == ([200, 200, 429] if ours else [500] * 3)
    assert "The cost of 2 per 1 minute counts as 1" in caplog.text or not ours


# When it is decided


@shows("`before_request` functions")
def test_before_request_functions(served, ours):
    it = served(application_limits=["2 per minute"])
    it.app.before_request(lambda: None if request.headers.get("Authorization") else abort(401))
    it.app.get("/")(view)
    assert it.ask(3) == [401, 401, 401 if ours else 429]
    assert it.ask(headers={"Authorization": "Bearer alice"}) == [200 if ours else 429]


@shows("limits of the application")
def test_limits_of_the_application(served, ours):
    it = served(application_limits=["3 per hour"])
    it.app.get("/")(it.limiter.limit("1 per minute")(view))
    it.app.get("/other")(other)
    assert it.ask(3) == [200, 429, 429]
    assert it.ask(path="/other") == [200 if ours else 429]


# What is refused where it is written


@contextmanager
def refused(refuses):
    """The block raises a ConfigurationError, if it is to."""
    if refuses:
        with pytest.raises(ConfigurationError):
            yield
    else:
        yield


@shows('a limit that can\'t be read, such as `"2/sec"`')
def test_limit_that_cannot_be_read(served, ours, caplog):
    it = served()
    with refused(ours):
        it.app.get("/")(it.limiter.limit("2/sec")(view))
    if not ours:
        assert it.ask(4) == [200] * 4
        assert caplog.text.count("no granularity matched for sec") == 4
    it = served()
    with refused(ours):
        it = served(default_limits=["2/sec"])
        it.app.get("/")(view)
        assert it.ask() == [500]


@shows("a callable that returns no limit, or raises")
def test_callable_that_returns_no_limit(served, ours, caplog):
    it = served()
    theirs = {"/none": 200, "/wrong": 200, "/raises": 500}
    answers = {"/none": lambda: "", "/wrong": lambda: "2/sec", "/raises": lambda: 1 // 0}
    for (path, answer), function in zip(answers.items(), (view, other, third), strict=True):
        it.app.get(path)(it.limiter.limit(answer)(function))
    for path in answers:
        assert it.ask(path=path) == [503 if ours else theirs[path]], path


@shows("a period of more than ten years")
def test_period_of_more_than_ten_years(served, ours):
    it = served()
    with refused(ours):
        it.app.get("/")(it.limiter.limit("1 per 11 years")(view))
        assert it.ask(2) == [200, 429]


@shows('`"0 per minute"`')
def test_limit_of_zero(served, ours):
    it = served()
    it.app.get("/")(it.limiter.limit("0 per minute")(view))
    assert it.ask() == [403 if ours else 429]


@shows('`methods="GET"` or `default_limits="5 per minute"`, a text for a list')
def test_text_for_a_list(served, ours):
    it = served()
    with refused(ours):
        it.app.get("/")(it.limiter.limit("1 per minute", methods="GET")(view))
        assert it.ask(3) == [200] * 3
    with refused(ours):
        it = served(default_limits="5 per minute")
        it.app.get("/")(view)
        assert it.ask() == [500]


@shows("a key function that raises")
def test_key_function_that_raises(served, ours, caplog):
    def key():
        raise RuntimeError("sk-secret")

    it = served(key)
    it.app.get("/")(it.limiter.limit("1 per minute")(view))
    assert it.ask() == [503 if ours else 500]
    assert ("sk-secret" in caplog.text) is not ours


# What the client gets


@shows("the body of a refusal")
def test_body_of_a_refusal(served, ours):
    it = served()
    it.app.get("/")(it.limiter.limit("1 per minute", error_message="Slow down.")(view))
    it.ask()
    answer = it.client.get("/")
    assert answer.mimetype == ("application/json" if ours else "text/html")
    assert (answer.json["error"]["message"] == "Slow down.") if ours else "<p>Slow down.</p>" in answer.text
    it = served(default_limits=["1 per minute"])
    it.app.errorhandler(429)(lambda error: (f"<p>{error.description}</p>", 429))
    it.app.get("/")(view)
    it.ask()
    assert it.client.get("/").text == "<p>1 per 1 minute</p>"


@shows("what `errorhandler(429)` or `on_breach` returns")
def test_answers_of_handlers(served, ours):
    it = served(default_limits=["1 per minute"], on_breach=lambda _: Response("slow", 420))
    it.app.get("/")(view)
    it.ask()
    answer = it.client.get("/")
    assert (answer.status_code, answer.text) == (420, "slow")
    assert ("Retry-After" in answer.headers, "RateLimit" in answer.headers) == (ours, ours)
    it = served(default_limits=["1 per minute"])
    it.app.errorhandler(429)(lambda _: ("slow", 420))
    it.app.get("/")(view)
    it.ask()
    answer = it.client.get("/")
    assert (answer.status_code, answer.text) == (420, "slow")
    assert ("Retry-After" in answer.headers) is ours


@shows("a cost that is larger than the whole limit")
def test_cost_that_is_larger_than_the_limit(served, ours):
    it = served()
    it.app.get("/")(it.limiter.limit("2 per minute", cost=3)(view))
    assert it.ask() == [413 if ours else 429]
    assert "Retry-After" not in it.client.get("/").headers
    it = served(**({"too_large_status": 429} if ours else {}))
    it.app.get("/")(it.limiter.limit("2 per minute", cost=3)(view))
    assert it.ask() == [429]


def limit_headers(answer):
    return {name for name in answer.headers.keys() if "ratelimit" in name.lower() or name == "Retry-After"}  # noqa: SIM118  may repeat


@shows("limit headers")
def test_limit_headers(served, ours):
    it = served(default_limits=["1 per minute"])
    it.app.get("/")(view)
    first, second = it.client.get("/"), it.client.get("/")
    assert ("RateLimit" in limit_headers(first)) is ours
    assert "Retry-After" not in limit_headers(first)
    assert ("Retry-After" in limit_headers(second)) is ours
    it = served(default_limits=["1 per minute"], **({"headers": []} if ours else {}))
    it.app.get("/")(view)
    assert limit_headers(it.client.get("/")) == set()


@shows("`headers_enabled=True`")
def test_headers_enabled(served, ours):
    it = served(default_limits=["1 per minute"], headers_enabled=True)
    it.app.get("/")(view)
    sent = limit_headers(it.client.get("/"))
    assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"} <= sent
    assert ("RateLimit" in sent) is ours


@shows("the logger")
def test_logger(served, ours):
    logger = served().limiter.logger
    silent = any(isinstance(handler, logging.NullHandler) for handler in logger.handlers)
    assert (logger.name, silent) == (("flask_ailimit", False) if ours else ("flask-limiter", True))


@shows("request ids")
def test_request_ids(served, ours):
    it = served(default_limits=["1 per minute"])
    it.app.get("/")(view)
    sent = it.client.get("/").headers
    assert ("x-request-id" in sent, "request-id" in sent) == (ours, ours)


# Where counts are kept


@shows("the store, if none is named")
def test_store_if_none_is_named(served, ours, default_stores):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        it = served(app=Flask("unnamed"), storage_uri=None)
    with it.app.app_context():
        store = it.limiter.storage.storage
    assert [str(each.message)[:27] for each in caught] == ([] if ours else ["Using the in-memory storage"])
    assert str(default_stores) in repr(store) if ours else store == {}
    if ours:
        it = served(app=Flask("tested"), config={"TESTING": True}, storage_uri=None)
        with it.app.app_context():
            assert type(it.limiter.engine.store).__name__ == "MemoryStore"


@shows("`memcached://` and `mongodb://`")
def test_stores_that_are_refused(served, ours):
    for scheme in ("memcached", "mongodb"):
        assert scheme in SCHEMES
        if ours:
            with pytest.raises(ConfigurationError, match=f"no store is called '{scheme}://'"):
                served(storage_uri=f"{scheme}://127.0.0.1:9")


@shows("`redis://`")
def test_redis(served, ours, away):
    with refused(ours):
        served(storage_uri=away)


@shows("names in the store, and in the log")
def test_names_in_the_store_and_in_the_log(served, ours, caplog):
    it = served(default_limits=["1 per minute"])
    it.app.get("/")(view)
    caplog.set_level(logging.INFO, it.limiter.logger.name)
    assert it.ask(2) == [200, 429]
    assert ("alice" in caplog.text) is not ours
    with it.app.app_context():
        kept = vars(it.limiter.engine.store) if ours else it.limiter.storage.storage
    assert ("alice" in repr(kept)) is not ours


@pytest.fixture
def away():
    """The URI of a Redis that is not there."""
    with socket.socket() as taken:  # Bound, and nobody listens.
        taken.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{taken.getsockname()[1]}"


@shows("a store that fails")
def test_store_that_fails(served, ours, away):
    options = {"storage_uri": away, "default_limits": ["2 per day"], **({"secret": SECRET} if ours else {})}
    it = served(**options)
    it.app.get("/")(view)
    assert it.ask(3) == ([200, 200, 429] if ours else [500] * 3)
    it = served(swallow_errors=True, **options)
    it.app.get("/")(view)
    assert it.ask(3) == [200] * 3


@shows("`limiter.storage.incr()`, `.get()` and `.clear()`")
def test_storage_s_methods(served, ours):
    it = served()
    with it.app.app_context():
        for change in (lambda s: s.incr("a", 60), lambda s: s.get("a"), lambda s: s.clear("a")):
            if ours:
                with pytest.raises(TypeError, match="Counts are changed by decisions"):
                    change(it.limiter.storage)
            else:
                change(it.limiter.storage)
