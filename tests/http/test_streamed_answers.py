"""How streams are settled, where no server is needed to see it."""

import socket
from contextlib import contextmanager

import pytest
from flask import Response
from limited_apps import limited

from flask_ailimit import StoreError
from flask_ailimit import watch as watching
from flask_ailimit.streaming import MeteredStream
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
    """Collects the endings of a stream."""

    def __call__(self, ending, _):
        self.append(ending.name)


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


def broken_settling(app):
    def settle(_):
        raise StoreError("The store is away.")

    app.limiter.engine.store.settle = settle


@pytest.mark.parametrize("answer", [lambda: "one two", lambda: Response(iter(PIECES), mimetype="text/plain")])
def test_answer_reaches_its_client_though_it_cannot_be_settled(answer, caplog):
    app = served(answer)
    broken_settling(app)
    response = app.client().post("/", json=BODY)
    assert response.status_code == 200
    assert response.text in ("one two", "four five six")
    assert "The store is away." in caplog.text
    assert app.used() == {TOKENS: 3 + 40, SLOTS: 1}  # Until the lease ends: nobody renews it.
    assert app.limiter.engine.leases._held == {}


@contextmanager
def client_that_is_gone():
    server_side, client_side = socket.socketpair()
    client_side.close()
    with server_side:
        yield server_side


def test_watch_goes_on_after_a_stream_that_cannot_be_ended(caplog):
    settled = Settled()

    def refuse(ending, _):
        raise ZeroDivisionError

    streams = [MeteredStream(iter(PIECES), StreamMeter("text/plain", words), settle) for settle in (refuse, settled)]
    with client_that_is_gone() as first, client_that_is_gone() as second:
        for stream, client in zip(streams, (first, second), strict=True):
            watching.watch(stream, client, None)
        watching.look()
        for stream in streams:
            stream.close()
    assert settled == ["ABANDONED"]
    assert "ZeroDivisionError" in caplog.text
