"""The rate limit of the provider's own."""

import threading

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sdk_users import PROMPT, SDKS

from flask_ailimit.engine import ConfigurationError
from flask_ailimit.fake_provider.connection import Connection
from flask_ailimit.testing import FakeProvider, Fault, ManualClock


@pytest.fixture
def clock():
    return ManualClock()


def ask(provider, words=1, path="/chat/completions", **body):
    """Ask with so many words."""
    body = {"messages": [{"content": "word " * words}]} | body
    return httpx2.post(provider.url + path, json=body)


def test_no_more_requests_are_allowed_than_the_limit_says(sdk, clock):
    with FakeProvider(limits={"requests": "3 per minute"}, clock=clock) as provider:
        assert [sdk.ask(provider).status for _ in range(5)] == [None, None, None, 429, 429]
        clock.advance(20)
        assert [sdk.ask(provider).status for _ in range(2)] == [None, 429]


def test_refusal_says_how_long_to_wait_and_it_is_so(sdk, clock):
    with FakeProvider(limits={"requests": 3}, clock=clock) as provider:
        for _ in range(3):
            sdk.ask(provider)
        clock.advance(0.5)
        error = sdk.ask(provider).error
        headers = error.response.headers
        assert headers["retry-after"] == "20"
        assert headers.get("retry-after-ms") == (None if sdk.dialect == "anthropic" else "19500")
        clock.advance(19.499)
        assert sdk.ask(provider).status == 429
        clock.advance(0.001)
        assert sdk.ask(provider).status is None


def test_call_reserves_its_prompt_and_most_answer_and_pays_what_it_used(clock):
    with FakeProvider(limits={"tokens": 100}, clock=clock) as provider:
        left = [ask(provider, 3, max_tokens=50).headers["x-ratelimit-remaining-tokens"] for _ in range(2)]
        assert left == ["47", "41"]  # 100 - 53, and 100 - 6 - 53.
        assert ask(provider, 3, max_tokens=90).status_code == 429


def test_input_and_output_are_limited_apart(clock):
    with FakeProvider(limits={"input_tokens": 10, "output_tokens": 5}, clock=clock) as provider:
        assert ask(provider, 4, max_tokens=2).status_code == 200
        assert ask(provider, 4, max_tokens=4).status_code == 429  # 3 of output are left,
        assert ask(provider, 4, max_tokens=3).status_code == 200
        assert ask(provider, 4, max_tokens=1).status_code == 429  # and 2 of input.


def test_request_larger_than_the_limit_never_fits_and_is_told_no_wait(sdk, clock):
    with FakeProvider(limits={"tokens": 5}, clock=clock) as provider:
        error = sdk.ask(provider).error
    assert error.status_code == (413 if sdk.dialect == "anthropic" else 429)
    assert "retry-after" not in error.response.headers
    if sdk.dialect != "anthropic":
        assert error.body["message"].startswith("Request too large")


def headers_of(sdk, provider):
    with sdk.client(provider) as client:
        if sdk.dialect == "anthropic":
            raw = client.messages.with_raw_response
            made = raw.create(model="m", messages=[{"role": "user", "content": PROMPT}], max_tokens=7)
        else:
            made = client.chat.completions.with_raw_response.create(
                model="m", messages=[{"role": "user", "content": PROMPT}], max_tokens=7
            )
    return {name: value for name, value in made.headers.items() if "ratelimit" in name}


def test_what_is_left_is_told_as_the_api_tells_it(clock):
    with FakeProvider(limits={"requests": 60, "tokens": 600}, clock=clock) as provider:
        assert headers_of(SDKS["openai"], provider) == {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-limit-tokens": "600",
            "x-ratelimit-remaining-tokens": "590",
            "x-ratelimit-reset-tokens": "1s",
        }
        clock.advance(60)
        assert headers_of(SDKS["azure"], provider) == {
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-remaining-tokens": "590",
        }
        clock.advance(60)
        assert headers_of(SDKS["anthropic"], provider) == {
            "anthropic-ratelimit-requests-limit": "60",
            "anthropic-ratelimit-requests-remaining": "59",
            "anthropic-ratelimit-requests-reset": "2024-10-04T00:02:01Z",
            "anthropic-ratelimit-tokens-limit": "600",
            "anthropic-ratelimit-tokens-remaining": "590",
            "anthropic-ratelimit-tokens-reset": "2024-10-04T00:02:01Z",
        }


