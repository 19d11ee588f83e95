"""How streams are settled, where no server is needed to see it."""

import gc
import threading
from contextlib import contextmanager

import pytest
from flask import Response
from limited_apps import limited

from flask_ailimit import StoreError
from flask_ailimit.request.streaming import Ending, MeteredStream
from flask_ailimit.tokens import StreamMeter

BODY = {"prompt": "one two three", "max_tokens": 40}
TOKENS, SLOTS = "tokens-per-day", "concurrency"
PIECES = (b"four ", b"five ", b"six")


def words(text):
    return len(text.split())


def served(answer, **options):
    """An app with one view, limited in tokens and calls in flight."""
    app = limited(**{"token_counter": words, **options})

    @app.app.route("/", methods=["GET", "POST"], endpoint="answer")
    @app.limiter.limit_tokens("1000 per day")
    @app.limiter.limit_concurrency(1)
    def view():
        return answer()

    return app


def breaking(pieces=PIECES):
    yield from pieces
    raise OSError("the upstream broke")


@pytest.mark.parametrize(
    ("mimetype", "pieces", "charged"),
    [
        ("text/plain", PIECES, 3 + 3),
        ("text/plain", (), 0),
        ("audio/wav", PIECES, 3 + 40),  # Nobody can count that, so nothing of the reservation is given back.
        ("audio/wav", (), 0),
    ],
)
def test_stream_that_breaks_costs_what_was_seen(mimetype, pieces, charged):
    app = served(lambda: Response(breaking(pieces), mimetype=mimetype))
    with pytest.raises(OSError, match="broke"):
        app.client().post("/", json=BODY).get_data()
    assert app.used() == {TOKENS: charged, SLOTS: 0}


def test_stream_that_the_app_throws_away_gives_its_slot_back():
    app = served(lambda: Response(iter(PIECES), mimetype="text/plain"))
    after_ours = app.app.after_request_funcs[None]
    after_ours.insert(0, lambda _: Response("another"))
    assert app.client().post("/", json=BODY).text == "another"
    assert app.used() == {TOKENS: 0, SLOTS: 0}


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_stream_that_nobody_may_read_is_settled_before_its_head_leaves(method, status):
    app = served(lambda: Response(iter(PIECES), status, mimetype="text/plain"))
    with app.client().open("/", method=method, buffered=False) as response:
        assert response.status_code == status
        assert app.used() == {TOKENS: 0, SLOTS: 0}


class Settled(list):
    """Collects what an account is told. A stream's account is closed once, at the end."""

    def end(self, ending, meter):
        self.append(ending.name)

    def resume(self):
        self.append("RESUMED")

    def close(self, meter):
        self.append("CLOSED")


class Turns:
    """A meter of a body whose chunks say what they are: ``.`` ends a message, ``:`` generates nothing."""

    ended = False

    def feed(self, chunk):
        if chunk != b":":
            self.ended = chunk.endswith(b".")
        return self.ended


LENGTH = len(b"".join(PIECES))


def announced(source, settled, length=LENGTH):
    return MeteredStream(iter(source), StreamMeter("text/plain", words), settled, length=length)


def test_pieces_of_an_announced_length_are_passed_on_at_once_but_for_the_last():
    read, settled = [], Settled()

    def source():
        for piece in PIECES:
            read.append(piece)
            yield piece
        read.append("end")

    stream = announced(source(), settled)
    assert [next(stream), list(read), list(settled)] == [PIECES[0], [PIECES[0]], []]
    assert [next(stream), list(read), list(settled)] == [PIECES[1], [*PIECES[:2]], []]
    assert [next(stream), list(read), list(settled)] == [PIECES[2], [*PIECES, "end"], ["COMPLETE"]]
    assert list(stream) == []


def test_source_that_breaks_after_the_announced_length_takes_nothing_away():
    settled = Settled()
    stream = announced(breaking(), settled)
    assert [next(stream) for _ in PIECES] == [*PIECES]
    assert settled == ["FAILED"]
    with pytest.raises(OSError, match="broke"):
        next(stream)


@pytest.mark.parametrize("more", [["seven"], [b"", "eight", b"nine"]])
def test_source_that_says_more_than_announced_is_passed_on_unchanged(more):
    settled = Settled()
    stream = announced([*PIECES, *more], settled)
    assert [next(stream) for _ in PIECES] == [*PIECES]
    assert settled == ["COMPLETE"]
    assert list(stream) == more


def test_text_is_measured_in_bytes():
    settled = Settled()
    stream = announced(["ä", "ß"], settled, length=4)
    assert [next(stream), list(settled)] == ["ä", []]
    assert [next(stream), list(settled)] == ["ß", ["COMPLETE"]]


def picky(text):
    if "<|endoftext|>" in text:
        raise ValueError("this counter takes no special tokens")
    return len(text.split())


