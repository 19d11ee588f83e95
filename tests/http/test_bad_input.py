"""What clients may send, and what they get: never a 500, a way past a limit, or tokens charged for a mistake."""

import gzip
import io
import itertools
import json
import random

import pytest
from flask import Flask, abort, request
from limited_apps import ADDRESS, fill, limited, twice_a_day
from processor_time import require_done_within
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_ailimit import AILimiter, api_key, remote_address
from flask_ailimit.tokens import InvalidBody, decode_body

TOKENS, REQUESTS, SLOTS = "tokens-per-day", "requests-per-day", "concurrency"


def outcome(response):
    """Status and code of an answer."""
    body = response.get_json(silent=True) or {}
    return response.status_code, body.get("error", {}).get("code")


def assert_admits(count, send):
    """The limit lets so many requests through and no more."""
    assert [outcome(send()) for _ in range(count + 1)] == [(200, None)] * count + [(429, "rate_limit_exceeded")]


# Who is it? (7a, rows 9 to 18, 71 to 75)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no key (1, 15)"),
        pytest.param([("Authorization", "")], id="empty (2)"),
        pytest.param([("Authorization", "Bearer")], id="no token (3)"),
        pytest.param([("Authorization", "Bearer    ")], id="blanks (3)"),
        pytest.param([("Authorization", "Basic YWxpY2U6")], id="another scheme (4)"),
        pytest.param([("X-User-Id", "alice")], id="an identity that nobody checked (14)"),
    ],
)
def test_client_without_one_clear_key_falls_into_the_count_of_its_address(headers):
    served = twice_a_day()
    client = served.client(key=None)
    assert_admits(2, lambda: client.get("/", headers=headers))
    assert served.used(key=None) == {REQUESTS: 2}
    assert served.used("alice") == served.used("bob") == {REQUESTS: 0}
    elsewhere = served.client(key=None, REMOTE_ADDR="198.51.100.7")
    assert elsewhere.get("/", headers=headers).status_code == 200


def test_key_in_the_address_line_is_not_read():
    served = twice_a_day()
    assert_admits(2, lambda: served.client(key=None).get("/?api_key=alice&key=alice&x-api-key=alice"))
    assert served.used("alice") == {REQUESTS: 0}


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer alice"},
        {"Authorization": "bearer  alice "},
        {"x-api-key": "alice"},
        {"api-key": "alice"},
        {"Authorization": "Bearer alice", "x-api-key": "alice"},
    ],
)
def test_the_same_key_is_the_same_count_wherever_it_is_sent(headers):
    served = twice_a_day()
    assert served.client().get("/").status_code == 200
    assert served.client(key=None).get("/", headers=headers).status_code == 200
    assert served.used() == {REQUESTS: 2}


@pytest.mark.parametrize("key", ["Alice", "alice2", "a" * 10_000, "ålice", "\N{PILE OF POO}", "a\tlice", "a:b{c}|d\\"])
def test_keys_are_told_apart_and_none_is_too_strange(key):
    """Rows 7, 8, 12."""
    served = twice_a_day()
    served.client().get("/")
    raw = key.encode().decode("latin-1")  # as WSGI hands over any bytes
    assert_admits(2, lambda: served.client(key=None).get("/", environ_base={"HTTP_X_API_KEY": raw}))
    assert served.used("alice") == {REQUESTS: 1}


@pytest.mark.parametrize("answer", ["", None, 0, False, []], ids=repr)
def test_empty_identity_is_never_unlimited(answer):
    served = twice_a_day(lambda: answer)
    assert_admits(2, lambda: served.client().get("/"))
    assert served.client(REMOTE_ADDR="198.51.100.7").get("/").status_code == 200


