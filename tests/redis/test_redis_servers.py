import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import AskError
from redis.retry import Retry
from redis.sentinel import Sentinel
from redis_certificates import make_certificates
from redis_sentinels import NAME
from redis_servers import PATIENCE, free_port, start_server, wait_until

ONCE = Retry(NoBackoff(), 0)

START_AND_WAIT = """
import sys, time
from redis_servers import start_server
server = start_server(sys.argv[1])
print(server.pid, server.directory, flush=True)
time.sleep(600)
"""


@pytest.fixture
def directories(tmp_path, monkeypatch):
    """Where the servers of this test have their directories."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def runs(pid):
    """Whether the process lives; one that has ended may wait for whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids(*servers):
    return [pid for server in servers for pid in (server.pid, server._guard.pid)]


def test_uris_lead_to_the_server(new_server):
    server = new_server(password="correct-horse")
    for uri in (server.uri, server.unix_uri.replace("redis+unix:", "unix:")):
        with redis.from_url(uri) as client:
            assert client.info("server")["process_id"] == server.pid
    with pytest.raises(redis.AuthenticationError):
        server.client(password=None).ping()


def test_options_are_the_servers(new_server):
    assert new_server("--maxmemory", "3mb").ask("CONFIG GET", "maxmemory") == {"maxmemory": "3145728"}


def test_server_speaks_tls_only_with_those_who_trust_it(tls_server, certificates, tmp_path):
    with redis.from_url(tls_server.uri, ssl_ca_certs=certificates.ca, retry=ONCE) as client:
        assert client.ping()
    others = make_certificates(tmp_path)
    for ways in ({"ssl_ca_certs": others.ca, "ssl": True}, {"ssl": False}):
        with redis.Redis(port=tls_server.port, retry=ONCE, **ways) as client, pytest.raises(redis.ConnectionError):
            client.ping()


def test_killed_server_refuses_and_a_restarted_one_is_empty(server):
    client = server.client()
    client.set("a", 1)
    server.kill()
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.ping()
    assert not server.alive
    server.restart()
    assert (client.get("a"), server.alive) == (None, True)


def test_stopped_server_hangs_and_then_answers(server):
    client = server.client(socket_timeout=1)
    client.set("a", 1)
    server.stop_process()
    with pytest.raises(redis.TimeoutError):
        client.get("a")
    server.continue_process()
    assert server.ask("GET", "a") == b"1"


def test_server_is_empty_for_the_next_test(server):
    server.ask("SET", "a", "1")
    digest = server.ask("SCRIPT LOAD", "return 1")
    server.stop_process()
    server.clear()
    assert server.ask("DBSIZE") == 0
    assert server.ask("SCRIPT EXISTS", digest) == [False]
    server.kill()
    server.clear()
    assert server.ask("DBSIZE") == 0


def test_closed_server_leaves_nothing(redis_binary, directories):
    with closing(start_server(redis_binary)) as server:
        processes = pids(server)
        assert all(map(runs, processes))
        assert list(directories.iterdir()) == [server.directory]
        server.stop_process()
    assert not any(map(runs, processes))
    assert list(directories.iterdir()) == []


def test_server_that_does_not_start_says_why_and_leaves_nothing(redis_binary, directories):
    with pytest.raises(RuntimeError, match="nonsense"):
        start_server(redis_binary, "--nonsense", "1")
    assert list(directories.iterdir()) == []


def test_port_that_is_taken_is_not_mistaken_for_the_server(redis_binary, server, directories, monkeypatch):
    with pytest.raises(RuntimeError, match="in use"):
        start_server(redis_binary, port=server.port)
    assert list(directories.iterdir()) == []
    ports = iter([server.port, free_port()])
    monkeypatch.setattr("redis_servers.free_port", lambda: next(ports))
    with closing(start_server(redis_binary)) as another:
        assert another.port != server.port


