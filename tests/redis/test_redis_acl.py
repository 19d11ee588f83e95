"""The user that ``docs/redis.md`` has operators make can do all that a store does, and has no right to spare."""

import logging
import re
from contextlib import closing
from pathlib import Path

import pytest
from redis_sentinels import NAME
from redis_servers import start_server

from flask_ailimit.engine import Charge, ConfigurationError, Quota, system_clock
from flask_ailimit.engine.charge import Settlement
from flask_ailimit.engine.stores import directory
from flask_ailimit.engine.stores.redis import mistakes, open_uri
from flask_ailimit.engine.stores.redis.scripts import load

FILE = Path(__file__).parents[2] / "docs" / "redis.md"
if not FILE.exists():
    pytest.skip("the docs are not in the source distribution", allow_module_level=True)
PAGE = FILE.read_text(encoding="utf-8")

(RULE,) = re.findall(r"^ACL SETUSER ailimit .*$", PAGE, re.MULTILINE)
RIGHTS = [word for word in RULE.split() if word.startswith("+")]
MORE = {
    where: [right.replace("\\|", "|") for right in re.findall(r"\+[a-z]+(?:\\\|[a-z]+)?", rights)]
    for where, rights in re.findall(r"^\| (.*) \| ((?:there: )?`\+.*`) \|$", PAGE, re.MULTILINE)
}
PASSWORD = "correct-horse"
QUOTAS = (
    Quota(10, 60, algorithm="fixed-window"),
    Quota(1000, 60, "tokens"),
    Quota(3, 60, "concurrency", "concurrency"),
)


def more_for(words):
    (rights,) = [rights for where, rights in MORE.items() if words in where]
    return rights


@pytest.fixture(autouse=True)
def _nearby_in(tmp_path, monkeypatch):
    """Where the stores of this test keep what is theirs on this machine."""
    monkeypatch.setattr(directory, "default_directory", lambda name: tmp_path / name)


@pytest.fixture(scope="module")
def guarded(redis_binary):
    """A server whose users the tests of this file make anew."""
    with closing(start_server(redis_binary)) as server:
        yield server


def allow(server, rights, name="ailimit"):
    """Make the user as the page says, with these rights."""
    words = [word for word in RULE.replace("PASSWORD", PASSWORD).split() if not word.startswith("+")]
    server.ask("ACL", "SETUSER", name, "reset", *words[3:], *rights)
    server.ask("ACL", "LOG", "RESET")


def as_user(uri, name="ailimit"):
    return uri.replace("://", f"://{name}:{PASSWORD}@")


def refusals(server):
    """What users asked for and may not, as the server's ACL log has it."""
    entries = [{_text(key): value for key, value in entry.items()} for entry in server.ask("ACL", "LOG")]
    return {_text(entry["object"]) for entry in entries}


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


def steps(store):
    """All that a store does while an app runs, each with its name."""
    subjects = [bytes([number]) * 16 for number in range(3)]
    charges = [Charge(subject, quota) for subject in subjects for quota in QUOTAS]
    link = store._link

    def settle():
        decision = store.reserve(charges, 2)
        store.settle([Settlement(charge, decision.taken_at_us(charge), 0, 2) for charge in charges])

    return {
        "reserve": lambda: store.reserve(charges, 1),
        "refuse": lambda: [store.reserve(charges, lease) for lease in (3, 4, 5)],
        "settle": settle,
        "renew": lambda: store.renew([(charges[2], 1)]),
        "peek": lambda: store.peek(charges),
        "forget a count": lambda: store.reset(subjects[0], charges[0].bucket),
        "forget a subject": lambda: store.reset(subjects[0]),
        "change": lambda: store.add_change("{}", len(store.changes_from(1)), [1]),
        "enrol": store._machines.enroll,
        "probe": lambda: link._eval(load("probe"), [b"ailimit:{}:probe"], []),
    }


def complaints(uri, caplog, more=None, **options):
    """What goes wrong with a store over this URI, from its start to its end, doing ``more`` besides."""
    caplog.clear()
    try:
        store = open_uri(uri, "acl", system_clock, timeout=3.0, **options)
    except ConfigurationError as error:
        return [f"start: {error}"]
    found = [f"start: {record.message}" for record in caplog.records if record.levelno >= logging.WARNING]
    with closing(store):
        extra = {"more": lambda: more(store)} if more else {}
        for name, step in (steps(store) | extra).items():
            try:
                step()
            except Exception as error:  # noqa: BLE001  redis-py has several kinds
                found.append(f"{name}: {error}")
    return found


