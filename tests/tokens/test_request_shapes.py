"""Every API keeps its text, its pictures and its maximum in a place of its own; all of them are found."""

import base64

import pytest

from flask_ailimit.tokens import estimate_request, open_counter
from flask_ailimit.tokens.prompt import IMAGE_TOKENS
from flask_ailimit.tokens.shapes import PARTS, REQUESTS

TEXT = " ".join(["word"] * 500)
PICTURE = base64.b64encode(bytes(range(256)) * 400).decode()


class Words:
    exact = True

    def __call__(self, text):
        return text.count("word")


def estimate(body):
    return estimate_request(body, counter=Words(), default_output_tokens=100).usage


def user(*parts):
    return {"messages": [{"role": "user", "content": list(parts)}]}


def item(**fields):
    return {"input": [fields]}


SOURCE = {"type": "base64", "media_type": "image/png", "data": PICTURE}
TEXTS = {
    "chat": user({"type": "text", "text": TEXT}),
    "chat, a tool's answer": {"messages": [{"role": "tool", "tool_call_id": "c", "content": TEXT}]},
    "chat, a schema": {"response_format": {"type": "json_schema", "json_schema": {"description": TEXT}}},
    "chat, a prediction": {"prediction": {"type": "content", "content": TEXT}},
    "responses, a schema": {"text": {"format": {"type": "json_schema", "schema": {"description": TEXT}}}},
    "responses, a stored prompt": {"prompt": {"id": "pmpt_1", "variables": {"a": TEXT}}},
    "responses, a stored prompt's part": {"prompt": {"variables": {"a": {"type": "input_text", "text": TEXT}}}},
    "responses, a custom tool": item(type="custom_tool_call", name="f", input=TEXT),
    "responses, a custom tool's output": item(type="custom_tool_call_output", output=TEXT),
    "responses, code": item(type="code_interpreter_call", code=TEXT, outputs=[]),
    "responses, what code wrote": item(type="code_interpreter_call", outputs=[{"type": "logs", "logs": TEXT}]),
    "responses, an MCP call": item(type="mcp_call", server_label="s", name="f", arguments="{}", output=TEXT),
    "responses, an MCP call's arguments": item(type="mcp_call", name="f", arguments=TEXT),
    "responses, MCP tools": item(type="mcp_list_tools", tools=[{"name": "f", "description": TEXT}]),
    "responses, a file search": item(type="file_search_call", results=[{"file_id": "f", "text": TEXT}]),
    "responses, a web search": item(type="web_search_call", action={"type": "search", "query": TEXT}),
    "responses, a shell call": item(type="local_shell_call", action={"command": [TEXT]}),
    "responses, reasoning": item(type="reasoning", summary=[{"type": "summary_text", "text": TEXT}]),
    "responses, encrypted reasoning": item(type="reasoning", encrypted_content=TEXT),
    "anthropic, a tool's result": user({"type": "tool_result", "tool_use_id": "t", "content": TEXT}),
    "anthropic, a server tool": user({"type": "server_tool_use", "name": "f", "input": {"query": TEXT}}),
    "anthropic, a web search": user(
        {"type": "web_search_tool_result", "content": [{"type": "web_search_result", "encrypted_content": TEXT}]}
    ),
    "anthropic, code": user(
        {"type": "code_execution_tool_result", "content": {"type": "code_execution_result", "stdout": TEXT}}
    ),
    "anthropic, an MCP tool": user({"type": "mcp_tool_use", "name": "f", "input": {"a": TEXT}}),
    "anthropic, an MCP tool's result": user({"type": "mcp_tool_result", "content": [{"type": "text", "text": TEXT}]}),
    "anthropic, thinking": user({"type": "thinking", "thinking": TEXT, "signature": "x"}),
    "anthropic, redacted thinking": user({"type": "redacted_thinking", "data": TEXT}),
    "anthropic, a document": user({"type": "document", "source": {"type": "text", "data": TEXT}}),
    "anthropic, a document in blocks": user(
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": TEXT}]}}
    ),
    "anthropic, a search result": user({"type": "search_result", "content": [{"type": "text", "text": TEXT}]}),
    "anthropic, tools": {"tools": [{"name": "f", "input_schema": {"description": TEXT}}]},
    "ollama": {"prompt": TEXT, "options": {}},
    "ollama, a template": {"template": TEXT},
    "ollama, a schema": {"format": {"type": "object", "description": TEXT}},
    "ollama, a tool call": {"messages": [{"tool_calls": [{"function": {"name": "f", "arguments": {"a": TEXT}}}]}]},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": TEXT}]}]},
    "gemini, one part": {"contents": {"parts": {"text": TEXT}}},
    "gemini, a system instruction": {"systemInstruction": {"parts": [{"text": TEXT}]}},
    "gemini, in snake case": {"system_instruction": {"parts": [{"text": TEXT}]}},
    "gemini, a call": {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {"a": TEXT}}}]}]},
    "gemini, a call's answer": {"contents": [{"parts": [{"functionResponse": {"response": {"a": TEXT}}}]}]},
    "gemini, code": {"contents": [{"parts": [{"executableCode": {"code": TEXT}}]}]},
    "gemini, a schema": {"generationConfig": {"responseSchema": {"description": TEXT}}},
    "converse": {"messages": [{"role": "user", "content": [{"text": TEXT}]}]},
    "converse, system": {"system": [{"text": TEXT}]},
    "converse, a tool": {"toolConfig": {"tools": [{"toolSpec": {"description": TEXT}}]}},
    "converse, a tool's use": user({"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": TEXT}}}),
    "converse, a tool's result": user({"toolResult": {"toolUseId": "t", "content": [{"json": {"a": TEXT}}]}}),
    "converse, reasoning": user({"reasoningContent": {"reasoningText": {"text": TEXT}}}),
    "converse, a document": user({"document": {"format": "txt", "name": "a", "source": {"text": TEXT}}}),
    "titan": {"inputText": TEXT},
    "cohere": {"message": TEXT},
    "cohere, history": {"chat_history": [{"role": "USER", "message": TEXT}]},
    "cohere, preamble": {"preamble": TEXT},
    "cohere, documents": {"documents": [{"id": "1", "data": {"snippet": TEXT}}]},
    "cohere, documents as texts": {"documents": [TEXT]},
    "cohere, embed": {"texts": [TEXT]},
    "cohere, rerank": {"query": TEXT},
    "text generation": {"inputs": TEXT},
    "llama.cpp, a schema": {"json_schema": {"description": TEXT}},
    "vllm, a schema": {"guided_json": {"description": TEXT}},
    "vertex": {"instances": [{"prompt": TEXT}]},
    "an unknown member": {"question": TEXT},
    "an unknown part": user({"type": "hologram", "caption": {"de": [TEXT]}}),
    "an unknown list": {"facts": [{"a": TEXT}]},
    "a text in a picture's place": user({"type": "image_url", "image_url": {"url": TEXT}}),
    "another case": {"Messages": [{"Content": TEXT}]},
    "a setting in another case": {"Metadata": {"a": TEXT}},
    "an app's own, under a setting's name": {"user": TEXT},
    "an app's own messages, under a setting's name": {"conversation": [{"role": "user", "content": TEXT}]},
    "an app's own object, under a setting's name": {"metadata": {"a": [TEXT, "a" * 20_000]}},
}


