"""docs/batch.md: its blocks run, over a provider that answers as it shows."""

from types import SimpleNamespace

import openai
from batch_provider import APP, good, serving
from page_blocks import run_page

from flask_ailimit.upstream.batch import run


def answer(content):
    if "broken" in content:
        return 500, {"error": {"message": "It is broken."}}
    choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}]
    return 200, good("1") | {"choices": choices}


def test_blocks_of_the_page_run_and_print_what_it_shows(tmp_path, monkeypatch):
    emails = ["Hello.", "A broken one."]
    monkeypatch.setenv("FLASK_APP", "shop")
    with serving() as provider:
        provider.answer = answer
        (tmp_path / "shop.py").write_text(APP.format(url=provider.url), encoding="utf-8")
        with openai.OpenAI(api_key="a", base_url=provider.url, max_retries=0) as client:
            upstream = SimpleNamespace(batch=run)
            names = run_page("docs/batch.md", tmp_path, {"client": client, "upstream": upstream, "emails": emails})
    assert names["answers"][0] == "fine"
