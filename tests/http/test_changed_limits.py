"""Usage is kept when a limit changes, and limits that differ only in their numbers have counts of their own."""

from collections import Counter
from functools import partial
from random import Random

import pytest
from flask import Blueprint, abort, request
from flask.views import MethodView
from flask_limiter.commands import cli as flask_limiters_cli
from limited_apps import commandable, limited

from flask_ailimit import UNLIMITED, RequestsLimit, TokenLimit
from flask_ailimit.cli import cli

MINUTE = "{} per minute".format
OF_ALL_MODELS = "models"


def failed(response):
    return response.status_code >= 400


def is_a_test():
    return "test" in request.args


def answer():
    return abort(400) if "fail" in request.args else "fine"


def a_view():
    """A view that nobody has limited yet."""
    return lambda: answer()  # noqa: PLW0108


def on_view(*decorators, methods=("GET", "POST"), **options):
    """An app whose one view has these limits: each takes the limiter and returns a decorator."""
    limits = limited(**options)
    view = a_view()
    for decorator in decorators:
        view = decorator(limits.limiter)(view)
    limits.app.add_url_rule("/", "answer", view, methods=methods)
    return limits


def conditional():
    return on_view(lambda on: on.limit(MINUTE(3), deduct_when=failed), lambda on: on.limit(MINUTE(9)))


def by_method():
    return on_view(lambda on: on.limit(MINUTE(5), methods=["GET"]), lambda on: on.limit(MINUTE(3), methods=["POST"]))


def exempt():
    return on_view(lambda on: on.limit(MINUTE(5)), lambda on: on.limit(MINUTE(3), exempt_when=is_a_test))


def costing():
    return on_view(lambda on: on.limit(MINUTE(9), cost=3), lambda on: on.limit(MINUTE(4)))


def each_method_by_itself():
    return on_view(
        lambda on: on.limit(MINUTE(3), per_method=True),
        lambda on: on.limit(MINUTE(5), per_method=True, methods=["POST"]),
    )


def of_tokens():
    def of(number, tokens, **options):
        return lambda on: on.limit_tokens(MINUTE(number), estimate=lambda _: tokens, **options)

    limits = on_view(of(50, 10, methods=["GET"]), of(30, 10, methods=["POST"]))
    limits.app.before_request(lambda: limits.limiter.record_usage(input_tokens=10))
    return limits


def of_units():
    return on_view(
        lambda on: on.limit_units("pages", MINUTE(5), methods=["GET"]),
        lambda on: on.limit_units("pages", MINUTE(3), methods=["POST"]),
    )


def moving_windows():
    return on_view(
        lambda on: on.limit(MINUTE(5), methods=["GET"]),
        lambda on: on.limit(MINUTE(3), methods=["POST"]),
        strategy="moving-window",
    )


def callables():
    return on_view(
        lambda on: on.limit(lambda: MINUTE(5), methods=["GET"]),
        lambda on: on.limit(lambda: MINUTE(3), methods=["POST"]),
    )


def callable_and_text():
    return on_view(
        lambda on: on.limit(lambda: MINUTE(5), methods=["GET"]), lambda on: on.limit(MINUTE(3), methods=["POST"])
    )


def callable_scopes():
    return on_view(
        lambda on: on.limit(MINUTE(5), methods=["GET"], scope=lambda _: ""),
        lambda on: on.limit(MINUTE(3), methods=["POST"]),
    )


def callable_scope_that_is_shared():
    return on_view(
        lambda on: on.shared_limit(MINUTE(5), methods=["GET"], scope=lambda endpoint: endpoint),
        lambda on: on.limit(MINUTE(3), methods=["POST"]),
    )


def two_callable_scopes():
    return on_view(
        lambda on: on.limit(MINUTE(5), methods=["GET"], scope=lambda _: "a"),
        lambda on: on.limit(MINUTE(3), methods=["POST"], scope=lambda _: "a"),
    )


def defaults():
    return on_view(lambda on: on.limit(MINUTE(3), methods=["POST"]), default_limits=[MINUTE(5)])


def two_defaults():
    return on_view(
        default_limits=[RequestsLimit(MINUTE(5), methods=["GET"]), RequestsLimit(MINUTE(3), methods=["POST"])]
    )


def tokens_under(option):
    """One token a request, under limits of this option."""
    of = partial(TokenLimit, estimate=lambda _: 1)
    limits = on_view(**{option: [of(MINUTE(5), methods=["GET"]), of(MINUTE(3), methods=["POST"])]})
    limits.app.before_request(lambda: limits.limiter.record_usage(input_tokens=1))
    return limits


