"""Several gunicorns over one Redis. Each is a machine of its own, as far as the app can tell."""

import shutil
import sys
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "gunicorn"))

from gunicorn_app import LEASE, LIMITER, create_app, event
from gunicorn_client import INPUT, RESERVED, Crowd
from gunicorn_server import serving
from gunicorn_upstream import Upstream

__all__ = ["COST", "INPUT", "LEASE", "RESERVED", "Crowd", "Fleet", "Upstream", "added", "admit", "event", "fleet_of"]

UNHURRIED = 3.0
"""Seconds for an answer of Redis, where a test is not about waiting for it."""

COST = 100
"""Tokens that a call of ``/admit`` costs."""

AMPLE = 1_000_000


def admit(*, requests=AMPLE, tokens=AMPLE, slots=10_000, hold=""):
    """The address of a view under limits of these sizes."""
    return f"/admit?requests={requests}&tokens={tokens}&slots={slots}{hold}"


class Fleet:
    """Gunicorns that serve the same app.

    Attributes:
        servers: Each a :class:`gunicorn_server.Server`.
    """

    def __init__(self, servers):
        self.servers = servers
        self._turns = cycle(servers)

    def call(self, *arguments, **options):
        """Send a request to the next server."""
        return next(self._turns).call(*arguments, **options)

    def ask_all(self, path, key, clients):
        """Send everybody's request at once, as many to each server; how many had which status."""
        crowds = [Crowd(server.port, path, [key] * clients_of) for server, clients_of in self._split(clients)]
        for _ in range(0, clients, 10 * len(crowds)):
            for crowd in crowds:
                crowd.ask(10)
        return added(crowd.collect() for crowd in crowds)

    def deciders(self, key):
        """The processes of each server that admitted somebody with this key."""
        return [{line["pid"] for line in server.books.entries("taken", key)} for server in self.servers]

    def settled(self, key):
        """How many of this key's reservations have been settled, once each."""
        settled = [line["lease"] for server in self.servers for line in server.books.entries("settled", key)]
        assert len(set(settled)) == len(settled)
        return len(settled)

    def log(self):
        """What all said."""
        return "".join(f"--- {server.worker_class} said:\n{server.log()}" for server in self.servers)

    def _split(self, clients):
        each, more = divmod(clients, len(self.servers))
        return [(server, each + (number < more)) for number, server in enumerate(self.servers)]


def added(counts):
    """The sums of several counts."""
    total = {}
    for count in counts:
        for status, number in count.items():
            total[status] = total.get(status, 0) + number
    return total


@contextmanager
def fleet_of(place, uri, *servers, timeout=UNHURRIED, **options):
    """Serve until the context ends.

    Args:
        place: A directory for what they keep.
        uri: Of their store.
        servers: Each a list: the class of its workers, then more of gunicorn's command line. A dictionary among it
            has what is this server's own of the options.
        timeout: Seconds to wait for Redis.
        options: See :func:`gunicorn_server.serving`.
    """
    with ExitStack() as stack:
        running = []
        for number, server in enumerate(servers):
            own = {name: value for part in server if isinstance(part, dict) for name, value in part.items()}
            directory = place / f"server-{number}"
            directory.mkdir()
            arguments = [part for part in server if not isinstance(part, dict)]
            asked = {"redis": uri, "timeout": timeout, **options, **own}
            running.append(stack.enter_context(serving(directory, *arguments, **asked)))
            stack.callback(_remove_nearby, running[-1])
        yield Fleet(running)


def enroll(machine, uri):
    """Have Redis know a machine that is to come."""
    engine = create_app(machine, redis=uri, timeout=UNHURRIED).extensions[LIMITER].engine
    engine.store._store._machines.enroll()
    engine.close()


def _remove_nearby(server):
    engine = server.books._app.extensions[LIMITER].engine
    shutil.rmtree(engine.store.nearby.whole.path, ignore_errors=True)
