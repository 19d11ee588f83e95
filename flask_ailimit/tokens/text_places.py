"""Under which names the APIs have what a model wrote, and what stands beside it."""

import re

GENERATED = frozenset(
    {
        "arguments",
        "audio",
        "candidates",
        "choices",
        "completion",
        "content",
        "contentBlockDelta",
        "contentBlockStart",
        "data",
        "delta",
        "executableCode",
        "function",
        "functionCall",
        "function_call",
        "generated_text",
        "generation",
        "generations",
        "message",
        "output",
        "outputText",
        "partial_json",
        "parts",
        "reasoning",
        "reasoningContent",
        "reasoningText",
        "reasoning_content",
        "refusal",
        "response",
        "result",
        "results",
        "revised_prompt",
        "start",
        "summary",
        "text",
        "thinking",
        "token",
        "toolUse",
        "tool_calls",
        "tool_plan",
        "transcript",
    }
)
# Under these names an object may hold text. A string there is an id, a remark or bytes in base64.
ONLY_OBJECTS = frozenset({"audio", "data", "message", "result", "results", "start", "summary", "token"})
METADATA = frozenset(
    {
        "created",
        "created_at",
        "error",
        "event",
        "finish_reason",
        "id",
        "model",
        "object",
        "role",
        "status",
        "stop_reason",
        "type",
    }
)
# What stands beside text in the answers and events of known APIs, and what a model was given and did not write.
BESIDE_TEXT = METADATA | {
    "annotations",
    "audio",
    "call_id",
    "citation",
    "citationMetadata",
    "citations",
    "codeExecutionResult",
    "content_filter_offsets",
    "content_filter_results",
    "createTime",
    "details",
    "documents",
    "done_reason",
    "encrypted_content",
    "event_type",
    "expires_at",
    "fileData",
    "finishMessage",
    "finishReason",
    "functionResponse",
    "generation_id",
    "generation_settings",
    "groundingMetadata",
    "inlineData",
    "item_id",
    "logprobs",
    "logprobsResult",
    "matched_stop",
    "meta",
    "metadata",
    "metrics",
    "modelVersion",
    "native_finish_reason",
    "obfuscation",
    "owned_by",
    "p",
    "prompt",
    "promptFeedback",
    "prompt_filter_results",
    "prompt_logprobs",
    "provider",
    "redactedContent",
    "remote_host",
    "remote_model",
    "responseId",
    "response_id",
    "safetyRatings",
    "search_results",
    "service_tier",
    "signature",
    "stopReason",
    "stop_sequence",
    "stop_type",
    "stopping_word",
    "system_fingerprint",
    "thoughtSignature",
    "thought_signature",
    "timings",
    "toolUseId",
    "tool_call_id",
    "tool_use_id",
    "urlContextMetadata",
    "usage",
    "usageMetadata",
    "usage_metadata",
    "x_groq",
}
# Items that a model was given back, or that are encrypted.
NOT_WRITTEN = re.compile(r"(?:.*_)?tool_result$|.*_call_output$|redacted_thinking$|reasoning\.encrypted$")
# Of these items, the members with what came out.
RESULTS = {
    "code_interpreter_call": ("outputs",),
    "file_search_call": ("results",),
    "image_generation_call": ("action", "background", "output_format", "quality", "result", "size"),
    "mcp_call": ("output",),
}
ANSWERS = ("candidates", "choices", "content", "generations", "message", "output")
TOOL_CALLS = frozenset({"custom_tool_call", "mcp_tool_use", "server_tool_use", "tool_use"})

# Events that carry sound or a picture, or that say once more what the deltas before them said.
WITHOUT_TEXT = re.compile(
    r"response(?:\..*)?\.(?:added|cancelled|completed|created|done|failed|generating|in_progress|incomplete|interpreting"
    r"|partial_image|queued|searching)$|response\.(?:output_)?audio\.delta$|transcript\.text\.done$"
    r"|speech\.audio\.|image_(?:edit|generation)\.|stream-end$"
)
REPEATS = re.compile(r"thread(?!.*\.delta$)")  # Objects of the Assistants API, told apart by their "object".
