"""An answer that is one JSON document is read at once, and measured as the meter would."""

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.tokens import StreamMeter, open_counter
from flask_ailimit.upstream import passing

COUNTER = open_counter("estimate")
INPUT = 50


def answer(text="Hello there.", **more):
    usage = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}], "usage": usage, **more}


DOCUMENTS = {
    "usual": answer(),
    "claims less than it says": answer("many words " * 400),
    "without usage": {"choices": [{"message": {"content": "Hello there."}}]},
    "Anthropic's": {"content": [{"type": "text", "text": "Hi."}], "usage": {"input_tokens": 4, "output_tokens": 2}},
    "larger than is kept": answer("word " * passing._MOST_KEPT),
    "no object": [1, 2, 3],
}


def measured(chunks, whole, mimetype="application/json"):
    ended = []
    held = SimpleNamespace(
        has_known_end=True,
        keeping=None,
        known_input=INPUT,
        finished=lambda measure, whole: ended.append((measure, whole)),
        broke_off=lambda measure: ended.append((measure, False)),
    )
    body = passing.Passing(held, mimetype, "", COUNTER)
    for chunk in chunks:
        assert body.feed(chunk) is chunk
    if whole:
        body.came_to_end()
    body.end()
    (found,) = ended
    return found


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
@given(cuts=st.lists(st.integers(0, 400), max_size=4), whole=st.booleans(), lost=st.integers(0, 30))
def test_document_is_measured_as_the_meter_measures_it(document, cuts, whole, lost):
    data = json.dumps(document).encode()
    data = data if whole else data[: len(data) - lost]
    edges = [0, *sorted(cuts), len(data)]
    chunks = [data[at:end] for at, end in pairwise(edges)]
    meter = StreamMeter("application/json", COUNTER)
    for chunk in chunks:
        meter.feed(chunk)
    assert measured(chunks, whole) == (meter.measure(INPUT, complete=whole), whole)
