import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.engine.decide import Bucket
from flask_ailimit.engine.quota import MAX_EXACT
from flask_ailimit.engine.stores.record import decode, encode, is_expired

SECOND = 1_000_000
buckets = st.builds(
    Bucket,
    st.lists(st.integers(0, MAX_EXACT), min_size=1, max_size=130).map(tuple),
    st.integers(0, 4 * 10**9).map(lambda seconds: seconds * SECOND),
)
records = st.dictionaries(st.binary(min_size=8, max_size=8), buckets, max_size=6)


def read(raw):
    return {name: Bucket(count.state, count.expires_us) for name, count in decode(raw).items()}


@given(records)
def test_record_is_read_as_it_was_written(record):
    assert read(encode(record)) == record


@given(records, records)
def test_count_that_nobody_changed_is_written_as_it_was_read(record, changed):
    assert read(encode(decode(encode(record)) | changed)) == record | changed


@given(records, st.data())
def test_record_that_is_cut_is_refused_or_shorter(record, data):
    raw = encode(record)
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    try:
        shorter = decode(cut)
    except ValueError:
        return
    assert len(shorter) < len(record)


@given(records, st.integers(0, 4 * 10**9 * SECOND))
def test_record_has_expired_when_all_its_counts_have(record, now_us):
    assert is_expired(encode(record), now_us) == all(bucket.expires_us <= now_us for bucket in record.values())


@pytest.mark.parametrize("raw", [b"", b"\x00", b"\x02" + bytes(100), b"\xff"])
def test_record_of_another_version_is_refused(raw):
    assert is_expired(raw, 0)
    with pytest.raises(ValueError, match="record: unknown version"):
        decode(raw)


def test_expiry_is_rounded_up_and_ends_in_2106():
    record = {b"12345678": Bucket((1,), 1_500_001), b"23456789": Bucket((1,), 2**53)}
    assert [bucket.expires_us for bucket in decode(encode(record)).values()] == [2 * SECOND, (2**32 - 1) * SECOND]


def test_longest_list_of_leases_fits():
    record = {b"12345678": Bucket(tuple(range(20_000)), SECOND)}
    assert read(encode(record)) == record


def test_three_limits_take_about_130_bytes():
    """The figure of the module's docstring: requests, tokens (a bucket with one trough) and one call in flight."""
    record = {bytes([i]) * 8: Bucket(state, SECOND) for i, state in enumerate([(1,) * 4, (1,) * 4, (1,) * 2])}
    assert len(encode(record)) == 123
