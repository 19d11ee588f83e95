"""``limiter.upstream``: an upstream of the code or of the plan file, in the store of the app that calls."""

import re
import subprocess
import sys

import flask
import openai
import pytest

from flask_ailimit import AILimiter, ConfigurationError, Upstream, api_key
from flask_ailimit.engine import Engine, open_store
from flask_ailimit.limits.plans.plan_file import read_plans
from flask_ailimit.testing import FakeProvider
from flask_ailimit.upstream.from_environment import FromEnvironment

PLAN = {"plans": {"free": {"requests": "9 per minute"}}}
ASK = {"model": "gpt-test", "messages": [{"role": "user", "content": "Say hello."}]}


def limiter_with(upstreams=None, **options):
    plans = PLAN if upstreams is None else {**PLAN, "upstreams": upstreams}
    return AILimiter(api_key, storage_uri="memory://", plans=plans, **options)


def started(limiter, name="shop"):
    app = flask.Flask(name)
    limiter.init_app(app)
    return app


@pytest.fixture
def provider():
    with FakeProvider(key="test") as provider:
        yield provider


def client_of(upstream, provider):
    return openai.OpenAI(base_url=provider.url, api_key="test", http_client=upstream.http_client())


def left(limiter, upstream):
    """What is left of the upstream's requests."""
    group = upstream.group("gpt-test")
    return limiter.engine.peek([group._charge(group.quotas[0], 0)]).verdicts[0].remaining


def test_client_that_is_made_before_the_app_counts_in_the_app_s_store(provider):
    limiter = limiter_with()
    upstream = limiter.upstream("main", requests={"limit": "10 per hour", "burst": 10})
    with client_of(upstream, provider) as client:
        with pytest.raises(RuntimeError, match="init_app"):
            client.chat.completions.create(**ASK)
        app = started(limiter)
        client.chat.completions.create(**ASK)
        assert left(limiter, upstream) == 9
        with app.app_context():
            client.chat.completions.create(**ASK)
    assert left(limiter, upstream) == 8


@pytest.mark.parametrize("secret", [None, b"of all processes of the shop"])
def test_script_that_opens_the_app_s_store_shares_the_upstream_with_it(provider, secret, tmp_path, monkeypatch):
    monkeypatch.setenv("AILIMIT_STORES_DIRECTORY", str(tmp_path))
    limits = {"requests": {"limit": "10 per hour", "burst": 10}}
    limiter = AILimiter(api_key, name="shop", secret=secret)
    upstream = limiter.upstream("main", **limits)
    started(limiter)
    engine = Engine(open_store("local://", name="shop"), secret=secret)
    with client_of(upstream, provider) as of_app, client_of(Upstream(engine, "main", **limits), provider) as of_script:
        of_app.chat.completions.create(**ASK)
        of_script.chat.completions.create(**ASK)
    assert left(limiter, upstream) == 8
    engine.close()
    limiter.engine.close()


def test_two_apps_of_a_limiter_count_apart():
    limiter = limiter_with()
    upstream = limiter.upstream("main", requests={"limit": "10 per hour", "burst": 10})
    first, second = started(limiter, "first"), started(limiter, "second")
    with FakeProvider(key="test") as provider, client_of(upstream, provider) as client:
        with first.app_context():
            client.chat.completions.create(**ASK)
            assert left(limiter, upstream) == 9
        with second.app_context():
            assert left(limiter, upstream) == 10
        assert left(limiter, upstream) == 10  # Without a context: the app initialised last.


def test_tokens_are_counted_as_the_app_counts_them(provider):
    limiter = limiter_with(token_counter=lambda text: 1000 * len(text.split()))
    upstream = limiter.upstream("main", input_tokens="1000000 per hour")
    started(limiter)
    assert upstream.counter("two words") == 2000


