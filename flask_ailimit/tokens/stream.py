"""Metering an answer while it passes."""

import codecs
import copy
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from .counter import TokenCounter
from .document import read_document
from .doubt import LONGEST_DOUBT, Doubt
from .encodings import UndecodableError, decoder_of
from .messages import Messages, ends_message, may_end
from .splitting import LONGEST, EventStream, Lines
from .stream_format import Kind, kind_of, promised_by
from .usage import Usage

LONGEST_PEEK: Final = 16 * 1024
"""Bytes. An event whose line has not ended is looked at as chunks come only up to this size."""

MOST_WAITING: Final = 256 * 1024
"""Bytes of whole events that wait until somebody looks into them."""

LONGEST_DOCUMENT: Final = LONGEST
"""Bytes. A JSON document is kept whole up to this size; of a longer one nobody knows what it used."""

_SHORT_HEAD = 512
_FEW = 4

_MOST_PEEKS = 64
"""How often a line is looked at before it has ended: else one that comes in tiny pieces would take quadratic time."""

# How a chunk ends that may bring a whole event without the blank line, or the line break, after it.
_MAY_END: Final = (b"]", b"}", b"]\n", b"}\n", b"]\r\n", b"}\r\n")

Source = Literal["reported", "counted", "reserved"]


class Measure(NamedTuple):
    """What an answer used.

    Attributes:
        usage: None if nobody can know; then the reservation stands.
        source: ``reported`` if the answer says all of it; ``counted`` if text was counted, or the input is the
            request's estimate; ``reserved`` if ``usage`` is None.
    """

    usage: Usage | None
    source: Source


_RESERVED: Final = Measure(None, "reserved")


