"""``flask ailimit import``: a plan file means what the JSON of LiteLLM, OpenAI or Anthropic means."""

import json
import re
import tomllib

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_ailimit import UNLIMITED, ConfigurationError
from flask_ailimit.cli import cli
from flask_ailimit.engine import parse_quotas
from flask_ailimit.limits.plans.importing.imported import plan_file_of
from flask_ailimit.limits.plans.plan_file import read_plans

REQUESTS_A_MINUTE, REQUESTS_A_DAY = ("requests", 60), ("requests", 86400)
TOKENS_A_MINUTE, TOKENS_A_DAY = ("tokens", 60), ("tokens", 86400)
NOTHING = "nothing"


def imported(value, **options):
    """The plan file of a JSON, and its plans."""
    text = plan_file_of("limits.json", json.dumps(value).encode(), **options)
    return text, read_plans(tomllib.loads(text), "", "sliding-window-counter").plans


def meaning(limits):
    """What limits of a plan mean: amounts by unit and period."""
    found = {}
    for limit in limits:
        if limit.value is UNLIMITED:
            continue
        if limit.unit == "concurrency":
            found["concurrency"] = limit.value
        elif limit.value == "0 per second":
            found[limit.unit] = NOTHING
        else:
            found |= {(limit.unit, each.period): each.limit for each in parse_quotas(limit.value, unit=limit.unit)}
    return found


def meant(amounts):
    """The same of amounts by unit and period: None is no limit, and 0 of a unit is nothing of it."""
    nothing = {key[0] for key, amount in amounts.items() if amount == 0 and key != "concurrency"}
    found = dict.fromkeys(nothing, NOTHING)
    for key, amount in amounts.items():
        if amount is not None and (key == "concurrency" or key[0] not in nothing):
            found[key] = amount
    return found


def of_model(plan, model):
    """What the plan means for a model, besides the limits of all: None if it doesn't have it."""
    rule = plan.rule_for(model)
    if not plan.has(rule):
        return None
    return {} if rule is None else meaning(rule.limits)


AMOUNTS = st.one_of(st.none(), st.integers(0, 10**9), st.sampled_from([0, 1, 60, 500]))
MODELS = st.one_of(
    st.sampled_from(
        ["gpt-4o", "gpt-4o-mini", "openai/gpt-5", "claude-opus-4-1", "ü", "a b", 'q"\\', "x[1]", "y*", "z?", "#"]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8),
)


@st.composite
def openai_lists(draw):
    fields = {
        "max_requests_per_1_minute": AMOUNTS,
        "max_tokens_per_1_minute": AMOUNTS,
        "max_requests_per_1_day": AMOUNTS,
        "max_images_per_1_minute": AMOUNTS,
        "batch_1_day_max_input_tokens": AMOUNTS,
    }
    data = [
        {
            "object": "project.rate_limit",
            "id": f"rl-{model}",
            "model": model,
            **draw(st.fixed_dictionaries({}, optional=fields)),
        }
        for model in draw(st.lists(MODELS, min_size=1, max_size=5, unique=True))
    ]
    return data, draw(st.sampled_from([data, {"object": "list", "data": data, "has_more": False}]))


@settings(deadline=None)
@given(openai_lists(), MODELS)
def test_project_of_openai_means_the_same_in_a_plan(lists, unlisted):
    data, wrapped = lists
    text, plans = imported(wrapped)
    assert [*plans] == ["project"]
    for each in data:
        amounts = {
            REQUESTS_A_MINUTE: each.get("max_requests_per_1_minute"),
            REQUESTS_A_DAY: each.get("max_requests_per_1_day"),
            TOKENS_A_MINUTE: each.get("max_tokens_per_1_minute"),
        }
        assert of_model(plans["project"], each["model"]) == meant(amounts)
        for field in ("max_images_per_1_minute", "batch_1_day_max_input_tokens"):
            if each.get(field) is not None:
                assert f"# Not carried over: {field}: {each[field]}.\n" in text
    if unlisted not in [each["model"] for each in data]:
        assert of_model(plans["project"], unlisted) is None


