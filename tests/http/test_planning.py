"""What is remembered of an endpoint's limits from one request to the next, and what is asked again."""

from collections import Counter

import pytest
from flask import Blueprint, Flask, g, request
from flask_limiter import ApplicationLimit, Limit, MetaLimit
from limited_apps import limited
from werkzeug.routing import Rule

from flask_ailimit import AILimiter, api_key
from flask_ailimit.limits import registry

OK, REFUSED = 200, 429


@pytest.fixture
def resolved(monkeypatch):
    """How often Flask-Limiter has resolved the limits of each endpoint."""
    count = Counter()
    resolve = registry.LimitRegistry.resolve_limits

    def counting(self, app, endpoint=None, *rest):
        count[endpoint] += 1
        return resolve(self, app, endpoint, *rest)

    monkeypatch.setattr(registry.LimitRegistry, "resolve_limits", counting)
    return count


def ok():
    return "ok"


def statuses(client, count, method="get", path="/"):
    return [getattr(client, method)(path).status_code for _ in range(count)]


def test_limits_of_an_endpoint_are_resolved_once(resolved):
    limits = limited(default_limits=["100 per day"], default_token_limits=["100000 per day"])
    limits.app.get("/")(limits.limiter.limit("3 per day")(ok))
    assert statuses(limits.client(), 5) == [OK, OK, OK, REFUSED, REFUSED]
    assert resolved == {"ok": 2}  # Before the view, and in its decorator.


def test_limit_that_a_callable_answers_is_asked_in_each_request(resolved):
    plan = {"alice": "1 per day", "bob": "3 per day"}
    limits = limited()
    limits.app.get("/")(limits.limiter.limit(lambda: plan[api_key()])(ok))
    assert statuses(limits.client("alice"), 3) == [OK, REFUSED, REFUSED]
    assert statuses(limits.client("bob"), 4) == [OK, OK, OK, REFUSED]
    plan["alice"] = "3 per day"
    assert statuses(limits.client("alice"), 3) == [OK, OK, REFUSED]  # What she used before is kept.
    assert resolved["ok"] > 2


@pytest.mark.parametrize("where", ["default_limits", "application_limits", "meta_limits", "default_token_limits"])
def test_no_list_of_limits_hides_a_callable(where):
    asked = []
    limits = limited(**{where: [lambda: asked.append(1) or "100 per day"]})
    limits.app.get("/")(ok)
    before = len(asked)
    statuses(limits.client(), 1)
    once = len(asked) - before
    statuses(limits.client(), 3)
    assert once
    assert len(asked) - before == 4 * once


def test_meta_limit_of_a_limit_is_asked_too():
    asked = []
    limits = limited()
    metas = [lambda: asked.append(1) or "100 per day"]
    limits.app.get("/")(limits.limiter.limit("10 per day", meta_limits=metas)(ok))
    statuses(limits.client(), 1)
    once = len(asked)
    statuses(limits.client(), 3)
    assert once
    assert len(asked) == 4 * once


def test_blueprint_limit_that_a_callable_answers_is_asked_in_each_request():
    limit = ["1 per day"]
    limits = limited()
    blueprint = Blueprint("models", __name__)
    blueprint.get("/")(ok)
    limits.limiter.limit(lambda: limit[0])(blueprint)
    limits.app.register_blueprint(blueprint)
    assert statuses(limits.client(), 2) == [OK, REFUSED]
    limit[0] = "3 per day"
    assert statuses(limits.client(), 4) == [OK, OK, REFUSED, REFUSED]  # One was used before.


def test_limit_added_after_the_first_request_holds():
    limits = limited()
    limits.app.get("/")(ok)
    assert statuses(limits.client(), 2) == [OK, OK]
    limits.app.view_functions["ok"] = limits.limiter.limit("1 per day")(lambda: "limited")
    assert statuses(limits.client(), 3) == [OK, REFUSED, REFUSED]


def test_exemption_added_after_the_first_request_holds():
    limits = limited(default_limits=["1 per day"])
    limits.app.get("/")(ok)
    assert statuses(limits.client(), 2) == [OK, REFUSED]
    limits.limiter.exempt(ok)
    assert statuses(limits.client(), 2) == [OK, OK]


