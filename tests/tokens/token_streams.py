"""Streams as the APIs send them: the events, and what each reports."""

import json

from flask_ailimit.tokens import StreamMeter, Usage

WORDS = [
    "Hello",
    ",",
    " wörld",
    "!",
    " \u4f60\u597d",
    ' "quoted"',
    " data: [DONE]",
    ' {"type":"message_stop"}',
    " \U0001f600",
]
TEXT = "".join(WORDS)


def line(event):
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()


def data(event):
    return b"data: " + line(event) + b"\n\n"


def named(event):
    return b"event: " + event["type"].encode() + b"\n" + data(event)


def chunk(delta, **fields):
    choices = [{"index": 0, "delta": delta, "finish_reason": None}]
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices, **fields}


def chat(*, usage=True, words=WORDS):
    empty = {"usage": None} if usage else {}
    report = {
        "prompt_tokens": 9,
        "completion_tokens": 21,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    return [
        data(chunk({"role": "assistant", "content": ""}, **empty)),
        *(data(chunk({"content": word}, **empty)) for word in words),
        *(
            [data({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": report})]
            if usage
            else []
        ),
        b"data: [DONE]\n\n",
    ]


def messages(*, words=WORDS):
    start = {"input_tokens": 25, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 10, "output_tokens": 1}
    return [
        named(
            {"type": "message_start", "message": {"id": "msg_1", "role": "assistant", "content": [], "usage": start}}
        ),
        named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        named({"type": "ping"}),
        *(
            named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
            for word in words
        ),
        named({"type": "content_block_stop", "index": 0}),
        named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 25}}),
        named({"type": "message_stop"}),
    ]


def responses(*, words=WORDS, last="completed"):
    output = [{"type": "message", "content": [{"type": "output_text", "text": "".join(words)}]}]
    report = {
        "input_tokens": 37,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 31,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 68,
    }
    ended = {"id": "resp_1", "object": "response", "status": last, "output": output, "usage": report}
    return [
        named({"type": "response.created", "response": {"id": "resp_1", "object": "response", "usage": None}}),
        *(named({"type": "response.output_text.delta", "delta": word}) for word in words),
        named({"type": "response.output_text.done", "text": "".join(words)}),
        named({"type": f"response.{last}", "response": ended}),
    ]


def ollama(*, words=WORDS):
    return [
        *(line({"model": "m", "response": word, "done": False}) + b"\n" for word in words),
        line({"model": "m", "response": "", "done": True, "prompt_eval_count": 26, "eval_count": 298}) + b"\n",
    ]


def answer():
    body = {"object": "chat.completion", "choices": [{"message": {"content": TEXT}}]}
    return [json.dumps({**body, "usage": {"prompt_tokens": 3, "completion_tokens": 40}}, indent=1).encode()]


# name: mimetype, chunks, usage reported, text
STREAMS = {
    "chat": ("text/event-stream", chat(), Usage(9, 21, 4), TEXT),
    "chat without usage": ("text/event-stream", chat(usage=False), None, TEXT),
    "messages": ("text/event-stream", messages(), Usage(35, 25, 10), TEXT),
    "responses": ("text/event-stream", responses(), Usage(37, 31), TEXT),
    "responses incomplete": ("text/event-stream", responses(last="incomplete"), Usage(37, 31), TEXT),
    "responses failed": ("text/event-stream", responses(last="failed"), Usage(37, 31), TEXT),
    "ollama": ("application/x-ndjson", ollama(), Usage(26, 298), TEXT),
    "json": ("application/json", answer(), Usage(3, 40), TEXT),
    "plain text": ("text/plain", [word.encode() for word in WORDS], None, TEXT),
}
EVENT_STREAMS = {
    name: stream for name, stream in STREAMS.items() if stream[0] not in ("application/json", "text/plain")
}


class Characters:
    """A counter whose answers don't depend on where a text is cut."""

    exact = False

    def __call__(self, text):
        return len(text)


COUNTER = Characters()
SSE = "text/event-stream"


def fed(chunks, mimetype=SSE, **options):
    meter = StreamMeter(mimetype, COUNTER, **options)
    return meter, [meter.feed(each) for each in chunks]


def bytewise(stream):
    return [stream[place : place + 1] for place in range(len(stream))]


def output(meter):
    return meter.measure(0, complete=True).usage.output_tokens


def reported(meter):
    usage, source = meter.measure(None, complete=True)
    return usage if source == "reported" else None


def seen(chunks, mimetype=SSE):
    """What is reported, what is said, and whether anything was seen."""
    *what, _ = seen_and_ended(chunks, mimetype)
    return tuple(what)


def seen_and_ended(chunks, mimetype=SSE):
    """The same, and whether the stream has ended before the meter was told so."""
    chunks = list(chunks)
    meter, _ = fed(chunks, mimetype)
    ended = meter.ended
    said, _ = fed(chunks, mimetype, believes_reports=False)
    return reported(meter), output(said), meter.seen_anything, ended
