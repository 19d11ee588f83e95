"""Undoing an answer's Content-Encoding while it passes (RFC 9110, section 8.4), in pieces of bounded size.

gzip and deflate are the standard library's. ``br`` needs brotli or brotlicffi, from 1.2 on, whose output can be
bounded; ``zstd`` needs zstandard, backports.zstd or Python 3.14.
"""

import importlib
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

PIECE: Final = 64 * 1024
"""Bytes. No decoder hands on more at a time, except zstandard, whose blocks have 128 KB."""

WINDOW_LOG: Final = 23
"""The largest window of a zstd frame is 2 to this power, 8 MB, which RFC 9659 requires of content codings."""

MOST_MEMBERS: Final = 10_000
"""Of one body. An empty one takes some 10 microseconds for its 8 to 20 bytes."""

_MOST_CODINGS = 4
_GZIP, _ZLIB, _RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS

Sink = Callable[[bytes], object]
"""Takes the next piece of what was decoded."""


class UndecodableError(Exception):
    """The data is not in the encoding that was announced."""


class TooManyMembersError(UndecodableError):
    """They are tiny, and each takes longer than its bytes are worth."""


class Decoder:
    """Undoes one coding. Takes the encoded bytes as they come.

    Attributes:
        finished: Whether all that has come is whole, so that the body may end here.
    """

    finished = True

    def decode(self, data: bytes, sink: Sink) -> None:
        """Hand what is in the next bytes to ``sink``.

        Raises:
            UndecodableError: The bytes are damaged.
        """
        raise NotImplementedError


def decoder_of(encoding: str) -> Decoder | None:
    """What undoes this Content-Encoding, several codings stacked included; None if nothing here can.

    Args:
        encoding: The header's value, such as ``"gzip"`` or ``"deflate, br"``, in any case; the last was applied last.
    """
    names = [name.strip().lower() for name in encoding.split(",")]
    makers = [_DECODERS.get(name) for name in names if name not in ("", "identity")]
    if len(makers) > _MOST_CODINGS:
        return None
    chain: Decoder = _Identity()
    for make in makers:
        decoder = None if make is None else make()
        if decoder is None:
            return None
        chain = _Chain(decoder, chain)
    return chain


class _Identity(Decoder):
    def decode(self, data: bytes, sink: Sink) -> None:
        sink(data)


class _Chain(Decoder):
    def __init__(self, outer: Decoder, inner: Decoder) -> None:
        self._outer, self._inner = outer, inner

    def decode(self, data: bytes, sink: Sink) -> None:
        # In slices, because zlib copies what it has not consumed yet for each piece that it hands on.
        for start in range(0, len(data), PIECE):
            self._outer.decode(data[start : start + PIECE], lambda piece: self._inner.decode(piece, sink))

    @property
    def finished(self) -> bool:  # type: ignore[override]  # it is known only when asked
        return self._outer.finished and self._inner.finished


class _Members(Decoder):
    """A row of members or frames, each with a decompressor of its own, as in gzip and zstd.

    What comes after a whole member and begins no other one is passed over, as browsers do.
    """

    def __init__(self, begin: Callable[[bytes], "_Member | None"]) -> None:
        self._begin = begin
        self._member: _Member | None = None
        self._head = b""
        self._members = 0

    @property
    def finished(self) -> bool:  # type: ignore[override]  # it is known only when asked
        return self._member is None and (self._members > 0 or not self._head)

    def decode(self, data: bytes, sink: Sink) -> None:
        while data or self._member is not None:
            if self._member is None:
                self._head += data
                self._member, data = self._begin(self._head), b""
                if self._member is None:
                    return
                data, self._head = self._head, b""
            data = self._decoded(self._member, data, sink)
            if self._member is not None:
                return

    def _decoded(self, member: "_Member", data: bytes, sink: Sink) -> bytes:
        """Decode until the member or the data ends. Answers what follows the member."""
        spoken = False
        try:
            for piece in member.pieces(data):
                spoken = True
                sink(piece)
        except member.errors as error:
            if self._members and not spoken and not member.spoken:
                self._member = _Rest()
                return b""
            raise UndecodableError from error
        member.spoken = member.spoken or spoken
        if not member.ended:
            return b""
        self._members += 1
        if self._members > MOST_MEMBERS:
            raise TooManyMembersError
        self._member = None
        return member.rest


