"""The transport for clients of an event loop. The store is asked in threads: it may block, and the loop may not."""

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import lru_cache
from types import ModuleType
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from anyio.to_thread import run_sync

from flask_ailimit.engine import AILimitError
from flask_ailimit.engine.background import started

from .call import Accepted, Ask, Outgoing, Read, Send, Sleep, Steps
from .held import Held
from .passing import Passing, passing_of
from .refusing import Final
from .sending import outgoing_of, request_of, response_of, steps_of

_LOOK_EVERY = 0.25
"""Seconds after which a call that waits looks whether it is to stop. Whoever stops it is in another thread."""


class _Body:
    def __init__(self, stream: Any, passing: Passing) -> None:
        self._stream = stream
        self._passing = passing

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield self._passing.feed(chunk)
        except Exception:
            self._passing.broke()
            raise
        self._passing.came_to_end()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            if self._passing.is_open:
                with anyio.CancelScope(shield=True):
                    await run_sync(self._passing.end)

    def __del__(self) -> None:
        self._passing.end_later()


class _Transport:
    body: type[_Body]

    def __init__(self, module: ModuleType, targets: Any, inner: Any) -> None:
        self._module = module
        self._targets = targets
        self._inner = inner

    async def handle_async_request(self, request: Any) -> Any:
        came, targets = outgoing_of(request, await request.aread()), self._targets()
        answer = await self._answer(steps_of(targets, came), request, came)
        if isinstance(answer, Final):
            return response_of(self._module, answer, request)
        answer.response.stream = self.body(answer.response.stream, passing_of(answer, targets[0].counter))
        return answer.response

    async def _answer(self, steps: Steps, request: Any, came: Outgoing) -> Accepted | Final:
        held, response = list[Held](), None
        done: Any = None
        try:
            while True:
                step = steps.send(done)
                if isinstance(step, Ask):
                    done = await _answer_to(step)
                elif isinstance(step, Sleep):
                    await _rest(step)
                    done = None
                elif isinstance(step, Send):
                    held[:] = [step.held]
                    request_now = request_of(self._module, request, came, step.request)
                    response = done = await self._sent(request_now, step.held)
                elif isinstance(step, Read):
                    done, response = await _whole(step.response), None
        except StopIteration as end:
            held.clear()  # It is the body's to end, or has ended.
            response = None
            answer: Accepted | Final = end.value
            return answer
        finally:
            steps.close()  # Else they stand in line for as long as somebody keeps the exception.
            for each in held:
                started(each.abandoned, "settlement of a call")
            if isinstance(response, self._module.Response):
                with anyio.CancelScope(shield=True):
                    await response.aclose()  # Else nobody would have its connection.

    async def _sent(self, request: Any, held: Held) -> Any:
        await checkpoint()  # Who is cancelled here has sent nothing.
        held.sent = True
        try:
            return await self._inner.handle_async_request(request)
        except Exception as error:  # noqa: BLE001  what it means is decided in the steps
            return error

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Errand:
    """Work that a thread does for somebody who may be gone when it is done. Then its answer is undone."""

    def __init__(self, step: Ask) -> None:
        self._step = step
        self._unheard: list[Any] = []  # Whoever takes the answer out of it undoes it.
        self._is_left = False

    def run(self) -> Any:
        answer = self._step.work()
        self._unheard.append(answer)
        if self._is_left:
            self._undo()
        return answer

    def leave(self) -> None:
        self._is_left = True
        if self._unheard:
            started(self._undo, "giving back")

    def _undo(self) -> None:
        try:
            answer = self._unheard.pop()
        except IndexError:
            return
        if self._step.undo is not None:
            with suppress(AILimitError):  # Then its lease ends.
                self._step.undo(answer)


async def _answer_to(step: Ask) -> Any:
    """Else nobody would have what the store has given. Cancellation of asyncio's own goes through every shield."""
    errand = _Errand(step)
    try:
        with anyio.CancelScope(shield=True):
            return await run_sync(errand.run)
    except BaseException:
        errand.leave()
        raise


async def _rest(step: Sleep) -> None:
    left = step.seconds
    while left > 0 and not (step.stop and step.stop.is_set()):
        await anyio.sleep(min(left, _LOOK_EVERY) if step.stop else left)
        left -= _LOOK_EVERY if step.stop else left


async def _whole(response: Any) -> bytes:
    try:
        return b"".join([chunk async for chunk in response.stream])
    except Exception:  # noqa: BLE001  the status says enough
        return b""
    finally:
        await response.aclose()


@lru_cache
def transport_of(module: ModuleType) -> Any:
    """The class of a library's transport."""
    body = type("Body", (_Body, module.AsyncByteStream), {})
    return type("AsyncUpstreamTransport", (_Transport, module.AsyncBaseTransport), {"body": body})
