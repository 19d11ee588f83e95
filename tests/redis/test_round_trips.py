"""What a request costs the server: commands, and keys that end."""

import json
import secrets
from contextlib import closing
from itertools import count

import pytest
from counted_commands import Counted
from flask import Flask, jsonify
from lossy_calls import key_of
from redis.crc import key_slot
from redis_servers import wait_until
from redis_stores import store_at

from flask_ailimit import AILimiter, Caller, Payer, api_key
from flask_ailimit.engine import Charge, Engine, Quota, Settlement
from flask_ailimit.engine.quota import CONCURRENCY

pytestmark = pytest.mark.usefixtures("undisturbed")

USAGE = {"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
KEY = {"Authorization": "Bearer alice"}
DAY = 86400
MARKER_MS = 10_000
MACHINES = b"ailimit:{}:machines"
FINGERPRINT = b"ailimit:{}:fingerprint"

QUOTAS = [
    Quota(1000, 60, "requests", "fixed-window"),
    Quota(100_000, 60, "tokens", "token-bucket"),
    Quota(100_000, 3600, "tokens", "token-bucket", 5000),
    Quota(100_000, 90, "tokens", "moving-window"),
    Quota(100_000, DAY, "tokens", "sliding-window-counter"),
    Quota(50, 60, CONCURRENCY, CONCURRENCY),
]


PLANS = {
    "plans": {
        "pro": {
            "requests": "1000 per day; 500 per hour",
            "tokens": "20000 per minute",
            "concurrency": 4,
            "models": {"*": {"output_tokens": "10000 per minute"}},
        },
        "team": {"requests": "2000 per day", "tokens": "50000 per minute"},
    },
    "service": {"concurrency": 64},
}
"""Eight limits of three payers."""


class Served:
    """An app over a server.

    Attributes:
        at_view: How many decisions there were when the view began.
    """

    def __init__(self, uri, counted, directory, **options):
        self.counted = counted
        self.app = Flask("counted", root_path=str(directory), static_folder=None)
        self.limiter = limiter = AILimiter(
            api_key,
            app=self.app,
            storage_uri=uri,
            storage_options={"timeout": 3},
            secret="x" * 32,
            token_counter=lambda text: len(text.split()),
            **options,
        )
        self.at_view = self.counts = None
        self.app.add_url_rule("/usage", view_func=limiter.usage_view)

        @self.app.post("/requests")
        @limiter.limit("1000 per day")
        def of_requests():
            return self.answer()

        @self.app.post("/all")
        @limiter.limit("1000 per day; 100 per minute")
        @limiter.limit_tokens("10000 per minute")
        @limiter.limit_tokens("100000 per day", unit="output_tokens")
        @limiter.limit_concurrency(4)
        def of_all():
            return self.answer()

        @self.app.post("/stream")
        @limiter.limit("1000 per day")
        @limiter.limit_tokens("10000 per minute")
        @limiter.limit_concurrency(4)
        def of_stream():
            self.answer()
            last = f"data: {json.dumps(USAGE)}\n\ndata: [DONE]\n\n"
            return self.app.response_class(["data: {}\n\n"] * 20 + [last], mimetype="text/event-stream")

        @self.app.post("/by-plan")
        @limiter.limit_by_plan()
        def of_plans():
            self.counts = len(self.limiter.decision.verdicts)
            return self.answer()

        @self.app.post("/few")
        @limiter.limit("2 per day")
        @limiter.limit_tokens("10000 per minute")
        @limiter.limit_concurrency(4)
        def of_few():
            return self.answer()

    def answer(self):
        self.at_view = self.counted.decisions
        return jsonify(USAGE)

    def post(self, path):
        """Send a request; the answer, and how many decisions there were before the view and from then on."""
        self.at_view = None
        self.counted.start()
        response = self.app.test_client().post(path, headers=KEY, json={"prompt": "one two", "max_tokens": 50})
        assert response.get_data()
        assert not self.counted.searches
        all_of_them = self.counted.decisions
        at_view = all_of_them if self.at_view is None else self.at_view
        return response, at_view, all_of_them - at_view


@pytest.fixture
def counted(server, proxy):
    return Counted([server], [proxy])


@pytest.fixture
def serve(server, proxy, counted, tmp_path):
    """Makes an app, whose first request has been."""
    served = []

    def make(**options):
        served.append(Served(proxy.uri, counted, tmp_path, **options))
        served[-1].post("/all")
        wait_until(lambda: server.ask("EXISTS", MACHINES))
        return served[-1]

    yield make
    for each in served:
        each.limiter.engine.close()


@pytest.fixture
def store(proxy):
    with closing(store_at(proxy.uri)) as store:
        yield store


@pytest.mark.parametrize(
    ("path", "before", "after"), [("/requests", 1, 0), ("/all", 1, 1), ("/stream", 1, 1), ("/few", 1, 1)]
)
@pytest.mark.parametrize("headers", [True, False])
def test_request_costs_one_command_before_its_view_and_one_to_settle(serve, counted, path, before, after, headers):
    served = serve(headers_enabled=headers)
    for _ in range(2):
        response, *costs = served.post(path)
        assert (response.status_code, *costs) == (200, before, after)
        assert response.headers["X-RateLimit-Remaining"]
        assert counted.sent == {"EVALSHA": before + after}


def test_requests_alone_that_pass_a_soft_percent_cost_one_command_more_once(serve):
    served = serve(soft_percent=1)
    assert [served.post("/requests")[1:] for _ in range(12)] == [*[(1, 0)] * 9, (1, 1), (1, 0), (1, 0)]


def test_tokens_that_pass_a_soft_percent_cost_no_command_more(serve, counted):
    served = serve(soft_percent=1)
    for _ in range(3):
        assert served.post("/all")[1:] == (1, 1)
        assert counted.sent == {"EVALSHA": 2}


@pytest.mark.parametrize(("path", "after"), [("/requests", 0), ("/all", 1), ("/stream", 1)])
def test_limits_of_the_application_and_of_the_view_cost_one_command_together(serve, path, after):
    served = serve(application_limits=["5000 per day"])
    assert served.post(path)[1:] == (1, after)


def test_refused_request_costs_one_command(serve, counted):
    served = serve()
    costs = [(response.status_code, sum(costs)) for response, *costs in [served.post("/few") for _ in range(4)]]
    assert costs == [(200, 2), (200, 2), (429, 1), (429, 1)]
    assert counted.sent == {"EVALSHA": 1}


def test_request_that_its_view_s_limit_refuses_has_nothing_of_the_application_to_give_back(serve):
    served = serve(application_limits=["5000 per day"])
    statuses = [(response.status_code, sum(costs)) for response, *costs in [served.post("/few") for _ in range(3)]]
    assert statuses == [(200, 2), (200, 2), (429, 1)]


def test_eight_limits_of_three_payers_cost_one_command_before_the_view_and_one_to_settle(serve, counted):
    served = serve(plans=PLANS)
    served.limiter.identify(lambda: Caller(user=Payer("alice", "pro"), organisation=Payer("shop", "team")))
    for _ in range(2):
        response, *costs = served.post("/by-plan")
        assert (response.status_code, served.counts, *costs) == (200, 8, 1, 1)
        assert counted.sent == {"EVALSHA": 2}


def test_payer_that_refuses_costs_one_command_and_charges_no_other(serve, counted):
    served = serve(plans={**PLANS, "service": {"requests": "1 per day"}})
    served.limiter.identify(lambda: Caller(user=Payer("alice", "pro"), organisation=Payer("shop", "team")))
    costs = [(response.status_code, sum(costs)) for response, *costs in [served.post("/by-plan") for _ in range(3)]]
    assert costs == [(200, 2), (429, 1), (429, 1)]
    with served.app.test_request_context("/by-plan", method="POST"):
        used = {verdict.used for verdict in served.limiter.peek().verdicts if verdict.quota.unit == "requests"}
    assert used == {1}


def test_class_costs_no_command_and_leaves_its_floor_to_others(serve, counted):
    served = serve(plans={**PLANS, "service": {"requests": "4 per day", "classes": {"batch": 50}}})
    callers = [Caller(user=Payer(name, "pro"), service_class=named) for name, named in [("a", "batch"), ("b", None)]]
    served.limiter.identify(lambda: callers[0])
    while callers:
        costs = [(response.status_code, sum(costs)) for response, *costs in [served.post("/by-plan") for _ in range(3)]]
        assert costs == [(200, 2), (200, 2), (429, 1)]
        callers.pop(0)


def test_usage_of_all_limits_of_three_payers_costs_one_command(serve, server, counted):
    served = serve(plans=PLANS, told_roles=["organisation", "service"], application_limits=["5000 per day"])
    served.limiter.identify(lambda: Caller(user=Payer("alice", "pro"), organisation=Payer("shop", "team")))
    keys = server.ask("DBSIZE")
    counted.start()
    limits = served.app.test_client().get("/usage", headers=KEY).json["limits"]
    assert counted.sent == {"EVALSHA": 1}
    assert [(each["role"], each["used"]) for each in limits] == [
        *[("user", 0)] * 5,
        *[("organisation", 0)] * 2,
        ("service", 0),
        (None, 1),
    ]
    assert server.ask("DBSIZE") == keys


def test_script_that_the_server_forgot_costs_one_more_command_once(serve, server, counted):
    served = serve()
    server.ask("SCRIPT FLUSH")
    served.post("/requests")
    assert counted.sent == {"EVALSHA": 1, "EVAL": 1}
    served.post("/requests")
    assert counted.sent == {"EVALSHA": 1}


def test_all_leases_of_a_process_are_renewed_by_one_command(store, counted):
    engine = Engine(store, secret=b"x" * 32)
    quota = Quota(2, 3600, CONCURRENCY, CONCURRENCY)
    held = [engine.reserve([Charge(engine.subject(str(number)), quota)]) for number in range(200)]
    engine.leases.renew()
    counted.start()
    engine.leases.renew()
    assert counted.sent == {"EVALSHA": 1}
    assert all(reservation.allowed for reservation in held)
    engine.leases.close()


def test_several_reservations_are_settled_by_one_command(store, counted):
    engine = Engine(store, secret=b"x" * 32)
    held = [engine.reserve([Charge(engine.subject(who), QUOTAS[1], 50)]) for who in ("alice", "bob", "carol")]
    held[0].cancel()
    counted.start()
    store.settle([each for reservation in held[1:] for each in reservation.settlements(lambda _: 7)])
    assert counted.sent == {"EVALSHA": 1}
    engine.leases.close()


def test_decision_on_a_cluster_costs_one_command_for_each_slot(cluster):
    counted = Counted(cluster.nodes, cluster.proxies)
    first, second, other = subjects_of_two_slots()
    lease = count(1)
    with closing(store_at(cluster.uri)) as store:

        def costs(*subjects):
            charges = [Charge(subject, quota, 2) for subject in subjects for quota in QUOTAS]
            counted.start()
            decision = store.reserve(charges, number := next(lease))
            reserved = counted.decisions
            store.settle([Settlement(charge, decision.taken_at_us(charge), 1, number) for charge in charges])
            return reserved, counted.decisions - reserved

        costs(first, second, other)
        assert costs(first) == (1, 1)
        assert costs(first, second) == (1, 1)
        assert costs(first, second, other) == (2, 2)


def test_every_key_ends_soon_after_what_it_promises(serve, server, store):
    """Those of an app with all its features, and those of many subjects after many decisions."""
    served = serve(application_limits=["5000 per day"])
    for path in ("/requests", "/all", "/stream", "/few", "/few", "/few"):
        served.post(path)
    subjects = [secrets.token_bytes(16) for _ in range(40)]
    for number, subject in enumerate(subjects):
        charges = [Charge(subject, quota, number % 5) for quota in QUOTAS[number % 6 :]]
        decision = store.reserve(charges, number)
        if number % 3:
            store.settle([Settlement(c, decision.at_us, number % 7 * 30, number) for c in charges])
    for subject in subjects:
        longest = store.peek([Charge(subject, quota, 0) for quota in QUOTAS])
        promised_us = longest.at_us + max(verdict.reset_after_us for verdict in longest.verdicts)
        ends_ms = server.ask("PEXPIRETIME", store._key(subject))
        if promised_us == longest.at_us:
            assert ends_ms < 0 or ends_ms * 1000 <= promised_us + 2_000_000
        else:
            assert promised_us <= ends_ms * 1000 <= promised_us + 2_000_000
    keys = list(server.client().scan_iter(count=1000))
    markers = [key for key in keys if key.rpartition(b":")[2][:1] in b"rs" and not key.endswith(b"}")]
    records = [key for key in keys if key.endswith(b"}")]
    assert {*keys} == {*markers, *records, MACHINES, FINGERPRINT}
    assert len(markers) > 40
    assert len(records) > 20
    left_ms = {key: server.ask("PTTL", key) for key in keys}
    assert all(left != -1 for left in left_ms.values())
    assert all(left_ms[key] <= MARKER_MS for key in markers)
    assert all(left_ms[key] <= (2 * DAY + 2) * 1000 for key in records)
    assert left_ms[MACHINES] <= 60_000
    assert left_ms[FINGERPRINT] <= 30 * DAY * 1000


def test_all_keys_of_a_subject_are_of_one_slot(server, store):
    subject = secrets.token_bytes(16)
    decision = store.reserve([Charge(subject, quota, 1) for quota in QUOTAS], 1)
    store.settle([Settlement(verdict.charge, decision.at_us, 0, 1) for verdict in decision.verdicts[1:]])
    keys = list(server.client().scan_iter())
    assert len(keys) == 3
    assert len({key_slot(key) for key in keys}) == 1


def subjects_of_two_slots():
    """Three subjects, of which two are of one slot."""
    known = {}
    while True:
        subject = secrets.token_bytes(16)
        slot = key_slot(key_of(subject).encode())
        if slot in known:
            return known.pop(slot), subject, next(iter(known.values()))
        known[slot] = subject
