"""The commands that change plans for single payers: ``flask ailimit raise``, ``suspend``, ``changes`` and their kin."""

import getpass
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from flask.cli import with_appcontext

from .cli_limiters import limiter_option, limiters_of_app
from .cli_payers import is_unused
from .engine import StoreError
from .extension import AILimiter
from .limits.plans.admin import SUSPENDED, Admin, ChangeError
from .limits.plans.change import EVERYBODY, Change, PayerName
from .limits.plans.changes_in_words import change_in_words, what_in_words

_DURATION = re.compile(r"([1-9][0-9]{0,6})([mhd])")
_DAY = re.compile(r"\d{4}-?\d\d-?\d\d")
_LENGTHS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

_Command = Callable[..., None]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ChangeError("--by: this user has no name. Say who does it.") from None


def _end(duration: str | None, end: str | None) -> datetime | timedelta:
    if (duration is None) == (end is None):
        raise ChangeError("boost: an end is needed: one of --for and --until.")
    if duration is not None:
        match = _DURATION.fullmatch(duration)
        if match is None:
            raise ChangeError("--for: minutes, hours or days are needed, such as 90m, 12h or 3d.")
        return int(match[1]) * _LENGTHS[match[2]]
    return _time("--until", str(end))


def _time(option: str, text: str) -> datetime:
    """The time that an option names; in UTC without a zone."""
    try:
        named = datetime.fromisoformat(text)
    except ValueError:
        raise ChangeError(f"{option}: a time is needed, such as 2026-12-01T18:00.") from None
    return named if named.tzinfo else named.replace(tzinfo=UTC)


def _end_of(option: str, text: str) -> datetime:
    """The same of the end of what was paid for: a day alone is the whole day."""
    named = _time(option, text)
    if not _DAY.fullmatch(text):
        return named
    try:
        return named + timedelta(days=1)
    except OverflowError:
        raise ChangeError(f"{option}: a day before the end of the year 9999 is needed.") from None


def _limiter_of(number: int | None) -> AILimiter:
    """The app's limiter that has plans."""
    planned = [each for each in limiters_of_app(number, with_counts=True) if each.app_state.plans]
    if len(planned) > 1:
        raise click.ClickException("Several limiters of this app have plans. Say which, with --limiter.")
    if not planned:
        raise click.ClickException("There are no plans (AILIMIT_PLANS), so there is nothing to change.")
    return planned[0]


def _make(change_of: Callable[..., Change], *arguments: Any, number: int | None, **options: Any) -> None:
    """Make a change with a method of :class:`Admin`, and say what was changed."""
    limiter = _limiter_of(number)
    change = change_of(limiter.admin, *arguments, **options)
    click.echo(f"Change {change.number}: {what_in_words(change)}")
    if _may_be_mistyped(limiter, change.payer):
        click.echo(
            "Note: nothing is counted for this payer now, and nothing was changed before: it is new, was away, or is "
            "mistyped.",
            err=True,
        )
    may_lose = limiter.admin.may_lose_changes()
    if may_lose:
        click.echo(f"Note: {may_lose}", err=True)


def _may_be_mistyped(limiter: AILimiter, payer: PayerName | None) -> bool:
    """Whether nothing is known of a payer but the change that has just been made."""
    if payer is None or payer == EVERYBODY:
        return False
    try:
        return len(limiter.admin.changes(str(payer))) == 1 and is_unused(limiter, payer)
    except StoreError:
        return False  # The change is made, and the command must not look as if it had failed.


_LIMIT_HELP = (
    "PAYER is such as user:7, organisation:acme or service. UNIT is what is counted, such as requests. LIMIT is one "
    "limit in its window, such as '20 per minute'; of concurrency a number."
)


_with_limiter = limiter_option(
    "Only this one, if several limiters of the app have plans, numbered in the order of init_app."
)


def _of_limits(command: _Command) -> _Command:
    command = click.option("--model", help="The pattern of models, as in the plan. Default: all models together.")(
        command
    )
    return click.option("--plan", help="Only under this plan. Default: under each that has such a limit.")(command)


def _of_changes(command: _Command) -> _Command:
    by = click.option("--by", default=_user, metavar="NAME", help="Who does it. Default: the user of this system.")
    return click.option("--reason", required=True, help="Why, for the trail.")(by(_with_limiter(command)))


def _limit_command(function: _Command) -> click.Command:
    """A command that changes a limit; its name is that of the function."""
    function = _of_limits(_of_changes(function))
    for name in ("limit", "unit", "payer"):
        function = click.argument(name)(function)
    return click.command(function.__name__.rstrip("_"), help=f"{function.__doc__} {_LIMIT_HELP}")(
        with_appcontext(function)
    )


