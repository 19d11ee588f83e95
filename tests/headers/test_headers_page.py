"""``docs/headers.md`` shows what is really sent."""

import json
from pathlib import Path

import pytest
from header_decisions import SECOND, allowed, decided, refused
from page_blocks import texts

from flask_ailimit.engine.quota import Quota
from flask_ailimit.headers import DEFAULT_DIALECTS, DIALECTS, limit_headers
from flask_ailimit.http.responses import content_type, refusal_body, refusal_headers

FILE = Path(__file__).parents[2] / "docs" / "headers.md"
if not FILE.exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)
PAGE = FILE.read_text(encoding="utf-8")
REQUESTS, TOKENS = Quota(60, 60), Quota(10_000, 60, "tokens")
SLOTS = Quota(4, 60, "concurrency", "concurrency")
REQUEST_ID = "req_3f1c9a0d52e84b7796c0a1de"
REFUSAL = decided(allowed(REQUESTS, 30, 30 * SECOND), refused(TOKENS, 10, 59_940_000, 7_150_001, cost=1202))


def rows(start):
    table = PAGE.partition(start)[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line]


def test_headers_on_the_page_are_those_of_an_allowed_request_and_of_a_refusal():
    success = decided(
        allowed(REQUESTS, 59, SECOND), allowed(TOKENS, 9500, 3 * SECOND, cost=500), allowed(SLOTS, 3, 60 * SECOND)
    )
    sent = (limit_headers(success, DEFAULT_DIALECTS), refusal_headers(REFUSAL, REQUEST_ID))
    assert texts("docs/headers.md", "http") == [
        "".join(f"{name}: {value}\n" for name, value in headers) for headers in sent
    ]


def test_body_on_the_page_is_the_hybrid_body():
    shown, shown_of_hidden = map(json.loads, texts("docs/headers.md", "json"))
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
