"""What is to befall a call: how it is answered, and what goes wrong on the way."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

Ending = Literal["reset", "close", "clean"]
Headers = Mapping[str, str] | Iterable[tuple[str, str]]

_ENDINGS = ("reset", "close", "clean")
_SPEND_LIMITS = ("enforced_spend_limit_reached", "contract_spend_limit_reached")
_THREE_DAYS_MS = "274579000"

HOSTILE_HEADERS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("retry-after", "-1"),),
    (("retry-after", "0"), ("retry-after-ms", "0")),
    (("retry-after", "nan"), ("retry-after-ms", "inf")),
    (("retry-after", "1e400"),),
    (("retry-after", "9" * 400),),
    (("retry-after-ms", _THREE_DAYS_MS),),
    (("retry-after", ""), ("retry-after-ms", " ")),
    (("retry-after", "soon"),),
    (("retry-after", "\u0663"), ("retry-after-ms", "\xb2")),
    (("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT"),),
    (("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT"),),
    (("retry-after", "Mon, 99 Foo 20x6 25:61:61 GMT"),),
    (("retry-after", "1"), ("retry-after", "3600")),
    (("x-ratelimit-limit-tokens", "-1"), ("x-ratelimit-remaining-tokens", "-1")),
    (("x-ratelimit-limit-requests", "9" * 40), ("x-ratelimit-remaining-requests", "9" * 40)),
    (("x-ratelimit-limit-tokens", "1e9"), ("x-ratelimit-remaining-tokens", "0x10")),
    (("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "99999999h")),
    (("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "-6m0s")),
    (("x-ratelimit-reset-tokens", "1h1h1h"), ("x-ratelimit-reset-requests", "ms")),
    (("anthropic-ratelimit-tokens-remaining", "0"), ("anthropic-ratelimit-tokens-reset", "0000-00-00T00:00:00Z")),
    (("anthropic-ratelimit-tokens-remaining", "0"), ("anthropic-ratelimit-tokens-reset", "9999-12-31T23:59:59Z")),
    (("ratelimit", '"x";r=;t=-1, "'), ("ratelimit-policy", "((((((((")),
    (("date", "yesterday"), ("retry-after", "Wed, 01 Jan 2031 00:00:00 GMT")),
    (("x-should-retry", "perhaps"),),
    (("content-encoding", "identity"), ("x-filler", "x" * 30_000)),
)
"""Headers that a client must survive, a set for each answer: ``Fault.throttled().with_headers(HOSTILE_HEADERS[0])``."""


class ToldUsage(NamedTuple):
    """What an answer says that was used, instead of what was; None for a number that it gives truly.

    Attributes:
        is_missing: It says nothing at all.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    is_missing: bool = False


TRUE_USAGE = ToldUsage()


