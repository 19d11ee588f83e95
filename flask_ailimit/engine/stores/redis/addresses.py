"""What a URI of this store says: where the servers are, and how to speak to them."""

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from flask_ailimit.engine.errors import ConfigurationError

_PORTS = {"sentinel": 26379}
_PORT = 6379
_EXAMPLES = {
    "": "redis://10.0.0.5:6379/0",
    "unix": "redis+unix:///run/redis/redis.sock?db=0",
    "sentinel": "redis+sentinel://10.0.0.5:26379,10.0.0.6:26379/mymaster",
    "cluster": "redis+cluster://10.0.0.5:6379,10.0.0.6:6379",
}


@dataclass(frozen=True)
class Address:
    """Where the servers are.

    Attributes:
        kind: ``""`` (one server), ``unix``, ``sentinel`` or ``cluster``.
        tls: Whether to speak TLS.
        hosts: Names or addresses with ports; of the sentinels, or of some of the cluster's nodes.
        username: Of the ACL user, if one is needed.
        password: Of the user; not part of any text that is made of this.
        db: The database's number.
        path: The unix socket.
        service: What the sentinels call the primary.
    """

    kind: str
    tls: bool
    hosts: tuple[tuple[str, int], ...] = ()
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    path: str = ""
    service: str = ""

    @property
    def uri(self) -> str:
        """A URI of these servers, without user and password."""
        scheme = ("rediss" if self.tls else "redis") + (f"+{self.kind}" if self.kind else "")
        if self.kind == "unix":
            return f"{scheme}://{self.path}?db={self.db}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        path = {"sentinel": f"/{quote(self.service)}/{self.db}", "cluster": ""}.get(self.kind, f"/{self.db}")
        return f"{scheme}://{hosts}{path}"

    def __str__(self) -> str:
        place = self.path or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.kind or 'redis'} {place}" + (f" ({self.service})" if self.service else "")


def parse(uri: str) -> Address:
    """Read a URI. User names and passwords are percent-encoded in it.

    Raises:
        ConfigurationError: It can't be read; the message gives an example and doesn't repeat the URI, which may hold
            a password.
    """
    scheme, _, rest = uri.partition("://")
    engine, _, kind = scheme.partition("+")
    try:
        if kind == "unix":
            return _unix(rest)
        return _network(rest, kind, tls=engine in ("rediss", "valkeys"))
    except ValueError as error:
        raise ConfigurationError(
            f"storage_uri: a {scheme}:// URI can't be read: {error}. Write it like {_EXAMPLES[kind]}; "
            "percent-encode special characters of a password."
        ) from None


def _network(rest: str, kind: str, *, tls: bool) -> Address:
    login, _, place = rest.rpartition("@")
    place, mark, query = place.partition("?")
    if query.startswith("db="):
        raise ValueError("the database goes behind a slash, and not behind a '?'")
    if mark:
        raise ValueError(
            "the database is not a number: options are not read behind a '?', give them as storage_options, if there "
            "are such"
        )
    hosts, _, path = place.partition("/")
    username, _, password = login.partition(":")
    service, _, db = path.partition("/") if kind == "sentinel" else ("", "", path)
    if not kind and "," in hosts:
        raise ValueError("there is one host; several are behind redis+sentinel:// or in redis+cluster://")
    if kind == "sentinel" and not service:
        raise ValueError("the name of the primary is missing")
    if kind == "cluster" and db not in ("", "0"):
        raise ValueError("a cluster has database 0 only")
    return Address(
        kind,
        tls,
        hosts=tuple(_host(each, _PORTS.get(kind, _PORT)) for each in hosts.split(",")),
        username=unquote(username) or None,
        password=unquote(password) or None,
        db=_number("the database", db or "0"),
        service=unquote(service),
    )


def _unix(rest: str) -> Address:
    # Not by urlsplit: what it can't read, passwords included, it repeats in its errors.
    login, _, place = ("", "", rest) if rest.startswith("/") else rest.rpartition("@")
    username, _, password = login.partition(":")
    path, _, query = place.partition("?")
    if not path.startswith("/") or path == "/":
        raise ValueError("the path of the socket is missing, or doesn't begin with a slash")
    name, _, db = (query or "db=0").partition("=")
    if name != "db" or "&" in db:
        raise ValueError("only db is read behind the '?'; give other options as storage_options, if there are such")
    return Address(
        "unix",
        tls=False,
        username=unquote(username) or None,
        password=unquote(password) or None,
        db=_number("the database", db),
        path=unquote(path),
    )


def _host(text: str, port: int) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d+))?", text)
    if not match:
        raise ValueError("a host is missing, or isn't a name or an address")
    number = int(match[2] or port)
    if not 0 < number < 2**16:
        raise ValueError("a port is not from 1 to 65535")
    return match[1].strip("[]"), number


def _number(what: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{what} is not a number")
    return int(text)
