"""``POST /gateway/v1/chat/completions``: passes a chat on to a model, which here is the demo's own, over HTTP.

So both halves are seen at once: the limits on the client of the gateway, and the pace of the gateway's own calls. To
the model the gateway is a client like others: it has a key of its own, with a plan of its own.
"""

import os
from functools import cached_property
from threading import Lock
from typing import NamedTuple

import httpx2
from flask import Flask, Response, request, stream_with_context
from flask.typing import ResponseReturnValue

from flask_ailimit import AILimiter

from .errors import ApiError
from .model import Call, Model, names_of
from .openai_api import reader
from .validation import takes

MOST_IN_FLIGHT, MOST_WAITING = 4, 2
"""Calls of the gateway. With those for which they are made they are ten, as many as the service takes (plans.toml): a
call of the gateway never waits for a thread that waits for it."""

LONGEST_WAIT = 10
PASSED_ON = ("content-type", "x-ailimit-upstream")


class Place(NamedTuple):
    """Where the gateway sends chats.

    Attributes:
        url: The address, such as ``http://127.0.0.1:8000``.
        socket: The path of a Unix socket on which that is; None without one.
    """

    url: str
    socket: str | None = None


class Gateway:
    """The gateway's client.

    Args:
        app: The app: its ``DEMO_GATEWAY_PLACE`` is known when it listens.
        limiter: Its limiter.
    """

    def __init__(self, app: Flask, limiter: AILimiter) -> None:
        self._app = app
        self._first_use = Lock()
        self.upstream = limiter.upstream(
            "model",
            requests=os.environ.get("DEMO_GATEWAY_REQUESTS", "30 per minute"),
            tokens=os.environ.get("DEMO_GATEWAY_TOKENS", "20000 per minute"),
            concurrency=MOST_IN_FLIGHT,
            max_wait=LONGEST_WAIT,
            max_waiting=MOST_WAITING,
        )

    @cached_property
    def client(self) -> httpx2.Client:
        """What calls the model, with the gateway's key."""
        place, key = self._app.config["DEMO_GATEWAY_PLACE"], self._app.config["DEMO_GATEWAY_KEY"]
        if place is None or not key:
            raise ApiError(503, "no_gateway", "The gateway knows no model. Set DEMO_GATEWAY_URL and DEMO_GATEWAY_KEY.")
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        return self.upstream.http_client(base_url=place.url, headers=headers, uds=place.socket)  # type: ignore[no-any-return]

    def send(self, body: bytes, *, stream: bool) -> httpx2.Response:
        """The model's answer to a chat. The body of a stream is still to come.

        Raises:
            httpx2.HTTPError: It has given none.
        """
        with self._first_use:
            client = self.client
        response = client.send(client.build_request("POST", "/v1/chat/completions", content=body), stream=stream)
        if response.is_error:
            response.read()
            response.raise_for_status()
        return response


def register(app: Flask, limiter: AILimiter, model: Model) -> None:
    """Serve the gateway."""
    gateway = Gateway(app, limiter)

    @app.post("/gateway/v1/chat/completions")
    @takes(reader(names_of(model)))
    @gateway.upstream.needed
    @limiter.limit_by_plan()
    def gateway_chat_completions(call: Call) -> ResponseReturnValue:
        try:
            answer = gateway.send(request.get_data(), stream=call.stream)
        except httpx2.HTTPError as error:
            raise gateway.upstream.refusal(error) from None
        headers = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
        if not call.stream:
            return Response(answer.content, headers=headers)
        headers |= {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        response = Response(stream_with_context(answer.iter_bytes()), headers=headers)
        response.call_on_close(answer.close)  # Also if the client has left.
        return response
