"""Finds out whether a limit applies to a request's HTTP method, and the name under which the method is counted."""

from collections.abc import Sequence

from flask import Request

_STANDARD = {"CONNECT", "DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "HEAD"}
_OTHER = "OTHER"


def is_known(request: Request) -> bool:
    """Whether the method is in RFC 9110 or RFC 5789, or in the request's route. A client can invent any other."""
    rule = request.url_rule
    return request.method in _STANDARD or (rule is not None and request.method in (rule.methods or ()))


def counted_method(request: Request) -> str:
    """The method under which a limit with ``per_method`` counts the request.

    HEAD counts as GET, because it runs the same view. All invented methods are one; they are answered with 404 or 405,
    unless the route takes every method.
    """
    if not is_known(request):
        return _OTHER
    return "GET" if request.method == "HEAD" else request.method


def meets(methods: Sequence[str] | None, request: Request) -> bool:
    """Whether a limit on these methods, in lower case, applies to the request. One on GET applies to HEAD, too."""
    return methods is None or is_on(methods, request.method)


def is_on(methods: Sequence[str] | None, method: str) -> bool:
    """Whether a limit on these methods, in lower case, applies to a method. One on GET applies to HEAD, too."""
    method = method.lower()
    return methods is None or method in methods or (method == "head" and "get" in methods)
