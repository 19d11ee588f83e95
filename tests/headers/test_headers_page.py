"""``docs/headers.md`` shows what is really sent."""

import json
from pathlib import Path

import pytest
from header_decisions import SECOND, allowed, decided, refused
from page_blocks import texts

from flask_ailimit.engine import Calendar, Spending
from flask_ailimit.engine.quota import NANO, Quota
from flask_ailimit.headers import DEFAULT_DIALECTS, DIALECTS, limit_headers
from flask_ailimit.headers.budget import budget_headers
from flask_ailimit.http.responses import content_type, refusal_body, refusal_headers

FILE = Path(__file__).parents[2] / "docs" / "headers.md"
if not FILE.exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)
PAGE = FILE.read_text(encoding="utf-8")
REQUESTS, TOKENS = Quota(60, 60), Quota(10_000, 60, "tokens")
SLOTS = Quota(4, 60, "concurrency", "concurrency")
REQUEST_ID = "req_3f1c9a0d52e84b7796c0a1de"
REFUSAL = decided(allowed(REQUESTS, 30, 30 * SECOND), refused(TOKENS, 10, 59_940_000, 7_150_001, cost=1202))


MIDNIGHT_US = 1_796_083_200 * SECOND  # 2026-12-01T00:00:00Z
A_MONTH = Quota(50 * NANO, 1, "nano_usd", "budget", every="month", calendar=Calendar("Europe/Berlin"))
A_DAY = Quota(NANO // 100, 1, "nano_usd", "budget", every="day")
MONTHLY = allowed(A_MONTH, 37_651_977_500, SECOND)._replace(
    spending=Spending(12_345_000_000, 3_022_500, 0, 0, MIDNIGHT_US - 3600 * SECOND)
)
SPENT = refused(A_DAY, 1_980_000, 35_885_226_000, 35_885_226_000, cost=3_865_000)._replace(
    spending=Spending(8_020_000, 0, 0, 0, MIDNIGHT_US)
)


def lines(headers):
    return "".join(f"{name}: {value}\n" for name, value in headers)


def rows(start):
    table = PAGE.partition(start)[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line]


def test_headers_on_the_page_are_those_of_an_allowed_request_and_of_a_refusal():
    success = decided(
        allowed(REQUESTS, 59, SECOND), allowed(TOKENS, 9500, 3 * SECOND, cost=500), allowed(SLOTS, 3, 60 * SECOND)
    )
    shown, _, shown_of_refusal, _ = texts("docs/headers.md", "http")
    assert shown == lines(limit_headers(success, DEFAULT_DIALECTS))
    assert shown_of_refusal == lines(refusal_headers(REFUSAL, REQUEST_ID))


def test_headers_and_body_on_the_page_are_those_of_budgets():
    _, shown, _, shown_of_spent = texts("docs/headers.md", "http")
    assert shown == lines(budget_headers(decided(MONTHLY)))
    told = lines([*refusal_headers(decided(SPENT), REQUEST_ID), *budget_headers(decided(SPENT))]).splitlines()
    assert shown_of_spent.startswith("HTTP/1.1 429 ")
    assert set(shown_of_spent.splitlines()[1:]) <= set(told)
    assert not any(line.startswith(("Retry-After", "retry-after-ms")) for line in told)
    body = json.loads(texts("docs/headers.md", "json")[0])
    assert body["error"] == refusal_body(decided(SPENT), 429, REQUEST_ID)["error"]


def test_body_on_the_page_is_the_hybrid_body():
    _, shown, shown_of_hidden = map(json.loads, texts("docs/headers.md", "json"))
    assert shown == refusal_body(REFUSAL, 429, REQUEST_ID)
    hidden = decided(refused(Quota(64, 60, in_headers=False), 0, 60 * SECOND, 30 * SECOND))
    assert shown_of_hidden == refusal_body(hidden, 429, shown_of_hidden["request_id"])


def test_dialects_on_the_page_are_those_of_the_table():
    listed = {
        row[0].strip("`"): row[1]
        for row in rows("| dialect | default | headers | reset |\n| --- | --- | --- | --- |\n")
    }
    assert listed == {name: "yes" if name in DEFAULT_DIALECTS else "no" for name in DIALECTS}


def test_content_types_on_the_page_are_those_sent():
    listed = {row[0].strip("`"): row[2].strip("`") for row in rows("shape | content type |\n| --- | --- | --- |\n")}
    assert listed == {name: content_type(name) for name in ("hybrid", "problem", "openai", "anthropic")}