@pytest.mark.parametrize("body", TEXTS.values(), ids=TEXTS)
def test_text_is_counted_wherever_an_api_keeps_it(body):
    assert 500 <= estimate(body).input_tokens <= 500 + 20


MEDIA = {
    "chat": user({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}),
    "chat, sound": user({"type": "input_audio", "input_audio": {"data": PICTURE, "format": "wav"}}),
    "chat, a file": user({"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PICTURE}"}}),
    "responses": item(role="user", content=[{"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}"}]),
    "responses, a file": item(role="user", content=[{"type": "input_file", "file_data": PICTURE}]),
    "responses, a drawn picture": item(type="image_generation_call", result=PICTURE),
    "responses, a screen": item(
        type="computer_call_output", output={"type": "computer_screenshot", "image_url": PICTURE}
    ),
    "responses, a function's picture": item(
        type="function_call_output", output=[{"type": "input_image", "image_url": PICTURE}]
    ),
    "anthropic": user({"type": "image", "source": SOURCE}),
    "anthropic, a PDF": user({"type": "document", "source": SOURCE}),
    "anthropic, in a tool's result": user({"type": "tool_result", "content": [{"type": "image", "source": SOURCE}]}),
    "ollama": {"prompt": "", "images": [PICTURE]},
    "ollama, a message": {"messages": [{"role": "user", "content": "", "images": [PICTURE]}]},
    "gemini": {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": PICTURE}}]}]},
    "gemini, in snake case": {"contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": PICTURE}}]}]},
    "gemini, a stored file": {"contents": [{"parts": [{"fileData": {"fileUri": "https://example.com/a"}}]}]},
    "converse": user({"image": {"format": "png", "source": {"bytes": PICTURE}}}),
    "converse, a document": user({"document": {"format": "pdf", "name": "a", "source": {"bytes": PICTURE}}}),
    "converse, in a tool's result": user(
        {"toolResult": {"content": [{"image": {"format": "png", "source": {"bytes": PICTURE}}}]}}
    ),
}


