"""A request that is limited by plan pays in each of its roles, by the plan of its payer there."""

from contextlib import contextmanager
from functools import partial
from io import BytesIO
from threading import Barrier, Thread

import pytest
from flask import Blueprint, Flask, abort, g, jsonify, request
from flask.views import MethodView
from flask_limiter import ExemptionScope
from limited_apps import ADDRESS, limited
from werkzeug.exceptions import Unauthorized

from flask_ailimit import (
    AILimiter,
    Caller,
    ConfigurationError,
    Payer,
    api_key,
    request_refused,
    usage_settled,
)
from flask_ailimit.cli import cli
from flask_ailimit.request import which_limits
from flask_ailimit.testing import ManualClock

PLANS = {
    "plans": {
        "free": {"requests": "2 per minute", "models": ["small-*"]},
        "pro": {
            "requests": "5 per minute",
            "models": {"large-*": {"requests": "2 per minute"}, "old-*": False, "tiny": True},
        },
        "team": {"requests": "6 per minute"},
    },
    "service": {"requests": "8 per minute"},
}


def answer():
    return {}


def another():
    """A view of its own."""

    def view():
        return {}

    return view


def planned(plans=PLANS, *, caller=None, view=answer, **options):
    """An app with one view by plan. Its callers name themselves: ``user=7:free&organisation=9:team``."""
    served = limited(options.pop("key_func", None), plans=plans, **options)
    served.limiter.identify(caller or named_in_query)
    served.app.post("/", endpoint="completions")(served.limiter.limit_by_plan()(view))
    return served


def named_in_query():
    payers = {}
    for role, value in request.args.items():
        name, _, plan = value.partition(":")
        payers[role] = Payer(name, plan=plan or None, label=f"{role} {name}") if name else None
    return Caller(**payers) if payers else None


def post(served, model="small-1", *, path="/", **payers):
    return served.client().post(path, query_string=payers, json={"model": model} if model else {})


def statuses(served, times, **wanted):
    return [post(served, **wanted).status_code for _ in range(times)]


def code_of(refused):
    return refused.status_code, refused.json["error"]["code"]


# Payers


def test_each_role_has_a_plan_and_a_count_of_its_own():
    served = planned()
    assert statuses(served, 3, user="7:free", organisation="9:team") == [200, 200, 429]
    assert statuses(served, 3, user="8:free", organisation="9:team") == [200, 200, 429]
    # The organisation has paid four of its six, and the service four of its eight. 9 is no user that paid already.
    assert statuses(served, 3, user="9:pro", organisation="9:team") == [200, 200, 429]
    assert statuses(served, 3, user="9:pro") == [200, 200, 429]


def test_user_organisation_and_key_of_one_name_never_meet():
    plans = {"plans": {"a": {"requests": "1 per day"}}, "default_plan": "a"}
    served = planned(plans, storage_uri="memory://")
    served.app.post("/other")(served.limiter.shared_limit("1 per day", scope="plan")(answer))
    assert statuses(served, 2, user="7") == [200, 429]
    assert statuses(served, 2, organisation="7") == [200, 429]
    assert statuses(served, 2, user="organisation") == [200, 429]
    assert statuses(served, 2, path="/other", user="7") == [200, 429]
    keyed = limited(api_key, plans=plans)
    engine = keyed.limiter.engine
    assert len({engine.subject("user", "7"), engine.subject("user:7"), engine.subject("organisation", "7")}) == 3


def test_number_and_text_of_an_id_are_one_payer():
    served = planned({"plans": {"a": {"requests": "1 per day"}}}, caller=lambda: Caller(user=Payer(ids.pop(), "a")))
    ids = ["7", 7]
    assert statuses(served, 2) == [200, 429]


def test_payer_that_is_none_is_not_there():
    served = planned()
    assert statuses(served, 3, user="7:pro", organisation="") == [200, 200, 200]
    assert post(served, organisation="9:team").status_code == 200


@pytest.mark.parametrize("named", [{}, {"user": ""}])
def test_caller_that_is_nobody_is_its_address_under_the_default_plan(named):
    served = planned({**PLANS, "default_plan": "free"})
    assert statuses(served, 3, **named) == [200, 200, 429]
    elsewhere = served.client(REMOTE_ADDR="198.51.100.1")
    assert elsewhere.post("/", json={"model": "small-1"}, query_string=named).status_code == 200
    assert post(served, user=f"{ADDRESS}:free").status_code == 200


@pytest.mark.parametrize("named", [{}, {"user": "7"}, {"user": "7:gold"}, {"user": "7:free", "organisation": "9"}])
def test_payer_without_a_plan_is_turned_away_and_never_unlimited(named, caplog):
    served = planned(view=lambda: pytest.fail("It was called."))
    refused = post(served, **named)
    assert code_of(refused) == (503, "limiter_unavailable")
    assert "there is no default_plan" in caplog.text


