import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine.errors import ConfigurationError
from flask_ailimit.tokens import COUNTERS, open_counter

SURROGATES = ["\ud800", "a\udfffb", "\ude00\ud83d", "\ud83d\ude00", "\ud800" * 1000]


@pytest.fixture(scope="module", params=sorted(COUNTERS))
def counter(request):
    if request.param != "estimate":
        pytest.importorskip("toktok")
    return open_counter(request.param)


def test_the_default_counter_needs_no_package_and_is_no_exact_one():
    assert (open_counter()(""), open_counter().exact) == (0, False)


@given(text=st.text(st.characters(exclude_categories=())))
def test_every_counter_counts_every_text(counter, text):
    count = counter(text)
    assert type(count) is int
    assert bool(text) <= count <= max(4 * len(text), 4)


@pytest.mark.parametrize("text", SURROGATES, ids=ascii)
def test_lone_surrogates_are_counted(counter, text):
    assert counter(text) >= 1


def test_a_surrogate_pair_counts_as_its_character():
    pytest.importorskip("toktok")
    exact = open_counter("o200k_base")
    assert exact("\ud83d\ude00") == exact("\U0001f600")


# Counts of OpenAI's tiktoken.
@pytest.mark.parametrize(
    ("encoding", "text", "tokens"),
    [
        ("o200k_base", "", 0),
        ("o200k_base", "hello world", 2),
        ("o200k_base", "tiktoken is great!", 6),
        ("cl100k_base", "tiktoken is great!", 6),
        ("o200k_base", "antidisestablishmentarianism", 6),
        ("cl100k_base", "antidisestablishmentarianism", 6),
        ("o200k_base", "お誕生日おめでとう", 8),
        ("cl100k_base", "お誕生日おめでとう", 9),
        ("o200k_base", "2 + 2 = 4", 7),
        ("cl100k_base", "2 + 2 = 4", 7),
        ("o200k_base", "<|endoftext|>", 7),
    ],
)
def test_exact_counters_count_as_openai_does(encoding, text, tokens):
    pytest.importorskip("toktok")
    exact = open_counter(encoding)
    assert (exact(text), exact.exact) == (tokens, True)


def test_counting_exactly_lets_other_threads_run():
    pytest.importorskip("toktok")
    assert_lets_others_run(open_counter("o200k_base"), "-" * 400_000)


def test_estimating_lets_other_threads_run():
    assert_lets_others_run(open_counter(), "\u4e2d\u0439 a1" * 600_000)


def assert_lets_others_run(counter, text):
    def turns():
        counting = threading.Thread(target=counter, args=(text,))
        turns = 0
        counting.start()
        while counting.is_alive():
            turns += 1
            counting.join(0.001)
        return turns

    # Who waits may itself not be scheduled while the other counts.
    assert any(turns() > 5 for _ in range(10))


def test_a_function_is_a_counter():
    counter = open_counter(len)
    assert (counter("abc"), counter.exact) == (3, False)


@pytest.mark.parametrize(("given", "exact"), [(True, True), (False, False), ("yes", False), (1, False)])
def test_a_function_can_say_that_it_is_exact(given, exact):
    def words(text):
        return len(text.split())

    words.exact = given
    assert open_counter(words).exact is exact


@pytest.mark.parametrize("answer", [None, -1, 1.5, True, "3", float("nan"), [1, 2]], ids=repr)
def test_a_function_that_answers_no_number_is_a_configuration_error(answer):
    with pytest.raises(ConfigurationError, match="must answer a whole number of tokens"):
        open_counter(lambda _: answer)


@pytest.mark.parametrize("name", ["o200k", "O200K_BASE", "o200k-base"])
def test_a_misspelt_name_gets_a_suggestion(name):
    with pytest.raises(ConfigurationError, match="Did you mean 'o200k_base'"):
        open_counter(name)


@pytest.mark.parametrize("name", ["", "llama", "x" * 1000, None, 5, ("estimate",)], ids=lambda name: f"{name!r:.10}")
def test_an_unknown_name_gets_the_known_ones(name):
    with pytest.raises(ConfigurationError, match="'cl100k_base', 'estimate', 'o200k_base', or a function") as error:
        open_counter(name)
    assert len(str(error.value)) < 250


def test_a_missing_package_is_a_configuration_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "toktok", None)
    with pytest.raises(ConfigurationError, match=r'pip install "flask-ailimit\[tokens\]"'):
        open_counter("o200k_base")
