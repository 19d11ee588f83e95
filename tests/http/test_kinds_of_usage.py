"""What a request used arrives by kind, and with its tier of service, in the event that tells of it."""

from dataclasses import asdict

import pytest
from acceptance_apps import BODY, hearing
from flask import Response, stream_with_context
from limited_apps import limited

from flask_ailimit import Usage

ALL = Usage(1000, 400, 300, 200, 100, 90, 80, 70, 60, 50, "priority")
REPORT = {
    "prompt_tokens": 1000,
    "completion_tokens": 400,
    "prompt_tokens_details": {"cached_tokens": 300, "audio_tokens": 90},
    "completion_tokens_details": {"reasoning_tokens": 70},
}
REPORTED = Usage(1000, 400, 300, audio_input_tokens=90, reasoning_tokens=70, service_tier="flex")


def served(answer, **options):
    limits = limited(**options)
    limits.app.post("/", endpoint="answer")(limits.limiter.limit_tokens("9000 per minute")(lambda: answer(limits)))
    return limits


def told(limits):
    with hearing(limits.app) as events:
        limits.client().post("/", json=BODY).get_data()
    return events


def test_kinds_that_a_view_records_are_told():
    def answer(limits):
        limits.limiter.record_usage(**asdict(ALL))
        return {}

    assert [each["usage"] for each in told(served(answer))] == [ALL]


def test_kinds_of_several_records_add_up_and_the_last_tier_counts():
    def answer(limits):
        limits.limiter.record_usage(input_tokens=10, cache_write_tokens=4, service_tier="flex")
        limits.limiter.record_usage(input_tokens=10, cache_write_tokens=5, service_tier="batch")
        limits.limiter.record_usage(output_tokens=6, reasoning_tokens=6)
        return {}

    assert [each["usage"] for each in told(served(answer))] == [
        Usage(20, 6, cache_write_tokens=9, reasoning_tokens=6, service_tier="batch")
    ]


def test_kinds_that_an_answer_reports_are_told():
    limits = served(lambda _: {"choices": [], "usage": REPORT, "service_tier": "flex"})
    assert [each["usage"] for each in told(limits)] == [REPORTED]


def test_kinds_that_a_stream_reports_are_told():
    def answer(_):
        yield 'data: {"choices": [{"delta": {"content": "a"}}], "service_tier": "auto"}\n\n'
        yield f'data: {{"choices": [], "usage": {REPORT}, "service_tier": "flex"}}\n\n'.replace("'", '"')
        yield "data: [DONE]\n\n"

    limits = served(lambda limits: Response(answer(limits), mimetype="text/event-stream"))
    assert [each["usage"] for each in told(limits)] == [REPORTED]


def test_each_of_two_settlements_tells_the_kinds_used_since_the_one_before():
    first = {"input_tokens": 10, "cached_input_tokens": 4, "output_tokens": 5, "reasoning_tokens": 3}
    since = {"input_tokens": 7, "cache_write_1h_tokens": 7, "service_tier": "batch"}

    def answer(limits):
        def events():
            limits.limiter.record_usage(**first)
            yield "data: [DONE]\n\n"
            limits.limiter.record_usage(**since)

        return Response(stream_with_context(events()), mimetype="text/event-stream")

    assert [each["usage"] for each in told(served(answer))] == [Usage(**first), Usage(**since)]


@pytest.mark.parametrize("recorded", [ALL, Usage(), Usage(5, 3, service_tier="flex")], ids=["all", "none", "some"])
def test_kinds_outlive_the_answer(recorded):
    tokens = []

    def answer(limits):
        limits.limiter.record_usage(**asdict(recorded))
        tokens.append(limits.limiter.hand_over())
        return {}, 202

    limits = served(answer, secret="0123456789abcdef")
    with hearing(limits.app) as events:
        limits.client().post("/", json=BODY)
        with limits.app.app_context(), limits.limiter.take_over(tokens[0]) as work:
            work.record_usage(input_tokens=10, image_input_tokens=8)
    assert [each["usage"] for each in events] == [recorded + Usage(10, image_input_tokens=8)]


def test_more_parts_than_their_whole_are_refused():
    def answer(limits):
        with pytest.raises(ValueError, match="Got 20 of 15"):
            limits.limiter.record_usage(input_tokens=15, cache_write_tokens=12, cached_input_tokens=8)
        return {}

    assert [each["source"] for each in told(served(answer))] != ["recorded"]


def test_cached_tokens_that_are_not_counted_are_told_all_the_same():
    def answer(limits):
        limits.limiter.record_usage(**asdict(ALL))
        return {}

    limits = served(answer, count_cached_tokens=False)
    (event,) = told(limits)
    assert (event["usage"], event["charged"]) == (ALL, {"tokens": 1100})
