"""A limit that is tried decides, counts and is reported; nobody is refused by it, or a part of all, always the same."""

import json
import logging
from contextlib import contextmanager

import pytest
from flask import abort, request
from limited_apps import commandable, limited

from flask_ailimit import (
    UNLIMITED,
    AILimiter,
    Caller,
    ConfigurationError,
    Payer,
    RequestsLimit,
    api_key,
    request_would_be_refused,
    usage_settled,
)
from flask_ailimit.cli import cli
from flask_ailimit.limits.plans.admin import ChangeError

WHY = {"reason": "a trial", "by": "ann"}
PROMPT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 30}


def planned(plans, *, make=limited, **options):
    """An app with one view by plan; the header X-User names the payer and its plan."""
    served = make(None, plans=plans, **options)
    served.limiter.identify(lambda: Caller(user=Payer(*request.headers["X-User"].split(":"))))
    served.app.post("/")(
        served.limiter.limit_by_plan()(lambda: {"usage": {"prompt_tokens": 2, "completion_tokens": 3}})
    )
    return served


def post(served, user="7:pro", body=PROMPT):
    return served.app.test_client().post("/", json=body, headers={"X-User": user})


def statuses(served, times, user="7:pro"):
    return [post(served, user).status_code for _ in range(times)]


@contextmanager
def reported(app):
    """What is told of limits that would refuse: of each request, what they are and how many they allow."""
    told = []

    def listen(_app, would_refuse, **_facts):
        told.append([(verdict.quota.name, verdict.limit) for verdict in would_refuse])

    with request_would_be_refused.connected_to(listen, app):
        yield told


def held_for(served, users):
    """Those of the users of whom a second request is refused."""
    return {user for user in users if statuses(served, 2, f"{user}:pro")[1] == 429}


# In a plan


def test_candidate_is_judged_beside_the_limit_that_holds_and_refuses_nobody():
    served = planned({"plans": {"pro": {"requests": {"limit": "5 per minute", "candidate": "3 per minute"}}}})
    with reported(served.app) as told:
        assert statuses(served, 6) == [200] * 5 + [429]
    # The first three fit. Of the sixth nothing is said, because the limit that holds has refused it.
    assert told == [[("requests-per-minute", 3)]] * 2


def test_answers_are_those_of_an_app_that_tries_nothing():
    requests = {"limit": "5 per minute", "candidate": "2 per minute"}
    tokens = {"limit": "40 per minute", "candidate": "10 per minute"}
    trying = planned({"plans": {"pro": {"requests": requests, "tokens": tokens, "concurrency": 1}}})
    plain = planned({"plans": {"pro": {"requests": "5 per minute", "tokens": "40 per minute", "concurrency": 1}}})
    for _ in range(7):
        answers = [post(served) for served in (trying, plain)]
        bodies = [answer.get_data(as_text=True).replace(answer.headers["x-request-id"], "") for answer in answers]
        heads = [{k: v for k, v in answer.headers.items() if "request-id" not in k.lower()} for answer in answers]
        assert bodies[0] == bodies[1]
        assert heads[0] == heads[1]
        for served in (trying, plain):
            served.clock.advance(3)


def test_plan_is_tried_as_a_whole():
    plan = {"enforced_percent": 0, "requests": "1 per minute", "models": {"small-*": {"requests": "1 per day"}}}
    served = planned({"plans": {"pro": plan}})
    with reported(served.app) as told:
        assert [post(served, body={**PROMPT, "model": "small-1"}).status_code for _ in range(2)] == [200, 200]
    assert told == [[("requests-per-minute", 1), ("requests-per-day", 1)]]


def test_limit_of_a_plan_names_its_own_part_of_the_payers():
    plan = {"enforced_percent": 0, "requests": {"limit": "1 per minute", "enforced_percent": 100}, "concurrency": 1}
    assert statuses(planned({"plans": {"pro": plan}}), 2) == [200, 429]


