"""What a call asks of the model, and what the model says: a token is a word."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .fault import ToldUsage

SayText = Callable[[Mapping[str, Any]], str]
"""From a request's decoded body to the text that answers it."""

USUAL_MODEL = "fake-model"

_PROMPTS = ("messages", "input", "prompt")
_TEXTS = ("system", "instructions", *_PROMPTS, "content", "text")
_MOST = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_WORDS = re.compile(r"\s*\S+|\s+$")


class Asked(NamedTuple):
    """What is asked.

    Attributes:
        model: Its name.
        inputs: The texts of a call for embeddings, each as words; of another call all that it gives the model.
        most: Tokens that the answer may have; None if the call doesn't say.
        many: How many answers are wanted.
    """

    model: str
    inputs: list[list[str]]
    most: int | None
    many: int

    @property
    def input_tokens(self) -> int:
        """Words of the prompt, at least 1."""
        return max(1, sum(map(len, self.inputs)))


class Said(NamedTuple):
    """What the model says, before an API writes it down.

    Attributes:
        number: Of the call.
        created: Seconds since the epoch.
        words: The answer's, with the spaces between them; each is a token.
        finish: Why it ends there: ``stop``, ``length`` or ``filter``.
        told: What the answer says about usage instead of the truth.
    """

    asked: Asked
    number: int
    created: int
    words: list[str]
    finish: str
    told: ToldUsage

    @property
    def output_tokens(self) -> int:
        """Words of all answers."""
        return len(self.words) * self.asked.many

    @property
    def usage(self) -> tuple[int, int] | None:
        """Input and output tokens as the answer tells them; None if it doesn't."""
        told = self.told
        if told.is_missing:
            return None
        return (
            self.asked.input_tokens if told.input_tokens is None else told.input_tokens,
            self.output_tokens if told.output_tokens is None else told.output_tokens,
        )


class Piece(NamedTuple):
    """A part of a body that is sent at once, and how many of the answer's tokens it carries."""

    data: bytes
    tokens: int = 0


def asked_by(body: Mapping[str, Any], deployment: str | None) -> Asked:
    """What the body of a call asks."""
    model = body.get("model")
    most = [number for number in map(body.get, _MOST) if _is_count(number)]
    many = body.get("n")
    inputs = body.get("input")
    if not (isinstance(inputs, list) and all(isinstance(each, str) for each in inputs)):
        inputs = [body]
    return Asked(
        model if isinstance(model, str) else deployment or USUAL_MODEL,
        [list(_words_in(each)) for each in inputs],
        most[0] if most else None,
        many if isinstance(many, int) and _is_count(many) else 1,
    )


def repeated(body: Mapping[str, Any]) -> str:
    """The words of the prompt's last message: what the model says if nobody gives it a function."""
    prompt = next((body[name] for name in _PROMPTS if name in body), "")
    last = prompt[-1] if isinstance(prompt, list) and prompt else prompt
    return " ".join(_words_in(last)) or "Nothing."


def words_of(text: str) -> list[str]:
    """The words of an answer, with the spaces before them: joined they are the text."""
    return _WORDS.findall(text)


def _words_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from value.split()
    elif isinstance(value, int):
        yield str(value)  # A prompt may come as numbers of tokens.
    elif isinstance(value, list):
        for each in value:
            yield from _words_in(each)
    elif isinstance(value, dict):
        for name in _TEXTS:
            yield from _words_in(value.get(name))


def _is_count(number: object) -> bool:
    return type(number) is int and number > 0
