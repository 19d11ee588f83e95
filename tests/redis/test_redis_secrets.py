"""No key, prompt, answer, password or secret gets into Redis, into what is sent to it, or out of the app."""

import logging
import re
import socket
from base64 import urlsafe_b64decode
from contextlib import closing, contextmanager

import pytest
from flask import Flask, Response, abort, request
from redis_servers import PATIENCE, wait_until

from flask_ailimit import AILimiter, ConfigurationError, StoreError, api_key
from flask_ailimit.cli import cli
from flask_ailimit.engine import Charge, Quota, system_clock
from flask_ailimit.engine.stores import directory
from flask_ailimit.engine.stores.redis import open_uri
from flask_ailimit.engine.stores.redis.addresses import parse
from flask_ailimit.engine.stores.redis.machines import Machines

KEY = "sk-canary-key-7f3a9b"
PROMPT = "canary-prompt-51c0"
ANSWER = "canary-answer-e8d2"
SECRET = "canary-secret-0d4e-of-32-bytes-00"
PASSWORD = "canary-password-90af"
CANARIES = (KEY, PROMPT, ANSWER, SECRET, PASSWORD)
PARTS = [canary[at : at + 6].encode() for canary in CANARIES for at in range(len(canary) - 5)]
BODY = {"prompt": f"{PROMPT} and more", "max_tokens": 40}
THE_END = "the-end-of-what-is-monitored"


@pytest.fixture(autouse=True)
def _nearby_in(tmp_path, monkeypatch):
    """Where the stores of this test keep what is theirs on this machine."""
    monkeypatch.setattr(directory, "default_directory", lambda name: tmp_path / name)


@pytest.fixture
def secured(new_server):
    """A server that wants a password."""
    return new_server(password=PASSWORD)


