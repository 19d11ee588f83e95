"""Hold 20 conversations with the demo through the official OpenAI client, on the small key, from 4 threads.

    make demo 2> demo.log                         # in one terminal
    python bench/conversations.py demo.log        # in another

The small key has 10 requests and 3,000 tokens a minute and 2 calls in flight, so the client meets refusals all the
time, and waits as it is told. Every conversation must come to its end, and the tokens that the limiter settled (the
demo writes them to its log) must be those that the model reported. It takes about eight minutes.
"""

import re
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai

BASE_URL = "http://127.0.0.1:8000/v1"
KEY = "demo-small-key"
MAX_TOKENS = 48

CONVERSATIONS = [
    ["I want to bake bread. What do I need?", "I have no yeast. What can I use?", "How long must it rise?"],
    ["Explain what a rate limit is.", "Why do APIs have them?", "What should my program do when it meets one?"],
    ["What is the capital of Portugal?", "Which river is it on?", "Name a dish people eat there."],
    ["Write one line about the sea.", "Make it sadder.", "Now make it rhyme.", "Give it a title."],
    ["How do I boil an egg?", "And a soft one?", "What if I live in the mountains?"],
    ["My cat does not eat. What should I do?", "She drinks a lot.", "When do I call the vet?"],
    ["What does HTTP 429 mean?", "And 503?", "Which of them has a Retry-After header?"],
    ["Tell me a short story about a fox.", "What happens to the fox then?", "How does it end?"],
    ["Plan a day in Rome for me.", "I do not like museums.", "Where do I eat in the evening?"],
    ["What is photosynthesis?", "Explain it to a child.", "Why are leaves green?"],
    ["Wie sagt man 'good morning' auf Deutsch?", "Und auf Französisch?", "Und auf Spanisch?"],
    ["What is 12 times 12?", "Divide that by 9.", "Is the result a prime number?"],
    ["Give me three names for a dog.", "They must be short.", "Which one do you like best?"],
    ["How does a bicycle stay upright?", "Does it work on the moon?", "Why not?"],
    ["Summarise Hamlet in two sentences.", "Who is Ophelia?", "What becomes of her?"],
    ["I cannot sleep. Any advice?", "I drink coffee at six.", "What should I read before bed?"],
    ["What is a token in a language model?", "How many are in the word 'unbelievable'?", "Why does it matter?"],
    ["Recommend a plant for a dark room.", "How often do I water it?", "Is it safe for cats?"],
    ["Who wrote Don Quixote?", "When?", "What is it about?", "Why is it famous?"],
    ["How do I say no politely?", "To my boss?", "And if she insists?"],
]


class Counting(openai.DefaultHttpxClient):
    """The SDK's HTTP client, which also counts what the server answers, retries included."""

    def __init__(self) -> None:
        super().__init__(timeout=120)
        self.statuses: Counter[int] = Counter()
        self.lock = threading.Lock()

    def send(self, *args: Any, **kwargs: Any) -> Any:
        response = super().send(*args, **kwargs)
        with self.lock:
            self.statuses[response.status_code] += 1
        return response


def hold(client: openai.OpenAI, turns: list[str], *, stream: bool) -> list[int]:
    """Hold one conversation; answer the total tokens that the model reported for each turn."""
    messages, reported = [], []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        request = {"model": "smollm2-135m-instruct", "messages": messages, "max_tokens": MAX_TOKENS}
        if stream:
            text = ""
            chunks = client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
            for chunk in chunks:
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
                if chunk.usage:
                    reported.append(chunk.usage.total_tokens)
        else:
            answer = client.chat.completions.create(**request)
            text = answer.choices[0].message.content
            reported.append(answer.usage.total_tokens)
        messages.append({"role": "assistant", "content": text})
    return reported


def settled(log: str) -> list[int]:
    """The tokens of each request that the demo's log says were settled."""
    return [int(n) + int(m) for n, m in re.findall(r"settled .*?input=(\d+) output=(\d+)", log)]


def main(log: Path) -> int:
    """Hold them all and print the figures; answer 0 if they are right."""
    before = len(log.read_text())
    http = Counting()
    client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=10, http_client=http)
    started = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(hold, client, turns, stream=i % 2 == 1) for i, turns in enumerate(CONVERSATIONS)]
        reported = [tokens for future in futures for tokens in future.result()]
    took = time.monotonic() - started
    charged = settled(log.read_text()[before:])
    turns = sum(map(len, CONVERSATIONS))
    print(f"conversations complete: {len(CONVERSATIONS)} of {len(CONVERSATIONS)}, turns {len(reported)} of {turns}")
    print(f"answers by status: {dict(http.statuses)} in {took:.0f} s")
    print(f"tokens reported by the model: {sum(reported)}; tokens settled: {sum(charged)}")
    right = sorted(charged) == sorted(reported) and len(reported) == turns
    print("every request settled what the model reported" if right else "SETTLED AND REPORTED DIFFER")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