def test_somebody_else_can_use_a_part_of_the_account(clock):
    with FakeProvider(limits={"requests": 10, "tokens": 100}, clock=clock) as provider:
        assert provider.take(requests=4, tokens=90)
        assert not provider.take(tokens=11)
        assert ask(provider, 1, max_tokens=10).status_code == 429
        headers = ask(provider, 1, max_tokens=9).headers
        assert headers["x-ratelimit-remaining-requests"] == "5"
        assert headers["x-ratelimit-remaining-tokens"] == "0"
        assert provider.count() == 2
        with pytest.raises(ValueError, match=r"take: input_tokens are not limited here\. Limited: requests, tokens"):
            provider.take(input_tokens=1)


def test_error_to_order_and_silence_cost_nothing(clock):
    with FakeProvider(limits={"requests": 1}, clock=clock) as provider:
        provider.then(Fault.error(500), Fault.throttled(), Fault.dropped(), Fault.silent())
        for _ in range(4):
            SDKS["openai"].ask(provider, timeout=0.3)
        assert [ask(provider).status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(("stream", "left"), [(False, [47, 94]), (True, [47] * 6 + [94] * 2)])
def test_who_has_the_whole_answer_has_paid_for_it(clock, monkeypatch, stream, left):
    found = []
    send = Connection.send

    def send_and_look(connection, data):
        found.append(provider._limits.reserve({}).decision.verdicts[0].remaining)
        send(connection, data)

    monkeypatch.setattr(Connection, "send", send_and_look)
    with FakeProvider(limits={"tokens": 100}, clock=clock) as provider:
        ask(provider, 3, max_tokens=50, stream=stream)
        provider.wait_for_calls()
    assert found == left  # Before the head, each piece, and the end of a stream.


@pytest.mark.parametrize("ending", ["reset", "close", "clean"])
def test_stream_that_is_cut_pays_what_it_sent(clock, ending):
    with FakeProvider(limits={"tokens": 100}, clock=clock) as provider:
        provider.then(Fault.ok().cut(after=3, ending=ending))  # The beginning, and two words.
        SDKS["openai"].ask(provider, stream=True)
        assert ask(provider, 1, max_tokens=1).headers["x-ratelimit-remaining-tokens"] == str(100 - 3 - 2 - 2)


def test_client_that_leaves_pays_what_was_sent(clock):
    with FakeProvider(limits={"tokens": 10_000}, clock=clock) as provider:
        provider.then(Fault.ok().slow(0.05))
        body = {"messages": [{"content": "word " * 1000}], "stream": True}
        with httpx2.stream("POST", f"{provider.url}/chat/completions", json=body) as answer:
            next(answer.iter_bytes())
        provider.wait_for_calls()
        left = int(ask(provider, 1, max_tokens=1).headers["x-ratelimit-remaining-tokens"])
    assert 8900 < left <= 8998


def test_told_usage_changes_nothing_that_is_paid(clock):
    with FakeProvider(limits={"tokens": 100}, clock=clock) as provider:
        provider.then(Fault.ok().telling(input_tokens=10**9, output_tokens=-1))
        ask(provider, 2)
        assert ask(provider, 2).headers["x-ratelimit-remaining-tokens"] == "92"


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5), st.sampled_from([0, 0.3, 2, 61])), max_size=12))
def test_no_more_tokens_are_ever_used_than_the_limit_allows(asked):
    clock = ManualClock()
    start, used = clock(), 0
    with FakeProvider(limits={"tokens": 20}, clock=clock) as provider, httpx2.Client(verify=False) as client:
        for words, most, wait in asked:
            clock.advance(wait)
            body = {"messages": [{"content": "word " * words}]} | ({"max_tokens": most} if most else {})
            answer = client.post(f"{provider.url}/chat/completions", json=body)
            if answer.status_code == 200:
                used += answer.json()["usage"]["total_tokens"]
            assert used <= 20 + (clock() - start) / 3e6


def test_threads_get_no_more_than_the_limit(clock):
    with FakeProvider(limits={"requests": 30}, clock=clock) as provider:

        def work():
            with httpx2.Client() as client:
                for _ in range(10):
                    client.post(f"{provider.url}/chat/completions", json={})

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [provider.count(status) for status in (200, 429)] == [30, 50]


@pytest.mark.parametrize(("limits", "error"), [({"requests": "many"}, ConfigurationError), ({"images": 5}, ValueError)])
def test_limit_without_sense_is_refused(limits, error):
    with pytest.raises(error):
        FakeProvider(limits=limits)
