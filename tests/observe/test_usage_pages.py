"""Usage pages: OpenAI's form, the caller's own settlements, and a 400 for whatever can't be asked."""

import json
from contextlib import closing
from http import HTTPStatus
from itertools import pairwise

import httpx2
import openai
import pytest
from app_server import serving
from flask import Flask, request
from hypothesis import given
from hypothesis import strategies as st
from observed_apps import DAY_US, HOUR_US, REPORT, SECRET, kept, observed, settlement
from openai.types.admin.organization import UsageCompletionsResponse, UsageCostsResponse
from werkzeug.datastructures import MultiDict

from flask_ailimit import AILimiter, Caller, Payer, api_key
from flask_ailimit.observe.usage_page import COMPLETIONS, KINDS, QueryError, asked, page_of
from flask_ailimit.testing import START_US

DAY_S = 86_400
START_S = START_US // 10**6
NOW_S = START_S + 5


@pytest.fixture
def file(tmp_path):
    return tmp_path / "settlements.sqlite"


@pytest.fixture
def served(file):
    with observed(file) as served:
        yield served


def used(served, key, at_us, *, number=[0], **given):  # noqa: B006  counts all calls
    number[0] += 1
    subject = served.limiter.engine.subject(key)
    served.writer.settlements.add([settlement(f"request {number[0]}", at_us=at_us, subject=subject, **given)])


def totals(page):
    """What is in each bucket that is not empty: its start, and its results' inputs, outputs and requests."""
    return {
        bucket["start_time"]: [
            (result["input_tokens"], result["output_tokens"], result["num_model_requests"])
            for result in bucket["results"]
        ]
        for bucket in page["data"]
        if bucket["results"]
    }


# What is on a page


def test_page_has_the_last_seven_days_of_the_callers_own_requests(served):
    for key in ("alice", "bob", "alice"):
        assert served.ask(key).status_code == 200
    answer = served.page()
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert {name: value for name, value in answer.json.items() if name != "data"} == {
        "object": "page",
        "has_more": False,
        "next_page": None,
    }
    starts = [START_S - DAY_S * day for day in range(6, -1, -1)]
    assert [(each["start_time"], each["end_time"]) for each in answer.json["data"]] == [
        (start, start + DAY_S) for start in starts
    ]
    *before, today = answer.json["data"]
    assert [each["results"] for each in before] == [[]] * 6
    assert today == {
        "object": "bucket",
        "start_time": START_S,
        "end_time": START_S + DAY_S,
        "results": [
            {
                "object": "organization.usage.completions.result",
                "input_tokens": 20,
                "output_tokens": 40,
                "num_model_requests": 2,
                "input_cached_tokens": 8,
                "input_cache_write_tokens": 0,
                "input_uncached_tokens": 12,
                "input_audio_tokens": 0,
                "output_audio_tokens": 0,
                "input_image_tokens": 0,
                "output_image_tokens": 0,
                "project_id": None,
                "user_id": None,
                "api_key_id": None,
                "model": None,
                "batch": None,
                "service_tier": None,
            }
        ],
    }
    assert totals(served.page(key="bob").json) == {START_S: [(10, 20, 1)]}
    assert totals(served.page(key="carol").json) == {}


def test_without_the_query_usage_is_as_it_was(served):
    answer = served.app.test_client().get("/usage", headers={"X-Api-Key": "alice"})
    assert list(answer.json) == ["limits"]


def test_request_that_is_settled_twice_is_one_request(served):
    used(served, "alice", START_US, input_tokens=5)
    subject = served.limiter.engine.subject("alice")
    served.writer.settlements.add(
        [settlement("twice", number, START_US, subject=subject, input_tokens=1) for number in (1, 2)]
    )
    assert totals(served.page().json) == {START_S: [(7, 0, 2)]}


def test_groups_tell_models_and_tiers_apart(served):
    used(served, "alice", START_US, model="large-*", service_tier="flex", output_tokens=1)
    used(served, "alice", START_US, model="large-*", output_tokens=2)
    used(served, "alice", START_US, model="small", output_tokens=4)
    used(served, "alice", START_US, output_tokens=8)

    def groups(query):
        (bucket,) = [each for each in served.page(query).json["data"] if each["results"]]
        return {(each["model"], each["service_tier"]): each["output_tokens"] for each in bucket["results"]}

    assert groups("") == {(None, None): 15}
    by_model = {("large-*", None): 3, ("small", None): 4, (None, None): 8}
    assert groups("group_by=model") == groups("group_by[]=model") == groups("group_by=model,model") == by_model
    assert groups("group_by=service_tier") == {(None, "flex"): 1, (None, None): 14}
    both = {("large-*", "flex"): 1, ("large-*", None): 2, ("small", None): 4, (None, None): 8}
    assert groups("group_by[]=model&group_by[]=service_tier") == groups("group_by=service_tier,model") == both


