"""Whatever becomes of a message on its way: nothing is charged or given back twice, and slots come back."""

import random
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from itertools import count, product

import pytest
from fault_proxy import FOREVER
from lossy_calls import FAULTS, SOON, TIMEOUT, TOKENS, Call, Place, answers, key_of
from redis.crc import key_slot
from redis_servers import wait_until
from redis_stores import store_at

from flask_ailimit.engine import Charge, Quota, Settlement
from flask_ailimit.engine.errors import StoreError
from flask_ailimit.testing import ManualClock

ACTUALS = (30, 100, 150)
MANY_SLOTS = Quota(100, 3600, "concurrency", "concurrency")
KINDS = ("usual", "forgetful", "first")
MESSAGES = {"usual": 2, "forgetful": 4}
"""How many messages a call takes: reserving and settling, and each a second time if the server knows no script."""

FIRST = 4
"""Messages that a first call has at least: two by which it connects, and those of any other."""

INJECTIONS = 1700
"""For each kind of server in each of the three arrangements: more than 10,000 in all."""


class Calls:
    """Makes calls at one place, through one store or, for the first call of a process, through a new one."""

    def __init__(self, place):
        self._place = place
        self._ending = ExitStack()
        self._store = self._new_store()
        self._made = []

    def make(self, kind, fault, at):
        """Make a call, one message of which meets a fault; answers whether it came to that message."""
        subject = self._place.somebody()
        store = self._new_store() if kind == "first" else self._store
        if kind != "first":
            wait_until(lambda: answers(store, subject))
        call = Call(self._place, [subject], ACTUALS[len(self._made) % 3], forgetful=kind == "forgetful")
        with self._place.meeting(fault, at) as passed:
            call.make(store)
        self._made.append(call)
        return len(passed) >= at

    def come_out_right(self):
        while self._made:
            self._made.pop().come_out_right()

    def close(self):
        self._ending.close()

    def _new_store(self):
        return self._ending.enter_context(closing(store_at(self._place.uri, timeout=TIMEOUT)))


class AtMostOnce:
    @pytest.fixture
    def calls(self, place):
        with closing(place), closing(Calls(place)) as calls:
            yield calls

    @pytest.fixture
    def store(self, place):
        with closing(place), closing(store_at(place.uri, timeout=TIMEOUT)) as store:
            yield store

    @pytest.fixture
    def patient_store(self, place):
        """One that waits so long that only connections that break are faults."""
        with closing(place), closing(store_at(place.uri)) as store:
            yield store

    @pytest.mark.parametrize(("kind", "messages"), MESSAGES.items())
    def test_each_message_of_a_call_may_meet_a_fault(self, calls, kind, messages):
        for fault, at in product(FAULTS, range(1, messages + 1)):
            wait_until(lambda fault=fault, at=at: calls.make(kind, fault, at))
        calls.come_out_right()

    def test_each_message_of_the_first_call_may_meet_a_fault(self, calls):
        """Those by which a client connects, and finds out where everything is, as well."""
        for fault, at in product(FAULTS, range(1, FIRST + 1)):
            wait_until(lambda fault=fault, at=at: calls.make("first", fault, at))
        calls.come_out_right()

    def test_lost_decision_is_undone_beside_a_subject_that_was_only_asked(self, place, store):
        made = []
        for fault in FAULTS:
            asked, subject = place.somebody(), place.somebody()
            wait_until(lambda subject=subject: answers(store, subject))
            made.append(Call(place, [subject], 30, watched=asked))
            with place.meeting(fault, 1):
                made[-1].make(store)
        for call in made:
            call.come_out_right()

    def test_threads_may_lose_each_seventh_reply(self, place, patient_store):
        store, subject = patient_store, place.somebody()
        assert answers(store, subject)
        before = place.used(subject)
        quota, most = TOKENS[0], 25

        def call_often(number):
            used = 0
            for _ in range(most):
                lease = secrets.randbits(53)
                charges = [Charge(subject, quota, 10), Charge(subject, MANY_SLOTS, scope="many")]
                try:
                    decision = store.reserve(charges, lease)
                except StoreError:
                    continue
                used += number
                store.settle([Settlement(c, decision.taken_at_us(c), number, lease) for c in charges])
            return used

        replies = count(1)
        for proxy in place.proxies:
            proxy.inject(
                "cut_reply", times=FOREVER, command=lambda words: b"EVALSHA" in words and next(replies) % 7 == 0
            )
        with ThreadPoolExecutor(8) as threads:
            used = sum(threads.map(call_often, range(8)))
        place.heal()
        assert next(replies) > 8 * most
        wait_until(lambda: place.used(subject)[1] == before[1] + used, SOON)
        assert store.peek([Charge(subject, MANY_SLOTS, 0, "many")]).verdicts[0].used == 0

    @pytest.mark.slow
    @pytest.mark.timeout(3600)
    def test_thousands_of_messages_may_meet_faults(self, calls):
        chosen = random.Random(seed := secrets.token_hex(4))
        met = 0
        while met < INJECTIONS:
            kind = chosen.choices(KINDS, [6, 3, 1])[0]
            at = chosen.randint(1, MESSAGES.get(kind, FIRST + 2))
            met += calls.make(kind, chosen.choice(list(FAULTS)), at)
            if met % 200 == 0:
                calls.come_out_right()
        calls.come_out_right()
        print(f"{met} faults, seed {seed}")  # noqa: T201  the figure


