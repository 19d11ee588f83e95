"""Says of each limit of an endpoint what holds for a subject, and what only a request of this subject would tell.

The app's functions answer for the current request. So nobody asks them about a subject that is named: a callable limit,
a callable scope, ``exempt_when`` and a key function would answer for whoever asks. What depends on them is said.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import flask
from flask import Flask
from flask_limiter import ExemptionScope

from flask_ailimit.engine import Charge, Decision, Engine, Verdict
from flask_ailimit.limits.in_words import name_of, text_of
from flask_ailimit.limits.methods import counted_method
from flask_ailimit.limits.phase import PayerLimit, RuntimeLimit
from flask_ailimit.limits.plans.plan import ALL_PAYERS, ModelRule
from flask_ailimit.limits.plans.selection import PlannedPayer, Selection
from flask_ailimit.limits.plans.tried import holds_for
from flask_ailimit.limits.resolve import NotAsked, allows_nothing, is_no_limit
from flask_ailimit.limits.unit_limit import enforced_percent, with_credit

from .charges import credit_of, identity_of, payer_of
from .ledger import ADDRESS, Ledger
from .payers import payers_of
from .refuse import not_allowed
from .which_limits import (
    is_endpoint_by_plan,
    limits_despite_override,
    limits_of_payer,
    limits_of_payers,
    policy_of,
    quota_now,
)

LIMITED_BY_PLAN = "limited by plan"
"""What is said of an endpoint whose payers, and so the limits of their plans, only a request would tell."""

SUBJECT_OF_NOBODY = bytes(16)
"""Stands for a subject where limits are shown for nobody in particular."""


class Named(NamedTuple):
    """A subject that is named, and is not found out from the current request.

    Attributes:
        subject: The hash of its key.
        key_func: The key function whose key it is; None if it doesn't matter.
    """

    subject: bytes
    key_func: Callable[[], str] | None


NOBODY = Named(SUBJECT_OF_NOBODY, None)


class EndpointLimit(NamedTuple):
    """A limit of an endpoint, with what is known of it.

    Attributes:
        limit: The limit.
        text: What it allows, in words.
        methods: The methods of the endpoint on which it holds; empty if it holds on all.
        is_meta: It counts refusals, and not requests.
        counts: A dry charge of cost 0 for each of its counts; empty if they aren't known, or if there are none.
        depends: What its counts depend on, in sentences; empty if they are known.
        unless: The names of the app's functions that decide for each request whether the limit holds.
    """

    limit: RuntimeLimit
    text: str
    methods: tuple[str, ...]
    is_meta: bool
    counts: tuple[Charge, ...]
    depends: tuple[str, ...]
    unless: tuple[str, ...]

    @property
    def is_certain(self) -> bool:
        """Whether it is known without a request that the limit holds, and what it is."""
        return not (self.depends or self.unless)


class UncertainLimit(NamedTuple):
    """A limit of which a part depends on the request, in the answer of :meth:`.AILimiter.peek`.

    Attributes:
        text: What it allows, and what it depends on.
        verdicts: What is left of its counts, if only that is unknown whether the limit holds.
    """

    text: str
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class PeekedDecision(Decision):
    """What is left of the limits of an endpoint.

    Attributes:
        uncertain: The limits that are not among the ``verdicts``, because a part of them depends on the request.
    """

    uncertain: tuple[UncertainLimit, ...] = ()


def peek(ledger: Ledger, endpoint: str, engine: Engine, who: Named | None) -> PeekedDecision:
    """What is left of the limits of an endpoint, in one question to the store.

    Args:
        ledger: That of the current request.
        endpoint: Flask-Limiter's name of the endpoint.
        engine: The engine to ask.
        who: The subject; None for that of the current request.

    Raises:
        NotAllowed: One of the limits is 0.
    """
    methods = None if who is None and endpoint == flask.request.endpoint else methods_of(ledger.app, endpoint)
    limits = [each for each in limits_of(ledger, endpoint, methods, who) if not each.is_meta]
    zeros = [each.limit for each in limits if _forbids(each) and each.is_certain and not each.methods]
    if zeros:
        raise not_allowed(ledger, zeros[0])
    decision = engine.peek([charge for each in limits for charge in each.counts])
    verdicts = {verdict.charge.counted_in: verdict for verdict in reversed(decision.verdicts)}
    certain: dict[tuple[bytes, bytes], Verdict] = {}  # A request, too, pays a count once that two limits have.
    uncertain = []
    for each in limits:
        known = {at: verdicts[at] for at in (charge.counted_in for charge in each.counts) if at in verdicts}
        if each.is_certain and not allows_nothing(each.limit):
            certain |= known
        elif not is_no_limit(each.limit) and (_forbids(each) or not allows_nothing(each.limit)):
            uncertain.append(UncertainLimit(", ".join([each.text, *remarks_on(each)]), tuple(known.values())))
    if who is not None and is_by_plan(ledger, endpoint):
        uncertain.append(UncertainLimit(f"{LIMITED_BY_PLAN}, depends on the request", ()))
    return PeekedDecision(tuple(certain.values()), decision.at_us, tuple(uncertain))


def _forbids(limit: EndpointLimit) -> bool:
    return allows_nothing(limit.limit) and enforced_percent(limit.limit.cost) == ALL_PAYERS


def is_by_plan(ledger: Ledger, endpoint: str) -> bool:
    """Whether an endpoint is limited by plan."""
    return is_endpoint_by_plan(ledger, endpoint, endpoint.rpartition(".")[0] or None)


def remarks_on(limit: EndpointLimit) -> list[str]:
    """When the limit holds, and what it depends on."""
    return [
        *([f"only {' and '.join(limit.methods)}"] if limit.methods else []),
        *(f"unless {name}" for name in limit.unless),
        *limit.depends,
    ]


def methods_of(app: Flask, endpoint: str) -> list[str] | None:
    """The HTTP methods of an endpoint, without the OPTIONS that Flask adds; None if the app has no such endpoint."""
    rules = [rule for rule in app.url_map.iter_rules() if rule.endpoint == endpoint]
    methods = {method for rule in rules for method in rule.methods or ("GET",)}
    return sorted(methods - {"OPTIONS"} or methods) or None


def limits_of(
    ledger: Ledger, endpoint: str, methods: Sequence[str] | None, who: Named | None, *, identified: bool = True
) -> list[EndpointLimit]:
    """All limits of an endpoint.

    Args:
        ledger: That of the current request. Outside of a request, a new one.
        endpoint: Flask-Limiter's name of the endpoint.
        methods: The HTTP methods to look at; None for that of the current request.
        who: The subject; None for that of the current request, for which the app's functions are asked.
        identified: Counts have the name of the endpoint. Otherwise a function of the app names them (Flask-Limiter's
            ``request_identifier``).
    """
    counted = {method: "GET" if method == "HEAD" else method for method in methods or ()}
    if not counted:
        counted = {flask.request.method: counted_method(flask.request)}
    held: dict[object, tuple[RuntimeLimit, bool, list[str]]] = {}
    for method in counted:
        for limit, is_meta in _on_method(ledger, endpoint, method, ask=who is None):
            of_limit = held.setdefault((limit, is_no_limit(limit), is_meta), (limit, is_meta, []))
            if method not in of_limit[-1]:
                of_limit[-1].append(method)
    found = []
    for limit, is_meta, on in held.values():
        if who is None and limit.exempt_when is not None and limit.is_exempt:
            continue
        shown = [method for method in on if method != "HEAD" or "GET" not in on]
        place = None if not identified and not limit.shared else endpoint
        each = _known(ledger, limit, place, [counted[method] for method in on], who)
        found.append(each._replace(is_meta=is_meta, methods=tuple(shown) if len(on) < len(counted) else ()))
    return found


def limits_of_addresses(ledger: Ledger, who: Named) -> list[EndpointLimit]:
    """The limits on each address, which hold on every route."""
    limits = ledger.flask_limiter.registry.on_method("GET", ask=False).resolved(ledger.app_state.address_limits)
    return [_known(ledger, limit, ADDRESS, ["GET"], who) for limit in limits]


def limits_of_plan(ledger: Ledger, payer: PlannedPayer, rule: ModelRule | None) -> list[EndpointLimit]:
    """The limits of a payer's plan over all models; with a rule, those of the rule's models."""
    limits, who = limits_of_payer(ledger, payer, rule, is_told=True), Named(payer.subject, None)
    return [_known(ledger, limit, "", ["GET"], who, payer) for limit in limits]


def limits_of_application(ledger: Ledger) -> list[EndpointLimit]:
    """The limits over all routes together, for the current request."""
    app, registry = ledger.app, ledger.flask_limiter.registry
    methods = {method for endpoint in app.view_functions for method in methods_of(app, endpoint) or ()} - {"HEAD"}
    limits = [*registry.application_limits, *registry.resolved(ledger.app_state.application_limits)]
    held = [limit for limit in limits if limit.exempt_when is None or not limit.is_exempt]
    return [_known(ledger, limit, "", sorted(methods), None) for limit in held]


def limits_of_inner_functions(ledger: Ledger) -> Iterator[tuple[str, list[EndpointLimit]]]:
    """The limits of functions that views may call, with the functions' names. They are counted for each endpoint."""
    for name, limits in ledger.flask_limiter.registry.of_inner_functions(ledger.app):
        yield name, [_known(ledger, limit, name, ["GET"], NOBODY) for limit in limits]


