"""``flask ailimit``: shows settings, limits, stores and usage; resets a subject's counts, and forgives its debts.

Each command is a process of its own. No function of the app is asked about a subject: a function answers for the
current request, and here is none.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

import click
import flask
from flask.cli import AppGroup
from werkzeug.routing import Rule

from .cli_batch import batch
from .cli_changes import COMMANDS
from .cli_export import export
from .cli_limiters import limiter_option
from .cli_limiters import limiters_of_app as _limiters
from .cli_payers import forgiven, left_of_plan, payer_of, payer_with_plan, under_its_plans
from .cli_plan_files import import_limits, in_one_line, plans_group
from .cli_subjects import given_subject, hash_of
from .cli_upstreams import upstreams
from .engine import AILimitError, Verdict, system_clock
from .engine.clock import MICROSECONDS
from .engine.standing import standing_of
from .engine.stores.base import Located
from .engine.stores.directory import default_homes
from .engine.stores.housekeeping import standing
from .extension import AILimiter
from .limits.count_names import method_in, without_mark
from .limits.in_words import label_of, name_of, setting_of
from .limits.plans.in_words import plans_in_words
from .limits.plans.plan import ALL_PAYERS
from .limits.resolve import allows_nothing, is_no_limit
from .limits.unit_limit import enforced_percent, is_told
from .request.endpoint_limits import (
    LIMITED_BY_PLAN,
    NOBODY,
    EndpointLimit,
    Named,
    is_by_plan,
    limits_of,
    limits_of_addresses,
    limits_of_inner_functions,
    methods_of,
    remarks_on,
)
from .request.ledger import Ledger
from .request.which_limits import is_static

_NOT_READ = {"HEAD", "OPTIONS"}
"""Methods that are not shown beside a route, because Flask adds them."""
_NO_PLANS = "There are no plans (AILIMIT_PLANS), so no route is limited by plan."

_OF_A_PLAN = "What a payer, such as user:7, has left of its plan is shown with --plan NAME."

_Command = TypeVar("_Command", bound=Callable[..., None])


class _MistypedError(click.ClickException):
    exit_code = click.UsageError.exit_code


class _Commands(AppGroup):
    """The commands. Each error is one line, also one of ours that is raised while the app is loaded."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AILimitError as error:
            raise click.ClickException(" ".join(str(error).split())) from error
        except click.MissingParameter as error:  # Click would print two lines of advice before it.
            raise _MistypedError(error.format_message()) from error
        except click.UsageError as error:
            raise _MistypedError(
                "The command can't be read. It is not repeated here, because there may be a key in it. See: "
                f"flask ailimit {_command_in(error.ctx, ctx)}--help"
            ) from error


def _command_in(inner: click.Context | None, outer: click.Context) -> str:
    """The names of the commands that lead from one context to another inside it, with a space behind each."""
    if inner is None or inner is outer:
        return ""
    name = f"{inner.info_name} " if inner.info_name else ""
    return _command_in(inner.parent, outer) + name


class _Place(NamedTuple):
    """Where limits hold: a route, or what stands in its place.

    Attributes:
        heading: Its lines.
        limits: Its limits.
        others: Lines about limits that are not known here, those of plans, or that there is none.
    """

    heading: list[str]
    limits: list[EndpointLimit]
    others: tuple[str, ...] = ()


cli = _Commands("ailimit", help="Look at limits and usage, and correct counts.")


_with_limiter = limiter_option(
    "Only this one, if the app has several limiters, numbered in the order of init_app. Default: all."
)


