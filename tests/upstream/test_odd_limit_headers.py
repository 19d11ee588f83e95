"""Hostile and odd rate-limit headers, through a call's whole way: nothing raises, and nothing stops us for long."""

import pytest
from simulated_calls import REQUEST, Headers, Response, World

from flask_ailimit.testing import HOSTILE_HEADERS
from flask_ailimit.tokens import Measure, Usage
from flask_ailimit.upstream.call import Accepted, Ask, Call, Read, Send, Sleep
from flask_ailimit.upstream.calling import Calling
from flask_ailimit.upstream.pacing import Asked

CALLS_OF_ONE_GROUP = 4
LONGEST_PAUSE = 60.0
UNITS = ("requests", "tokens", "input-tokens", "output-tokens")
WORDS = ("limit", "remaining", "reset")
NAMES = (
    *(f"x-ratelimit-{word}-{unit}" for word in WORDS for unit in (*UNITS, "project-tokens", "req-minute")),
    *(f"anthropic-ratelimit-{unit}-{word}" for word in WORDS for unit in UNITS),
    *(f"{begin}-{word}" for word in WORDS for begin in ("ratelimit", "x-ratelimit")),
    *("ratelimit", "ratelimit-policy", "retry-after", "retry-after-ms", "date", "x-should-retry", "content-encoding"),
)
VALUES = (
    *(
        "",
        "  ",
        "0",
        "1",
        "2",
        "59",
        "60",
        "1000",
        "-1",
        "-0",
        "+5",
        "0.5",
        "1e9",
        "1e400",
        "nan",
        "inf",
        "-inf",
        "9" * 30,
    ),
    *(str(2**53 - 1), str(2**53), str(2**63), "abc", "1,2", "60, 60;w=60", "0x10", "1_000", "5;", ";;;", '"', "q=1"),
    *('"default";q=1;w=1', '"a";q=1;w=86400', '"a";q=0', '"a";q=9;w=60;qu="tokens"', '"a";r=0;t=99999999'),
    *(
        "1s",
        "6m0s",
        "1h",
        "99999999h",
        "12ms",
        "1d",
        "true",
        "false",
        "\x00",
        "é",
        "\u0663",
        "\uff11",
        "gzip",
        "\u2028",
    ),
    *("Wed, 21 Oct 2055 07:28:00 GMT", "Wed, 21 Oct 1999 07:28:00 GMT", "2055-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
)
STATUSES = (200, 200, 200, 429, 429, 503, 529, 400, 402, 403, 413, 500, 504, 302)
SETTINGS = (
    {},
    {"requests": "60 per minute"},
    {"tokens": "20000 per minute"},
    {"requests": "600 per minute", "tokens": "100000 per minute", "concurrency": 5},
    {"requests": {"limit": "50 per minute", "burst": 1}},
)


def odd_headers(random):
    chosen = [random.choice(NAMES) for _ in range(random.choice((1, 1, 2, 3, 6, 12)))]
    digits = str(random.randrange(10 ** random.randrange(1, 20)))
    return Headers({name: random.choice((*VALUES, digits, digits)) for name in chosen})


def answered(upstream, asked, response, world):
    """Make a call that is answered so."""
    steps, done = Call([upstream], REQUEST, asked, Calling(wait=0)).steps(), None
    try:
        while True:
            step = steps.send(done)
            if isinstance(step, Ask):
                done = step.work()
            elif isinstance(step, Sleep):
                world.clock.advance(step.seconds)
                done = None
            elif isinstance(step, Send):
                step.held.sent, done = True, response
            elif isinstance(step, Read):
                done = response.body
    except StopIteration as end:
        if isinstance(end.value, Accepted):
            end.value.held.finished(Measure(response.usage, "reported"), whole=True)


def seconds_stopped(upstream, asked):
    decision = upstream.group(asked.model).peek(asked)
    return 0.0 if decision.allowed else decision.retry_after


@pytest.mark.parametrize("number", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_no_header_raises_or_stops_calls_for_longer_than_the_longest_pause(number):
    world = World(number)
    engine, random = world.engine(), world.random
    for call in range(number):
        if call % CALLS_OF_ONE_GROUP == 0:
            settings, told = random.choice(SETTINGS), []
            upstream = world.upstreams(engine, 1, attempts=1, longest_pause=LONGEST_PAUSE, **settings)[0]
            asked = Asked(f"model-{call}", Usage(50, 200), has_known_end=True)
        told.append((random.choice(STATUSES), odd_headers(random)))
        body = b'{"error": {"code": "insufficient_quota"}}' if random.random() < 0.1 else b""
        answered(upstream, asked, Response(*told[-1], Usage(50, 60), body), world)
        stopped = seconds_stopped(upstream, asked)
        assert stopped is not None, (settings, told)
        assert stopped <= LONGEST_PAUSE, (settings, told)
        world.clock.advance(random.choice((0, 0, 1, stopped, stopped)))


@pytest.mark.parametrize("headers", HOSTILE_HEADERS)
@pytest.mark.parametrize("status", [200, 429])
def test_headers_of_the_fake_provider_stop_nobody_either(status, headers):
    world = World()
    upstream = world.upstreams(world.engine(), 1, attempts=1)[0]
    asked = Asked("model", Usage(50, 200))
    answered(upstream, asked, Response(status, Headers(headers), Usage(50, 60)), world)
    assert seconds_stopped(upstream, asked) <= LONGEST_PAUSE


def test_limit_per_day_is_no_pace():
    """Of a thousand a day, a call would have to wait a minute and a half."""
    world = World()
    upstream = world.upstreams(world.engine(), 1)[0]
    asked = Asked("model", Usage(50, 200))
    told = Headers({"ratelimit-policy": '"day";q=1000;w=86400', "ratelimit": '"day";r=900;t=5000'})
    answered(upstream, asked, Response(200, told, Usage(50, 60)), world)
    assert upstream.group("model").quotas == ()


def test_periods_that_answers_make_up_are_not_gathered():
    world = World()
    upstream = world.upstreams(world.engine(), 1)[0]
    asked = Asked("model", Usage(50, 200))
    for period in range(1, 60):
        told = Headers({"ratelimit-policy": f'"p";q=1000;w={period}'})
        answered(upstream, asked, Response(200, told, Usage(50, 60)), world)
    assert len(upstream.group("model").quotas) == 1
