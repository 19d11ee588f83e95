"""From a decoded request to the tokens it will use, before it is served.

The bodies of the APIs in :mod:`flask_ailimit.tokens.shapes` are understood, all at once, and what is in none of them is
taken for text.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from .counter import CERTAIN_SHARE, TokenCounter, octets_of
from .numbers import count_in
from .prompt import Prompt
from .shapes import (
    BATCH,
    CHOICES,
    FOLDED_PART_ROLES,
    FOLDED_REQUEST_ROLES,
    JSON,
    MAXIMUM,
    MEDIA,
    MESSAGES,
    MODEL,
    NESTED,
    PROMPTS,
    REQUEST_ROLES,
    SETTING,
    TEXT,
    fold,
)
from .usage import MAX_TOKENS, Usage
from .usual_request import MESSAGE_TOKENS, read_usual_request

_log = logging.getLogger("flask_ailimit")

COUNTED_BYTES: Final = 1 << 20
"""Text beyond so much is charged by its length, at one token for two bytes: more than a tokenizer finds in any but the
rarest text, and nobody waits for it to be counted."""

EXACTLY_COUNTED_BYTES: Final = 1 << 18
"""The same where the counter is exact, because it takes far longer for some texts: 0.15 s for so many dashes."""

LONGEST_SETTING: Final = 1024
"""Characters of a text under a setting's name that can still be one: an address that is signed has as many."""

LONGEST_SETTINGS: Final = 16 * 1024
"""The same for a setting that is an object or a list. OpenAI's ``metadata`` may have 9 KB."""

BYTES_A_TOKEN: Final = 2
"""What text costs that is charged by its length."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request may use.

    Attributes:
        usage: What to reserve.
        least: What it asks for even if every guess was too high. If this doesn't fit a limit, it never will.
        names_maximum: Whether it says how much output it wants. If not, the default output is reserved.
        answers: How many answers it asks for, such as images: ``n`` for each prompt.
        least_answers: How many of them it asks for without any doubt.
    """

    usage: Usage
    least: Usage
    names_maximum: bool = True
    answers: int = 1
    least_answers: int = 1

    def largest(self, other: "Estimate") -> "Estimate":
        """What to reserve for a request that one reader takes for this and another for that."""
        return Estimate(
            _largest(self.usage, other.usage),
            _smallest(self.least, other.least),
            self.names_maximum and other.names_maximum,
            max(self.answers, other.answers),
            min(self.least_answers, other.least_answers),
        )


