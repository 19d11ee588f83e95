"""``flask ailimit upstreams``: whether calls to upstreams may be made, how many wait, and what is left."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click
from flask.cli import with_appcontext

from .cli_limiters import limiter_option, limiters_of_app
from .engine import Verdict
from .engine.algorithms.gate import CLOSED, HALF_OPEN, standing_of
from .engine.quota import CONCURRENCY
from .limits.plans.said import did_you_mean, listed
from .upstream.pacing import STATES, Group

if TYPE_CHECKING:
    from .app_upstream import AppUpstream

_NONE = "This app has no upstreams. See limiter.upstream() and [upstreams.NAME] in the plan file."
_ONLY_HASHES = "the store knows models by hashes only: name one with --model to see it"


@click.command()
@click.argument("name", required=False, metavar="[NAME]")
@click.option(
    "--model", "models", multiple=True, metavar="MODEL", help="Show the group of this model. May be repeated."
)
@limiter_option("Only those of this one, if the app has several limiters, numbered in the order of init_app.")
@with_appcontext
def upstreams(name: str | None, models: Sequence[str], *, number: int | None) -> None:
    """Print how the app's upstreams stand, or the one that is called NAME. Nothing is taken."""
    for limiter in limiters_of_app(number, with_counts=True):
        known = limiter.upstreams
        if name is not None and name not in known:
            hint = did_you_mean(name, known)
            raise click.ClickException(f"There is no such upstream. {hint}There are: {listed(known) or 'none'}.")
        shown = [known[name]] if name is not None else [*known.values()]
        click.echo("\n".join(line for each in shown for line in _lines(each, models)) or _NONE)


def _lines(upstream: "AppUpstream", models: Sequence[str]) -> Iterator[str]:
    yield upstream.name
    (retries,) = upstream.peek([upstream.budget.count])
    yield f"    retries: {_left(retries)}"
    names = dict.fromkeys([*upstream.settings.groups, *(upstream.group(model).name for model in models)])
    for name in names:
        yield from _group_lines(upstream, upstream.group_named(name))
    if not names:
        yield f"    {_ONLY_HASHES}"


def _group_lines(upstream: "AppUpstream", group: Group) -> Iterator[str]:
    gate, line, *others = upstream.peek([group.gate, *group.counts])
    waiting = line.quota.limit - line.remaining
    yield f"    {group.name}: {_state(gate)}; {waiting} of at most {line.quota.limit} wait"
    for each in others:
        yield f"        {each.quota.name}: {_left(each)}"


def _state(gate: Verdict) -> str:
    """How a gate stands of which a verdict tells what it would answer to a call."""
    standing = standing_of(gate.remaining)
    state, why = STATES[standing.kind], f"after {standing.status or 'no answer'}"
    if standing.kind == CLOSED:
        return "closed, calls pass"
    if standing.kind == HALF_OPEN:
        tries = "the next call tries" if gate.allowed else f"probe {standing.probe:x} tries, the others wait"
        return f"{state} {why}, {tries}"
    return f"{state} {why}, for {gate.retry_after or 0:.1f} s"


def _left(verdict: Verdict) -> str:
    quota = verdict.quota
    if quota.unit == CONCURRENCY:
        return f"{verdict.remaining} of {quota.limit} free"
    return f"{verdict.remaining} of {quota.burst} left, full again in {verdict.reset_after:.1f} s"
