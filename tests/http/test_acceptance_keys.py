"""Which count a request pays into, and that it pays once."""

import pytest
from acceptance_apps import GIVEN, by_unit, charged, metered, send
from flask import Response
from flask.views import MethodView
from limited_apps import ADDRESS, limited

import flask_ailimit
from flask_ailimit import api_key

BEARER, X_KEY, OTHER = "Authorization", "x-api-key", "api-key"


def keyed(key_func=api_key, **options):
    limits = limited(key_func, **options)

    @limits.app.route("/", methods=["GET", "POST"], endpoint="answer")
    @limits.limiter.limit("5 per minute")
    def answer():
        return ""

    return limits


def statuses(limits, headers, count=8, address=ADDRESS):
    client = limits.client("", REMOTE_ADDR=address)
    return [client.post("/", headers=headers).status_code for _ in range(count)]


# Two keys in one request

TWO = {
    "bearer and x-api-key": [(BEARER, "Bearer one"), (X_KEY, "two")],
    "bearer and api-key": [(BEARER, "Bearer one"), (OTHER, "two")],
    "x-api-key and api-key": [(X_KEY, "one"), (OTHER, "two")],
    "all three": [(BEARER, "Bearer one"), (X_KEY, "two"), (OTHER, "three")],
    "all three, two alike": [(BEARER, "Bearer one"), (X_KEY, "one"), (OTHER, "three")],
    "the second differs by case": [(BEARER, "Bearer one"), (X_KEY, "ONE")],
    "bearer in small letters": [(BEARER, "bearer one"), (X_KEY, "two")],
    "bearer with spaces": [(BEARER, "Bearer   one  "), (X_KEY, "two")],
    "a second key that is long": [(BEARER, "Bearer one"), (X_KEY, "x" * 4000)],
    "a second key that is no ASCII": [(BEARER, "Bearer one"), (X_KEY, "\xe9")],
}


@pytest.mark.parametrize("headers", TWO.values(), ids=TWO)
def test_two_keys_are_refused_and_count_for_nobody(headers):
    limits = keyed()
    client = limits.client("")
    answers = [client.post("/", headers=headers) for _ in range(8)]
    assert {each.status_code for each in answers} == {400}
    assert all(each.headers["x-request-id"] for each in answers)
    assert "one" not in answers[0].text.split()
    assert limits.used("one")["requests-per-minute"] == 0
    assert limits.used("")["requests-per-minute"] == 0


@pytest.mark.parametrize("headers", TWO.values(), ids=TWO)
def test_second_key_from_ten_networks_gets_no_further(headers):
    limits = keyed()
    served = [
        status
        for i in range(10)
        for status in statuses(limits, headers, count=5, address=f"2001:db8:0:{i}::1")
        if status == 200
    ]
    assert len(served) <= 5


ONE = {
    "the same twice": [(BEARER, "Bearer one"), (X_KEY, "one")],
    "the same three times": [(BEARER, "Bearer one"), (X_KEY, "one"), (OTHER, "one")],
    "an empty second": [(BEARER, "Bearer one"), (X_KEY, "")],
    "bearer": [(BEARER, "Bearer one")],
    "x-api-key": [(X_KEY, "one")],
    "api-key": [(OTHER, "one")],
    "basic beside": [(BEARER, "Basic b25lOnR3bw=="), (X_KEY, "one")],
}


@pytest.mark.parametrize("headers", ONE.values(), ids=ONE)
def test_one_key_however_it_is_sent_is_one_count(headers):
    limits = keyed()
    assert statuses(limits, headers) == [200] * 5 + [429] * 3
    assert limits.used("one")["requests-per-minute"] == 5


@pytest.mark.parametrize("name", ["x-api-key", "X-Api-Key", "X-API-KEY", "Authorization", "api-key", "X-My-Key"])
def test_key_in_one_header_is_read_there_only(name):
    limits = keyed(flask_ailimit.api_key_in(name))
    value = "Bearer one" if name == "Authorization" else "one"
    others = [
        (each, "Bearer other" if each == BEARER else "other")
        for each in (BEARER, X_KEY, OTHER)
        if each.lower() != name.lower()
    ]
    assert statuses(limits, [(name, value), *others]) == [200] * 5 + [429] * 3
    # Other keys beside it give no new count.
    assert statuses(limits, [(name, value), (others[0][0], "Bearer new")], count=2) == [429, 429]
    assert limits.used("one")["requests-per-minute"] == 5


def test_key_in_one_header_falls_to_the_address_without_it():
    limits = keyed(flask_ailimit.api_key_in("x-api-key"))
    for i in range(8):
        statuses(limits, [(BEARER, f"Bearer key-{i}")], count=1)
    assert limits.used("")["requests-per-minute"] == 5


