"""What a server and its proxy say about the commands that came."""

from collections import Counter


class Counted:
    """Counts from the moment it is made.

    Args:
        server: Or several, of one cluster.
        proxies: Those before them.
    """

    def __init__(self, servers, proxies):
        self._servers, self._proxies = servers, proxies
        self.start()

    def start(self):
        """Count from now on."""
        self._called = self._calls()
        self._sent = self._commands()

    @property
    def decisions(self):
        """How many scripts were called by their SHA, but for those by which a machine says that it is there."""
        called = self._calls() - self._called
        return called["evalsha"] - called["zadd"]

    @property
    def searches(self):
        """How often somebody, or a script, looked at all keys."""
        called = self._calls() - self._called
        return called["keys"] + called["scan"]

    @property
    def sent(self):
        """How many of each command clients sent."""
        return self._commands() - self._sent

    def _calls(self):
        calls = Counter()
        for server in self._servers:
            told = server.ask("INFO", "commandstats")
            calls += Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in told.items()})
        return calls

    def _commands(self):
        return sum((proxy.commands for proxy in self._proxies), start=Counter())
