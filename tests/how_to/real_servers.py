"""Real servers on loopback: an app in a thread, and an API of a model that does what its request asks for."""

import gzip
import json
import socket

from flask import Flask, Response, request

PATIENCE = 60
"""Seconds. Only a test that fails waits for so long."""

USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
_CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
_ANSWER = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}


def said(text):
    """An event of a stream of chat completions."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    return _event({**_CHUNK, "choices": [choice]})


def _event(data):
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


def model_api(heard):
    """An app that answers as OpenAI's API does. The prompt says how: ``break``, or ``status 429``.

    Args:
        heard: Gets the body and the headers of each request.
    """
    app = Flask("model_api")

    @app.post("/v1/chat/completions")
    def chat():
        body = request.get_json()
        heard.append((body, dict(request.headers)))
        prompt = body["messages"][0]["content"]
        if prompt.startswith("status "):
            headers = {"Retry-After": "7", "retry-after-ms": "6500", "Location": "/elsewhere"}
            return {"error": {"message": "organization org-1"}}, int(prompt.split()[1]), headers
        if not body.get("stream"):
            message = {"role": "assistant", "content": "one two"}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            zipped = gzip.compress(json.dumps({**_ANSWER, "choices": choices, "usage": USAGE}).encode())
            return Response(zipped, mimetype="application/json", headers={"Content-Encoding": "gzip", **_TELLTALE})
        return Response(events(body, prompt), mimetype="text/event-stream", headers=_TELLTALE)

    def events(body, prompt):
        yield said("one\u2028")
        if prompt == "break":
            raise ConnectionError
        # An event may come in two pieces.
        whole = said("two")
        yield whole[:20]
        yield whole[20:]
        if body["stream_options"]["include_usage"]:
            yield _event({**_CHUNK, "choices": [], "usage": USAGE})
        yield "data: [DONE]\n\n"

    return app


_TELLTALE = {"Set-Cookie": "a=b", "x-ratelimit-remaining-tokens": "31", "Server-Timing": "x", "x-request-id": "theirs"}


class SilentModel:
    """Accepts one call, begins to answer, and says no more."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._connection = None

    def begin(self, *chunks):
        """Take a call, and send these chunks of a stream. Without any, send not even a status line."""
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(PATIENCE)
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += self._connection.recv(65536)
        if chunks:
            self._connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for chunk in chunks:
            self._connection.sendall(chunk.encode())

    def is_hung_up(self):
        """Wait until the caller has ended the call."""
        try:
            while self._connection.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self):
        for each in (self._connection, self._listener):
            if each is not None:
                each.close()