def test_blueprint_limited_and_exempted_after_the_first_request():
    limits = limited()
    blueprint = Blueprint("models", __name__)
    blueprint.get("/")(ok)
    limits.app.register_blueprint(blueprint)
    assert statuses(limits.client(), 1) == [OK]
    limits.limiter.limit("1 per day")(blueprint)
    assert statuses(limits.client(), 2) == [OK, REFUSED]
    limits.limiter.exempt(blueprint)
    assert statuses(limits.client(), 1) == [OK]


def test_app_that_comes_later_brings_limits_of_its_own():
    limits = limited()
    limits.app.get("/")(ok)
    assert statuses(limits.client(), 3) == [OK] * 3
    later = Flask("later")
    later.config["RATELIMIT_DEFAULT"] = "1 per day"
    later.get("/")(ok)
    limits.limiter.init_app(later)
    assert statuses(later.test_client(), 2) == [OK, REFUSED]
    # Flask-Limiter keeps one list of defaults for all apps of a limiter.
    assert statuses(limits.client(), 2) == [OK, REFUSED]


def test_apps_of_one_limiter_are_planned_apart():
    limits = limited()
    second = Flask("second")
    second.config["AILIMIT_DEFAULT_TOKEN_LIMITS"] = ["5 per day"]
    limits.limiter.init_app(second)
    for app in (limits.app, second):
        app.get("/")(ok)
    assert statuses(limits.client(), 3) == [OK] * 3
    assert statuses(second.test_client(), 2) == [OK, REFUSED]
    assert statuses(limits.client(), 1) == [OK]


def test_methods_are_planned_apart():
    limits = limited()
    per_method = limits.limiter.limit("2 per day", per_method=True)
    only_post = limits.limiter.limit("1 per day", methods=["POST"])
    limits.app.route("/", methods=["GET", "POST"])(per_method(only_post(ok)))
    assert statuses(limits.client(), 3) == [OK, OK, REFUSED]
    assert statuses(limits.client(), 2, "post") == [OK, REFUSED]


def test_filter_is_asked_in_each_request():
    limits = limited()
    limits.app.get("/")(limits.limiter.limit("1 per day")(ok))
    limits.limiter.request_filter(lambda: request.args.get("free") == "yes")
    assert statuses(limits.client(), 2) == [OK, REFUSED]
    assert statuses(limits.client(), 3, path="/?free=yes") == [OK] * 3
    assert statuses(limits.client(), 1) == [REFUSED]


def test_request_filtered_at_first_leaves_no_free_pass():
    limits = limited(default_token_limits=["5 per day"])
    limits.app.get("/")(limits.limiter.limit("1 per day")(ok))
    limits.limiter.request_filter(lambda: request.args.get("free") == "yes")
    assert statuses(limits.client(), 2, path="/?free=yes") == [OK] * 2
    assert statuses(limits.client(), 2) == [OK, REFUSED]


def test_exemption_scope_and_cost_are_asked_in_each_request():
    limits = limited()
    limit = limits.limiter.limit(
        "4 per day",
        exempt_when=lambda: "exempt" in request.args,
        scope=lambda _: request.args.get("scope", ""),
        cost=lambda: int(request.args.get("cost", 1)),
    )
    limits.app.get("/")(limit(ok))
    client = limits.client()
    assert statuses(client, 2, path="/?cost=3") == [OK, REFUSED]
    assert statuses(client, 2, path="/?cost=3&exempt") == [OK, OK]
    assert statuses(client, 2, path="/?cost=3&scope=other") == [OK, REFUSED]
    assert statuses(client, 2) == [OK, REFUSED]


def test_key_function_of_several_limits_is_asked_once():
    asked = []
    limits = limited(lambda: asked.append(1) or "alice")
    limits.app.get("/")(limits.limiter.limit("10 per minute;100 per hour;1000 per day")(ok))
    statuses(limits.client(), 4)
    assert len(asked) == 4


def test_key_function_is_asked_again_in_the_decorator():
    """The application's limits are decided before the app's own hooks, which may find out who it is."""
    limits = limited(lambda: g.get("user", "nobody"), application_limits=["3 per day"])
    limits.app.before_request(lambda: setattr(g, "user", request.args["user"]))
    limits.app.get("/")(limits.limiter.limit("1 per day")(ok))
    assert statuses(limits.client(), 2, path="/?user=alice") == [OK, REFUSED]
    assert statuses(limits.client(), 3, path="/?user=bob") == [OK, REFUSED, REFUSED]
    assert statuses(limits.client(), 2, path="/?user=carol") == [OK, REFUSED]


