"""Where limits on tokens and calls in flight can be put, in which order, and what they then charge."""

import asyncio
import itertools

import pytest
from flask import Blueprint, request
from flask.views import MethodView
from limited_apps import limited

from flask_ailimit import api_key
from flask_ailimit.engine.stores.memory import MemoryStore

REQUESTS, TOKENS, SLOTS = "requests-per-day", "tokens-per-day", "concurrency"
USAGE = {"prompt_tokens": 4, "completion_tokens": 6}
BODY = {"prompt": "hello", "max_tokens": 20}


def decorators(limiter, tokens="100 per day", slots=1):
    return [limiter.limit("10 per day"), limiter.limit_tokens(tokens), limiter.limit_concurrency(slots)]


def stacked(view, limits):
    for limit in limits:
        view = limit(view)
    return view


def answer():
    return {"usage": USAGE}


async def answer_later():
    await asyncio.sleep(0)
    return {"usage": USAGE}


def on_view(limits, places):
    limits.app.post("/")(stacked(answer, places))


def on_async_view(limits, places):
    limits.app.post("/", endpoint="answer")(stacked(answer_later, places))


def on_class(limits, places):
    class Answers(MethodView):
        decorators = places

        def post(self):
            return answer()

    limits.app.add_url_rule("/", view_func=Answers.as_view("answer"))


def on_class_with_an_async_method(limits, places):
    class Answers(MethodView):
        decorators = places

        async def post(self):
            return await answer_later()

    limits.app.add_url_rule("/", view_func=Answers.as_view("answer"))


def on_blueprint(limits, places):
    blueprint = Blueprint("answer", __name__)
    for place in places:
        place(blueprint)
    blueprint.post("/", endpoint="answer")(answer)
    limits.app.register_blueprint(blueprint)


def on_blueprint_with_an_async_view(limits, places):
    blueprint = Blueprint("answer", __name__)
    for place in places:
        place(blueprint)
    blueprint.post("/", endpoint="answer")(answer_later)
    limits.app.register_blueprint(blueprint)


PLACES = [
    on_view,
    on_async_view,
    on_class,
    on_class_with_an_async_method,
    on_blueprint,
    on_blueprint_with_an_async_view,
]


def used(limits):
    return limits.used(endpoint="answer.answer" if "answer.answer" in limits.app.view_functions else "answer")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_limits_are_one_decision_wherever_they_stand_and_in_any_order(place, order, monkeypatch):
    asked = []
    reserve = MemoryStore.reserve
    monkeypatch.setattr(MemoryStore, "reserve", lambda *args: asked.append(len(args[1])) or reserve(*args))
    limits = limited()
    place(limits, [decorators(limits.limiter)[index] for index in order])
    client = limits.client()

    assert client.post("/", json=BODY).status_code == 200
    assert asked == [3]
    assert used(limits) == {REQUESTS: 1, TOKENS: 10, SLOTS: 0}

    asked.clear()
    assert client.post("/", json={**BODY, "max_tokens": 95}).status_code == 429
    assert asked == [3]  # A refusal asks the store no more than an answer does.
    assert used(limits) == {REQUESTS: 1, TOKENS: 10, SLOTS: 0}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_limits_are_asked_for_at_each_request_if_they_are_callables(place):
    limits = limited()
    plans = {"small": "30 per day", "large": "300 per day"}
    places = [
        limits.limiter.limit_tokens(lambda: plans[api_key()]),
        limits.limiter.limit_concurrency(lambda: len(plans)),
    ]
    place(limits, places)
    statuses = {plan: [limits.client(plan).post("/", json=BODY).status_code for _ in range(4)] for plan in plans}
    assert statuses == {"small": [200, 429, 429, 429], "large": [200] * 4}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_default_token_limits_hold_wherever_a_view_has_none_of_its_own(place):
    limits = limited(default_token_limits=["1000 per day"])
    place(limits, [limits.limiter.limit("10 per day"), limits.limiter.limit_concurrency(1)])
    assert limits.client().post("/", json=BODY).status_code == 200
    assert used(limits) == {REQUESTS: 1, TOKENS: 10, SLOTS: 0}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_default_token_limits_are_lifted_wherever_a_view_has_its_own(place):
    limits = limited(default_token_limits=["1000 per hour"])
    place(limits, decorators(limits.limiter))
    assert limits.client().post("/", json=BODY).status_code == 200
    assert used(limits) == {REQUESTS: 1, TOKENS: 10, SLOTS: 0}


def test_limit_on_output_tokens_lifts_no_default_on_all_tokens():
    limits = limited(default_token_limits=["1000 per day"])
    on_view(limits, [limits.limiter.limit_tokens("500 per day", unit="output_tokens")])
    assert limits.client().post("/", json=BODY).status_code == 200
    assert used(limits) == {TOKENS: 10, "output-tokens-per-day": 6}


def test_limit_inside_an_async_view_is_charged_and_settled():
    limits = limited()

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit("10 per day")
    async def view():
        with limits.limiter.limit_tokens("100 per day"), limits.limiter.limit_concurrency(1):
            await asyncio.sleep(0)
            limits.limiter.record_usage(input_tokens=30, output_tokens=30)
            return {}

    first, second = limits.client().post("/", json=BODY), limits.client().post("/", json={**BODY, "max_tokens": 60})
    assert (first.status_code, second.status_code) == (200, 429)
    assert second.json["error"]["limit"]["used"] == 60


def test_nested_blueprint_is_limited_with_its_parent():
    limits = limited()
    parent, child = Blueprint("parent", __name__), Blueprint("child", __name__)
    limits.limiter.limit_tokens("100 per day")(parent)
    limits.limiter.limit_concurrency(1)(child)
    child.post("/", endpoint="answer")(answer)
    parent.register_blueprint(child)
    limits.app.register_blueprint(parent)
    assert limits.client().post("/", json=BODY).status_code == 200
    assert limits.used(endpoint="parent.child.answer") == {TOKENS: 10, SLOTS: 0}


def test_methods_are_counted_apart_or_left_out():
    limits = limited(default_output_tokens=5)
    limiter = limits.limiter

    @limits.app.route("/", methods=["POST", "PUT", "DELETE"], endpoint="answer")
    @limiter.limit_tokens("25 per day", per_method=True, methods=["POST", "PUT"])
    @limiter.limit_concurrency(1, exempt_when=lambda: request.method == "DELETE")
    def view():
        return answer()

    client = limits.client()
    statuses = {method: [client.open("/", method=method).status_code for _ in range(4)] for method in ("POST", "PUT")}
    assert statuses == {"POST": [200, 200, 200, 429], "PUT": [200, 200, 200, 429]}
    assert [client.delete("/").status_code for _ in range(4)] == [200] * 4
