"""The JSON schema for editors says of a plan file what the reader says, as far as a schema can say it."""

import json
import re
import tomllib
from collections import Counter
from importlib.resources import files
from pathlib import Path

import jsonschema
import page_blocks
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_ailimit import ConfigurationError
from flask_ailimit.engine.algorithms import ALGORITHMS
from flask_ailimit.engine.algorithms import OVER_TIME as CHOOSABLE
from flask_ailimit.engine.calendars import WEEKDAYS
from flask_ailimit.engine.quota import MAX_EXACT, MOST_IN_FLIGHT
from flask_ailimit.limits import checks
from flask_ailimit.limits.plans import plan_file
from flask_ailimit.limits.plans.plan_file import read_plans
from flask_ailimit.money import price_table
from flask_ailimit.money.book import LONGEST_MODEL
from flask_ailimit.money.price import KINDS
from flask_ailimit.money.weights import MOST_WEIGHT, WEIGHED
from flask_ailimit.upstream.settings import OPTIONS_OF_LIMIT, PROVIDER_BUCKET

SCHEMA = json.loads(files("flask_ailimit.limits.plans").joinpath("plans.schema.json").read_text(encoding="utf-8"))
PARTS = SCHEMA["definitions"]
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)

BEYOND_A_SCHEMA = re.compile(
    r": there is no plan "  # The default plan is none of the file.
    r"|: there is no class "  # The same of a plan's class.
    r"|: service has only 'unlimited'"
    r"|it never matches"  # A pattern comes after one that matches the same.
    r"|: burst: "  # Another algorithm, or one of the limits of the text, has none.
    r"|: algorithm: '[a-z-]*' can't count "
    r"|: cost: \d+ never fits"
    r"|everybody together is one payer"  # Of [service]: the limit is that of any plan.
    r"|can't be counted exactly"
    r"|: limit: a whole number from 1 to"
    r"|: period: "
    r"|: zone: the name of a time zone"
    r"|is not in [A-Z]{3}\. No currency"
    r"|is more than 9007199\.254740991 "
    r"|: the file has no prices"
    r"|: no price is in "
    r"|has no price either"
    r"|: there is no limit on tokens that they could weigh"
    r"|: there is no budget that it could be for"
    r"|genai-prices is not installed"
    r"|: it has no rate"
    r"|: it has no rates for long inputs"
    r"|: all rates of a price are in one currency"
    r"|: a rate is above "
    r"|: this tier is there already"
    r"|never matches, because '.*' before it"
    r"|: there is no other upstream "
    r"|: it needs a base_url, as a fallback"
)
"""What the reader alone says."""


def sentence_of(given):
    """What the reader says is wrong; empty if nothing is."""
    try:
        read_plans(given, "", "fixed-window")
    except ConfigurationError as error:
        return str(error)
    return ""


def require_agreement(given):
    """The schema accepts what the reader accepts, and refuses what the reader refuses for a reason that it can say."""
    sentence, accepted = sentence_of(given), VALIDATOR.is_valid(given)
    if not sentence:
        assert accepted, [*VALIDATOR.iter_errors(given)]
    elif not BEYOND_A_SCHEMA.search(sentence):
        assert not accepted, sentence
    return not sentence, accepted


