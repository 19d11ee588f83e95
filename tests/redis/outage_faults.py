"""What can befall the server of an app, each as a context in which it has happened and after which it is over.

Those named ``…_at_once`` fail as soon as they are asked; the others are found out by a time-out.
"""

import threading
from contextlib import contextmanager, suppress

import redis
from fault_proxy import FOREVER
from redis_servers import wait_until

# Makes a server read its dump slowly, at so many microseconds for each key, and answer meanwhile: for six seconds,
# in which a busy machine comes to the end of a test.
SLOW_TO_LOAD = ("--key-load-delay", "400", "--loading-process-events-interval-bytes", "1024")
LOADED = 15_000


@contextmanager
def killed(server, proxy):
    server.kill()
    yield
    server.restart()


@contextmanager
def hung(server, proxy):
    server.stop_process()
    yield
    server.continue_process()


@contextmanager
def swallowed(server, proxy):
    proxy.black_hole = True
    yield
    mend(proxy)


@contextmanager
def reset(server, proxy):
    proxy.inject("cut_request", times=FOREVER)
    yield
    proxy.heal()


@contextmanager
def refused(server, proxy):
    proxy.refuse()
    proxy.reset_connections()
    yield
    proxy.heal()


@contextmanager
def slow(server, proxy):
    proxy.delay = 2
    yield
    proxy.heal()


@contextmanager
def garbled(server, proxy):
    """Every answer to a script has a bit wrong: its kind is none that there is."""
    proxy.inject("corrupt_reply", times=FOREVER, command=("EVALSHA", "EVAL"), offset=0, flip=0x01)
    yield
    proxy.heal()


@contextmanager
def cut_short(server, proxy):
    """Every answer to a script is shorter than it says: 83 bytes are 03."""
    proxy.inject("corrupt_reply", times=FOREVER, command=("EVALSHA", "EVAL"), offset=1, flip=0x08)
    yield
    proxy.heal()


@contextmanager
def replica(server, proxy):
    server.ask("REPLICAOF", "127.0.0.1", "1")
    yield
    server.ask("REPLICAOF", "NO", "ONE")


@contextmanager
def replica_without_master(server, proxy):
    server.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
    server.ask("REPLICAOF", "127.0.0.1", "1")
    yield
    server.ask("REPLICAOF", "NO", "ONE")


@contextmanager
def full(server, proxy):
    fill_up(server)
    yield
    server.ask("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def not_saving(server, proxy):
    """It can't write to its disk any more, and so takes no more writes."""
    obstacle = server.directory / "dump.rdb"
    (obstacle / "in the way").mkdir(parents=True)
    server.ask("CONFIG", "SET", "save", "3600 1")
    server.ask("BGSAVE")
    wait_until(lambda: server.ask("INFO", "persistence")["rdb_last_bgsave_status"] == "err")
    yield
    server.ask("CONFIG", "SET", "save", "")


@contextmanager
def busy(server, proxy):
    """A script of somebody else's doesn't end; the server says so to everybody else."""
    server.ask("CONFIG", "SET", "lua-time-limit", "5")
    other = server.client()

    def run():
        with suppress(redis.RedisError):
            other.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: _says(server, "BUSY"))
    yield
    server.ask("SCRIPT", "KILL")
    thread.join()


@contextmanager
def loading(server, proxy):
    """It has been restarted, and reads what it had."""
    server.ask("EVAL", f"for i = 1, {LOADED} do redis.call('SET', 'filler' .. i, string.rep('x', 100)) end", 0)
    server.ask("SAVE")
    server.restart()
    assert server.ask("INFO", "persistence")["loading"] == 1
    yield
    wait_until(lambda: server.ask("INFO", "persistence")["loading"] == 0)
    (server.directory / "dump.rdb").unlink()


@contextmanager
def locked(server, proxy):
    """Somebody has set a password."""
    server.ask("CONFIG", "SET", "requirepass", "a-new-password")
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    yield
    server.ask("CONFIG", "SET", "requirepass", "")


@contextmanager
def forbidden(server, proxy):
    server.ask("ACL", "SETUSER", "default", "-evalsha", "-eval")
    yield
    server.ask("ACL", "SETUSER", "default", "+@all")


@contextmanager
def crowded(server, proxy):
    """As many clients are connected as it takes, and the app is none of them."""
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    before = server.ask("CONFIG GET", "maxclients")["maxclients"]
    server.ask("CONFIG", "SET", "maxclients", "1")
    wait_until(lambda: int(server.ask("INFO", "clients")["connected_clients"]) == 1)
    yield
    server.ask("CONFIG", "SET", "maxclients", before)


def mend(proxy):
    """Have a proxy that was a black hole pass on everything again, over new connections."""
    proxy.heal()
    with suppress(RuntimeError):  # One that has just been accepted has no thread yet that could be waited for.
        proxy.reset_connections()


def fill_up(server):
    """Fill the server's memory to the brim, so that it takes no more writes."""
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.ask("CONFIG", "SET", "maxmemory", str(int(server.ask("INFO", "memory")["used_memory"]) + 300_000))
    number = 0
    with suppress(redis.OutOfMemoryError):
        while True:
            number += 1
            server.ask("SET", f"filler{number}", "x" * 2000)
    server.ask("CONFIG", "SET", "maxmemory", str(int(server.ask("INFO", "memory")["used_memory"]) - 200_000))


def _says(server, what):
    try:
        server.client(socket_timeout=2).ping()
    except redis.RedisError as error:
        return what in str(error)
    return False
