"""Apps with handlers of their own: each status finds its own, and our headers stay on whatever it answers."""

import io

import pytest
from flask import Response, abort, jsonify
from flask_limiter import RateLimitExceeded
from limited_apps import limited
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, ServiceUnavailable, TooManyRequests

from flask_ailimit import QuotaExceeded, StoreError, api_key
from flask_ailimit.http.errors import LimiterUnavailable

SAME_KEY_TWICE = {"Authorization": "Bearer a", "x-api-key": "b"}
LARGE = {"prompt": "hi " * 200, "max_tokens": 5000}


def app_with(*handled, answer=None, **options):
    """An app in which requests are refused in every way, with a handler for each of these."""
    served = limited(on_store_error="deny", **options)
    served.app.handled = []

    def handler_of(key):
        def handle(error):
            served.app.handled.append(key)
            return (answer or (lambda error: (jsonify(mine=True), error.code)))(error)

        return handle

    for key in handled:
        served.app.register_error_handler(key, handler_of(key))
    limiter = served.limiter
    served.app.post("/requests", endpoint="requests")(limiter.limit("1 per day")(dict))
    served.app.post("/tokens", endpoint="tokens")(limiter.limit_tokens("100 per day")(dict))
    served.app.post("/nothing", endpoint="nothing")(limiter.limit("0 per day")(dict))
    served.app.post("/no-limit", endpoint="no-limit")(limiter.limit(lambda: None)(dict))
    return served


def too_often(served):
    served.client().post("/requests")
    return served.client().post("/requests")


def too_large(served):
    return served.client().post("/tokens", json=LARGE)


def not_allowed(served):
    return served.client().post("/nothing")


def two_keys(served):
    return served.client(None).post("/requests", headers=SAME_KEY_TWICE)


def no_json(served):
    return served.client().post("/tokens", data="{", content_type="application/json")


def body_too_large(served):
    return served.client().post("/tokens", json={"prompt": "x" * 3000})


def no_limit(served):
    return served.client().post("/no-limit")


def store_away(served):
    def reserve(charges):
        raise StoreError("away")

    served.limiter.engine.reserve = reserve
    return served.client().post("/requests")


WAIT = ("Retry-After", "retry-after-ms", "x-request-id", "request-id", "Cache-Control")
NEVER = ("x-should-retry", "x-request-id", "request-id", "Cache-Control")
WAYS = {
    too_often: (429, WAIT),
    too_large: (413, NEVER),
    not_allowed: (403, NEVER),
    two_keys: (400, NEVER),
    no_json: (400, NEVER),
    body_too_large: (413, NEVER),
    no_limit: (503, WAIT),
    store_away: (503, WAIT),
}
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


def assert_headers_stay(response, way):
    for name in WAYS[way][1]:
        assert len(response.headers.getlist(name)) == 1, name
    if WAYS[way][1] is NEVER:
        assert response.headers["x-should-retry"] == "false"
        assert "Retry-After" not in response.headers


@every_way
def test_each_status_finds_its_own_handler_and_keeps_our_headers(way):
    served = app_with(400, 403, 413, 429, 503, max_body_bytes=2000)
    response = way(served)
    assert response.status_code == WAYS[way][0]
    assert served.app.handled == [WAYS[way][0]]
    assert response.json == {"mine": True}
    assert_headers_stay(response, way)


@every_way
def test_handler_of_another_status_is_not_asked(way):
    served = app_with(*{400, 403, 413, 429, 503} - {WAYS[way][0]}, max_body_bytes=2000)
    response = way(served)
    assert response.status_code == WAYS[way][0]
    assert served.app.handled == []
    assert "request_id" in response.text
    assert_headers_stay(response, way)


@every_way
@pytest.mark.parametrize("key", [HTTPException, Exception], ids=lambda key: key.__name__)
def test_handler_of_every_error_is_asked(way, key):
    served = app_with(key, max_body_bytes=2000)
    response = way(served)
    assert served.app.handled == [key]
    assert_headers_stay(response, way)


