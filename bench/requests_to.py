"""Requests to an app in this process, without a server: the WSGI call alone."""

import io
import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from werkzeug.test import EnvironBuilder

SUBJECTS = 100
PROMPT_BYTES = 4096

_SENTENCE = "Under the old bridge three boats wait for the tide, and nobody remembers who owns the smallest one. "
_PROMPT = (_SENTENCE * (PROMPT_BYTES // len(_SENTENCE) + 1))[: PROMPT_BYTES - 9]
_BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "00000000 " + _PROMPT}], "max_tokens": 256})
_HEAD, _, _TAIL = _BODY.encode().partition(b"00000000")


def bodies() -> Iterable[bytes]:
    """Bodies with a prompt of 4 KB, no two alike, so that nothing can remember what it counted before."""
    for number in itertools.count():
        yield b"%b%08d%b" % (_HEAD, number, _TAIL)


def caller(app: Flask, path: str = "/predict") -> Callable[[], None]:
    """A function that sends one request and reads the answer, as each of 100 users in turn.

    Raises:
        RuntimeError: The answer was not 200; a refusal or an error would cost less than the work.
    """
    each, body = itertools.cycle(environs(path)), iter(bodies())

    def start_response(status: str, _headers: Any, _error: Any = None) -> None:
        if not status.startswith("200"):
            raise RuntimeError(f"{app.name} answered {status}.")

    def call() -> None:
        answer = app({**next(each), "wsgi.input": io.BytesIO(next(body))}, start_response)
        for _ in answer:
            pass
        answer.close()

    return call


def status_of(app: Flask, times: int, path: str = "/predict") -> str:
    """The status of the last of several requests of one user."""
    seen = []
    environ, body = next(iter(environs(path))), iter(bodies())
    for _ in range(times):
        answer = app({**environ, "wsgi.input": io.BytesIO(next(body))}, lambda status, *_: seen.append(status))
        answer.close()
    return seen[-1]


def environs(path: str = "/predict") -> list[dict[str, Any]]:
    """One request of each user, without its body."""
    return [
        EnvironBuilder(
            path=path,
            method="POST",
            input_stream=io.BytesIO(_BODY.encode()),
            content_length=len(_BODY),
            content_type="application/json",
            headers={"Authorization": f"Bearer key-{number}"},
        ).get_environ()
        for number in range(SUBJECTS)
    ]
