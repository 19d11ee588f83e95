"""Budgets, calendars, weights and prices in a plan file."""

import tomllib
from fractions import Fraction

import pytest

from flask_ailimit import ConfigurationError
from flask_ailimit.engine import Calendar
from flask_ailimit.limits.plans.in_words import plans_in_words
from flask_ailimit.limits.plans.plan_file import read_plans
from flask_ailimit.money.unknown import UnknownPrice
from flask_ailimit.unlimited import UNLIMITED

PRICES = """
[prices."large-*"]
input = "2.50 USD"
cached_input = "1.25 USD"
output = "10.00 USD"
[prices."small-*"]
input = "0.10 EUR"
output = "0.40 EUR"
"""
SAMPLE = f"""
default_plan = "pro"
calendar = {{ zone = "Asia/Tokyo" }}

[plans.pro]
budget = "50 USD per calendar month; 5 USD per session of 5 hours"
output_tokens = "2000000 per calendar day"
calendar = {{ zone = "Europe/Berlin", week_starts = "sunday", month_starts = 17 }}
weights = {{ cached_input_tokens = 0.1, output_tokens = 5 }}
unknown_price = {{ price_as = "large-1" }}

[plans.pro.models."small-*"]
budget = {{ limit = "5 EUR per day", name = "cheap", soft_percent = 80, candidate = "4 EUR/day", in_headers = false }}
tokens = "9 per minute"
weights = {{ cached_input_tokens = 0 }}

[plans.free]
budget = "10 USD"

[service]
budget = "1000 USD per calendar day"
{PRICES}
"""


def read(text, **options):
    return read_plans(tomllib.loads(text), "", "fixed-window", **options)


def refusal(text):
    with pytest.raises(ConfigurationError) as refused:
        read(text)
    return str(refused.value)


def test_budget_is_a_limit_in_its_currency():
    plans = read(SAMPLE)
    pro, free = plans.plans["pro"], plans.plans["free"]
    budget = next(limit for limit in pro.limits if limit.unit == "nano_usd")
    assert budget.value == "50 USD per calendar month; 5 USD per session of 5 hours"
    assert budget.unknown_price == UnknownPrice("price_as", "large-1")
    (of_small,) = [limit for limit in pro.models[0].limits if limit.unit == "nano_eur"]
    assert (of_small.value, of_small.name, of_small.soft_percent) == ("5 EUR per day", "cheap", 80)
    assert (of_small.candidate, of_small.in_headers) == ("4 EUR/day", False)
    assert of_small.unknown_price == budget.unknown_price
    assert [(limit.unit, limit.value) for limit in free.limits] == [("nano_usd", "10 USD")]
    assert free.limits[0].unknown_price == UnknownPrice("refuse")


def test_calendar_is_the_plans_own_or_that_of_the_file_or_of_the_app():
    plans = read(SAMPLE, calendar=Calendar("America/New_York"))
    own = Calendar("Europe/Berlin", "sunday", 17)
    assert {limit.calendar for limit in plans.plans["pro"].limits} == {own}
    assert {limit.calendar for limit in plans.plans["pro"].models[0].limits} == {own}
    assert plans.plans["free"].limits[0].calendar == plans.service.limits[0].calendar == Calendar("Asia/Tokyo")
    of_app = read("[plans.a]\ntokens = '9 per calendar day'", calendar=Calendar("America/New_York"))
    assert of_app.plans["a"].limits[0].calendar == Calendar("America/New_York")


def test_weights_are_those_of_the_plans_limits_on_tokens():
    pro = read(SAMPLE).plans["pro"]
    weights = {limit.unit: limit.weights for limit in pro.limits}
    assert weights["nano_usd"] is None
    assert dict(weights["output_tokens"].factors) == {"cached_input_tokens": Fraction(1, 10), "output_tokens": 5}
    of_small = {limit.unit: limit.weights for limit in pro.models[0].limits}
    assert dict(of_small["tokens"].factors) == {"cached_input_tokens": 0}


def test_prices_are_found_by_the_names_of_models():
    plans = read(SAMPLE)
    assert [price.name for price in plans.prices.own] == ["large-*", "small-*"]
    assert plans.prices.currencies == ("USD", "EUR")
    assert read("[plans.a]\ntokens = '9 per day'").prices is None


def test_budget_may_be_unlimited_or_nothing_or_only_tried():
    text = """
    [plans.a]
    budget = "unlimited"
    [plans.b]
    budget = 0
    [plans.c]
    budget = { limit = "unlimited", candidate = "5 EUR per calendar month" }
    """
    plans = read(text + PRICES).plans
    assert plans["a"].limits[0].value is UNLIMITED
    assert plans["b"].limits[0].value == 0
    assert (plans["c"].limits[0].unit, plans["c"].limits[0].candidate) == ("nano_eur", "5 EUR per calendar month")


