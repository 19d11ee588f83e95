"""A client that wants to pay too little with what it asks: what its request reserves, whoever reads it."""

import gzip
import io
import json

import pytest
from acceptance_apps import BODY, charged, deflated, metered, send, words
from flask import request
from limited_apps import limited
from pydantic import BaseModel, TypeAdapter

ASKED = 50_000
JSON = "application/json"
LONE = '"prompt": "half \\ud83d"'


def deep(levels, before='"max_tokens": {n}, ', after=""):
    return "{{" + before + '"prompt": "hi", "extra": ' + "[" * levels + "]" * levels + after + "}}"


# Bodies in which some reader of JSON finds ``max_tokens``: a pattern in which ``{n}`` is the number.

READ_BY_SOMEBODY = {
    "plain": '{{"prompt": "hi", "max_tokens": {n}}}',
    # Fields given twice.
    "twice, the last larger": '{{"prompt": "hi", "max_tokens": 1, "max_tokens": {n}}}',
    "twice, the first larger": '{{"prompt": "hi", "max_tokens": {n}, "max_tokens": 1}}',
    "three times, the middle largest": '{{"prompt": "hi", "max_tokens": 1, "max_tokens": {n}, "max_tokens": 2}}',
    "twice, then null": '{{"prompt": "hi", "max_tokens": {n}, "max_tokens": null}}',
    "twice, then a text": '{{"prompt": "hi", "max_tokens": {n}, "max_tokens": "few"}}',
    "another field twice": '{{"prompt": "hi", "prompt": "hi", "max_tokens": {n}}}',
    "twice inside a message": '{{"messages": [{{"role": "user", "content": "", "content": "hi"}}], "max_tokens": {n}}}',
    "twice, one escaped": '{{"prompt": "hi", "max_tokens": 1, "max_\\u0074okens": {n}}}',
    "escaped name": '{{"prompt": "hi", "\\u006dax_tokens": {n}}}',
    # Numbers that are none in strict JSON, beside the one that matters.
    "NaN beside": '{{"prompt": "hi", "temperature": NaN, "max_tokens": {n}}}',
    "Infinity beside": '{{"prompt": "hi", "temperature": Infinity, "max_tokens": {n}}}',
    "-Infinity beside": '{{"prompt": "hi", "temperature": -Infinity, "max_tokens": {n}}}',
    "1e999 beside": '{{"prompt": "hi", "temperature": 1e999, "max_tokens": {n}}}',
    "-1e999 beside": '{{"prompt": "hi", "temperature": -1e999, "max_tokens": {n}}}',
    "1e-999 beside": '{{"prompt": "hi", "temperature": 1e-999, "max_tokens": {n}}}',
    "integer of 4000 digits beside": '{{"prompt": "hi", "seed": ' + "9" * 4000 + ', "max_tokens": {n}}}',
    "integer of 5000 digits beside, which Go passes over": '{{"prompt": "hi", "seed": '
    + "9" * 5000
    + ', "max_tokens": {n}}}',
    # Texts that are no Unicode.
    "half an emoji": "{{" + LONE + ', "max_tokens": {n}}}',
    "the other half": '{{"prompt": "\\ude00 hi", "max_tokens": {n}}}',
    "halves in the wrong order": '{{"prompt": "\\ude00\\ud83d", "max_tokens": {n}}}',
    "half an emoji as a name": '{{"prompt": "hi", "\\ud83d": 1, "max_tokens": {n}}}',
    "half an emoji in a message": '{{"messages": [{{"role": "user", "content": "\\ud83d"}}], "max_tokens": {n}}}',
    # Depth.
    "64 levels": deep(64),
    "65 levels": deep(65),
    "65 levels, the number after": deep(65, "", ', "max_tokens": {n}'),
    "65 levels of objects": '{{"max_tokens": {n}, "prompt": "hi", "x": ' + '{{"a":' * 65 + "1" + "}}" * 65 + "}}",
    "150 levels": deep(150),
    "500 levels": deep(500),
    # The number itself, as pydantic and others take it.
    "text": '{{"prompt": "hi", "max_tokens": "{n}"}}',
    "float": '{{"prompt": "hi", "max_tokens": {n}.0}}',
    "float with exponent": '{{"prompt": "hi", "max_tokens": {n}e0}}',
    "float with a negative exponent": '{{"prompt": "hi", "max_tokens": {n}0e-1}}',
    "text of a float": '{{"prompt": "hi", "max_tokens": "{n}.0"}}',
    "text with spaces": '{{"prompt": "hi", "max_tokens": " {n}\\n"}}',
    "text with a sign": '{{"prompt": "hi", "max_tokens": "+{n}"}}',
    "text with zeros": '{{"prompt": "hi", "max_tokens": "000{n}"}}',
    # Names without case, as Go takes them.
    "capitals": '{{"prompt": "hi", "MAX_TOKENS": {n}}}',
    "camel": '{{"prompt": "hi", "Max_Tokens": {n}}}',
    "small one beside": '{{"prompt": "hi", "max_tokens": 1, "Max_tokens": {n}}}',
    "small one after": '{{"prompt": "hi", "MAX_tokens": {n}, "max_tokens": 1}}',
    "the sign of the kelvin": '{{"prompt": "hi", "max_to\u212aens": {n}}}',
    "the long s": '{{"prompt": "hi", "max_token\u017f": {n}}}',
    "capitals in another name": '{{"prompt": "hi", "Max_Completion_Tokens": {n}}}',
    # The other names, each with each.
    "max_completion_tokens": '{{"prompt": "hi", "max_completion_tokens": {n}}}',
    "max_output_tokens": '{{"input": "hi", "max_output_tokens": {n}}}',
    "two names": '{{"prompt": "hi", "max_tokens": 1, "max_completion_tokens": {n}}}',
    "two names, one a text": '{{"prompt": "hi", "max_tokens": 1, "max_output_tokens": "{n}"}}',
    # What surrounds it.
    "white space around": '\r\n\t {{"prompt": "hi", "max_tokens": {n}}} \r\n',
    "mark in front": '\ufeff{{"prompt": "hi", "max_tokens": {n}}}',
    "float among token ids": '{{"prompt": [1, 2, 3.0], "max_tokens": {n}}}',
    "stored prompt": '{{"prompt": {{"id": "pmpt_1", "variables": {{"city": "Bern"}}}}, "max_output_tokens": {n}}}',
    "list of one": '[{{"prompt": "hi", "max_tokens": {n}}}]',
    "requests in a batch": '{{"requests": [{{"custom_id": "1", "params": {{"prompt": "hi", "max_tokens": {n}}}}}]}}',
}

