"""A circuit breaker: after ten faults nobody asks the provider, and then one call at a time tries if it is back.

All processes share the breaker. While it is open, calls get a 503 of our own at once, and none waits for a provider
that is down. Stop the demo while this runs, and start it again. Run: python examples/circuit_breaker.py
"""

import sys
import time

from openai import APIStatusError, OpenAI
from provider import KEY, MODEL, URL

from flask_ailimit import Upstream
from flask_ailimit.engine import Engine, open_store
from flask_ailimit.upstream.signals import breaker_changed

engine = Engine(open_store("local://", name="examples"))
upstream = Upstream(engine, "circuit-breaker", attempts=1, max_wait=0)  # 0: rather an error now than an answer later
client = OpenAI(base_url=URL, api_key=KEY, http_client=upstream.http_client())


@breaker_changed.connect
def tell(sender, *, state, **others):
    print(f"the breaker is {state}")


for _ in range(int(sys.argv[1]) if sys.argv[1:] else 300):
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello."}], max_tokens=5)
        print("answered")
    except APIStatusError as error:
        print(error.status_code, error.code)
    time.sleep(0.1)