def test_payer_without_a_plan_gets_the_default_plan_and_an_unknown_one_is_logged(caplog):
    served = planned({**PLANS, "default_plan": "free"})
    assert statuses(served, 3, user="7") == [200, 200, 429]
    assert not caplog.text
    assert statuses(served, 3, user="8:gold") == [200, 200, 429]
    assert "the plan 'gold', which is not in plans" in caplog.text


def test_key_function_names_the_user_if_nothing_identifies_callers():
    served = limited(api_key, plans={**PLANS, "default_plan": "free"})
    served.app.post("/")(served.limiter.limit_by_plan()(answer))
    told = []
    usage_settled.connect(lambda _, subject, **__: told.append(subject), served.app, weak=False)
    client = served.client("alice")
    assert [client.post("/", json={"model": "small-1"}).status_code for _ in range(3)] == [200, 200, 429]
    assert served.client("bob").post("/", json={"model": "small-1"}).status_code == 200
    assert served.client("").post("/", json={"model": "small-1"}).status_code == 200
    subject = served.limiter.engine.subject
    assert told == [subject(*who).hex() for who in [("user", "alice")] * 2 + [("user", "bob"), ("address", ADDRESS)]]


def test_limiter_without_a_key_function_limits_by_the_first_payer():
    served = planned()
    served.app.post("/other")(served.limiter.limit("1 per day")(answer))
    assert statuses(served, 2, path="/other", user="7:free") == [200, 429]
    assert statuses(served, 2, path="/other", user="8:free", organisation="9:team") == [200, 429]
    assert statuses(served, 2, path="/other", organisation="9:team") == [200, 429]


def test_limiter_without_plans_needs_a_key_function():
    with pytest.raises(ConfigurationError, match="key_func: a callable is needed"):
        AILimiter(app=Flask("shop"), storage_uri="memory://")


def test_caller_is_asked_once_and_after_all_functions_before_the_request():
    asked = []

    def caller():
        asked.append(g.account)
        return Caller(user=Payer(g.account, plan="pro"))

    served = planned(caller=caller, view=lambda: jsonify(len(served.limiter.peek().verdicts)))
    served.app.post("/free")(another())
    served.app.post("/limited")(served.limiter.limit("9 per day", key_func=lambda: "all")(answer))

    @served.app.before_request
    def authenticate():
        if "user" not in request.args:
            abort(401)
        g.account = request.args["user"]

    for path in ("/free", "/limited", "/nowhere"):
        post(served, path=path, user="7")
    assert post(served).status_code == 401
    assert not asked
    answered = post(served, "large-1", user="7")
    assert (answered.json, asked) == (3, ["7"])  # It has met its plan, that of its model, and the service's.


@pytest.mark.parametrize("error", [abort, ValueError, KeyError])
def test_caller_that_is_not_found_out_is_a_503_or_the_answer_of_the_app(error, caplog):
    def caller():
        if error is abort:
            abort(403)
        raise error("sk-secret")

    served = planned({**PLANS, "default_plan": "free"}, caller=caller, view=lambda: pytest.fail("It was called."))
    refused = post(served)
    assert refused.status_code == (403 if error is abort else 503)
    assert "sk-secret" not in caplog.text
    assert (f"raised {error.__name__} at {__file__}" in caplog.text) == (error is not abort)


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("answered", "status"),
    [
        (lambda: fail(KeyError("secret")), 503),
        (lambda: fail(Unauthorized()), 401),
        (lambda: "ann", 503),
        (lambda: Caller(user=Payer("7", "gone")), 503),
    ],
)
def test_caller_is_asked_once_also_if_that_fails_and_an_error_handler_asks_again(answered, status):
    asked = []

    def who():
        asked.append(request.path)
        return answered()

    served = planned({"plans": {"p": {"requests": "9 per day"}}}, caller=who)

    @served.app.errorhandler(status)
    def look(error):
        with pytest.raises(type(error)):
            served.limiter.peek("completions")
        return {}, status

    assert statuses(served, 2) == [status] * 2
    assert asked == ["/", "/"]


@pytest.mark.parametrize("returned", ["7", 7, {"user": "7"}, Payer("7")], ids=repr)
def test_caller_of_another_type_is_a_503(returned, caplog):
    served = planned({**PLANS, "default_plan": "free"}, caller=lambda: returned)
    assert post(served).status_code == 503
    assert "and no Caller" in caplog.text


