"""Finds out what a request really used: the recorded usage, else the one that the answer reports, else a count."""

import logging

from flask import Response

from flask_ailimit.tokens import StreamMeter, TokenCounter, Usage
from flask_ailimit.tokens.usual import read_usual

from .ledger import ABANDONED, COMPLETE, COUNTED, FAILED, NO_USAGE, RECORDED, REPORTED, RESERVED, Ledger
from .metering import Metering, metering_of
from .ranges import Unmetered, metered, status_of_work
from .streaming import Ending, Meter, MeteredStream

_log = logging.getLogger("flask_ailimit")

_NO_ANSWER = 300
"""Redirects and errors, from this status on, hold no output of a model."""

_NO_SUCH_RANGE = 416
"""With this status, Werkzeug has dropped the answer of the view for the client's ``Range``: its usage is unknown."""


def settle_plain(
    ledger: Ledger, response: Response, counter: TokenCounter, *, gone: bool = False, is_encoded: bool = False
) -> None:
    """Settle what is owed for a complete response, before its body leaves.

    Args:
        ledger: What the request owes.
        response: The answer.
        counter: Counts the tokens of its text.
        gone: Whether its client is known to be gone.
        is_encoded: Whether it has a Content-Encoding.
    """
    if not ledger.counts_units and ledger.recorded is None:
        ledger.settle(NO_USAGE, RESERVED, COMPLETE)
        return
    account = LedgerAccount(ledger, response, gone=gone)
    # Another server sends the file (X-Sendfile), or no limit counts tokens.
    if ledger.recorded is not None or response.direct_passthrough or not ledger.counts_tokens:
        account.end(Ending.COMPLETE, Unmetered())
        return
    body, metering = response.get_data(), metering_of(ledger.app, ledger.endpoint)
    is_usual = metering.is_usual and not is_encoded and account.status < _NO_ANSWER
    if is_usual and response.mimetype == "application/json":
        usage = read_usual(body, counter)  # The same as the meter would find, but faster.
        if usage is not None:
            ledger.settle(usage, REPORTED, COMPLETE)
            return
    meter = _meter_of(response, counter, metering)
    meter.feed(body)
    account.end(Ending.COMPLETE, meter)


def settle_failure(ledger: Ledger, error: BaseException | None, *, gone: bool = False) -> None:
    """Settle what is owed for a request that got no response.

    If the view raised, it is charged no tokens but those it recorded. If the worker was told to stop (``SystemExit``),
    or the client was gone, the view may have used any number of tokens: then nothing is given back.
    """
    ledger.waive(None)
    if gone or not (error is None or isinstance(error, Exception)):
        ledger.settle(ledger.recorded or NO_USAGE, RESERVED, ABANDONED)
    elif ledger.recorded is not None:
        ledger.settle(ledger.recorded, RECORDED, FAILED, failed=True)
    else:
        ledger.settle(NO_USAGE, COUNTED, FAILED, failed=True)


def meter_stream(ledger: Ledger, response: Response, counter: TokenCounter, *, gone: bool = False) -> MeteredStream:
    """Settle what is owed when the answer's stream ends. ``gone``: whether the client is known to be gone already."""
    ledger.streaming = True
    stream = metered(
        response,
        _meter_of(response, counter, metering_of(ledger.app, ledger.endpoint)),
        LedgerAccount(ledger, response, gone=gone),
    )
    response.call_on_close(stream.close)
    return stream


class LedgerAccount:
    """Settles what an answer used: see :class:`flask_ailimit.request.streaming.Account`.

    Attributes:
        status: The status that the view gave its answer, before a condition of the client replaced it.
    """

    def __init__(self, ledger: Ledger, response: Response, *, gone: bool) -> None:
        self._ledger = ledger
        self.status = status_of_work(response)
        self._broke_off = self.status == _NO_SUCH_RANGE or (gone and self.status >= _NO_ANSWER)
        self._ending = Ending.NOT_STARTED

    def end(self, ending: Ending, meter: Meter) -> None:
        """Charge what the answer has used so far, and give the slot back."""
        self._ending = ending
        self._settle(meter)

    def resume(self) -> None:
        """Take the slot again, because the answer goes on."""
        self._ledger.resume()

    def close(self, meter: Meter) -> None:
        """Charge what was used since the last end."""
        self._settle(meter)
        self._ledger.closed = True

    def _settle(self, meter: Meter) -> None:
        """Settle. If the usage is unknown, nothing of the reservation is given back."""
        try:
            usage, source = self._used(meter)
        except Exception as error:  # noqa: BLE001  an app's own counter may fail on a text that it doesn't expect
            # Not the error's text or its traceback, which may hold the answer.
            _log.error("An answer's tokens could not be counted: %s was raised.", type(error).__name__)
            usage, source = None, RESERVED
        ending = self._ending.name.lower()
        self._ledger.settle(usage or NO_USAGE, source, ending, failed=self._failed(meter))

    def _used(self, meter: Meter) -> tuple[Usage | None, str]:
        """The usage, None if it is unknown, and its source."""
        ledger = self._ledger
        if ledger.recorded is not None:
            return ledger.recorded, RECORDED
        if self._broke_off:
            return None, RESERVED
        if not ledger.counts_tokens:
            return None, RECORDED if ledger.recorded_units else RESERVED
        estimate = next(iter(ledger.estimates.values()), None)
        known_input = None if estimate is None else estimate.usage.input_tokens
        measure = meter.measure(known_input, complete=self._ending is Ending.COMPLETE)
        if measure.source != REPORTED and self._failed(meter):
            return NO_USAGE, COUNTED
        return measure

    def _failed(self, meter: Meter) -> bool:
        """Whether the answer is known to hold no output of a model."""
        if self._broke_off:
            return False
        # Such an answer may be a stream: Flask makes one of every HTTPException that has no handler.
        failed, ending = self.status >= _NO_ANSWER, self._ending
        return failed or ending is Ending.NOT_STARTED or (ending is Ending.FAILED and not meter.seen_anything)


def _meter_of(response: Response, counter: TokenCounter, metering: Metering) -> StreamMeter:
    """The meter that reads an answer."""
    return StreamMeter(
        response.mimetype or "",
        counter,
        encoding=response.headers.get("Content-Encoding", ""),
        ends_with_body=metering.ends_with_body,
        believes_reports=not metering.recorded_only,
    )
