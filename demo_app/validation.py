"""Strict reading of request bodies: what passes here is safe to count, to log and to send to the model.

Nothing is guessed or converted: ``"100"`` and ``100.0`` are no ``max_tokens``. A body is refused before any limit
looks at it, so a mistake costs its sender nothing. No message repeats what was sent.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

from flask import current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from flask_ailimit.tokens import InvalidBody, decode_body

from .errors import ApiError, too_large
from .model import Call, Message

Body = dict[str, Any]
View = Callable[..., ResponseReturnValue]

MAX_BODY_BYTES = 1024 * 1024
READ_TIMEOUT = 10.0
"""Seconds that a body may pause. Gunicorn's threads would wait for the rest of it for ever."""

MAX_TOKENS = 1024
DEFAULT_MAX_TOKENS = 128
MAX_MESSAGES = 128
MAX_TEXT_BYTES = 16 * 1024
"""UTF-8 bytes of all texts of a request, about twice the model's context in English. Counting the tokens of so
many bytes takes llama.cpp about 50 ms at worst; of the whole body it would take seconds."""


def takes(read: Callable[[Body], Call]) -> Callable[[View], View]:
    """Read the request's body and hand the view what came out.

    Goes above the limits of a view, so that it runs before them.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def with_call() -> ResponseReturnValue:
            return view(call=read(read_body()))

        return with_call

    return decorate


def read_body() -> Body:
    """The request's body, a JSON object.

    Raises:
        ApiError: 415 for another type or a compressed body, 413 for too many bytes, 400 for bad JSON.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ApiError(415, "unsupported_encoding", "Send the body uncompressed, without Content-Encoding.")
    if request.mimetype != "application/json":
        raise ApiError(415, "unsupported_media_type", 'Send JSON with "Content-Type: application/json".')
    try:
        body = decode_body(_raw_body())
    except InvalidBody as error:
        raise ApiError(400, error.code, str(error)) from error
    if not isinstance(body, dict):
        raise ApiError(400, "invalid_request", "The body must be a JSON object.")
    return body


def _raw_body() -> bytes:
    client = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    before = client.gettimeout() if client else None
    try:
        if client:
            client.settimeout(current_app.config["DEMO_READ_TIMEOUT"])
        raw = request.get_data()
    except ClientDisconnected as error:
        raise ApiError(400, "incomplete_body", "The body stopped coming before its end.") from error
    finally:
        if client:
            client.settimeout(before)
    # Werkzeug cuts a body of unannounced length off at the limit and says nothing.
    if request.content_length is None and len(raw) >= MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    return raw


def refuse_unknown(body: Body, known: Iterable[str]) -> None:
    """Raise ``ApiError`` if the body asks for something that would silently be left undone."""
    names = sorted(known)
    if not body.keys() <= set(names):
        raise ApiError(400, "unsupported_field", f"Only these fields are supported: {', '.join(names)}.")


def read_max_tokens(body: Body, *names: str) -> int:
    """The longest answer wanted, under whichever of ``names`` the body uses; a default if under none.

    Raises:
        ApiError: It is no whole number from 1 to ``MAX_TOKENS``, or the names disagree.
    """
    found: dict[str, int] = {}
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise ApiError(400, "invalid_number", f"{name} is too large for a number.", param=name)
        if type(value) is not int:
            raise ApiError(400, "max_tokens_type", f"{name} must be a whole number, without quotes.", param=name)
        if not 1 <= value <= MAX_TOKENS:
            raise ApiError(400, "max_tokens_out_of_range", f"{name} must be from 1 to {MAX_TOKENS}.", param=name)
        found[name] = value
    if len(set(found.values())) > 1:
        raise ApiError(400, "conflicting_fields", f"{' and '.join(found)} differ. Send one of them.", param=names[0])
    return next(iter(found.values()), DEFAULT_MAX_TOKENS)