def _unit(text: str) -> str:
    return text.replace("-", "_")


@_limit_command
def raise_(payer: str, unit: str, limit: str, **options: Any) -> None:
    """Raise a limit of PAYER."""
    _make(Admin.raise_limit, payer, _unit(unit), limit, **options)


@_limit_command
def lower(payer: str, unit: str, limit: str, **options: Any) -> None:
    """Lower a limit of PAYER."""
    _make(Admin.lower_limit, payer, _unit(unit), limit, **options)


@_limit_command
@click.option("--for", "duration", metavar="TIME", help="How long: minutes, hours or days, such as 90m, 12h or 3d.")
@click.option("--until", "end", metavar="TIME", help="The end, such as 2026-12-01T18:00; in UTC without a zone.")
def boost(payer: str, unit: str, limit: str, *, duration: str | None, end: str | None, **options: Any) -> None:
    """Raise a limit of PAYER for a time."""
    _make(Admin.boost, payer, _unit(unit), limit, until=_end(duration, end), **options)


@_limit_command
def try_(payer: str, unit: str, limit: str, **options: Any) -> None:
    """Try another value of a limit on PAYER, which refuses nothing. End it with undo."""
    _make(Admin.try_limit, payer, _unit(unit), limit, **options)


@click.command()
@with_appcontext
@click.argument("payer")
@click.option("--tell", default=SUSPENDED, show_default=True, help="What the client is told.")
@_of_changes
def suspend(payer: str, **options: Any) -> None:
    """Turn the requests of PAYER away, such as user:7, on all routes that are limited by plan."""
    _make(Admin.suspend, payer, **options)


@click.command()
@with_appcontext
@click.argument("payer")
@_of_changes
def resume(payer: str, **options: Any) -> None:
    """End the suspension of PAYER."""
    _make(Admin.resume, payer, **options)


@click.command()
@with_appcontext
@click.argument("payer")
@click.argument("plan", required=False, metavar="[PLAN]")
@click.option("--own", is_flag=True, help="Move it back to the plan that the app names.")
@_of_changes
def move(payer: str, plan: str | None, *, own: bool, **options: Any) -> None:
    """Move PAYER to PLAN, whatever plan the app names for it."""
    if (plan is None) != own:
        raise ChangeError("move: a PLAN is needed, or --own.")
    _make(Admin.move, payer, plan, **options)


@click.command(context_settings={"ignore_unknown_options": True})  # Else -5 would be one.
@with_appcontext
@click.argument("payer")
@click.argument("amount", nargs=-1, required=True, metavar="AMOUNT UNIT")
@click.option("--until", "end", metavar="TIME", help="The end, such as 2026-12-31, that day included. Default: none.")
@click.option("--from", "begin", metavar="TIME", help="The beginning, such as 2026-12-01T08:00. Default: at once.")
@_of_changes
def credit(payer: str, amount: tuple[str, ...], *, end: str | None, begin: str | None, **options: Any) -> None:
    """Grant credit to PAYER beside its budget, such as +20 USD. Times are in UTC without a zone."""
    until = None if end is None else _end_of("--until", end)
    begins = None if begin is None else _time("--from", begin)
    _make(Admin.credit, payer, " ".join(amount), until=until, begins=begins, **options)


@click.command()
@with_appcontext
@click.argument("change", metavar="NUMBER", type=click.IntRange(1))
@_of_changes
def undo(change: int, **options: Any) -> None:
    """Undo the change with this NUMBER: from now on it is as if it had never been made."""
    _make(Admin.undo, change, **options)


@click.command()
@with_appcontext
@_of_changes
def reload(**options: Any) -> None:
    """Have every process read its plan file again. What is wrong in the file is said, and the plans stay."""
    _make(Admin.reload, **options)


@click.command()
@with_appcontext
@click.argument("payer")
@_of_changes
def forget(payer: str, **options: Any) -> None:
    """Forget PAYER for good: its counts, and its changes in the trail."""
    _make(Admin.forget, payer, **options)


@click.command()
@with_appcontext
@click.argument("payer", required=False, metavar="[PAYER]")
@_with_limiter
def changes(payer: str | None, *, number: int | None) -> None:
    """Print the changes of plans, or those of PAYER: who, when, what, from what, to what, and why."""
    admin = _limiter_of(number).admin
    found = admin.changes(payer)
    undone = admin.undone()
    for change in found:
        click.echo("\n".join(change_in_words(change, undone.get(change.number))))
    if not found:
        click.echo("Nothing was changed.")


COMMANDS = (raise_, lower, boost, try_, suspend, resume, move, credit, changes, undo, reload, forget)