def test_what_is_tried_counts_real_usage():
    plan = {"tokens": {"limit": "1000 per minute", "candidate": "60 per minute"}}
    served = planned({"plans": {"pro": plan}})
    with reported(served.app) as told:
        assert statuses(served, 4) == [200] * 4  # Each reserves more than 30 and uses 5.
        assert told == []
        assert statuses(served, 4) == [200] * 4
    assert ("tokens-per-minute", 60) in told[-1]


def test_slot_that_is_tried_is_given_back():
    served = planned({"plans": {"pro": {"concurrency": {"limit": 8, "candidate": 1}}}})
    with reported(served.app) as told:
        assert statuses(served, 3) == [200] * 3
    assert told == []


def test_part_of_the_payers_is_always_the_same_and_a_larger_part_has_those_of_a_smaller(tmp_path):
    users = [str(number) for number in range(200)]
    found = []
    with commandable(tmp_path / "limits") as make:
        for percent in (30, 30, 60):
            plan = {"requests": {"limit": "9 per minute", "candidate": "1 per minute", "enforced_percent": percent}}
            served = planned({"plans": {"pro": plan}}, make=make)
            found.append(held_for(served, users))
            served.clock.advance(60)
    assert found[0] == found[1]
    assert 40 <= len(found[0]) <= 80
    assert found[0] < found[2]
    assert 95 <= len(found[2]) <= 145


def test_usage_is_kept_when_a_payer_comes_to_be_in_the_part(tmp_path):
    with commandable(tmp_path / "limits") as make:
        for percent, expected in ((0, [200, 200]), (100, [200, 429])):
            plan = {"requests": {"limit": "3 per minute", "enforced_percent": percent}}
            assert statuses(planned({"plans": {"pro": plan}}, make=make), 2) == expected


def test_usage_is_kept_when_a_candidate_comes_to_hold(tmp_path):
    with commandable(tmp_path / "limits") as make:
        for percent, expected in ((0, [200, 200]), (100, [200, 429])):
            plan = {"requests": {"limit": "9 per minute", "candidate": "3 per minute", "enforced_percent": percent}}
            assert statuses(planned({"plans": {"pro": plan}}, make=make), 2) == expected


def test_usage_is_kept_when_a_candidate_has_another_window(tmp_path):
    with commandable(tmp_path / "limits") as make:
        for percent, expected in ((0, [200, 200]), (100, [200, 429])):
            limit = {"limit": "9 per minute", "candidate": "8 per minute; 3 per day", "enforced_percent": percent}
            assert statuses(planned({"plans": {"pro": {"requests": limit}}}, make=make), 2) == expected


def test_rule_for_models_that_is_tried_hides_none_that_holds():
    tried = {"requests": {"limit": "1 per day", "enforced_percent": 0}}
    models = {"large-x*": tried, "new-*": tried, "large-*": {"requests": "2 per minute"}}
    served = planned({"plans": {"pro": {"models": models}}})

    def answers(model, times):
        return [post(served, body={**PROMPT, "model": model}).status_code for _ in range(times)]

    with reported(served.app) as told:
        assert answers("large-x1", 3) == [200, 200, 429]
        assert told == []
        assert answers("new-1", 2) == [200, 200]
    assert told == [[("requests-per-day", 1)]]


def test_candidate_that_is_all_that_is_reserved_by_default_is_refused():
    tokens = {"limit": "1000 per minute", "candidate": "50 per minute"}
    with pytest.raises(ConfigurationError, match="default_output_tokens: 100 is all that '50 tokens per 60 s'"):
        planned({"plans": {"pro": {"tokens": tokens}}}, default_output_tokens=100)


@pytest.mark.parametrize("limit", ["0 per minute", "unlimited", 0])
def test_limit_without_a_count_is_tried_in_vain(limit):
    plan = {"concurrency": 9, "requests": {"limit": limit, "enforced_percent": 0}}
    served = planned({"plans": {"pro": plan}})
    with reported(served.app) as told:
        assert statuses(served, 2) == [200, 200]
    assert told == []


