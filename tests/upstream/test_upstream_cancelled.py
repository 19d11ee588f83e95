"""Calls of an event loop that are cancelled: nobody is charged for what was never sent."""

import asyncio
import threading

import openai
import pytest
from upstream_calls import a_world, ask, left

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