@pytest.mark.parametrize("amount", [lambda n: n, lambda _: 2], ids=["another each time", "the same each time"])
def test_context_manager_limits_as_it_is_written_in_each_request(amount):
    limits = limited()

    @limits.app.get("/<int:number>")
    def view(number):
        with limits.limiter.limit(f"{amount(number)} per day", scope=lambda _: str(number)):
            return "ok"

    for number in (1, 2, 3):
        admitted = amount(number)
        assert statuses(limits.client(), admitted + 1, path=f"/{number}") == [OK] * admitted + [REFUSED]


def test_helper_that_is_decorated_is_limited_on_every_way_to_it(resolved):
    limits = limited(default_limits=["100 per day"])
    helper = limits.limiter.limit("2 per day", override_defaults=False)(lambda: "helped")

    @limits.app.get("/<way>")
    def view(way):
        return helper() if way == "with" else "without"

    client = limits.client()
    assert statuses(client, 2, path="/without") == [OK, OK]
    assert statuses(client, 3, path="/with") == [OK, OK, REFUSED]
    assert statuses(client, 2, path="/without") == [OK, OK]
    assert limits.used("alice", "view")["requests-per-day"] == 6  # A refusal inside the view is counted by the rest.


def phases_behind(phase):
    return sum(1 + phases_behind(each) for each in phase.next_phases.values())


@pytest.fixture
def room_for_ten(monkeypatch):
    monkeypatch.setattr(registry, "_MOST_PHASES", 10)


@pytest.mark.usefixtures("room_for_ten")
def test_endpoints_that_an_app_makes_up_are_not_remembered_for_ever():
    limits = limited(request_identifier=lambda: request.args["endpoint"], default_limits=["1 per day"])
    helper = limits.limiter.limit("9 per day", override_defaults=False)(ok)
    limits.app.get("/", endpoint="view")(lambda: f"{helper()}")
    client, manager = limits.client(), limits.limiter.limit_manager
    for number in range(50):
        assert statuses(client, 2, path=f"/?endpoint={number}") == [OK, REFUSED]
        assert phases_behind(manager.root) <= 10
        assert not manager._endpoint_hints


@pytest.mark.usefixtures("room_for_ten")
def test_number_of_calls_that_a_client_chooses_is_not_remembered_for_ever():
    limits = limited()
    helper = limits.limiter.limit("100 per day")(ok)
    limits.app.get("/<int:calls>", endpoint="view")(lambda calls: [helper() for _ in range(calls)])
    assert statuses(limits.client(), 2, path="/30") == [OK, OK]
    assert phases_behind(limits.limiter.limit_manager.root) <= 10
    assert statuses(limits.client(), 2, path="/40") == [OK, REFUSED]


def test_head_is_counted_and_limited_as_get():
    """Flask runs the view for both, so a limit on one that the other escapes would be none."""
    limits = limited()
    limits.app.route("/", methods=["GET", "POST"])(limits.limiter.limit("3 per day", methods=["get"])(ok))
    client = limits.client()
    assert statuses(client, 2, "head") + statuses(client, 1) == [OK, OK, OK]
    assert statuses(client, 2, "head") + statuses(client, 1) == [REFUSED] * 3
    assert statuses(client, 4, "post") == [OK] * 4


def of_view(limits, limit):
    limits.app.get("/", endpoint="view")(limit(lambda: "ok"))


def of_blueprint(limits, limit):
    blueprint = Blueprint("models", __name__)
    blueprint.get("/", endpoint="view")(ok)
    limit(blueprint)
    limits.app.register_blueprint(blueprint)


@pytest.mark.parametrize("place", [of_view, of_blueprint])
@pytest.mark.parametrize("options", [{"methods": ["GET"]}, {"per_method": True}, {"methods": ("Get", "Head")}], ids=str)
@pytest.mark.parametrize("kind", ["requests", "tokens", "slots"])
def test_head_is_counted_as_get_by_every_kind_of_limit(kind, options, place):
    limits = limited(default_limits=["1 per day"] if kind == "requests" else [], default_output_tokens=5)
    make = {
        "requests": lambda: limits.limiter.limit("2 per day", **options),
        "tokens": lambda: limits.limiter.limit_tokens("9 per day", **options),
        "slots": lambda: limits.limiter.limit_concurrency(1, **options),
    }[kind]
    place(limits, make())
    endpoint = next(name for name in limits.app.view_functions if name.endswith("view"))
    limits.app.after_request(lambda response: (decided.append(limits.limiter.decision.units), response)[1])
    decided = []
    assert statuses(limits.client(), 1, "head") + statuses(limits.client(), 1) == [OK, OK]
    assert decided[0] == decided[1]
    assert len(decided[0]) == 1
    if kind == "requests":
        assert statuses(limits.client(), 1, "head") == [REFUSED]
        assert limits.used("alice", endpoint) == {"requests-per-day": 2}


