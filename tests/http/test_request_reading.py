"""What a request costs before it is served, whatever way its body is written and sent, and that views still read it."""

import gzip
import io
import json
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from threading import Barrier

import pytest
from flask import Request, request
from limited_apps import limited
from processor_time import require_done_within

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
PROMPT = "one two three four five six seven eight nine ten"


def reserving(limit="1000000 per day", unit="tokens", **options):
    """An app that says what its limit has reserved for the request, and the client's way to it."""
    served = limited(default_output_tokens=options.pop("default_output_tokens", 50), **options)

    @served.app.route("/", methods=["GET", "POST"])
    @served.limiter.limit_tokens(limit, unit=unit)
    def answer():
        return {"reserved": served.tokens(), "usage": {"prompt_tokens": 0, "completion_tokens": 0}}

    return served


def reserved(body=None, content_type=JSON, query="", unit="tokens", headers=None, **options):
    response = (
        reserving(unit=unit, **options)
        .client()
        .post(f"/?{query}" if query else "/", data=body, content_type=content_type, headers=headers)
    )
    assert response.status_code == 200, response.text
    return response.json["reserved"]


def multipart(**fields):
    boundary = "b0undary"
    lines = b"".join(
        b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n%s\r\n%s\r\n'
        % (boundary.encode(), name.encode(), filename, kind, value)
        for name, (value, filename, kind) in fields.items()
    )
    return lines + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def field(value):
    return value, b"", b""


def file(value, kind, name=b"a"):
    return value, b'; filename="%s"' % name, b"Content-Type: %s\r\n" % kind


HIDDEN = json.dumps({"prompt": PROMPT, "max_tokens": 9000}).encode()
VARIANTS = {
    "JSON": (HIDDEN, JSON, {}),
    "a duplicate field": (b'{"max_tokens": 1, "max_tokens": 9000}', JSON, {}),
    "NaN": (b'{"a": NaN, "max_tokens": 9000}', JSON, {}),
    "1e999": (b'{"a": 1e999, "max_tokens": 9000}', JSON, {}),
    "half an emoji": (b'{"prompt": "\\ud83d", "max_tokens": 9000}', JSON, {}),
    "UTF-16": (HIDDEN.decode().encode("utf-16"), JSON, {}),
    "UTF-32": (HIDDEN.decode().encode("utf-32"), JSON, {}),
    "65 levels": (b'{"max_tokens": 9000, "a":' + b"[" * 65 + b"]" * 65 + b"}", JSON, {}),
    "a text": (b'{"max_tokens": "9000"}', JSON, {}),
    "a float": (b'{"max_tokens": 9000.0}', JSON, {}),
    "another case": (b'{"MAX_TOKENS": 9000}', JSON, {}),
    "a list of requests": (b'[{"max_tokens": 4500}, {"max_tokens": 4500}]', JSON, {}),
    "a batch": (b'{"requests": [{"params": {"max_tokens": 9000}}]}', JSON, {}),
    "JSON lines": (b'{"max_tokens": 4500}\n{"max_tokens": 4500}', "application/x-ndjson", {}),
    "JSON as text": (HIDDEN, "text/plain", {}),
    "JSON as nothing": (HIDDEN, "", {}),
    "JSON as a picture": (HIDDEN, "image/png", {}),
    "JSON as a form": (HIDDEN, FORM, {}),
    "a form": (b"prompt=Hi&max_tokens=9000", FORM, {}),
    "a form, twice": (b"max_tokens=9000&max_tokens=1", FORM, {}),
    "a form, in brackets": (b"options[num_predict]=9000", FORM, {}),
    "JSON in a form": (b"request=" + b'{"max_tokens":9000}', FORM, {}),
    "a form in JSON": (b'{"a": "&max_tokens=9000&b="}', FORM, {}),
    "multipart": (*multipart(prompt=field(b"Hi"), max_tokens=field(b"9000")), {}),
    "JSON in multipart": (*multipart(request=file(HIDDEN, b"application/json", b"blob")), {}),
    "gzip": (gzip.compress(HIDDEN), JSON, {"Content-Encoding": "gzip"}),
    "gzip of two members": (
        gzip.compress(HIDDEN[:20]) + gzip.compress(HIDDEN[20:]),
        JSON,
        {"Content-Encoding": "gzip"},
    ),
    "deflate": (zlib.compress(HIDDEN), JSON, {"Content-Encoding": "deflate"}),
    "raw deflate": (zlib.compress(HIDDEN, wbits=-15), JSON, {"Content-Encoding": "deflate"}),
    "gzip twice": (gzip.compress(gzip.compress(HIDDEN)), JSON, {"Content-Encoding": "gzip, gzip"}),
    "gzip and deflate": (gzip.compress(zlib.compress(HIDDEN)), JSON, {"Content-Encoding": "deflate, x-gzip"}),
    "gzip that is none": (HIDDEN, JSON, {"Content-Encoding": "gzip"}),
    "a form in gzip": (gzip.compress(b"max_tokens=9000"), FORM, {"Content-Encoding": "gzip"}),
}
variants = pytest.mark.parametrize(("body", "content_type", "headers"), VARIANTS.values(), ids=VARIANTS)