NAMED = {
    "budget_id": st.one_of(st.none(), st.sampled_from(["free", "pro", "my tier", "ü"])),
    "rpm_limit": st.integers(0, 9),
}
LITELLM = {
    "tpm_limit": AMOUNTS,
    "max_parallel_requests": st.one_of(st.none(), st.integers(0, 10**4)),
    "max_budget": st.one_of(st.none(), st.floats(0, 100)),
    "budget_duration": st.one_of(st.none(), st.sampled_from(["30d", "1mo"])),
    "models": st.one_of(
        st.none(), st.lists(st.one_of(MODELS, st.sampled_from(["openai/*", "all-proxy-models"])), max_size=4)
    ),
    "model_rpm_limit": st.one_of(
        st.none(), st.dictionaries(MODELS, st.one_of(st.none(), st.integers(0, 999)), max_size=3)
    ),
    "model_tpm_limit": st.one_of(st.none(), st.dictionaries(MODELS, st.integers(0, 999), max_size=3)),
    "spend": st.floats(0, 9),
    "metadata": st.one_of(st.none(), st.just({})),
}


def is_allowed(model, models):
    """As LiteLLM says it: no list allows all, and a star stands for anything."""
    if not models or "all-proxy-models" in models or "*" in models:
        return True
    return any(re.fullmatch(re.escape(each).replace(r"\*", ".*"), model) for each in models)


@settings(deadline=None)
@given(st.fixed_dictionaries(NAMED, optional=LITELLM), MODELS)
def test_budget_of_litellm_means_the_same_in_a_plan(budget, model):
    text, plans = imported(budget)
    (plan,) = plans.values()
    of_all = {
        REQUESTS_A_MINUTE: budget["rpm_limit"],
        TOKENS_A_MINUTE: budget.get("tpm_limit"),
        "concurrency": budget.get("max_parallel_requests"),
    }
    assert meaning(plan.limits) == meant(of_all)
    rpm, tpm = budget.get("model_rpm_limit") or {}, budget.get("model_tpm_limit") or {}
    models = budget.get("models")
    for each in {model, *rpm, *tpm, *(name for name in models or () if "*" not in name)} - {"all-proxy-models"}:
        expected = meant({REQUESTS_A_MINUTE: rpm.get(each), TOKENS_A_MINUTE: tpm.get(each)})
        assert of_model(plan, each) == (expected if is_allowed(each, models) else None), each
    assert ("# Not carried over: max_budget: " in text) == (budget.get("max_budget") is not None)
    assert ("# Not carried over: budget_duration: " in text) == (budget.get("budget_duration") is not None)


ANTHROPIC = {
    "requests_per_minute": REQUESTS_A_MINUTE,
    "input_tokens_per_minute": ("input_tokens", 60),
    "input_tokens_per_minute_cache_aware": ("input_tokens", 60),
    "output_tokens_per_minute": ("output_tokens", 60),
    "tokens_per_minute": TOKENS_A_MINUTE,
    "tokens_per_day": TOKENS_A_DAY,
    "fast_otpm": None,
    "tool_uses_per_second": None,
}
FAMILIES = ["claude-opus-4", "claude-opus-4-5", "claude-sonnet-4", "claude-sonnet", "claude-3-haiku", "x*", "c"]


@st.composite
def anthropic_lists(draw):
    """Groups of models, whose names no other group has."""
    data, taken = [], set()
    for family in draw(st.lists(st.sampled_from(FAMILIES), min_size=1, max_size=4, unique=True)):
        endings = draw(
            st.lists(st.sampled_from(["", "-0", "-20250514", "-latest", "-5"]), min_size=1, max_size=3, unique=True)
        )
        models = [model for model in (family + ending for ending in endings) if model not in taken]
        taken.update(models)
        limits = draw(st.dictionaries(st.sampled_from([*ANTHROPIC]), st.integers(0, 10**7), max_size=5))
        data.append(
            {
                "type": "rate_limit",
                "id": f"rl_{family}",
                "group": {"type": "model_group", "id": f"rlg_{family}", "display_name": family},
                "models": models or ["only-" + family],
                "limits": [{"type": kind, "value": value} for kind, value in limits.items()],
            }
        )
    batch = {"type": "rate_limit", "group": {"type": "batch"}, "models": None}
    if draw(st.booleans()):
        data.append({**batch, "limits": [{"type": "requests_per_minute", "value": 7}]})
    return data


