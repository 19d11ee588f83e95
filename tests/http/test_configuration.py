"""Wrong settings: refused by the decorator or in init_app, in a sentence that says what to write; never in a request.

Rows of the configuration matrix that are about things which this version doesn't have, and so not here: rules with
names (c8, c9), Redis and its time-outs (c15, c16), dashboard (c22, c23), configuration files (c24, c25), time zones
(c32), prices (c33), plans (c34) and changes at run time (c35). A burst below one default request (c4) refuses nothing
here: what is only guessed is capped at the burst.
"""

import asyncio
import math
import os
import sys
import warnings

import pytest
from flask import Blueprint, Flask, stream_with_context
from flask.views import MethodView
from flask_limiter import ApplicationLimit, Limit, Limiter, MetaLimit
from flask_limiter.errors import RateLimitExceeded
from limited_apps import limited
from limits.errors import ConfigurationError as LimitsConfigurationError

from flask_ailimit import AILimiter, ConfigurationError, StoreError, api_key
from flask_ailimit.engine import Quota
from flask_ailimit.testing import ManualClock


def refused(call, *words, error=ConfigurationError):
    """The call raises, and its message has all of these words."""
    with pytest.raises(error) as raised:
        call()
    message = str(raised.value)
    assert [word for word in words if word not in message] == [], message
    assert len(message) < 900
    return message


def set_up(config=None, **options):
    """An app with these settings."""
    return limited(**options, config=config)


@pytest.fixture
def limiter():
    return AILimiter(api_key, storage_uri="memory://")


# Limits (c1 to c5)

UNREADABLE = [
    "", " ", "abc", "10", "per minute", "10/fortnight", "0/fortnight", "10/minute;", "10 per minute and more",
    "1.5 per minute", "-1/minute", "1e9/second", "NaN/minute", "10 per 0 minute", "10 per -1 minute", "\u0661/minute?",
    "9" * 400 + "/minute",
]  # fmt: skip
TOO_MUCH = ["9007199254740992/minute", "1 per 999 years"]


@pytest.mark.parametrize("value", UNREADABLE)
def test_unreadable_limit_on_tokens_is_refused_with_an_example(limiter, value):
    refused(lambda: limiter.limit_tokens(value), "limit: can't read", repr(value[:80]), "'10000 per minute'")
    refused(lambda: set_up(default_token_limits=["5 per day", value]), "'10000 per minute'")
    refused(lambda: set_up({"AILIMIT_DEFAULT_TOKEN_LIMITS": [value]}), "'10000 per minute'")


@pytest.mark.parametrize("value", TOO_MUCH)
def test_limit_that_can_t_be_counted_is_refused(limiter, value):
    refused(lambda: limiter.limit_tokens(value), "whole number")
    refused(lambda: set_up(default_token_limits=[value]), "whole number")


@pytest.mark.parametrize("value", [None, 5, 1.5, True, b"10 per minute", ["10 per minute"]], ids=repr)
def test_limit_that_is_no_text_is_refused(limiter, value):
    refused(lambda: limiter.limit_tokens(value), "'10000 per minute'")
    refused(lambda: set_up(default_token_limits=[value]), "'10000 per minute'")


READABLE_TO_FLASK_LIMITER = {"10/minute;", "10 per minute and more", "10 per 0 minute"}


@pytest.mark.parametrize("value", sorted({*UNREADABLE, *TOO_MUCH[:2]} - READABLE_TO_FLASK_LIMITER))
def test_unreadable_limit_on_requests_is_refused_where_flask_limiter_would_skip_it(limiter, value):
    """It logs it at the first request, and lets everybody pass."""
    refused(lambda: limiter.limit(value), "limit: ", "'10 per minute'")
    refused(lambda: limiter.limit(limit_value=value), "limit: ", "'10 per minute'")
    refused(lambda: limiter.shared_limit(value, "scope"), "shared_limit: ", "'10 per minute'")
    for option in ("default_limits", "application_limits", "meta_limits", "in_memory_fallback"):
        refused(lambda option=option: set_up(**{option: ["5 per day", value]}), f"{option}: ", "'10 per minute'")


