"""The provider when nothing is ordered: what it answers, what it tells of its calls, and how it ends."""

import math
import subprocess
import sys
import threading

import httpx
import httpx2
import pytest
from sdk_users import KEY, PROMPT, SDKS

from flask_ailimit.testing import FakeProvider, Fault, ManualClock

streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
either_httpx = pytest.mark.parametrize("http", [httpx, httpx2], ids=["httpx", "httpx2"])


@streamed
def test_model_repeats_the_prompt_and_a_word_is_a_token(provider, sdk, stream):
    seen = sdk.ask(provider, stream=stream)
    finish = "end_turn" if sdk.dialect == "anthropic" else "stop"
    assert (seen.text, seen.finish, seen.usage, seen.error) == (PROMPT, finish, (3, 3), None)


@streamed
def test_model_says_what_a_function_answers_letter_by_letter(sdk, stream):
    text = ' {"a":\n  1,  "b": "\u00fc \U0001f600"}\n'
    with FakeProvider(answer=lambda body: text + body["model"]) as provider:
        assert sdk.ask(provider, stream=stream).text == text + "test-model"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_answer_is_no_longer_than_it_may_be(provider, name):
    with SDKS["openai"].client(provider) as client:
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
        answer = client.chat.completions.create(model="m", messages=messages, n=2, **{name: 2})
    assert [(each.message.content, each.finish_reason) for each in answer.choices] == [("one two", "length")] * 2
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 4)


def test_responses_are_answered_whole_and_as_a_stream(provider):
    with SDKS["openai"].client(provider) as client:
        whole = client.responses.create(model="m", input=PROMPT, max_output_tokens=2)
        events = [*client.responses.create(model="m", input=PROMPT, stream=True)]
    assert (whole.output_text, whole.status, whole.usage.total_tokens) == ("one two", "incomplete", 5)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == PROMPT
    assert (events[-1].type, events[-1].response.usage.total_tokens) == ("response.completed", 6)


def test_equal_texts_have_equal_embeddings_of_length_one(provider):
    with SDKS["openai"].client(provider) as client:
        packed = client.embeddings.create(model="m", input=["a b", "c", "a b"], dimensions=100)
        plain = client.embeddings.create(model="m", input="a b", dimensions=100, encoding_format="float")
    first, other, again = [each.embedding for each in packed.data]
    assert first == again != other
    assert first == pytest.approx(plain.data[0].embedding)
    assert len(first) == 100
    assert [math.hypot(*first), math.hypot(*other)] == pytest.approx([1, 1])
    assert packed.usage.prompt_tokens == 5


def test_only_its_key_and_its_models_are_known(sdk):
    with FakeProvider(key="another") as provider:
        assert sdk.ask(provider).status == 401
    with FakeProvider(key=KEY, models=["test-model", "another"]) as provider:
        assert sdk.ask(provider).text == PROMPT
    with FakeProvider(models=["another"]) as provider:
        assert sdk.ask(provider).status == 404


def test_models_are_listed_for_either_sdk():
    with FakeProvider(models=["a", "b"]) as provider:
        for name in ("openai", "anthropic"):
            with SDKS[name].client(provider) as client:
                assert [model.id for model in client.models.list()] == ["a", "b"]


@either_httpx
@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/chat/completions", b"{", 400),
        ("POST", "/chat/completions", b"[]", 400),
        ("POST", "/chat/completions", b"", 400),
        ("POST", "/chat/completions", b"[" * 100_000, 400),
        ("POST", "/chat/completions", b"{}", 200),
        ("POST", "/chat/completions?x=1", b'{"messages": 1, "max_tokens": "x", "n": -1, "model": []}', 200),
        ("GET", "/chat/completions", b"", 404),
        ("POST", "/images", b"{}", 404),
    ],
)
def test_request_without_sense_is_the_callers_error(provider, http, method, path, content, status):
    assert http.request(method, provider.url + path, content=content).status_code == status


# What came


