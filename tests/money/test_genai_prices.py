"""Prices of genai-prices are those that its own calculation comes to, rounded up to a nano-unit."""

import logging
import random
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_CEILING, Decimal
from importlib.metadata import version

import genai_prices
import pytest
from genai_prices.data import providers
from genai_prices.types import (
    ClauseEquals,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    Tier,
    TieredPrices,
)

from flask_ailimit.money import PriceBook
from flask_ailimit.money.genai import GenaiPrices, ModelPrices
from flask_ailimit.tokens import Usage

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
TIMES = [datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 2, tzinfo=UTC), NOW.replace(hour=2), NOW]
MODELS = [(provider, model) for provider in providers for model in provider.models]
TIERS = {(value, key) for _, model in MODELS for each in model.price_variants or () for key, value in each.when.items()}
OF_INPUT = ("cached_input_tokens", "cache_write_tokens", "cache_write_1h_tokens", "audio_input_tokens")
PACKAGE_KEYS = {
    "cached_input_tokens": "cache_read_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "audio_input_tokens": "input_audio_tokens",
    "image_input_tokens": "input_image_tokens",
    "reasoning_tokens": "output_reasoning_tokens",
    "audio_output_tokens": "output_audio_tokens",
    "image_output_tokens": "output_image_tokens",
}
BOTH = ("cache_audio_read_tokens", "cache_image_read_tokens", "cache_audio_write_tokens", "cache_image_write_tokens")


def random_usage(source, *, has_output, tier=""):
    def some():
        return source.choice((0, source.randint(0, 9), source.randint(0, 5000)))

    parts = {name: some() for name in (*OF_INPUT, "image_input_tokens")}
    inputs = sum(parts.values()) + source.choice((some(), source.randint(0, 600_000)))
    made = {f"{kind}_tokens": some() * has_output for kind in ("reasoning", "audio_output", "image_output")}
    return Usage(inputs, sum(made.values()) + some() * has_output, **parts, **made, service_tier=tier)


def as_the_package_takes_it(usage):
    counts = {theirs: getattr(usage, ours) for ours, theirs in PACKAGE_KEYS.items()}
    written = usage.cache_write_tokens + usage.cache_write_1h_tokens
    return genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_write_tokens=written,
        **counts,
        **dict.fromkeys(BOTH, 0),
    )


def nano_in_the_package(provider, model, usage, at, context=None):
    price = model.calc_price(
        as_the_package_takes_it(usage), provider, genai_request_timestamp=at, price_context=context
    )
    return int((price.total_price * 10**9).to_integral_value(ROUND_CEILING))


def rates_in_the_package(model, at):
    return {key: value for key, value in vars(model.get_prices(at)).items() if value is not None}


def test_costs_are_those_of_the_package_over_every_model_tier_and_time():
    """Only models are left out that have no price here; the test after this one says which those may be."""
    source = random.Random(703)
    compared, priced = 0, set()
    for provider, model in MODELS:
        prices = ModelPrices(provider, model, "genai-prices")
        for at in TIMES:
            price = prices.at(at)
            if price is None:
                continue
            priced.add(id(model))
            has_output = "output_mtok" in rates_in_the_package(model, at)
            for tier, key in [("", ""), *(TIERS if model.price_variants else ())]:
                if key not in ("", "service_tier", "processing", "speed"):
                    continue
                # A tier's name means one thing in an answer; it is a condition of one kind in each provider's entries.
                usage = random_usage(source, has_output=has_output, tier=tier.upper())
                context = dict.fromkeys(("service_tier", "processing", "speed"), tier) if tier else None
                assert price.cost(usage) == nano_in_the_package(provider, model, usage, at, context), (model.id, tier)
                compared += 1
    assert len(priced) > 2000
    assert compared > 9000