def default_tokens():
    return tokens_under("default_token_limits")


def application():
    return on_view(
        application_limits=[RequestsLimit(MINUTE(5), methods=["GET"]), RequestsLimit(MINUTE(3), methods=["POST"])]
    )


def application_tokens():
    return tokens_under("application_token_limits")


def addresses():
    return on_view(
        address_limits=[RequestsLimit(MINUTE(5), methods=["GET"]), RequestsLimit(MINUTE(3), methods=["POST"])]
    )


def blueprint_and_view():
    limits, blueprint = limited(), Blueprint("models", __name__)
    limits.limiter.limit(MINUTE(5), methods=["GET"])(blueprint)
    view = limits.limiter.limit(MINUTE(3), methods=["POST"], override_defaults=False)(a_view())
    blueprint.add_url_rule("/", "answer", view, methods=["GET", "POST"])
    limits.app.register_blueprint(blueprint)
    return limits


def nested_blueprints():
    limits, outer, inner = limited(), Blueprint("outer", __name__), Blueprint("inner", __name__)
    limits.limiter.limit(MINUTE(5), methods=["GET"])(outer)
    limits.limiter.limit(MINUTE(3), methods=["POST"], override_defaults=False)(inner)
    inner.add_url_rule("/", "answer", a_view(), methods=["GET", "POST"])
    outer.register_blueprint(inner)
    limits.app.register_blueprint(outer)
    return limits


def methods_of_a_class():
    limits = limited()

    class View(MethodView):
        @limits.limiter.limit(MINUTE(5))
        def get(self):
            return answer()

        @limits.limiter.limit(MINUTE(3))
        def post(self):
            return answer()

    limits.app.add_url_rule("/", view_func=View.as_view("answer"))
    return limits


def helpers():
    limits = limited()
    few = limits.limiter.limit(MINUTE(3))(a_view())
    many = limits.limiter.limit(MINUTE(5))(a_view())
    limits.app.add_url_rule(
        "/", "answer", lambda: few() if request.method == "POST" else many(), methods=["GET", "POST"]
    )
    return limits


def view_and_helper():
    limits = limited()
    few = limits.limiter.limit(MINUTE(3))(a_view())
    view = limits.limiter.limit(MINUTE(5), methods=["GET"])(lambda: few() if request.method == "POST" else answer())
    limits.app.add_url_rule("/", "answer", view, methods=["GET", "POST"])
    return limits


def blocks():
    limits = limited()

    def view():
        with limits.limiter.limit(MINUTE(3 if request.method == "POST" else 5)):
            return answer()

    limits.app.add_url_rule("/", "answer", view, methods=["GET", "POST"])
    return limits


def view_and_block():
    limits = limited()

    @limits.limiter.limit(MINUTE(5), methods=["GET"])
    def view():
        if request.method == "GET":
            return answer()
        with limits.limiter.limit(MINUTE(3)):
            return answer()

    limits.app.add_url_rule("/", "answer", view, methods=["GET", "POST"])
    return limits


def named_by_the_app():
    """The app names the endpoints of counts, and gives two views one name."""
    limits = limited(request_identifier=lambda: "both")
    for method, number in (("GET", 5), ("POST", 3)):
        view = limits.limiter.limit(MINUTE(number))(a_view())
        limits.app.add_url_rule("/", method, view, methods=[method])
    return limits


def named_as_a_scope():
    """The name of an endpoint is the scope of a shared limit."""
    return on_view(
        lambda on: on.shared_limit(MINUTE(5), scope="answer", methods=["GET"]),
        lambda on: on.limit(MINUTE(3), methods=["POST"]),
    )


BY_METHOD = [(3, "POST", "/", 200), (1, "POST", "/", 429), (5, "GET", "/", 200), (1, "GET", "/", 429)]
PAIRS = {
    conditional: [(4, "GET", "/", 200), (3, "GET", "/?fail", 400), (1, "GET", "/", 429)],
    exempt: [(2, "GET", "/?test", 200), (3, "GET", "/", 200), (1, "GET", "/", 429)],
    costing: [(3, "GET", "/", 200), (1, "GET", "/", 429)],
    each_method_by_itself: [(3, "POST", "/", 200), (1, "POST", "/", 429), (3, "GET", "/", 200), (1, "GET", "/", 429)],
    **dict.fromkeys(
        (
            by_method,
            of_tokens,
            of_units,
            moving_windows,
            callables,
            callable_and_text,
            callable_scopes,
            callable_scope_that_is_shared,
            two_callable_scopes,
            defaults,
            two_defaults,
            default_tokens,
            application,
            application_tokens,
            addresses,
            blueprint_and_view,
            nested_blueprints,
            methods_of_a_class,
            helpers,
            view_and_helper,
            blocks,
            view_and_block,
            named_by_the_app,
            named_as_a_scope,
        ),
        BY_METHOD,
    ),
}
"""Two limits of one unit, algorithm, period and scope, and what requests get if each has a count of its own."""


