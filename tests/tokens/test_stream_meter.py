import pytest
from token_streams import (
    COUNTER,
    EVENT_STREAMS,
    SSE,
    STREAMS,
    TEXT,
    WORDS,
    answer,
    bytewise,
    chat,
    chunk,
    data,
    fed,
    line,
    messages,
    named,
    output,
    reported,
    seen,
)

from flask_ailimit.tokens import StreamMeter, Usage


@pytest.mark.parametrize(("mimetype", "chunks", "usage", "text"), STREAMS.values(), ids=STREAMS)
def test_usage_is_read_and_output_is_counted(mimetype, chunks, usage, text):
    assert seen(chunks, mimetype) == (usage, len(text), True)


@pytest.mark.parametrize(("mimetype", "chunks", "usage", "text"), EVENT_STREAMS.values(), ids=EVENT_STREAMS)
def test_the_chunk_with_the_terminal_event_is_told_and_no_other(mimetype, chunks, usage, text):
    assert fed(chunks, mimetype)[1] == [False] * (len(chunks) - 1) + [True]


@pytest.mark.parametrize(("mimetype", "chunks", "usage", "text"), EVENT_STREAMS.values(), ids=EVENT_STREAMS)
@pytest.mark.parametrize("missing", [1, 2])
def test_the_last_event_is_seen_without_the_line_breaks_after_it(mimetype, chunks, usage, text, missing):
    stream = b"".join(chunks).rstrip(b"\n") + b"\n" * (2 - missing)
    assert fed([stream], mimetype)[1] == [True]
    assert seen([stream], mimetype) == (usage, len(text), True)


@pytest.mark.parametrize(("mimetype", "chunks", "usage", "text"), EVENT_STREAMS.values(), ids=EVENT_STREAMS)
def test_a_stream_that_breaks_off_is_charged_for_the_events_that_passed(mimetype, chunks, usage, text):
    """Cut after every byte: never nothing for output that passed, and never more than passed."""
    stream = b"".join(chunks)
    meter = StreamMeter(mimetype, COUNTER, believes_reports=False)
    counts = [(meter.feed(byte), output(meter))[1] for byte in bytewise(stream)]
    assert counts == sorted(counts)
    for place in range(0, len(stream), 7):
        passed = sum(len(word) for word in WORDS if line(word)[1:-1] + b'"' in stream[:place])
        assert counts[place - 1 if place else 0] <= passed
    whole = [seen(chunks[:number], mimetype)[1] for number in range(len(chunks) + 1)]
    assert whole[-1] == len(text)
    assert sorted(set(whole)) == [sum(map(len, WORDS[:number])) for number in range(len(WORDS) + 1)]


def test_of_a_messages_stream_that_breaks_off_the_input_is_as_reported():
    usage = Usage(35, len("".join(WORDS[:3])), 10)
    assert fed(messages()[:6])[0].measure(None, complete=False) == (usage, "counted")


def test_a_messages_stream_without_output_has_reported_its_input():
    assert fed(messages()[:3])[0].measure(None, complete=False) == (Usage(35, 0, 10), "reported")


def test_message_delta_can_correct_the_input():
    usage = {"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 1}
    start = {"type": "message_start", "message": {"usage": usage}}
    delta = {"type": "message_delta", "usage": {"input_tokens": 9, "cache_read_input_tokens": None, "output_tokens": 7}}
    assert reported(fed([named(start), named(delta)])[0]) == Usage(13, 7, 4)
    delta = {"type": "message_delta", "usage": {"output_tokens": -1}}
    assert reported(fed([*messages(), named(delta)])[0]) == Usage(35, 25, 10)


def test_usage_reported_again_and_again_is_cumulative():
    events = [chunk({"content": "a"}, usage={"prompt_tokens": 5, "completion_tokens": number}) for number in (1, 2, 3)]
    assert reported(fed(map(data, events))[0]) == Usage(5, 3)


def test_an_absurd_report_is_passed_over():
    events = [
        chunk({"content": "a"}, usage={"prompt_tokens": 5, "completion_tokens": number}) for number in (1, -1, True)
    ]
    assert fed(map(data, events))[0].measure(7, complete=True) == (Usage(5, 1 + 2), "counted")


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        {"error": {"message": "The model is away."}},
        {"type": "ping"},
    ],
)
def test_an_error_is_no_output_and_ends_nothing(event):
    meter, told = fed([named({"type": "x", **event}), b": comment\n\n"])
    assert (told, output(meter), meter.seen_anything) == ([False, False], 0, False)


@pytest.mark.parametrize("texts", [("ab", "cd"), ("ab", "c\n"), ("\n\n", '"'), ("ab",), ("\\",)])
def test_the_choices_of_one_event_are_counted_together(texts):
    choices = [{"index": index, "delta": {"content": text}} for index, text in enumerate(texts)]
    assert output(fed([data({"choices": choices})])[0]) == len("".join(texts))