def test_costs_are_a_result_for_each_currency_and_none_for_what_has_no_price(served):
    used(served, "alice", START_US, model="large-*", currency="USD", cost_nano=1_250_000_001)
    used(served, "alice", START_US, model="small", currency="USD", cost_nano=2**53 - 1 - 1_250_000_001)
    used(served, "alice", START_US, model="small", currency="EUR", cost_nano=5)
    used(served, "alice", START_US, model="small", input_tokens=5)

    def costs(query):
        (bucket,) = [each for each in served.page(f"of=costs&{query}").json["data"] if each["results"]]
        return [(each["object"], each["amount"], each["line_item"]) for each in bucket["results"]]

    kind = "organization.costs.result"
    assert costs("") == [
        (kind, {"value": 5e-9, "currency": "eur", "nano": 5}, None),
        (kind, {"value": (2**53 - 1) / 10**9, "currency": "usd", "nano": 2**53 - 1}, None),
    ]
    assert [(amount["nano"], item) for _, amount, item in costs("group_by[]=line_item")] == [
        (5, "small"),
        (1_250_000_001, "large-*"),
        (2**53 - 1 - 1_250_000_001, "small"),
    ]


def test_hours_are_told_apart_when_they_are_asked_for(served):
    for hour in range(3):
        used(served, "alice", START_US - hour * HOUR_US, input_tokens=hour + 1)
    page = served.page(f"start_time={START_S - 2 * 3600}", path="/usage?bucket_width=1h").json
    assert totals(page) == {START_S - hour * 3600: [(hour + 1, 0, 1)] for hour in range(3)}
    assert {each["end_time"] - each["start_time"] for each in page["data"]} == {3600}


def test_payer_of_a_plan_sees_what_it_used_by_plan_and_by_key_and_nobody_else_does(file):
    app = Flask("planned")
    plans = {"plans": {"pro": {"tokens": "10000 per minute", "models": {"large-*": {"tokens": "5000 per minute"}}}}}
    limiter = AILimiter(app=app, storage_uri="memory://", plans=plans, settlements=file, secret=SECRET)

    @limiter.identify
    def who():
        return Caller(user=Payer(request.args["user"], plan="pro", label=f"Customer {request.args['user']}"))

    def chat():
        return {"choices": [], "usage": REPORT}

    app.post("/planned", endpoint="planned")(limiter.limit_by_plan()(chat))
    app.post("/limited", endpoint="limited")(limiter.limit_tokens("1000 per minute")(chat))
    app.add_url_rule("/usage", view_func=limiter.usage_view)
    client = app.test_client()
    for path, user in (("/planned", 7), ("/planned", 7), ("/limited", 7), ("/planned", 8)):
        assert client.post(f"{path}?user={user}", json={"model": "large-1", "messages": []}).status_code == 200

    def models(user):
        page = client.get(f"/usage?bucket_width=1d&group_by=model&user={user}").json
        return {each["model"]: each["num_model_requests"] for bucket in page["data"] for each in bucket["results"]}

    assert models(7) == {"large-*": 2, None: 1}
    assert models(8) == {"large-*": 1}
    assert models(9) == {}
    assert {(each.plan, each.label, each.model) for each in kept(file)} == {
        ("pro", "Customer 7", "large-*"),
        ("pro", "Customer 8", "large-*"),
        (None, None, None),
    }
    with app.app_context():
        limiter.engine.close()


def test_address_shows_a_payer_nothing_of_others_behind_the_same_address(file):
    app = Flask("planned")
    plans = {"plans": {"pro": {"tokens": "10000 per minute"}}}
    limiter = AILimiter(api_key, app=app, storage_uri="memory://", plans=plans, settlements=file)
    limiter.identify(lambda: Caller(user=Payer("7", plan="pro")))
    app.post("/")(limiter.limit_tokens("1000 per minute")(lambda: {"choices": [], "usage": REPORT}))
    app.add_url_rule("/usage", view_func=limiter.usage_view)
    client = app.test_client()
    assert client.post("/", json={"messages": []}).status_code == 200  # A stranger without a key, by its address.
    assert totals(client.get("/usage?bucket_width=1d").json) == {}
    with app.app_context():
        limiter.engine.close()


# Without, and when something is wrong