TEXTS = st.one_of(
    st.sampled_from(
        [
            *(
                "10 per minute",
                "10/minute",
                "10 per minute; 200 per day",
                "5 PER 2 hours,9/Day|1 per year",
                "0 per day",
            ),
            *(
                "unlimited",
                "Unlimited",
                "",
                "10",
                "per minute",
                "10 per fortnight",
                "10 per 0 days",
                "x",
                "10 perminute",
            ),
            *(
                "1 per 02 seconds",
                "10 per minute;",
                "10per minute",
                "0000 per day",
                " 7 / second ",
                "-1 per day",
                "1.5/day",
            ),
            *("99999999999999999 per day", "9999999999999999 per day", "1 per 99999 years", "10 per 9seconds"),
            *(
                "9 per calendar day",
                "9/Calendar Weeks; 3 per session of 5 hours",
                "9 per session of 02 days",
                "9 per week",
            ),
            *("9 per calendar", "9 per calendar 2 days", "9 per session", "9 per session of 0 hours"),
            *(
                "9 per session of 2 months",
                "9 percalendar day",
                "9 per calendarday",
                "1.5 per day",
                "9 per calendar minute",
            ),
        ]
    ),
    st.text("0123456789 /;,|permintdayhousc-", max_size=16),
)
MONEY = st.one_of(
    st.sampled_from(
        [
            *("50 USD per calendar month; 5 USD per calendar day", "5 USD per session of 5 hours", "2.50 USD/day"),
            *(
                "10 USD",
                "0 USD per calendar year",
                "5 EUR per calendar day",
                "unlimited",
                "9007199.3 USD",
                "7 USD|3 EUR",
            ),
            *("5 USD per month", "5 USD per year", "5 USD per week", "5 USD per session of 1 month", "5 usd per day"),
            *(
                "5 per day",
                "USD 5 per day",
                "5USD",
                "-5 USD",
                "1.1234567890 USD",
                "5. USD",
                "5 USD per",
                "5 USD per 0 days",
            ),
        ]
    ),
    st.text("0123456789. /;,|perdayUSDEURcalnhous-", max_size=20),
)
NUMBERS = st.one_of(
    st.integers(-2, 70), st.sampled_from([4, 5, 3600, 3601, 10**4, 10**4 + 1, 2**53 - 1, 2**53, 10**99])
)
WRONG = st.one_of(TEXTS, NUMBERS, st.booleans(), st.just(1.5), st.just([]), st.just({}), st.just(["10 per minute"]))
ALGORITHM = st.sampled_from([*ALGORITHMS, "token_bucket", ""])
NAMES = st.one_of(
    st.sampled_from(
        ["free", "pro-2", "a.b", "", "two words", "-x", "_", "ä", "x" * 64, "x" * 65, "tokens", "pages", "Pages"]
    ),
    st.text("aZ9-_. ", max_size=4),
)


def sometimes_wrong(right, wrong=WRONG):
    """The right thing most of the time: a file has some twenty places for mistakes."""
    return st.integers(0, 59).flatmap(lambda dice: wrong if dice == 17 else right)


def table(required=(), **optional):
    """A table with some of these keys, and rarely with another one."""
    keys = {key: optional.pop(key) for key in required}
    extra = st.dictionaries(st.sampled_from(["token", "limits", "cost", "burst", "lease", "models"]), WRONG, max_size=1)
    return st.builds(
        lambda known, dice, more: known | more if dice == 17 else known,
        st.fixed_dictionaries(keys, optional=optional),
        st.integers(0, 59),
        extra,
    )


