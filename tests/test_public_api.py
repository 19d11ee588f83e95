"""What users may import; a change here is a change for them."""

import ast
import importlib
from pathlib import Path

import pytest

import flask_ailimit
from flask_ailimit import extension
from flask_ailimit.engine import decision

PUBLIC = {
    "flask_ailimit": [
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
    ],
    "flask_ailimit.engine": [
        "ALGORITHMS",
        "AILimitError",
        "Algorithm",
        "Calendar",
        "Charge",
        "Clock",
        "ConfigurationError",
        "Decision",
        "Engine",
        "Grant",
        "HandOverError",
        "HandedOver",
        "Quota",
        "Reservation",
        "Settled",
        "Settlement",
        "Spending",
        "State",
        "StateStore",
        "Step",
        "Store",
        "StoreError",
        "Verdict",
        "open_store",
        "parse_quotas",
        "system_clock",
    ],
    "flask_ailimit.tokens": [
        "COUNTERS",
        "MAX_TOKENS",
        "Estimate",
        "InvalidBody",
        "Measure",
        "StreamMeter",
        "TokenCounter",
        "Usage",
        "decode_body",
        "estimate_request",
        "exact_counter",
        "open_counter",
        "read_output_text",
        "read_usage",
    ],
    "flask_ailimit.headers": [
        "DEFAULT_DIALECTS",
        "DIALECTS",
        "Dialect",
        "exposed_names",
        "limit_headers",
        "require_dialects",
    ],
    "flask_ailimit.money": [
        "Cost",
        "Money",
        "Price",
        "PriceBook",
        "Weights",
        "currency_of",
        "in_words",
        "parse_money",
        "unit_of",
    ],
    "flask_ailimit.upstream": [
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
    ],
    "flask_ailimit.testing": [
        "HOSTILE_HEADERS",
        "START_US",
        "Advance",
        "Call",
        "FakeProvider",
        "Fault",
        "ManualClock",
        "StoreContract",
        "limits_clock",
    ],
}
every_module = pytest.mark.parametrize("module", PUBLIC)


@every_module
def test_public_names_are_these(module):
    assert importlib.import_module(module).__all__ == PUBLIC[module]


@every_module
def test_every_public_name_is_there(module):
    loaded = importlib.import_module(module)
    assert all(getattr(loaded, name) is not None for name in loaded.__all__)
    assert set(loaded.__all__) <= set(dir(loaded))


def test_star_import_brings_exactly_the_public_names():
    names = {}
    exec("from flask_ailimit import *", names)
    assert set(names) - {"__builtins__"} == set(PUBLIC["flask_ailimit"])


def test_demo_imports_only_public_names():
    demo = Path(__file__).parents[1] / "demo_app"
    if not demo.exists():
        pytest.skip("the demo is not part of the sdist")
    imports = [
        (node.module, alias.name)
        for path in demo.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and not node.level and str(node.module).startswith("flask_ailimit")
        for alias in node.names
    ]
    assert imports
    assert [each for each in imports if each[1] not in PUBLIC.get(each[0], ())] == []


def test_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'flask_ailimit' has no attribute 'Limiter'"):
        _ = flask_ailimit.Limiter
    with pytest.raises(ImportError, match="cannot import name 'Limiter'"):
        exec("from flask_ailimit import Limiter")


def test_name_is_the_same_object_wherever_it_is_imported_from():
    assert flask_ailimit.AILimiter is extension.AILimiter
    assert flask_ailimit.Decision is decision.Decision
    assert flask_ailimit.engine.Decision is decision.Decision


@pytest.mark.parametrize(
    ("error", "bases"),
    [
        ("ConfigurationError", ("AILimitError", "ValueError")),
        ("ChangeError", ("AILimitError", "ValueError")),
        ("StoreError", ("AILimitError",)),
        ("QuotaExceeded", ("RateLimitExceeded", "TooManyRequests", "HTTPException")),
        ("LimiterUnavailable", ("ServiceUnavailable", "HTTPException")),
    ],
)
def test_errors_are_caught_by_who_waits_for_their_bases(error, bases):
    ancestors = {base.__name__ for base in getattr(flask_ailimit, error).__mro__}
    assert set(bases) <= ancestors