def test_call_is_told_without_its_key(sdk):
    clock = ManualClock()
    with FakeProvider(clock=clock) as provider:
        sdk.ask(provider)
        (call,) = provider.calls
        paths = {
            "openai": "/v1/chat/completions",
            "azure": "/openai/deployments/test-model/chat/completions?api-version=2024-10-21",
            "anthropic": "/v1/messages",
        }
        assert (call.number, call.method, call.path) == (1, "POST", paths[sdk.dialect])
        assert (call.status, call.delivered, call.at_us, call.fault) == (200, True, clock(), Fault.ok())
        assert call.body["messages"] == [{"role": "user", "content": PROMPT}]
        assert call.headers["content-type"] == "application/json"
        assert "(hidden)" in call.headers.values()
        assert KEY not in repr([call, vars(call)])
        assert PROMPT not in repr(call)


@streamed
def test_repeated_call_of_an_sdk_is_a_call_and_says_which(provider, sdk, stream):
    provider.then(Fault.throttled(retry_after_ms=1), Fault.throttled(retry_after_ms=1))
    assert sdk.ask(provider, stream=stream, max_retries=2).text == PROMPT
    assert [call.status for call in provider.calls] == [429, 429, 200]
    assert [call.headers["x-stainless-retry-count"] for call in provider.calls] == ["0", "1", "2"]
    assert [provider.count(), provider.count(429), provider.count(500)] == [3, 2, 0]


@either_httpx
def test_client_that_leaves_a_stream_is_noticed(provider, http):
    provider.then(Fault.ok().slow(0.05))
    body = {"messages": [{"content": "word " * 1000}], "stream": True}
    with http.stream("POST", f"{provider.url}/chat/completions", json=body) as answer:
        next(answer.iter_bytes())
    (call,) = provider.wait_for_calls()
    assert (call.status, call.delivered) == (200, False)


def test_call_that_goes_on_is_neither_delivered_nor_not(provider):
    provider.then(Fault.silent())
    with pytest.raises(TimeoutError):
        provider.wait_for_calls(1, timeout=0.05)
    thread = threading.Thread(target=SDKS["openai"].ask, args=[provider], kwargs={"timeout": 1})
    thread.start()
    (call,) = provider.wait_for_calls(1, ended=False)
    with pytest.raises(TimeoutError, match="delivered=None"):
        provider.wait_for_calls(1, timeout=0.05)
    assert call.delivered is None
    thread.join()
    assert provider.wait_for_calls(1) == [call]


def test_calls_at_once_are_served_at_once(provider):
    provider.always(Fault.ok().late(0.5))
    threads = [threading.Thread(target=SDKS["openai"].ask, args=[provider]) for _ in range(20)]
    for thread in threads:
        thread.start()
    assert len(provider.wait_for_calls(20, ended=False)) == 20
    for thread in threads:
        thread.join()
    assert provider.count(200) == 20


@either_httpx
def test_connection_serves_one_call_after_the_other(provider, http):
    provider.then(Fault.ok(), Fault.throttled(), Fault.ok().cut(1, ending="clean"), Fault.ok())
    with http.Client(limits=http.Limits(max_connections=1)) as client:
        bodies = [{"messages": [{"content": "a b"}], "stream": stream} for stream in (False, False, True, False)]
        answers = [client.post(f"{provider.url}/chat/completions", json=body) for body in bodies]
        streams = {id(answer.extensions["network_stream"]) for answer in answers}
    assert [answer.status_code for answer in answers] == [200, 429, 200, 200]
    assert len(streams) == 1


# Which call meets which fault


def statuses(provider, count):
    with httpx2.Client() as client:
        return [client.post(f"{provider.url}/chat/completions", json={}).status_code for _ in range(count)]


def test_faults_come_in_the_order_in_which_they_were_ordered_and_then_the_usual_one(provider):
    provider.always(Fault.error(500))
    provider.then(Fault.error(409), Fault.ok())
    provider.then(Fault.throttled())
    assert statuses(provider, 5) == [409, 200, 429, 500, 500]
    provider.always(Fault.ok())
    assert statuses(provider, 1) == [200]