def test_candidate_of_no_limit_holds_for_its_part():
    plan = {"requests": {"limit": "1 per minute", "candidate": "unlimited", "enforced_percent": 100}}
    assert statuses(planned({"plans": {"pro": plan}}), 3) == [200] * 3


def test_burst_of_a_candidate_is_in_proportion():
    plan = {"requests": {"limit": "4 per minute", "burst": 8, "candidate": "2 per minute"}}
    served = planned({"plans": {"pro": plan}})
    with reported(served.app) as told:
        assert statuses(served, 5) == [200] * 5
    assert len(told) == 1


def test_burst_of_a_candidate_with_another_window_is_its_limit():
    plan = {"requests": {"limit": "4 per minute", "burst": 8, "candidate": "2 per day"}}
    served = planned({"plans": {"pro": plan}})
    with reported(served.app) as told:
        assert statuses(served, 3) == [200] * 3
    assert told == [[("requests-per-day", 2)]]


def test_service_tries_a_candidate():
    plans = {"plans": {"pro": {"requests": "9 per minute"}}, "service": {"concurrency": {"limit": 5, "candidate": 2}}}
    assert statuses(planned(plans), 3) == [200] * 3


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        ({"enforced_percent": 101}, "requests: enforced_percent: a whole number from 0 (only tried) to 100 is needed."),
        ({"enforced_percent": "10"}, "requests: enforced_percent: a whole number from 0"),
        ({"enforced_percent": True}, "requests: enforced_percent: a whole number from 0"),
        ({"enforced_percent": 0.5}, "requests: enforced_percent: a whole number from 0"),
        ({"candidate": "5 per fortnight"}, "requests.candidate: limit: can't read '5 per fortnight'."),
        ({"candidate": 7}, "requests.candidate: a text is needed, such as '10 per minute'"),
        ({"candidate": {"limit": "5 per minute"}}, "requests.candidate: a text is needed"),
        ({"candidates": "5 per minute"}, "requests.candidates: there is no such key. Did you mean candidate?"),
    ],
)
def test_mistake_is_said_with_its_place(limit, sentence):
    with pytest.raises(ConfigurationError) as raised:
        planned({"plans": {"pro": {"requests": {"limit": "9 per minute", **limit}}}})
    assert f"plans: plans.pro.{sentence}" in str(raised.value)


def test_service_is_tried_as_a_whole_or_not_at_all():
    service = {"requests": {"limit": "9 per minute", "enforced_percent": 50}}
    with pytest.raises(
        ConfigurationError, match=r"service\.requests: enforced_percent: everybody together is one payer"
    ):
        planned({"plans": {"pro": {"requests": "9 per minute"}}, "service": service})


# As a change


def test_operator_tries_a_value_on_one_payer_until_it_is_undone(tmp_path):
    with commandable(tmp_path / "limits") as make:
        served = planned({"plans": {"pro": {"requests": "4 per minute"}}}, make=make)
        with served.app.app_context():
            change = served.limiter.admin.try_limit("user:7", "requests", "1 per minute", **WHY)
        with reported(served.app) as told:
            assert statuses(served, 2) == [200, 200]
            assert statuses(served, 2, "8:pro") == [200, 200]
            assert told == [[("requests-per-minute", 1)]]
            with served.app.app_context():
                served.limiter.admin.undo(change.number, **WHY)
            assert statuses(served, 3) == [200, 200, 429]
            assert len(told) == 1


def test_tried_value_stands_beside_a_changed_one():
    served = planned({"plans": {"pro": {"requests": "1 per minute"}}})
    with served.app.app_context():
        served.limiter.admin.try_limit("user:7", "requests", "2 per minute", **WHY)
        served.limiter.admin.raise_limit("user:7", "requests", "3 per minute", **WHY)
    with reported(served.app) as told:
        assert statuses(served, 4) == [200, 200, 200, 429]
    assert told == [[("requests-per-minute", 2)]]


