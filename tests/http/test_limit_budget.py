"""Budgets of decorators, and the prices that they need."""

import pytest
from flask import Flask
from limited_apps import limited

from flask_ailimit import UNLIMITED, AILimiter, ConfigurationError, api_key
from flask_ailimit.engine import Calendar
from flask_ailimit.money.unknown import UnknownPrice

PRICES = {"large-*": {"input": "2.50 USD", "output": "10 USD"}}
PLANS = {"default_plan": "a", "plans": {"a": {"tokens": "9 per day"}}}


def peeked(decorate, **options):
    """What the limits of a view say, nothing of which is used."""
    served = limited(**{"prices": PRICES, "calendar": {"zone": "Europe/Berlin"}, **options})

    @served.app.post("/")
    @decorate(served.limiter)
    def answer():
        return {}

    with served.app.test_request_context("/", method="POST"):
        return [verdict.charge.quota for verdict in served.limiter.peek("answer").verdicts]


def test_budget_is_counted_in_nano_units_in_its_window():
    quotas = peeked(
        lambda limiter: limiter.limit_budget("5 USD per calendar day; 50 USD per session of 5 hours; 10 USD")
    )
    assert {each.name: (each.limit, each.unit, each.algorithm, each.every) for each in quotas} == {
        "usd-per-calendar-day": (5 * 10**9, "nano_usd", "budget", "day"),
        "usd-per-session-of-5-hours": (50 * 10**9, "nano_usd", "budget", "session"),
        "usd": (10 * 10**9, "nano_usd", "budget", "ever"),
    }
    assert {each.calendar for each in quotas if each.every == "day"} == {Calendar("Europe/Berlin")}


def test_budget_of_a_callable_is_in_the_currency_that_was_said():
    prices = {**PRICES, "small-*": {"input": "1 EUR", "output": "2 EUR"}}

    def in_euros(limiter):
        return limiter.limit_budget(lambda: "5 EUR per day", currency="EUR", name="plan")

    (quota,) = peeked(in_euros, prices=prices)
    assert (quota.name, quota.limit, quota.unit) == ("plan", 5 * 10**9, "nano_eur")


def test_budget_may_be_unlimited():
    assert peeked(lambda limiter: limiter.limit_budget(UNLIMITED, currency="USD")) == []


def test_budget_of_0_stands_for_what_is_granted_beside_it():
    (quota,) = peeked(lambda limiter: limiter.limit_budget("0 USD per calendar month"))
    assert quota.limit == 0


@pytest.mark.parametrize(
    ("value", "options", "said"),
    [
        ("5 per day", {}, "can't read '5 per day' as money"),
        ("5 USD per month", {}, "Write 'per calendar month'"),
        ("5 USD; 5 EUR", {}, "'5 EUR' is not in USD"),
        ("5 EUR", {"currency": "USD"}, "'5 EUR' is not in USD"),
        ("5 USD", {"currency": "dollars"}, "currency: three capital letters are needed"),
        (lambda: "5 USD", {}, "currency: only a text says its currency itself. Give it, such as currency='USD'"),
        (UNLIMITED, {}, "currency: only a text says"),
        ("5 USD", {"unknown_price": "allow"}, "unknown_price: 'refuse', 'free' or { price_as ="),
        ("5 USD", {"calendar": {"zone": "Berlin"}}, "Did you mean 'Europe/Berlin'?"),
        ("5 USD", {"shared": True}, "shared: name the count"),
    ],
)
def test_budget_that_is_none_is_refused_where_it_is_written(value, options, said):
    with pytest.raises(ConfigurationError) as refused:
        limited(prices=PRICES).limiter.limit_budget(value, **options)
    assert said in str(refused.value)


def test_option_that_a_limit_has_not_is_said_of_its_own_kind():
    limiter = limited(prices=PRICES).limiter
    with pytest.raises(TypeError, match="weights: budgets have no such option"):
        limiter.limit_budget("5 USD", weights={"output_tokens": 5})
    with pytest.raises(TypeError, match="unknown_price: limits on tokens have no such option"):
        limiter.limit_tokens("5 per day", unknown_price="free")


