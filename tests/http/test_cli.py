"""``flask ailimit``: in the process, and as a person types it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Blueprint, Flask, abort
from flask_limiter import Limiter
from limited_apps import limited

from flask_ailimit import api_key
from flask_ailimit.cli import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def limits():
    options = {"default_limits": ["60 per minute"], "default_token_limits": ["900 per hour"], "headers": ["openai"]}
    limits = limited(default_output_tokens=50, **options)
    blueprint = Blueprint("v1", __name__, url_prefix="/v1")

    @blueprint.post("/chat")
    @limits.limiter.limit("20 per minute")
    @limits.limiter.limit_tokens("100 per minute", burst=200)
    @limits.limiter.limit_concurrency(4)
    def chat():
        limits.limiter.record_usage(output_tokens=50)
        return {}

    limits.app.register_blueprint(blueprint)

    @limits.app.get("/plain")
    def plain():
        return {}

    @limits.app.get("/free")
    @limits.limiter.exempt
    def free():
        return {}

    return limits


@pytest.fixture
def run(limits):
    def run(*arguments):
        ran = limits.app.test_cli_runner().invoke(cli, arguments)
        assert ran.exception is None, ran.output
        return ran.output.splitlines()

    return run


def test_config_tells_settings_and_store(run):
    told = run("config")
    assert "default_token_limits: ['900 per hour']" in told
    assert "headers: ['openai']" in told
    assert "too_large_status: 413" in told
    assert "strategy: fixed-window" in told
    assert "store: MemoryStore" in told
    assert "secret: None" in told


def test_limits_tells_every_limited_route(run):
    assert run("limits") == [
        "plain  /plain",
        "    60 requests per 60 s  (fixed-window)",
        "    900 tokens per 3600 s  (token-bucket)",
        "v1.chat  /v1/chat",
        "    4 in flight  (concurrency)",
        "    100 tokens per 60 s  (token-bucket)",
        "    20 requests per 60 s  (fixed-window)",
    ]


def test_usage_tells_what_a_subject_has_left_and_reset_forgets_it(limits, run):
    chat = slice(3, 7)
    for _ in range(2):
        limits.client("alice").post("/v1/chat", json={})
    limits.client("bob").post("/v1/chat", json={})
    assert run("usage", "alice")[chat] == [
        "v1.chat  /v1/chat",
        "    concurrency: 4 of 4 left, full again in 0.0 s",
        "    tokens-per-minute: 100 of 200 left, full again in 60.0 s",
        "    requests-per-minute: 18 of 20 left, full again in 60.0 s",
    ]
    assert "    tokens-per-minute: 150 of 200 left, full again in 30.0 s" in run("usage", "bob")
    assert run("reset", "alice") == ["Every count of this subject is forgotten."]
    assert "    tokens-per-minute: 200 of 200 left, full again in 0.0 s" in run("usage", "alice")
    assert "    tokens-per-minute: 150 of 200 left, full again in 30.0 s" in run("usage", "bob")
    assert limits.client("alice").post("/v1/chat", json={}).status_code == 200


def test_forgive_lifts_debts_and_tells_which(limits, run):
    limits.client("bob").post("/v1/chat", json={})
    with limits.app.test_request_context():
        verdicts = limits.limiter.peek("v1.chat", "alice").verdicts
    (chat,) = [verdict.charge._replace(dry=False) for verdict in verdicts if verdict.quota.unit == "tokens"]
    limits.limiter.engine.reserve([chat.costing(0)]).settle({"tokens": 500})
    assert limits.client("alice").post("/v1/chat", json={}).status_code == 429
    assert run("usage", "alice")[5] == "    tokens-per-minute: 0 of 200 left, full again in 300.0 s"
    assert run("forgive", "alice") == ["v1.chat  /v1/chat", "    tokens-per-minute: debt lifted"]
    assert run("forgive", "alice") == ["Nothing is owed, as far as could be looked at."]
    assert "    tokens-per-minute: 200 of 200 left, full again in 0.0 s" in run("usage", "alice")
    assert "    tokens-per-minute: 150 of 200 left, full again in 30.0 s" in run("usage", "bob")
    assert limits.client("alice").post("/v1/chat", json={}).status_code == 200


def test_looking_takes_nothing(limits, run):
    for _ in range(3):
        run("usage", "alice")
        run("limits")
    assert set(limits.used("alice", "v1.chat").values()) == {0}


def test_subject_is_found_under_a_key_prefix():
    limits = limited(key_prefix="shop", default_limits=["10 per day"])
    limits.app.get("/", endpoint="answer")(dict)
    runner = limits.app.test_cli_runner()
    limits.client("alice").get("/")
    assert "9 of 10 left" in runner.invoke(cli, ["usage", "alice"]).output
    runner.invoke(cli, ["reset", "alice"])
    assert "10 of 10 left" in runner.invoke(cli, ["usage", "alice"]).output


def plan_of_nobody():
    return {"alice": "10 per day"}[api_key()]


def plan_of_a_member():
    abort(401)


@pytest.mark.parametrize("plan", [plan_of_nobody, plan_of_a_member, lambda: "no limit at all"])
def test_limit_that_needs_a_request_is_said_to(plan):
    limits = limited(default_limits=["10 per day"])
    limits.app.get("/plain", endpoint="plain")(dict)

    @limits.app.get("/member")
    @limits.limiter.limit_tokens(plan)
    def member():
        return {}

    ran = limits.app.test_cli_runner().invoke(cli, ["limits"])
    assert ran.exit_code == 0
    lines = ran.output.splitlines()
    assert lines[:2] == ["member  /member", "    depends on the request"]
    assert lines[2:] == ["plain  /plain", "    10 requests per 86400 s  (fixed-window)"]
    assert "depends on the request" in limits.app.test_cli_runner().invoke(cli, ["usage", "alice"]).output
    assert limits.app.test_cli_runner().invoke(cli, ["forgive", "alice"]).output.splitlines() == [
        "member  /member",
        "    depends on the request, and was not looked at",
        "Nothing is owed, as far as could be looked at.",
    ]


def test_app_without_a_limiter_is_told_what_to_do():
    for app in (Flask("x"), Limiter(api_key, app=Flask("y"), storage_uri="memory://").app or Flask("z")):
        ran = app.test_cli_runner().invoke(cli, ["config"])
        assert ran.exit_code == 1
        assert "limiter.init_app(app)" in ran.output


APP = """
from flask import Flask
from flask_ailimit import AILimiter, api_key

