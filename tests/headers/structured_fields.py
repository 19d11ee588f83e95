"""A strict reader of the part of RFC 9651 that the RateLimit fields use: a List of Strings with parameters.

Grammar: RFC 9651, appendix C: sf-list, sf-item, parameters, sf-integer, sf-string.
"""

import re

_STRING = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
_VALUE = rf"(?:{_STRING}|-?[0-9]{{1,15}})"
_PARAMETER = re.compile(rf";\x20*([a-z*][a-z0-9_.*-]*)=({_VALUE})")
_NAME = re.compile(_STRING)
_COMMA = re.compile(r"[\x20\t]*,[\x20\t]*")


def read_list(text):
    """Answer ``[(name, {parameter: value})]``; ``ValueError`` if anything at all is not in the grammar."""
    items = []
    at = 0
    while True:
        name, at = _take(_NAME, text, at)
        parameters = {}
        while found := _PARAMETER.match(text, at):
            at = found.end()
            key, value = found.groups()
            if key in parameters:
                raise ValueError(f"{key} twice in {text!r}")
            parameters[key] = _unquoted(value) if value.startswith('"') else int(value)
        items.append((_unquoted(name), parameters))
        if at == len(text):
            return items
        _, at = _take(_COMMA, text, at)


def _take(pattern, text, at):
    found = pattern.match(text, at)
    if not found:
        raise ValueError(f"at {at} in {text!r}")
    return found.group(), found.end()


def _unquoted(text):
    return re.sub(r"\\(.)", r"\1", text[1:-1])
