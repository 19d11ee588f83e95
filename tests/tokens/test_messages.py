"""What several messages used together, what a report stands for, and what is no report."""

import json
from time import thread_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_streams import COUNTER, chat, chunk, data, fed, line, messages, named, output, responses
from token_values import json_values
from usage_shapes import Words

from flask_ailimit.tokens import StreamMeter, Usage

LINES, JSON, PLAIN = "application/x-ndjson", "application/json", "text/plain"
ZEROS = {"prompt_tokens": 0, "completion_tokens": 0}


def measured(chunks, mimetype="text/event-stream", known=7, complete=True, **options):
    return fed(chunks, mimetype, **options)[0].measure(known, complete=complete)


def call(message_id, given=10, made=5, text="a"):
    events = [chunk({"content": text}), {**chunk({}), "choices": []}]
    events[1]["usage"] = {"prompt_tokens": given, "completion_tokens": made}
    return [data({**event, "id": message_id}) for event in events]


@pytest.mark.parametrize("end", [[], [b"data: [DONE]\n\n"]], ids=["", "with ends"])
def test_messages_with_ids_of_their_own_add_up(end):
    chunks = [each for number in range(5) for each in [*call(f"c-{number}"), *end]]
    assert measured(chunks) == (Usage(50, 25), "reported")


@pytest.mark.parametrize("stream", [chat, messages, responses], ids=lambda stream: stream.__name__)
def test_a_message_after_an_end_is_another_whatever_its_id(stream):
    once = measured(stream()).usage
    assert measured(stream() * 3).usage == once + once + once


def test_messages_without_ids_are_told_apart_by_their_ends():
    lines = [{"model": "m", "response": "a"}, {"model": "m", "response": "", "done": True, "eval_count": 5}]
    lines[1]["prompt_eval_count"] = 10
    assert measured([line(each) + b"\n" for each in lines * 4], LINES) == (Usage(40, 20), "reported")


def converse(made):
    """A call of Bedrock's, whose events have no id."""
    usage = {"inputTokens": 10, "outputTokens": made, "totalTokens": 10 + made}
    return [
        {"messageStart": {"role": "assistant"}},
        *[{"contentBlockDelta": {"delta": {"text": "a"}, "contentBlockIndex": 0}}] * made,
        {"messageStop": {"stopReason": "end_turn"}},
        {"metadata": {"usage": usage, "metrics": {"latencyMs": 1}}},
    ]


def gemini(made, candidates=1):
    """A call of Gemini's without ids, each of whose events says what was used so far."""
    events = []
    for number in range(1, made + 1):
        finish = {"finishReason": "STOP"} if number > made - candidates else {}
        candidate = {"content": {"parts": [{"text": "a"}]}, "index": number % candidates, **finish}
        usage = {"promptTokenCount": 10, "candidatesTokenCount": number, "totalTokenCount": 10 + number}
        events.append({"candidates": [candidate], "usageMetadata": usage})
    return events


@pytest.mark.parametrize("call", [converse, gemini], ids=lambda call: call.__name__)
@pytest.mark.parametrize("together", [False, True])
def test_calls_without_ids_and_ends_are_told_apart_by_how_they_begin(call, together):
    chunks = [data(event) for made in (20, 5, 30, 30, 1) for event in call(made)]
    assert measured([b"".join(chunks)] if together else chunks) == (Usage(50, 86), "reported")


def test_candidates_that_finish_one_after_the_other_are_one_call():
    assert measured([data(event) for event in gemini(9, candidates=3)]) == (Usage(10, 9), "reported")


def test_a_report_repeated_after_the_end_counts_once():
    assert measured([*call("c-1"), b"data: [DONE]\n\n", call("c-1")[1]]) == (Usage(10, 5), "reported")


def test_ids_that_come_again_after_others_are_the_same_message():
    assert measured([call("a")[1], call("b")[1], call("a", made=9)[1]]) == (Usage(20, 14), "reported")


def test_more_messages_than_are_kept_still_add_up():
    assert measured([each for n in range(500) for each in call(f"c-{n}")]) == (Usage(5000, 2500), "reported")


def test_text_of_a_message_without_report_is_counted_besides():
    chunks = [data(chunk({"content": "abcd"})), b"data: [DONE]\n\n", *call("c-2")]
    assert measured(chunks) == (Usage(7 + 10, 4 + 5), "counted")


