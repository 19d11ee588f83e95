"""The app's own calls to a provider: pushed far over its limits, shared with somebody else, and what a call costs.

The provider is the demo app with its scripted model under gunicorn, one for each way that is measured.
"""

import sys
import time
from functools import partial
from importlib.util import find_spec
from typing import Any

from figures import Figure, Size, compared, not_measured
from of_round_trips import count
from places import ROOT, directory, redis_server
from pushing import ASKED_TOKENS, CLIENTS, Pushed, asking, counted, pushing, steadily, upstream_at
from racing import Work, race
from scripted_provider import ANSWER_WORDS
from serving import serving

SECONDS = 300
A_MINUTE, OTHERS_A_MINUTE = 60, 20
TOKENS_A_MINUTE = 20_000
TIMES = 3
ITEMS, ITEM_WORKERS, ITEMS_A_MINUTE = 200, 5, 50
CALLS, SLOW_CALLS = 40, 8
ROOM = {"requests": "1000000 per minute", "tokens": "1000000000 per minute"}
OURS, BARE = "an upstream with limits on requests, tokens and calls in flight, local://", "the bare SDK"
NEEDED = ("openai", "httpx2", "tenacity")
MEANT = {"requests": f"{A_MINUTE} requests a minute", "tokens": f"{TOKENS_A_MINUTE:,} tokens a minute"}


def figures(size: Size) -> list[Figure]:
    """What becomes of a provider that is pushed, and what a call through an upstream costs."""
    missing = [each for each in NEEDED if find_spec(each) is None]
    if missing:
        return [not_measured("calls to a provider", f"{', '.join(missing)} could not be installed")]
    return [*_pushed(size.part(SECONDS, 3), size), *_cost(size), _trips(size)]


def _pushed(seconds: int, size: Size) -> list[Figure]:
    limits = {"requests": f"{A_MINUTE} per minute", "tokens": f"{TOKENS_A_MINUTE} per minute"}
    a_second = {
        "requests": TIMES * A_MINUTE / 60,
        "tokens": TIMES * TOKENS_A_MINUTE / 60 / (ANSWER_WORDS + 40),
    }
    plans = {(unit, client): {unit: limits[unit]} for unit in limits for client in CLIENTS}
    plans["shared", "an upstream"] = {"requests": limits["requests"]}
    plans["items", "an upstream"] = {"requests": f"{ITEMS_A_MINUTE} per minute"}
    apps = {f"{unit}, {client}": f"provider({plan!r})" for (unit, client), plan in plans.items()}
    items = max(ITEM_WORKERS, size.part(ITEMS))
    with (
        directory() as place,
        serving(apps, workers=1, threads=40, module="scripted_provider", answers=counted) as servers,
    ):
        ways = {
            f"{unit}, {client}": Pushed(
                client, servers[f"{unit}, {client}"].port, plan, a_second.get(unit, a_second["requests"])
            )
            for (unit, client), plan in plans.items()
            if unit != "items"
        }
        smooth = {"requests": {"limit": f"{ITEMS_A_MINUTE} per minute", "burst": 1}}
        ways["items, an upstream"] = Pushed(
            "an upstream", servers["items, an upstream"].port, smooth, 1000, (2, 1, 1, 1), items
        )
        with pushing(ways, str(place), seconds) as told:
            began = time.monotonic()
            steadily(servers["shared, an upstream"].port, OTHERS_A_MINUTE, began, seconds)
            time.sleep(seconds)
            seen = {name: counted(server.port) for name, server in servers.items()}
            came = [told.get() for _ in range(told.qsize())]
    found = []
    for unit in limits:
        for client in CLIENTS:
            name = f"{unit}, {client}"
            good = [each for each in came if each[0] == name and each[2]]
            failed = [each for each in came if each[0] == name and not each[2]]
            remark = f"{len(good)} calls were answered, {len(failed)} failed; {seconds} s"
            found += _of_limit(unit, client, seen[name], seconds, remark)
    return [*found, *_of_shared(seen["shared, an upstream"], seconds), *_of_items(came, items)]


