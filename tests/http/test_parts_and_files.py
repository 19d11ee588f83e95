"""What a request is charged when a part of its answer leaves, or none of it, and for files and direct streams."""

import io
import urllib.request
from pathlib import Path

import pytest
from app_server import serving
from flask import Response, abort, request, send_file, send_from_directory
from limited_apps import limited
from werkzeug.wsgi import FileWrapper

TOKENS, SLOTS = "tokens-per-day", "concurrency"
BODY = {"prompt": "one two three", "max_tokens": 40}
INPUT, RESERVED = 3, 43
WORDS = " ".join(["word"] * 300)
LENGTH = len(WORDS)
USED = INPUT + 300
REPORT = b'{"text": "word word", "usage": {"prompt_tokens": 9, "completion_tokens": 291}}'


def words(text):
    return len(text.split())


def served(answer):
    app = limited(token_counter=words)

    @app.app.route("/", methods=["GET", "POST"], endpoint="answer")
    @app.limiter.limit_tokens("10000 per day")
    @app.limiter.limit_concurrency(1)
    def view():
        return answer(app.limiter) if answer.__code__.co_argcount else answer()

    return app


def ask(app, **headers):
    """Ask as a client does that reads the whole answer."""
    return app.client().get("/", json=BODY, headers=headers, buffered=True)


def pieces(text=WORDS):
    """The text in pieces that end in the middle of words, as a model's API would cut it."""
    return (text[start : start + 7].encode() for start in range(0, len(text), 7))


def conditional(body, *, direct=False, mimetype="text/plain", length=LENGTH):
    response = Response(body, mimetype=mimetype, direct_passthrough=direct)
    response.set_etag("known")
    return response.make_conditional(request, accept_ranges=True, complete_length=length)


BODIES = {
    "a text": lambda: conditional(WORDS),
    "a list": lambda: conditional([*pieces()]),
    "a generator": lambda: conditional(pieces()),
    "a generator, direct": lambda: conditional(pieces(), direct=True),
    "a buffer": lambda: conditional(io.BytesIO(WORDS.encode())),
}
every_body = pytest.mark.parametrize("answer", BODIES.values(), ids=BODIES)


@every_body
@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=3-8", slice(3, 9)),
        ("bytes=700-", slice(700, None)),
        ("bytes=-1", slice(-1, None)),
        ("bytes=0-", slice(0, None)),
    ],
)
def test_whole_answer_is_charged_whatever_part_of_it_leaves(answer, asked, part):
    app = served(answer)
    response = ask(app, Range=asked)
    assert response.status_code == 206
    assert response.data == WORDS.encode()[part]
    assert app.used() == {TOKENS: USED, SLOTS: 0}


@every_body
def test_whole_answer_is_charged_if_it_leaves_whole(answer):
    app = served(answer)
    response = ask(app)
    assert (response.status_code, response.data) == (200, WORDS.encode())
    assert app.used() == {TOKENS: USED, SLOTS: 0}


def test_part_is_settled_before_its_last_byte_leaves():
    app = served(BODIES["a generator"])
    response = app.client().get("/", json=BODY, headers={"Range": "bytes=0-20"}, buffered=False)
    chunks = response.iter_encoded()
    for _ in range(2):
        assert len(next(chunks)) == 7
        assert app.used() == {TOKENS: RESERVED, SLOTS: 1}
    assert len(next(chunks)) == 7
    assert app.used() == {TOKENS: USED, SLOTS: 0}
    response.close()


def test_part_of_an_answer_that_reports_its_usage_is_charged_that():
    app = served(lambda: conditional([REPORT], mimetype="application/json", length=len(REPORT)))
    assert ask(app, Range="bytes=0-0").data == b"{"
    assert app.used()[TOKENS] == 300


def test_part_of_an_answer_whose_view_records_its_usage_is_charged_that():
    def answer(limiter):
        limiter.record_usage(input_tokens=5, output_tokens=2000)
        return conditional(WORDS)

    app = served(answer)
    ask(app, Range="bytes=0-0")
    assert app.used() == {TOKENS: 2005, SLOTS: 0}


def test_part_of_an_answer_that_then_breaks_is_sent_and_charged():
    def breaking():
        yield from pieces(WORDS)
        raise OSError("broke")

    app = served(lambda: conditional(breaking()))
    assert ask(app, Range="bytes=0-0").data == b"w"
    assert app.used() == {TOKENS: USED, SLOTS: 0}