def test_candidate_of_the_plan_and_a_tried_value_have_counts_of_their_own():
    served = planned({"plans": {"pro": {"requests": {"limit": "9 per minute", "candidate": "2 per minute"}}}})
    with served.app.app_context():
        served.limiter.admin.try_limit("user:7", "requests", "3 per minute", **WHY)
    with reported(served.app) as told:
        statuses(served, 4)
    assert told == [[("requests-per-minute", 2)], [("requests-per-minute", 3), ("requests-per-minute", 2)]]


def test_operator_changes_the_value_that_holds_for_the_payer_also_if_it_is_a_candidate():
    requests = {"limit": "9 per minute", "candidate": "2 per minute", "enforced_percent": 100}
    served = planned({"plans": {"pro": {"requests": requests}}})
    with served.app.app_context():
        with pytest.raises(
            ChangeError, match="lower: 3 per minute is not lower than 2 per minute, which user:7 has now"
        ):
            served.limiter.admin.lower_limit("user:7", "requests", "3 per minute", **WHY)
        with pytest.raises(ChangeError, match="try: 2 per minute is what user:7 has now"):
            served.limiter.admin.try_limit("user:7", "requests", "2 per minute", **WHY)
        change = served.limiter.admin.raise_limit("user:7", "requests", "3 per minute", **WHY)
    assert change.before == "2 per minute"
    assert statuses(served, 4) == [200, 200, 200, 429]
    assert statuses(served, 3, "8:pro") == [200, 200, 429]


def test_value_that_holds_already_is_not_tried():
    served = planned({"plans": {"pro": {"requests": "4 per minute"}}})
    with served.app.app_context(), pytest.raises(ChangeError, match="try: 4 per minute is what user:7 has now"):
        served.limiter.admin.try_limit("user:7", "requests", "4 per minute", **WHY)


def test_entry_of_a_trial_is_passed_over_by_libraries_that_know_no_trials():
    served = planned({"plans": {"pro": {"requests": "4 per minute"}}})
    with served.app.app_context():
        served.limiter.admin.try_limit("user:7", "requests", "1 per minute", **WHY)
        served.limiter.admin.suspend("user:8", **WHY)
        entries = served.limiter.engine.store.changes_from(1)
    assert [json.loads(text)["v"] for _, text in entries] == [2, 1]


def test_commands_try_a_value_and_show_what_is_tried(tmp_path):
    plan = {"requests": {"limit": "4 per minute", "candidate": "3 per minute"}, "concurrency": 9}
    with commandable(tmp_path / "limits") as make:
        served = planned({"plans": {"pro": plan, "new": {"requests": "1 per day", "enforced_percent": 10}}}, make=make)

        def run(*arguments):
            result = served.app.test_cli_runner().invoke(cli, arguments)
            assert result.exit_code == 0, result.output
            return result.output

        asked = ("try", "user:7", "concurrency", "2", "--plan", "pro", "--reason", "a trial", "--by", "ann")
        post(served)
        assert run(*asked) == "Change 1: try user:7, concurrency under pro: 2 in flight beside 9 in flight\n"
        usage = run("usage", "user:7", "--plan", "pro")
        assert "requests-per-minute: 3 of 4 left, full again in 60.0 s  (plan)" in usage
        assert "requests-per-minute: 2 of 3 left, full again in 60.0 s  (candidate, only tried, in the plan 4" in usage
        assert "concurrency: 2 of 2 left  (try, only tried, in the plan 9" in usage
        plans = run("plans")
        assert "requests: 4 per minute, tries 3 per minute" in plans
        assert "requests: 1 per day, enforced for 10 % of its payers" in plans