@pytest.mark.parametrize(
    "made",
    [
        lambda: Payer(""),
        lambda: Payer(None),
        lambda: Payer(True),
        lambda: Payer(1.5),
        lambda: Payer(10**5000),
        lambda: Payer(-(10**5000)),
        lambda: Payer("7", plan=7),
        lambda: Payer("7", label=7),
        lambda: Caller(user="7"),
        lambda: Caller(service=Payer("7")),
        lambda: Caller(address=Payer("7")),
        lambda: Caller(User=Payer("7")),
        lambda: Caller(**{"": Payer("7")}),
        lambda: Caller(**{"a" * 33: Payer("7")}),
    ],
)
def test_wrong_payer_or_role_is_refused_when_it_is_made(made):
    with pytest.raises((ValueError, TypeError), match=r"^(Payer|Caller): "):
        made()


@pytest.mark.parametrize("function", [None, "who", 7])
def test_what_identifies_callers_is_a_function(function):
    with pytest.raises(ConfigurationError, match="identify: a function without async is needed"):
        limited(None, plans=PLANS).limiter.identify(function)


def test_what_identifies_callers_is_no_async_function():
    async def who():
        return None

    with pytest.raises(ConfigurationError, match="identify: a function without async is needed"):
        limited(None, plans=PLANS).limiter.identify(who)


# Models


@pytest.mark.parametrize("form", ["json", "data", "query_string"])
def test_model_of_another_plan_is_refused_and_charged_nothing(form):
    served = planned({"plans": {"free": PLANS["plans"]["free"]}}, caller=lambda: Caller(user=Payer("7", plan="free")))
    refused = served.client().post("/", **{form: {"model": "large-1"}})
    assert code_of(refused) == (403, "model_not_allowed")
    assert refused.headers["x-should-retry"] == "false"
    assert "large-1" not in refused.text
    answered = [served.client().post("/", **{form: {"model": "small-1"}}).status_code for _ in range(3)]
    assert answered == [200, 200, 429]


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"json": {"messages": []}}, "The request names no model, and the plan has only some."),
        ({"json": {"model": ""}}, "The request names no model"),
        ({"data": b""}, "The request names no model"),
        ({"json": {"model": "large-1"}}, "The plan does not have the model of this request."),
        ({"json": {"model": 7}}, "The plan does not have the model of this request."),
    ],
    ids=str,
)
def test_request_without_a_model_is_told_to_name_one(named, sentence):
    served = planned({"plans": {"free": PLANS["plans"]["free"]}}, caller=lambda: Caller(user=Payer("7", plan="free")))
    refused = served.client().post("/", **named)
    assert code_of(refused) == (403, "model_not_allowed")
    assert refused.json["detail"].startswith(sentence)


def test_model_of_an_app_that_finds_none_is_told_alike():
    plans = {"plans": {"free": PLANS["plans"]["free"]}}
    served = planned(plans, caller=lambda: Caller(user=Payer("7", plan="free")), model_of=lambda request: None)
    refused = served.client().post("/", json={"model": "small-1"})
    assert refused.json["detail"].startswith("The request names no model")


def test_refused_model_gives_back_what_the_address_paid():
    served = planned(address_limits=["2 per day"])
    assert statuses(served, 5, model="large-1", user="7:free") == [403] * 5
    assert statuses(served, 3, user="7:free") == [200, 200, 429]


def test_models_of_a_pattern_share_a_count_beside_that_of_all_models():
    served = planned()
    assert [post(served, model, user="7:pro").status_code for model in ("large-1", "large-2", "large-3")] == [
        *(200, 200, 429)
    ]
    assert statuses(served, 4, model="any", user="7:pro") == [200, 200, 200, 429]


@pytest.mark.parametrize(
    ("models", "model", "status"),
    [
        (["small-*"], "small-1", 200),
        (["small-*"], "Small-1", 403),
        (["small-*"], "x-small-1", 403),
        (["small-*"], "", 403),
        (["small-*"], None, 403),
        (["small-?"], "small-12", 403),
        (["small-[12]"], "small-2", 200),
        (["*"], None, 200),
        (["*"], "anything", 200),
        ({"a": False}, "a", 403),
        ({"a": False}, "b", 200),
        ({"a": False}, None, 200),
        ({"a": True, "*": False}, "a", 200),
        ({"a": True, "*": False}, "b", 403),
        ({"a": True, "*": False}, None, 403),
        ({"a-b": True, "a-*": False}, "a-b", 200),
        ({"a-*": False, "a-b": True}, "a-b", 403),
        ({"a": {"requests": 0}}, "a", 403),
        ({"a": False}, "x" * 257, 403),
        ({"a": False}, 7, 403),
        ({"a": False}, ["a"], 403),
        ({"a": False}, {"a": "a"}, 403),
        ({"a": False}, True, 403),
    ],
)
def test_first_pattern_of_the_file_that_matches_holds(models, model, status):
    served = planned({"plans": {"p": {"requests": "9 per day", "models": models}}})
    answered = served.client().post("/", query_string={"user": "7:p"}, json={"model": model})
    assert answered.status_code == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([{"model": "a", "prompt": "x"}], 403),
        ([{"model": "b", "prompt": "x"}], 200),
        ([{"model": "b", "prompt": "x"}, {"model": "a", "prompt": "x"}], 403),
        ([{"model": "b", "prompt": "x"}, {"model": "c", "prompt": "x"}], 403),
        ([{"model": "b", "prompt": "x"}, {"prompt": "x"}], 403),
        ([{"prompt": "x"}, {"prompt": "y"}], 200),
        ({"model": "b", "requests": [{"prompt": "x"}]}, 200),
        ({"requests": [{"custom_id": "1", "params": {"model": "a", "messages": []}}]}, 403),
        ([{"custom_id": "1", "method": "POST", "body": {"model": "a", "messages": []}}], 403),
        ([{"model": "b", "body": {"model": "a", "messages": []}}], 403),
        ([{"model": "b", "body": {"model": "b", "messages": []}}], 200),
        ([{"model": "a", "text": "x", "role": "user"}], 403),
        ({"requests": [{"model": "a", "text": "x", "role": "user"}]}, 403),
        ([{"content": "x", "role": "user"}], 200),
        ({"model": "b", "messages": [{"content": "x", "role": "assistant", "model": "a"}]}, 200),
    ],
)
def test_list_of_requests_is_for_one_model(body, status):
    served = planned({"plans": {"p": {"requests": "9 per day", "models": {"a": False}}}})
    assert served.client().post("/", query_string={"user": "7:p"}, json=body).status_code == status


