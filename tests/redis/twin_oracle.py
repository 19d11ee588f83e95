"""What the scripts must do, by the Python that they are the twins of; and a wire on which both can be compared."""

from collections import deque
from contextlib import contextmanager
from struct import Struct
from typing import NamedTuple

from flask_ailimit.engine.stores.base import StateStore
from flask_ailimit.engine.stores.record import decode, encode

NEVER = -1


class Oracle(StateStore):
    """The Python arithmetic over records in a dictionary. What has ended stays there until it is swept."""

    def __init__(self, clock):
        self._clock = clock
        self._records = {}
        self.now_us = 0

    @contextmanager
    def transaction(self):
        self.now_us = self._clock()
        yield self

    def read(self, subject):
        return dict(self._records.get(subject, {}))

    def write(self, changes):
        self._records.update(changes)

    def clear(self):
        self._records.clear()

    def sweep(self, subject):
        """Forget what has ended."""
        record = self.read(subject)
        kept = alive(decode(encode(record)), self._clock())
        self._records[subject] = {bucket: record[bucket] for bucket in kept}

    def secret(self):
        return None

    def close(self):
        self.clear()


def alive(record, now_us):
    """The counts that have not ended. Whether the others are kept, or until when, is not promised."""
    return {bucket: count for bucket, count in record.items() if count.expires_us > now_us}


class Answer(NamedTuple):
    """The numbers with which a script gives a decision: the time, four for each charge, and five for each budget."""

    numbers: tuple[int, ...]
    spendings: tuple[int, ...]

    @property
    def packed(self):
        return _answer(len(self.numbers), len(self.spendings)).pack(*self.numbers, *self.spendings)

    def read(self, raw):
        """What was answered in place of this."""
        if not isinstance(raw, bytes):
            return raw
        numbers = _answer(len(self.numbers), len(self.spendings)).unpack(raw)
        return Answer(numbers[: len(self.numbers)], numbers[len(self.numbers) :])


def answer_of(decision):
    """The numbers with which a script gives this decision."""
    numbers = [
        number
        for v in decision.verdicts
        for number in (
            v.allowed,
            v.remaining,
            v.reset_after_us,
            NEVER if v.retry_after_us is None else v.retry_after_us,
        )
    ]
    spendings = [number for v in decision.verdicts if v.spending for number in v.spending]
    return Answer((decision.at_us, *numbers), tuple(spendings))


def settled_of(settled, settlements):
    """What a script answers to these settlements: a number or, if a count is told of, bytes."""
    if not settled.passed and not settled.below:
        return settled.unknown
    places = {id(each.charge): place for place, each in enumerate(settlements)}
    told = [(places[id(v.charge)], v.remaining, v.reset_after_us) for v in settled.passed]
    told = sorted([*told, *((places[id(charge)], 0, NEVER) for charge in settled.below)])
    return Struct("<H" + "Hqq" * len(told)).pack(settled.unknown, *[number for each in told for number in each])


class Rehearsal:
    """A wire that answers what the oracle expects, notes what it was sent, and has a server do it afterwards at once.

    All of it is one transaction, in which every key is made to stay: none is to end by the clock of the server, which
    is not the one of the test.
    """

    slotted = False

    def __init__(self):
        self._expected = deque()
        self._sent = []

    def expect(self, answer, about):
        """What the next command will be answered, None where it does not matter, and what it is about."""
        self._expected.append((answer, about))

    def look_at(self, key, record, now_us):
        """Have a key read now: it must be this record, but for what has ended."""
        expected = alive(decode(encode(record)), now_us)
        self._sent.append((("GET", key), expected, "what is kept", lambda raw: alive(_read_record(raw), now_us)))

    def send(self, command, *arguments, **_):
        answer, about = self._expected.popleft()
        is_decision = isinstance(answer, Answer)
        self._sent.append(((command, *arguments), answer, about, answer.read if is_decision else _read_number))
        return answer.packed if is_decision else answer or 0

    def place_of(self, key):
        return ""

    def slot_of(self, key):
        return 0

    def close(self):
        pass  # Nothing is open.

    def perform(self, client):
        """What the server does otherwise than expected: the number of the step, what it is about, did, and did not."""
        assert not self._expected
        places = []
        with client.pipeline(transaction=True) as pipeline:
            for command, *_ in self._sent:
                places.append(len(pipeline))
                pipeline.execute_command(*command)
                for key in filter(is_record, command[1:]):
                    pipeline.execute_command("PERSIST", key)
            answers = pipeline.execute(raise_on_error=False)
        compared = zip(places, self._sent, strict=True)
        return [
            (number, about, got, expected)
            for number, (place, (_, expected, about, read)) in enumerate(compared)
            if expected is not None and (got := read(answers[place])) != expected
        ]


def is_record(key):
    """Whether it is the key of a record, and not that of a marker or something else."""
    return key.startswith(b"ailimit:{") and key.endswith(b"}")


def _answer(numbers, of_budgets):
    return Struct("<q" + "Bqqq" * (numbers // 4) + "q" * of_budgets)


def _read_number(raw):
    return raw


def _read_record(raw):
    return decode(raw) if raw else {}