UTF_16_AND_32 = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig")


def raw_bodies():
    """Each body in bytes: a function from the number, and its content type and encoding."""
    for name, pattern in READ_BY_SOMEBODY.items():
        yield name, lambda n, pattern=pattern: (pattern.format(n=n).encode("utf-8", "surrogatepass"), JSON, None)
    plain = READ_BY_SOMEBODY["plain"]
    for encoding in UTF_16_AND_32:
        yield encoding, lambda n, encoding=encoding: (plain.format(n=n).encode(encoding), JSON, None)
    for mimetype in (
        "text/plain",
        "application/octet-stream",
        "",
        "text/json",
        "application/vnd.api+json",
        "application/json; charset=utf-16",
        "application/jsonx",
        "APPLICATION/JSON",
        "application/x-www-form-urlencoded",
    ):
        yield f"as {mimetype}", lambda n, mimetype=mimetype: (plain.format(n=n).encode(), mimetype, None)
    yield (
        "bytes that are no UTF-8, which Go takes",
        lambda n: (b'{"prompt": "\xff\xfe hi", "max_tokens": %d}' % n, JSON, None),
    )
    yield "gzip", lambda n: (gzip.compress(plain.format(n=n).encode()), JSON, "gzip")
    yield "gzip in capitals", lambda n: (gzip.compress(plain.format(n=n).encode()), JSON, "GZIP")
    yield "deflate", lambda n: (deflated(plain.format(n=n).encode()), JSON, "deflate")
    yield "raw deflate", lambda n: (deflated(plain.format(n=n).encode(), -15), JSON, "deflate")
    yield "gzip twice", lambda n: (gzip.compress(gzip.compress(plain.format(n=n).encode())), JSON, "gzip, gzip")
    yield "gzip, said to be none", lambda n: (gzip.compress(plain.format(n=n).encode()), JSON, None)
    yield "identity", lambda n: (plain.format(n=n).encode(), JSON, "identity")


