"""The bill of the page: real requests, a real file of SQLite, and what is in it when something fails."""

import subprocess
import sys

import httpx2
import pytest
from app_server import serving
from flask import Response, stream_with_context
from pages import blocks, code_of, environment_of, imported, served_as_written
from real_servers import PATIENCE, said

from flask_ailimit import UNLIMITED, usage_settled

EVER = ("2000-01-01", "3000-01-01")


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setenv("FLASK_AILIMIT_SECRET", "a secret of this test only")
    monkeypatch.setenv("FLASK_SQLALCHEMY_DATABASE_URI", f"sqlite:///{tmp_path}/billing.sqlite")
    with imported("how-to/billing.md", tmp_path) as module:
        yield module
        with module.app.app_context():
            module.db.engine.dispose()


@pytest.fixture
def tables(page):
    assert page.app.test_cli_runner().invoke(args=["create-tables"]).exit_code == 0


def ask(address, key="key-of-ada", path="/v1/generate"):
    headers = {"Authorization": f"Bearer {key}"}
    return httpx2.post(
        f"{address}{path}", json={"prompt": "hello", "max_tokens": 50}, headers=headers, timeout=PATIENCE
    )


def rows(page):
    with page.app.app_context():
        found = page.db.session.execute(page.select(page.Settlement).order_by(page.Settlement.number)).scalars().all()
        return [(row.request_id, row.number, row.input_tokens, row.output_tokens, row.source) for row in found]


def bill(page, name):
    with page.app.app_context():
        return page.bill_of(name, *EVER)


def test_each_customer_is_billed_what_it_used(page, tables):
    with serving(page.app) as address:
        answers = [ask(address), ask(address), ask(address, "key-of-bob")]
        stranger = ask(address, "stranger")
    assert [answer.json() for answer in answers] == [{"text": "HELLO"}] * 3
    assert stranger.status_code == 401
    assert bill(page, "ada") == (24, 0, 60)
    assert bill(page, "bob") == (12, 0, 30)
    assert bill(page, "eve") == (0, 0, 0)
    assert {row[0] for row in rows(page)} == {answer.headers["x-request-id"] for answer in answers}
    with page.app.app_context():
        assert page.bill_of("ada", "3000-01-01", "3001-01-01") == (0, 0, 0)


def test_request_that_is_settled_twice_is_billed_the_sum(page, tables):
    @page.app.post("/agent")
    @page.limiter.limit_tokens("100000 per minute")
    def agent():
        def events():
            page.limiter.record_usage(input_tokens=9, output_tokens=5)
            yield said("one two")
            yield "data: [DONE]\n\n"
            page.limiter.record_usage(input_tokens=11, output_tokens=25)

        return Response(stream_with_context(events()), mimetype="text/event-stream")

    with serving(page.app) as address:
        answer = ask(address, path="/agent")
    request_id = answer.headers["x-request-id"]
    assert rows(page) == [(request_id, 1, 9, 5, "recorded"), (request_id, 2, 11, 25, "recorded")]
    assert bill(page, "ada") == (20, 0, 30)


def test_row_that_the_database_refuses_is_logged_and_can_be_written_later(page, caplog):
    with serving(page.app) as address:
        answer = ask(address)
    assert (answer.status_code, answer.json()) == (200, {"text": "HELLO"})
    (log,) = [record.getMessage() for record in caplog.records if record.name == page.app.name]
    assert log.startswith("Not billed, OperationalError: {")
    run = page.app.test_cli_runner().invoke
    assert run(args=["create-tables"]).exit_code == 0
    for _ in range(2):
        done = run(args=["bill-again"], input=f"[2027-01-01] INFO: started\n[2027-01-01] ERROR in app: {log}\n")
        assert (done.exit_code, done.output) == (0, "")
        assert bill(page, "ada") == (12, 0, 30)