app = Flask(__name__)
limiter = AILimiter(api_key, app=app, storage_uri="local://{limits}", default_token_limits=["900 per hour"])

@app.get("/")
@limiter.limit_tokens("100 per day", estimate=lambda request: 40)
def answer():
    limiter.record_usage(output_tokens=40)
    return "fine"

@app.cli.command("ask")
def ask():
    print(app.test_client().get("/", headers={{"x-api-key": "alice"}}).text)
"""


@pytest.fixture
def flask(tmp_path):
    """Run ``flask`` on an app of its own, in a process of its own each time."""
    (tmp_path / "shop.py").write_text(APP.format(limits=tmp_path / "limits"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLASK_")}

    def flask(*arguments):
        command = [sys.executable, "-m", "flask", "--app", "shop", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return flask


def test_flask_finds_the_command_and_it_sees_what_other_processes_counted(flask):
    help_text = flask("ailimit", "--help")
    assert "Look at limits and usage." in help_text.stdout, help_text.stderr
    assert flask("ask").stdout == "fine\n"
    usage = flask("ailimit", "usage", "alice")
    left = re.search(r"tokens-per-day: (\d+) of 100 left", usage.stdout)
    assert left, usage.stderr
    assert 60 <= int(left[1]) < 100  # Time has passed since.
    assert flask("ailimit", "reset", "alice").stdout == "Every count of this subject is forgotten.\n"
    assert "tokens-per-day: 100 of 100 left" in flask("ailimit", "usage", "alice").stdout


def test_flask_limiter_s_own_commands_work_on_our_limiter(flask):
    pytest.importorskip("rich", reason="flask limiter needs flask-limiter[cli]")
    assert "100 tokens per 86400 s" in flask("limiter", "limits").stdout
