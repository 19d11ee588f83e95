"""Who a request is counted for: one clear key, or without one its address; never a key of the client's choice."""

import base64
import http.client
from urllib.parse import urlsplit

import pytest
from app_server import serving
from limited_apps import limited, twice_a_day

from flask_ailimit import AILimiter, ConfigurationError, api_key, api_key_in

REQUESTS = "requests-per-day"
BEARER, ANTHROPIC, AZURE = "Authorization", "X-Api-Key", "Api-Key"


def counted(served, headers):
    """Whose count a request with these headers goes into: a key's, "" for that of the address; or the error's code."""
    response = served.client(key=None).get("/", headers=headers)
    if response.status_code != 200:
        return response.json["error"]["code"]
    payers = [key for key in ("alice", "bob", "") if served.used(key)[REQUESTS]]
    return payers.pop() if len(payers) == 1 else payers


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        [(BEARER, "Bearer alice"), (ANTHROPIC, "bob")],
        [(ANTHROPIC, "alice"), (AZURE, "bob")],
        [(BEARER, "Bearer alice"), (AZURE, "bob")],
        [(BEARER, "Bearer alice"), (ANTHROPIC, "alice"), (AZURE, "bob")],
        [(ANTHROPIC, "alice"), (ANTHROPIC, "bob")],
        [(ANTHROPIC, "alice,bob")],
        [(ANTHROPIC, "alice , bob")],
        [(BEARER, "Bearer alice"), (BEARER, "Bearer bob")],
        [(BEARER, "Bearer alice,Bearer bob")],
        [(BEARER, "Bearer alice, bob")],
        # Apps that take split()[1], or split()[-1], let both in.
        [(BEARER, "Bearer alice bob")],
        [(BEARER, "Bearer alice"), (BEARER, basic("bob", ""))],
        [(BEARER, basic("bob", "")), (BEARER, "Bearer alice")],
        [(BEARER, "alice"), (ANTHROPIC, "bob")],
        [(BEARER, "Token alice"), (ANTHROPIC, "bob")],
    ],
    ids=str,
)
def test_two_different_keys_are_refused_before_the_view_and_count_for_nobody(headers):
    served = twice_a_day()
    assert [counted(served, headers) for _ in range(5)] == ["ambiguous_api_key"] * 5
    assert [served.used(key)[REQUESTS] for key in ("alice", "bob", "")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("headers", "payer"),
    [
        ([(BEARER, "Bearer alice"), (ANTHROPIC, "alice"), (AZURE, "alice")], "alice"),
        ([(ANTHROPIC, "alice"), (ANTHROPIC, "alice")], "alice"),
        ([(ANTHROPIC, "alice,alice,")], "alice"),
        ([(BEARER, "Bearer alice"), (BEARER, "bearer alice")], "alice"),
        ([(BEARER, "bEARER    alice  ")], "alice"),
        ([(BEARER, "Bearer\talice")], "alice"),
        ([(BEARER, "Bearer\xa0alice\x85")], "alice"),
        ([(ANTHROPIC, "  alice\t")], "alice"),
        ([(ANTHROPIC, "alice\xa0")], "alice"),
        ([(BEARER, "Bearer"), (ANTHROPIC, "alice")], "alice"),
        ([(BEARER, "Bearer ,"), (ANTHROPIC, "alice")], "alice"),
        ([(BEARER, ""), (ANTHROPIC, "alice")], "alice"),
        ([(BEARER, "Bearer alice"), (ANTHROPIC, " ")], "alice"),
        # Apps that take whatever stands after the first blank, or the header without the word Bearer, see a key here.
        ([(BEARER, "alice")], "alice"),
        ([(BEARER, "Token alice")], "alice"),
        ([(BEARER, "Basic alice")], "alice"),
        ([(BEARER, "Key  alice")], "alice"),
        # No key: nobody can make one up that way.
        ([(BEARER, basic("alice", ""))], ""),
        ([(BEARER, basic("user", "alice"))], ""),
        ([(BEARER, 'Digest username="alice", realm="a realm", uri="/"')], ""),
        ([("Proxy-Authorization", "Bearer alice")], ""),
        ([("Cookie", "api_key=alice; x-api-key=alice")], ""),
        ([("Bearer", "alice"), ("X-Goog-Api-Key", "alice")], ""),
    ],
    ids=str,
)
def test_one_key_is_one_count_however_it_is_written(headers, payer):
    served = twice_a_day()
    assert [counted(served, headers) for _ in range(3)] == [payer, payer, "rate_limit_exceeded"]