@pytest.mark.parametrize("key", ["DEFAULT", "APPLICATION", "META", "IN_MEMORY_FALLBACK"])
@pytest.mark.parametrize("value", ["abc", "10/fortnight"])
def test_unreadable_limit_in_the_config_is_refused(key, value):
    refused(lambda: set_up({f"RATELIMIT_{key}": value}), f"RATELIMIT_{key}: ", "'10 per minute'")


def test_limits_of_flask_limiter_s_own_kinds_are_read_too():
    for made in (Limit("abc"), ApplicationLimit("abc"), MetaLimit("abc")):
        option = {Limit: "default_limits", ApplicationLimit: "application_limits", MetaLimit: "meta_limits"}[type(made)]
        refused(lambda option=option, made=made: set_up(**{option: [made]}), f"{option}: ", "'10 per minute'")
    set_up(default_limits=[Limit("5 per day"), lambda: "6 per day", "7/day; 8 per hour"])


@pytest.mark.parametrize("value", ["4", None, 1.5, True, -1, 10_001, "4 per minute", math.nan], ids=repr)
def test_limit_on_calls_in_flight_is_a_number(limiter, value):
    limiter.limit_concurrency(1)  # What was read is kept, and True must not be found under 1.
    refused(lambda: limiter.limit_concurrency(value), "in flight" if value != -1 else "whole number")


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "x", 2**53], ids=repr)
def test_capacity_and_burst_are_whole_numbers(limiter, value):
    """c2."""
    refused(lambda: Quota(value, 60), "limit: a whole number from 1 to 9007199254740991 is needed")
    if value not in (0, None):
        refused(lambda: limiter.limit_tokens("10 per minute", burst=value), "burst: a whole number from 1 to")


@pytest.mark.parametrize("value", [0, -1, math.inf, 0.001, 10 * 366 * 86400 + 1, "60", None], ids=repr)
def test_period_is_whole_seconds_up_to_ten_years(value):
    """c3."""
    refused(lambda: Quota(10, value), "period: a quota's period is a whole number of seconds from 1 to")


def test_burst_is_the_token_bucket_s_alone(limiter):
    refused(
        lambda: limiter.limit_tokens("10 per minute", algorithm="fixed-window", burst=20),
        "burst: only the token-bucket algorithm has one",
        "drop burst",
    )


def test_burst_that_makes_the_limit_a_joke_is_warned_of(limiter):
    """c5."""
    with pytest.warns(RuntimeWarning, match="burst: 1001 at once is more than 100 times the limit of 10") as warned:
        limiter.limit_tokens("10 per minute", burst=1001)
    assert warned[0].filename == __file__
    limiter.limit_tokens("10 per minute", burst=1000)


def test_default_output_that_fills_a_default_limit_is_refused():
    """c6."""
    message = "default_output_tokens: 1000 is all that '1000 tokens per 60 s' hands out at once"
    refused(lambda: set_up(default_output_tokens=1000, default_token_limits=["1000 per minute"]), message, "Lower it")
    config = {"AILIMIT_DEFAULT_OUTPUT_TOKENS": 1000}
    refused(lambda: set_up(config, default_token_limits=["9000 per day; 1000 per minute"]), message)
    set_up(default_output_tokens=999, default_token_limits=["1000 per minute"])
    set_up(default_token_limits=["1000 per minute"])  # Nobody chose the 1024.


# Names and values of settings (c7, c10, c18, c19, c21, c26)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("default_token_limit", "default_token_limits"),
        ("storage_url", "storage_uri"),
        ("default_limit", "default_limits"),
        ("on_store_eror", "on_store_error"),
    ],
)
def test_misspelt_option_is_refused_with_the_one_that_was_meant(misspelt, meant):
    message = refused(lambda: AILimiter(api_key, **{misspelt: "sk-value"}), misspelt, f"Did you mean {meant}?")
    assert "sk-value" not in message


