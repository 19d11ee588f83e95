"""The proxy of the page, before a real upstream: what it asks, passes on, charges and ends."""

import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import openai
import pytest
from app_server import serving
from pages import blocks, environment_of, imported, served_as_written, write_code
from real_servers import PATIENCE, SilentModel, model_api, said

from flask_ailimit import Usage, usage_settled
from flask_ailimit.testing import limits_clock  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("limits_clock")

PAGE = "how-to/proxy.md"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "tell me"}], "max_tokens": 40}


class Proxy:
    """The page's app, served, and what it heard of its own settlements."""

    def __init__(self, module, address):
        self.module = module
        self.address = address
        self.port = int(address.rpartition(":")[2])
        self.events = []
        usage_settled.connect(self._hear, module.app)

    def _hear(self, sender, **event):
        self.events.append(event)

    def ask(self, prompt="tell me", **more):
        body = {**ASKED, "messages": [{"role": "user", "content": prompt}], **more}
        return httpx2.post(f"{self.address}/v1/chat/completions", json=body, headers=KEY, timeout=PATIENCE)

    def used(self):
        with self.module.app.test_request_context():
            return {each.quota.name: each.used for each in self.module.limiter.peek("chat", "alice").verdicts}

    def sdk(self):
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key="alice", max_retries=0, timeout=PATIENCE)

    def wait_settled(self):
        deadline = time.monotonic() + PATIENCE
        while not self.events and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.events


KEY = {"Authorization": "Bearer alice"}


@pytest.fixture(params=["httpx2", "httpx"])
def library(request):
    return request.param


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Serves the page's app in front of an upstream."""
    open_now = []

    def begin(upstream, library="httpx2", silence="30"):
        monkeypatch.setenv("UPSTREAM_URL", f"{upstream}/v1")
        monkeypatch.setenv("UPSTREAM_KEY", "key-of-the-app")
        monkeypatch.setenv("UPSTREAM_SILENCE", silence)
        page = imported(PAGE, tmp_path, replaced={"httpx2": library})
        module = page.__enter__()
        open_now.append(page)
        server = serving(module.app)
        address = server.__enter__()
        open_now.append(server)
        proxy = Proxy(module, address)
        proxy.close = module.upstream.close
        open_now.append(proxy)
        return proxy

    yield begin
    for each in reversed(open_now):
        if isinstance(each, Proxy):
            each.close()
        else:
            each.__exit__(None, None, None)


@pytest.fixture
def heard():
    return []


@pytest.fixture
def proxy(start, heard, library):
    with serving(model_api(heard)) as upstream:
        yield start(upstream, library)


def test_stream_passes_without_the_usage_for_which_the_client_did_not_ask(proxy, heard):
    answer = proxy.ask(stream=True)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.text == said("one\u2028") + said("two") + "data: [DONE]\n\n"
    (body, _) = heard[0]
    assert body["stream_options"] == {"include_usage": True}
    (event,) = proxy.events
    assert (event["source"], event["usage"], event["ending"]) == ("recorded", Usage(9, 5, 4), "complete")
    assert proxy.used() == {"requests-per-minute": 1, "tokens-per-minute": 14, "concurrency": 0}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_event_with_the_usage_is_left_out_whole_wherever_chunks_and_lines_end(tmp_path, end, size):
    """In pieces of any size, with a comment and a line ``event`` in it, and with an end that no blank line follows."""
    with imported(PAGE, tmp_path) as module:
        recorded = []
        module.limiter.record_usage = lambda **usage: recorded.append(usage["output_tokens"])
        without_usage = sys.modules["passing_on"].without_usage
        kept = [b'data: {"choices": [{}]}', b"data: [DONE]", b"data: cut"]
        usage = b": a comment" + end + b"event: message" + end + b'data: {"choices":[],"usage":{"completion_tokens":5}}'
        stream = (end * 2).join([kept[0], usage, *kept[1:]])
        passed = b"".join(without_usage(module.limiter, (stream[at : at + size] for at in range(0, len(stream), size))))
    assert passed == b"\n\n".join(kept)
    assert recorded == [5]


