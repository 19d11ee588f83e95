"""A provider on a port of this machine: it reads calls, and answers them well or as it is ordered to."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Condition
from types import TracebackType
from typing import Self

from flask_ailimit.engine import Clock, system_clock

from .call import Call, note_request
from .connection import Connection
from .fault import Fault
from .orders import Orders
from .own_limits import OwnLimits
from .port import Port
from .replies import Replies
from .sending import send
from .words import SayText, repeated


class FakeProvider:
    """A server that speaks the APIs of OpenAI, Azure and Anthropic, and fails to order. It serves inside ``with``.

    It answers ``/v1/chat/completions``, ``/v1/responses``, ``/v1/embeddings``, ``/v1/models`` and ``/v1/messages``,
    streams too, and the same below Azure's ``/openai/``. The model repeats the words of the last message; each word is
    a token.

    Args:
        key: The only key that it accepts; None for any, or none.
        models: The only models that it has; empty for any.
        limits: What it allows, by ``requests``, ``tokens``, ``input_tokens`` and ``output_tokens``: a text such as
            ``"60 per minute"``, or a number per minute. They are enforced, and told in its headers.
        answer: From a request's decoded body to the text of the answer. If it raises, the connection ends without an
            answer, and :func:`threading.excepthook` is told.
        clock: Whose time its limits and headers follow, in microseconds since the epoch.

    Raises:
        ConfigurationError: A limit can't be read.
        ValueError: A limit's unit is unknown.

    Example:
        >>> with FakeProvider() as provider:
        ...     provider.then(Fault.throttled(retry_after=2), Fault.overloaded())
        ...     provider.url.startswith("http://127.0.0.1:")
        True
    """

    def __init__(
        self,
        *,
        key: str | None = None,
        models: Collection[str] = (),
        limits: Mapping[str, str | int] | None = None,
        answer: SayText = repeated,
        clock: Clock = system_clock,
    ) -> None:
        self._clock = clock
        self._orders = Orders()
        self._calls: list[Call] = []
        self._changed = Condition()
        self._limits = OwnLimits(limits or {}, clock)
        self._replies = Replies(key, tuple(models), self._limits, answer)
        self._port: Port | None = None

    def __enter__(self) -> Self:
        self._port = Port(self._serve)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open_port.close()
        self._limits.close()

    # Where it is

    @property
    def url(self) -> str:
        """The ``base_url`` of OpenAI's clients."""
        return f"{self.anthropic_url}/v1"

    @property
    def anthropic_url(self) -> str:
        """The ``base_url`` of Anthropic's clients."""
        return f"http://127.0.0.1:{self._open_port.number}"

    @property
    def azure_url(self) -> str:
        """The ``azure_endpoint`` of Azure's clients."""
        return self.anthropic_url

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuse connections inside the block, and accept them on the same port after it. Calls in flight go on."""
        self._open_port.refuse()
        try:
            yield
        finally:
            self._open_port.accept()

    # What is ordered

    def then(self, *faults: Fault) -> None:
        """Let the next calls meet these faults, one each. Every request counts, also one that is repeated."""
        self._orders.then(*faults)

    def always(self, fault: Fault) -> None:
        """Let every call meet this fault, if there is no other for it; :meth:`Fault.ok` ends this."""
        self._orders.always(fault)

    def at_random(self, seed: int, share: float, faults: Sequence[Fault]) -> None:
        """Let this share of the calls meet one of the faults. A seed gives the same to each call in the order of calls.

        Raises:
            ValueError: The share is not from 0 to 1, or there are no faults.
        """
        self._orders.at_random(seed, share, faults)

    def take(self, **units: int) -> bool:
        """Let somebody else who shares the account use so many units now. Answers whether they were left: else none.

        Raises:
            ValueError: A unit is not limited here.
        """
        self._limits.require(units)
        return self._limits.reserve(units).allowed

    # What came

    @property
    def calls(self) -> list[Call]:
        """The calls that came so far, in their order."""
        with self._changed:
            return [*self._calls]

    def count(self, status: int | None = None) -> int:
        """How many calls came, or how many were answered with a status; 0 counts those without an answer."""
        return sum(status is None or call.status == status for call in self.calls)

    def wait_for_calls(self, count: int = 0, *, ended: bool = True, timeout: float = 10) -> list[Call]:
        """Wait until so many calls have come, and all that came have ended.

        Args:
            count: How many are needed.
            ended: Whether they must have ended, too.
            timeout: The most seconds to wait.

        Raises:
            TimeoutError: They did not in this time.
        """

        def is_so() -> bool:
            return len(self._calls) >= count and not (ended and any(call.delivered is None for call in self._calls))

        with self._changed:
            if not self._changed.wait_for(is_so, timeout):
                raise TimeoutError(f"After {timeout} s: {self._calls}")
            return [*self._calls]

    # How it serves

    @property
    def _open_port(self) -> Port:
        if self._port is None:
            raise RuntimeError("FakeProvider: it serves only inside `with FakeProvider() as provider:`.")
        return self._port

    def _serve(self, connection: Connection) -> None:
        while connection.has_more():
            connection.is_idle = False
            call = self._came()
            try:
                is_open = self._serve_one(connection, call)
            finally:
                with self._changed:
                    call.delivered = bool(call.delivered)
                    self._changed.notify_all()
            if not is_open:
                break
            connection.is_idle = True
            if self._open_port.refuses:  # It has begun to, just before this connection was idle.
                break

    def _came(self) -> Call:
        with self._changed:
            call = Call(len(self._calls) + 1, self._orders.pop(), self._clock())
            self._calls.append(call)
            self._changed.notify_all()
        return call

    def _serve_one(self, connection: Connection, call: Call) -> bool:
        fault = call.fault
        request = None if fault.is_unread else connection.read()
        if request is not None:
            note_request(call, request)
        if request is None or fault.name == "dropped":
            call.delivered = False
            if fault.ending == "reset" and fault.name == "dropped":
                connection.reset()
            return False
        if fault.name == "silent":
            connection.client_leaves(within=None)
            return False
        return send(connection, call, self._replies.to(call, request), fault) and request.keeps_alive
