import random
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from processor_time import require_done_within
from token_streams import COUNTER, SSE, STREAMS, bytewise, chat, fed, output, reported, responses, seen, seen_and_ended

from flask_ailimit.tokens import StreamMeter, Usage
from flask_ailimit.tokens.splitting import LONGEST
from flask_ailimit.tokens.stream import LONGEST_PEEK


@pytest.mark.parametrize("break_", [b"\n", b"\r\n"])
@pytest.mark.parametrize(("mimetype", "chunks", "usage", "text"), STREAMS.values(), ids=STREAMS)
def test_a_stream_cut_at_any_byte_reads_the_same(mimetype, chunks, usage, text, break_):
    stream = b"".join(chunks).replace(b"\n", break_)
    for place in range(len(stream) + 1):
        ended = mimetype in (SSE, "application/x-ndjson")
        assert seen_and_ended([stream[:place], stream[place:]], mimetype) == (usage, len(text), True, ended)


@pytest.mark.parametrize("break_", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(("mimetype", "chunks", "usage", "text"), STREAMS.values(), ids=STREAMS)
def test_a_stream_fed_byte_by_byte_reads_the_same(mimetype, chunks, usage, text, break_):
    chunks = bytewise(b"".join(chunks).replace(b"\n", break_))
    ended = mimetype in (SSE, "application/x-ndjson")
    assert seen_and_ended(chunks, mimetype) == (usage, len(text), True, ended)


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b": comment\n\n", ""),
        (b"data:no space\n\n", "no space"),
        (b"data: two\ndata: lines\n\n", "two\nlines"),
        (b'data: {"text":\ndata: "split"}\n\n', "split"),
        (b"data\n\n", ""),
        (b"data: a\n\n\n\ndata: b\n\n", "ab"),
        (b"data: two\rdata: lines\n\n", "two\nlines"),
        (b"id: 1\nevent: x\nretry: 5\ndata: a\n\n", "a"),
        (b"datum: a\n\n", ""),
        (b"\xef\xbb\xbfdata: a\n\n", "a"),
        (b"\xef\xbb\xbf" * 5000 + b"data: a\n\n", ""),
        (b"data: 42\n\n", "42"),
        (b'data: "Hi"\n\n', "Hi"),
        (b"data: [1, 2]\n\n", "[1, 2]"),
        (b"data: \xff\xfe\n\n", "\ufffd\ufffd"),
        (b'data: {"text": "\\ud800"}\n\n', "\ud800"),
        (b"data: {broken\n\n", "{broken"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "[" * 100_000),
        (b"data: never ended", ""),
    ],
    ids=lambda value: repr(value)[:24],
)
@pytest.mark.parametrize("break_", [b"\n", b"\r\n", b"\r"])
def test_events_are_read_as_the_standard_says(stream, text, break_):
    stream = stream.replace(b"\n", break_)
    chunkings = [[stream[:place], stream[place:]] for place in range(0, len(stream), 1 + len(stream) // 100)]
    for chunks in [*chunkings, bytewise(stream)]:
        meter, told = fed(chunks)
        assert output(meter) == len(text)
        assert not any(told)


def test_an_event_of_a_megabyte_is_read_in_any_pieces():
    words = ["x" * 1_000_000]
    for size in (1 << 24, 65_536, 1000):
        stream = b"".join(responses(words=words))
        meter, told = fed([stream[place : place + size] for place in range(0, len(stream), size)])
        assert meter.measure(None, complete=True) == (Usage(37, 250_000), "counted")
        assert sum(told) == 1


def test_a_long_event_begun_is_left_alone_until_its_line_ends():
    meter = StreamMeter(SSE, COUNTER)
    event = responses(words=["}" * LONGEST_PEEK])[-1]
    assert not meter.feed(event.rstrip())
    assert reported(meter) == Usage(37, 31)
    assert meter.feed(b"\n\n")


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"], ids=["one line", "one event", "many events"])
@pytest.mark.parametrize("mimetype", [SSE, "application/x-ndjson", "application/json", "text/plain"])
def test_memory_is_bounded_whatever_comes(mimetype, end):
    meter = StreamMeter(mimetype, COUNTER)
    tracemalloc.start()
    try:
        for _ in range(400):
            meter.feed(b"data: " + b"x" * 100_000 + end)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept <= 1.5 * LONGEST
    meter.feed(b"\n\n")
    if mimetype != "application/json":
        assert output(meter) >= 400 * 100_000


def test_a_line_too_long_to_keep_is_still_counted():
    meter = StreamMeter(SSE, COUNTER)
    for piece in [b"data: " + b"x" * LONGEST, b"y" * LONGEST, b"z\n\n"]:
        meter.feed(piece)
    assert output(meter) == pytest.approx(2 * LONGEST, abs=20)


def test_a_long_stream_is_counted_as_it_goes():
    words = [f" word{number}" for number in range(10_000)]
    meter, told = fed(chat(usage=False, words=words))
    assert output(meter) == len("".join(words))
    assert told[-1]


def test_text_cut_inside_a_character_is_not_counted_twice():
    text = "\u4f60" * 20_000
    for size in (1, 7, 16_384, 60_000):
        stream = text.encode()
        meter, _ = fed([stream[place : place + size] for place in range(0, len(stream), size)], "text/plain")
        assert output(meter) == pytest.approx(len(text), abs=2)


FRAGMENTS = st.sampled_from(
    [
        b"data: ",
        b"data:",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"[DONE]",
        b'{"usage":',
        b'{"type":"message_start","message":',
        b'"message_stop"',
        b'{"type":"message_delta","usage":{"output_tokens":5}}',
        b'"response.completed"',
        b"}",
        b"]",
        b'"done":true',
        b"null",
        b'{"delta":[]}',
        b'{"choices":{"delta":1}}',
        b'{"type":[]}',
        b"\xff",
        b"\xef\xbb\xbf",
        b"1e999",
    ]
) | st.binary(max_size=6)


@settings(deadline=None)
@example(b"f\x00", [1], SSE)
@example(b"d\x00", [1], SSE)
@example(b"dat\xff", [3], SSE)
@given(
    st.lists(FRAGMENTS, max_size=30).map(b"".join),
    st.lists(st.integers(0, 200), max_size=6),
    st.sampled_from([SSE, "application/x-ndjson", "application/json", "text/plain", "audio/mpeg"]),
)
def test_no_bytes_make_it_raise_and_chunks_make_no_difference(stream, cuts, mimetype):
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    whole, _ = fed([stream], mimetype)
    pieces, _ = fed([stream[a:b] for a, b in pairwise(places)], mimetype)
    for complete in (False, True):
        assert pieces.measure(7, complete=complete) == whole.measure(7, complete=complete)
    assert (pieces.ended, pieces.seen_anything) == (whole.ended, whole.seen_anything)


def test_bytes_at_random_never_make_it_raise():
    source = random.Random(5)
    for _ in range(200):
        seen([source.randbytes(source.randrange(400)) for _ in range(5)])


def test_a_meter_costs_little_for_each_chunk():
    chunks = chat(words=[" word"] * 800)
    require_done_within(50e-6 * len(chunks), lambda: fed(chunks), attempts=5)
