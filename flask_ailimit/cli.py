"""``flask ailimit``: shows settings, limits, stores and usage; resets a subject's counts, and forgives its debts."""

from collections.abc import Iterator
from dataclasses import asdict

import click
import flask
from flask.cli import AppGroup
from werkzeug.routing import Rule

from .engine import Decision, StoreError, Verdict, system_clock
from .engine.clock import MICROSECONDS
from .engine.stores.directory import default_homes
from .engine.stores.housekeeping import standing
from .extension import AILimiter
from .http.errors import NotAllowed
from .request.which_limits import is_static

NOTHING_ALLOWED = Decision((), 0)
"""Stands for the decision on a route with a limit of 0."""

cli = AppGroup("ailimit", help="Look at limits and usage.")


@cli.command()
def config() -> None:
    """Print the settings and the store."""
    limiter = _limiter()
    for name, value in asdict(limiter.app_state.settings).items():
        click.echo(f"{name}: {'(set)' if name == 'secret' and value else value}")
    click.echo(f"strategy: {limiter.app_state.algorithm}")
    click.echo(f"store: {type(limiter.engine.store).__name__}")


@cli.command()
def limits() -> None:
    """Print the limits of every route."""
    for verdict in _verdicts(_limiter(), subject="-"):
        click.echo(f"    {verdict.quota.text}  ({verdict.quota.algorithm})")


@cli.command()
@click.argument("subject")
def usage(subject: str) -> None:
    """Print what SUBJECT, as the key function names it, has left."""
    for verdict in _verdicts(_limiter(), subject):
        quota = verdict.quota
        left = f"{verdict.remaining} of {quota.burst} left"
        click.echo(f"    {quota.name}: {left}, full again in {verdict.reset_after:.1f} s")


@cli.command()
@click.argument("subject")
def reset(subject: str) -> None:
    """Forget every count of SUBJECT, as the key function names it."""
    limiter = _limiter()
    limiter.engine.reset(limiter.subject(subject))
    click.echo("Every count of this subject is forgotten.")


@cli.command()
@click.argument("subject")
def forgive(subject: str) -> None:
    """Lift the debts of SUBJECT, as the key function names it: what it used beyond its limits is owed no more."""
    limiter = _limiter()
    owed = 0
    for rule, decision in _decisions(limiter, subject):
        if decision is None:
            click.echo(f"{rule.endpoint}  {rule.rule}\n    depends on the request, and was not looked at")
            continue
        try:
            lifted = [each.quota.name for each in decision.verdicts if limiter.engine.forgive([each.charge])]
        except StoreError as error:
            raise click.ClickException(str(error)) from error
        if lifted:
            click.echo("\n".join([f"{rule.endpoint}  {rule.rule}", *(f"    {name}: debt lifted" for name in lifted)]))
        owed += len(lifted)
    if not owed:
        click.echo("Nothing is owed, as far as could be looked at.")


@cli.command(with_appcontext=False)
def stores() -> None:
    """Print the local stores of this user in the default places: size, age, and whether a process has them open."""
    now_s = system_clock() / MICROSECONDS
    for home in default_homes():
        for store in standing(home):
            size = f"{store.size_bytes / 1024:.0f} KiB"
            age = f"last written {max(0, now_s - store.written_ns / 1e9) / 3600:.1f} h ago"
            click.echo(f"{store.path}  {size}, {age}, {'open' if store.is_open else 'open in no process'}")


def _limiter() -> AILimiter:
    for limiter in flask.current_app.extensions.get("limiter", ()):
        if isinstance(limiter, AILimiter):
            return limiter
    raise click.ClickException("This app has no AILimiter. Call limiter.init_app(app) in its factory.")


def _verdicts(limiter: AILimiter, subject: str) -> Iterator[Verdict]:
    """Print a line for each route, and yield the verdicts of its limits."""
    for rule, decision in _decisions(limiter, subject):
        if decision is None or decision is NOTHING_ALLOWED or decision.verdicts:
            click.echo(f"{rule.endpoint}  {rule.rule}")
        if decision is None:
            click.echo("    depends on the request")
        elif decision is NOTHING_ALLOWED:
            click.echo("    nothing is allowed")
        else:
            yield from decision.verdicts


def _decisions(limiter: AILimiter, subject: str) -> Iterator[tuple[Rule, Decision | None]]:
    """Yield each route and what is left on it; None if that depends on the request."""
    for rule in sorted(flask.current_app.url_map.iter_rules(), key=str):
        if not is_static(rule.endpoint):
            yield rule, _peek(limiter, rule, subject)


def _peek(limiter: AILimiter, rule: Rule, subject: str) -> Decision | None:
    """What is left on a route; None if the app's own functions need a real request to return a limit."""
    method = min((rule.methods or {"GET"}) - {"HEAD", "OPTIONS"}, default="GET")
    with flask.current_app.test_request_context(method=method):
        try:
            return limiter.peek(rule.endpoint, subject)
        except StoreError as error:
            raise click.ClickException(str(error)) from error
        except NotAllowed:
            return NOTHING_ALLOWED
        except Exception:  # noqa: BLE001  any: it is the app's function
            return None
