"""From an answer to what the request really used: what the view recorded, else the model's report, else a count."""

import json
import logging
from collections.abc import Callable
from typing import Any

from flask import Response

from .streaming import Ending, MeteredStream
from .tab import NOTHING, Tab
from .tokens import StreamMeter, TokenCounter, Usage, read_usage

_log = logging.getLogger("flask_ailimit")

_NO_ANSWER = 300
"""The first status that no model's answer has: redirects and errors."""


def settle_plain(tab: Tab, response: Response, counter: TokenCounter) -> None:
    """End the tab for an answer that is complete, before its body leaves."""
    if not tab.counts_tokens and tab.recorded is None:
        tab.settle(NOTHING)
        return
    _settle(tab, lambda: _used_by_plain(tab, response, counter))


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
    status = response.status_code

    def settle(ending: Ending, metered: StreamMeter) -> None:
        _settle(tab, lambda: _used_by_stream(tab, status, ending, metered))

    stream = MeteredStream(
        iter(response.response),
        StreamMeter(response.mimetype or "", counter),
        settle,
        length=response.content_length,
    )
    response.response = stream  # type: ignore[assignment]  # it passes on text or bytes, whichever it gets
    response.call_on_close(stream.close)
    return stream


def _settle(tab: Tab, used: Callable[[], Usage | None]) -> None:
    """End the tab with what was used; if nobody knows, nothing of the reservation is given back."""
    try:
        usage = used()
    except Exception as error:  # noqa: BLE001  an app's own counter may raise on a text that it doesn't expect
        # Not the error's text or its traceback, which may hold the answer.
        _log.error("An answer's tokens could not be counted: %s was raised.", type(error).__name__)
        usage = None
    if usage is None:
        tab.settle_at_least(NOTHING)
    else:
        tab.settle(usage)


def _used_by_plain(tab: Tab, response: Response, counter: TokenCounter) -> Usage | None:
    if tab.recorded is not None:
        return tab.recorded
    failed = response.status_code >= _NO_ANSWER
    if response.direct_passthrough:
        return NOTHING if failed else None  # A file goes out as it is; nobody has looked into it.
    usage = read_usage(_payload(response))
    if usage is not None or failed:
        return usage or NOTHING
    body = StreamMeter(response.mimetype or "", counter)
    body.feed(response.get_data())
    return body.usage or _counted(tab, body.output_tokens)


def _used_by_stream(tab: Tab, status: int, ending: Ending, metered: StreamMeter) -> Usage | None:
    usage = tab.recorded or metered.usage
    if usage is not None:
        return usage
    # Flask makes a stream of every HTTPException that has no handler.
    if status >= _NO_ANSWER or ending is Ending.NOT_STARTED or (ending is Ending.FAILED and not metered.seen_anything):
        return NOTHING
    return _counted(tab, metered.output_tokens)


def _counted(tab: Tab, output: int | None) -> Usage | None:
    """The text in both directions. None if it can't be counted, or if the app estimated itself: its word stands."""
    return None if output is None or tab.estimate is None else Usage(tab.estimate.usage.input_tokens, output)


def _payload(response: Response) -> Any:
    """The decoded body; None if it isn't JSON."""
    if not response.is_json:
        return None
    try:
        return json.loads(response.get_data())
    except (ValueError, RecursionError):
        return None
