"""The demo's gateway: its client's limits, and the pace of its own calls."""

import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from app_server import serving
from demo_doors import KEY, planned

from demo_app import addresses, create_app
from demo_app.gateway import Place
from demo_app.keys import demo_accounts, open_account
from demo_app.scripted import ScriptedModel
from flask_ailimit.testing import FakeProvider, Fault

ROOT = Path(__file__).parents[2]
GATEWAY_KEY = "key-of-the-gateway"
ASK = {"model": "scripted", "messages": [{"role": "user", "content": "Three words please"}], "max_tokens": 64}
TEXT = "All good things come in threes."
ROOMY = {"requests": "1000 per day", "tokens": "10000 per day", "concurrency": 100}


@pytest.fixture
def model():
    return ScriptedModel()


@pytest.fixture
def made(model, monkeypatch):
    """Makes a demo that is its own model, and answers its app and OpenAI's client of its gateway."""
    served = []

    def make(requests="600 per minute", of_gateway=ROOMY, place=None):
        monkeypatch.setenv("DEMO_GATEWAY_REQUESTS", requests)
        config = planned(ROOMY, DEMO_GATEWAY_KEY=GATEWAY_KEY)
        config["DEMO_ACCOUNTS"] = (*config["DEMO_ACCOUNTS"], open_account("gateway", "gateway", GATEWAY_KEY))
        config["AILIMIT_PLANS"]["plans"]["gateway"] = of_gateway
        app = create_app(model, config)
        server = serving(app)
        address = server.__enter__()
        app.config["DEMO_GATEWAY_PLACE"] = place or Place(address)
        client = openai.OpenAI(base_url=f"{address}/gateway/v1", api_key=KEY, max_retries=0, timeout=60)
        served.append((server, client))
        return app, client

    yield make
    for server, client in served:
        client.close()
        server.__exit__(None, None, None)


def used(app, key=KEY):
    """What an account has used."""
    answer = app.test_client().get("/usage", headers={"Authorization": f"Bearer {key}"}).json
    return {limit["name"]: limit["used"] for limit in answer["limits"]}


def test_answer_is_passed_on_and_paid_once_on_each_side(made):
    app, client = made()
    answer = client.chat.completions.with_raw_response.create(**ASK)
    assert answer.parse().choices[0].message.content == TEXT
    assert answer.headers["x-ailimit-upstream"] == "model"
    assert answer.headers["x-ratelimit-limit-requests"] == "1000"
    for key in (KEY, GATEWAY_KEY):
        assert used(app, key) == {"requests-per-day": 1, "tokens-per-day": 9, "concurrency": 0}


def test_stream_is_passed_on_as_it_comes(made, model):
    app, client = made()
    heard = threading.Event()
    model.before_token = lambda: heard.wait(60)
    stream = client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    next(iter(stream))
    heard.set()
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == TEXT
    assert chunks[-1].usage.completion_tokens == 6
    assert used(app)["tokens-per-day"] == 9


def test_client_that_leaves_ends_the_work_of_the_model(made, model):
    _, client = made()
    hung_up, left = threading.Event(), threading.Event()
    model.words, model.on_end = ("word",) * 1000, left.set
    model.before_token = lambda: (len(spoken) < 3 and not spoken.append(1)) or hung_up.wait(60)
    spoken = []
    stream = client.chat.completions.create(**{**ASK, "max_tokens": 1000}, stream=True)
    next(iter(stream))
    stream.close()
    hung_up.set()
    assert left.wait(60)
    assert model.finished == 0


def test_refusal_of_the_model_becomes_the_gateway_s_and_costs_nothing(made):
    app, client = made(of_gateway={**ROOMY, "requests": "1 per day"})
    client.chat.completions.create(**ASK)
    before = used(app)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**ASK)
    assert refused.value.code == "upstream_limited"
    assert refused.value.response.headers["x-ailimit-limited-by"] == "provider"
    assert refused.value.response.headers["x-should-retry"] == "false"  # It is for longer than a minute.
    assert all(now <= before[name] for name, now in used(app).items())


def test_gateway_s_own_pace_is_told_apart(made, model):
    app, client = made(requests="2 per hour")
    client.chat.completions.create(**ASK)
    before = used(app)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**ASK)
    assert refused.value.code == "upstream_busy"
    assert refused.value.response.headers["x-ailimit-limited-by"] == "app"
    assert 1700 <= int(refused.value.response.headers["retry-after"]) <= 1800
    assert all(now <= before[name] for name, now in used(app).items())
    assert model.finished == 1


