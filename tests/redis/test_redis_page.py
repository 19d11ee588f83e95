"""``docs/redis.md`` says what is so: its examples run, its figures are measured, and its tables are complete."""

import ast
import re
import shlex
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from blinker import NamedSignal
from flask import Flask
from page_blocks import texts
from redis_servers import free_port, wait_until
from redis_stores import store_at

from flask_ailimit import AILimiter, ConfigurationError, signals
from flask_ailimit.config import Settings
from flask_ailimit.engine import ALGORITHMS, Charge, Engine, Quota, Settlement, open_store, system_clock
from flask_ailimit.engine.algorithms.gate import FAULT
from flask_ailimit.engine.charge import STORE_ERROR_POLICIES
from flask_ailimit.engine.decision import Decision, Settled, Verdict
from flask_ailimit.engine.stores import STORES, directory
from flask_ailimit.engine.stores.redis import (
    addresses,
    afterwards,
    breaker,
    connecting,
    machines,
    open_uri,
    pool,
    scripts,
)
from flask_ailimit.engine.stores.redis.sequence import decide_in_sequence
from flask_ailimit.engine.stores.share import Share
from flask_ailimit.request.endpoint_limits import limits_of
from flask_ailimit.testing import ManualClock

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "redis.md"
if not FILE.exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)
PAGE = FILE.read_text(encoding="utf-8")
SECRET = "x" * 32
DEFAULTS = dict(open_uri.__kwdefaults__)
KEY = {"Authorization": "Bearer alice"}
WITHIN = 0.25  # Servers of other versions take a little more or less.

sys.path.append(str(ROOT / "bench"))


def rows(start):
    """The rows of the table whose head begins so, each a list of cells."""
    table = PAGE.partition(f"\n{start}")[2].partition("\n\n")[0]
    lines = table.splitlines()[2:]
    assert lines, f"the page has no table {start}"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def number(text):
    return float(text.replace(",", ""))


@pytest.fixture(autouse=True)
def _nearby_in(tmp_path, monkeypatch):
    """Where the stores of this test keep what is theirs on this machine; and time enough where nobody asks for less."""
    monkeypatch.setattr(directory, "default_directory", lambda name: tmp_path / name)
    monkeypatch.setitem(open_uri.__kwdefaults__, "timeout", 3.0)


# Turning it on

FIRST, SIGNAL, TLS = texts("docs/redis.md", "python")


def run(code, uri, **names):
    """Run an example of the page at another place."""
    code, count = re.subn(r"rediss?://10\.0\.0\.5:6379(/0)?", uri, code)
    assert count <= 1
    names["__name__"] = "redis_page"
    exec(compile(code, str(FILE), "exec"), names)
    return names


def asked(app):
    return app.test_client().post("/predict", json={"prompt": "hello"}, headers=KEY)


def test_first_example_limits_and_settles_over_redis(server, monkeypatch):
    monkeypatch.setenv("FLASK_AILIMIT_SECRET", SECRET)
    names = run(FIRST, server.uri)
    app, limiter = names["create_app"](), names["limiter"]

    def counts_one():
        """Whether one request is counted. A minute may just have ended, or what was used have leaked already."""
        server.ask("FLUSHALL")
        answer = asked(app)
        assert (answer.status_code, answer.json) == (200, {"text": "HELLO"})
        with app.test_request_context():
            used = {verdict.quota.name: verdict.used for verdict in limiter.peek("predict", "alice").verdicts}
        assert used["requests-per-minute"] <= 1
        assert used["tokens-per-minute"] <= 24
        assert used["concurrency"] == 0
        assert server.ask("DBSIZE") > 0
        return used["requests-per-minute"] == 1 and used["tokens-per-minute"] > 0

    wait_until(counts_one)
    limiter.engine.close()