def test_faults_by_chance_are_the_same_for_the_same_seed():
    def drawn(seed, share):
        with FakeProvider() as provider:
            provider.at_random(seed, share, [Fault.error(500), Fault.throttled()])
            return statuses(provider, 200)

    assert drawn(1, 0.3) == drawn(1, 0.3) != drawn(2, 0.3)
    assert 30 < sum(status != 200 for status in drawn(1, 0.3)) < 90
    assert set(drawn(1, 1)) == {500, 429}
    assert set(drawn(1, 0)) == {200}


@pytest.mark.parametrize(("share", "faults"), [(1.1, [Fault.ok()]), (-0.1, [Fault.ok()]), (0.5, [])])
def test_chance_without_sense_is_refused(provider, share, faults):
    with pytest.raises(ValueError, match="share: a number from 0 to 1 is needed"):
        provider.at_random(1, share, faults)


# Away, and at its end


@either_httpx
def test_provider_that_was_away_is_on_the_same_port(provider, http):
    with http.Client() as client:
        for _ in range(3):
            url = f"{provider.url}/models"
            assert client.get(url).status_code == 200  # Its connection is kept, and ended by the provider.
            with provider.away(), pytest.raises(http.ConnectError):
                client.get(url)
        assert client.get(url).status_code == 200


def test_call_in_flight_goes_on_while_the_provider_is_away(provider):
    provider.then(Fault.ok().slow(0.1))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(SDKS["openai"].ask(provider, stream=True)))
    thread.start()
    provider.wait_for_calls(1, ended=False)
    with provider.away():
        thread.join()
    assert seen[0].text == PROMPT


def test_end_ends_every_call_every_thread_and_the_port():
    with FakeProvider(limits={"requests": 100}) as provider:
        port = int(provider.url.split(":")[2].partition("/")[0])
        provider.then(Fault.silent(), Fault.ok().late(3600), Fault.ok().slow(3600))
        asked = [
            threading.Thread(target=SDKS["openai"].ask, args=[provider], kwargs={"stream": True, "timeout": 3600})
            for _ in range(3)
        ]
        for thread in asked:
            thread.start()
        provider.wait_for_calls(3, ended=False)
    for thread in asked:
        thread.join(10)
    assert [call.delivered for call in provider.calls] == [False] * 3
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fake provider")]
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{port}/v1/models")


def test_end_comes_also_while_it_is_away():
    with FakeProvider() as provider, provider.away():
        pass
    with pytest.raises(httpx2.ConnectError), FakeProvider() as provider, provider.away():
        httpx2.get(f"{provider.url}/models")


def test_hung_call_does_not_keep_the_process():
    code = """
import threading
from flask_ailimit.testing import FakeProvider, Fault
import httpx2

provider = FakeProvider().__enter__()
provider.then(Fault.silent())
threading.Thread(target=httpx2.get, args=[provider.url], kwargs={"timeout": 3600}, daemon=True).start()
provider.wait_for_calls(1, ended=False)
print("came")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "came\n"), ran.stderr


def test_provider_serves_greenlets_too():
    code = """
from gevent import monkey
monkey.patch_all()
import gevent, httpx2
from flask_ailimit.testing import FakeProvider, Fault

def ask():
    body = {"messages": [{"content": "a b"}], "stream": True}
    try:
        return httpx2.post(provider.url + "/chat/completions", json=body, timeout=1).status_code
    except httpx2.TransportError as error:
        return type(error).__name__

with FakeProvider() as provider:
    provider.then(Fault.silent(), Fault.ok().late(0.1), Fault.ok().slow(0.01), Fault.dropped())
    asked = [gevent.spawn(ask) for _ in range(4)]
    gevent.joinall(asked)
    print(sorted(str(each.value) for each in asked), [call.delivered for call in provider.wait_for_calls()])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ran.stdout == "['200', '200', 'ReadError', 'ReadTimeout'] [False, True, True, False]\n", ran.stderr


def test_provider_outside_of_its_block_says_what_is_missing():
    with pytest.raises(RuntimeError, match="only inside `with"):
        FakeProvider().url  # noqa: B018  it raises
