"""The page about upstreams: what it says of its tables and of its script is so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from page_blocks import texts

from flask_ailimit.request.upstream_refusal import meaning_of
from flask_ailimit.testing import FakeProvider
from flask_ailimit.upstream import UpstreamSettings
from flask_ailimit.upstream import __all__ as public
from flask_ailimit.upstream.answers import Answer, Kind

ROOT = Path(__file__).parents[2]
PAGE = "docs/upstreams.md"

if not (ROOT / "docs").exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)

TEXT = (ROOT / PAGE).read_text(encoding="utf-8")


def test_every_setting_is_in_the_table():
    table = TEXT.partition("## The settings")[2].partition("## Waiting")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == {*UpstreamSettings.__dataclass_fields__} - {"name"}


def test_every_signal_is_in_the_table():
    table = TEXT.partition("## Signals and logs")[2].partition("```")[0]
    signals = {name for name in public if name.startswith(("call_", "breaker_", "cache_", "upstream_", "retries_"))}
    assert {*re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)} == signals


def test_every_answer_to_a_client_is_in_the_table():
    rows = re.findall(r"^\| ([\d, ]+) \| `(upstream_\w+)` \|", TEXT, re.MULTILINE)
    told = {(int(status), code) for statuses, code in rows for status in statuses.split(", ")}
    headers = ({}, {"x-ailimit-limited-by": "app"})
    meant = [meaning_of(Answer(kind, 500, None, ""), each) for kind in Kind for each in headers]
    assert told == {(each.status, each.code) for each in meant}


def test_script_of_the_page_shares_the_counts_of_the_app(tmp_path):
    files = {text.splitlines()[0].removeprefix("# "): text for text in texts(PAGE, "python")}
    for name in ("shop.py", "nightly.py"):
        (tmp_path / name).write_text(files[name], encoding="utf-8")
    with FakeProvider(key="test") as provider:
        environ = os.environ | {
            "AILIMIT_STORES_DIRECTORY": str(tmp_path / "stores"),
            "OPENAI_API_KEY": "test",
            "OPENAI_BASE_URL": provider.url,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        }

        def run(*command):
            ran = subprocess.run(
                [sys.executable, *command], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
            )
            assert ran.returncode == 0, ran.stderr
            return ran.stdout

        assert run("nightly.py") == "Greet Ada.\nGreet Grace.\n"
        # More than flows back in a minute, once by the script and once by the app.
        assert run("-c", f"from nightly import *\n{OPEN}{TAKE}").endswith("True True\n")
        assert run("-c", f"from shop import *\nengine = limiter.engine\n{TAKE}") == "False True\n"


OPEN = """
engine = Engine(open_store("local://", name="shop"))
upstream = Upstream(engine, "openai-main", requests="500 per minute", tokens="200000 per minute", concurrency=50)
"""
TAKE = """
from flask_ailimit.tokens import Usage
from flask_ailimit.upstream.pacing import Asked, Place

group = upstream.group("gpt-5-mini")
taken = group.reserve(Asked("gpt-5-mini", Usage(170_000, 0)), Place(is_batch=False))
left = [each.remaining for each in engine.peek(group.counts).verdicts if each.quota.unit == "tokens"]
print(taken.allowed, left[0] < 100_000)
"""
