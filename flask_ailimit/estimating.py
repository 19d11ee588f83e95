"""What a request may use, before it is served."""

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from functools import reduce
from io import SEEK_END, BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import Request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from .config import Settings
from .current import current_request
from .engine import Quota
from .engine.charge import require_cost
from .errors import BodyTooLarge, UnreadableBody
from .multipart import read_parts
from .tokens import Estimate, InvalidBody, TokenCounter, Usage, estimate_request
from .tokens.inflating import TooLarge, inflate
from .tokens.media import FORM, MULTIPART, is_json, text_in
from .tokens.readings import Pairs, TooMuchToRead, fields_of, read_fields, read_json
from .tokens.request import BYTES_A_TOKEN, EVERYTHING, estimate_with_models
from .tokens.shapes import FOLDED_REQUEST_ROLES, fold

if TYPE_CHECKING:
    from .extension import AILimiter
    from .tab import Tab

_log = logging.getLogger("flask_ailimit")

MEDIA_BYTES_A_TOKEN = 1024
"""Of a sound, a picture or another file that is a body itself, or a part of a form. Our choice: a megabyte of speech in
MP3 lasts a minute, and a transcription of it has a few hundred tokens; a photo costs 1600 at most."""

_LONGEST_SWITCHES = 64
_HEAD = 4096


class Reading(NamedTuple):
    """What one reader finds in a body: a decoded value, a list of requests, fields, or a text; and files beside it."""

    value: object
    file_bytes: int = 0


class AmbiguousModel(ValueError):  # noqa: N818  it is the body that is ambiguous
    """Readers of a request would find different models in it."""