def test_app_that_keeps_no_settlements_says_what_to_configure():
    with observed(None) as served:
        answer = served.page()
        assert (answer.status_code, answer.headers["x-should-retry"]) == (404, "false")
        assert answer.json["detail"] == (
            "This service keeps no settlements, so it has no usage pages. They need its setting AILIMIT_SETTLEMENTS."
        )
        assert answer.json["error"]["code"] == "no_settlements"


def test_app_whose_limits_are_switched_off_has_no_page(served):
    served.limiter.enabled = False
    assert served.page().status_code == 404


def test_page_is_a_503_while_the_file_can_not_be_read(served, file, caplog):
    served.writer.settlements.close()
    file.write_bytes(b"no database" * 500)
    answer = served.page()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "A usage page can't be shown: file is not a database" in caplog.text


def test_page_is_exempt_from_limits(file):
    with observed(file, default_limits=["1 per day"]) as served:
        assert [served.page().status_code for _ in range(3)] == [200] * 3
        assert [served.page(path="/v1/organization/costs?").status_code for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("bucket_width=1m", "bucket_width: write 1d or 1h."),
        ("of=costs&bucket_width=1h", "bucket_width: write 1d."),
        ("bucket_width=1d&bucket_width=1d", "bucket_width: write it once."),
        ("bucket_width=1d&of=money", "of: write completions or costs."),
        ("bucket_width=1d&limit=0", "limit: write a whole number from 1 to 31."),
        ("bucket_width=1h&limit=169", "limit: write a whole number from 1 to 168."),
        ("bucket_width=1d&of=costs&limit=181", "limit: write a whole number from 1 to 180."),
        ("bucket_width=1d&limit=-1", "limit: write a whole number from 1 to 31."),
        ("bucket_width=1d&limit=NaN", "limit: write a whole number from 1 to 31."),
        ("bucket_width=1d&limit=1e1", "limit: write a whole number from 1 to 31."),
        ("bucket_width=1d&limit=%D9%A1", "limit: write a whole number from 1 to 31."),
        ("bucket_width=1d&limit=", "limit: write a whole number from 1 to 31."),
        ("bucket_width=1d&start_time=-1", "start_time: write a whole number from 0 to 253402300799."),
        ("bucket_width=1d&start_time=" + "9" * 5000, "start_time: write a whole number from 0 to 253402300799."),
        ("bucket_width=1d&start_time=253402300799", "start_time: write a time before end_time, or before now, in"),
        ("bucket_width=1d&start_time=5&end_time=5", "start_time: write a time before end_time, or before now, in"),
        ("bucket_width=1d&end_time=0", "end_time: write a whole number from 1 to 253402300799."),
        ("bucket_width=1d&page=x", "page: write the next_page of the page before"),
        ("bucket_width=1d&page=page_1", "page: write the next_page of the page before"),
        ("bucket_width=1d&page=page_0", "page: write the next_page of the page before"),
        ("bucket_width=1d&group_by=user_id", "group_by: write model or service_tier."),
        ("bucket_width=1d&group_by=", "group_by: write model or service_tier."),
        ("bucket_width=1d&of=costs&group_by=model", "group_by: write line_item."),
        ("bucket_width=1d&user_ids[]=7", "user_ids: this page can't be filtered by it. Leave it out."),
        ("bucket_width=1d&models=a", "models: this page can't be filtered by it. Leave it out."),
    ],
)
def test_query_that_can_not_be_answered_is_a_400_that_says_what_to_write(served, query, words):
    answer = served.app.test_client().get(f"/usage?{query}", headers={"X-Api-Key": "alice"})
    assert (answer.status_code, answer.headers["x-should-retry"]) == (400, "false")
    assert answer.json["detail"].startswith(words)
    assert answer.json["error"]["code"] == "invalid_query"


HOSTILE = st.one_of(
    st.text(max_size=20),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.sampled_from(["0", "1", "7", "31", str(NOW_S), str(START_S), "page_0", f"page_{START_S}", "1d", "1h", "1m"]),
    st.sampled_from(["model", "service_tier", "line_item", "user_id", "costs", "completions"]),
)
NAMES = ["bucket_width", "start_time", "end_time", "limit", "page", "group_by", "group_by[]", "of", "models", "batch"]


@given(st.lists(st.tuples(st.sampled_from(NAMES), HOSTILE), max_size=6))
def test_whatever_is_asked_is_answered_with_a_page_or_a_400(app_of_fuzz, query):
    answer = app_of_fuzz.app.test_client().get(
        "/usage", query_string=MultiDict([("bucket_width", "1d"), *query]), headers={"X-Api-Key": "alice"}
    )
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == HTTPStatus.OK:
        check_page(answer.json)