TOLD = {"name": sometimes_wrong(st.just("calls"), NAMES), "in_headers": sometimes_wrong(st.booleans())}
LIMIT = sometimes_wrong(st.sampled_from(["10 per minute", "10/minute; 99 per 2 hours", "30 Per Day", "unlimited", 0]))
SOFT_PERCENT = sometimes_wrong(st.integers(0, 100), st.one_of(NUMBERS, WRONG))
PERCENT = sometimes_wrong(st.integers(0, 100), NUMBERS)
OVER_TIME = {
    "candidate": LIMIT,
    "enforced_percent": PERCENT,
    "soft_percent": SOFT_PERCENT,
    "burst": sometimes_wrong(st.just(40)),
    "algorithm": sometimes_wrong(st.just("token-bucket"), ALGORITHM),
    **TOLD,
}
TIMED = sometimes_wrong(
    st.one_of(LIMIT, table(("limit",), limit=sometimes_wrong(LIMIT), **OVER_TIME), table(limit=LIMIT))
)
SLOTS = st.one_of(NUMBERS, st.just("unlimited"))
LEASE = sometimes_wrong(st.integers(5, 3600), NUMBERS)
OF_BUDGET = {"enforced_percent": PERCENT, "soft_percent": SOFT_PERCENT, **TOLD}
AMOUNT = sometimes_wrong(st.sampled_from(["50 USD per calendar month", "5 USD per day; 10 USD", "unlimited", 0]), MONEY)
BUDGET = sometimes_wrong(
    st.one_of(AMOUNT, table(("limit",), limit=AMOUNT, candidate=AMOUNT, **OF_BUDGET), table(limit=AMOUNT))
)
CALENDAR = sometimes_wrong(
    table(
        zone=sometimes_wrong(st.sampled_from(["Europe/Berlin", "UTC"]), st.one_of(NUMBERS, st.just("Mars/Olympus"))),
        week_starts=sometimes_wrong(st.sampled_from([*WEEKDAYS]), st.sampled_from(["Monday", "mo", ""])),
        month_starts=sometimes_wrong(st.integers(1, 31), NUMBERS),
    )
)
FACTOR = sometimes_wrong(st.sampled_from([0, 0.1, 1, 5, 1000]), st.sampled_from([-0.1, 1000.5, True, "1"]))
WEIGHTS = sometimes_wrong(st.dictionaries(sometimes_wrong(st.sampled_from([*WEIGHED]), NAMES), FACTOR, max_size=2))
UNKNOWN_PRICE = sometimes_wrong(
    st.sampled_from(["refuse", "free", {"price_as": "a"}]),
    st.sampled_from(["", "deny", {"price_as": ""}, {"price_as": 7}, {"price": "a"}, {}, {"price_as": "a", "b": 1}]),
)
RATE = sometimes_wrong(
    st.sampled_from(["2.50 USD", "0 USD", " 0.00000013 USD ", "999 EUR"]),
    st.sampled_from(["2.50", "2 usd", "-1 USD", "1e3 USD"]),
)
RATES = table(("input", "output"), input=RATE, output=RATE, cached_input=RATE, request=RATE, reasoning=RATE)
ABOVE = sometimes_wrong(
    st.dictionaries(
        sometimes_wrong(st.sampled_from(["200000", "07"]), st.sampled_from(["0", "", "-1", "x"])), RATES, max_size=2
    )
)
TIERS = sometimes_wrong(
    st.dictionaries(
        sometimes_wrong(
            st.sampled_from(["batch", "flex"]), st.sampled_from(["", "Default", "standard_only", "x" * 33])
        ),
        sometimes_wrong(st.one_of(st.sampled_from([0, 0.5, 100]), table(input=RATE, above=ABOVE)), st.just(100.5)),
        max_size=2,
    )
)
PRICE = sometimes_wrong(
    table(
        ("input", "output"),
        **dict.fromkeys(KINDS, RATE),
        above=ABOVE,
        tiers=TIERS,
        confirmed=sometimes_wrong(st.booleans()),
    )
)
IN_FLIGHT = sometimes_wrong(
    st.one_of(SLOTS, table(("limit",), limit=SLOTS, candidate=SLOTS, enforced_percent=PERCENT, lease=LEASE, **TOLD))
)
OWN = sometimes_wrong(
    st.one_of(LIMIT, table(("limit",), limit=LIMIT, cost=sometimes_wrong(st.integers(0, 9), NUMBERS), **OVER_TIME))
)
LIMITS = {
    **dict.fromkeys(("requests", "tokens", "input_tokens", "output_tokens"), TIMED),
    "concurrency": IN_FLIGHT,
    "budget": BUDGET,
    "units": sometimes_wrong(st.dictionaries(sometimes_wrong(st.just("pages"), NAMES), OWN, max_size=2)),
}
ODD = st.one_of(st.sampled_from(["*", "", "x" * 256, "x" * 257]), st.text("ab*?", max_size=3))
KEYS = sometimes_wrong(st.sampled_from(["a", "b-*", "c", "d?"]), ODD)
PATTERNS = sometimes_wrong(KEYS, st.one_of(st.integers(), st.just([])))
MODELS = sometimes_wrong(
    st.one_of(
        st.lists(PATTERNS, max_size=3),
        st.dictionaries(KEYS, sometimes_wrong(st.one_of(st.booleans(), table(**LIMITS, weights=WEIGHTS))), max_size=3),
    )
)
CLASS = sometimes_wrong(st.just("batch"), NAMES)
CLASSES = sometimes_wrong(st.dictionaries(CLASS, PERCENT, max_size=2))
OF_EACH = {
    "models": MODELS,
    "soft_percent": SOFT_PERCENT,
    "enforced_percent": PERCENT,
    "calendar": CALENDAR,
    "weights": WEIGHTS,
    "unknown_price": UNKNOWN_PRICE,
}
PLAN = table(("tokens",), **LIMITS, **OF_EACH, **{"class": CLASS})
SERVICE = table(("tokens",), **LIMITS, **OF_EACH, classes=CLASSES)
# A price for every budget, most of the time, so that not every file with a budget is wrong.
PRICES = st.one_of(
    st.just({"a": {"input": "2 USD", "output": "3 USD"}}),
    sometimes_wrong(st.dictionaries(KEYS, PRICE, max_size=2)),
)
PACED_TEXT = sometimes_wrong(
    st.sampled_from(["500 per minute", "10/second; 9 per calendar day", "9 Per 2 hours"]), TEXTS
)
PACED = sometimes_wrong(
    st.one_of(
        PACED_TEXT,
        table(
            ("limit",),
            limit=PACED_TEXT,
            burst=sometimes_wrong(st.just(40), NUMBERS),
            algorithm=sometimes_wrong(st.just("token-bucket"), ALGORITHM),
        ),
    )
)
SECONDS = sometimes_wrong(st.sampled_from([1, 60, 0.5 + 1, 86_400]), st.sampled_from([-1, 86_401, "60", True]))
VARIABLE = sometimes_wrong(
    st.sampled_from(["env:BACKUP_API_KEY", "Bearer env:_KEY9"]),
    st.sampled_from(["sk-secret", "env:9", "env:", "a b env:K"]),
)
HEADER = sometimes_wrong(st.sampled_from(["authorization", "x-api-key"]), st.sampled_from(["", "two words", "a:b"]))
CACHE = table(
    ("path",),
    path=sometimes_wrong(st.just("answers.db"), st.sampled_from(["", 7])),
    max_age=sometimes_wrong(st.sampled_from([1, 0.5, 366 * 86_400]), st.sampled_from([0, -1, 366 * 86_400 + 1])),
    max_bytes=sometimes_wrong(st.just(1 << 20), NUMBERS),
    all_calls=sometimes_wrong(st.booleans()),
    hits=sometimes_wrong(st.sampled_from(["request", "answer"]), st.just("free")),
)
UPSTREAM = table(
    **dict.fromkeys(("requests", "tokens", "input_tokens", "output_tokens"), PACED),
    **dict.fromkeys(
        ("concurrency", "lease", "max_waiting", "attempts", "default_output_tokens"),
        sometimes_wrong(st.just(7), NUMBERS),
    ),
    **dict.fromkeys(("max_wait", "longest_pause"), SECONDS),
    groups=sometimes_wrong(st.dictionaries(KEYS, sometimes_wrong(st.lists(KEYS, min_size=1, max_size=2)), max_size=2)),
    retry_uncertain=sometimes_wrong(st.booleans()),
    fallback=sometimes_wrong(st.lists(sometimes_wrong(st.just("b")), max_size=2)),
    base_url=sometimes_wrong(
        st.just("https://api.openai.com/v1"), st.sampled_from(["", "api.openai.com", "ftp://x", 7])
    ),
    headers=sometimes_wrong(st.dictionaries(HEADER, VARIABLE, max_size=2)),
    models=sometimes_wrong(st.dictionaries(KEYS, sometimes_wrong(st.just("m")), max_size=2)),
    idempotency_header=sometimes_wrong(st.just("idempotency-key"), HEADER),
    cache=sometimes_wrong(CACHE),
)
UPSTREAMS = sometimes_wrong(st.dictionaries(sometimes_wrong(st.sampled_from(["a", "b"]), NAMES), UPSTREAM, max_size=2))
FILE = table(
    ("plans", "prices"),
    upstreams=UPSTREAMS,
    prices=PRICES,
    calendar=CALENDAR,
    genai_prices=sometimes_wrong(st.just(False)),
    plans=sometimes_wrong(st.dictionaries(sometimes_wrong(st.just("pro"), NAMES), PLAN, max_size=2)),
    service=sometimes_wrong(SERVICE),
    default_plan=sometimes_wrong(st.just("pro")),
)