@variants
def test_maximum_is_reserved_however_it_is_sent(body, content_type, headers):
    assert reserved(body, content_type, headers=headers) >= 9000


@pytest.mark.parametrize(
    ("body", "query"),
    [(None, "max_tokens=9000"), (b"{}", "max_tokens=9000"), (b'{"max_tokens": 5}', "max_tokens=9000")],
)
def test_maximum_in_the_query_is_reserved(body, query):
    assert reserved(body, query=query) >= 9000


def test_maximum_in_the_query_never_lowers_what_is_reserved():
    assert reserved(b"{}", query="max_tokens=1") >= 50


@variants
@pytest.mark.parametrize("parallel", [8])
def test_eight_parallel_calls_use_no_more_than_the_limit(body, content_type, headers, parallel):
    """10,000 a minute, and each call really uses 9,000: one is let in, whatever it looks like."""
    served = limited(default_output_tokens=200)
    together = Barrier(parallel)

    @served.app.post("/")
    @served.limiter.limit_tokens("10000 per minute")
    def answer():
        time.sleep(0.05)
        return {"usage": {"prompt_tokens": 0, "completion_tokens": 9000}}

    def call(_):
        together.wait()
        return served.client().post("/", data=body, content_type=content_type, headers=headers).status_code

    with ThreadPoolExecutor(parallel) as pool:
        statuses = list(pool.map(call, range(parallel)))
    assert sorted(statuses) == [200] + [429] * (parallel - 1)
    assert served.tokens() == 9000


COSTS_NOTHING_ELSE = {
    "no body": (None, JSON),
    "an empty object": (b"{}", JSON),
    "an empty text": (b'{"prompt": ""}', JSON),
    "null": (b"null", JSON),
    "a number": (b"5", JSON),
    "an empty form": (b"", FORM),
    "a byte of sound": (b"\xff", "audio/mpeg"),
}


@pytest.mark.parametrize(("body", "content_type"), COSTS_NOTHING_ELSE.values(), ids=COSTS_NOTHING_ELSE)
@pytest.mark.parametrize("unit", ["tokens", "input_tokens", "output_tokens"])
def test_request_on_a_token_limit_costs_at_least_1(body, content_type, unit):
    assert reserved(body, content_type, unit=unit, default_output_tokens=0) == 1


@pytest.mark.parametrize("estimated", [0, -0.0, 0.0, None, "5"], ids=repr)
def test_request_costs_at_least_1_whatever_the_app_estimates(estimated):
    served = limited(default_output_tokens=0)
    taken = []

    @served.app.post("/")
    @served.limiter.limit_tokens("1000 per day", estimate=lambda _: estimated)
    def answer():
        taken.append(served.tokens())
        return {}

    served.client().post("/", json={})
    assert taken == [1]