@pytest.mark.parametrize("mimetype", ["text/plain", "text/event-stream"])
def test_answer_that_cannot_be_counted_stays_charged_as_reserved(mimetype, caplog):
    answer = b'data: {"choices": [{"index": 0, "delta": {"content": "<|endoftext|>"}}]}\n\ndata: [DONE]\n\n'
    whole = mimetype == "text/plain"
    app = served(lambda: Response(answer if whole else iter([answer]), mimetype=mimetype), token_counter=picky)
    response = app.client().post("/", json=BODY)
    assert (response.status_code, response.data) == (200, answer)
    assert app.used() == {TOKENS: 3 + 40, SLOTS: 0}
    assert "ValueError was raised" in caplog.text


# When the store is gone by the time of settling


@contextmanager
def broken_settling(app, monkeypatch):
    def settle(_):
        raise StoreError("The store is away.")

    with monkeypatch.context() as broken:
        broken.setattr(app.limiter.engine.store, "settle", settle)
        yield


@pytest.mark.parametrize("answer", [lambda: "one two", lambda: Response(iter(PIECES), mimetype="text/plain")])
def test_answer_reaches_its_client_though_it_cannot_be_settled(answer, caplog, monkeypatch):
    app = served(answer)
    with broken_settling(app, monkeypatch):
        response = app.client().post("/", json=BODY)
        assert response.status_code == 200
        assert response.text in ("one two", "four five six")
        assert "The store is away." in caplog.text
        assert app.used() == {TOKENS: 3 + 40, SLOTS: 1}  # Nobody renews it.
    del response
    caplog.clear()  # It keeps the errors, and what they have seen of the request.
    gc.collect()
    app.limiter.engine.leases.give_back()
    assert app.used() == {TOKENS: 3 + 40, SLOTS: 0}
    assert app.limiter.engine.leases._held == {}


# What an account is told, and when


def metered(source, settled):
    """A stream of chunks that say what they are."""
    return MeteredStream(source, Turns(), settled)


def after_each(stream, settled):
    """What the account had been told when each chunk left."""
    return [(chunk, list(settled)) for chunk in stream]


def test_slot_is_taken_again_before_output_that_follows_the_end_leaves():
    settled = Settled()
    stream = metered([b"a", b"b.", b":", b"c", b"d."], settled)
    first, second = ["COMPLETE"], ["COMPLETE", "RESUMED"]
    expected = [(b"a", []), (b"b.", first), (b":", first), (b"c", second), (b"d.", [*second, "COMPLETE"])]
    assert after_each(stream, settled) == expected
    stream.close()
    assert settled == ["COMPLETE", "RESUMED", "COMPLETE", "CLOSED"]


def test_output_after_the_end_is_settled_when_the_stream_breaks_off_there():
    settled = Settled()
    stream = metered([b"a.", b"b", b"c"], settled)
    assert [next(stream), next(stream)] == [b"a.", b"b"]
    stream.close()
    stream.close()
    assert settled == ["COMPLETE", "RESUMED", "ABANDONED", "CLOSED"]


def test_account_is_closed_after_the_source_which_may_record_its_usage_late():
    settled = Settled()

    def source():
        try:
            yield b"done."
            settled.append("after the last event")
            yield b":"
        finally:
            settled.append("at its close")

    stream = metered(source(), settled)
    assert [next(stream), next(stream)] == [b"done.", b":"]
    stream.close()
    assert settled == ["COMPLETE", "after the last event", "at its close", "CLOSED"]


def test_stream_that_is_broken_off_ends_when_its_source_has_let_go():
    settled = Settled()

    def source():
        try:
            yield b"a"
        finally:
            settled.append("let go")

    stream = metered(source(), settled)
    next(stream)
    stream.close()
    assert settled == ["let go", "ABANDONED", "CLOSED"]


def test_source_that_fails_to_close_ends_the_account_all_the_same():
    settled = Settled()

    def source():
        try:
            yield b"a"
        finally:
            raise OSError("the upstream is angry")

    stream = metered(source(), settled)
    next(stream)
    with pytest.raises(OSError, match="angry"):
        stream.close()
    assert settled == ["ABANDONED", "CLOSED"]


class Body:
    """A body whose iterator is another object."""

    def __init__(self):
        self.closed = 0

    def __iter__(self):
        yield b"a"

    def close(self):
        self.closed += 1


def test_body_is_closed_though_its_iterator_is_another_object():
    body = Body()
    app = served(lambda: Response(body, mimetype="text/plain"))
    assert app.client().get("/", buffered=True).data == b"a"
    assert body.closed == 1


# A client that is gone


class Waiting:
    """A source that waits in ``next`` for as long as the test wants. Its second chunk ends the answer."""

    def __init__(self, answers=(b"a", b"b", b"c")):
        self.answers = iter(answers)
        self.entered, self.let = threading.Semaphore(0), threading.Semaphore(0)
        self.closed_by = None

    def __iter__(self):
        return self

    def __next__(self):
        self.entered.release()
        assert self.let.acquire(timeout=60)
        answer = next(self.answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self):
        self.closed_by = threading.current_thread()


