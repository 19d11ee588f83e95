import pytest
from app_server import serving
from demo_doors import KEY, planned

from demo_app import create_app, sse
from demo_app.scripted import ScriptedModel

ROOMY = {"requests": "1000000 per day", "tokens": "1000000000 per day", "concurrency": 100}


@pytest.fixture
def model():
    return ScriptedModel()


@pytest.fixture
def plan():
    return ROOMY


@pytest.fixture
def app(model, plan):
    return create_app(model, planned(plan))


@pytest.fixture
def client(app):
    """Speaks with a key."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {KEY}"
    return client


@pytest.fixture
def stranger(app):
    """Speaks without a key."""
    return app.test_client()


@pytest.fixture
def recorded(monkeypatch):
    """What the limiter was told was used, one list of (input, output) tokens; it still reaches the limiter."""
    usages = []
    record = sse.record

    def listen(limiter, usage):
        usages.append((usage.input_tokens, usage.output_tokens))
        record(limiter, usage)

    monkeypatch.setattr(sse, "record", listen)
    return usages


@pytest.fixture
def address(app):
    with serving(app) as address:
        yield address
