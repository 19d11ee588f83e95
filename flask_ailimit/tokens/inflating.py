"""A request body under Content-Encoding (RFC 9110, section 8.4), taken out of it in bounded memory."""

from .encodings import TooManyMembersError, UndecodableError, decoder_of
from .readings import TooMuchToRead


class TooLarge(ValueError):  # noqa: N818  it is the body that is too large
    """What comes out is larger than allowed."""


def inflate(raw: bytes, encodings: str, most: int) -> bytes | None:
    """The body as it was before it was encoded; None if nobody here can decode it.

    Args:
        raw: The body as it was sent.
        encodings: The header: ``gzip``, ``deflate``, ``br``, ``zstd``, several of them in the order they were applied.
        most: Bytes that may come out.

    Raises:
        TooLarge: More comes out.
        TooMuchToRead: It would take too long.
    """
    decoder = decoder_of(encodings)
    if decoder is None:
        return None
    pieces: list[bytes] = []
    length = 0

    def take(piece: bytes) -> None:
        nonlocal length
        length += len(piece)
        if length > most:
            raise TooLarge
        pieces.append(piece)

    try:
        decoder.decode(raw, take)
    except TooManyMembersError:
        raise TooMuchToRead from None
    except UndecodableError:
        return None
    return b"".join(pieces)
