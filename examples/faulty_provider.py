"""A provider that fails: half of its answers are errors, so that you see what the other examples do then.

It needs pytest, as all of flask_ailimit.testing. Run: python examples/faulty_provider.py, then in another terminal the
two lines that it prints, and then another example. Ctrl-C ends it.
"""

import time
from contextlib import suppress

from flask_ailimit.testing import FakeProvider, Fault

with FakeProvider() as provider, suppress(KeyboardInterrupt):
    provider.at_random(1, 0.5, [Fault.throttled(retry_after=1), Fault.overloaded(), Fault.error(500), Fault.dropped()])
    print(f"export OPENAI_BASE_URL={provider.url} OPENAI_API_KEY=any", flush=True)
    print(f"export ANTHROPIC_BASE_URL={provider.anthropic_url} ANTHROPIC_API_KEY=any", flush=True)
    while True:
        time.sleep(1)