def test_more_calls_than_are_sent_at_once_wait_for_each_other(made, model):
    app, client = made(requests="6000 per minute")
    most, lock, now = [0], threading.Lock(), [0]

    def began():
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.01)
        with lock:
            now[0] -= 1

    model.before_token = began
    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(lambda _: client.chat.completions.create(**ASK), range(6))]
    assert len(answers) == 6
    assert most[0] <= 4
    assert used(app)["requests-per-day"] == 6


def test_mistake_of_the_client_is_found_before_anything_is_sent(made):
    app, client = made()
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**{**ASK, "messages": []})
    assert error.value.code == "invalid_messages"
    assert used(app)["requests-per-day"] == used(app, GATEWAY_KEY)["requests-per-day"] == 0


def test_model_that_is_away_is_a_503_that_costs_nothing(made):
    app, client = made(place=Place("http://127.0.0.1:9"))
    with pytest.raises(openai.InternalServerError) as error:
        client.chat.completions.create(**ASK)
    assert error.value.code == "upstream_unavailable"
    assert used(app)["requests-per-day"] == 0


def test_answer_that_breaks_off_is_a_502_that_costs_nothing(made):
    with FakeProvider() as provider:
        provider.always(Fault.ok().cut(1))
        app, client = made(place=Place(provider.url.removesuffix("/v1")))
        with pytest.raises(openai.InternalServerError) as error:
            client.chat.completions.create(**ASK)
    assert (error.value.status_code, error.value.code) == (502, "upstream_failed")
    assert used(app)["requests-per-day"] == 0


def test_gateway_without_a_model_says_what_is_missing(client):
    answer = client.post("/gateway/v1/chat/completions", json=ASK)
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "no_gateway")


def test_demo_finds_itself_by_its_socket():
    assert addresses.own_place(("0.0.0.0", 8000)) == Place("http://127.0.0.1:8000")
    assert addresses.own_place("/run/demo.sock") == Place("http://localhost", "/run/demo.sock")


def test_gateway_has_an_account_only_if_the_demo_is_its_model():
    key = {"DEMO_GATEWAY_KEY": GATEWAY_KEY}
    assert [each.name for each in demo_accounts(key)][-1] == "gateway"
    assert "gateway" not in [each.name for each in demo_accounts(key | {"DEMO_GATEWAY_URL": "http://elsewhere"})]
    with pytest.raises(ValueError, match="DEMO_GATEWAY_KEY"):
        demo_accounts({"DEMO_GATEWAY_KEY": "short"})


# Under gunicorn, which is its own model

WSGI = """
import time

from demo_app import create_app
from demo_app.scripted import ScriptedModel

model = ScriptedModel()
model.before_token = lambda: time.sleep(0.005)
app = create_app(model)
"""
CALLERS = ("demo-small-key", "demo-large-key", "demo-colleague-key", "demo-penny-key")


@pytest.fixture
def gunicorn(tmp_path):
    """The address of a demo with two workers, each with no more threads than it has by default."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    (tmp_path / "served.py").write_text(WSGI, encoding="utf-8")
    environ = {
        **os.environ,
        "DEMO_BIND": f"fd://{listener.fileno()}",
        "DEMO_STORAGE_URI": f"local://{tmp_path}/limits",
        "DEMO_GATEWAY_REQUESTS": "6000 per minute",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "demo_app/gunicorn_conf.py", "served:app"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=log, stderr=log, pass_fds=[listener.fileno()])
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.close()
        try:
            yield address
        finally:
            process.terminate()
            process.wait(120)


@pytest.mark.server
def test_workers_that_call_themselves_never_wait_for_each_other_for_ever(gunicorn):
    """More callers than the service takes: each gets its answer or a refusal with a wait, and none hangs."""
    outcomes, waits = Counter(), []

    def ask(number):
        with openai.OpenAI(
            base_url=f"{gunicorn}/gateway/v1", api_key=CALLERS[number % 4], max_retries=0, timeout=60
        ) as client:
            for _ in range(3):
                try:
                    client.chat.completions.create(**ASK)
                    outcomes["answered"] += 1
                except openai.RateLimitError as refused:
                    outcomes[refused.code] += 1
                    waits.append(int(refused.response.headers["retry-after"]))

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(ask, range(32)))
    assert sum(outcomes.values()) == 96
    assert min(waits) >= 1
    # The first four have a slot. How many follow depends on how soon the model answers beside so many callers.
    assert outcomes["answered"] >= 4, outcomes
