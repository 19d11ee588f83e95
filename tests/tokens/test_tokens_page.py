"""``docs/tokens.md`` says what is so."""

import re
from pathlib import Path

import pytest

from flask_ailimit.tokens import COUNTERS, InvalidBody, decode_body
from flask_ailimit.tokens.body import MAX_DEPTH
from flask_ailimit.tokens.messages import TERMINAL_EVENTS
from flask_ailimit.tokens.prompt import IMAGE_TOKENS, LOW_DETAIL_IMAGE_TOKENS
from flask_ailimit.tokens.splitting import LONGEST
from flask_ailimit.tokens.transcript import PAYLOADS_KEPT
from flask_ailimit.tokens.usual_request import MESSAGE_TOKENS

FILE = Path(__file__).parents[2] / "docs" / "tokens.md"
if not FILE.exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)
PAGE = FILE.read_text(encoding="utf-8")


def test_counters_on_the_page_are_those_of_the_table():
    assert set(re.findall(r"^\| `(\w+)` \| (?:no|for)", PAGE, re.MULTILINE)) == set(COUNTERS)


def test_numbers_on_the_page_are_those_in_the_code():
    assert f"| each message | {MESSAGE_TOKENS} more" in PAGE
    assert f"`detail: low` | {LOW_DETAIL_IMAGE_TOKENS} (" in PAGE
    assert f"file or sound | {IMAGE_TOKENS}, our choice" in PAGE
    assert f"more than {MAX_DEPTH} levels" in PAGE
    assert f"{PAYLOADS_KEPT // 1024} KB of events" in PAGE
    assert f"longer than {LONGEST // 1024**2} MB" in PAGE


def test_terminal_events_on_the_page_are_those_that_end_a_stream():
    (sentence,) = re.findall(r"^These end a stream.*", PAGE, re.MULTILINE)
    assert set(re.findall(r"`([a-z_.-]+)`", sentence)) == TERMINAL_EVENTS


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "invalid_json"),
        (b"[" * 65 + b"]" * 65, "json_too_deep"),
        (b'{"a":1,"a":1}', "duplicate_field"),
        (b"1e999", "invalid_number"),
        (b'"\\ud800"', "invalid_unicode"),
    ],
)
def test_codes_on_the_page_are_those_raised(raw, code):
    assert re.search(rf"^\|.*\| `{code}` \|$", PAGE, re.MULTILINE)
    with pytest.raises(InvalidBody) as error:
        decode_body(raw)
    assert error.value.code == code
