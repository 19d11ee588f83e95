"""What the demo asks of a language model, and the values that pass between the two."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

DEFAULT_TEMPERATURE = 0.2
DEFAULT_TOP_P = 0.9
"""What SmolLM2's authors recommend."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        text: What was said.
    """

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """One validated request for an answer, whichever wire format it came in.

    Attributes:
        messages: The conversation; the last one is the user's.
        max_tokens: The longest answer wanted, in tokens, at least 1.
        temperature: Randomness, 0.0 (none) to 2.0.
        top_p: Share of the probability mass to draw from, above 0.0 up to 1.0.
        seed: Makes the same call draw the same answer; None draws afresh.
        stop: Texts at which the answer ends.
        stream: Send tokens as they come.
        include_usage: Tell the counts at the end of the stream.
        model: The name under which the model was asked for; "" if the wire format has none.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = DEFAULT_TEMPERATURE
    top_p: float = DEFAULT_TOP_P
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    model: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written, counted by the model itself."""

    input_tokens: int
    output_tokens: int

    @property
    def total_tokens(self) -> int:
        """Tokens read and written."""
        return self.input_tokens + self.output_tokens

    def __sub__(self, earlier: "Usage") -> "Usage":
        """What was used since ``earlier``."""
        return Usage(self.input_tokens - earlier.input_tokens, self.output_tokens - earlier.output_tokens)


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of an answer.

    Attributes:
        text: What is new; may be empty.
        usage: Tokens read and written up to and including this piece.
        finish_reason: None until the last piece; then ``stop`` (the model was done) or ``length`` (``max_tokens``).
    """

    text: str
    usage: Usage
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    text: str
    finish_reason: str
    usage: Usage


class Model(Protocol):
    """A language model."""

    @property
    def name(self) -> str:
        """What clients write in ``model``."""

    @property
    def context(self) -> int:
        """Tokens that a conversation and its answer may have together."""

    def stream(self, call: Call) -> Generator[Delta]:
        """Answer piece by piece.

        The first piece comes as soon as the input is counted, with empty text; the last one, and no other, has a
        ``finish_reason`` and the exact usage. Closing the generator ends the work on the answer.

        Raises:
            ContextTooLongError: Before the first piece.
            ModelFailedError: At any time.
        """


def names_of(model: Model) -> tuple[str, str, str]:
    """The names under which clients may ask for the model: its own, a small one and a large one.

    It is the same model. A service has several, and plans that differ in what they allow of each.
    """
    return model.name, f"small-{model.name}", f"large-{model.name}"


class ModelError(Exception):
    """The model gave no (more) answer. Messages never hold text of the conversation."""


class ModelMissingError(ModelError):
    """The model's packages aren't installed."""


class ModelFailedError(ModelError):
    """The model broke down."""


class ContextTooLongError(ModelError):
    """The conversation and the answer asked for don't fit into the model's context."""

    def __init__(self, *, input_tokens: int, max_tokens: int, context: int) -> None:
        super().__init__(
            f"The model reads and writes at most {context} tokens. The input has {input_tokens} and max_tokens "
            f"asks for {max_tokens}. Shorten the input or lower max_tokens."
        )


def require_room(*, input_tokens: int, call: Call, context: int) -> None:
    """Raise ``ContextTooLongError`` unless the input and the longest answer fit into ``context`` tokens."""
    if input_tokens + call.max_tokens > context:
        raise ContextTooLongError(input_tokens=input_tokens, max_tokens=call.max_tokens, context=context)


def whole(deltas: Generator[Delta]) -> Answer:
    """Wait for the whole answer.

    Raises:
        ModelError: The model raised it, or ended without a last piece.
    """
    pieces = []
    with closing(deltas):
        for delta in deltas:
            pieces.append(delta.text)
            if delta.finish_reason is not None:
                return Answer("".join(pieces), delta.finish_reason, delta.usage)
    raise ModelFailedError("The model stopped without finishing its answer.")