@settings(deadline=None)
@given(anthropic_lists())
def test_organization_of_anthropic_means_the_same_in_a_plan(data):
    text, plans = imported({"data": data, "next_page": None})
    (plan,) = plans.values()
    for entry in data:
        if entry["models"] is None:
            assert "# Not carried over: group 'batch': 7 requests a minute.\n" in text
            continue
        amounts = {}
        for limit in entry["limits"]:
            if key := ANTHROPIC[limit["type"]]:
                amounts[key] = min(limit["value"], amounts.get(key, limit["value"]))
            else:
                assert f"# Not carried over: {limit['type']}: {limit['value']}.\n" in text
        patterns = {plan.rule_for(model).pattern for model in entry["models"]}
        for model in entry["models"]:
            assert of_model(plan, model) == meant(amounts)
        # One pattern is one count, as the group has it; if there is none, it is said.
        assert len(patterns) in (1, len(entry["models"]))
        if len(patterns) > 1:
            assert f"shares its counts with {len(entry['models']) - 1} others of its group" in text
    assert of_model(plan, "gemini") is None


def test_models_of_a_group_share_a_pattern_that_no_other_group_needs():
    def group(*models):
        limits = [{"type": "requests_per_minute", "value": len(models)}]
        return {"type": "rate_limit", "group": {"type": "model_group"}, "models": models, "limits": limits}

    data = [
        group("claude-opus-4", "claude-opus-4-1"),
        group("claude-opus-4-5", "claude-opus-4-5-20251101"),
        group("haiku"),
    ]
    _, plans = imported({"data": data})
    patterns = [rule.pattern for rule in plans["organization"].models]
    assert patterns == ["haiku", "claude-opus-4-5*", "claude-opus-4*", "*"]


def test_workspace_of_anthropic_is_a_plan_beside_that_of_its_organization():
    def limit(kind, value, source, organization):
        return {"type": kind, "value": value, "source": {"type": source}, "org_limit": organization}

    entry = {
        "type": "workspace_rate_limit",
        "workspace_id": "wrkspc_01",
        "rate_limit_id": "rl_1",
        "group": {"type": "model_group", "id": "rlg_1", "display_name": "Claude Opus 4"},
        "models": ["claude-opus-4"],
        "limits": [
            limit("requests_per_minute", 50, "workspace", 400),
            limit("output_tokens_per_minute", 8000, "organization", 8000),
            limit("tokens_per_day", 9, "workspace", None),
        ],
    }
    _, plans = imported({"data": [entry], "next_page": None})
    assert [*plans] == ["organization", "wrkspc_01"]
    assert of_model(plans["organization"], "claude-opus-4") == {REQUESTS_A_MINUTE: 400, ("output_tokens", 60): 8000}
    assert of_model(plans["wrkspc_01"], "claude-opus-4") == {REQUESTS_A_MINUTE: 50, TOKENS_A_DAY: 9}
    assert of_model(plans["wrkspc_01"], "claude-haiku") == {}  # The organization's limits hold for it.


KEY = {"token": "hash-of-a-key", "key_name": "sk-...canary", "key_alias": None, "rpm_limit": None, "tpm_limit": 9}


