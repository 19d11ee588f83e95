"""Every provider's shape of an answer: plain, streamed, and streamed but abandoned after its first chunk of text.

Run it to print what is charged beside what is right:

    python tests/tokens/usage_shapes.py
"""

# ruff: noqa: E501, T201  a shape is a row, and this prints a table

import base64
import json
from typing import NamedTuple

from flask_ailimit.tokens import StreamMeter, Usage

SSE, JSON, LINES, PLAIN = "text/event-stream", "application/json", "application/x-ndjson", "text/plain"
TEXT = "four five six"
WORDS = ["four", " five", " six"]
GIVEN = 3
"""What the request's input is estimated at."""


class Words:
    """Counts words: what is right can be read off."""

    exact = False

    def __call__(self, text: str) -> int:
        return len(text.split())


class Row(NamedTuple):
    name: str
    mimetype: str
    chunks: list[bytes]
    right: Usage | None
    source: str = "reported"
    abandoned: Usage | None = None
    """What is right after the chunk with the first word; None for an answer that is no stream."""


def line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def data(*values: object) -> list[bytes]:
    return [b"data: " + (v.encode() if isinstance(v, str) else line(v).rstrip()) + b"\n\n" for v in values]


def named(*events: dict) -> list[bytes]:
    return [b"event: " + event["type"].encode() + b"\n" + data(event)[0] for event in events]


def plain(name: str, body: object, right: Usage | None, source: str = "reported", mimetype: str = JSON) -> Row:
    return Row(name, mimetype, [body if isinstance(body, bytes) else json.dumps(body).encode()], right, source)


def stream(name, chunks, right, abandoned, source="reported", mimetype=SSE) -> Row:
    return Row(name, mimetype, chunks, right, source, abandoned)


PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2000).decode()
OPENAI = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
RESPONSES = {"input_tokens": 9, "output_tokens": 5, "total_tokens": 14, "input_tokens_details": {"cached_tokens": 4}}
CLAUDE = {"input_tokens": 4, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 3, "output_tokens": 5}
BEDROCK = {"inputTokens": 9, "outputTokens": 5, "totalTokens": 14}
GEMINI = {"promptTokenCount": 9, "candidatesTokenCount": 3, "thoughtsTokenCount": 2, "totalTokenCount": 14}
COHERE = {"billed_units": {"input_tokens": 6, "output_tokens": 5}, "tokens": {"input_tokens": 9, "output_tokens": 5}}


def chat(delta, **fields):
    return {"id": "c-1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}], **fields}


def chat_body(content=TEXT, **fields):
    choices = [{"index": 0, "message": {"role": "assistant", "content": content}}]
    return {"id": "c-1", "object": "chat.completion", "choices": choices, **fields}


def gemini(text, **fields):
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}], "responseId": "g-1", **fields}


CHAT_WORDS = data(*(chat({"content": word}) for word in WORDS))
CHAT_END = {"id": "c-1", "object": "chat.completion.chunk", "choices": []}
R = Usage(9, 5)
WROTE = Usage(9, 5, 3, cache_write_tokens=2)
THOUGHT = Usage(9, 5, reasoning_tokens=2)
COUNTED = Usage(GIVEN, 3)
FIRST = Usage(GIVEN, 1)

