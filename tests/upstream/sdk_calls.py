"""Calls of the real SDKs, which a transport of the test answers."""

import anthropic
import httpx2
import openai

NAMES = ("openai", "anthropic")
HEADERS = {"date": "Thu, 21 Aug 2025 12:40:00 GMT"}


def call(sdk, handler, *, stream=False):
    """Ask once through an SDK, without its retries; ``handler`` answers, or raises."""
    transport = httpx2.MockTransport(handler)
    messages = [{"role": "user", "content": "hi"}]
    if sdk == "openai":
        with (
            openai.DefaultHttpxClient(transport=transport) as http,
            openai.OpenAI(base_url="http://provider/v1", api_key="k", max_retries=0, http_client=http) as client,
        ):
            answer = client.chat.completions.create(model="m", messages=messages, stream=stream)
            return list(answer) if stream else answer
    with (
        anthropic.DefaultHttpxClient(transport=transport) as http,
        anthropic.Anthropic(base_url="http://provider", api_key="k", max_retries=0, http_client=http) as client,
    ):
        answer = client.messages.create(model="m", max_tokens=9, messages=messages, stream=stream)
        return list(answer) if stream else answer


def answering(status, body=None, **headers):
    """A handler that always answers so."""
    named = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}

    def handler(request):
        if isinstance(body, bytes):
            return httpx2.Response(status, headers=named, content=body)
        return httpx2.Response(status, headers=named, json=body or {})

    return handler


def raising(error):
    """A handler that never answers."""

    def handler(request):
        raise error

    return handler