def statuses(limits, *steps):
    """What requests got, each step being a number of requests, a method, a path and what they should get."""
    client = limits.client()
    return [
        (number, method, path, status)
        for number, method, path, _ in steps
        for status in sorted({client.open(path, method=method).status_code for _ in range(number)})
    ]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.__name__)
def test_limits_that_differ_only_in_their_numbers_have_counts_of_their_own(pair):
    assert statuses(pair(), *PAIRS[pair]) == PAIRS[pair]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.__name__)
def test_the_order_in_which_requests_come_makes_no_difference(pair):
    """A mark belongs to how a limit is written: it doesn't depend on what an app was asked first."""
    limits = pair()
    limits.client().get("/")
    limits.limiter.reset()
    assert statuses(limits, *PAIRS[pair]) == PAIRS[pair]


def test_shared_limits_of_one_text_have_one_count_beside_others_of_their_scope():
    limits = limited()
    limiter, app = limits.limiter, limits.app
    narrow = limiter.shared_limit(MINUTE(3), scope=OF_ALL_MODELS)
    app.get("/a", endpoint="a")(limiter.shared_limit(MINUTE(8), scope=OF_ALL_MODELS)(narrow(a_view())))
    app.get("/b", endpoint="b")(limiter.shared_limit(MINUTE(8), scope=OF_ALL_MODELS)(a_view()))
    steps = [(3, "GET", "/a", 200), (1, "GET", "/a", 429), (5, "GET", "/b", 200), (1, "GET", "/b", 429)]
    assert statuses(limits, *steps) == steps


def test_equal_limits_of_a_view_are_one_count_that_is_charged_once():
    limits = on_view(lambda on: on.limit(MINUTE(3)), lambda on: on.limit(MINUTE(3), error_message="another"))
    steps = [(3, "GET", "/", 200), (1, "GET", "/", 429)]
    assert statuses(limits, *steps) == steps


@pytest.mark.parametrize(
    "text", ["9 per minute; 3 per minute", "3/minute; 9 per 60 second", "3 per minute; 3 per minute"]
)
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("kind", ["limit", "limit_units"])
def test_of_several_limits_of_one_period_in_a_text_the_strictest_holds(text, asked, kind):
    unit = ("pages",) if kind == "limit_units" else ()
    limits = on_view(lambda on: getattr(on, kind)(*unit, (lambda: text) if asked else text))
    steps = [(3, "GET", "/", 200), (1, "GET", "/", 429)]
    assert statuses(limits, *steps) == steps
    if not asked:
        assert limits.used() == {f"{unit[0] if unit else 'requests'}-per-minute": 3}


def test_of_several_limits_of_one_period_in_a_plan_the_strictest_holds():
    limits = limited(plans={"default_plan": "free", "plans": {"free": {"requests": "9 per minute; 3 per minute"}}})
    limits.app.get("/")(limits.limiter.limit_by_plan()(a_view()))
    steps = [(3, "GET", "/", 200), (1, "GET", "/", 429)]
    assert statuses(limits, *steps) == steps


CHANGES = {
    "raised": (10, 12, 9, 3),
    "lowered": (10, 5, 9, 0),
    "lowered a little": (10, 8, 6, 2),
    "kept": (10, 10, 4, 6),
}
"""The limits before and after a change, the requests before it, and those that still pass after it."""


def on_requests(limiter, provider):
    return limiter.limit(provider)


def on_tokens(limiter, provider):
    return limiter.limit_tokens(provider, estimate=lambda _: 1)


def on_pages(limiter, provider):
    return limiter.limit_units("pages", provider)


def on_shared_requests(limiter, provider):
    return limiter.shared_limit(provider, scope=OF_ALL_MODELS)


def served(limits, decorate, provider):
    limits.app.get("/", endpoint="answer")(decorate(limits.limiter, provider)(a_view()))
    limits.app.before_request(lambda: limits.limiter.record_usage(input_tokens=1))
    return limits


def passing(limits, most=30):
    """How many requests pass until one is refused."""
    client = limits.client()
    return next(number for number in range(most) if client.get("/").status_code == 429)


