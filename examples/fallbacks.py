"""A fallback: what the large model can't take now, because of its limit or a fault, the small one answers at once.

The limits are known here, so nothing is sent in vain to a model that has no room. The answer says who gave it, and only
that one is charged. Run: python examples/fallbacks.py
"""

from openai import OpenAI
from provider import KEY, MODEL, SPARE_MODEL, SPARE_URL, URL

from flask_ailimit import Upstream
from flask_ailimit.engine import Engine, open_store

engine = Engine(open_store("local://", name="examples"))
small = Upstream(
    engine,
    "small",
    base_url=SPARE_URL,
    headers={"authorization": f"Bearer {KEY}"},
    models={MODEL: SPARE_MODEL},  # what the model is called there
)
large = Upstream(engine, "large", requests={"limit": "2 per minute", "burst": 2}, fallback=[small])
client = OpenAI(base_url=URL, api_key=KEY, http_client=large.http_client())

for question in ("Name a colour.", "Name a fruit.", "Name a river.", "Name a city."):
    messages = [{"role": "user", "content": question}]
    answer = client.chat.completions.with_raw_response.create(model=MODEL, messages=messages, max_tokens=10)
    print(f"{answer.headers['x-ailimit-upstream']}: {answer.parse().choices[0].message.content}")