def test_json_that_nobody_can_read_is_for_no_model_of_a_plan_even_if_its_tokens_are_reserved():
    plans = {"plans": {"p": {"requests": "9 per day", "models": {"a": {"requests": "1 per day"}}}}}
    served = planned(plans, unreadable_body="reserve")
    options = {"query_string": {"user": "7:p"}, "content_type": "application/json"}
    answered = served.client().post("/", data=b'{"model": "a"', **options)
    assert code_of(answered) == (403, "model_not_allowed")


def test_body_that_takes_too_long_to_read_is_for_no_model_of_a_plan():
    served = planned({"plans": {"p": {"requests": "9 per day", "models": {"a": False}}}})
    body = b'{"model": "b", "x": [' + b"[]," * 300_000 + b"[]]}"
    answered = served.client().post("/", query_string={"user": "7:p"}, data=body, content_type="application/json")
    assert code_of(answered) == (403, "model_not_allowed")


@pytest.mark.parametrize("limits", [{"requests": "9 per day"}, {"tokens": "999999 per day"}, {"requests": "unlimited"}])
@pytest.mark.parametrize(
    ("body", "code"), [(b'{"model": "a", "Model": "b"}', "ambiguous_model"), (b"{", "invalid_body")]
)
def test_body_that_readers_read_differently_is_a_400_that_counts(limits, body, code):
    served = planned({"plans": {"p": {**limits, "models": ["a"]}}})
    options = {"query_string": {"user": "7:p"}, "content_type": "application/json"}
    assert code_of(served.client().post("/", data=body, **options)) == (400, code)
    with served.app.test_request_context("/?user=7:p", method="POST"):
        used = [verdict.used for verdict in served.limiter.peek("completions").verdicts]
    assert used == ([1] if limits == {"requests": "9 per day"} else [0] if "tokens" in limits else [])


def test_app_may_say_what_the_model_is():
    served = planned(model_of=lambda request: request.headers.get("model"))
    client = served.client()
    named = {"query_string": {"user": "7:free"}}
    assert client.post("/", json={"model": "large-1"}, headers={"model": "small-1"}, **named).status_code == 200
    assert client.post("/", json={"model": "small-1"}, headers={"model": "large-1"}, **named).status_code == 403
    assert client.post("/", json={"model": "small-1"}, **named).status_code == 403


@pytest.mark.parametrize("model_of", [lambda _: 1 / 0, lambda _: abort(418), lambda _: 7, lambda _: b"small-1"])
def test_model_that_the_app_can_t_say_is_no_model_of_the_plan(model_of, caplog):
    served = planned(model_of=model_of)
    assert post(served, user="7:free").status_code in (503, 418, 403)
    assert post(served, user="7:pro").status_code in (503, 418, 403)
    assert post(served, organisation="9:team").status_code == 200


def test_body_is_read_for_the_model_only_if_a_plan_has_rules_for_models():
    bodies = []

    class Body(BytesIO):
        def read(self, *size):
            bodies.append(self)
            return super().read(*size)

        def readinto(self, buffer):
            bodies.append(self)
            return super().readinto(buffer)

    served = planned()
    for payers, read in (({"organisation": "9:team"}, 0), ({"organisation": "9:team", "user": "7:free"}, 1)):
        body = Body(b'{"model": "small-1"}')
        answered = served.client().post(
            "/", query_string=payers, input_stream=body, content_length=20, content_type="application/json"
        )
        assert (answered.status_code, len({*map(id, bodies)})) == (200, read)


