"""Retry with backoff and jitter: a call that fails for a moment is sent again, as soon as the provider asks for it.

If the provider says no time, the wait is random, and its upper end doubles each time. All processes together make at
most ten retries a minute and one for ten calls, so that retries never become the trouble.
Run: python examples/retries.py
"""

from openai import OpenAI
from provider import KEY, MODEL, URL

from flask_ailimit import Upstream
from flask_ailimit.engine import Engine, open_store
from flask_ailimit.upstream.signals import call_retried, call_waited

engine = Engine(open_store("local://", name="examples"))
upstream = Upstream(engine, "retries", attempts=4, max_wait=30)
client = OpenAI(base_url=URL, api_key=KEY, http_client=upstream.http_client())


@call_retried.connect
def tell_retry(sender, *, attempt, status, **others):
    print(f"attempt {attempt} failed with status {status}")


@call_waited.connect
def tell_wait(sender, *, seconds, why, **others):
    print(f"waited {seconds:.1f} s because calls were {why}")


question = [{"role": "user", "content": "Name three colours."}]
answer = client.chat.completions.create(model=MODEL, messages=question, max_tokens=20)
print(answer.choices[0].message.content)
