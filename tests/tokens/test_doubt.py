"""Prose that begins like events or like a provider's lines is prose; events whose type says otherwise are events."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_streams import bytewise, chat, data, fed, line, ollama, output

from flask_ailimit.tokens import Usage
from flask_ailimit.tokens.doubt import LONGEST_DOUBT

PLAIN, HTML, JSON, BYTES = "text/plain", "text/html", "application/json", "application/octet-stream"
ZEROS = {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}
OLLAMA_ZEROS = {"model": "m", "response": "", "done": True, "prompt_eval_count": 0, "eval_count": 0}
BEGINNINGS = {
    "a report and an end": data(ZEROS) + b"data: [DONE]\n\n",
    "a named end": b"event: message_stop\ndata: {}\n\n",
    "an end of Anthropic's": b'data: {"type": "message_stop"}\n\n',
    "a comment and a report": b": hi\n\n" + data(ZEROS),
    "an id, a retry and a report": b"id: 1\nretry: 5\n" + data(ZEROS),
    "a mark and a report": b"\xef\xbb\xbf" + data(ZEROS),
    "a line of Ollama's": line(OLLAMA_ZEROS) + b"\n",
}
PROSE = {
    "a word": b"word and more",
    "lines": b"one\ntwo\n",
    "a word with a colon": b"note: this\n",
    "a field that is none": b"datum: this\n",
    "a field in capitals": b"Data: this\n",
    "white space first": b" data: this\n",
    "no field": b"dat\n",
    "a list of Markdown's": b"- this\n",
}


@pytest.mark.parametrize("mimetype", [PLAIN, HTML])
@pytest.mark.parametrize("prose", PROSE.values(), ids=PROSE)
@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
@pytest.mark.parametrize("break_", [b"\n", b"\r\n", b"\r"])
def test_prose_that_begins_like_something_else_is_text_from_its_beginning(beginning, prose, mimetype, break_):
    body = (beginning + prose).replace(b"\n", break_)
    for chunks in ([body], bytewise(body), [beginning, body[len(beginning) :]] if break_ == b"\n" else [body]):
        meter, _ = fed(chunks, mimetype)
        assert meter.measure(7, complete=True) == (Usage(7, len(body.decode())), "counted")
        assert not meter.ended


def test_an_end_that_was_believed_is_taken_back():
    beginning = BEGINNINGS["a report and an end"]
    assert fed([beginning, b"data", b": x", b"\n\n", b"word"], PLAIN)[1] == [True, True, True, False, False]


@pytest.mark.parametrize("field", [b": ", b"event: ", b"id: ", b"retry: "])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_prose_in_what_is_beside_the_data_is_text(field, end):
    body = BEGINNINGS["a report and an end"] + b"\n".join(field + b"word %d" % n for n in range(100)) + end
    for chunks in ([body], bytewise(body)):
        assert output(fed(chunks, PLAIN)[0]) == len(body)


def test_pings_and_padding_are_no_prose():
    chunks = [b":" + b" " * 2048 + b"\n\n", *[b": ping\n\n"] * 500, *chat()]
    assert fed(chunks, PLAIN)[0].measure(7, complete=True) == (Usage(9, 21, 4), "reported")


@pytest.mark.parametrize(
    ("mimetype", "prose"),
    [
        *((mimetype, b"all of it") for mimetype in (PLAIN, JSON, "application/x-ndjson")),
        *((PLAIN, prose) for prose in (b"{all of it", b"[all of it")),
    ],
)
def test_lines_may_end_without_a_line_break(prose, mimetype):
    body = line({"choices": [], **ZEROS}) + b"\n" + prose
    for chunks in ([body], bytewise(body)):
        assert output(fed(chunks, mimetype)[0]) >= len(prose)


def test_prose_may_end_without_a_line_break():
    assert output(fed([BEGINNINGS["a report and an end"] + b"data: all of it"], PLAIN)[0]) >= len("all of it")


@pytest.mark.parametrize("mimetype", [JSON, "application/x-ndjson"])
def test_prose_after_events_is_text_though_json_was_promised(mimetype):
    body = BEGINNINGS["a report and an end"] + b"word"
    assert output(fed([body], mimetype)[0]) == len(body)


def test_bytes_that_begin_like_events_stay_reserved():
    meter, _ = fed([BEGINNINGS["a report and an end"], b"\x00\xff"], BYTES)
    assert meter.measure(7, complete=True) == (None, "reserved")


@pytest.mark.parametrize("mimetype", [PLAIN, HTML, BYTES, "application/x-json-stream", "text/x-unknown"])
@pytest.mark.parametrize(("chunks", "usage"), [(chat(), Usage(9, 21, 4)), (ollama(), Usage(26, 298))])
def test_events_and_a_provider_s_lines_are_read_under_any_type(chunks, usage, mimetype):
    for each in (chunks, bytewise(b"".join(chunks))):
        meter, told = fed(each, mimetype)
        assert meter.measure(7, complete=True) == (usage, "reported")
        assert told[-1]


def test_lines_that_any_model_could_write_stay_text():
    body = b"".join(line(each) + b"\n" for each in ({"text": "a"}, {"text": "b"}, ZEROS))
    assert output(fed([body], PLAIN)[0]) == len(body)
    assert fed([body], BYTES)[0].measure(7, complete=True) == (None, "reserved")


def test_a_long_stream_has_proved_its_kind():
    event = chat(usage=False, words=["word " * 500])[1]
    chunks = [event] * (2 + LONGEST_DOUBT // len(event))
    meter, _ = fed([*chunks, b"no field\n\n"], PLAIN)
    assert output(meter) == len("word " * 500) * len(chunks)


def test_an_event_stream_that_was_declared_may_have_fields_that_nobody_knows():
    assert fed([*chat()[:-1], b"datum: x\n\n", b"data: [DONE]\n\n"])[0].measure(7, complete=True).usage == Usage(
        9, 21, 4
    )


PIECES = st.sampled_from(
    [
        *(b"data: ", b"data", b"event: x", b"\n", b"\r\n", b"\r", b"\n\n", b"word", b"[DONE]"),
        *(b":", b"{", b"}", b" ", b"\xff", b"\xef\xbb\xbf", line(ZEROS), line(OLLAMA_ZEROS)),
    ]
)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(BEGINNINGS.values())),
    st.lists(PIECES, max_size=20).map(b"".join),
    st.integers(1, 30),
    st.sampled_from([PLAIN, JSON, BYTES]),
)
def test_chunks_make_no_difference(beginning, rest, size, mimetype):
    body = beginning + rest
    whole = fed([body], mimetype)[0]
    pieces = fed([body[at : at + size] for at in range(0, len(body), size)], mimetype)[0]
    for complete in (False, True):
        assert whole.measure(7, complete=complete) == pieces.measure(7, complete=complete)
    assert (whole.ended, whole.seen_anything) == (pieces.ended, pieces.seen_anything)
