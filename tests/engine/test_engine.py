import itertools
import random
import subprocess
import sys

import pytest
from children import exit_code_of_child
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import Charge, ConfigurationError, Engine, Quota
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.testing import ManualClock

SECRET = b"0123456789abcdef"
identities = st.lists(st.text(alphabet=":{}|\0é \ud800ab", max_size=4), max_size=4)


@pytest.mark.parametrize("secret", [b"short", b"x" * 15, b"x" * 65])
def test_secret_that_is_too_short_or_too_long_is_refused(secret):
    with pytest.raises(ConfigurationError, match=rf"secret: 16 to 64 bytes are needed\. Got {len(secret)}\."):
        Engine(MemoryStore(), secret=secret)


@given(identities, identities)
def test_different_identities_are_different_subjects(one, other):
    engine = Engine(MemoryStore(), secret=SECRET)
    assert (engine.subject(*one) == engine.subject(*other)) == (one == other)


def test_parts_of_an_identity_are_kept_apart():
    engine = Engine(MemoryStore())
    pairs = [("a:b", "c"), ("a", "b:c"), ("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ()]
    assert len({engine.subject(*identity) for identity in pairs}) == len(pairs)


def test_subject_depends_on_the_secret_and_shows_nothing_of_the_identity():
    one, same, other = (Engine(MemoryStore(), secret=secret) for secret in (SECRET, SECRET, SECRET[::-1]))
    assert one.subject("sk-canary") == same.subject("sk-canary") != other.subject("sk-canary")
    assert len(one.subject("sk-canary" * 1000)) == 16
    assert Engine(MemoryStore()).subject("user-1") != Engine(MemoryStore()).subject("user-1")


def test_counts_of_different_scopes_units_periods_and_algorithms_are_apart():
    engine = Engine(MemoryStore(ManualClock()))
    user = engine.subject("user-1")
    quotas = [Quota(10, 60), Quota(10, 61), Quota(10, 60, "tokens"), Quota(10, 60, algorithm="fixed-window")]
    charges = [Charge(user, quota, 2, scope) for quota, scope in itertools.product(quotas, ["", "a", "b"])]
    assert len({charge.bucket for charge in charges}) == len(charges)
    assert engine.reserve(charges).allowed
    assert all(
        v.remaining == v.charge.quota.burst - 2
        for v in engine.peek([Charge(c.subject, c.quota, 0, c.scope) for c in charges]).verdicts
    )


@pytest.mark.parametrize("cost", [-1, 1.0, True, None, "1", float("nan"), float("inf"), 2**53, 10**400])
def test_cost_that_is_no_count_never_reaches_a_store(cost):
    with pytest.raises(ValueError, match="cost: a whole number from 0 to 9007199254740991 is needed") as refused:
        Charge(bytes(16), Quota(1, 1), cost)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("subject", ["user-1", b"user-1", bytearray(16), None, bytes(17)])
def test_subject_that_was_not_hashed_is_refused(subject):
    with pytest.raises(ValueError, match=r"subject: 16 bytes are needed\. Make them with engine\.subject"):
        Charge(subject, Quota(1, 1))


def test_reset_forgets_a_count_a_subject_or_everyone():
    engine = Engine(MemoryStore(ManualClock()))
    charges = [Charge(engine.subject(name), quota) for name in "ab" for quota in (Quota(10, 60), Quota(5, 1))]
    left = []
    for forget in [(charges[0].subject, charges[0].bucket), (charges[0].subject,), ()]:
        engine.reset()
        engine.reserve(charges)
        engine.reset(*forget)
        left.append([v.remaining for v in engine.peek([Charge(c.subject, c.quota, 0) for c in charges]).verdicts])
    assert left == [[10, 4, 9, 4], [10, 5, 9, 4], [10, 5, 10, 5]]


def test_example_of_the_package_is_true():
    script = "import doctest, flask_ailimit.engine as e, flask_ailimit.testing as t\n"
    script += "print([doctest.testmod(m) for m in (e, t)])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.count("failed=0") == 2, done.stdout


@pytest.mark.parametrize("dry", [False, True])
def test_charge_of_another_cost_is_the_charge_that_would_have_been_made(dry):
    charge = Charge(bytes(16), Quota(10, 60, "tokens"), 1, "scope", dry, "allow")
    again = charge.costing(7)
    made = Charge(bytes(16), Quota(10, 60, "tokens"), 7, "scope", dry, "allow")
    assert (again, hash(again), again.bucket) == (made, hash(made), made.bucket)
    assert charge.cost == 1


@pytest.mark.parametrize("cost", [-1, 1.5, True, float("nan"), None, 2**53])
def test_charge_takes_no_other_cost_that_it_could_not_have_been_made_with(cost):
    with pytest.raises(ValueError, match="cost"):
        Charge(bytes(16), Quota(10, 60)).costing(cost)


def test_child_numbers_its_reservations_otherwise_than_its_parent():
    engine = Engine(MemoryStore())
    numbers = engine._numbers.getstate()
    assert exit_code_of_child(lambda: engine._numbers.getstate() == numbers) == 0


def test_application_that_seeds_python_does_not_number_reservations():
    drawn = set()
    for _ in range(2):
        random.seed(42)
        drawn.add(Engine(MemoryStore())._numbers.getrandbits(53))
    assert len(drawn) == 2
