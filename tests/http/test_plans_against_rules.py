"""Random plan files, payers, models and requests get the verdicts of the rules, written down plainly.

They get them from each store. The slow test asks for many times as many, see its docstring.
"""

import json
import sys
from collections import Counter
from contextlib import closing
from fnmatch import fnmatchcase
from fractions import Fraction
from math import ceil
from pathlib import Path
from random import Random

import pytest
from flask import g, jsonify, request
from limited_apps import limited

from flask_ailimit import Caller, Payer
from flask_ailimit.engine.stores.redis import RedisStore

sys.path.append(str(Path(__file__).parents[1] / "redis"))

from redis_servers import binary_of, start_server

ROLES = ("user", "organisation", "team_2")
PERIODS = ("minute", "hour", "2 hours", "day")
"""None is shorter than a test: Redis forgets what has ended by its own clock, too."""

PATTERNS = ("a*", "*b", "a?", "[ab]*", "ab", "*", "c", "a-*")
NO_LIMITS = ("models", "units", "class", "classes")
MODELS = ("a", "ab", "b", "c", "a-1", "A", "", None, "zzz")
CASES = 60
"""Requests to one app."""

FILES = 1000
"""Plan files of the slow test, for each store."""


class Rules:
    """What a request gets, as docs/plans.md says it. Time stands still, or ten days go by: all is given back.

    Requests come one after the other, so every slot is free.
    """

    def __init__(self, plans):
        self.plans, self.service, self.default = plans["plans"], plans.get("service"), plans.get("default_plan")
        self.used = Counter()

    def decide(self, payers, model, tokens):
        """The status and the code, and what each limit has used then."""
        paying = [(role, payer, self.plans.get(plan) or self.plans.get(self.default)) for role, payer, plan in payers]
        if any(plan is None for _, _, plan in paying):
            return 503, "limiter_unavailable", None
        floor = self.floor_of(plan for _, _, plan in paying)
        limits = []
        for role, payer, plan in [*paying, *([("service", "", self.service)] if self.service else [])]:
            limits += [(role, payer, "plan", unit, text) for unit, text in limits_in(plan)]
            pattern, rule = self.rule_of(plan, model)
            if rule is False:
                return 403, "model_not_allowed", None
            limits += [(role, payer, f"plan/models/{pattern}", unit, text) for unit, text in limits_in(rule)]
        if any(str(text).startswith("0") for *_, text in limits):
            return 403, "not_allowed", None
        return self.charge(limits, tokens, floor)

    def floor_of(self, plans):
        """The percent that a request leaves to others: the most that a plan of one of its payers says."""
        classes = (self.service or {}).get("classes", {})
        return max((classes[plan["class"]] for plan in plans if "class" in plan), default=0)

    def may_be_refused_unread(self, payers):
        """Whether a limit over all models refuses, whatever the body is: then its model may not be looked at."""
        paying = [(role, payer, self.plans.get(plan) or self.plans.get(self.default)) for role, payer, plan in payers]
        floor = self.floor_of(plan for _, _, plan in paying)
        for role, payer, plan in [*paying, *([("service", "", self.service)] if self.service else [])]:
            for unit, text in limits_in(plan):
                limit = (role, payer, "plan", unit, text)
                if unit in ("requests", "pages") and text != "unlimited" and not self.fits(limit, 1, floor):
                    return True
        return False

    def fits(self, limit, cost, floor):
        """Whether so much fits, and leaves what it must to others if it ever can."""
        kept = min(kept_of(limit, floor), max(0, number_in(limit) - cost))
        return self.used[count_of(limit)] + cost + kept <= number_in(limit)

    def charge(self, limits, tokens, floor):
        held = [limit for limit in limits if limit[3] != "concurrency" and limit[4] != "unlimited"]
        costs = {"requests": 1, "tokens": tokens, "output_tokens": tokens, "input_tokens": 1, "pages": 1}
        if not all(self.fits(limit, costs[limit[3]], floor) for limit in held):
            return 429, None, None
        used = {limit: self.used[count_of(limit)] + costs[limit[3]] + kept_of(limit, floor) for limit in held}
        seen = [[*limit[:1], *limit[2:4], str(number_in(limit)), min(used[limit], number_in(limit))] for limit in held]
        for limit in held:
            self.used[count_of(limit)] += {**costs, "input_tokens": 0, "pages": 3}[limit[3]]
        return 200, None, sorted(seen)

    def rule_of(self, plan, model):
        """The pattern of a plan that the model matches, and what the plan says of it."""
        models = plan.get("models", {})
        matching = [each for each in models if (fnmatchcase(model, each) if model else each == "*")]
        if isinstance(models, list):
            return (matching[0], {}) if matching else (None, False)
        rule = models[matching[0]] if matching else {}
        return (matching[0] if matching else None), ({} if rule is True else rule)


