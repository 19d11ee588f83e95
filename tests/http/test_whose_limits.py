"""A limit belongs to the function that it was written on, whatever that function is called."""

import functools
import gc
import threading

import pytest
from flask import Blueprint, request
from flask.views import MethodView, View
from limited_apps import limited

from flask_ailimit import UNLIMITED

OK, REFUSED = 200, 429


def without_wraps(view):
    def inner(*args, **kwargs):
        return view(*args, **kwargs)

    return inner


def with_wraps(view):
    @functools.wraps(view)
    def inner(*args, **kwargs):
        return view(*args, **kwargs)

    return inner


def closure(text="ok"):
    def view():
        return text

    return view


class Callable:
    def __call__(self):
        return "ok"


class Bound:
    def view(self):
        return "ok"


class Dispatched(View):
    def dispatch_request(self):
        return "ok"


ONE, SAME = Bound(), closure()
VIEWS = {
    "lambda": lambda: lambda: "ok",
    "closure": closure,
    "without wraps": lambda: without_wraps(closure()),
    "with wraps": lambda: with_wraps(closure()),
    "partial": lambda: functools.partial(closure("ok")),
    "callable object": Callable,
    "bound method": lambda: Bound().view,
    "method of one object": lambda: ONE.view,
    "class-based": lambda: Dispatched.as_view("same"),
    "one function": lambda: SAME,
}
every_view = pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS)


def statuses(served, path, count=4, key="alice"):
    return [served.client(key).get(path).status_code for _ in range(count)]


@every_view
def test_two_views_of_one_name_have_each_its_own_limit(make):
    served = limited()
    served.app.add_url_rule("/a", "a", served.limiter.limit("3 per day")(make()))
    served.app.add_url_rule("/b", "b", served.limiter.limit("1 per day")(make()))
    assert statuses(served, "/a") == [OK, OK, OK, REFUSED]
    assert statuses(served, "/b") == [OK, REFUSED, REFUSED, REFUSED]


@every_view
def test_two_views_of_one_name_have_each_its_own_token_limit(make):
    served = limited()
    served.app.add_url_rule("/a", "a", served.limiter.limit_tokens("1000 per day")(make()))
    served.app.add_url_rule("/b", "b", served.limiter.limit_tokens("1 per day", estimate=lambda _: 1)(make()))
    assert statuses(served, "/a?prompt=a+b+c&max_tokens=9") == [OK] * 4


@every_view
def test_limit_of_one_view_lifts_the_defaults_of_no_other_of_its_name(make):
    served = limited(default_limits=["1 per day"])
    served.app.add_url_rule("/a", "a", served.limiter.limit("3 per day")(make()))
    served.app.add_url_rule("/b", "b", closure())
    assert statuses(served, "/b", 2) == [OK, REFUSED]
    assert statuses(served, "/a") == [OK, OK, OK, REFUSED]


@pytest.mark.parametrize("kind", [kind for kind in VIEWS if not kind.startswith(("one function", "method of one"))])
def test_exemption_of_one_view_exempts_no_other_of_its_name(kind):
    served = limited(default_limits=["1 per day"])
    served.app.add_url_rule("/a", "a", served.limiter.exempt(VIEWS[kind]()))
    served.app.add_url_rule("/b", "b", VIEWS[kind]())
    assert statuses(served, "/a") == [OK] * 4
    assert statuses(served, "/b", 2) == [OK, REFUSED]


@pytest.mark.parametrize("order", ["exempt first", "limit first"])
def test_exempt_view_is_exempt_from_its_own_limit_in_either_order(order):
    served = limited(default_limits=["1 per day"])
    steps = [served.limiter.exempt, served.limiter.limit("1 per day")]
    view = closure()
    for step in steps if order == "exempt first" else reversed(steps):
        view = step(view)
    served.app.add_url_rule("/", "view", view)
    assert statuses(served, "/") == [OK] * 4


@pytest.mark.parametrize("between", [with_wraps, without_wraps])
def test_limits_above_and_below_a_decorator_hold_both(between):
    for above, below in [("1 per day", "3 per hour"), ("3 per hour", "1 per day")]:
        served = limited()
        view = served.limiter.limit(above)(between(served.limiter.limit(below)(closure())))
        served.app.add_url_rule("/", "view", view)
        assert statuses(served, "/", 2) == [OK, REFUSED]


def test_limits_above_and_below_a_decorator_with_wraps_are_one_decision(monkeypatch):
    served = limited()
    engine = served.limiter.engine
    reserve, asked = engine.reserve, []
    monkeypatch.setattr(engine, "reserve", lambda charges: asked.append(len(charges)) or reserve(charges))
    view = with_wraps(served.limiter.limit("3 per day")(closure()))
    view = served.limiter.limit("4 per day")(with_wraps(served.limiter.limit("5 per day")(view)))
    served.app.add_url_rule("/", "view", view)
    assert statuses(served, "/") == [OK, OK, OK, REFUSED]
    assert asked == [3] * 4


def test_two_views_around_one_limited_function_have_each_its_own_limit():
    served = limited()
    shared = served.limiter.limit("9 per day")(closure())
    served.app.add_url_rule("/a", "a", served.limiter.limit("3 per day")(with_wraps(shared)))
    served.app.add_url_rule("/b", "b", served.limiter.limit("1 per day")(with_wraps(shared)))
    served.app.add_url_rule("/c", "c", with_wraps(shared))
    assert statuses(served, "/a") == [OK, OK, OK, REFUSED]
    assert statuses(served, "/b", 2) == [OK, REFUSED]
    assert statuses(served, "/c", 10) == [OK] * 9 + [REFUSED]


