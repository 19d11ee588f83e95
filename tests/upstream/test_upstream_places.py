"""Places in the line of those that wait, which a store may lose."""

import asyncio
from contextlib import suppress
from threading import Event

import httpx2
import pytest
from upstream_calls import MESSAGES, World

from flask_ailimit.engine import StoreError
from flask_ailimit.tokens import Usage
from flask_ailimit.upstream.pacing import PLACE_LEASE, Asked, Place

ASKED = Asked("m", Usage())


@pytest.fixture
def world():
    world = World(None)
    yield world
    world.close()


class Line:
    """Calls that wait for a group that takes one a second."""

    def __init__(self, world):
        self.world = world
        self.group = world.upstream(requests={"limit": "60 per minute", "burst": 1}).group("m")
        assert self.asks(self.new())

    def new(self):
        return Place(is_batch=False)

    def asks(self, place):
        """Whether the call is sent; if not, it waits."""
        if self.group.reserve(ASKED, place).allowed:
            self.group.left(place)
            return True
        self.group.line_up(place)
        return False

    def served_after(self, place, newcomers=30):
        """How many of those that come, one a second, are sent before this one, which asks after them."""
        line = []
        for seconds in range(newcomers):
            line.append(self.new())
            line = [each for each in line if not self.asks(each)]
            if self.asks(place):
                return seconds
            self.world.clock.pause(1)
        return None


def test_place_that_the_store_did_not_take_is_taken_when_it_is_back(world, monkeypatch):
    def away(settlements):
        raise StoreError("away")

    line = Line(world)
    first = line.new()
    with monkeypatch.context() as patch:
        patch.setattr(world.engine.store, "settle", away)
        assert not line.asks(first)
    assert not line.asks(first)
    assert line.served_after(first) == 1


def test_place_that_is_lost_is_taken_again(world):
    line = Line(world)
    first = line.new()
    assert not line.asks(first)
    world.engine.store.reset()
    assert line.asks(line.new())
    assert line.served_after(first) <= 2 * PLACE_LEASE


def until_nobody_waits(upstream):
    for _ in range(400):
        if upstream.peek(upstream.group("m").counts)[0].remaining == upstream.settings.max_waiting:
            return True
        Event().wait(0.01)
    return False


URL, BODY = "http://own.example/v1/chat/completions", {"model": "m", "messages": MESSAGES}


def answering(request):
    return httpx2.Response(200, json={})


def test_place_of_an_interrupted_call_is_given_back_though_its_exception_is_kept(world, monkeypatch):
    upstream = world.upstream(requests={"limit": "60 per minute", "burst": 1})
    with httpx2.Client(transport=upstream.transport(httpx2.MockTransport(answering))) as client:
        client.post(URL, json=BODY)
        kept = []

        def interrupt(seconds):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(upstream, "pause", interrupt)
            try:
                client.post(URL, json=BODY)
            except KeyboardInterrupt as error:
                kept.append(error)
        assert kept
        assert until_nobody_waits(upstream)


def test_place_of_a_cancelled_call_is_given_back_though_its_exception_is_kept(world):
    upstream, kept = world.upstream(requests={"limit": "60 per minute", "burst": 1}), []

    async def calls():
        async with httpx2.AsyncClient(transport=upstream.async_transport(httpx2.MockTransport(answering))) as client:
            await client.post(URL, json=BODY)
            task = asyncio.create_task(client.post(URL, json=BODY))
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(task), 0.1)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError as error:
                kept.append(error)

    asyncio.run(calls())
    assert kept
    assert until_nobody_waits(upstream)