@pytest.mark.parametrize(
    "answer", [" ", "\0", "x" * 1_000_000, b"bytes", 7, ("a", "b"), "\ud800"], ids=lambda a: repr(a)[:20]
)
def test_any_other_identity_is_a_count_of_its_own(answer):
    """Row 17: a megabyte is hashed like anything else."""
    served = twice_a_day(lambda: answer)
    assert_admits(2, lambda: served.client().get("/"))
    assert served.used(key=str(answer)) == {REQUESTS: 2}


@pytest.mark.parametrize("raised", [KeyError("sk-secret"), RuntimeError(), ValueError("sk-secret")], ids=repr)
def test_failing_key_function_is_a_503(raised, caplog):
    """Row 16: neither a 500 nor a free pass, and nobody pays for everybody behind his proxy."""

    def failing():
        raise raised

    served = twice_a_day(failing)
    assert [outcome(served.client().get("/")) for _ in range(3)] == [(503, "limiter_unavailable")] * 3
    assert type(raised).__name__ in caplog.text
    assert "sk-secret" not in caplog.text


def test_key_function_may_turn_the_client_away():
    served = twice_a_day(lambda: abort(401))
    assert [served.client().get("/").status_code for _ in range(3)] == [401] * 3


def test_parts_of_an_identity_do_not_run_into_each_other():
    """Row 18: (a:b, c) is not (a, b:c)."""
    served = limited(lambda: request.args["key"])
    for scope in ("c", "b:c"):
        served.app.get(f"/{scope}", endpoint=scope)(served.limiter.shared_limit("1 per day", scope)(dict))
    client = served.client()
    assert client.get("/c?key=a:b").status_code == 200
    assert client.get("/b:c?key=a").status_code == 200
    assert client.get("/c?key=a:b").status_code == 429


def test_no_key_can_be_made_up_that_pays_into_the_count_of_an_address():
    served = twice_a_day()
    for key in (ADDRESS, f"anonymous:{ADDRESS}", f":{ADDRESS}", f"/{ADDRESS}"):
        served.client(key).get("/")
    assert served.used(key=None) == {REQUESTS: 0}


# Addresses


def test_forwarded_address_is_ignored_without_a_proxy():
    served = twice_a_day(remote_address)
    assert_admits(2, lambda: served.client().get("/", headers={"X-Forwarded-For": str(random.random())}))


def behind_proxy():
    served = twice_a_day(remote_address)
    served.app.wsgi_app = ProxyFix(served.app.wsgi_app)
    return served


def test_proxy_s_word_is_taken_when_the_app_says_so():
    served = behind_proxy()
    for last in (1, 2):
        sent = {"X-Forwarded-For": f"10.0.0.9, 198.51.100.{last}"}
        assert_admits(2, lambda sent=sent: served.client().get("/", headers=sent))
    assert served.used(key=None) == {REQUESTS: 0}


@pytest.mark.parametrize(
    "forwarded",
    ["garbage<script>{}", "{}" + "a" * 9_000, "999.1.1.{}", "198.51.100.7:x{}", "unknown{}", "::ffff:198.51.100.{}:1"],
)
def test_forwarded_garbage_is_no_identity(forwarded):
    """Row 72: who is behind it can't be told, so it counts for the peer; else each request would be a new client."""
    served = behind_proxy()
    numbers = itertools.count()
    assert_admits(2, lambda: served.client().get("/", headers={"X-Forwarded-For": forwarded.format(next(numbers))}))
    assert served.used(key=None) == {REQUESTS: 2}


@pytest.mark.parametrize(
    ("with_port", "without"),
    [
        ("198.51.100.7:80{}", "198.51.100.7"),
        ("[2001:db8:1:2::1]:443{}", "2001:db8:1:2::9"),
        ("[2001:db8:1:2::1]", "2001:db8:1:2::9"),
    ],
)
def test_forwarded_port_is_no_part_of_the_address(with_port, without):
    """Some proxies write the port, too; each connection would else be a client of its own, or all of them one."""
    served = behind_proxy()
    numbers = itertools.count()
    sent = [with_port.format(next(numbers)), without, with_port.format(next(numbers))]
    answers = [served.client().get("/", headers={"X-Forwarded-For": address}) for address in sent]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert served.used(key=None) == {REQUESTS: 0}  # That of the proxy itself.