TEXTS = {
    "a form": (f"prompt={PROMPT}".encode(), FORM, ""),
    "a form without a field": (PROMPT.encode(), FORM, ""),
    "an unknown field of a form": (f"question={PROMPT}".encode(), FORM, ""),
    "multipart": (*multipart(prompt=field(PROMPT.encode())), ""),
    "a text file": (*multipart(upload=file(PROMPT.encode(), b"text/plain")), ""),
    "a text": (PROMPT.encode(), "text/plain", ""),
    "a text without a type": (PROMPT.encode(), "", ""),
    "JSON as a text": (json.dumps({"prompt": PROMPT}).encode(), "text/plain", ""),
    "the query": (None, JSON, f"prompt={PROMPT}"),
    "the query beside a body": (b"{}", JSON, f"question={PROMPT}"),
    "a stored prompt": (json.dumps({"prompt": {"id": "p", "variables": {"a": PROMPT}}}).encode(), JSON, ""),
    "a member of our own": (json.dumps({"question": {"words": [PROMPT]}}).encode(), JSON, ""),
    "a list": (json.dumps([PROMPT]).encode(), JSON, ""),
}


@pytest.mark.parametrize(("body", "content_type", "query"), TEXTS.values(), ids=TEXTS)
def test_text_is_input_wherever_it_stands(body, content_type, query):
    assert 10 <= reserved(body, content_type, query, unit="input_tokens") <= 30


def test_query_and_body_are_both_input():
    body = json.dumps({"prompt": PROMPT}).encode()
    assert reserved(body, query=f"prompt={PROMPT}", unit="input_tokens") >= 20


@pytest.mark.parametrize("content_type", ["audio/mpeg", "image/png", "application/octet-stream", "application/pdf"])
def test_media_cost_their_length_s_estimate_and_the_default_output(content_type):
    assert reserved(b"\xff" * 1024 * 100, content_type) == 100 + 50


WORDS = b"one two three " * 7_000
TYPES = ["image/png", "audio/mpeg", "application/octet-stream", "application/pdf", "x/y", ""]


@pytest.mark.parametrize("content", [WORDS, "ещё раз ".encode() * 7_000, b"\x01" + WORDS])
@pytest.mark.parametrize("kind", TYPES)
def test_text_costs_the_same_under_every_type(content, kind):
    expected = reserved(content, "text/plain", unit="input_tokens")
    assert expected > 10_000
    assert reserved(content, kind, unit="input_tokens") == expected
    body, content_type = multipart(file=file(content, kind.encode()))
    assert reserved(body, content_type, unit="input_tokens") >= expected


def test_file_in_a_form_is_a_medium():
    body, content_type = multipart(file=file(b"\xff" * 1024 * 100, b"audio/mpeg"), model=field(b"whisper-1"))
    assert reserved(body, content_type) == 100 + 50


def test_form_that_the_app_has_read_already_is_counted():
    served = limited(lambda: request.form["user"], default_output_tokens=50)
    taken = []

    @served.app.post("/")
    @served.limiter.limit_tokens("100000 per day")
    def answer():
        taken.append(served.tokens(key="u"))
        return request.files["file"].read()

    sent = {"user": "u", "max_tokens": "9000", "file": (io.BytesIO(b"\xff" * 2048), "a.mp3")}
    assert served.client().post("/", data=sent).data == b"\xff" * 2048
    assert taken[0] >= 9000


# Bodies that are refused


@pytest.mark.parametrize("error_format", ["hybrid", "openai", "anthropic", "problem"])
@pytest.mark.parametrize("body", [b'{"prompt": "sk-canary",}', b"sk-canary", b"[" * 20_000 + b'"sk-canary"'])
def test_json_that_nobody_reads_gets_our_400(body, error_format):
    served = reserving(error_format=error_format)
    response = served.client().post("/", data=body, content_type=JSON, headers={"X-Request-Id": "theirs"})
    assert response.status_code == 400
    assert response.headers["x-request-id"] == response.headers["request-id"]
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-should-retry"] == "false"
    assert "Retry-After" not in response.headers
    assert "canary" not in response.text
    error = response.json.get("error", response.json)
    assert error.get("code", "invalid_body") == "invalid_body"
    assert (error.get("message") or error["detail"]).endswith(".")
    assert served.tokens() == 0


