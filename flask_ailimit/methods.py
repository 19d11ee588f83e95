"""Which limits a request's HTTP method meets, and in whose count it goes where methods are counted apart."""

from collections.abc import Sequence

from flask import Request

_STANDARD = {"CONNECT", "DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "HEAD"}
_OTHER = "OTHER"


def is_known(request: Request) -> bool:
    """Whether the method is one of RFC 9110 or RFC 5789, or of the request's route. Clients can make up any other."""
    rule = request.url_rule
    return request.method in _STANDARD or (rule is not None and request.method in (rule.methods or ()))


def counted_method(request: Request) -> str:
    """What a limit with ``per_method`` counts the request as. HEAD runs the view as GET does; made-up methods are one.

    They are answered with 404 or 405, unless the route takes every method.
    """
    if not is_known(request):
        return _OTHER
    return "GET" if request.method == "HEAD" else request.method


def meets(methods: Sequence[str] | None, request: Request) -> bool:
    """Whether a limit on these methods, in small letters, is for the request: one on GET is for HEAD too."""
    method = request.method.lower()
    return methods is None or method in methods or (method == "head" and "get" in methods)
