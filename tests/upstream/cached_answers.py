"""Calls and answers for the tests of the cache, and programs that use one file from processes of their own."""

import json
import subprocess
import sys
from contextlib import contextmanager

from flask_ailimit.testing import ManualClock
from flask_ailimit.upstream.cache import AnswerCache, StoredAnswer
from flask_ailimit.upstream.cache_key import question_of

SECRET = b"a secret of all processes"
CHAT = "/v1/chat/completions"
HEADERS = {"Authorization": "Bearer key-of-the-account", "Content-Type": "application/json"}
BODY = {"model": "small", "temperature": 0, "messages": [{"role": "user", "content": "What is the answer?"}]}
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


def asked(body=BODY, *, path=CHAT, headers=HEADERS, account="main", tenant="alice", method="POST", **options):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return question_of(method, path, headers, raw, account=account, tenant=tenant, **options)


def numbered(number, **options):
    return asked({**BODY, "seed": number}, **options)


def chat(text="Forty-two.", **members):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, **members}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "small", "choices": [choice]}


def answer(text="Forty-two.", *, headers=JSON):
    return StoredAnswer(200, headers, json.dumps(chat(text)).encode())


def manual_clock():
    return ManualClock(1_700_000_000_000_000)


@contextmanager
def opened(file, **options):
    cache = AnswerCache(file, **{"secret": SECRET, "max_age": 3600, "max_bytes": 8 << 20, **options})
    try:
        yield cache
    finally:
        cache.close()


def files_of(file):
    """The file with those that SQLite has beside it."""
    return [each for each in file.parent.iterdir() if each.name.startswith(file.name)]


PROGRAM = """
import os, sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
from cached_answers import *
file = Path(sys.argv[1])
"""


def started(file, code):
    """A process of its own that runs the code, with the name of the file in ``file``."""
    program = PROGRAM.format(paths=sys.path) + code
    command = [sys.executable, "-W", "error", "-c", program, str(file)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ran(file, code):
    process = started(file, code)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return printed