def test_text_after_a_report_is_counted_besides():
    chunks = [*call("c-1", made=5), data({**chunk({"content": "xyz"}), "id": "c-1"})]
    assert measured(chunks, complete=False) == (Usage(10, 8), "counted")


@pytest.mark.parametrize("complete", [False, True])
def test_early_zeros_are_no_report(complete):
    chunks = [data({**chunk({"content": ""}), "usage": ZEROS}), data(chunk({"content": "abcd"}))]
    assert measured(chunks, complete=complete) == (Usage(7, 4), "counted")


GEMINI_ZEROS = {"promptTokenCount": 0, "totalTokenCount": 0}
EARLY_ZEROS = {
    "total and parts": {"usage": {**ZEROS, "total_tokens": 0}, "choices": []},
    "total alone": {"usage": {"total_tokens": 0}, "choices": []},
    "Gemini's": {"usageMetadata": GEMINI_ZEROS, "candidates": [{"content": {"parts": []}}]},
    "Gemini's, with nothing else": {"usageMetadata": GEMINI_ZEROS},
    "of Responses": {
        "type": "response.created",
        "response": {"usage": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}},
    },
}


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("zeros", EARLY_ZEROS.values(), ids=EARLY_ZEROS)
def test_early_zeros_say_nothing_of_the_input(zeros, complete):
    assert measured([data(zeros), data(chunk({"content": "abcd"}))], complete=complete) == (Usage(7, 4), "counted")


def test_zeros_beside_every_text_say_nothing_of_an_answer_that_breaks_off():
    zeros = {**ZEROS, "total_tokens": 0}
    chunks = [data(chunk({"content": "abcd"}, usage=zeros))] * 3
    assert measured(chunks, complete=False) == (Usage(7, 12), "counted")


def test_a_total_below_the_text_that_was_seen_is_raised_to_it():
    chunks = [data(chunk({"content": "a" * 400})), data({"choices": [], "usage": {"total_tokens": 1}})]
    assert measured(chunks) == (Usage(0, 100), "counted")


@pytest.mark.parametrize("name", ["usageMetadata", "usage_metadata"])
def test_an_event_with_nothing_but_gemini_s_report_is_a_report(name):
    snake = {"prompt_token_count": 9, "total_token_count": 9}
    report = {"usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}, "usage_metadata": snake}[name]
    text = {"candidates": [{"content": {"parts": [{"text": "abcd"}]}}]}
    assert measured([data({name: report}), data(text)], complete=False) == (Usage(9, 4), "counted")


def test_last_zeros_are_believed_if_nothing_was_known():
    assert measured([data({"choices": [], "usage": ZEROS}), b"data: [DONE]\n\n"]) == (Usage(0, 0), "reported")


def test_zeros_never_replace_a_larger_number():
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 1000, "output_tokens": 1}}}
    delta = {"type": "message_delta", "usage": {"input_tokens": 0, "output_tokens": 5}}
    assert measured([named(start), named(delta), named({"type": "message_stop"})]) == (Usage(1000, 5), "reported")


def test_known_input_is_kept_though_no_text_came():
    assert measured(messages()[:1], complete=False) == (Usage(35, 0, 10), "reported")


IMPOSTORS = [
    {"answer": "all of it", "usage": ZEROS},
    {"answer": "all of it", "done": True},
    {"done": True, "prompt_eval_count": 0, "eval_count": 0},
    {"usage": ZEROS, "note": "hi"},
    {"prompt_eval_count": 0, "eval_count": 0, "text": "all of it"},
]


@pytest.mark.parametrize("impostor", IMPOSTORS, ids=json.dumps)
@pytest.mark.parametrize("mimetype", [LINES, "text/event-stream"])
def test_a_report_without_a_provider_s_members_is_text(impostor, mimetype):
    payload = data(impostor) if mimetype != LINES else line(impostor) + b"\n"
    meter, told = fed([payload, payload], mimetype)
    assert told == [False, False]
    usage, source = meter.measure(7, complete=True)
    assert (usage.input_tokens, source) == (7, "counted")
    assert usage.output_tokens >= 2 * len("all of it") or "answer" not in impostor


@pytest.mark.parametrize("text", ["[DONE] ha", " [DONE]", "[DONE]]", "[DONE", "[DONE][DONE]"])
def test_what_only_looks_like_an_end_is_text(text):
    payload = b"data: " + text.encode() + b"\n\n"
    for chunks in ([payload], [payload[:12], payload[12:]]):
        meter, _ = fed(chunks)
        assert (meter.ended, output(meter)) == (False, len(text))


