"""Views that pass on what a model's API says, by httpx and by the SDKs, and hang up when their own client is gone."""

import ssl
from importlib import import_module

from flask import Response, request
from gunicorn_app import event, limited

CERTIFICATE = "upstream.pem"


def add_proxies(app, limiter, directory, upstream_port):
    """Views for each way to ask an upstream, as streams and as answers that come all at once."""
    if (directory / CERTIFICATE).exists():  # Only then are they used.
        # Importing an SDK in a view would take longer on a busy machine than the lease of the view's slot.
        import_module("openai")
        import_module("anthropic")

    def said():
        way = WAYS[request.args["by"]]
        return way(f"127.0.0.1:{upstream_port}", directory / CERTIFICATE, limiter.client_gone.closes)

    def proxy():
        return Response(map(event, said()), mimetype="text/event-stream")

    def gather():
        return {"text": "".join(said())}

    app.add_url_rule("/proxy", "proxy", limited(limiter, proxy), methods=["POST"])
    app.add_url_rule("/gather", "gather", limited(limiter, gather), methods=["POST"])


def by_httpx(host, certificate, closes):
    import httpx2  # noqa: PLC0415  the other tests' workers begin sooner without it, and so below

    yield from _by_httpx(httpx2.Client(timeout=30), f"http://{host}", closes)


def by_httpx_over_tls(host, certificate, closes):
    import httpx2  # noqa: PLC0415

    yield from _by_httpx(
        httpx2.Client(timeout=30, verify=ssl.create_default_context(cafile=certificate)), f"https://{host}", closes
    )


def _by_httpx(client, url, closes):
    with client, client.stream("POST", f"{url}/text", json={}) as response:
        yield from closes(response).iter_text()


def _openai(host):
    import openai  # noqa: PLC0415

    return openai.OpenAI(base_url=f"http://{host}/v1", api_key="no secret", max_retries=0).chat.completions


def by_openai(host, certificate, closes):
    for chunk in closes(_openai(host).create(**ASKED, stream=True)):
        yield chunk.choices[0].delta.content


def by_openai_s_helper(host, certificate, closes):
    with _openai(host).stream(**ASKED) as stream:
        for happened in closes(stream):
            if happened.type == "content.delta":
                yield happened.delta


def by_openai_s_raw_response(host, certificate, closes):
    with _openai(host).with_streaming_response.create(**ASKED, stream=True) as raw:
        for line in closes(raw).iter_lines():
            if line.startswith("data: {"):
                yield line


def _anthropic(host):
    import anthropic  # noqa: PLC0415

    return anthropic.Anthropic(base_url=f"http://{host}", api_key="no secret", max_retries=0).messages


def by_anthropic(host, certificate, closes):
    for happened in closes(_anthropic(host).create(**ASKED, max_tokens=40, stream=True)):
        if happened.type == "content_block_delta":
            yield happened.delta.text


def by_anthropic_s_helper(host, certificate, closes):
    with _anthropic(host).stream(**ASKED, max_tokens=40) as stream:
        yield from closes(stream).text_stream


ASKED = {"model": "m", "messages": [{"role": "user", "content": "tell me"}]}
WAYS = {
    way.__name__.removeprefix("by_"): way
    for way in (
        by_httpx,
        by_httpx_over_tls,
        by_openai,
        by_openai_s_helper,
        by_openai_s_raw_response,
        by_anthropic,
        by_anthropic_s_helper,
    )
}