@pytest.mark.parametrize("strategy", ["fixed-window", "sliding-window-counter", "moving-window", "token-bucket"])
@pytest.mark.parametrize("decorate", [on_requests, on_shared_requests, on_tokens, on_pages])
@pytest.mark.parametrize("change", CHANGES)
def test_usage_is_kept_when_a_callable_answers_another_limit(strategy, decorate, change):
    before, after, used, left = CHANGES[change]
    numbers = [before]
    limits = served(limited(strategy=strategy), decorate, lambda: MINUTE(numbers[-1]))
    for _ in range(used):
        assert limits.client().get("/").status_code == 200
    numbers.append(after)
    assert passing(limits) == left


@pytest.mark.parametrize("decorate", [on_requests, on_shared_requests, on_tokens, on_pages])
@pytest.mark.parametrize("change", CHANGES)
def test_usage_is_kept_when_a_new_version_of_an_app_has_another_limit(tmp_path, decorate, change):
    before, after, used, left = CHANGES[change]
    with commandable(tmp_path) as make:
        old = served(make(), decorate, MINUTE(before))
        for _ in range(used):
            assert old.client().get("/").status_code == 200
        assert passing(served(make(), decorate, MINUTE(after))) == left


def test_usage_of_a_function_is_kept_when_its_callable_answers_another_limit():
    limits = limited()
    helper = limits.limiter.limit(the_limit_now)(a_view())
    limits.app.get("/", endpoint="answer")(limits.limiter.limit(MINUTE(99))(lambda: f"{helper()}!"))
    NUMBERS[:] = [10]
    assert [limits.client().get("/").status_code for _ in range(9)] == [200] * 9
    NUMBERS[:] = [12]
    assert passing(limits) == 3


NUMBERS = [10]


def the_limit_now():
    return MINUTE(NUMBERS[-1])


UNRELATED = {
    "another period": lambda on: on.limit("7 per hour"),
    "another unit": lambda on: on.limit_units("pages", MINUTE(7)),
    "another scope": lambda on: on.limit(MINUTE(7), scope="apart"),
    "a shared scope": lambda on: on.shared_limit(MINUTE(7), scope=OF_ALL_MODELS),
    "another method by itself": lambda on: on.limit(MINUTE(7), per_method=True),
    "no limit": lambda on: on.limit(UNLIMITED),
    "a callable scope": lambda on: on.limit(MINUTE(7), scope=lambda _: "made up"),
}


@pytest.mark.parametrize("unrelated", UNRELATED)
@pytest.mark.parametrize("is_first", [False, True])
def test_limit_that_is_added_changes_no_count_of_another_kind(tmp_path, unrelated, is_first):
    """Neither the first limit of its count nor the second goes on in another one."""
    own = [lambda on: on.limit(MINUTE(9), methods=["GET"]), lambda on: on.limit(MINUTE(5), methods=["POST"])]
    added = UNRELATED[unrelated]
    with commandable(tmp_path) as make:
        for decorators, used in ((own, 1), ([added, *own] if is_first else [*own, added], 2)):
            limits = make()
            view = a_view()
            for decorator in decorators:
                view = decorator(limits.limiter)(view)
            limits.app.add_url_rule("/", "answer", view, methods=["GET", "POST"])
            for method, limit in (("GET", 9), ("POST", 5)):
                response = limits.client().open("/", method=method)
                assert response.status_code == 200
                assert (f"{limit}", f"{limit - used}") in told(response)


def told(response):
    """Of each limit that the headers name: the limit, and what remains."""
    names = [name.rpartition("-limit-")[2] for name in response.headers.keys() if "-limit-" in name]  # noqa: SIM118
    return [
        (response.headers[f"x-ratelimit-limit-{each}"], response.headers[f"x-ratelimit-remaining-{each}"])
        for each in names
    ]


def test_second_limit_is_named_alike_by_decision_commands_and_flask_limiter():
    limits = by_method()
    seen = []
    limits.app.after_request(lambda response: (seen.append(limits.limiter.current_limits), response)[1])
    for _ in range(2):
        limits.client().post("/")
    with limits.app.test_request_context("/", method="POST"):
        assert {each.limit.amount: each.remaining for each in seen[-1]} == {3: 1}
    with limits.app.test_request_context():
        verdicts = limits.limiter.peek("answer", "alice").verdicts
    assert {verdict.quota.limit: verdict.used for verdict in verdicts} == {5: 0, 3: 2}


