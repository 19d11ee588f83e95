"""Estimates the tokens that a request may use, before the view runs."""

import itertools
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from io import SEEK_END, BytesIO
from typing import Any, NamedTuple

from flask import Request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from flask_ailimit.current import current_request
from flask_ailimit.engine import Quota
from flask_ailimit.engine.charge import require_cost
from flask_ailimit.http.errors import BodyTooLarge, UnreadableBody
from flask_ailimit.limits.unit_limit import UnitLimit
from flask_ailimit.money.weights import Weights
from flask_ailimit.tokens import Estimate, InvalidBody, TokenCounter, Usage, estimate_request
from flask_ailimit.tokens.inflating import TooLarge, inflate
from flask_ailimit.tokens.media import FORM, MULTIPART, is_json, text_in
from flask_ailimit.tokens.readings import Pairs, TooMuchToRead, fields_of, read_fields, read_json
from flask_ailimit.tokens.request import BYTES_A_TOKEN, EVERYTHING, estimate_with_models
from flask_ailimit.tokens.shapes import FOLDED_REQUEST_ROLES, fold

from .ledger import Ledger
from .metering import metering_of
from .multipart import read_parts

_log = logging.getLogger("flask_ailimit")

MEDIA_BYTES_A_TOKEN = 1024
"""Bytes that count as one token in an audio, image or other file that is the body, or a part of a form. Our choice: a
megabyte of speech in MP3 lasts a minute, and its transcription has a few hundred tokens; a photo costs 1600 at most."""

_LONGEST_SWITCHES = 64
_HEAD = 4096


class Reading(NamedTuple):
    """What one reader finds in a body: a decoded value, a list of requests, fields or a text, and the size of files."""

    value: object
    file_bytes: int = 0


class AmbiguousModel(ValueError):  # noqa: N818  it is the body that is ambiguous
    """Different readers of the request would find different models in it."""


class Read(NamedTuple):
    """What was found in a request.

    Attributes:
        estimate: The tokens that it may use.
        models: Every model that it names, those of a list of requests too; None if they can't be told.
    """

    estimate: Estimate
    models: list[object] | None