def _of_limit(unit: str, client: str, seen: dict[str, Any], seconds: float, remark: str) -> list[Figure]:
    is_ours, statuses = client == "an upstream", seen["statuses"]
    refused = sum(number for who, number in statuses.items() if who.endswith(" 429"))
    allowed = A_MINUTE if unit == "requests" else TOKENS_A_MINUTE
    used = statuses.get("us 200", 0) if unit == "requests" else seen["tokens"]
    share = 100 * used / (allowed * seconds / 60)
    aim = 97.0 if is_ours and unit == "requests" else None
    title = f"{TIMES} x {MEANT[unit]} pushed, {client}"
    return [
        Figure(f"{title}: answers with 429", [refused], "", 0.0 if is_ours else None, remark=remark),
        Figure(f"{title}: used of the limit", [share], "%", aim, at_least=True),
    ]


def _of_shared(seen: dict[str, Any], seconds: float) -> list[Figure]:
    statuses = seen["statuses"]
    ours, theirs = statuses.get("us 200", 0), statuses.get("others 200", 0)
    refused = 100 * statuses.get("us 429", 0) / max(1, ours + statuses.get("us 429", 0))
    title = f"the same requests, somebody else uses {OTHERS_A_MINUTE} a minute"
    remark = f"{ours} of ours and {theirs} of theirs were answered, {statuses.get('others 429', 0)} of theirs refused"
    return [
        Figure(f"{title}: our answers with 429", [refused], "%", 1.0, remark=remark),
        Figure(
            f"{title}: used of the limit", [100 * (ours + theirs) / (A_MINUTE * seconds / 60)], "%", 95.0, at_least=True
        ),
    ]


def _of_items(came: list[tuple[str, float, bool]], items: int) -> list[Figure]:
    title = f"{ITEMS} items, {ITEM_WORKERS} workers, {ITEMS_A_MINUTE} a minute without a burst"
    ended = [(at, good) for name, at, good in came if name == "items, an upstream"]
    if len(ended) < items:
        return [not_measured(title, f"{len(ended)} of {items} had ended in time")]
    least = max(1, len(ended) - 1) * 60 / ITEMS_A_MINUTE
    failed = sum(not good for _, good in ended)
    return [
        Figure(f"{title}: time / the least possible", [max(ended)[0] / least], "x", 1.02, remark=f"{failed} failed")
    ]


def _cost(size: Size) -> list[Figure]:
    apps = {"at once": f"provider({ROOM!r}, slowly=False)", "a word a millisecond": f"provider({ROOM!r})"}
    found = []
    with (
        directory() as place,
        serving(apps, workers=1, threads=4, module="scripted_provider", answers=counted) as servers,
    ):
        for name, calls in (("at once", CALLS), ("a word a millisecond", SLOW_CALLS)):
            port = servers[name].port
            contestants = {BARE: partial(_bare, port), OURS: partial(_ours, port, f"local://{place}/{port}")}
            times = race(contestants, size, calls, blocks=size.rounds(1 / 2))
            title = f"a call to the demo's scripted model, {name}: {OURS} / {BARE}"
            found.append(compared(title, OURS, BARE, times, 1.05, waits=True))
    return found


def _bare(port: int) -> Work:
    return Work(asking(port, max_retries=0))


def _ours(port: int, store: str) -> Work:
    client = upstream_at(store, {**ROOM, "concurrency": 1000}).http_client()
    return Work(asking(port, max_retries=0, http_client=client))


def _trips(size: Size) -> Figure:
    sys.path.append(str(ROOT))
    from flask_ailimit.testing import FakeProvider  # noqa: PLC0415

    with redis_server() as server, FakeProvider() as provider:
        upstream = upstream_at(server.uri, {**ROOM, "concurrency": 1000})
        with upstream.http_client() as client:
            body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": ASKED_TOKENS}
            url = f"{provider.url}/chat/completions"
            sent, _, _ = count(server, lambda: client.post(url, json=body).raise_for_status(), size.part(200, 20))
    seen = ", ".join(f"{number:.3g} {command}" for command, number in sent.items())
    return Figure("Redis, round trips per call to a provider", [sum(sent.values())], "trips", 2.0, remark=seen)
