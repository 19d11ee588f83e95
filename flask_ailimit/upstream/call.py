"""One call's way: it waits for its turn, is sent, and is sent again or elsewhere if that helps.

What must be done on the way (ask the store, sleep, send, read) is handed out as steps. So one body serves calls that
block a thread and calls of an event loop, in which nobody may block: see ``transport.py``, which does the steps.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from secrets import token_hex
from threading import Event
from typing import Any, NamedTuple

from flask_ailimit.engine import Reservation
from flask_ailimit.tokens import StreamMeter
from flask_ailimit.tokens.inflating import TooLarge, inflate
from flask_ailimit.tokens.readings import TooMuchToRead

from . import signals
from .answers import Answer, Kind, answer_of
from .asking import readdressed, with_headers, with_model
from .attempts import Again
from .cache import StoredAnswer
from .calling import Calling
from .failures import failure_of
from .held import Held
from .pacing import SPENT, Asked, Group, Place, Wait
from .refusing import UPSTREAM, Final, line_is_full, not_now, not_reached, passed_on, too_many_retries
from .reusing import CACHE
from .target import Target
from .told import told_by

_REDIRECTION, _ERROR = 300, 400
"""From this HTTP status on, an answer is one that tells of another place, or is none."""

_OF_THE_CALLER = (Kind.CALLER, Kind.TOO_LONG, Kind.FILTERED)
"""What is wrong with the call itself. Nobody else need be told."""

_HEAD = 64 * 1024
"""Bytes of an error's body that are looked at."""


