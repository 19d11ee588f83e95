"""What a payer used, in the form of the usage pages of OpenAI's API, so that what reads those can read ours.

The form is that of ``GET /organization/usage/completions`` and ``GET /organization/costs``
(https://platform.openai.com/docs/api-reference/usage). Whose usage it is says the request and no parameter, so the
filters and groups by project, user and key are refused, and nothing is answered in their place.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from flask_ailimit.engine.quota import NANO

from .settlements import HOUR_S, Sum

COMPLETIONS, COSTS = "completions", "costs"
KINDS = (COMPLETIONS, COSTS)

_DAY, _HOUR = "1d", "1h"
_HOURS_OF = {_HOUR: 1, _DAY: 24}
_LIMITS = {(COMPLETIONS, _DAY): (7, 31), (COMPLETIONS, _HOUR): (24, 168), (COSTS, _DAY): (7, 180)}
"""How many buckets a page has by default, and at most."""

_GROUPS = {COMPLETIONS: ("model", "service_tier"), COSTS: ("line_item",)}
_REFUSED = ("project_ids", "user_ids", "api_key_ids", "batch", "line_items", "models", "api_source")
_LATEST_S = 253_402_300_799
"""The end of the year 9999."""

_NUMBER = re.compile(r"[0-9]{1,12}")
_CURSOR = re.compile(r"page_([0-9]{1,12})")


class Query(Protocol):
    """The query of a request, as Werkzeug parses it."""

    def getlist(self, key: str) -> list[str]:
        """The values of a name."""


class QueryError(ValueError):
    """A query can't be answered. The message says what to write, and repeats nothing of it."""


class Asked(NamedTuple):
    """What a query asks for.

    Attributes:
        kind: ``completions`` or ``costs``.
        start: Where the first bucket begins, in hours since 1970.
        width: How many hours a bucket has.
        buckets: How many buckets the page has.
        next_start: Where the next page begins, in hours since 1970; None after the last.
        groups: The names by which the results of a bucket are told apart.
    """

    kind: str
    start: int
    width: int
    buckets: int
    next_start: int | None
    groups: tuple[str, ...]


