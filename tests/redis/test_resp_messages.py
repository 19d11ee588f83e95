import pytest
from hypothesis import given
from hypothesis import strategies as st
from resp_messages import message_end, take_messages, words_of

MESSAGES = {
    "status": b"+OK\r\n",
    "error": b"-ERR no\r\n",
    "integer": b":-12\r\n",
    "bulk": b"$5\r\na\r\n+b\r\n",
    "empty bulk": b"$0\r\n\r\n",
    "null bulk": b"$-1\r\n",
    "array": b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
    "empty array": b"*0\r\n",
    "null array": b"*-1\r\n",
    "null": b"_\r\n",
    "double": b",1.5\r\n",
    "boolean": b"#t\r\n",
    "big number": b"(3492890328409238509324850943850943825024385\r\n",
    "bulk error": b"!5\r\nERR x\r\n",
    "verbatim": b"=7\r\ntxt:a\r\n\r\n",
    "map": b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n",
    "set": b"~2\r\n+a\r\n+b\r\n",
    "push": b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n",
    "attribute": b"|1\r\n+ttl\r\n:3600\r\n*2\r\n:1\r\n:2\r\n",
    "attribute inside": b"*2\r\n|1\r\n+ttl\r\n:1\r\n:2\r\n:3\r\n",
    "typed by a person": b"PING\r\n",
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_message_ends_where_its_last_byte_is_and_not_before(message):
    assert message_end(message + b"+next\r\n") == len(message)
    assert [message_end(message[:length]) for length in range(len(message))] == [None] * len(message)


@given(st.lists(st.sampled_from(list(MESSAGES.values()))), st.integers(1, 9))
def test_messages_are_the_same_however_they_are_cut_into_segments(messages, size):
    stream, buffer, taken = b"".join(messages), bytearray(), []
    for start in range(0, len(stream), size):
        buffer += stream[start : start + size]
        taken += take_messages(buffer)
    assert (taken, buffer) == (messages, b"")


def test_words_are_those_of_the_command():
    assert words_of(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$6\r\n1\r\n2\r\n\r\n") == [b"SET", b"a", b"1\r\n2\r\n"]
    assert words_of(b"SET a 1\r\n") == [b"SET", b"a", b"1"]
