"""The subject that a command names: a key, a payer or a hash, on the command line or on the standard input."""

import re
import sys
from collections.abc import Callable
from getpass import getpass

import click

from .engine.charge import SUBJECT_BYTES
from .extension import AILimiter

_HASH = re.compile(rf"[0-9A-Fa-f]{{{2 * SUBJECT_BYTES}}}")


def hash_of(subject: str, *, is_hash: bool) -> Callable[[AILimiter], bytes]:
    """What makes the subject's hash for a limiter. The subject may be a key, and is repeated in no error."""
    if not subject:
        raise click.ClickException("SUBJECT is empty. Requests without a key are counted by their addresses.")
    if not is_hash:
        return lambda limiter: limiter.subject(subject)
    if not _HASH.fullmatch(subject):
        raise click.ClickException(
            f"--hash: {2 * SUBJECT_BYTES} hex digits are needed, such as limiter.subject(key).hex() returns. Got "
            f"{len(subject)} characters{', not all of them hex digits' if re.search('[^0-9A-Fa-f]', subject) else ''}."
        )
    return lambda _: bytes.fromhex(subject)


def given_subject(subject: str) -> str:
    """The subject of a command line; with ``-``, that on the standard input."""
    return _read_subject() if subject == "-" else subject


def _read_subject() -> str:
    if sys.stdin.isatty():
        return getpass("SUBJECT (not shown): ")
    lines = sys.stdin.read().splitlines()
    if len(lines) > 1:
        raise click.ClickException(
            f"SUBJECT is -, so one line is read from the standard input. Got {len(lines)} lines."
        )
    return "".join(lines)
