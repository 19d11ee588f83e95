"""The parts of a ``multipart/form-data`` body (RFC 7578), found in memory and in bounded time."""

import re
from typing import Any

from werkzeug.http import parse_options_header

from flask_ailimit.tokens.media import is_json, text_in
from flask_ailimit.tokens.readings import TooMuchToRead, fields_of, text_of

MOST_PARTS = 1000
"""The default of Flask's ``MAX_FORM_PARTS``."""

_LONGEST_HEAD = 1024
_END_OF_HEAD = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_FOLDED_LINE = re.compile(rb"(?:\r\n|\n|\r)[ \t]")
_LINE = re.compile(rb"\r\n|\n|\r")


def read_parts(raw: bytes, boundary: str) -> tuple[dict[str, Any], int]:
    """Return the fields, and the number of bytes in files that are neither text nor JSON.

    This splits at more places than Werkzeug does. A part that has no name because of that counts as text.

    Raises:
        TooMuchToRead: There are more parts than an app would take, or a part's headers are too long.
    """
    parts = raw.split(b"--" + boundary.encode("utf-8", "replace"), MOST_PARTS + 1) if boundary else [raw]
    if len(parts) > MOST_PARTS:
        raise TooMuchToRead
    pairs: list[tuple[str, str]] = []
    file_bytes = 0
    for part in parts:
        name, kind, is_file, content = _read_part(part)
        text = text_in(content, kind) if is_file and not is_json(kind) else text_of(content)
        if text is None:
            file_bytes += len(content)
        elif content:
            pairs.append(("" if is_file and not is_json(kind) else name, text))
    return fields_of(pairs), file_bytes


def _read_part(part: bytes) -> tuple[str, str, bool, bytes]:
    """Name, media type, whether it is a file, and the content."""
    end = _END_OF_HEAD.search(part, 0, _LONGEST_HEAD)
    if end is None and len(part) > _LONGEST_HEAD:
        raise TooMuchToRead
    if end is None:
        return "", "", False, part.strip(b"-\r\n")
    headers: dict[str, str] = {}
    for line in _LINE.split(_FOLDED_LINE.sub(b" ", part[: end.start()])):
        name, _, value = line.decode("utf-8", "replace").partition(":")
        headers.setdefault(name.strip().lower(), value.strip())  # If a name comes twice, Werkzeug uses the first.
    _, options = parse_options_header(headers.get("content-disposition", ""))
    kind, _ = parse_options_header(headers.get("content-type", ""))
    return (
        options.get("name", ""),
        kind.lower(),
        "filename" in options,
        part[end.end() :].removesuffix(b"\n").removesuffix(b"\r"),
    )