def test_upstream_without_settings_is_that_of_the_plan_file_also_before_init_app(provider):
    limiter = limiter_with({"main": {"requests": {"limit": "10 per hour", "burst": 10}}})
    upstream = limiter.upstream("main")
    with client_of(upstream, provider) as client:
        app = started(limiter)
        with app.app_context():
            client.chat.completions.create(**ASK)
    assert left(limiter, upstream) == 9
    assert limiter.upstream("main") is upstream
    assert [*limiter.upstreams.items()] == [("main", upstream)]


def test_upstreams_of_the_plan_file_are_there_without_being_asked_for():
    limiter = limiter_with({"main": {}, "spare": {"base_url": "http://spare/v1"}})
    started(limiter)
    limiter.upstream("own", concurrency=3)
    assert sorted(limiter.upstreams) == ["main", "own", "spare"]
    assert len(limiter.upstreams) == 3
    assert limiter.upstreams["spare"].settings.base_url == "http://spare/v1"
    assert "other" not in limiter.upstreams


def test_app_needs_only_the_upstreams_that_the_code_names():
    limiter = AILimiter(api_key, storage_uri="memory://")
    first, second = flask.Flask("first"), flask.Flask("second")
    first.config["AILIMIT_PLANS"] = {**PLAN, "upstreams": {"main": {}}}
    limiter.upstream("own", concurrency=1)
    limiter.init_app(first)
    assert [*limiter.upstreams] == ["own", "main"]
    assert limiter.upstreams["main"].name == "main"
    limiter.init_app(second)
    assert [*limiter.upstreams] == ["own", "main"]
    with second.app_context(), pytest.raises(ConfigurationError, match="an upstream's name is needed"):
        limiter.upstream("odd", concurrency=1, fallback=["nobody"]).fallbacks  # noqa: B018


def test_one_definition_may_be_repeated_and_another_one_is_refused():
    limiter = limiter_with({"filed": {}})
    early = limiter.upstream("main")
    upstream = limiter.upstream("main", requests="5 per minute")
    assert early is upstream is limiter.upstream("main", requests="5 per minute") is limiter.upstream("main")
    assert early.settings.requests == "5 per minute"
    with pytest.raises(ConfigurationError, match="'main': it is defined twice, in two ways"):
        limiter.upstream("main", requests="6 per minute")
    started(limiter)
    with pytest.raises(ConfigurationError, match="'filed': its settings are in the plan file, and in the code"):
        limiter.upstream("filed", concurrency=1)


@pytest.mark.parametrize(
    ("name", "settings", "complaint"),
    [
        ("main", {"requests": "many"}, "upstream 'main': requests: "),
        ("main", {"request": "5 per minute"}, "upstream 'main': there is no setting 'request'. Known: name, requests"),
        ("two words", {"concurrency": 1}, "name: 1 to 64 letters"),
        ("main", {"headers": {"a b": "c"}}, "upstream 'main': headers: "),
        ("main", {"headers": {"authorization": "Bearer sk-1\n"}}, "upstream 'main': headers: "),
        ("main", {"base_url": "htps://me:sk-1@provider/v1"}, "upstream 'main': base_url: an address such as"),
        ("main", {"groups": {"gpt": "gpt-*"}}, "upstream 'main': groups: gpt: a list of patterns"),
        ("main", {"models": {"gpt": 5}}, "upstream 'main': models: gpt: "),
        ("main", {"retry_uncertain": "yes"}, "upstream 'main': retry_uncertain: true or false"),
        ("main", {"idempotency_header": "a b"}, "upstream 'main': idempotency_header: "),
        ("main", {"fallback": "spare"}, "upstream 'main': fallback: a list"),
    ],
)
def test_wrong_setting_is_refused_when_it_is_written(name, settings, complaint):
    with pytest.raises(ConfigurationError, match=re.escape(complaint)) as refused:
        limiter_with().upstream(name, **settings)
    assert "sk-1" not in str(refused.value)


