"""A request in a class with a floor leaves a part of each of the service's limits to the others."""

from contextlib import ExitStack
from random import Random

import pytest
from flask import Response, g, request
from limited_apps import limited

from flask_ailimit import Caller, Payer, request_would_be_refused
from flask_ailimit.cli import cli
from flask_ailimit.engine.algorithms import OVER_TIME
from flask_ailimit.engine.quota import BUDGET
from flask_ailimit.request import which_limits

CLASSES = {"interactive": 0, "batch": 50}
TIMED = sorted(OVER_TIME - {BUDGET})
WHY = {"reason": "a call", "by": "ops"}
OK, REFUSED, AWAY = 200, 429, 503


def planned(service, *, classes=CLASSES, view=None, **options):
    """An app with one view by plan, and a service with classes. A test says who calls."""
    plans = {
        "default_plan": "plain",
        "plans": {
            "plain": {"requests": "unlimited"},
            "live": {"requests": "unlimited", "class": "interactive"},
            "bulk": {"requests": "unlimited", "class": "batch"},
        },
        "service": {**service, "classes": classes},
    }
    served = limited(None, plans=options.pop("plans", plans), **options)
    served.limiter.identify(lambda: g.caller)
    served.app.before_request(lambda: setattr(g, "caller", request.environ["caller"]))
    served.app.post("/", endpoint="completions")(served.limiter.limit_by_plan()(view or dict))
    return served


def payer(plan=None, name="7"):
    return Payer(name, plan)


BATCH, LIVE, PLAIN = Caller(user=payer("bulk")), Caller(user=payer("live")), Caller(user=payer("plain"))


def post(served, caller=BATCH, model="small", **sent):
    body = {"model": model, "max_tokens": 10, "prompt": ""}
    return served.client(caller=caller).post("/", json={**body, **sent.pop("json", {})}, **sent)


def statuses(served, times, caller=BATCH, **sent):
    return [post(served, caller, **sent).status_code for _ in range(times)]


# The limits


@pytest.mark.parametrize("algorithm", TIMED)
@pytest.mark.parametrize("caller", [BATCH, LIVE], ids=["batch", "interactive"])
def test_batch_leaves_its_floor_to_others_and_each_comes_back_when_it_is_told(algorithm, caller):
    served = planned({"requests": {"limit": "10 per minute", "algorithm": algorithm}})
    for _ in range(5):
        assert post(served).status_code == OK
        served.clock.advance(0.1)
    assert post(served).status_code == REFUSED
    assert statuses(served, 3, LIVE) == [OK] * 3
    assert statuses(served, 2, PLAIN) == [OK] * 2
    wait = int(post(served, caller).headers["retry-after-ms"])
    served.clock.advance_us(wait * 1000 - 1000)
    assert post(served, caller).status_code == REFUSED
    served.clock.advance_us(1000)
    assert post(served, caller).status_code == OK


def test_wait_of_batch_is_until_its_floor_is_left():
    served = planned({"requests": {"limit": "60 per minute", "burst": 10}})
    assert statuses(served, 10, LIVE) == [OK] * 10
    assert [post(served, caller).headers["retry-after-ms"] for caller in (LIVE, BATCH)] == ["1000", "6000"]


def test_each_limit_of_the_service_has_the_floor_and_no_limit_of_a_payer():
    served = planned(
        {"requests": "100 per minute", "tokens": "100 per minute", "units": {"pages": "4 per hour; 100 per day"}},
    )
    assert statuses(served, 3) == [OK, OK, REFUSED]  # Two pages of four, and 20 of 100 tokens.
    served.app.view_functions["completions"] = served.limiter.limit_by_plan()(dict)
    plans = {
        "plans": {"bulk": {"requests": "4 per day", "class": "batch"}},
        "service": {"requests": "100 per day", "classes": CLASSES},
    }
    assert statuses(planned({}, plans=plans), 5) == [OK] * 4 + [REFUSED]


def test_tokens_that_are_left_to_others_are_those_that_are_really_used():
    served = planned({"tokens": "100 per minute"}, view=lambda: {"usage": {"prompt_tokens": 1, "completion_tokens": 4}})
    # Ten are reserved, and five used: with 40 used 10 more fit, with 45 no more.
    assert statuses(served, 10) == [OK] * 9 + [REFUSED]
    assert statuses(served, 10, LIVE) == [OK] * 10


def test_limits_of_a_model_have_the_floor_too():
    served = planned({"models": {"large-*": {"requests": "4 per minute"}}})
    assert statuses(served, 3, model="large-1") == [OK, OK, REFUSED]
    assert statuses(served, 3, LIVE, model="large-2") == [OK, OK, REFUSED]
    assert statuses(served, 9, model="small") == [OK] * 9