def test_view_that_keeps_its_transaction_open_has_its_row_logged_and_its_work_kept_apart(page, tables, caplog):
    stray = {"at": "", "subject": "", "input_tokens": 1, "cached_input_tokens": 0, "output_tokens": 1, "source": ""}

    @page.app.post("/writes")
    @page.limiter.limit_tokens("100000 per minute")
    def writes():
        page.limiter.record_usage(input_tokens=1)
        page.db.session.add(page.Settlement(request_id="of the view", number=1, **stray))
        page.db.session.flush()
        return {}

    with serving(page.app) as address:
        assert ask(address, path="/writes").status_code == 200
    assert "Not billed, OperationalError" in caplog.text
    assert rows(page) == []  # The view never committed, and neither did the receiver for it.


def test_request_whose_process_dies_before_the_commit_is_counted_and_not_billed(tmp_path):
    code = code_of("how-to/billing.md").replace("100000 per minute", "1000 per day")  # Time gives hardly any back.
    (tmp_path / "app.py").write_text(code, encoding="utf-8")
    environment = environment_of(tmp_path) | {
        "FLASK_AILIMIT_SECRET": "a secret of this test only",
        "FLASK_SQLALCHEMY_DATABASE_URI": f"sqlite:///{tmp_path}/billing.sqlite",
    }

    def run(code):
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    asked = 'client.post("/v1/generate", json={"prompt": "hello"}, headers={"Authorization": "Bearer key-of-ada"})'
    died = run(
        "import os, app\n"
        "with app.app.app_context(): app.db.create_all()\n"
        "app.write = lambda row: os._exit(9)\n"
        f"client = app.app.test_client()\n{asked}"
    )
    assert died.returncode == 9, died.stderr
    after = run(
        "import app\n"
        "with app.app.test_request_context():\n"
        '    print(app.limiter.peek("generate", "ada").verdicts[0].used, app.bill_of("ada", "2000", "3000"))'
    )
    assert after.returncode == 0, after.stderr
    used, _, billed = after.stdout.strip().partition(" ")
    assert billed == "(0, 0, 0)"
    assert 30 < int(used) <= 42


@pytest.mark.parametrize(("limit", "tokens"), [(UNLIMITED, None), ("1000000000 per day", 14)])
def test_customer_without_a_limit_is_metered_only_with_one_that_is_never_reached(page, limit, tokens):
    told = []

    def hear(sender, *, usage, **extra):
        told.append(usage.total_tokens)

    @page.app.post("/free")
    @page.limiter.limit_tokens(limit)
    def free():
        return {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5}}

    with usage_settled.connected_to(hear, page.app), serving(page.app) as address:
        assert ask(address, path="/free").status_code == 200
    assert told == ([] if tokens is None else [tokens])


@pytest.mark.server
def test_commands_of_the_page_make_the_table_serve_and_bill_again(tmp_path):
    """In their order, as in a shell. Only gunicorn, which serves until it is ended, is started apart."""
    page = "how-to/billing.md"
    exported, create, gunicorn, again = blocks(page, "sh")[0].splitlines()
    assert gunicorn.startswith("gunicorn ")
    made = exported.partition("  #")[0]
    environment = environment_of(tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("python", "flask"):
        module = "" if name == "python" else f"-m {name} "
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n', encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"

    def shell(line):
        ran = subprocess.run(
            ["bash", "-euc", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    secret = shell(f'{made}; printf "$FLASK_AILIMIT_SECRET"')
    assert len(secret) == 64
    environment["FLASK_AILIMIT_SECRET"] = secret
    with served_as_written(page, tmp_path, FLASK_AILIMIT_SECRET=secret) as (address, log):
        before = ask(address).headers["x-request-id"]  # There is no table yet.
        shell(create)
        after = ask(address).headers["x-request-id"]
    assert "Not billed, OperationalError" in log.read_text(encoding="utf-8")
    asked = 'python -c \'import sqlite3; print(*sqlite3.connect("instance/billing.sqlite").execute("%s"))\''
    count = asked % "SELECT count(*), sum(output_tokens) FROM settlement"
    assert shell(count) == "(1, 30)"
    shell(again)
    shell(again)
    assert shell(count) == "(2, 60)"
    ids = shell(asked % "SELECT request_id FROM settlement")
    assert before in ids
    assert after in ids