def test_upstream_without_settings_anywhere_is_refused_when_the_app_starts_and_afterwards():
    limiter = limiter_with({"openai-main": {}})
    limiter.upstream("openai-mian")
    wanted = "'openai-mian': it has no settings. Did you mean openai-main?"
    with pytest.raises(ConfigurationError, match=wanted):
        started(limiter)
    limiter = limiter_with({"openai-main": {}})
    started(limiter)
    with pytest.raises(ConfigurationError, match=wanted):
        limiter.upstream("openai-mian")


def test_fallback_is_checked_when_the_app_starts(monkeypatch):
    limiter = limiter_with()
    limiter.upstream("main", concurrency=1, fallback=["spare"])
    with pytest.raises(ConfigurationError, match=r"'main': fallback: an upstream's name is needed \(there are: main\)"):
        started(limiter)

    limiter = limiter_with({"spare": {}})
    limiter.upstream("main", concurrency=1, fallback=["spare"])
    with pytest.raises(ConfigurationError, match="'spare': base_url: the address is needed"):
        started(limiter)

    monkeypatch.delenv("SPARE_KEY", raising=False)
    spare = {"base_url": "http://spare/v1", "headers": {"authorization": "Bearer env:SPARE_KEY"}}
    started(limiter_with({"spare": spare}))  # Nobody needs it.
    limiter = limiter_with({"spare": spare})
    limiter.upstream("main", concurrency=1, fallback=["spare"])
    with pytest.raises(ConfigurationError, match=r"variable SPARE_KEY is not set\. It is needed"):
        started(limiter)
    monkeypatch.setenv("SPARE_KEY", "sk-7")
    started(limiter)
    assert [each.name for each in limiter.upstream("main").fallbacks] == ["spare"]


def test_fallback_of_the_plan_file_gets_its_key_from_the_environment(provider, monkeypatch):
    monkeypatch.setenv("SPARE_KEY", "test")
    spare = {"base_url": provider.url, "headers": {"authorization": "Bearer env:SPARE_KEY"}}
    limiter = limiter_with({"main": {"fallback": ["spare"]}, "spare": spare})
    upstream = limiter.upstream("main")
    started(limiter)
    with (
        FakeProvider(key="of-main") as main,
        openai.OpenAI(base_url=main.url, api_key="of-main", http_client=upstream.http_client()) as client,
        main.away(),
    ):
        answer = client.chat.completions.with_raw_response.create(**ASK)
    assert answer.headers["x-ailimit-upstream"] == "spare"
    assert [call.status for call in provider.wait_for_calls()] == [200]


@pytest.mark.parametrize(
    ("upstreams", "complaint"),
    [
        ({"main": {"request": "5 per minute"}}, "plans: upstreams.main.request: there is no such key. Did you mean"),
        ({"main": {"requests": {"limits": "5 per minute"}}}, "plans: upstreams.main.requests.limits: there is no such"),
        ({"main": {"max_wait": "long"}}, "plans: upstreams.main: max_wait: a number is needed"),
        (
            {"main": {"headers": {"x-api-key": "sk-1"}}},
            "plans: upstreams.main: headers: x-api-key: name an environment",
        ),
        ({"main": {"fallback": ["spare"]}}, "plans: upstreams.main.fallback: there is no other upstream 'spare'."),
        ({"main": {"fallback": ["main"]}}, "plans: upstreams.main.fallback: there is no other upstream 'main'."),
        ({"main": {"fallback": ["b"]}, "b": {}}, "plans: upstreams.b: it needs a base_url, as a fallback of 'main'."),
        ({"a b": {}}, "name: 1 to 64"),
        ({"main": 7}, "plans: upstreams.main: a table is needed. Got 7."),
    ],
)
def test_mistake_in_the_plan_file_is_named_with_its_place(upstreams, complaint):
    with pytest.raises(ConfigurationError, match=re.escape(complaint)) as refused:
        started(limiter_with(upstreams))
    assert "sk-1" not in str(refused.value)