@pytest.fixture
def logs(caplog):
    """Everything that anybody logs."""
    caplog.set_level(logging.DEBUG)
    for name in ("flask_ailimit", "flask-limiter", "limits", "redis", "werkzeug"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


def assert_clean(text):
    """No canary is in it; nor is a part of one in what is behind the base64 of a key."""
    text = text if isinstance(text, bytes) else str(text).encode()
    assert [canary for canary in CANARIES if canary.encode() in text] == []
    for tag in re.findall(rb"ailimit:\{([\w-]{22})\}", text):
        hidden = urlsafe_b64decode(tag + b"==")
        assert [part for part in PARTS if part in hidden] == []


def served(uri, policy="local"):
    """An app that limits by all units, and answers in several ways."""
    app = Flask("secrets", static_folder=None)
    limiter = AILimiter(
        api_key, storage_uri=uri, storage_options={"timeout": 3.0}, secret=SECRET, on_store_error=policy
    )
    limiter.init_app(app)

    @app.post("/<how>", endpoint="answer")
    @limiter.limit("30 per day")
    @limiter.limit("30 per day", scope=PROMPT)
    @limiter.limit_tokens("1000 per hour")
    @limiter.limit_tokens("100 per minute", unit="output_tokens", algorithm="moving-window")
    @limiter.limit_concurrency(2)
    def answer(how):
        if how == "abort":
            abort(400)
        if how == "stream":
            return Response(iter([ANSWER, " ", request.json["prompt"]]), mimetype="text/plain")
        return {"text": ANSWER}

    return app, limiter


def ask(app, how="json", **more):
    return app.test_client().post(f"/{how}", json=BODY | more, headers={"x-api-key": KEY}, buffered=True)


def use(app):
    """Send requests of every kind, until refused and beyond; answer what came back."""
    answers = [ask(app, how) for how in ("json", "stream", "abort")]
    answers += [ask(app) for _ in range(40)]
    return [*answers, ask(app, max_tokens=5000)]


@contextmanager
def monitored(server):
    """What the server is asked while the context lasts: a list with one text in it, when it is over."""
    heard = []
    with closing(socket.create_connection(("127.0.0.1", server.port), PATIENCE)) as listener:
        listener.sendall(f"AUTH {PASSWORD}\r\nMONITOR\r\n".encode())
        received = b""
        while received.count(b"+OK") < 2:
            received += listener.recv(1 << 16)
        yield heard
        server.ask("ECHO", THE_END)
        while THE_END.encode() not in received:
            received += listener.recv(1 << 16)
    heard.append(received)


def contents(server):
    """Every key and value, as the server has them."""
    client = server.client()
    parts = []
    for key in client.scan_iter(count=1000):
        kind = client.type(key)
        value = client.get(key) if kind == b"string" else client.zrange(key, 0, -1, withscores=True)
        parts.append((key, value, client.dump(key)))
    return parts


def test_nothing_of_a_client_or_of_the_login_is_sent_or_kept(secured, logs):
    with monitored(secured) as heard:
        app, limiter = served(secured.uri)
        answers = use(app)
        wait_until(lambda: secured.ask("EXISTS", "ailimit:{}:machines"))
    kept = contents(secured)
    assert {200, 400, 413, 429} <= {answer.status_code for answer in answers}  # The canaries were really used.
    assert {b"string", b"zset"} <= {secured.client().type(key) for key, *_ in kept}
    assert b'"EVALSHA"' in heard[0]
    assert b' lua] "SET"' in heard[0]
    for part in (*heard, *kept):
        assert_clean(part)
    for answer in answers:
        assert_clean(answer.headers)
        if answer.status_code >= 400:
            assert_clean(answer.data)
    assert_clean(logs.text)
    limiter.engine.close()


@pytest.mark.parametrize(("policy", "statuses"), [("local", {200, 429}), ("allow", {200}), ("deny", {503})])
def test_nothing_is_told_when_the_server_goes_away(secured, logs, policy, statuses):
    app, limiter = served(secured.uri, policy)
    assert ask(app).status_code == 200
    secured.kill()
    answers = [ask(app) for _ in range(40)]
    assert {answer.status_code for answer in answers} == statuses
    assert "is away" in logs.text
    assert_clean(logs.text)
    for answer in answers:
        assert_clean(answer.headers)
        if answer.status_code >= 400:
            assert_clean(answer.data)
            assert str(secured.port) not in answer.text
    limiter.engine.close()


@pytest.mark.parametrize("arguments", [["config"], ["limits"], ["usage", KEY], ["reset", KEY]], ids=lambda a: a[0])
@pytest.mark.parametrize("away", [False, True], ids=["there", "away"])
def test_command_line_shows_no_secret_and_repeats_no_key(secured, arguments, away):
    app, limiter = served(secured.uri)
    ask(app)
    if away:
        secured.kill()
    ran = app.test_cli_runner().invoke(cli, arguments)
    assert ran.output or ran.exception
    assert_clean(ran.output)
    assert_clean(repr(ran.exception))
    limiter.engine.close()


def test_flask_limiter_s_command_line_shows_none_either(secured):
    app, limiter = served(secured.uri)
    ran = app.test_cli_runner().invoke(args=["limiter", "config"])
    assert ran.output
    assert_clean(ran.output)
    limiter.engine.close()


def test_reprs_show_no_secret(secured):
    _, limiter = served(secured.uri)
    store = limiter.engine.store
    seen = [
        limiter,
        limiter.app_state,
        limiter.app_state.settings,
        limiter.engine,
        store,
        store._link,
        store._link.wire,
    ]
    seen += [
        store.nearby,
        store._machines,
        *store._link._breakers.values(),
        parse(secured.uri),
        str(parse(secured.uri)),
        parse(secured.uri).uri,
        store.where,
    ]
    assert any(isinstance(each, Machines) for each in seen)
    for each in seen:
        assert_clean(repr(each))
    limiter.engine.close()


WRONG_URIS = [
    f"redis://:{PASSWORD}@127.0.0.1:99999",
    f"redis://:{PASSWORD}@127.0.0.1:6379/x",
    f"redis://:{PASSWORD}@/0",
    f"redis://{PASSWORD}@:6379",
    f"redis://:{PASSWORD}@127.0.0.1:6379/0?password={PASSWORD}",
    f"redis+sentinel://:{PASSWORD}@127.0.0.1:26379",
    f"redis+cluster://:{PASSWORD}@127.0.0.1:6379/3",
    f"redis+unix://:{PASSWORD}@",
    f"redis+other://:{PASSWORD}@127.0.0.1",
    f"redis:://:{PASSWORD}@127.0.0.1",
    f"redis:/:{PASSWORD}@127.0.0.1",
]


@pytest.mark.parametrize("uri", WRONG_URIS)
def test_wrong_uri_is_refused_without_its_password(uri, logs):
    with pytest.raises(ConfigurationError) as raised:
        served(uri)
    assert_clean(raised.value)
    assert_clean(logs.text)


WRONG_OPTIONS = [
    ("redis://127.0.0.1:1", {"pasword": PASSWORD}),
    ("redis://127.0.0.1:1", {"password": PASSWORD, "max_connections": 0}),
    ("rediss://127.0.0.1:1", {"ssl_pasword": PASSWORD}),
    ("redis+sentinel://127.0.0.1:1/mymaster", {"sentinel_kwargs": {"pasword": PASSWORD}}),
]


@pytest.mark.parametrize(("uri", "options"), WRONG_OPTIONS)
def test_wrong_option_is_refused_without_any_value(uri, options, logs):
    with pytest.raises(ConfigurationError) as raised:
        open_uri(uri, "secrets", system_clock, **options)
    assert_clean(raised.value)
    assert_clean(logs.text)


def test_wrong_password_is_refused_and_not_repeated(new_server, logs):
    server = new_server(password="another")
    with pytest.raises(ConfigurationError, match="refuses the user") as raised:
        served(server.uri.replace("another", PASSWORD))
    assert_clean(raised.value)
    assert_clean(logs.text)


PLACES = [
    "redis://:{}@127.0.0.1:1",
    "rediss://:{}@127.0.0.1:1",
    "redis+unix://:{}@/no/such/socket",
    "redis+cluster://:{}@127.0.0.1:1",
    "redis+sentinel://:{}@127.0.0.1:1,127.0.0.1:2/mymaster",
]


@pytest.mark.parametrize("place", PLACES)
def test_error_of_a_server_that_is_not_there_has_no_password(place, logs):
    """Neither has what it was raised from, which the app may log."""
    kwargs = {"sentinel_kwargs": {"password": PASSWORD}} if "sentinel" in place else {}
    with closing(open_uri(place.format(PASSWORD), "secrets", system_clock, **kwargs)) as store:
        assert_clean(repr(store))
        for _ in range(4):
            with pytest.raises(StoreError) as raised:
                store.reserve([Charge(b"s" * 16, Quota(1, 1))], 1)
            error = raised.value
            while error is not None:
                assert_clean(str(error))
                error = error.__cause__ or error.__context__
    assert_clean(logs.text)
