"""The shapes in which providers ask and report, each with the page that it is taken from: none is read as nothing."""

import json

import pytest
from acceptance_apps import (
    BODY,
    CLAUDE_STOP,
    GIVEN,
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
    named,
    response_done,
    response_text,
    streamed,
)

TEXT = "four five"
CHOICE = [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}]
GEMINI = {"candidates": [{"content": {"parts": [{"text": TEXT}], "role": "model"}, "finishReason": "STOP", "index": 0}]}
CONVERSE = {"output": {"message": {"role": "assistant", "content": [{"text": TEXT}]}}, "stopReason": "end_turn"}
VECTOR = [0.25] * 32
OPENAI, ANTHROPIC = "https://platform.openai.com/docs/api-reference", "https://docs.anthropic.com/en/api"

# name: the provider's page, the answer, its input, its output, how much of the input came from a cache

PLAIN = {
    "OpenAI chat": (
        f"{OPENAI}/chat/object",
        {
            "object": "chat.completion",
            "choices": CHOICE,
            "usage": {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 14,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
            },
        },
        9,
        5,
        4,
    ),
    "OpenAI responses": (
        f"{OPENAI}/responses/object",
        {
            "object": "response",
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": TEXT}]}],
            "usage": {
                "input_tokens": 9,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 5,
                "output_tokens_details": {"reasoning_tokens": 2},
                "total_tokens": 14,
            },
        },
        9,
        5,
        4,
    ),
    "OpenAI embeddings": (
        f"{OPENAI}/embeddings/create",
        {"object": "list", "data": [{"embedding": VECTOR}], "usage": {"prompt_tokens": 9, "total_tokens": 9}},
        9,
        0,
        0,
    ),
    "OpenAI images": (
        f"{OPENAI}/images/create",
        {
            "data": [{"b64_json": "iVBORw0KGgo="}],
            "usage": {
                "input_tokens": 9,
                "input_tokens_details": {"image_tokens": 4, "text_tokens": 5},
                "output_tokens": 5,
                "total_tokens": 14,
            },
        },
        9,
        5,
        0,
    ),
    "OpenAI transcription": (
        f"{OPENAI}/audio/json-object",
        {"text": TEXT, "usage": {"type": "tokens", "input_tokens": 9, "output_tokens": 5, "total_tokens": 14}},
        9,
        5,
        0,
    ),
    "OpenAI transcription by its length in time": (
        f"{OPENAI}/audio/json-object",
        {"text": TEXT, "usage": {"type": "duration", "seconds": 27}},
        GIVEN,
        2,
        0,
    ),
    "Anthropic": (
        f"{ANTHROPIC}/messages",
        {
            "type": "message",
            "content": [{"type": "text", "text": TEXT}],
            "usage": {
                "input_tokens": 2,
                "cache_creation_input_tokens": 3,
                "cache_read_input_tokens": 4,
                "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 0},
                "output_tokens": 5,
                "server_tool_use": {"web_search_requests": 1},
                "service_tier": "standard",
            },
        },
        9,
        5,
        4,
    ),
    "Anthropic, no cache": (
        f"{ANTHROPIC}/messages",
        {
            "type": "message",
            "content": [{"type": "text", "text": TEXT}],
            "usage": {
                "input_tokens": 9,
                "cache_creation_input_tokens": None,
                "cache_read_input_tokens": None,
                "output_tokens": 5,
            },
        },
        9,
        5,
        0,
    ),
    "DeepSeek": (
        "https://api-docs.deepseek.com/api/create-chat-completion",
        {
            "choices": CHOICE,
            "usage": {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 14,
                "prompt_cache_hit_tokens": 4,
                "prompt_cache_miss_tokens": 5,
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
        },
        9,
        5,
        4,
    ),
    "Groq": (
        "https://console.groq.com/docs/api-reference#chat-create",
        {
            "choices": CHOICE,
            "usage": {
                "queue_time": 0.03,
                "prompt_tokens": 9,
                "prompt_time": 0.0005,
                "completion_tokens": 5,
                "completion_time": 0.02,
                "total_tokens": 14,
                "total_time": 0.02,
            },
            "x_groq": {"id": "req_1"},
        },
        9,
        5,
        0,
    ),
    "Gemini": (
        "https://ai.google.dev/api/generate-content#UsageMetadata",
        {**GEMINI, "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14}},
        9,
        5,
        0,
    ),
    "Gemini that thinks": (
        "https://ai.google.dev/gemini-api/docs/thinking",
        {
            **GEMINI,
            "usageMetadata": {
                "promptTokenCount": 9,
                "cachedContentTokenCount": 4,
                "candidatesTokenCount": 3,
                "thoughtsTokenCount": 2,
                "totalTokenCount": 14,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
            },
        },
        9,
        5,
        4,
    ),
    "Gemini with tools": (
        "https://ai.google.dev/api/generate-content#UsageMetadata",
        {
            **GEMINI,
            "usageMetadata": {
                "promptTokenCount": 6,
                "toolUsePromptTokenCount": 3,
                "candidatesTokenCount": 5,
                "totalTokenCount": 14,
            },
        },
        9,
        5,
        0,
    ),
    "Gemini that only thought": (
        "https://ai.google.dev/api/generate-content#UsageMetadata",
        {
            "candidates": [{"finishReason": "MAX_TOKENS", "index": 0}],
            "usageMetadata": {"promptTokenCount": 9, "thoughtsTokenCount": 5, "totalTokenCount": 14},
        },
        9,
        5,
        0,
    ),
    "Bedrock Converse": (
        "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html",
        {**CONVERSE, "usage": {"inputTokens": 9, "outputTokens": 5, "totalTokens": 14}, "metrics": {"latencyMs": 7}},
        9,
        5,
        0,
    ),
    "Bedrock Converse with a cache": (
        "https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html",
        {
            **CONVERSE,
            "usage": {
                "inputTokens": 2,
                "cacheWriteInputTokens": 3,
                "cacheReadInputTokens": 4,
                "outputTokens": 5,
                "totalTokens": 14,
            },
        },
        9,
        5,
        4,
    ),
    "Cohere chat v2": (
        "https://docs.cohere.com/reference/chat",
        {
            "id": "c1",
            "message": {"role": "assistant", "content": [{"type": "text", "text": TEXT}]},
            "usage": {
                "billed_units": {"input_tokens": 7, "output_tokens": 4},
                "tokens": {"input_tokens": 9, "output_tokens": 5},
            },
        },
        9,
        5,
        0,
    ),
    "Cohere chat v1": (
        "https://docs.cohere.com/v1/reference/chat",
        {
            "text": TEXT,
            "meta": {
                "api_version": {"version": "1"},
                "billed_units": {"input_tokens": 7, "output_tokens": 4},
                "tokens": {"input_tokens": 9, "output_tokens": 5},
            },
        },
        9,
        5,
        0,
    ),
    "Cohere embed": (
        "https://docs.cohere.com/reference/embed",
        {"embeddings": {"float": [VECTOR]}, "texts": ["hi"], "meta": {"billed_units": {"input_tokens": 9}}},
        9,
        0,
        0,
    ),
    "Cohere rerank, billed by searches": (
        "https://docs.cohere.com/reference/rerank",
        {
            "results": [{"index": 0, "relevance_score": 0.99}],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        },
        GIVEN,
        0,
        0,
    ),
    "TGI": (
        "https://huggingface.github.io/text-generation-inference/",
        {
            "generated_text": TEXT,
            "details": {
                "finish_reason": "length",
                "generated_tokens": 5,
                "prefill": [{"id": i, "text": "x", "logprob": None} for i in range(9)],
                "tokens": [],
            },
        },
        9,
        5,
        0,
    ),
    "TGI without the prefill": (
        "https://huggingface.github.io/text-generation-inference/",
        {"generated_text": TEXT, "details": {"finish_reason": "length", "generated_tokens": 5, "prefill": []}},
        GIVEN,
        5,
        0,
    ),
    "TGI, list of one": (
        "https://huggingface.github.io/text-generation-inference/",
        [{"generated_text": TEXT, "details": {"finish_reason": "length", "generated_tokens": 5, "prefill": []}}],
        GIVEN,
        5,
        0,
    ),
    "llama.cpp": (
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        {
            "content": TEXT,
            "stop": True,
            "tokens_predicted": 5,
            "tokens_evaluated": 9,
            "tokens_cached": 13,
            "timings": {"prompt_n": 9, "predicted_n": 5, "prompt_ms": 1.5},
        },
        9,
        5,
        0,
    ),
    "Ollama generate": (
        "https://github.com/ollama/ollama/blob/main/docs/api.md",
        {"response": TEXT, "done": True, "prompt_eval_count": 9, "eval_count": 5, "eval_duration": 10**9},
        9,
        5,
        0,
    ),
    "Ollama chat": (
        "https://github.com/ollama/ollama/blob/main/docs/api.md",
        {"message": {"role": "assistant", "content": TEXT}, "done": True, "prompt_eval_count": 9, "eval_count": 5},
        9,
        5,
        0,
    ),
    "Ollama with a prompt in its cache": (
        "https://github.com/ollama/ollama/issues/2068",
        {"message": {"role": "assistant", "content": TEXT}, "done": True, "eval_count": 5},
        GIVEN,
        5,
        0,
    ),
    "Ollama embed": (
        "https://github.com/ollama/ollama/blob/main/docs/api.md",
        {"model": "m", "embeddings": [VECTOR], "total_duration": 1, "load_duration": 1, "prompt_eval_count": 9},
        9,
        0,
        0,
    ),
    "Perplexity": (
        "https://docs.perplexity.ai/api-reference/chat-completions-post",
        {
            "choices": CHOICE,
            "citations": ["https://example.org"],
            "usage": {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 14,
                "search_context_size": "low",
                "cost": {"total_cost": 0.006},
            },
        },
        9,
        5,
        0,
    ),
    "Mistral with sound": (
        "https://docs.mistral.ai/api/",
        {
            "choices": CHOICE,
            "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, "prompt_audio_seconds": 3},
        },
        9,
        5,
        0,
    ),
}


@pytest.mark.parametrize(("source", "payload", "given", "output", "cached"), PLAIN.values(), ids=PLAIN)
def test_plain_report_is_charged_as_its_provider_means_it(source, payload, given, output, cached):
    assert charged(document(payload)).usage == (given, output)
    free = charged(document(payload), count_cached_tokens=False)
    assert free.usage == (given - cached, output)


@pytest.mark.parametrize(("source", "payload", "given", "output", "cached"), PLAIN.values(), ids=PLAIN)
def test_plain_report_is_the_same_in_pieces(source, payload, given, output, cached):
    text = json.dumps(payload)
    halves = [text[i : i + 7] for i in range(0, len(text), 7)]
    assert charged(streamed(halves, "application/json")).usage == (given, output)


# Reports of which nobody said in what unit exactly: never less than the answer's own words.

AT_LEAST = {
    "Gemini by its SDK, in snake case": {
        "candidates": GEMINI["candidates"],
        "usage_metadata": {"prompt_token_count": 9, "candidates_token_count": 5, "total_token_count": 14},
    },
    "Titan": {
        "inputTextTokenCount": 9,
        "results": [{"tokenCount": 5, "outputText": TEXT, "completionReason": "FINISH"}],
    },
    "Llama on Bedrock": {"generation": TEXT, "prompt_token_count": 9, "generation_token_count": 5},
    "watsonx": {"results": [{"generated_text": TEXT, "generated_token_count": 5, "input_token_count": 9}]},
    "Workers AI": {
        "success": True,
        "result": {"response": TEXT, "usage": {"prompt_tokens": 9, "completion_tokens": 5}},
    },
    "Replicate": {"output": ["four", " five"], "metrics": {"input_token_count": 9, "output_token_count": 5}},
    "Dify": {"answer": TEXT, "metadata": {"usage": {"prompt_tokens": 9, "completion_tokens": 5}}},
    "list of texts": ["four ", "five"],
    "text alone": TEXT,
    "answer of the app's own": {"data": {"answer": {"value": TEXT}}},
}


@pytest.mark.parametrize("payload", AT_LEAST.values(), ids=AT_LEAST)
def test_answer_of_another_shape_costs_its_words_and_no_more_than_reserved_beside(payload):
    outcome = charged(document(payload))
    assert GIVEN + 2 <= outcome.used["tokens"] <= GIVEN + 40 + 20


# Reports with less in them, or more, than usual

PARTIAL = {
    "total alone": ({"total_tokens": 9}, 9),
    "total and prompt": ({"prompt_tokens": 4, "total_tokens": 9}, 9),
    "total and completion": ({"completion_tokens": 4, "total_tokens": 9}, 9),
    "output null": ({"prompt_tokens": 9, "completion_tokens": None}, 9),
    "output null, with a total": ({"prompt_tokens": 9, "completion_tokens": None, "total_tokens": 9}, 9),
    "total null": ({"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": None}, 9),
    "total less than its parts": ({"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 2}, 9),
    "total zero": ({"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 0}, 9),
    "total more than its parts: reasoning": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 6,
            "total_tokens": 206,
            "completion_tokens_details": {"reasoning_tokens": 190},
        },
        206,
    ),
    "the same, Responses": ({"input_tokens": 10, "output_tokens": 6, "total_tokens": 206}, 206),
    "details null": (
        {
            "prompt_tokens": 5,
            "completion_tokens": 4,
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        },
        9,
    ),
    "cached null": ({"prompt_tokens": 5, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": None}}, 9),
    "unknown members beside": ({"prompt_tokens": 5, "completion_tokens": 4, "cost": 0.01, "is_byok": False}, 9),
}


@pytest.mark.parametrize(("usage", "total"), PARTIAL.values(), ids=PARTIAL)
def test_report_with_less_or_more_in_it_is_a_report(usage, total):
    outcome = charged(document({"object": "list", "data": [{"embedding": VECTOR}], "usage": usage}))
    assert outcome.used["tokens"] == total
    assert outcome.events[-1]["source"] == "reported"


def test_reasoning_beyond_the_output_is_output():
    """Some report their reasoning beside ``completion_tokens`` and no total."""
    usage = {"prompt_tokens": 10, "completion_tokens": 6, "completion_tokens_details": {"reasoning_tokens": 190}}
    assert charged(document({"choices": CHOICE, "usage": usage})).used["tokens"] >= 10 + 190


ABSURD = [-1, 2**60, 1.5, "many", True, [], {}, float("nan")]


@pytest.mark.parametrize("value", ABSURD, ids=repr)
@pytest.mark.parametrize("member", ["prompt_tokens", "completion_tokens", "total_tokens"])
def test_absurd_member_neither_breaks_nor_frees_an_answer(value, member):
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14, member: value}
    outcome = charged(document({"choices": CHOICE, "usage": usage}))
    assert outcome.status == 200
    assert outcome.used["tokens"] >= GIVEN + 2
    assert outcome.used["tokens"] <= 43 or value == 2**60


# Streams. name: the page, chunks of text of one word each, what ends it with a report of 9 and 105, mimetype

WORDS = [f"w{i} " for i in range(100)]


def sse(text, *end):
    return "text/event-stream", [event(text(word)) for word in WORDS], events(*end)


def ndjson(text, *end):
    return "application/x-ndjson", lines(*map(text, WORDS)), lines(*end)


def gemini(word, **members):
    return {"candidates": [{"content": {"parts": [{"text": word}], "role": "model"}, "index": 0}], **members}


GEMINI_END = {"promptTokenCount": 9, "candidatesTokenCount": 105, "totalTokenCount": 114}
OLLAMA_END = {"done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 105}
STREAMS = {
    "OpenAI chat": sse(chat, chat_usage(9, 105), "[DONE]"),
    "OpenAI chat, usage null before": sse(lambda word: chat(word, usage=None), chat_usage(9, 105), "[DONE]"),
    "OpenAI completions": sse(
        lambda word: {"object": "text_completion", "choices": [{"text": word, "index": 0}]},
        chat_usage(9, 105),
        "[DONE]",
    ),
    "vLLM, usage in every chunk": (
        "text/event-stream",
        [
            event(chat(word, usage={"prompt_tokens": 9, "completion_tokens": i + 1, "total_tokens": i + 10}))
            for i, word in enumerate(WORDS)
        ],
        events(chat_usage(9, 105), "[DONE]"),
    ),
    "Groq": sse(
        chat,
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            "x_groq": {"id": "req_1", "usage": {"prompt_tokens": 9, "completion_tokens": 105, "total_tokens": 114}},
        },
        "[DONE]",
    ),
    "Moonshot, usage in a choice": sse(
        chat,
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "choices": [
                {
                    "index": 0,
                    "delta": {},
                    "finish_reason": "stop",
                    "usage": {"prompt_tokens": 9, "completion_tokens": 105, "total_tokens": 114},
                }
            ],
        },
        "[DONE]",
    ),
    "DeepSeek that reasons": sse(
        lambda word: {"id": "1", "choices": [{"index": 0, "delta": {"content": None, "reasoning_content": word}}]},
        {**chat_usage(9, 105), "id": "1"},
        "[DONE]",
    ),
    "OpenAI responses": (
        "text/event-stream",
        named(*map(response_text, WORDS)),
        named(response_done(9, 105)),
    ),
    "OpenAI responses, cut by its maximum": (
        "text/event-stream",
        named(*map(response_text, WORDS)),
        named(response_done(9, 105, kind="response.incomplete")),
    ),
    "OpenAI responses, a function's arguments": (
        "text/event-stream",
        named(*({"type": "response.function_call_arguments.delta", "item_id": "i", "delta": word} for word in WORDS)),
        named(response_done(9, 105)),
    ),
    "OpenAI responses, custom tool": (
        "text/event-stream",
        named(*({"type": "response.custom_tool_call_input.delta", "item_id": "i", "delta": w} for w in WORDS)),
        named(response_done(9, 105)),
    ),
    "OpenAI responses, code": (
        "text/event-stream",
        named(*({"type": "response.code_interpreter_call_code.delta", "item_id": "i", "delta": w} for w in WORDS)),
        named(response_done(9, 105)),
    ),
    "OpenAI responses, MCP": (
        "text/event-stream",
        named(*({"type": "response.mcp_call_arguments.delta", "item_id": "i", "delta": w} for w in WORDS)),
        named(response_done(9, 105)),
    ),
    "Anthropic": (
        "text/event-stream",
        named(claude_start(3), *map(claude_text, WORDS)),
        named(claude_delta(105, input_tokens=9), CLAUDE_STOP),
    ),
    "Anthropic that thinks": (
        "text/event-stream",
        named(
            claude_start(3),
            *(
                {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": word}}
                for word in WORDS
            ),
        ),
        named(claude_delta(105, input_tokens=9), CLAUDE_STOP),
    ),
    "Anthropic, a tool's input": (
        "text/event-stream",
        named(
            claude_start(3),
            *(
                {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": word}}
                for word in WORDS
            ),
        ),
        named(claude_delta(105, input_tokens=9), CLAUDE_STOP),
    ),
    "Gemini": sse(gemini, gemini("", usageMetadata=GEMINI_END)),
    "Gemini, reports all along": (
        "text/event-stream",
        [
            event(
                gemini(word, usageMetadata={"promptTokenCount": 9, "candidatesTokenCount": i, "totalTokenCount": 9 + i})
            )
            for i, word in enumerate(WORDS)
        ],
        events(gemini("", usageMetadata=GEMINI_END)),
    ),
    "Gemini, a list in pieces": (
        "application/json",
        ["[" + json.dumps(gemini(WORDS[0]))] + [",\n" + json.dumps(gemini(word)) for word in WORDS[1:]],
        [",\n" + json.dumps(gemini("", usageMetadata=GEMINI_END)) + "]"],
    ),
    "Bedrock Converse": sse(
        lambda word: {"contentBlockDelta": {"delta": {"text": word}, "contentBlockIndex": 0}},
        {"messageStop": {"stopReason": "end_turn"}},
        {
            "metadata": {
                "usage": {"inputTokens": 9, "outputTokens": 105, "totalTokens": 114},
                "metrics": {"latencyMs": 1},
            }
        },
    ),
    "Cohere v2": sse(
        lambda word: {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": word}}}},
        {
            "type": "message-end",
            "delta": {
                "finish_reason": "COMPLETE",
                "usage": {
                    "billed_units": {"input_tokens": 7, "output_tokens": 100},
                    "tokens": {"input_tokens": 9, "output_tokens": 105},
                },
            },
        },
    ),
    "Cohere v1": ndjson(
        lambda word: {"is_finished": False, "event_type": "text-generation", "text": word},
        {
            "is_finished": True,
            "event_type": "stream-end",
            "finish_reason": "COMPLETE",
            "response": {
                "text": "".join(WORDS),
                "meta": {
                    "billed_units": {"input_tokens": 7, "output_tokens": 100},
                    "tokens": {"input_tokens": 9, "output_tokens": 105},
                },
            },
        },
    ),
    "TGI": sse(
        lambda word: {
            "index": 1,
            "token": {"id": 7, "text": word, "logprob": -0.1, "special": False},
            "generated_text": None,
            "details": None,
        },
        {
            "index": 101,
            "token": {"id": 2, "text": "</s>", "logprob": -0.1, "special": True},
            "generated_text": "".join(WORDS),
            "details": {"finish_reason": "eos_token", "generated_tokens": 105, "seed": None, "input_length": 9},
        },
    ),
    "llama.cpp": sse(
        lambda word: {"content": word, "stop": False, "id_slot": 0, "multimodal": False},
        {"content": "", "stop": True, "tokens_predicted": 105, "tokens_evaluated": 9, "timings": {"prompt_n": 9}},
    ),
    "Ollama generate": ndjson(
        lambda word: {"model": "m", "response": word, "done": False}, {"model": "m", "response": "", **OLLAMA_END}
    ),
    "Ollama chat": ndjson(
        lambda word: {"model": "m", "message": {"role": "assistant", "content": word}, "done": False},
        {"model": "m", "message": {"role": "assistant", "content": ""}, **OLLAMA_END},
    ),
    "Ollama that thinks": ndjson(
        lambda word: {"message": {"role": "assistant", "content": "", "thinking": word}, "done": False},
        {"message": {"role": "assistant", "content": ""}, **OLLAMA_END},
    ),
}


CUT_DOCUMENT = {True: 40, False: 0}
"""What the reservation may add where a JSON document lacks its end, so that nobody can read it."""


@pytest.mark.parametrize(("mimetype", "texts", "end"), STREAMS.values(), ids=STREAMS)
def test_stream_is_charged_as_it_reports_and_its_slot_is_free(mimetype, texts, end):
    outcome = charged(streamed([*texts, *end], mimetype))
    assert outcome.usage == (9, 105)
    assert outcome.used["concurrency"] == 0
    assert outcome.events[0]["source"] == "reported"
    assert outcome.body == "".join([*texts, *end]).encode()


@pytest.mark.parametrize(("mimetype", "texts", "end"), STREAMS.values(), ids=STREAMS)
def test_stream_that_is_left_after_its_first_chunks_costs_them(mimetype, texts, end):
    outcome = charged(streamed([*texts, *end], mimetype), chunks=51)
    assert 50 <= outcome.used["output"] <= 52 + CUT_DOCUMENT[mimetype == "application/json"]
    assert outcome.used["input"] >= GIVEN
    assert outcome.used["concurrency"] == 0
    assert outcome.events[-1]["ending"] == "abandoned"


@pytest.mark.parametrize(("mimetype", "texts", "end"), STREAMS.values(), ids=STREAMS)
def test_stream_without_its_report_costs_its_words(mimetype, texts, end):
    outcome = charged(streamed(texts, mimetype))
    assert 99 <= outcome.used["output"] <= 101 + CUT_DOCUMENT[mimetype == "application/json"]
    assert outcome.used["input"] >= GIVEN


# Streams in shapes of nobody's, or of frameworks: no word of them is nothing.

UNKNOWN = {
    "type and value": lambda word: {"type": "token", "value": word},
    "one letter": lambda word: {"t": word},
    "nested": lambda word: {"event": "chunk", "data": {"inner": {"piece": word}}},
    "list": lambda word: [word],
    "list in an object": lambda word: {"tokens": [word]},
    "text alone": json.dumps,
    "raw text": lambda word: word.strip() + " ",
    "AG-UI": lambda word: {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": word},
    "AI SDK": lambda word: {"type": "text-delta", "id": "0", "delta": word},
    "LangChain": lambda word: {"event": "on_chat_model_stream", "data": {"chunk": {"content": word}}},
    "LangGraph": lambda word: [{"type": "AIMessageChunk", "content": word}, {"langgraph_step": 1}],
    "Dify": lambda word: {"event": "message", "answer": word},
    "Flowise": lambda word: {"event": "token", "data": word},
    "JSON-RPC": lambda word: {"jsonrpc": "2.0", "result": {"artifact": {"parts": [{"kind": "text", "text": word}]}}},
    "Titan": lambda word: {"outputText": word, "index": 0},
    "Llama on Bedrock": lambda word: {"generation": word},
    "Workers AI": lambda word: {"response": word, "p": "abdefgh"},
    "watsonx": lambda word: {"results": [{"generated_text": word, "generated_token_count": 1}]},
    "wrapped chat": lambda word: {"status": "ok", "payload": chat(word)},
    "unknown with a usage of null": lambda word: {"value": word, "usage": None},
    "unknown with a type of a known API": lambda word: {"type": "message", "value": word},
    "unknown with done": lambda word: {"value": word, "done": False},
    "unknown with an object": lambda word: {"object": "piece", "value": word},
    "unknown with an id": lambda word: {"id": "7", "value": word},
    "unknown with an error of null": lambda word: {"error": None, "value": word},
    "unknown with no choices": lambda word: {"choices": [], "value": word},
    "unknown with an empty text": lambda word: {"text": "", "value": word},
    "response event of another kind": lambda word: {"type": "response.thing.delta", "delta": word},
    "response event with an object": lambda word: {"type": "response.thing.delta", "delta": {"value": word}},
    "response event without delta": lambda word: {"type": "response.piece", "text": word},
    "Anthropic delta of another kind": lambda word: {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "poem_delta", "poem": word},
    },
    "chat delta of another kind": lambda word: {"choices": [{"index": 0, "delta": {"poem": word}}]},
    "name as text": lambda word: {word: 1},
}


@pytest.mark.parametrize("shape", UNKNOWN.values(), ids=UNKNOWN)
@pytest.mark.parametrize("mimetype", ["text/event-stream", "application/x-ndjson"])
def test_no_word_of_a_stream_in_an_unknown_shape_is_nothing(shape, mimetype):
    known_to_be_names = shape("x ") == {"x ": 1}
    payloads = [shape(f"word{i} ") for i in range(100)]
    made = events(*payloads) if mimetype == "text/event-stream" else lines(*payloads)
    outcome = charged(streamed(made, mimetype))
    assert outcome.used["output"] >= (0 if known_to_be_names else 100)
    assert outcome.used["output"] <= 1500


# What is asked

N = 1801
LONG = " ".join(["word"] * N)
USER = {"role": "user", "content": "hi"}


def item(**members):
    return {"input": [{"role": "user", "content": "hi"}, members]}


def block(**members):
    return {"messages": [USER, {"role": "assistant", "content": [members]}]}


TOOL = {"type": "function", "function": {"name": "f", "description": LONG, "parameters": {"type": "object"}}}
INPUTS = {
    "chat": {"messages": [{"role": "user", "content": LONG}]},
    "chat parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG}]}]},
    "chat, tool result": {"messages": [{"role": "tool", "tool_call_id": "1", "content": LONG}]},
    "chat, tool call": {
        "messages": [
            {
                "role": "assistant",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": LONG}}],
            }
        ]
    },
    "chat, custom tool call": {
        "messages": [
            {"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "f", "input": LONG}}]}
        ]
    },
    "chat, function call": {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": LONG}}]},
    "chat, reasoning": {"messages": [{"role": "assistant", "reasoning_content": LONG, "content": ""}]},
    "chat, tools": {"messages": [USER], "tools": [TOOL]},
    "chat, functions": {"messages": [USER], "functions": [TOOL["function"]]},
    "chat, schema": {
        "messages": [USER],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"description": LONG}}},
    },
    "chat, prediction": {"messages": [USER], "prediction": {"type": "content", "content": LONG}},
    "completions": {"prompt": LONG},
    "completions, list": {"prompt": [LONG]},
    "completions, token ids": {"prompt": [1] * N},
    "completions, suffix": {"prompt": "hi", "suffix": LONG},
    "embeddings": {"input": LONG},
    "embeddings, list": {"input": ["hi", LONG]},
    "embeddings, token ids": {"input": [[1] * N]},
    "responses": {"input": LONG},
    "responses, instructions": {"input": "hi", "instructions": LONG},
    "responses, parts": item(role="user", content=[{"type": "input_text", "text": LONG}]),
    "responses, output of a function": item(type="function_call_output", call_id="1", output=LONG),
    "responses, output in parts": item(
        type="function_call_output", call_id="1", output=[{"type": "input_text", "text": LONG}]
    ),
    "responses, call of a function": item(type="function_call", call_id="1", name="f", arguments=LONG),
    "responses, custom call": item(type="custom_tool_call", call_id="1", name="f", input=LONG),
    "responses, output of a custom call": item(type="custom_tool_call_output", call_id="1", output=LONG),
    "responses, code": item(type="code_interpreter_call", id="1", code=LONG, outputs=[]),
    "responses, logs of code": item(
        type="code_interpreter_call", id="1", code="x", outputs=[{"type": "logs", "logs": LONG}]
    ),
    "responses, MCP call": item(type="mcp_call", id="1", name="f", server_label="s", arguments=LONG, output=None),
    "responses, output of an MCP call": item(type="mcp_call", id="1", name="f", arguments="{}", output=LONG),
    "responses, tools of an MCP server": item(
        type="mcp_list_tools", id="1", server_label="s", tools=[{"name": "f", "description": LONG, "input_schema": {}}]
    ),
    "responses, files found": item(
        type="file_search_call", id="1", queries=["q"], results=[{"file_id": "f", "text": LONG}]
    ),
    "responses, shell": item(type="local_shell_call", id="1", action={"type": "exec", "command": ["sh", LONG]}),
    "responses, output of a shell": item(type="local_shell_call_output", id="1", output=LONG),
    "responses, reasoning": item(type="reasoning", id="1", summary=[{"type": "summary_text", "text": LONG}]),
    "responses, reasoning text": item(type="reasoning", id="1", content=[{"type": "reasoning_text", "text": LONG}]),
    "responses, search": item(type="web_search_call", id="1", action={"type": "search", "query": LONG}),
    "responses, text.format": {
        "input": "hi",
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {"description": LONG}}},
    },
    "responses, tools": {"input": "hi", "tools": [{"type": "function", "name": "f", "description": LONG}]},
    "responses, variables of a prompt": {"prompt": {"id": "pmpt_1", "variables": {"essay": LONG}}},
    "responses, variables with parts": {
        "prompt": {"id": "pmpt_1", "variables": {"essay": {"type": "input_text", "text": LONG}}}
    },
    "messages, system": {"system": LONG, "messages": [USER]},
    "messages, system in blocks": {"system": [{"type": "text", "text": LONG}], "messages": [USER]},
    "messages, tools": {"messages": [USER], "tools": [{"name": "f", "description": LONG, "input_schema": {}}]},
    "messages, tool use": block(type="tool_use", id="1", name="f", input={"q": LONG}),
    "messages, tool result": block(type="tool_result", tool_use_id="1", content=LONG),
    "messages, tool result in blocks": block(
        type="tool_result", tool_use_id="1", content=[{"type": "text", "text": LONG}]
    ),
    "messages, thinking": block(type="thinking", thinking=LONG, signature="x"),
    "messages, server tool": block(type="server_tool_use", id="1", name="web_search", input={"query": LONG}),
    "messages, code run": block(
        type="code_execution_tool_result",
        tool_use_id="1",
        content={"type": "code_execution_result", "stdout": LONG, "stderr": "", "return_code": 0},
    ),
    "messages, page fetched": block(
        type="web_fetch_tool_result",
        tool_use_id="1",
        content={
            "type": "web_fetch_result",
            "content": {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": LONG}},
        },
    ),
    "messages, search result": block(
        type="search_result", source="s", title="t", content=[{"type": "text", "text": LONG}]
    ),
    "messages, MCP": block(type="mcp_tool_use", id="1", name="f", server_name="s", input={"q": LONG}),
    "messages, MCP result": block(type="mcp_tool_result", tool_use_id="1", content=[{"type": "text", "text": LONG}]),
    "messages, document": block(
        type="document", source={"type": "text", "media_type": "text/plain", "data": LONG}, title="t"
    ),
    "Gemini": {"contents": [{"role": "user", "parts": [{"text": LONG}]}]},
    "Gemini, one content": {"contents": {"parts": [{"text": LONG}]}},
    "Gemini, system": {"systemInstruction": {"parts": [{"text": LONG}]}, "contents": [{"parts": [{"text": "hi"}]}]},
    "Gemini, system in snake case": {
        "system_instruction": {"parts": [{"text": LONG}]},
        "contents": [{"parts": [{"text": "hi"}]}],
    },
    "Gemini, tools": {
        "contents": [{"parts": [{"text": "hi"}]}],
        "tools": [{"functionDeclarations": [{"name": "f", "description": LONG}]}],
    },
    "Gemini, call": {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {"q": LONG}}}]}]},
    "Gemini, result": {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {"r": LONG}}}]}]},
    "Gemini, code": {"contents": [{"parts": [{"executableCode": {"language": "PYTHON", "code": LONG}}]}]},
    "Gemini, result of code": {
        "contents": [{"parts": [{"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": LONG}}]}]
    },
    "Gemini, schema": {
        "contents": [{"parts": [{"text": "hi"}]}],
        "generationConfig": {"responseSchema": {"description": LONG}},
    },
    "Gemini, embedding": {"content": {"parts": [{"text": LONG}]}},
    "Gemini, embeddings": {"requests": [{"model": "m", "content": {"parts": [{"text": LONG}]}}]},
    "Bedrock": {"messages": [{"role": "user", "content": [{"text": LONG}]}]},
    "Bedrock, system": {"system": [{"text": LONG}], "messages": [{"role": "user", "content": [{"text": "hi"}]}]},
    "Bedrock, tool": {"messages": [{"role": "user", "content": [{"toolUse": {"name": "f", "input": {"q": LONG}}}]}]},
    "Bedrock, result": {
        "messages": [{"role": "user", "content": [{"toolResult": {"toolUseId": "1", "content": [{"text": LONG}]}}]}]
    },
    "Bedrock, tools": {
        "messages": [USER],
        "toolConfig": {"tools": [{"toolSpec": {"name": "f", "description": LONG, "inputSchema": {}}}]},
    },
    "Titan": {"inputText": LONG},
    "Cohere": {"message": LONG},
    "Cohere, history": {"message": "hi", "chat_history": [{"role": "USER", "message": LONG}]},
    "Cohere, preamble": {"message": "hi", "preamble": LONG},
    "Cohere, documents": {"message": "hi", "documents": [{"title": "t", "snippet": LONG}]},
    "Cohere, documents v2": {"messages": [USER], "documents": [{"id": "1", "data": {"text": LONG}}]},
    "Cohere, rerank": {"query": "hi", "documents": ["a", LONG]},
    "Cohere, rerank's query": {"query": LONG, "documents": ["a"]},
    "Cohere, rerank of objects": {"query": "hi", "documents": [{"text": LONG}]},
    "Cohere, embed": {"texts": ["hi", LONG]},
    "TGI": {"inputs": LONG},
    "TEI": {"inputs": ["hi", LONG]},
    "TEI, rerank": {"query": "hi", "texts": [LONG]},
    "Ollama, system": {"prompt": "hi", "system": LONG},
    "Ollama, template": {"prompt": "hi", "template": LONG},
    "Ollama, format": {"messages": [USER], "format": {"type": "object", "description": LONG}},
    "Ollama, context": {"prompt": "hi", "context": [1] * N},
    "llama.cpp, grammar of JSON": {"prompt": "hi", "json_schema": {"description": LONG}},
    "llama.cpp, infill": {"input_prefix": LONG, "input_suffix": "x"},
    "llama.cpp, infill with files": {"input_prefix": "x", "input_extra": [{"filename": "a", "text": LONG}]},
    "Vertex": {"instances": [{"content": LONG}]},
    "Replicate": {"input": {"prompt": LONG}},
}