def test_json_that_nobody_reads_is_reserved_by_length_where_the_app_says_so():
    assert reserved(b"{" * 1000, unreadable_body="reserve") == 500 + 50


def test_limit_that_is_used_up_refuses_before_a_body_is_found_unreadable():
    served = limited()
    served.app.post("/", endpoint="answer")(
        served.limiter.limit_tokens("1000 per day")(served.limiter.limit("1 per day")(dict))
    )
    statuses = [served.client().post("/", data=b"{", content_type=JSON).status_code for _ in range(2)]
    assert statuses == [400, 429]


AMBIGUOUS = {
    "a duplicate": (b'{"model": "a", "model": "b"}', JSON, ""),
    "another case": (b'{"model": "a", "Model": "b"}', JSON, ""),
    "an escape": (b'{"model": "a", "mode\\u006c": "b"}', JSON, ""),
    "query and body": (b'{"model": "a"}', JSON, "model=b"),
    "query and form": (b"model=a", FORM, "model=b"),
    "a form": (b"model=a&model=b", FORM, ""),
    "a form in JSON": (b'{"model": "a", "x": "&model=b&y="}', FORM, ""),
    "multipart": (multipart(model=field(b"a"))[0], "multipart/form-data; boundary=b0undary", "model=b"),
}


@pytest.mark.parametrize(("body", "content_type", "query"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_request_whose_readers_would_find_different_models_is_refused(body, content_type, query):
    response = reserving().client().post(f"/?{query}", data=body, content_type=content_type)
    assert (response.status_code, response.json["error"]["code"]) == (400, "ambiguous_model")


@pytest.mark.parametrize(
    ("body", "query"), [(b'{"model": "a", "model": "a"}', ""), (b'{"model": "a"}', "model=a"), (b"{}", "model=a")]
)
def test_model_that_is_named_twice_alike_is_not_ambiguous(body, query):
    assert reserved(body, query=query) == 50


def post_large(client, body, announced, **options):
    if announced:
        return client.post("/", data=body, **options)
    return client.post("/", input_stream=io.BytesIO(body), environ_overrides={"wsgi.input_terminated": True}, **options)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("content_type", [JSON, FORM, "multipart/form-data; boundary=b", "audio/mpeg", "text/plain"])
def test_body_that_is_too_large_gets_our_413(content_type, announced):
    served = reserving(max_body_bytes=1000)
    response = post_large(served.client(), b"a" * 2000, announced, content_type=content_type)
    assert (response.status_code, response.json["error"]["code"]) == (413, "body_too_large")
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["request-id"].startswith("req_")
    assert "1000 bytes" in response.json["error"]["message"]


def test_app_s_own_bound_gets_our_413_too():
    served = reserving(config={"MAX_CONTENT_LENGTH": 500})
    response = served.client().post("/", data=b"a" * 800, content_type=JSON)
    assert (response.status_code, response.json["error"]["code"]) == (413, "body_too_large")
    assert "500 bytes" in response.json["error"]["message"]


def test_default_fits_a_vision_call():
    body = json.dumps(
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is it?"},
                        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64," + "/9j/" * 4_000_000}},
                    ],
                }
            ]
        }
    ).encode()
    assert 1600 < reserved(body) < 1700


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bomb_is_told_to_be_too_large(encoding):
    bomb = gzip.compress(b" " * 50_000_000) if encoding == "gzip" else zlib.compress(b" " * 50_000_000)
    response = reserving().client().post("/", data=bomb, content_type=JSON, headers={"Content-Encoding": encoding})
    assert (response.status_code, response.json["error"]["code"]) == (413, "body_too_large")


@pytest.mark.skipif(not find_spec("brotli"), reason="no decoder is installed")
def test_brotli_is_decoded_where_a_decoder_is_installed():
    import brotli  # noqa: PLC0415  not installed everywhere

    assert reserved(brotli.compress(HIDDEN), headers={"Content-Encoding": "br"}) >= 9000


