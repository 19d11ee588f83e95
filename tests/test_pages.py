"""Every code block of README and of the pages runs, and each that can't run here is named here with the reason."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import anthropic
import httpx2
import openai
import page_blocks
import pytest
from flask import Flask, Response, abort, request
from limits.limits import GRANULARITIES
from page_blocks import PAGES, ROOT, Block, blocks, run_page, texts

from flask_ailimit import AILimiter, Upstream, api_key
from flask_ailimit.cli import cli
from flask_ailimit.engine import Charge, Engine, open_store, parse_quotas
from flask_ailimit.engine.quota import PERIODS
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.money import PriceBook
from flask_ailimit.money.price import KINDS
from flask_ailimit.testing import (
    FakeProvider,
    limits_clock,  # noqa: F401  a fixture
)
from flask_ailimit.tokens import Usage

if not (ROOT / "docs").exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)

# A block is named by its page and by its beginning.

README_CURL = "tests/test_readme.py::test_curl_lines_of_the_readme_do_what_it_says"
REDIS = "tests/redis/test_redis_page.py::test_"
FAULTS = "tests/upstream/test_faults_page.py::test_tests_of_the_page_pass"
TESTING = "tests/http/test_testing_page.py::test_the_page_s_tests_pass_and_leave_no_store_behind"
UPSTREAMS = "tests/upstream/test_upstreams_page.py::test_script_of_the_page_shares_the_counts_of_the_app"

HOW_TO = "tests/how_to/test_"
BACKGROUND = (
    HOW_TO
    + "background_work_page.py::test_job_of_the_page_settles_what_its_request_reserved_also_if_its_worker_is_killed"
)

BATCH = "tests/upstream/test_batch_page.py::test_blocks_of_the_page_run_and_print_what_it_shows"

RUN_BY = {
    ("README.md", "curl -i"): README_CURL,
    ("README.md", "curl http"): README_CURL,
    ("README.md", "for i"): "tests/test_readme.py::test_spent_budget_is_answered_as_the_readme_shows",
    ("README.md", "from openai"): "tests/test_readme.py::test_sdk_s_lines_of_the_readme_get_an_answer",
    ("docs/architecture.md", "   "): "tests/test_architecture_page.py::test_room_of_the_picture_is_there",
    ("docs/background-work.md", "gunicorn"): BACKGROUND,
    ("docs/background-work.md", "celery"): BACKGROUND,
    ("docs/batch.md", "def classify"): BATCH,
    ("docs/batch.md", "2 of 2, 1 failed, ... a second, ... tokens\n"): BATCH,
    ("docs/batch.md", "from flask_ailimit"): BATCH,
    ("docs/batch.md", "A broken one"): BATCH,
    ("docs/batch.md", "cat >"): BATCH,
    ("docs/batch.md", "2 of 2, 1 failed, ... a second, 30 tokens"): BATCH,
    ("docs/batch.md", "head"): BATCH,
    ("docs/batch.md", '{"id"'): BATCH,
    ("docs/batch.md", "sed"): BATCH,
    ("docs/batch.md", "again.jsonl.part"): BATCH,
    ("docs/how-to/billing.md", "export"): HOW_TO
    + "billing_page.py::test_commands_of_the_page_make_the_table_serve_and_bill_again",
    ("docs/how-to/proxy.md", "UPSTREAM_URL"): HOW_TO
    + "proxy_page.py::test_proxy_streams_under_gunicorn_as_the_page_starts_it",
    ("docs/how-to/request-ids.md", "INFO"): HOW_TO + "request_ids_page.py::test_request_writes_the_lines_of_the_page",
    ("docs/how-to/request-ids.md", "grep"): HOW_TO + "request_ids_page.py::test_command_finds_the_client_s_id",
    ("docs/how-to/request-ids.md", "gunicorn"): HOW_TO + "request_ids_page.py::test_access_log_has_both_ids",
    ("docs/how-to/service.md", "export"): HOW_TO
    + "service_page.py::test_commands_of_the_page_make_a_customer_and_serve_and_bill_it",
    ("docs/how-to/several-apps.md", "gunicorn"): HOW_TO
    + "several_apps_page.py::test_both_apps_answer_under_gunicorn_as_the_page_starts_it",
    ("docs/redis.md", "from flask"): REDIS + "first_example_limits_and_settles_over_redis",
    ("docs/redis.md", "python -c"): REDIS + "the_secret_is_required_and_the_command_on_the_page_makes_one",
    ("docs/redis.md", "import logging"): REDIS + "signal_on_the_page_is_sent_when_redis_goes_and_comes",
    ("docs/redis.md", "limiter = "): REDIS + "example_with_tls_is_trusted_with_the_authority_and_not_without",
    ("docs/redis.md", "CONFIG SET maxmemory"): REDIS + "commands_for_the_server_work",
    ("docs/redis.md", "CONFIG SET appendonly"): REDIS + "commands_for_the_server_work",
    ("docs/redis.md", "ACL SETUSER"): REDIS + "commands_for_the_server_work",
    ("docs/stores.md", "/dev/shm"): "tests/test_pages.py::test_list_of_stores_looks_as_on_the_page",
    ("docs/testing-against-faults.md", "# conftest.py"): FAULTS,
    ("docs/testing-against-faults.md", "# summaries.py"): FAULTS,
    ("docs/testing-against-faults.md", "# test_summaries.py"): FAULTS,
    ("docs/testing.md", "# shop.py"): TESTING,
    ("docs/testing.md", "# conftest.py"): TESTING,
    ("docs/testing.md", "# test_shop.py"): TESTING,
    ("docs/testing.md", "# test_in_flight.py"): TESTING,
    ("docs/testing.md", "# test_with_freezegun.py"): TESTING,
    ("docs/upstreams.md", "# nightly.py"): UPSTREAMS,
    ("docs/upstreams.md", "python nightly.py"): UPSTREAMS,
}
"""Blocks that another test runs, or compares with what really comes: which test."""

NOT_RUN = {
    ("docs/benchmarks.md", "make bench"): "it takes six minutes; tests/bench runs all of it in small",
}
"""Blocks that no test runs: why."""


def entry(table: dict[tuple[str, str], str], block: Block) -> tuple[str, str] | None:
    return next((key for key in table if key[0] == block.page and block.text.startswith(key[1])), None)


def left_out(block: Block) -> bool:
    return bool(entry(RUN_BY, block) or entry(NOT_RUN, block))


# What the pages take for granted


def app_of_a_reader(**options):
    """An app and its limiter, as they are in the pages before."""
    app = Flask("reader", static_folder=None)
    app.testing = True
    limiter = AILimiter(api_key, app=app, **options)
    return {"app": app, "limiter": limiter, "request": request, "Response": Response}


@contextmanager
def given_configuration(directory):
    plan = SimpleNamespace(tokens="5000 per minute", requests=None)
    bill = SimpleNamespace(lines=[])
    bill.add = lambda *line, certain: bill.lines.append((*line, certain))
    yield app_of_a_reader() | {"plan_of": lambda key: plan, "api_key": api_key, "ledger": bill}


@contextmanager
def given_headers(directory):
    """Clients of an app that has 10 of its 10,000 tokens left."""
    served = app_of_a_reader(default_output_tokens=1000)
    app, limiter = served["app"], served["limiter"]

    @app.post("/chat/completions", endpoint="chat")
    @app.post("/v1/messages", endpoint="chat")
    @limiter.limit_tokens("10000 per minute")
    def chat():
        limiter.record_usage(output_tokens=9990)
        return {}

    with httpx2.Client(transport=httpx2.WSGITransport(app)) as http:
        options = {"api_key": "alice", "base_url": "http://localhost", "http_client": http, "max_retries": 0}
        assert http.post("http://localhost/v1/messages", headers={"x-api-key": "alice"}).status_code == 200
        yield app_of_a_reader() | {
            "openai_client": openai.OpenAI(**options),
            "anthropic_client": anthropic.Anthropic(**options),
            "messages": [{"role": "user", "content": "Say hello."}],
        }


@contextmanager
def given_streams(directory):
    yield app_of_a_reader() | {"openai": openai, "anthropic": anthropic}


@contextmanager
def given_stores(directory):
    app = Flask("shop", static_folder=None)
    limiter = AILimiter(api_key, app=app, name="shop")
    yield {"MyStore": MemoryStore, "app": app, "limiter": limiter}


@contextmanager
def given_service(directory):
    """The file of another page that this page's reader has saved."""
    (code,) = [text for text in texts("docs/how-to/proxy.md", "python") if text.startswith("# passing_on.py")]
    (directory / "page" / "passing_on.py").write_text(code, encoding="utf-8")
    yield {}


