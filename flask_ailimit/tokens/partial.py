"""Reading a JSON document whose end has not come."""

import re

# A string, perhaps without its end, or a bracket; what lies between needs no looking at.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_CUT_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_CUT_SCALAR = re.compile(r"[^\s\"\[\]{},:]+\Z")
_CLOSED = {"[": "]", "{": "}"}


def completed(text: str) -> str:
    """The document with what is open closed, and without a number or a word that may have been cut.

    What comes out is JSON if the text is the beginning of a JSON document. Takes time in proportion to the length.
    """
    closing: list[str] = []
    last = ""
    start = 0
    for match in _TOKEN.finditer(text):
        last, start = match.group(), match.start()
        if last in _CLOSED:
            closing.append(_CLOSED[last])
        elif last in ("]", "}") and closing:
            closing.pop()
    if last.startswith('"') and start + len(last) == len(text) and not _is_whole(last):
        text = _CUT_ESCAPE.sub("", text) if _cut_in_escape(last) else text
        text += '"'
    text = text.rstrip()
    if not text.endswith('"'):
        text = _CUT_SCALAR.sub("", text).rstrip()
    if text.endswith(":"):
        text += "null"
    elif text.endswith(","):
        text = text[:-1]
    elif text.endswith('"') and closing[-1:] == ["}"] and text[:start].rstrip().endswith(("{", ",")):
        text += ":null"
    return text + "".join(reversed(closing))


def _is_whole(string: str) -> bool:
    return len(string) > 1 and string.endswith('"') and _backslashes(string[:-1]) % 2 == 0


def _cut_in_escape(string: str) -> bool:
    cut = _CUT_ESCAPE.search(string)
    return cut is not None and _backslashes(string[: cut.start() + 1]) % 2 == 1


def _backslashes(string: str) -> int:
    return len(string) - len(string.rstrip("\\"))