def test_clients_see_nothing_of_what_is_tried():
    plan = {"requests": {"limit": "4 per minute", "candidate": "3 per minute"}, "tokens": "9 per day"}
    served = planned({"plans": {"pro": plan | {"enforced_percent": 0}}})
    served.app.get("/usage")(served.limiter.usage_view)
    shown = served.app.test_client().get("/usage?inherited=1", headers={"X-User": "7:pro"}).json["limits"]
    assert [(each["unit"], each["limit"]) for each in shown] == [("requests", 4)]
    assert "tried" not in shown[0]


# With decorators


def tried(served, *decorators, view=dict):
    for decorate in decorators:
        view = decorate(view)
    served.app.post("/", endpoint="answer")(view)


def keyed(served, times):
    return [served.client().post("/", json=PROMPT).status_code for _ in range(times)]


@pytest.mark.parametrize(
    "decorate",
    [
        lambda limiter: limiter.limit("1 per minute", enforced_percent=0),
        lambda limiter: limiter.shared_limit("1 per minute", scope="all", enforced_percent=0),
        lambda limiter: limiter.limit_tokens("40 per minute", enforced_percent=0),
        lambda limiter: limiter.limit_units("pages", "1 per minute", enforced_percent=0),
        lambda limiter: limiter.limit(lambda: "1 per minute", enforced_percent=0),
    ],
)
def test_limit_of_a_decorator_is_tried(decorate):
    served = limited(default_output_tokens=10)
    tried(served, decorate(served.limiter))
    with reported(served.app) as told:
        assert keyed(served, 2) == [200, 200]
    assert len(told) == 1


def test_limit_of_0_that_is_tried_forbids_nothing():
    served = limited()
    tried(served, served.limiter.limit("0 per minute", enforced_percent=0))
    assert keyed(served, 1) == [200]


def test_limit_that_is_tried_overrides_no_default():
    served = limited(default_limits=["2 per minute"], default_token_limits=["100 per minute"])
    limit, limit_tokens = served.limiter.limit, served.limiter.limit_tokens
    tried(served, limit("9 per minute", enforced_percent=0), limit_tokens("1 per day", enforced_percent=0))
    assert keyed(served, 3) == [200, 200, 429]


def test_setting_tries_a_limit():
    served = limited(application_limits=[RequestsLimit("1 per minute", enforced_percent=0)])
    tried(served)
    with reported(served.app) as told:
        assert keyed(served, 2) == [200, 200]
    assert told == [[("requests-per-minute", 1)]]


def test_part_of_the_keys_is_limited_by_a_decorator():
    served = limited()
    tried(served, served.limiter.limit("1 per minute", enforced_percent=40))
    answered = {key: [served.client(key).post("/").status_code for _ in range(2)] for key in map(str, range(100))}
    refused = [key for key, codes in answered.items() if codes == [200, 429]]
    assert all(codes in ([200, 429], [200, 200]) for codes in answered.values())
    assert 25 <= len(refused) <= 55


@pytest.mark.parametrize("percent", [-1, 101, 0.5, "0", None, True])
def test_part_that_is_no_percentage_is_refused(percent):
    with pytest.raises(ConfigurationError, match="enforced_percent: a whole number from 0"):
        AILimiter(api_key).limit("1 per minute", enforced_percent=percent)
    with pytest.raises(ConfigurationError, match="enforced_percent: a whole number from 0"):
        AILimiter(api_key).limit_tokens("1 per minute", enforced_percent=percent)


def test_nothing_is_called_back_and_no_refusal_is_counted_for_what_is_tried():
    called = []
    served = limited()
    limit = served.limiter.limit("1 per minute", on_breach=called.append, meta_limits=["1 per day"], enforced_percent=0)
    tried(served, limit)
    assert keyed(served, 4) == [200] * 4
    assert called == []


