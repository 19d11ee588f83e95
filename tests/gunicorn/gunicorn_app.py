"""The app that gunicorn serves in these tests. What a stream says, and when, an upstream of the test decides."""

import json
import os
import socket
import threading
import time
from hashlib import blake2b
from pathlib import Path
from unittest.mock import patch

from flask import Flask, Response, request, send_file
from gunicorn_witness import Witness

from flask_ailimit import AILimiter, api_key, soft_limit_passed
from flask_ailimit.engine import system_clock
from flask_ailimit.engine.clock import MICROSECONDS
from flask_ailimit.request.client_watch import watching

LEASE = 5
"""Seconds; the shortest there is."""

WRITE_TIMEOUT = 3.0
"""Seconds. A client that pauses because the machine is busy does not pause for so long."""

STORY = ("alpha beta ", "gamma ")
"""What a stream that needs no upstream says: three tokens, as ``count_words`` counts."""

BIG_FILE = 16 << 20
"""Bytes, more than the kernel keeps for a client that doesn't read."""

LIMITER = "limiter under test"

SECRET = "the same on every machine that shares a Redis"


class UpstreamError(Exception):
    """The upstream said so."""


def create_app(
    directory,
    upstream_port=0,
    settling_takes=0.0,
    clock=system_clock,
    *,
    redis=None,
    machine=None,
    ahead=0,
    settings=None,
    **options,
):
    """Make the app, over a local store in the directory or over Redis.

    Args:
        directory: Where all is kept.
        upstream_port: Where what the streams say comes from.
        settling_takes: Seconds.
        clock: The machine's.
        redis: A URI of a store, in place of the local one.
        machine: The directory that stands for the machine; by default each is another.
        ahead: Seconds by which the machine's clock is wrong.
        settings: More of the limiter's.
        options: For the store.
    """
    app = Flask(__name__, root_path=str(directory))
    # All on a machine have one place to decide in while Redis is away; another machine has another.
    place = f"{blake2b(str(machine or directory).encode(), digest_size=8).hexdigest()}-nearby"
    with patch("flask_ailimit.engine.stores.redis.nearby_of", return_value=place):
        limiter = AILimiter(
            api_key,
            app=app,
            storage_uri=redis or f"local://{directory}/limits",
            storage_options=options if redis else {"lock_timeout": 60, **options},
            secret=SECRET if redis else None,
            token_counter=count_words,
            write_timeout=WRITE_TIMEOUT,
            max_body_bytes=20 << 20,
            clock=lambda: clock() + ahead * MICROSECONDS,
            **(settings or {}),
        )
    app.extensions[LIMITER] = limiter
    witness = limiter.engine.store = Witness(limiter.engine.store, Path(directory) / "ledger", settling_takes)
    soft_limit_passed.connect(witness.told, app)
    add_answers(app, limiter, upstream_port)
    add_streams(app, limiter, upstream_port)
    add_file(app, limiter, Path(directory))
    # It imports this module.
    from gunicorn_proxies import add_proxies  # noqa: PLC0415

    add_proxies(app, limiter, Path(directory), upstream_port)

    @app.get("/ready")
    def ready():
        held, watched = len(limiter.engine.leases._held), len(watching)
        return {"pid": os.getpid(), "held": held, "watched": watched, "threads": threading.active_count()}

    return app


def limited(limiter, view):
    """Under a limit of each kind; only one call at a time."""
    limits = (
        limiter.limit("100000 per year"),
        limiter.limit_tokens("1000000 per year"),
        limiter.limit_concurrency(1, lease=LEASE),
    )
    for limit in limits:
        view = limit(view)
    return view


def add_answers(app, limiter, upstream_port):
    """Views that answer all at once."""

    def answer():
        return {"text": "".join(STORY), "usage": {"prompt_tokens": 5, "completion_tokens": 3}}

    def wait():
        """Take as long as the upstream does."""
        return {"text": b"".join(heard(upstream_port, limiter.client_gone)).decode()}

    def compute():
        """Let nobody else run, under gevent."""
        end = time.monotonic() + float(request.args["seconds"])
        while time.monotonic() < end:
            pass
        return {}

    app.add_url_rule("/compute", "compute", limited(limiter, compute), methods=["POST"])
    app.add_url_rule("/answer", "answer", limited(limiter, answer), methods=["POST"])
    app.add_url_rule("/wait", "wait", limited(limiter, wait), methods=["POST"])

    @app.post("/admit")
    @limiter.limit(lambda: f"{request.args['requests']} per year")
    @limiter.limit_tokens(lambda: f"{request.args['tokens']} per year", estimate=lambda _: 100)
    @limiter.limit_concurrency(lambda: int(request.args["slots"]))
    def admit():
        """Cost exactly 100 tokens, under limits that the test asks for."""
        for _ in heard(upstream_port) if "hold" in request.args else ():
            pass
        limiter.record_usage(input_tokens=40, output_tokens=60)
        return {}


def add_streams(app, limiter, upstream_port):
    """Views that answer bit by bit."""

    def story():
        """Need no upstream; end with an event, with the announced length, or just so."""
        chunks = [event(text).encode() for text in STORY]
        if request.args.get("ends") == "event":
            chunks.append(b"data: [DONE]\n\n")
        response = Response(iter(chunks), mimetype="text/event-stream")
        if request.args.get("ends") == "length":
            response.content_length = sum(map(len, chunks))
        return response

    def stream():
        """Say what the upstream says."""
        said = heard(upstream_port, limiter.client_gone)
        response = Response(said, request.args.get("status", 200))
        response.direct_passthrough = "direct" in request.args
        response.mimetype = request.args.get("type", "text/event-stream")
        if "length" in request.args:
            response.headers["Content-Length"] = request.args["length"]
        return response

    app.add_url_rule("/story", "story", limited(limiter, story), methods=["GET", "POST"])
    app.add_url_rule("/stream", "stream", limited(limiter, stream), methods=["GET", "POST"])


def add_file(app, limiter, directory):
    """A view that sends a file."""
    path = directory / "file"
    path.touch()
    os.truncate(path, BIG_FILE)
    app.add_url_rule("/file", "file", limited(limiter, lambda: send_file(path)), methods=["GET", "POST"])


def count_words(text):
    return len(text.split())


def event(text):
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': text}}]})}\n\n"


def heard(port, client_gone=None):
    """What the upstream says, a chunk for each line of JSON. It is called when the first chunk is asked for.

    It is told when the client is gone, and goes on as if nothing had happened.
    """
    with socket.create_connection(("127.0.0.1", port)) as upstream, upstream.makefile("rb") as lines:
        if client_gone is not None:
            client_gone.call(lambda: upstream.sendall(b"gone"))
        for line in lines:
            said = json.loads(line)
            if said is None:
                raise UpstreamError
            yield said.encode("latin-1")