@pytest.mark.parametrize("limits", [{}, {"tokens": "999999 per day"}])
def test_client_that_was_refused_a_moment_ago_is_refused_before_its_body_is_read(limits):
    counted, events = [], []
    plans = {
        "plans": {"p": {"requests": "2 per minute", **limits, "models": {"a": {"requests": "1 per minute"}, "b": True}}}
    }
    served = planned(plans, token_counter=lambda text: counted.append(text) or 1)
    request_refused.connect(lambda _, plan, subject, **__: events.append((plan, subject)), served.app, weak=False)

    def ask(model, prompt):
        answered = served.client().post("/", query_string={"user": "7:p"}, json={"model": model, "prompt": prompt})
        return answered.status_code, prompt in counted

    assert [ask("b", "first"), ask("b", "second"), ask("b", "third")] == [(200, True), (200, True), (429, True)]
    assert [ask("b", "fourth"), ask("gone", "fifth")] == [(429, False)] * 2
    assert events == [("p", served.limiter.engine.subject("user", "7").hex())] * 3
    served.clock.advance(60)
    assert [ask("a", "sixth"), ask("a", "seventh"), ask("b", "eighth")] == [(200, True), (429, True), (200, True)]


def test_view_reads_the_body_that_was_read_for_its_model():
    served = planned(view=lambda: request.json)
    assert post(served, user="7:free").json == {"model": "small-1"}


# What is decided, and when


def test_all_payers_and_decorators_are_one_decision():
    stores = []
    served = planned({"plans": {"p": {"requests": "5 per day", "tokens": "9999 per day", "concurrency": 2}}})

    def several():
        return jsonify(sorted(verdict.charge.scope for verdict in served.limiter.decision.verdicts))

    for path, order in (("/above", 1), ("/below", -1)):
        decorators = [
            served.limiter.limit_by_plan(),
            served.limiter.limit("9 per day"),
            served.limiter.limit_tokens("99999 per day"),
        ]
        view = several
        for decorate in decorators[::order]:
            view = decorate(view)
        served.app.post(path, endpoint=path)(view)
    reserve = served.limiter.engine.store.reserve
    served.limiter.engine.store.reserve = lambda *given: stores.append(given) or reserve(*given)
    for path in ("/above", "/below"):
        answered = post(served, path=path, user="7:p", organisation="9:p")
        assert answered.json == sorted(["plan"] * 6 + [path] * 2)
    assert len(stores) == 2


@pytest.mark.parametrize("storage", ["memory://", "local://{}"])
def test_refusal_by_one_payer_charges_no_other(storage, tmp_path):
    served = planned(
        {"plans": {"a": {"requests": "9 per day"}, "none": {"requests": "1 per day"}}},
        storage_uri=storage.format(tmp_path),
    )
    assert statuses(served, 4, user="7:a", organisation="9:none") == [200, 429, 429, 429]
    with served.app.test_request_context("/?user=7:a&organisation=9:none", method="POST"):
        assert [verdict.used for verdict in served.limiter.peek("completions").verdicts] == [1, 1]
    served.limiter.engine.close()


def test_all_routes_by_plan_count_together_and_one_request_pays_once():
    served = planned({"plans": {"p": {"requests": "5 per day"}}})

    @served.limiter.limit_by_plan()
    def helper():
        return {}

    @served.app.post("/twice")
    @served.limiter.limit_by_plan()
    def twice():
        helper()
        return helper()

    @served.app.post("/inside")
    def inside():
        helper()
        return helper()

    for path in ("/", "/twice", "/inside", "/twice", "/inside"):
        assert post(served, path=path, user="7:p").status_code == 200
    assert [post(served, path=path, user="7:p").status_code for path in ("/", "/twice", "/inside")] == [429] * 3


def test_limits_of_plans_override_no_others_and_are_overridden_by_none():
    served = limited(
        None,
        plans={"plans": {"p": {"requests": "50 per day", "tokens": "90000 per day"}}},
        default_limits=["1 per day"],
        default_token_limits=["80000 per day"],
        application_limits=["70 per day"],
    )
    served.limiter.identify(named_in_query)
    blueprint = Blueprint("shop", "shop", url_prefix="/shop")
    served.limiter.limit_by_plan()(blueprint)

    def told():
        return jsonify(sorted(verdict.quota.limit for verdict in served.limiter.decision.verdicts))

    blueprint.post("/usual", endpoint="usual")(told)
    blueprint.post("/own", endpoint="own")(served.limiter.limit("60 per day")(told))
    served.app.register_blueprint(blueprint)
    assert post(served, path="/shop/usual", user="7:p").json == [1, 50, 70, 80000, 90000]
    assert post(served, path="/shop/own", user="8:p").json == [50, 60, 70, 80000, 90000]


