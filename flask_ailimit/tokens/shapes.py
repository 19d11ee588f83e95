"""Where the common APIs keep text, schemas, media and maxima in a request: a row a shape, with its page as source.

A member that no row names is taken for text, so that a shape that we don't know is not free. So rows name what is no
text, and what is to be counted otherwise than a text.
"""

from typing import Final, NamedTuple

# What a member is to its reader. Not an Enum, whose members take four times as long to look up.
MAXIMUM: Final = "maximum"
"""The most output tokens of one choice."""

CHOICES: Final = "choices"
"""How many answers are generated."""

PROMPTS: Final = "prompts"
"""Text; of a list of texts or of lists of token ids each is a prompt of its own."""

MESSAGES: Final = "messages"
"""Text in messages, which cost something besides."""

TEXT: Final = "text"
"""Texts, token ids and parts."""

JSON: Final = "json"
"""Written as JSON, as a model gets it."""

MEDIA: Final = "media"
"""Pictures, sounds and files, at a flat price."""

ENCRYPTED: Final = "encrypted"
"""What only the provider can read: the price of its length, and at most the flat price of a medium."""

DATA: Final = "data"
"""Bytes or an address of a medium, if the part is one."""

NESTED: Final = "nested"
"""More members of the same request."""

BATCH: Final = "batch"
"""Requests, each with a maximum of its own."""

MODEL: Final = "model"
"""The model's name."""

SETTING: Final = "setting"
"""Nothing that a model reads."""


class Shape(NamedTuple):
    """One API's members, by role, and the page that says so."""

    api: str
    source: str
    members: dict[str, str]


REQUESTS: Final = (
    Shape(
        "OpenAI chat completions and completions",
        "https://platform.openai.com/docs/api-reference/chat/create",
        {
            MAXIMUM: "max_tokens max_completion_tokens",
            CHOICES: "n best_of",
            PROMPTS: "prompt",
            MESSAGES: "messages",
            JSON: "functions response_format tools",
            MEDIA: "audio image",
            SETTING: "function_call include logit_bias metadata modalities prompt_cache_key reasoning_effort "
            "safety_identifier service_tier stop stream_options tool_choice user verbosity",
        },
    ),
    Shape(
        "OpenAI Responses, with stored prompts",
        "https://platform.openai.com/docs/api-reference/responses/create",
        {
            MAXIMUM: "max_output_tokens",
            MESSAGES: "input",
            JSON: "text",
            TEXT: "instructions variables",
            SETTING: "conversation id include previous_response_id reasoning truncation version",
        },
    ),
    Shape(
        "OpenAI embeddings, and batch lines",
        "https://platform.openai.com/docs/guides/batch",
        {NESTED: "body", SETTING: "custom_id encoding_format method url"},
    ),
    Shape(
        "Anthropic Messages, message batches, and the older Text Completions",
        "https://docs.anthropic.com/en/api/messages",
        {
            MAXIMUM: "max_tokens_to_sample",
            TEXT: "system",
            NESTED: "params",
            BATCH: "requests",
            SETTING: "anthropic_beta anthropic_version betas container mcp_servers stop_sequences thinking",
        },
    ),
    Shape(
        "Ollama",
        "https://docs.ollama.com/api/generate",
        {
            MAXIMUM: "num_predict",
            TEXT: "context suffix template",
            JSON: "format",
            MEDIA: "images",
            NESTED: "options",
            SETTING: "keep_alive think",
        },
    ),
    Shape(
        "Gemini",
        "https://ai.google.dev/api/generate-content",
        {
            MAXIMUM: "maxOutputTokens max_output_tokens",
            CHOICES: "candidateCount candidate_count",
            MESSAGES: "contents",
            TEXT: "systemInstruction system_instruction",
            JSON: "responseSchema response_schema responseJsonSchema response_json_schema toolConfig tool_config",
            NESTED: "generationConfig generation_config request",
            SETTING: "cachedContent cached_content key alt responseMimeType response_mime_type "
            "responseModalities response_modalities safetySettings safety_settings speechConfig speech_config "
            "thinkingConfig thinking_config stopSequences",
        },
    ),
    Shape(
        "Vertex AI",
        "https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.endpoints/predict",
        {BATCH: "instances"},
    ),
    Shape(
        "Imagen on Vertex AI",
        "https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api",
        {CHOICES: "sampleCount"},
    ),
    Shape(
        "Bedrock: Nova Canvas and Titan images",
        "https://docs.aws.amazon.com/nova/latest/userguide/image-gen-req-resp-structure.html",
        {CHOICES: "numberOfImages", NESTED: "imageGenerationConfig"},
    ),
    Shape(
        "Bedrock Converse",
        "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html",
        {
            MAXIMUM: "maxTokens",
            TEXT: "promptVariables",
            NESTED: "inferenceConfig additionalModelRequestFields",
            SETTING: "additionalModelResponseFieldPaths guardrailConfig modelId performanceConfig requestMetadata",
        },
    ),
    Shape(
        "Bedrock: Titan text and Meta Llama",
        "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-text.html",
        {MAXIMUM: "maxTokenCount max_gen_len", NESTED: "textGenerationConfig", PROMPTS: "inputText"},
    ),
    Shape(
        "Cohere chat, generate, rerank and embed",
        "https://docs.cohere.com/reference/chat",
        {
            CHOICES: "num_generations",
            MESSAGES: "chat_history",
            TEXT: "documents message preamble queries query texts",
            JSON: "tool_results",
            SETTING: "citation_options connectors conversation_id embedding_types input_type truncate",
        },
    ),
    Shape(
        "Text Generation Inference and Hugging Face pipelines",
        "https://huggingface.co/docs/text-generation-inference/reference/api_reference",
        {
            MAXIMUM: "max_new_tokens",
            CHOICES: "num_return_sequences",
            PROMPTS: "inputs",
            NESTED: "parameters",
            JSON: "grammar",
            SETTING: "adapter_id",
        },
    ),
    Shape(
        "llama.cpp",
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
        {MAXIMUM: "n_predict", JSON: "json_schema", CHOICES: "n_cmpl"},
    ),
    Shape(
        "vLLM and SGLang",
        "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        {
            NESTED: "extra_body sampling_params",
            JSON: "guided_grammar guided_json guided_regex structured_outputs",
            SETTING: "chat_template_kwargs",
        },
    ),
    Shape(
        "any of them",
        "https://www.rfc-editor.org/rfc/rfc8259",
        {
            MODEL: "model",
            SETTING: "api-key api-version api_key beta seed stream temperature top_k top_p",
        },
    ),
)
"""The members of a request."""