RAW = dict(raw_bodies())
UNREADABLE_TO_FLASK = {
    "gzip",
    "gzip in capitals",
    "deflate",
    "raw deflate",
    "gzip twice",
    "gzip, said to be none",
}
"""Whether the app reads these or nobody does is a matter of the app: a refusal is right, and so is the whole number."""


def asking(body):
    raw, mimetype, encoding = body
    headers = {"Content-Encoding": encoding} if encoding else {}
    return {"data": raw, "content_type": mimetype, "headers": headers}


@pytest.mark.parametrize("body", RAW.values(), ids=RAW)
def test_reservation_is_what_the_most_generous_reader_finds(body, request):
    outcome = charged(lambda: "", request=asking(body(ASKED)))
    if outcome.served:
        assert outcome.reserved["output"] >= ASKED
        assert outcome.reserved["tokens"] >= ASKED + 1
        assert outcome.reserved["input"] >= 1
    else:
        assert request.node.callspec.id in UNREADABLE_TO_FLASK
        assert outcome.status in (400, 415)


@pytest.mark.parametrize("body", RAW.values(), ids=RAW)
def test_eight_calls_at_once_use_what_the_limit_allows(body):
    """Each is made while the one before is served, and each uses the 9,000 that it asks for."""
    limits = limited(token_counter=words)
    served = []

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("10000 per minute")
    def answer():
        served.append(1)
        if len(served) < 8:
            limits.client().post("/", **asking(body(9000)))
        limits.limiter.record_usage(output_tokens=9000)
        return ""

    for _ in range(8):
        limits.client().post("/", **asking(body(9000)))
    assert len(served) <= 1


@pytest.mark.parametrize("body", RAW.values(), ids=RAW)
def test_limit_that_is_in_debt_refuses_whatever_the_body(body):
    limits = limited(token_counter=words, default_output_tokens=0)
    served = []

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("1000 per minute", unit="input_tokens")
    def answer():
        served.append(1)
        limits.limiter.record_usage(input_tokens=900)
        return ""

    for _ in range(5):
        limits.client().post("/", **asking(body(1)))
    assert len(served) <= 2


COSTS_NOTHING = {
    "no body": {"method": "GET"},
    "empty body": {"data": b"", "content_type": JSON},
    "null": {"data": b"null", "content_type": JSON},
    "empty object": {"json": {}},
    "empty list": {"json": []},
    "a number": {"data": b"7", "content_type": JSON},
    "a text": {"data": b'"hi"', "content_type": JSON},
    "empty prompt": {"json": {"prompt": ""}},
    "stored prompt": {"json": {"prompt": {"id": "pmpt_1", "variables": {"a": "b"}}}},
    "field of the app's own": {"json": {"question": "hi"}},
    "float among token ids": {"json": {"prompt": [1, 2, 3.5]}},
    "truth among token ids": {"json": {"prompt": [1, True]}},
    "form": {"data": {"prompt": "hi"}},
    "form with a file": {"data": {"prompt": "hi", "file": (io.BytesIO(b"x"), "x.txt")}},
    "query": {"path": "/?prompt=hi"},
    "query, read with GET": {"path": "/?prompt=hi", "method": "GET"},
    "text": {"data": b"hi", "content_type": "text/plain"},
    "octets": {"data": b"\x00\x01", "content_type": "application/octet-stream"},
    "XML": {"data": b"<prompt>hi</prompt>", "content_type": "application/xml"},
    "white space": {"json": {"prompt": " \n "}},
    "previous response": {"json": {"previous_response_id": "resp_1"}},
    "conversation": {"json": {"conversation": "conv_1"}},
}


WHERE = [
    ("token-bucket", "tokens"),
    ("fixed-window", "input_tokens"),
    ("moving-window", "output_tokens"),
    ("sliding-window-counter", "tokens"),
]