@settings(max_examples=500, deadline=None)
@given(FILE)
def test_schema_agrees_with_the_reader(given):
    require_agreement(given)


@settings(max_examples=500, deadline=None)
@given(st.one_of(TIMED, TEXTS, WRONG))
def test_schema_agrees_with_the_reader_about_each_limit(value):
    require_agreement({"plans": {"a": {"requests": value}}})
    require_agreement({"plans": {"a": {"requests": "1 per day"}}, "service": {"units": {"pages": value}}})


@settings(max_examples=500, deadline=None)
@given(st.one_of(BUDGET, MONEY, WRONG))
def test_schema_agrees_with_the_reader_about_budgets(value):
    prices = {"a": {"input": "2 USD", "output": "3 USD"}}
    require_agreement({"plans": {"a": {"budget": value}}, "prices": prices})
    require_agreement(
        {"plans": {"a": {"models": {"b": {"budget": value}}}}, "service": {"budget": value}, "prices": prices}
    )


@settings(max_examples=300, deadline=None)
@given(CALENDAR, WEIGHTS, UNKNOWN_PRICE, st.dictionaries(KEYS, PRICE, min_size=1, max_size=2))
def test_schema_agrees_with_the_reader_about_what_stands_beside_limits(calendar, weights, unknown, prices):
    plan = {"tokens": "9 per day", "budget": "5 USD"}
    always = {"*": {"input": "2 USD", "output": "3 USD"}}
    require_agreement({"plans": {"a": {**plan, "calendar": calendar}}, "prices": always})
    require_agreement({"plans": {"a": plan}, "calendar": calendar, "prices": always})
    require_agreement({"plans": {"a": {**plan, "weights": weights}}, "prices": always})
    require_agreement({"plans": {"a": {**plan, "unknown_price": unknown}}, "prices": always})
    require_agreement({"plans": {"a": {"tokens": "9 per day"}}, "prices": prices})


