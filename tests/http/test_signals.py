"""What a meter hears."""

import pytest
from flask import Flask

from flask_ailimit import AILimiter, Usage, request_refused, usage_settled


@pytest.fixture
def app():
    app = Flask(__name__)
    limiter = AILimiter(lambda: "somebody", app=app, storage_uri="memory://")

    @app.post("/predict")
    @limiter.limit("1 per day")
    @limiter.limit_tokens("1000 per day")
    def predict():
        limiter.record_usage(input_tokens=7, output_tokens=5)
        return "done"

    return app


def heard(signal, app):
    messages = []
    receiver = lambda sender, **message: messages.append((sender, message))  # noqa: E731
    signal.connect(receiver, app, weak=False)
    return messages


def test_answered_request_is_settled_once_with_what_it_used(app):
    settled = heard(usage_settled, app)
    answer = app.test_client().post("/predict")
    [(sender, message)] = settled
    assert sender is app
    assert (message["usage"], message["exact"]) == (Usage(7, 5), True)
    assert message["decision"].allowed
    assert answer.status_code == 200


def test_refused_request_is_told_once_and_settles_nothing(app):
    app.test_client().post("/predict")
    settled, refused = heard(usage_settled, app), heard(request_refused, app)
    answer = app.test_client().post("/predict")
    [(sender, message)] = refused
    assert sender is app
    assert not message["decision"].allowed
    assert message["request_id"] == answer.headers["x-request-id"]
    assert settled == []