def test_only_entries_that_might_be_too_low_have_no_price():
    unpriced = [model for provider, model in MODELS if ModelPrices(provider, model, "genai-prices").at(NOW) is None]
    other_kinds = {
        "audio_hours",
        "input_audio_hours",
        "input_mchars",
        "input_document_kpages",
        "input_text_messages_kcount",
        "input_video_mtok",
        "output_video_mtok",
    }
    for model in unpriced:
        rates = rates_in_the_package(model, NOW)
        is_free = not any(getattr(value, "base", value) for key, value in rates.items() if key.endswith("_mtok"))
        assert is_free or other_kinds & rates.keys(), (model.id, rates)
    assert 100 < len(unpriced) < 250


@pytest.mark.parametrize(
    ("at", "nano"),
    [
        (datetime(2025, 1, 1, tzinfo=UTC), 10_000_000 + 4_000_000),
        (datetime(2026, 1, 1, tzinfo=UTC), 2_000_000 + 800_000),
        (datetime(2026, 1, 1), 2_000_000 + 800_000),  # noqa: DTZ001  it is taken for UTC
    ],
)
def test_price_of_a_model_is_that_of_its_time(at, nano):
    """o3: 10 and 40 dollars at first, 2 and 8 later."""
    prices = PriceBook(genai=True)
    assert prices.price_for("o3", at).cost(Usage(1000, 100)) == nano


def test_price_changes_with_the_time_of_day_also_for_who_asks_again():
    prices, zone = PriceBook(genai=True), timezone(timedelta(hours=9))
    day, night = datetime(2025, 7, 1, 12, tzinfo=UTC), datetime(2025, 7, 1, 20, tzinfo=UTC)
    for at, rate in ((day, "0.27"), (night, "0.135"), (day.astimezone(zone), "0.27"), (night, "0.135")):
        assert prices.price_for("deepseek-chat", at).bill(Usage(1)).rates["input"] == rate


def test_price_says_where_it_is_from():
    price = PriceBook(genai=True).price_for("GPT-4o", NOW)
    assert (price.name, price.source, price.currency) == (
        "openai/gpt-4o",
        f"genai-prices {version('genai-prices')}",
        "USD",
    )


@pytest.mark.parametrize("model", ["", "nobody-has-this", "claude-nobody-has-this", "gpt-\ud800", "x" * 256, "\0"])
def test_a_model_that_nobody_knows_has_no_price(model):
    assert PriceBook(genai=True).price_for(model, NOW) is None


def test_every_model_that_the_package_finds_by_name_is_found_and_no_other():
    book, names = GenaiPrices(), {model.id for _, model in MODELS}
    for name in sorted(names):
        found = book.find(name)
        try:
            theirs = genai_prices.data_snapshot.get_snapshot().find_provider_model(name, None, None, None)
        except LookupError:
            assert found is None
        else:
            assert found is not None
            assert found.name == f"{theirs[0].id}/{theirs[1].id}"


def entry(**prices):
    """A model with these prices, as an entry of the package."""
    model = ModelInfo("m", match=None, prices=ModelPrice(**{key: made(value) for key, value in prices.items()}))
    provider = Provider("p", "P", "p", models=[model])
    return provider, model


def made(value):
    return value if isinstance(value, TieredPrices) else Decimal(str(value))


@pytest.mark.parametrize(
    ("prices", "reason"),
    [
        ({}, "it has none for tokens"),
        ({"output_mtok": 1}, "it has none for tokens"),
        ({"audio_hours": 1}, "it has none for tokens"),
        ({"input_mtok": 0, "output_mtok": 0}, "it says that the model costs nothing"),
        ({"input_mtok": 1, "output_mtok": 200_000}, "a rate is above 1000 USD"),
        ({"input_mtok": 1, "output_mtok": TieredPrices(Decimal(1), [Tier(9, Decimal(1001))])}, "a rate is above 1000"),
        ({"input_mtok": 1, "output_mtok": 1, "input_video_mtok": 2}, "input_video_mtok is higher than the rate"),
        ({"input_mtok": 1, "output_mtok": 1, "audio_hours": 2}, "it has audio_hours, which no usage counts"),
        ({"input_mtok": 1, "output_mtok": 1, "made_up": 2}, "it has made_up, which no usage counts"),
        (
            {"input_mtok": 1, "output_mtok": 1, "cache_read_mtok": 0.1, "cache_audio_read_mtok": 0.2},
            "cache_audio_read_mtok is higher than the rates",
        ),
    ],
)
def test_an_entry_that_might_be_too_low_has_no_price_and_is_logged_once(prices, reason, caplog):
    found = ModelPrices(*entry(**prices), "genai-prices 1")
    with caplog.at_level(logging.WARNING, logger="flask_ailimit"):
        assert [found.at(NOW), found.at(NOW)] == [None, None]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"genai-prices 1: p/m has no price that can be used: {reason}")


