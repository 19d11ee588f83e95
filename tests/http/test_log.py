"""What an app that sets up no logging reads on its standard error."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from limited_apps import limited

ROOT = Path(__file__).parents[2]
APP = """
from flask import Flask
from flask_ailimit import AILimiter

app = Flask(__name__)
limiter = AILimiter(lambda: "alice", app=app, storage_uri="memory://")


def plan_limit():
    return ""


@app.get("/")
@limiter.limit_tokens(plan_limit)
def broken():
    return {}


@app.get("/cost")
@limiter.limit("5 per minute", cost=lambda: "3")
def cost():
    return {}


print([app.test_client().get(path).status_code for path in ("/", "/cost")])
"""


def test_mistake_of_the_app_is_on_the_standard_error_without_any_logging_set_up():
    ran = subprocess.run(
        [sys.executable, "-c", APP],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert ran.stdout == "[503, 200]\n"
    assert "plan_limit" in ran.stderr
    assert "The cost of 5 per 1 minute counts as 1" in ran.stderr


@pytest.mark.parametrize(
    ("variable", "options", "warns"),
    [
        ("AILIMIT_NAME", {}, True),
        ("AILIMIT_NAME", {"name": "shop"}, False),
        ("AILIMIT_NAME", {"config": {"AILIMIT_NAME": "shop"}}, False),
        ("AILIMIT_APPLICATION_CONCURRENCY", {}, True),
        ("AILIMIT_STORES_DIRECTORY", {}, False),
        ("AILIMIT_OTHER", {}, False),
    ],
)
def test_variable_that_is_called_like_a_setting_and_is_not_read_is_warned_of(
    variable, options, warns, monkeypatch, caplog
):
    monkeypatch.setenv(variable, "secret-value")
    with caplog.at_level(logging.WARNING, "flask_ailimit"):
        limited(**options)
    assert (f"{variable} is set in the environment, and nothing reads it" in caplog.text) == warns
    assert "secret-value" not in caplog.text
