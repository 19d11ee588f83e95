"""The upstreams of a limiter: those that the code defines, and those of the plan file of the current app."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, wraps
from typing import Any, Protocol, TypeVar, overload

from flask import has_request_context

from .app_state import AppState
from .current import current_app, current_request
from .engine import ConfigurationError, Engine, StoreError
from .engine.clock import Clock
from .http.errors import OwnAnswer
from .limits.misconfigured import misconfigured
from .limits.plans.said import did_you_mean, listed
from .money import PriceBook
from .request.ledger import Ledger
from .request.reused_answers import charge_reused, note_asked, tenant_of
from .request.upstream_need import needed_by
from .request.upstream_refusal import answer_with, meaning_of, meaning_of_wait
from .tokens import TokenCounter, Usage
from .upstream.calling import Calling, calling_now
from .upstream.failures import answer_of_error, headers_of_error
from .upstream.pacing import Asked, Wait
from .upstream.refusing import UPSTREAM
from .upstream.reusing import REQUEST
from .upstream.settings import UpstreamSettings, require_target
from .upstream.upstream import Upstream

_View = TypeVar("_View", bound=Callable[..., Any])


class Outbound(Protocol):
    """What an upstream asks of its limiter. Each is asked when a call is made, and so for the app of that moment."""

    @property
    def engine_of_calls(self) -> Engine:
        """The engine in whose store calls are counted."""

    @property
    def state_of_calls(self) -> AppState | None:
        """The state of the current app, or else of the one that was initialised last; None if none was."""

    @property
    def ledger_of_calls(self) -> Ledger | None:
        """The ledger of the current request; None if requests are not limited."""


class AppUpstream(Upstream):
    """An upstream of an app, from :meth:`flask_ailimit.AILimiter.upstream`.

    It may be made before ``init_app``: which app it belongs to is looked up when a call is made.

    Args:
        limiter: The limiter.
        name: Its name.
        written: Its settings; without any, they are those of the plan file.
        siblings: All upstreams of the limiter by their names.
        clock: Answers microseconds since the epoch.
    """

    _usual: UpstreamSettings
    _own_counter: TokenCounter

    def __init__(
        self, limiter: Outbound, name: str, written: Mapping[str, Any], siblings: Mapping[str, Upstream], clock: Clock
    ) -> None:
        self._limiter = limiter
        self.written: Mapping[str, Any] = written
        super().__init__(lambda: limiter.engine_of_calls, name, siblings=siblings, clock=clock, **written)

    @property
    def name(self) -> str:
        """Its name."""
        return self._usual.name

    @property
    def settings(self) -> UpstreamSettings:
        """What the app says of it, in the code or in the plan file.

        A plan file that is read again may have other settings. If the upstream is in it no more, the last ones hold.
        """
        if not self.written:
            state = self._limiter.state_of_calls
            if state is not None and state.plans is not None:
                self._usual = state.plans.upstreams.get(self.name, self._usual)
        return self._usual

    @settings.setter
    def settings(self, value: UpstreamSettings) -> None:
        self._usual = value

    @property
    def counter(self) -> TokenCounter:
        """Counts the tokens of a text, as the app does."""
        state = self._limiter.state_of_calls
        return self._own_counter if state is None else state.counter

    @counter.setter
    def counter(self, value: TokenCounter) -> None:
        self._own_counter = value

    @property
    def prices(self) -> PriceBook | None:
        """What models cost by the app's settings or its plan file; None if neither says it."""
        state = self._limiter.state_of_calls
        return None if state is None else state.prices

    def tenant(self, how: Calling) -> str | None:
        """For whom a call is made: as the app says, or else who sent the current request. None outside of requests."""
        if how.tenant is not None:
            return how.tenant
        ledger = self._limiter.ledger_of_calls
        return None if ledger is None else tenant_of(ledger)

    def hit(self, how: Calling, model: str, usage: Usage) -> None:
        """A call was answered from the cache: the current request pays no tokens, unless the settings say otherwise."""
        super().hit(how, model, usage)
        ledger, kept = self._limiter.ledger_of_calls, self.settings.kept
        if ledger is not None and kept is not None and kept.hits == REQUEST:
            charge_reused(ledger)

    def settled(self, usage: Usage) -> None:
        """A call has used so much: the current request may have to pay for it beside an answer from the cache."""
        ledger = self._limiter.ledger_of_calls
        if ledger is not None:
            note_asked(ledger, usage)

    def require_room(self, tokens: int | None = None, *, model: str | None = None, wait: float | None = None) -> None:
        """Turn the current request away if a call for it would wait too long. In a view, or before it.

        The store is asked once, and nothing is taken: so a call that comes at the same moment may still have to wait.
        The client is charged nothing, and is told when there is room. If the store is away, nobody is turned away.

        Args:
            tokens: How many tokens the call may use; None for what the request asks for.
            model: The model that is called; None for the one that the request names.
            wait: The most seconds that the call may wait; None for as long as calls wait here.

        Raises:
            UpstreamRefused: 429, or 503 while calls are stopped because the upstream fails.
        """
        ledger = self._limiter.ledger_of_calls
        if ledger is None:
            return
        if tokens is None or model is None:
            asked = needed_by(ledger, current_request(), self.counter, self.settings.default_output_tokens)
            asked = asked if model is None else asked._replace(model=model)
            asked = asked if tokens is None else asked._replace(usage=Usage.clamped(tokens, 0))
        else:
            asked = Asked(model, Usage.clamped(tokens, 0))
        found = self._wait_for(asked)
        if found is not None and (found.is_full or found.seconds > self._longest_wait(wait)):
            raise answer_with(ledger, self.name, meaning_of_wait(found), found.why)

    @overload
    def needed(self, view: _View) -> _View: ...

    @overload
    def needed(
        self, *, tokens: int | None = None, model: str | None = None, wait: float | None = None
    ) -> Callable[[_View], _View]: ...

    def needed(
        self, view: Any = None, *, tokens: int | None = None, model: str | None = None, wait: float | None = None
    ) -> Any:
        """Call :meth:`require_room` before a view. A decorator, with or without arguments.

        Put it below ``@app.route`` and above the limits: then the client's limits are not even asked.
        """
        if view is None:
            return partial(self.needed, tokens=tokens, model=model, wait=wait)

        @wraps(view)
        def with_room(*arguments: Any, **named: Any) -> Any:
            self.require_room(tokens, model=model, wait=wait)
            return current_app().ensure_sync(view)(*arguments, **named)

        return with_room

    def refusal(self, error: BaseException) -> OwnAnswer:
        """Our answer to the current request, after the error of an SDK or of httpx: to be raised, or to be returned.

        The client is given back what was reserved for it, unless its request itself is wrong.

        Args:
            error: What the call raised.

        Raises:
            BaseException: The error itself, if it is not the failure of a call, or there is no request to be answered.
        """
        if isinstance(error, OwnAnswer):
            return error
        answer = answer_of_error(error)
        if answer is None or not has_request_context():
            raise error
        headers = headers_of_error(error)
        answered = headers.get(UPSTREAM, "")
        name = answered if answered in self._siblings else self.name
        return answer_with(self._limiter.ledger_of_calls, name, meaning_of(answer, headers), answer.reason)

    def _wait_for(self, asked: Asked) -> Wait | None:
        """Why a call can't be sent now, and for how long; None if it can, or if nobody knows."""
        waits = []
        for target in self._targets():
            group = target.group(asked.model)
            try:
                decision = group.peek(asked)
            except StoreError:
                return None
            if decision.allowed:
                return None
            waits.append(group.wait_of(decision))
        return min(waits, key=lambda wait: wait.seconds)

    def _longest_wait(self, wait: float | None) -> float:
        how = calling_now()
        most = next(each for each in (wait, how.wait, self.settings.max_wait) if each is not None)
        return most if how.until is None else min(most, how.until - self.now())