def in_base64(first):
    return base64.b64encode(first + bytes(range(256)) * 400).decode()


PNG = in_base64(b"\x89PNG\r\n\x1a\n")
ADDRESS = f"data:image/png;base64,{PICTURE}"
OWN_MEDIA = {
    "an address": {"prompt": "what", "picture": ADDRESS},
    "base64": {"prompt": "what", "image_base64": PNG},
    "a list": {"prompt": "what", "init_images": [PNG]},
    "lists in a list": {"prompt": "what", "frames": [[PNG]]},
    "an object": {"prompt": "what", "picture": {"mime": "image/png", "bytes": PNG}},
    "objects in a list": {"prompt": "what", "attachments": [{"name": "a", "data": PNG}]},
    "objects in a list, and a role": {"attachments": [{"role": "user", "data": PNG}]},
    "a setting's name": {"metadata": {"thumbnail": PNG}, "user": "a" * 100},
    "an address in a setting's place": {"url": ADDRESS},
    "a message": {"messages": [{"role": "user", "content": "what", "img": PNG}]},
    "a message's object": {"messages": [{"role": "user", "content": "what", "attachment": {"data": PNG}}]},
    "a message's list": {"messages": [{"role": "user", "content": "what", "pictures": [PNG]}]},
    "a part": user({"type": "picture", "data": ADDRESS}),
    "a part's objects": user({"type": "picture", "sizes": [{"large": PNG}]}),
}
OWN_MEDIA |= {
    f"a {name}": {"upload": in_base64(first)}
    for name, first in {
        "JPEG": b"\xff\xd8\xff\xe0",
        "GIF": b"GIF89a",
        "WebP": b"RIFF\x00\x00\x00\x00WEBP",
        "PDF": b"%PDF-1.7",
        "MP3": b"ID3\x04",
        "MP4": b"\x00\x00\x00\x20ftyp",
        "FLAC": b"fLaC",
        "TIFF": b"II*\x00",
        "WebM": b"\x1aE\xdf\xa3",
    }.items()
}


@pytest.mark.parametrize("body", OWN_MEDIA.values(), ids=OWN_MEDIA)
def test_medium_under_a_name_of_an_app_s_own_has_the_flat_price(body):
    found = estimate_request(body, counter=open_counter(), default_output_tokens=1).usage.input_tokens
    assert IMAGE_TOKENS <= found <= IMAGE_TOKENS + 40


def test_each_medium_of_an_app_s_own_is_paid():
    assert estimate({"init_images": [PNG, PNG], "mask": PNG}).input_tokens == 3 * IMAGE_TOKENS


