"""What is in the file of settlements. What is wrong with it is found when the app starts."""

import sqlite3
from pathlib import Path

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.engine.shared_file import Layout, SharedFile
from flask_ailimit.tokens.usage import MAX_TOKENS

from .settlement import Settlement

VERSION = 1
_APPLICATION = 0x41494C4D
"""``AILM`` in ASCII."""

SUMMED = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "audio_input_tokens",
    "image_input_tokens",
    "reasoning_tokens",
    "audio_output_tokens",
    "image_output_tokens",
    "cost_nano",
)
"""The columns of a settlement that are added up."""

_INTEGERS = {"number", "at_us", "status", *SUMMED}
_MAY_MISS = {"endpoint", "plan", "label", "model", "status", "units", "cost_nano", "price", "price_source", "rates"}


def _column(name: str) -> str:
    kind = "BLOB" if name == "subject" else "INTEGER" if name in _INTEGERS else "TEXT"
    return f"{name} {kind}" if name in _MAY_MISS else f"{name} {kind} NOT NULL"


_SCHEMA = (
    f"CREATE TABLE settlements ({', '.join(map(_column, Settlement._fields))})",
    "CREATE UNIQUE INDEX settlements_by_id ON settlements (request_id, number)",
    "CREATE INDEX settlements_by_time ON settlements (at_us)",
    f"""CREATE TABLE hours (
        subject BLOB NOT NULL, hour INTEGER NOT NULL, model TEXT NOT NULL, service_tier TEXT NOT NULL,
        currency TEXT NOT NULL, requests INTEGER NOT NULL, {", ".join(f"{name} INTEGER NOT NULL" for name in SUMMED)},
        PRIMARY KEY (subject, hour, model, service_tier, currency)
    ) WITHOUT ROWID""",
    "CREATE INDEX hours_by_time ON hours (hour)",
    # A trigger runs in the transaction of the row that it is about, and not for a row that is there already.
    f"""CREATE TRIGGER added AFTER INSERT ON settlements BEGIN
        INSERT INTO hours VALUES (
            new.subject, new.at_us / 3600000000, coalesce(new.model, ''), new.service_tier, new.currency,
            new.number = 1, {", ".join(f"coalesce(new.{name}, 0)" for name in SUMMED)}
        ) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
            {", ".join(f"{name} = min({name} + excluded.{name}, {MAX_TOKENS})" for name in SUMMED)};
    END""",  # noqa: S608  names of columns, no values
)

LAYOUT = Layout("settlements", _APPLICATION, VERSION, _SCHEMA)


def open_book(path: Path) -> SharedFile:
    """The file, made if it is not there.

    Raises:
        ConfigurationError: It can't be used; the message says what to do.
    """
    file = SharedFile(path, LAYOUT)
    try:
        file.prepare()
    except OSError as error:
        raise ConfigurationError(f"settlements: {path} can't be made: {error.strerror}.") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # The latter for the names in a damaged file.
        raise ConfigurationError(
            f"settlements: {path} can't be used: {error}. If it is no file of settlements, name another; if it is "
            "damaged, move it away, with those beside it that end in -wal and -shm. A new one is made then."
        ) from error
    return file