def test_unknown_option_is_refused_with_where_to_read_on():
    refused(lambda: AILimiter(api_key, tpm=5), "tpm: there is no such option", "docs/configuration.md")


@pytest.mark.parametrize(
    ("misspelt", "hint"),
    [
        ("AILIMIT_DEFAULT_TOKEN_LIMIT", "Did you mean AILIMIT_DEFAULT_TOKEN_LIMITS?"),
        ("AILIMIT_SECRETS", "Did you mean AILIMIT_SECRET?"),
        ("AILIMIT_tpm", "Known are, after AILIMIT_: DEFAULT_TOKEN_LIMITS, "),
        ("AILIMIT_", "Known are, after AILIMIT_: "),
    ],
)
def test_misspelt_config_key_is_refused(misspelt, hint):
    message = refused(lambda: set_up({misspelt: "sk-value"}), f"{misspelt}: there is no such setting", hint)
    assert "sk-value" not in message


WRONG = [
    ("default_token_limits", "100 per minute", "a list is needed"),
    ("default_token_limits", {"100 per minute"}, "a list is needed"),
    ("default_token_limits", 5, "a list is needed"),
    ("token_counter", "o200k", "'o200k_base'"),
    ("token_counter", 5, "'estimate'"),
    ("token_counter", lambda text: -1, "whole number"),
    ("token_counter", lambda text: float(len(text)), "whole number"),
    ("default_output_tokens", -1, "from 0 to"),
    ("default_output_tokens", 1.5, "whole number"),
    ("default_output_tokens", True, "whole number"),
    ("default_output_tokens", "100", "whole number"),
    ("default_output_tokens", None, "whole number"),
    ("default_output_tokens", 10**12, "from 0 to"),
    ("count_cached_tokens", "no", "True or False"),
    ("count_cached_tokens", 0, "True or False"),
    ("headers", "openai", "a list of dialects is needed, such as ['openai']"),
    ("headers", ["opnai"], "Did you mean 'openai'?"),
    ("headers", ["x\r\ny"], "no dialect"),
    ("headers", 5, "a list of dialects"),
    ("headers", [None], "no dialect"),
    ("error_format", "json", "'hybrid', 'problem', 'openai', 'anthropic'"),
    ("error_format", None, "'hybrid'"),
    ("error_format", ["hybrid"], "'hybrid'"),
    ("too_large_status", 500, "400, 413, 429"),
    ("too_large_status", "413", "400, 413, 429"),
    ("too_large_status", True, "400, 413, 429"),
    ("on_store_error", "alow", "'allow', 'deny'"),
    ("on_store_error", None, "'allow', 'deny'"),
    ("max_body_bytes", 0, "from 1 to"),
    ("max_body_bytes", 1.5, "whole number"),
    ("max_body_bytes", "1 MB", "whole number"),
    ("max_debt_periods", -1, "from 0 to 1000"),
    ("max_debt_periods", 1001, "from 0 to 1000"),
    ("max_debt_periods", True, "whole number"),
    ("write_timeout", 0, "more than 0"),
    ("write_timeout", -1, "more than 0"),
    ("write_timeout", True, "seconds"),
    ("write_timeout", "30", "seconds"),
    ("write_timeout", math.nan, "seconds"),
    ("write_timeout", math.inf, "at most 3600"),
    ("slot_ends", "socket", "'work', 'client'"),
    ("slot_ends", None, "'work', 'client'"),
    ("longest_abandoned", 0, "more than 0"),
    ("longest_abandoned", False, "seconds"),
    ("longest_abandoned", "10 minutes", "seconds"),
    ("longest_abandoned", math.nan, "seconds"),
    ("longest_abandoned", 86_401, "at most 86400"),
    ("name", "", "such as 'shop'"),
    ("name", "..", "the first a letter or a digit"),
    ("name", "shop/staging", "1 to 64 letters"),
    ("name", "shop\n", "1 to 64 letters"),
    ("name", "x" * 65, "1 to 64 letters"),
    ("name", 2026, "Got 2026"),
    ("secret", 5, "a text is needed"),
    ("secret", "", "16 to 64 bytes"),
    ("secret", "short", "16 to 64 bytes"),
    ("secret", "x" * 65, "16 to 64 bytes"),
    ("secret", b"", "16 to 64 bytes"),
]