def test_terminal_words_in_the_text_end_nothing():
    words = ["data: [DONE]", '"message_stop"', '{"type": "response.completed"}', '"done": true', '"usage": {']
    meter, told = fed(chat(usage=False, words=words)[:-1])
    assert (told, reported(meter)) == ([False] * 6, None)


@pytest.mark.parametrize("after", [b"\n", b": ping\n\n", b"event: ping\ndata: {}\n\n", b"data: [DONE]\n\n", b""])
def test_an_answer_stays_ended_while_nothing_is_said(after):
    assert fed([b"data: [DONE]\n\n", after])[1] == [True, True]


@pytest.mark.parametrize("after", [data("more"), data(chunk({"content": "more"})), messages()[0]])
def test_an_answer_goes_on_if_something_is_said_after_its_end(after):
    assert fed([b"data: [DONE]\n\n", after])[1] == [True, False]


def test_an_answer_that_ends_with_its_body_is_ended_by_no_event():
    assert fed(chat(), ends_with_body=True)[1] == [False] * len(chat())


def test_the_terminal_event_is_told_though_others_follow_it_in_the_chunk():
    assert fed([b"data: [DONE]\n\ndata: {}\n\n"])[1] == [True]


@pytest.mark.parametrize("mimetype", ["audio/mpeg", "image/png", "application/octet-stream", ""])
def test_what_is_no_text_is_not_counted(mimetype):
    meter, told = fed([b"data: [DONE]\n\n", b"\xff" * 100], mimetype)
    assert (told, meter.measure(5, complete=True), meter.seen_anything) == ([False, False], (None, "reserved"), True)
    assert not StreamMeter(mimetype, COUNTER).seen_anything


TEXTS = ["application/xml", "image/svg+xml", "application/rss+xml", "application/yaml", "application/x-yaml"]
TEXTS += ["application/vnd.oai.openapi+yaml", "application/javascript", "application/graphql", "application/sql", ""]


@pytest.mark.parametrize("mimetype", TEXTS)
def test_text_that_is_not_called_text_is_counted(mimetype):
    words = [word.encode() for word in WORDS]
    assert seen(words, mimetype) == (None, len(TEXT), True)
    assert seen(bytewise(b"".join(words)), mimetype) == (None, len(TEXT), True)


@pytest.mark.parametrize("chunks", [[b"\xff\xd8" * 9], [b"GIF89a", b"\x80"], [b"word\n" * 9, b"\xff", b"word"]])
def test_a_body_without_a_type_is_text_until_it_is_no_utf8(chunks):
    assert fed(chunks, "")[0].measure(5, complete=True) == (None, "reserved")


def test_a_report_without_a_type_is_a_report():
    assert reported(fed(answer(), "")[0]) == Usage(3, 40)
    assert reported(fed(chat(), "")[0]) == Usage(9, 21, 4)


@pytest.mark.parametrize("mimetype", ["application/ndjson", "application/jsonlines", "application/jsonl"])
def test_json_lines_are_known_by_every_name(mimetype):
    lines = b'{"text": "Hi"}\n{"usage": {"prompt_tokens": 1, "completion_tokens": 2}}'
    assert reported(fed([lines], mimetype)[0]) == Usage(1, 2)


def test_a_json_document_that_breaks_off_is_counted_as_it_stands():
    begun = b'{"object": "chat.completion", "choices": [{"message": {"content": "Hi \\u00'
    assert seen([begun], "application/vnd.api+json") == (None, 3, True)


def test_empty_chunks_are_nothing():
    meter, told = fed([b"", b""])
    assert (told, output(meter), meter.seen_anything) == ([False, False], 0, False)


def test_real_sdks_read_the_same_usage_from_the_same_streams():
    anthropic = pytest.importorskip("anthropic")
    httpx = pytest.importorskip("httpx2")
    openai = pytest.importorskip("openai")

    def serving(chunks):
        def answer(_):
            return httpx.Response(200, headers={"content-type": SSE}, content=b"".join(chunks))

        return httpx.Client(transport=httpx.MockTransport(answer))

    client = openai.OpenAI(api_key="k", http_client=serving(chat()))
    parts = list(client.chat.completions.create(model="m", messages=[], stream=True))
    usage = reported(fed(chat())[0])
    assert usage.output_tokens == parts[-1].usage.completion_tokens
    assert usage.input_tokens == parts[-1].usage.prompt_tokens
    assert "".join(part.choices[0].delta.content for part in parts if part.choices) == TEXT

    client = anthropic.Anthropic(api_key="k", http_client=serving(messages()))
    with client.messages.stream(model="m", messages=[], max_tokens=5) as stream:
        final = stream.get_final_message()
    usage = reported(fed(messages())[0])
    assert usage.output_tokens == final.usage.output_tokens
    assert usage.input_tokens == final.usage.input_tokens + final.usage.cache_read_input_tokens
    assert final.content[0].text == TEXT