PRO = "[plans.pro]\nbudget = '5 USD per calendar month'\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PRO, "plans: plans.pro.budget: the file has no prices, so nobody knows what a request costs. Write those of"),
        (PRO, 'such as [prices."large-*"] with input = "2.50 USD" and output = "10 USD"; or genai_prices = true'),
        (
            "[plans.pro]\nbudget = '5 GBP'\n" + PRICES,
            "plans.pro.budget: no price is in GBP, and no currency is turned into another. Prices are in USD, EUR",
        ),
        (
            "[plans.pro]\ntokens = '9 per day'\n[plans.pro.models.a]\nbudget = '5 GBP'\n" + PRICES,
            "plans.pro.models.a.budget: no price is in GBP",
        ),
        (PRO + "[service]\nbudget = '5 JPY'\n" + PRICES, "service.budget: no price is in JPY"),
        (PRO + "unknown_price = { price_as = 'medium' }\n" + PRICES, "price_as: 'medium' has no price either"),
        (PRO + "unknown_price = 'allow'\n" + PRICES, "plans.pro: unknown_price: 'refuse', 'free' or { price_as ="),
        ("[plans.pro]\nbudget = '5 USD per month'\n" + PRICES, "a month would be 30 days. Write 'per calendar month'"),
        ("[plans.pro]\nbudget = '5 per day'\n" + PRICES, "plans.pro.budget: limit: can't read '5 per day' as money"),
        (
            "[plans.pro]\nbudget = 5\n" + PRICES,
            "plans.pro.budget: a text is needed, such as '50 USD per calendar month'",
        ),
        (
            "[plans.pro]\nbudget = { limit = '5 USD', burst = 3 }\n" + PRICES,
            "plans.pro.budget.burst: there is no such key",
        ),
        (
            "[plans.pro]\nbudget = { limit = '5 USD', candidate = '5 EUR' }\n" + PRICES,
            "plans.pro.budget.candidate: limit: '5 EUR' is not in USD",
        ),
        ("[plans.pro]\ntokens = '5 USD per day'\n" + PRICES, "plans.pro.tokens: limit: '5 USD per day' is money"),
        (
            "[plans.pro]\nbuget = '5 USD per day'\n" + PRICES,
            "plans.pro.buget: there is no such key. Did you mean budget?",
        ),
        ("[plans.pro.units]\nnano_usd = '5 per day'\n", "plans.pro.units.nano_usd: unit: a name of your own"),
        (
            "[plans.pro]\ntokens = { limit = '9 per calendar day', algorithm = 'fixed-window' }",
            "plans.pro.tokens: algorithm: 'fixed-window' can't count '9 per calendar day', which 'window' does.",
        ),
        (
            "[plans.pro]\ntokens = { limit = '9 per calendar day', burst = 20 }",
            "plans.pro.tokens: burst: '9 per calendar day' has none",
        ),
        (
            "[plans.pro]\ntokens = '9 per day'\ncalendar = { zone = 'Berlin' }",
            "plans.pro.calendar: zone: the name of a time zone is needed, such as 'Europe/Berlin'",
        ),
        (
            "[plans.pro]\ntokens = '9 per day'\ncalendar = { weekstarts = 'sunday' }",
            "plans.pro.calendar.weekstarts: there is no such key. Did you mean week_starts? Allowed are zone,",
        ),
        (
            "calendar = { month_starts = 32 }\n[plans.pro]\ntokens = '9 per day'",
            "plans: calendar: month_starts: the first day of a month is needed",
        ),
        ("calender = {}\n[plans.pro]\ntokens = '9 per day'", "calender: there is no such key. Did you mean calendar?"),
        (
            "[plans.pro]\ntokens = '9 per day'\nweights = { cached_tokens = 0 }",
            "plans.pro.weights.cached_tokens: there is no such key. Did you mean",
        ),
        (
            "[plans.pro]\ntokens = '9 per day'\nweights = { output_tokens = -1 }",
            "plans.pro.weights: output_tokens: a number from 0 to 1000",
        ),
        (
            "[plans.pro]\nrequests = '9 per day'\nweights = { output_tokens = 5 }",
            "plans.pro.weights: there is no limit on tokens that they could weigh.",
        ),
        (
            "[plans.pro]\nrequests = '9 per day'\nunknown_price = 'free'",
            "plans.pro.unknown_price: there is no budget that it could be for.",
        ),
        (
            "[plans.pro]\ntokens = '9 per day'\n[prices.a]\ninput = '2 USD'",
            "plans: prices.'a': it has no rate for output",
        ),
        ("prices = {}\n[plans.pro]\ntokens = '9 per day'", "plans: prices: it has no price. Write one, such as"),
        ("genai_prices = 'yes'\n[plans.pro]\ntokens = '9 per day'", "genai_prices: True or False"),
    ],
)
def test_mistake_about_money_is_said_with_its_place_and_its_fix(text, said):
    assert said in refusal(text)


def test_plans_in_words_say_budgets_calendars_and_weights():
    said = [*plans_in_words(read(SAMPLE))]
    unknown = "a model without a price costs what large-1 costs"
    assert said[: said.index("free")] == [
        "pro  (the default plan)",
        "    days of Europe/Berlin, weeks from sunday, months from day 17",
        f"    budget: 50 USD per calendar month; 5 USD per session of 5 hours, {unknown}",
        "    output tokens: 2000000 per calendar day, cached input tokens count 0.1, output tokens count 5",
        "    model small-*",
        f"        budget: 5 EUR per day, {unknown}, named 'cheap', in no header, soft percent 80, tries 4 EUR/day",
        "        tokens: 9 per minute, cached input tokens count 0",
    ]
    assert said[-1] == 'prices of "large-*", "small-*"'