@pytest.mark.parametrize("name", ["", None, 7, "x api key", "x-api-key\n", "x:y", b"x-api-key", "ключ"])
def test_header_of_a_key_is_checked(name):
    with pytest.raises((ValueError, TypeError)):
        flask_ailimit.api_key_in(name)


# HEAD

METHODS = ["GET", "HEAD"]


@pytest.mark.parametrize("first", METHODS)
@pytest.mark.parametrize("second", METHODS)
@pytest.mark.parametrize(
    "options",
    [{}, {"methods": ["GET"]}, {"methods": ["get"]}, {"per_method": True}, {"per_method": True, "methods": ["GET"]}],
    ids=str,
)
def test_head_counts_as_get(first, second, options):
    limits = limited(token_counter=lambda text: len(text.split()))
    ran = []

    @limits.app.get("/", endpoint="answer")
    @limits.limiter.limit("2 per minute", **options)
    def answer():
        ran.append(1)
        return "a b c"

    client = limits.client()
    answers = [client.open("/", method=method).status_code for method in (first, second, first, second)]
    assert answers == [200, 200, 429, 429]
    assert len(ran) == 2


@pytest.mark.parametrize("unit", ["tokens", "output_tokens"])
@pytest.mark.parametrize("options", [{}, {"methods": ["GET"]}, {"per_method": True}], ids=str)
def test_head_pays_tokens_as_get_does(unit, options):
    limits = limited(token_counter=lambda text: len(text.split()))

    @limits.app.get("/", endpoint="answer")
    @limits.limiter.limit_tokens("1000 per minute", unit=unit, **options)
    def answer():
        limits.limiter.record_usage(output_tokens=1500)
        return "a b c"

    client = limits.client()
    assert [client.head("/").status_code, client.get("/").status_code, client.head("/").status_code] == [200, 429, 429]


def test_head_holds_a_slot_as_get_does():
    limits = limited()
    inner = []

    @limits.app.get("/", endpoint="answer")
    @limits.limiter.limit_concurrency(1, methods=["GET"])
    def answer():
        if not inner:
            inner.append(0)
            inner[0] = limits.client().get("/").status_code
        return ""

    assert limits.client().head("/").status_code == 200
    assert inner == [429]


@pytest.mark.parametrize("method", ["HEAD", "head", "Head"])
def test_default_limits_hold_for_head_however_it_is_spelt(method):
    limits = limited(default_token_limits=["100 per minute"], default_output_tokens=60)

    @limits.app.get("/", endpoint="answer")
    def answer():
        limits.limiter.record_usage(output_tokens=500)
        return ""

    client = limits.client()
    assert client.open("/", method=method).status_code == 200
    assert client.get("/").status_code == 429


def test_limit_for_another_method_leaves_head_alone():
    limits = limited()

    @limits.app.route("/", endpoint="answer", methods=["GET", "POST"])
    @limits.limiter.limit("1 per minute", methods=["POST"])
    def answer():
        return ""

    client = limits.client()
    assert [client.head("/").status_code for _ in range(3)] == [200] * 3


def test_head_on_a_view_class_counts_as_get():
    limits = limited()

    class View(MethodView):
        decorators = (limits.limiter.limit("2 per minute"),)

        def get(self):
            return ""

    limits.app.add_url_rule("/", view_func=View.as_view("answer"))
    client = limits.client()
    assert [client.head("/").status_code, client.get("/").status_code, client.head("/").status_code] == [200, 200, 429]


# One count, several times in a request


def opened(body, **options):
    limits = limited(token_counter=lambda text: len(text.split()), default_output_tokens=10, **options)

    @limits.app.post("/", endpoint="answer")
    def answer():
        return body(limits)

    @limits.app.get("/peeked", endpoint="peeked")
    @limits.limiter.limit_tokens("1000000 per minute", shared=True, scope="all")
    @limits.limiter.limit_concurrency(1, shared=True, scope="all")
    def peeked():
        return ""

    return limits


def shared(limits, limit="1000000 per minute", **options):
    return limits.limiter.limit_tokens(limit, shared=True, scope="all", **options)


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_limit_opened_in_a_loop_charges_each_usage_once(n):
    def body(limits):
        for _ in range(n):
            with shared(limits):
                limits.limiter.record_usage(input_tokens=100)
        return ""

    limits = opened(body)
    assert limits.client().post("/").status_code == 200
    assert limits.tokens(endpoint="peeked") == 100 * n


@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_limit_object_opened_in_a_loop_charges_each_usage_once(n):
    def body(limits):
        limit = shared(limits)
        for _ in range(n):
            with limit:
                limits.limiter.record_usage(input_tokens=100)
        return ""

    limits = opened(body)
    limits.client().post("/")
    assert limits.tokens(endpoint="peeked") == 100 * n


def test_limit_opened_inside_itself_charges_once():
    def body(limits):
        with shared(limits), shared(limits):
            limits.limiter.record_usage(input_tokens=100)
        return ""

    limits = opened(body)
    limits.client().post("/")
    assert limits.tokens(endpoint="peeked") == 100


