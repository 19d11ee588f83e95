"""Log and alert: a line for each call, and an alarm where a person must act.

A 429 that time heals is no alarm. Spent money, a key that is not taken, a breaker that opens, and many retries are one.
The second call below has a wrong key, so that you see an alarm. Run: python examples/log_and_alert.py
"""

import logging

from openai import APIStatusError, OpenAI
from provider import KEY, MODEL, URL

from flask_ailimit import Upstream
from flask_ailimit.engine import Engine, open_store
from flask_ailimit.upstream.signals import breaker_changed, call_given_up, call_settled, retries_spiked

logging.basicConfig(format="%(levelname)s %(message)s")
log = logging.getLogger("calls")
log.setLevel(logging.INFO)


@call_settled.connect
def note(upstream, *, model, usage, seconds, **others):
    log.info("%s: %s used %d tokens in %.2f s", upstream.name, model, usage.total_tokens, seconds)


@call_given_up.connect
def note_loss(upstream, *, kind, **others):
    if kind in ("spent", "credential"):
        alert(f"{upstream.name}: {kind}")


@breaker_changed.connect
def note_breaker(upstream, *, state, **others):
    if state == "open":
        alert(f"{upstream.name}: the breaker is open")


@retries_spiked.connect
def note_retries(upstream, *, retries, calls, **others):
    alert(f"{upstream.name}: {retries} retries beside {calls} calls in a minute")


def alert(text):
    log.critical("ALERT %s", text)  # in its place: send an e-mail, call a pager


engine = Engine(open_store("local://", name="examples"))
upstream = Upstream(engine, "openai-main")
for key in (KEY, "a-wrong-key-for-all"):
    client = OpenAI(base_url=URL, api_key=key, http_client=upstream.http_client())
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello."}], max_tokens=5)
    except APIStatusError as error:
        log.warning("no answer: status %d", error.status_code)