SAME_ADDRESS = [
    ("::ffff:192.0.2.1", "192.0.2.1"),
    ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
    ("2001:0DB8:0001:0002:0000::1", "2001:db8:1:2::1"),
    ("fe80::1%eth0", "fe80::2%eth1"),
]


@pytest.mark.parametrize(("one", "other"), SAME_ADDRESS)
def test_addresses_of_one_subscriber_are_one_count(one, other):
    """Rows 73 and 74."""
    served = twice_a_day(remote_address)
    assert served.client(REMOTE_ADDR=one).get("/").status_code == 200
    assert_admits(1, lambda: served.client(REMOTE_ADDR=other).get("/"))


@pytest.mark.parametrize("other", ["2001:db8:1:3::1", "192.0.2.2", "::1"])
def test_addresses_of_others_are_other_counts(other):
    served = twice_a_day(remote_address)
    assert_admits(2, lambda: served.client(REMOTE_ADDR="2001:db8:1:2::1").get("/"))
    assert served.client(REMOTE_ADDR=other).get("/").status_code == 200


@pytest.mark.parametrize("environ", [{"REMOTE_ADDR": ""}, {}], ids=["empty", "missing"])
def test_clients_on_a_unix_socket_share_one_count(environ):
    """Row 75."""
    served = twice_a_day(remote_address)

    def send():
        client = served.app.test_client()
        client.environ_base = environ
        return client.get("/")

    assert_admits(2, send)


# Paths and methods (rows 67 to 70)


def test_preflight_costs_nothing_and_is_never_refused():
    served = limited(application_limits=["1 per day"], default_token_limits=["100 per day"])
    served.app.post("/plain", endpoint="answer")(dict)

    @served.app.post("/decorated")
    @served.limiter.limit("1 per day")
    def decorated():
        return {}

    for path in ("/plain", "/decorated"):
        assert [served.client().options(path).status_code for _ in range(3)] == [200] * 3
    assert set(served.used().values()) == {0}
    assert served.client().post("/decorated").status_code == 200


def test_options_that_a_view_answers_itself_are_limited():
    served = limited(default_limits=["1 per day"])
    served.app.add_url_rule("/", "answer", dict, methods=["OPTIONS"])
    assert_admits(1, lambda: served.client().options("/"))


