"""The Lua that runs inside the server: put together from the files beside the Python that it is the twin of."""

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

from flask_ailimit.engine.algorithms import ALGORITHMS

_ENGINE = files("flask_ailimit.engine")
_OURS = _ENGINE / "stores" / "redis" / "lua"

NUMBERS = {name: number for number, name in enumerate(sorted(ALGORITHMS), start=1)}
"""What an algorithm is called on the wire: its place in ``algorithms`` of the scripts."""


@dataclass(frozen=True)
class Script:
    """A script and the name that the server gives it.

    Attributes:
        text: Lua 5.1.
        sha: The SHA-1 of the text, 40 hexadecimal digits.
    """

    text: bytes
    sha: bytes

    @staticmethod
    def of(text: bytes) -> "Script":
        """The script of a text."""
        return Script(text, sha1(text, usedforsecurity=False).hexdigest().encode())

    @property
    def when_full(self) -> "Script":
        """The same, allowed to write when the server's memory is full. Redis 7 and Valkey know how, Redis 6 doesn't."""
        return _when_full(self)


_CONSTANT = re.compile(r"^local ([A-Z][A-Z_]+) = (-?\d+|'[^']*')$", re.MULTILINE)
_NAMED = re.compile(r"algorithm_of\('([a-z-]+)'\)")
_DECIDING = {"reserve": (), "settle": ("notice",), "renew": (), "forget": ("notice",)}
"""The scripts with the arithmetic before them, and what else stands before each."""


@cache
def load(name: str) -> Script:
    """The script of ``lua/<name>.lua``, with the arithmetic before it if it decides."""
    if name not in _DECIDING:
        return Script.of(_lua(name).encode())
    # The functions of an algorithm are made only when a charge asks for it.
    twins = [f"if name == {number} then\n{_twin(algorithm)}end" for algorithm, number in NUMBERS.items()]
    parts = [_lua("prelude"), "local function algorithm_of(name)", *twins, "end"]
    parts += map(_lua, ("record", "request", *_DECIDING[name], name))
    return Script.of(_with_constants("\n".join(parts)).encode())


@cache
def _when_full(script: Script) -> Script:
    return Script.of(b"#!lua flags=allow-oom\n" + script.text)


def _with_constants(text: str) -> str:
    """The text with its constants written out: as variables of the functions that use them they would cost more."""
    constants = dict(_CONSTANT.findall(text))
    return re.sub(r"\b[A-Z][A-Z_]+\b", lambda name: constants.get(name[0], name[0]), _CONSTANT.sub("", text))


def _lua(name: str) -> str:
    return (_OURS / f"{name}.lua").read_text(encoding="utf-8")


def _twin(algorithm: str) -> str:
    """The Lua beside the algorithm's module. It may have that of another one, which it names, in itself."""
    module = ALGORITHMS[algorithm].settle.__module__.rpartition(".")[2]
    twin = (_ENGINE / "algorithms" / f"{module}.lua").read_text(encoding="utf-8")
    twin = _NAMED.sub(lambda name: f"algorithm_of({NUMBERS[name[1]]})", twin)
    return _lua("arithmetic") + twin if "_div(" in twin else twin