def test_the_secret_is_required_and_the_command_on_the_page_makes_one(server, monkeypatch):
    monkeypatch.setenv("FLASK_AILIMIT_SECRET", "")
    with pytest.raises(ConfigurationError, match="secret:"):
        run(FIRST, server.uri)["create_app"]()
    with pytest.raises(ConfigurationError, match="secret: every machine that shares a Redis must"):
        AILimiter(lambda: "", storage_uri=server.uri).init_app(Flask("without"))
    (command,) = texts("docs/redis.md", "sh")
    made = subprocess.run(
        ["/bin/sh", "-c", command.replace("python", sys.executable, 1)], capture_output=True, text=True, check=True
    ).stdout.strip()
    monkeypatch.setenv("FLASK_AILIMIT_SECRET", made)
    names = run(FIRST, server.uri)
    names["create_app"]()
    names["limiter"].engine.close()


def test_example_with_tls_is_trusted_with_the_authority_and_not_without(tls_server, certificates):
    code = TLS.replace("/etc/ssl/redis-ca.pem", certificates.ca)
    names = run(code, tls_server.uri, AILimiter=AILimiter, api_key=lambda: "alice")
    app = Flask("tls")
    app.config["AILIMIT_SECRET"] = SECRET
    names["limiter"].init_app(app)
    names["limiter"].engine.close()
    with pytest.raises(ConfigurationError, match="can't be trusted"):
        open_uri(tls_server.uri, "tls", system_clock)


def test_options_of_tls_are_refused_without_it(server):
    with pytest.raises(ConfigurationError, match="rediss://"):
        store_at(server.uri, ssl_ca_certs="/no/such/file")


URIS = {row[0]: row[1] for row in rows("| servers |")}
KINDS = {
    "one": ("", False),
    "one, with a login": ("", False),
    "one, over TLS": ("", True),
    "one, by its socket": ("unix", False),
    "behind sentinels": ("sentinel", False),
    "a cluster": ("cluster", False),
}


@pytest.mark.parametrize(("servers", "kind"), KINDS.items())
def test_uris_on_the_page_are_understood(servers, kind):
    uri = URIS[servers].strip("`")
    for name in (uri, uri.replace("redis", "valkey", 1)):
        assert name.partition("://")[0] in STORES
        address = addresses.parse(name)
        assert (address.kind, address.tls) == kind


@pytest.mark.parametrize("servers", KINDS)
@pytest.mark.parametrize("login", ["", "user:hidden@", "hidden@"])
def test_place_of_the_store_is_its_uri_without_the_login(servers, login):
    uri = re.sub(r"://([^/]*@)?", f"://{login}", URIS[servers].strip("`"), count=1)
    place = addresses.parse(uri).uri
    assert "hidden" not in place
    assert addresses.parse(place) == replace(addresses.parse(uri), username=None, password=None)


def test_place_of_the_store_may_be_an_ipv6_address():
    assert addresses.parse("redis://:hidden@[2001:db8::1]:6380/2").uri == "redis://[2001:db8::1]:6380/2"


def test_all_servers_and_options_are_on_the_page():
    assert set(URIS) == {*KINDS, "Valkey"}
    listed = {name for row in rows("| `storage_options` |") for name in re.findall(r"`(\w+)`", row[0])}
    named = set(DEFAULTS) | {"username", "password", "client_name", "sentinel_kwargs"}
    assert named <= listed
    assert {name for name in listed - named if not name.startswith("ssl_")} == set()
    assert set(connecting._FORWARDED) <= named | {"ssl"}
    for names, default, _ in rows("| `storage_options` |"):
        if default:
            assert str(DEFAULTS[names.strip("`")]) == default.strip("`")


# When Redis is away


@pytest.fixture
def away():
    """The URI of a server that is not there."""
    return f"redis://127.0.0.1:{free_port()}"


def app_over(uri, name="away", **options):
    app = Flask(name)
    limiter = AILimiter(lambda: "alice", storage_uri=uri, secret=SECRET, **options)
    limiter.init_app(app)
    return app, limiter