def count_of(limit):
    """The count of a limit, which goes on under a plan with another number."""
    return *limit[:4], limit[4].split(" per ")[1]


def kept_of(limit, floor):
    """The units of a limit that so many percent are, rounded up."""
    return ceil(Fraction(number_in(limit) * floor, 100)) if limit[0] == "service" else 0


def number_in(limit):
    return int(limit[4].split()[0])


def limits_in(table):
    """The single limits of a plan or of a model, each a unit and a text."""
    for unit, given in table.items():
        value = given["limit"] if isinstance(given, dict) and unit not in NO_LIMITS else given
        if unit in NO_LIMITS:
            yield from limits_in(value) if unit == "units" else ()
            continue
        if unit == "concurrency":
            yield unit, value
        else:
            yield from ((unit, text.strip()) for text in str(value).split(";"))


def some_limits(random):
    """A table of limits, each of another period, so that no two are one count."""
    table = {}
    for unit in random.sample(
        ("requests", "tokens", "output_tokens", "input_tokens", "concurrency", "units"), random.randint(1, 3)
    ):
        least = {"requests": 1, "tokens": 5, "output_tokens": 5}.get(unit, 1)
        texts = [
            f"{random.randint(least, 9 * least)} per {each}"
            for each in random.sample(PERIODS, random.choice((1, 1, 2)))
        ]
        table[unit] = random.choices(["; ".join(texts), {"limit": texts[0]}, "unlimited", 0], (9, 2, 1, 0.3))[0]
        if unit == "concurrency":
            table[unit] = random.choice((0, 1, 3, {"limit": 2, "lease": 9}, "unlimited"))
        elif unit == "units":
            table[unit] = {"pages": texts[0]}
    return table


def some_models(random):
    patterns = random.sample(PATTERNS, random.randint(1, 4))
    patterns = patterns[: patterns.index("*") + 1] if "*" in patterns else patterns  # No pattern may follow it.
    if random.random() < 0.4:
        return patterns
    return {each: random.choice((True, False, some_limits(random), some_limits(random))) for each in patterns}


def some_plan(random):
    plan = some_limits(random)
    return plan | {"models": some_models(random)} if random.random() < 0.6 else plan


def some_plans(random):
    plans = {"plans": {name: some_plan(random) for name in ("free", "pro", "team")}}
    if random.random() < 0.5:
        plans["service"] = some_plan(random)
        limits = [unit for unit, text in limits_in(plans["service"]) if text != "unlimited"]
        if limits and random.random() < 0.6:
            plans["service"]["classes"] = {"first": 0, "batch": random.choice((1, 20, 50, 100)), "night": 70}
            for plan in random.sample([*plans["plans"].values()], 2):
                plan["class"] = random.choice(("first", "batch", "night"))
    if random.random() < 0.7:
        plans["default_plan"] = "free"
    return plans


def some_payers(random):
    roles = random.sample(ROLES, random.choice((1, 1, 2, 3)))
    plan = lambda: random.choices(("free", "pro", "team", "gone", None), (5, 5, 5, 1, 1))[0]  # noqa: E731
    return [(role, random.choice(("7", "9")), plan()) for role in roles]


def toml(value):
    """A value in a line of TOML, which JSON's strings, numbers and lists are already."""
    if not isinstance(value, dict):
        return json.dumps(value)
    return f"{{ {', '.join(f'{json.dumps(key)} = {toml(each)}' for key, each in value.items())} }}"