@pytest.mark.parametrize(
    ("header", "status"), [("If-None-Match", 304), ("If-Match", 412), ("Range", 416)], ids=["304", "412", "416"]
)
@pytest.mark.parametrize("body", ["a text", "a list"])
def test_answer_that_a_condition_throws_away_was_made_and_is_charged(body, header, status):
    app = served(BODIES[body])
    value = {"If-None-Match": '"known"', "If-Match": '"another"', "Range": "bytes=99999-"}[header]
    assert ask(app, **{header: value}).status_code == status
    # Of an answer that is an exception (416) nobody knows what was used: the reservation stands.
    assert app.used() == {TOKENS: RESERVED if status == 416 else USED, SLOTS: 0}


@pytest.mark.parametrize("header", ["bytes=x", "bytes=5-2", "bytes=0-0,2-2", "lines=1-2", "bytes=99999-"])
def test_range_that_cannot_be_satisfied_gives_nothing_back(header):
    app = served(BODIES["a generator"])
    assert ask(app, Range=header).status_code == 416
    assert app.used() == {TOKENS: RESERVED, SLOTS: 0}


def test_range_that_cannot_be_satisfied_costs_what_the_view_recorded():
    def answer(limiter):
        limiter.record_usage(input_tokens=5, output_tokens=5)
        return conditional(WORDS)

    app = served(answer)
    ask(app, Range="bytes=99999-")
    assert app.used() == {TOKENS: 10, SLOTS: 0}


def test_stream_that_a_condition_throws_away_unread_used_nothing():
    app = served(BODIES["a generator, direct"])
    assert ask(app, **{"If-None-Match": '"known"'}).status_code == 304
    assert app.used() == {TOKENS: 0, SLOTS: 0}


def test_condition_that_a_view_answers_itself_costs_nothing():
    def not_modified():
        response = Response(status=304)
        response.set_etag("known")
        return response

    for answer in (not_modified, lambda: abort(412), lambda: Response("no", status=412)):
        app = served(answer)
        assert ask(app).status_code in (304, 412)
        assert app.used() == {TOKENS: 0, SLOTS: 0}


@pytest.mark.parametrize("body", ["a text", "a generator", "a generator, direct"])
def test_head_of_a_part_holds_no_slot(body):
    app = served(BODIES[body])
    app.client().head("/", json=BODY, headers={"Range": "bytes=0-0"})
    assert app.used()[SLOTS] == 0


@pytest.mark.parametrize("body", ["a text", "a list"])
def test_head_of_a_part_costs_what_the_view_has_made(body):
    app = served(BODIES[body])
    assert app.client().head("/", json=BODY, headers={"Range": "bytes=0-0"}).status_code == 206
    assert app.used() == {TOKENS: USED, SLOTS: 0}


# Direct streams


def test_direct_stream_is_metered_and_holds_its_slot_as_any_other():
    app = served(lambda: Response(pieces(), mimetype="text/plain", direct_passthrough=True))
    response = app.client().get("/", json=BODY, buffered=False)
    chunks = response.iter_encoded()
    assert next(chunks)
    assert app.used() == {TOKENS: RESERVED, SLOTS: 1}
    assert app.client().get("/", json=BODY).status_code == 429
    assert sum(map(len, chunks)) == len(WORDS) - 7
    assert app.used() == {TOKENS: USED, SLOTS: 0}


def test_direct_stream_that_is_broken_off_costs_what_was_seen_and_is_closed():
    closed = []

    def source():
        try:
            yield b"one two "
            yield b"three "
        finally:
            closed.append(True)

    app = served(lambda: Response(source(), mimetype="text/plain", direct_passthrough=True))
    response = app.client().get("/", json=BODY, buffered=False)
    assert next(response.iter_encoded()) == b"one two "
    response.close()
    assert closed
    assert app.used() == {TOKENS: INPUT + 2, SLOTS: 0}


def test_direct_list_is_metered():
    app = served(lambda: Response([*pieces()], mimetype="text/plain", direct_passthrough=True))
    assert ask(app).data == WORDS.encode()
    assert app.used() == {TOKENS: USED, SLOTS: 0}


# Files


class OldFileWrapper:
    """As gunicorn's was before 24."""

    def __init__(self, file, size=8192):
        self.filelike, self.size = file, size
        self.close = file.close

    def __getitem__(self, _):
        if data := self.filelike.read(self.size):
            return data
        raise IndexError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text(WORDS)
    return path


def in_pieces(wrapper):
    """A response as send_file makes it, in small pieces."""
    return Response(wrapper(io.BytesIO(WORDS.encode()), 7), mimetype="text/plain", direct_passthrough=True)