@pytest.mark.parametrize(("name", "value", "fix"), WRONG, ids=lambda value: repr(value)[:30])
def test_wrong_setting_is_refused_wherever_it_was_set(name, value, fix):
    message = refused(lambda: set_up(**{name: value}), f"{name}: ", fix)
    assert refused(lambda: set_up({f"AILIMIT_{name.upper()}": value}), fix) == message


def test_refusal_is_flask_limiter_s_error_too():
    refused(lambda: set_up(on_store_error="x"), "on_store_error", error=LimitsConfigurationError)


def test_secret_is_never_shown():
    for secret in ("short-secret", "s" * 70, 123_456_789):
        message = refused(lambda secret=secret: set_up(secret=secret), "secret")
        assert str(secret) not in message


def test_keyword_wins_over_config():
    assert (
        set_up({"AILIMIT_ERROR_FORMAT": "openai"}, error_format="problem").limiter.app_state.settings.error_format
        == "problem"
    )


def test_settings_are_read_from_the_environment(monkeypatch):
    """c26: Flask's own way of it."""
    monkeypatch.setenv("FLASK_AILIMIT_DEFAULT_TOKEN_LIMITS", '["100 per minute"]')
    monkeypatch.setenv("FLASK_AILIMIT_TOO_LARGE_STATUS", "400")
    app = Flask("x")
    app.config.from_prefixed_env()
    limiter = AILimiter(api_key, storage_uri="memory://", app=app)
    with app.app_context():
        assert limiter.app_state.settings.too_large_status == 400
        assert limiter.app_state.settings.default_token_limits == ["100 per minute"]


@pytest.mark.parametrize(
    ("variable", "value", "fix"),
    [
        ("WRITE_TIMEOUT", "half a minute", "write_timeout: seconds"),
        ("MAX_BODY_BYTES", "1MB", "max_body_bytes: a whole number"),
        ("MAX_DEBT_PERIODS", "1.5", "max_debt_periods: a whole number"),
        ("DEFAULT_TOKEN_LIMITS", "100 per minute", "default_token_limits: a list is needed"),
        ("WRITE_TIMEOUTS", "5", "AILIMIT_WRITE_TIMEOUTS: there is no such setting"),
        ("SECRET", "short-secret", "secret: 16 to 64 bytes"),
    ],
)
def test_environment_variable_that_can_t_be_read_is_refused(monkeypatch, variable, value, fix):
    monkeypatch.setenv(f"FLASK_AILIMIT_{variable}", value)
    app = Flask("x")
    app.config.from_prefixed_env()
    message = refused(lambda: AILimiter(api_key, storage_uri="memory://", app=app), fix)
    assert "short-secret" not in message


@pytest.mark.parametrize("value", [None, "alice", 5, []], ids=repr)
def test_key_function_is_a_function(limiter, value):
    refused(
        lambda: AILimiter(value, app=Flask("x"), storage_uri="memory://"),
        "key_func: a callable is needed, such as api_key",
    )
    if value is not None:
        refused(lambda: limiter.limit_tokens("10 per minute", key_func=value), "key_func: a callable is needed")
        refused(lambda: limiter.limit_concurrency(4, key_func=value), "key_func: a callable is needed")
        refused(lambda: limiter.limit("10 per minute", key_func=value), "key_func: a callable is needed")


@pytest.mark.parametrize("option", ["exempt_when", "on_breach"])
def test_options_that_are_called_are_functions(limiter, option):
    for decorator in (limiter.limit, limiter.limit_tokens):
        refused(
            lambda decorator=decorator: decorator("10 per minute", **{option: "yes"}), f"{option}: a callable is needed"
        )
    refused(lambda: limiter.limit_concurrency(4, **{option: True}), f"{option}: a callable is needed")
    refused(lambda: limiter.limit("1 per day", deduct_when="yes"), "deduct_when: a callable is needed")


