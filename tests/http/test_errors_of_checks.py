"""Whatever is wrong with a setting, a limit or an option: one error, caught by our users and by Flask-Limiter's."""

import pytest
from flask import Flask
from limits.errors import ConfigurationError as LimitsConfigurationError

from flask_ailimit import AILimiter, ConfigurationError, api_key, api_key_in

MISTAKES = {
    "limit": lambda limiter: limiter.limit("2/sec"),
    "methods": lambda limiter: limiter.limit("2/second", methods="GET"),
    "cost": lambda limiter: limiter.limit("2/second", cost=-1),
    "callback": lambda limiter: limiter.limit("2/second", on_breach=5),
    "policy": lambda limiter: limiter.limit("2/second", on_store_error="x"),
    "shared_limit": lambda limiter: limiter.shared_limit("2/sec", "scope"),
    "limit_tokens": lambda limiter: limiter.limit_tokens("2/sec"),
    "unit": lambda limiter: limiter.limit_tokens("2/second", unit="x"),
    "algorithm": lambda limiter: limiter.limit_tokens("2/second", algorithm="x"),
    "burst": lambda limiter: limiter.limit_tokens("2/second", burst=-1),
    "estimate": lambda limiter: limiter.limit_tokens("2/second", estimate=5),
    "limit_concurrency": lambda limiter: limiter.limit_concurrency("4"),
    "lease": lambda limiter: limiter.limit_concurrency(4, lease=0),
    "key_func of a limit": lambda limiter: limiter.limit_concurrency(4, key_func="x"),
    "key_func": lambda _: AILimiter("x"),
    "option": lambda _: AILimiter(api_key, tokn_counter="x"),
    "default_limits": lambda _: AILimiter(api_key, default_limits=["2/sec"]),
    "default_limits as text": lambda _: AILimiter(api_key, default_limits="2/second"),
    "api_key_in": lambda _: api_key_in("cookie"),
    "setting": lambda _: AILimiter(api_key, storage_uri="memory://", error_format="x").init_app(Flask("x")),
    "default_token_limits": lambda _: init(default_token_limits=["2/sec"]),
    "strategy": lambda _: init(strategy="x"),
    "storage_uri": lambda _: init(storage_uri="nothing://"),
    "token_counter": lambda _: init(token_counter="x"),
    "headers": lambda _: init(headers=["x"]),
    "secret": lambda _: init(secret="x"),
    "config": lambda _: init(config={"RATELIMIT_DEFAULT": "2/sec"}),
    "config key": lambda _: init(config={"AILIMIT_X": 1}),
}


def init(config=None, **options):
    app = Flask("x")
    app.config.update(config or {})
    AILimiter(api_key, app=app, **{"storage_uri": "memory://", **options})


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("awaited", [ConfigurationError, LimitsConfigurationError, ValueError])
def test_every_mistake_is_caught_by_who_waits_for_either_error(mistake, awaited):
    limiter = AILimiter(api_key)
    with pytest.raises(awaited) as caught:
        mistake(limiter)
    assert type(caught.value).__name__ == "ConfigurationError"


def test_shared_is_no_option_of_limit_and_needs_a_scope_elsewhere():
    limiter = AILimiter(api_key)
    with pytest.raises(TypeError, match=r"shared: limit has no such option. Use shared_limit\("):
        limiter.limit("1 per day", shared=True)
    with pytest.raises(ConfigurationError, match="shared: name the count that the views share"):
        limiter.limit_tokens("1 per day", shared=True)
