"""From an answer to what the request really used: what the view recorded, else the model's report, else a count."""

import logging
from typing import NamedTuple

from flask import Response

from .ranges import Unmetered, metered, status_of_work
from .streaming import Ending, Meter, MeteredStream
from .tab import ABANDONED, COMPLETE, COUNTED, FAILED, NOTHING, RECORDED, REPORTED, RESERVED, Tab
from .tokens import StreamMeter, TokenCounter, Usage
from .tokens.usual import read_usual

_log = logging.getLogger("flask_ailimit")

_NO_ANSWER = 300
"""The first status that no model's answer has: redirects and errors."""

_NO_SUCH_RANGE = 416
"""The view had made the answer when its client's condition threw it away, and nobody knows what it used."""

_METERING = "__flask_ailimit_metering__"


class Metering(NamedTuple):
    """How the answers of a view are to be read.

    Attributes:
        ends_with_body: Only the end of the body ends an answer, and no event in it.
        recorded_only: What an answer reports is text that a model wrote.
    """

    ends_with_body: bool = False
    recorded_only: bool = False


_USUAL = Metering()


def set_metering(view: object, metering: Metering) -> None:
    """Note on a view how its answers are to be read."""
    setattr(view, _METERING, metering)


def settle_plain(
    tab: Tab, response: Response, counter: TokenCounter, *, gone: bool = False, is_encoded: bool = False
) -> None:
    """End the tab for an answer that is complete, before its body leaves.

    Args:
        tab: The request's account.
        response: The answer.
        counter: Counts its text.
        gone: Its client is, for all we know.
        is_encoded: It has a Content-Encoding.
    """
    if not tab.counts_tokens and tab.recorded is None:
        tab.settle(NOTHING, RESERVED, COMPLETE)
        return
    account = Account(tab, response, gone=gone)
    if tab.recorded is not None or response.direct_passthrough:  # Another server sends the file (X-Sendfile).
        account.end(Ending.COMPLETE, Unmetered())
        return
    body, metering = response.get_data(), _metering_of(tab)
    is_usual = metering is _USUAL and not is_encoded and account.status < _NO_ANSWER
    if is_usual and response.mimetype == "application/json":
        usage = read_usual(body, counter)  # What the meter would find, in less time.
        if usage is not None:
            tab.settle(usage, REPORTED, COMPLETE)
            return
    meter = _meter_of(response, counter, metering)
    meter.feed(body)
    account.end(Ending.COMPLETE, meter)


def settle_failure(tab: Tab, error: BaseException | None, *, gone: bool = False) -> None:
    """End the tab of a request that got no answer.

    An exception before any output cost no tokens, unless the view recorded some. A worker that was told to stop
    (``SystemExit``), and a view that broke off because its client was gone, may have used any number of them: then
    nothing is given back.
    """
    tab.waive(None)
    if gone or not (error is None or isinstance(error, Exception)):
        tab.settle(tab.recorded or NOTHING, RESERVED, ABANDONED)
    elif tab.recorded is not None:
        tab.settle(tab.recorded, RECORDED, FAILED)
    else:
        tab.settle(NOTHING, COUNTED, FAILED)


def meter_stream(tab: Tab, response: Response, counter: TokenCounter, *, gone: bool = False) -> MeteredStream:
    """Let the answer's stream end the tab. ``gone``: the client already is, for all we know."""
    tab.streaming = True
    stream = metered(response, _meter_of(response, counter, _metering_of(tab)), Account(tab, response, gone=gone))
    response.call_on_close(stream.close)
    return stream


class Account:
    """Settles what an answer used: see :class:`flask_ailimit.streaming.Account`.

    Attributes:
        status: What the view answered with, whatever the client's conditions made of it.
    """

    def __init__(self, tab: Tab, response: Response, *, gone: bool) -> None:
        self._tab = tab
        self.status = status_of_work(response)
        self._broke_off = self.status == _NO_SUCH_RANGE or (gone and self.status >= _NO_ANSWER)
        self._ending = Ending.NOT_STARTED

    def end(self, ending: Ending, meter: Meter) -> None:
        """Charge what the answer has used so far, and give the slot back."""
        self._ending = ending
        self._settle(meter)

    def resume(self) -> None:
        """Take the slot again: the answer goes on."""
        self._tab.resume()

    def close(self, meter: Meter) -> None:
        """Charge what has come since the last end."""
        self._settle(meter)
        self._tab.closed = True

    def _settle(self, meter: Meter) -> None:
        """Settle; if nobody knows what was used, nothing of the reservation is given back."""
        try:
            usage, source = self._used(meter)
        except Exception as error:  # noqa: BLE001  an app's own counter may raise on a text that it doesn't expect
            # Not the error's text or its traceback, which may hold the answer.
            _log.error("An answer's tokens could not be counted: %s was raised.", type(error).__name__)
            usage, source = None, RESERVED
        self._tab.settle(usage or NOTHING, source, self._ending.name.lower())

    def _used(self, meter: Meter) -> tuple[Usage | None, str]:
        """The usage and its source; None if nobody knows it."""
        tab, ending = self._tab, self._ending
        if tab.recorded is not None:
            return tab.recorded, RECORDED
        if self._broke_off:
            return None, RESERVED
        known_input = None if tab.estimate is None else tab.estimate.usage.input_tokens
        measure = meter.measure(known_input, complete=ending is Ending.COMPLETE)
        if measure.source == REPORTED:
            return measure
        # Flask makes a stream of every HTTPException that has no handler.
        failed = self.status >= _NO_ANSWER
        if failed or ending is Ending.NOT_STARTED or (ending is Ending.FAILED and not meter.seen_anything):
            return NOTHING, COUNTED
        return measure


def _metering_of(tab: Tab) -> Metering:
    """How the answers of the tab's view are to be read."""
    metering: Metering = getattr(tab.app.view_functions.get(tab.endpoint or ""), _METERING, _USUAL)
    return metering


def _meter_of(response: Response, counter: TokenCounter, metering: Metering) -> StreamMeter:
    """What reads an answer."""
    return StreamMeter(
        response.mimetype or "",
        counter,
        encoding=response.headers.get("Content-Encoding", ""),
        ends_with_body=metering.ends_with_body,
        believes_reports=not metering.recorded_only,
    )