def test_key_of_litellm_has_the_limits_of_its_budget_where_it_has_none():
    budget = {"budget_id": "gold", "rpm_limit": 7, "tpm_limit": 8, "max_parallel_requests": 2}
    key = {**KEY, "budget_id": "gold", "litellm_budget_table": budget, "metadata": {"model_rpm_limit": {"a": 3}}}
    text, plans = imported({"key": "sk-canary", "info": key})
    assert meaning(plans["gold"].limits) == {REQUESTS_A_MINUTE: 7, TOKENS_A_MINUTE: 9, "concurrency": 2}
    assert of_model(plans["gold"], "a") == {REQUESTS_A_MINUTE: 3}
    assert "canary" not in text
    assert "hash-of-a-key" not in text


@pytest.mark.parametrize(
    "owner",
    [
        KEY,
        {**KEY, "tpm_limit": None},
        {"key_alias": "ann"},
        {"team_id": "1b9"},
        {"user_id": "u"},
        {"organization_id": "o"},
        {"rpm_limit": None},
        {"litellm_budget_table": None},
    ],
    ids=str,
)
def test_budget_whose_limits_nobody_knows_is_refused_and_opens_nothing(owner):
    data = json.dumps({"keys": [{**owner, "budget_id": "gold"}]}).encode()
    with pytest.raises(ConfigurationError) as raised:
        plan_file_of("limits.json", data)
    expected = "limits.json: keys[0].budget_id: the limits of the budget 'gold' are not in the JSON, and nobody knows"
    assert str(raised.value).startswith(expected)


def test_key_has_the_limits_of_a_budget_that_stands_elsewhere_in_the_list():
    silver = {"budget_id": "silver", "rpm_limit": 70, "tpd_limit": 80}
    gold = {"budget_id": "gold", "rpm_limit": 7, "max_parallel_requests": 2}
    _, plans = imported([{**KEY, "budget_id": "gold"}, silver, gold, {"user_id": "u", "budget_id": "silver"}])
    assert meaning(plans["gold"].limits) == {REQUESTS_A_MINUTE: 7, TOKENS_A_MINUTE: 9, "concurrency": 2}
    assert meaning(plans["silver"].limits) == {REQUESTS_A_MINUTE: 70, TOKENS_A_DAY: 80}
    assert [*plans] == ["gold", "silver", "gold-2"]  # The user has what its budget has.


def test_limits_in_the_metadata_of_a_key_are_none():
    """Anybody may write anything there. LiteLLM takes the limits of models from it, and no others."""
    _, plans = imported({**KEY, "metadata": {"rpm_limit": 1, "model_rpm_limit": {"a": 3}}})
    (plan,) = plans.values()
    assert meaning(plan.limits) == {TOKENS_A_MINUTE: 9}
    assert of_model(plan, "a") == {REQUESTS_A_MINUTE: 3}


@pytest.mark.parametrize("without", [{"max_budget": 5.0}, {"rpm_limit": None, "key_alias": "ann"}, {"models": ["a"]}])
def test_plan_without_a_limit_says_that_it_is_open(without):
    text, plans = imported({"budget_duration": None, "max_budget": 1.0, **without})
    assert all(meaning(plan.limits) == {} for plan in plans.values())
    warned = run(given=json.dumps({"max_budget": 1.0, **without}))[2]
    assert warned == (
        f"Warning: standard input: the plan {next(iter(plans))} is open: "
        "there was no limit that a plan file can have. Write one.\n"
    )
    assert '# There was no limit that a plan file can have. Without one, this plan is open.\nrequests = "unl' in text


def test_team_of_a_key_is_named_as_what_limits_it_too():
    text, _ = imported({**KEY, "team_id": "1b9"})
    assert "# Not carried over: the limits of its team, which hold for a key, too.\n" in text
    assert "team" not in imported(KEY)[0]


def test_keys_of_one_tier_are_one_plan_and_other_keys_have_other_names():
    tier = {"budget_id": "gold", "litellm_budget_table": {"rpm_limit": 7}}
    keys = [
        {**KEY, **tier},
        {**KEY, **tier},
        {**KEY, **tier, "rpm_limit": 1},
        KEY,
    ]
    _, plans = imported({"keys": keys, "total_count": 4}, name="old")
    assert [*plans] == ["gold", "gold-2", "old"]