def test_calls_in_flight_leave_slots_to_others():
    served = planned({"concurrency": 4}, view=lambda: Response(part for part in ("a", "b")))
    with ExitStack() as open_answers:

        def begin(caller):
            answer = open_answers.enter_context(post(served, caller, buffered=False))
            return answer, answer.status_code

        (first, status), (_, second) = begin(BATCH), begin(BATCH)
        assert (status, second, begin(BATCH)[1]) == (OK, OK, REFUSED)
        assert [begin(LIVE)[1] for _ in range(3)] == [OK, OK, REFUSED]
        first.close()
        assert begin(BATCH)[1] == REFUSED  # One is free, and two are to be left.
        assert begin(LIVE)[1] == OK


@pytest.mark.parametrize(
    ("floor", "limit", "fit"), [(0, 3, 3), (1, 3, 2), (34, 3, 1), (50, 3, 1), (99, 3, 1), (100, 3, 1)]
)
def test_floor_is_rounded_up_and_one_that_leaves_nothing_lets_in_who_is_alone(floor, limit, fit):
    served = planned({"requests": f"{limit} per minute"}, classes={"interactive": 0, "batch": floor})
    assert statuses(served, limit + 1) == [OK] * fit + [REFUSED] * (limit + 1 - fit)
    assert statuses(served, limit - fit + 1, LIVE) == [OK] * (limit - fit) + [REFUSED]


def test_floor_is_a_part_of_what_is_given_at_once():
    served = planned({"requests": {"limit": "10 per minute", "burst": 20}})
    assert statuses(served, 11) == [OK] * 10 + [REFUSED]
    assert statuses(served, 11, LIVE) == [OK] * 10 + [REFUSED]


# Whose class it is


def test_class_that_the_app_names_wins_over_that_of_the_plans():
    served = planned({"requests": "10 per minute"})
    as_batch, as_live = (
        Caller(user=payer(plan), service_class=name) for plan, name in [("live", "batch"), ("bulk", "interactive")]
    )
    assert statuses(served, 6, as_batch) == [OK] * 5 + [REFUSED]
    assert statuses(served, 6, as_live) == [OK] * 5 + [REFUSED]
    nobody = planned({"requests": "10 per minute"})
    assert statuses(nobody, 6, Caller(service_class="batch")) == [OK] * 5 + [REFUSED]


def test_of_several_payers_the_one_that_leaves_most_decides():
    for payers in (
        {"user": payer("live"), "organisation": payer("bulk")},
        {"user": payer("bulk"), "organisation": payer("live")},
        {"user": payer("plain"), "organisation": payer("bulk")},
    ):
        assert statuses(planned({"requests": "10 per minute"}), 6, Caller(**payers)) == [OK] * 5 + [REFUSED]
    both = Caller(user=payer("live"), organisation=payer("plain"))
    assert statuses(planned({"requests": "10 per minute"}), 11, both) == [OK] * 10 + [REFUSED]


@pytest.mark.parametrize(
    "service", [{"requests": "10 per minute", "classes": CLASSES}, {"requests": "9 per day"}, None]
)
def test_class_that_is_not_in_the_file_is_a_503_and_never_unlimited(service, caplog):
    plans = {"plans": {"plain": {"requests": "2 per day"}}} | ({"service": service} if service else {})
    served = planned({}, plans=plans, view=lambda: pytest.fail("It was called."))
    refused = post(served, Caller(user=payer("plain"), service_class="bach"))
    assert (refused.status_code, refused.json["error"]["code"]) == (AWAY, "limiter_unavailable")
    assert (
        "identify returned a Caller in the class 'bach', which [service.classes] of plans doesn't have" in caplog.text
    )
    served.app.view_functions["completions"] = served.limiter.limit_by_plan()(dict)
    assert statuses(served, 3, Caller(user=payer("plain"))) == [OK, OK, REFUSED]


def test_client_can_not_choose_its_class():
    served = planned({"requests": "10 per minute"})
    asked = {
        "json": {"class": "interactive", "service_class": "interactive", "service_tier": "priority"},
        "query_string": {"class": "interactive", "service_class": "interactive"},
        "headers": {"Class": "interactive", "X-Service-Class": "interactive", "Service-Class": "interactive"},
    }
    assert statuses(served, 6, **asked) == [OK] * 5 + [REFUSED]


def test_class_of_a_caller_is_a_text_and_no_role():
    with pytest.raises(TypeError, match="service_class is the name of a class"):
        Caller(service_class=payer("bulk"))
    assert repr(Caller(user=Payer("7"), service_class="batch")).endswith(", service_class='batch')")
    assert Caller(user=Payer("7")).service_class is None


# Refused a moment ago


