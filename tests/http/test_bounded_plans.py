"""Models, payers and names of plans that clients make up leave no labels, no logs and no memory behind."""

import functools
import gc
import inspect
import json
import sys
from collections import Counter, deque
from contextlib import closing
from io import BytesIO

import pytest
from limited_apps import limited
from werkzeug.test import create_environ

from flask_ailimit import Caller, Payer
from flask_ailimit.engine.stores.redis import scripts
from flask_ailimit.signals import request_refused, usage_settled

MOST_COUNTS = 1_000
FEW = 400
MANY = 100_000
SOME = 1_000
"""What there may be more after a second half of the many."""

CONTAINERS = (dict, list, set, deque)

PLANS = {
    "default_plan": "free",
    "plans": {
        "free": {
            "requests": "20 per minute",
            "tokens": "900000 per minute",
            "concurrency": 2,
            "models": {"small-*": True, "large-*": {"tokens": "90000 per minute"}, "*": {"requests": "5 per minute"}},
        },
        "once": {"requests": "1 per minute", "models": {"*": {"tokens": "900000 per minute"}}},
        "daily": {"requests": "1 per day", "models": {"*": {"tokens": "900000 per day"}}},
        "listed": {"requests": "900000 per minute", "models": ["small-*", "large-*"]},
    },
    "service": {"concurrency": 64},
}


def models(number):
    """They match each pattern, or none. What matches none, the organisation may not use."""
    organisation = Payer("9", plan="listed") if number % 2 else None
    model = f"{('small', 'large', 'made')[number % 3]}-up-{number}"
    return Caller(user=Payer("7", label="Ann"), organisation=organisation), model


def payers(number):
    """Of each organisation two users come, and it is refused the second time."""
    return Caller(user=Payer(f"made-up-{number}"), organisation=Payer(f"made-up-{number // 2}", plan="once")), "any"


def payers_of_a_day(number):
    """Their counts stay for longer than there is room for."""
    return Caller(user=Payer(f"made-up-{number}", plan="daily")), "any"


def plans(number):
    return Caller(user=Payer("7", plan=f"made-up-{number}", label="Ann")), "small-1"


def by_name(*made_up):
    return pytest.mark.parametrize("made_up", made_up, ids=lambda each: each.__name__)


class Served:
    """An app whose requests bring what is made up; each comes six seconds after the one before.

    Attributes:
        labels: How many events had which plan, label, model, limit and scope.
        statuses: How many answers had which status.
        with_ids: Of the first few events, those that have an id where there should be its hash.
    """

    def __init__(self, made_up):
        self.labels, self.statuses, self.with_ids = Counter(), Counter(), []
        served = limited(None, plans=PLANS, storage_options={"max_counts": MOST_COUNTS})
        self.limiter, self._app, self._clock = served.limiter, served.app, served.clock
        self._environ = create_environ("/", method="POST", content_type="application/json")
        self._made_up, self._number = made_up, 0
        served.limiter.identify(lambda: self._caller)

        @served.app.post("/")
        @served.limiter.limit_by_plan()
        def view():
            return {"usage": {"prompt_tokens": 2, "completion_tokens": 3}}

        for signal in (usage_settled, request_refused):
            signal.connect(self._count, served.app)

    @property
    def counts(self):
        return self.limiter.engine.store._counts

    def ask(self, many):
        """As a server calls the app: a test client would take longer than all that is tried here."""
        for _ in range(many):
            self._number += 1
            self._caller, model = self._made_up(self._number)
            body = json.dumps({"model": model, "prompt": "a", "max_tokens": 5}).encode()
            received = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body)}
            with closing(self._app(self._environ | received, self._note)) as answer:
                b"".join(answer)
            self._clock.advance(6)

    def _note(self, status, _):
        self.statuses[status] += 1

    def _count(self, _, *, plan, label, model, endpoint, decision, **facts):
        if self._number <= FEW and "-up-" in repr({**facts, "decision": decision}):
            self.with_ids.append(facts)
        self.labels[plan, label, model, endpoint] += 1
        for verdict in decision.verdicts:
            self.labels[verdict.quota.name, verdict.charge.scope] += 1


@by_name(models, payers, payers_of_a_day, plans)
def test_what_is_made_up_is_no_label_and_no_count_of_its_own(made_up, caplog):
    served = Served(made_up)
    served.ask(FEW // 2)
    labels = {*served.labels}
    served.ask(FEW // 2)
    assert {*served.labels} == labels
    assert 3 <= len(labels) <= 12
    assert not any("-up-" in str(part) for label in labels for part in label)
    assert served.with_ids == []
    assert served.statuses["200 OK"] >= FEW / 3
    assert served.counts <= MOST_COUNTS
    assert len(caplog.records) <= 20


def test_each_cache_of_results_is_bounded():
    """Only the scripts for Redis are kept without a bound, by the names of their files."""
    caches = [each for each in gc.get_objects() if isinstance(each, functools._lru_cache_wrapper)]
    ours = [each for each in caches if (each.__module__ or "").startswith("flask_ailimit")]
    asked = [each for each in ours if inspect.signature(each).parameters and each.__module__ != scripts.__name__]
    assert len(asked) >= 10
    assert [each.__qualname__ for each in asked if each.cache_info().maxsize is None] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@by_name(models, payers, payers_of_a_day)
def test_hundred_thousand_that_are_made_up_leave_nothing_behind(made_up):
    """After the first half no container and no cache grows any more, nor what Python has allocated."""
    served = Served(made_up)
    served.ask(MANY // 2)
    labels, held, allocated = {*served.labels}, containers(), sys.getallocatedblocks()
    served.ask(MANY // 2)
    gc.collect()
    allocated = sys.getallocatedblocks() - allocated
    assert {*served.labels} == labels
    assert served.counts <= MOST_COUNTS
    assert grown_since(held) == []
    assert allocated < SOME


def containers():
    """How much each container of this process holds, by its id."""
    gc.collect()
    return {id(each): len(each) for each in gc.get_objects() if isinstance(each, CONTAINERS)}


def grown_since(held):
    """The ends of the containers that were there before, and that have grown by more than some."""
    there = [each for each in gc.get_objects() if isinstance(each, CONTAINERS) and id(each) in held]
    return [[*each][-3:] for each in there if len(each) - held[id(each)] > SOME]