def read_one(body: Body, *names: str) -> None:
    """Refuse more than one answer to a request, under any of ``names``."""
    for name in names:
        value = body.get(name)
        if value is not None and (type(value) is not int or value != 1):
            raise ApiError(400, "n_out_of_range", f"{name} must be 1: one answer to a request.", param=name)


def read_flag(body: Body, name: str, *, where: str = "") -> bool:
    """A boolean, false if not there."""
    value = body.get(name)
    if value is not None and type(value) is not bool:
        param = f"{where}{name}"
        raise ApiError(400, f"{name}_type", f"{param} must be true or false, without quotes.", param=param)
    return bool(value)


def read_number(body: Body, name: str, *, low: float, high: float, default: float) -> float:
    """A number from ``low`` to ``high``, ``default`` if not there."""
    value = body.get(name)
    if value is None:
        return default
    if type(value) not in (int, float):
        raise ApiError(400, f"{name}_type", f"{name} must be a number, without quotes.", param=name)
    if not low <= value <= high:
        raise ApiError(400, f"{name}_out_of_range", f"{name} must be from {low} to {high}.", param=name)
    return float(value)


def read_model(body: Body, served: Sequence[str]) -> str:
    """Refuse every model but the ``served`` ones, by a message that doesn't repeat the name sent."""
    value = body.get("model")
    if value is None:
        raise ApiError(400, "model_not_found", f'Name a model: "model": "{served[0]}".', param="model")
    if not isinstance(value, str) or value not in served:
        raise ApiError(
            404, "model_not_found", f"There is no such model here. Use {' or '.join(served)}.", param="model"
        )
    return value


def read_messages(body: Body, roles: dict[str, str]) -> tuple[Message, ...]:
    """The conversation. ``roles`` maps the roles of the wire format to the model's.

    Raises:
        ApiError: A message is not one; ``param`` is the path to what is wrong.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _invalid_messages("messages must be a list with at least one message.", "messages")
    if len(messages) > MAX_MESSAGES:
        raise ApiError(400, "too_many_messages", f"At most {MAX_MESSAGES} messages.", param="messages")
    read = tuple(_read_message(message, f"messages[{index}]", roles) for index, message in enumerate(messages))
    if read[-1].role != "user":
        raise _invalid_messages("The last message must be the user's.", f"messages[{len(read) - 1}].role")
    require_short(read, "messages")
    return read


def require_short(messages: Iterable[Message], param: str) -> None:
    """Raise ``ApiError`` if there is more text than is worth counting tokens in."""
    if sum(len(message.text.encode()) for message in messages) > MAX_TEXT_BYTES:
        raise too_large(f"A conversation has at most {MAX_TEXT_BYTES} bytes of text. Shorten it.", param=param)


def read_text(content: object, param: str) -> str:
    """A text, or a list of text parts, which belong together."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise _invalid_messages(f"{param} must be a text or a list of text parts.", param)
    return "".join(_read_part(part, f"{param}[{index}]") for index, part in enumerate(content))


def _read_message(message: object, param: str, roles: dict[str, str]) -> Message:
    if not isinstance(message, dict):
        raise _invalid_messages(f"{param} must be an object with role and content.", param)
    role = message.get("role")
    if not isinstance(role, str) or role not in roles:
        raise _invalid_messages(f"{param}.role must be one of: {', '.join(sorted(roles))}.", f"{param}.role")
    if not message.keys() <= {"role", "content", "name"}:
        raise _invalid_messages(f"{param} may have only role, content and name.", param)
    return Message(roles[role], read_text(message.get("content"), f"{param}.content"))


def _read_part(part: object, param: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise _invalid_messages(f'{param} must be {{"type": "text", "text": "..."}}: only text is supported.', param)
    text: str = part["text"]
    return text


def _invalid_messages(message: str, param: str) -> ApiError:
    return ApiError(400, "invalid_messages", message, param=param)