PARTS: Final = (
    Shape(
        "OpenAI chat messages and Responses items",
        "https://platform.openai.com/docs/api-reference/responses/create",
        {
            TEXT: "content custom function function_call output outputs reasoning_content refusal results role "
            "summary text thinking tool_calls",
            JSON: "action arguments input operation parameters tools",
            MEDIA: "audio file image image_file image_url input_audio input_file video video_url",
            DATA: "data file_id file_url result url",
            ENCRYPTED: "encrypted_content",
            SETTING: "approval_request_id call_id container_id detail format id index object phase status "
            "tool_call_id type",
        },
    ),
    Shape(
        "Anthropic content blocks, server tools and thinking included",
        "https://docs.anthropic.com/en/api/messages",
        {
            TEXT: "context title",
            DATA: "source",
            ENCRYPTED: "encrypted_index",
            SETTING: "cache_control media_type signature tool_use_id",
        },
    ),
    Shape(
        "Gemini parts",
        "https://ai.google.dev/api/caching",
        {
            TEXT: "parts",
            MEDIA: "fileData file_data inlineData inline_data",
            SETTING: "mimeType mime_type thoughtSignature thought_signature",
        },
    ),
    Shape(
        "Bedrock Converse content blocks",
        "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html",
        {
            TEXT: "guardContent reasoningContent reasoningText toolResult",
            ENCRYPTED: "redactedContent",
            MEDIA: "document",
            SETTING: "cachePoint toolUseId",
        },
    ),
    Shape("Ollama messages", "https://docs.ollama.com/api/chat", {MEDIA: "images"}),
    Shape("Cohere documents", "https://docs.cohere.com/reference/chat", {TEXT: "documents"}),
)
"""The members of a message, an item, or a part of one."""

MEDIA_KINDS: Final = frozenset(
    (
        "audio",
        "audio_url",
        "computer_screenshot",
        "document",
        "file",
        "image",
        "image_file",
        "image_generation_call",
        "image_url",
        "input_audio",
        "input_file",
        "input_image",
        "input_video",
        "video",
        "video_url",
    )
)
"""What ``type`` of a part says that it is a picture, a sound or a file."""

TEXT_SOURCES: Final = frozenset(("content", "text"))
"""What ``type`` of a document's source says that it is a text (Anthropic, "PDF support" and "Citations")."""


def fold(name: str) -> str:
    """The name as a reader without regard for case sees it.

    Go's ``encoding/json`` folds as Unicode does (U+212A is a k, U+017F an s), and its second version passes over
    underscores and hyphens; protobuf's JSON takes ``max_tokens`` and ``maxTokens`` alike.
    """
    short = name.replace("_", "").replace("-", "")
    return short.casefold() if len(short) <= _LONGEST else short


_LONGEST = 64


def _roles(shapes: tuple[Shape, ...]) -> dict[str, str]:
    return {name: role for shape in shapes for role, names in shape.members.items() for name in names.split()}


REQUEST_ROLES: Final = _roles(REQUESTS)
PART_ROLES: Final = _roles(PARTS)
# A setting in another case may be a text to a reader that minds the case.
FOLDED_REQUEST_ROLES: Final = {fold(name): role for name, role in REQUEST_ROLES.items() if role is not SETTING}
FOLDED_PART_ROLES: Final = {fold(name): role for name, role in PART_ROLES.items() if role is not SETTING}
