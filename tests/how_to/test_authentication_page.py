"""The page about Flask-Login: who is let in, who is charged, and in which order that is found out."""

import httpx2
import pytest
from app_server import serving
from flask_login import login_required
from pages import imported
from real_servers import PATIENCE

from flask_ailimit.testing import limits_clock  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("limits_clock")
BODY = {"prompt": "hello", "max_tokens": 50}
ADA, BOB = ({"Authorization": f"Bearer key-of-{name}"} for name in ("ada", "bob"))


@pytest.fixture
def page(tmp_path):
    with imported("how-to/authentication.md", tmp_path) as module:
        yield module


@pytest.fixture
def client(page):
    """A browser: it keeps its cookies."""
    with serving(page.app) as address, httpx2.Client(base_url=address, timeout=PATIENCE) as browser:
        yield browser


ADDRESS = None
"""The subject of requests without a key from this machine."""


def used(page, endpoint="generate", subject="ada", unit="requests"):
    with page.app.test_request_context(environ_base={"REMOTE_ADDR": "127.0.0.1"}):
        verdicts = page.limiter.peek(endpoint, subject).verdicts
    return next(verdict.used for verdict in verdicts if verdict.quota.unit == unit)


def log_in(client, name="ada", password="pass-a"):
    return client.post("/login", data={"name": name, "password": password})


def generate(client, **headers):
    return client.post("/v1/generate", json=BODY, headers=headers)


def test_session_and_key_of_a_user_have_one_count(page, client):
    assert log_in(client).json() == {"name": "ada"}
    assert generate(client).json() == {"text": "HELLO", "user": "ada"}
    client.cookies.clear()
    for headers in (ADA, {"x-api-key": "key-of-ada"}, {"api-key": "key-of-ada"}):
        assert generate(client, **headers).json()["user"] == "ada"
    assert generate(client, **BOB).json()["user"] == "bob"
    assert (used(page), used(page, unit="tokens")) == (4, 4 * 42)
    assert (used(page, subject="bob"), used(page, subject="bob", unit="tokens")) == (1, 42)


def test_stranger_is_turned_away_and_charged_nothing(page, client):
    for headers in ({}, {"Authorization": "Bearer made-up"}):
        assert generate(client, **headers).status_code == 401
    for subject in ("made-up", "ada", ADDRESS, "None"):
        assert used(page, subject=subject) == 0


def test_stranger_is_counted_by_the_limits_by_address(page, client):
    with page.app.app_context():
        statuses = [generate(client, **{"x-api-key": str(number)}).status_code for number in range(601)]
    assert statuses == [401] * 600 + [429]


def test_session_goes_before_a_key(page, client):
    log_in(client)
    assert generate(client, **BOB).json()["user"] == "ada"
    assert (used(page), used(page, subject="bob")) == (1, 0)


def test_two_different_keys_are_refused(client):
    assert generate(client, **ADA, **{"x-api-key": "key-of-bob"}).status_code == 400


def test_stranger_on_a_public_route_counts_by_address(page, client):
    assert client.get("/models").status_code == 200
    assert client.get("/models", headers={"x-api-key": "made-up"}).status_code == 200
    assert used(page, "models", ADDRESS) == 2
    assert client.get("/models", headers=ADA).status_code == 200
    assert (used(page, "models", ADDRESS), used(page, "models", "ada")) == (2, 1)


def test_passwords_are_guessed_five_times_a_minute(client):
    assert [log_in(client, password="wrong").status_code for _ in range(6)] == [401] * 5 + [429]
    assert log_in(client).status_code == 429


@pytest.mark.parametrize("is_above", [True, False])
def test_login_required_turns_strangers_away_before_the_limits_only_if_it_stands_above_them(page, is_above):
    decorators = [page.limiter.limit("9 per minute"), login_required]
    page.PUBLIC = (*page.PUBLIC, "guarded")

    def guarded():
        return "hello"

    view = guarded
    for decorate in decorators if is_above else reversed(decorators):
        view = decorate(view)
    page.app.get("/guarded", endpoint="guarded")(view)
    with serving(page.app) as address:
        assert httpx2.get(f"{address}/guarded", timeout=PATIENCE).status_code == 401
    assert used(page, "guarded", ADDRESS) == (0 if is_above else 1)


def test_defaults_are_decided_before_login_required(tmp_path):
    defaults = {"AILimiter(payer, app=app,": 'AILimiter(payer, app=app, default_limits=["7 per minute"],'}
    with imported("how-to/authentication.md", tmp_path, replaced=defaults) as page:
        page.PUBLIC = (*page.PUBLIC, "guarded")
        page.app.get("/guarded", endpoint="guarded")(login_required(lambda: "hello"))
        with serving(page.app) as address:
            assert httpx2.get(f"{address}/guarded", timeout=PATIENCE).status_code == 401
        assert used(page, "guarded", ADDRESS) == 1


def test_limit_can_be_a_function_of_the_user(tmp_path):
    own = {
        '@limiter.limit_tokens("100000 per minute")': "@limiter.limit_tokens(lambda: current_user.tokens)",
        "class User(UserMixin):\n": 'class User(UserMixin):\n    tokens = "5000 per minute"\n\n',
    }
    with imported("how-to/authentication.md", tmp_path, replaced=own) as page:
        page.USERS["bob"].tokens = "70 per minute"
        with serving(page.app) as address, httpx2.Client(base_url=address, timeout=PATIENCE) as client:
            assert [generate(client, **ADA).status_code for _ in range(3)] == [200] * 3
            assert [generate(client, **BOB).status_code for _ in range(2)] == [200, 429]
            assert generate(client).status_code == 401
