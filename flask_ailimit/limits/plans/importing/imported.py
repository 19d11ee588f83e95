"""Reads the limits of LiteLLM, OpenAI or Anthropic as JSON, says which of them it is, and writes a plan file."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.engine.quota import require_name

from .anthropic import from_anthropic, is_anthropic
from .drafts import OPEN, Draft, comments
from .litellm import WRAPPERS, from_litellm, is_litellm, unwrapped
from .openai import from_openai, is_openai
from .values import Entry, shown

_LISTS = ("data", "keys", "teams", "users", "budgets")
_NONE_OF_THEM = (
    "it is none of the JSON that can be imported. That is what LiteLLM says of budgets, keys, teams and users, OpenAI "
    "of the rate limits of a project, and Anthropic of those of an organization or a workspace"
)


def _say_nothing(_: str) -> None:
    """Say nothing."""


def plan_file_of(
    source: str, data: bytes, name: str | None = None, *, warn: Callable[[str], None] = _say_nothing
) -> str:
    """A plan file with the limits that a JSON says.

    Args:
        source: Where the JSON was read, for messages.
        data: The JSON, as the other side's API returns it.
        name: What a plan is to be called that has no name there.
        warn: Gets a sentence if the JSON is only a part of what there is, and for each plan without a limit.

    Raises:
        ConfigurationError: It is no such JSON, or a value in it is wrong.
    """
    if name is not None:
        require_name(name)
    found = _json(source, data)
    listed = _list_of(found)
    if listed is None:
        entries = [unwrapped(Entry(source, "", found))]
    else:
        place, values = listed
        entries = [unwrapped(Entry(source, f"{place}[{index}]", each)) for index, each in enumerate(values)]
    if not entries:
        _wrong(source, "its list of limits is empty")
    whose, drafts = _drafts(source, entries, name)
    if not drafts:
        _wrong(source, "it has no limit")
    why = _why_incomplete(found)
    if why:
        warn(f"{source}: the list is incomplete: {why}. Import all pages as one list, or what they list is missing.")
    remarks = [f"what the next pages list ({why})"] if why else []
    head = [f"# Imported from {whose} by: flask ailimit import", *comments(remarks)]
    written = [[*draft.lines()] for draft in drafts]
    for draft, lines in zip(drafts, written, strict=True):
        if OPEN in lines:
            warn(f"{source}: the plan {draft.name} is open: there was no limit that a plan file can have. Write one.")
    return "\n\n".join("\n".join(lines) for lines in [head, *written]) + "\n"


def _drafts(source: str, entries: Sequence[Entry], name: str | None) -> tuple[str, list[Draft]]:
    if is_openai(entries):
        return "OpenAI", from_openai(entries, name)
    if is_anthropic(entries):
        return "Anthropic", from_anthropic(entries, name)
    if not is_litellm(entries):
        _wrong(source, _NONE_OF_THEM)
    return "LiteLLM", from_litellm(entries, name)


def _list_of(found: object) -> tuple[str, list[Any]] | None:
    """The list of objects and its place; None if there is one object only."""
    if isinstance(found, list):
        return "", found
    if isinstance(found, dict) and not any(field in found for field in WRAPPERS):
        for field in _LISTS:
            if isinstance(found.get(field), list):
                return field, found[field]
    return None


def _why_incomplete(found: object) -> str | None:
    """By what the JSON says that there are more pages; None if it has the last."""
    if not isinstance(found, dict):
        return None
    for field in ("has_more", "next_page"):
        if found.get(field):
            return f"{field} is set"
    page, pages = found.get("current_page"), found.get("total_pages")
    if type(page) is int and type(pages) is int and page < pages:
        return f"it is page {shown(page)} of {shown(pages)}"
    return None


def _json(source: str, data: bytes) -> object:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        _wrong(source, f"it is not written in UTF-8 (at byte {error.start})")
    except ValueError as error:  # Python raises it also for a number of 5000 digits.
        _wrong(source, f"it can't be read as JSON: {' '.join(str(error).split()).removesuffix('.')}")
    except RecursionError:
        _wrong(source, "it can't be read as JSON: it is nested too deep")


def _wrong(source: str, what: str) -> NoReturn:
    raise ConfigurationError(f"{source}: {what}.")
