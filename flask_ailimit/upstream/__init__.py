"""The app's own calls to providers: paced, retried, and counted in the same store as what the app's clients call."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .retrying import retry_if_worthwhile, stamina_hook, stop_after_budget, wait_as_told
    from .settings import UpstreamSettings
    from .signals import (
        breaker_changed,
        cache_looked,
        call_given_up,
        call_retried,
        call_settled,
        call_waited,
        retries_spiked,
        upstream_paused,
    )

__all__ = [
    "UpstreamSettings",
    "breaker_changed",
    "cache_looked",
    "call_given_up",
    "call_retried",
    "call_settled",
    "call_waited",
    "retries_spiked",
    "retry_if_worthwhile",
    "stamina_hook",
    "stop_after_budget",
    "upstream_paused",
    "wait_as_told",
]

if not TYPE_CHECKING:
    # Each name is imported at its first use: retries need tenacity, and settings and signals don't.
    _HOMES = {"UpstreamSettings": "settings"} | dict.fromkeys(
        ("retry_if_worthwhile", "stamina_hook", "stop_after_budget", "wait_as_told"), "retrying"
    )

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{_HOMES.get(name, 'signals')}", __name__), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
