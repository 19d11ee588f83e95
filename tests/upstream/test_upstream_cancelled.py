"""Calls of an event loop that are cancelled: nobody is charged for what was never sent."""

import asyncio
import threading

import httpx2
import openai
import pytest
from upstream_calls import MESSAGES, World, a_world, ask, left

pytestmark = pytest.mark.server

ROOM = {"requests": {"limit": "60 per minute", "burst": 60}, "concurrency": 5}


class Held:
    """A method of the store that begins, and goes on when it is let."""

    def __init__(self, store, name):
        self.whole = getattr(store, name)
        self.begun, self.done, self.may_go_on = threading.Event(), threading.Event(), threading.Event()
        setattr(store, name, self)

    def __call__(self, *given):
        self.begun.set()
        assert self.may_go_on.wait(10)
        try:
            return self.whole(*given)
        finally:
            self.done.set()


async def came(event):
    assert await asyncio.to_thread(event.wait, 10)


def until_free(upstream, requests=60):
    for _ in range(500):
        if (left(upstream, "requests"), left(upstream, "concurrency")) == (requests, 5):
            return True
        threading.Event().wait(0.01)
    return False


@pytest.mark.parametrize("is_answered_first", [False, True])
def test_call_that_asyncio_cancels_while_the_store_answers_leaves_nothing_taken(is_answered_first):
    async def call(world, upstream, reserve):
        client = openai.AsyncOpenAI(api_key="k", base_url=world.provider.url, http_client=upstream.async_http_client())
        task = asyncio.create_task(ask(client))
        await came(reserve.begun)
        if is_answered_first:
            reserve.may_go_on.set()
            reserve.done.wait(10)  # The loop must not hear of it.
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        reserve.may_go_on.set()
        await client.close()

    with a_world() as world:
        upstream = world.upstream(**ROOM)
        asyncio.run(call(world, upstream, Held(world.engine.store, "reserve")))
        assert until_free(upstream)
        assert not world.provider.calls


class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that nobody reads."""

    is_closed = False

    def close(self):
        self.is_closed = True

    async def aclose(self):
        self.is_closed = True


TELLING = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "2"}
URL, ASKED = "http://provider/v1/chat/completions", {"model": "m", "messages": MESSAGES}


@pytest.fixture
def provider_alone():
    world = World(None)
    yield world
    world.close()


def test_answer_of_a_call_that_is_interrupted_before_it_is_passed_on_is_closed(provider_alone, monkeypatch):
    whole = provider_alone.engine.store.settle

    def interrupted(settlements):
        monkeypatch.setattr(provider_alone.engine.store, "settle", whole)
        raise KeyboardInterrupt

    upstream, body = provider_alone.upstream(**ROOM), Body()

    def handler(request):
        monkeypatch.setattr(provider_alone.engine.store, "settle", interrupted)
        return httpx2.Response(200, headers=TELLING, stream=body)

    transport = upstream.transport(httpx2.MockTransport(handler))
    with httpx2.Client(transport=transport) as client, pytest.raises(KeyboardInterrupt):
        client.post(URL, json=ASKED)
    assert body.is_closed
    assert until_free(upstream, requests=left(upstream, "requests"))


def test_answer_of_a_call_that_is_cancelled_before_it_is_passed_on_is_closed(provider_alone):
    async def call(upstream, body, settle):
        def handler(request):
            return httpx2.Response(200, headers=TELLING, stream=body)

        async with httpx2.AsyncClient(transport=upstream.async_transport(httpx2.MockTransport(handler))) as client:
            task = asyncio.create_task(client.post(URL, json=ASKED))
            await came(settle.begun)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            settle.may_go_on.set()

    body = Body()
    asyncio.run(call(provider_alone.upstream(**ROOM), body, Held(provider_alone.engine.store, "settle")))
    assert body.is_closed
