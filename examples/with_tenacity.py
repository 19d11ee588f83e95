"""Retry with tenacity, or with stamina: the SDK's own client stays, and only the decorator learns when a retry helps.

It waits as the provider asks, and gives up what no retry will change, such as a wrong key or spent money. tenacity's
retries also come from a budget that all processes share. Run: python examples/with_tenacity.py
"""

import stamina
from openai import OpenAI
from provider import KEY, MODEL, URL
from tenacity import retry, stop_after_attempt

from flask_ailimit.engine import Engine, open_store
from flask_ailimit.upstream.retry_budget import RetryBudget
from flask_ailimit.upstream.retrying import retry_if_worthwhile, stamina_hook, stop_after_budget, wait_as_told

client = OpenAI(base_url=URL, api_key=KEY, max_retries=0)  # else the SDK's retries multiply with these
engine = Engine(open_store("local://", name="examples"))
budget = RetryBudget(engine, engine.subject("with-tenacity"))


@retry(
    retry=retry_if_worthwhile(),
    wait=wait_as_told(),
    stop=stop_after_attempt(4) | stop_after_budget(budget),
    reraise=True,
)
def ask(question):
    messages = [{"role": "user", "content": question}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=20)
    return answer.choices[0].message.content


@stamina.retry(on=stamina_hook, attempts=4)
def greet():
    return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello."}], max_tokens=20)


print("tenacity:", ask("Name three colours."))
print("stamina:", greet().choices[0].message.content)
