"""An upstream over a provider that fails to order, on a clock that only waiting moves."""

from contextlib import contextmanager

from openai import OpenAI

from flask_ailimit.engine import Engine, open_store
from flask_ailimit.testing import FakeProvider
from flask_ailimit.tokens import Usage
from flask_ailimit.upstream import signals
from flask_ailimit.upstream.pacing import Asked
from flask_ailimit.upstream.upstream import Upstream

MESSAGES = [{"role": "user", "content": "one two three"}]


class VirtualClock:
    """Time that passes only while somebody waits."""

    def __init__(self, start=1_800_000_000.0):
        self.start = self.now = start
        self.naps = []

    def __call__(self):
        return round(self.now * 1_000_000)

    def running(self):
        return self.now - self.start

    def pause(self, seconds):
        self.naps.append(seconds)
        self.now += seconds


class World:
    """A provider, an engine and a clock, in which upstreams are made."""

    def __init__(self, provider, uri="memory://"):
        self.provider = provider
        self.clock = VirtualClock()
        self.clients = []
        self.engine = Engine(open_store(uri, name="upstreams", clock=self.clock, options={}), secret=b"s" * 32)

    def upstream(self, name="main", **settings):
        return Upstream(
            self.engine, name, clock=self.clock, running=self.clock.running, pause=self.clock.pause, **settings
        )

    def http_client(self, upstream, **options):
        self.clients.append(upstream.http_client(**options))
        return self.clients[-1]

    def client(self, upstream, **options):
        http_client = self.http_client(upstream)
        return OpenAI(api_key="k", base_url=self.provider.url, http_client=http_client, **options)

    def close(self):
        for client in self.clients:
            client.close()
        self.engine.close()


@contextmanager
def a_world(**options):
    with FakeProvider(**options) as provider:
        world = World(provider)
        try:
            yield world
        finally:
            world.close()


def ask(client, **options):
    return client.chat.completions.create(**{"model": "m", "messages": MESSAGES, "max_tokens": 20} | options)


@contextmanager
def heard(*names):
    """What signals have told, as (name, facts)."""
    told = []

    def hear(name):
        def receiver(sender, **facts):
            told.append((name, facts))

        return receiver

    receivers = [(getattr(signals, name), hear(name)) for name in names]
    for signal, receiver in receivers:
        signal.connect(receiver, weak=False)
    try:
        yield told
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver)


def left(upstream, unit, model="m"):
    """What is left of a limit."""
    decision = upstream.group(model).peek(Asked(model, Usage()))
    return next(verdict.remaining for verdict in decision.verdicts if verdict.quota.unit == unit)
