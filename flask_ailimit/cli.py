"""``flask ailimit``: what is configured, which limits there are, what a subject has left, and forgetting it."""

from collections.abc import Iterator
from dataclasses import asdict

import click
import flask
from flask.cli import AppGroup
from werkzeug.routing import Rule

from .engine import Decision, StoreError, Verdict
from .extension import AILimiter

cli = AppGroup("ailimit", help="Look at limits and usage.")


@cli.command()
def config() -> None:
    """Print the settings and the store."""
    limiter = _limiter()
    for name, value in asdict(limiter.state.settings).items():
        click.echo(f"{name}: {'(set)' if name == 'secret' and value else value}")
    click.echo(f"strategy: {limiter.state.algorithm}")
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


def _limiter() -> AILimiter:
    for limiter in flask.current_app.extensions.get("limiter", ()):
        if isinstance(limiter, AILimiter):
            return limiter
    raise click.ClickException("This app has no AILimiter. Call limiter.init_app(app) in its factory.")


def _verdicts(limiter: AILimiter, subject: str) -> Iterator[Verdict]:
    """Every limit of every route, after a line that names the route."""
    for rule in sorted(flask.current_app.url_map.iter_rules(), key=str):
        if rule.endpoint.rpartition(".")[2] == "static":
            continue  # Flask-Limiter limits no static files.
        decision = _peek(limiter, rule, subject)
        if decision is None or decision.verdicts:
            click.echo(f"{rule.endpoint}  {rule.rule}")
        if decision is None:
            click.echo("    depends on the request")
        else:
            yield from decision.verdicts


def _peek(limiter: AILimiter, rule: Rule, subject: str) -> Decision | None:
    """What is left on a route. None if the app's own functions need a real request to tell a limit."""
    method = min((rule.methods or {"GET"}) - {"HEAD", "OPTIONS"}, default="GET")
    with flask.current_app.test_request_context(method=method):
        try:
            return limiter.peek(rule.endpoint, subject)
        except StoreError as error:
            raise click.ClickException(str(error)) from error
        except Exception:  # noqa: BLE001  any: it is the app's function
            return None
