"""What metering adds to each chunk of a streamed answer, as the OpenAI API sends them: some 200 bytes each."""

import json
from functools import partial

import limited_flask as apps
from figures import Figure, Size, added, here_and_there
from racing import Work, race
from requests_to import caller

from flask_ailimit.request.streaming import Ending, MeteredStream
from flask_ailimit.tokens import StreamMeter, open_counter

CHUNKS = 1000
AIM_US = 5.0
BARE, PASSED, METERED = "bare Flask request", "1,000 chunks passed on", "1,000 chunks metered"


def chunks() -> list[bytes]:
    """A streamed answer, with its usage before the end."""

    def event(**fields: object) -> bytes:
        whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", **fields}
        return b"data: " + json.dumps(whole, separators=(",", ":")).encode() + b"\n\n"

    def word(number: int) -> bytes:
        delta = {"content": f" word{number}"}
        return event(choices=[{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}], usage=None)

    usage = {"prompt_tokens": 1000, "completion_tokens": CHUNKS, "total_tokens": 1000 + CHUNKS}
    return [*map(word, range(CHUNKS - 2)), event(choices=[], usage=usage), b"data: [DONE]\n\n"]


def figures(size: Size) -> list[Figure]:
    """Microseconds per chunk."""
    contestants = {BARE: _bare, PASSED: partial(_passed, chunks()), METERED: partial(_metered, chunks())}
    _, processor = race(contestants, size, {BARE: 20, PASSED: 2, METERED: 2})
    per_chunk = [each / CHUNKS for each in added(processor[METERED], processor[PASSED])]
    figure = Figure("streaming, added to each chunk by metering", per_chunk, "us", AIM_US)
    return here_and_there(figure, processor[BARE])


def _bare() -> Work:
    return Work(caller(apps.bare()))


def _passed(source: list[bytes]) -> Work:
    def call() -> None:
        for _ in iter(source):
            pass

    return Work(call)


def _metered(source: list[bytes]) -> Work:
    counter = open_counter("estimate")
    tokens = []

    class Account:
        def end(self, ending: Ending, meter: StreamMeter) -> None:
            usage, source = meter.measure(1000, complete=True)
            if ending is not Ending.COMPLETE or source != "reported" or usage is None or usage.output_tokens != CHUNKS:
                raise RuntimeError(f"The stream was not metered: {ending}, {usage}.")
            tokens.append(usage)

        def resume(self) -> None:
            raise RuntimeError("The stream ended before its end.")

        def close(self, meter: StreamMeter) -> None:
            pass

    def call() -> None:
        tokens.clear()
        for _ in MeteredStream(iter(source), StreamMeter("text/event-stream", counter), Account()):
            pass
        if not tokens:
            raise RuntimeError("The stream was not settled.")

    return Work(call)
