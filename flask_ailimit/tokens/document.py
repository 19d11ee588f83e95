"""What is in an answer that is one JSON document: its text, and its report."""

from typing import Any

from .envelope import is_known
from .messages import Messages
from .output import json_text, read_list_text, read_output_text
from .partial import completed
from .payload import decode_json
from .report import find_reports
from .tier import find_tier


def read_document(messages: Messages, body: bytes, *, promised: bool, believes_reports: bool) -> bool:
    """Put a document, or the beginning of one, into ``messages``. Answers whether it was read; nothing raises.

    Args:
        messages: Takes what the document says and reports.
        body: All of it, or what has come.
        promised: Whether the media type says that it is JSON. Else it must have a provider's members, or it is what a
            model wrote.
        believes_reports: Whether reports are looked at.
    """
    text = body.decode("utf-8", "replace")
    value = decode_json(text)
    whole = value is not None
    if value is None and text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        value = decode_json(completed(text))
    if isinstance(value, list) and any(_is_known(item) for item in value):
        for item in value:
            if isinstance(item, dict):
                messages.take_event(item)
        return True
    known = _is_known(value)
    if not known and not promised:
        return False
    if isinstance(value, dict):
        said = read_output_text(value) if known or believes_reports else json_text(value)
        found, tier = (find_reports(value), find_tier(value)) if believes_reports else ({}, "")
        messages.take_document(said, found, whole=whole, tier=tier)
    elif isinstance(value, list):
        messages.take_document(read_list_text(value), {}, whole=whole)
    else:
        messages.take_document(value if isinstance(value, str) else text, {}, whole=whole)
    return True


def _is_known(item: Any) -> bool:
    return isinstance(item, dict) and is_known(item)