def test_decorated_function_called_twice_charges_each_usage_once():
    def body(limits):
        @shared(limits)
        def ask():
            limits.limiter.record_usage(input_tokens=100)

        ask()
        ask()
        return ""

    limits = opened(body)
    limits.client().post("/")
    assert limits.tokens(endpoint="peeked") == 200


def test_decorated_function_that_calls_itself_charges_each_usage_once():
    def body(limits):
        @shared(limits)
        def ask(depth):
            limits.limiter.record_usage(input_tokens=100)
            if depth:
                ask(depth - 1)

        ask(3)
        return ""

    limits = opened(body)
    limits.client().post("/")
    assert limits.tokens(endpoint="peeked") == 400


def test_limit_of_the_view_and_the_same_count_opened_in_it_charge_once():
    limits = limited(token_counter=lambda text: len(text.split()), default_output_tokens=10)

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("1000000 per minute", shared=True, scope="all")
    def answer():
        for _ in range(3):
            with shared(limits):
                limits.limiter.record_usage(input_tokens=100)
        return ""

    limits.client().post("/")
    assert limits.tokens() == 300


def test_two_counts_are_each_charged_with_all():
    def body(limits):
        with shared(limits), limits.limiter.limit_tokens("5000 per day", shared=True, scope="all"):
            limits.limiter.record_usage(input_tokens=100)
        return ""

    limits = opened(body)
    assert limits.client().post("/").status_code == 200
    assert limits.tokens(endpoint="peeked") == 100


def test_two_callers_counts_in_one_request_are_told_apart():
    def body(limits):
        for key in ("x", "y"):
            with shared(limits, key_func=lambda key=key: key):
                limits.limiter.record_usage(input_tokens=100)
        return ""

    limits = opened(body)
    assert limits.client().post("/").status_code == 200
    # What was recorded is the request's; each caller's count has at least what was used under it, and no more than all.
    assert 100 <= limits.tokens("x", endpoint="peeked") <= 200
    assert 100 <= limits.tokens("y", endpoint="peeked") <= 200


@pytest.mark.parametrize("n", [1, 2, 5])
def test_request_takes_one_slot_of_a_count_however_often_it_asks(n):
    seen = []

    def slot(limits):
        return limits.limiter.limit_concurrency(1, shared=True, scope="all")

    def body(limits):
        for _ in range(n):
            with slot(limits), slot(limits):
                seen.append(limits.used(endpoint="peeked")["concurrency"])
        return ""

    limits = opened(body)
    assert limits.client().post("/").status_code == 200
    assert seen == [1] * n
    assert limits.used(endpoint="peeked")["concurrency"] == 0


def test_view_with_a_slot_may_open_the_same_again():
    limits = limited()

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_concurrency(1, shared=True, scope="all")
    def answer():
        with limits.limiter.limit_concurrency(1, shared=True, scope="all"):
            return str(limits.used()["concurrency"])

    assert limits.client().post("/").text == "1"
    assert limits.used()["concurrency"] == 0


def test_another_request_s_slot_still_refuses():
    limits = limited()
    inner = []

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_concurrency(1)
    def answer():
        if not inner:
            inner.append(0)
            inner[0] = limits.client().post("/").status_code
        return ""

    assert limits.client().post("/").status_code == 200
    assert inner == [429]


def test_requests_counted_by_a_context_manager_count_each_time():
    """A limit of requests opened n times is n requests: it is no usage that anybody reports."""
    limits = limited()

    @limits.app.post("/", endpoint="answer")
    def answer():
        for _ in range(3):
            with limits.limiter.limit("10 per minute", scope="x"):
                pass
        return ""

    assert limits.client().post("/").status_code == 200


def test_answer_s_report_is_charged_once_to_a_count_that_was_opened_thrice():
    def body(limits):
        for _ in range(3):
            with shared(limits):
                pass
        return {"usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}}

    limits = opened(body)
    limits.client().post("/")
    assert limits.tokens(endpoint="peeked") == 150


def test_stream_s_usage_is_charged_once_to_a_count_that_was_opened_thrice():
    def body(limits):
        for _ in range(3):
            with shared(limits):
                pass
        return Response(iter(["a b ", "c d"]), mimetype="text/plain")

    limits = opened(body)
    limits.client().post("/", json={"prompt": "one two three"}).get_data()
    assert limits.tokens(endpoint="peeked") == GIVEN + 4


def test_metering_of_the_acceptance_tests_counts_as_they_say():
    """The yardstick itself: a plain chat costs what it reports, in every unit."""
    limits = metered(lambda: {"usage": {"prompt_tokens": 9, "completion_tokens": 5}})
    assert send(limits).used == {"tokens": 14, "input": 9, "output": 5, "concurrency": 0}
    assert by_unit(limits.used())["tokens"] == 14
    assert charged(lambda: "").status == 200
