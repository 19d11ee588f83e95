"""Whatever a reader finds in a body, as much is reserved.

The readers are Python's ``json.loads``, parsers that keep the first of two fields, pydantic in lax mode, and Go's
``encoding/json``, of which a small model is here. Each says what it finds; the estimate must not be less.
"""

import contextlib
import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from flask_ailimit.tokens import InvalidBody, estimate_request
from flask_ailimit.tokens.readings import GO_DEPTH, TooMuchToRead, read_json

DEFAULT = 100
MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class Characters:
    exact = True

    def __call__(self, text):
        return len("".join(text.split()))


class Lax(BaseModel):
    model_config = ConfigDict(extra="ignore")
    prompt: str | None = None
    max_tokens: int | None = None


def as_count(value):
    return value if type(value) is int and 0 < value < 2**63 else None


def python_last(raw):
    """Flask's ``request.json``, and an app that calls ``int()`` on what it finds there."""
    value = json.loads(raw)
    if not isinstance(value, dict):
        return None, ""
    found = value.get("max_tokens")
    try:
        count = int(found) if isinstance(found, str | int | float) else None
    except (ValueError, OverflowError):
        count = None
    return count, value.get("prompt") if isinstance(value.get("prompt"), str) else ""


def first_wins(raw):
    def keep_first(pairs):
        fields = {}
        for name, value in pairs:
            fields.setdefault(name, value)
        return fields

    value = json.loads(raw, object_pairs_hook=keep_first)
    if not isinstance(value, dict):
        return None, ""
    return as_count(value.get("max_tokens")), value.get("prompt") if isinstance(value.get("prompt"), str) else ""


def pydantic_lax(raw):
    found = Lax.model_validate_json(raw)
    return found.max_tokens, found.prompt or ""


def pydantic_of_python(raw):
    found = Lax.model_validate(json.loads(raw))
    return found.max_tokens, found.prompt or ""


def go_fold(name):
    """``foldName`` of Go's ``encoding/json/fold.go``: as ``strings.EqualFold`` compares."""
    return name.upper().replace("\u212a", "K").replace("\u017f", "S")


def go_struct(raw):
    """``json.NewDecoder(body).Decode(&struct{Prompt string; MaxTokens int})`` with tags ``prompt``, ``max_tokens``.

    Of a struct a name matches without regard for case, the last of several wins, invalid UTF-8 and half a surrogate
    pair are replaced, what follows the first value is not looked at, and NaN is an error.
    """

    def refuse(name):
        raise ValueError(name)

    text = raw.decode("utf-8", "replace")
    if "\ud800" <= max(text, default="") <= "\udfff":
        text = text.encode("utf-8", "replace").decode()
    pairs, _ = json.JSONDecoder(object_pairs_hook=tuple, parse_constant=refuse).raw_decode(text.lstrip(" \t\r\n"))
    count, prompt = None, ""
    if not isinstance(pairs, tuple):
        raise ValueError("json: cannot unmarshal")  # noqa: TRY004  as every other error of this reader
    for name, value in pairs:
        if value is None:
            continue
        if go_fold(name) == go_fold("max_tokens"):
            if type(value) is not int or abs(value) >= 2**63:
                raise ValueError("json: cannot unmarshal")
            count = value
        elif go_fold(name) == go_fold("prompt"):
            if not isinstance(value, str):
                raise ValueError("json: cannot unmarshal")
            prompt = value
    return count, prompt


READERS = (python_last, first_wins, pydantic_lax, pydantic_of_python, go_struct)


def reserved(raw):
    """Output and input to reserve; None in place of either for everything there is."""
    try:
        values = read_json(raw)
    except TooMuchToRead:
        return math.inf, math.inf
    body = values[0] if len(values) == 1 else values
    usage = estimate_request(body, counter=Characters(), default_output_tokens=DEFAULT).usage
    return usage.output_tokens, usage.input_tokens


def assert_as_much_as_every_reader_finds(raw):
    found = []
    for reader in READERS:
        try:
            found.append(reader(raw))
        except (ValueError, RecursionError, ValidationError, AttributeError):
            continue
    if not found:
        return
    output, text = reserved(raw)
    for count, prompt in found:
        wanted = count if count is not None and count > 0 else DEFAULT
        assert output >= min(wanted, 2**53 - 1 - (0 if text == math.inf else text))
        assert text >= Characters()(prompt)


names = st.sampled_from(
    [
        "max_tokens",
        "Max_Tokens",
        "MAX_TOKENS",
        "max_to\u212aens",
        "max_token\u017f",
        "prompt",
        "PROMPT",
        "n",
        "model",
        "x",
    ]
)
numbers = st.integers(-5, 100_000) | st.sampled_from([2**31, 2**53, 2**63 - 1, 10**30])
literals = st.one_of(
    numbers.map(str),
    numbers.map(lambda number: json.dumps(str(number))),
    numbers.map(lambda number: f'" {number} "'),
    numbers.map(lambda number: f"{number}.0"),
    numbers.map(lambda number: f'"{number}.0"'),
    st.integers(1, 9).map(lambda digit: f"{digit}e3"),
    st.integers(1, 9).map(lambda digit: f'"{digit}_000"'),
    st.integers(1000, 99999).map(lambda number: '"' + "".join(chr(0xFF10 + int(d)) for d in str(number)) + '"'),
    st.sampled_from(["null", "true", "false", "NaN", "Infinity", "-Infinity", "1e999", "[]", "{}", '""', '"\\ud83d"']),
    st.text(max_size=10).map(json.dumps),
)
objects = st.lists(st.tuples(names, literals), max_size=6).map(
    lambda pairs: "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{value}" for name, value in pairs) + "}"
)
bodies = st.one_of(
    objects,
    st.lists(objects, min_size=1, max_size=3).map("\n".join),
    st.tuples(objects, st.sampled_from(["", " trailing", "\n{", "]"])).map("".join),
)


