"""Every provider's shape is charged as its table says, however it is cut."""

import random

import pytest
from usage_shapes import GIVEN, ROWS, Words, charged, first_word

from flask_ailimit.tokens import StreamMeter

STREAMS = [row for row in ROWS if row.abandoned is not None]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_whole_answer_is_charged_what_is_right(row):
    assert charged(row, row.chunks, complete=True) == (row.right, row.source)


@pytest.mark.parametrize("row", STREAMS, ids=lambda row: row.name)
def test_a_stream_abandoned_after_its_first_word_is_charged_what_came(row):
    assert charged(row, first_word(row), complete=False).usage == row.abandoned


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_chunks_make_no_difference(row):
    body = b"".join(row.chunks)
    source = random.Random(row.name)
    for most in (2, 40, 5000):
        if len(body) < 3000 * most:
            cuts = []
            while sum(map(len, cuts)) < len(body):
                start = sum(map(len, cuts))
                cuts.append(body[start : start + source.randint(1, most)])
            assert charged(row, cuts, complete=True) == (row.right, row.source)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_asking_in_between_changes_nothing(row):
    meter = StreamMeter(row.mimetype, Words())
    for chunk in row.chunks:
        meter.feed(chunk)
        meter.measure(GIVEN, complete=False)
    assert meter.measure(GIVEN, complete=True) == (row.right, row.source)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_nothing_is_reported_if_reports_are_not_believed(row):
    meter = StreamMeter(row.mimetype, Words(), believes_reports=False)
    for chunk in row.chunks:
        meter.feed(chunk)
    assert meter.measure(GIVEN, complete=True).source != "reported"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_without_an_estimate_of_the_input_only_a_report_of_it_counts(row):
    meter = StreamMeter(row.mimetype, Words())
    for chunk in row.chunks:
        meter.feed(chunk)
    usage, source = meter.measure(None, complete=True)
    assert (usage is None) == (source == "reserved")
