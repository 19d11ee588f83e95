"""A worker that calls a provider of faults through an upstream until it is killed, and notes what came of each call.

Run as ``python fault_caller.py STORE URL NOTES NAME SEED``; a line of the notes is JSON.
"""

import json
import logging
import sys
from itertools import count
from pathlib import Path
from random import Random
from threading import Lock, Thread

import httpx2

from flask_ailimit.engine import Engine, open_store, system_clock
from flask_ailimit.upstream.upstream import Upstream

SECRET = b"the same in all workers"
THREADS = 4
IN_FLIGHT = 40
LEASE = 2
RESERVED_OUTPUT = 30
A_DAY = {"algorithm": "fixed-window"}
"""Windows of a day forget nothing while a test runs, so what is counted can be added up."""


def upstream_in(store):
    """The upstream, in a store of all workers."""
    engine = Engine(open_store(store, name="faults", clock=system_clock, options={}), secret=SECRET)
    limits = {unit: {"limit": "100000000 per day", **A_DAY} for unit in ("requests", "tokens")}
    return Upstream(engine, "faults", **limits, concurrency=IN_FLIGHT, lease=LEASE, max_wait=20.0, longest_pause=1.0)


def body_of(name, *, stream):
    """A call with a name of its own."""
    message = {"role": "user", "content": f"{name} says a few words"}
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return {"model": "m", "messages": [message], "max_tokens": RESERVED_OUTPUT, **options}


def call(client, url, name, random):
    """Make a call, and answer what came of it."""
    stream = random.random() < 0.5
    leaves_after = random.randrange(4) if random.random() < 0.1 else None
    try:
        with client.stream("POST", url, json=body_of(name, stream=stream)) as response:
            if response.status_code != 200:
                return {"status": response.status_code}
            for number, _ in enumerate(response.iter_bytes()):
                if number == leaves_after:
                    return {"status": 200, "left": True}
            return {"status": 200}
    except httpx2.HTTPError as error:
        return {"status": 0, "error": type(error).__name__}


def main():
    store, url, notes, worker, seed = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    upstream, lock, numbers = upstream_in(store), Lock(), count()
    client = upstream.http_client(timeout=10.0)

    def work(random):
        with Path(notes).open("a", encoding="utf-8") as file:
            while True:
                with lock:
                    name = f"{worker}-{next(numbers)}"
                print(json.dumps({"call": name}), file=file, flush=True)
                came = call(client, f"{url}/chat/completions", name, random)
                print(json.dumps({"call": name, **came}), file=file, flush=True)

    threads = [Thread(target=work, args=(Random(f"{seed}-{worker}-{number}"),)) for number in range(THREADS)]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main()