@pytest.mark.parametrize(
    ("asked", "algorithm", "unit"),
    [(asked, *WHERE[i % len(WHERE)]) for i, asked in enumerate(COSTS_NOTHING.values())],
    ids=COSTS_NOTHING,
)
def test_request_that_says_nothing_is_refused_by_a_limit_in_debt(asked, algorithm, unit):
    limits = limited(token_counter=words, default_output_tokens=0)
    served = []

    @limits.app.route("/", endpoint="answer", methods=["GET", "POST"])
    @limits.limiter.limit_tokens("1000 per minute", unit=unit, algorithm=algorithm)
    def answer():
        served.append(limits.tokens())
        half = {"output_tokens": 1500} if unit == "output_tokens" else {"input_tokens": 1500}
        limits.limiter.record_usage(**half)
        return ""

    options = {"method": "POST", "path": "/", **asked}
    client = limits.client()
    # A file can be sent once.
    answers = [
        client.open(
            **{
                **options,
                **({"data": {"prompt": "hi", "file": (io.BytesIO(b"x"), "x.txt")}} if "file" in str(options) else {}),
            }
        )
        for _ in range(5)
    ]
    assert [each.status_code for each in answers] == [200, 429, 429, 429, 429]
    assert served[0] >= 1


@pytest.mark.parametrize("estimate", [lambda _: 0, lambda _: -5, lambda _: None, lambda _: "few"])
def test_estimate_of_the_app_s_own_that_is_nothing_does_not_pass_a_limit_in_debt(estimate):
    limits = limited(token_counter=words, default_output_tokens=0)

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("1000 per minute", estimate=estimate)
    def answer():
        limits.limiter.record_usage(output_tokens=1500)
        return ""

    assert [limits.client().post("/", json={}).status_code for _ in range(3)] == [200, 429, 429]


# Spellings of a number, with pydantic as the judge

