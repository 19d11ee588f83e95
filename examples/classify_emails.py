"""200 e-mails classified, with progress: five workers, no 429, and the answers in the order of the e-mails.

While it works, a call for which a person waits goes first. Say what your provider allows, as in
python examples/classify_emails.py "500 per minute". Without it, 100 a minute are sent, because the demo allows 120.
"""

import sys
from collections import Counter

from openai import OpenAI
from provider import KEY, MODEL, URL

from flask_ailimit import Upstream
from flask_ailimit.engine import Engine, open_store
from flask_ailimit.upstream.batch import Failed

subjects = ("Your invoice", "You have won a prize", "The meeting is moved", "Cheap watches")
emails = [f"{subject}, letter {number}" for number in range(50) for subject in subjects]

engine = Engine(open_store("local://", name="examples"))
upstream = Upstream(engine, "emails", requests=sys.argv[1] if sys.argv[1:] else "100 per minute", concurrency=5)
client = OpenAI(base_url=URL, api_key=KEY, http_client=upstream.http_client())


def classify(email):
    prompt = [{"role": "user", "content": f"Answer spam or fine: {email}"}]
    answer = client.chat.completions.create(model=MODEL, messages=prompt, max_tokens=5)
    return "spam" if "spam" in answer.choices[0].message.content.lower() else "fine"


answers = upstream.batch(classify, emails, workers=5, progress=True)
print(Counter("failed" if isinstance(answer, Failed) else answer for answer in answers))