@settings(max_examples=300, deadline=None)
@given(st.one_of(IN_FLIGHT, NUMBERS, WRONG))
def test_schema_agrees_with_the_reader_about_calls_in_flight(value):
    require_agreement({"plans": {"a": {"concurrency": value}}})


@settings(max_examples=300, deadline=None)
@given(st.one_of(MODELS, WRONG))
def test_schema_agrees_with_the_reader_about_models(value):
    require_agreement({"plans": {"a": {"tokens": "9 per day", "models": value}}})
    require_agreement({"plans": {"a": {"models": value}}})


@settings(max_examples=300, deadline=None)
@given(st.one_of(CLASSES, WRONG), CLASS)
def test_schema_agrees_with_the_reader_about_classes(classes, named):
    service = {"tokens": "9 per day", "classes": classes}
    require_agreement({"plans": {"a": {"tokens": "9 per day"}}, "service": service})
    require_agreement({"plans": {"a": {"tokens": "9 per day", "class": named}}, "service": service})
    require_agreement({"plans": {"a": {"tokens": "9 per day", "classes": classes}}})
    require_agreement({"plans": {"a": {"tokens": "9 per day"}}, "service": {"tokens": "9 per day", "class": named}})


@settings(max_examples=300, deadline=None)
@given(table(**LIMITS, models=MODELS))
def test_schema_agrees_with_the_reader_about_a_plan_of_its_own(plan):
    require_agreement({"plans": {"a": plan}})


@settings(max_examples=500, deadline=None)
@given(st.one_of(UPSTREAMS, st.fixed_dictionaries({"a": UPSTREAM}), WRONG))
def test_schema_agrees_with_the_reader_about_upstreams(upstreams):
    require_agreement({"plans": {"a": {"tokens": "9 per day"}}, "upstreams": upstreams})


