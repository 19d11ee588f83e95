"""What a call is answered: the error that is ordered, or what the provider has to say."""

import json
from typing import Any

from flask_ailimit.engine import Reservation
from flask_ailimit.engine.clock import MICROSECONDS

from .call import Call
from .endpoints import ENDPOINTS, Dialect, Place, place_of
from .errors import THROTTLED, TOO_LARGE, Numbers, Written, error_of, limit_error, status_error
from .http_text import Request
from .openai_answers import models
from .own_limits import OwnLimits, costs_of
from .sending import Reply
from .server_sent import event
from .told_headers import limit_headers, ordered_waits, usual_headers, waits
from .words import USUAL_MODEL, Asked, Piece, Said, SayText, asked_by, words_of

_GOOD = ("ok", "filtered")


class Replies:
    """Answers calls. The arguments are those of :class:`.provider.FakeProvider`."""

    def __init__(self, key: str | None, names: tuple[str, ...], limits: OwnLimits, say: SayText) -> None:
        self._key = key
        self._models = names
        self._limits = limits
        self._say = say

    def to(self, call: Call, request: Request) -> Reply:
        """The answer to a request that was read."""
        place, fault = place_of(request), call.fault
        now_us = call.at_us + round(fault.clock_off_by * MICROSECONDS)
        reply = self._ordered(call, place, now_us) or self._usual(call, request, place)
        if fault.body is not None:
            body = Piece(fault.body, sum(piece.tokens for piece in reply.pieces))
            headers = [pair for pair in reply.headers if pair[0] != "content-type"]
            reply = reply._replace(
                pieces=[body], is_stream=False, headers=[*headers, ("content-type", fault.content_type)]
            )
        return reply._replace(headers=[*usual_headers(place.dialect, call.number, now_us), *reply.headers])

    def _ordered(self, call: Call, place: Place, now_us: int) -> Reply | None:
        """The error that the fault orders; None if it orders none, or one in the middle of a stream."""
        fault, body = call.fault, call.body
        if fault.fails_after is not None:
            is_stream = isinstance(body, dict) and body.get("stream") is True
            return None if is_stream else _written(status_error(place.dialect, fault.status or 500))
        if fault.name in _GOOD and fault.status in (None, 200):
            return None
        model = body.get("model") if isinstance(body, dict) else None
        numbers = Numbers(str(model or place.deployment or USUAL_MODEL), fault.unit)
        return _written(error_of(place.dialect, fault, numbers), ordered_waits(place.dialect, fault, now_us))

    def _usual(self, call: Call, request: Request, place: Place) -> Reply:
        """What a provider without a fault answers: also that it does not know the key, the path or the model."""
        if self._key is not None and self._key not in _keys_of(request):
            return _written(status_error(place.dialect, 401))
        created = call.at_us // MICROSECONDS
        if place.name == "/models" and request.method == "GET":
            return _json(200, models(self._models or [USUAL_MODEL], created))
        if place.name not in ENDPOINTS or request.method != "POST":
            return _written(status_error(place.dialect, 404, "There is no such address."))
        if not isinstance(call.body, dict):
            return _written(status_error(place.dialect, 400, "The body must be a JSON object."))
        asked = asked_by(call.body, place.deployment)
        if self._models and asked.model not in self._models:
            return _written(status_error(place.dialect, 404))
        words = [] if place.name == "/embeddings" else words_of(self._say(call.body))
        return self._limited(call, place, Said(asked, call.number, created, words, "stop", call.fault.told))

    def _limited(self, call: Call, place: Place, said: Said) -> Reply:
        """The good answer, if the limits allow it."""
        asked, words = said.asked, said.words
        most = len(words) if asked.most is None or place.name == "/embeddings" else asked.most
        reservation = self._limits.reserve(costs_of(asked.input_tokens, most * asked.many))
        told = limit_headers(place.dialect, reservation.decision, call.fault.clock_off_by)
        if not reservation.allowed:
            return _refused(place.dialect, reservation, asked, told)
        finish = "length" if len(words) > most else "stop"
        said = said._replace(words=words[:most], finish="filter" if call.fault.name == "filtered" else finish)
        pieces, is_stream = _pieces(call, place, said)
        kind = "text/event-stream; charset=utf-8" if is_stream else "application/json"

        def settle(output_tokens: int) -> None:
            reservation.settle(costs_of(asked.input_tokens, output_tokens))

        return Reply(200, [("content-type", kind), *told], pieces, is_stream, settle)


def _pieces(call: Call, place: Place, said: Said) -> tuple[list[Piece], bool]:
    """The pieces of a good answer, and whether they are a stream's."""
    endpoint, fault = ENDPOINTS[place.name], call.fault
    if endpoint.events is None or call.body.get("stream") is not True:
        whole = json.dumps(endpoint.whole(said, call.body)).encode()
        return [Piece(whole, said.output_tokens)], False
    pieces = endpoint.events(said, call.body)
    if fault.fails_after is not None:
        error = status_error(place.dialect, fault.status or 500).body
        name = "error" if place.dialect == "anthropic" else ""
        pieces = [*pieces[: fault.fails_after], event(error if isinstance(error, dict) else {}, name)]
    return pieces, True


def _refused(dialect: Dialect, reservation: Reservation, asked: Asked, told: list[tuple[str, str]]) -> Reply:
    verdict = reservation.decision.refused[0]
    wait_us = reservation.decision.retry_after_us
    numbers = Numbers(
        asked.model, verdict.quota.unit, verdict.limit, verdict.used, verdict.charge.cost, wait_us or MICROSECONDS
    )
    if wait_us is None:
        return _written(limit_error(dialect, TOO_LARGE, numbers), told)
    return _written(limit_error(dialect, THROTTLED, numbers), [*told, *waits(dialect, wait_us)])


def _written(error: Written, headers: list[tuple[str, str]] | None = None) -> Reply:
    if isinstance(error.body, str):
        return Reply(error.status, [("content-type", "text/html"), *(headers or [])], [Piece(error.body.encode())])
    return _json(error.status, error.body, headers)


def _json(status: int, body: dict[str, Any], headers: list[tuple[str, str]] | None = None) -> Reply:
    return Reply(status, [("content-type", "application/json"), *(headers or [])], [Piece(json.dumps(body).encode())])


def _keys_of(request: Request) -> set[str]:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    return {bearer, request.headers.get("x-api-key", ""), request.headers.get("api-key", "")}