def read_request(request: Request, most_bytes: int, counter: TokenCounter, default: int) -> Read:
    """Estimate the tokens that a request may use: the largest estimate of all the ways in which a reader may read it.

    The body is read here, before anything is reserved, so that a client that sends it slowly holds no slot meanwhile.

    Args:
        request: The request.
        most_bytes: The largest body that is read.
        counter: Counts its text.
        default: Output of a request that names no maximum.

    Raises:
        RequestEntityTooLarge: The body is larger than ``most_bytes``, as it is or decoded.
        InvalidBody: It was sent as JSON, and no reader would find JSON in it.
        AmbiguousModel: Readers would find different models.
    """
    environ = request.environ
    query, kind = environ.get("QUERY_STRING", ""), request.mimetype
    raw = take_body(request, most_bytes)
    try:
        if not query and is_json(kind) and not environ.get("HTTP_CONTENT_ENCODING"):  # Most requests.
            body = _one_or_list(read_json(raw))
            estimate, models, of_batch = estimate_with_models(body, counter, default)
            if len(models) > 1:
                _require_one_model(models)
            return Read(estimate, _with_batch(models, of_batch))
        beside = read_fields(query.encode("latin-1", "replace")) if query else None
        readings = list(_readings(request, raw, most_bytes))
    except TooMuchToRead:
        return Read(EVERYTHING, None)
    if not readings:
        readings, beside = [Reading(beside)], None  # Without a body the query is the request.
    elif beside and any(reading.value for reading in readings):
        beside = _without_switches(beside)
    estimates, models, of_batches = [], list[object](), list[object]()
    for reading in readings:
        flat = -(-reading.file_bytes // MEDIA_BYTES_A_TOKEN)
        estimate, named, of_batch = estimate_with_models(reading.value, counter, default, beside, flat)
        estimates.append(estimate)
        models += named
        of_batches += of_batch
    _require_one_model(models)
    return Read(reduce(Estimate.largest, estimates), _with_batch(models, of_batches))


def _without_switches(query: dict[str, Any]) -> dict[str, Any]:
    """A query string beside a body, without the fields that no API has if these are too short to hold a prompt."""
    known = [(name, value) for name, value in query.items() if fold(name) in FOLDED_REQUEST_ROLES]
    others = [value for name, value in query.items() if fold(name) not in FOLDED_REQUEST_ROLES]
    return Pairs(known) if sum(len(str(value)) for value in others) <= _LONGEST_SWITCHES else query


def take_body(request: Request, most: int) -> bytes:
    """Read the body into memory. The view can still read it in every way.

    Raises:
        RequestEntityTooLarge: It is larger than ``most`` bytes, or than the app allows.
    """
    announced = request.content_length
    if announced is not None and announced > most:
        raise RequestEntityTooLarge
    is_form = request.mimetype in (FORM, MULTIPART)
    if is_form and "form" in request.__dict__:
        return b""  # The app has parsed it already.
    bounded = announced is None
    if bounded:
        allowed = request.max_content_length
        request.max_content_length = most + 1 if allowed is None else min(allowed, most + 1)
    # request.data is empty for a form, unless its bytes were kept.
    raw = request.get_data(cache=not is_form)
    # If the length was not announced and the body is longer, Werkzeug returns only its beginning.
    if bounded and len(raw) >= (request.max_content_length or 0):
        raise RequestEntityTooLarge
    if raw:
        request.__dict__["stream"] = request.environ["wsgi.input"] = BytesIO(raw)
    return raw


def cost_under(estimate: Estimate, quota: Quota, weights: Weights | None) -> int:
    """The units to reserve of ``quota``, at least 1. A guess is cut to the burst; what the body asks for is not."""
    asked = _weighed(estimate.usage, quota.unit, weights)
    return max(asked, 1) if asked <= quota.burst else max(quota.burst, _weighed(estimate.least, quota.unit, weights))


def _weighed(usage: Usage, unit: str, weights: Weights | None) -> int:
    return usage.of(unit) if weights is None else weights.weigh(usage, unit)


def custom_estimate(estimate: Callable[[Request], int | Usage], request: Request, quota: Quota) -> int | None:
    """The app's own ``estimate``, from 1 to the quota's burst; None if it fails or returns no number of tokens."""
    try:
        answer = estimate(request)
        cost = require_cost(answer.of(quota.unit) if isinstance(answer, Usage) else answer)
    except HTTPException:
        raise  # The app's estimate refuses the body.
    except Exception as error:  # noqa: BLE001  the client may have sent a body that it can't read
        # Not the error's text, which may hold the prompt.
        _log.warning("estimate: %r answered no number of tokens (%s)", estimate, type(error).__name__)
        return None
    return max(min(cost, quota.burst), 1)


def token_cost(ledger: Ledger, quota: Quota | None, limit: UnitLimit) -> int:
    """The current request's cost in ``quota``: the app's own estimate if it returns one, else ours.

    It is at least 1, because a cost of 0 is refused only by a count in debt. Without a quota it is 0.

    Raises:
        BodyTooLarge: The body is larger than allowed.
    """
    if quota is None:
        return 0
    request = current_request()
    cost = None if limit.custom_estimate is None else custom_estimate(limit.custom_estimate, request, quota)
    if cost is not None:
        return cost
    return cost_under(estimate_now(ledger, limit), quota, limit.weights)


def estimate_now(ledger: Ledger, limit: UnitLimit) -> Estimate:
    """The estimate of the current request under a limit, whose output for a request without a maximum may be its own.

    Raises:
        BodyTooLarge: The body is larger than allowed.
    """
    default = default_output_of(ledger, limit)
    estimate = ledger.estimates.get(default)
    if estimate is None:
        estimate = ledger.estimates[default] = _estimate_for(ledger, current_request(), default)
    return estimate


def models_in_body(ledger: Ledger, request: Request) -> Sequence[object] | None:
    """Every model that the request names; None if they can't be told. The request is read and estimated here.

    Raises:
        BodyTooLarge: The body is larger than allowed.
    """
    if not ledger.estimates:
        default = _default_output(ledger)
        ledger.estimates[default] = _estimate_for(ledger, request, default)
    return ledger.models


def default_output_of(ledger: Ledger, limit: UnitLimit) -> int:
    """The output to reserve for a request that names no maximum: the limit's own, the view's, or the setting."""
    return _default_output(ledger) if limit.default_output_tokens is None else limit.default_output_tokens


def _default_output(ledger: Ledger) -> int:
    of_view = metering_of(ledger.app, ledger.endpoint).default_output_tokens
    return ledger.app_state.settings.default_output_tokens if of_view is None else of_view


def _estimate_for(ledger: Ledger, request: Request, default: int) -> Estimate:
    """The estimate. If the body needs a 400, that is noted in the ledger, and the estimate is 0."""
    settings, counter = ledger.app_state.settings, ledger.app_state.counter
    try:
        estimate, ledger.models = read_request(request, settings.max_body_bytes, counter, default)
    except RequestEntityTooLarge:
        allowed = request.max_content_length
        most = settings.max_body_bytes if allowed is None else min(settings.max_body_bytes, allowed)
        raise BodyTooLarge(most, **ledger.answer_facts) from None
    except AmbiguousModel as error:
        ledger.invalid = UnreadableBody("ambiguous_model", str(error), **ledger.answer_facts)
    except InvalidBody as error:
        if settings.unreadable_body == "reserve":
            ledger.models = None
            length = len(request.get_data(cache=True))
            return estimate_request(
                None,
                counter=counter,
                default_output_tokens=default,
                flat_tokens=-(-length // BYTES_A_TOKEN),
            )
        ledger.invalid = UnreadableBody("invalid_body", str(error), **ledger.answer_facts)
    except HTTPException:
        raise
    except Exception as error:  # noqa: BLE001  a body that makes the estimate fail must not be free
        # Not the error's text, which may hold the prompt.
        _log.error(
            "A request could not be estimated (%s), so all that its limits have is reserved.", type(error).__name__
        )
        ledger.models = None
        return EVERYTHING
    else:
        return estimate
    return Estimate(Usage(), Usage())


def _readings(request: Request, raw: bytes, most: int) -> Iterator[Reading]:
    """What readers find in a body: as it is and decoded, judged by its media type and by its first bytes."""
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
        # JSON that was sent as a form is one field, whose name is the JSON: no field that we know.
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


def _with_batch(models: list[object], of_batch: list[object]) -> list[object]:
    """All models. A request of a batch that names none is for the model that is named for all of them."""
    return models + [model for model in of_batch if model is not None or not models]


def _require_one_model(models: list[object]) -> None:
    if any(model != models[0] for model in models[1:]):
        raise AmbiguousModel("The request names different models. Send one of them, once.")
