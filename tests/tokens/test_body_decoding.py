import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processor_time import require_done_within

from flask_ailimit.tokens import InvalidBody, decode_body

REFUSED = {
    "empty": (b"", "invalid_json"),
    "blank": (b" \r\n\t", "invalid_json"),
    "only a byte order mark": (b"\xef\xbb\xbf", "invalid_json"),
    "broken": (b'{"a": 1', "invalid_json"),
    "trailing comma": (b'{"a": 1,}', "invalid_json"),
    "single quotes": (b"{'a': 1}", "invalid_json"),
    "two values": (b"{} {}", "invalid_json"),
    "form": (b"prompt=Hi&max_tokens=5", "invalid_json"),
    "control character in a text": (b'{"a": "\n"}', "invalid_json"),
    "bad UTF-8": (b'{"a": "\xff"}', "invalid_json"),
    "overlong UTF-8": (b'{"a": "\xc0\xaf"}', "invalid_json"),
    "surrogate in UTF-8": (b'{"a": "\xed\xa0\x80"}', "invalid_json"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "invalid_json"),
    "UTF-16-LE without a mark": ('{"a": 1}'.encode("utf-16-le"), "invalid_json"),
    "UTF-32": ('{"a": 1}'.encode("utf-32"), "invalid_json"),
    "NaN": (b'{"a": NaN}', "invalid_json"),
    "Infinity": (b'{"a": Infinity}', "invalid_json"),
    "-Infinity": (b"[-Infinity]", "invalid_json"),
    "1e999": (b'{"max_tokens": 1e999}', "invalid_number"),
    "-1e999": (b"[-1e999]", "invalid_number"),
    "5000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "invalid_json"),
    "65 arrays": (b"[" * 65 + b"]" * 65, "json_too_deep"),
    "65 objects": (b'{"a":' * 65 + b"1" + b"}" * 65, "json_too_deep"),
    "100,000 arrays": (b"[" * 100_000 + b"]" * 100_000, "json_too_deep"),
    "100,000 arrays never closed": (b"[" * 100_000, "json_too_deep"),
    "100,000 objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "json_too_deep"),
    "deep behind 100,000 arrays": (b"[" + b"[]," * 100_000 + b"[" * 64 + b"]" * 65, "json_too_deep"),
    "deep behind escaped quotes": (b'{"a": "\\"\\\\", "b": ' + b"[" * 70 + b"]" * 70 + b"}", "json_too_deep"),
    "same field twice": (b'{"max_tokens": 5, "max_tokens": 5000}', "duplicate_field"),
    "same field twice, once escaped": (b'{"max_tokens": 5, "max\\u005ftokens": 5}', "duplicate_field"),
    "same field twice, deep inside": (b'{"a": [{"b": {"c": 1, "c": 1}}]}', "duplicate_field"),
    "half a pair": (b'{"a": "\\ud800"}', "invalid_unicode"),
    "second half of a pair": (b'{"a": "\\uDFFFx"}', "invalid_unicode"),
    "half a pair as a name": (b'{"\\ud800": 1}', "invalid_unicode"),
    "pair the wrong way round": (b'["\\ude00\\ud83d"]', "invalid_unicode"),
}
TAKEN = {
    "object": (b'{"a": [1, 2.5, true, null, "x"]}', {"a": [1, 2.5, True, None, "x"]}),
    "byte order mark": (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
    "array": (b"[1]", [1]),
    "text": (b'"x"', "x"),
    "number": (b"5", 5),
    "null": (b"null", None),
    "400 digits": (b"9" * 400, 10**400 - 1),
    "64 levels": (b"[" * 64 + b"]" * 64, json.loads("[" * 64 + "]" * 64)),
    "64 levels behind 20,000 arrays": (
        b"[" + b"[]," * 20_000 + b"[" * 63 + b"]" * 64,
        [[]] * 20_000 + json.loads("[" * 64 + "]" * 64),
    ),
    "many brackets, not deep": (b"[" + b"[],{}," * 1000 + b"0]", [[], {}] * 1000 + [0]),
    "brackets in a text": (b'["' + b"[{" * 1000 + b'"]', ["[{" * 1000]),
    "brackets behind an escaped quote": (b'["\\"' + b"[" * 1000 + b'"]', ['"' + "[" * 1000]),
    "brackets behind an escaped backslash": (b'["\\\\\\"' + b"[" * 1000 + b'"]', ['\\"' + "[" * 1000]),
    "text that ends in backslashes": (b'["\\\\\\\\", ' + b"[]," * 100 + b"0]", ["\\\\", *[[]] * 100, 0]),
    "surrogate pair": (b'["\\ud83d\\ude00"]', ["\U0001f600"]),
    "emoji": ('["\U0001f600"]'.encode(), ["\U0001f600"]),
    "backslash before u": (b'["\\\\ud800"]', ["\\ud800"]),
    "NUL": (b'["\\u0000"]', ["\0"]),
    "same field in two objects": (b'[{"a": 1}, {"a": 1}]', [{"a": 1}, {"a": 1}]),
    "smallest and largest float": (b"[5e-324, 1.7e308]", [5e-324, 1.7e308]),
    "number too small": (b"1e-999", 0.0),
}


@pytest.mark.parametrize(("raw", "code"), REFUSED.values(), ids=REFUSED)
def test_a_body_that_readers_disagree_on_is_refused(raw, code):
    with pytest.raises(InvalidBody) as error:
        decode_body(raw)
    assert error.value.code == code


@pytest.mark.parametrize(("raw", "value"), TAKEN.values(), ids=TAKEN)
def test_plain_json_is_taken(raw, value):
    assert decode_body(raw) == value


@pytest.mark.parametrize(("raw", "code"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_carries_nothing_of_the_body(raw, code):
    canary = raw.replace(b'"a"', b'"sk-canary"').replace(b"max", b"sk-canary")
    with pytest.raises(InvalidBody) as error:
        decode_body(canary)
    message = str(error.value)
    assert message.endswith(".")
    assert "canary" not in message
    assert len(message) < 100
    assert error.value.__cause__ is None
    assert error.value.__context__ is None


@pytest.mark.parametrize("text", ['{"prompt": "x"}', '{"prompt": "é"}'])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_refusal_says_that_the_encoding_is_wrong(encoding, text):
    with pytest.raises(InvalidBody, match="not UTF-8"):
        decode_body(text.encode(encoding))


def test_a_refusal_says_where_the_json_breaks():
    with pytest.raises(InvalidBody, match="line 2, column 8"):
        decode_body(b'{\n  "a": nul}')


@pytest.mark.parametrize("levels", [1, 2, 8, 64, 200])
def test_the_depth_allowed_can_be_chosen(levels):
    assert decode_body(b"[" * levels + b"]" * levels, max_depth=levels) is not None
    with pytest.raises(InvalidBody, match=f"At most {levels} levels"):
        decode_body(b"[" * (levels + 1) + b"]" * (levels + 1), max_depth=levels)


def test_a_depth_beyond_pythons_own_is_refused_and_does_not_raise():
    with pytest.raises(InvalidBody) as error:
        decode_body(b"[" * 100_000 + b"]" * 100_000, max_depth=10**6)
    assert error.value.code == "json_too_deep"


def test_a_body_is_read_from_deep_in_the_stack():
    def down(levels):
        return down(levels - 1) if levels else decode_body(b"[" * 64 + b"]" * 64)

    assert down(sys.getrecursionlimit() // 2)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=30,
)


@given(values, st.booleans(), st.sampled_from([None, 2]))
def test_what_json_writes_is_read_back(value, ascii_only, indent):
    assert decode_body(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()) == value


@given(st.binary(max_size=40) | st.text('[]{}",:\\0123456789.eE+-ntfu \n', max_size=60).map(str.encode))
def test_any_bytes_are_refused_or_read_as_json_reads_them(raw):
    try:
        value = decode_body(raw)
    except InvalidBody:
        return
    text = raw.decode("utf-8-sig")
    assert value == json.loads(text)
    assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 1_000_000,
        b"[]," * 300_000,
        b'"' * 1_000_000,
        b"\\" * 1_000_000,
        b'"' + b'\\"' * 500_000,
        b'["' + b"\\ud800" * 160_000 + b'"]',
        b"[" + b"1e999," * 160_000 + b"1]",
        b'{"a":' + b"9" * 1_000_000 + b"}",
    ],
    ids=lambda raw: repr(raw[:8]),
)
def test_a_hostile_megabyte_takes_little_time(raw):
    def decode():
        with pytest.raises(InvalidBody):
            decode_body(raw)

    require_done_within(0.5, decode)