@pytest.mark.parametrize(
    ("error_format", "content_type"),
    [
        ("hybrid", "application/json"),
        ("problem", "application/problem+json"),
        ("openai", "application/json"),
        ("anthropic", "application/json"),
    ],
)
def test_refusal_of_two_keys_has_our_format_and_the_requests_id_and_repeats_no_key(error_format, content_type):
    served = twice_a_day(error_format=error_format)
    headers = {BEARER: "Bearer sk-alice", ANTHROPIC: "sk-bob", "X-Request-Id": "trace-7"}
    response = served.client(key=None).get("/", headers=headers)
    assert (response.status_code, response.content_type) == (400, content_type)
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-should-retry"] == "false"
    assert "several different API keys" in response.text
    assert "sk-" not in response.text + str(response.headers)


def test_two_keys_are_refused_where_the_key_is_asked_for_by_a_function_of_the_app():
    served = twice_a_day(lambda: api_key() or "nobody")
    assert counted(served, {BEARER: "Bearer alice", ANTHROPIC: "bob"}) == "ambiguous_api_key"


@pytest.mark.parametrize("option", ["swallow_errors", "in_memory_fallback_enabled"])
def test_two_keys_pass_no_limit_whose_callable_asks_for_the_key(option):
    served = limited(lambda: "everybody", **{option: True})
    plans = {"alice": "2 per day", "bob": "3 per day"}
    served.app.get("/")(served.limiter.limit(lambda: plans[api_key()])(dict))
    client = served.client("alice")
    assert [client.get("/", headers={ANTHROPIC: "bob"}).status_code for _ in range(4)] == [400] * 4
    assert [client.get("/").status_code for _ in range(3)] == [200, 200, 429]


def test_underscores_do_not_make_a_second_header():
    """Servers drop such a header, or WSGI gives it the name of the other: the app sees what the limiter sees."""
    served = twice_a_day()
    with serving(served.app) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        statuses = []
        for number in range(4):
            connection.request("GET", "/", headers={"X-Api-Key": "alice", "X_Api_Key": f"bob{number}"})
            statuses.append(connection.getresponse().status)
            connection.close()
    assert statuses == [200, 200, 429, 429]
    assert served.used("alice") == {REQUESTS: 2}


@pytest.mark.parametrize(
    ("header", "headers", "payer"),
    [
        ("x-api-key", {ANTHROPIC: "alice", BEARER: "Bearer bob", AZURE: "carol"}, "alice"),
        ("X-Api-Key", {ANTHROPIC: "alice", BEARER: basic("a", "gateway")}, "alice"),
        ("x-api-key", {BEARER: "Bearer bob"}, ""),
        ("authorization", {BEARER: "bearer  alice", ANTHROPIC: "bob"}, "alice"),
        ("Authorization", {BEARER: basic("alice", "bob"), ANTHROPIC: "bob"}, ""),
        ("x-goog-api-key", {"x-goog-api-key": "alice", ANTHROPIC: "bob"}, "alice"),
        ("x-api-key", [(ANTHROPIC, "alice"), (ANTHROPIC, "bob")], "ambiguous_api_key"),
        ("authorization", [(BEARER, "Bearer alice"), (BEARER, "Bearer bob")], "ambiguous_api_key"),
    ],
)
def test_key_function_for_one_header_reads_no_other(header, headers, payer):
    assert counted(twice_a_day(api_key_in(header)), headers) == payer


def test_key_function_for_one_header_is_one_function():
    assert api_key_in("x-api-key") is api_key_in("X-API-Key")
    assert AILimiter(api_key_in("x-api-key"), storage_uri="memory://")


@pytest.mark.parametrize(
    "header", ["", "x_api_key", "x api key", "x-api-key:", "x-äpi-key", "cookie", "Content-Type", "Host", None, 7, b"x"]
)
def test_name_of_no_header_with_a_key_is_refused_when_the_function_is_made(header):
    with pytest.raises(ConfigurationError, match="api_key_in: the name of a header"):
        api_key_in(header)