@pytest.fixture(scope="module")
def app_of_fuzz(tmp_path_factory):
    with observed(tmp_path_factory.mktemp("fuzz") / "settlements.sqlite") as served:
        for day in range(40):
            used(served, "alice", START_US - day * DAY_US, input_tokens=1)
        yield served


def check_page(page):
    """A page is of buckets one after the other, and its cursor is where the next begins."""
    buckets = page["data"]
    for before, after in pairwise(buckets):
        assert before["end_time"] == after["start_time"]
    assert page["has_more"] == (page["next_page"] is not None)
    if page["has_more"]:
        assert page["next_page"] == f"page_{buckets[-1]['end_time']}"


@given(
    start=st.integers(0, 3 * 10**9),
    length=st.integers(1, 60 * DAY_S),
    limit=st.integers(1, 31),
    width=st.sampled_from(["1d", "1h"]),
)
def test_pages_together_have_each_bucket_of_the_time_once(start, length, limit, width):
    query = {"start_time": str(start), "end_time": str(start + length), "limit": str(limit), "bucket_width": width}
    buckets = []
    while True:
        page = page_of(asked(MultiDict(query), NOW_S), [])
        check_page(page)
        assert len(page["data"]) <= limit
        buckets += page["data"]
        if not page["has_more"]:
            break
        query["page"] = page["next_page"]
    seconds = DAY_S if width == "1d" else 3600
    assert buckets[0]["start_time"] == start // seconds * seconds
    assert buckets[-1]["end_time"] == -(-(start + length) // seconds) * seconds
    assert len({each["start_time"] for each in buckets}) == len(buckets)


@given(st.lists(st.tuples(st.sampled_from(NAMES), HOSTILE), max_size=8), st.integers(0, 2**40), st.sampled_from(KINDS))
def test_sentence_of_a_refused_query_repeats_nothing_of_it(query, now_s, kind):
    words = ""
    try:
        asked(MultiDict([(name, f"hostile{value}") for name, value in query]), now_s, kind)
    except QueryError as error:
        words = str(error)
    assert "hostile" not in words
    assert bool(words) == any(name != "of" for name, _ in query)


# OpenAI's own SDK


def test_sdk_reads_every_page(served):
    for day in range(20):
        used(served, "alice", START_US - day * DAY_US, model="large-*", input_tokens=day + 1, cached_input_tokens=1)
        used(served, "alice", START_US - day * DAY_US, model="small", currency="USD", cost_nano=10**9 * day)
    served.clock.advance(5)
    with serving(served.app) as address, closing(client_of(address)) as client:
        read = client.admin.organization.usage
        first = START_S - 19 * DAY_S
        pages = [read.completions(start_time=first, bucket_width="1d", group_by=["model"])]
        while pages[-1].has_more:
            after = pages[-1].next_page
            pages.append(read.completions(start_time=first, bucket_width="1d", group_by=["model"], page=after))
        assert [len(page.data) for page in pages] == [7, 7, 6]
        results = [result for page in pages for bucket in page.data for result in bucket.results]
        kinds = {type(result).__name__ for result in results}
        assert kinds == {"DataResultOrganizationUsageCompletionsResult"}
        large = [
            (each.input_tokens, each.input_cached_tokens, each.input_uncached_tokens)
            for each in results
            if each.model == "large-*"
        ]
        assert large == [(day + 1, 1, day) for day in range(19, -1, -1)]
        costs = read.costs(start_time=first, limit=180)
        amounts = [result.amount for bucket in costs.data for result in bucket.results]
        assert {type(result).__name__ for bucket in costs.data for result in bucket.results} == {
            "DataResultOrganizationCostsResult"
        }
        assert [amount.value for amount in amounts] == [float(day) for day in range(19, -1, -1)]
        assert {amount.currency for amount in amounts} == {"usd"}
        with pytest.raises(openai.BadRequestError, match="bucket_width: write 1d or 1h"):
            read.completions(start_time=first, bucket_width="1m")
        raw = httpx2.get(f"{address}/v1/organization/costs?start_time={first}", headers={"X-Api-Key": "alice"}).json()
        whole = httpx2.get(
            f"{address}/v1/organization/usage/completions?start_time={first}", headers={"X-Api-Key": "alice"}
        ).json()
    UsageCostsResponse.model_validate_json(json.dumps(raw), strict=True)
    UsageCompletionsResponse.model_validate_json(json.dumps(whole), strict=True)


def client_of(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="alice", admin_api_key="alice", max_retries=0)


def test_kind_is_completions_unless_costs_are_asked_for():
    assert asked(MultiDict(), NOW_S).kind == COMPLETIONS
