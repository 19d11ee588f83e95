"""Good answers as Anthropic's API writes them."""

from collections.abc import Mapping
from typing import Any

from .server_sent import event
from .words import Piece, Said

_STOP = {"stop": "end_turn", "length": "max_tokens", "filter": "refusal"}


def message(said: Said, body: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG001  as all answers
    """Answer ``/messages``."""
    told = said.usage
    usage = {} if told is None else {"usage": {"input_tokens": told[0], "output_tokens": told[1]}}
    content = [{"type": "text", "text": "".join(said.words)}]
    return _begun(said) | {"content": content, "stop_reason": _STOP[said.finish]} | usage


def message_events(said: Said, body: Mapping[str, Any]) -> list[Piece]:  # noqa: ARG001
    """Answer ``/messages`` as a stream, an event a word."""
    told = said.usage
    before = {} if told is None else {"usage": {"input_tokens": told[0], "output_tokens": min(1, told[1])}}
    after: dict[str, Any] = {} if told is None else {"usage": {"output_tokens": told[1]}}
    delta = {"stop_reason": _STOP[said.finish], "stop_sequence": None}
    return [
        _named("message_start", message=_begun(said) | before),
        _named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        _named("ping"),
        *(_named("content_block_delta", 1, index=0, delta={"type": "text_delta", "text": word}) for word in said.words),
        _named("content_block_stop", index=0),
        _named("message_delta", delta=delta, **after),
        _named("message_stop"),
    ]


def _begun(said: Said) -> dict[str, Any]:
    return {
        "id": f"msg_{said.number}",
        "type": "message",
        "role": "assistant",
        "model": said.asked.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _named(name: str, tokens: int = 0, /, **data: Any) -> Piece:
    return event({"type": name} | data, name, tokens=tokens)
