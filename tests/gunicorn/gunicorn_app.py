"""The app that gunicorn serves in these tests. What a stream says, and when, an upstream of the test decides."""

import json
import os
import socket
import threading
from pathlib import Path

from flask import Flask, Response, request
from gunicorn_witness import Witness

from flask_ailimit import AILimiter, api_key
from flask_ailimit import watch as watching
from flask_ailimit.engine import system_clock
from flask_ailimit.engine.clock import MICROSECONDS

LEASE = 5
"""Seconds; the shortest there is."""

WRITE_TIMEOUT = 1.5
"""Seconds."""

STORY = ("alpha beta ", "gamma ")
"""What a stream that needs no upstream says: three tokens, as ``count_words`` counts."""

LIMITER = "limiter under test"

SECRET = "the same on every machine that shares a Redis"


class UpstreamError(Exception):
    """The upstream said so."""


def create_app(
    directory, upstream_port=0, settling_takes=0.0, clock=system_clock, *, redis=None, machine=None, ahead=0, **options
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
        options: For the store.
    """
    # An app's place on its machine is called after the directory that the app is in.
    app = Flask(__name__, root_path=str(machine or directory))
    limiter = AILimiter(
        api_key,
        app=app,
        storage_uri=redis or f"local://{directory}/limits",
        storage_options=options,
        secret=SECRET if redis else None,
        token_counter=count_words,
        write_timeout=WRITE_TIMEOUT,
        clock=lambda: clock() + ahead * MICROSECONDS,
    )
    app.extensions[LIMITER] = limiter
    limiter.engine.store = Witness(limiter.engine.store, Path(directory) / "ledger", settling_takes)
    add_answers(app, limiter, upstream_port)
    add_streams(app, limiter, upstream_port)

    @app.get("/ready")
    def ready():
        held, watched = len(limiter.engine.leases._held), len(watching._watched)
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
        return {"text": b"".join(heard(upstream_port)).decode()}

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
        response = Response(heard(upstream_port), request.args.get("status", 200))
        response.mimetype = request.args.get("type", "text/event-stream")
        if "length" in request.args:
            response.headers["Content-Length"] = request.args["length"]
        return response

    app.add_url_rule("/story", "story", limited(limiter, story), methods=["GET", "POST"])
    app.add_url_rule("/stream", "stream", limited(limiter, stream), methods=["GET", "POST"])


def count_words(text):
    return len(text.split())


def event(text):
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': text}}]})}\n\n"


def heard(port):
    """What the upstream says, a chunk for each line of JSON. It is called when the first chunk is asked for."""
    with socket.create_connection(("127.0.0.1", port)) as upstream, upstream.makefile("rb") as lines:
        for line in lines:
            said = json.loads(line)
            if said is None:
                raise UpstreamError
            yield said.encode("latin-1")
