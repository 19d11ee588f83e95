import doctest
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flask_ailimit.money
from flask_ailimit.engine import ConfigurationError
from flask_ailimit.engine.quota import MAX_EXACT, is_money
from flask_ailimit.money import Money, currency_of, in_words, parse_money, unit_of

amounts = st.integers(0, MAX_EXACT)
currencies = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=3)


@pytest.mark.parametrize(
    ("text", "nano", "currency"),
    [
        ("50 USD", 50_000_000_000, "USD"),
        ("2.50 USD", 2_500_000_000, "USD"),
        ("0.000000001 EUR", 1, "EUR"),
        ("0 USD", 0, "USD"),
        ("0.1 CHF", 100_000_000, "CHF"),
        ("  7   JPY ", 7_000_000_000, "JPY"),
        ("007.10 USD", 7_100_000_000, "USD"),
        ("9007199.254740991 USD", MAX_EXACT, "USD"),
        ("1.0000000000000000000 USD", 1_000_000_000, "USD"),
    ],
)
def test_amount_is_read_exactly(text, nano, currency):
    assert parse_money(text) == Money(nano, currency)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "50",
        "USD",
        "50USD",
        "USD 50",
        "$50",
        "-1 USD",
        "+1 USD",
        "1e3 USD",
        "1E-9 USD",
        "NaN USD",
        "Infinity USD",
        "1,000 USD",
        "1_000 USD",
        "1. USD",
        ".5 USD",
        "5 usd",
        "5 US",
        "5 USDT",
        "5 ÜSD",
        "\u0665 USD",
        "5 USD per month",
        "5\nUSD",
        "5 USD\n6 USD",
        "9" * 100 + " USD",
        5,
        5.0,
        None,
        b"5 USD",
        10**5000,
    ],
    ids=lambda text: f"{str(text)[:12]!r}" if not isinstance(text, int) else "number",
)
def test_what_is_no_amount_is_refused_with_what_to_write(text):
    with pytest.raises(ConfigurationError, match=r"three capital letters, such as '2\.50 USD'") as error:
        parse_money(text)
    assert len(str(error.value)) < 300


def test_more_than_nine_decimals_are_refused():
    with pytest.raises(ConfigurationError, match="at most 9 decimals"):
        parse_money("0.0000000001 USD")


def test_more_than_every_store_counts_is_refused():
    with pytest.raises(ConfigurationError, match=r"at most 9007199\.254740991 USD"):
        parse_money("9007199.254740992 USD")


@given(amounts, currencies)
def test_amount_in_words_is_read_back(nano, currency):
    words = in_words(nano, currency)
    assert parse_money(words) == Money(nano, currency)
    assert str(Money(nano, currency)) == words == in_words(nano, unit_of(currency))


@given(st.integers(-MAX_EXACT, MAX_EXACT), currencies)
def test_words_say_the_amount_with_two_decimals_or_as_many_as_it_has(nano, currency):
    number, said = in_words(nano, currency).split()
    assert (Decimal(number), said) == (Decimal(nano).scaleb(-9), currency)
    decimals = number.partition(".")[2]
    assert len(decimals) == 2 or (2 < len(decimals) <= 9 and not decimals.endswith("0"))


@pytest.mark.parametrize(
    ("nano", "words"),
    [(12_345_678_901, "12.345678901 USD"), (0, "0.00 USD"), (-250_000_000, "-0.25 USD"), (-1, "-0.000000001 USD")],
)
def test_amount_is_said_in_words(nano, words):
    assert in_words(nano, "nano_usd") == words


@given(currencies)
def test_unit_and_currency_name_each_other(currency):
    unit = unit_of(currency)
    assert is_money(unit)
    assert currency_of(unit) == currency
    assert Money(1, currency).unit == unit


@pytest.mark.parametrize("currency", ["usd", "", "US", "USDT", "nano_usd", None, 5])
def test_what_is_no_currency_has_no_unit(currency):
    with pytest.raises(ConfigurationError, match="three capital letters"):
        unit_of(currency)


@pytest.mark.parametrize("unit", ["usd", "nano_", "nano_USD", "nano_usdt", "tokens", None])
def test_what_is_no_unit_of_money_has_no_currency(unit):
    with pytest.raises(ConfigurationError, match="'nano_usd'"):
        currency_of(unit)


def test_tokens_are_no_money():
    assert not is_money("tokens")


def test_example_of_the_room_is_right():
    assert doctest.testmod(flask_ailimit.money) == (0, 4)