ROWS = [
    plain("OpenAI chat", chat_body(usage=OPENAI), R),
    plain("OpenAI chat, cached", chat_body(usage={**OPENAI, "prompt_tokens_details": {"cached_tokens": 4}}), Usage(9, 5, 4)),
    plain("OpenAI chat, no usage", chat_body(), COUNTED, "counted"),
    plain("OpenAI chat, a total above its parts", chat_body(usage={"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 206}), Usage(10, 196)),
    plain("OpenAI chat, completion_tokens null", chat_body(usage={"prompt_tokens": 9, "completion_tokens": None}), Usage(9, 3), "counted"),
    plain("OpenAI chat, total alone", chat_body(usage={"total_tokens": 14}), Usage(3, 11)),
    plain("OpenAI chat, sound", {"choices": [{"message": {"content": None, "audio": {"data": PICTURE, "transcript": TEXT}}}]}, COUNTED, "counted"),
    plain("OpenAI completions", {"object": "text_completion", "choices": [{"text": TEXT}], "usage": OPENAI}, R),
    plain("OpenAI embeddings", {"object": "list", "data": [{"embedding": [0.1] * 1024}], "usage": {"prompt_tokens": 9, "total_tokens": 9}}, Usage(9, 0)),
    plain("OpenAI embeddings, no usage", {"object": "list", "data": [{"embedding": [0.1] * 1024}]}, Usage(GIVEN, 0), "counted"),
    plain("OpenAI embeddings, base64", {"object": "list", "data": [{"embedding": PICTURE}]}, Usage(GIVEN, 0), "counted"),
    plain("OpenAI embeddings, input alone", {"object": "list", "data": [], "usage": {"prompt_tokens": 9}}, Usage(9, 0)),
    plain("Jina and Voyage embeddings, total alone", {"object": "list", "data": [], "usage": {"total_tokens": 9}}, Usage(9, 0)),
    plain("OpenAI Responses", {"object": "response", "status": "completed", "output": [], "usage": RESPONSES}, Usage(9, 5, 4)),
    plain("OpenAI Responses, queued", {"id": "resp_1", "object": "response", "status": "queued", "output": [], "usage": None}, Usage(GIVEN, 0), "counted"),
    plain("OpenAI images", {"created": 1, "data": [{"b64_json": PICTURE}], "usage": {**RESPONSES, "input_tokens_details": {"text_tokens": 9}}}, R),
    plain("OpenAI images, no usage", {"created": 1, "data": [{"b64_json": PICTURE}]}, Usage(GIVEN, 0), "counted"),
    plain("OpenAI transcription", {"text": TEXT, "usage": {"type": "tokens", "input_tokens": 9, "output_tokens": 5}}, R),
    plain("OpenAI transcription by duration", {"text": TEXT, "usage": {"type": "duration", "seconds": 9}}, COUNTED, "counted"),
    plain("DeepSeek", chat_body(usage={**OPENAI, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5}), Usage(9, 5, 4)),
    plain("usage inside a choice", {"choices": [{"message": {"content": TEXT}, "usage": OPENAI}]}, R),
    plain("Groq", chat_body(x_groq={"id": "r", "usage": OPENAI}), R),
    plain("Anthropic Messages", {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn", "usage": {**CLAUDE, "server_tool_use": {"web_search_requests": 2}}}, WROTE),
    plain("Ollama generate", {"model": "m", "response": TEXT, "done": True, "prompt_eval_count": 9, "eval_count": 5}, R),
    plain("Ollama chat", {"model": "m", "message": {"content": TEXT}, "done": True, "prompt_eval_count": 9, "eval_count": 5}, R),
    plain("Ollama, the prompt in its cache", {"model": "m", "response": TEXT, "done": True, "eval_count": 5}, Usage(GIVEN, 5), "counted"),
    plain("Ollama embed", {"model": "m", "embeddings": [[0.1] * 1024], "prompt_eval_count": 9}, Usage(9, 0)),
    plain("Gemini", gemini(TEXT, usageMetadata={**GEMINI, "cachedContentTokenCount": 4}), Usage(9, 5, 4, reasoning_tokens=2)),
    plain("Gemini, results of tools", gemini(TEXT, usageMetadata={"promptTokenCount": 5, "toolUsePromptTokenCount": 4, "candidatesTokenCount": 5}), R),
    plain("Gemini, a picture", {"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": PICTURE}}]}}]}, Usage(GIVEN, 0), "counted"),
    plain("Bedrock Converse", {"output": {"message": {"content": [{"text": TEXT}]}}, "stopReason": "end_turn", "usage": BEDROCK}, R),
    plain("Bedrock Converse, cached", {"output": {"message": {"content": [{"text": TEXT}]}}, "stopReason": "end_turn", "usage": {"inputTokens": 4, "cacheReadInputTokens": 3, "cacheWriteInputTokens": 2, "outputTokens": 5, "totalTokens": 14}}, WROTE),
    plain("Bedrock, Llama", {"generation": TEXT, "prompt_token_count": 9, "generation_token_count": 5}, R),
    plain("Cohere chat", {"id": "x", "finish_reason": "COMPLETE", "message": {"content": [{"type": "text", "text": TEXT}]}, "usage": COHERE}, R),
    plain("Cohere chat, billed alone", {"message": {"content": [{"text": TEXT}]}, "finish_reason": "COMPLETE", "usage": {"billed_units": {"input_tokens": 9.0, "output_tokens": 5.0}}}, R),
    plain("Cohere chat, version 1", {"text": TEXT, "generation_id": "x", "meta": COHERE}, R),
    plain("Cohere rerank", {"id": "x", "results": [{"index": 0, "relevance_score": 0.9, "document": {"text": "of the client"}}], "meta": {"billed_units": {"search_units": 1}}}, Usage(GIVEN, 0), "counted"),
    plain("Cohere rerank, tokens", {"results": [{"index": 0}], "meta": {"billed_units": {"input_tokens": 9}}}, Usage(9, 0)),
    plain("Cohere embed", {"id": "x", "embeddings": {"float": [[0.1] * 1024]}, "texts": ["of the client"], "response_type": "embeddings_by_type", "meta": {"billed_units": {"input_tokens": 9}}}, Usage(9, 0)),
    plain("Text Generation Inference", {"generated_text": TEXT, "details": {"generated_tokens": 5, "prefill": [{"id": 1}] * 9}}, R),
    plain("Text Generation Inference, a list", [{"generated_text": TEXT, "details": {"generated_tokens": 5, "prefill": []}}], Usage(GIVEN, 5), "counted"),
    plain("Text Embeddings Inference", [[0.1] * 1024], Usage(GIVEN, 0), "counted"),
    plain("llama.cpp", {"content": TEXT, "stop": True, "tokens_evaluated": 9, "tokens_predicted": 5, "timings": {"prompt_n": 1, "cache_n": 8, "predicted_n": 5}}, Usage(9, 5, 8)),
    plain("llama.cpp chat with timings alone", chat_body(timings={"prompt_n": 1, "cache_n": 8, "predicted_n": 5}), Usage(9, 5, 8)),
    plain("OpenAI chat, all kinds", chat_body(usage={"prompt_tokens": 1000, "completion_tokens": 400, "total_tokens": 1400, "prompt_tokens_details": {"cached_tokens": 500, "audio_tokens": 100, "text_tokens": 900}, "completion_tokens_details": {"reasoning_tokens": 200, "audio_tokens": 50, "accepted_prediction_tokens": 0}}, service_tier="priority"), Usage(1000, 400, 500, audio_input_tokens=100, reasoning_tokens=200, audio_output_tokens=50, service_tier="priority")),
    plain("OpenAI chat, written to a cache", chat_body(usage={"prompt_tokens": 1000, "completion_tokens": 400, "prompt_tokens_details": {"cached_tokens": 500, "cache_write_tokens": 300, "image_tokens": 150}}), Usage(1000, 400, 500, cache_write_tokens=300, image_input_tokens=150)),
    plain("OpenAI chat, more sound than input", chat_body(usage={"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"audio_tokens": 12}}), Usage(9, 5, audio_input_tokens=9)),
    plain("OpenAI Responses, flex", {"object": "response", "status": "completed", "output": [], "service_tier": "flex", "usage": {"input_tokens": 1000, "output_tokens": 400, "total_tokens": 1400, "input_tokens_details": {"cached_tokens": 500}, "output_tokens_details": {"reasoning_tokens": 200}}}, Usage(1000, 400, 500, reasoning_tokens=200, service_tier="flex")),
    plain("OpenAI images, pictures in and out", {"created": 1, "data": [{"b64_json": PICTURE}], "usage": {"input_tokens": 1000, "output_tokens": 400, "total_tokens": 1400, "input_tokens_details": {"text_tokens": 100, "image_tokens": 900}, "output_tokens_details": {"image_tokens": 390, "text_tokens": 10}}}, Usage(1000, 400, image_input_tokens=900, image_output_tokens=390)),
    plain("OpenAI transcription, sound", {"text": TEXT, "usage": {"type": "tokens", "input_tokens": 1000, "output_tokens": 5, "total_tokens": 1005, "input_token_details": {"text_tokens": 100, "audio_tokens": 900}}}, Usage(1000, 5, audio_input_tokens=900)),
    plain("DeepSeek, no sum of the prompt", {"choices": [{"message": {"content": TEXT}}], "usage": {"completion_tokens": 5, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5}}, Usage(9, 5, 4)),
    plain("Anthropic Messages, an hour in the cache", {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn", "usage": {"input_tokens": 100, "cache_creation_input_tokens": 400, "cache_read_input_tokens": 500, "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 250}, "output_tokens": 400, "service_tier": "batch"}}, Usage(1000, 400, 500, cache_write_tokens=150, cache_write_1h_tokens=250, service_tier="batch")),
    plain("Anthropic Messages, fast", {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn", "usage": {"input_tokens": 9, "output_tokens": 5, "service_tier": "standard", "speed": "fast"}}, Usage(9, 5, service_tier="fast")),
    plain("Gemini, by modality", gemini(TEXT, usageMetadata={"promptTokenCount": 1000, "candidatesTokenCount": 300, "thoughtsTokenCount": 100, "totalTokenCount": 1400, "cachedContentTokenCount": 500, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 650}, {"modality": "AUDIO", "tokenCount": 200}, {"modality": "IMAGE", "tokenCount": 150}], "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 200}, {"modality": "AUDIO", "tokenCount": 60}, {"modality": "IMAGE", "tokenCount": 40}], "trafficType": "ON_DEMAND_FLEX"}), Usage(1000, 400, 500, audio_input_tokens=200, image_input_tokens=150, reasoning_tokens=100, audio_output_tokens=60, image_output_tokens=40, service_tier="FLEX")),
    plain("Gemini, as the SDK for Python writes it", {"candidates": [{"content": {"parts": [{"text": TEXT}]}}], "usage_metadata": {"prompt_token_count": 1000, "candidates_token_count": 300, "thoughts_token_count": 100, "total_token_count": 1400, "cached_content_token_count": 500, "prompt_tokens_details": [{"modality": "AUDIO", "token_count": 200}], "traffic_type": "ON_DEMAND"}}, Usage(1000, 400, 500, audio_input_tokens=200, reasoning_tokens=100, service_tier="ON_DEMAND")),
    plain("Bedrock Converse, an hour in the cache", {"output": {"message": {"content": [{"text": TEXT}]}}, "stopReason": "end_turn", "serviceTier": {"type": "priority"}, "usage": {"inputTokens": 100, "cacheReadInputTokens": 500, "cacheWriteInputTokens": 400, "cacheDetails": [{"ttl": "5m", "inputTokens": 150}, {"ttl": "1h", "inputTokens": 250}], "outputTokens": 400, "totalTokens": 1400}}, Usage(1000, 400, 500, cache_write_tokens=150, cache_write_1h_tokens=250, service_tier="priority")),
    plain("an app's own", {"text": TEXT, "usage": OPENAI}, R),
    plain("an app's own, zeros", {"answer": "a b c d e f g h", "usage": {"prompt_tokens": 0, "completion_tokens": 0}}, Usage(0, 2), "counted"),
    plain("an app's own, no usage", {"answer": TEXT, "id": 7}, COUNTED, "counted"),
    plain("an app's own, a picture", {"image": PICTURE, "caption": TEXT}, COUNTED, "counted"),
    plain("an error with status 200", {"error": {"message": "The model is away, come again."}}, Usage(GIVEN, 0), "counted"),
    plain("JSON as text/html", chat_body(usage=OPENAI), R, mimetype="text/html"),
    plain("a model's JSON as text", {"answer": TEXT, "usage": {"prompt_tokens": 0, "completion_tokens": 0}}, Usage(GIVEN, 9), "counted", PLAIN),
    plain("sound", b"\xff\xfb\x90", None, "reserved", "audio/mpeg"),
    stream("OpenAI chat", [*CHAT_WORDS, *data({**CHAT_END, "usage": OPENAI}, "[DONE]")], R, FIRST),
    stream("OpenAI chat, no usage", [*CHAT_WORDS, *data("[DONE]")], COUNTED, FIRST, "counted"),
    stream("OpenAI chat, usage in each chunk", [*data(*(chat({"content": word}, usage={"prompt_tokens": 9, "completion_tokens": number}) for number, word in enumerate(WORDS, 1)), {**CHAT_END, "usage": OPENAI}, "[DONE]")], R, Usage(9, 1)),
    stream("OpenAI chat, zeros first", [*data(chat({"content": ""}, usage={"prompt_tokens": 0, "completion_tokens": 0})), *CHAT_WORDS], COUNTED, FIRST, "counted"),
    stream("Groq", [*CHAT_WORDS, *data({**CHAT_END, "x_groq": {"id": "r", "usage": OPENAI}}, "[DONE]")], R, FIRST),
    stream("Moonshot", [*CHAT_WORDS, *data({"id": "c-1", "choices": [{"index": 0, "delta": {}, "usage": OPENAI}]}, "[DONE]")], R, FIRST),
    stream("OpenAI Responses", named({"type": "response.created", "response": {"id": "r-1", "usage": None}}, *({"type": "response.output_text.delta", "delta": word} for word in WORDS), {"type": "response.output_text.done", "text": TEXT}, {"type": "response.completed", "response": {"id": "r-1", "output": [], "usage": RESPONSES}}), Usage(9, 5, 4), FIRST),
    stream("OpenAI Responses, sound", named({"type": "response.audio.delta", "delta": PICTURE}, {"type": "response.audio.transcript.delta", "delta": TEXT}), COUNTED, Usage(GIVEN, 0), "counted"),
    stream("OpenAI transcription", named(*({"type": "transcript.text.delta", "delta": word} for word in WORDS), {"type": "transcript.text.done", "text": TEXT, "usage": {"type": "tokens", "input_tokens": 9, "output_tokens": 5}}), R, FIRST),
    stream("OpenAI speech", named({"type": "speech.audio.delta", "audio": PICTURE}, {"type": "speech.audio.done", "usage": RESPONSES}), Usage(9, 5, 4), Usage(GIVEN, 0)),
    stream("OpenAI images", named({"type": "image_generation.partial_image", "b64_json": PICTURE}, {"type": "image_generation.completed", "b64_json": PICTURE, "usage": {"input_tokens": 9, "output_tokens": 5}}), R, Usage(GIVEN, 0)),
    stream("Anthropic Messages", named({"type": "message_start", "message": {"id": "msg_1", "usage": {**CLAUDE, "output_tokens": 1}}}, *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS), {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 0, "output_tokens": 5}}, {"type": "message_stop"}), WROTE, Usage(9, 1, 3, 2)),
    stream("Ollama", [line({"model": "m", "response": word, "done": False}) for word in WORDS] + [line({"model": "m", "response": "", "done": True, "prompt_eval_count": 9, "eval_count": 5})], R, FIRST, mimetype=LINES),
    stream("Ollama as application/json", [line({"model": "m", "response": word, "done": False}) for word in WORDS] + [line({"model": "m", "response": "", "done": True, "prompt_eval_count": 9, "eval_count": 5})], R, FIRST, mimetype=JSON),
    stream("Ollama as application/stream+json", [line({"model": "m", "response": word, "done": False}) for word in WORDS] + [line({"model": "m", "response": "", "done": True, "prompt_eval_count": 9, "eval_count": 5})], R, FIRST, mimetype="application/stream+json"),
    stream("events as text/plain", [*CHAT_WORDS, *data({**CHAT_END, "usage": OPENAI}, "[DONE]")], R, FIRST, mimetype=PLAIN),
    stream("events as application/json", [*CHAT_WORDS, *data({**CHAT_END, "usage": OPENAI}, "[DONE]")], R, FIRST, mimetype=JSON),
    stream("Gemini", data(*(gemini(word, usageMetadata={"promptTokenCount": 9, "candidatesTokenCount": number, "totalTokenCount": 9 + number}) for number, word in enumerate(WORDS, 1)), gemini("", usageMetadata=GEMINI)), THOUGHT, Usage(9, 1)),
    stream("Gemini as an array", [b"[" + line(gemini("four", usageMetadata={"promptTokenCount": 9, "candidatesTokenCount": 1})), b",\r\n" + line(gemini(" five six", usageMetadata=GEMINI)), b"]"], THOUGHT, Usage(9, 1), mimetype=JSON),
    stream("Bedrock Converse as events", data(*({"contentBlockDelta": {"delta": {"text": word}}} for word in WORDS), {"messageStop": {"stopReason": "end_turn"}}, {"metadata": {"usage": BEDROCK}}), R, FIRST),
    stream("Bedrock, Claude", named({"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}, *({"type": "content_block_delta", "delta": {"type": "text_delta", "text": word}} for word in WORDS), {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 9, "outputTokenCount": 5}}), R, Usage(9, 1)),
    stream("Cohere chat", named({"type": "message-start", "id": "x", "delta": {"message": {"role": "assistant"}}}, *({"type": "content-delta", "delta": {"message": {"content": {"text": word}}}} for word in WORDS), {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": COHERE}}), R, FIRST),
    stream("Cohere chat, version 1", [line({"event_type": "text-generation", "is_finished": False, "text": word}) for word in WORDS] + [line({"event_type": "stream-end", "is_finished": True, "response": {"text": TEXT, "meta": COHERE}})], R, FIRST, mimetype="application/stream+json"),
    stream("Text Generation Inference", data(*({"token": {"id": 1, "text": word}, "generated_text": None, "details": None} for word in WORDS), {"token": {"id": 2, "text": "</s>", "special": True}, "generated_text": TEXT, "details": {"generated_tokens": 5, "input_length": 9}}), R, FIRST),
    stream("llama.cpp", data(*({"content": word, "stop": False} for word in WORDS), {"content": "", "stop": True, "tokens_evaluated": 9, "tokens_predicted": 5}), R, FIRST),
    stream("OpenAI chat, a tier", [*CHAT_WORDS, *data({**CHAT_END, "service_tier": "priority", "usage": {**OPENAI, "completion_tokens_details": {"reasoning_tokens": 2}}}, "[DONE]")], Usage(9, 5, reasoning_tokens=2, service_tier="priority"), FIRST),
    stream("OpenAI Responses, a tier asked for and another given", named({"type": "response.created", "response": {"id": "r-1", "usage": None, "service_tier": "priority"}}, *({"type": "response.output_text.delta", "delta": word} for word in WORDS), {"type": "response.completed", "response": {"id": "r-1", "output": [], "usage": RESPONSES, "service_tier": "default"}}), Usage(9, 5, 4, service_tier="default"), Usage(GIVEN, 1, service_tier="priority")),
    stream("Anthropic Messages, an hour in the cache", named({"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 100, "cache_creation_input_tokens": 400, "cache_read_input_tokens": 500, "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 250}, "output_tokens": 1, "service_tier": "priority"}}}, *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS), {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 100, "cache_creation_input_tokens": 400, "cache_read_input_tokens": 500, "output_tokens": 400, "output_tokens_details": {"thinking_tokens": 120}}}, {"type": "message_stop"}), Usage(1000, 400, 500, 150, 250, reasoning_tokens=120, service_tier="priority"), Usage(1000, 1, 500, 150, 250, service_tier="priority")),
    stream("Bedrock Converse as events, a tier", data(*({"contentBlockDelta": {"delta": {"text": word}}} for word in WORDS), {"messageStop": {"stopReason": "end_turn"}}, {"metadata": {"usage": BEDROCK, "serviceTier": {"type": "flex"}}}), Usage(9, 5, service_tier="flex"), FIRST),
    stream("an app's own", data(*({"type": "token", "value": word} for word in WORDS)), COUNTED, FIRST, "counted"),
    stream("an app's own, with usage alone at its end", data(*({"bit": word} for word in WORDS), {"usage": OPENAI}), R, FIRST),
    stream("raw text in events", data(*WORDS, "[DONE]"), COUNTED, FIRST, "counted"),
    stream("plain text", [word.encode() for word in WORDS], COUNTED, FIRST, "counted", PLAIN),
    stream(
        "five calls of an agent",
        [each for number in range(5) for each in data({**chat({"content": "four"}), "id": f"c-{number}"}, {**CHAT_END, "id": f"c-{number}", "usage": OPENAI}, "[DONE]")],
        Usage(45, 25),
        FIRST,
    ),
]  # fmt: skip


def first_word(row: Row) -> list[bytes]:
    """The chunks up to the one with the first text, or with the first sound or picture."""
    for number, chunk in enumerate(row.chunks, 1):
        if b"four" in chunk or PICTURE.encode() in chunk:
            return row.chunks[:number]
    return row.chunks[:1]


def charged(row: Row, chunks: list[bytes], *, complete: bool):
    meter = StreamMeter(row.mimetype, Words())
    for chunk in chunks:
        meter.feed(chunk)
    return meter.measure(GIVEN, complete=complete)


def main() -> None:
    def shown(usage):
        return "as reserved" if usage is None else f"{usage.input_tokens} + {usage.output_tokens}"

    print("| answer | ends | charged | right | source |\n| --- | --- | --- | --- | --- |")
    for row in ROWS:
        kind = "plain" if row.abandoned is None else "stream"
        usage, source = charged(row, row.chunks, complete=True)
        print(f"| {row.name} | {kind} | {shown(usage)} | {shown(row.right)} | {source} |")
        if row.abandoned is not None:
            usage, source = charged(row, first_word(row), complete=False)
            print(f"| {row.name} | abandoned | {shown(usage)} | {shown(row.abandoned)} | {source} |")


if __name__ == "__main__":
    main()