def test_unknown_price_is_kept_with_the_limit():
    limiter = limited(prices=PRICES).limiter
    limit = limiter.limit_budget("5 USD", unknown_price={"price_as": "large-1"})
    assert limit.unknown_price == UnknownPrice("price_as", "large-1")
    assert limiter.limit_budget("5 USD").unknown_price == UnknownPrice("refuse")


NO_PRICE = [
    (
        {},
        {},
        "prices: there is a limit on money, and nobody knows what a request costs. Give the prices of your models",
    ),
    ({"prices": {"a": {"input": "1 EUR", "output": "2 EUR"}}}, {}, "limit_budget: no price is in USD"),
    ({"prices": PRICES}, {"unknown_price": {"price_as": "medium"}}, "price_as: 'medium' has no price either"),
]


@pytest.mark.parametrize(("settings", "options", "said"), NO_PRICE)
def test_budget_without_a_price_is_refused_where_it_is_written(settings, options, said):
    with pytest.raises(ConfigurationError) as refused:
        limited(**settings).limiter.limit_budget("5 USD", **options)
    assert said in str(refused.value)


@pytest.mark.parametrize(("settings", "options", "said"), NO_PRICE)
def test_budget_that_was_written_before_there_was_an_app_is_refused_when_it_starts(settings, options, said):
    limiter = AILimiter(api_key, storage_uri="memory://", **settings)

    @limiter.limit_budget("5 USD", **options)
    def answer():
        return {}

    with pytest.raises(ConfigurationError) as refused:
        limiter.init_app(Flask("limited"))
    assert said in str(refused.value)


def test_app_that_names_costs_itself_needs_no_prices():
    def cost_of(usage, model):
        return "0.01 USD"

    before = AILimiter(api_key, storage_uri="memory://", accept_money_loss=True, cost_of=cost_of)
    before.limit_budget("5 EUR")(cost_of)
    before.init_app(Flask("limited"))
    served = limited(cost_of=cost_of, plans={"plans": {"a": {"budget": "5 GBP"}}}, accept_money_loss=True)
    served.limiter.limit_budget("5 USD")


def test_weights_are_kept_with_the_limit():
    limit = limited().limiter.limit_tokens("9 per day", weights={"cached_input_tokens": 0.1})
    assert [kind for kind, _ in limit.weights.factors] == ["cached_input_tokens"]
    with pytest.raises(ConfigurationError, match="weights: 'cached' is no kind of token"):
        limited().limiter.limit_tokens("9 per day", weights={"cached": 0})


def test_prices_are_those_of_the_setting_or_of_the_plan_file():
    served = limited(prices=PRICES)
    assert served.limiter.app_state.prices.currencies == ("USD",)
    of_file = limited(plans={**PLANS, "prices": {"*": {"input": "1 EUR", "output": "1 EUR"}}})
    assert of_file.limiter.app_state.prices.currencies == ("EUR",)
    beside = limited(plans=PLANS, prices=PRICES)
    assert beside.limiter.app_state.prices.currencies == ("USD",)
    assert limited().limiter.app_state.prices is None


def test_prices_in_two_places_are_refused():
    with pytest.raises(ConfigurationError, match=r"prices, too\. Write all of them"):
        limited(plans={**PLANS, "prices": PRICES}, prices=PRICES)


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ([], "prices: a dictionary is needed"),
        ({"a": {"input": "2 USD"}}, "prices.'a': it has no rate for output"),
        ({"a": {"inputs": "2 USD"}}, "Did you mean input?"),
    ],
)
def test_setting_that_is_no_table_of_prices_is_refused(prices, said):
    with pytest.raises(ConfigurationError) as refused:
        limited(prices=prices)
    assert said in str(refused.value)
