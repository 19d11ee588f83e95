"""``flask ailimit raise``, ``suspend``, ``changes`` and their kin, in the process and as a person types them."""

import os
import re
import subprocess
import sys

import pytest
from limited_apps import limited

from flask_ailimit import api_key
from flask_ailimit.cli import cli

PLANS = {
    "default_plan": "free",
    "plans": {
        "free": {"requests": "2 per minute", "concurrency": 2},
        "pro": {"requests": "5 per minute", "models": {"large-*": {"tokens": "100 per minute"}}},
    },
}
WHY = ["--reason", "a phone call", "--by", "ann"]


@pytest.fixture
def served(made):
    served = made(api_key, plans=PLANS)
    served.app.post("/")(served.limiter.limit_by_plan()(dict))
    return served


def run(served, *arguments, fails=False):
    """What a command prints, without times; of one that fails its error."""
    result = served.app.test_cli_runner().invoke(cli, [*arguments])
    assert (result.exit_code != 0) == fails, result.output
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", result.output)


def status(served, key="7"):
    return served.client(key).post("/").status_code


def test_commands_change_what_a_payer_may_use_and_say_from_what_to_what(served):
    assert status(served) == 200
    assert run(served, "raise", "user:7", "requests", "20/minute", "--plan", "free", *WHY) == (
        "Change 1: raise user:7, requests under free: from 2 per minute to 20 per minute\n"
    )
    assert run(served, "lower", "user:7", "concurrency", "1", *WHY) == (
        "Change 2: lower user:7, concurrency: from 2 in flight to 1 in flight\n"
    )
    assert run(served, "boost", "user:7", "tokens", "900 per minute", "--model", "large-*", "--for", "2h", *WHY) == (
        "Change 3: boost user:7, tokens of large-*: from 100 per minute to 900 per minute until TIME UTC\n"
    )
    assert run(served, "suspend", "user:7", "--tell", "Call us.", *WHY) == (
        "Change 4: suspend user:7: from not suspended to suspended: Call us.\n"
    )
    assert status(served) == 403
    assert run(served, "resume", "user:7", *WHY) == (
        "Change 5: resume user:7: from suspended: Call us. to not suspended\n"
    )
    assert run(served, "move", "user:7", "pro", *WHY) == (
        "Change 6: move user:7, plan: from the plan that the app names to pro\n"
    )
    assert run(served, "move", "user:7", "--own", *WHY) == (
        "Change 7: move user:7, plan: from pro to the plan that the app names\n"
    )
    assert run(served, "undo", "2", *WHY) == "Change 8: undo 2\n"
    assert status(served) == 200
    assert run(served, "changes", "user:7").splitlines()[2:5] == [
        "2  TIME UTC  ann: lower user:7, concurrency: from 2 in flight to 1 in flight",
        "    reason: a phone call",
        "    undone by 8",
    ]


def test_trail_is_printed_with_who_when_what_and_why(served):
    assert run(served, "changes") == "Nothing was changed.\n"
    run(served, "suspend", "user:7", *WHY)
    run(served, "suspend", "user:8", *WHY)
    run(served, "undo", "1", "--reason", "a mistake", "--by", "bob")
    first = [
        "1  TIME UTC  ann: suspend user:7: from not suspended to suspended: This account is suspended.",
        "    reason: a phone call",
        "    undone by 3",
    ]
    last = ["3  TIME UTC  bob: undo 1", "    reason: a mistake"]
    assert run(served, "changes", "user:7").splitlines() == [*first, *last]
    assert len(run(served, "changes").splitlines()) == len([*first, *last]) + 2
    assert run(served, "forget", "user:7", *WHY) == "Change 4: forget a payer, with 2 changes\n"
    assert run(served, "changes", "user:7") == "Nothing was changed.\n"


