import http.client
from urllib.parse import urlsplit

import pytest

from demo_app.keys import Account, demo_accounts

KEY = "key-for-tests"
MISSING = (401, "missing_api_key")
INVALID = (401, "invalid_api_key")
AMBIGUOUS = (400, "ambiguous_credentials")


def answer(client, headers, path="/predict"):
    response = client.post(path, json={"prompt": "hi"}, headers=headers)
    return response.status_code, response.json.get("error", {}).get("code")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, MISSING),
        ({"Authorization": ""}, MISSING),
        ({"Authorization": "Bearer"}, MISSING),
        ({"Authorization": "Bearer    "}, MISSING),
        ({"x-api-key": "  "}, MISSING),
        ({"Authorization": "Basic abc"}, (401, "unsupported_auth_scheme")),
        ({"Authorization": KEY}, (401, "unsupported_auth_scheme")),
        ({"Authorization": "Bearer of-bad-news"}, INVALID),
        ({"Authorization": "Bearer " + "k" * 10_000}, INVALID),
        ({"Authorization": "Bearer key-é"}, INVALID),
        ({"Authorization": "Bearer key\tkey"}, INVALID),
        ({"Authorization": "Bearer key\x00"}, INVALID),
        ({"Authorization": f"Bearer {KEY.upper()}"}, INVALID),
        ({"Authorization": f"Bearer {KEY} "}, INVALID),
        ({"Authorization": f"Bearer  {KEY}"}, INVALID),
        ({"x-api-key": "a, b"}, AMBIGUOUS),
        ({"x-api-key": f"{KEY}, {KEY}"}, AMBIGUOUS),
        ({"Authorization": f"Bearer {KEY}", "x-api-key": "other"}, AMBIGUOUS),
        ({"x-api-key": KEY, "api-key": "other"}, AMBIGUOUS),
    ],
)
def test_what_is_no_key_opens_nothing(stranger, model, headers, expected):
    assert answer(stranger, headers) == expected
    assert model.calls == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer {KEY}"},
        {"x-api-key": KEY},
        {"api-key": KEY},
        {"Authorization": f"Bearer {KEY}", "x-api-key": KEY, "api-key": KEY},
    ],
)
def test_the_key_opens_in_each_header_that_clients_use(stranger, headers):
    assert answer(stranger, headers) == (200, None)


def test_a_key_in_the_address_is_not_read(stranger):
    assert answer(stranger, {}, f"/predict?api_key={KEY}&key={KEY}") == MISSING


def test_a_refused_key_is_told_how_to_authenticate(stranger):
    response = stranger.post("/predict", json={"prompt": "hi"})
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json["error"]["type"] == "authentication_error"


def test_a_wrong_key_is_not_repeated_in_the_answer(stranger):
    response = stranger.post("/predict", headers={"x-api-key": "canary-1234567"})
    assert "canary" not in response.text + str(response.headers)


def test_all_invalid_keys_get_the_same_answer(stranger):
    keys = ("short", "k" * 10_000, KEY[:-1], "é")
    bodies = [stranger.post("/predict", headers={"x-api-key": key}).json for key in keys]
    assert all({**body, "request_id": ""} == {**bodies[0], "request_id": ""} for body in bodies)


def test_a_header_with_underscores_or_sent_twice_is_seen_as_the_server_hands_it_on(address):
    def status(*headers):
        connection = http.client.HTTPConnection(urlsplit(address).netloc)
        connection.putrequest("POST", "/predict")
        for name, value in (*headers, ("Content-Length", "0")):
            connection.putheader(name, value)
        connection.endheaders()
        status = connection.getresponse().status
        connection.close()
        return status

    assert status(("X_Api_Key", KEY)) == 401
    assert status(("X-Api-Key", KEY), ("X-Api-Key", "other")) == 400
    assert status(("X-Api-Key", KEY)) == 415


@pytest.mark.parametrize("path", ["/v1/models", "/predict", "/v1/messages", "/v1/chat/completions"])
def test_every_path_but_the_probe_asks_for_a_key(stranger, path):
    call = stranger.get if path == "/v1/models" else stranger.post
    assert call(path).status_code == 401


def test_the_probe_asks_for_no_key_and_leaves_the_model_alone(stranger, model):
    response = stranger.get("/healthz")
    assert (response.status_code, response.json) == (200, {"status": "ok"})
    assert model.calls == []


def test_a_preflight_asks_for_no_key(stranger):
    response = stranger.options("/predict")
    assert response.status_code == 200
    assert "POST" in response.headers["Allow"]


def test_a_user_named_in_a_header_is_not_believed(client, app):
    response = client.post("/predict", json={"prompt": "hi"}, headers={"X-User-Id": "other"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "environ",
    [
        {"DEMO_SMALL_KEY": "short"},
        {"DEMO_SMALL_KEY": "k" * 129},
        {"DEMO_LARGE_KEY": "with a space in it"},
        {"DEMO_LARGE_KEY": "with,a,comma"},
        {"DEMO_LARGE_KEY": "with-é-in-it"},
        {"DEMO_SMALL_KEY": "the-same-key", "DEMO_LARGE_KEY": "the-same-key"},
        {"DEMO_COLLEAGUE_KEY": "with a space in it"},
        {"DEMO_SMALL_KEY": "the-same-key", "DEMO_COLLEAGUE_KEY": "the-same-key"},
        {"DEMO_PENNY_KEY": "short"},
        {"DEMO_PENNY_KEY": "demo-large-key"},
    ],
)
def test_a_key_that_no_client_could_send_is_refused_at_start(environ):
    with pytest.raises(ValueError, match=r"DEMO_.*_KEY") as error:
        demo_accounts(environ)
    assert not any(value in str(error.value) for value in environ.values())


def test_an_account_does_not_hold_its_key():
    names = ("small", "large", "colleague", "penny")
    accounts = demo_accounts({f"DEMO_{name.upper()}_KEY": f"canary-{name}" for name in names})
    assert all(isinstance(account, Account) for account in accounts)
    assert "canary" not in repr(accounts)
    assert [(account.name, account.plan, account.organisation) for account in accounts] == [
        *(("small", "free", None), ("large", "pro", "lab"), ("colleague", "pro", "lab"), ("penny", "penny", None))
    ]
