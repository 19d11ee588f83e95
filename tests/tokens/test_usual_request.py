"""The short way to read a usual request says what the long way says, or nothing."""

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.tokens import open_counter, request
from flask_ailimit.tokens.usual_request import read_usual_request


def words(text):
    return len(text.split())


words.exact = True
COUNTERS = {"estimated": open_counter("estimate"), "exact": open_counter(words)}

texts = st.text(st.sampled_from("ab \n\u6f22"), max_size=20)
odd = st.one_of(st.none(), st.booleans(), st.integers(-1, 60), st.floats(), texts, st.lists(texts, max_size=2))
messages = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": texts, "content": texts}),
        st.fixed_dictionaries({"content": st.one_of(texts, odd), "role": texts}, optional={"name": texts}),
        odd,
    ),
    max_size=3,
)
bodies = st.fixed_dictionaries(
    {"messages": st.one_of(messages, odd)},
    optional={
        name: st.one_of(st.integers(1, 60), st.sampled_from([2**53 - 1, 2**53]), odd)
        for name in (
            "max_tokens",
            "max_completion_tokens",
            "Max_Tokens",
            "temperature",
            "stream",
            "top_p",
            "n",
            "model",
        )
    },
)


@pytest.mark.parametrize("counter", COUNTERS.values(), ids=COUNTERS)
@given(body=bodies)
def test_short_way_agrees_with_the_long_way(counter, body):
    found = request.estimate_with_models(body, counter, 100)
    with mock.patch.object(request, "read_usual_request", return_value=None):
        assert found == request.estimate_with_models(body, counter, 100)


def test_usual_request_takes_the_short_way():
    body = {"model": "m", "messages": [{"role": "user", "content": "one two"}], "max_tokens": 9, "stream": True}
    assert read_usual_request(body) == (["user", "one two"], 6, 9, ["m"])


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "one"}]}]},
        {"messages": [{"role": "user", "content": "one", "name": "two"}]},
        {"messages": [{"role": "user", "content": "one"}], "max_tokens": "9000"},
        {"messages": [{"role": "user", "content": "one"}], "tools": [{"name": "f"}]},
        {"messages": [{"role": "user", "content": "one"}], "n": 2},
    ],
)
def test_any_other_request_takes_the_long_way(body):
    assert read_usual_request(body) is None