def test_who_does_it_is_the_user_of_the_system_if_nobody_is_named(served, monkeypatch):
    monkeypatch.setenv("LOGNAME", "carol")
    run(served, "suspend", "user:7", "--reason", "r")
    assert "UTC  carol: suspend user:7" in run(served, "changes")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["raise", "user:7", "requests", "1 per minute", *WHY], "1 per minute is not higher than 2 per minute (free)"),
        (["raise", "user:7", "requests", "3 per minute", *WHY], "name the one that user:7 has (--plan)"),
        (["suspend", "7", *WHY], "A payer is a role and an id"),
        (["move", "user:7", *WHY], "a PLAN is needed, or --own"),
        (["move", "user:7", "pro", "--own", *WHY], "a PLAN is needed, or --own"),
        (["boost", "user:7", "requests", "9 per minute", *WHY], "one of --for and --until"),
        (["boost", "user:7", "requests", "9 per minute", "--for", "2 weeks", *WHY], "such as 90m, 12h or 3d"),
        (["boost", "user:7", "requests", "9 per minute", "--until", "tomorrow", *WHY], "such as 2026-12-01T18:00"),
        (["boost", "user:7", "requests", "9 per minute", "--until", "2001-01-01", *WHY], "from 1 second to 366 days"),
        (["undo", "1", *WHY], "There is no change 1. See: flask ailimit changes"),
        (["suspend", "user:7"], "Missing option '--reason'"),
        (["undo", "0", *WHY], "The command can't be read"),
    ],
)
def test_what_can_not_be_done_is_one_line_and_changes_nothing(served, arguments, says):
    error = run(served, *arguments, fails=True)
    assert says in error
    assert error.count("\n") == 1
    assert run(served, "changes") == "Nothing was changed.\n"


def test_reload_is_a_command(made, tmp_path):
    file = tmp_path / "plans.toml"
    file.write_text('[plans.free]\nrequests = "2 per minute"')
    served = made(api_key, plans=file)
    assert run(served, "reload", *WHY) == "Change 1: reload the plan file\n"
    file.write_text("[plans.free]")
    assert "plans.free: it has no limit" in run(served, "reload", *WHY, fails=True)
    assert "1  TIME UTC  ann: reload the plan file" in run(served, "changes")


def test_note_says_where_a_change_does_not_survive(served, monkeypatch):
    monkeypatch.setattr("flask_ailimit.engine.stores.directory.file_system", lambda _: "tmpfs")
    said = run(served, "suspend", "user:7", *WHY)
    assert "Note: Changes of plans don't survive a restart of the machine" in said


def test_app_without_plans_and_store_of_one_process_are_said(made):
    assert "There are no plans (AILIMIT_PLANS)" in run(made(), "suspend", "user:7", *WHY, fails=True)
    alone = limited(api_key, plans=PLANS)
    assert "The counts are in the memory of each process" in run(alone, "suspend", "user:7", *WHY, fails=True)


def test_which_of_several_limiters_is_asked_for(made):
    first = made(api_key, plans=PLANS)
    second = made(api_key, plans=PLANS)
    first.app.extensions["ailimit"].append(second.limiter)
    second.limiter._states[first.app] = second.limiter._states[second.app]
    assert "Several limiters of this app have plans" in run(first, "suspend", "user:7", *WHY, fails=True)
    assert "Change 1: suspend user:7" in run(first, "suspend", "user:7", "--limiter", "2", *WHY)


APP = """
from flask import Flask
from flask_ailimit import AILimiter, api_key

app = Flask(__name__)
plans = {"default_plan": "free", "plans": {"free": {"requests": "2 per minute"}}}
limiter = AILimiter(api_key, app=app, plans=plans, storage_uri="local://PLACE")
"""


def test_change_that_a_person_types_is_in_force_in_a_process_of_its_own(tmp_path):
    (tmp_path / "shop.py").write_text(APP.replace("PLACE", str(tmp_path / "limits")))
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "FLASK_APP": "shop"}
    flask = [sys.executable, "-m", "flask", "ailimit"]
    ran = [
        subprocess.run([*flask, *arguments], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        for arguments in (
            ["raise", "user:a:b", "requests", "3 per minute", "--reason", "r", "--by", "ann"],
            ["raise", "user:a:b", "requests", "3 per minute", "--reason", "r", "--by", "ann"],
        )
    ]
    assert [each.returncode for each in ran] == [0, 1]
    assert ran[0].stdout == "Change 1: raise user:a:b, requests: from 2 per minute to 3 per minute\n"
    assert ran[1].stderr == ("Error: raise: 3 per minute is not higher than 3 per minute, which user:a:b has now.\n")
