"""What a limiter adds to a Flask request: with limits less without, block by block, against Flask-Limiter."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import limited_flask as apps
from figures import Figure, Size, added, compared, not_measured
from flask import Flask
from places import directory, redis_server
from racing import Times, Work, race
from requests_to import caller, status_of

CALLS = 20
BARE, COMPLETION = "bare Flask", "bare Flask, a model's answer"
SAME = "added to a request, 3 request limits and the same headers"
USUAL = "added to a request, 3 request limits and our default headers"
WHOLE = "added to a request, the whole job"
JOB = (
    "3 request and 2 token limits, concurrency, a 4 KB prompt estimated, usage settled, four dialects of headers; "
    "the other: 3 request limits"
)
HEADERS = "ours writes 8 headers in three dialects, the other 4"
ALIKE = "ours writes X-RateLimit-* alone, as the other does"
WRONG = "Flask-Limiter's memory counts each worker for itself, local:// all together"
MISSING = "throttled-py is not installed: make bench installs it"

OpenApp = Callable[..., Flask]


def figures(size: Size) -> list[Figure]:
    """Those of memory and local, then those of Redis."""
    with directory() as place:
        found = _without_a_server(f"local://{place}", size)
    with redis_server() as server:
        return found + _with_redis(server.uri, size)


def _without_a_server(local: str, size: Size) -> list[Figure]:
    times = added_by(
        {
            "Flask-Limiter, memory": partial(apps.flask_limiters, "memory://"),
            "throttled-py, memory": partial(apps.throttleds, "memory://"),
            "AILimiter, memory": partial(apps.ailimiters, "memory://"),
            "AILimiter, local": partial(apps.ailimiters, f"{local}/same"),
            "AILimiter, memory, default headers": partial(apps.ailimiters_usual, "memory://"),
            "AILimiter, local, default headers": partial(apps.ailimiters_usual, f"{local}/usual"),
            "AILimiter, memory, whole job": partial(apps.ailimiters_whole, "memory://"),
            "AILimiter, local, whole job": partial(apps.ailimiters_whole, f"{local}/whole"),
        },
        size,
    )
    peer, other = "Flask-Limiter, memory", "throttled-py, memory"
    return [
        against(peer, "AILimiter, memory", times, f"{SAME}, memory", 0.30, ALIKE),
        against(peer, "AILimiter, memory, default headers", times, f"{USUAL}, memory", 0.30, HEADERS),
        against(peer, "AILimiter, local", times, f"{SAME}, local://", 0.40, f"{ALIKE}; {WRONG}"),
        against(peer, "AILimiter, local, default headers", times, f"{USUAL}, local://", 0.40, f"{HEADERS}; {WRONG}"),
        against(peer, "AILimiter, memory, whole job", times, f"{WHOLE}, memory", 0.60, JOB),
        against(peer, "AILimiter, local, whole job", times, f"{WHOLE}, local://", None, WRONG),
        against(other, "AILimiter, memory", times, f"{SAME}, memory", None, ALIKE),
    ]


def _with_redis(uri: str, size: Size) -> list[Figure]:
    times = added_by(
        {
            "Flask-Limiter, Redis": partial(apps.flask_limiters, uri),
            "throttled-py, Redis": partial(apps.throttleds, uri),
            "AILimiter, Redis": partial(apps.ailimiters, uri),
            "AILimiter, Redis, default headers": partial(apps.ailimiters_usual, uri),
            "AILimiter, Redis, whole job": partial(apps.ailimiters_whole, uri),
        },
        size,
    )
    peer, other = "Flask-Limiter, Redis", "throttled-py, Redis"
    return [
        against(peer, "AILimiter, Redis", times, f"{SAME}, Redis", 0.25, ALIKE),
        against(peer, "AILimiter, Redis, default headers", times, f"{USUAL}, Redis", 0.25, HEADERS),
        against(peer, "AILimiter, Redis, whole job", times, f"{WHOLE}, Redis", 0.45, JOB),
        against(other, "AILimiter, Redis", times, f"{SAME}, Redis", None, ALIKE),
    ]


def added_by(open_each: Mapping[str, OpenApp], size: Size) -> tuple[Times, Times]:
    """What each adds to the bare request that answers the same, by the clock and of the processor; and the bare one."""
    present = {name: open_app for name, open_app in open_each.items() if _present(name)}
    contestants = {name: partial(work, name, open_app) for name, open_app in present.items()}
    contestants |= {BARE: partial(work, BARE, apps.bare), COMPLETION: partial(work, COMPLETION, apps.bare_completion)}
    wall, processor = race(contestants, size, CALLS)
    bare = {name: COMPLETION if name.endswith("whole job") else BARE for name in present}
    return tuple(
        {BARE: times[BARE], **{name: added(times[name], times[bare[name]]) for name in present}}
        for times in (wall, processor)
    )


def against(peer: str, ours: str, times: tuple[Times, Times], name: str, aim: float | None, remark: str = "") -> Figure:
    """What ours adds as a part of what the peer adds."""
    name = f"{name}: {_limiter(ours)} / {_limiter(peer)}"
    if peer not in times[0]:
        return not_measured(name, MISSING)
    waits = "Redis" in peer
    figure = compared(name, ours, peer, times, aim, waits=waits, remark=remark)
    return replace(figure, times={**figure.times, BARE: times[0 if waits else 1][BARE]})


def work(name: str, open_app: OpenApp) -> Work:
    """One request after the other to an app that was seen to count."""
    if name not in (BARE, COMPLETION):
        require_counting(name, open_app)
    return Work(caller(open_app()))


def require_counting(name: str, open_app: OpenApp) -> None:
    """See that it counts: whoever lets everybody through when the store is in trouble would win every race.

    Raises:
        RuntimeError: It lets the fourth of three allowed requests through, or refuses the third.
    """
    app = open_app(((3, "day"),))
    third, fourth = status_of(app, 3), status_of(app, 1)
    if not (third.startswith("200") and fourth.startswith("429")):
        raise RuntimeError(f"{name} doesn't count: of 3 allowed requests it answers {third}, to the next {fourth}.")


def _limiter(contestant: str) -> str:
    return contestant.partition(",")[0]


def _present(name: str) -> bool:
    return not name.startswith("throttled") or apps.installed("throttled")