# What views find afterwards

SENT = {
    "JSON": (b'{"prompt": "a"}', JSON),
    "a form": (b"prompt=a&n=2", FORM),
    "multipart": multipart(prompt=field(b"a"), file=file(b"\xff\xfe", b"audio/mpeg")),
    "bytes": (b"\x00\xff" * 10, "application/octet-stream"),
    "a text": (b"tell me", "text/plain"),
}


def read_form_anew():
    with Request(request.environ) as another:
        return repr(sorted(another.form.items())).encode()


READS = {
    "get_data": lambda: request.get_data(cache=False),
    "data": lambda: request.data,
    "stream": lambda: request.stream.read(-1),
    "stream in pieces": lambda: b"".join(iter(lambda: request.stream.read(3), b"")),
    "wsgi.input": lambda: request.environ["wsgi.input"].read(request.content_length or -1),
    "another request": lambda: Request(request.environ).get_data(),
    "json": lambda: json.dumps(request.get_json(force=True, silent=True)).encode(),
    "form": lambda: repr(sorted(request.form.items())).encode(),
    "files": lambda: repr([(name, each.read()) for name, each in request.files.items()]).encode(),
    "form and files": lambda: repr((request.form.to_dict(), [each.read() for each in request.files.values()])).encode(),
    "form of another request": read_form_anew,
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(("body", "content_type"), SENT.values(), ids=SENT)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_view_reads_its_request_as_if_nobody_had_read_it_before(read, body, content_type, announced):
    served = limited()
    limits = served.limiter.limit_tokens("100000 per day")
    served.app.post("/", endpoint="answer")(limits(READS[read]))
    served.app.post("/free", endpoint="free")(READS[read])

    def send(path):
        if announced:
            return served.client().post(path, data=body, content_type=content_type).data
        return (
            served.client()
            .post(
                path,
                input_stream=io.BytesIO(body),
                content_type=content_type,
                environ_overrides={"wsgi.input_terminated": True},
            )
            .data
        )

    assert send("/") == send("/free")


# What the refusal says


def test_refusal_says_that_output_was_reserved_for_want_of_a_maximum():
    served = limited(default_output_tokens=500)

    @served.app.post("/")
    @served.limiter.limit_tokens("600 per day")
    def answer():
        return {"usage": {"prompt_tokens": 2, "completion_tokens": 300}}

    assert served.client().post("/", json={"prompt": "two words"}).status_code == 200
    refused = served.client().post("/", json={"prompt": "two words"}).json["error"]["message"]
    assert (
        "500 output tokens were reserved because the request names no maximum: send max_tokens. Try again in" in refused
    )
    named = served.client().post("/", json={"prompt": "two words", "max_tokens": 500}).json["error"]["message"]
    assert "names no maximum" not in named


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_many_tiny_members_take_no_time_and_reserve_all_there_is(encoding):
    compress = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    body = compress(b"") * 300_000 + compress(b'{"max_tokens": 900000}')
    client = reserving().client()

    def ask():
        answer = client.post("/", data=body, content_type="text/plain", headers={"Content-Encoding": encoding})
        assert answer.json["reserved"] == 1_000_000

    require_done_within(0.5, ask)


def test_of_two_headers_of_a_part_the_one_that_flask_takes_counts():
    head = b"".join(b'Content-Disposition: form-data; name="%s"\r\n' % name for name in (b"max_tokens", b"a"))
    body = b"--b\r\n" + head + b"\r\n9000\r\n--b--\r\n"
    answer = reserving().client().post("/", data=body, content_type="multipart/form-data; boundary=b")
    assert answer.json["reserved"] == 9000


def test_body_that_breaks_the_estimate_reserves_all_there_is(monkeypatch, caplog):
    def broken(*_):
        raise TypeError("a secret")

    monkeypatch.setattr("flask_ailimit.request.estimate.estimate_with_models", broken)
    assert reserving().client().post("/", json={"prompt": "a secret"}).json["reserved"] == 1_000_000
    assert "TypeError" in caplog.text
    assert "secret" not in caplog.text