def test_zero_of_a_plan_is_nothing_and_unlimited_is_no_limit():
    served = planned({"plans": {"none": {"tokens": 0}, "all": {"requests": "unlimited"}, "shut": {"concurrency": 0}}})
    assert code_of(post(served, user="7:none")) == (403, "not_allowed")
    assert code_of(post(served, user="7:shut")) == (403, "not_allowed")
    assert statuses(served, 20, user="7:all") == [200] * 20


def test_slots_of_a_payer_and_of_the_service_are_held_until_the_answer():
    inside, leave = Barrier(3, timeout=60), Barrier(3, timeout=60)

    def slow():
        if "wait" in request.headers:
            inside.wait()
            leave.wait()
        return {}

    served = planned({"plans": {"p": {"concurrency": 1}}, "service": {"concurrency": 2}}, view=slow)
    threads = [
        Thread(
            target=served.client().post, args=("/",), kwargs={"query_string": {"user": user}, "headers": {"wait": "1"}}
        )
        for user in ("7:p", "8:p")
    ]
    for thread in threads:
        thread.start()
    inside.wait()
    assert [post(served, user=user).status_code for user in ("7:p", "9:p")] == [429, 429]
    leave.wait()
    for thread in threads:
        thread.join(60)
    assert [post(served, user=user).status_code for user in ("7:p", "9:p")] == [200, 200]


def test_units_of_the_app_s_own_are_settled_by_their_record():
    plans = {"plans": {"p": {"units": {"pages": {"limit": "10 per day", "cost": 2}}}}}
    served = planned(plans, view=lambda: served.limiter.record_usage(units={"pages": 4}) or {})
    assert statuses(served, 4, user="7:p") == [200, 200, 200, 429]


# Where


def test_views_of_all_kinds_are_limited_in_any_place():
    served = planned({"plans": {"p": {"requests": "1 per day"}}})
    by_plan, app = served.limiter.limit_by_plan(), served.app

    class Plain(MethodView):
        def post(self):
            return {}

    class Decorated(Plain):
        decorators = [served.limiter.limit_by_plan()]  # noqa: RUF012  as Flask documents it

    def outer(view):
        return view  # No functools.wraps, so that the view's own name is lost.

    async def later():
        return {}

    app.add_url_rule("/plain", view_func=by_plan(Plain.as_view("plain")))
    app.add_url_rule("/decorated", view_func=Decorated.as_view("decorated"))
    app.post("/outer", endpoint="outer")(outer(by_plan(answer)))
    parent, child = Blueprint("parent", "x"), Blueprint("child", "x")
    by_plan(parent)
    child.post("/child")(another())
    parent.register_blueprint(child, name="renamed")
    app.register_blueprint(parent, name="again")
    for number, path in enumerate(("/plain", "/decorated", "/outer", "/child")):
        assert statuses(served, 2, path=path, user=f"{number}:p") == [200, 429]


def test_decorator_above_the_route_warns_that_it_comes_too_late():
    served = planned()
    view = served.app.post("/late")(another())
    with pytest.warns(RuntimeWarning, match="Put the limiter's decorators below @app.route") as warned:
        served.limiter.limit_by_plan()(view)
    assert warned[0].filename == __file__


def test_every_route_can_be_limited_by_plan_but_those_that_are_exempt(tmp_path):
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "a.txt").write_text("a", encoding="utf-8")
    clock = ManualClock()
    app = Flask("shop", root_path=str(tmp_path))
    limiter = AILimiter(
        app=app,
        storage_uri="memory://",
        clock=clock,
        plan_everywhere=True,
        plans={"plans": {"p": {"requests": "1 per day"}}},
    )
    limiter.identify(named_in_query)
    blueprint = Blueprint("health", "x")
    limiter.exempt(blueprint)
    blueprint.get("/ready")(another())
    app.register_blueprint(blueprint)
    app.get("/a")(answer)
    app.get("/health")(limiter.exempt(another()))
    client = app.test_client()
    assert [client.get("/a?user=7:p").status_code for _ in range(2)] == [200, 429]
    for path in ("/health", "/ready", "/static/a.txt"):
        answers = [client.get(f"{path}?user=7:p") for _ in range(2)]
        assert [each.status_code for each in answers] == [200, 200]
        for each in answers:
            each.close()
    assert client.get("/nowhere?user=7:p").status_code == 404
    assert client.options("/a?user=7:p").status_code == 200