def test_head_is_limited_like_get():
    served = twice_a_day()
    assert [served.client().head("/").status_code for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(("method", "path", "status"), [("DELETE", "/", 405), ("GET", "/nothing", 404)])
def test_what_reaches_no_view_costs_nothing(method, path, status):
    served = limited(application_limits=["1 per day"], default_limits=["1 per day"])
    served.app.get("/", endpoint="answer")(dict)
    assert [served.client().open(path, method=method).status_code for _ in range(3)] == [status] * 3
    assert set(served.used().values()) == {0}


def test_paths_make_no_counts():
    """Row 70: counts are named after endpoints."""
    served = limited(default_limits=["1000 per day"])
    served.app.get("/<path:anything>", endpoint="answer")(lambda anything: {})
    client = served.client()
    for number in range(200):
        assert client.get(f"/{number}").status_code == 200
    assert served.used() == {REQUESTS: 200}
    assert len(served.limiter.engine.store._records) == 1


# Bodies (rows 19 to 59). The app's own reading refuses them; the limiter sees them first.


@pytest.fixture
def served():
    served = limited(default_output_tokens=50)

    @served.app.post("/")
    @served.limiter.limit("1000000 per day")
    @served.limiter.limit_tokens("400000 per day")
    @served.limiter.limit_concurrency(1)
    def answer():
        try:
            body = decode_body(request.get_data())
        except InvalidBody as error:
            return {"error": {"code": error.code}}, 400
        if not isinstance(body, dict):
            return {"error": {"code": "invalid_request"}}, 400
        for name in ("max_tokens", "n"):
            if type(body.get(name, 1)) is not int or not 0 < body.get(name, 1) < 100:
                return {"error": {"code": name}}, 400
        return {"text": "fine", "usage": {"prompt_tokens": 5, "completion_tokens": 5}}

    return served


BROKEN = [
    pytest.param(b"", "invalid_json", id="empty (21)"),
    pytest.param(b"   \n", "invalid_json", id="blank (21)"),
    pytest.param(b'{"prompt": "a",}', "invalid_json", id="trailing comma (22)"),
    pytest.param(b"{'prompt': 'a'}", "invalid_json", id="single quotes (22)"),
    pytest.param(b'{"prompt": "a', "invalid_json", id="cut off (22)"),
    pytest.param(b'{"prompt": "\xff\xfe"}', "invalid_json", id="no UTF-8 (23)"),
    pytest.param('{"prompt": "a"}'.encode("utf-16"), "invalid_json", id="UTF-16 (24)"),
    pytest.param(b'{"max_tokens": NaN}', "invalid_json", id="NaN (26)"),
    pytest.param(b'{"max_tokens": -Infinity}', "invalid_json", id="Infinity (26)"),
    pytest.param(b'{"max_tokens": 1e999}', "invalid_number", id="1e999 (27)"),
    pytest.param(b'{"max_tokens": ' + b"9" * 5_000 + b"}", "invalid_json", id="5000 digits (28)"),
    pytest.param(b'{"max_tokens": ' + b"9" * 400 + b"}", "max_tokens", id="400 digits (29)"),
    pytest.param(b"[" * 100_000, "json_too_deep", id="depth 100000 (30)"),
    pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "json_too_deep", id="closed depth (30)"),
    pytest.param(b'{"max_tokens": 1, "max_tokens": 90}', "duplicate_field", id="twice (32)"),
    pytest.param(b'["a"]', "invalid_request", id="array (33)"),
    pytest.param(b'"a"', "invalid_request", id="string (33)"),
    pytest.param(b"null", "invalid_request", id="null (33)"),
    pytest.param(b"7", "invalid_request", id="number (33)"),
    pytest.param(b'{"prompt": "\\ud800"}', "invalid_unicode", id="surrogate (34)"),
    pytest.param(gzip.compress(b'{"prompt": "a"}'), "invalid_json", id="gzip (40)"),
    pytest.param(b'{"max_tokens": 0}', "max_tokens", id="0 (43)"),
    pytest.param(b'{"max_tokens": -1}', "max_tokens", id="-1 (44)"),
    pytest.param(b'{"max_tokens": true}', "max_tokens", id="true (45)"),
    pytest.param(b'{"max_tokens": "100"}', "max_tokens", id="text (46)"),
    pytest.param(b'{"max_tokens": 1.5}', "max_tokens", id="1.5 (47)"),
    pytest.param(b'{"max_tokens": 100.0}', "max_tokens", id="100.0 (48)"),
    pytest.param(b'{"max_tokens": -0.0}', "max_tokens", id="-0.0 (49)"),
    pytest.param(b'{"max_tokens": [1]}', "max_tokens", id="list (46)"),
    pytest.param(b'{"max_tokens": 5000}', "max_tokens", id="beyond the model (50)"),
    pytest.param(b'{"n": 0}', "n", id="n 0 (52)"),
    pytest.param(b'{"n": "2"}', "n", id="n text (52)"),
    pytest.param(b'{"n": 1e5, "max_tokens": 1e5}', "max_tokens", id="floats (52)"),
    pytest.param(b'{"messages": [null, 5, {"content": null}], "n": -1}', "n", id="messages (55)"),
]


READ_BY_NOBODY = (b'{"prompt": "a",}', b"{'prompt': 'a'}", b'{"prompt": "a', b"[" * 100_000)
GZIPPED = b"\x1f\x8b"