@pytest.mark.parametrize("make", [lambda: with_wraps, lambda: without_wraps], ids=["wraps", "no wraps"])
def test_decorators_above_the_limiter_hide_no_limit(make):
    served = limited()
    for name, limit in [("a", "3 per day"), ("b", "1 per day")]:
        served.app.add_url_rule(f"/{name}", name, make()(served.limiter.limit(limit)(closure())))
    assert statuses(served, "/a") == [OK, OK, OK, REFUSED]
    assert statuses(served, "/b", 2) == [OK, REFUSED]


@pytest.mark.parametrize("helper_overrides", [True, False])
@pytest.mark.parametrize("how", ["helper", "block"])
def test_limit_of_what_a_view_calls_lifts_no_limit_of_the_view(how, helper_overrides):
    """Once somebody had called it, requests that didn't call it escaped the blueprint's and the default limits."""
    for where in ("default", "blueprint"):
        served = limited(default_limits=["2 per day"] if where == "default" else [])
        limit = served.limiter.limit("100 per day", override_defaults=helper_overrides)
        helper = limit(closure())
        blueprint = Blueprint("some", __name__)
        if where == "blueprint":
            served.limiter.limit("2 per day")(blueprint)

        @blueprint.get("/", endpoint="view")
        def view(helper=helper, limit=limit):
            if "call" not in request.args:
                return "ok"
            if how == "helper":
                return helper()
            with limit:
                return "ok"

        served.app.register_blueprint(blueprint)
        assert statuses(served, "/?call", 1, "bob") == [OK]
        assert statuses(served, "/") == [OK, OK, REFUSED, REFUSED]
        assert statuses(served, "/?call", 2, "bob") == [OK, REFUSED]


def test_view_that_decorates_in_each_request_keeps_nothing():
    """Class-based views of some extensions do so with their methods."""
    served = limited()

    class Answers(MethodView):
        def get(self):
            return served.limiter.limit("3 per day")(served.limiter.limit("9 per hour")(self.answer))()

        def answer(self):
            return "ok"

    served.app.add_url_rule("/", view_func=Answers.as_view("answers"))
    assert statuses(served, "/", 3) == [OK] * 3
    gc.collect()
    manager = served.limiter.limit_manager
    before = len(manager._decorated_limits), len(served.limiter._marked_for_limiting), len(manager._inner)
    assert statuses(served, "/", 20) == [REFUSED] * 20
    gc.collect()
    assert (len(manager._decorated_limits), len(served.limiter._marked_for_limiting), len(manager._inner)) == before


def test_block_whose_limit_is_made_in_each_request_keeps_a_bounded_number(monkeypatch):
    monkeypatch.setattr("flask_ailimit.limits.registry._MOST_BLOCKS", 10)
    served = limited()

    @served.app.get("/")
    def view():
        with served.limiter.limit("2 per day", exempt_when=lambda: False):
            return "ok"

    assert statuses(served, "/", 50) == [OK, OK] + [REFUSED] * 48
    assert len(served.limiter.limit_manager._decorated_limits) <= 10


def test_block_entered_by_two_requests_at_once_asks_each_for_its_own_limit():
    """They stand in one line, and what was entered last was what both were asked for."""
    served = limited()
    both = threading.Barrier(2, timeout=60)
    plans = {"alice": UNLIMITED, "bob": "1 per day"}

    @served.app.get("/")
    def view():
        limit = served.limiter.limit(plans[request.args["plan"]])
        resolve = served.limiter.limit_manager.resolve_limits

        def late(*where, **when):
            both.wait()
            return resolve(*where, **when)

        served.limiter.limit_manager.__dict__.setdefault("resolve_limits", late)
        with limit:
            return "ok"

    answers = {"alice": [], "bob": []}

    def ask(who):
        for _ in range(3):
            answers[who].append(served.client(who).get(f"/?plan={who}").status_code)

    threads = [threading.Thread(target=ask, args=(who,)) for who in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {"alice": [OK, OK, OK], "bob": [OK, REFUSED, REFUSED]}


def test_view_of_which_the_bare_function_is_registered_too_is_warned_of():
    served = limited()
    view = closure()
    served.app.add_url_rule("/bare", "bare", view)
    with pytest.warns(RuntimeWarning, match="called without its limit") as warned:
        served.limiter.limit("1 per day")(view)
    assert warned[0].filename == __file__
    other = closure()
    served.app.add_url_rule("/other", "other", other)  # Of the same name, and nothing was written on it.
    assert statuses(served, "/other") == [OK] * 4


def test_view_whose_requests_have_names_of_the_app_has_its_own_limits_and_its_defaults():
    served = limited(
        request_identifier=lambda: f"{request.endpoint}-{request.args['tenant']}",
        default_limits=["2 per day"],
    )
    served.app.add_url_rule("/own", "own", served.limiter.limit("9 per day", override_defaults=False)(closure()))
    served.app.add_url_rule("/free", "free", served.limiter.exempt(closure()))
    for tenant in ("a", "b"):
        assert statuses(served, f"/own?tenant={tenant}") == [OK, OK, REFUSED, REFUSED]
        assert statuses(served, f"/free?tenant={tenant}") == [OK] * 4


@pytest.mark.parametrize("first", [0, 1])
def test_two_limiters_on_one_view_know_it_each_by_its_own_name(first):
    served = limited(default_limits=["3 per day"])
    other = type(served.limiter)(lambda: "all", storage_uri="memory://", default_limits=["4 per day"])
    other.init_app(served.app)
    limits = [served.limiter.limit("2 per day"), other.limit("9 per day")]
    view = limits[1 - first](limits[first](closure()))
    served.app.add_url_rule("/", "view", view)
    assert statuses(served, "/", 3) == [OK, OK, REFUSED]
    assert statuses(served, "/", 3, "bob") == [OK, OK, REFUSED]
