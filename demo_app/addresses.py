"""Where the demo listens, in words and as curl wants it, and whether it can listen there."""

import errno
import os
import shlex
import socket
from collections.abc import Iterable
from contextlib import closing
from typing import NamedTuple

from .examples import curl_lines
from .gateway import Place

TAKEN = "another program is listening there"

SocketName = str | bytes | tuple[str, int] | tuple[str, int, int, int]
"""What ``getsockname`` says of a listening socket: a path, an abstract name, an IPv4 or an IPv6 address."""


class Listening(NamedTuple):
    """A place where the demo listens.

    Attributes:
        words: For people, such as ``http://127.0.0.1:8000``.
        url: What a client on this machine uses.
        curl_options: What curl needs to get there, besides the URL.
    """

    words: str
    url: str
    curl_options: str = ""


def listening(name: SocketName) -> Listening:
    """Describe a listening socket by the name that the system gave it."""
    if isinstance(name, (str, bytes)):
        path = os.fsdecode(name)
        if path.startswith("\0"):
            abstract = path[1:]
            return Listening(f"unix:@{abstract}", "http://localhost", f"--abstract-unix-socket {shlex.quote(abstract)}")
        return Listening(f"unix:{path}", "http://localhost", f"--unix-socket {shlex.quote(path)}")
    host, port = name[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  told from other addresses, not bound
        url = _url("127.0.0.1" if host == "0.0.0.0" else "::1", port)  # noqa: S104
        return Listening(f"{url} and every other address of this machine", url)
    return Listening(_url(host, port), _url(host, port))


def own_place(name: SocketName) -> Place:
    """Where the demo finds itself, by the name of a socket on which it listens."""
    path = os.fsdecode(name) if isinstance(name, (str, bytes)) else None
    return Place(listening(name).url, path)


def greeting(names: Iterable[SocketName], key: str | None, penny: str | None = None) -> str:
    """What the terminal says once the demo listens. The lines use the first address.

    Args:
        names: The names of all listening sockets, at least one.
        key: A published key, or None.
        penny: A published key whose budget some calls spend, or None.
    """
    places = [listening(name) for name in names]
    first = places[0]
    lines = curl_lines(first.url, key, first.curl_options, penny=penny)
    return "\n".join(
        [
            *(f"The demo listens on {place.words}" for place in places),
            "Open that in a browser, or copy a line into another terminal.",
            "Ctrl-C ends the demo when the answers that are under way are finished.",
            *(f"\n# {line.does}\n{line.text}" for line in lines),
            "",
        ]
    )


def why_not(address: SocketName) -> str | None:
    """Why the demo can't listen at an address, None if it can (or could a moment ago)."""
    try:
        if isinstance(address, tuple):
            _bind_once(address)
            return None
        # The file of a socket at which nobody listens is left over, and gunicorn replaces it.
        with closing(socket.socket(socket.AF_UNIX)) as client:
            return TAKEN if client.connect_ex(address) == 0 else None
    except OverflowError:
        return "a port is a number from 0 to 65535"
    except OSError as error:
        return TAKEN if error.errno == errno.EADDRINUSE else str(error.strerror or error)


def another(address: SocketName) -> str:
    """An address to try in place of one that can't be had."""
    first, second = ("127.0.0.1", 8001), ("127.0.0.1", 8002)
    host, port = second if address == first else first
    return f"{host}:{port}"


def _bind_once(address: tuple[str, int] | tuple[str, int, int, int]) -> None:
    with closing(socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # As gunicorn does.
        server.bind(address)


def _url(host: str, port: int) -> str:
    return f"http://[{host.replace('%', '%25')}]:{port}" if ":" in host else f"http://{host}:{port}"