MESSAGE = {"role": "user"}
TEXT_THAT_LOOKS_LIKE_A_MEDIUM = {
    "a prompt": {"prompt": PNG},
    "an input": {"input": [PNG]},
    "a message": {"messages": [{**MESSAGE, "content": PNG}]},
    "a part": user({"type": "text", "text": ADDRESS}),
    "content at the top": {"content": PNG},
    "text after an address": {"question": "data:;base64," + "one two three " * 10_000},
    "text after base64": {"question": PNG + " one two three" * 10_000},
    "text beside a medium": {"picture": {"a": PNG, "b": "one two three " * 10_000}},
    "text beside a medium in a message": {"messages": [{**MESSAGE, "a": {"b": [PNG, "one two three " * 10_000]}}]},
    "numbers beside a medium": {"messages": [{**MESSAGE, "a": {"b": PNG, "c": list(range(30_000))}}]},
}


@pytest.mark.parametrize("body", TEXT_THAT_LOOKS_LIKE_A_MEDIUM.values(), ids=TEXT_THAT_LOOKS_LIKE_A_MEDIUM)
def test_text_is_no_medium_by_its_beginning_or_its_company(body):
    assert estimate_request(body, counter=open_counter(), default_output_tokens=1).usage.input_tokens > 25_000


ENCRYPTED = {
    "reasoning": item(type="reasoning", summary=[], encrypted_content=PICTURE),
    "a compaction": item(type="compaction", encrypted_content=PICTURE),
    "redacted thinking": user({"type": "redacted_thinking", "data": PICTURE}),
    "a web search": user({"type": "web_search_tool_result", "content": [{"encrypted_content": PICTURE}]}),
    "a citation": user({"type": "text", "citations": [{"type": "x", "encrypted_index": PICTURE}]}),
    "redacted reasoning of Bedrock's": user({"reasoningContent": {"redactedContent": PICTURE}}),
}


@pytest.mark.parametrize("body", ENCRYPTED.values(), ids=ENCRYPTED)
def test_what_is_encrypted_costs_no_more_than_a_medium(body):
    found = estimate_request(body, counter=open_counter(), default_output_tokens=1).usage.input_tokens
    assert IMAGE_TOKENS <= found <= IMAGE_TOKENS + 40


def test_little_that_is_encrypted_costs_its_length():
    assert estimate(item(type="reasoning", encrypted_content="QUJD" * 100)).input_tokens == 200 + 3 + 3


@pytest.mark.parametrize("body", MEDIA.values(), ids=MEDIA)
def test_pictures_sounds_and_files_have_a_flat_price_and_are_not_read(body):
    assert IMAGE_TOKENS <= estimate(body).input_tokens <= IMAGE_TOKENS + 20


def test_text_beside_a_picture_is_counted_too():
    body = user({"type": "image", "source": SOURCE, "caption": TEXT})
    assert IMAGE_TOKENS + 500 <= estimate(body).input_tokens <= IMAGE_TOKENS + 520


OUTPUTS = {
    "chat": ({"max_tokens": 7, "n": 3}, 21),
    "responses": ({"max_output_tokens": 7}, 7),
    "anthropic, the older": ({"max_tokens_to_sample": 7}, 7),
    "ollama": ({"options": {"num_predict": 7}}, 7),
    "ollama without a maximum": ({"options": {"num_predict": -1}}, 100),
    "gemini": ({"generationConfig": {"maxOutputTokens": 7, "candidateCount": 3}}, 21),
    "gemini, in snake case": ({"generation_config": {"max_output_tokens": 7, "candidate_count": 3}}, 21),
    "converse": ({"inferenceConfig": {"maxTokens": 7}}, 7),
    "converse, a model's own": ({"additionalModelRequestFields": {"max_tokens": 7}}, 7),
    "titan": ({"textGenerationConfig": {"maxTokenCount": 7}}, 7),
    "llama on bedrock": ({"max_gen_len": 7}, 7),
    "cohere, generate": ({"max_tokens": 7, "num_generations": 3}, 21),
    "text generation": ({"inputs": "a", "parameters": {"max_new_tokens": 7, "best_of": 3}}, 21),
    "pipelines": ({"inputs": "a", "parameters": {"max_new_tokens": 7, "num_return_sequences": 3}}, 21),
    "llama.cpp": ({"n_predict": 7}, 7),
    "vllm": ({"extra_body": {"max_tokens": 7}}, 7),
    "sglang": ({"text": "a", "sampling_params": {"max_new_tokens": 7}}, 7),
    "vertex": ({"instances": [{"prompt": "a"}, {"prompt": "b"}], "parameters": {"maxOutputTokens": 7}}, 14),
    "a message batch": ({"requests": [{"params": {"max_tokens": 7}}, {"params": {"max_tokens": 8}}]}, 100),
    "a large message batch": ({"requests": [{"params": {"max_tokens": 70}}, {"params": {"max_tokens": 80}}]}, 150),
    "a batch without maxima": ({"requests": [{"params": {}}, {"params": {}}]}, 200),
}