def test_team_of_litellm_is_named_as_it_is():
    team = {"team_id": "1b9", "team_info": {"team_id": "1b9", "team_alias": "Blue team", "rpm_limit": 7}, "keys": [KEY]}
    text, plans = imported(team)
    assert [*plans] == ["Blue-team"]
    assert "# Not carried over: the name 'Blue team'.\n" in text


def test_budget_of_money_alone_loads_and_says_so():
    text, plans = imported({"budget_id": "cheap", "max_budget": 5.0, "budget_duration": "30d"})
    assert meaning(plans["cheap"].limits) == {}
    assert "# Not carried over: max_budget: 5.0.\n# Not carried over: budget_duration: '30d'.\n" in text


def test_amount_that_can_not_be_counted_is_said():
    text, plans = imported({"budget_id": "b", "tpm_limit": 2**63 - 1, "rpm_limit": 5, "max_parallel_requests": 10**5})
    assert meaning(plans["b"].limits) == {REQUESTS_A_MINUTE: 5}
    assert "# Not carried over: tokens: 9223372036854775807 a minute, more than can be counted.\n" in text
    assert "# Not carried over: calls in flight: 100000, more than the 10000 that can be counted.\n" in text


def test_further_pages_are_missed():
    data = [{"object": "project.rate_limit", "model": "a", "max_requests_per_1_minute": 1}]
    text, _ = imported({"object": "list", "data": data, "has_more": True})
    assert "# Not carried over: what the next pages list (has_more is set).\n" in text


@pytest.mark.parametrize("odd", ["a\nb = 1", "a\u2028b", "\ud800", "x" * 300])
def test_name_that_no_model_has_is_left_out_and_opens_nothing(odd):
    limits = {"object": "project.rate_limit", "max_requests_per_1_minute": 1}
    text, plans = imported([{**limits, "model": odd, "x\ny": "\nz"}, {**limits, "model": "a", "x\ny": "\nz"}])
    assert [rule.pattern for rule in plans["project"].models] == ["a", "*"]
    assert "no model can have this name" in text
    text.encode()


OPENAI = {"object": "project.rate_limit", "model": "a"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (b"", "limits.json: it can't be read as JSON: Expecting value"),
        (b"\xff", "limits.json: it is not written in UTF-8 (at byte 0)."),
        (b"[" * 100_000, "limits.json: it can't be read as JSON: it is nested too deep."),
        (b"9" * 5000, "limits.json: it can't be read as JSON: "),
        (b"7", "limits.json: an object is needed. Got a number."),
        (b"[]", "limits.json: its list of limits is empty."),
        (b'{"keys": ["sk-canary"]}', "limits.json: keys[0]: an object is needed. Got a text."),
        ({"error": "canary"}, "limits.json: it is none of the JSON that can be imported. That is what LiteLLM says"),
        ([OPENAI, {"rpm_limit": 1}], "limits.json: it is none of the JSON that can be imported."),
        (
            {**OPENAI, "max_requests_per_1_minute": -1},
            "limits.json: max_requests_per_1_minute: a whole number is needed, 0 or more. Got -1.",
        ),
        ({"data": [{**OPENAI, "model": None}]}, "limits.json: data[0].model: the name of a model is needed."),
        ({"rpm_limit": 1.5}, "limits.json: rpm_limit: a whole number is needed, 0 or more. Got 1.5."),
        ({"rpm_limit": True}, "limits.json: rpm_limit: a whole number is needed, 0 or more. Got true."),
        ({"rpm_limit": 1, "models": "a"}, "limits.json: models: a list is needed. Got 'a'."),
        ({"rpm_limit": 1, "models": [1]}, "limits.json: models[0]: a text is needed. Got 1."),
        ({"rpm_limit": 1, "model_rpm_limit": []}, "limits.json: model_rpm_limit: an object is needed. Got a list."),
        (
            {"type": "rate_limit", "limits": [{"value": 1}]},
            "limits.json: limits[0].type: the type of a limit is needed",
        ),
        ({"type": "workspace_rate_limit", "limits": []}, "limits.json: it has no limit."),
    ],
    ids=str,
)
def test_what_can_not_be_imported_is_said_in_a_sentence(given, sentence):
    data = given if isinstance(given, bytes) else json.dumps(given).encode()
    with pytest.raises(ConfigurationError) as raised:
        plan_file_of("limits.json", data)
    assert str(raised.value).startswith(sentence)
    assert "canary" not in str(raised.value)


