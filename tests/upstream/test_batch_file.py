"""The lines of batch files, and the files: what is refused, and what is there after every way to end."""

import json
import os
import tracemalloc
from io import BytesIO
from pathlib import Path

import pytest
from batch_provider import request_line
from hypothesis import given
from hypothesis import strategies as st

from flask_ailimit.upstream.batch_answers import Answers
from flask_ailimit.upstream.batch_file import (
    LONGEST_LINE,
    Answer,
    BadLine,
    address,
    answer_line,
    body_to_send,
    failure_line,
    read_answer,
    read_request,
)
from flask_ailimit.upstream.batch_index import Index, JobError, lines_of

GOOD = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "small"}}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def index_of(*numbers):
    return Index(BytesIO("".join(map(request_line, numbers)).encode()))


def answer_to(number, status=200, body=b'{"usage": null}'):
    return answer_line(f"line-{number}", status, None, body)


# A request


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"custom_id": ...}, "custom_id is missing"),
        ({"body": ...}, "body is missing"),
        ({"params": {}}, "there is a member that is none of custom_id, method, url, body"),
        ({"custom_id": 7}, "custom_id: a text"),
        ({"custom_id": ""}, "custom_id: a text"),
        ({"custom_id": "a\nb"}, "custom_id: a text"),
        ({"custom_id": "a" * 513}, "custom_id: a text of 1 to 512"),
        ({"method": "GET"}, "method: only POST"),
        ({"url": "https://example.com/v1/chat/completions"}, "url: a path"),
        ({"url": "//example.com/v1"}, "url: a path"),
        ({"url": "/v1/../admin"}, "url: a path"),
        ({"url": "/v1/chat?key=1"}, "url: a path"),
        ({"url": "/"}, "url: a path"),
        ({"body": []}, "body: an object"),
        ({"body": {}}, "body: an object"),
        ({"body": {"stream": True}}, "body: the answers of a batch are no streams"),
    ],
)
def test_bad_request_is_refused_with_what_is_wrong(change, problem):
    line = {name: value for name, value in (GOOD | change).items() if value is not ...}
    with pytest.raises(BadLine, match=problem):
        read_request(json.dumps(line).encode())


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"secret prompt", "The line is not JSON: column 1"),
        (b'{"custom_id": "a", "custom_id": "b"}', "An object in the line has the same field twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"\xff", "The line is not UTF-8"),
        (b"[" * 5000, "The line is nested too deep"),
        (b"[1]", "an object is needed"),
        (b" " * LONGEST_LINE + b"{}", "it has more than 32 MiB"),
    ],
)
def test_line_that_is_no_object_is_refused_and_not_repeated(raw, problem):
    with pytest.raises(BadLine, match=problem) as caught:
        read_request(raw)
    assert "secret" not in str(caught.value)
    assert not str(caught.value).endswith(".")


@given(st.dictionaries(st.text(), JSON, min_size=1, max_size=4))
def test_body_is_sent_as_it_was_written(body):
    body.pop("stream", None)
    if body:
        assert json.loads(body_to_send(read_request(json.dumps(GOOD | {"body": body}).encode()))) == body


# An answer


@given(JSON, st.sampled_from([None, 1, 2]))
def test_answer_is_one_line_in_the_form_of_openai_and_is_read_back(body, indent):
    line = answer_line("a", 200, "req_1", json.dumps(body, indent=indent, ensure_ascii=False).encode())
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    told = json.loads(line)
    assert told.pop("id").startswith("batch_req_")
    response = {"status_code": 200, "request_id": "req_1", "body": body}
    assert told == {"custom_id": "a", "response": response, "error": None}
    assert read_answer(line) == Answer("a", 200, body)


def test_numbers_of_an_answer_stay_as_the_provider_wrote_them():
    assert b'{"a": 1.10, "b": 1e-7}' in answer_line("a", 200, None, b'{"a": 1.10, "b": 1e-7}')


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-16-le"),
        *(b'{"a": ' + b"[" * depth + b"]" * depth + b"}" for depth in range(900, 1000, 9)),
        b"[" * 100_000,
    ],
    ids=len,
)
def test_whatever_a_provider_sends_its_line_can_be_read_again(body):
    line = answer_line("a", 200, None, body)
    assert line.count(b"\n") == 1
    assert read_answer(line).is_good


@pytest.mark.parametrize("body", [b"", b"<html>\nBad gateway</html>", b"\xff\n", b"NaN", b"[" * 100_000, b"{}\n{}"])
def test_body_that_is_no_json_becomes_a_text(body):
    answer = read_answer(answer_line("a", 502, None, body))
    assert answer == Answer("a", 502, body.decode("utf-8", "replace"))


def test_failure_has_a_code_and_repeats_nothing_of_the_error():
    class ConnectError(Exception):
        pass

    line = failure_line("a", ConnectError("https://user:secret@example.com"))
    assert b"secret" not in line
    assert json.loads(line)["error"]["code"] == read_answer(line).error == "not_sent"
    assert json.loads(line)["response"] is None
    assert read_answer(failure_line("a", TimeoutError("secret"))).failure == "no answer"


