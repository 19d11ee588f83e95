"""Lines to copy: the same on the page, in the terminal and in the README."""

import json
import shlex
from collections.abc import Mapping
from typing import NamedTuple

PROMPT = "Name three colours."
YOUR_KEY = "YOUR-KEY"
"""Stands for a key that is not published."""


class Line(NamedTuple):
    """A line for a shell.

    Attributes:
        does: What it does.
        text: The line.
    """

    does: str
    text: str


def curl_lines(
    url: str, key: str | None, options: str = "", *, refused: str | None = None, penny: str | None = None
) -> list[Line]:
    """Lines for a shell. They use no option that a curl older than 7.53 (2017) lacks.

    Args:
        url: Where the demo listens, such as ``http://127.0.0.1:8000``.
        key: A published key, or None.
        options: More options for curl, such as ``--unix-socket /run/demo.sock``.
        refused: A model that the key's plan doesn't have; None for no line about it.
        penny: A published key whose budget some calls spend; None for no line about it.
    """
    curl = f"curl {options} " if options else "curl "
    auth = _auth(key or YOUR_KEY)

    def ask(path: str = "/predict", **body: object) -> str:
        return _posting(url + path, auth, body)

    until_refused = (
        f"for i in 1 2 3 4 5 6 7 8 9 10 11; do {curl}-si {ask(prompt='Hi', max_tokens=1)} "
        "| grep -iE '^(HTTP|Retry-After)'; done"
    )
    chat = {"model": refused, "messages": [{"role": "user", "content": PROMPT}]}
    not_in_plan = Line("Ask for a model that the plan doesn't have", f"{curl}-i {ask('/v1/chat/completions', **chat)}")
    lines = [
        Line("Ask the model, and see the limit headers", f"{curl}-i {ask(prompt=PROMPT, max_tokens=32)}"),
        Line("Ask for the answer in pieces", f"{curl}-iN {ask(prompt='Tell a story.', stream=True)}"),
        Line("See what the key has left", f"{curl}{shlex.quote(url + '/usage')} {auth}"),
        *([not_in_plan] if refused else []),
    ]
    if penny is not None:
        story = _posting(f"{url}/predict", _auth(penny), {"prompt": "Tell a story."})
        spend = f"for i in 1 2 3; do {curl}-si {story} | grep -iE '^(HTTP|x-should-retry)|insufficient_quota'; done"
        lines.append(Line("Ask until the budget of a day is spent, and see the answer that no SDK retries", spend))
    return [
        *lines,
        Line("Ask until you are refused, and see how long to wait", until_refused),
    ]


def _auth(key: str) -> str:
    return f"-H {shlex.quote(f'Authorization: Bearer {key}')}"


def _posting(url: str, auth: str, body: Mapping[str, object]) -> str:
    return f"{shlex.quote(url)} {auth} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"


def openai_lines(url: str, key: str | None, model_name: str) -> str:
    """A program for OpenAI's SDK (``pip install openai``)."""
    return f"""\
from openai import OpenAI

client = OpenAI(base_url="{url}/v1", api_key="{key or YOUR_KEY}")
messages = [{{"role": "user", "content": "{PROMPT}"}}]
answer = client.chat.completions.create(model="{model_name}", messages=messages)
print(answer.choices[0].message.content)
"""


def anthropic_lines(url: str, key: str | None, model_name: str) -> str:
    """A program for Anthropic's SDK (``pip install anthropic``)."""
    return f"""\
from anthropic import Anthropic

client = Anthropic(base_url="{url}", api_key="{key or YOUR_KEY}")
messages = [{{"role": "user", "content": "{PROMPT}"}}]
answer = client.messages.create(model="{model_name}", messages=messages, max_tokens=64)
print(answer.content[0].text)
"""