def test_server_ends_with_the_process_that_started_it(redis_binary):
    command = [sys.executable, "-c", START_AND_WAIT, redis_binary]
    with subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True) as starter:
        pid, directory = starter.stdout.readline().split()
        assert runs(pid)
        starter.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(directory).exists())
    wait_until(lambda: not runs(pid))


def cluster_client(cluster):
    return RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", port) for port in cluster.ports], retry=ONCE)


def test_clients_reach_every_node_of_the_cluster_through_its_proxy(cluster):
    with closing(cluster_client(cluster)) as client:
        for number in range(30):
            client.set(f"key-{number}", number)
    assert sum(node.ask("DBSIZE") for node in cluster.nodes) == 30
    assert [proxy.commands["SET"] for proxy in cluster.proxies] == [node.ask("DBSIZE") for node in cluster.nodes]


def test_migration_can_be_stopped_midway(cluster):
    keys = [f"{number}{{slot}}" for number in range(6)]
    source = cluster.owner("{slot}")
    target = next(node for node in cluster.nodes if node is not source)
    with closing(cluster_client(cluster)) as client:
        for key in keys:
            client.set(key, key)
        migration = cluster.migration("{slot}", target)
        migration.begin()
        moved = [key.decode() for key in migration.move_keys(2)]
        assert (len(moved), len(migration.remaining())) == (2, 4)
        for key in moved:
            with pytest.raises(AskError, match=f"127.0.0.1:{cluster.ports[cluster.nodes.index(target)]}$"):
                source.ask("GET", key)
        assert [client.get(key) for key in keys] == [key.encode() for key in keys]
        assert cluster.owner("{slot}") is source
        migration.finish()
        assert cluster.owner("{slot}") is target
        assert [client.get(key) for key in keys] == [key.encode() for key in keys]


def test_cluster_is_whole_for_the_next_test(cluster):
    source = cluster.owner("left")
    target = next(node for node in cluster.nodes if node is not source)
    source.ask("SET", "left", "1")
    cluster.migration("left", target).begin()
    cluster.proxies[0].refuse()
    cluster.clear()
    with closing(cluster_client(cluster)) as client:
        assert [client.set(f"key-{number}", 1) for number in range(30)] == [True] * 30
        assert client.get("left") is None


def test_cluster_survives_the_death_of_a_node_for_the_other_slots(new_cluster, directories):
    cluster = new_cluster(3, "--cluster-require-full-coverage", "no")
    processes = pids(*cluster.nodes)
    dead = cluster.owner("dead")
    others = [f"key-{number}" for number in range(30) if cluster.owner(f"key-{number}") is not dead]
    dead.kill()
    with closing(cluster_client(cluster)) as client:
        assert [client.set(key, 1) for key in others] == [True] * len(others)
        with pytest.raises(redis.RedisError):
            client.set("dead", 1)
    cluster.close()
    assert not any(map(runs, processes))
    assert list(directories.iterdir()) == []


def test_sentinels_fail_over_and_lose_what_was_not_replicated(new_sentinels, directories):
    setup = new_sentinels(3000, proxied=True)
    processes = pids(setup.primary, setup.replica, *setup.sentinels)
    sentinel = Sentinel([("127.0.0.1", s.port) for s in setup.sentinels], socket_timeout=PATIENCE)
    client = sentinel.master_for(NAME, socket_timeout=PATIENCE, retry=ONCE)
    client.set("a", "replicated")
    setup.wait_replicated()
    setup.cut_replication().wait()
    client.set("a", "lost")
    assert setup.primary_port == setup.port
    setup.primary.kill()
    setup.wait_failed_over()
    wait_until(lambda: client.get("a") == b"replicated")
    assert setup.primary_port == setup.replica_port
    setup.close()
    assert not any(map(runs, processes))
    assert list(directories.iterdir()) == []


def test_shared_sentinels_heal(sentinels):
    sentinels.cut_replication()
    sentinels.primary.ask("SET", "a", "1")
    sentinels.clear()
    assert (sentinels.primary.ask("DBSIZE"), sentinels.replica.ask("DBSIZE")) == (0, 0)