SPELLINGS = [
    '"9000"',
    "9000.0",
    "9e3",
    "9.0E+3",
    "90000e-1",
    '"9_000"',
    '" 9000 "',
    '"+9000"',
    '"009000"',
    '"9000.0"',
    '"9000.00"',
    "true",
    '"\\t9000\\n"',
    '"9000\\u00a0"',
    '"\\u0039000"',
    "9000",
    "9000.5",
    '"9e3"',
    '"0x2328"',
    "null",
    "false",
    "-1",
    "0",
    '""',
    "[]",
    "{}",
    "[9000]",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_number_is_read_as_widely_as_pydantic_reads_it(spelling):
    try:
        expected = TypeAdapter(int).validate_json(spelling)
    except ValueError:
        expected = 0
    body = f'{{"prompt": "hi", "max_tokens": {spelling}}}'.encode()
    outcome = charged(lambda: "", request={"data": body, "content_type": JSON}, default_output_tokens=7)
    assert outcome.served
    assert outcome.reserved["output"] >= (expected if expected > 0 else 7)
    assert outcome.reserved["output"] <= max(expected, 9001)


@pytest.mark.parametrize(
    "spelling", ['"3"', "3.0", "3e0", '" 3 "', '1, "n": 3', '3, "n": 1', '1, "N": 3', '1, "best_of": "3"']
)
def test_number_of_choices_is_read_as_widely_as_the_maximum(spelling):
    body = f'{{"prompt": "hi", "max_tokens": 1000, "n": {spelling}}}'.encode()
    outcome = charged(lambda: "", request={"data": body, "content_type": JSON})
    assert outcome.reserved["output"] >= 3000


def test_prompt_counts_in_its_longest_reading():
    long = " ".join(["word"] * 5000)
    for body in (
        f'{{"prompt": "hi", "prompt": "{long}", "max_tokens": 1}}',
        f'{{"prompt": "{long}", "prompt": "hi", "max_tokens": 1}}',
        f'{{"prompt": "hi", "PROMPT": "{long}", "max_tokens": 1}}',
        f'{{"Messages": [{{"Role": "user", "Content": "{long}"}}], "max_tokens": 1}}',
        f'{{"messages": [{{"role": "user", "content": "{long}", "content": "hi"}}], "max_tokens": 1}}',
        f'{{"messages": [{{"role": "user", "content": "{long}"}}], "messages": [], "max_tokens": 1}}',
        f'{{"prompt": "\\ud83d {long}", "max_tokens": 1}}',
    ):
        outcome = charged(lambda: "", request={"data": body.encode(), "content_type": JSON})
        assert outcome.reserved["input"] >= 5000, body[:60]


def test_reading_of_an_app_with_pydantic_is_covered():
    class Ask(BaseModel):
        prompt: str
        max_tokens: int

    seen = []

    def answer():
        seen.append(Ask.model_validate_json(request.get_data()).max_tokens)
        return ""

    limits = metered(answer)
    for number in ('"9000"', "9000.0", '"9_000"', '1, "max_tokens": 9000'):
        raw = f'{{"prompt": "hi", "max_tokens": {number}}}'.encode()
        outcome = send(limits, data=raw, content_type=JSON)
        assert outcome.reserved["output"] >= seen[-1] == 9000


# Forms, queries, files


FIELDS = {
    "form": {"data": {"prompt": "hi", "max_tokens": "50000"}},
    "form, given twice": {"data": {"prompt": "hi", "max_tokens": ["1", "50000"]}},
    "form, given twice, largest first": {"data": {"prompt": "hi", "max_tokens": ["50000", "1"]}},
    "form with escapes": {
        "data": b"prompt=hi&max_tokens=5000%30",
        "content_type": "application/x-www-form-urlencoded",
    },
    "form with an escaped name": {
        "data": b"prompt=hi&max%5Ftokens=50000",
        "content_type": "application/x-www-form-urlencoded",
    },
    "form with a charset": {
        "data": b"prompt=hi&max_tokens=50000",
        "content_type": "application/x-www-form-urlencoded; charset=utf-8",
    },
    "multipart": {"data": {"prompt": "hi", "max_tokens": "50000"}, "content_type": "multipart/form-data"},
    "query": {"path": "/?prompt=hi&max_tokens=50000"},
    "query, given twice": {"path": "/?prompt=hi&max_tokens=50000&max_tokens=1"},
    "query of a GET": {"path": "/?prompt=hi&max_tokens=50000", "method": "GET"},
    "query beside a smaller body": {"path": "/?max_tokens=50000", "json": {"prompt": "hi", "max_tokens": 1}},
    "query beside a form": {"path": "/?max_tokens=50000", "data": {"prompt": "hi"}},
    "query with escapes": {"path": "/?prompt=hi&max%5Ftokens=%350000"},
    "query with n": {"path": "/?prompt=hi&max_tokens=10000&n=5"},
    "form with n": {"data": {"prompt": "hi", "max_tokens": "10000", "n": "5"}},
}


@pytest.mark.parametrize("asked", FIELDS.values(), ids=FIELDS)
def test_fields_of_forms_and_queries_are_read(asked):
    outcome = charged(lambda: "", request=asked)
    assert outcome.status == 200
    assert outcome.reserved["output"] >= ASKED
    assert outcome.reserved["input"] >= 1


def test_multipart_with_files_is_read_and_left_to_the_view():
    seen = []

    def answer():
        seen.append((request.form["max_tokens"], request.files["file"].read()))
        return ""

    outcome = charged(
        answer, request={"data": {"max_tokens": "50000", "prompt": "hi", "file": (io.BytesIO(b"x" * 5000), "a.bin")}}
    )
    assert seen == [("50000", b"x" * 5000)]
    assert outcome.reserved["output"] >= ASKED


@pytest.mark.parametrize(
    "mimetype", ["text/plain", "application/x-www-form-urlencoded", JSON, "application/octet-stream"]
)
def test_view_still_reads_the_body_by_force(mimetype):
    seen = []

    def answer():
        seen.append(request.get_json(force=True))
        return ""

    charged(answer, request={"data": json.dumps(BODY), "content_type": mimetype})
    assert seen == [BODY]


@pytest.mark.parametrize("chunked", [False, True])
def test_view_still_reads_the_fields_of_a_form(chunked):
    seen = []

    def answer():
        seen.append(request.form.to_dict())
        return ""

    options = {"environ_overrides": {"wsgi.input_terminated": True, "CONTENT_LENGTH": None}} if chunked else {}
    outcome = charged(
        answer,
        request={
            "data": b"prompt=hi&max_tokens=50000",
            "content_type": "application/x-www-form-urlencoded",
            **options,
        },
    )
    assert outcome.status == 200
    if not chunked:
        assert seen == [{"prompt": "hi", "max_tokens": "50000"}]


MEDIA = {
    "audio": ("audio/wav", b"RIFF\x00\x00" + bytes(range(256)) * 400),
    "picture": ("image/png", b"\x89PNG\r\n" + bytes(range(256)) * 400),
    "octets": ("application/octet-stream", bytes(range(256)) * 400),
    "video": ("video/mp4", b"\x00\x00\x00\x18ftyp" + bytes(range(256)) * 400),
    "pdf": ("application/pdf", b"%PDF-1.7\n" + bytes(range(256)) * 400),
    "no type": ("", bytes(range(256)) * 400),
}


@pytest.mark.parametrize(("mimetype", "data"), MEDIA.values(), ids=MEDIA)
def test_upload_costs_its_length_and_the_default_output(mimetype, data):
    outcome = charged(lambda: "", request={"data": data, "content_type": mimetype}, default_output_tokens=70)
    assert outcome.status == 200
    assert outcome.reserved["output"] >= 70
    assert 1 <= outcome.reserved["input"] <= len(data)


@pytest.mark.parametrize(("mimetype", "data"), MEDIA.values(), ids=MEDIA)
def test_uploads_do_not_exclude_each_other(mimetype, data):
    """Two of 100 KB at once, under a limit of 200,000 tokens."""
    limits = limited(token_counter=words)
    served = []

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("200000 per minute")
    def answer():
        served.append(1)
        if len(served) < 2:
            assert limits.client().post("/", data=data, content_type=mimetype).status_code == 200
        return ""

    assert limits.client().post("/", data=data, content_type=mimetype).status_code == 200


# Batches

ONE = {"prompt": "hi", "max_tokens": 10_000}
BATCHES = {
    "list": [ONE] * 5,
    "requests": {"requests": [ONE] * 5},
    "requests with params, as Anthropic's": {"requests": [{"custom_id": str(i), "params": ONE} for i in range(5)]},
    "requests with bodies, as OpenAI's": {"requests": [{"method": "POST", "url": "/v1/x", "body": ONE}] * 5},
}


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_batch_reserves_the_sum_of_its_requests(batch):
    outcome = charged(lambda: "", request={"json": batch})
    assert outcome.reserved["output"] >= 50_000
    assert outcome.reserved["input"] >= 5


@pytest.mark.parametrize(
    "mimetype", ["application/jsonl", "application/x-ndjson", "application/json-lines", "text/plain"]
)
def test_batch_in_json_lines_reserves_the_sum_of_its_requests(mimetype):
    data = "\n".join(json.dumps({"custom_id": str(i), "body": ONE}) for i in range(5))
    outcome = charged(lambda: "", request={"data": data, "content_type": mimetype})
    if outcome.served:
        assert outcome.reserved["output"] >= 50_000
    else:
        assert outcome.status == 400


# Bodies that nobody reads

BROKEN = {
    "cut off": b'{"prompt": "hi", "max_tokens": 50000',
    "no quotes": b"{prompt: 'hi', max_tokens: 50000}",
    "comma at the end": b'{"prompt": "hi", "max_tokens": 50000,}',
    "comment": b'{"prompt": "hi", /* */ "max_tokens": 50000}',
    "single quotes": b"{'max_tokens': 50000}",
    "no JSON": b"max_tokens",
    "control character in a text": b'{"prompt": "a\nb", "max_tokens": 50000}',
    "zero in front": b'{"prompt": "hi", "max_tokens": 050000}',
    "hexadecimal": b'{"prompt": "hi", "max_tokens": 0xC350}',
    "nan in small letters": b'{"prompt": "hi", "temperature": nan}',
    "zero bytes": b"\0\0\0\0\0",
    "only a bracket": b"[",
    "brackets without end": b"[" * 100_000,
    "colons": b'{"prompt"}',
}


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
def test_json_that_nobody_reads_is_refused_before_the_view(raw):
    outcome = charged(lambda: "", request={"data": raw, "content_type": JSON})
    assert (outcome.status, outcome.served) == (400, False)
    answer = json.loads(outcome.body)
    assert answer
    assert outcome.headers["x-request-id"].startswith("req_")
    assert outcome.headers["Content-Type"].startswith("application/")
    assert outcome.used == {"tokens": 0, "input": 0, "output": 0, "concurrency": 0}
    assert b"50000" not in outcome.body


@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN)
def test_json_that_nobody_reads_can_be_reserved_by_its_length(raw):
    outcome = charged(
        lambda: "",
        request={"data": raw, "content_type": JSON},
        unreadable_body="reserve",
        default_output_tokens=70,
    )
    assert outcome.status == 200
    assert outcome.reserved["output"] >= 70
    assert outcome.reserved["input"] >= 1