def test_log_names_the_limit_and_not_the_key(caplog):
    caplog.set_level(logging.INFO)
    served = limited()
    tried(served, served.limiter.limit("1 per minute", enforced_percent=0, name="new"))
    keyed(served, 2)
    assert "ratelimit new: 1 requests per 60 s (" in caplog.text
    assert ") would be exceeded at endpoint: " in caplog.text
    assert "alice" not in caplog.text


def test_current_limit_is_one_that_holds():
    served = limited(headers_enabled=True)
    seen = []

    def view():
        seen.append((str(served.limiter.current_limit.limit), len(served.limiter.current_limits)))
        return {}

    decorators = served.limiter.limit("1 per minute", enforced_percent=0), served.limiter.limit("5 per hour")
    tried(served, *decorators, view=view)
    assert keyed(served, 2) == [200, 200]
    assert seen == [("5 per 1 hour", 1)] * 2


def test_body_that_can_not_be_read_passes_where_tokens_are_only_tried():
    served = limited()
    tried(served, served.limiter.limit_tokens("40 per minute", enforced_percent=0))
    wrong = {"data": b"{", "content_type": "application/json"}
    assert served.client().post("/", **wrong).status_code == 200
    enforced = limited()
    tried(enforced, enforced.limiter.limit_tokens("40 per minute"))
    assert enforced.client().post("/", **wrong).status_code == 400


def test_event_of_a_settlement_charges_nothing_that_was_only_tried():
    served = limited()
    view = served.limiter.limit("9 per minute")
    tried(served, view, served.limiter.limit_units("pages", "2 per day", cost=2, enforced_percent=0))
    charged = []
    with usage_settled.connected_to(lambda _, **facts: charged.append(facts["charged"]), served.app):
        keyed(served, 2)
    assert charged == [{"requests": 1}] * 2


def test_limit_by_address_is_tried():
    served = limited(address_limits=[RequestsLimit("1 per minute", enforced_percent=0)])
    tried(served)
    assert keyed(served, 2) == [200, 200]


def test_unlimited_is_tried_in_vain():
    served = limited()
    tried(served, served.limiter.limit_tokens(UNLIMITED, enforced_percent=0))
    assert keyed(served, 2) == [200, 200]


def test_limit_that_is_tried_at_another_cost_has_a_count_of_its_own():
    served = limited()
    limit = served.limiter.limit
    tried(served, limit("3 per minute", cost=2, enforced_percent=0), limit("3 per minute"))
    with reported(served.app) as told:
        assert keyed(served, 5) == [200, 200, 200, 429, 429]
    assert len(told) == 2


@pytest.mark.parametrize("is_first", [True, False])
def test_limits_that_hold_go_on_counting_when_one_is_tried_beside_them(tmp_path, is_first):
    with commandable(tmp_path / "limits") as make:
        served = make()
        tried(served, served.limiter.limit("3 per minute"))
        assert keyed(served, 2) == [200, 200]
        served = make()
        decorators = [served.limiter.limit("2 per minute", enforced_percent=0), served.limiter.limit("3 per minute")]
        tried(served, *(decorators if is_first else reversed(decorators)))
        assert keyed(served, 2) == [200, 429]


def test_limit_of_a_block_holds_also_if_the_same_is_tried_in_a_function_before():
    served = limited()
    inner = served.limiter.limit_units("pages", "2 per minute", enforced_percent=0)(dict)

    def view():
        inner()
        with served.limiter.limit_units("pages", "2 per minute"):
            return {}

    tried(served, view=view)
    assert keyed(served, 3) == [200, 200, 429]


# What the app's functions do


def failing(*_):
    raise RuntimeError("no answer")


def turning_away(*_):
    abort(400)