@pytest.mark.parametrize(("body", "expected"), OUTPUTS.values(), ids=OUTPUTS)
def test_output_is_found_wherever_an_api_keeps_its_maximum(body, expected):
    assert estimate(body).output_tokens == expected


EDITS = [{"type": "clear_tool_uses", "trigger": {"type": "input_tokens", "value": 3}}, {"type": "clear_thinking"}]
NO_BATCHES = {
    "anthropic, context management": {"context_management": {"edits": EDITS}},
    "openrouter, plugins": {"plugins": [{"id": "web", "max_results": 3}, {"id": "file-parser", "pdf": {}}]},
    "openai, a prediction": {"prediction": {"type": "content", "content": [{"type": "text", "text": "a"}] * 2}},
    "a history": {"history": [{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]},
    "contexts": {"contexts": [{"title": "a", "body_text": "b"}, {"title": "c", "body_text": "d"}]},
}


@pytest.mark.parametrize("body", NO_BATCHES.values(), ids=NO_BATCHES)
def test_list_of_objects_that_ask_for_nothing_multiplies_no_maximum(body):
    assert estimate({"max_tokens": 60_000, **body}).output_tokens == 60_000
    assert estimate(body).output_tokens == 100


UNKNOWN_BATCHES = {
    "maxima": {"jobs": [{"max_tokens": 5000}, {"max_tokens": 4000}]},
    "maxima in another case": {"jobs": [{"Max_Tokens": 5000}, {"MAX_TOKENS": 4000}]},
    "maxima deep inside": {"jobs": [{"job": {"its": {"max_tokens": 5000}}}, {"job": {"max_tokens": 4000}}]},
    "maxima in lists": {"jobs": [{"steps": [{"max_tokens": 5000}]}, {"steps": [{"max_tokens": 4000}]}]},
    "a maximum beside a type": {"jobs": [{"type": "x", "max_tokens": 9000}, {"type": "y"}]},
}


@pytest.mark.parametrize("body", UNKNOWN_BATCHES.values(), ids=UNKNOWN_BATCHES)
def test_list_of_objects_that_ask_is_a_batch_under_any_name(body):
    assert estimate(body).output_tokens >= 9000


def test_prompts_in_objects_under_any_name_are_a_batch():
    assert estimate({"jobs": [{"prompt": "a"}, {"messages": [{"role": "user", "content": "b"}]}]}).output_tokens == 200


def test_a_tool_s_property_is_no_maximum():
    tool = {"name": "f", "input_schema": {"properties": {"max_tokens": {"type": "integer", "default": 9000}}}}
    used = {"type": "tool_use", "name": "f", "input": {"max_tokens": 9000}}
    assert estimate({"tools": [tool], **user(used)}).output_tokens == 100


def test_beyond_a_megabyte_of_text_the_length_is_charged():
    text = "the cat sat on it " * 200_000
    found = estimate_request({"prompt": text}, counter=open_counter(), default_output_tokens=1).usage.input_tokens
    assert found > (len(text) - 2**20) // 2


def test_every_row_names_its_source():
    assert all(shape.source.startswith("https://") for shape in (*REQUESTS, *PARTS))
