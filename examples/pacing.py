"""Pacing by token bucket: calls go out as fast as the provider allows and no faster, so that no 429 ever comes.

The limits are those of Anthropic: requests, and tokens of input and of output apart. All processes that name the same
store and the same upstream share one bucket of each. Run: python examples/pacing.py
"""

import time

from anthropic import Anthropic
from provider import ANTHROPIC_KEY, ANTHROPIC_URL, MODEL

from flask_ailimit import Upstream
from flask_ailimit.engine import Engine, open_store

engine = Engine(open_store("local://", name="examples"))
upstream = Upstream(
    engine,
    "pacing",
    requests={"limit": "5 per second", "burst": 2},  # two at once, then one each 0.2 s
    input_tokens="50000 per minute",
    output_tokens="10000 per minute",
)
client = Anthropic(base_url=ANTHROPIC_URL, api_key=ANTHROPIC_KEY, http_client=upstream.http_client())

begin = time.monotonic()
for number in range(8):
    question = [{"role": "user", "content": f"Is {number} a prime number?"}]
    client.messages.create(model=MODEL, messages=question, max_tokens=10)
    print(f"{time.monotonic() - begin:.1f} s: answer {number + 1}")