@pytest.mark.parametrize("body", INPUTS.values(), ids=INPUTS)
def test_what_a_model_is_given_is_reserved(body):
    outcome = charged(lambda: "", request={"json": {**body, "max_tokens": 40}})
    assert outcome.status == 200
    assert N <= outcome.reserved["input"] <= 2 * N + 400


OUTPUTS = {
    "Ollama": {"prompt": "hi", "options": {"num_predict": 50_000}},
    "Ollama chat": {"messages": [USER], "options": {"num_predict": 50_000, "temperature": 0}},
    "Ollama beside a smaller one": {"prompt": "hi", "max_tokens": 1, "options": {"num_predict": 50_000}},
    "Ollama, as text": {"prompt": "hi", "options": {"num_predict": "50000"}},
    "llama.cpp": {"prompt": "hi", "n_predict": 50_000},
    "Gemini": {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 50_000}},
    "Gemini, candidates": {
        "contents": [{"parts": [{"text": "hi"}]}],
        "generationConfig": {"maxOutputTokens": 10_000, "candidateCount": 5},
    },
    "Gemini in snake case": {
        "contents": [{"parts": [{"text": "hi"}]}],
        "generation_config": {"max_output_tokens": 50_000},
    },
    "Gemini beside a smaller one": {
        "contents": [{"parts": [{"text": "hi"}]}],
        "max_tokens": 1,
        "generationConfig": {"maxOutputTokens": 50_000},
    },
    "Bedrock": {"messages": [USER], "inferenceConfig": {"maxTokens": 50_000}},
    "Titan": {"inputText": "hi", "textGenerationConfig": {"maxTokenCount": 50_000}},
    "Llama on Bedrock": {"prompt": "hi", "max_gen_len": 50_000},
    "old Anthropic": {"prompt": "hi", "max_tokens_to_sample": 50_000},
    "TGI": {"inputs": "hi", "parameters": {"max_new_tokens": 50_000}},
    "TGI, several": {"inputs": "hi", "parameters": {"max_new_tokens": 10_000, "best_of": 5}},
    "Vertex": {"instances": [{"content": "hi"}], "parameters": {"maxOutputTokens": 50_000}},
    "Cohere, generations": {"prompt": "hi", "max_tokens": 10_000, "num_generations": 5},
    "chat, choices": {"messages": [USER], "max_tokens": 10_000, "n": 5},
    "chat, the newer name": {"messages": [USER], "max_completion_tokens": 50_000},
    "completions, best of": {"prompt": "hi", "max_tokens": 10_000, "best_of": 5, "n": 1},
    "completions, prompts": {"prompt": ["hi"] * 5, "max_tokens": 10_000},
    "completions, prompts of ids": {"prompt": [[1, 2]] * 5, "max_tokens": 10_000},
    "responses": {"input": "hi", "max_output_tokens": 50_000},
    "messages that think": {
        "messages": [USER],
        "max_tokens": 50_000,
        "thinking": {"type": "enabled", "budget_tokens": 40_000},
    },
}


