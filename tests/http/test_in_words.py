"""The names of an app's functions, and its settings, as the commands say them."""

from functools import partial

import pytest

from flask_ailimit import ConcurrencyLimit, TokenLimit, api_key, api_key_in
from flask_ailimit.limits.in_words import name_of, setting_of


class Plans:
    def __call__(self):
        return "5 per day"

    def of_caller(self):
        return "5 per day"


def made():
    def inner():
        pass

    return inner


ONE_LINE = lambda: "5 per day"  # noqa: E731  it is to be one


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (api_key, "flask_ailimit.limits.keys.api_key"),
        (api_key_in("x-api-key"), "flask_ailimit.limits.keys.api_key_in('x-api-key')"),
        (Plans(), "test_in_words.Plans"),
        (Plans().of_caller, "test_in_words.Plans.of_caller"),
        (made(), "test_in_words.made.<locals>.inner"),
        (partial(made), "partial of test_in_words.made"),
        (ONE_LINE, f"test_in_words.<lambda> (line {ONE_LINE.__code__.co_firstlineno})"),
        ("5 per day".upper, "str.upper"),
    ],
)
def test_function_is_named_by_module_and_qualified_name(function, name):
    assert name_of(function) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("hybrid", "hybrid"),
        (None, "None"),
        (4, "4"),
        (["900 per day", made], "['900 per day', test_in_words.made]"),
        ((), "[]"),
        (api_key, "flask_ailimit.limits.keys.api_key"),
        (
            [TokenLimit("9 per day", name="plan", key_func=api_key)],
            "[TokenLimit('9 per day', name='plan', key_func=flask_ailimit.limits.keys.api_key)]",
        ),
        (ConcurrencyLimit(made), "ConcurrencyLimit(test_in_words.made)"),
    ],
)
def test_setting_is_shown_as_it_was_written(value, text):
    assert setting_of(value) == text