def is_read_by_nobody(body):
    """Whether no reader of JSON finds any in it."""
    return body in READ_BY_NOBODY or body.startswith((b'{"a":{"a":', GZIPPED))


@pytest.mark.parametrize(("body", "code"), BROKEN)
@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-16", "text/plain", None])
def test_mistake_is_refused_and_costs_no_tokens(served, body, code, content_type):
    """By us if no reader finds JSON in what was sent as JSON, else by the app."""
    response = served.client().post("/", data=body, content_type=content_type)
    ours = content_type is not None and "json" in content_type and is_read_by_nobody(body)
    assert outcome(response) == (400, "invalid_body" if ours else code)
    assert "Retry-After" not in response.headers
    assert served.used() == {REQUESTS: 1, TOKENS: 0, SLOTS: 0}


def test_mistakes_cost_a_request_so_that_they_are_limited_too():
    served = limited()

    @served.app.post("/")
    @served.limiter.limit("2 per day")
    @served.limiter.limit_tokens("100000 per day")
    def answer():
        return request.get_json()

    sent = [served.client().post("/", data=b"{", content_type="application/json") for _ in range(3)]
    assert [each.status_code for each in sent] == [400, 400, 429]


FINE = [
    pytest.param(b'\xef\xbb\xbf{"prompt": "a"}', id="BOM (25)"),
    pytest.param(b'{"prompt": "a\\u0000b"}', id="NUL (35)"),
    pytest.param(b"{}", id="no maximum (41)"),
    pytest.param(b'{"tools": [{"type": "function", "function": {"name": "f"}}]}', id="tools only (59)"),
    pytest.param(b'{"messages": [{"role": "user", "content": "a"}], "stream": "yes"}', id="stream yes (56)"),
    pytest.param(b'{"model": "../../x\\r\\nSet-Cookie: a=b"}', id="model (54)"),
]


@pytest.mark.parametrize("body", FINE)
def test_what_the_app_takes_is_settled_with_its_usage(served, body):
    response = served.client().post("/", data=body, content_type="application/json")
    assert outcome(response) == (200, None)
    assert served.used() == {REQUESTS: 1, TOKENS: 10, SLOTS: 0}


def test_body_without_text_reserves_the_default_output():
    """Row 59: what can't be read is not free."""
    served = limited(default_output_tokens=50)
    reserved = []

    @served.app.post("/")
    @served.limiter.limit_tokens("1000 per day")
    def answer():
        reserved.append(served.tokens())
        return {}

    for body in (b"{}", b"[]", b'{"max_tokens": null}', b'{"max_tokens": -5}', b""):
        served.client().post("/", data=body, content_type="application/json")
        served.limiter.engine.reset()
    assert reserved == [50] * 5


@pytest.mark.parametrize("length_known", [True, False], ids=["announced (36)", "chunked (37)"])
def test_body_that_is_too_large_gets_a_413_and_costs_nothing(length_known):
    served = limited(max_body_bytes=1000)
    called = []

    @served.app.post("/")
    @served.limiter.limit("10 per day")
    @served.limiter.limit_tokens("100000 per day")
    def answer():
        called.append(1)
        return {}

    body = b'{"prompt": "' + b"a" * 2000 + b'"}'
    if length_known:
        response = served.client().post("/", data=body, content_type="application/json")
    else:
        response = served.client().post(
            "/",
            input_stream=io.BytesIO(body),
            content_type="application/json",
            headers={"Transfer-Encoding": "chunked"},
            environ_overrides={"wsgi.input_terminated": True},
        )
    assert response.status_code == 413
    assert not called
    assert served.used() == {REQUESTS: 0, TOKENS: 0}


