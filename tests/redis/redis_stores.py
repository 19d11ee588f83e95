"""Opens stores over the servers of the tests."""

from flask_ailimit.engine.stores.redis.addresses import parse
from flask_ailimit.engine.stores.redis.connecting import wires_to
from flask_ailimit.engine.stores.redis.links import Link
from flask_ailimit.engine.stores.redis.store import RedisStore

UNHURRIED = 5.0


def link_to(uri, *, timeout=UNHURRIED, connect_timeout=None, most=64, **options):
    address = parse(uri)
    wires = wires_to(address, options, timeout=timeout, connect_timeout=connect_timeout or timeout)
    return Link(wires(most), str(address))


def store_at(uri, clock=None, *, prefix="ailimit", timeout=UNHURRIED, most=64, **options):
    """A store that nothing may decide in place of; by the server's own clock, or by one that a test moves."""
    clocks = {} if clock is None else {"clock": clock}
    return RedisStore(link_to(uri, timeout=timeout, most=most, **options), prefix=prefix, **clocks)