@pytest.mark.parametrize("policy", ["local", "allow", "deny"])
def test_headers_of_an_outage_speak_of_the_share(away, policy):
    (machine_count, limit, shown) = re.search(
        r"with (\d+) machines, `(\d+) per minute` shows `X-RateLimit-Limit: (\d+)`", PAGE
    ).groups()
    app, limiter = app_over(away, storage_options={"machines": int(machine_count)}, on_store_error=policy)
    app.post("/predict")(limiter.limit(f"{limit} per minute")(lambda: "done"))
    answer = asked(app)
    if policy == "local":
        assert (answer.status_code, answer.headers["X-RateLimit-Limit"]) == (200, shown)
    elif policy == "allow":
        assert answer.status_code == 200
        assert not [name for name in answer.headers.keys() if "ratelimit" in name.lower()]  # noqa: SIM118  may repeat
    else:
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "limiter_unavailable" in answer.text
    limiter.engine.close()


def test_one_limit_that_says_deny_refuses_what_others_would_let_pass(away):
    app, limiter = app_over(away, on_store_error="allow")
    strict = limiter.limit("10 per hour", on_store_error="deny")
    app.post("/predict")(limiter.limit("60 per minute")(strict(lambda: "done")))
    assert asked(app).status_code == 503
    limiter.engine.close()


def test_shares_are_those_on_the_page():
    limit, few, many = map(int, re.search(r"limit of (\d) calls.* each of (\d) machines, and on (\d)", PAGE).groups())
    assert [Share(rank, few).part(limit) for rank in range(few)] == [1] * few
    assert sorted(Share(rank, many).part(limit) for rank in range(many)) == [0] + [1] * (many - 1)


@pytest.mark.parametrize(("cost", "status"), [(20, 200), (21, 503), (60, 503), (61, 413)])
def test_what_is_larger_than_the_share_waits_for_redis(away, cost, status):
    app, limiter = app_over(away, storage_options={"machines": 3})
    app.post("/predict")(limiter.limit("60 per minute", cost=cost)(lambda: "done"))
    assert asked(app).status_code == status
    limiter.engine.close()


def test_times_on_the_page_are_those_of_the_code():
    assert f"says every {machines._INTERVAL:.0f} s that its machine is there" in PAGE
    assert f"nothing for {machines._GONE_AFTER} s is gone" in PAGE
    assert "Three calls in a row without an answer open the breaker" in PAGE
    assert breaker.FAILURES_TO_OPEN == 3
    assert (breaker._FIRST_WAIT, breaker._LONGEST_WAIT, breaker._JITTER) == (0.25, 0.5, 0.2)
    assert "again after 0.25 s, then\nevery 0.5 s, each ±20 %" in PAGE
    assert f"only within {afterwards._REMEMBERED:.0f} s" in PAGE
    waits = {row[0].partition(",")[0]: row[1] for row in rows("| it waits | at most |")}
    assert waits["in line for a connection"] == f"{pool.PATIENCE:.0f} s"
    assert f"`none of {DEFAULTS['max_connections']} connections was free for {pool.PATIENCE:g} s`" in PAGE
    assert waits["for the connection to be made"].startswith(f"`connect_timeout`, {DEFAULTS['connect_timeout']} s")
    assert "| to send, and for the reply | `timeout`, 0.25 s" in PAGE
    assert f"It makes {pool.MADE_AT_ONCE} connections at the same\ntime at most" in PAGE


def test_signal_on_the_page_is_sent_when_redis_goes_and_comes(server, caplog):
    app, limiter = app_over(server.uri)
    app.post("/predict")(limiter.limit("60 per minute")(lambda: "done"))
    names = run(SIGNAL, "", app=app)
    assert callable(names["page_somebody"])
    server.kill()
    statuses = [asked(app).status_code for _ in range(3)]
    assert statuses == [200] * 3
    assert "limits are by machine, Redis is away" in caplog.text
    server.restart()
    wait_until(lambda: "limits are shared again" in caplog.text)
    assert f"redis 127.0.0.1:{server.port} is back." in caplog.text
    limiter.engine.close()


# What it costs


