import itertools

import pytest
from gunicorn_server import serving
from gunicorn_upstream import Upstream

WORKER_CLASSES = ("sync", "gthread", "gevent")

# A connection that a client keeps does not end while the machine is busy with something else.
KEEP_ALIVE = ("--keep-alive", "60")

_keys = itertools.count()


@pytest.fixture(scope="session")
def shared_upstream():
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def upstream(shared_upstream):
    """What the streams of the app speak with."""
    yield shared_upstream
    shared_upstream.hang_up()


@pytest.fixture(scope="session", params=WORKER_CLASSES)
def shared_server(request, shared_upstream, tmp_path_factory):
    """One server of each class, for the tests that leave it as it was."""
    directory = tmp_path_factory.mktemp(request.param)
    with serving(directory, request.param, *KEEP_ALIVE, upstream_port=shared_upstream.port) as server:
        yield server


@pytest.fixture
def server(shared_server):
    """The shared server; what it said during the test is shown if the test fails."""
    said = len(shared_server.log())
    yield shared_server
    shared_server.hang_up()
    print(f"--- {shared_server.worker_class} said:\n{shared_server.log(said)}")  # noqa: T201  pytest shows it


@pytest.fixture
def key():
    """A key that no other test uses."""
    return f"key-{next(_keys)}"