def test_the_page_says_what_the_error_says():
    assert mistakes._COMMANDS.split() == RIGHTS
    assert RULE.split()[3:6] == ["on", ">PASSWORD", "~ailimit:*"]


def test_the_user_of_the_page_can_do_everything(guarded, caplog):
    allow(guarded, RIGHTS)
    assert complaints(as_user(guarded.uri), caplog) == []
    assert refusals(guarded) <= {"client|setinfo"}


@pytest.mark.parametrize("right", RIGHTS)
def test_without_any_one_right_something_fails_and_says_so(guarded, caplog, right):
    allow(guarded, [other for other in RIGHTS if other != right])
    assert complaints(as_user(guarded.uri), caplog)
    assert refusals(guarded) & {right.removeprefix("+"), "eval"}


def test_another_prefix_is_out_of_reach(guarded, caplog):
    allow(guarded, RIGHTS)
    (complaint,) = complaints(as_user(guarded.uri), caplog, prefix="others")
    assert "rights ~others:* " in complaint


def test_wrong_password_is_refused_at_the_start_and_not_repeated(guarded, caplog):
    allow(guarded, RIGHTS)
    (complaint,) = complaints(as_user(guarded.uri).replace(PASSWORD, "battery-staple"), caplog)
    assert "refuses the user" in complaint
    assert "battery-staple" not in complaint


MORE_OF_ONE_SERVER = [
    pytest.param("engine.reset()", "", {}, lambda store: store.reset(), id="reset"),
    pytest.param("a database other than 0", "/3", {}, None, id="database"),
    pytest.param("client_name", "", {"client_name": "app-1"}, None, id="client_name"),
]


@pytest.mark.parametrize(("where", "path", "options", "more"), MORE_OF_ONE_SERVER)
def test_what_needs_more_rights_needs_each_of_those_on_the_page(guarded, caplog, where, path, options, more):
    needed = more_for(where)
    uri = as_user(guarded.uri) + path
    allow(guarded, RIGHTS + needed)
    assert complaints(uri, caplog, more, **options) == []
    for right in needed:
        allow(guarded, [*RIGHTS, *(other for other in needed if other != right)])
        assert complaints(uri, caplog, more, **options)
        assert right.removeprefix("+") in refusals(guarded)


def test_cluster_needs_each_of_the_rights_on_the_page(new_cluster, caplog):
    cluster, needed = new_cluster(), more_for("a cluster")
    uri = as_user(cluster.uri)

    def allow_on_all(rights):
        for node in cluster.nodes:
            allow(node, rights)

    def ask_on_the_way(store):
        """Ask about a subject whose slot is on its way to another node."""
        subject = b"s" * 16
        key = store._key(subject).decode()
        source = cluster.owner(key)
        migration = cluster.migration(key, next(node for node in cluster.nodes if node is not source))
        migration.begin()
        try:
            store.peek([Charge(subject, QUOTAS[0])])
        finally:
            migration.finish()

    allow_on_all(RIGHTS + needed)
    assert complaints(uri, caplog, ask_on_the_way) == []
    for right in needed:
        allow_on_all([*RIGHTS, *(other for other in needed if other != right)])
        assert complaints(uri, caplog, ask_on_the_way), right
        assert right.removeprefix("+") in set().union(*map(refusals, cluster.nodes))


def test_users_of_the_sentinels_need_the_right_on_the_page(new_sentinels, caplog):
    setup, needed = new_sentinels(), more_for("the sentinels")
    for server in (setup.primary, setup.replica):
        allow(server, RIGHTS)
    kwargs = {"sentinel_kwargs": {"username": "looking", "password": PASSWORD}}
    for rights, works in ((needed, True), ([], False)):
        for sentinel in setup.sentinels:
            allow(sentinel, rights, "looking")
        found = complaints(as_user(setup.uri), caplog, **kwargs)
        assert (found == []) == works, found
    assert setup.uri.endswith(NAME)