def scripts_run(server):
    """How many scripts clients had run since this was last asked."""
    stats = server.ask("INFO", "commandstats")
    server.ask("CONFIG", "RESETSTAT")
    return sum(stats[name]["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in stats)


@pytest.mark.parametrize("row", rows("| a route with |"), ids=lambda row: row[0])
def test_commands_of_a_request_are_as_many_as_on_the_page(server, undisturbed, row):
    kind, before, after = row[0], int(row[1]), int(row[2])
    more = {"application_limits": ["1000 per hour"]} if "application" in kind else {}
    app, limiter = app_over(server.uri, **more)
    wait_until(lambda: server.ask("EXISTS", "ailimit:{}:machines"))
    seen = []

    def predict():
        seen.append(scripts_run(server))
        limiter.record_usage(input_tokens=5)
        return "done"

    view = limiter.limit("1 per hour" if "refused" in kind else "60 per hour")(predict)
    if "requests only" not in kind:
        view = limiter.limit_concurrency(4)(limiter.limit_tokens("1000 per hour", estimate=lambda _: 40)(view))
    app.post("/predict")(view)
    assert asked(app).status_code == 200  # The server knows the scripts from now on.
    scripts_run(server)
    answer = asked(app)
    if "refused" in kind:
        assert (answer.status_code, len(seen)) == (429, 1)
        assert scripts_run(server) == before + after
    else:
        assert answer.status_code == 200
        assert (seen[1], scripts_run(server)) == (before, after)
    limiter.engine.close()


class Counted:
    """Answers for the payers of a cluster, of whom one refuses, and counts the trips."""

    def __init__(self, refusing):
        self._refusing, self.trips = refusing, 0

    def decide(self, charges, lease, *, dry=False):
        self.trips += 1
        return Decision(tuple(Verdict(c, c.subject != self._refusing, 1, 0, 0) for c in charges), 1)

    def settle(self, settlements):
        self.trips += 1
        return Settled(0)


@pytest.mark.parametrize("payers", [1, 2, 3, 5])
def test_trips_on_a_cluster_are_those_on_the_page(payers):
    table = {row[0].split(",")[0]: row[1] for row in rows("| a route with n payers |")}
    charges = [Charge(bytes([number]) * 16, Quota(1, 60)) for number in range(payers)]
    for k in range(payers + 1):
        part = Counted(charges[k - 1].subject if k else None)
        decide_in_sequence(part, charges, [[place] for place in range(payers)], 1)
        formula = table["any"] if k else table["limits on requests only"]
        assert part.trips == eval(formula, {"n": payers, "k": k})


def six_charges(engine):
    """Three limits on requests, two on tokens and one on calls in flight."""
    subject = engine.subject("alice")
    return [
        Charge(subject, Quota(1000, 1)),
        Charge(subject, Quota(1000, 60)),
        Charge(subject, Quota(1000, 86400, algorithm="fixed-window")),
        Charge(subject, Quota(10**6, 60, "tokens"), 1000),
        Charge(subject, Quota(10**6, 86400, "tokens", "fixed-window"), 1000),
        Charge(subject, Quota(100, 60, "concurrency", "concurrency")),
    ]


def test_bytes_on_the_page_are_those_on_the_wire(server, undisturbed):
    engine = Engine(store_at(server.uri), secret=SECRET.encode())
    engine.reserve(six_charges(engine)).cancel()
    reservations = []
    steps = {
        "decision": lambda: reservations.append(engine.reserve(six_charges(engine))),
        "settlement": lambda: reservations[0].settle({"tokens": 500}),
    }
    fields = ("total_net_input_bytes", "total_net_output_bytes")

    def transferred():
        told = server.ask("INFO", "stats")
        return [told[field] for field in fields]

    own = transferred()
    own = [after - before for before, after in zip(own, transferred(), strict=True)]
    for name, to_server, back in rows("| | to the server | back |"):
        before = transferred()
        steps[name]()
        told = [after - b - mine for b, after, mine in zip(before, transferred(), own, strict=True)]
        assert told[0] == pytest.approx(number(to_server), rel=WITHIN)
        assert told[1] == pytest.approx(number(back), abs=20)
    engine.close()


def test_first_use_of_a_script_sends_about_as_much_as_the_page_says():
    (kilobytes,) = re.findall(r"sent once as `EVAL` \(about (\d+) kB\)", PAGE)
    assert len(scripts.load("reserve").text) / 1000 == pytest.approx(float(kilobytes), rel=WITHIN)


def test_keys_and_their_times_are_those_on_the_page(server):
    with closing(open_uri(server.uri, "page", system_clock)) as store:
        engine = Engine(store, secret=SECRET.encode())
        engine.reserve(six_charges(engine)).settle({"tokens": 500})
        store._machines.enroll()
        store.agree(b"0" * 32, "")
    kinds, client = {}, server.client()
    for key in client.scan_iter():
        kind = re.sub(r"\{[\w-]+\}", "{…}", re.sub(r":([rs])[0-9a-f]+$", r":\1…", key.decode()))
        kinds[kind] = client.pttl(key) / 1000
    listed = {row[0].strip("`"): row[2] for row in rows("| key |")}
    assert set(kinds) == set(listed)
    for kind, ttl in kinds.items():
        assert ttl > 0
        if listed[kind].endswith(" s"):
            assert ttl == pytest.approx(float(listed[kind].removesuffix(" s")), abs=3)
    assert kinds["ailimit:{…}"] <= 86400


MEMORY = {row[0]: row[1:] for row in rows("| bytes for each payer |")}


def test_memory_of_a_payer_and_of_a_marker_is_as_on_the_page(server, redis_binary):
    from redis_memory import LIMITS, charges_of  # noqa: PLC0415  the bench whose figures the page has

    column = 0 if "valkey" in redis_binary else 1
    engine = Engine(store_at(server.uri), secret=SECRET.encode())
    engine.reserve(charges_of(engine.subject("alice"), LIMITS))
    engine.close()
    (key,), (marker,) = server.ask("KEYS", "ailimit:{*}"), server.ask("KEYS", "ailimit:{*}:r*")
    assert server.ask("STRLEN", key) == number(MEMORY["its counts themselves"][column])
    sizes = {"`MEMORY USAGE` of its key": key, "a marker": marker}
    for name, measured in sizes.items():
        assert server.ask("MEMORY", "USAGE", measured) == pytest.approx(number(MEMORY[name][column]), rel=WITHIN)


def test_no_count_grows_beyond_what_the_page_says(server):
    listed = {row[0].strip("`"): row[1] for row in rows("| algorithm | bytes |")}
    assert set(listed) == set(ALGORITHMS)
    for name, told in listed.items():
        clock = ManualClock()
        engine = Engine(store_at(server.uri, clock), secret=SECRET.encode())
        slots = name in ("concurrency", "turns")
        own_unit = slots or name == "gate"
        quota = Quota(100, 60, name, name) if own_unit else Quota(1_000_000, 60, "tokens", name)
        largest, key = 0, None
        for ticket in range(1, 111):
            clock.advance(0.13)
            charge = Charge(engine.subject(name), quota, 1 if own_unit else 3000)
            if name == "turns":
                engine.store.settle([Settlement(charge.costing(0), 0, 1, ticket)])
            elif name == "gate":
                engine.reserve([charge]).end(lambda _: FAULT)
            else:
                engine.reserve([charge])
            key = key or server.ask("KEYS", "ailimit:{*}")[0]
            largest = max(largest, server.ask("STRLEN", key) - 1)  # A record has a byte before its counts.
        numbers = [number(text) for text in re.findall(r"[\d,]*\d", told)]
        assert largest == (numbers[0] + 100 * numbers[1] if slots else numbers[0])
        engine.close()
        server.clear()


# What to set


def test_commands_for_the_server_work(new_server):
    server, ran = new_server(), []
    settings = []
    for block in texts("docs/redis.md", "redis"):
        for line in block.splitlines():
            server.ask(*shlex.split(line))
            ran.append(line.split()[0])
        settings.append(server.client().config_get("*"))
    assert ran == ["CONFIG"] * 6 + ["ACL"]
    of_limits, of_money, _ = settings
    assert (of_limits["maxmemory-policy"], of_limits["save"], of_limits["appendonly"]) == ("noeviction", "", "no")
    wanted = {"maxmemory-policy": "noeviction", "appendfsync": "everysec", "appendonly": "yes"}
    assert wanted.items() <= of_money.items()
    with closing(store_at(server.uri)) as store:
        assert store.may_lose_counts() is None


def test_full_server_refuses_decisions_and_takes_settlements(new_server):
    server = new_server("--maxmemory-policy", "noeviction")
    engine = Engine(store_at(server.uri), secret=SECRET.encode())
    reservation = engine.reserve(six_charges(engine))
    assert engine.peek(six_charges(engine)).verdicts[4].used == 1000
    server.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(Exception, match="OutOfMemoryError"):
        engine.reserve(six_charges(engine))
    reservation.settle({"tokens": 0})
    assert engine.peek(six_charges(engine)).verdicts[4].used == 0
    engine.close()


@pytest.mark.parametrize("threads", [1, 5])
def test_a_process_has_a_connection_for_each_thread_that_decides_at_once(server, threads):
    from threading import Barrier, Thread  # noqa: PLC0415

    engine = Engine(store_at(server.uri), secret=SECRET.encode())
    charges, together = six_charges(engine), Barrier(threads)
    before = server.ask("INFO", "clients")["connected_clients"]

    def decide():
        together.wait()
        for _ in range(20):
            engine.reserve(charges)

    running = [Thread(target=decide) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert server.ask("INFO", "clients")["connected_clients"] - before <= threads + 1  # One more renews leases.
    engine.close()


# Trouble


LOGS = ("_log.info", "_log.warning", "_log.error", "_log.exception")


def logged():
    """What is logged about a store, its leases and the money in it, with … for what varies."""
    package = ROOT / "flask_ailimit" / "engine"
    others = [package / "engine.py", package / "leases.py", package.parent / "durable.py"]
    for file in [*(package / "stores" / "redis").glob("*.py"), *others]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in LOGS:
                yield re.sub(r"%[sd]", "…", ast.literal_eval(node.args[0]))


def test_all_log_lines_are_on_the_page():
    listed = [row[0].strip("`") for row in rows("| log line |")]
    assert sorted(listed) == sorted(logged())


def test_alerts_of_the_page_name_lines_that_are_logged():
    watched = [text for row in rows("| what | when to act |") for text in re.findall(r"log line `([^`]*)`", row[0])]
    assert len(watched) == 2
    for text in watched:
        assert any(text.strip("… ") in line for line in logged())


def with_a_budget(uri):
    limiter = AILimiter(lambda: "", storage_uri=uri, secret=SECRET, prices={"*": {"input": "1 USD", "output": "1 USD"}})
    view = limiter.limit_budget("5 USD per day")(dict)
    limiter.init_app(Flask("with_a_budget"))
    return view


def test_errors_at_the_start_are_on_the_page(new_server, away, caplog):
    listed = [row[0].strip("`") for row in rows("| message |")]
    assert len(listed) == 12
    server = new_server(password="right")
    wrong = [
        lambda: AILimiter(lambda: "", storage_uri=server.uri).init_app(Flask("without")),
        lambda: addresses.parse("redis://h:99999"),
        lambda: open_uri(server.uri.replace("right", "wrong"), "page", system_clock),
        lambda: open_uri(away, "page", system_clock, nosuch=1),
        lambda: with_a_budget(new_server().uri),
    ]
    patterns = [re.escape(text).replace("…", ".*") for text in listed]
    for call in wrong:
        with pytest.raises(ConfigurationError) as raised:
            call()
        assert [pattern for pattern in patterns if re.match(pattern, str(raised.value))]


def test_start_with_a_server_that_is_away_is_logged_and_goes_on(away, caplog):
    with closing(open_store(away, name="page", clock=system_clock, options={})):
        assert (
            f"redis {away.removeprefix('redis://')} is not to be reached, limits follow on_store_error" in caplog.text
        )


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "noeviction"])
def test_policy_that_forgets_counts_is_warned_of(new_server, caplog, policy):
    server = new_server("--maxmemory-policy", policy)
    with closing(open_uri(server.uri, "page", system_clock)):
        assert ("CONFIG SET maxmemory-policy noeviction" in caplog.text) == (policy != "noeviction")


# docs/configuration.md

CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("default", STORE_ERROR_POLICIES)
def test_policies_of_the_decorators_are_as_documented(away, default):
    (example,) = [text for text in texts("docs/configuration.md", "python") if "on_store_error" in text]
    app, limiter = app_over(away, on_store_error=default)
    exec(compile(example, "configuration.md", "exec"), {"app": app, "limiter": limiter})
    assert app.test_client().post("/v1/images").status_code == 503
    given = dict(re.findall(r"limiter\.(\w+)\(.*on_store_error=\"(\w+)\"", example))
    assert given == {"limit": "allow", "shared_limit": "local", "limit_tokens": "deny", "limit_concurrency": "local"}
    with app.test_request_context("/v1/images", method="POST"):
        charges = [charge for each in limits_of(limiter.ledger, "images", ["POST"], None) for charge in each.counts]
    assert sorted(charge.on_store_error for charge in charges) == sorted(given.values())
    limiter.engine.close()


def test_policies_and_their_default_are_on_the_page():
    table = CONFIGURATION.partition("| policy | while the store is away |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(STORE_ERROR_POLICIES)
    (default,) = re.findall(r"`AILIMIT_ON_STORE_ERROR` \| `(\w+)`", CONFIGURATION)
    assert default == Settings().on_store_error
    assert {row[0].split("`")[1] for row in rows("| policy |")} == set(STORE_ERROR_POLICIES)


def test_all_signals_are_documented():
    names = {name for name, value in vars(signals).items() if isinstance(value, NamedSignal)}
    assert {"request_refused", "usage_settled", "soft_limit_passed", "store_changed"} <= names
    for name in names:
        assert f"`{name}`" in CONFIGURATION


# README.md


def test_the_readme_s_two_lines_make_an_app_share_its_limits(server, monkeypatch):
    (command,) = [text for text in texts("README.md", "sh") if "AILIMIT_SECRET" in text]
    script = command.replace("$(python", f"$({sys.executable}").replace("redis://10.0.0.5:6379", server.uri)
    told = 'printf "%s\\n" "$FLASK_RATELIMIT_STORAGE_URI" "$FLASK_AILIMIT_SECRET"'
    ran = subprocess.run(["/bin/sh", "-euc", script + told], capture_output=True, text=True, check=True)
    uri, secret = ran.stdout.splitlines()
    assert uri == server.uri
    monkeypatch.setenv("FLASK_RATELIMIT_STORAGE_URI", uri)
    monkeypatch.setenv("FLASK_AILIMIT_SECRET", secret)
    (code,) = [text for text in texts("README.md", "python") if "create_app" in text]
    statuses = []
    for _ in range(2):
        names = {"__name__": "shared"}
        exec(compile(code, "README.md", "exec"), names)
        limiter, app = names["limiter"], names["create_app"]()
        app.post("/once", endpoint="once")(limiter.limit("1 per day")(lambda: "done"))
        statuses.append(app.test_client().post("/once", headers={"x-api-key": "sk-alice"}).status_code)
        limiter.engine.close()
    assert statuses == [200, 429]


def test_the_estimate_of_the_page_finds_the_share_too_small():
    limit, count, share, default = map(
        number, re.search(r"`(\d+) per minute`\n(\d+) machines have (\d+) each.* reserves ([\d,]+)", PAGE).groups()
    )
    assert Share(0, int(count)).part(int(limit)) == share < default == Settings().default_output_tokens
