"""A bucket that the provider counts as well: what it tells is at least used, and otherwise it is a token bucket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import Charge, Engine, Quota, Settlement
from flask_ailimit.engine.algorithms import provider_bucket, token_bucket
from flask_ailimit.engine.reservation import end_together
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import START_US

SECOND = 1_000_000
LIMITS = [1, 3, 10, 100, 123_457, 10**9 + 7]


def quotas_of(limit, burst):
    return [Quota(limit, 60, "tokens", name, burst) for name in ("provider-bucket", "token-bucket")]


steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "settle"]),
        st.integers(0, 200),
        st.integers(0, 200),
        st.sampled_from([0, 0, 1, SECOND, 20 * SECOND, 90 * SECOND, -7 * SECOND]),
        st.booleans(),
    ),
    max_size=40,
)


@given(limit=st.sampled_from(LIMITS), burst=st.sampled_from([None, 1, 50]), steps=steps)
def test_it_is_a_token_bucket_as_long_as_nothing_is_told(limit, burst, steps):
    provider, plain = quotas_of(limit, burst)
    changed = quotas_of(limit * 2, burst)
    states, now = [(), ()], START_US
    for what, cost, actual, pause, is_changed in steps:
        quotas = changed if is_changed else (provider, plain)
        if what == "ask":
            each = [
                rule.admit(state, now, quota, cost, 1)
                for rule, state, quota in zip((PROVIDER, PLAIN), states, quotas, strict=True)
            ]
            assert each[0] == each[1]
            states = [step.state for step in each]
        else:
            settled = (START_US, cost, actual if cost else 0, 1)
            states = [
                rule.settle(state, now, quota, *settled)
                for rule, state, quota in zip((PROVIDER, PLAIN), states, quotas, strict=True)
            ]
        assert states[0] == states[1]
        if states[0]:
            assert PROVIDER.expires(states[0], provider) == PLAIN.expires(states[1], plain)
        now += pause


PROVIDER, PLAIN = provider_bucket.PROVIDER_BUCKET, token_bucket.TOKEN_BUCKET


def left(state, now, quota):
    return PROVIDER.admit(state, now, quota, 0, 1).remaining


def told(state, now, quota, units):
    return PROVIDER.settle(state, now, quota, 0, 0, units, 1)


@given(
    limit=st.sampled_from(LIMITS),
    burst=st.sampled_from([None, 1, 50]),
    used=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 20 * SECOND)), max_size=8),
    units=st.integers(1, 10**10),
)
def test_what_is_told_is_at_least_used_and_never_raises_what_is_left(limit, burst, used, units):
    quota, _ = quotas_of(limit, burst)
    state, now = (), START_US
    for cost, pause in used:
        state = PROVIDER.admit(state, now, quota, cost, 1).state
        now += pause
    before, after = left(state, now, quota), told(state, now, quota, units)
    tick = (now - START_US) % quota.tick_us  # Within a tick nothing leaks.
    assert left(after, now, quota) == min(before, max(0, quota.burst - units)) or tick
    assert left(after, now, quota) <= before
    assert told(after, now, quota, units) == after


def test_what_is_told_beyond_the_burst_is_owed_as_far_as_a_debt_goes():
    quota = Quota(10, 60, "tokens", "provider-bucket", 5)
    assert PROVIDER.admit(told((), START_US, quota, 7), START_US, quota, 1, 1).retry_after_us == 18 * SECOND
    state = told((), START_US, quota, 10**6)
    assert state[0] == quota.most_debt
    assert PROVIDER.admit(state, START_US, quota, 1, 1).retry_after_us == (4 * 60 + 6) * SECOND


def test_what_was_reserved_is_given_back_also_after_something_was_told():
    quota = Quota(100, 60, "tokens", "provider-bucket")
    state = PROVIDER.admit((), START_US, quota, 40, 1).state
    state = told(state, START_US, quota, 70)
    assert left(state, START_US, quota) == 30
    state = PROVIDER.settle(state, START_US, quota, START_US, 40, 10, 1)
    assert left(state, START_US, quota) == 60


def test_it_is_told_under_the_limit_that_was_last_decided_by():
    small, large = Quota(10, 60, "tokens", "provider-bucket"), Quota(100, 60, "tokens", "provider-bucket")
    state = PROVIDER.admit((), START_US, small, 1, 1).state
    assert left(told(state, START_US, large, 50), START_US, small) == 0


@pytest.fixture
def engine(clock):
    engine = Engine(MemoryStore(clock), secret=b"0123456789abcdef")
    yield engine
    engine.close()


def test_ending_and_telling_are_one_step(engine):
    tokens = Charge(engine.subject("openai"), Quota(100, 60, "tokens", "provider-bucket"), 40)
    reservation = engine.reserve([tokens])
    also = [Settlement(tokens.costing(0), 0, 70, 0)]
    calls = []
    settle = engine.store.settle
    engine.store.settle = lambda settlements: calls.append(settlements) or settle(settlements)
    assert end_together([reservation], lambda _: 10, also).was_open
    assert not end_together([reservation], lambda _: 10, also).was_open
    assert [len(each) for each in calls] == [2]
    assert engine.peek([tokens]).verdicts[0].remaining == 30


def test_what_a_call_used_beyond_no_reservation_is_charged_and_not_told(engine):
    charge = Charge(engine.subject("openai"), Quota(100, 60, "tokens", "provider-bucket"), 30)
    assert engine.reserve([charge]).settle({})
    assert engine.reserve([charge.costing(0)]).settle({"tokens": 20})
    assert engine.peek([charge]).verdicts[0].remaining == 50