@pytest.mark.parametrize("value", [5, "len", object()], ids=lambda value: type(value).__name__)
def test_estimate_is_a_function(limiter, value):
    """c20."""
    refused(lambda: limiter.limit_tokens("10 per minute", estimate=value), "estimate: a callable from the request")


@pytest.mark.parametrize("value", [-1, 1.5, None, True, math.nan, "2"], ids=repr)
def test_cost_is_a_whole_number_or_a_function(limiter, value):
    refused(lambda: limiter.limit("10 per minute", cost=value), "cost: a whole number from 0 to")


@pytest.mark.parametrize("value", ["tokns", None, "requests", 5, []], ids=repr)
def test_unit_is_one_of_the_token_units(limiter, value):
    refused(
        lambda: limiter.limit_tokens("10 per minute", unit=value),
        "unit: use one of tokens, input_tokens, output_tokens",
    )


@pytest.mark.parametrize("value", ["token_bucket", "gcra", "concurrency", []], ids=repr)
def test_algorithm_is_one_that_there_is(limiter, value):
    """c10."""
    known = "use one of fixed-window, moving-window, sliding-window-counter, token-bucket"
    of_limit = known.replace("one of", "one of budget,")
    refused(lambda: limiter.limit_tokens("10 per minute", algorithm=value), f"algorithm: {of_limit}")
    if value:
        refused(lambda: set_up(strategy=value), f"strategy: {known}")
        refused(lambda: set_up({"RATELIMIT_STRATEGY": value}), f"strategy: {known}")


def test_requests_of_the_whole_app_are_counted_by_no_budget():
    """It would have to be settled after each of them."""
    refused(lambda: set_up(strategy="budget"), "strategy: use one of fixed-window")


@pytest.mark.parametrize("value", [4, 3601, 0, -1, None, 30.0, "30", True], ids=repr)
def test_lease_is_seconds_from_5_to_an_hour(limiter, value):
    """c17."""
    refused(lambda: limiter.limit_concurrency(4, lease=value), "lease: a whole number of seconds from 5 to 3600")


# Stores (c11 to c14)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "foo://",
        "memcached://",
        "memory",
        "://",
        "LOCAL://",
        " local://",
        "memory:",
    ],
)
def test_unknown_store_is_refused_with_those_there_are(uri):
    refused(lambda: set_up(storage_uri=uri), "storage_uri: no store is called", "local://, memory://")
    refused(lambda: set_up({"RATELIMIT_STORAGE_URI": uri}, storage_uri=None), "storage_uri", "local://, memory://")


def test_password_in_a_storage_uri_is_never_shown():
    for uri in ("rediss://user:hunter2@:1", "foo://:hunter2@host/0", "hunter2"):
        assert "hunter2" not in refused(lambda uri=uri: set_up(storage_uri=uri), "storage_uri")


@pytest.mark.parametrize(
    ("uri", "fix"),
    [("local://relative/path", "three slashes"), ("local://host", "three slashes"), ("memory://x", "nothing after")],
)
def test_storage_uri_that_says_too_much_is_refused(uri, fix):
    refused(lambda: set_up(storage_uri=uri), "storage_uri: ", fix)


@pytest.mark.parametrize("options", [{"map_sise": 1}, {"clock": 1}, {"name": "x"}], ids=str)
def test_storage_option_that_there_is_not_is_refused(tmp_path, options):
    uri = f"local://{tmp_path}/limits"
    refused(lambda: set_up(storage_uri=uri, storage_options=options), "storage_options: local://", *options)
    refused(
        lambda: set_up({"RATELIMIT_STORAGE_OPTIONS": options}, storage_uri=uri), "storage_options: local://", *options
    )


@pytest.mark.parametrize("options", ["map_size=1", 5, ["map_size"]], ids=repr)
def test_storage_options_are_a_dictionary(options):
    refused(lambda: set_up(storage_options=options), "storage_options: a dictionary is needed")
    refused(lambda: set_up({"RATELIMIT_STORAGE_OPTIONS": options}), "storage_options: a dictionary is needed")


