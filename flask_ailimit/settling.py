"""From an answer to what the request really used: what the view recorded, else the model's report, else a count."""

import json
from typing import Any

from flask import Response

from .streaming import Ending, MeteredStream
from .tab import NOTHING, Tab
from .tokens import StreamMeter, TokenCounter, Usage, read_output_text, read_usage

_ERROR = 400


def settle_plain(tab: Tab, response: Response, counter: TokenCounter) -> None:
    """End the tab for an answer that is complete, before its body leaves."""
    if not tab.counts_tokens or tab.recorded is not None:
        tab.settle(tab.recorded or NOTHING)
        return
    if response.direct_passthrough:
        tab.settle_at_least(NOTHING)  # A file goes out as it is; nobody has looked into it.
        return
    payload = _payload(response)
    usage = read_usage(payload)
    if usage is None and response.status_code < _ERROR:
        usage = Usage(_input_tokens(tab), counter(read_output_text(payload) or response.get_data(as_text=True)))
    tab.settle(usage or NOTHING)


def settle_failure(tab: Tab, error: BaseException | None) -> None:
    """End the tab of a request that got no answer.

    An exception before any output cost no tokens, unless the view recorded some. A worker that was told to stop
    (``SystemExit``) may have used any number of them: then nothing is given back.
    """
    tab.waive(None)
    if error is None or isinstance(error, Exception):
        tab.settle(tab.recorded or NOTHING)
    else:
        tab.settle_at_least(tab.recorded or NOTHING)


def meter(tab: Tab, response: Response, counter: TokenCounter) -> MeteredStream:
    """Let the answer's stream end the tab."""
    tab.streaming = True
    failed = response.status_code >= _ERROR  # Flask makes every HTTPException without a handler a stream.

    def settle(ending: Ending, reported: Usage | None, seen: int | None) -> None:
        usage = tab.recorded or reported
        if usage is not None:
            tab.settle(usage)
        elif failed or ending is Ending.NOT_STARTED or (ending is Ending.FAILED and not seen):
            tab.settle(NOTHING)
        elif seen is None:
            tab.settle_at_least(NOTHING)
        else:
            tab.settle(Usage(_input_tokens(tab), seen))

    stream = MeteredStream(
        iter(response.response),
        StreamMeter(response.mimetype or "", counter),
        settle,
        hold_last="Content-Length" in response.headers,
    )
    response.response = stream  # type: ignore[assignment]  # it passes on text or bytes, whichever it gets
    response.call_on_close(stream.close)
    return stream


def _input_tokens(tab: Tab) -> int:
    return tab.estimate.usage.input_tokens if tab.estimate else 0


def _payload(response: Response) -> Any:
    """The decoded body; None if it isn't JSON."""
    if not response.is_json:
        return None
    try:
        return json.loads(response.get_data())
    except (ValueError, RecursionError):
        return None