@dataclass(frozen=True, kw_only=True, repr=False)
class Fault:
    """What is to befall a call. Make one with :meth:`ok`, :meth:`throttled` and so on, and add to it: ``.late(2)``.

    Errors are written as the API that is called writes them: OpenAI's, Azure's or Anthropic's. All seconds are of the
    machine's time.

    Example:
        >>> Fault.throttled(retry_after=2).late(0.5)
        Fault(name='throttled', retry_after=2, delay=0.5)
    """

    name: str = "ok"
    status: int | None = None
    code: str = ""
    unit: str = "requests"
    retry_after: float | None = None
    retry_after_ms: float | None = None
    reset: float | None = None
    as_date: bool = False
    is_unread: bool = False
    ending: Ending = "reset"
    delay: float = 0
    pause: float = 0
    cut_after: int | None = None
    fails_after: int | None = None
    told: ToldUsage = TRUE_USAGE
    clock_off_by: float = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    content_type: str = "text/html"

    # How the call is answered

    @classmethod
    def ok(cls) -> "Fault":
        """A good answer, to which something may be added."""
        return cls()

    @classmethod
    def throttled(
        cls,
        retry_after: float | None = None,
        *,
        retry_after_ms: float | None = None,
        reset: float | None = None,
        unit: Literal["requests", "tokens"] = "requests",
        as_date: bool = False,
    ) -> "Fault":
        """A 429: too many requests or tokens for now.

        Args:
            retry_after: Seconds in ``Retry-After``; None for no such header.
            retry_after_ms: Milliseconds in ``retry-after-ms``; None for no such header.
            reset: Seconds in the rate-limit headers of the API, with nothing remaining; None for no such headers.
            unit: Of which there were too many.
            as_date: ``Retry-After`` is a date.
        """
        return cls(
            name="throttled",
            unit=unit,
            retry_after=retry_after,
            retry_after_ms=retry_after_ms,
            reset=reset,
            as_date=as_date,
        )

    @classmethod
    def spent(cls, code: str = "") -> "Fault":
        """The account has no money left: OpenAI's 429 ``insufficient_quota``, Anthropic's 402 ``billing_error``.

        Args:
            code: ``enforced_spend_limit_reached`` or ``contract_spend_limit_reached`` for Anthropic's 429 of a spend
                limit, without ``Retry-After``.
        """
        if code and code not in _SPEND_LIMITS:
            raise ValueError(f"code: {' or '.join(_SPEND_LIMITS)} is needed. Got {code!r:.40}.")
        return cls(name="spent", code=code)

    @classmethod
    def too_large(cls) -> "Fault":
        """The request needs more tokens than the limit of a minute: OpenAI's 429, Anthropic's 413."""
        return cls(name="too_large", unit="tokens")

    @classmethod
    def not_in_plan(cls) -> "Fault":
        """A 429: the account's plan does not include the model."""
        return cls(name="not_in_plan")

    @classmethod
    def overloaded(cls, retry_after: float | None = None) -> "Fault":
        """The provider has too much to do: OpenAI's 503, Anthropic's 529 ``overloaded_error``."""
        return cls(name="overloaded", retry_after=retry_after)

    @classmethod
    def too_long(cls) -> "Fault":
        """A 400: the prompt is longer than the model's context."""
        return cls(name="too_long")

    @classmethod
    def filtered(cls, status: Literal[200, 400] = 400) -> "Fault":
        """The content filter has spoken: of the prompt (400), or in the middle of the answer (200)."""
        return cls(name="filtered", status=status)

    @classmethod
    def error(cls, status: int, *, retry_after: float | None = None) -> "Fault":
        """Any other status from 400 to 599, with the error that the API sends with it; 502 and 504 are a proxy's HTML.

        Raises:
            ValueError: It is no such status.
        """
        if type(status) is not int or not 400 <= status <= 599:  # noqa: PLR2004  as said
            raise ValueError(f"status: a number from 400 to 599 is needed. Got {status!r:.40}.")
        return cls(name="error", status=status, retry_after=retry_after)

    @classmethod
    def silent(cls) -> "Fault":
        """The request is read and never answered. The call lasts until the client leaves or the provider is closed."""
        return cls(name="silent")

    @classmethod
    def dropped(cls, *, unread: bool = False, ending: Literal["reset", "close"] = "reset") -> "Fault":
        """The connection ends without an answer.

        Args:
            unread: Before the request was read; else after it.
            ending: ``reset`` (RST) or ``close`` (FIN).
        """
        return cls(name="dropped", is_unread=unread, ending=_require_ending(ending))

    # What is added to it

    def late(self, seconds: float) -> "Fault":
        """The first byte comes so much later."""
        return replace(self, delay=_require_least("seconds", seconds))

    def slow(self, seconds: float) -> "Fault":
        """So many seconds pass before each event of a stream."""
        return replace(self, pause=_require_least("seconds", seconds))

    def cut(self, after: int, ending: Ending = "reset") -> "Fault":
        """The stream ends after so many events, and what is no stream after the half of its body.

        Args:
            after: Events that are sent whole.
            ending: ``reset`` (RST), ``close`` (FIN in the middle of the transfer), or ``clean``: as if this were all,
                without ``[DONE]`` or ``message_stop``.
        """
        return replace(self, cut_after=_require_count(after), ending=_require_ending(ending))

    def failing(self, after: int, status: int = 529) -> "Fault":
        """The stream says an error after so many events, and ends. What is no stream is answered by the error itself.

        Args:
            after: Events that are sent before it.
            status: Whose error it is.
        """
        return replace(self, fails_after=_require_count(after), status=Fault.error(status).status)

    def telling(self, *, input_tokens: int | None = None, output_tokens: int | None = None) -> "Fault":
        """The answer says that so many tokens were used, whatever is true; None for the true number."""
        return replace(self, told=ToldUsage(input_tokens, output_tokens))

    def without_usage(self) -> "Fault":
        """The answer does not say what was used."""
        return replace(self, told=ToldUsage(is_missing=True))

    def clock_off(self, seconds: float) -> "Fault":
        """All times in the headers are of a clock that is so much ahead, or behind if negative."""
        return replace(self, clock_off_by=seconds)

    def with_headers(self, headers: Headers) -> "Fault":
        """These headers are sent, in place of those of the same names. Names may come twice."""
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        return replace(self, headers=self.headers + tuple((name.lower(), value) for name, value in pairs))

    def with_body(self, body: bytes, content_type: str = "text/html") -> "Fault":
        """This body is sent in place of the API's, in one piece."""
        return replace(self, body=body, content_type=content_type)

    def __repr__(self) -> str:
        """What is not as in :meth:`ok`: a fault names a test."""
        told = [(field.name, getattr(self, field.name)) for field in fields(self)]
        usual = {field.name: field.default for field in fields(self)}
        return f"Fault({', '.join(f'{name}={value!r:.80}' for name, value in told if value != usual[name])})"


def _require_ending(ending: Ending) -> Ending:
    if ending not in _ENDINGS:
        raise ValueError(f"ending: one of {', '.join(_ENDINGS)} is needed. Got {ending!r:.40}.")
    return ending


def _require_count(after: int) -> int:
    if type(after) is not int or after < 0:
        raise ValueError(f"after: a number of events, 0 or more, is needed. Got {after!r:.40}.")
    return after


def _require_least(name: str, seconds: float) -> float:
    if not (isinstance(seconds, int | float) and seconds >= 0):
        raise ValueError(f"{name}: a number, 0 or more, is needed. Got {seconds!r:.40}.")
    return seconds
