"""No body takes long to read and to count, however it is made."""

import contextlib

import pytest
from processor_time import require_done_within

from flask_ailimit.tokens import InvalidBody, estimate_request, open_counter
from flask_ailimit.tokens.readings import MOST_STRUCTURE, TooMuchToRead, read_fields, read_json

MEGABYTES = 20 << 20
BELOW = MOST_STRUCTURE - 100
WORST = {
    "brackets": b"[" + b"[]," * (MEGABYTES // 3) + b"0]",
    "brackets, as many as are read": b'{"prompt":[' + b"[]," * (BELOW // 2) + b"0]}",
    "numbers": b'{"prompt":[' + b"0," * (MEGABYTES // 2) + b"0]}",
    "numbers, as many as are read": b'{"prompt":[' + b"0," * BELOW + b"0]}",
    "a million short texts": b"[" + b'"a",' * 1_000_000 + b'""]',
    "a million fields of one name": b"{" + b'"a":0,' * 1_000_000 + b'"a":0}',
    "maxima, as many as are read": b"{" + b'"Max_Tokens":"x",' * (BELOW // 5) + b'"a":0}',
    "depth": b'{"a":' * 4_000_000,
    "dashes": b'{"prompt":"' + b"-" * MEGABYTES + b'"}',
    "ideographs": b'{"prompt":"' + "\u6f22".encode() * (MEGABYTES // 3) + b'"}',
    "halves of pairs": b'{"prompt":"' + b"\xed\xa0\x80" * (MEGABYTES // 3) + b'"}',
    "halves of pairs, escaped": b'{"prompt":"' + b"\\ud83d" * BELOW + b'"}',
    "broken UTF-8": b'{"prompt":"' + b"\xff" * MEGABYTES + b'"}',
    "broken UTF-16": b"{\0" + b"\xd8" * MEGABYTES,
    "digits": b'{"max_tokens":' + b"9" * MEGABYTES + b"}",
    "values": b"1 " * (MEGABYTES // 2),
    "a picture": b'{"messages":[{"content":[{"type":"image","source":{"data":"' + b"iVBO" * 5_000_000 + b'"}}]}]}',
}


@pytest.mark.parametrize("raw", WORST.values(), ids=WORST)
@pytest.mark.parametrize("counter", ["estimate", "o200k_base"])
def test_hostile_body_takes_little_time(raw, counter):
    if counter != "estimate":
        pytest.importorskip("toktok")
    count = open_counter(counter)

    def read():
        with contextlib.suppress(InvalidBody, TooMuchToRead):
            estimate_request(read_json(raw)[0], counter=count, default_output_tokens=1)

    require_done_within(0.75, read)  # Half a second, and what a busy machine adds.


@pytest.mark.parametrize("raw", [b"a=" + b"%41" * 7_000_000, b"a=b&" * 5_000_000, b"a=" + b"+" * MEGABYTES], ids=len)
def test_hostile_form_takes_little_time(raw):
    def read():
        with contextlib.suppress(TooMuchToRead):
            read_fields(raw)

    require_done_within(0.75, read)  # Half a second, and what a busy machine adds.
