"""The official OpenAI and Anthropic clients against a real server."""

import threading
from itertools import count

import anthropic
import openai
import pytest
from demo_doors import KEY

ASK = [{"role": "user", "content": "Three words please"}]
TEXT = "All good things come in threes."


@pytest.fixture
def gpt(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def claude(address):
    with anthropic.Anthropic(base_url=address, api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


def test_openai_gets_an_answer(gpt):
    answer = gpt.chat.completions.create(model="scripted", messages=ASK, temperature=0)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 6, 9)


def test_openai_gets_a_stream_with_usage(gpt):
    options = {"include_usage": True}
    stream = gpt.chat.completions.create(model="scripted", messages=ASK, stream=True, stream_options=options)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == TEXT
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 6)


def test_openai_gets_a_stream_by_its_helper(gpt):
    with gpt.chat.completions.stream(model="scripted", messages=ASK, max_completion_tokens=9) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == TEXT
    assert final.choices[0].finish_reason == "stop"


def test_openai_lists_the_model(gpt):
    assert [model.id for model in gpt.models.list()] == ["scripted", "small-scripted", "large-scripted"]


def test_openai_raises_its_own_errors(gpt, model):
    with pytest.raises(openai.NotFoundError) as error:
        gpt.chat.completions.create(model="gpt-4o", messages=ASK)
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    assert error.value.request_id.startswith("req_")
    with pytest.raises(openai.BadRequestError) as error:
        gpt.chat.completions.create(model="scripted", messages=[], n=1)
    assert error.value.code == "invalid_messages"
    model.context = 5
    with pytest.raises(openai.BadRequestError) as error:
        gpt.chat.completions.create(model="scripted", messages=ASK, stream=True)
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.AuthenticationError) as error:
        gpt.with_options(api_key="wrong-key-here").models.list()
    assert error.value.code == "invalid_api_key"
    with pytest.raises(openai.APIStatusError) as error:
        gpt.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "x" * 2_000_000}])
    assert (error.value.status_code, error.value.code) == (413, "request_too_large")


def test_openai_raises_when_the_model_breaks_in_a_stream(gpt, model):
    model.breaks_after = 2
    with pytest.raises(openai.APIError, match="The model failed"):
        list(gpt.chat.completions.create(model="scripted", messages=ASK, stream=True))


def test_anthropic_gets_an_answer(claude):
    answer = claude.messages.create(model="scripted", messages=ASK, max_tokens=64, system="Be kind")
    assert answer.content[0].text == TEXT
    assert answer.stop_reason == "end_turn"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 6)


def test_anthropic_gets_a_stream_with_usage(claude):
    with claude.messages.stream(model="scripted", messages=ASK, max_tokens=2) as stream:
        assert "".join(stream.text_stream) == "All good"
        final = stream.get_final_message()
    assert final.stop_reason == "max_tokens"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (3, 2)


def test_anthropic_raises_its_own_errors(claude, model):
    with pytest.raises(anthropic.NotFoundError) as error:
        claude.messages.create(model="claude", messages=ASK, max_tokens=8)
    assert error.value.type == "not_found_error"
    assert error.value.request_id.startswith("req_")
    with pytest.raises(anthropic.BadRequestError) as error:
        claude.messages.create(model="scripted", messages=ASK, max_tokens=0)
    assert error.value.type == "invalid_request_error"
    with pytest.raises(anthropic.AuthenticationError) as error:
        claude.with_options(api_key="wrong-key-here").messages.create(model="scripted", messages=ASK, max_tokens=8)
    assert error.value.type == "authentication_error"
    with pytest.raises(anthropic.APIStatusError) as error:
        claude.messages.create(model="scripted", messages=[{"role": "user", "content": "x" * 20_000}], max_tokens=8)
    assert (error.value.status_code, error.value.type) == (413, "request_too_large")


def test_anthropic_raises_when_the_model_breaks_in_a_stream(claude, model):
    model.breaks_after = 2
    with (
        pytest.raises(anthropic.APIStatusError, match="The model failed"),
        claude.messages.stream(model="scripted", messages=ASK, max_tokens=64) as stream,
    ):
        stream.get_final_message()


def test_a_client_that_hangs_up_ends_the_work(gpt, model):
    hung_up, left = threading.Event(), threading.Event()
    model.words = ("word",) * 1000
    model.on_end = left.set
    spoken = count()
    model.before_token = lambda: next(spoken) < 3 or hung_up.wait(60)
    stream = gpt.chat.completions.create(model="scripted", messages=ASK, stream=True, max_tokens=1000)
    next(iter(stream))
    stream.close()
    hung_up.set()
    assert left.wait(60)
    assert (model.finished, model.abandoned) == (0, 1)
