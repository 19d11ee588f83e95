"""Servers are started when the first test asks for them. One that a test breaks is that test's own: ``new_…``."""

from contextlib import ExitStack, closing

import pytest
from fault_proxy import FaultProxy
from redis_certificates import make_certificates
from redis_clusters import start_cluster
from redis_sentinels import start_sentinels
from redis_servers import binary_of, start_server

from flask_ailimit.engine import forking
from flask_ailimit.engine.stores.redis import machines
from flask_ailimit.engine.stores.redis.afterwards import Afterwards
from flask_ailimit.engine.stores.redis.links import Link
from flask_ailimit.limits.plans import watching
from flask_ailimit.limits.plans.watching import LiveChanges

# Those that tests share must not change while the machine is busy with something else for a second.
UNHURRIED = 60_000


@pytest.fixture(scope="session", params=("valkey", "redis"))
def redis_binary(request):
    """Path of a server's program; all the fixtures here are of the same."""
    path = binary_of(request.param)
    if path is None:
        pytest.skip(f"{request.param} is not installed")
    return path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """Of a server on 127.0.0.1."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def shared_server(redis_binary):
    with closing(start_server(redis_binary)) as server:
        yield server


@pytest.fixture
def server(shared_server):
    """A server, empty. A test may fill, stop or kill it; one that configures it has a ``new_server``."""
    shared_server.clear()
    return shared_server


@pytest.fixture
def proxy(server):
    """A fault proxy before the server."""
    with closing(FaultProxy(server.port)) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def shared_cluster(redis_binary):
    unhurried = ("--cluster-node-timeout", str(UNHURRIED))
    with closing(start_cluster(redis_binary, 3, *unhurried, proxied=True)) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster):
    """Three masters behind fault proxies, empty. Slots may migrate; what a test has begun is finished for it."""
    shared_cluster.clear()
    yield shared_cluster
    shared_cluster.clear()


@pytest.fixture(scope="session")
def shared_sentinels(redis_binary):
    with closing(start_sentinels(redis_binary, UNHURRIED, proxied=True)) as sentinels:
        yield sentinels


@pytest.fixture
def sentinels(shared_sentinels):
    """A primary, a replica and three sentinels, empty, which do not fail over: that takes ``new_sentinels``."""
    shared_sentinels.clear()
    yield shared_sentinels
    shared_sentinels.clear()


@pytest.fixture
def new_server(redis_binary):
    """Starts a server of the test's own; see :func:`redis_servers.start_server`."""
    yield from _starting(start_server, redis_binary)


@pytest.fixture
def new_cluster(redis_binary):
    """Starts a cluster of the test's own; see :func:`redis_clusters.start_cluster`."""
    yield from _starting(start_cluster, redis_binary)


@pytest.fixture
def new_sentinels(redis_binary):
    """Starts sentinels of the test's own; see :func:`redis_sentinels.start_sentinels`."""
    yield from _starting(start_sentinels, redis_binary)


@pytest.fixture
def tls_server(new_server, certificates):
    """What speaks TLS only, and has ``port`` and ``uri``: a server, or a proxy where the server was built without."""
    try:
        yield new_server(certificates=certificates)
    except RuntimeError as error:
        if "Failed finding TLS support" not in str(error):
            raise
        with closing(FaultProxy(new_server().port, tls=certificates.server_context())) as proxy:
            yield proxy


def _starting(start, binary):
    with ExitStack() as ending:

        def start_another(*options, **named):
            return ending.enter_context(closing(start(binary, *options, **named)))

        yield start_another


@pytest.fixture
def undisturbed(monkeypatch):
    """Nothing is asked of a server in the background, where commands are counted."""
    for earlier in list(forking._everywhere):  # Stores of other tests live until they are collected.
        if isinstance(earlier, machines.Machines):
            earlier.leave()
        elif isinstance(earlier, Afterwards):
            earlier.stop()
        elif isinstance(earlier, Link | LiveChanges):
            earlier.close()
    monkeypatch.setattr(machines, "_INTERVAL", 3600)
    monkeypatch.setattr(watching, "LOOK_EVERY", 3600)
