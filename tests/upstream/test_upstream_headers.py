"""Headers that are allowed, though few send them."""

import httpx
import httpx2
import pytest
from upstream_calls import MESSAGES, World

BODY = {"model": "m", "messages": MESSAGES}
URL = "http://own.example/v1/chat/completions"
ODD = [("Zürich".encode(), "Zürich"), ("Zürich".encode("latin-1"), "Zürich"), (b"\xff\xfe", "ÿþ")]


@pytest.fixture(params=[httpx, httpx2], ids=lambda library: library.__name__)
def library(request):
    return request.param


@pytest.fixture
def world():
    world = World(None)
    yield world
    world.close()


def ask(world, library, handler, headers=None, **settings):
    transport = world.upstream(**settings).transport(library.MockTransport(handler), library=library.__name__)
    with library.Client(transport=transport) as client:
        return client.post(URL, json=BODY, headers=headers)


@pytest.mark.parametrize(("sent", "text"), ODD)
@pytest.mark.parametrize("status", [200, 400, 429])
def test_answer_with_a_header_beyond_ascii_is_passed_on(world, library, status, sent, text):
    answer = ask(
        world, library, lambda _: library.Response(status, headers=[(b"x-note", sent), (b"x-note", b"b")]), attempts=1
    )
    assert (answer.status_code, answer.headers.get_list("x-note")) == (status, [text, "b"])


@pytest.mark.parametrize(("sent", "text"), ODD)
@pytest.mark.parametrize(
    "settings",
    [{}, {"idempotency_header": "Idempotency-Key"}, {"models": {"m": "n"}}],
    ids=["", "idempotency", "models"],
)
def test_request_keeps_its_headers_when_something_in_it_is_changed(world, library, settings, sent, text):
    seen = []

    def handler(request):
        seen.append(request)
        return library.Response(200, json={})

    ask(world, library, handler, {b"x-title": sent, b"host": b"gate.example"}, **settings)
    assert (seen[0].headers["x-title"], seen[0].headers["host"]) == (text, "gate.example")
    assert int(seen[0].headers["content-length"]) == len(seen[0].content)