class _Member:
    """One member being decoded."""

    errors: tuple[type[Exception], ...] = (zlib.error,)
    spoken = False

    def __init__(self, decompressor: Any) -> None:
        self._decompressor = decompressor

    @property
    def ended(self) -> bool:
        return bool(self._decompressor.eof)

    @property
    def rest(self) -> bytes:
        return bytes(self._decompressor.unused_data)

    def pieces(self, data: bytes) -> Any:
        piece = self._decompressor.decompress(data, PIECE)
        while piece or self._decompressor.unconsumed_tail:
            yield piece
            if self._decompressor.eof:
                return
            piece = self._decompressor.decompress(self._decompressor.unconsumed_tail, PIECE)


class _Frame(_Member):
    """A frame of zstd, decoded by ``compression.zstd`` or its backport."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: WINDOW_LOG}))
        self.errors = (module.ZstdError, EOFError)

    def pieces(self, data: bytes) -> Any:
        piece = self._decompressor.decompress(data, PIECE)
        while piece:
            yield piece
            if self._decompressor.eof or self._decompressor.needs_input:
                return
            piece = self._decompressor.decompress(b"", PIECE)


class _Rest(_Member):
    """What follows the last member and is none."""

    ended = False
    rest = b""

    def __init__(self) -> None:
        super().__init__(None)

    def pieces(self, _: bytes) -> Any:
        return ()


def _begin_gzip(_: bytes) -> _Member:
    return _Member(zlib.decompressobj(_GZIP))


def _begin_deflate(head: bytes) -> _Member | None:
    """With zlib's header (RFC 1950), as RFC 9110 says, or without it (RFC 1951), as some servers send it."""
    if len(head) < 2:  # noqa: PLR2004  the header's length
        return None
    has_header = head[0] & 0x0F == 8 and (head[0] << 8 | head[1]) % 31 == 0  # noqa: PLR2004  RFC 1950, section 2.2
    return _Member(zlib.decompressobj(_ZLIB if has_header else _RAW))


class _Brotli(Decoder):
    def __init__(self, module: ModuleType) -> None:
        self._decompressor = module.Decompressor()
        self._process = getattr(self._decompressor, "process", None) or self._decompressor.decompress
        self._error: type[Exception] = module.error
        self._process(b"", output_buffer_limit=PIECE)

    @property
    def finished(self) -> bool:  # type: ignore[override]  # it is known only when asked
        return bool(self._decompressor.is_finished())

    def decode(self, data: bytes, sink: Sink) -> None:
        if self.finished:
            return
        try:
            piece = self._process(data, output_buffer_limit=PIECE)
            while piece:
                sink(piece)
                if self.finished:
                    return
                piece = self._process(b"", output_buffer_limit=PIECE)
        except self._error as error:
            raise UndecodableError from error


class _Zstandard(Decoder):
    """By the package zstandard, which pushes each block into a writer."""

    def __init__(self, module: ModuleType) -> None:
        self._error: type[Exception] = module.ZstdError
        self._sink: Sink | None = None
        decompressor = module.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
        self._writer = decompressor.stream_writer(self, closefd=False)

    def write(self, piece: bytes) -> int:
        """Is called by the writer."""
        if self._sink is not None:
            self._sink(bytes(piece))
        return len(piece)

    def decode(self, data: bytes, sink: Sink) -> None:
        self._sink = sink
        try:
            self._writer.write(data)
        except self._error as error:
            raise UndecodableError from error
        finally:
            self._sink = None


def _brotli() -> Decoder | None:
    for name in ("brotli", "brotlicffi"):
        try:
            return _Brotli(importlib.import_module(name))
        except (ImportError, AttributeError, TypeError):
            continue  # It is not there, or so old that it can't bound its output.
    return None


def _zstd() -> Decoder | None:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return _Members(lambda _, module=module: _Frame(module))  # type: ignore[misc]  # bound for each module
    try:
        return _Zstandard(importlib.import_module("zstandard"))
    except ImportError:
        return None


_DECODERS: Final[dict[str, Callable[[], Decoder | None]]] = {
    "br": _brotli,
    "deflate": lambda: _Members(_begin_deflate),
    "gzip": lambda: _Members(_begin_gzip),
    "x-gzip": lambda: _Members(_begin_gzip),
    "zstd": _zstd,
}
