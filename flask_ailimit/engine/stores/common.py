"""What all who open a local store's directory have in common: the secret, and who they are."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from flask_ailimit.engine.errors import StoreError

from . import directory
from .file_lock import Patience

_SECRET_BYTES = 32
_CONFIGURATIONS_KEPT = 16


def shared_secret(place: Path, known: bytes | None, patience: Patience) -> bytes:
    """32 random bytes that everyone who opens the directory shares, made by the first.

    ``known`` is written in their place if it has none: whoever deleted it, those who still run agree. ``patience`` is
    that for the directory's lock.
    """
    if not os.path.lexists(place / directory.SECRET):
        inside = directory.lock(place, patience)
        try:
            if not os.path.lexists(place / directory.SECRET):
                _write(place, directory.SECRET, known or secrets.token_bytes(_SECRET_BYTES))
        finally:
            inside.close()
    secret = _read(place, directory.SECRET)
    if len(secret) != _SECRET_BYTES:
        raise StoreError(
            f"{os.path.realpath(place)}/{directory.SECRET} is not {_SECRET_BYTES} bytes long. "
            "Delete it; every count starts afresh.",
            transient=False,
        )
    return secret


def introduce(place: Path, configuration: str, app: str, *, alone: bool, patience: Patience) -> str | None:
    """Note that an app uses the directory; answer another app that does, if this one was not known yet.

    Args:
        place: A path to the directory.
        configuration: A fingerprint of what the app's limits are configured with.
        app: The app's name, for the log.
        alone: Whether nobody else has it open. Whatever used it before is then forgotten.
        patience: How long to wait for the directory's lock.
    """
    inside = directory.lock(place, patience)
    try:
        known: list[str] = []
        if not alone and os.path.lexists(place / directory.CONFIGURATIONS):
            known = _read(place, directory.CONFIGURATIONS).decode(errors="replace").splitlines()
        if any(line.startswith(configuration) for line in known):
            return None
        lines = [*known[1 - _CONFIGURATIONS_KEPT :], f"{configuration} {app!r}"]
        _write(place, directory.CONFIGURATIONS, "\n".join(lines).encode(errors="backslashreplace"))
        return known[-1].partition(" ")[2] if known else None
    finally:
        inside.close()


def _read(place: Path, name: str) -> bytes:
    with os.fdopen(directory.open_file(place, name, os.O_RDONLY), "rb") as file:
        return file.read()


def _write(place: Path, name: str, content: bytes) -> None:
    """Write a whole file or none. Only for who has the lock."""
    draft = place / f"{name}.draft"
    with suppress(FileNotFoundError):
        draft.unlink()  # Of somebody who died while writing it.
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
    draft.rename(place / name)
