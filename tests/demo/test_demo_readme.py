"""The demo's README names every environment variable and every file, and its line for curl does what it says."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from app_server import serving

from demo_app import create_app, keys
from demo_app.gateway import Place
from demo_app.scripted import ScriptedModel
from demo_app.smollm2 import SmolLM2

DEMO = Path(__file__).parents[2] / "demo_app"
README = (DEMO / "README.md").read_text(encoding="utf-8")


def test_every_environment_variable_is_documented_with_its_default():
    code = "\n".join(file.read_text(encoding="utf-8") for file in DEMO.glob("*.py"))
    read = dict(re.findall(r'environ\.get\("(\w+)"(?:, (.+?))?\)', code))
    defaults = {name: default_of(default) for name, default in read.items()}
    assert len(defaults) == code.count('environ.get("DEMO_')
    assert dict(re.findall(r"^\| `(DEMO_\w+)` \| `([^`]+)` \|", README, re.MULTILINE)) == defaults


def default_of(written):
    """The value of a default as the code spells it."""
    if account := re.fullmatch(r'PUBLISHED\["(\w+)"\]', written):
        return keys.PUBLISHED[account[1]]
    return written.strip('"') or "none"


def test_every_file_is_named():
    linked = set(re.findall(r"\]\((\w+\.(?:py|toml))\)", README))
    assert linked == {file.name for file in [*DEMO.glob("*.py"), *DEMO.glob("*.toml")]} - {"__init__.py"}


@pytest.fixture
def demo(monkeypatch):
    """The demo's address. Its model has the name of the real one, and tells long stories."""
    monkeypatch.setenv("DEMO_GATEWAY_KEY", "key-of-the-gateway")
    model = ScriptedModel(("word",) * 200)
    model.name = SmolLM2.name
    app = create_app(model, {"RATELIMIT_STORAGE_URI": "memory://"})
    with serving(app) as address:
        app.config["DEMO_GATEWAY_PLACE"] = Place(address)
        yield address


def answer_to(line):
    """What a line for a shell prints."""
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    ran = subprocess.run(["bash", "-euc", line], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


needs_curl = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="needs curl and bash")


@needs_curl
def test_lines_about_money_spend_a_budget_and_show_it(demo):
    (lines,) = re.findall(r"```sh\n(for i in 1 2 3; .*?)```", README, re.DOTALL)
    told = answer_to(lines.replace("http://127.0.0.1:8000", demo))
    assert re.findall(r"^HTTP/1\.\d (\d+)", told, re.MULTILINE) == ["200", "200", "429"]
    assert '"insufficient_quota"' in told
    assert "x-should-retry: false" in told
    assert "Retry-After" not in told
    (left,) = (limit for limit in json.loads(told.splitlines()[-1])["limits"] if "budget" in limit)
    assert (left["budget"]["limit"], left["budget"]["zone"]) == ("0.01", "UTC")


@needs_curl
def test_lines_for_a_model_that_the_plan_does_not_have_are_refused(demo):
    (of_readme,) = re.findall(r"```sh\n(curl .*?)```", README, re.DOTALL)
    here = of_readme.replace("http://127.0.0.1:8000", demo)
    (of_page,) = re.findall(r"# Ask for a model that the plan doesn't have\n(.*)\n", answer_to(f"curl -s {demo}/"))
    assert demo in here
    assert demo in of_page
    for line in (here, of_page):
        refused = answer_to(line)
        assert re.match(r"HTTP/1\.\d 403 ", refused)
        assert '"model_not_allowed"' in refused
    allowed = answer_to(here.replace("demo-small-key", "demo-large-key"))
    assert re.match(r"HTTP/1\.\d 200 ", allowed)


@needs_curl
def test_lines_about_the_gateway_are_answered_in_turns(demo):
    (lines,) = re.findall(r"```sh\n(for i in 1 2 3 4 5; .*?\nwait\n)", README, re.DOTALL)
    told = answer_to(lines.replace("http://127.0.0.1:8000", demo))
    assert re.findall(r"^HTTP/1\.\d (\d+)", told, re.MULTILINE) == ["200"] * 5
    assert told.count("x-ailimit-upstream: model") == 5
