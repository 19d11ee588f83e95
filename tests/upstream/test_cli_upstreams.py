"""``flask ailimit upstreams`` says what other processes have made of the upstreams."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flask_ailimit.testing import FakeProvider, Fault

ROOT = Path(__file__).parents[2]

SHOP = """
import os

import openai
from flask import Flask

from flask_ailimit import AILimiter, api_key

limiter = AILimiter(api_key, name="shop", plans={
    "plans": {"free": {"requests": "9 per minute"}},
    "upstreams": {"spare": {"base_url": "http://127.0.0.1:9/v1"}},
})
upstream = limiter.upstream(
    "openai-main",
    requests={"limit": "60 per hour", "burst": 20},
    concurrency=50,
    groups={"gpt": ["gpt-*"]},
    attempts=1,
)
app = Flask("shop")
limiter.init_app(app)


def ask(model="gpt-test"):
    with openai.OpenAI(
        base_url=os.environ["PROVIDER"], api_key="test", http_client=upstream.http_client(), max_retries=0
    ) as client:
        try:
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
        except openai.APIError as error:
            return error
"""


@pytest.fixture
def provider():
    with FakeProvider(key="test") as provider:
        yield provider


@pytest.fixture
def run(tmp_path, provider):
    """Runs code with the shop in a process of its own, or a command."""
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    environ = os.environ | {
        "AILIMIT_STORES_DIRECTORY": str(tmp_path / "stores"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        "PROVIDER": provider.url,
    }

    def run(*arguments, code=None, fails=False):
        command = ["-c", code] if code else ["-m", "flask", "--app", "shop", "ailimit", "upstreams", *arguments]
        ran = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
        )
        assert (ran.returncode != 0) == fails, ran.stderr
        return re.sub(r"\d+\.\d s", "TIME", ran.stderr if fails else ran.stdout)

    return run


def test_upstreams_of_the_code_and_of_the_plan_file_are_shown(run):
    run(code="from shop import *\nfor _ in range(3): ask()")
    assert run() == (
        "openai-main\n"
        "    retries: 50 of 50 left, full again in TIME\n"
        "    gpt: closed, calls pass; 0 of at most 200 wait\n"
        "        requests-per-hour: 17 of 20 left, full again in TIME\n"
        "        concurrency: 50 of 50 free\n"
        "spare\n"
        "    retries: 50 of 50 left, full again in TIME\n"
        "    the store knows models by hashes only: name one with --model to see it\n"
    )


def test_model_that_is_in_no_group_is_shown_if_it_is_named(run):
    run(code="from shop import *\nask('o9')")
    shown = run("openai-main", "--model", "o9", "--model", "gpt-test")
    assert re.findall(r"^    (\S+): closed", shown, re.MULTILINE) == ["gpt", "o9"]
    assert re.findall(r"per-hour: (\d+) of", shown) == ["20", "19"]
    assert "spare" not in shown


def test_pause_is_shown_with_its_reason_and_its_end(run, provider):
    provider.always(Fault.throttled(retry_after=50))
    run(code="from shop import *\nask()")
    assert "    gpt: paused after 429, for TIME; 0 of at most 200 wait\n" in run("openai-main")


def test_open_breaker_and_its_probe_are_shown(run, provider):
    provider.always(Fault.error(500))
    shown = run(code="from shop import *\nfor _ in range(10): ask()" + SHOW)
    assert "    gpt: open after 500, for TIME; 0 of" in shown
    while ": open" in run("openai-main"):  # For a second.
        pass
    assert "    gpt: half-open after 500, the next call tries; 0 of" in run("openai-main")
    probing = """
from shop import *
from flask_ailimit.upstream.pacing import Asked, Place
from flask_ailimit.tokens import Usage
taken = upstream.group("gpt-test").reserve(Asked("gpt-test", Usage()), Place(is_batch=False))
assert taken.allowed
"""
    shown = run(code=probing + SHOW)
    assert re.search("    gpt: half-open after 500, probe [0-9a-f]+ tries, the others wait; 0 of", shown)
    assert "        concurrency: 49 of 50 free\n" in shown


SHOW = """
from flask_ailimit.cli import cli
print(app.test_cli_runner().invoke(cli, ["upstreams", "openai-main"]).output)
"""


def test_waiting_calls_are_shown(run):
    code = """
from shop import *
from flask_ailimit.upstream.pacing import Place
places = [Place(is_batch=False) for _ in range(3)]
for place in places:
    upstream.group("gpt-test").line_up(place)
"""
    assert "calls pass; 3 of at most 200 wait" in run(code=code + SHOW)


def test_name_that_there_is_not_is_an_error(run):
    error = "Error: There is no such upstream. Did you mean openai-main? There are: openai-main, spare.\n"
    assert run("openai-mian", fails=True) == error


def test_looking_takes_nothing(run):
    assert run() == run()
    assert "20 of 20 left" in run()


def test_app_without_upstreams_says_so(tmp_path):
    (tmp_path / "bare.py").write_text(
        "from flask import Flask\nfrom flask_ailimit import AILimiter, api_key\n"
        "app = Flask('bare')\nlimiter = AILimiter(api_key, app=app, name='bare')\n",
        encoding="utf-8",
    )
    ran = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "bare", "ailimit", "upstreams"],
        cwd=tmp_path,
        env=os.environ | {"AILIMIT_STORES_DIRECTORY": str(tmp_path / "s"), "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.startswith("This app has no upstreams."), ran.stderr
