"""Engines over Redis, threads that ask them without a pause, and which node of a cluster has what they ask about."""

import time
from base64 import urlsafe_b64encode
from collections import Counter
from contextlib import ExitStack, closing
from itertools import count, islice
from threading import Event, Lock, Thread

from redis.crc import key_slot
from redis_servers import wait_until
from redis_stores import link_to

from flask_ailimit.engine import Charge, Engine, Quota, StoreError
from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.engine.stores.redis.store import RedisStore
from flask_ailimit.engine.stores.share import Share, ShareStore

YEAR = 366 * 86_400

AMPLE = Quota(1_000_000, YEAR)

TIMEOUT = 3.0
"""Seconds for an answer of Redis. The machine may be busy with something else."""


def opening_engines(place):
    """Yields what opens engines, each with all of every limit as its share to decide with nearby; then closes them."""
    with ExitStack() as ending:

        def open_engine(uri):
            nearby = ShareStore(LocalStore(place / "nearby"), lambda: Share(0, 1))
            store = RedisStore(link_to(uri, timeout=TIMEOUT), prefix="ailimit", nearby=nearby)
            return ending.enter_context(closing(Engine(store, secret=b"of all the machines")))

        yield open_engine


class Traffic:
    """Threads that reserve without a pause, each time with the next of some choices of subjects.

    Attributes:
        allowed: How many decisions each subject was part of that were allowed.
        refused: How many that were refused.
        failed: How many that Redis didn't make.
        answered: All of these.
        slowest: The most seconds that one took.
    """

    def __init__(self, engine, choices, quota=AMPLE, threads=4):
        self.allowed, self.refused, self.failed = Counter(), Counter(), Counter()
        self.answered, self.slowest = Counter(), Counter()
        self._engine, self._choices, self._quota = engine, choices, quota
        self._turns = count()
        self._lock = Lock()
        self._stop = Event()
        self._errors = []
        self._threads = [Thread(target=self._run) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def wait(self, many, what="allowed"):
        """Wait until each subject has so many more answers."""
        before = Counter(getattr(self, what))
        subjects = {subject for choice in self._choices for subject in choice}
        wait_until(lambda: self._errors or all(getattr(self, what)[s] - before[s] >= many for s in subjects))

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert self._errors == []

    def _run(self):
        try:
            while not self._stop.is_set():
                subjects = self._choices[next(self._turns) % len(self._choices)]
                began = time.monotonic()
                outcome = self._ask(subjects)
                took = time.monotonic() - began
                with self._lock:
                    for subject in subjects:
                        outcome[subject] += 1
                        self.answered[subject] += 1
                        self.slowest[subject] = max(self.slowest[subject], took)
        except Exception as error:  # noqa: BLE001  whatever it is, the test must know
            self._errors.append(error)

    def _ask(self, subjects):
        try:
            reservation = self._engine.reserve([Charge(subject, self._quota) for subject in subjects])
        except StoreError:
            return self.failed
        return self.allowed if reservation.allowed else self.refused


def key_of(subject, prefix="ailimit"):
    """Where a subject's counts are."""
    return f"{prefix}:{{{urlsafe_b64encode(subject).rstrip(b'=').decode()}}}"


def slot_of(subject):
    return key_slot(key_of(subject).encode())


def subjects_in_slot(slot, number):
    """So many subjects whose counts are in a slot."""
    return list(islice((subject for subject in _all_subjects() if slot_of(subject) == slot), number))


def subjects_of_node(cluster, node, number=1):
    """So many subjects whose counts are with a node, each in a slot of its own."""
    return list(islice((subject for subject in _all_subjects() if cluster.owner(key_of(subject)) is node), number))


def used(engine, subject, quota):
    """What Redis says is taken."""
    (verdict,) = engine.store.peek([Charge(subject, quota, 0, dry=True)]).verdicts
    return quota.burst - verdict.remaining


def _all_subjects():
    return (number.to_bytes(16, "little") for number in count())
