"""Prices of the package genai-prices (https://github.com/pydantic/genai-prices), each model resolved once.

The package's own calculation takes some 100 µs a call, with decimals. Here a model's prices become integer rates when
it is first asked for. The prices are those that the installed version brings; nothing is fetched.
"""

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from flask_ailimit.engine import ConfigurationError

from .per_token import INPUT, OUTPUT, PARENTS
from .price import BOUND, REQUEST, STANDARD, Price

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices

_log = logging.getLogger("flask_ailimit")

CURRENCY: Final = "USD"

_KINDS: Final = {
    "input_mtok": INPUT,
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_input",
    "input_image_mtok": "image_input",
    "output_mtok": OUTPUT,
    "output_reasoning_mtok": "reasoning",
    "output_audio_mtok": "audio_output",
    "output_image_mtok": "image_output",
}
"""Our kind of each of the package's keys for a million tokens."""

_PARTS_WITHOUT_A_KIND: Final = {
    "input_text_mtok": INPUT,
    "input_video_mtok": INPUT,
    "input_tool_mtok": INPUT,
    "output_text_mtok": OUTPUT,
    "output_video_mtok": OUTPUT,
    "output_citation_mtok": OUTPUT,
}
"""Keys for tokens that a usage doesn't tell apart, with the kind as which they are counted."""

_CACHED: Final = {"cache_audio_read_mtok": "audio_input", "cache_image_read_mtok": "image_input"}
"""Keys for tokens of this kind that were read from a cache."""

_REQUESTS = "requests_kcount"
_THOUSAND = 1000
_TOOL_CALLS: Final = frozenset(
    {"web_searches_kcount", "social_searches_kcount", "storage_searches_kcount", "code_executions_kcount"}
)
"""Keys for calls of tools. They cost beside the tokens, and no usage counts them."""

_TIER_KEYS: Final = ("service_tier", "processing", "speed")
"""What an answer's tier of service is called in the conditions of the package."""


class _Unusable(Exception):  # noqa: N818  it is the entry that is unusable
    """An entry from which no price can be made that is never too low."""


class GenaiPrices:
    """The prices of the installed genai-prices.

    Attributes:
        source: The package with its version.

    Raises:
        ConfigurationError: It is not installed.
    """

    def __init__(self) -> None:
        try:
            from genai_prices import __version__  # noqa: PLC0415  an extra, and 35 MB
            from genai_prices.data import providers  # noqa: PLC0415  as above
        except ImportError as error:
            raise ConfigurationError(
                "prices: genai-prices is not installed. Install it with pip install 'flask-ailimit[prices]', or leave "
                "it out and write prices of your own."
            ) from error
        self.source = f"genai-prices {__version__}"
        self._providers = providers
        self._models: dict[tuple[int, int], ModelPrices] = {}

    def find(self, name: str) -> "ModelPrices | None":
        """The prices of a model; None if there are none. Takes some 50 µs, and more for names that nobody has.

        The package's own search remembers every name that it was asked for, and clients may ask for any.
        """
        name = name.lower()
        for provider in self._providers:
            if provider.model_match is not None and provider.model_match.is_match(name):
                model = provider.find_model(name, all_providers=self._providers)
                return None if model is None else self._prices_of(provider, model)
        return None

    def _prices_of(self, provider: "Provider", model: "ModelInfo") -> "ModelPrices":
        key = (id(provider), id(model))
        known = self._models.get(key)
        if known is None:
            known = self._models[key] = ModelPrices(provider, model, self.source)
        return known


