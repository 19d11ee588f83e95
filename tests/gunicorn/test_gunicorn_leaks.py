"""After thousands of requests, among them many that were broken off, a worker holds what it held before."""

from pathlib import Path

from gunicorn_app import event
from gunicorn_books import wait_for
from gunicorn_server import serving

REQUESTS = 1800
BATCHES, BATCH = 10, 20
THREADS = 24


def held(pid):
    """How many threads and files the process has."""
    return {name: len(list(Path(f"/proc/{pid}/{name}").iterdir())) for name in ("task", "fd")}


def ask(server, count):
    for number in range(count):
        call = server.call(("/answer", "/story?ends=event", "/story", "/nowhere")[number % 4], f"asks-{number % 7}")
        assert call.status in (200, 404)
        call.rest()
        server.hang_up()


def break_off(server, upstream, key, count=BATCH):
    """Have so many streams at once, of which half are left, and half reset."""
    calls = [server.call("/stream", f"{key}-{number}") for number in range(count)]
    conversations = [upstream.called() for _ in calls]
    for conversation in conversations:
        conversation.say(event("one "))
    for number, call in enumerate(calls):
        assert call.chunk()
        (call.leave if number % 2 else call.reset)()
    for conversation in conversations:
        conversation.close()
    for number in range(count):
        server.books.wait_settled(f"{key}-{number}")


def test_worker_holds_nothing_of_ended_requests(upstream, tmp_path):
    with serving(tmp_path, "gthread", workers=1, threads=THREADS, upstream_port=upstream.port) as server:
        (pid,) = server.workers()
        break_off(server, upstream, "warm", THREADS)  # All of the threads, or the rest would look like a leak.
        ask(server, THREADS)
        # The last answers may have arrived before their threads have put everything away.
        wait_for(server.state, lambda state: (state["held"], state["watched"]) == (0, 0))
        before = held(pid)
        for batch in range(BATCHES):
            ask(server, REQUESTS // BATCHES)
            break_off(server, upstream, batch)

        def grown():
            now = held(pid)
            return {name: now[name] - before[name] for name in before}

        wait_for(grown, lambda by: max(by.values()) <= 2)
        wait_for(server.state, lambda state: (state["held"], state["watched"]) == (0, 0))
        assert server.workers() == [pid]
        print(f"before {before}, after {held(pid)}")  # noqa: T201  with -rP