def test_exempt_view_is_limited_by_no_plan_of_its_own_or_of_its_blueprint():
    served = planned({"plans": {"p": {"requests": "1 per day"}}})
    by_plan, exempt = served.limiter.limit_by_plan(), served.limiter.exempt
    blueprint = Blueprint("shop", "x")
    by_plan(blueprint)
    for path, view in (
        ("/a", exempt(by_plan(another()))),
        ("/b", by_plan(exempt(another()))),
        ("/c", exempt(another())),
    ):
        blueprint.post(path, endpoint=path[1:])(view)
    blueprint.post("/d", endpoint="d")(exempt(flags=ExemptionScope.META)(another()))
    served.app.register_blueprint(blueprint)
    for path, expected in (("/a", 200), ("/b", 200), ("/c", 200), ("/d", 429)):
        assert statuses(served, 2, path=path, user="7:p") == [200, expected]


def test_route_by_plan_is_never_unlimited_where_there_are_no_plans(caplog):
    limiter = AILimiter(api_key, storage_uri="memory://")
    view = limiter.limit_by_plan()(answer)
    with pytest.raises(ConfigurationError, match="plans: routes are limited by plan, and there are none"):
        limiter.init_app(Flask("early"))
    late = limited(api_key)
    late.app.post("/")(late.limiter.limit_by_plan()(view))
    assert [late.client().post("/").status_code for _ in range(2)] == [503, 503]
    assert "this app has no plans" in caplog.text


def test_setting_for_every_route_needs_plans():
    with pytest.raises(ConfigurationError, match="plan_everywhere: there are no plans"):
        limited(api_key, plan_everywhere=True)


def test_each_app_of_a_limiter_has_plans_of_its_own():
    limiter = AILimiter(api_key, storage_uri="memory://")
    view, limiter_apps = None, []
    for name, limit in (("a", "1 per day"), ("b", "3 per day")):
        app = Flask(name)
        app.config["AILIMIT_PLANS"] = {"plans": {"p": {"requests": limit}}, "default_plan": "p"}
        limiter.init_app(app)
        view = view or limiter.limit_by_plan()(answer)
        app.get("/")(view)
        limiter_apps.append(app)
    answered = [[app.test_client().get("/").status_code for _ in range(4)] for app in limiter_apps]
    assert answered == [[200, 429, 429, 429], [200, 200, 200, 429]]


# What clients and receivers are told


@pytest.mark.parametrize(
    ("told_roles", "limits"),
    [
        ((), [5, 2]),
        (["organisation"], [5, 2, 6]),
        (["service"], [5, 2, 8]),
        (["organisation", "service"], [5, 2, 6, 8]),
    ],
)
def test_clients_are_told_of_their_own_limits_and_of_those_of_told_roles(told_roles, limits):
    served = planned(told_roles=told_roles)
    answered = post(served, "large-1", user="7:pro", organisation="9:team")
    policies = answered.headers["RateLimit-Policy"].split(", ")
    assert sorted(int(policy.partition("q=")[2].partition(";")[0]) for policy in policies) == sorted(limits)


def test_refusal_for_another_role_says_nothing_of_its_limit():
    served = planned()
    assert statuses(served, 6, organisation="9:team") == [200] * 6
    refused = post(served, user="7:pro", organisation="9:team")
    assert refused.status_code == 429
    assert "6" not in refused.json["error"]["message"].partition("Try again")[0]
    assert refused.json["error"]["limit"] is None


@pytest.mark.parametrize("roles", ["organisation", ["Organisation"], [7]])
def test_told_roles_are_a_list_of_roles(roles):
    with pytest.raises(ConfigurationError, match="told_roles: "):
        planned(told_roles=roles)


def test_name_of_a_limit_in_the_file_is_its_name_in_headers():
    served = planned({"plans": {"p": {"requests": {"limit": "5 per day", "name": "calls"}}}})
    assert post(served, user="7:p").headers["RateLimit-Policy"].startswith('"calls";q=5')


def test_events_tell_plan_label_and_pattern_and_never_the_model_s_name():
    served = planned()
    settled, refused = [], []
    usage_settled.connect(lambda _, **facts: settled.append(facts), served.app, weak=False)
    request_refused.connect(lambda _, **facts: refused.append(facts), served.app, weak=False)
    for _ in range(3):
        post(served, "large-secret", user="7:pro", organisation="9:team")
    post(served, "other", organisation="9:team")
    told = [[facts[name] for name in ("plan", "label", "model")] for facts in (*settled, *refused)]
    assert told == [
        *[["pro", "user 7", "large-*"]] * 2,
        ["team", "organisation 9", None],
        ["pro", "user 7", "large-*"],
    ]
    assert "large-secret" not in repr((settled, refused))
    assert settled[0]["subject"] == served.limiter.engine.subject("user", "7").hex()


def test_event_of_work_that_was_handed_over_tells_plan_and_pattern_but_no_label():
    served = planned(view=lambda: jsonify(served.limiter.hand_over()))
    settled = []
    usage_settled.connect(lambda _, **facts: settled.append(facts), served.app, weak=False)
    token = post(served, "large-1", user="7:pro").json
    with served.app.app_context():
        served.limiter.take_over(token).settle()
    assert [(facts["plan"], facts["model"], facts["label"]) for facts in settled] == [("pro", "large-*", None)]