def test_headers_of_a_plan_file_hold_no_secret(monkeypatch):
    monkeypatch.setenv("SPARE_KEY", "sk-7")
    plans = read_plans({**PLAN, "upstreams": {"a": {"headers": {"x-api-key": "env:SPARE_KEY"}}}}, "", "fixed-window")
    headers = plans.upstreams["a"].headers
    assert dict(headers) == {"x-api-key": "sk-7"}
    assert "sk-7" not in f"{headers!r}{plans!r}{vars(headers)!r}"
    assert headers == FromEnvironment({"x-api-key": "env:SPARE_KEY"}) != FromEnvironment({"x-api-key": "env:OTHER"})


def test_reload_of_the_plan_file_changes_the_limits_of_its_upstreams(tmp_path):
    file = tmp_path / "plans.toml"
    text = '[plans.free]\nrequests = "9 per minute"\n[upstreams.main]\nconcurrency = {}\n'
    file.write_text(text.format(3), encoding="utf-8")
    limiter = AILimiter(api_key, storage_uri="memory://", plans=str(file))
    upstream = limiter.upstream("main")
    started(limiter)
    before = upstream.group("gpt-test")
    file.write_text(text.format(4), encoding="utf-8")
    limiter.app_state.reload_plans()
    assert upstream.settings.concurrency == 4
    assert upstream.group("gpt-test") is not before
    file.write_text(text.partition("[upstreams")[0], encoding="utf-8")
    limiter.app_state.reload_plans()
    assert upstream.settings.concurrency == 4  # As it was: calls of the app go on.


def test_reload_of_the_plan_file_changes_where_answers_are_kept_if_that_can_be_used(tmp_path, caplog):
    file = tmp_path / "plans.toml"
    text = '[plans.free]\nrequests = "9 per minute"\n[upstreams.main]\ncache = {{path = "{}"}}\n'
    file.write_text(text.format(tmp_path / "one.db"), encoding="utf-8")
    limiter = AILimiter(api_key, storage_uri="memory://", plans=str(file))
    upstream = limiter.upstream("main")
    started(limiter)
    before = upstream.cache
    file.write_text(text.format(tmp_path / "two.db"), encoding="utf-8")
    limiter.app_state.reload_plans()
    after = upstream.cache
    assert after is not before
    file.write_text(text.format(tmp_path / "nowhere" / "three.db"), encoding="utf-8")
    limiter.app_state.reload_plans()
    assert upstream.cache is after
    assert "The plans stay as they were: cache: there is no directory" in caplog.text


def test_calls_go_on_where_limits_are_switched_off(provider):
    limiter = AILimiter(api_key, plans={**PLAN, "upstreams": {"main": {}}})
    upstream = limiter.upstream("main")
    app = flask.Flask("off")
    app.config["RATELIMIT_ENABLED"] = False
    limiter.init_app(app)
    with client_of(upstream, provider) as client, app.app_context():
        assert client.chat.completions.create(**ASK).choices


def test_app_without_upstreams_needs_no_library_for_them():
    code = """
import sys
for name in ("httpx2", "httpx", "tenacity"):
    sys.modules[name] = None
import flask
from flask_ailimit import AILimiter, ConfigurationError, api_key
limiter = AILimiter(api_key, storage_uri="memory://", default_limits=["9 per minute"])
limiter.init_app(flask.Flask("shop"))
try:
    limiter.upstream("main", concurrency=1)
except ConfigurationError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    wanted = "upstream: tenacity is not installed. Install it: pip install 'flask-ailimit[upstream]'.\n"
    assert (ran.stdout, ran.stderr) == (wanted, "")


def test_app_with_a_cache_that_cannot_be_used_does_not_start(tmp_path):
    limiter = AILimiter(api_key, storage_uri="memory://")
    limiter.upstream("main", cache={"path": tmp_path / "nowhere" / "answers.db"})
    with pytest.raises(ConfigurationError, match="no directory"):
        limiter.init_app(flask.Flask("shop"))