@pytest.mark.parametrize(
    ("status", "is_good", "may_change"),
    [
        (200, True, False),
        (400, False, False),
        (404, False, False),
        (401, False, True),
        (429, False, True),
        (503, False, True),
    ],
)
def test_what_a_status_means(status, is_good, may_change):
    answer = read_answer(answer_to(1, status))
    assert (answer.is_good, answer.may_change and not is_good) == (is_good, may_change)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"7", b'{"custom_id": "a"}', request_line(1).encode(), b"[" * 9**5])
def test_line_that_is_no_answer_is_refused(raw):
    with pytest.raises(BadLine):
        read_answer(raw)


@pytest.mark.parametrize(
    ("base", "url", "where"),
    [
        ("https://api.openai.com/v1", "/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("https://api.openai.com/v1/", "/v1/embeddings", "https://api.openai.com/v1/embeddings"),
        ("https://api.openai.com", "/v1/embeddings", "https://api.openai.com/v1/embeddings"),
        ("https://x.azure.com/openai/v1", "/v1/chat/completions", "https://x.azure.com/openai/v1/chat/completions"),
        ("https://x.azure.com/openai/v1", "/chat/completions", "https://x.azure.com/openai/v1/chat/completions"),
        ("https://x.com/openai/v1", "/openai/v1/responses", "https://x.com/openai/v1/responses"),
        ("http://v1:8000", "/v1/chat/completions", "http://v1:8000/v1/chat/completions"),
        ("http://v1", "/v1/chat/completions", "http://v1/v1/chat/completions"),
        ("https://x.com/v1", "/v1", "https://x.com/v1/v1"),
    ],
)
def test_address_has_what_both_have_once(base, url, where):
    assert address(base, url) == where


# The input


def test_every_wrong_line_is_named_before_anything_is_sent():
    lines = [request_line(1), "x\n", "\n", request_line(1), request_line(2), *["y\n"] * 12]
    with pytest.raises(JobError) as caught:
        Index(BytesIO("".join(lines).encode()))
    assert str(caught.value) == (
        "line 2: The line is not JSON: column 1. Wrong too: line 4, 6, 7, 8, 9, 10, 11, 12, 13 and 4 more. "
        "Nothing was sent."
    )


def test_custom_id_that_is_there_twice_is_refused_with_both_lines():
    with pytest.raises(JobError, match="line 3: custom_id: line 1 has the same"):
        index_of(7, 8, 7)


@pytest.mark.parametrize("raw", [b"", b"\n \n"])
def test_input_without_a_request_is_refused(raw):
    with pytest.raises(JobError, match="there is no request in it"):
        Index(BytesIO(raw))


@given(st.lists(st.binary(max_size=30).filter(lambda raw: b"\n" not in raw), max_size=9), st.integers(1, 12))
def test_lines_are_found_where_they_are_also_if_they_are_too_long(lines, longest):
    raw = b"\n".join(lines)
    for number, begins, line in lines_of(BytesIO(raw), longest):
        assert line.rstrip(b"\n") == lines[number - 1][:longest]
        assert raw[begins:].startswith(line)
    found = [number for number, _, _ in lines_of(BytesIO(raw), longest)]
    assert found == [number for number, line in enumerate(lines, 1) if (line + b"\n")[:longest].strip()]


def test_memory_is_bounded_whatever_the_number_of_lines():
    class Endless:
        """A file of so many requests, made as they are read."""

        def __init__(self, number):
            self.left = number

        def readline(self, _):
            self.left -= 1
            return request_line(self.left).encode() if self.left >= 0 else b""

    def peak_of(number):
        tracemalloc.start()
        Index(Endless(number)).close()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_of(20_000) < peak_of(1000) + 100_000


# The output


def test_answers_are_put_in_the_order_of_the_input_at_the_end_only(tmp_path):
    output, index = tmp_path / "out.jsonl", index_of(1, 2, 3)
    answers = Answers(index, output)
    written = {number: answer_to(number) for number in (3, 1, 2)}
    for number in (3, 1):
        answers.write(written[number])
    assert not output.exists()
    assert [request.custom_id for request in index.open_requests()] == ["line-1", "line-2", "line-3"]
    assert answers.standing()[:2] == (3, 2)
    assert [request.custom_id for request in index.open_requests()] == ["line-2"]
    answers.write(written[2])
    answers.finish()
    answers.close()
    assert output.read_bytes() == written[1] + written[2] + written[3]
    assert [*tmp_path.iterdir()] == [output]
    assert output.stat().st_mode & 0o777 == 0o600


@given(cut=st.integers(0, 400))
def test_whatever_is_cut_off_by_a_kill_only_the_torn_line_is_asked_again(tmp_path_factory, cut):
    output = tmp_path_factory.mktemp("cut") / "out.jsonl"
    part = output.with_name("out.jsonl.part")
    whole = answer_to(2) + answer_to(1)
    part.write_bytes(whole[:cut])
    index = index_of(1, 2, 3)
    answers = Answers(index, output)
    left = {request.custom_id for request in index.open_requests()}
    there = whole[:cut].count(b"\n")
    assert left == {"line-1", "line-2", "line-3"} - {"line-2", "line-1"} if there == 2 else "line-3" in left
    assert len(left) == 3 - there
    for custom_id in left:
        answers.write(answer_to(custom_id.removeprefix("line-")))
    answers.finish()
    answers.close()
    told = [read_answer(line).custom_id for line in output.read_bytes().splitlines()]
    assert told == ["line-1", "line-2", "line-3"]
    assert not part.exists()


def test_killed_between_the_output_and_the_removal_no_answer_is_there_twice(tmp_path):
    output = tmp_path / "out.jsonl"
    whole = answer_to(1) + answer_to(2)
    output.write_bytes(whole)
    output.with_name("out.jsonl.part").write_bytes(whole)
    index = index_of(1, 2)
    answers = Answers(index, output)
    assert not [*index.open_requests()]
    answers.finish()
    answers.close()
    assert output.read_bytes() == whole
    assert [*tmp_path.iterdir()] == [output]


def test_what_a_kill_left_of_an_output_is_no_hindrance(tmp_path, monkeypatch):
    output = tmp_path / "out.jsonl"
    answers = Answers(index_of(1), output)
    answers.write(answer_to(1))
    with monkeypatch.context() as killed:
        killed.setattr(Path, "replace", lambda *_: os._exit(0))
        child = os.fork()
        if not child:
            answers.finish()
        os.waitpid(child, 0)
    monkeypatch.setattr(os, "getpid", lambda: child)  # In a container it is the same each time.
    answers.finish()
    answers.close()
    assert [*tmp_path.iterdir()] == [output]


def test_output_may_have_the_longest_name_that_its_part_may_have(tmp_path):
    output = tmp_path / ("x" * 250)
    answers = Answers(index_of(1), output)
    answers.write(answer_to(1))
    answers.finish()
    answers.close()
    assert [*tmp_path.iterdir()] == [output]


def test_output_of_somebody_else_s_is_left_alone(tmp_path):
    output = tmp_path / "out.jsonl"
    for text, problem in ((answer_to(9), "a custom_id that the input doesn't have"), (b"notes\n", "it is no answer")):
        output.write_bytes(text)
        with pytest.raises(JobError, match=f"out.jsonl: line 1.*{problem}"):
            Answers(index_of(1), output)
        assert output.read_bytes() == text
        assert [*tmp_path.iterdir()] == [output]


def test_only_what_may_change_is_sent_again(tmp_path):
    output, index = tmp_path / "out.jsonl", index_of(1, 2, 3, 4)
    lines = [answer_to(1), answer_to(2, 400), answer_to(3, 503), failure_line("line-4", TimeoutError())]
    output.write_bytes(b"".join(lines))
    answers = Answers(index, output)
    standing = answers.standing()
    assert standing[1:] == (1, {"with status 503": 1, "with status 400": 1, "no answer": 1}, 2)
    assert [each.custom_id for each in index.open_requests(retry_failed=True)] == ["line-3", "line-4"]
    assert not [*index.open_requests()]
    answers.write(answer_to(3))
    answers.finish()
    answers.close()
    told = [read_answer(line) for line in output.read_bytes().splitlines()]
    assert [(each.custom_id, each.status) for each in told] == [
        ("line-1", 200),
        ("line-2", 400),
        ("line-3", 200),
        ("line-4", 0),
    ]


def test_one_process_at_a_time_works_on_an_output(tmp_path):
    first = Answers(index_of(1), tmp_path / "out.jsonl")
    with pytest.raises(JobError, match="another process works on it"):
        Answers(index_of(1), tmp_path / "out.jsonl")
    first.close()
    Answers(index_of(1), tmp_path / "out.jsonl").close()
    assert not [*tmp_path.iterdir()]


def test_line_that_could_not_be_written_leaves_nothing_of_itself(tmp_path):
    answers = Answers(index_of(1, 2), tmp_path / "out.jsonl")
    answers.write(answer_to(1))
    journal = answers._journal
    file, journal._file = journal._file, Full(journal._file)
    with pytest.raises(OSError, match="full"):
        answers.write(answer_to(2))
    journal._file = file
    assert answers.part.read_bytes().count(b"\n") == 1
    assert answers.part.read_bytes().endswith(b"\n")
    answers.close()


class Full:
    """A file on a disk that has room for ten bytes more."""

    def __init__(self, file):
        self.file, self.truncate, self.left = file, file.truncate, 10

    def write(self, line):
        if not self.left:
            raise OSError("the disk is full")
        written, self.left = self.file.write(line[: self.left]), 0
        return written
