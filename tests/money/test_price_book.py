"""Which price a model has: that of the app's own table, then that of genai-prices, then none."""

import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.money import PriceBook
from flask_ailimit.money.book import LONGEST_MODEL

NOW = datetime(2026, 11, 30, tzinfo=UTC)
patterns = st.text("ab*?[]-", min_size=1, max_size=6)
names = st.text("ab*?[]-", max_size=6)


def costs(number):
    return {"input": f"{number} USD", "output": f"{number} USD"}


def book(*own, **options):
    return PriceBook({pattern: costs(number) for number, pattern in enumerate(own)}, **options)


def found(prices, model):
    price = prices.price_for(model, NOW)
    return price and price.name


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("large-1", "large-1"),
        ("large-2", "large-*"),
        ("Large-2", None),
        ("xlarge-2", None),
        ("small-a", "small-[ab]"),
        ("small-c", "small-?"),
        ("small-cc", None),
        ("", None),
        ("large-\n", "large-*"),
        ("large-\ud800", "large-*"),
    ],
)
def test_the_first_pattern_that_matches_holds(model, name):
    assert found(book("large-1", "large-*", "small-[ab]", "small-?"), model) == name


@given(st.lists(patterns, min_size=1, max_size=4, unique=True), st.lists(names, max_size=5))
def test_book_finds_what_fnmatch_finds(own, models):
    try:
        prices = book(*own)
    except ConfigurationError:
        return
    for model in models:
        assert found(prices, model) == next((each for each in own if fnmatchcase(model, each)), None)


@given(patterns, patterns, st.lists(names, max_size=30))
def test_what_is_refused_as_never_matching_never_matches(earlier, later, models):
    if earlier == later:
        return
    try:
        book(earlier, later)
    except ConfigurationError:
        assert all(fnmatchcase(model, earlier) for model in models if fnmatchcase(model, later))


@pytest.mark.parametrize(
    ("earlier", "later"), [("*", "large-*"), ("large-*", "large-2-*"), ("large-*", "large-2"), ("l*e", "la?ge")]
)
def test_a_pattern_that_never_matches_is_refused(earlier, later):
    with pytest.raises(ConfigurationError, match=r"never matches, because .* before it matches first") as error:
        book(earlier, later)
    assert repr(earlier) in str(error.value)
    assert repr(later) in str(error.value)
    assert book(later, earlier)


@pytest.mark.parametrize("pattern", ["", "x" * 257, "a\nb", 5, None])
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(ConfigurationError, match="prices: a pattern is a text of 1 to 256 printable characters"):
        PriceBook({pattern: costs(1)})


@pytest.mark.parametrize("own", [5, "large", [costs(1)]])
def test_what_is_no_table_is_refused(own):
    with pytest.raises(ConfigurationError, match="prices: a table is needed, of prices by the pattern"):
        PriceBook(own)


def test_a_mistake_in_a_price_is_told_with_its_place():
    with pytest.raises(ConfigurationError, match=r"^plans\.toml: prices\.'large-\*'\.output: this is no amount"):
        PriceBook({"large-*": {"input": "1 USD", "output": "1"}}, place="plans.toml: prices")


def test_prices_of_a_book_may_have_different_currencies():
    prices = PriceBook({"a": costs(1), "b": {"input": "1 EUR", "output": "1 EUR"}})
    assert [price.currency for price in prices.own] == ["USD", "EUR"]


def test_without_prices_no_model_has_one():
    assert PriceBook().price_for("gpt-4o", NOW) is None
    assert PriceBook({}).own == ()


def test_a_name_that_is_too_long_has_no_price():
    prices = book("*")
    assert found(prices, "x" * LONGEST_MODEL) == "*"
    assert found(prices, "x" * (LONGEST_MODEL + 1)) is None


def test_own_table_comes_before_genai_prices():
    prices = book("gpt-4o", genai=True)
    assert (prices.price_for("gpt-4o", NOW).source, prices.price_for("o3", NOW).source.split()[0]) == (
        "own table",
        "genai-prices",
    )


@pytest.mark.parametrize("genai", [True, False])
def test_names_that_clients_make_up_take_no_memory(genai):
    prices = book("large-*", genai=genai)

    def ask(begin, end):
        for number in range(begin, end):
            prices.price_for(f"gpt-{number}".ljust(200, "x"), NOW)

    tracemalloc.start()
    try:
        ask(0, 2000)
        before, _ = tracemalloc.get_traced_memory()
        ask(2000, 5000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000  # The names alone would be 750,000 bytes.


def test_genai_prices_is_imported_only_if_it_is_used():
    code = (
        "import sys; sys.modules['genai_prices'] = None\n"
        "from flask_ailimit.money import PriceBook\n"
        "PriceBook({'a': {'request': '1 USD'}})\n"
        "try: PriceBook(genai=True)\n"
        "except ValueError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert "pip install 'flask-ailimit[prices]'" in ran.stdout, ran.stderr
