"""Bodies as they come over a real connection, and bodies nobody thought of."""

import http.client
import socket
from urllib.parse import urlsplit

import pytest
from app_server import serving
from demo_doors import BODIES, KEY, planned
from hypothesis import given, settings
from hypothesis import strategies as st

from demo_app import create_app
from demo_app.scripted import ScriptedModel
from demo_app.validation import MAX_BODY_BYTES

HEADERS = {"Content-Type": "application/json", "x-api-key": KEY}


def send_chunks(address, chunks):
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request("POST", "/predict", body=iter(chunks), headers=HEADERS, encode_chunked=True)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def test_a_body_of_unannounced_length_is_read(address):
    status, text = send_chunks(address, [b'{"prompt":', b' "hi"}'])
    assert (status, "threes" in text) == (200, True)


def test_a_body_of_unannounced_length_is_not_cut_off_at_the_limit_but_refused(address):
    body = b'{"prompt": "hi"}'
    padding = b" " * (MAX_BODY_BYTES - len(body))
    status, text = send_chunks(address, [body, padding, b"more"])  # What comes up to the limit is good JSON.
    assert (status, "request_too_large" in text) == (413, True)


def test_a_body_that_stops_coming_is_not_waited_for(model):
    app = create_app(
        model,
        planned({"requests": "1 per day", "tokens": "1000 per day", "concurrency": 1}, DEMO_READ_TIMEOUT=0.2),
    )
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
    with serving(app) as address, socket.create_connection(urlsplit(address).netloc.split(":"), timeout=60) as client:
        client.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"incomplete_body" in answer
    assert model.calls == []


NAMES = (
    "prompt messages role content type text model max_tokens n stream temperature stop system seed stream_options "
    "include_usage user assistant scripted"
)
names = st.sampled_from([*NAMES.split(), ""])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | names | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=12)
bodies = st.dictionaries(names, values)
roomy = {"requests": "1000000 per day", "tokens": "1000000000 per day", "concurrency": 9}
fuzzed = create_app(ScriptedModel(), planned(roomy))


@pytest.mark.parametrize("path", BODIES)
@settings(max_examples=100, deadline=None)
@given(changes=bodies)
def test_no_body_makes_the_server_fail(path, changes):
    response = fuzzed.test_client().post(path, json={**BODIES[path], **changes}, headers=HEADERS)
    if response.status_code != 200:
        assert 400 <= response.status_code < 500
        assert response.json.keys() == {"type", "error", "request_id"}
    response.get_data()


@pytest.mark.parametrize("path", BODIES)
@settings(max_examples=100, deadline=None)
@given(raw=st.binary())
def test_no_bytes_make_the_server_fail(path, raw):
    response = fuzzed.test_client().post(path, data=raw, headers=HEADERS)
    assert response.status_code == 400
    assert response.json["error"]["type"] == "invalid_request_error"
