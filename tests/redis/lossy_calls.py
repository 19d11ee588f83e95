"""Calls of which one message meets a fault, and what the store must hold before, between and after."""

import secrets
from base64 import urlsafe_b64encode
from contextlib import ExitStack, contextmanager

from fault_proxy import FOREVER
from redis_servers import wait_until
from redis_stores import store_at
from resp_messages import name_of

from flask_ailimit.engine import Charge, Quota, Settlement
from flask_ailimit.engine.errors import StoreError
from flask_ailimit.engine.quota import CONCURRENCY

TIMEOUT = 0.04
SOON = 12
"""Seconds in which what went wrong is put right, however busy the machine is."""

DAY = 86400
REQUESTS = Quota(1000, 30 * DAY, "requests", "fixed-window")
TOKENS = [
    Quota(10_000, 360 * DAY, "tokens", "token-bucket"),  # A token leaks in 52 minutes.
    Quota(10_000, 360 * DAY, "tokens", "moving-window"),
    Quota(10_000, 360 * DAY, "tokens", "sliding-window-counter"),
]
SLOTS = Quota(4, 3600, CONCURRENCY, CONCURRENCY)
QUOTAS = [REQUESTS, *TOKENS, SLOTS]

# What others have, so that a refund made twice shows, and a slot given back that was not one's own.
OTHERS = (7, 500, 500, 500, 1)
COST = (1, 100, 100, 100, 1)

FAULTS = {
    "cut_request": {"what": "cut_request"},
    "cut_request, politely": {"what": "cut_request", "reset": False},
    "cut_reply": {"what": "cut_reply"},
    "cut_reply, politely": {"what": "cut_reply", "reset": False},
    "drop_request": {"what": "drop_request"},
    "drop_reply": {"what": "drop_reply"},
    "delay_reply": {"what": "delay_reply", "seconds": 2 * TIMEOUT},
    "duplicate_request": {"what": "duplicate_request"},
}

# What sentinels and replicas say to a primary, and everybody may say at any time.
OF_OTHERS = {"PING", "INFO", "PUBLISH", "SUBSCRIBE", "PSYNC", "REPLCONF", "REPLICAOF", "SLAVEOF", "MULTI", "EXEC"}


class Place:
    """Servers behind proxies.

    Attributes:
        uri: Where clients that meet faults find them.
        proxies: All of them.
        faults: What befalls which message of a call.
    """

    def __init__(self, uri, proxies, server_of):
        self.uri = uri
        self.proxies = proxies
        self.faults = "no fault"
        self._server_of = server_of
        self._ending = ExitStack()
        self._stores = {}

    def forget_scripts(self, subject):
        self._server_of(subject).ask("SCRIPT FLUSH")

    def without_faults(self, subject):
        """A store at the very server that keeps the subject's record."""
        server = self._server_of(subject)
        if server not in self._stores:
            self._stores[server] = store_at(server.uri)
            self._ending.callback(self._stores[server].close)
        return self._stores[server]

    def used(self, subject):
        """What is taken of each quota."""
        decision = self.without_faults(subject).peek([Charge(subject, quota, 0) for quota in QUOTAS])
        return tuple(verdict.used for verdict in decision.verdicts)

    def somebody(self):
        """A new subject, of whom others have used something."""
        subject = secrets.token_bytes(16)
        charges = [Charge(subject, quota, cost) for quota, cost in zip(QUOTAS, OTHERS, strict=True)]
        assert self.without_faults(subject).reserve(charges, secrets.randbits(53)).allowed
        return subject

    @contextmanager
    def meeting(self, fault, at):
        """Have the message of this number, from now on and over all connections, meet a fault; answers all messages."""
        passed = []

        def is_the_one(words):
            if name_of(words) not in OF_OTHERS:
                passed.append(name_of(words))
            return len(passed) == at and name_of(words) not in OF_OTHERS

        self.faults = f"{fault} at message {at}"
        for proxy in self.proxies:
            proxy.inject(command=is_the_one, times=FOREVER, **FAULTS[fault])
        yield passed
        self.heal()

    def heal(self):
        for proxy in self.proxies:
            proxy.heal()

    def close(self):
        self._ending.close()


class Call:
    """A request of one or several subjects that reserves, and settles if it was allowed.

    Args:
        place: Where.
        subjects: Whose. Each is charged ``COST``, beside what ``OTHERS`` have.
        actual: Tokens that are really used.
        watched: A subject of whom is only asked whether it could, if any.
        forgetful: Whether the server forgets its scripts before each message.

    Attributes:
        charges: What it reserves.
        lease: Its number.
        allowed: Whether an answer to reserving came, and was yes.
        met: What befell which message.
    """

    def __init__(self, place, subjects, actual, *, watched=None, forgetful=False):
        self._place = place
        self._subjects = subjects
        self.lease = secrets.randbits(53)
        self.charges = [
            Charge(subject, quota, cost) for subject in subjects for quota, cost in zip(QUOTAS, COST, strict=True)
        ]
        self._settled = (1, actual, actual, actual, 0)
        self._watched = [Charge(watched, REQUESTS, dry=True)] if watched else []
        self._forgetful = forgetful
        self.allowed = False
        self.met = None

    def make(self, store):
        """Reserve, and settle. Whatever happens is charged once at most, and to all counts of a subject or none."""
        self.met = self._place.faults
        self._forget_scripts()
        try:
            decision = store.reserve([*self._watched, *self.charges], self.lease)
        except StoreError:
            self._require(OTHERS, plus(OTHERS, COST))
            return
        assert decision.allowed
        self.allowed = True
        self._require(plus(OTHERS, COST))
        self._forget_scripts()
        actual = dict(zip(QUOTAS, self._settled, strict=True))
        store.settle([Settlement(c, decision.taken_at_us(c), actual[c.quota], self.lease) for c in self.charges])
        self._require(plus(OTHERS, COST), plus(OTHERS, self._settled))

    def come_out_right(self):
        """Wait until what was used is charged, or nothing if nobody heard that it was."""
        expected = plus(OTHERS, self._settled) if self.allowed else OTHERS
        for subject in self._subjects:
            try:
                wait_until(lambda subject=subject: self._place.used(subject) == expected, SOON)
            except AssertionError:
                used = self._place.used(subject)
                raise AssertionError(f"{self.met}: {used} in place of {expected} after {SOON} s") from None

    def _require(self, *possible):
        for subject in self._subjects:
            used = self._place.used(subject)
            assert used in possible, f"{self.met}: {used} is none of {possible}"

    def _forget_scripts(self):
        if self._forgetful:
            for subject in self._subjects:
                self._place.forget_scripts(subject)


def key_of(subject):
    """The key of the subject's record."""
    return f"ailimit:{{{urlsafe_b64encode(subject).decode().rstrip('=')}}}"


def plus(amounts, others):
    return tuple(a + b for a, b in zip(amounts, others, strict=True))


def answers(store, subject):
    """Whether the store answers, which it doesn't while it thinks that its server is away."""
    try:
        return store.peek([Charge(subject, REQUESTS, 0)]).allowed
    except StoreError:
        return False
