"""An upstream: a provider of models that the app itself calls, with what all processes of the app share of it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flask_ailimit.engine import Clock, ConfigurationError, Engine, system_clock
from flask_ailimit.engine.clock import rest, seconds_running
from flask_ailimit.money import PriceBook
from flask_ailimit.tokens import TokenCounter, open_counter

from .batch import Answer, Failed, Item, run
from .calling import calling
from .settings import UpstreamSettings, require_target
from .target import Target
from .transport import async_http_transport, http_transport, module_of

_TIMEOUT, _CONNECT_TIMEOUT = 600.0, 5.0
"""Seconds, as the SDKs' own clients have: openai 3.57 and anthropic 2.14, ``_constants.py``."""

_OF_TRANSPORT = ("verify", "cert", "trust_env", "http1", "http2", "limits", "proxy", "uds", "local_address", "retries")


class Upstream(Target):
    """Calls to a provider, paced by limits that all processes share, and repeated where that helps.

    Args:
        engine: In whose store it is counted; or a function that answers it.
        name: Its name.
        counter: Counts the tokens of a text: a name, a function, or a counter; see ``token_counter`` in the settings.
        fallback: The upstreams that are asked, in this order, if this one can't answer now; or their names.
        siblings: The upstreams by name, among which those are found.
        clock: Answers microseconds since the epoch. For tests.
        running: Answers seconds of a clock that never jumps. For tests.
        pause: Does nothing for so many seconds. For tests.
        **settings: As of :class:`flask_ailimit.upstream.settings.UpstreamSettings`.

    Raises:
        ConfigurationError: A setting is wrong; the message says the fix.
    """

    def __init__(
        self,
        engine: Engine | Callable[[], Engine],
        name: str,
        *,
        counter: str | Callable[[str], int] | TokenCounter = "estimate",
        fallback: Sequence["str | Upstream"] = (),
        siblings: Mapping[str, "Upstream"] | None = None,
        clock: Clock = system_clock,
        running: Callable[[], float] = seconds_running,
        pause: Callable[[float], None] = rest,
        **settings: Any,
    ) -> None:
        try:
            read = UpstreamSettings(name=name, **settings)
        except TypeError:
            known = ", ".join(UpstreamSettings.__dataclass_fields__)
            unknown = [key for key in settings if key not in UpstreamSettings.__dataclass_fields__]
            if not unknown:
                raise
            raise ConfigurationError(
                f"upstream {str(name)[:64]!r}: there is no setting {str(unknown[0])[:40]!r}. Known: {known}, fallback."
            ) from None
        super().__init__(
            engine if callable(engine) else lambda: engine,
            read,
            counter if not isinstance(counter, str) and hasattr(counter, "exact") else open_counter(counter),
            clock=clock,
            running=running,
            pause=pause,
        )
        if isinstance(fallback, str):
            raise read.wrong("fallback", "a list of upstreams, or of their names, is needed", fallback)
        names = [each if isinstance(each, str) else each.name for each in fallback]
        if name in names or len({*names}) < len(names):
            raise read.wrong("fallback", "other upstreams are needed, each once", ", ".join(names))
        self._fallback = tuple(fallback)
        self._siblings = {} if siblings is None else siblings

    def __repr__(self) -> str:
        return f"<Upstream {self.name}>"

    @property
    def fallbacks(self) -> list["Upstream"]:
        """The upstreams that are asked if this one can't answer now.

        Raises:
            ConfigurationError: There is none of such a name, or it has no ``base_url``.
        """
        found = []
        for each in self.named_fallbacks:
            upstream = self._siblings.get(each) if isinstance(each, str) else each
            if upstream is None:
                known = ", ".join(self._siblings) or "none"
                raise self.settings.wrong("fallback", f"an upstream's name is needed (there are: {known})", each)
            require_target(self.settings, upstream.settings)
            found.append(upstream)
        return found

    @property
    def named_fallbacks(self) -> Sequence["str | Upstream"]:
        """They as they are written: the upstreams, or their names."""
        return self._fallback or self.settings.fallback

    def transport(self, inner: Any = None, *, library: str = "httpx2", **options: Any) -> Any:
        """A transport for a Client of httpx2 or httpx.

        Args:
            inner: The transport that sends; None for one with the connection limits and keep-alive of the SDKs'.
            library: ``httpx2`` or ``httpx``.
            **options: Of the transport that sends, such as ``proxy`` or ``verify``.
        """
        return http_transport(library, self._targets, inner, **options)

    def async_transport(self, inner: Any = None, *, library: str = "httpx2", **options: Any) -> Any:
        """A transport for an AsyncClient; see :meth:`transport`. The store is asked in threads."""
        return async_http_transport(library, self._targets, inner, **options)

    def http_client(self, *, library: str = "httpx2", **options: Any) -> Any:
        """A client for ``OpenAI(http_client=...)`` and ``Anthropic(http_client=...)``, or to be used as it is.

        Args:
            library: ``httpx2``, which the SDKs use, or ``httpx``.
            **options: Of the library's Client, and of its transport, such as ``proxy``. Proxies are not read from the
                environment.
        """
        return self._client(module_of(library), "Client", self.transport, library, options)

    def async_http_client(self, *, library: str = "httpx2", **options: Any) -> Any:
        """The same for ``AsyncOpenAI`` and ``AsyncAnthropic``."""
        return self._client(module_of(library), "AsyncClient", self.async_transport, library, options)

    calling = staticmethod(calling)

    def batch(
        self,
        function: Callable[[Item], Answer],
        items: Iterable[Item],
        *,
        workers: int = 5,
        progress: bool = False,
    ) -> list[Answer | Failed]:
        """Call ``function`` with each item, several at once, and return the answers in the order of the items.

        Its calls wait while they would delay calls that are no batch's. An item that fails has a
        :class:`flask_ailimit.upstream.batch.Failed` in its place.

        Args:
            function: Calls the upstream, through a client of :meth:`http_client`.
            items: The items. They are taken as they are needed.
            workers: How many run at once, 1 to 256.
            progress: Whether to show on standard error how far it is.

        Raises:
            Interrupted: Ctrl-C: no further item began, and those that ran were waited for. It has the answers.
            ValueError: ``workers`` is out of range.
        """
        return run(function, items, workers=workers, progress=progress, prices=self.prices)

    @property
    def prices(self) -> PriceBook | None:
        """What models cost; None if nobody says it."""
        return None

    def _client(self, module: Any, kind: str, transport: Any, library: str, options: dict[str, Any]) -> Any:
        of_transport = {name: options.pop(name) for name in _OF_TRANSPORT if name in options}
        usual = {"follow_redirects": True, "timeout": module.Timeout(_TIMEOUT, connect=_CONNECT_TIMEOUT)}
        return getattr(module, kind)(transport=transport(library=library, **of_transport), **{**usual, **options})

    def _targets(self) -> list[Target]:
        return [self, *self.fallbacks]