@pytest.mark.parametrize("models", [{}, {"models": {"large-*": {"requests": "100 per minute"}}}])
def test_interactive_request_is_not_refused_because_batch_was_a_moment_ago(models, monkeypatch):
    counted, peeked = [], []
    served = planned(
        {"requests": "10 per minute", "tokens": "1000 per minute", **models},
        token_counter=lambda text: counted.append(text) or 1,
    )
    peek = served.limiter.engine.peek
    monkeypatch.setattr(type(served.limiter.engine), "peek", lambda _, charges: peeked.append(charges) or peek(charges))

    def ask(caller):
        """The status, whether the body was counted, and how often the store was asked before."""
        counted.clear()
        peeked.clear()
        return post(served, caller, json={"prompt": "hello"}).status_code, bool(counted), len(peeked)

    assert [ask(BATCH) for _ in range(6)] == [(OK, True, 0)] * 5 + [(REFUSED, True, 0)]
    assert ask(LIVE) == (OK, True, 0)  # A note about batch costs it no question.
    assert ask(BATCH) == (REFUSED, False, 1)
    assert [ask(LIVE) for _ in range(5)] == [(OK, True, 0)] * 4 + [(REFUSED, True, 0)]
    assert ask(LIVE) == (REFUSED, False, 1)
    assert ask(BATCH) == (REFUSED, False, 1)


# After the decision


def test_batch_work_that_was_handed_over_gives_its_slot_back_and_pays_what_it_used():
    tokens = []
    served = planned(
        {"concurrency": 2, "tokens": "100 per minute"}, view=lambda: tokens.append(served.limiter.hand_over()) or {}
    )
    assert statuses(served, 2) == [OK, REFUSED]
    with served.app.app_context():
        job = served.limiter.take_over(tokens[0])
        job.record_usage(output_tokens=45)
        job.settle()
    assert statuses(served, 2) == [REFUSED, REFUSED]  # 45 tokens are used, and 50 are left to others.
    served.clock.advance(3)
    assert statuses(served, 2) == [OK, REFUSED]


def test_batch_stream_that_goes_on_after_its_last_event_keeps_its_slot_also_below_the_floor():
    def events():
        yield 'data: {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}\n\n'
        yield "data: [DONE]\n\n"
        yield "data: more\n\n"

    served = planned({"concurrency": 3}, view=lambda: Response(events(), mimetype="text/event-stream"))
    with ExitStack() as open_answers:
        stream = open_answers.enter_context(post(served, buffered=False))
        parts = stream.iter_encoded()
        assert b"usage" in next(parts)
        for caller in (LIVE, LIVE):
            assert open_answers.enter_context(post(served, caller, buffered=False)).status_code == OK
        assert b"DONE" in next(parts)
        assert open_answers.enter_context(post(served, LIVE, buffered=False)).status_code == OK  # It is settled.
        assert b"more" in next(parts)
        assert post(served, LIVE).status_code == REFUSED
    assert statuses(served, 1) == [OK]


# What is shown


def test_usage_of_the_service_is_what_was_used():
    served = planned({"requests": "10 per minute"}, told_roles=["service"])
    seen = []

    @served.app.post("/seen")
    @served.limiter.limit_by_plan()
    def look():
        (limit,) = [each for each in served.limiter.usage().limits if each.role == "service"]
        (peeked,) = served.limiter.peek().verdicts
        seen.append((limit.used, limit.remaining, limit.limit, peeked.used))
        return {}

    answered = served.client(caller=BATCH).post("/seen", json={})
    assert seen == [(1, 9, 10, 1)]
    assert answered.headers["RateLimit-Policy"].startswith('"requests-per-minute";q=10')
    assert answered.headers["RateLimit"].startswith('"requests-per-minute";r=4')  # What this caller can have.


def test_clients_are_not_told_of_a_floor_of_the_service():
    served = planned({"requests": "10 per minute"})
    answered = [post(served) for _ in range(6)]
    assert not any(name.lower().startswith(("ratelimit", "x-ratelimit")) for name, _ in answered[0].headers)
    assert answered[-1].status_code == REFUSED
    assert answered[-1].json["error"]["limit"] is None
    assert "batch" not in answered[-1].text


def test_plans_in_words_have_the_classes():
    served = planned({"requests": "10 per minute"}, classes={"interactive": 0, "batch": 50})
    shown = served.app.test_cli_runner().invoke(cli, ["plans"], catch_exceptions=False).output
    assert "bulk\n    class: batch\n    requests: unlimited\n" in shown
    assert (
        "everybody together\n    requests: 10 per minute\n"
        "    class interactive\n        may take all\n    class batch\n        leaves 50 % of each limit to others\n"
    ) in shown


# Changes