@pytest.mark.parametrize("policy", [{"swallow_errors": True}, {"in_memory_fallback_enabled": True}], ids=str)
def test_body_that_is_too_large_is_no_failure_of_the_store(policy):
    """A client must be able neither to pass unlimited nor to send the app into its fallback."""
    served = limited(max_body_bytes=1000, **policy)

    @served.app.post("/")
    @served.limiter.limit_tokens("2000 per day")
    def answer():
        return {"usage": {"prompt_tokens": 0, "completion_tokens": 1500}}

    large = served.client().post("/", json={"prompt": "a" * 2000})
    assert large.status_code == 413
    assert not served.limiter._storage_dead
    assert served.client().post("/", json={}).status_code == 200
    assert outcome(served.client().post("/", json={})) == (429, "token_limit_exceeded")


HOSTILE = [
    pytest.param("a" * 100_000, id="one letter (57)"),
    pytest.param("\N{GRINNING FACE}" * 60_000, id="emoji (58)"),
    pytest.param("\N{ZERO WIDTH SPACE}" * 100_000, id="nothing to see (58)"),
    pytest.param("\u6f22\u5b57" * 100_000, id="ideographs (58)"),
    pytest.param("é́" * 100_000, id="combining (58)"),
    pytest.param(" " * 500_000, id="blanks (57)"),
]


@pytest.mark.parametrize("prompt", HOSTILE)
def test_hostile_prompt_is_answered_at_once(served, prompt):
    """The estimate's cost is linear; processor time, so that a busy machine doesn't matter."""
    body = json.dumps({"prompt": prompt}, ensure_ascii=False).encode()

    def ask():
        response = served.client().post("/", data=body, content_type="application/json")
        assert outcome(response) in [(200, None), (413, "cost_exceeds_limit")]

    require_done_within(0.2, ask)


# Refusals (rows 53 and 60 to 65)


def test_request_larger_than_the_limit_is_told_so_and_never_to_wait(served):
    response = served.client().post("/", json={"prompt": "a", "max_tokens": 400_001})
    assert outcome(response) == (413, "cost_exceeds_limit")
    assert "Retry-After" not in response.headers
    assert response.headers["x-should-retry"] == "false"
    assert "400000 at most" in response.json["error"]["message"]
    assert served.used() == {REQUESTS: 0, TOKENS: 0, SLOTS: 0}


def refused_by(unit):
    """A served app of which one limit refuses the next request, and how long that lasts."""
    served = limited()
    limits = {
        "requests": served.limiter.limit("1 per minute"),
        "tokens": served.limiter.limit_tokens("1000 per minute"),
        "concurrency": served.limiter.limit_concurrency(1),
    }

    @served.app.post("/")
    @limits[unit]
    def answer():
        inner = served.client().post("/", json={"max_tokens": 600}) if request.args else None
        return inner or {"usage": {"prompt_tokens": 0, "completion_tokens": 600}}

    return served


@pytest.mark.parametrize(
    ("unit", "code", "wait"),
    [
        ("requests", "rate_limit_exceeded", "60"),
        ("tokens", "token_limit_exceeded", "12"),
        ("concurrency", "concurrency_limit_exceeded", "1"),
    ],
)
def test_refusal_names_what_ran_out_and_the_wait(unit, code, wait):
    """Rows 60 to 62. For calls in flight, the view calls itself."""
    served = refused_by(unit)
    if unit == "concurrency":
        response = served.client().post("/?again=1", json={"max_tokens": 600})
    else:
        assert served.client().post("/", json={"max_tokens": 600}).status_code == 200
        response = served.client().post("/", json={"max_tokens": 600})
    assert outcome(response) == (429, code)
    assert response.headers["Retry-After"] == wait
    error = response.json["error"]
    assert error["limit"]["requested"] > error["limit"]["remaining"]
    assert f"Try again in {wait} s." in error["message"]
    assert "RateLimit" in response.headers
    assert set(served.used().values()) <= {0, 1, 600}


