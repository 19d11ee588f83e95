"""Errors by kind: one word says what a provider's error means, and so what to do, whatever the status and the SDK.

A 429 may mean "in two seconds" or "never, your money is spent". The body tells, and this reads it. All calls below but
the first go wrong on purpose. Run: python examples/errors_by_kind.py
"""

from openai import APIError, OpenAI
from provider import KEY, MODEL, URL

from flask_ailimit import Upstream
from flask_ailimit.engine import Engine, open_store
from flask_ailimit.upstream.answers import Kind
from flask_ailimit.upstream.failures import answer_of_error

engine = Engine(open_store("local://", name="examples"))
upstream = Upstream(engine, "errors-by-kind", attempts=1, max_wait=0)


def ask(content="Name three colours.", key=KEY, model=MODEL):
    client = OpenAI(base_url=URL, api_key=key, http_client=upstream.http_client())
    try:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}], max_tokens=20)
    except APIError as error:
        met = answer_of_error(error)
        match met.kind:
            case Kind.THROTTLED | Kind.OVERLOADED:
                advice = f"try again in {met.retry_after or 1} s"
            case Kind.SPENT | Kind.CREDENTIAL:
                advice = "tell whoever has the account"
            case Kind.TOO_LONG | Kind.NEVER_FITS:
                advice = "send less"
            case Kind.UNSENT:
                advice = "the provider can't be reached"
            case Kind.UNCERTAIN:
                advice = "it may be done and billed; ask again if that does no harm"
            case _:
                advice = "change the request"
        return f"{met.kind}: {advice}"
    return "answered"


print("a good call:", ask())
print("a long prompt:", ask("tell me " * 1500))
print("an unknown model:", ask(model="no-such-model"))
print("a wrong key:", ask(key="a-wrong-key-for-all"))