@contextmanager
def given_upstreams(directory):
    """A provider where the SDK looks for one. Clients that the reader keeps open are closed at the end."""
    with FakeProvider(key="test") as provider, ExitStack() as clients, pytest.MonkeyPatch.context() as patch:
        made = Upstream.http_client
        patch.setattr(Upstream, "http_client", lambda own, **options: clients.enter_context(made(own, **options)))
        patch.setenv("OPENAI_BASE_URL", provider.url)
        patch.setenv("OPENAI_API_KEY", "test")
        yield {}


@contextmanager
def given_testing(directory):
    yield {"pytest": pytest, "os": os}


GIVEN = {
    "docs/configuration.md": given_configuration,
    "docs/headers.md": given_headers,
    "docs/how-to/service.md": given_service,
    "docs/stores.md": given_stores,
    "docs/streams.md": given_streams,
    "docs/testing.md": given_testing,
    "docs/upstreams.md": given_upstreams,
}
"""Names that the blocks of a page use, and that the page says in words or the reader has."""


@pytest.fixture
def run(tmp_path, monkeypatch, limits_clock):  # noqa: F811  the fixture
    """Run a page, with stores of its own, and return the names that it has then."""
    monkeypatch.setenv("AILIMIT_STORES_DIRECTORY", str(tmp_path / "stores"))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (tmp_path / "page").mkdir()
    with ExitStack() as at_the_end:

        def run(page):
            given = at_the_end.enter_context(GIVEN[page](tmp_path)) if page in GIVEN else {}
            names = run_page(page, tmp_path / "page", given, leave_out=left_out)
            for value in names.values():
                if isinstance(value, AILimiter):
                    at_the_end.callback(close, value)
            return names

        yield run