def asked(query: Query, now_s: int, kind: str = COMPLETIONS) -> Asked:
    """What a query asks for. Without a ``start_time`` it is the latest buckets.

    Args:
        query: The query.
        now_s: The time, in whole seconds since 1970.
        kind: ``completions`` or ``costs``.

    Raises:
        QueryError: It can't be answered.
    """
    if kind not in KINDS:
        raise QueryError("of: write completions or costs.")
    for name in _REFUSED:
        if query.getlist(name) or query.getlist(f"{name}[]"):
            raise QueryError(f"{name}: this page can't be filtered by it. Leave it out.")
    width_name = _one(query, "bucket_width") or _DAY
    if (kind, width_name) not in _LIMITS:
        raise QueryError(f"bucket_width: write {' or '.join(width for of, width in _LIMITS if of == kind)}.")
    width = _HOURS_OF[width_name]
    usual, most = _LIMITS[kind, width_name]
    limit = _number(query, "limit", usual, least=1, most=most)
    end_s = _number(query, "end_time", now_s + 1, least=1, most=_LATEST_S)
    end = -(-end_s // (HOUR_S * width)) * width
    start_s = _number(query, "start_time", max(0, (end - limit * width) * HOUR_S), least=0, most=_LATEST_S)
    if start_s >= end_s:
        raise QueryError("start_time: write a time before end_time, or before now, in seconds since 1970.")
    start = start_s // (HOUR_S * width) * width
    page = _one(query, "page")
    if page is not None:
        cursor = _CURSOR.fullmatch(page)
        at, rest = divmod(int(cursor[1]), HOUR_S * width) if cursor else (0, 1)
        if rest or not start <= at * width < end:
            raise QueryError("page: write the next_page of the page before, with the same start_time and bucket_width.")
        start = at * width
    buckets = min(limit, (end - start) // width)
    after = start + buckets * width
    return Asked(kind, start, width, buckets, after if after < end else None, _groups(query, kind))


def page_of(what: Asked, sums: Iterable[Sum]) -> dict[str, Any]:
    """The page as JSON.

    Args:
        what: What was asked for.
        sums: What was used in each bucket, in the order of the buckets.
    """
    by_bucket = {bucket: [*some] for bucket, some in groupby(sums, lambda each: each.bucket)}
    results = _RESULTS[what.kind]
    starts = range(what.start, what.start + what.buckets * what.width, what.width)
    return {
        "object": "page",
        "data": [
            {
                "object": "bucket",
                "start_time": start * HOUR_S,
                "end_time": (start + what.width) * HOUR_S,
                "results": results(by_bucket.get(bucket, []), what.groups),
            }
            for bucket, start in enumerate(starts)
        ],
        "has_more": what.next_start is not None,
        "next_page": None if what.next_start is None else f"page_{what.next_start * HOUR_S}",
    }


def _completions(sums: Sequence[Sum], groups: Sequence[str]) -> list[dict[str, Any]]:
    def group(each: Sum) -> tuple[str | None, str | None]:
        return (
            (each.model or None) if "model" in groups else None,
            (each.service_tier or None) if "service_tier" in groups else None,
        )

    return [_completion(some, model, tier) for (model, tier), some in _grouped(sums, group)]


def _completion(sums: Sequence[Sum], model: str | None, tier: str | None) -> dict[str, Any]:
    def total(count: Callable[[Sum], int]) -> int:
        return sum(map(count, sums))

    inputs, cached = total(lambda each: each.input_tokens), total(lambda each: each.cached_input_tokens)
    written = total(lambda each: each.cache_write_tokens + each.cache_write_1h_tokens)
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": inputs,
        "output_tokens": total(lambda each: each.output_tokens),
        "num_model_requests": total(lambda each: each.requests),
        "input_cached_tokens": cached,
        "input_cache_write_tokens": written,
        "input_uncached_tokens": max(0, inputs - cached - written),
        "input_audio_tokens": total(lambda each: each.audio_input_tokens),
        "output_audio_tokens": total(lambda each: each.audio_output_tokens),
        "input_image_tokens": total(lambda each: each.image_input_tokens),
        "output_image_tokens": total(lambda each: each.image_output_tokens),
        "project_id": None,
        "user_id": None,
        "api_key_id": None,
        "model": model,
        "batch": None,
        "service_tier": tier,
    }


def _costs(sums: Sequence[Sum], groups: Sequence[str]) -> list[dict[str, Any]]:
    """A result for each currency: amounts of several can't be added up. Where no price is known, there is none."""

    def group(each: Sum) -> tuple[str, str | None]:
        return each.currency, (each.model or None) if "line_item" in groups else None

    return [
        {
            "object": "organization.costs.result",
            "amount": _amount(sum(each.cost_nano for each in some), currency),
            "line_item": line_item,
            "project_id": None,
            "api_key_id": None,
        }
        for (currency, line_item), some in _grouped([each for each in sums if each.currency], group)
    ]


def _amount(nano: int, currency: str) -> dict[str, Any]:
    """An amount as JSON: ``value`` is the nearest number of JavaScript, and ``nano`` is exact."""
    return {"value": nano / NANO, "currency": currency.lower(), "nano": nano}


_RESULTS = {COMPLETIONS: _completions, COSTS: _costs}


def _grouped(sums: Sequence[Sum], group: Callable[[Sum], tuple[Any, ...]]) -> list[tuple[tuple[Any, ...], list[Sum]]]:
    found: dict[tuple[Any, ...], list[Sum]] = {}
    for each in sums:
        found.setdefault(group(each), []).append(each)
    return sorted(found.items(), key=lambda item: [name or "" for name in item[0]])


def _one(query: Query, name: str) -> str | None:
    values = query.getlist(name)
    if len(values) > 1:
        raise QueryError(f"{name}: write it once.")
    return values[0] if values else None


def _number(query: Query, name: str, usual: int, *, least: int, most: int) -> int:
    given = _one(query, name)
    if given is None:
        return usual
    number = int(given) if _NUMBER.fullmatch(given) else -1
    if not least <= number <= most:
        raise QueryError(f"{name}: write a whole number from {least} to {most}.")
    return number


def _groups(query: Query, kind: str) -> tuple[str, ...]:
    """OpenAI's SDK writes ``group_by[]=model``, other clients ``group_by=model``, also with a comma."""
    given = [*query.getlist("group_by"), *query.getlist("group_by[]")]
    names = dict.fromkeys(name for each in given for name in each.split(","))
    if any(name not in _GROUPS[kind] for name in names):
        raise QueryError(f"group_by: write {' or '.join(_GROUPS[kind])}.")
    return tuple(names)