class Upstreams(Mapping[str, AppUpstream]):
    """The upstreams of a limiter by their names: those that the code names, and those of the current app's plan file.

    Args:
        limiter: The limiter.
        clock: Answers microseconds since the epoch.
    """

    def __init__(self, limiter: Outbound, clock: Clock) -> None:
        self._limiter = limiter
        self._clock = clock
        self._made: dict[str, AppUpstream] = {}
        self._named: set[str] = set()  # By the code: who looks at those of one app's file asks nothing of another app.

    def __getitem__(self, name: str) -> AppUpstream:
        found = self._made.get(name)
        if found is None:
            found = self._make(name, {}) if name in self._in_file() else None
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._made, *self._in_file()]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def define(self, name: str, written: Mapping[str, Any], known: Sequence[AppState]) -> AppUpstream:
        """The upstream of this name, as it is written, or as the plan file says.

        Args:
            name: Its name.
            written: Its settings; empty for those that it has elsewhere.
            known: The states of the apps that were initialised before.

        Raises:
            ConfigurationError: A setting is wrong, or it has other settings elsewhere, or has none anywhere.
        """
        with misconfigured():
            self._named.add(name)
            before = self._made.get(name)
            if before is not None and before.written:
                if written and before.written != written:
                    raise ConfigurationError(
                        f"upstream {name!r}: it is defined twice, in two ways. Define it once, and write "
                        f"limiter.upstream({name!r}) elsewhere."
                    )
                return before
            if written:
                for state in known:
                    _require_one_place(name, state)
                found = AppUpstream(self._limiter, name, written, self, self._clock)
                if before is None:
                    return self._made.setdefault(name, found)
                before.written, before.settings = written, found.settings
                return before
            if known and not any(name in upstreams_of(state) for state in known):
                raise self._nowhere(name, known[-1])
            return before or self._make(name, {})

    def require(self, state: AppState) -> None:
        """Check, for an app that starts, that each upstream has its settings, and can be sent what others fall back on.

        Raises:
            ConfigurationError: One has none, or two; or it lacks an address, or a header's environment variable; or
                its cache can't be used.
        """
        of_file = upstreams_of(state)
        known: dict[str, UpstreamSettings] = {**of_file}
        for name, upstream in self._made.items():
            if upstream.written:
                _require_one_place(name, state)
                known[name] = upstream.settings
            elif name in self._named and name not in of_file:
                raise self._nowhere(name, state)
        for name, settings in known.items():
            if settings.kept is not None:
                try:
                    settings.kept.open(state.opened, self._clock).close()
                except ConfigurationError as error:
                    raise ConfigurationError(f"upstream {name!r}: {error}") from error
            made = self._made.get(name)
            for other in made.named_fallbacks if made is not None and made.written else settings.fallback:
                found = other.settings if isinstance(other, Upstream) else known.get(other)
                if found is None:
                    needed = f"an upstream's name is needed (there are: {listed(known)})"
                    raise settings.wrong("fallback", needed, other)
                require_target(settings, found)

    def _make(self, name: str, written: Mapping[str, Any]) -> AppUpstream:
        return self._made.setdefault(name, AppUpstream(self._limiter, name, written, self, self._clock))

    def _in_file(self) -> Mapping[str, UpstreamSettings]:
        state = self._limiter.state_of_calls
        return {} if state is None else upstreams_of(state)

    def _nowhere(self, name: str, state: AppState) -> ConfigurationError:
        known = [*upstreams_of(state), *(each for each, made in self._made.items() if made.written)]
        return ConfigurationError(
            f"upstream {name!r}: it has no settings. {did_you_mean(name, known)}Write [upstreams.{name}] in the plan "
            f"file, or limiter.upstream({name!r}, requests='500 per minute')."
        )


def upstreams_of(state: AppState) -> Mapping[str, UpstreamSettings]:
    """What an app's plan file says of upstreams."""
    return {} if state.plans is None else state.plans.upstreams


def _require_one_place(name: str, state: AppState) -> None:
    if name in upstreams_of(state):
        raise ConfigurationError(
            f"upstream {name!r}: its settings are in the plan file, and in the code, too. Write them in one of the two."
        )
