"""Many leases are renewed count by count, in pieces between which others are let in."""

from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine import Charge, Quota, decide
from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.engine.stores.memory import MemoryStore
from flask_ailimit.engine.stores.renewing import by_count, in_pieces
from flask_ailimit.testing import START_US, ManualClock, charge, reserve

SUBJECTS = [number.to_bytes(16, "big") for number in range(4)]
QUOTA = Quota(10_000, 60, "concurrency", "concurrency")

held = st.builds(
    lambda subject, scope, lease: (Charge(subject, QUOTA, 1, scope), lease),
    st.sampled_from(SUBJECTS),
    st.sampled_from(["", "x"]),
    st.integers(0, 30),
)


class CountsTransactions(MemoryStore):
    def __init__(self):
        super().__init__(ManualClock())
        self.pieces = 0

    def alone(self, step):
        self.pieces += 1
        return super().alone(step)


def taken(store, leases):
    for item, lease in leases:
        store.reserve([item], lease)
    return leases


@given(st.lists(held, max_size=40), st.lists(held, max_size=40))
def test_leases_that_are_renewed_together_end_as_if_each_were_renewed_alone(there, renewed):
    store = MemoryStore(ManualClock())
    taken(store, there)
    at_us = START_US + 40 * MICROSECONDS
    together = decide.renew(store.read, by_count(renewed), at_us)
    alone = {}

    def read(subject):
        return alone.get(subject, store.read(subject))

    for one in renewed:
        alone |= decide.renew(read, by_count([one]), at_us)
    assert together == alone


@given(st.lists(held, max_size=200), st.integers(1, 9))
def test_pieces_have_each_lease_once_and_each_count_in_one_piece(leases, most_counts):
    pieces = list(in_pieces(by_count(leases), most_counts))
    counts = [(item.subject, item.scope) for piece in pieces for item, _ in piece]
    assert len(counts) == len(set(counts))
    assert all(1 <= len(piece) <= most_counts for piece in pieces)
    assert {(item.subject, item.scope, lease) for piece in pieces for item, some in piece for lease in some} == {
        (item.subject, item.scope, lease) for item, lease in leases
    }


def test_ten_thousand_leases_of_one_count_are_renewed_in_one_step():
    store = CountsTransactions()
    item, leases = Charge(SUBJECTS[0], QUOTA), range(10_000)
    ends = START_US + QUOTA.period_us
    store.write({item.subject: {item.bucket: decide.Bucket(tuple(n for lease in leases for n in (ends, lease)), ends)}})
    store.renew([(item, lease) for lease in leases])
    assert store.pieces == 1
    (count,) = store.read(item.subject).values()
    assert count.state == tuple(n for lease in leases for n in (START_US + QUOTA.period_us, lease))


def test_others_are_let_in_between_the_pieces(monkeypatch):
    store = CountsTransactions()
    leases = taken(store, [(Charge(number.to_bytes(16, "big"), QUOTA), 1) for number in range(1000)])
    decided = []
    monkeypatch.setattr("flask_ailimit.engine.stores.base.give_way", lambda: decided.append(reserve(store, charge())))
    store.pieces = 0
    store.renew(leases)
    assert store.pieces - len(decided) == 20
    assert len(decided) == 19
    assert all(decision.at_us == START_US for decision in decided)