@pytest.mark.parametrize(
    "decorate",
    [
        lambda limiter: limiter.limit("9 per minute", key_func=failing, enforced_percent=0),
        lambda limiter: limiter.limit_tokens("900 per minute", key_func=turning_away, enforced_percent=0),
        lambda limiter: limiter.limit_tokens("900 per minute", estimate=turning_away, enforced_percent=0),
        lambda limiter: limiter.limit_units("pages", "9 per minute", cost=turning_away, enforced_percent=0),
        lambda limiter: limiter.limit("9 per minute", exempt_when=failing, enforced_percent=0),
        lambda limiter: limiter.shared_limit("9 per minute", scope=failing, enforced_percent=0),
        lambda limiter: limiter.limit(failing, enforced_percent=0),
        lambda limiter: limiter.limit(turning_away, enforced_percent=0),
        lambda limiter: limiter.limit(lambda: "many per minute", enforced_percent=0),
    ],
)
@pytest.mark.parametrize("is_alone", [True, False])
def test_function_that_fails_for_a_limit_that_is_only_tried_turns_nobody_away(decorate, is_alone):
    served = limited()
    beside = [] if is_alone else [served.limiter.limit("2 per minute")]
    tried(served, *beside, decorate(served.limiter))
    assert keyed(served, 3) == [200, 200, 200 if is_alone else 429]


def test_key_that_is_ambiguous_for_a_limit_that_is_only_tried_turns_nobody_away():
    served = limited(lambda: "all")
    tried(served, served.limiter.limit("9 per minute", key_func=api_key, enforced_percent=0))
    keys = [("Authorization", "Bearer one"), ("x-api-key", "two")]
    assert served.app.test_client().post("/", json=PROMPT, headers=keys).status_code == 200


# What others see of it


@contextmanager
def settled(app):
    told = []
    with usage_settled.connected_to(lambda _, **facts: told.append(facts), app):
        yield told


def test_route_with_nothing_but_a_trial_tells_no_event_and_writes_no_header():
    served = limited()
    tried(served, served.limiter.limit("9 per minute", enforced_percent=0))
    with settled(served.app) as told:
        assert "x-request-id" not in served.client().post("/", json=PROMPT).headers
    assert told == []


def test_trial_beside_a_limit_by_address_puts_no_stranger_on_a_bill():
    served = limited(address_limits=["9 per minute"])
    tried(served, served.limiter.limit("9 per minute", enforced_percent=0))
    with settled(served.app) as told:
        assert "x-request-id" in served.client().post("/", json=PROMPT).headers
    assert told == []


def test_subject_of_an_event_is_that_of_a_limit_that_holds():
    served = limited()
    other = served.limiter.limit_tokens("900 per minute", key_func=lambda: "other", enforced_percent=0)
    tried(served, other, served.limiter.limit("9 per minute"))
    with settled(served.app) as told, served.app.app_context():
        keyed(served, 1)
        assert told[0]["subject"] == served.limiter.subject("alice").hex()


def test_binding_verdict_is_never_of_what_is_tried():
    served = limited()
    seen = []

    def view():
        seen.append(served.limiter.decision.binding.limit)
        return {}

    limit = served.limiter.limit
    tried(served, limit("2 per minute", enforced_percent=0), limit("50 per minute"), view=view)
    keyed(served, 3)
    assert seen == [50] * 3


def test_handler_of_a_refusal_sees_only_limits_that_hold():
    served = limited()
    seen = []

    @served.app.errorhandler(429)
    def refused(_):
        seen.append(len(served.limiter.current_limits))
        return {}, 429

    limiter = served.limiter
    tried(served, limiter.limit("1 per minute"), limiter.limit_tokens("900 per minute", enforced_percent=0))
    assert keyed(served, 3) == [200, 429, 429]
    assert seen == [1, 1]


def test_limit_of_0_that_is_tried_is_looked_over_by_a_peek():
    served = limited()
    tried(served, served.limiter.limit("0 per minute", enforced_percent=0), served.limiter.limit("5 per minute"))
    assert served.used() == {"requests-per-minute": 0}


