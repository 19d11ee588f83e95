"""What a media type says of a body, and what its bytes say besides."""

from .readings import text_of

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

JSON_LINES = frozenset(
    (
        "application/jsonl",
        "application/jsonlines",
        "application/ndjson",
        "application/stream+json",
        "application/x-jsonlines",
        "application/x-ndjson",
    )
)
_JSON = JSON_LINES | {"application/json", "application/json-seq", "text/json"}
_TEXT = frozenset(
    (
        "application/ecmascript",
        "application/graphql",
        "application/javascript",
        "application/sql",
        "application/toml",
        "application/typescript",
        "application/x-javascript",
        "application/x-sh",
        "application/x-yaml",
        "application/xml",
        "application/xml-dtd",
        "application/yaml",
    )
)


def is_json(media_type: str) -> bool:
    """Whether a body of this type is sent as JSON, or as JSON lines."""
    return media_type in _JSON or media_type.endswith("+json")


def text_in(content: bytes, media_type: str) -> str | None:
    """The content as a text, or None if it is a medium.

    The type doesn't choose the price: what is UTF-8 to its end is a text under any. Real pictures, sounds and files
    have bytes that are not. Control characters are no sign of a medium: a client could put one before its text.

    Raises:
        TooMuchToRead: It is sent as text, is long, and is not UTF-8.
    """
    if is_text(media_type):
        return text_of(content)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def is_text(media_type: str) -> bool:
    """Whether a body of this type is a text."""
    return media_type.startswith("text/") or media_type in _TEXT or media_type.endswith(("+xml", "+yaml"))