def test_of_several_refusals_the_longest_wait_counts():
    """Rows 63 and 64."""
    served = limited()

    @served.app.post("/")
    @served.limiter.limit("1 per minute")
    @served.limiter.limit("1 per day")
    @served.limiter.limit_tokens("100 per hour")
    def answer():
        return {"usage": {"prompt_tokens": 0, "completion_tokens": 100}}

    assert served.client().post("/", json={"max_tokens": 100}).status_code == 200
    response = served.client().post("/", json={"max_tokens": 100})
    assert outcome(response) == (429, "rate_limit_exceeded")
    assert response.headers["Retry-After"] == "86400"
    assert response.headers["x-should-retry"] == "false"
    assert set(response.json["violated-policies"]) == {"requests-per-minute", "requests-per-day", "tokens-per-hour"}
    assert response.json["error"]["limit"]["name"] == "requests-per-day"


@pytest.fixture
def full_store(tmp_path):
    """An app whose store has no room left; what it is to do then is up to the test."""
    opened = []

    def full(**options):
        served = twice_a_day(storage_uri=f"local://{tmp_path}/limits", storage_options={"map_size": 1 << 20}, **options)
        opened.append(served)
        fill(served.limiter)
        return served

    yield full
    for served in opened:
        served.limiter.engine.close()


def test_absent_store_is_a_503_that_says_when_to_come_back(full_store, caplog):
    """Row 65."""
    served = full_store()
    response = served.client().get("/")
    assert outcome(response) == (503, "limiter_unavailable")
    assert response.headers["Retry-After"] == "1"
    assert "map_size" in caplog.text
    assert "local" not in response.text
    assert "limits'" not in response.text


def test_absent_store_lets_pass_if_the_app_says_so(full_store):
    served = full_store(on_store_error="allow")
    assert [outcome(served.client().get("/")) for _ in range(4)] == [(200, None)] * 4


# What reaches a header (rows 76 and 77)

STRANGE = ["a" * 10_000, "a b", "a\tb", "é", "a;b", "", "a\x00b", "a\x1b[31m", '"a"', "<script>"]


@pytest.mark.parametrize("sent", STRANGE, ids=lambda sent: repr(sent)[:12])
def test_strange_request_id_is_replaced(sent):
    served = twice_a_day()
    raw = {"HTTP_X_REQUEST_ID": sent.encode().decode("latin-1")}
    answers = [served.client().get("/", environ_base=raw) for _ in range(3)]
    refused = answers[-1]
    assert refused.status_code == 429
    assert refused.headers["x-request-id"].startswith("req_")
    assert refused.headers["x-request-id"] == refused.headers["request-id"] == refused.json["request_id"]


def test_request_id_of_the_client_never_takes_the_place_of_ours():
    served = twice_a_day()
    sent = [served.client().get("/", headers={"X-Request-Id": "trace-7_a.B"}) for _ in range(3)]
    assert [answer.headers["x-request-id"][:4] for answer in sent] == ["req_"] * 3


def test_line_break_in_a_header_of_the_client_reaches_no_header_of_ours():
    served = twice_a_day()
    for _ in range(3):
        client = served.client(key=None, HTTP_X_REQUEST_ID="a\r\nSet-Cookie: a=b", HTTP_X_API_KEY="b\r\nX: y")
        response = client.get("/")
    assert response.status_code == 429
    assert "Set-Cookie" not in str(response.headers)


# What a model server reports (rows 80 to 82)


def reporting(usage):
    served = limited(default_output_tokens=50)

    @served.app.post("/")
    @served.limiter.limit_tokens("1000000 per day")
    def answer():
        return {"text": "eight letters" * 4, "usage": usage}

    return served


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5, "completion_tokens": 5},
        {"prompt_tokens": 5, "completion_tokens": -5},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {"prompt_tokens": "5", "completion_tokens": "5"},
        {"prompt_tokens": 10**30, "completion_tokens": 1},
        {"prompt_tokens": 2**53, "completion_tokens": 0},
        {"prompt_tokens": None, "completion_tokens": None},
        {"input_tokens": -1, "output_tokens": 1},
        "much",
        [],
        None,
    ],
    ids=str,
)
def test_absurd_report_is_worth_nothing_and_the_text_is_counted(usage):
    served = reporting(usage)
    assert served.client().post("/", json={"prompt": "a"}).status_code == 200
    assert 0 < served.tokens() < 50