def test_text_seen_is_a_floor_under_a_final_report():
    body = {"choices": [{"message": {"content": "abcdefgh " * 10}}], "usage": ZEROS}
    exact = Words()
    exact.exact = True
    for counter, floor in ((Words(), 2), (exact, 10)):
        meter = StreamMeter(JSON, counter)
        meter.feed(json.dumps(body).encode())
        assert meter.measure(7, complete=True) == (Usage(0, floor), "counted")


def test_a_report_above_the_floor_calls_no_counter():
    class Never:
        exact = False

        def __call__(self, text):
            raise AssertionError

    meter = StreamMeter("text/event-stream", Never())
    for each in call("c-1", made=100, text="a common text " * 50):
        meter.feed(each)
    assert meter.measure(7, complete=True) == (Usage(10, 100), "reported")


def test_a_counter_that_raises_breaks_no_stream_and_no_report():
    class Raises:
        exact = True

        def __call__(self, text):
            raise ValueError("none of these")

    meter = StreamMeter("text/event-stream", Raises())
    for each in chat(words=["word " * 1000] * 40):
        meter.feed(each)
    assert meter.measure(7, complete=True).usage == Usage(9, 21, 4)
    meter = StreamMeter("text/event-stream", Raises())
    meter.feed(data("word"))
    with pytest.raises(ValueError, match="none of these"):
        meter.measure(7, complete=True)


@pytest.mark.parametrize("mimetype", [JSON, LINES, PLAIN, "text/event-stream"])
def test_a_document_of_some_megabytes_is_read_at_its_end(mimetype):
    body = {"choices": [{"message": {"content": "word " * 400_000}}], "usage": {}}
    body["usage"] = {"prompt_tokens": 5, "completion_tokens": 600_000}
    raw = json.dumps(body).encode()
    chunks = [raw[start : start + 65_536] for start in range(0, len(raw), 65_536)]
    assert measured(chunks, mimetype) == (Usage(5, 600_000), "reported")


def test_of_a_document_too_long_to_keep_the_reservation_stands():
    assert measured([b'{"text": "', *[b"x" * 1_000_000] * 9, b'"}'], JSON) == (None, "reserved")


@pytest.mark.parametrize("place", range(1, 60))
def test_a_document_that_breaks_off_says_what_came(place):
    body = b'{"id":"c","choices":[{"message":{"content":"a\\u00e4 \\"b\\\\","n":1.5e3}}]}'
    usage = measured([body[:place]], JSON, complete=False).usage
    assert usage.output_tokens <= len('aä "b\\')


@settings(deadline=None)
@given(st.lists(json_values, max_size=6), st.sampled_from([JSON, LINES, PLAIN, "text/event-stream", "audio/mpeg"]))
def test_no_json_makes_it_raise_and_chunks_make_no_difference(values, mimetype):
    rows = [json.dumps(value) for value in values]
    body = "".join(f"data: {row}\n\n" if mimetype.endswith("stream") else row + "\n" for row in rows).encode()
    whole, pieces = fed([body], mimetype)[0], fed([body[at : at + 5] for at in range(0, len(body), 5)], mimetype)[0]
    for complete in (False, True):
        assert whole.measure(7, complete=complete) == pieces.measure(7, complete=complete)
    assert (whole.ended, whole.seen_anything) == (pieces.ended, pieces.seen_anything)


@pytest.mark.parametrize(
    "pattern",
    [b"data:\n\n", b"data:\n", b"data: x\n\n", b"\r", b"\n", b":\n", b": ping\n\n", b"x", b"{}\n", b"}", b'{"a":"'],
    ids=repr,
)
@pytest.mark.parametrize("mimetype", [JSON, LINES, PLAIN, "text/event-stream"])
def test_twice_as_much_takes_no_more_than_some_three_times_as_long(pattern, mimetype):
    def seconds(size):
        meter = StreamMeter(mimetype, COUNTER)
        body = pattern * (size // len(pattern))
        started = thread_time()
        for start in range(0, len(body), 500):
            meter.feed(body[start : start + 500])
        meter.measure(7, complete=True)
        return thread_time() - started

    def is_in_proportion():
        return min(large) < 4 * min(small) + 0.02

    large, small = [], []
    while len(large) < 3 or (not is_in_proportion() and len(large) < 12):  # The machine may be busy for a while.
        large.append(seconds(400_000))
        small.append(seconds(200_000))
    assert is_in_proportion()
