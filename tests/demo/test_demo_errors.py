import re

import pytest
from demo_doors import BODIES, KEY

from demo_app.doors import DOORS, paths
from demo_app.model import ModelMissingError
from demo_app.smollm2 import SmolLM2


def test_an_unknown_path_is_told_the_paths(stranger):
    response = stranger.get("/canary-path")
    assert (response.status_code, response.json["error"]["code"]) == (404, "not_found")
    assert "/v1/messages" in response.json["error"]["message"]
    assert "canary" not in response.text


def test_the_paths_named_are_the_paths_there_are(app):
    there = {rule.rule for rule in app.url_map.iter_rules() if rule.endpoint != "static"}
    assert {door.path for door in DOORS} == there
    assert set(re.findall(r"/[a-z0-9/]*", paths().replace(",", " "))) == there


def test_a_wrong_method_is_told_the_right_ones(client):
    response = client.get("/predict")
    assert (response.status_code, response.json["error"]["code"]) == (405, "method_not_allowed")
    assert response.headers["Allow"] == "OPTIONS, POST"


def test_a_mistake_of_the_server_is_not_shown(client, model):
    def mistake():
        raise RuntimeError("canary")

    model.before_token = mistake
    response = client.post("/predict", json=BODIES["/predict"])
    assert (response.status_code, response.json["error"]["code"]) == (500, "internal_error")
    assert "canary" not in response.text


@pytest.mark.parametrize("path", BODIES)
def test_a_model_that_breaks_is_a_bad_gateway(client, model, path):
    model.breaks_after = 2
    response = client.post(path, json=BODIES[path])
    assert (response.status_code, response.json["error"]["code"]) == (502, "model_failed")


def test_a_model_that_is_not_installed_is_named_with_the_cure(client, model, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(model, "stream", SmolLM2().stream)
    response = client.post("/predict", json=BODIES["/predict"])
    assert (response.status_code, response.json["error"]["code"]) == (503, "model_missing")
    assert "make demo" in response.json["error"]["message"]


def test_a_model_that_is_not_installed_stops_nobody_from_importing_the_demo(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelMissingError, match="make demo"):
        next(SmolLM2().stream(None))


def test_every_answer_has_one_request_id_under_two_names(client, stranger):
    for response in (
        client.post("/predict", json=BODIES["/predict"]),
        client.post("/predict", json={**BODIES["/predict"], "stream": True}),
        client.post("/predict", json={}),
        stranger.post("/predict"),
        stranger.get("/nothing"),
        stranger.get("/healthz"),
    ):
        names = response.headers.getlist("x-request-id") + response.headers.getlist("request-id")
        assert len(names) == 2
        assert names[0] == names[1]
        response.close()


def test_an_error_names_the_request_as_its_headers_do(stranger):
    response = stranger.post("/predict")
    assert response.json["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("sent", ["x" * 10_000, "bad id", "é", "id;drop"])
def test_a_request_id_that_is_not_fit_for_a_header_is_replaced(stranger, sent):
    response = stranger.get("/healthz", headers={"x-request-id": sent})
    assert response.headers["x-request-id"].startswith("req_")


def test_a_key_never_reaches_the_log(client, model, caplog):
    model.breaks_after = 0
    client.post("/predict", json={"prompt": "canary-prompt"})
    client.post("/predict", json={"prompt": "canary-prompt", "stream": True}).close()
    assert "breaks here" in caplog.text
    assert KEY not in caplog.text
    assert "canary" not in caplog.text