def test_floor_follows_a_live_change_of_the_service():
    served = planned({"requests": "10 per minute"})
    assert statuses(served, 6) == [OK] * 5 + [REFUSED]
    change = served.limiter.admin.raise_limit("service", "requests", "20 per minute", **WHY)
    assert statuses(served, 6) == [OK] * 5 + [REFUSED]
    assert statuses(served, 2, LIVE) == [OK] * 2
    served.limiter.admin.undo(change.number, **WHY)
    assert post(served, LIVE).status_code == REFUSED


def test_limit_of_the_service_that_is_tried_is_tried_with_the_floor():
    served = planned({"requests": {"limit": "20 per minute", "candidate": "4 per minute"}})
    tried = []

    def tell(_, *, would_refuse, **__):
        tried.append([(verdict.quota.limit, verdict.charge.floor) for verdict in would_refuse])

    request_would_be_refused.connect(tell, served.app)
    assert statuses(served, 3) == [OK] * 3
    assert tried == [[(4, 2)]]
    assert statuses(served, 2, LIVE) == [OK] * 2
    assert tried == [[(4, 2)]]
    assert statuses(served, 8) == [OK] * 5 + [REFUSED] * 3  # Ten of twenty are left to others.


def test_payer_that_is_moved_to_another_plan_is_in_the_class_of_that_plan():
    served = planned({"requests": "10 per minute"})
    served.limiter.admin.move("user:7", "bulk", **WHY)
    assert statuses(served, 6, LIVE) == [OK] * 5 + [REFUSED]
    served.limiter.admin.move("user:7", "live", **WHY)
    assert statuses(served, 6, BATCH) == [OK] * 5 + [REFUSED]


FILE = """
[plans.bulk]
requests = "99 per day"
class = "{named}"
[service]
requests = "{limit} per minute"
[service.classes]
batch = {batch}
night = 80
"""


def test_floor_and_class_that_were_changed_in_the_file_hold_after_a_reload(tmp_path):
    file = tmp_path / "plans.toml"
    file.write_text(FILE.format(limit=10, named="batch", batch=50))
    served = planned({}, plans=str(file))
    served.limiter.admin.lower_limit("user:7", "requests", "98 per day", **WHY)  # A plan with other values, too.
    assert statuses(served, 6) == [OK] * 5 + [REFUSED]

    def reload(**values):
        file.write_text(FILE.format(**values))
        served.limiter.admin.reload(**WHY)
        served.clock.advance(60)

    reload(limit=10, named="batch", batch=30)
    assert statuses(served, 8) == [OK] * 7 + [REFUSED]
    reload(limit=20, named="batch", batch=30)
    assert statuses(served, 15) == [OK] * 14 + [REFUSED]
    reload(limit=20, named="night", batch=30)
    assert statuses(served, 5) == [OK] * 4 + [REFUSED]


# What it costs


def test_request_of_a_class_is_resolved_once_and_class_without_a_floor_is_no_class(monkeypatch):
    served = planned({"requests": "100 per minute", "tokens": "9999 per minute"})
    resolved = []
    of_payer = which_limits.limits_of_payer
    monkeypatch.setattr(
        which_limits, "limits_of_payer", lambda *given, **told: resolved.append(given) or of_payer(*given, **told)
    )
    for caller in (BATCH, LIVE) * 3:
        assert post(served, caller).status_code == OK
    assert len(resolved) == 4
    plans = served.limiter.app_state.plans
    assert plans.classes["interactive"] is plans.service


# Under load


@pytest.mark.parametrize(("store", "floor"), [("memory", 0), ("memory", 20), ("memory", 50), ("local", 50)])
def test_batch_yields_under_twice_the_load_and_nothing_is_lost(store, floor, tmp_path):
    """30 % of the limit are asked for by interactive requests, and 170 % by those of batch, for 15 minutes."""
    minutes, limit = 15, 60
    served = planned(
        {"requests": {"limit": f"{limit} per minute", "burst": limit}},
        classes={"interactive": 0, "batch": floor},
        storage_uri="memory://" if store == "memory" else f"local://{tmp_path}",
    )
    random, asked, got = Random(floor), {LIVE: 0, BATCH: 0}, {LIVE: 0, BATCH: 0}
    for _ in range(minutes * 60 * 5):
        served.clock.advance_us(200_000)
        for caller, load in ((LIVE, 0.3), (BATCH, 1.7)):
            if random.random() < load * limit / 300:
                asked[caller] += 1
                got[caller] += post(served, caller).status_code == OK
    served.limiter.engine.close()
    admitted = {caller: got[caller] / asked[caller] for caller in asked}
    assert sum(got.values()) >= 0.97 * limit * minutes
    if floor:
        assert admitted[LIVE] >= 0.99
        assert 0.38 < admitted[BATCH] < 0.48
    else:
        assert admitted[LIVE] < 0.65