class Outgoing(NamedTuple):
    """A request as it goes to an upstream.

    Attributes:
        method: Its HTTP method.
        url: Its address.
        headers: Its headers, each name in lower case.
        body: Its body.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


class Ask(NamedTuple):
    """The step to do work that may block, such as asking the store.

    Attributes:
        work: The work. Its answer is that of the step.
        undo: What is to be done with the answer if nobody comes back for it. It may block, too, and may be late.
    """

    work: Callable[[], Any]
    undo: Callable[[Any], object] | None = None


class Sleep(NamedTuple):
    """The step to wait for so many seconds, or until an event comes.

    Attributes:
        seconds: How many.
        stop: The event; None for none.
    """

    seconds: float
    stop: Event | None


class Send(NamedTuple):
    """The step to send a request. Its answer is the response, whose body has not been read, or the exception.

    Attributes:
        request: What is sent.
        held: What is to be ended if nobody comes back with the answer.
    """

    request: Outgoing
    held: Held


class Read(NamedTuple):
    """The step to read the body of a response to its end, as it was sent, and to close it."""

    response: Any


class Accepted(NamedTuple):
    """An answer whose body goes to the caller as it comes.

    Attributes:
        response: The library's.
        held: What the call holds until the body is closed.
        headers: Those to add.
    """

    response: Any
    held: Held
    headers: Sequence[tuple[str, str]]


Steps = Generator[Ask | Sleep | Send | Read, Any, Accepted | Final]


class Call:
    """One call.

    Args:
        targets: The upstream, and those that are asked if it can't answer.
        request: What is sent.
        asked: What it asks for.
        how: How it is made.
    """

    def __init__(self, targets: Sequence[Target], request: Outgoing, asked: Asked, how: Calling) -> None:
        own = self._own = targets[0]
        self._targets = targets
        self._request = request
        self._asked = asked
        self._how = how
        self._key = ""
        deadline = own.now() + (own.settings.max_wait if how.wait is None else how.wait)
        self._deadline = deadline if how.until is None else min(deadline, how.until)

    def steps(self) -> Steps:
        """What is to be done, and at last the answer."""
        kept, cache = self._own.settings.kept, self._own.cache
        # Who asks is found out only where it matters: the app's key function is called for it.
        tenant = None if cache is None else self._own.tenant(self._how)
        if kept is None or cache is None or tenant is None:
            return (yield from self._asked_for())
        question = kept.question(*self._request, account=self._own.name, tenant=tenant)
        if question is None:
            return (yield from self._asked_for())
        turn = yield Ask(partial(cache.begin, question))
        while turn.wait_s and not self._is_stopped and self._own.now() < self._deadline:
            yield Sleep(min(turn.wait_s, self._deadline - self._own.now()), self._how.stop)
            turn = yield Ask(partial(cache.begin, question))
        facts = {"group": self._own.group(self._asked.model).name, "hit": turn.answer is not None}
        signals.tell(signals.cache_looked, self._own, **facts)
        if turn.answer is not None:
            return self._reused(turn.answer)
        answer = yield from self._asked_for()
        if isinstance(answer, Final) or answer.held.target is not self._own:
            yield Ask(partial(cache.end, turn))  # A fallback's answer is another account's, and often another model's.
        else:
            response = answer.response
            answer.held.keep(cache, turn, response.status_code, lowered(response))
        return answer

    def _reused(self, answer: StoredAnswer) -> Final:
        meter = StreamMeter(answer.headers.get("content-type", "").partition(";")[0], self._own.counter)
        meter.feed(answer.body)
        usage = meter.measure(self._asked.usage.input_tokens, complete=True).usage or self._asked.usage
        self._own.hit(self._how, self._asked.model, usage)
        ours = [("x-should-retry", "false"), (UPSTREAM, self._own.name), (CACHE, "hit")]
        return Final(answer.status, [*answer.headers.items(), *ours], answer.body)

    def _asked_for(self) -> Steps:
        """The same, of a call that is not answered from the cache."""
        own = self._own
        is_retry = self._request.headers.get("x-stainless-retry-count", "0") not in ("", "0")
        own.counted(is_retry=is_retry)
        if is_retry and not (yield Ask(own.budget.may_retry)):
            return self._gave_up(own, too_many_retries(own.name), "retries", None, 0)
        again = Again(own.settings, self._deadline, own.now)
        last: Final | None = None
        while True:
            placed = yield from self._placed(again, last)
            if isinstance(placed, Final):
                return placed
            held, target = placed, placed.target
            sent = yield Send(self._addressed(target), held)
            # Whoever followed another one's redirection would send it the credential that it must not get.
            error = _ERROR if target is own else _REDIRECTION
            if not isinstance(sent, Exception) and sent.status_code < error:
                yield from self._hear(target, held, lowered(sent), has_begun=True)
                held.also = () if is_retry or again.failed else tuple(own.budget.earned(held.reservation))
                return Accepted(sent, held, [("x-should-retry", "false"), (UPSTREAM, target.name)])
            answer, last = yield from self._failure(target, held, sent)
            pause: float = yield Ask(partial(held.failed, answer))
            following = again.after(answer, target, self._targets)
            if following is None or self._is_stopped or not (yield Ask(own.budget.may_retry)):
                why = "retries" if following and not self._is_stopped else answer.kind.value
                return self._gave_up(target, last, why, answer, again.failed)
            delay, self._targets = following
            own.counted(is_retry=True)
            facts = {"kind": answer.kind.value, "status": answer.status, "seconds": max(delay, pause)}
            group = target.group(self._asked.model).name
            to = self._targets[0].name
            signals.tell(signals.call_retried, own, group=group, attempt=again.failed, target=to, **facts)
            if delay:
                yield Sleep(delay, self._how.stop)

    @property
    def _is_stopped(self) -> bool:
        return self._how.stop is not None and self._how.stop.is_set()

    def _placed(self, again: Again, last: Final | None) -> Generator[Ask | Sleep, Any, Held | Final]:
        """Wait until one of the targets takes the call: the first that does. The line is that of the first."""
        first, place, began = self._targets[0], Place(is_batch=self._how.is_batch), self._own.now()
        line = first.group(self._asked.model)
        waited: Wait | None = None
        try:
            while True:
                tried = yield from self._tried(again, place)
                if isinstance(tried, Held):
                    if waited is not None:
                        tried.waited(self._own.now() - began, waited)
                    return tried
                left, rest = self._deadline - self._own.now(), max(map(again.rest_of, self._targets))
                worth = [wait for _, wait in tried if self._is_worth(wait, left, place)]
                if self._is_stopped or not (worth or 0 < rest < left):
                    yield Ask(partial(line.leave, place))
                    return self._not_placed(tried, again.failed, last)
                if worth:
                    # Where there is room soonest. The others are asked again, too.
                    wait = min(worth, key=lambda each: each.seconds)
                    waited = waited or wait
                    yield Ask(partial(line.line_up, place))
                    rest = min(line.nap(wait), left, rest or left)
                yield Sleep(rest, self._how.stop)
        finally:
            place.open.clear()  # If nobody came back here, its place is given back in the background.

    def _tried(self, again: Again, place: Place) -> Generator[Ask, Any, Held | list[tuple[Target, Wait]]]:
        """Ask each target that doesn't rest. Answers what the first took that has room, or why none has."""
        waits: list[tuple[Target, Wait]] = []
        model = self._asked.model
        line = self._targets[0].group(model)
        for target in self._targets:
            if again.rest_of(target):
                continue  # It is never the only one.
            group = target.group(model)
            has_turn = line.left if target is self._targets[0] else line.leave
            reservation = yield Ask(partial(self._reserved, group, place, has_turn), Reservation.cancel)
            if reservation.allowed:
                target.let_through(group, group.probe_of(reservation))
                return Held(target, group, reservation, self._asked, self._how)
            refused = group.wait_of(reservation.decision)
            target.held_up(group, refused)
            waits.append((target, refused))
        return waits

    def _reserved(self, group: Group, place: Place, has_turn: Callable[[Place], None]) -> Reservation:
        reservation = group.reserve(self._asked, place)
        if reservation.allowed and place.open:
            has_turn(place)
        return reservation

    def _is_worth(self, wait: Wait, left: float, place: Place) -> bool:
        """Whether a call may wait for this, with so many seconds left.

        While a provider fails, views that wait for it would soon hold all threads of an app. So only those wait that
        were told how long.
        """
        if wait.why == SPENT or (wait.is_full and not place.open):
            return False
        if wait.why in ("open", "half-open") and self._how.wait is None:
            return False
        return left > 0 and wait.least <= left

    def _not_placed(self, waits: Sequence[tuple[Target, Wait]], failed: int, last: Final | None) -> Final:
        """What the upstream itself has said, if anything: that is more than that there is no time to ask it again."""
        target, wait = min(waits, key=lambda each: each[1].seconds)
        ours = line_is_full if wait.is_full else partial(not_now, why=wait.why)
        return self._gave_up(target, last or ours(target.name, seconds=wait.seconds), wait.why, None, failed)

    def _failure(self, target: Target, held: Held, sent: Any) -> Generator[Ask | Read, Any, tuple[Answer, Final]]:
        """What an answer that is none means, and what is left of it for the caller."""
        if isinstance(sent, Exception):
            answer = failure_of(sent)
            return answer, not_reached(target.name, answer.reason, sent=answer.kind is not Kind.UNSENT)
        raw: bytes = yield Read(sent)
        headers = lowered(sent)
        yield from self._hear(target, held, headers)
        answer = answer_of(sent.status_code, headers, _head_of(raw, headers), target.wall())
        theirs = Final(sent.status_code, sent.headers.multi_items(), raw)
        return answer, passed_on(target.name, theirs, is_limit=answer.kind in (Kind.THROTTLED, Kind.SPENT))

    def _hear(
        self, target: Target, held: Held, headers: Mapping[str, str], *, has_begun: bool = False
    ) -> Generator[Ask, Any, None]:
        told, group = told_by(headers, target.wall()), target.group(self._asked.model)
        group.learn(told)
        news = group.lowered(held.reservation, told)
        if has_begun:
            news += group.proved(held.reservation)
        if news:
            yield Ask(partial(group.tell, news))

    def _gave_up(self, target: Target, final: Final, why: str, answer: Answer | None, attempts: int) -> Final:
        kind, status = (None, 0) if answer is None else (answer.kind.value, answer.status)
        group = target.group(self._asked.model).name
        facts = {"why": why, "kind": kind, "status": status, "attempts": attempts}
        if answer is None or answer.kind not in _OF_THE_CALLER:
            target.gave_up(group, final, is_batch=self._how.is_batch, **facts)
        return final

    def _addressed(self, target: Target) -> Outgoing:
        """The request as it goes to a target."""
        request, own, settings = self._request, self._own, target.settings
        if target is not own and settings.base_url is not None:
            url = readdressed(request.url, own.settings.base_url, settings.base_url)
            request = request._replace(url=url, headers=with_headers(request.headers, settings.headers))
        header = settings.idempotency_header
        if header and header.lower() not in request.headers:
            self._key = self._key or token_hex(16)
            request = request._replace(headers={**request.headers, header.lower(): self._key})
        if self._asked.model in settings.models:
            request = request._replace(body=with_model(request.body, settings.models[self._asked.model]))
        return request


def lowered(response: Any) -> dict[str, str]:
    """The headers of a response, each name in lower case."""
    return {name.lower(): value for name, value in response.headers.items()}


def _head_of(raw: bytes, headers: Mapping[str, str]) -> bytes:
    """The beginning of a body, as it was before it was encoded."""
    encoding = headers.get("content-encoding", "")
    if not encoding:
        return raw[:_HEAD]
    try:
        return inflate(raw, encoding, _HEAD) or b""
    except (TooLarge, TooMuchToRead):
        return b""