@pytest.mark.parametrize("body", OUTPUTS.values(), ids=OUTPUTS)
def test_what_a_model_may_answer_is_reserved(body):
    outcome = charged(lambda: "", request={"json": body})
    assert 50_000 <= outcome.reserved["output"] <= 100_000


PICTURES = {
    "chat": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]
    },
    "messages": {
        "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}]}]
    },
    "responses": {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x"}]}]},
    "Ollama generate": {"prompt": "hi", "images": ["iVBORw0KGgo="]},
    "Ollama chat": {"messages": [{"role": "user", "content": "hi", "images": ["iVBORw0KGgo="]}]},
    "Gemini": {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]}]},
    "Gemini in snake case": {
        "contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": "iVBORw0KGgo="}}]}]
    },
    "Gemini, a file": {"contents": [{"parts": [{"fileData": {"mimeType": "image/png", "fileUri": "gs://x"}}]}]},
    "Bedrock": {"messages": [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": "aGk="}}}]}]},
    "Cohere embed": {"images": ["data:image/png;base64,iVBORw0KGgo="]},
}


@pytest.mark.parametrize("body", PICTURES.values(), ids=PICTURES)
def test_picture_costs_what_a_picture_costs_and_not_its_letters(body):
    outcome = charged(lambda: "", request={"json": body})
    assert 85 <= outcome.reserved["input"] <= 3000


@pytest.mark.parametrize("value", [-1, -2, 0])
def test_maximum_without_end_reserves_the_default(value):
    body = {"prompt": "hi", "options": {"num_predict": value}}
    assert charged(lambda: "", request={"json": body}, default_output_tokens=70).reserved["output"] >= 70


def test_plain_chat_is_reserved_as_ever():
    assert charged(lambda: "", request={"json": BODY}).reserved["tokens"] == 43
