"""Where messages of RESP2 and RESP3 begin and end: https://redis.io/docs/latest/develop/reference/protocol-spec/."""

# What the number in a value's first line counts.
BYTES = b"$=!"
VALUES = b"*~>"
PAIRS = b"%|"
ATTRIBUTE = b"|"  # Its pairs describe the value that comes after them.


def message_end(data, start=0):
    """Where the message that begins at ``start`` ends; None while some of it is still to come."""
    values = 1
    while values:
        line_end = data.find(b"\r\n", start)
        if line_end < 0:
            return None
        kind, first_line = data[start], data[start + 1 : line_end]
        start = line_end + 2
        values -= 1
        if kind in BYTES and first_line != b"-1":
            start += int(first_line) + 2
        elif kind in VALUES:
            values += max(int(first_line), 0)
        elif kind in PAIRS:
            values += 2 * int(first_line) + (kind in ATTRIBUTE)
        if start > len(data):
            return None
    return start


def take_messages(buffer):
    """Take from a bytearray, one after another, the messages that are whole."""
    while (end := message_end(buffer)) is not None:
        message = bytes(buffer[:end])
        del buffer[:end]
        yield message


def words_of(command):
    """The words of a command, as a client sends it."""
    if not command.startswith(b"*"):
        return command.split()  # Typed by a person.
    words = []
    start = command.index(b"\r\n") + 2
    while start < len(command):
        line_end = command.index(b"\r\n", start)
        end = line_end + 2 + int(command[start + 1 : line_end])
        words.append(command[line_end + 2 : end])
        start = end + 2
    return words


def name_of(words):
    """The command's name, in capitals."""
    return words[0].decode(errors="replace").upper()