def test_head_is_counted_as_get_by_limits_of_the_whole_app_and_on_refusals():
    metas = [MetaLimit("1 per day", methods=["GET"])]
    defaults = [Limit("2 per day", methods=["GET"], per_method=True)]
    limits = limited(default_limits=defaults, meta_limits=metas)
    limits.app.get("/")(ok)
    client = limits.client()
    assert statuses(client, 2, "head") == [OK, OK]
    assert statuses(client, 1) == [REFUSED]
    assert "1 per 1 day" in client.get("/").json["error"]["limit"]["text"]
    assert client.head("/").status_code == REFUSED


def test_what_is_left_is_the_same_for_head_and_get():
    limits = limited()
    limits.app.get("/")(limits.limiter.limit("3 per day", per_method=True)(ok))
    statuses(limits.client(), 2, "head")
    for method in ("HEAD", "GET"):
        with limits.app.test_request_context("/", method=method):
            assert [verdict.remaining for verdict in limits.limiter.peek("ok", "alice").verdicts] == [1]


def test_limit_on_head_alone_is_not_met_by_get():
    limits = limited()
    limits.app.get("/")(limits.limiter.limit("1 per day", methods=["HEAD"])(ok))
    assert statuses(limits.client(), 2, "head") == [OK, REFUSED]
    assert statuses(limits.client(), 2) == [OK, OK]


def takes_every_method(limits, view):
    limits.app.view_functions["every"] = view
    limits.app.url_map.add(Rule("/", endpoint="every"))


def test_methods_that_a_client_makes_up_are_one_count_and_are_not_remembered():
    limits = limited(application_limits=[ApplicationLimit("1000 per day", per_method=True)])
    takes_every_method(limits, limits.limiter.limit("3 per day", per_method=True)(ok))
    limits.app.get("/get")(lambda: "ok")
    client = limits.client()
    sent = [client.open("/", method=f"MADE{number}").status_code for number in range(5)]
    assert sent == [OK] * 3 + [REFUSED] * 2
    counts = len(limits.limiter.engine.store.read(limits.limiter.subject("alice")))
    for number in range(50):
        assert client.open("/get", method=f"MADE{number}").status_code == 405
        assert client.open("/nowhere", method=f"MADE{number}").status_code == 404
    assert phases_behind(limits.limiter.limit_manager.root) == 0
    assert len(limits.limiter.engine.store.read(limits.limiter.subject("alice"))) == counts
    assert statuses(client, 4) == [OK] * 3 + [REFUSED]


def test_method_of_the_routes_own_is_a_count_of_its_own_however_it_is_spelt():
    limits = limited()
    view = limits.limiter.limit("2 per day", per_method=True)(ok)
    limits.app.route("/", methods=["PURGE", "GET"])(view)
    client = limits.client()
    sent = [client.open("/", method=method).status_code for method in ("PURGE", "purge", "Purge")]
    assert sent == [OK, OK, REFUSED]
    assert statuses(client, 1) == [OK]


def test_limiter_switched_off_and_on_again():
    limits = limited()
    limits.app.get("/")(limits.limiter.limit("1 per day")(ok))
    client = limits.client()
    assert statuses(client, 2) == [OK, REFUSED]
    limits.limiter.enabled = False
    assert statuses(client, 2) == [OK, OK]
    limits.limiter.enabled = True
    limits.app.config["RATELIMIT_ENABLED"] = False
    assert statuses(client, 2) == [OK, OK]
    limits.app.config["RATELIMIT_ENABLED"] = True
    assert statuses(client, 1) == [REFUSED]


def test_two_limiters_of_an_app_plan_for_themselves():
    limits = limited()
    second = AILimiter(lambda: "everybody", storage_uri="memory://", app=limits.app)
    limits.app.get("/")(second.limit("3 per day")(limits.limiter.limit("2 per day")(ok)))
    assert statuses(limits.client("alice"), 2) == [OK, OK]
    assert statuses(limits.client("bob"), 2) == [OK, REFUSED]
