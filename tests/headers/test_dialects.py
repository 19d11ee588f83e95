"""The table of dialects, and what holds for every header that they write."""

import re

import pytest
from header_decisions import SECOND, UNITS, allowed, decided, decisions, refusals, waits
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine.decision import Decision
from flask_ailimit.engine.errors import ConfigurationError
from flask_ailimit.engine.quota import Quota
from flask_ailimit.headers import DEFAULT_DIALECTS, DIALECTS, exposed_names, limit_headers, require_dialects

TOKEN = re.compile(r"[A-Za-z0-9-]+")
COUNT = re.compile(r"0|[1-9][0-9]*")


@given(decisions)
def test_every_header_is_printable_and_announced_by_its_dialect(decision):
    for dialect in DIALECTS.values():
        headers = list(dialect.write(decision))
        names = [name for name, _ in headers]
        assert set(names) <= set(dialect.names)
        assert len(names) == len(set(names))
        for name, value in headers:
            assert TOKEN.fullmatch(name)
            assert re.fullmatch(r"[\x20-\x7e]+", value)


@given(decisions)
def test_counts_are_never_negative_and_never_more_than_the_limit(decision):
    headers = limit_headers(decision, ["x-ratelimit", "openai", "anthropic"])
    values = {name.lower(): value for name, value in headers}
    for name, value in values.items():
        if "limit" in name.replace("ratelimit", "") or "remaining" in name:
            assert COUNT.fullmatch(value)
        if "remaining" in name:
            assert int(value) <= int(values[name.replace("remaining", "limit")])


@given(decisions, st.sets(UNITS))
def test_the_verdict_that_speaks_for_some_units_would_bind_if_there_were_no_others(decision, units):
    alone = tuple(verdict for verdict in decision.verdicts if verdict.quota.unit in units)
    assert decision.binding_of(units) is Decision(alone, decision.at_us).binding


@given(refusals)
def test_no_refusal_reports_enough_left_for_the_charge_that_it_refused(decision):
    binding = decision.binding
    headers = dict(limit_headers(decision, ["x-ratelimit", "openai"]))
    assert int(headers["X-RateLimit-Remaining"]) < binding.charge.cost
    if "token" in binding.charge.quota.unit:
        assert int(headers["x-ratelimit-remaining-tokens"]) < binding.charge.cost


@given(waits)
def test_who_sleeps_until_the_reset_is_never_early(decision):
    reset = int(dict(limit_headers(decision, ["x-ratelimit"]))["X-RateLimit-Reset"])
    assert reset * SECOND >= decision.at_us + decision.retry_after_us


def test_headers_come_in_the_order_of_the_dialects():
    decision = decided(allowed(Quota(60, 60), 59, SECOND))
    names = [name for name, _ in limit_headers(decision, ["ietf", "x-ratelimit"])]
    assert names == [
        "RateLimit-Policy",
        "RateLimit",
        "X-RateLimit-Limit",
        "X-RateLimit-Remaining",
        "X-RateLimit-Reset",
    ]
    assert limit_headers(decision, []) == []


def test_exposed_names_cover_every_header_of_the_dialects_and_of_a_refusal():
    names = exposed_names(DEFAULT_DIALECTS).split(", ")
    assert "*" not in names
    assert len(names) == len(set(names))
    assert {"RateLimit", "X-RateLimit-Reset", "x-ratelimit-remaining-tokens"} <= set(names)
    assert {"Retry-After", "retry-after-ms", "x-should-retry", "x-request-id", "request-id"} <= set(names)
    assert "x-ratelimit-near-limit" in names
    assert "x-ratelimit-near-limit" not in exposed_names([])
    assert not any(name.startswith("anthropic") for name in names)
    assert "anthropic-ratelimit-input-tokens-reset" in exposed_names(["anthropic"])


def test_default_dialects_are_known():
    assert require_dialects(DEFAULT_DIALECTS) == DEFAULT_DIALECTS


def test_names_of_dialects_are_checked_and_kept_once_in_order():
    assert require_dialects(["ietf", "openai", "ietf"]) == ("ietf", "openai")
    assert require_dialects([]) == ()


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["opnai"], "headers: no dialect is called 'opnai'. Did you mean 'openai'?"),
        (["x-ratelimit", "Anthropic"], "no dialect is called 'Anthropic'. Did you mean 'anthropic'?"),
        (["zzz"], "no dialect is called 'zzz'. Known: 'x-ratelimit', 'openai', 'ietf', 'anthropic'."),
        ([None], "no dialect is called 'None'."),
        ([["openai"]], "no dialect is called"),
        ("openai", "a list of dialects is needed, such as ['openai']. Got 'openai'."),
        (True, "a list of dialects is needed, such as ['openai']. Got 'True'."),
        (["a\r\nSet-Cookie: b"], r"no dialect is called 'a\r\nSet-Cookie: b'."),
    ],
)
def test_unknown_dialect_is_refused_with_a_sentence_that_helps(names, sentence):
    with pytest.raises(ConfigurationError, match=re.escape(sentence)):
        require_dialects(names)


def test_error_names_the_setting():
    with pytest.raises(ConfigurationError, match=r"^AILIMIT_HEADERS: no dialect"):
        require_dialects(["x"], setting="AILIMIT_HEADERS")