@settings(max_examples=400, deadline=None)
@given(bodies, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]))
@example('{"max_tokens":5,"max_tokens":9000}', "utf-8")
@example('{"max_tokens":9000,"max_tokens":null}', "utf-8")
@example('{"max_tokens":5,"MAX_TOKENS":-1}', "utf-8")
@example('{"max_tokens":1e999}', "utf-8")
def test_what_a_reader_finds_is_reserved(body, encoding):
    assert_as_much_as_every_reader_finds(body.encode(encoding, "surrogatepass"))


@settings(max_examples=300, deadline=None)
@given(bodies, st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=1)), max_size=3))
def test_what_a_reader_finds_in_a_spoiled_body_is_reserved(body, spoilt):
    raw = bytearray(body.encode("utf-8", "surrogatepass"))
    for place, byte in spoilt:
        raw[place % len(raw) : place % len(raw)] = byte
    assert_as_much_as_every_reader_finds(bytes(raw))


@given(st.binary(max_size=60) | st.text('[]{}",:\\0123456789.eE+-ntfuN \n', max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(raw):
    with contextlib.suppress(InvalidBody):
        reserved(raw)


READ = {
    "a duplicate field": b'{"max_tokens": 5, "max_tokens": 9000}',
    "a duplicate field, the larger first": b'{"max_tokens": 9000, "max_tokens": 5}',
    "a duplicate that is null": b'{"max_tokens": 9000, "max_tokens": null}',
    "objects that Go merges": b'{"options": {"num_predict": 9000}, "options": {}}',
    "NaN": b'{"temperature": NaN, "max_tokens": 9000}',
    "1e999": b'{"temperature": 1e999, "max_tokens": 9000}',
    "half a surrogate": b'{"prompt": "\\ud83d", "max_tokens": 9000}',
    "half a surrogate in UTF-8": b'{"prompt": "\xed\xa0\xbd", "max_tokens": 9000}',
    "invalid UTF-8": b'{"prompt": "\xff", "max_tokens": 9000}',
    "UTF-16": '{"max_tokens": 9000}'.encode("utf-16"),
    "UTF-16 without a mark": '{"max_tokens": 9000}'.encode("utf-16-be"),
    "UTF-32": '{"max_tokens": 9000}'.encode("utf-32"),
    "a byte order mark": b'\xef\xbb\xbf{"max_tokens": 9000}',
    "65 levels": b'{"max_tokens": 9000, "x": ' + b"[" * 65 + b"]" * 65 + b"}",
    "more digits than Python reads": b'{"seed": ' + b"9" * 5000 + b', "max_tokens": 9000}',
    "the first of several values": b'{"max_tokens": 9000} {"max_tokens": 5}',
    "what follows the first value is broken": b'{"max_tokens": 9000} {',
    "JSON lines": b'{"max_tokens": 4500}\n{"max_tokens": 4500}\n',
    "JSON lines, one of them broken": b'{"max_tokens": 1}\n{"max\n{"max_tokens": 9000}',
    "a JSON text sequence": b'\x1e{"max_tokens": 9000}\n',
    "a list of requests": b'[{"max_tokens": 4500}, {"max_tokens": 4500}]',
    "a message batch": b'{"requests": [{"params": {"max_tokens": 4500}}, {"params": {"max_tokens": 4500}}]}',
    "batch lines": b'{"body": {"max_tokens": 4500}}\n{"body": {"max_tokens": 4500}}',
    "a batch whose maximum is outside": b'{"max_tokens": 4500, "requests": [{}, {}]}',
    "a name in another case": b'{"Max_Tokens": 9000}',
    "a name that folds": '{"max_to\u212aen\u017f": 9000}'.encode(),
    "a name written in escapes": b'{"max\\u005ftokens": 9000}',
    "an object of our own": b'{"llm": {"settings": {"max_tokens": 9000}}}',
    "an object that says what type it is": b'{"options": {"type": "x", "num_predict": 9000}}',
}


@pytest.mark.parametrize("raw", READ.values(), ids=READ)
def test_a_maximum_can_not_be_hidden(raw):
    assert reserved(raw)[0] >= 9000


@pytest.mark.parametrize("levels", [1100, GO_DEPTH])
def test_a_body_deeper_than_python_reads_reserves_everything(levels):
    assert reserved(b"[" * levels + b"]" * levels) == (math.inf, math.inf)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1',
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": "\n"}',
        b"max_tokens=9000",
        b"nul",
        b"[" * (GO_DEPTH + 1) + b"]" * (GO_DEPTH + 1),
        b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    ],
    ids=lambda raw: repr(raw[:16]),
)
def test_what_no_reader_reads_is_refused(raw):
    with pytest.raises(InvalidBody):
        read_json(raw)


@pytest.mark.parametrize("raw", [b"", b"  \n", b"\xef\xbb\xbf"], ids=repr)
def test_an_empty_body_is_not_unreadable(raw):
    assert read_json(raw) == []