def test_stream_passes_with_the_usage_for_which_the_client_asked(proxy, heard):
    answer = proxy.ask(stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    assert '"prompt_tokens": 9' in answer.text
    assert heard[0][0]["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    (event,) = proxy.events
    assert (event["source"], event["usage"]) == ("reported", Usage(9, 5, 4))


def test_plain_answer_passes_and_is_charged_what_it_reports(proxy, heard):
    answer = proxy.ask()
    assert answer.json()["choices"][0]["message"]["content"] == "one two"
    assert "stream_options" not in heard[0][0]
    (event,) = proxy.events
    assert (event["source"], event["usage"]) == ("reported", Usage(9, 5, 4))
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize("stream", [True, False])
def test_only_headers_that_are_named_pass(proxy, heard, stream):
    answer = proxy.ask(stream=stream)
    names = set(answer.headers)
    assert not names & {"set-cookie", "content-encoding", "server-timing", "location"}
    assert answer.headers["x-ratelimit-remaining-tokens"] != "31"
    sent = heard[0][1]
    assert sent["Authorization"] == "Bearer key-of-the-app"
    assert "alice" not in str(sent)
    (event,) = proxy.events
    assert sent["X-Request-Id"] == event["request_id"] == answer.headers["x-request-id"]


def test_openai_s_sdk_reads_the_stream_as_its_users_write_it(proxy):
    stream = proxy.sdk().chat.completions.create(**ASKED, stream=True)
    assert [chunk.choices[0].delta.content for chunk in stream] == ["one\u2028", "two"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("upstream_status", "status", "is_passed"),
    [(400, 400, True), (422, 422, True), (401, 502, False), (403, 502, False), (302, 502, False), (500, 502, False)],
)
def test_upstream_s_errors_are_charged_no_tokens(proxy, upstream_status, status, is_passed, stream):
    answer = proxy.ask(f"status {upstream_status}", stream=stream)
    assert answer.status_code == status
    assert ("org-1" in answer.text) is is_passed
    assert answer.json()["error"]["message"]
    assert proxy.used() == {"requests-per-minute": 1, "tokens-per-minute": 0, "concurrency": 0}


@pytest.mark.parametrize("upstream_status", [429, 503])
def test_busy_upstream_is_a_503_with_its_waits(proxy, heard, upstream_status):
    messages = [{"role": "user", "content": f"status {upstream_status}"}]
    with pytest.raises(openai.InternalServerError) as raised:
        proxy.sdk().chat.completions.create(model="m", messages=messages)
    headers = raised.value.response.headers
    assert (raised.value.status_code, headers["retry-after"], headers["retry-after-ms"]) == (503, "7", "6500")
    assert "org-1" not in str(raised.value)
    assert raised.value.request_id == heard[0][1]["X-Request-Id"]


def test_body_that_is_no_object_is_a_400(proxy):
    answer = httpx2.post(f"{proxy.address}/v1/chat/completions", json=[], headers=KEY, timeout=PATIENCE)
    assert answer.status_code == 400


def test_stream_that_breaks_off_is_cut_and_charged_what_was_sent(proxy):
    with pytest.raises(httpx2.RemoteProtocolError):
        proxy.ask("break", stream=True)
    (event,) = proxy.wait_settled()
    assert (event["ending"], event["source"]) == ("failed", "counted")
    assert 0 < proxy.used()["tokens-per-minute"] < 40


def test_upstream_that_can_not_be_reached_is_a_502(start, library):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nowhere = f"http://127.0.0.1:{listener.getsockname()[1]}"
    proxy = start(nowhere, library)
    assert proxy.ask().status_code == 502
    assert proxy.used() == {"requests-per-minute": 1, "tokens-per-minute": 0, "concurrency": 0}


@pytest.fixture
def silent():
    model = SilentModel()
    yield model
    model.close()


def test_silent_upstream_is_a_504(start, silent, library):
    proxy = start(silent.address, library, silence="0.5")
    assert proxy.ask(stream=True).status_code == 504
    assert proxy.used() == {"requests-per-minute": 1, "tokens-per-minute": 0, "concurrency": 0}


def test_client_that_leaves_ends_the_upstream_s_work_though_it_is_silent(start, silent, library):
    proxy = start(silent.address, library)
    with httpx2.Client(timeout=PATIENCE) as client:
        body = {**ASKED, "stream": True}
        call = client.build_request("POST", f"{proxy.address}/v1/chat/completions", json=body, headers=KEY)
        with ThreadPoolExecutor(1) as threads:
            answering = threads.submit(client.send, call, stream=True)
            silent.begin(said("one "))
            answer = answering.result(PATIENCE)
        assert next(answer.iter_bytes())
        began = time.monotonic()
        answer.close()
    assert silent.is_hung_up()
    assert time.monotonic() - began < 20  # The read time-out is 30 s.
    (event,) = proxy.wait_settled()
    assert (event["ending"], event["source"]) == ("abandoned", "counted")
    assert proxy.used()["concurrency"] == 0
    assert 0 < proxy.used()["tokens-per-minute"] < 40


def test_client_that_leaves_before_the_upstream_says_anything_is_charged_what_was_reserved(start, silent):
    proxy = start(silent.address, silence="5")
    with httpx2.Client() as client, pytest.raises(httpx2.ReadTimeout):
        client.post(f"{proxy.address}/v1/chat/completions", json=ASKED, headers=KEY, timeout=0.3)
    silent.begin()
    assert proxy.used()["concurrency"] == 1
    (event,) = proxy.wait_settled()
    assert (event["source"], event["status"]) == ("reserved", 504)
    assert proxy.used()["concurrency"] == 0
    assert proxy.used()["tokens-per-minute"] > 40


@pytest.mark.server
def test_proxy_streams_under_gunicorn_as_the_page_starts_it(tmp_path, heard):
    with serving(model_api(heard)) as upstream:
        environment = {"UPSTREAM_URL": f"{upstream}/v1"}
        with served_as_written(PAGE, tmp_path, **environment) as (address, _):
            client = openai.OpenAI(base_url=f"{address}/v1", api_key="alice", max_retries=0, timeout=PATIENCE)
            stream = client.chat.completions.create(**ASKED, stream=True)
            assert [chunk.choices[0].delta.content for chunk in stream] == ["one\u2028", "two"]
            answer = client.chat.completions.create(**ASKED)
    assert answer._request_id == heard[1][1]["X-Request-Id"]


def test_tests_of_the_page_pass(tmp_path):
    write_code(PAGE, tmp_path, "app")
    (tests,) = [block for block in blocks(PAGE, "python") if block.startswith("# test_app.py")]
    (tmp_path / "test_app.py").write_text(tests, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "--rootdir", tmp_path],
        cwd=tmp_path,
        env=environment_of(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout
