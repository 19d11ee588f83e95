"""Whether TLS is spoken at a port, found out without a word that anybody could obey."""

import socket
import ssl
from contextlib import suppress

_SECONDS = 0.5
_ALERT, _HANDSHAKE = b"\x15", b"\x16"
_RESP = (b"-", b"+")
_HEAD_BYTES = 5  # Of a record of TLS: its kind, the version twice, and its length twice.
_FIRST_BYTES = 0x010A


def speaks_tls(host: str, port: int) -> bool | None:
    """Whether a server answers the first message of TLS as TLS does, or as Redis does; None if it says neither.

    Redis reads a line, and waits for more where no newline is before the first zero. So the message is in two records
    of TLS, and the length of the first is written with a newline.
    """
    try:
        with socket.create_connection((host, port), _SECONDS) as connection:
            connection.settimeout(_SECONDS)
            connection.sendall(_hello())
            first = connection.recv(1)
    except OSError:
        return None
    if first in (_ALERT, _HANDSHAKE):
        return True
    return False if first in _RESP else None


def _hello() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # Nothing is said afterwards.
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    head, message = outgoing.read(_HEAD_BYTES), outgoing.read()
    parts = message[:_FIRST_BYTES], message[_FIRST_BYTES:]
    return b"".join(head[:3] + len(part).to_bytes(2, "big") + part for part in parts)