@pytest.mark.parametrize("size", [0, -1, 1 << 10, 1e9, "1 GB", True, None], ids=repr)
def test_map_size_is_at_least_a_megabyte(tmp_path, size):
    """c14."""
    options = {"map_size": size}
    refused(lambda: set_up(storage_uri=f"local://{tmp_path}/limits", storage_options=options), "map_size: ", "1048576")


@pytest.mark.parametrize("workers", [["-w", "2"], ["--workers=4"]], ids=str)
def test_memory_of_several_workers_is_warned_of(monkeypatch, workers):
    """c12."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/gunicorn", *workers, "app:app"])
    with pytest.warns(RuntimeWarning, match="Use 'local://'"):
        set_up(storage_uri="memory://")


def test_directory_that_is_a_file_is_refused(tmp_path):
    """c13, and so the next."""
    (tmp_path / "file").touch()
    refused(lambda: set_up(storage_uri=f"local://{tmp_path}/file"), "storage_uri: ", "is not a directory")


def test_directory_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    refused(lambda: set_up(storage_uri=f"local://{tmp_path}/link"), "is a link", "Name the directory itself")


def test_directory_that_can_t_be_made_is_refused():
    refused(
        lambda: set_up(storage_uri="local:///proc/flask_ailimit"), "can't make /proc/flask_ailimit", error=StoreError
    )


def test_directory_that_others_can_write_is_warned_of(tmp_path):
    directory = tmp_path / "limits"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.warns(RuntimeWarning, match="chmod 700"):
        served = set_up(storage_uri=f"local://{directory}")
    served.limiter.engine.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory of somebody else's")
def test_directory_of_somebody_else_is_refused(tmp_path):
    directory = tmp_path / "limits"
    directory.mkdir(mode=0o700)
    os.chown(directory, 12345, 12345)
    refused(lambda: set_up(storage_uri=f"local://{directory}"), "belongs to uid 12345")


def test_refused_setting_leaves_the_app_as_it_was():
    app = Flask("x", static_folder=None)
    limiter = AILimiter(api_key, storage_uri="memory://", error_format="x")
    with pytest.raises(ConfigurationError):
        limiter.init_app(app)
    assert not app.before_request_funcs
    assert not app.after_request_funcs
    assert "limiter" not in app.extensions


# Setting up (c27, c30, c31)


def once_a_day(limiter, app):
    @app.get("/")
    @limiter.limit("1 per day")
    @limiter.limit_tokens("1000 per day", estimate=lambda _: 600)
    def answer():
        limiter.record_usage(input_tokens=600)
        return {}

    return app


def statuses(app, count=2, path="/"):
    return [app.test_client().get(path).status_code for _ in range(count)]


def test_second_init_app_changes_nothing():
    served = set_up()
    store = served.limiter.app_state.engine.store
    served.limiter.init_app(served.app)
    served.limiter.init_app(served.app)
    assert served.limiter.app_state.engine.store is store
    once_a_day(served.limiter, served.app)
    assert statuses(served.app, 1) == [200]
    assert set(served.used(key=None).values()) == {0}  # of another address than the client's
    with served.app.test_request_context(environ_base={"REMOTE_ADDR": "127.0.0.1"}):
        assert sorted(verdict.used for verdict in served.limiter.peek("answer").verdicts) == [1, 600]


def test_factory_called_many_times_counts_each_app_apart():
    limiter = AILimiter(api_key, storage_uri="memory://", clock=ManualClock())
    apps = []
    for number in range(5):
        app = Flask(f"app{number}", static_folder=None)
        limiter.init_app(app)
        apps.append(once_a_day(limiter, app))
    assert [statuses(app) for app in apps] == [[200, 429]] * 5


def test_app_that_is_not_limited_switches_off_no_other():
    """Flask-Limiter has one switch for all apps; the last one decides."""
    limiter = AILimiter(api_key, storage_uri="memory://", clock=ManualClock())
    on = {None: [200, 429], True: [200, 429], False: [200, 200]}
    apps = []
    for enabled in (False, None, False, True, None, False):
        app = Flask("x", static_folder=None)
        if enabled is not None:
            app.config["RATELIMIT_ENABLED"] = enabled
        limiter.init_app(app)
        apps.append((once_a_day(limiter, app), on[enabled]))
    assert [statuses(app) for app, _ in apps] == [expected for _, expected in apps]


def test_limiter_that_is_switched_off_lets_everything_pass_and_records_nothing():
    limiter = AILimiter(api_key, storage_uri="memory://", enabled=False)
    app = Flask("x", static_folder=None)
    limiter.init_app(app)
    once_a_day(limiter, app)
    app.add_url_rule("/decision", "decision", lambda: {"decision": limiter.decision})
    assert statuses(app, 3) == [200] * 3
    assert app.test_client().get("/decision").json == {"decision": None}


def test_limiter_can_be_switched_off_and_on_again():
    served = set_up()
    once_a_day(served.limiter, served.app)
    served.limiter.enabled = False
    assert statuses(served.app) == [200, 200]
    served.limiter.enabled = True
    assert statuses(served.app) == [200, 429]


def test_limiter_that_was_never_set_up_says_so(limiter):
    with pytest.raises(RuntimeError, match=r"limiter\.init_app\(app\)"):
        limiter.app_state  # noqa: B018  a property that raises
    app = Flask("x")
    with app.app_context(), pytest.raises(RuntimeError, match=r"limiter\.init_app\(app\)"):
        limiter.engine  # noqa: B018  a property that raises


def test_view_of_an_app_that_was_forgotten_is_not_unlimited():
    limiter = AILimiter(api_key, storage_uri="memory://")
    limiter.init_app(Flask("known"))
    forgotten = once_a_day(limiter, Flask("forgotten", static_folder=None))
    forgotten.testing = True
    with pytest.raises(RuntimeError, match=r"limiter\.init_app\(app\)"):
        forgotten.test_client().get("/")


def test_two_limiters_on_one_app_both_limit():
    app = Flask("x", static_folder=None)
    clock = ManualClock()
    mine, theirs = (AILimiter(api_key, storage_uri="memory://", app=app, clock=clock) for _ in range(2))

    @app.get("/")
    @mine.limit("3 per day")
    @theirs.limit("1 per minute")
    def answer():
        return {}

    assert statuses(app) == [200, 429]
    clock.advance(60)
    assert statuses(app) == [200, 429]  # The first by mine, whose count knows nothing of what theirs refused.


def test_flask_limiter_s_own_limiter_may_stand_beside_ours():
    """c31."""
    served = set_up()
    theirs = Limiter(api_key, app=served.app, storage_uri="memory://", default_limits=["2 per day"])

    @served.app.get("/")
    @theirs.limit("5 per day")
    @served.limiter.limit("3 per day")
    def answer():
        return {}

    assert statuses(served.app, 4) == [200, 200, 200, 429]


def test_decorators_work_before_there_is_an_app():
    """c30: as a module does it when it is imported."""
    limiter = AILimiter(api_key, storage_uri="memory://", clock=ManualClock())
    blueprint = Blueprint("v1", __name__)
    limiter.limit_tokens("1000 per day", estimate=lambda _: 600)(blueprint)

    @blueprint.get("/")
    def answer():
        limiter.record_usage(input_tokens=600)
        return {}

    app = Flask("x", static_folder=None)
    app.register_blueprint(blueprint)
    limiter.init_app(app)
    assert statuses(app) == [200, 429]


# Places of a decorator (c28, c29)


def test_decorator_above_the_route_is_warned_of():
    served = set_up()
    with pytest.warns(RuntimeWarning, match=r"answer is called without its limit.*below @app\.route"):

        @served.limiter.limit("1 per day")
        @served.app.get("/")
        def answer():
            return {}

    with pytest.warns(RuntimeWarning, match=r"below @app\.route"):

        @served.limiter.limit_tokens("1 per day")
        @served.app.get("/tokens")
        def tokens():
            return {}


def test_decorator_above_the_route_is_warned_of_when_the_app_is_set_up_later(limiter):
    app = Flask("x", static_folder=None)

    @limiter.limit_concurrency(1)
    @app.get("/")
    def answer():
        return {}

    with pytest.warns(RuntimeWarning, match=r"answer is called without its limit"):
        limiter.init_app(app)


def test_decorator_in_its_place_is_not_warned_of():
    served = set_up()
    once_a_day(served.limiter, served.app)

    class Answers(MethodView):
        decorators = (served.limiter.limit("1 per day"),)

        def get(self):
            return {}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        served.app.add_url_rule("/class", view_func=Answers.as_view("answers"))
        once_a_day(served.limiter, Flask("another"))
        AILimiter(api_key, storage_uri="memory://", app=served.app)


def place_on_async_view(limits):
    @limits.app.get("/")
    @limits.limiter.limit("1 per day")
    @limits.limiter.limit_concurrency(1)
    async def answer():
        await asyncio.sleep(0)
        return {}


def place_on_class(limits):
    class Answers(MethodView):
        decorators = (limits.limiter.limit("1 per day"), limits.limiter.limit_concurrency(1))

        def get(self):
            return {}

    limits.app.add_url_rule("/", view_func=Answers.as_view("answer"))


def place_on_method(limits):
    class Answers(MethodView):
        @limits.limiter.limit("1 per day")
        @limits.limiter.limit_concurrency(1)
        def get(self):
            return {}

    limits.app.add_url_rule("/", view_func=Answers.as_view("answer"))


def place_on_blueprint(limits):
    blueprint = Blueprint("v1", __name__)
    limits.limiter.limit("1 per day")(blueprint)
    limits.limiter.limit_concurrency(1)(blueprint)
    blueprint.get("/")(dict)
    limits.app.register_blueprint(blueprint)


def place_on_generator(limits):
    @limits.app.get("/")
    @limits.limiter.limit("1 per day")
    @limits.limiter.limit_concurrency(1)
    def answer():
        @stream_with_context
        def words():
            yield "one "
            yield "two"

        return words()


def place_in_a_block(limits):
    @limits.app.get("/")
    def answer():
        with limits.limiter.limit("1 per day"), limits.limiter.limit_concurrency(1):
            return {}


PLACES = [value for name, value in list(globals().items()) if name.startswith("place_")]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_decorator_works_in_every_place(place):
    served = set_up()
    place(served)
    answers = [served.client().get("/", buffered=True) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert issubclass(RateLimitExceeded, Exception)
    assert answers[1].json["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("periods", [0, 1, 4, 1000])
def test_every_limit_of_an_app_owes_at_most_what_its_setting_says(periods):
    limits = limited(max_debt_periods=periods, default_limits=["9 per day"], default_token_limits=["100 per minute"])

    @limits.app.post("/", endpoint="answer")
    @limits.limiter.limit_tokens("100 per minute", unit="output_tokens", burst=150)
    @limits.limiter.limit_tokens("100 per minute", unit="input_tokens", algorithm="fixed-window")
    def answer():
        limits.limiter.record_usage(input_tokens=10**15, output_tokens=10**15)
        return {}

    limits.client().post("/", json={})
    with limits.app.test_request_context():
        verdicts = limits.limiter.peek("answer", "alice").verdicts
    assert {verdict.quota.debt_periods for verdict in verdicts} == {periods}
    resets = {verdict.quota.unit: verdict.reset_after for verdict in verdicts if verdict.quota.unit != "requests"}
    assert resets["output_tokens"] == 90 + 60 * periods
    assert resets["input_tokens"] == 60 + 60 * periods


def test_limiter_that_could_not_join_an_app_is_none_of_its_limiters():
    app = Flask("shop")
    with pytest.raises(ConfigurationError):
        AILimiter(api_key, app=app, storage_uri="memory://", application_concurrency="many")
    joined = AILimiter(api_key, app=app, storage_uri="memory://", application_concurrency=4)
    assert app.extensions["ailimit"] == [joined]
