"""``flask ailimit export``: the settlements of a time as a table of charges."""

import os
import sqlite3
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TextIO
from zoneinfo import ZoneInfo

import click
import flask
from flask.cli import with_appcontext

from .cli_limiters import limiter_option
from .cli_payers import payer_of
from .cli_subjects import given_subject, hash_of
from .engine.clock import MICROSECONDS
from .extension import AILimiter
from .observe.focus import write_csv
from .observe.settlements import Settlements

_LATEST_US = 253_402_300_800 * MICROSECONDS
_NO_FILE = "This app keeps no settlements. Name a file for them in the setting AILIMIT_SETTLEMENTS."


@click.command()
@click.option("--from", "start", required=True, metavar="DATE", help="The first day, such as 2026-11-01.")
@click.option("--to", "end", metavar="DATE", help="The day after the last, such as 2026-12-01. Default: all until now.")
@click.option("--zone", default="UTC", show_default=True, help="Where these days begin, such as Europe/Berlin.")
@click.option(
    "--subject", metavar="SUBJECT", help="Only those of this key, or of this payer, such as user:7; - reads it."
)
@click.option("--hash", "is_hash", is_flag=True, help="SUBJECT is not a key, but its hash, as in an event.")
@click.option("-o", "--output", metavar="FILE", help="Write to this file, for this user alone. Default: print it.")
@limiter_option("Only this one, if several limiters of the app keep settlements, numbered in the order of init_app.")
@with_appcontext
def export(
    start: str,
    end: str | None,
    zone: str,
    subject: str | None,
    *,
    is_hash: bool,
    output: str | None,
    number: int | None,
) -> None:
    """Print the settlements of a time as CSV, with the column names of FOCUS 1.2."""
    from_us = _midnight("--from", start, zone)
    to_us = _LATEST_US if end is None else _midnight("--to", end, zone)
    if to_us <= from_us:
        raise click.ClickException("--to: a day after --from is needed. It is the first that is left out.")
    limiter, settlements = _chosen(number)
    subjects = None if subject is None else _subjects(limiter, given_subject(subject), is_hash=is_hash)
    service = limiter.app_state.settings.name or flask.current_app.name

    def write(file: TextIO) -> None:
        write_csv(settlements.between(from_us, to_us, subjects), file, service=service)

    try:
        if output is None:
            write(sys.stdout)
        else:
            _write_file(Path(output), write)
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise click.ClickException(f"The settlements can't be exported: {error}") from error
    finally:
        settlements.close()


def _write_file(path: Path, write: Callable[[TextIO], None]) -> None:
    """Write the whole file, or leave what was there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            write(file)
        draft.replace(path)
    except BaseException:
        draft.unlink()
        raise


def _midnight(option: str, date: str, zone: str) -> int:
    """Where a day begins, in microseconds since 1970. If midnight is left out there, it is the moment after."""
    try:
        where = ZoneInfo(zone)
    except (ValueError, OSError, LookupError):
        raise click.ClickException(
            "--zone: a name of the time zone database is needed, such as UTC or Europe/Berlin."
        ) from None
    try:
        day = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=where)
        return int(day.timestamp()) * MICROSECONDS
    except (ValueError, OverflowError):
        raise click.ClickException(f"{option}: a day is needed, such as 2026-11-01.") from None


def _chosen(number: int | None) -> tuple[AILimiter, Settlements]:
    every: list[AILimiter] = flask.current_app.extensions.get("ailimit", [])
    if number is not None and number > len(every):
        raise click.ClickException(f"--limiter: this app has {len(every)}. Got {number}.")
    found = [
        (limiter, settlements)
        for place, limiter in enumerate(every, 1)
        if number in (None, place) and (settlements := limiter.settlements) is not None
    ]
    if not found:
        raise click.ClickException(_NO_FILE)
    if len({settlements.path for _, settlements in found}) > 1:
        raise click.ClickException("Several limiters of this app keep settlements. Say which, with --limiter.")
    return found[0]


def _subjects(limiter: AILimiter, subject: str, *, is_hash: bool) -> set[bytes]:
    """The hashes under which the settlements of a key or a payer are kept."""
    hashed = hash_of(subject, is_hash=is_hash)(limiter)
    payer = payer_of(limiter, subject, is_hash=is_hash)
    return {hashed, *([payer.subject] if payer else [])}
