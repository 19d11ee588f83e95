"""A cache: who asks the same again gets the same answer, without a call and without tokens.

Only calls that want the same answer each time are kept, so temperature=0 or a seed is needed. The answers lie encrypted
in a file of their own, where only the question itself opens them. Run: python examples/cached_answers.py
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from openai import OpenAI
from provider import KEY, MODEL, URL

from flask_ailimit import Upstream
from flask_ailimit.engine import Engine, open_store

with TemporaryDirectory() as directory:  # an app names a file that stays
    engine = Engine(open_store("local://", name="examples"))
    upstream = Upstream(engine, "cached", cache={"path": Path(directory) / "answers", "max_age": 3600})
    client = OpenAI(base_url=URL, api_key=KEY, http_client=upstream.http_client())
    for temperature in (0, 0, 1):
        begin = time.monotonic()
        answer = client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": "What is the capital of France? Answer with one word."}],
            max_tokens=20,
            temperature=temperature,
        )
        source = "cache" if answer.headers.get("x-ailimit-cache") == "hit" else "provider"
        print(f"{source}, {time.monotonic() - begin:.3f} s: {answer.parse().choices[0].message.content}")