EVERYTHING: Final = Estimate(Usage(MAX_TOKENS // 2, MAX_TOKENS // 2), Usage(), answers=MAX_TOKENS, least_answers=0)
"""For a request that can't be read in reasonable time: as much as a limit has."""


def estimate_request(
    body: object,
    *,
    counter: TokenCounter,
    default_output_tokens: int,
    beside: dict[str, Any] | None = None,
    flat_tokens: int = 0,
) -> Estimate:
    """Estimate what a request with this body will use. Never raises, whatever JSON the body is.

    The output is the largest maximum that the body names, for each of ``n`` (or ``best_of``) choices and for each
    prompt in a list of them. A list of requests, as in a batch, uses what all of them use. Of a value that some readers
    take and others pass over, such as ``"100"`` or ``100.0``, or ``Max_Tokens``, the larger of it and the default
    counts. A maximum beyond 2**53 - 1 is that.

    Args:
        body: The decoded body.
        counter: Counts the text. An inexact counter gets all texts in one, joined by line breaks.
        default_output_tokens: Output of a choice if the body names no maximum. An embedding generates nothing, and its
            body can't be told from others for sure, so pass 0 on its route.
        beside: Fields that some readers look at too, such as those of the query string.
        flat_tokens: The price of what came with it and is not looked at, such as files.

    Returns:
        In ``least`` are exact counts, token ids and the client's own maximum; of an estimated count a quarter, and
        of defaults and flat prices nothing.
    """
    return estimate_with_models(body, counter, default_output_tokens, beside, flat_tokens)[0]


def estimate_with_models(
    body: object,
    counter: TokenCounter,
    default_output_tokens: int,
    beside: dict[str, Any] | None = None,
    flat_tokens: int = 0,
) -> tuple[Estimate, list[object], list[object]]:
    """The same, and every model that the request names, in any case; apart from them, those of a list of requests."""
    usual = read_usual_request(body) if type(body) is dict and not beside and not flat_tokens else None
    if usual is not None:
        counted, certain, guessed = _count(usual.texts, counter)
        estimate = Estimate(
            Usage.clamped(counted + guessed + usual.overhead, usual.maximum or default_output_tokens),
            Usage.clamped(certain, usual.maximum),
            usual.maximum > 0,
        )
        return estimate, usual.models, []
    prompt = Prompt()
    asked = _Asked(prompt)
    if isinstance(body, dict):
        asked.read(body)
    elif isinstance(body, list):
        asked.read_batch(body)
    else:
        prompt.add(body)
    if beside:
        others = _Asked(prompt)
        others.read(beside)
        asked.weigh(others)
    counted, certain, guessed = _count(prompt.texts, counter)
    flat = prompt.flat + flat_tokens + asked.overhead
    estimate = Estimate(
        Usage.clamped(counted + guessed + prompt.token_ids + flat, asked.output(default_output_tokens)),
        Usage.clamped(certain + prompt.token_ids, asked.certain_output()),
        asked.names_maximum(),
        *asked.answers(),
    )
    return estimate, asked.models, [*asked.models_of_batch()]


class _Asked:
    """The output that a request asks for, gathered while its members are read."""

    __slots__ = (
        "batch",
        "certain",
        "certain_choices",
        "choices",
        "is_request",
        "largest",
        "models",
        "models_inside",
        "models_of_messages",
        "overhead",
        "prompt",
        "prompts",
    )

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.models: list[object] = []
        self.models_inside: list[object] = []
        self.models_of_messages: list[object] = []
        self.batch: list[_Asked] = []
        self.overhead = self.largest = self.certain = 0
        self.choices = self.certain_choices = self.prompts = 1
        self.is_request = False

    def read(self, fields: dict[Any, Any]) -> None:
        """Read the members of a request; of some in one object there may be several of a name."""
        nested: list[Any] = []
        self._read(fields, nested)
        named = len(self.models)
        while nested:
            self._read(nested.pop(), nested)
        self.models_inside = self.models[named:]
        del self.models[named:]  # A model inside an object is not the request's.

    def read_batch(self, requests: list[Any], *, known: bool = True) -> None:
        """Read a list of requests, or of messages or texts that are one request.

        In a list that no API has, an object is a request only if it has a member that a request has.
        """
        if not any(map(_is_request, requests)):
            self._add_messages(requests)
            if known:  # Another reader may take them for requests.
                self.models_of_messages += _models_in(requests)
            return
        for each in requests:
            if isinstance(each, dict):
                asked = _Asked(self.prompt)
                asked.read(each)
                if known or asked.is_request or asked.batch:
                    self.batch.append(asked)
                self.overhead += asked.overhead
            else:
                self.prompt.add(each)

    def weigh(self, others: "_Asked") -> None:
        """Consider fields that some readers look at and others don't."""
        self.largest = max(self.largest, others.largest, others.certain)
        self.models += others.models
        self.choices = max(self.choices, others.choices)
        self.prompts = max(self.prompts, others.prompts)
        self.batch += others.batch
        self.models_of_messages += others.models_of_messages

    def models_of_batch(self) -> Iterator[object]:
        """Every model that is named in the requests of a batch; None for a request that names none.

        A request may be in an object (``params``, ``body``), but another reader finds no model of the request there.
        """
        yield from self.models_of_messages
        for asked in self.batch:
            yield from asked.models_inside
            yield from asked.models or ([] if asked.batch else [None])
            yield from asked.models_of_batch()

    def names_maximum(self) -> bool:
        """Whether a maximum was found, in each request of a batch."""
        if self.certain or self.largest:
            return True
        return bool(self.batch) and all(asked.names_maximum() for asked in self.batch)

    def answers(self) -> tuple[int, int]:
        """How many answers are asked for, and how many of them without any doubt. Each may be an image."""
        most, least = self.choices * self.prompts, self.certain_choices * self.prompts
        batch = [asked.answers() for asked in self.batch]
        # What stands beside the requests of a batch may be meant for each of them.
        most = max(most, self.choices * sum(each for each, _ in batch))
        least = max(least, sum(each for _, each in batch))
        return min(most, MAX_TOKENS), min(least, MAX_TOKENS)

    def output(self, default: int) -> int:
        """The most output that a reader finds. Beyond 2**53 - 1 it may be anything."""
        each = max(self.largest, self.certain or default)
        own = each * self.choices * self.prompts
        return max(own, sum(asked.output(each) for asked in self.batch)) if self.batch else own

    def certain_output(self) -> int:
        """The output that is asked for without any doubt."""
        own = self.certain * self.certain_choices * self.prompts
        return max(own, sum(asked.certain_output() for asked in self.batch)) if self.batch else own

    def _read(self, fields: dict[Any, Any], nested: list[Any]) -> None:
        certain = 0
        # Of two of a name one reader takes the first and another the last, and so one of them may find no maximum.
        one_of_a_name, doubtful = type(fields) is dict, False
        for name, value in fields.items():
            role = REQUEST_ROLES.get(name)
            if role is None:
                role = FOLDED_REQUEST_ROLES.get(fold(str(name)))
                doubtful = doubtful or role is MAXIMUM
            self.is_request = self.is_request or role in _OF_REQUESTS
            if role is SETTING:
                self._read_setting(value)
                continue
            if role is MAXIMUM:
                count, is_certain = count_in(value)
                if is_certain:
                    certain = max(certain, count)
                else:
                    self.largest = max(self.largest, count)
                    doubtful = doubtful or count > 0 or not one_of_a_name
            elif role is MODEL:
                self.models.append(value)
            elif role is MESSAGES and type(value) is list:
                self._add_messages(value)
            else:
                if role is None and isinstance(value, str) and FOLDED_PART_ROLES.get(fold(str(name))) is TEXT:
                    role = TEXT
                self._read_member(role, value, nested)
        if doubtful:
            self.largest = max(self.largest, certain)
        else:
            self.certain = max(self.certain, certain)

    def _read_setting(self, value: Any) -> None:
        """An app of its own may have its text under such a name: then it is long, or is messages."""
        if type(value) is str:
            if len(value) > LONGEST_SETTING:
                self.prompt.add_own(value)
        elif type(value) is list and any(type(each) is dict and "content" in each for each in value):
            self._add_messages(value)
        elif value and isinstance(value, dict | list):
            self.prompt.add_own_json(value, LONGEST_SETTINGS)

    def _add_messages(self, messages: list[Any]) -> None:
        each = [MESSAGE_TOKENS + ("name" in message) for message in messages if isinstance(message, dict)]
        self.overhead += sum(each) + MESSAGE_TOKENS if each else 0
        self.prompt.add(messages)

    def _read_member(self, role: str | None, value: Any, stack: list[Any]) -> None:
        if role is CHOICES:
            count, is_certain = count_in(value)
            self.choices = max(self.choices, count)
            if is_certain:
                self.certain_choices = max(self.certain_choices, count)
        elif not value or isinstance(value, int | float):
            return
        elif role is JSON:
            self.prompt.add_json(value)
        elif role is MEDIA:
            self.prompt.add_media(value)
        elif isinstance(value, dict) and role is not TEXT:
            stack.append(value)
        elif isinstance(value, list):
            self._read_list(role, value)
        elif role is None:
            self.prompt.add_own(value)
        else:
            self.prompt.add(value)

    def _read_list(self, role: str | None, value: list[Any]) -> None:
        if role is BATCH or ((role is None or role is NESTED) and any(map(_is_request, value))):
            self.read_batch(value, known=role is BATCH)
            return
        if role is PROMPTS:
            self.prompts = max(self.prompts, sum(isinstance(each, str | list) for each in value))
        if role is None:
            self.prompt.add_own(value)
        else:
            self.prompt.add(value)


def _is_request(value: object) -> bool:
    """Whether an element of a list is a request of its own, not a message or a text."""
    if not isinstance(value, dict):
        return False
    return "role" not in value or any(
        FOLDED_REQUEST_ROLES.get(fold(name)) in _OF_REQUESTS for name in value if isinstance(name, str)
    )


def _models_in(objects: list[Any]) -> list[object]:
    members = [member for each in objects if isinstance(each, dict) for member in each.items()]
    return [value for name, value in members if FOLDED_REQUEST_ROLES.get(fold(str(name))) is MODEL]


_OF_REQUESTS = (MAXIMUM, MESSAGES, NESTED, PROMPTS)


def _count(texts: list[str], counter: TokenCounter) -> tuple[int, int, int]:
    """Tokens counted, those of them that are certain, and those of the text beyond what is counted."""
    most = EXACTLY_COUNTED_BYTES if counter.exact else COUNTED_BYTES
    beyond = 0
    if sum(map(len, texts)) > most // 4:  # A character is four bytes at most.
        texts, beyond = _cut(texts, most)
    try:
        counted = sum(map(counter, texts)) if counter.exact else counter("\n".join(texts))
    except Exception as error:  # noqa: BLE001  an app's own counter, such as tiktoken's, raises on some texts
        # Not the error's text, which may hold the prompt.
        _log.warning("A request's text could not be counted (%s), so its length counts.", type(error).__name__)
        return 0, 0, beyond + _cut(texts, 0)[1]
    return counted, counted if counter.exact else counted // CERTAIN_SHARE, beyond


def _cut(texts: list[str], most: int) -> tuple[list[str], int]:
    """The texts up to so many bytes, and what those beyond cost."""
    kept, beyond = [], 0
    for text in texts:
        length = octets_of(text)
        if length <= most:
            kept.append(text)
        else:
            end = most * len(text) // length
            kept.append(text[:end])
            beyond += length - end
        most = max(most - length, 0)
    return [text for text in kept if text], -(-beyond // BYTES_A_TOKEN)


def _largest(one: Usage, other: Usage) -> Usage:
    return Usage.clamped(
        max(one.input_tokens, other.input_tokens),
        max(one.output_tokens, other.output_tokens),
    )


def _smallest(one: Usage, other: Usage) -> Usage:
    return Usage(min(one.input_tokens, other.input_tokens), min(one.output_tokens, other.output_tokens))
