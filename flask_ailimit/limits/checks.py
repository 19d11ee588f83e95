"""Checks limits and options when the app writes them.

Flask-Limiter finds a limit that it can't read at the first request, logs it, and lets every request pass.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from flask_limiter import Limit

from flask_ailimit.config import require_policy
from flask_ailimit.engine import ConfigurationError
from flask_ailimit.engine.algorithms import OVER_TIME
from flask_ailimit.engine.charge import require_cost
from flask_ailimit.engine.quota import BUDGET, REQUESTS, require_bool, require_name, require_soft_percent
from flask_ailimit.unlimited import UNLIMITED

from .plans.plan import ALL_PAYERS, NO_PAYERS
from .plans.said import CLOSE
from .resolve import request_items

_CALLED = ("deduct_when", "exempt_when", "key_func", "on_breach")
_METHOD = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_LEAST_LEASE = 5
_LONGEST_LEASE = 3600
_LISTS = ("application_limits", "default_limits", "in_memory_fallback", "meta_limits")


def require_options(options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Check that the constructor's options exist, and that its lists of limits can be read.

    Raises:
        ConfigurationError: One is wrong; the message says what was meant, or what to write.
    """
    names = sorted(known)
    for option in options:
        if option not in names:
            close = get_close_matches(option, names, n=1, cutoff=CLOSE)
            hint = f"Did you mean {close[0]}?" if close else "See docs/configuration.md, and Flask-Limiter's."
            raise ConfigurationError(f"{option[:40]}: there is no such option. {hint}")
    for name in _LISTS:
        limits = options.get(name) or ()
        if isinstance(limits, str):
            raise ConfigurationError(f"{name}: a list is needed, such as ['10 per minute']. Got {limits[:80]!r}.")
        for limit in limits:
            require_request_limit(name, limit)


def require_decorator(name: str, limit: object, options: Mapping[str, Any]) -> None:
    """Check the limit and the options of a decorator for requests.

    Raises:
        ConfigurationError: One is wrong; the message says what to write.
    """
    require_request_limit(name, limit)
    require_methods(options.get("methods"))
    require_callables(**{name: options.get(name) for name in _CALLED})
    require_cost_or_callable(options.get("cost", 1))
    require_policy_if_given(options.get("on_store_error"))
    if name != "limit":  # There Flask-Limiter writes any scope behind the endpoint's name.
        require_scope(options.get("scope"))
    require_told(options.get("name"), options.get("in_headers", True), options.get("soft_percent"), REQUESTS)
    require_enforced_percent(options.get("enforced_percent", ALL_PAYERS))


def require_request_limit(setting: str, limit: object) -> None:
    """Check that a limit on requests can be read and counted. A callable is not called here, but in each request.

    Raises:
        ConfigurationError: It can't; the message gives an example.
    """
    value = limit
    if isinstance(limit, Limit):
        value = limit.limit_provider
        require_methods(limit.methods)
    if callable(value) or value is UNLIMITED:
        return
    try:
        request_items(value if isinstance(value, str) else repr(value)[:80], "fixed-window")
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {error}.") from error


def require_cost_or_callable(cost: object) -> None:
    """Check that ``cost`` is a callable, or an integer from 0 to 2**53 - 1.

    Raises:
        ConfigurationError: It is neither.
    """
    if not callable(cost):
        try:
            require_cost(cost)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error


def require_told(name: object, in_headers: object, soft_percent: object, unit: str) -> None:
    """Check how a limit on a unit is told of.

    Args:
        name: What clients call it; None if it has no name of its own.
        in_headers: Whether they are told of it.
        soft_percent: From which part on is told that it is nearly used up; None for the app's own.
        unit: The unit.

    Raises:
        ConfigurationError: The name can't stand in a header, ``in_headers`` is neither True nor False, or
            ``soft_percent`` is not one that a limit on this unit can have.
    """
    if name is not None:
        require_name(name)
    require_bool("in_headers", in_headers)
    if soft_percent is not None:
        require_soft_percent(soft_percent, unit)


def require_enforced_percent(percent: object) -> None:
    """Check the part of the subjects for whom a limit holds.

    Raises:
        ConfigurationError: It is not a whole number from 0 to 100.
    """
    if type(percent) is not int or not NO_PAYERS <= percent <= ALL_PAYERS:
        raise ConfigurationError(
            f"enforced_percent: a whole number from {NO_PAYERS} (only tried) to {ALL_PAYERS} is needed. "
            f"Got {percent!r:.40}."
        )


def require_scope(scope: object) -> None:
    """Check that ``scope`` is a text or a callable, or None for an option that was not given.

    Raises:
        ConfigurationError: It is not.
    """
    if scope is not None and not isinstance(scope, str) and not callable(scope):
        raise ConfigurationError(f"scope: a text or a callable is needed. Got {str(scope)[:80]!r}.")


def require_methods(methods: object) -> None:
    """Check that ``methods`` is a list of HTTP methods or None. The letters of a text would be taken for methods.

    Raises:
        ConfigurationError: It is not; the message gives an example.
    """
    if methods is None:
        return
    names = methods if isinstance(methods, list | tuple | set | frozenset) else ()
    if not names or not all(isinstance(each, str) and _METHOD.fullmatch(each) for each in names):
        raise ConfigurationError(f"methods: a list of HTTP methods is needed, such as ['POST']. Got {methods!r:.80}.")


def require_policy_if_given(policy: object) -> None:
    """Check that ``policy`` is a failure policy, or None for an option that was not given.

    Raises:
        ConfigurationError: It is not.
    """
    if policy is not None:
        require_policy(policy)


def require_callables(**options: object) -> None:
    """Check that each option is a callable, or None for an option that was not given.

    Raises:
        ConfigurationError: One is not.
    """
    for name, value in options.items():
        if value is not None and not callable(value):
            raise ConfigurationError(f"{name}: a callable is needed. Got {str(value)[:80]!r}.")


def require_lease(lease: object) -> None:
    """Check the lease of a limit on calls in flight.

    Raises:
        ConfigurationError: It is not a whole number of seconds from 5 to 3,600.
    """
    if type(lease) is not int or not _LEAST_LEASE <= lease <= _LONGEST_LEASE:
        raise ConfigurationError(
            f"lease: a whole number of seconds from {_LEAST_LEASE} to {_LONGEST_LEASE} is needed. "
            f"Got {str(lease)[:40]!r}."
        )


def require_algorithm(setting: str, value: object, *, of_limit: bool = True) -> None:
    """Check that ``value`` is the name of an algorithm for limits over time.

    Args:
        setting: What the app calls it.
        value: The name.
        of_limit: Whether it is that of one limit. What counts all requests is no budget, which has to be settled.

    Raises:
        ConfigurationError: It is not.
    """
    known = sorted(OVER_TIME if of_limit else OVER_TIME - {BUDGET})
    if value not in known:
        raise ConfigurationError(f"{setting}: use one of {', '.join(known)}. Got {str(value)[:40]!r}.")
