"""What the demo's keys used by day, if the demo keeps settlements."""

import pytest
from demo_doors import KEY, planned

from demo_app import create_app
from demo_app.scripted import ScriptedModel


@pytest.fixture
def keeping(tmp_path):
    plan = {"requests": "1000 per day", "tokens": "100000 per day"}
    return create_app(ScriptedModel(), planned(plan) | {"AILIMIT_SETTLEMENTS": tmp_path / "settlements.sqlite"})


def by_day(app, query="bucket_width=1d", path="/usage"):
    return app.test_client().get(f"{path}?{query}", headers={"Authorization": f"Bearer {KEY}"})


def test_key_sees_what_it_used_by_day(keeping):
    body = {"prompt": "Hi", "max_tokens": 3}
    for _ in range(2):
        answer = keeping.test_client().post("/predict", json=body, headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200
    *before, today = by_day(keeping).json["data"]
    assert [each["results"] for each in before] == [[]] * 6
    (result,) = today["results"]
    assert result["num_model_requests"] == 2
    assert result["output_tokens"] > 0
    assert list(by_day(keeping, "").json) == ["limits"]


def test_refusals_of_the_page_keep_their_sentences(keeping, app):
    wrong = by_day(keeping, "bucket_width=1m")
    assert (wrong.status_code, wrong.json["detail"]) == (400, "bucket_width: write 1d or 1h.")
    without = by_day(app)
    assert (without.status_code, without.json["error"]["code"]) == (404, "no_settlements")
    assert by_day(keeping, path="/nowhere").json["error"]["code"] == "not_found"
