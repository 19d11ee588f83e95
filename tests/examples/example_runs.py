"""Examples, run as their readers run them, and a demo under gunicorn that notes what it was asked."""

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
KEY = "demo-large-key"
PATIENCE = 120

SERVED = """
import json
import time

from flask import request

from demo_app import create_app
from demo_app.app import plans
from demo_app.scripted import ScriptedModel

ROOMY = {{"requests": "1000000 per day", "tokens": "1000000000 per day", "concurrency": 8}}

file = plans.read("plans.toml", "demo_app")
for name in ("pro", "team"):
    file["plans"][name] = ROOMY
app = create_app(ScriptedModel(), config={{"AILIMIT_PLANS": file}})


@app.after_request
def note(response):
    body = request.get_json(silent=True) or {{}}
    heard = {{"at": time.monotonic(), "path": request.path, "status": response.status_code, "model": body.get("model")}}
    with open({calls!r}, "a") as calls:
        calls.write(json.dumps(heard) + "\\n")
    return response
"""
"""The demo with the scripted model. What it is asked stands in a file, because each worker has a memory of its own."""


class Ran(NamedTuple):
    """What an example has said."""

    lines: list[str]
    errors: str


class Demo:
    """A running demo."""

    def __init__(self, port, calls):
        self.url = f"http://127.0.0.1:{port}"
        self._calls = calls
        self._seen = 0

    def calls(self):
        """What came since this was asked last."""
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        new, self._seen = lines[self._seen :], len(lines)
        return [json.loads(line) for line in new]


@contextmanager
def serving(directory):
    calls = directory / "calls"
    (directory / "served.py").write_text(SERVED.format(calls=str(calls)))
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    environ = {
        **os.environ,
        "DEMO_BIND": f"fd://{listener.fileno()}",
        "DEMO_STORAGE_URI": f"local://{directory}/limits",
        "PYTHONPATH": f"{directory}:{ROOT}",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "demo_app/gunicorn_conf.py", "served:app"]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log, pass_fds=[listener.fileno()])
        port = listener.getsockname()[1]
        listener.close()  # The server's own now: if it ends, so do the calls that wait for it.
        try:
            yield Demo(port, calls)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def environ_of(url):
    """The environment in which an example asks the provider at this address."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": KEY,
        "MODEL": "scripted",
    }


def run(name, url, *arguments, **environ):
    """Run an example to its end."""
    command = [sys.executable, f"examples/{name}.py", *arguments]
    given = {**environ_of(url), **environ}
    ran = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode == 0, ran.stderr
    return Ran(ran.stdout.splitlines(), ran.stderr)