def test_clients_see_nothing_of_a_candidate_behind_the_limit_of_a_model():
    plan = {
        "requests": {"limit": "9 per minute", "candidate": "3 per minute"},
        "models": {"a": {"requests": "5 per day"}},
    }
    served = planned({"plans": {"pro": plan}})
    served.app.get("/usage")(served.limiter.usage_view)
    shown = served.app.test_client().get("/usage?inherited=1", headers={"X-User": "7:pro"}).json["limits"]
    assert [[each["limit"] for each in row["inherited"]] for row in shown] == [[], [9]]


def test_function_whose_limits_are_only_tried_leaves_the_current_limits_as_they_are():
    served = limited()
    inner = served.limiter.limit("9 per minute", enforced_percent=0)(dict)
    seen = []

    def view():
        inner()
        seen.append(str(served.limiter.current_limit.limit))
        return {}

    tried(served, served.limiter.limit("5 per minute"), view=view)
    assert keyed(served, 2) == [200, 200]
    assert seen == ["5 per 1 minute"] * 2


def test_app_sees_no_decision_where_nothing_but_a_trial_was_decided():
    served = limited()
    seen = []

    def view():
        seen.append(served.limiter.decision)
        return {}

    tried(served, served.limiter.limit("1 per minute", enforced_percent=0), view=view)
    assert keyed(served, 2) == [200, 200]
    assert seen == [None, None]


def test_clients_are_told_of_no_limit_on_refusals_of_what_is_tried():
    served = limited()
    limit = served.limiter.limit
    tried(served, limit("1 per minute", meta_limits=["3 per day"], enforced_percent=0), limit("5 per minute"))
    assert "w=86400" not in served.client().post("/", json=PROMPT).headers["RateLimit-Policy"]


# Bodies and answers


@pytest.mark.parametrize("is_block", [True, False])
def test_unreadable_body_passes_a_later_limit_on_requests_where_tokens_are_only_tried(is_block):
    served = limited()
    inner = served.limiter.limit("9 per minute")

    def view():
        if not is_block:
            return inner(dict)()
        with inner:
            return {}

    tried(served, served.limiter.limit_tokens("40 per minute", enforced_percent=0), view=view)
    assert served.client().post("/", data=b"{", content_type="application/json").status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        {"data": b"{", "content_type": "application/json"},
        {"data": b'{"model": "a", "model": "b"}', "content_type": "application/json"},
        {"json": {"model": "x" * 300}},
        {"json": [{"model": "a"}, {"model": "b"}]},
        {"json": {"model": 3}},
    ],
)
@pytest.mark.parametrize(("percent", "status"), [(0, {200}), (100, {400, 403})])
def test_body_without_one_model_passes_where_limits_of_models_are_only_tried(sent, percent, status):
    models = {"large-*": {"requests": {"limit": "9 per minute", "enforced_percent": percent}}}
    served = planned({"plans": {"pro": {"requests": "9 per minute", "models": models}}})
    answer = served.app.test_client().post("/", **sent, headers={"X-User": "7:pro"})
    assert answer.status_code in status


def test_model_of_that_fails_turns_nobody_away_where_limits_of_models_are_only_tried():
    models = {"large-*": {"requests": {"limit": "9 per minute", "enforced_percent": 0}}}
    served = planned({"plans": {"pro": {"requests": "9 per minute", "models": models}}}, model_of=failing)
    assert statuses(served, 2) == [200, 200]


def test_what_is_tried_is_deducted_only_when_the_response_says_so():
    served = limited()
    limit = served.limiter.limit(
        "1 per minute", deduct_when=lambda answer: answer.status_code > 299, enforced_percent=0
    )
    tried(served, limit)
    with reported(served.app) as told:
        assert keyed(served, 3) == [200] * 3
    assert told == []


def test_deduct_when_that_fails_for_what_is_only_tried_breaks_no_answer():
    served = limited()
    tried(served, served.limiter.limit("9 per minute", deduct_when=failing, enforced_percent=0))
    assert keyed(served, 2) == [200, 200]