SEEDS = [
    {"data": [{**OPENAI, "max_requests_per_1_minute": 5, "id": "rl"}], "has_more": True},
    {
        "data": [
            {
                "type": "rate_limit",
                "group": {"type": "model_group"},
                "models": ["a"],
                "limits": [{"type": "x", "value": 1}],
            }
        ]
    },
    {"key": "sk", "info": {**KEY, "litellm_budget_table": {"rpm_limit": 1}, "models": ["a"], "metadata": {}}},
]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-1, 10**20), st.floats(allow_nan=False), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=4), inner, max_size=2)),
    max_leaves=4,
)


def places_in(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places_in(value[key], (*path, key))


def put(value, path, other):
    if not path:
        return other
    copy = value.copy()
    copy[path[0]] = put(value[path[0]], path[1:], other)
    return copy


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        JSON,
        st.sampled_from(SEEDS).flatmap(
            lambda seed: st.builds(put, st.just(seed), st.sampled_from([*places_in(seed)]), JSON)
        ),
    )
)
def test_whatever_json_says_it_is_imported_or_refused_in_a_sentence(value):
    wrong = ""
    try:
        imported(value)
    except ConfigurationError as error:
        wrong = str(error)
    assert re.fullmatch(r"|limits\.json[^\n]{5,400}\.", wrong), wrong


def run(*arguments, given=None):
    ran = Flask("none").test_cli_runner().invoke(cli, ["import", *arguments], input=given)
    return ran.exit_code, ran.stdout, ran.stderr


def test_command_reads_a_file_or_the_standard_input(tmp_path):
    (tmp_path / "limits.json").write_text('{"rpm_limit": 5}', encoding="utf-8")
    expected = '# Imported from LiteLLM by: flask ailimit import\n\n[plans.imported]\nrequests = "5 per minute"\n'
    assert run(str(tmp_path / "limits.json")) == (0, expected, "")
    assert run(given='{"rpm_limit": 5}') == run("-", given='{"rpm_limit": 5}') == (0, expected, "")
    assert run("--plan", "old", given='{"rpm_limit": 5}') == (0, expected.replace("imported", "old"), "")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"data": [{**OPENAI, "max_requests_per_1_minute": 1}], "has_more": True}, "has_more is set"),
        ({"data": [{**OPENAI, "max_requests_per_1_minute": 1}], "next_page": "xyz"}, "next_page is set"),
        ({"keys": [{"rpm_limit": 1}], "current_page": 1, "total_pages": 3}, "it is page 1 of 3"),
    ],
    ids=str,
)
def test_command_warns_of_a_list_that_is_not_whole(given, why):
    status, printed, error = run(given=json.dumps(given))
    assert status == 0
    assert f"# Not carried over: what the next pages list ({why}).\n" in printed
    assert error == (
        f"Warning: standard input: the list is incomplete: {why}. "
        "Import all pages as one list, or what they list is missing.\n"
    )
    whole = {**given, "has_more": False, "next_page": None, "current_page": 3}
    assert run(given=json.dumps(whole))[2] == ""


def test_command_says_what_is_wrong_in_one_line(tmp_path):
    status, printed, error = run(given="{}")
    assert (status, printed, len(error.splitlines())) == (1, "", 1)
    assert error.startswith("Error: standard input: it is none of the JSON")
    assert run(str(tmp_path / "none")) == (1, "", f"Error: {tmp_path}/none can't be read: No such file or directory.\n")
    assert run("--plan", "two words", given='{"rpm_limit": 5}')[2].startswith("Error: name: 1 to 64 letters")