@pytest.mark.parametrize("value", ["Refuse", "", "length", None, True, 0])
def test_setting_for_unreadable_bodies_is_checked(value):
    with pytest.raises(Exception, match="unreadable_body"):
        limited(unreadable_body=value)


def test_route_without_a_token_limit_reads_no_body():
    limits = limited()

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit("10 per minute")
    def answer():
        return request.get_data()

    response = limits.client().post("/", data=b"{broken", content_type=JSON)
    assert (response.status_code, response.data) == (200, b"{broken")


# Which model

MODELS = {
    "twice": '{"model": "cheap", "model": "dear", "prompt": "hi"}',
    "by case": '{"model": "cheap", "Model": "dear", "prompt": "hi"}',
    "by case, capitals first": '{"MODEL": "dear", "model": "cheap", "prompt": "hi"}',
    "escaped": '{"model": "cheap", "mode\\u006c": "dear", "prompt": "hi"}',
    "three times": '{"model": "cheap", "model": "dear", "model": "cheap", "prompt": "hi"}',
    "null first": '{"model": null, "model": "dear", "prompt": "hi"}',
}


@pytest.mark.parametrize("body", MODELS.values(), ids=MODELS)
def test_body_that_names_two_models_is_refused(body):
    outcome = charged(lambda: "", request={"data": body, "content_type": JSON})
    assert (outcome.status, outcome.served) == (400, False)
    assert outcome.headers["x-request-id"]


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "one", "model": "one", "prompt": "hi"}',
        '{"model": "one", "Model": "one", "prompt": "hi"}',
        '{"model": "one", "prompt": "hi", "prompt": "ho"}',
        '{"model": "one", "tools": [{"model": "other"}], "prompt": "hi"}',
    ],
)
def test_body_that_names_one_model_is_served(body):
    assert charged(lambda: "", request={"data": body, "content_type": JSON}).status == 200