def _on_method(ledger: Ledger, endpoint: str, method: str, *, ask: bool) -> Iterator[tuple[RuntimeLimit, bool]]:
    """The limits of an endpoint on a method, each with whether it is a limit on refusals."""
    app, access = ledger.app, ledger.flask_limiter
    registry = access.registry.on_method(method, ask=ask)
    here = Ledger(app, ledger.app_state, access.with_registry(registry), flask.request)
    blueprint = endpoint.rpartition(".")[0] or None
    exempt = registry.exemption_scope(app, endpoint, blueprint)
    defaults, decorated = registry.resolve_limits(app, endpoint, blueprint)
    of_all = [] if exempt & ExemptionScope.APPLICATION else registry.application_limits
    limits = [*of_all, *defaults, *decorated]
    limits += limits_despite_override(here, endpoint, blueprint, limits)
    if ask and is_by_plan(ledger, endpoint):
        # The current request is that of another endpoint perhaps, and names no model.
        limits += limits_of_payers(ledger, ledger.selection or Selection(payers_of(ledger)))
    for limit in limits:
        yield limit, False
    for limit in [] if exempt & ExemptionScope.META else here.flask_limiter.metas_of(limits):
        yield limit, True


def _known(
    ledger: Ledger,
    limit: RuntimeLimit,
    endpoint: str | None,
    methods: Collection[str],
    who: Named | None,
    payer: PlannedPayer | None = None,
) -> EndpointLimit:
    """What is known of a limit. ``payer`` is whose plan has it; None for that of the current request."""
    algorithm = ledger.app_state.algorithm
    text = text_of(limit, algorithm)
    unless = () if who is None or limit.exempt_when is None else (name_of(limit.exempt_when),)
    depends = [] if who is None else _depends(ledger, limit, endpoint, who)
    if depends or allows_nothing(limit) or is_no_limit(limit):
        return EndpointLimit(limit, text, (), False, (), tuple(depends), unless)
    quota = quota_now(ledger, limit)
    subject = ledger.engine_now().subject(*identity_of(ledger, limit.key_func)) if who is None else who.subject
    scopes = [_scope(limit, endpoint or "", method) for method in methods]
    shadow = not holds_for(subject, quota.label, enforced_percent(limit.cost))
    if isinstance(limit, PayerLimit) and limit.takes_credit:
        windows = ledger.app_state.windows_of_credit.get(quota.unit, ())
        quota = with_credit(quota, credit_of(quota, payer or payer_of(ledger, limit)), windows, is_tried=shadow)
    policy = policy_of(ledger, limit)
    counts = [Charge(subject, quota, 0, each, True, policy, shadow=shadow) for each in dict.fromkeys(scopes)]
    return EndpointLimit(limit, text, (), False, tuple(counts), (), unless)


def _depends(ledger: Ledger, limit: RuntimeLimit, endpoint: str | None, who: Named) -> list[str]:
    """What the counts of a limit depend on besides the subject, in sentences."""
    if isinstance(limit.limit, NotAsked):
        return [f"depends on the request: the limit is {name_of(limit.limit.provider)}"]
    if allows_nothing(limit) or is_no_limit(limit):
        return []
    found = []
    if who.key_func is not None and limit.key_func != who.key_func:
        found.append(f"not known for this subject: it counts by {name_of(limit.key_func)}")
    if callable(limit.scope):
        found.append(f"depends on the request: the scope is {name_of(limit.scope)}")
    elif endpoint is None:
        identifier = ledger.flask_limiter.request_identifier
        found.append(f"depends on the request: the name of the count is {name_of(identifier)}")
    return found


def _scope(limit: RuntimeLimit, endpoint: str, method: str) -> str:
    """The scope of a count on this endpoint. Flask-Limiter asks a callable for that of the current request's."""
    if callable(limit.scope):
        asked = endpoint if endpoint in flask.current_app.view_functions else flask.request.endpoint
        scope = limit.scope(asked or "")
        limit = replace(limit, scope=lambda _: scope)
    return limit.scope_for(endpoint, method)
