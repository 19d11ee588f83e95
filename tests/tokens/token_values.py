"""JSON values of every shape, rich in the field names that the readers know."""

from hypothesis import strategies as st

NAMES = [
    "arguments",
    "best_of",
    "choices",
    "content",
    "delta",
    "detail",
    "eval_count",
    "function",
    "functions",
    "image_url",
    "input",
    "input_tokens",
    "instructions",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "message",
    "messages",
    "n",
    "name",
    "output",
    "output_tokens",
    "prompt",
    "prompt_tokens",
    "reasoning",
    "reasoning_content",
    "response",
    "response_format",
    "role",
    "source",
    "suffix",
    "summary",
    "system",
    "text",
    "thinking",
    "tool_calls",
    "tools",
    "type",
    "usage",
]
KINDS = ["text", "image", "image_url", "tool_use", "document", "input_audio", "message_start", "response.completed"]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.sampled_from(KINDS)
    | st.text(st.characters(exclude_categories=()), max_size=20)
)
json_values = st.recursive(
    scalars,
    lambda values: (
        st.lists(values, max_size=4)
        | st.lists(st.integers(0, 200_000), max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), values, max_size=5)
    ),
    max_leaves=25,
)