@settings(max_examples=200, deadline=None)
@given(NAMES)
def test_schema_agrees_with_the_reader_about_names(name):
    require_agreement({"plans": {name: {"tokens": "9 per day"}}})
    require_agreement({"plans": {"a": {"units": {name: "9 per day"}}}})


def test_files_of_the_properties_are_not_all_wrong_and_not_all_right():
    """The properties above must have something to look at."""
    seen = Counter()

    @settings(max_examples=300, deadline=None, database=None)
    @given(FILE)
    def look(given):
        seen[require_agreement(given)] += 1

    look()
    assert min(seen[True, True], seen[False, False]) > 20, seen


def test_schema_is_a_schema():
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_keys_of_the_schema_are_those_of_the_reader():
    assert {*SCHEMA["properties"]} == {*plan_file._FILE}
    assert {*PARTS["plan"]["properties"]} == {*plan_file._PLAN}
    assert {*PARTS["service"]["properties"]} == {*plan_file._SERVICE}
    assert {*PARTS["model"]["anyOf"][1]["properties"]} == {*plan_file._OF_RULE}
    assert {*PARTS["budget"]["anyOf"][1]["properties"]} == {*plan_file._OF_BUDGET}
    assert {*PARTS["calendar"]["properties"]} == {*plan_file._OF_CALENDAR}
    assert {*PARTS["weights"]["properties"]} == {*WEIGHED}
    assert {*PARTS["price"]["properties"]} == {*price_table._OF_PRICE}
    assert {*PARTS["over_time"]["anyOf"][1]["properties"]} == {*plan_file._OF_TIMED}
    assert {*PARTS["own_unit"]["anyOf"][1]["properties"]} == {*plan_file._OF_OWN}
    assert {*PARTS["in_flight"]["anyOf"][1]["properties"]} == {*plan_file._OF_CONCURRENCY}
    assert {*PARTS["upstream"]["properties"]} == {*plan_file._OF_UPSTREAM}
    assert {*PARTS["upstream"]["properties"]["cache"]["properties"]} == {*plan_file._OF_CACHE}
    assert {*PARTS["paced"]["anyOf"][1]["properties"]} == {*OPTIONS_OF_LIMIT}


def test_bounds_of_the_schema_are_those_of_the_code():
    options = PARTS["own_unit"]["anyOf"][1]["properties"]
    lease = PARTS["in_flight"]["anyOf"][1]["properties"]["lease"]
    assert {*options["algorithm"]["enum"]} == CHOOSABLE
    assert PARTS["calendar"]["properties"]["week_starts"]["enum"] == [*WEEKDAYS]
    assert {each["maximum"] for each in PARTS["weights"]["properties"].values()} == {MOST_WEIGHT}
    assert (lease["minimum"], lease["maximum"]) == (checks._LEAST_LEASE, checks._LONGEST_LEASE)
    assert options["burst"]["maximum"] == options["cost"]["maximum"] == MAX_EXACT
    assert PARTS["slots"]["anyOf"][0]["maximum"] == MOST_IN_FLIGHT
    assert PARTS["upstream"]["properties"]["concurrency"]["maximum"] == MOST_IN_FLIGHT
    assert {*PARTS["paced"]["anyOf"][1]["properties"]["algorithm"]["enum"]} == CHOOSABLE | {PROVIDER_BUCKET}
    assert PARTS["pattern"]["maxLength"] == LONGEST_MODEL


def plan_files():
    """The plan files of the project: the examples, and the blocks of the pages."""
    examples = Path(__file__).parents[2] / "examples" / "plans"
    yield from (path.read_text(encoding="utf-8") for path in examples.glob("*.toml"))
    for page in page_blocks.PAGES:
        yield from (text for text in page_blocks.texts(page, "toml") if "[plans." in text)


@pytest.mark.parametrize("text", [*plan_files()])
def test_plan_files_of_the_project_fit_the_schema(text):
    VALIDATOR.validate(tomllib.loads(text))