# Size


def photo(size):
    picture = "data:image/jpeg;base64," + "QUJDREVG" * (size // 8)
    parts = [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": picture}}]
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": 40}


@pytest.mark.parametrize("size", [2 << 20, 10 << 20])
def test_ordinary_photo_is_served_and_costs_what_a_picture_costs(size):
    outcome = charged(lambda: "", request={"json": photo(size)})
    assert outcome.status == 200
    assert outcome.reserved["input"] <= 5000


@pytest.mark.parametrize(
    ("mimetype", "error_format"),
    [
        (JSON, "hybrid"),
        (JSON, "problem"),
        (JSON, "openai"),
        (JSON, "anthropic"),
        ("text/plain", "hybrid"),
        ("audio/wav", "hybrid"),
        ("application/x-www-form-urlencoded", "hybrid"),
    ],
)
def test_body_beyond_the_largest_is_a_413_in_our_format(mimetype, error_format):
    outcome = charged(
        lambda: "",
        request={"data": b"a" * 3000, "content_type": mimetype},
        max_body_bytes=2000,
        error_format=error_format,
    )
    assert (outcome.status, outcome.served) == (413, False)
    assert json.loads(outcome.body)
    assert "json" in outcome.headers["Content-Type"]
    assert outcome.headers["x-request-id"].startswith("req_")
    assert outcome.used["tokens"] == outcome.used["concurrency"] == 0


def test_body_that_unpacks_to_more_than_the_largest_is_refused():
    bomb = gzip.compress(b'{"prompt": "' + b"a" * (64 << 20) + b'"}')
    outcome = charged(lambda: "", request={"data": bomb, "content_type": JSON, "headers": {"Content-Encoding": "gzip"}})
    assert not outcome.served or outcome.reserved["input"] >= 1
    assert outcome.status in (200, 400, 413, 415)