@pytest.mark.parametrize("asked", [None, "bytes=0-0", "bytes=3-8"])
@pytest.mark.parametrize("wrapper", [FileWrapper, OldFileWrapper], ids=["werkzeug's", "gunicorn's old one"])
def test_file_holds_its_slot_until_its_last_byte_leaves_and_stays_charged_as_reserved(wrapper, asked):
    def answer():
        return in_pieces(wrapper).make_conditional(request, accept_ranges=True, complete_length=len(WORDS))

    app = served(answer)
    response = app.client().get("/", json=BODY, headers={"Range": asked} if asked else {}, buffered=False)
    read = b""
    for chunk in response.iter_encoded():
        read += chunk
        done = len(read) == response.content_length
        assert app.used() == {TOKENS: RESERVED, SLOTS: 1 if response.content_length is None or not done else 0}
    assert read == WORDS.encode()[slice(*{None: (0, None), "bytes=0-0": (0, 1), "bytes=3-8": (3, 9)}[asked])]
    assert app.used() == {TOKENS: RESERVED, SLOTS: 0}
    response.close()


@pytest.mark.parametrize("asked", [None, "bytes=0-0", "bytes=3-8"])
@pytest.mark.parametrize("send", ["a path", "a buffer", "a directory"])
def test_sent_file_stays_charged_as_reserved(path, send, asked):
    answers = {
        "a path": lambda: send_file(path),
        "a buffer": lambda: send_file(io.BytesIO(WORDS.encode()), mimetype="text/plain", conditional=False),
        "a directory": lambda: send_from_directory(path.parent, path.name),
    }
    app = served(answers[send])
    response = ask(app, **({"Range": asked} if asked else {}))
    assert response.status_code in (200, 206)
    assert app.used() == {TOKENS: RESERVED, SLOTS: 0}


CHAT = b'data: {"choices": [{"delta": {"content": "word word"}}]}\n\n'
END = b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 291}}\n\ndata: [DONE]\n\n'
REPORTS = {
    "a document": (REPORT, "application/json"),
    "events": (CHAT + END, "text/event-stream"),
    "lines": (
        b'{"text": "word word"}\n{"usage": {"prompt_tokens": 9, "completion_tokens": 291}}\n',
        "application/x-ndjson",
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_file_that_reports_costs_what_it_reports_when_it_has_been_read(name):
    body, mimetype = REPORTS[name]
    app = served(lambda: send_file(io.BytesIO(body + b"\n" * 20_000), mimetype=mimetype))
    response = app.client().post("/", json=BODY, buffered=False)
    early = app.used()
    assert response.data == body + b"\n" * 20_000
    assert (early, app.used()) == ({TOKENS: RESERVED, SLOTS: 1}, {TOKENS: 300, SLOTS: 0})


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("asked", ["bytes=0-0", "bytes=-60"])
def test_part_of_a_file_that_reports_stays_charged_as_reserved(name, asked, tmp_path):
    body, mimetype = REPORTS[name]
    (tmp_path / "f").write_bytes(body)
    app = served(lambda: send_file(tmp_path / "f", mimetype=mimetype, conditional=True))
    assert ask(app, Range=asked).status_code == 206
    assert app.used() == {TOKENS: RESERVED, SLOTS: 0}


def test_file_costs_what_its_view_recorded(path):
    def answer(limiter):
        limiter.record_usage(input_tokens=5, output_tokens=2)
        return send_file(path)

    app = served(answer)
    assert ask(app).data == WORDS.encode()
    assert app.used() == {TOKENS: 7, SLOTS: 0}


def test_file_that_another_server_sends_stays_charged_as_reserved(path):
    app = served(lambda: send_file(path))
    app.app.config["USE_X_SENDFILE"] = True
    assert ask(app).headers["X-Sendfile"] == str(path)
    assert app.used() == {TOKENS: RESERVED, SLOTS: 0}


def test_sent_files_are_closed(path):
    def held():
        return sum(each.resolve() == path for each in Path("/proc/self/fd").iterdir())

    app = served(lambda: send_file(path))
    for headers in ({}, {"Range": "bytes=0-0"}, {"Range": "bytes=99999-"}):
        ask(app, **headers)
    app.client().head("/", json=BODY, buffered=True)
    assert held() == 0


def test_file_arrives_whole_from_a_real_server(path):
    app = served(lambda: send_file(path))
    with serving(app.app) as address, urllib.request.urlopen(address) as answer:
        assert answer.read() == WORDS.encode()