class TestOneServer(AtMostOnce):
    @pytest.fixture
    def place(self, server, proxy):
        return Place(proxy.uri, [proxy], lambda subject: server)

    def test_decision_that_a_server_makes_when_nobody_waits_for_it_any_more_is_undone(self, place, server):
        with closing(place), closing(store_at(server.uri, timeout=TIMEOUT)) as store:
            subject = place.somebody()
            wait_until(lambda: answers(store, subject))
            call = Call(place, [subject], 30)
            server.stop_process()
            with pytest.raises(StoreError):
                store.reserve(call.charges, call.lease)
            server.continue_process()
            wait_until(lambda: server.ask("EXISTS", f"{key_of(subject)}:s{call.lease:x}"), SOON)
            call.come_out_right()


class TestBehindSentinels(AtMostOnce):
    @pytest.fixture
    def place(self, sentinels):
        return Place(sentinels.uri, sentinels.proxies[:1], lambda subject: sentinels.primary)


class TestCluster(AtMostOnce):
    @pytest.fixture
    def place(self, cluster):
        return Place(cluster.uri, cluster.proxies, lambda subject: cluster.owner(key_of(subject)))

    def test_each_message_of_a_call_over_two_slots_may_meet_a_fault(self, place, store):
        made = []
        for fault, at in product(FAULTS, range(1, 5)):
            subjects = [place.somebody(), place.somebody()]
            assert len({key_slot(key_of(subject).encode()) for subject in subjects}) == 2
            for subject in subjects:
                wait_until(lambda subject=subject: answers(store, subject))
            made.append(Call(place, subjects, ACTUALS[at % 3]))
            with place.meeting(fault, at):
                made[-1].make(store)
        for call in made:
            call.come_out_right()

    def test_leases_are_renewed_at_the_nodes_that_are_there(self, cluster):
        clock = ManualClock()
        nodes = {}
        while len(nodes) < 3:
            subject = secrets.token_bytes(16)
            nodes.setdefault(cluster.owner(key_of(subject)), subject)
        charges = [Charge(subject, MANY_SLOTS) for subject in nodes.values()]
        with closing(store_at(cluster.uri, clock)) as store:
            store.reserve(charges, 1)
            clock.advance(60)
            away, *there = nodes
            proxy = cluster.proxies[cluster.nodes.index(away)]
            proxy.refuse()
            proxy.reset_connections()
            with suppress(StoreError):
                store.renew([(charge, 1) for charge in charges])
        for node in there:
            with closing(store_at(node.uri, clock)) as store:
                (verdict,) = store.peek([Charge(nodes[node], MANY_SLOTS, 0)]).verdicts
                assert verdict.reset_after == MANY_SLOTS.period