def read_until_cut(stream):
    """What is read of a stream that must not end as if it were complete: a server closes it where it raises."""
    chunks = []
    try:
        for chunk in stream:
            chunks.append(chunk)  # noqa: PERF402  extend() would lose what was read before it raised
    except BrokenPipeError:
        return chunks
    raise AssertionError("it ended as if it were complete")


def read_in_a_thread(stream, read=read_until_cut):
    chunks = []
    thread = threading.Thread(target=lambda: chunks.extend(read(stream)))
    thread.start()
    return thread, chunks


@pytest.mark.parametrize(
    ("answer", "read"), [(b"b", [b"a", b"b"]), (StopIteration(), [b"a"]), (OSError("woken"), [b"a"])]
)
def test_slot_of_a_client_that_is_gone_is_free_when_the_view_lets_go_and_not_before(answer, read):
    source, settled = Waiting([b"a", answer, b"never read"]), Settled()
    stream = metered(source, settled)
    thread, chunks = read_in_a_thread(stream)
    source.let.release()
    assert source.entered.acquire(timeout=60)
    assert source.entered.acquire(timeout=60)
    stream.abandon()
    assert settled == []
    source.let.release()
    thread.join(60)
    assert chunks == read
    assert settled == ["ABANDONED", *(["CLOSED"] if answer == b"b" else [])]
    stream.close()
    assert settled == ["ABANDONED", "CLOSED"]
    if answer == b"b":
        assert source.closed_by is thread


def test_view_that_breaks_off_before_any_output_because_its_client_is_gone_has_not_failed():
    """Else whoever leaves early would get his tokens back."""
    settled = Settled()

    def source():
        stream.abandon()
        raise OSError("woken")
        yield

    stream = metered(source(), settled)
    assert read_until_cut(stream) == []
    assert settled == ["ABANDONED"]


def test_client_that_is_gone_before_the_first_chunk_is_asked_for_pays_as_one_that_leaves_later():
    settled = Settled()
    stream = metered([b"a"], settled)
    stream.abandon()
    assert read_until_cut(stream) == []
    assert settled == ["ABANDONED", "CLOSED"]


def test_stream_between_two_chunks_ends_when_the_server_asks_for_the_next_or_closes_it():
    for ask in (read_until_cut, MeteredStream.close):
        source, settled = Waiting(), Settled()
        stream = metered(source, settled)
        source.let.release()
        assert next(stream) == b"a"
        stream.abandon()
        assert settled == []
        ask(stream)
        assert settled == ["ABANDONED", "CLOSED"]
        assert source.closed_by is threading.current_thread()


def test_slot_that_ends_with_the_client_is_free_at_once_and_what_comes_later_is_charged_too():
    source, settled = Waiting(), Settled()
    stream = metered(source, settled)
    thread, chunks = read_in_a_thread(stream)
    assert source.entered.acquire(timeout=60)
    stream.abandon(at_once=True)
    assert settled == ["ABANDONED"]
    source.let.release()
    thread.join(60)
    assert chunks == [b"a"]
    assert settled == ["ABANDONED", "RESUMED", "ABANDONED", "CLOSED"]


def test_stream_that_another_thread_closes_ends_when_the_view_lets_go():
    source, settled = Waiting(), Settled()
    stream = metered(source, settled)
    thread, _ = read_in_a_thread(stream)
    assert source.entered.acquire(timeout=60)
    stream.close()
    assert settled == []
    source.let.release()
    thread.join(60)
    assert settled == ["ABANDONED", "CLOSED"]
    assert source.closed_by is thread


def test_account_is_never_told_two_things_at_once():
    """The watch ends a stream while its thread is metering a chunk."""
    told, release = threading.Event(), threading.Event()

    class Slow(Settled):
        def end(self, ending, meter):
            told.set()
            assert release.wait(60)
            super().end(ending, meter)

    settled = Slow()
    stream = metered([b"a", b"b."], settled)
    next(stream)
    ends = threading.Thread(target=stream.end, args=[Ending.ABANDONED])
    ends.start()
    assert told.wait(60)
    thread, chunks = read_in_a_thread(stream, list)
    release.set()
    ends.join(60)
    thread.join(60)
    assert chunks == [b"b."]
    assert settled == ["ABANDONED"]


def test_text_in_what_a_woken_view_raises_is_in_no_log(caplog):
    caplog.set_level("DEBUG")

    def source():
        try:
            yield b"a"
            stream.abandon()
            raise ValueError("a secret prompt")
        finally:
            settled.append("let go")

    settled = Settled()
    stream = metered(source(), settled)
    assert read_until_cut(stream) == [b"a"]
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text
