"""The transport for clients that block a thread. It does the steps of a call (``call.py``) where they come."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any

from .call import Accepted, Ask, Outgoing, Read, Send, Sleep, Steps
from .held import Held
from .passing import Passing, passing_of
from .refusing import Final
from .sending import outgoing_of, request_of, response_of, steps_of


class _Body:
    def __init__(self, stream: Any, passing: Passing) -> None:
        self._stream = stream
        self._passing = passing

    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._stream:
                yield self._passing.feed(chunk)
        except Exception:
            self._passing.broke()
            raise
        self._passing.came_to_end()

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._passing.end()

    def __del__(self) -> None:
        self._passing.end_later()


class _Transport:
    body: type[_Body]

    def __init__(self, module: ModuleType, targets: Any, inner: Any) -> None:
        self._module = module
        self._targets = targets
        self._inner = inner

    def handle_request(self, request: Any) -> Any:
        came, targets = outgoing_of(request, request.read()), self._targets()
        answer = self._answer(steps_of(targets, came), request, came, targets[0].pause)
        if isinstance(answer, Final):
            return response_of(self._module, answer, request)
        answer.response.stream = self.body(answer.response.stream, passing_of(answer, targets[0].counter))
        return answer.response

    def _answer(self, steps: Steps, request: Any, came: Outgoing, pause: Callable[[float], object]) -> Accepted | Final:
        held, response = list[Held](), None
        done: Any = None
        try:
            while True:
                step = steps.send(done)
                if isinstance(step, Ask):
                    done = step.work()
                elif isinstance(step, Sleep):
                    done = pause(step.seconds) if step.stop is None else step.stop.wait(step.seconds)
                elif isinstance(step, Send):
                    held[:] = [step.held]
                    response = done = self._sent(request_of(self._module, request, came, step.request), step.held)
                elif isinstance(step, Read):
                    done, response = _whole(step.response), None
        except StopIteration as end:
            held.clear()  # It is the body's to end, or has ended.
            response = None
            answer: Accepted | Final = end.value
            return answer
        finally:
            steps.close()  # Else they stand in line for as long as somebody keeps the exception.
            try:
                if isinstance(response, self._module.Response):
                    response.close()  # Else nobody would have its connection.
            finally:
                for each in held:
                    each.abandoned()

    def _sent(self, request: Any, held: Held) -> Any:
        held.sent = True
        try:
            return self._inner.handle_request(request)
        except Exception as error:  # noqa: BLE001  what it means is decided in the steps
            return error

    def close(self) -> None:
        self._inner.close()


def _whole(response: Any) -> bytes:
    try:
        return b"".join(response.stream)
    except Exception:  # noqa: BLE001  the status says enough
        return b""
    finally:
        response.close()


@lru_cache
def transport_of(module: ModuleType) -> Any:
    """The class of a library's transport."""
    body = type("Body", (_Body, module.SyncByteStream), {})
    return type("UpstreamTransport", (_Transport, module.BaseTransport), {"body": body})