def test_report_far_above_the_reservation_is_charged_as_it_is():
    served = reporting({"prompt_tokens": 400_000, "completion_tokens": 400_000})
    assert served.client().post("/", json={"prompt": "a", "max_tokens": 1}).status_code == 200
    assert served.tokens() == 800_000


# An app's own functions that answer nonsense, or nothing, for what a client sent


@pytest.mark.parametrize("answer", [-1, None, float("nan"), True, 1.5, "5"], ids=repr)
def test_nonsense_cost_counts_as_one(answer, caplog):
    served = limited()

    @served.app.get("/")
    @served.limiter.limit("2 per day", cost=lambda: answer)
    def view():
        return {}

    assert_admits(2, lambda: served.client().get("/"))
    assert "cost" in caplog.text


@pytest.mark.parametrize("answer", [2**53, 10**30])
def test_cost_that_is_too_large_to_be_counted_never_fits(answer):
    """The client may have named the number."""
    served = limited()

    @served.app.get("/")
    @served.limiter.limit("2 per day", cost=lambda: answer)
    def view():
        return {}

    assert served.client().get("/").status_code == 413
    assert served.used(endpoint="view") == {REQUESTS: 0}


@pytest.mark.parametrize("answer", [-1, None, float("nan"), True, 1.5, "5", 10**30], ids=repr)
def test_nonsense_estimate_gives_way_to_the_default(answer, caplog):
    served = limited(default_output_tokens=50)
    reserved = []

    @served.app.post("/")
    @served.limiter.limit_tokens("1000 per day", estimate=lambda _: answer)
    def answer_():
        reserved.append(served.tokens(endpoint="answer_"))
        return {}

    assert served.client().post("/", json={}).status_code == 200
    assert reserved == [50]
    assert "estimate" in caplog.text


def test_estimate_that_trips_over_the_body_gives_way_to_the_default(caplog):
    served = limited(default_output_tokens=50)
    reserved = []

    @served.app.post("/")
    @served.limiter.limit_tokens("1000 per day", estimate=lambda request: len(request.get_json(silent=True)["prompt"]))
    def answer():
        reserved.append(served.tokens())
        return {"error": {}}, 400

    for body in (b"null", b"{}", b"[]", b'{"prompt": 7}'):
        assert served.client().post("/", data=body, content_type="application/json").status_code == 400
    assert reserved == [50] * 4
    assert "KeyError" in caplog.text


def test_estimate_may_refuse_the_body():
    served = limited()

    @served.app.post("/")
    @served.limiter.limit_tokens("1000 per day", estimate=lambda request: len(request.get_json()["prompt"]))
    def answer():
        return {}

    assert served.client().post("/", data=b"{", content_type="application/json").status_code == 400
    assert served.tokens() == 0


@pytest.mark.parametrize("answer", ["5", "", None, 7, "10 per fortnight"], ids=repr)
def test_limit_that_a_callable_gets_wrong_is_not_lifted(answer, caplog):
    """Nobody can check it before the request; then it refuses, and says in the log what is wrong with it."""
    served = limited()

    @served.app.post("/")
    @served.limiter.limit_tokens(lambda: answer)
    def view():
        return {}

    assert outcome(served.client().post("/", json={})) == (503, "limiter_unavailable")
    assert "10000 per minute" in caplog.text or "whole number from 1" in caplog.text


def test_limiter_of_another_app_answers_nothing_here():
    other = Flask("other", static_folder=None)
    limiter = AILimiter(api_key, storage_uri="memory://", app=other)
    with Flask("third").test_request_context(), pytest.raises(RuntimeError, match="init_app"):
        limiter.peek()
