"""How often an app asks Redis for one request: counted by the server, not timed."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import limited_flask as apps
from figures import Figure, Size
from places import redis_server
from requests_to import SUBJECTS, caller

REQUESTS = 200
END = "the end of what is counted"


def figures(size: Size) -> list[Figure]:
    """Commands that clients sent, and commands that scripts ran inside the server."""
    openers: dict[str, Callable[[str], Any]] = {
        "Flask-Limiter, 3 request limits": apps.flask_limiters,
        "throttled-py, 3 request limits": apps.throttleds,
        "AILimiter, 3 request limits": apps.ailimiters,
        "AILimiter, the whole job": apps.ailimiters_whole,
        "AILimiter, 8 limits of plans over 3 payers": apps.ailimiters_by_plan,
        "AILimiter, 4 limits of a plan": apps.ailimiters_without_budget,
        "AILimiter, 4 limits of a plan and a budget": apps.ailimiters_with_budget,
        "AILimiter, 4 limits of a plan, a budget and credit": apps.ailimiters_on_credit,
    }
    found = []
    for name, open_app in openers.items():
        if name.startswith("throttled") and not apps.installed("throttled"):
            continue
        with redis_server() as server:
            app = open_app(server.uri)
            sent, inside, usec = count(server, caller(app), size.part(REQUESTS, 20))
            apps.close(app)
        seen = ", ".join(f"{count:.3g} {command}" for command, count in sent.items())
        found.append(Figure(f"Redis, round trips per request: {name}", [sum(sent.values())], "trips", remark=seen))
        told = f"commands that scripts run: {inside:.3g} per request"
        found.append(Figure(f"Redis, server's time per request: {name}", [usec], "us", remark=told))
    return found


def count(server: Any, request: Callable[[], None], requests: int) -> tuple[dict[str, float], float, float]:
    """Of each request: commands by name that came over the network, others, and microseconds inside commands."""
    for _ in range(SUBJECTS):  # Everybody is known by then.
        request()
    client, sent = server.client(), Counter()
    server.ask("CONFIG", "RESETSTAT")
    for _ in range(requests):
        request()
    stats = server.ask("INFO", "commandstats")
    with client.monitor() as watched:
        for _ in range(requests):
            request()
        server.ask("ECHO", END)
        inside = 0
        for command in watched.listen():
            if END in command["command"]:
                break
            if command["client_type"] == "lua":
                inside += 1
            else:
                sent[command["command"].split()[0].upper()] += 1
    # A script's own commands are a part of its time.
    usec = sum(each["usec"] for name, each in stats.items() if name.removeprefix("cmdstat_").upper() in sent)
    return {name: count / requests for name, count in sent.items()}, inside / requests, usec / requests
