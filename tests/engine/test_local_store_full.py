"""The local store when its map is full, and the space it takes."""

import random

import pytest
from filling import fill, used_bytes

from flask_ailimit.engine import Charge, Quota, StoreError
from flask_ailimit.testing import ALICE, charge, remaining, reserve

MAP = 1 << 20


def test_full_map_is_a_store_error_for_new_subjects_only(open_local, clock):
    store = open_local(map_size=MAP)
    reserve(store, charge())
    with pytest.raises(StoreError, match=r"is full at 1048576 bytes\. Give a larger map_size") as refused:
        fill(store, 20_000)
    assert refused.value.transient
    assert [reserve(store, charge()).allowed for _ in range(10)] == [True] * 9 + [False]
    assert remaining(store, charge(subject=b"new".ljust(16))) == [10]
    store.reset(ALICE)
    assert remaining(store, charge()) == [10]


def test_full_map_takes_new_subjects_in_again_when_old_ones_have_expired(open_local, clock):
    store = open_local(map_size=MAP)
    with pytest.raises(StoreError):
        fill(store, 20_000)
    clock.advance(3600)
    with pytest.raises(StoreError):  # This one pays for sweeping.
        fill(store, 1, seed=1)
    fill(store, 5_000, seed=2)


def test_full_map_can_be_reset(open_local):
    store = open_local(map_size=MAP)
    with pytest.raises(StoreError):
        fill(store, 20_000)
    store.reset()
    fill(store, 5_000, seed=1)


def test_file_of_subjects_that_come_and_go_stays_as_large_as_those_who_are_there(open_local, place, clock):
    store = open_local()
    sizes = []
    for hour in range(20):
        fill(store, 1_000, seed=hour)
        clock.advance(3600)
        sizes.append(used_bytes(place))
    assert max(sizes[5:]) <= 3 * sizes[0]


def test_subject_with_three_limits_takes_less_than_320_bytes(open_local, place):
    store = open_local()
    quotas = [Quota(60, 60), Quota(10_000, 60, "tokens"), Quota(4, 60, "concurrency", "concurrency")]
    draw = random.Random(0)
    sizes = {}
    for number in range(1, 20_001):
        subject = draw.randbytes(16)
        assert reserve(store, *(Charge(subject, quota) for quota in quotas)).allowed
        if number in (10_000, 20_000):
            sizes[number] = used_bytes(place)
    assert (sizes[20_000] - sizes[10_000]) / 10_000 <= 320
