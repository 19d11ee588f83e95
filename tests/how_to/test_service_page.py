"""The whole service of the page under gunicorn, before a real model server: customers, plans, streams and the bill."""

import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import httpx2
import openai
import pytest
from app_server import serving
from flask import request
from pages import blocks, environment_of, served_as_written, write_code
from real_servers import PATIENCE, SilentModel, model_api, said

PAGE = "how-to/service.md"
CHAT = {"model": "m", "messages": [{"role": "user", "content": "tell me"}], "max_tokens": 40}
PICTURE = {"model": "m", "prompt": "a cat"}


def whole_model(heard):
    """The API of a model that also makes embeddings and images."""
    app = model_api(heard)

    @app.post("/v1/embeddings")
    def embed():
        data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
        return {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 7, "total_tokens": 7}}

    @app.post("/v1/images/generations")
    def images():
        heard.append((request.get_json(), dict(request.headers)))
        return {"created": 1, "data": [{"url": "u"}] * request.json["n"]}

    return app


class Service:
    """The page's files in a directory, and the commands of the page."""

    def __init__(self, directory):
        self.directory = directory
        write_code("how-to/proxy.md", directory, "proxy")  # It writes passing_on.py, which the page takes from there.
        write_code(PAGE, directory, "service")
        *_, self.add_customer, _gunicorn = blocks(PAGE, "sh")[0].splitlines()
        self.environment = environment_of(directory) | {"FLASK_AILIMIT_SECRET": "a secret of this test only"}

    def add(self, name):
        """The new key of a new customer."""
        assert self.add_customer == "flask --app service add-customer ada"
        command = [sys.executable, "-m", *self.add_customer.split()[:-1], name]
        ran = subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    def serve(self, upstream, **more):
        names = {"FLASK_UPSTREAM_URL": f"{upstream}/v1", "FLASK_AILIMIT_SECRET": "a secret of this test only", **more}
        return served_as_written(PAGE, self.directory, name="service", **names)

    def query(self, sql):
        with closing(sqlite3.connect(self.directory / "instance" / "service.sqlite", timeout=PATIENCE)) as database:
            return database.execute(sql).fetchall()

    def wait_for_row(self):
        deadline = time.monotonic() + PATIENCE
        while not (rows := self.query("SELECT endpoint, output_tokens FROM settlement")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return rows


@pytest.fixture
def service(tmp_path):
    return Service(tmp_path)


def sdk(address, key):
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=PATIENCE)


@pytest.mark.server
def test_commands_of_the_page_make_a_customer_and_serve_and_bill_it(service):
    heard = []
    ada, bob = service.add("ada"), service.add("bob")
    with serving(whole_model(heard)) as upstream, service.serve(upstream) as (address, log):
        with sdk(address, ada) as client:
            stream = client.chat.completions.create(**CHAT, stream=True)
            assert [chunk.choices[0].delta.content for chunk in stream] == ["one\u2028", "two"]
            assert client.chat.completions.create(**CHAT).usage.completion_tokens == 5
            client.embeddings.create(model="m", input="hello", encoding_format="float")
            assert len(client.images.generate(**PICTURE, n=3).data) == 3
            with pytest.raises(openai.RateLimitError) as refused:
                client.images.generate(**PICTURE, n=3)
            assert refused.value.body["limit"]["name"] == "images-per-day"
        with sdk(address, bob) as client:
            client.images.generate(**PICTURE, extra_body={"n": 11, "stream": True})  # one is reserved, and one is made
        with sdk(address, "made-up") as client, pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(**CHAT)
    assert "raised" not in log.read_text(encoding="utf-8")
    rows = service.query("SELECT endpoint, input_tokens, output_tokens, images FROM settlement ORDER BY rowid")
    assert rows == [
        ("api.chat", 9, 5, 0),
        ("api.chat", 9, 5, 0),
        ("api.embeddings", 7, 0, 0),
        ("api.images", 0, 0, 3),
        ("api.images", 0, 0, 1),
    ]
    (subjects,) = service.query("SELECT count(DISTINCT subject) FROM settlement WHERE images > 0")
    assert subjects == (2,)
    assert (heard[-1][0]["n"], heard[-1][0]["stream"]) == (1, False)
    assert ada not in str(service.query("SELECT * FROM customer"))


@pytest.mark.server
def test_calls_of_the_gpu_are_limited_over_both_workers_and_nothing_is_said_of_it(service):
    keys = {"x-api-key": service.add("ada")}, {"x-api-key": service.add("bob")}
    model = SilentModel()
    with closing(model), service.serve(model.address, FLASK_GPU_CALLS="1") as (address, _), ExitStack() as held:
        client = held.enter_context(httpx2.Client(timeout=PATIENCE))
        threads = held.enter_context(ThreadPoolExecutor(1))
        ask = {"json": {**CHAT, "stream": True}, "headers": keys[0]}
        call = client.build_request("POST", f"{address}/v1/chat/completions", **ask)
        answering = threads.submit(client.send, call, stream=True)
        model.begin(said("one "))
        answer = answering.result(PATIENCE)
        refused = httpx2.post(f"{address}/v1/chat/completions", json=CHAT, headers=keys[1], timeout=PATIENCE)
        assert (refused.status_code, refused.json()["error"]["limit"]) == (429, None)
        assert "gpu" not in refused.text + str(refused.headers)
        answer.close()
        assert model.is_hung_up()
        ((endpoint, output),) = service.wait_for_row()
    assert endpoint == "api.chat"
    assert 0 < output < 40