@pytest.mark.parametrize(
    "prices",
    [
        {"input_mtok": 1, "output_mtok": 1, "input_video_mtok": 1, "output_citation_mtok": 0.5},
        {"input_mtok": 1, "output_mtok": 1, "web_searches_kcount": 10},
        {"input_mtok": 1, "output_mtok": 1000},
        {"input_mtok": 1, "output_mtok": 1, "input_audio_mtok": 9, "cache_read_mtok": 0.1, "cache_audio_read_mtok": 2},
    ],
)
def test_an_entry_that_is_never_too_low_has_a_price(prices):
    assert ModelPrices(*entry(**prices), "genai-prices").at(NOW) is not None


def test_another_providers_model_has_no_tiers_as_in_the_package():
    batch = PriceVariant({"processing": "batch"}, ModelPrice(input_mtok=Decimal(1)))
    model = ModelInfo("m", ClauseEquals("m"), prices=ModelPrice(input_mtok=Decimal(2)), price_variants=[batch])
    own = Provider("own", "Own", "own", models=[model], model_match=ClauseEquals("m"))
    other = Provider("other", "O", "o", fallback_model_providers=["own"], model_match=ClauseEquals("M"))
    for providers_of_a_book, nano in (([other, own], 2000), ([own, other], 1000)):
        book = GenaiPrices()
        book._providers = providers_of_a_book
        usage = Usage(1, service_tier="batch")
        first = providers_of_a_book[0]
        assert book.find("m").at(NOW).cost(usage) == nano
        assert nano_in_the_package(first, model, usage, NOW, {"processing": "batch"}) == nano


def test_output_without_a_rate_is_not_free():
    price = ModelPrices(*entry(input_mtok=2), "genai-prices").at(NOW)
    assert price.cost(Usage(10, 10)) == 40_000


def test_a_request_costs_a_thousandth_of_a_thousand():
    price = ModelPrices(*entry(input_mtok=1, output_mtok=1, requests_kcount=5), "genai-prices").at(NOW)
    assert price.cost(Usage(0, 0)) == 5_000_000


def test_an_entry_that_has_a_price_at_some_times_only_has_none_at_others():
    provider, model = entry()
    model.prices = [
        ConditionalPrice(None, prices=ModelPrice()),
        ConditionalPrice(genai_prices.types.StartDateConstraint(NOW.date()), prices=ModelPrice(input_mtok=Decimal(1))),
    ]
    found = ModelPrices(provider, model, "genai-prices")
    assert found.at(NOW - timedelta(days=1)) is None
    assert found.at(NOW).cost(Usage(1000)) == 1_000_000
    assert found.at(NOW - timedelta(days=1)) is None


def test_nothing_is_fetched_and_no_thread_is_started():
    """In a process of its own, in which no socket can be opened."""
    code = (
        "import socket, threading\n"
        "def refuse(*_): raise AssertionError('a socket')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from datetime import UTC, datetime\n"
        "from flask_ailimit.money import PriceBook\n"
        "print(PriceBook(genai=True).price_for('o3', datetime(2026, 1, 1, tzinfo=UTC)).name, threading.active_count())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert (ran.stdout.split(), ran.stderr) == (["openai/o3", "1"], "")


def test_threads_that_ask_at_once_find_the_same():
    prices, found = PriceBook(genai=True), []
    barrier = threading.Barrier(8)

    def ask():
        barrier.wait()
        found.extend(prices.price_for(name, NOW) for name in ("o3", "gpt-4o", "claude-opus-5") * 20)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 * 60
    assert len(set(found)) == 3
