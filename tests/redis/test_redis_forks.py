"""Processes that fork while they use a store, as servers do that load an app before they fork."""

import os
import subprocess
import sys

import forking
import pytest

# What a fork does to a client is the same whatever the server's program is.
pytestmark = pytest.mark.parametrize("redis_binary", ["valkey"], indirect=True, scope="session")

EVERYWHERE = ["children_and_parent_at_once", "forks_while_threads_call", "child_closes"]
AT_ONE_SERVER = [scenario.__name__ for scenario in forking.SCENARIOS if scenario.__name__ not in EVERYWHERE]


def succeeds(uri, scenario):
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, forking.__file__, uri, scenario], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("scenario", [*EVERYWHERE, *AT_ONE_SERVER])
def test_fork_at_one_server(server, scenario):
    succeeds(server.uri, scenario)


@pytest.mark.parametrize("scenario", EVERYWHERE[:1])
def test_fork_behind_sentinels(sentinels, scenario):
    succeeds(sentinels.uri, scenario)


@pytest.mark.parametrize("scenario", EVERYWHERE)
def test_fork_on_a_cluster(cluster, scenario):
    succeeds(cluster.uri, scenario)
