"""What an answer is charged: reports that come early, late, several times, or from a model's own pen."""

import json

import pytest
from acceptance_apps import (
    BODY,
    CLAUDE_STOP,
    GIVEN,
    RESERVED,
    by_unit,
    charged,
    chat,
    chat_usage,
    claude_delta,
    claude_start,
    claude_text,
    document,
    event,
    events,
    lines,
    metered,
    named,
    response_done,
    response_text,
    rough,
    send,
    streamed,
)
from flask import Response

HUNDRED = [f"w{i} " for i in range(100)]
TEXT = "".join(HUNDRED)
ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
SSE, NDJSON = "text/event-stream", "application/x-ndjson"


def chats(texts=HUNDRED, **members):
    return [event(chat(text, **members)) for text in texts]


GEMINI_FIRST = {
    "candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "index": 0}],
    "modelVersion": "gemini-2.5-flash",
    "responseId": "r1",
}

# Reports that come before the end, or with less in them.
# pieces, how many are read (None: all), input and output as (least, most)


def partial():
    claude = named(claude_start(1000), *map(claude_text, HUNDRED))
    yield "zeros first, then text, left", events(chat_usage(0, 0)) + chats(), 101, (GIVEN, GIVEN), (100, 100)
    yield "zeros first, then text, no other report", [*events(chat_usage(0, 0)), *chats()], None, (3, 3), (100, 100)
    yield (
        "zeros first, text, [DONE]",
        [*events(chat_usage(0, 0)), *chats(), *events("[DONE]")],
        None,
        (3, 3),
        (100, 100),
    )
    yield "zeros in every chunk, left", chats(usage=ZERO), 100, (GIVEN, GIVEN), (100, 100)
    yield "zeros in every chunk, to the end", [*chats(usage=ZERO), event("[DONE]")], None, (0, 3), (100, 100)
    yield "zeros last", [*chats(), *events(chat_usage(0, 0), "[DONE]")], None, (0, 3), (100, 100)
    yield "input first, left", [*events(chat_usage(9, 0)), *chats()], 101, (9, 9), (100, 100)
    yield (
        "input first, no other report",
        [*events(chat_usage(9, 0)), *chats(), event("[DONE]")],
        None,
        (9, 9),
        (100, 100),
    )
    yield "input first, left before any text", [*events(chat_usage(9, 0)), *chats()], 1, (9, 9), (0, 0)
    yield "one token in the first chunk", [*events(chat_usage(9, 1)), *chats()], 101, (9, 9), (100, 101)
    half = [*chats(HUNDRED[:50]), *events(chat_usage(9, 50))]
    yield "report in the middle, left after it", [*half, *chats(HUNDRED[50:])], 81, (9, 9), (80, 80)
    yield "report in the middle, no other", [*half, *chats(HUNDRED[50:]), event("[DONE]")], None, (9, 9), (100, 100)
    larger = [*chats(HUNDRED[:50]), *events(chat_usage(9, 70))]
    yield "report above the text, text after it", [*larger, *chats(HUNDRED[50:])], None, (9, 9), (120, 120)
    yield "report, then a comment", [*chats(), *events(chat_usage(9, 105)), ": ping\n\n"], None, (9, 9), (105, 105)
    yield (
        "report, then a chunk without text",
        (
            [
                *chats(),
                *events(chat_usage(9, 105), {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {}}]}, "[DONE]"),
            ]
        ),
        None,
        (9, 9),
        (105, 105),
    )
    yield "usage null in every chunk, left", chats(usage=None), 60, (GIVEN, GIVEN), (60, 60)
    yield "empty usage in every chunk", [*chats(usage={}), event("[DONE]")], None, (GIVEN, GIVEN), (100, 100)
    yield (
        "total alone at the end",
        (
            [
                *chats(HUNDRED[:10]),
                *events({"id": "chatcmpl-1", "choices": [], "usage": {"total_tokens": 206}}, "[DONE]"),
            ]
        ),
        None,
        (3, 196),
        (10, 203),
    )
    yield "Claude, left before its text", claude, 1, (1000, 1000), (0, 1)
    yield "Claude, left in its text", claude, 61, (1000, 1000), (60, 60)
    yield (
        "Claude, input zero in the delta",
        ([*claude, *named(claude_delta(105, input_tokens=0), CLAUDE_STOP)]),
        None,
        (1000, 1000),
        (105, 105),
    )
    yield (
        "Claude, all caches zero in the delta",
        (
            [
                *named(claude_start(2, cache_creation_input_tokens=300, cache_read_input_tokens=400)),
                *named(
                    claude_text("w "),
                    claude_delta(5, input_tokens=0, cache_creation_input_tokens=0, cache_read_input_tokens=0),
                    CLAUDE_STOP,
                ),
            ]
        ),
        None,
        (702, 702),
        (5, 5),
    )
    yield (
        "Claude, input null in the delta",
        ([*claude, *named(claude_delta(105, input_tokens=None), CLAUDE_STOP)]),
        None,
        (1000, 1000),
        (105, 105),
    )
    yield (
        "Claude, zero at the start, known in the delta",
        ([*named(claude_start(0), claude_text("w "), claude_delta(5, input_tokens=900), CLAUDE_STOP)]),
        None,
        (900, 900),
        (5, 5),
    )
    yield "Claude, zero at the start, left", [*named(claude_start(0), *map(claude_text, HUNDRED))], 51, (3, 3), (50, 50)
    yield (
        "Claude, two deltas, each of all so far",
        ([*named(claude_start(9), claude_text("w "), claude_delta(5), claude_delta(9), CLAUDE_STOP)]),
        None,
        (9, 9),
        (9, 9),
    )
    yield (
        "Claude, the output null in the delta",
        ([*claude, *named(claude_delta(None), CLAUDE_STOP)]),
        None,
        (1000, 1000),
        (100, 100),
    )
    yield "Claude, a stop without a delta", [*claude, *named(CLAUDE_STOP)], None, (1000, 1000), (100, 100)
    yield (
        "Claude, output zero in the delta",
        ([*claude, *named(claude_delta(0), CLAUDE_STOP)]),
        None,
        (1000, 1000),
        (100, 100),
    )
    gem = [event({"candidates": [{"content": {"parts": [{"text": word}]}}]}) for word in HUNDRED]
    first = event({"usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}})
    shaped = event({**GEMINI_FIRST, "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}})
    yield "Gemini, input in its first chunk, left", [shaped, *gem], 101, (9, 9), (100, 100)
    yield (
        "Gemini, zeros first, left",
        ([event({**GEMINI_FIRST, "usageMetadata": {"promptTokenCount": 0, "totalTokenCount": 0}}), *gem]),
        101,
        (3, 3),
        (100, 100),
    )
    yield "Gemini, input first, left", [first, *gem], 101, (9, 9), (100, 100)
    yield "Gemini, input first, no other", [first, *gem], None, (9, 9), (100, 100)
    created = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "usage": None}}
    yield "Responses, left", [*named(created, *map(response_text, HUNDRED))], 61, (3, 3), (60, 60)
    yield (
        "Responses, completed with null",
        (
            [
                *named(created, *map(response_text, HUNDRED)),
                *named({"type": "response.completed", "response": {"id": "resp_1", "usage": None}}),
            ]
        ),
        None,
        (3, 3),
        (100, 100),
    )
    yield (
        "Responses, failed without usage",
        (
            [
                *named(created, *map(response_text, HUNDRED)),
                *named(
                    {"type": "response.failed", "response": {"id": "resp_1", "usage": None, "error": {"code": "x"}}}
                ),
            ]
        ),
        None,
        (3, 3),
        (100, 100),
    )


PARTIAL = {name: rest for name, *rest in partial()}


@pytest.mark.parametrize(("pieces", "chunks", "given", "output"), PARTIAL.values(), ids=PARTIAL)
def test_report_stands_for_the_moment_at_which_it_came(pieces, chunks, given, output):
    outcome = charged(streamed(pieces), chunks=chunks)
    assert given[0] <= outcome.used["input"] <= given[1]
    assert output[0] <= outcome.used["output"] <= output[1]
    assert outcome.used["tokens"] == sum(outcome.usage)


def ollama(text, **members):
    return {"model": "m", "message": {"role": "assistant", "content": text}, "done": False, **members}


OLLAMA = {
    "no input, as of a cached prompt": (
        [*map(ollama, HUNDRED), ollama("", done=True, eval_count=105)],
        None,
        (GIVEN, 105),
    ),
    "no counts at all": ([*map(ollama, HUNDRED), ollama("", done=True)], None, (GIVEN, 100)),
    "zero counts all along, left": (
        [ollama(word, prompt_eval_count=0, eval_count=0) for word in HUNDRED],
        50,
        (GIVEN, 50),
    ),
    "input zero at the end": (
        [*map(ollama, HUNDRED), ollama("", done=True, prompt_eval_count=0, eval_count=105)],
        None,
        (0, 105),
    ),
    "only input at the end": (
        [*map(ollama, HUNDRED), ollama("", done=True, prompt_eval_count=9)],
        None,
        (9, 100),
    ),
}


@pytest.mark.parametrize(("payloads", "chunks", "usage"), OLLAMA.values(), ids=OLLAMA)
def test_ollama_s_missing_counts_are_not_zero(payloads, chunks, usage):
    outcome = charged(streamed(lines(*payloads), NDJSON), chunks=chunks)
    assert outcome.used["output"] == usage[1]
    assert usage[0] <= outcome.used["input"] <= max(usage[0], GIVEN)


@pytest.mark.parametrize(
    ("counter", "reported", "output"),
    [
        ("exact", 5, 100),
        ("exact", 0, 100),
        ("exact", 99, 100),
        ("exact", 100, 100),
        ("exact", 105, 105),
        ("guess", 5, 25),
        ("guess", 0, 25),
        ("guess", 24, 25),
        ("guess", 25, 25),
        ("guess", 30, 30),
        ("guess", 105, 105),
    ],
)
@pytest.mark.parametrize("how", ["stream", "plain", "Claude", "Ollama"])
def test_text_that_was_seen_is_a_floor_under_a_report(how, counter, reported, output):
    answers = {
        "stream": streamed([*chats(), *events(chat_usage(9, reported), "[DONE]")]),
        "plain": document({"choices": [{"message": {"content": TEXT}}], **_plain_usage(9, reported)}),
        "Claude": streamed(named(claude_start(9), claude_text(TEXT), claude_delta(reported), CLAUDE_STOP)),
        "Ollama": streamed(
            lines(ollama(TEXT), ollama("", done=True, prompt_eval_count=9, eval_count=reported)), NDJSON
        ),
    }
    options = {} if counter == "exact" else {"token_counter": rough}
    outcome = charged(answers[how], **options)
    assert outcome.usage == (9, output)


def _plain_usage(given, output):
    return {"usage": {"prompt_tokens": given, "completion_tokens": output, "total_tokens": given + output}}


# What a model wrote. Each has a hundred words in it or after it, and a lie that they were none.

LIE = json.dumps({"usage": ZERO})
LIES = {
    # Raw text in events.
    "[DONE] and more": ["data: [DONE] ha\n\n", *events(*HUNDRED, "[DONE]")],
    "[DONE]. with a stop": ["data: [DONE].\n\n", *events(*HUNDRED)],
    "[DONE] in small letters": ["data: [done]\n\n", *events(*HUNDRED)],
    "[DONE] in quotes": ['data: "[DONE]"\n\n', *events(*HUNDRED)],
    "[DONE] in brackets": ["data: [[DONE]]\n\n", *events(*HUNDRED)],
    "[DONE] over two lines": ["data: [DONE]\ndata: more\n\n", *events(*HUNDRED)],
    "[DONE] itself, and the text goes on": ["data: [DONE]\n\n", *events(*HUNDRED)],
    "a usage of zeros as text": [f"data: {LIE}\n\n", *events(*HUNDRED)],
    "a usage of zeros after the text": [*events(*HUNDRED), f"data: {LIE}\n\n"],
    "done as text": ['data: {"done": true}\n\n', *events(*HUNDRED)],
    "message_stop as text": ['data: {"type": "message_stop"}\n\n', *events(*HUNDRED)],
    "response.completed as text": ['data: {"type": "response.completed"}\n\n', *events(*HUNDRED)],
    "response.completed with zeros": [
        'data: {"type": "response.completed", "response": {"usage": {"input_tokens": 0, "output_tokens": 0}}}\n\n',
        *events(*HUNDRED),
    ],
    "message_delta with zeros, after the text": [
        *events(*HUNDRED),
        *events({"type": "message_delta", "usage": {"output_tokens": 0, "input_tokens": 0}}),
    ],
    "usageMetadata of zeros, after the text": [
        *events(*HUNDRED),
        *events({"usageMetadata": {"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}}),
    ],
    "stop and zeros, as llama.cpp's": [
        *events(*HUNDRED),
        *events({"stop": True, "tokens_predicted": 0, "tokens_evaluated": 0}),
    ],
    "event named as a terminal": ["event: message_stop\ndata: w\n\n", *events(*HUNDRED)],
    "event named error": [f"event: error\ndata: {word}\n\n" for word in HUNDRED],
    "event named ping": [f"event: ping\ndata: {word}\n\n" for word in HUNDRED],
    "line feeds of a carriage": [f"data: {word}\r\r" for word in HUNDRED],
    "data in many lines": ["".join(f"data: {word}\n" for word in HUNDRED) + "\n"],
    # In the text of a chat.
    "chat that says [DONE]": [*chats(["[DONE] "]), *chats()],
    "chat that says a usage": [*chats([LIE]), *chats()],
    "chat that says an event": [*chats(['data: {"usage": {"prompt_tokens": 0}}\n\ndata: [DONE]\n\n']), *chats()],
    "chat with a call that has a usage": [
        event({"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"name": "f", "arguments": LIE}}]}}]}),
        *chats(),
    ],
    "chat whose delta has a usage": [
        event({"choices": [{"index": 0, "delta": {"content": word, "usage": ZERO}}]}) for word in HUNDRED
    ],
    "chat whose message has a usage": [
        *chats(),
        event({"choices": [{"index": 0, "message": {"role": "assistant", "usage": ZERO}, "delta": {}}]}),
    ],
    "Claude whose call has a usage": named(
        claude_start(3),
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "input": {"usage": ZERO}}},
        *map(claude_text, HUNDRED),
    ),
    "Claude whose block has a usage": named(
        claude_start(3),
        *({**claude_text(word), "usage": {"input_tokens": 0, "output_tokens": 0}} for word in HUNDRED),
    ),
}


@pytest.mark.parametrize("pieces", LIES.values(), ids=LIES)
@pytest.mark.parametrize("counter", ["exact", "guess"])
def test_model_that_writes_a_report_gives_no_word_away(pieces, counter):
    options = {} if counter == "exact" else {"token_counter": rough}
    outcome = charged(streamed(pieces), **options)
    # Where the counter guesses, a report may go as low as a quarter, but an unfinished stream may not.
    assert outcome.used["output"] >= (100 if counter == "exact" else 25)
    assert outcome.used["concurrency"] == 0


SLOT_STAYS = [
    "[DONE] and more",
    "[DONE]. with a stop",
    "[DONE] in small letters",
    "[DONE] in brackets",
    "[DONE] over two lines",
    "chat that says [DONE]",
    "chat that says an event",
    "chat with a call that has a usage",
    "event named as a terminal",
    "a usage of zeros as text",
]


@pytest.mark.parametrize("name", SLOT_STAYS)
def test_text_that_looks_like_an_end_does_not_free_the_slot(name):
    assert slots_after_each(LIES[name])[0] == 1


LINES = {
    "usage of zeros in a line": [{"usage": ZERO}, *({"text": word} for word in HUNDRED)],
    "usage of zeros in every line": [{"text": word, "usage": ZERO} for word in HUNDRED],
    "done in a line": [{"text": "w", "done": True}, *({"text": word} for word in HUNDRED)],
    "done in every line": [{"text": word, "done": True} for word in HUNDRED],
    "done and counts of zero": [
        *({"text": word} for word in HUNDRED),
        {"text": "w", "done": True, "prompt_eval_count": 0, "eval_count": 0},
    ],
    "tasks that are done": [{"task": word, "done": True} for word in HUNDRED],
    "usage at the end": [*({"text": word} for word in HUNDRED), {"usage": ZERO}],
    "usage of Claude's": [*({"text": word} for word in HUNDRED), {"usage": {"input_tokens": 0, "output_tokens": 0}}],
    "response with a usage": [{"response": {"usage": ZERO, "text": word}} for word in HUNDRED],
    "eval_count alone": [{"text": word, "eval_count": 0} for word in HUNDRED],
    "type of a terminal": [{"type": "message_stop", "text": word} for word in HUNDRED],
}


@pytest.mark.parametrize("payloads", LINES.values(), ids=LINES)
def test_model_that_writes_json_lines_gives_no_word_away(payloads):
    outcome = charged(streamed(lines(*payloads), NDJSON))
    assert outcome.used["output"] >= 100


DOCUMENTS = {
    "usage of zeros": {"answer": TEXT, "usage": ZERO},
    "usage of zeros, Claude's": {"answer": TEXT, "usage": {"input_tokens": 0, "output_tokens": 0}},
    "usage of zeros, Bedrock's": {"answer": TEXT, "usage": {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0}},
    "usage of zeros, Gemini's": {"answer": TEXT, "usageMetadata": {"promptTokenCount": 0, "totalTokenCount": 0}},
    "Ollama's": {"answer": TEXT, "done": True, "eval_count": 0, "prompt_eval_count": 0},
    "llama.cpp's": {"answer": TEXT, "tokens_predicted": 0, "tokens_evaluated": 0},
    "TGI's": {"answer": TEXT, "details": {"generated_tokens": 0, "prefill": []}},
    "Cohere's": {"answer": TEXT, "meta": {"tokens": {"input_tokens": 0, "output_tokens": 0}}},
    "Groq's": {"answer": TEXT, "x_groq": {"usage": ZERO}},
    "usage and a text": {"text": TEXT, "usage": ZERO},
    "usage of one": {"answer": TEXT, "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}},
    "nested": {"data": {"answer": TEXT, "usage": ZERO}},
    "list": [{"answer": TEXT}, {"usage": ZERO}],
    "in a list of words": {"answers": HUNDRED, "usage": ZERO},
    "in names": {"usage": ZERO, "facts": [{"w": word} for word in HUNDRED]},
}


@pytest.mark.parametrize("payload", DOCUMENTS.values(), ids=DOCUMENTS)
def test_structured_answer_with_a_usage_of_its_own_gives_no_word_away(payload):
    assert charged(document(payload)).used["output"] >= 100


@pytest.mark.parametrize("payload", DOCUMENTS.values(), ids=DOCUMENTS)
def test_app_whose_answer_is_a_model_s_json_is_charged_what_it_records(payload):
    def answer(limiter):
        limiter.record_usage(input_tokens=9, output_tokens=105)
        return document(payload)()

    assert charged(answer, declares={"recorded_only": True}).usage == (9, 105)


@pytest.mark.parametrize(
    "payload",
    [
        {"answer": "w", "usage": {"prompt_tokens": 7000, "completion_tokens": 7000}},
        {"answer": "w", "usage": ZERO},
        {"done": True, "eval_count": 7000, "prompt_eval_count": 7000},
    ],
    ids=str,
)
def test_app_that_records_only_believes_no_report(payload):
    outcome = charged(document(payload), declares={"recorded_only": True})
    assert GIVEN + 1 <= outcome.used["tokens"] <= RESERVED + 10
    assert outcome.events[-1]["source"] in ("counted", "reserved")


def test_stream_of_an_app_that_records_only_has_no_report():
    pieces = [*chats(), *events(chat_usage(7000, 7000), "[DONE]")]
    outcome = charged(streamed(pieces), declares={"recorded_only": True})
    assert outcome.usage == (GIVEN, 100)


# Plain text whose first bytes look like something else

PROSE = {
    "begins like an event": "data: hi\n\n" + TEXT,
    "begins like an event with a report": f"data: {LIE}\n\ndata: [DONE]\n\n" + TEXT,
    "begins like a comment": ": hi\n\n" + TEXT,
    "begins like a named event": "event: message_stop\ndata: {}\n\n" + TEXT,
    "begins like a line of JSON": LIE + "\n" + TEXT,
    "begins like JSON": "{" + TEXT,
    "begins like a list": "[" + TEXT,
    "is a JSON text of zeros and then words": json.dumps({"usage": ZERO}) + TEXT,
    "has zeros at its end": TEXT + "\n\ndata: " + LIE + "\n\ndata: [DONE]\n\n",
    "lines, with a JSON line at the end": TEXT.replace(" ", "\n") + LIE,
}


@pytest.mark.parametrize("text", PROSE.values(), ids=PROSE)
@pytest.mark.parametrize("how", ["plain", "one piece a letter"])
def test_prose_that_looks_like_something_else_is_counted(text, how):
    answers = {
        "plain": lambda: Response(text, mimetype="text/plain"),
        "one piece a letter": streamed(text, "text/html"),
    }
    assert charged(answers[how]).used["output"] >= 100


# Several calls of a model in one answer


def call(number, given=10, output=390, text="a b ", end="[DONE]"):
    """A call as chat completions have it, with an id of its own."""
    name = f"chatcmpl-{number}"
    return [
        event({**chat(text), "id": name}),
        event({**chat_usage(given, output), "id": name}),
        *events(*[end] if end else []),
    ]


def claude_call(number, given=10, output=390, stop=True):
    last = [CLAUDE_STOP] if stop else []
    return named(claude_start(given, f"msg_{number}"), claude_text("a b "), claude_delta(output), *last)


def response_call(number, given=10, output=390):
    created = {"type": "response.created", "response": {"id": f"resp_{number}", "usage": None}}
    return named(created, response_text("a b "), response_done(given, output, f"resp_{number}"))


def nameless(payload):
    return {key: value for key, value in payload.items() if key != "id"}


def no_id(given=10, output=390, end="[DONE]"):
    return events(nameless(chat("a b ")), nameless(chat_usage(given, output)), *[end] if end else [])


def gemini(text, name, given=10, output=390):
    usage = {"promptTokenCount": given, "candidatesTokenCount": output, "totalTokenCount": given + output}
    candidates = [{"content": {"parts": [{"text": text}]}}]
    return {"responseId": name, "candidates": candidates, "usageMetadata": usage}


def joined(lists):
    return [piece for each in lists for piece in each]


FIVE = range(5)
SUM_OF_FIVE = (50, 1950)
AGENTS = {
    "five chats": (joined(call(i) for i in FIVE), SUM_OF_FIVE),
    "five chats with one end": (joined(call(i, end=None) for i in FIVE) + events("[DONE]"), SUM_OF_FIVE),
    "five chats without any end": (joined(call(i, end=None) for i in FIVE), SUM_OF_FIVE),
    "five chats without ids": (joined(no_id() for _ in FIVE), SUM_OF_FIVE),
    "five messages": (joined(claude_call(i) for i in FIVE), SUM_OF_FIVE),
    "five messages without stops": (joined(claude_call(i, stop=False) for i in FIVE), SUM_OF_FIVE),
    "five messages of one name, as without names": (joined(claude_call("") for _ in FIVE), None),
    "five responses": (joined(response_call(i) for i in FIVE), SUM_OF_FIVE),
    "three kinds": (call(1) + claude_call(2) + response_call(3), (30, 1170)),
    "Gemini": ([event(gemini("a b ", f"r{i}")) for i in FIVE], SUM_OF_FIVE),
    "Gemini, each in two chunks": (
        [event(gemini("a ", f"r{i}", 10, part)) for i in FIVE for part in (200, 390)],
        SUM_OF_FIVE,
    ),
    "one chat, usage in every chunk": (
        [event({**chat("w "), **_plain_usage(9, i + 1)}) for i in range(100)] + events("[DONE]"),
        (9, 100),
    ),
    "one chat, its report twice": ([*chats(["a "]), *events(chat_usage(9, 5), chat_usage(9, 5), "[DONE]")], (9, 5)),
    "one chat, its report again after its end": (
        [*chats(["a "]), *events(chat_usage(9, 5), "[DONE]", chat_usage(9, 5), "[DONE]")],
        (9, 5),
    ),
    "one chat, two ends": ([*chats(["a "]), *events(chat_usage(9, 5), "[DONE]", "[DONE]")], (9, 5)),
    "one chat, an empty id first, as Azure's": (
        [
            event({"id": "", "choices": [], "prompt_filter_results": []}),
            *chats(["a "]),
            *events(chat_usage(9, 5), "[DONE]"),
        ],
        (9, 5),
    ),
    "one response, reported in its middle and at its end": (
        named(
            {"type": "response.in_progress", "response": {"id": "resp_1", "usage": None}},
            response_text("a "),
            response_done(9, 5),
            response_done(9, 5),
        ),
        (9, 5),
    ),
    "one message, two deltas": (
        named(claude_start(9), claude_text("a "), claude_delta(3), claude_delta(5), CLAUDE_STOP),
        (9, 5),
    ),
    "two that come mixed": (
        [
            event({**chat("a "), "id": "one"}),
            event({**chat("b "), "id": "two"}),
            event({**chat_usage(9, 5), "id": "one"}),
            event({**chat_usage(20, 7), "id": "two"}),
            event("[DONE]"),
        ],
        (29, 12),
    ),
    "two that come mixed, with cumulative reports": (
        [event({**chat("a "), "id": name, **_plain_usage(9, count)}) for count in (1, 2, 3) for name in ("one", "two")],
        (18, 6),
    ),
    "the second larger, then a repeated first": (
        events(
            {**chat_usage(9, 5), "id": "one"},
            {**chat_usage(20, 7), "id": "two"},
            {**chat_usage(9, 5), "id": "one"},
            "[DONE]",
        ),
        (29, 12),
    ),
    "largest of each member": (
        events(chat("a "), chat_usage(9, 0), chat_usage(0, 5), "[DONE]"),
        (9, 5),
    ),
    "a hundred calls": (joined(call(i, 1, 9, "a ") for i in range(100)), (100, 900)),
}


@pytest.mark.parametrize(("pieces", "usage"), AGENTS.values(), ids=AGENTS)
def test_calls_of_an_agent_add_up_and_reports_of_one_call_do_not(pieces, usage):
    outcome = charged(streamed(pieces))
    assert outcome.usage == (usage or SUM_OF_FIVE)
    assert outcome.body == "".join(pieces).encode()
    assert outcome.used["tokens"] == sum(outcome.usage)
    assert outcome.used["concurrency"] == 0
    assert sum(each["usage"].total_tokens for each in outcome.events) == sum(outcome.usage)


@pytest.mark.parametrize("chunked", [1, 7, 64])
def test_agent_is_charged_alike_however_its_answer_is_cut(chunked):
    text = "".join(AGENTS["three kinds"][0])
    outcome = charged(streamed([text[i : i + chunked] for i in range(0, len(text), chunked)]))
    assert outcome.usage == (30, 1170)


def test_agent_of_ollama_adds_up():
    end = {"done": True, "prompt_eval_count": 10, "eval_count": 390}
    outcome = charged(streamed(lines(*[ollama("a b "), ollama("", **end)] * 5), NDJSON))
    assert outcome.usage == SUM_OF_FIVE


COUNTED_TOO = {
    "second without a report": ([*call(1), event({**chat("c d e "), "id": "two"}), *events("[DONE]")], None, (390 + 3)),
    "first without a report": ([event({**chat("c d e "), "id": "one"}), *events("[DONE]"), *call(2)], None, (390 + 3)),
    "second left": (call(1) + [event({**chat(word), "id": "two"}) for word in HUNDRED], 3 + 50, (390 + 50)),
    "second of Claude left": (
        claude_call(1) + named(claude_start(20, "msg_2"), *map(claude_text, HUNDRED)),
        4 + 1 + 50,
        390 + 50,
    ),
    "third without ids left": (no_id() + no_id() + events(*map(chat, HUNDRED)), 6 + 50, 780 + 50),
}


@pytest.mark.parametrize(("pieces", "chunks", "output"), COUNTED_TOO.values(), ids=COUNTED_TOO)
def test_call_without_a_report_is_counted_beside_those_that_report(pieces, chunks, output):
    outcome = charged(streamed(pieces), chunks=chunks)
    assert output <= outcome.used["output"] <= output + 1
    assert outcome.used["input"] >= 10


def slots_after_each(pieces, mimetype=SSE, **options):
    """The slots in use after each piece has left, seen by the generator itself."""
    slots = []

    def answer():
        def generate():
            for piece in pieces:
                yield piece
                slots.append(by_unit(limits.used())["concurrency"])

        return Response(generate(), mimetype=mimetype)

    limits = metered(answer, **options)
    send(limits)
    return slots


ENDS = {
    "chat": call(1),
    "Claude": claude_call(1),
    "Responses": response_call(1),
    "Responses, incomplete": named(response_text("a "), response_done(9, 5, kind="response.incomplete")),
    "Responses, failed": named(response_text("a "), response_done(9, 5, kind="response.failed")),
    "[DONE] without a space": [*chats(["a "]), "data:[DONE]\n\n"],
    "[DONE] with carriages": [*chats(["a "]), "data: [DONE]\r\n\r\n"],
}


@pytest.mark.parametrize("pieces", ENDS.values(), ids=ENDS)
def test_terminal_settles_before_it_leaves_and_output_takes_the_slot_again(pieces):
    count = len(pieces)
    slots = slots_after_each([*pieces, ": ping\n\n", *call(7, text="c d "), ": ping\n\n"])
    assert slots[: count - 1] == [1] * (count - 1)
    assert slots[count - 1 : count + 1] == [0, 0]
    assert slots[count + 1] == 1
    assert slots[count + 3 :] == [0, 0]


def test_ollama_s_end_settles_before_it_leaves_and_output_takes_the_slot_again():
    end = {"done": True, "prompt_eval_count": 10, "eval_count": 390}
    pieces = lines(ollama("a "), ollama("", **end), ollama("b "), ollama("", **end))
    assert slots_after_each(pieces, NDJSON) == [1, 0, 1, 0]


@pytest.mark.parametrize("pieces", ENDS.values(), ids=ENDS)
def test_route_that_ends_with_its_body_keeps_its_slot(pieces):
    assert set(slots_after_each([*pieces, *call(7)], declares={"ends_with_body": True})) == {1}


def test_route_that_ends_with_its_body_adds_up_and_settles_once():
    outcome = charged(streamed(AGENTS["five chats"][0]), declares={"ends_with_body": True})
    assert outcome.usage == SUM_OF_FIVE
    assert len(outcome.events) == 1


def test_usage_of_the_first_call_is_charged_before_its_terminal_leaves():
    seen = []

    def answer():
        def generate():
            for piece in AGENTS["five chats"][0]:
                yield piece
                if piece.startswith("data: [DONE]"):
                    seen.append(by_unit(limits.used())["tokens"])

        return Response(generate(), mimetype=SSE)

    limits = metered(answer)
    send(limits)
    assert seen == [400, 800, 1200, 1600, 2000]


def test_plain_answer_is_charged_as_reported():
    answer = document({"choices": [{"message": {"content": "a b"}}], **_plain_usage(9, 5)})
    assert charged(answer, request={"json": BODY}).usage == (9, 5)
