"""Who shares a local store: releases, instances and apps, with a name and without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask
from limited_apps import apps_of_two, statuses

from flask_ailimit import AILimiter
from flask_ailimit.cli import cli
from flask_ailimit.engine.stores.directory import BASE
from flask_ailimit.testing import limits_clock  # noqa: F401  a fixture

ROOT = Path(__file__).parents[2]
OWN = f"flask_ailimit-{os.geteuid()}"
TWO = [200, 200, 429]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv(BASE, str(tmp_path / "stores"))
    return tmp_path / "stores" / OWN


@pytest.fixture
def serve():
    """Makes apps that allow two requests a day and name no store; their stores are closed at the end."""
    with apps_of_two() as make:
        yield lambda *args, **options: make(*args, **options)[0]


def stores(home):
    return sorted(path.name for path in home.iterdir())


@pytest.mark.usefixtures("limits_clock")
class TestName:
    def test_releases_of_one_name_count_together(self, tmp_path, serve, home):
        releases = [tmp_path / "releases" / name for name in ("20260101", "20260102")]
        old, new = (serve({"AILIMIT_NAME": "shop"}, root_path=str(release)) for release in releases)
        assert statuses(old) == TWO
        assert statuses(new, 1) == [429]
        assert stores(home) == ["shop"]

    def test_releases_without_a_name_count_apart(self, tmp_path, serve):
        for release in ("20260101", "20260102"):
            assert statuses(serve(root_path=str(tmp_path / release))) == TWO

    def test_instances_of_one_checkout_count_apart_by_their_names(self, serve, home):
        for name in ("shop", "shop-staging"):
            assert statuses(serve(name=name)) == TWO
        assert stores(home) == ["shop", "shop-staging"]

    def test_name_comes_from_the_environment_as_all_settings_do(self, serve, home, monkeypatch):
        monkeypatch.setenv("FLASK_AILIMIT_NAME", "shop-staging")
        read = Flask("shop")
        read.config.from_prefixed_env()
        serve(read.config)
        assert stores(home) == ["shop-staging"]

    def test_keyword_goes_before_the_config(self, serve, home):
        serve({"AILIMIT_NAME": "config"}, name="keyword")
        assert stores(home) == ["keyword"]


def told(caplog):
    return [record.getMessage() for record in caplog.records if "two configurations" in record.getMessage()]


@pytest.mark.parametrize(
    "other",
    [
        {"limit": "3 per minute"},
        {"config": {"RATELIMIT_STRATEGY": "moving-window"}},
        {"config": {"AILIMIT_DEFAULT_TOKEN_LIMITS": ["100000 per minute"]}},
        {"config": {"SERVER_NAME": "staging.example"}},
        {"default_token_limits": ["100000 per minute"]},
        {"key_prefix": "staging"},
        {"import_name": "admin"},
    ],
    ids=str,
)
def test_other_configuration_on_a_store_in_use_is_told_of_once(serve, caplog, other):
    serve(name="shop")
    for _ in range(3):
        serve(name="shop", **other)
    (message,) = told(caplog)
    assert "AILIMIT_NAME" in message
    assert "another one of 'shop'" in message


@pytest.mark.parametrize("is_named", [True, False])
def test_apps_of_one_limiter_that_was_given_a_name_are_no_two(caplog, is_named):
    limiter = AILimiter(lambda: "alice", **({"name": "shop"} if is_named else {}))
    apps = [Flask(name) for name in ("site", "api")]
    for app in apps:
        if not is_named:
            app.config["AILIMIT_NAME"] = "shop"
        limiter.init_app(app)
    for app in apps:
        with app.app_context():
            limiter.engine.close()
    assert len(told(caplog)) == (0 if is_named else 1)


def plan():
    return "10 per minute"


@pytest.mark.parametrize(
    "same",
    [
        {"limit": plan},
        {"token_counter": len},
        {"secret": "x" * 32},
        {"config": {"SECRET_KEY": "y", "DEBUG": True}},
        {"storage_options": {"map_size": 1 << 20}},
    ],
    ids=str,
)
def test_workers_of_one_configuration_are_no_two(serve, caplog, same):
    for _ in range(2):
        serve(name="shop", **same)
    assert not told(caplog)


WORKER = """
import logging, sys
from flask import Flask
from flask_ailimit import AILimiter
logging.basicConfig()
app = Flask("shop")
AILimiter(lambda: "alice", app=app, name="shop", default_limits=[sys.argv[1], lambda: "5 per day"])
app.test_client().get("/")
print("ready", flush=True)
sys.stdin.read()
"""


def start_worker(limit):
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, limit],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert worker.stdout.readline() == "ready\n", worker.stderr.read()
    return worker


def test_rolling_release_of_one_app_is_told_of_once_in_all_of_its_workers():
    """Old workers are replaced one after the other, and one of the old ones starts once more in between."""
    old, new = "2 per minute", "3 per minute"
    workers = [start_worker(old), start_worker(old)]
    said = []

    def end(worker):
        said.append(worker.communicate("", 120)[1].count("two configurations"))

    for limit in (new, old, new):
        workers.append(start_worker(limit))
        end(workers.pop(0))
    while workers:
        end(workers.pop())
    assert sum(said) == 1


def test_release_that_begins_when_the_old_one_has_ended_is_not_told_of():
    for limit in ("2 per minute", "3 per minute"):
        assert start_worker(limit).communicate("", 120)[1] == ""


def test_command_line_lists_the_stores_without_an_app(serve, home, tmp_path):
    serve(name="shop")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLASK_")}
    ran = subprocess.run(
        [sys.executable, "-m", "flask", "ailimit", "stores"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    (line,) = ran.stdout.splitlines()
    assert line.startswith(f"{home}/shop  ")
    assert line.endswith("KiB, last written 0.0 h ago, open")


def test_command_line_tells_a_store_that_nobody_has_open(serve):
    app = serve(name="shop")
    limiter = next(iter(app.extensions["limiter"]))
    limiter.engine.close()
    assert app.test_cli_runner().invoke(cli, ["stores"]).output.endswith("open in no process\n")


def test_app_that_is_started_as_a_script_counts_in_the_store_that_the_commands_read(tmp_path, home):
    (tmp_path / "shop.py").write_text(
        "from flask import Flask\n"
        "from flask_ailimit import AILimiter, api_key\n"
        "app = Flask(__name__)\n"
        "limiter = AILimiter(api_key, app=app)\n"
        "print(limiter.engine.store.path.name)\n"
    )
    names = [
        subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        ).stdout
        for command in ([sys.executable, "shop.py"], [sys.executable, "-c", "import shop"])
    ]
    assert names[0] == names[1]
    assert names[0].startswith("shop-")