@pytest.mark.parametrize(
    ("key", "way"),
    [
        (QuotaExceeded, too_often),
        (QuotaExceeded, too_large),
        (RateLimitExceeded, too_often),
        (TooManyRequests, too_often),
        (RequestEntityTooLarge, too_large),
        (RequestEntityTooLarge, body_too_large),
        (ServiceUnavailable, store_away),
        (LimiterUnavailable, no_limit),
    ],
    ids=lambda value: value.__name__,
)
def test_handler_of_a_class_is_asked(key, way):
    served = app_with(key, max_body_bytes=2000)
    assert_headers_stay(way(served), way)
    assert served.app.handled == [key]


@every_way
@pytest.mark.parametrize("status", [200, 302, 429, 500])
def test_headers_stay_on_an_answer_with_any_status(way, status):
    """Also where the handler has set a header of the same name."""
    headers = {"Retry-After": "3600", "x-should-retry": "true"} if WAYS[way][1] is WAIT else {"x-should-retry": "true"}
    served = app_with(HTTPException, answer=lambda _: Response("mine", status, headers), max_body_bytes=2000)
    response = way(served)
    assert response.text == "mine"
    assert response.status_code == status
    assert_headers_stay(response, way)
    if WAYS[way][1] is WAIT:
        assert response.headers["Retry-After"] != "3600"


@pytest.mark.parametrize(("status", "handler"), [(400, 400), (429, 429)])
def test_status_for_what_is_too_large_finds_the_handler_of_that_status(status, handler):
    served = app_with(400, 413, 429, too_large_status=status)
    response = too_large(served)
    assert response.status_code == status
    assert served.app.handled == [handler]
    assert response.headers["x-should-retry"] == "false"


def test_view_that_catches_a_refusal_and_goes_on_was_not_refused():
    served = limited()
    block = served.limiter.limit("1 per day")

    @served.app.get("/")
    def answer():
        try:
            with block:
                return "model"
        except QuotaExceeded:
            return "cached"

    client = served.client()
    answers = [client.get("/") for _ in range(2)]
    assert [answer.text for answer in answers] == ["model", "cached"]
    assert all("Retry-After" not in answer.headers for answer in answers)


@every_way
@pytest.mark.parametrize("name", ["flask_restx", "flask_restful"])
def test_extensions_that_answer_errors_themselves_send_our_body_and_headers(name, way):
    rest = pytest.importorskip(name)
    served = app_with(max_body_bytes=2000)
    views = dict(served.app.view_functions)
    api = rest.Api(served.app)
    for path in ("requests", "tokens", "nothing", "no-limit"):
        limit = views[path]

        class Answers(rest.Resource):
            def post(self, limit=limit):
                return limit()

        api.add_resource(Answers, f"/rest/{path}", endpoint=f"rest-{path}")
    served.app.wsgi_app = under_rest(served.app.wsgi_app)
    response = way(served)
    assert response.status_code == WAYS[way][0]
    assert response.json["error"]["message"]
    assert response.json["request_id"] == response.headers["x-request-id"]
    assert_headers_stay(response, way)


def under_rest(wsgi_app):
    def call(environ, start_response):
        return wsgi_app({**environ, "PATH_INFO": "/rest" + environ["PATH_INFO"]}, start_response)

    return call


def fails():
    raise ZeroDivisionError


LENGTH = 100_000


@pytest.mark.parametrize(
    ("status", "key_func", "limit"),
    [
        (401, lambda: abort(401), "9 per day"),
        (403, api_key, "0 per day"),
        (503, fails, "9 per day"),
        (503, api_key, lambda: "no limit"),
    ],
)
def test_body_of_whoever_is_turned_away_is_read_when_the_answer_is_closed(status, key_func, limit):
    served = limited(key_func)
    served.app.post("/")(served.limiter.limit(limit)(dict))
    sent = io.BytesIO(b"[" * LENGTH)
    response = served.client().post("/", input_stream=sent, content_length=LENGTH)
    assert response.status_code == status
    assert sent.tell() == 0
    response.close()
    assert sent.tell() == LENGTH
