"""The usual chat request, messages of text and a maximum, read in one loop.

:func:`flask_ailimit.tokens.estimate_request` reads every request; this reads what most of them are, and says the same.
"""

from typing import Any, Final, NamedTuple

from .usage import MAX_TOKENS

MESSAGE_TOKENS: Final = 3
"""What each message adds to its text, and what priming the reply adds once; a name adds 1 more. From the OpenAI
cookbook, "How to count tokens with tiktoken" (gpt-4o, gpt-4, gpt-3.5-turbo)."""

_MAXIMA = frozenset({"max_tokens", "max_completion_tokens"})
_SWITCHES = frozenset({"temperature", "top_p", "stream", "seed"})
_NUMBERS = frozenset({int, float, bool})
_MESSAGE = frozenset({"role", "content"})


class UsualRequest(NamedTuple):
    """What a usual request asks for.

    Attributes:
        texts: What its input is.
        overhead: Tokens besides.
        maximum: Output tokens, 0 if it names no maximum.
        models: The model, if it names one.
    """

    texts: list[str]
    overhead: int
    maximum: int
    models: list[object]


def read_usual_request(body: dict[Any, Any]) -> UsualRequest | None:  # noqa: C901  one loop is the point of it
    """What a chat request asks for; None if it takes a closer look to know. Never raises.

    Args:
        body: The decoded body, without a name that stands twice.
    """
    texts: list[str] = []
    overhead = maximum = 0
    models: list[object] = []
    for name, value in body.items():
        if name == "messages" and type(value) is list and value:
            for message in value:
                if type(message) is not dict or message.keys() != _MESSAGE:
                    return None
                for text in message.values():
                    if type(text) is not str:
                        return None
                    if text:
                        texts.append(text)
            overhead = MESSAGE_TOKENS * (len(value) + 1)
        elif name in _MAXIMA and type(value) is int and 0 < value <= MAX_TOKENS:
            maximum = max(maximum, value)
        elif name == "model" and type(value) is str:
            models.append(value)
        elif name not in _SWITCHES or type(value) not in _NUMBERS:
            return None
    return UsualRequest(texts, overhead, maximum, models)