class StreamMeter:
    """Is fed an answer's body in chunks of any size, and knows at any time what it used. Never raises on any bytes.

    Understood are event streams, JSON lines, a JSON document that comes in pieces, and text. The first bytes
    decide as well as the mimetype. Output is decoded and counted only when somebody asks, or when 256 KB of payloads
    have come together. Memory stays within some 8 MB.

    Args:
        mimetype: The answer's, without parameters, such as ``text/event-stream``.
        counter: Counts the output where no report covers it.
        encoding: The answer's Content-Encoding, such as ``gzip``. The chunks are decoded here.
        ends_with_body: Whether only the body's end ends the answer, whatever events say.
        believes_reports: Whether reports of usage in the answer are looked at; else all of it is counted.
    """

    def __init__(
        self,
        mimetype: str,
        counter: TokenCounter,
        *,
        encoding: str = "",
        ends_with_body: bool = False,
        believes_reports: bool = True,
    ) -> None:
        self._mimetype = mimetype
        self._promised = promised_by(mimetype)
        self._counter = counter
        self._believes = believes_reports
        self._ends_with_body = ends_with_body
        self._decoder = decoder_of(encoding) if encoding else None
        self._unreadable = bool(encoding) and self._decoder is None
        self._messages = self._new_messages()
        self._kind: Kind | None = None
        self._doubt: Doubt | None = None
        self._head = bytearray()  # What has come until the kind is known; of a document all.
        self._asked = 0
        self._line_seen = False
        self._splitter: EventStream | Lines = EventStream()
        self._decode_text = _text_decoder(mimetype)
        self._peeks = 0
        self._peeked_end = False
        self._too_long = False
        self._fed = False
        # Chunks of whole events that nobody has looked into yet.
        self._calm = False
        self._waiting: list[bytes] = []
        self._waiting_size = 0

    def feed(self, chunk: bytes) -> bool:
        """Take the next chunk. Answers whether the answer has ended, as :attr:`ended` does."""
        if self._calm and chunk.endswith(b"\n\n") and not may_end(chunk):
            # Whole events, as most chunks of most servers are. That none of them is the last is all that matters now.
            self._waiting.append(chunk)
            self._waiting_size += len(chunk)
            if self._waiting_size > MOST_WAITING:
                self._catch_up()
            return False
        self._catch_up()
        if chunk:
            self._fed = True
            if self._decoder is None:
                self._read(chunk)
            elif not self._unreadable:
                try:
                    self._decoder.decode(chunk, self._read)
                except UndecodableError:
                    self._unreadable = True
        ended = self.ended
        self._calm = (
            self._kind is Kind.EVENTS
            and not ended
            and not self._messages.ended
            and self._decoder is None
            and self._doubt is None
            and self._splitter.between_payloads
        )
        return ended

    @property
    def ended(self) -> bool:
        """Whether the last message's terminal has come and nothing was generated after it."""
        return (self._messages.ended or self._peeked_end) and not self._ends_with_body

    @property
    def may_report(self) -> bool:
        """Whether a report may be found in what is to come: not in text, and not in bytes that nobody can read."""
        return self._kind not in (Kind.TEXT, Kind.BYTES) and not self._unreadable

    @property
    def seen_anything(self) -> bool:
        """Whether any output has passed. Comments, pings, errors and events without text are none."""
        messages = self._so_far()
        return self._fed if messages is None else messages.said_anything

    def measure(self, known_input: int | None, *, complete: bool) -> Measure:
        """What the answer used so far. May be asked at any time, also before more comes.

        Args:
            known_input: What the request's input was estimated at; it stands where no report says the input. None if
                nobody knows it.
            complete: Whether the body has come to its end, so that zeros in its last report are believed.

        Raises:
            Exception: Whatever an app's own counter raised on a text that no report covers.
        """
        messages = self._so_far(complete=complete)
        ended = complete or self._peeked_end
        if messages is None or (complete and self._decoder is not None and not (self._decoder.finished or self.ended)):
            return _RESERVED
        total = messages.total(complete=ended)
        if total.unknown_input and known_input is None:
            return _RESERVED
        given, made = total.input, total.output
        if total.unknown_input:
            given += known_input or 0
        if total.undivided:
            share = min(known_input or 0, total.undivided)
            given, made = given + share, made + total.undivided - share
        usage = Usage.clamped(given, made, service_tier=total.tier, **total.kinds)
        return Measure(usage, "counted" if total.counted or total.unknown_input else "reported")

    def _catch_up(self) -> None:
        """Look into the chunks that wait."""
        waiting, self._waiting, self._waiting_size = self._waiting, [], 0
        # What is not plain is at the beginning or at the end of most streams.
        for chunks in (waiting[:_FEW], waiting[_FEW:-_FEW], waiting[max(_FEW, len(waiting) - _FEW) :]):
            if chunks and not self._messages.take_plain(chunks):
                self._messages.take_all(self._splitter.split(b"".join(chunks)))

    def _read(self, piece: bytes) -> None:
        """Take the next piece, decoded."""
        if self._kind is None:
            self._head += piece
            kind = self._told(piece)
            if kind is None:
                return
            self._begin(kind)
            if kind is not Kind.DOCUMENT:
                piece, self._head = bytes(self._head), bytearray()
        elif self._kind is Kind.DOCUMENT and not self._too_long:
            self._head += piece
        if self._doubt is not None:
            piece = self._doubted(self._doubt, piece)
        if self._kind is Kind.TEXT:
            self._take_text(piece)
        elif self._kind in (Kind.EVENTS, Kind.LINES):
            self._split(piece)
        elif self._kind is Kind.DOCUMENT and len(self._head) > LONGEST_DOCUMENT:
            self._give_up_document()

    def _new_messages(self) -> Messages:
        return Messages(self._counter, believes_reports=self._believes)

    def _begin(self, kind: Kind) -> None:
        self._kind = kind
        self._splitter = Lines() if kind is Kind.LINES else EventStream()
        may_be_text = kind is Kind.EVENTS or (kind is Kind.LINES and self._promised in (Kind.TEXT, Kind.BYTES))
        if kind is not self._promised and may_be_text:
            self._doubt = Doubt(kind)

    def _doubted(self, doubt: Doubt, piece: bytes) -> bytes:
        """The piece; if it shows that the body is text, all that has come, of which nothing was read yet."""
        if doubt.refutes(piece):
            self._kind = Kind.BYTES if self._promised is Kind.BYTES else Kind.TEXT
            self._messages = self._new_messages()
            self._peeked_end = False
            piece = bytes(doubt.body)
        elif len(doubt.body) <= LONGEST_DOUBT:
            return piece
        self._doubt = None
        return piece

    def _told(self, piece: bytes) -> Kind | None:
        """What kind it is, if that can be told now. Asks seldom enough to take time in proportion to the length."""
        size = len(self._head)
        new_line = (b"\n" in piece or b"\r" in piece) and (not self._line_seen or not piece.isspace())
        if size > LONGEST_DOCUMENT:
            return kind_of(self._promised, bytes(self._head)) or Kind.DOCUMENT
        if not new_line and _SHORT_HEAD < size < 2 * self._asked:
            return None
        self._asked = size
        self._line_seen = self._line_seen or (new_line and not self._head.isspace())
        return kind_of(self._promised, bytes(self._head))

    def _split(self, piece: bytes) -> None:
        payloads = self._splitter.split(piece)
        self._messages.take_all(payloads)
        self._peeked_end = False
        if payloads:
            self._peeks = 0
        if piece.endswith(_MAY_END) and self._peeks < _MOST_PEEKS:
            begun = self._splitter.peek(LONGEST_PEEK)
            if begun:
                self._peeks += 1
                self._peeked_end = ends_message(begun)

    def _take_text(self, piece: bytes) -> None:
        try:
            self._messages.take_text(self._decode_text(piece))
        except UnicodeDecodeError:
            self._kind = Kind.BYTES

    def _give_up_document(self) -> None:
        """A document is too long to keep. Where none was promised it is text."""
        body, self._head = bytes(self._head), bytearray()
        self._kind = self._promised
        if self._kind is Kind.TEXT:
            self._take_text(body)
        elif self._kind is not Kind.BYTES:
            self._kind, self._too_long = Kind.DOCUMENT, True

    def _so_far(self, *, complete: bool = False) -> Messages | None:
        """All messages, with what has come of the last payload; None if nobody can read them."""
        self._catch_up()
        kind = self._kind or kind_of(self._promised, bytes(self._head), whole=True)
        if self._unreadable or self._too_long or kind is Kind.BYTES:
            return None
        if kind is Kind.DOCUMENT:
            return self._in_document()
        if self._kind is None:
            return None if kind is None else self._in_head(kind, complete=complete)
        if complete and self._doubt is not None and self._doubt.ends_otherwise():
            messages = self._new_messages()
            messages.take_text(self._doubt.body.decode("utf-8", "replace"))
            return None if self._promised is Kind.BYTES else messages
        begun = self._splitter.peek()
        # The last line of lines, and of a text, may lack its end. JSON that does has broken off.
        ends_so = (kind is Kind.LINES or self._doubt is not None) and not begun.lstrip().startswith((b"{", b"["))
        if kind is Kind.TEXT or not begun or not (ends_so or begun.endswith((b"}", b"]"))):
            return self._messages
        messages = copy.deepcopy(self._messages, {id(self._counter): self._counter})
        if ends_so:
            messages.take_all([begun])
        else:
            messages.take_unfinished(begun)
        return messages

    def _in_document(self) -> Messages | None:
        messages = self._new_messages()
        json_promised = self._promised not in (Kind.TEXT, Kind.BYTES)
        if read_document(messages, bytes(self._head), promised=json_promised, believes_reports=self._believes):
            return messages
        if self._promised is Kind.BYTES:
            return None
        messages.take_document(self._head.decode("utf-8", "replace"), {}, whole=False)
        return messages

    def _in_head(self, kind: Kind, *, complete: bool) -> Messages | None:
        """What is in a body so short that its kind is only known now that somebody asks."""
        meter = StreamMeter(self._mimetype, self._counter, believes_reports=self._believes)
        meter._begin(kind)
        meter._read(bytes(self._head))
        return meter._so_far(complete=complete)


def _text_decoder(mimetype: str) -> Callable[[bytes], str]:
    """Decodes text piece by piece. Of a body without a type it raises on what is no UTF-8: nobody says it is text."""
    return codecs.getincrementaldecoder("utf-8")("replace" if mimetype else "strict").decode
