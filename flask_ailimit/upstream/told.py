"""What the headers of an answer tell of a provider's limits. Pure: the time is an argument.

Every value is somebody else's. What can't be read is left out, numbers are bounded, and nothing raises. Times are
measured from the answer's own ``Date``, so a clock that is off, here or there, changes no wait.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

from flask_ailimit.engine.quota import INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS

from .header_values import duration, header_of, items, joined, milliseconds, moment, seconds, until, whole_number

MINUTE = 60
_DAY = 86400
_NEARLY_A_DAY = 0.02


class Told(NamedTuple):
    """What headers tell, by unit: ``requests``, ``tokens``, ``input_tokens``, ``output_tokens``.

    Attributes:
        limits: Units that can be had in a period, 1 to 2**53 - 1.
        remaining: How many of them are left, 0 to 2**53 - 1.
        resets: Seconds until the unit is reset, 0 to ten years of them.
        retry_after: Seconds after which the provider asks to come back; None if it doesn't ask.
        periods: Seconds of the period, of each unit with a limit: what the headers say or show, else a minute.
        full_in: Seconds until all of the limit is there again. Not of the IETF's headers, whose ``t`` may be the time
            for which what is left is enough.
    """

    limits: Mapping[str, int]
    remaining: Mapping[str, int]
    resets: Mapping[str, float]
    retry_after: float | None
    periods: Mapping[str, int]
    full_in: Mapping[str, float]

    @property
    def until_free(self) -> float | None:
        """Seconds until every unit of which nothing is left is reset; None if there is none."""
        return max(
            [self.resets[unit] for unit, left in self.remaining.items() if not left and unit in self.resets],
            default=None,
        )

    def wait(self, most: float) -> float:
        """Seconds to let pass before the next call: as asked, else until what is used up is reset; 0 to ``most``."""
        asked = self.until_free if self.retry_after is None else self.retry_after
        return min(asked or 0.0, most)


class _Reading(NamedTuple):
    """What one set of headers says of one unit."""

    unit: str
    limit: int | None
    remaining: int | None
    reset: float | None
    period: int | None

    @property
    def severity(self) -> tuple[int, float, float]:
        """The smaller, the more it matters to a limit per minute."""
        of_a_minute = 0 if self.period == MINUTE else 1 if self.period is None else 2
        share = 1.0 if self.remaining is None or not self.limit else self.remaining / self.limit
        return of_a_minute, share, self.limit or float("inf")


def told_by(headers: Mapping[str, str], now: float) -> Told:
    """Read the limits of OpenAI, Azure, Groq, Anthropic, Mistral, DigitalOcean and the IETF, and our own.

    Where an answer has several forms, the most exact one counts: the IETF's names its windows, Anthropic's its units.

    Args:
        headers: By lower-case name.
        now: Seconds since 1970, for an answer without a ``Date``.
    """
    at = moment(header_of(headers, "date"))
    at = now if at is None else at
    found: dict[str, _Reading] = {}
    full_in: dict[str, float] = {}
    for read in (_of_ietf, _of_anthropic, _of_openai, _of_one_limit):
        best: dict[str, _Reading] = {}
        for reading in read(headers, at):
            best[reading.unit] = min(best.get(reading.unit, reading), reading, key=lambda each: each.severity)
        if read is not _of_one_limit or not found:
            found = best | found
            if read is not _of_ietf:
                of_same = (each for each in best.values() if each.limit == found[each.unit].limit)
                full_in = {each.unit: each.reset for each in of_same if each.reset is not None} | full_in
    return Told(
        {unit: reading.limit for unit, reading in found.items() if reading.limit},
        {unit: reading.remaining for unit, reading in found.items() if reading.remaining is not None},
        {unit: reading.reset for unit, reading in found.items() if reading.reset is not None},
        _retry_after(headers, at),
        {unit: reading.period or MINUTE for unit, reading in found.items() if reading.limit},
        full_in,
    )


def _retry_after(headers: Mapping[str, str], at: float) -> float | None:
    """``retry-after-ms`` is the more exact one, and the SDKs prefer it."""
    exact = joined(header_of(headers, "retry-after-ms"), milliseconds, largest=True)
    if exact is not None:
        return exact
    return joined(header_of(headers, "retry-after"), partial(_seconds_until, at=at), largest=True)


def _seconds_until(text: str, at: float) -> float | None:
    number = seconds(text)
    return until(text, at) if number is None else number  # However large: it is never a time since 1970.


def _read(
    headers: Mapping[str, str], names: tuple[str, str, str], unit: str, at: float, period: int | None
) -> Iterator[_Reading]:
    """What three headers say of a unit, if they say how much can be had or is left. A limit of 0 is no limit."""
    if names[0] not in headers and names[1] not in headers:
        return  # Most are not there, and the rest takes time.
    limit_text, remaining_text, reset_text = [header_of(headers, name) for name in names]
    limit = joined(limit_text, whole_number, largest=False)
    remaining = joined(remaining_text, whole_number, largest=False)
    if limit == 0 or (limit is None and remaining is None):
        return
    fills_in = duration(reset_text)
    if limit and remaining is not None and fills_in and period is None:
        period = _day_if_shown(limit, remaining, fills_in)
    reset = joined(reset_text, partial(until, at=at), largest=True)
    yield _Reading(unit, limit, remaining, reset, period)


def _day_if_shown(limit: int, remaining: int, reset: float) -> int | None:
    """A day, if what was used comes back in just the time that it takes at so many a day.

    Groq counts requests per day under the names that OpenAI has for those per minute, and so does OpenAI for some.
    """
    used = limit - remaining
    return _DAY if used > 0 and abs(limit * reset / used - _DAY) <= _NEARLY_A_DAY * _DAY else None


_OPENAI_NAMES = {
    "requests": (REQUESTS, None),
    "tokens": (TOKENS, None),
    "project-requests": (REQUESTS, None),
    "project-tokens": (TOKENS, None),
    "req-minute": (REQUESTS, MINUTE),
    "tokens-minute": (TOKENS, MINUTE),
    "requests-per-minute": (REQUESTS, MINUTE),
    "tokens-per-minute": (TOKENS, MINUTE),
    "input-tokens": (INPUT_TOKENS, None),
    "output-tokens": (OUTPUT_TOKENS, None),
}
"""OpenAI's, its projects', Mistral's and DigitalOcean's. Those per day or month say nothing of a minute."""


def _of_openai(headers: Mapping[str, str], at: float) -> Iterator[_Reading]:
    for name, (unit, period) in _OPENAI_NAMES.items():
        names = (f"x-ratelimit-limit-{name}", f"x-ratelimit-remaining-{name}", f"x-ratelimit-reset-{name}")
        yield from _read(headers, names, unit, at, period)


def _of_anthropic(headers: Mapping[str, str], at: float) -> Iterator[_Reading]:
    for unit in (REQUESTS, TOKENS, INPUT_TOKENS, OUTPUT_TOKENS):
        begin = f"anthropic-ratelimit-{unit.replace('_', '-')}"
        yield from _read(headers, (f"{begin}-limit", f"{begin}-remaining", f"{begin}-reset"), unit, at, None)


def _of_one_limit(headers: Mapping[str, str], at: float) -> Iterator[_Reading]:
    """The oldest form has no word for a unit, and its senders count requests. It counts if there is no other one."""
    for begin in ("x-ratelimit", "ratelimit"):
        yield from _read(headers, (f"{begin}-limit", f"{begin}-remaining", f"{begin}-reset"), REQUESTS, at, None)


_IETF_UNITS = {"requests": REQUESTS, "tokens": TOKENS, "input-tokens": INPUT_TOKENS, "output-tokens": OUTPUT_TOKENS}


def _of_ietf(headers: Mapping[str, str], at: float) -> Iterator[_Reading]:  # noqa: ARG001  it has no times
    """``RateLimit-Policy`` and ``RateLimit``: a policy without a unit counts requests."""
    policies = items(header_of(headers, "ratelimit-policy"))
    stands = items(header_of(headers, "ratelimit"))
    for name, policy in policies.items():
        unit = _IETF_UNITS.get(policy.get("qu", "requests"))
        stand = stands.get(name, {})
        limit = whole_number(policy.get("q", ""))
        if unit is not None and limit:
            period = whole_number(policy.get("w", ""))
            yield _Reading(unit, limit, whole_number(stand.get("r", "")), seconds(stand.get("t", "")), period or None)
