"""Between a library's requests and the steps of a call. httpx and httpx2 are alike in all that is used."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from .asking import asked_of
from .call import Call, Outgoing, Steps
from .calling import calling_now
from .refusing import Final
from .target import Target

_ENCODING = "utf-8"
"""Of headers: what came in any encoding can be written in this one."""


def outgoing_of(request: Any, body: bytes) -> Outgoing:
    """The request that a client has made."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Outgoing(request.method, str(request.url), headers, body)


def steps_of(targets: Sequence[Target], request: Outgoing) -> Steps:
    """What is to be done for it."""
    own, content_type = targets[0], request.headers.get("content-type", "")
    path, default = request.url.partition("?")[0], own.settings.default_output_tokens
    asked = asked_of(request.method, path, content_type, request.body, own.counter, default)
    return Call(targets, request, asked, calling_now()).steps()


def request_of(module: ModuleType, original: Any, came: Outgoing, sent: Outgoing) -> Any:
    """The request to send: the original one, unless something in it was changed."""
    if sent is came:
        return original
    kept = {name: value for name, value in sent.headers.items() if name != "content-length"}
    headers = module.Headers(kept, encoding=_ENCODING)
    return module.Request(sent.method, sent.url, headers=headers, content=sent.body, extensions=original.extensions)


def response_of(module: ModuleType, final: Final, request: Any) -> Any:
    """An answer with its whole body, as the library has it."""
    headers = module.Headers(list(final.headers), encoding=_ENCODING)
    return module.Response(final.status, headers=headers, stream=module.ByteStream(final.body), request=request)