@pytest.fixture(scope="module")
def valkey():
    with closing(start_server(binary_of("valkey"))) as server:
        yield server


@pytest.fixture
def stored(request, tmp_path):
    """Where the counts of an app are to be, by the name of the kind; there are none yet."""

    def place(kind, number):
        if kind != "valkey":
            return {"storage_uri": "memory://" if kind == "memory" else f"local://{tmp_path}/{number}"}
        server = request.getfixturevalue("valkey")
        server.clear()
        return {"storage_uri": server.uri, "storage_options": {"timeout": 3}, "secret": "x" * 32}

    return place


def app_of(plans, file, stored):
    """An app that is limited by a plan file, and whose answers say what each limit has used."""
    file.write_text("\n".join(f"{key} = {toml(value)}" for key, value in plans.items()))
    served = limited(None, plans=str(file), **stored)
    if isinstance(served.limiter.engine.store, RedisStore):
        served.limiter.engine.store._clock = served.clock  # Otherwise the server tells the time itself.
    served.limiter.identify(lambda: Caller(**{role: Payer(name, plan) for role, name, plan in g.payers}))

    @served.app.post("/<path:_>")
    @served.limiter.limit_by_plan()
    def view(_):
        served.limiter.record_usage(output_tokens=request.json["max_tokens"], units={"pages": 3})
        subjects = {served.limiter.engine.subject(role, name): role for role, name, _ in g.payers}
        subjects[served.limiter.engine.subject("service", "")] = "service"
        return jsonify(
            sorted(
                [subjects[each.charge.subject], each.charge.scope, each.quota.unit, str(each.quota.limit), each.used]
                for each in (served.limiter.decision.verdicts if served.limiter.decision else ())
                if each.quota.unit != "concurrency"
            )
        )

    return served


def compare(seed, file, stored):
    """Ask an app, whose plans none other has, and the rules the same; how many got which status."""
    random, seen = Random(seed), Counter()
    plans = some_plans(random)
    rules, served = Rules(plans), app_of(plans, file, stored)
    served.app.before_request(lambda: setattr(g, "payers", now))
    client = served.client()
    for number in range(CASES):
        if random.random() < 0.05:
            served.clock.advance(10 * 86_400)
            rules.used.clear()
        now, model, tokens = some_payers(random), random.choice(MODELS), random.choice((1, 2, 5, 30))
        body = {"prompt": "", "max_tokens": tokens} | ({} if model is None else {"model": model})
        answered = client.post(f"/{random.choice('ab')}", json=body)
        status, code, used = rules.decide(now, model, tokens)
        seen[answered.status_code] += 1
        if answered.status_code == 429 and status == 403:
            assert rules.may_be_refused_unread(now)
            continue
        where = (seed, number, plans, now, body, answered.text)
        assert {413: 429}.get(answered.status_code, answered.status_code) == status, where
        assert code is None or answered.json["error"]["code"] == code, where
        assert used is None or answered.json == used, where
    served.limiter.engine.close()
    return seen


@pytest.mark.parametrize(
    ("kind", "seeds"),
    [
        *(("memory", range(first, first + 20)) for first in range(0, 80, 20)),
        ("local", range(80, 82)),
        pytest.param("valkey", range(82, 86), marks=pytest.mark.server),
    ],
)
def test_verdicts_and_counts_are_those_of_the_rules(kind, seeds, stored, tmp_path):
    for seed in seeds:
        compare(seed, tmp_path / "plans.toml", stored(kind, seed))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["memory", "local", pytest.param("valkey", marks=pytest.mark.server)])
def test_verdicts_and_counts_are_those_of_the_rules_for_many_plan_files(kind, stored, tmp_path):
    """Every kind of answer is among them."""
    seen = Counter()
    for seed in range(1000, 1000 + FILES):
        seen += compare(seed, tmp_path / "plans.toml", stored(kind, seed))
    assert set(seen) == {200, 403, 413, 429, 503}
    assert seen.total() == FILES * CASES