def read_estimate(request: Request, settings: Settings, counter: TokenCounter) -> Estimate:
    """Estimate what a request may use from all that its readers may find in it.

    The body is read here, before anything is reserved: who sends it slowly holds no slot meanwhile.

    Raises:
        RequestEntityTooLarge: The body is larger than ``max_body_bytes``, as it is or decoded.
        InvalidBody: It was sent as JSON, and no reader would find any in it.
        AmbiguousModel: Readers would find different models.
    """
    environ, default = request.environ, settings.default_output_tokens
    query, kind = environ.get("QUERY_STRING", ""), request.mimetype
    raw = take_body(request, settings.max_body_bytes)
    try:
        if not query and is_json(kind) and not environ.get("HTTP_CONTENT_ENCODING"):  # Most requests.
            body = _one_or_list(read_json(raw))
            estimate, models = estimate_with_models(body, counter, default)
            if len(models) > 1:
                _require_one_model(models)
            return estimate
        beside = read_fields(query.encode("latin-1", "replace")) if query else None
        readings = list(_readings(request, raw, settings.max_body_bytes))
    except TooMuchToRead:
        return EVERYTHING
    if not readings:
        readings, beside = [Reading(beside)], None  # Without a body the query is the request.
    elif beside and any(reading.value for reading in readings):
        beside = _without_switches(beside)
    estimates, models = [], []
    for reading in readings:
        flat = -(-reading.file_bytes // MEDIA_BYTES_A_TOKEN)
        estimate, named = estimate_with_models(reading.value, counter, default, beside, flat)
        estimates.append(estimate)
        models += named
    _require_one_model(models)
    return reduce(Estimate.largest, estimates)


def _without_switches(query: dict[str, Any]) -> dict[str, Any]:
    """A query string beside a body. What no API has is left out if it is short: it is for the server, and no prompt."""
    known = [(name, value) for name, value in query.items() if fold(name) in FOLDED_REQUEST_ROLES]
    others = [value for name, value in query.items() if fold(name) not in FOLDED_REQUEST_ROLES]
    return Pairs(known) if sum(len(str(value)) for value in others) <= _LONGEST_SWITCHES else query


def take_body(request: Request, most: int) -> bytes:
    """Take the body into memory, and leave it to be read in every way once more.

    Raises:
        RequestEntityTooLarge: It is larger than ``most``, or than the app allows.
    """
    announced = request.content_length
    if announced is not None and announced > most:
        raise RequestEntityTooLarge
    is_form = request.mimetype in (FORM, MULTIPART)
    if is_form and "form" in request.__dict__:
        return b""  # Somebody has parsed it already.
    bounded = announced is None
    if bounded:
        allowed = request.max_content_length
        request.max_content_length = most + 1 if allowed is None else min(allowed, most + 1)
    # request.data is empty for a form, unless its bytes were kept.
    raw = request.get_data(cache=not is_form)
    # Of a longer body whose length was not announced, Werkzeug answers the beginning.
    if bounded and len(raw) >= (request.max_content_length or 0):
        raise RequestEntityTooLarge
    if raw:
        request.__dict__["stream"] = request.environ["wsgi.input"] = BytesIO(raw)
    return raw


def cost_under(estimate: Estimate, quota: Quota) -> int:
    """What to reserve of ``quota``, at least 1. A guess never makes a request impossible; what it asks for can."""
    asked = estimate.usage.of(quota.unit)
    return max(asked, 1) if asked <= quota.burst else max(quota.burst, estimate.least.of(quota.unit))


def custom_estimate(estimate: Callable[[Request], int | Usage], request: Request, quota: Quota) -> int | None:
    """What the app's own ``estimate`` says, from 1 to the quota's burst; None if it says nothing usable."""
    try:
        answer = estimate(request)
        cost = require_cost(answer.of(quota.unit) if isinstance(answer, Usage) else answer)
    except HTTPException:
        raise  # It refuses the body.
    except Exception as error:  # noqa: BLE001  a client may have sent what it can't read
        # Not the error's text, which may hold the prompt.
        _log.warning("estimate: %r answered no number of tokens (%s)", estimate, type(error).__name__)
        return None
    return max(min(cost, quota.burst), 1)


def token_cost(limiter: "AILimiter", quota: Quota, estimate: Callable[[Request], int | Usage] | None) -> int:
    """What the current request costs of ``quota``, by the app's own estimate if it has one that answers.

    It is at least 1: what costs nothing is never refused.

    Raises:
        BodyTooLarge: The body is larger than allowed.
    """
    request, tab = current_request(), limiter.tab
    cost = None if estimate is None else custom_estimate(estimate, request, quota)
    if cost is not None:
        return cost
    if tab.estimate is None:
        tab.estimate = _estimate_for(tab, request)
    return cost_under(tab.estimate, quota)


def _estimate_for(tab: "Tab", request: Request) -> Estimate:
    """The estimate; of a request that is to be answered with 400 as little as there is, and the tab says so."""
    settings, counter = tab.state.settings, tab.state.counter
    told = {"request_id": tab.request_id, "error_format": settings.error_format}
    try:
        return read_estimate(request, settings, counter)
    except RequestEntityTooLarge:
        allowed = request.max_content_length
        most = settings.max_body_bytes if allowed is None else min(settings.max_body_bytes, allowed)
        raise BodyTooLarge(most, **told) from None
    except AmbiguousModel as error:
        tab.invalid = UnreadableBody("ambiguous_model", str(error), **told)
    except InvalidBody as error:
        if settings.unreadable_body == "reserve":
            length = len(request.get_data(cache=True))
            return estimate_request(
                None,
                counter=counter,
                default_output_tokens=settings.default_output_tokens,
                flat_tokens=-(-length // BYTES_A_TOKEN),
            )
        tab.invalid = UnreadableBody("invalid_body", str(error), **told)
    except HTTPException:
        raise
    except Exception as error:  # noqa: BLE001  a client that finds a body which breaks us must not pass for nothing
        # Not the error's text, which may hold the prompt.
        _log.error(
            "A request could not be estimated (%s), so all that its limits have is reserved.", type(error).__name__
        )
        return EVERYTHING
    return Estimate(Usage(), Usage())


def _readings(request: Request, raw: bytes, most: int) -> Iterator[Reading]:
    """What readers find in a body: as it is, decoded, and by its first bytes as well as by its media type."""
    if not raw:
        if "form" in request.__dict__:
            yield _parsed_form(request)
        return
    encodings = request.environ.get("HTTP_CONTENT_ENCODING", "")
    try:
        decoded = inflate(raw, encodings, most) if encodings else None
    except TooLarge:
        raise RequestEntityTooLarge from None
    found: list[Reading] = []
    unreadable: InvalidBody | None = None
    for body in [raw] if decoded is None else [raw, decoded]:
        try:
            found += _read_as(request, request.mimetype, body)
        except InvalidBody as error:
            unreadable = error
    if unreadable and not found:
        raise unreadable
    yield from found


def _read_as(request: Request, kind: str, raw: bytes) -> Iterator[Reading]:
    if is_json(kind):
        yield Reading(_one_or_list(read_json(raw)))
        return
    values = _values_if_json(raw)
    if values:
        yield Reading(_one_or_list(values))
    if kind == MULTIPART:
        yield Reading(*read_parts(raw, request.mimetype_params.get("boundary", "")))
    elif kind == FORM:
        fields = read_fields(raw)
        # JSON under this type is a field of a strange name, and none that we know.
        if not values or any(fold(name) in FOLDED_REQUEST_ROLES for name in fields):
            yield Reading(fields)
    elif not values:
        yield _text_or_media(kind, raw)


def _values_if_json(raw: bytes) -> list[Any]:
    head = raw[:_HEAD].decode(json.detect_encoding(raw), "replace").lstrip("\ufeff \t\r\n")
    if head and head[0] not in "{[":
        return []
    try:
        return read_json(raw)
    except InvalidBody:
        return []


def _text_or_media(kind: str, raw: bytes) -> Reading:
    text = text_in(raw, kind)
    return Reading(None, len(raw)) if text is None else Reading(text)


def _parsed_form(request: Request) -> Reading:
    file_bytes = 0
    for file in itertools.chain.from_iterable(request.files.listvalues()):
        at = file.stream.tell()
        file.stream.seek(0, SEEK_END)
        file_bytes += file.stream.tell()
        file.stream.seek(at)
    return Reading(fields_of(list(request.form.items(multi=True))), file_bytes)


def _one_or_list(values: list[Any]) -> object:
    if not values:
        return None
    return values[0] if len(values) == 1 else values


def _require_one_model(models: list[object]) -> None:
    if any(model != models[0] for model in models[1:]):
        raise AmbiguousModel("The request names different models. Send one of them, once.")