def test_peek_shows_the_caller_its_plan_also_without_a_model():
    served = planned()
    served.app.get("/usage")(
        lambda: jsonify(
            [[verdict.quota.limit, verdict.used] for verdict in served.limiter.peek("completions").verdicts]
        )
    )
    post(served, user="7:free", organisation="9:team")
    shown = served.client().get("/usage", query_string={"user": "7:free", "organisation": "9:team"})
    assert sorted(shown.json) == [[2, 1], [6, 1], [8, 1]]


def test_peek_says_nothing_of_a_limit_of_0_of_another_role():
    served = planned({"plans": {"p": {"requests": "2 per day"}, "none": {"requests": 0}}})
    served.app.get("/usage")(lambda: str(served.limiter.peek("completions")))
    refused = served.client().get("/usage", query_string={"user": "7:p", "organisation": "9:none"})
    assert code_of(refused) == (403, "not_allowed")
    assert refused.json["detail"] == "This request is not allowed. Waiting does not help."


def test_peek_for_a_named_subject_says_that_plans_depend_on_the_request():
    served = planned()
    with served.app.test_request_context("/"):
        peeked = served.limiter.peek("completions", "alice")
    assert (peeked.verdicts, [each.text for each in peeked.uncertain]) == (
        (),
        ["limited by plan, depends on the request"],
    )


# What is kept


@contextmanager
def counted(monkeypatch):
    made = []
    new_phase = which_limits.Phase

    def count(*given, **named):
        made.append(named.get("is_by_plan", False))
        return new_phase(*given, **named)

    monkeypatch.setattr(which_limits, "Phase", count)
    yield made


def test_phases_are_kept_and_made_up_models_and_payers_make_none(monkeypatch):
    served = planned({**PLANS, "service": {"requests": "9999 per second"}, "default_plan": "team"})
    with counted(monkeypatch) as made:
        for number in range(50):
            post(served, f"made-up-{number}", user=f"{number}:pro", organisation=f"{number}:made-up-{number}")
            post(served, f"large-{number}", user=f"{number}:pro")
            post(served, f"small-{number}", user=f"{number}:free")
    # Before the view one, that of the view, in it one for each selection, and one for all models of each plan.
    assert len(made) == 1 + 1 + 3 + 3


def test_limits_without_plans_make_no_place_for_plans(monkeypatch):
    served = planned()
    served.app.post("/plain")(served.limiter.limit("9999 per day", key_func=lambda: "all")(answer))
    with counted(monkeypatch) as made:
        for _ in range(3):
            post(served, path="/plain")
    assert made == [False, False]


# The commands


def test_commands_print_plans_and_which_routes_are_limited_by_them():
    plans = {
        "plans": {
            "max": {
                "requests": {"limit": "5 per day", "burst": 9, "name": "calls", "in_headers": False},
                "tokens": {"limit": "9 per day", "algorithm": "fixed-window", "soft_percent": 90},
                "output_tokens": "unlimited",
                "units": {"pages": {"limit": "9 per day", "cost": 2}},
                "models": {"old-*": False, "*": True},
            }
        }
    }
    served = planned(plans)
    served.app.post("/both")(served.limiter.limit_by_plan()(served.limiter.limit("9 per day")(another())))
    run = partial(served.app.test_cli_runner().invoke, cli)
    assert run(args=["plans"]).output.splitlines() == [
        "max",
        "    requests: 5 per day, up to 9 at once, named 'calls', in no header",
        "    tokens: 9 per day, fixed-window, soft percent 90",
        "    output tokens: unlimited",
        "    pages: 9 per day, 2 a request",
        "    model old-*",
        "        not allowed",
        "    model *",
        "        allowed",
        "There is no default_plan: a payer without a plan gets a 503.",
    ]
    assert run(args=["limits"]).output.splitlines() == [
        "POST /  (completions)",
        "    limited by plan, see: flask ailimit plans",
        "POST /both  (view)",
        "    9 requests per 86400 s  (fixed-window)",
        "    limited by plan, see: flask ailimit plans",
    ]


def test_command_says_that_there_are_no_plans_or_what_is_wrong_with_a_file(tmp_path):
    run = partial(limited(api_key).app.test_cli_runner().invoke, cli)
    assert run(args=["plans"]).output.startswith("There are no plans (AILIMIT_PLANS)")
    (tmp_path / "wrong.toml").write_text("[plans.a]\nrequests = 'many'", encoding="utf-8")
    ran = run(args=["plans", str(tmp_path / "wrong.toml")])
    assert (ran.exit_code, ran.output.partition(". Write")[0]) == (
        1,
        "Error: wrong.toml: plans.a.requests: limit: can't read 'many'",
    )
