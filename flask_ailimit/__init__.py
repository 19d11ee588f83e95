"""Request, token and concurrency limits for AI inference APIs in Flask: one atomic decision per request."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app_upstream import AppUpstream
    from .engine import AILimitError, ConfigurationError, Decision, HandOverError, StoreError, Verdict
    from .extension import AILimiter
    from .http.errors import LimiterUnavailable, QuotaExceeded, UpstreamRefused
    from .limits.keys import api_key, api_key_in, remote_address
    from .limits.listed import ConcurrencyLimit, RequestsLimit, TokenLimit
    from .limits.plans.admin import Admin, ChangeError
    from .limits.plans.caller import Caller, Payer
    from .limits.plans.change import Change
    from .request.usage import InheritedLimit, LimitSource, LimitUsage, UsageReport
    from .signals import (
        request_refused,
        request_would_be_refused,
        soft_limit_passed,
        store_changed,
        upstream_refused,
        usage_settled,
    )
    from .tokens import Usage
    from .unlimited import UNLIMITED
    from .upstream.upstream import Upstream

__all__ = [
    "UNLIMITED",
    "AILimitError",
    "AILimiter",
    "Admin",
    "AppUpstream",
    "Caller",
    "Change",
    "ChangeError",
    "ConcurrencyLimit",
    "ConfigurationError",
    "Decision",
    "HandOverError",
    "InheritedLimit",
    "LimitSource",
    "LimitUsage",
    "LimiterUnavailable",
    "Payer",
    "QuotaExceeded",
    "RequestsLimit",
    "StoreError",
    "TokenLimit",
    "Upstream",
    "UpstreamRefused",
    "Usage",
    "UsageReport",
    "Verdict",
    "api_key",
    "api_key_in",
    "remote_address",
    "request_refused",
    "request_would_be_refused",
    "soft_limit_passed",
    "store_changed",
    "upstream_refused",
    "usage_settled",
]
__version__ = "0.1.0"

if not TYPE_CHECKING:
    # Each name is imported at its first use, so that flask_ailimit.engine works without Flask.
    _HOMES = {
        "AILimiter": "extension",
        "Admin": "limits.plans.admin",
        "AppUpstream": "app_upstream",
        "Caller": "limits.plans.caller",
        "Change": "limits.plans.change",
        "ChangeError": "limits.plans.admin",
        "ConcurrencyLimit": "limits.listed",
        "InheritedLimit": "request.usage",
        "LimitSource": "request.usage",
        "LimitUsage": "request.usage",
        "LimiterUnavailable": "http.errors",
        "Payer": "limits.plans.caller",
        "QuotaExceeded": "http.errors",
        "RequestsLimit": "limits.listed",
        "TokenLimit": "limits.listed",
        "UNLIMITED": "unlimited",
        "Upstream": "upstream.upstream",
        "UpstreamRefused": "http.errors",
        "Usage": "tokens",
        "UsageReport": "request.usage",
        "api_key": "limits.keys",
        "api_key_in": "limits.keys",
        "remote_address": "limits.keys",
        "request_refused": "signals",
        "request_would_be_refused": "signals",
        "soft_limit_passed": "signals",
        "store_changed": "signals",
        "upstream_refused": "signals",
        "usage_settled": "signals",
    }

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{_HOMES.get(name, 'engine')}", __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