def test_commands_find_the_count_of_the_second_limit(tmp_path):
    with commandable(tmp_path) as make:
        limits = make()
        view = limits.limiter.limit(MINUTE(5), methods=["GET"])(a_view())
        view = limits.limiter.limit(MINUTE(7), methods=["POST"])(view)
        limits.app.add_url_rule("/", "answer", view, methods=["GET", "POST"])
        assert [limits.client().post("/").status_code for _ in range(7)] == [200] * 7
        said = limits.app.test_cli_runner().invoke(cli, ["usage", "alice"]).output
        assert "0 of 7 left" in said
        assert "5 of 5 left" in said
        theirs = limits.app.test_cli_runner().invoke(flask_limiters_cli, ["limits", "--key", "alice"]).output
        assert "(0 out of 7 remaining)" in theirs
        assert "(5 out of 5 remaining)" in theirs


def test_limit_of_zero_has_no_count_to_name():
    limits = on_view(lambda on: on.limit("0 per minute", methods=["GET"]), lambda on: on.limit(MINUTE(3)))
    assert statuses(limits, (3, "POST", "/", 200), (1, "GET", "/", 403)) == [
        (3, "POST", "/", 200),
        (1, "GET", "/", 403),
    ]
    with limits.app.test_request_context("/"):
        _, decorated = limits.limiter.limit_manager.resolve_limits(limits.app, "answer")
        assert {each.limit.amount: each.scope_for("answer", "GET") for each in decorated} == {0: "answer", 3: "answer"}


KINDS = ("limit", "pages")


class Counted:
    """A limit of a random app: what it counts and where, in the words of the oracle."""

    def __init__(self, random, place):
        self.place, self.kind, self.number = place, random.choice(KINDS), random.randint(2, 7)
        self.period = random.choice(("minute", "minute", "minute", "hour"))
        self.method = random.choice((None, None, "GET", "POST"))
        self.scope = random.choice((None, None, None, "a", "shared b"))
        self.is_asked = random.random() < 0.25
        self.skips = random.random() < 0.2
        self.cost = random.choice((1, 1, 1, 2))
        self.text = f"{self.number} per {self.period}"
        self.provider = (lambda: self.text) if self.is_asked else self.text

    def decorate(self, limiter):
        options = {"methods": [self.method] if self.method else None, "cost": self.cost}
        options |= {"exempt_when": is_a_test} if self.skips else {}
        if self.scope:
            options["scope"] = self.scope.split()[-1]
        shared = bool(self.scope and self.scope.startswith("shared"))
        if self.kind == "pages":
            return limiter.limit_units("pages", self.provider, shared=shared, **options)
        options["override_defaults"] = False
        return (limiter.shared_limit if shared else limiter.limit)(self.provider, **options)

    def count_for(self, endpoint):
        """The name of its count: equal texts under one scope have one count, and each callable has its own."""
        where = self.scope if self.scope and self.scope.startswith("shared") else (endpoint, self.scope)
        return self.kind, self.period, where, self if self.is_asked else self.number

    def holds(self, method, is_tested):
        return self.method in (None, method) and not (self.skips and is_tested)


class Oracle:
    """Each limit has a counter of its own. A request is charged to each that it meets, or to none."""

    def __init__(self):
        self.used = Counter()

    def decide(self, limits, endpoint, method, is_tested):
        costs = Counter()
        numbers = {}
        for each in limits:
            if each.holds(method, is_tested):
                count = each.count_for(endpoint)
                costs[count] = max(costs[count], each.cost)
                numbers[count] = each.number
        if any(self.used[count] + cost > numbers[count] for count, cost in costs.items()):
            return 429
        self.used.update(costs)
        return 200


def random_app(random):
    """An app with limits on a blueprint, on its two views and in the list of defaults, and the limits of each view."""
    served = limited(default_limits=[])
    blueprint = Blueprint("models", __name__)
    of_all = [Counted(random, "blueprint") for _ in range(random.randint(0, 2))]
    for each in of_all:
        each.decorate(served.limiter)(blueprint)
    found = {}
    for name in ("one", "two"):
        own = [Counted(random, name) for _ in range(random.randint(0, 3))]
        view = a_view()
        for each in own:
            view = each.decorate(served.limiter)(view)
        blueprint.add_url_rule(f"/{name}", name, view, methods=["GET", "POST"])
        found[name] = [*own, *of_all]
    served.app.register_blueprint(blueprint)
    return served, found


@pytest.mark.parametrize("seed", range(60))
def test_random_limits_are_decided_as_if_each_had_a_counter_of_its_own(seed):
    random = Random(seed)
    served, found = random_app(random)
    oracle, client = Oracle(), served.client()
    for _ in range(60):
        name, method, is_tested = random.choice(("one", "two")), random.choice(("GET", "POST")), random.random() < 0.3
        expected = oracle.decide(found[name], name, method, is_tested)
        assert client.open(f"/{name}{'?test' if is_tested else ''}", method=method).status_code == expected
