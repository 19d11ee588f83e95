"""How the demo is served: ``gunicorn -c demo_app/gunicorn_conf.py``.

Two processes, so that the limits are seen to hold across processes; threads, because an answer takes seconds.
demo_app/README.md explains the environment variables.
"""

import os
import secrets
import signal
from typing import Any

from demo_app import addresses, keys

wsgi_app = "demo_app:create_app()"
bind = os.environ.get("DEMO_BIND", "127.0.0.1:8000").split(",")
workers = int(os.environ.get("DEMO_WORKERS", "2"))
worker_class = "gthread"

# More than all keys may have in flight together (plans.toml): a refusal, the page and /usage never wait for an answer.
threads = int(os.environ.get("DEMO_THREADS", "12"))

# By which the gateway's calls are known, in each worker.
os.environ.setdefault("DEMO_GATEWAY_KEY", secrets.token_urlsafe(32))

# The model is loaded by each worker at its first call. llama.cpp's threads wouldn't survive a fork.
preload_app = False

# Long enough for the longest answer that is under way when the server is told to stop.
graceful_timeout = 60
timeout = 60
keepalive = 5
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  heartbeats never wait for a disk

# A socket in the home directory that would accept commands.
control_socket_disable = True

accesslog = None
errorlog = "-"
loglevel = os.environ.get("DEMO_LOG_LEVEL", "warning")


def on_starting(server: Any) -> None:
    """Say what to do if an address can't be had. Gunicorn would try five times and name only the error."""
    bound = any(isinstance(address, int) for address in server.cfg.address)
    if bound or os.environ.keys() & {"GUNICORN_FD", "LISTEN_FDS"}:
        return  # Somebody else has bound the sockets already.
    for address in server.cfg.address:
        if reason := addresses.why_not(address):
            raise SystemExit(
                f"The demo can't listen on {addresses.listening(address).words}: {reason}.\n"
                f"Choose another address: DEMO_BIND={addresses.another(address)} make demo"
            )


def post_worker_init(worker: Any) -> None:
    """Tell the terminal where the demo listens, when the first worker has loaded the app."""
    # A terminal sends Ctrl-C to all processes, and the master then sends SIGQUIT to the workers. If the second signal
    # interrupts the handler of the first while that holds the lock of the thread pool, the worker hangs until it is
    # killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = worker.wsgi.config
    if config["DEMO_GATEWAY_PLACE"] is None:
        config["DEMO_GATEWAY_PLACE"] = addresses.own_place(worker.sockets[0].getsockname())
    if worker.age == 1:
        names = [listener.getsockname() for listener in worker.sockets]
        published = [keys.published_key_of(name, worker.wsgi.config["DEMO_ACCOUNTS"]) for name in ("small", "penny")]
        print(addresses.greeting(names, *published), flush=True)  # noqa: T201  for people, not for the log