def _with_subject(command: _Command) -> _Command:
    options = (
        click.argument("subject"),
        click.option(
            "--hash",
            "is_hash",
            is_flag=True,
            help="SUBJECT is not a key, but its hash: the 32 hex digits of limiter.subject(key).hex(), or the subject "
            "of an event.",
        ),
        _with_limiter,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _with_key_func(command: _Command) -> _Command:
    return click.option(
        "--by",
        "key_func",
        metavar="FUNCTION",
        help="SUBJECT is a key of this key function, such as shop.organisation. Default: the limiter's own.",
    )(command)


@cli.command()
@_with_limiter
def config(number: int | None) -> None:
    """Print the settings, and the kind and the place of the store."""
    for limiter in _limiters(number):
        settings = limiter.app_state.settings
        for field in fields(settings):
            value = getattr(settings, field.name)
            click.echo(f"{field.name}: {'(set)' if field.name == 'secret' and value else setting_of(value)}")
        store = limiter.engine.store
        click.echo(f"key_func: {name_of(_ledger(limiter).flask_limiter.key_func)}")
        click.echo(f"strategy: {limiter.app_state.algorithm}")
        click.echo(f"store: {type(store).__name__}")
        click.echo(f"where: {store.where if isinstance(store, Located) else 'the store does not say'}")


@cli.command()
@_with_limiter
def limits(number: int | None) -> None:
    """Print the limits of every route, and what depends on the request."""
    for limiter in _limiters(number):
        ledger = _ledger(limiter)
        if not limiter.enabled:
            click.echo("Limits are switched off (RATELIMIT_ENABLED): no request is limited.")
        for each in ledger.flask_limiter.request_filters:
            click.echo(f"No limit holds for a request for which {name_of(each)} returns True.")
        inner = [_Place([f"{name}, if a view calls it"], found) for name, found in limits_of_inner_functions(ledger)]
        for place in [*_places(ledger, NOBODY), *inner]:
            click.echo("\n".join(place.heading))
            for limit in place.limits:
                algorithm = f"  ({limit.counts[0].quota.algorithm})" if limit.counts else ""
                click.echo("    " + ", ".join([limit.text + algorithm, *_remarks(ledger, limit, whose=True)]))
            for line in place.others:
                click.echo(f"    {line}")


@cli.command()
@_with_subject
@_with_key_func
@click.option(
    "--plan",
    metavar="NAME",
    help="SUBJECT is a payer, such as user:7, that has this plan: print what it has left of the plan.",
)
def usage(subject: str, *, is_hash: bool, number: int | None, key_func: str | None, plan: str | None) -> None:
    """Print what SUBJECT has left of every limit.

    SUBJECT is a key, as the key function returns it, or a payer, such as user:7. If it is -, it is read from the
    standard input.
    """
    subject = given_subject(subject)
    _require_one_meaning(key_func, plan)
    if plan is not None:
        _usage_of_payer(subject, plan, is_hash=is_hash, number=number)
        return
    hashed = hash_of(subject, is_hash=is_hash)
    for limiter in _limiters(number, with_counts=True):
        ledger, lines, used = _ledger(limiter), list[str](), list[bool]()
        for place in _places(ledger, _named(ledger, hashed(limiter), key_func)):
            charges = [charge for limit in place.limits for charge in limit.counts]
            verdicts = iter(limiter.engine.store.peek(charges).verdicts if charges else ())
            lines += place.heading
            for limit in place.limits:
                remarks = _remarks(ledger, limit, whose=False)
                seen = [next(verdicts) for _ in limit.counts]
                used += [verdict.used > 0 for verdict in seen]
                left = [_left(verdict, limit) for verdict in seen]
                texts = left or [f"{limit.text}: {remarks.pop()}" if limit.depends else limit.text]
                lines += ["    " + ", ".join([text, *remarks]) for text in texts]
            lines += [f"    {line}" for line in place.others]
        payer = None if key_func is not None else payer_of(limiter, subject, is_hash=is_hash)
        of_payer = [] if payer is None else [*left_of_plan(limiter, payer, None)]
        click.echo("\n".join([*lines, *of_payer]))
        if limiter.app_state.plans and key_func is None and not (payer and payer.moved):
            names = ", ".join(limiter.app_state.plans.plans)
            click.echo(f"{_OF_A_PLAN} The plans are {names}.")
        if used and not any(used) and not of_payer:
            by = name_of(ledger.flask_limiter.key_func) if key_func is None else key_func
            click.echo(f"Nothing of this is used. SUBJECT is what {by} returns.")


def _usage_of_payer(subject: str, name: str, *, is_hash: bool, number: int | None) -> None:
    hash_of(subject, is_hash=is_hash)
    for limiter in _limiters(number, with_counts=True):
        click.echo("\n".join(left_of_plan(limiter, payer_with_plan(limiter, subject, is_hash=is_hash), name)))


@cli.command()
@_with_subject
def reset(subject: str, *, is_hash: bool, number: int | None) -> None:
    """Forget every count of SUBJECT.

    SUBJECT is a key, as a key function returns it, or a payer, such as user:7. If it is -, it is read from the standard
    input.
    """
    subject = given_subject(subject)
    hashed = hash_of(subject, is_hash=is_hash)
    for limiter in _limiters(number, with_counts=True):
        payer = payer_of(limiter, subject, is_hash=is_hash)
        subjects = {hashed(limiter), *([payer.subject] if payer else [])}
        counts = [limiter.engine.reset(each) for each in subjects]
        forgotten = sum(each or 0 for each in counts)
        if None in counts:
            click.echo("Every count of this subject is forgotten. The store does not say how many there were.")
        elif forgotten == 0:
            click.echo("Nothing was counted for this subject.")
        else:
            click.echo("1 count is forgotten." if forgotten == 1 else f"{forgotten} counts are forgotten.")


@cli.command()
@_with_subject
@_with_key_func
@click.option("--plan", metavar="NAME", help="SUBJECT is a payer, such as user:7, that has this plan.")
def forgive(subject: str, *, is_hash: bool, number: int | None, key_func: str | None, plan: str | None) -> None:
    """Lift the debts of SUBJECT: what it used beyond its limits is owed no more.

    SUBJECT is a key, as the key function returns it, or a payer, such as user:7. If it is -, it is read from the
    standard input.
    """
    subject = given_subject(subject)
    _require_one_meaning(key_func, plan)
    hashed = hash_of(subject, is_hash=is_hash)
    for limiter in _limiters(number, with_counts=True):
        ledger = _ledger(limiter)
        lifted = unseen = 0
        find = payer_of if plan is None else payer_with_plan
        payer = None if key_func is not None else find(limiter, subject, is_hash=is_hash)
        if payer is not None:
            under_its_plans(limiter, payer, plan)  # Before anything is lifted, a wrong plan is refused.
        for place in _places(ledger, _named(ledger, hashed(limiter), key_func)):
            lines = []
            for limit in place.limits:
                owing = [charge.quota.name for charge in limit.counts if limiter.engine.forgive([charge])]
                lines += [f"    {name}: debt lifted" for name in owing]
                lines += [f"    {limit.text}: not looked at, {reason}" for reason in limit.depends[-1:]]
                lifted += len(owing)
                unseen += bool(limit.depends)
            if lines:
                click.echo("\n".join([*place.heading, *lines]))
        debts = [] if payer is None else [*forgiven(limiter, payer, plan)]
        if debts:
            click.echo("\n".join(["by plan", *(f"    {line}" for line in debts)]))
        if not (lifted or debts):
            click.echo("Nothing is owed, as far as could be looked at." if unseen else "Nothing is owed.")


def _print_plans() -> None:
    for limiter in _limiters(None):
        found = limiter.app_state.plans
        click.echo(_NO_PLANS if found is None else "\n".join(plans_in_words(found)))


def _check_plans() -> None:
    for limiter in _limiters(None):
        found = limiter.app_state.plans
        click.echo(_NO_PLANS if found is None else in_one_line(found))


cli.add_command(plans_group(_print_plans, _check_plans))
cli.add_command(import_limits)
cli.add_command(export)
cli.add_command(batch)
cli.add_command(upstreams)


@cli.command(with_appcontext=False)
def stores() -> None:
    """Print the local stores of this user in the default places: size, age, and whether a process has them open."""
    now_s = system_clock() / MICROSECONDS
    for home in default_homes():
        for store in standing(home):
            size = f"{store.size_bytes / 1024:.0f} KiB"
            age = f"last written {max(0, now_s - store.written_ns / 1e9) / 3600:.1f} h ago"
            click.echo(f"{store.path}  {size}, {age}, {'open' if store.is_open else 'open in no process'}")


def _ledger(limiter: AILimiter) -> Ledger:
    return limiter.ledger_of_no_request()


def _require_one_meaning(key_func: str | None, plan: str | None) -> None:
    if key_func is not None and plan is not None:
        raise click.ClickException("--by and --plan: SUBJECT is either a key of this function, or a payer.")


def _named(ledger: Ledger, subject: bytes, key_func: str | None) -> Named:
    """The subject, with the key function that the app's owner named."""
    access = ledger.flask_limiter
    if key_func is None:
        return Named(subject, access.key_func)
    known = {access.key_func: name_of(access.key_func)}
    for place in _places(ledger, NOBODY):
        known |= {limit.limit.key_func: name_of(limit.limit.key_func) for limit in place.limits}
    found = [each for each, name in known.items() if f".{name}".endswith(f".{key_func}")]
    if len(found) != 1:
        problem = "several key functions are called so" if found else "no limit counts by a function of this name"
        raise click.ClickException(f"--by: {problem}. Use one of: {', '.join(sorted(known.values()))}.")
    return Named(subject, found[0])


def _places(ledger: Ledger, who: Named) -> Iterator[_Place]:
    """Where limits hold: on all routes those by address, then the routes with theirs."""
    of_addresses = limits_of_addresses(ledger, who)
    if of_addresses:
        yield _Place(["every route, before all other limits"], of_addresses)
    identified = ledger.flask_limiter.request_identifier is None
    for endpoint, rules in _routes():
        methods = methods_of(ledger.app, endpoint)
        found = limits_of(ledger, endpoint, methods, who, identified=identified)
        others = () if found else ("no limit",)
        if is_by_plan(ledger, endpoint):
            others = (f"{LIMITED_BY_PLAN}, see: flask ailimit plans",)
        yield _Place([*map(_heading, rules)], found, others)


def _routes() -> Iterator[tuple[str, list[Rule]]]:
    """The endpoints of the app that have a view, each with its rules, in the order of their paths."""
    app, found = flask.current_app, dict[str, list[Rule]]()
    for rule in sorted(app.url_map.iter_rules(), key=str):
        if rule.endpoint in app.view_functions and not is_static(rule.endpoint):
            found.setdefault(rule.endpoint, []).append(rule)
    yield from found.items()


def _heading(rule: Rule) -> str:
    methods = rule.methods or {"GET"}
    shown = sorted(methods - _NOT_READ or methods)
    return f"{', '.join(shown)} {rule.host or rule.subdomain or ''}{rule.rule}  ({rule.endpoint})"


def _remarks(ledger: Ledger, limit: EndpointLimit, *, whose: bool) -> list[str]:
    """What else is to be said of a limit; what it depends on comes last.

    Args:
        ledger: A ledger of no request.
        limit: The limit.
        whose: Say its name, and by which key function it counts.
    """
    written = limit.limit
    counts_something = not (allows_nothing(written) or is_no_limit(written))
    quotas = [charge.quota for charge in limit.counts[:1]]
    found = [f"named {label_of(written)!r}"] if label_of(written) and (whose or limit.depends) else []
    found += [f"up to {quota.burst} at once" for quota in quotas if quota.burst != quota.limit]
    percent = enforced_percent(written.cost)
    found += [f"enforced for {percent} %" if percent else "only tried"] if percent < ALL_PAYERS else []
    found += ["clients are not told"] if whose and not is_told(written.cost) else []
    if written.shared and limit.counts:
        found.append(f"shared count {' and '.join(repr(without_mark(charge.scope)) for charge in limit.counts)}")
    elif written.shared and counts_something and not callable(written.scope):
        found.append(f"shared count {written.scope!r}")
    if written.per_method and counts_something:
        found.append("each method by itself")
    if limit.is_meta:
        found.append("counts refusals")
    if written.deduct_when and counts_something:
        found.append(f"counted only if {name_of(written.deduct_when)} says so")
    if whose and counts_something and written.key_func != ledger.flask_limiter.key_func:
        found.append(f"by {name_of(written.key_func)}")
    return [*found, *remarks_on(limit)]


def _left(verdict: Verdict, limit: EndpointLimit) -> str:
    """What is left of a count."""
    quota, name = verdict.quota, verdict.quota.name
    if limit.limit.per_method:
        name = f"{name} ({method_in(verdict.charge.scope)})"
    budget = standing_of(verdict)
    if budget is not None:
        return f"{name}: {budget.sentence.removesuffix('.')}"
    return f"{name}: {verdict.remaining} of {quota.burst} left, full again in {verdict.reset_after:.1f} s"


for each in COMMANDS:
    cli.add_command(each)
