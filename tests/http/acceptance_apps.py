"""Apps that a whole request goes through, and what it was charged: what the acceptance tests look at.

Nothing in here knows how the package works inside: decorators, a test client, ``peek`` and signals are all it uses.
"""

import gzip
import json
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field

from flask import Response
from limited_apps import limited

from flask_ailimit import usage_settled

PLENTY = "100000000 per minute"
BODY = {"prompt": "one two three", "max_tokens": 40}
GIVEN, ASKED = 3, 40
RESERVED = GIVEN + ASKED


def words(text):
    """A counter whose numbers a reader of a test can count: a word is a token."""
    return len(text.split())


words.exact = True


def rough(text):
    """The same as a guess."""
    return len(text.split())


@dataclass
class Outcome:
    """What became of one request.

    Attributes:
        status: Of the answer.
        body: What the client got, in bytes.
        reserved: What was counted while the view ran, by unit; empty if it did not run.
        used: What is counted after the answer was closed, by unit.
        events: What the receivers of ``usage_settled`` were told.
        headers: Of the answer.
    """

    status: int = 0
    body: bytes = b""
    reserved: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    events: list = field(default_factory=list)
    headers: object = field(default=None, repr=False)

    @property
    def served(self):
        """Whether the view ran."""
        return bool(self.reserved)

    @property
    def usage(self):
        """Input and output as they were charged."""
        return self.used["input"], self.used["output"]


def by_unit(used):
    """Counts by the first word of their limits' names."""
    return {name.split("-")[0]: value for name, value in used.items()}


@contextmanager
def hearing(app):
    """The events of the app's settlements, for as long as the context lasts."""
    events = []

    def receive(sender, **event):
        events.append(event)

    with usage_settled.connected_to(receive, app):
        yield events


def metered(answer, *, rule="/", methods=("GET", "POST"), setup=None, declares=None, **options):
    """An app whose one view answers so, limited in all tokens, in input, in output and in calls in flight.

    Args:
        answer: Answers the view's response, given the limiter if it takes an argument.
        rule: Of the view.
        methods: Of the view.
        setup: Is given the ``Limited`` before its first request.
        declares: Keywords of ``limiter.metering``.
        **options: Of the limiter.
    """
    limits = limited(**{"token_counter": words, **options})
    limiter = limits.limiter

    def view(**_):
        limits.seen.append(by_unit(limits.used()))
        return answer(limiter) if answer.__code__.co_argcount else answer()

    if declares:
        view = limiter.metering(**declares)(view)
    view = limiter.limit_tokens(PLENTY)(view)
    view = limiter.limit_tokens(PLENTY, unit="input_tokens")(view)
    view = limiter.limit_tokens(PLENTY, unit="output_tokens")(view)
    view = limiter.limit_concurrency(3)(view)
    object.__setattr__(limits, "seen", [])
    limits.app.add_url_rule(rule, "answer", view, methods=list(methods))
    if setup is not None:
        setup(limits)
    return limits


def send(limits, *, path="/", method="POST", chunks=None, **options):
    """One request, read to its end or for so many chunks, and what became of it."""
    if not options.keys() & {"json", "data"} and method == "POST":
        options["json"] = BODY
    with hearing(limits.app) as events:
        response = limits.client().open(path, method=method, **options)
        body = b"".join(response.response if chunks is None else _first(response.response, chunks))
        response.close()
    return Outcome(
        status=response.status_code,
        body=body,
        reserved=limits.seen[-1] if limits.seen else {},
        used=by_unit(limits.used()),
        events=events,
        headers=response.headers,
    )


def _first(iterable, count):
    iterator = iter(iterable)
    return [next(iterator) for _ in range(count)]


def charged(answer, *, chunks=None, request=None, **options):
    """What one request to a new app is charged, whose view answers so."""
    return send(metered(answer, **options), chunks=chunks, **(request or {}))


# Answers


def document(payload, status=200, mimetype="application/json"):
    """A plain JSON answer."""
    text = payload if isinstance(payload, str | bytes) else json.dumps(payload)
    return lambda: Response(text, status, mimetype=mimetype)


def streamed(pieces, mimetype="text/event-stream", **headers):
    """A stream of these pieces."""
    return lambda: Response(iter(list(pieces)), mimetype=mimetype, headers=headers)


def event(payload, name=None):
    """One server-sent event."""
    data = payload if isinstance(payload, str) else json.dumps(payload)
    return f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n"


def events(*payloads):
    """Server-sent events, one a payload."""
    return [event(payload) for payload in payloads]


def named(*payloads):
    """Server-sent events with their names, as Anthropic and the Responses API send them."""
    return [event(payload, payload["type"]) for payload in payloads]


def lines(*payloads):
    """JSON lines, one a payload."""
    return [(payload if isinstance(payload, str) else json.dumps(payload)) + "\n" for payload in payloads]


def chat(text, **members):
    """A chunk of a chat completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": text}}],
        **members,
    }


def chat_usage(given, output, **members):
    """The chunk of a chat completion that reports."""
    usage = {"prompt_tokens": given, "completion_tokens": output, "total_tokens": given + output}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": usage, **members}


def claude_start(given, name="msg_1", output=1, **usage):
    """The first event of a message."""
    report = {"input_tokens": given, "output_tokens": output, **usage}
    message = {"id": name, "type": "message", "role": "assistant", "content": [], "usage": report}
    return {"type": "message_start", "message": message}


def claude_text(text):
    """An event with text of a message."""
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def claude_delta(output, **usage):
    """The event of a message that reports."""
    return {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": output, **usage},
    }


CLAUDE_STOP = {"type": "message_stop"}


def response_done(given, output, name="resp_1", kind="response.completed"):
    """The last event of a Responses stream."""
    usage = {"input_tokens": given, "output_tokens": output, "total_tokens": given + output}
    return {"type": kind, "response": {"id": name, "object": "response", "status": "completed", "usage": usage}}


def response_text(text):
    """An event with text of a Responses stream."""
    return {"type": "response.output_text.delta", "item_id": "item_1", "delta": text}


# Encodings


def gzipped(data):
    """The data in gzip's format, the same at any time."""
    return gzip.compress(data, mtime=0)


def deflated(data, wbits=zlib.MAX_WBITS):
    """The data in zlib's format, or raw."""
    coder = zlib.compressobj(wbits=wbits)
    return coder.compress(data) + coder.flush()


ENCODERS = {
    "gzip": gzipped,
    "x-gzip": gzipped,
    "GZIP": gzipped,
    "deflate": deflated,
    "deflate, raw": lambda data: deflated(data, -zlib.MAX_WBITS),
    "gzip, two members": lambda data: gzipped(data[: len(data) // 2]) + gzipped(data[len(data) // 2 :]),
    "identity": bytes,
}
"""What encodes, by a name whose part before the comma is the header's value."""


def pieces(data, size):
    """The data in pieces of so many bytes."""
    return [data[start : start + size] for start in range(0, len(data), size)]
