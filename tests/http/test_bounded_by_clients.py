"""What clients can make up, or bring about with each request, grows no log and no cache without a bound."""

import logging
from collections import Counter

import pytest
from limited_apps import fill, limited

from flask_ailimit import Caller, Payer
from flask_ailimit.engine.few_lines import MOST, PERIOD, FewLines, few_lines, once_a_minute

MANY = 200


def broken(error=ZeroDivisionError):
    def raising(*_):
        raise error

    return raising


def full_store(served):
    fill(served.limiter)
    return served.limiter.limit("9 per day")


def callable_that_fails(served):
    return served.limiter.limit(broken())


def callable_that_answers_no_limit(served):
    return served.limiter.limit(lambda: "2/sec")


def cost_that_fails(served):
    return served.limiter.limit("900000 per day", cost=broken())


def key_func_that_fails(served):
    return served.limiter.limit("900000 per day", key_func=broken())


def estimate_that_fails(served):
    return served.limiter.limit_tokens("900000 per day", estimate=broken())


def refused_again_and_again(served):
    return served.limiter.limit("1 per day")


WAYS = [
    full_store,
    callable_that_fails,
    callable_that_answers_no_limit,
    cost_that_fails,
    key_func_that_fails,
    estimate_that_fails,
    refused_again_and_again,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_log_is_bounded_whatever_the_requests_bring_about(way, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    uri = f"local://{tmp_path}/limits" if way is full_store else "memory://"
    served = limited(storage_uri=uri, storage_options={"map_size": 1 << 20} if way is full_store else {})
    served.app.get("/")(way(served)(dict))
    caplog.clear()
    few_lines.forget()
    client = served.client()
    for _ in range(MANY):
        client.get("/")
    served.limiter.engine.close()
    places = Counter(
        (record.pathname, record.lineno) for record in caplog.records if "flask_ailimit" in record.pathname
    )
    assert places
    assert max(places.values()) <= MOST


def test_line_after_a_while_says_how_many_were_left_out(caplog):
    now = [0.0]
    logger = logging.getLogger("a logger of this test")
    logger.addFilter(FewLines(lambda: now[0]))
    for second in range(int(2 * PERIOD)):
        now[0] = float(second)
        logger.error("a line about %s", "50 % of it")
    left_out = int(PERIOD) - MOST
    assert len(caplog.messages) == 2 * MOST
    assert caplog.messages[MOST] == f"a line about 50 % of it ({left_out} such lines were left out before.)"
    assert caplog.messages[MOST + 1] == "a line about 50 % of it"


def test_line_about_one_thing_comes_once_and_those_about_many_things_are_few(caplog):
    now = [0.0]
    logger = logging.getLogger("a third logger of this test")
    logger.addFilter(FewLines(lambda: now[0]))

    def log(*things):
        for thing in things:
            logger.error("about %s", thing, extra=once_a_minute(thing))

    log("a", "b", "a", "a")
    now[0] = PERIOD
    log("a", "a", *map(str, range(MANY)))
    again = [f"about {number}" for number in range(MOST - 1)]
    assert caplog.messages == ["about a", "about b", "about a (2 such lines were left out before.)", *again]


@pytest.mark.parametrize("default", [{}, {"default_plan": "free"}])
def test_plan_that_is_not_there_is_logged_once_a_minute(default, caplog):
    named = ["gold"]
    served = limited(None, plans={"plans": {"free": {"requests": "900000 per day"}}, **default})
    served.limiter.identify(lambda: Caller(organisation=Payer("9", plan=named[0])))
    served.app.get("/")(served.limiter.limit_by_plan()(dict))
    client = served.client()
    for plan in ("gold", "silver", "gold", "silver", "gold"):
        named[0] = plan
        assert client.get("/").status_code == (200 if default else 503)
    gold, silver = (line for line in caplog.messages if "not in plans" in line)
    assert gold == silver.replace("silver", "gold")
    assert "payer in the role 'organisation' has the plan 'gold', which is not in plans" in gold


def test_payers_without_a_plan_are_logged_for_each_of_their_roles(caplog):
    roles = ["user", "organisation", "user"]
    served = limited(None, plans={"plans": {"free": {"requests": "9 per day"}}})
    served.limiter.identify(lambda: Caller(**{roles.pop(): Payer("9")}))
    served.app.get("/")(served.limiter.limit_by_plan()(dict))
    assert [served.client().get("/").status_code for _ in range(3)] == [503] * 3
    assert len([line for line in caplog.messages if "has no plan" in line]) == 2


def test_lines_of_other_places_pass(caplog):
    logger = logging.getLogger("another logger of this test")
    logger.addFilter(FewLines())
    for _ in range(MANY):
        logger.error("often")
    logger.error("once")
    assert Counter(caplog.messages) == {"often": MOST, "once": 1}


@pytest.mark.parametrize("path", ["/", "/any", "/nowhere"])
def test_methods_that_a_client_makes_up_fill_no_plan_cache(path):
    served = limited(default_limits=["900000 per day"], default_limits_per_method=True)
    served.app.get("/")(served.limiter.limit("900000 per day", per_method=True)(dict))
    served.app.add_url_rule("/any", "any", Anything(served.limiter.limit("900000 per day")(dict)))
    client, manager = served.client(), served.limiter.limit_manager
    client.get("/")
    root, remembered = manager.root, manager._remembered
    for number in range(300):
        client.open(path, method=f"MADE-UP-{number}")
    assert manager.root is root
    assert manager._remembered <= remembered + 2
    assert len(served.limiter.engine.store._records) <= 3


class Anything:
    """A view for which Flask checks no method."""

    methods = ["GET", "POST"]  # noqa: RUF012  Flask reads it so
    provide_automatic_options = False
    __name__ = "anything"

    def __init__(self, view):
        self._view = view

    def __call__(self):
        return self._view()