class ModelPrices:
    """The prices of one model, which may change with the date and with the time of day.

    Attributes:
        name: The ids of the provider and of the model in the package.
    """

    def __init__(self, provider: "Provider", model: "ModelInfo", source: str) -> None:
        self._model = model
        self.name = f"{provider.id}/{model.id}"
        self._source = source
        # As the package has it: another provider's model has no tiers here.
        is_own = any(model is each for each in provider.models)
        self._variants = tuple(model.price_variants or ()) if is_own else ()
        self._made: dict[tuple[int, ...], Price | None] = {}

    def at(self, at: datetime) -> Price | None:
        """The price at this time, in UTC if it has no zone; None if the package has none that can be used."""
        standard = self._model.get_prices(at)
        active = [each.constraint is None or each.constraint.active(at) for each in self._variants]
        key = (id(standard), *active)
        if key not in self._made:
            self._made[key] = self._price(standard, at)
        return self._made[key]

    def _price(self, standard: "ModelPrice", at: datetime) -> Price | None:
        try:
            tiers = {STANDARD: _table(standard)}
            for tier in sorted(self._tiers()):
                table = _table(self._model.get_prices(at, dict.fromkeys(_TIER_KEYS, tier)))
                if table != tiers[STANDARD]:
                    tiers[tier] = table
            price = Price.of(self.name, self._source, CURRENCY, tiers)
        except _Unusable as reason:
            # Once for each price of a model. The name is the package's, and not what a client wrote.
            _log.warning("%s: %s has no price that can be used: %s.", self._source, self.name, reason)
            return None
        return price

    def _tiers(self) -> set[str]:
        return {each.when[key] for each in self._variants for key in _TIER_KEYS if key in each.when}


def _table(prices: "ModelPrice") -> dict[int, dict[str, Fraction]]:
    """The rates from each number of input tokens on."""
    given = {key: value for key, value in vars(prices).items() if value is not None}
    thresholds = {0} | {tier.start for value in given.values() for tier in getattr(value, "tiers", ())}
    return {above: _rates({key: _at(value, above) for key, value in given.items()}) for above in thresholds}


def _at(value: "Decimal | TieredPrices", above: int) -> Fraction:
    """What holds for more input tokens than this."""
    if isinstance(value, Decimal):
        return Fraction(value)
    return Fraction(next((tier.price for tier in reversed(value.tiers) if tier.start <= above), value.base))


def _rates(given: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """The rates by our kinds.

    Raises:
        _Unusable: A usage can't be priced by them, or might be priced too low.
    """
    rates = {kind: given[key] for key, kind in _KINDS.items() if key in given}
    if INPUT not in rates:
        raise _Unusable("it has none for tokens")
    if not any(rates.values()):
        raise _Unusable("it says that the model costs nothing; write a price of your own if that is right")
    # What only embeds has no rate for output. If there is any all the same, it is not free.
    rates.setdefault(OUTPUT, rates[INPUT])
    if max(rates.values()) > BOUND:
        raise _Unusable(f"a rate is above {BOUND} {CURRENCY}")
    for reason in _too_low(given, rates):
        raise _Unusable(reason)
    if _REQUESTS in given:
        rates[REQUEST] = given[_REQUESTS] / _THOUSAND
    return rates


def _too_low(given: Mapping[str, Fraction], rates: Mapping[str, Fraction]) -> Iterator[str]:
    """Why a usage might be priced too low."""
    for key, value in given.items():
        if key in _PARTS_WITHOUT_A_KIND:
            if value > rates[_PARTS_WITHOUT_A_KIND[key]]:
                yield f"{key} is higher than the rate that such tokens are counted at"
        elif key in _CACHED:
            # A token that is both is counted once as cached and once as the other, in place of a plain one.
            if value + rates[INPUT] > _rate(rates, "cached_input") + _rate(rates, _CACHED[key]):
                yield f"{key} is higher than the rates that such tokens are counted at"
        elif key not in _KINDS and key not in _TOOL_CALLS and key != _REQUESTS:
            yield f"it has {key}, which no usage counts"


def _rate(rates: Mapping[str, Fraction], kind: str) -> Fraction:
    return rates[kind] if kind in rates else _rate(rates, PARENTS[kind])
