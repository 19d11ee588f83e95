"""``flask ailimit plans``: prints a plan file, says what is wrong in it, and prints the schema for editors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_ailimit import AILimiter
from flask_ailimit.cli import cli

ROOT = Path(__file__).parents[2]
RIGHT = '[plans.free]\nrequests = "10 per minute"\n[plans.pro]\ntokens = "9000 per minute"\n'
MISTYPED = '[plans.free]\ntoken = "10 per minute"\n'
SENTENCE = (
    "Error: mistyped.toml: plans.free.token: there is no such key. Did you mean tokens? Allowed are requests, tokens, "
    "input_tokens, output_tokens, concurrency, budget, units, models, enforced_percent, soft_percent, calendar, "
    "weights, unknown_price, class.\n"
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with plan files, in which commands run."""
    monkeypatch.chdir(tmp_path)
    Path("plans.toml").write_text(RIGHT, encoding="utf-8")
    Path("mistyped.toml").write_text(MISTYPED, encoding="utf-8")
    return tmp_path


def run(*arguments, app=None, given=None):
    """The status of a command, what it prints, and its errors."""
    ran = (app or Flask("none")).test_cli_runner().invoke(cli, ["plans", *arguments], input=given)
    return ran.exit_code, ran.stdout, ran.stderr


def test_file_without_a_mistake_has_the_status_0(place):
    assert run("check", "plans.toml") == (0, "plans.toml: nothing is wrong. It has 2 plans: free, pro.\n", "")


def test_mistake_is_said_with_file_plan_key_allowed_keys_and_what_was_meant(place):
    assert run("check", "mistyped.toml") == (1, "", SENTENCE)


def test_each_of_several_files_is_checked(place):
    status, printed, errors = run("check", "mistyped.toml", "plans.toml", "nowhere.toml")
    assert (status, printed) == (1, "plans.toml: nothing is wrong. It has 2 plans: free, pro.\n")
    assert errors.startswith(SENTENCE)
    assert errors.endswith("nowhere.toml can't be read: No such file or directory.\n")
    assert len(errors.splitlines()) == 2


def test_folder_is_no_plan_file(place):
    status, _, error = run("check", str(place))
    assert (status, error) == (1, f"Error: plans: {place} can't be read: Is a directory.\n")


def test_without_a_file_the_plans_of_the_app_are_checked(place):
    app = Flask("shop", root_path=str(place))
    AILimiter(app=app, plans="plans.toml", storage_uri="memory://")
    assert run("check", app=app) == (0, "plans.toml: nothing is wrong. It has 2 plans: free, pro.\n", "")
    app = Flask("shop")
    AILimiter(lambda: "all", app=app, storage_uri="memory://")
    assert run("check", app=app) == (0, "There are no plans (AILIMIT_PLANS), so no route is limited by plan.\n", "")


def test_app_whose_plans_are_wrong_does_not_load_for_the_check(place):
    Path("shop.py").write_text(
        "from flask import Flask\nfrom flask_ailimit import AILimiter\n"
        "app = Flask(__name__)\nAILimiter(app=app, plans='mistyped.toml', storage_uri='memory://')\n",
        encoding="utf-8",
    )
    ran = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "shop", "ailimit", "plans", "check"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == SENTENCE.strip()


def test_what_is_no_command_is_a_file(place):
    assert run("plans.toml")[1].splitlines()[:2] == ["free", "    requests: 10 per minute"]
    assert run("mistyped.toml") == (1, "", SENTENCE)
    Path("check").write_text(RIGHT, encoding="utf-8")
    assert run("./check")[1].startswith("free\n")


@pytest.mark.parametrize(
    ("arguments", "command"),
    [(["check", "--key"], "plans check"), (["schema", "x"], "plans schema"), (["a", "b"], "plans"), (["--x"], "plans")],
    ids=" ".join,
)
def test_mistyped_command_leads_to_its_help(place, arguments, command):
    status, _, error = run(*arguments)
    assert (status, len(error.splitlines())) == (2, 1)
    assert error.endswith(f"See: flask ailimit {command} --help\n")


def test_schema_is_printed_as_it_is_shipped():
    shipped = ROOT / "flask_ailimit" / "limits" / "plans" / "plans.schema.json"
    status, printed, _ = run("schema")
    assert (status, printed) == (0, shipped.read_text(encoding="utf-8"))
    assert json.loads(printed)["title"] == "Plans of flask_ailimit"


SIGNS = [
    *"[]{}=.,\"'#\n\\ *x0",
    "[plans.",
    "requests",
    '"10 per minute"',
    "models",
    "\x00",
    "ä",
    "default_plan",
    "1e9",
    "nan",
]


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60), st.lists(st.sampled_from(SIGNS), max_size=30).map(lambda each: "".join(each).encode())
    )
)
def test_whatever_a_file_holds_the_check_says_one_sentence(tmp_path_factory, data):
    file = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    file.write_bytes(data)
    status, printed, error = run("check", str(file))
    said = printed + error
    assert status == (1 if error else 0)
    assert said.endswith(".\n")
    assert len(said.splitlines()) == 1
    assert said.startswith(("Error: fuzzed.toml: ", "fuzzed.toml: "))