def close(limiter):
    for state in limiter._states.values():
        state.engine.close()


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_the_page_run_and_print_what_it_shows(page, run):
    run(page)


# The tables above are complete and true


ALL = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("table", [RUN_BY, NOT_RUN], ids=["RUN_BY", "NOT_RUN"])
def test_each_entry_names_one_block(table):
    named = [entry(table, block) for block in ALL]
    assert sorted(key for key in named if key) == sorted(table)


@pytest.mark.parametrize(("page", "test"), sorted({(page, test) for (page, _), test in RUN_BY.items()}))
def test_test_that_runs_a_block_is_there_and_reads_the_page(page, test):
    file, _, name = test.partition("::")
    source = (ROOT / file).read_text(encoding="utf-8")
    assert name in {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    assert Path(page).name in source


def test_blocks_are_found():
    """The tests above must have something to look at."""
    assert {"python", "sh", "text", "json", "http", "redis"} <= {block.language for block in ALL}
    assert {"README.md", "docs/redis.md", "docs/streams.md"} <= {block.page for block in ALL}


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```python\n1 / 0\n```\n", "division by zero"),
        ("```python\nprint('x')\n```\n", "doesn't show"),
        ("```python\nprint('x')\n```\n\n```text\ny\n```\n", "shows something else"),
        ("```python\nimport logging\n\nlogging.warning('x')\n```\n", "doesn't show"),
        ("```python\nimport warnings\n\nwarnings.warn('x')\n```\n", "^x"),
        ("```python\n# unused.py\nx = 1\n```\n", "no block imports"),
        ("```sh\necho wrong\nfalse\n```\n", "wrong"),
        ("```sh\necho x\n```\n", "doesn't show"),
        ("```text\nx\n```\n", "nothing can run"),
        ("```\nx\n```\n", "nothing can run a block of no language"),
        ("```json\n{x}\n```\n", "Expecting property name"),
        ("```toml\nx\n```\n", "Expected"),
        ("```http\nx\n```\n", "no header"),
    ],
)
def test_block_that_goes_wrong_is_noticed(page, complaint, tmp_path, monkeypatch):
    monkeypatch.setattr(page_blocks, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    (tmp_path / "place").mkdir()
    with pytest.raises(Exception, match=complaint):
        run_page("page.md", tmp_path / "place")


def test_blocks_of_a_page_go_on_where_the_one_before_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(page_blocks, "ROOT", tmp_path)
    page = """
```python
# shop.py
price = 3
```

```sh
export SHOP=$(python -c "import shop; print(shop.price)")
```

```sh
echo "$SHOP" "$PWD"
```

```text
3 /...
```

```python
from shop import price

twice = price * factor
```
"""
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    (tmp_path / "place").mkdir()
    assert run_page("page.md", tmp_path / "place", {"factor": 2})["twice"] == 6
    assert "shop" not in sys.modules


# What the pages' code does


def limits_of(app, endpoint):
    with app.test_request_context(method="POST", headers={"x-api-key": "alice"}):
        decisions = [limiter.peek(endpoint) for limiter in app.extensions["limiter"]]
    return {verdict.quota.name for decision in decisions for verdict in decision.verdicts}


def test_limits_of_configuration_are_in_force(run):
    names = run("docs/configuration.md")
    found = {endpoint: limits_of(names["app"], endpoint) for endpoint in names["app"].view_functions}
    assert found == {
        "chat": {"tokens-per-minute", "tokens-per-day", "output-tokens-per-minute", "concurrency"},
        "complete": {"tokens-per-minute"},
        "embed": set(),
        "images": {"requests-per-minute", "requests-per-hour", "tokens-per-day", "concurrency"},
        "named": {"plan-per-minute", "plan-per-day", "gpu"},
        "embeddings": set(),
        "ocr": {"pages-per-day"},
        "agent": {"concurrency"},
        "structured": {"tokens-per-minute"},
    }


def test_receiver_of_configuration_bills_what_was_used(run):
    names = run("docs/configuration.md")
    app, limiter = names["app"], names["limiter"]

    @app.post("/bill")
    @limiter.limit_tokens("10000 per minute")
    def bill():
        limiter.record_usage(input_tokens=3, output_tokens=4)
        return {}

    answer = app.test_client().post("/bill", headers={"x-api-key": "alice"})
    assert names["ledger"].lines == [(answer.headers["x-request-id"], 1, limiter.subject("alice").hex(), 3, 4, True)]


def test_commands_of_the_page_are_those_of_the_command_line():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `flask ailimit (\w+)", page, re.MULTILINE)) == set(cli.commands)


def test_engine_of_decision_settles_what_it_used(run):
    names = run("docs/decision.md")
    assert names["reservation"].allowed
    charge = names["reservation"].decision.verdicts[0].charge
    assert 0 < names["engine"].peek([charge]).verdicts[0].used <= 300


def test_a_page_s_script_sees_the_headers_that_headers_names(run):
    names = run("docs/headers.md")
    app, limiter = names["app"], names["limiter"]
    app.post("/chat")(limiter.limit("1 per minute")(limiter.limit_tokens("900 per minute")(lambda: "")))
    answer = app.test_client().post("/chat", headers={"Origin": "http://shop"}, json={"max_tokens": 1})
    exposed = {name.lower() for name in answer.headers["Access-Control-Expose-Headers"].split(", ")}
    sent = {name.lower() for name in answer.headers.keys() if "ratelimit" in name.lower() or "id" in name.lower()}  # noqa: SIM118  may repeat
    assert sent
    assert sent <= exposed


def test_client_learns_what_headers_says(limits_clock):  # noqa: F811  the fixture
    app = Flask("learnt", static_folder=None)
    limiter = AILimiter(lambda: "everybody", app=app, storage_uri="memory://", address_limits=["9 per minute"])

    @app.before_request
    def authenticate():
        if "x-api-key" not in request.headers:
            abort(401)

    app.get("/")(limiter.limit("60 per minute")(limiter.limit_concurrency(4)(lambda: "")))

    def ask(**headers):
        return app.test_client().get("/", headers=headers).headers

    alice, bob, stranger = ask(x_api_key="alice"), ask(x_api_key="bob"), ask()
    assert ";r=59" in alice["RateLimit"]
    assert ";r=58" in bob["RateLimit"]
    assert '"concurrency";q=4' in bob["RateLimit-Policy"]
    assert "q=60" not in stranger.get("RateLimit-Policy", "")
    assert "q=9" in stranger["RateLimit-Policy"]


def test_periods_of_decision_are_those_of_limits_and_of_the_engine(run):
    page = (ROOT / "docs" / "decision.md").read_text(encoding="utf-8")
    listed = {
        name: int(seconds.replace(",", ""))
        for name, seconds in re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", page, re.MULTILINE)
    }
    assert listed == PERIODS == {name: limit.GRANULARITY.seconds for name, limit in GRANULARITIES.items()}


@pytest.mark.parametrize(
    ("period", "begins"),
    [
        ("minute", "2026-11-15 10:21:00"),
        ("hour", "2026-11-15 11:00:00"),
        ("day", "2026-11-16 00:00:00"),
        ("month", "2026-12-03 00:00:00"),
        ("2 months", "2027-01-02 00:00:00"),
    ],
)
def test_windows_begin_when_decision_says(period, begins, limits_clock):  # noqa: F811
    now = datetime(2026, 11, 15, 10, 20, 30, tzinfo=UTC)
    limits_clock.set(int(now.timestamp() * 1e6))
    engine = Engine(open_store("memory://", name="periods", clock=limits_clock, options={}))
    (quota,) = parse_quotas(f"1 per {period}", algorithm="fixed-window")
    charge = Charge(engine.subject("alice"), quota)
    engine.reserve([charge])
    wait = engine.peek([charge]).retry_after
    assert f"{now + timedelta(seconds=wait):%Y-%m-%d %H:%M:%S}" == begins
    engine.close()


def test_prices_of_budgets_are_read_as_the_page_says():
    (table,) = [text for text in texts("docs/budgets.md", "toml") if ".above.200000]" in text]
    (price,) = PriceBook(tomllib.loads(table)["prices"]).own
    tiers = ("", "batch", "priority")
    calls = [Usage(given, 10**5, service_tier=tier) for given in (10**5, 10**6) for tier in tiers]
    assert [price.cost(call) / 10**9 for call in calls] == [1.25, 0.625, 2, 6.5, 3.25, 10.4]


def test_kinds_of_rates_of_budgets_are_those_of_prices():
    page = (ROOT / "docs" / "budgets.md").read_text(encoding="utf-8").partition("| rate |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in page.splitlines()[2:]]
    assert sorted(re.findall(r"`(\w+)`", "".join(rows))) == sorted(KINDS)


def test_list_of_stores_looks_as_on_the_page(tmp_path):
    shape = re.compile(r"^.*/([\w-]+)  \d+ KiB, last written \d+\.\d h ago, (open|open in no process)$")
    environment = os.environ | {"AILIMIT_STORES_DIRECTORY": str(tmp_path), "PYTHONPATH": str(ROOT)}
    (tmp_path / "shop.py").write_text(
        "from flask import Flask\nfrom flask_ailimit import AILimiter\n"
        "AILimiter(lambda: 'alice', app=Flask('shop'), name='shop')\n",
        encoding="utf-8",
    )
    listing = "import subprocess, sys, shop; subprocess.run([sys.executable, '-m', 'flask', 'ailimit', 'stores'])"
    ran = subprocess.run(
        [sys.executable, "-c", listing], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    (shown,) = [text for text in texts("docs/stores.md", "text") if "last written" in text]
    assert [shape.match(line).groups() for line in ran.stdout.splitlines()] == [("shop", "open")]
    assert [shape.match(line).groups() for line in shown.splitlines()] == [
        ("shop", "open"),
        ("shop-staging", "open in no process"),
    ]


def test_store_of_one_s_own_is_tested_as_stores_says(tmp_path):
    (code,) = [text for text in texts("docs/stores.md", "python") if "StoreContract" in text]
    given = "from flask_ailimit.engine.stores.memory import MemoryStore as MyStore\n"
    (tmp_path / "test_my_store.py").write_text(given + code, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"\d\d passed", ran.stdout)
