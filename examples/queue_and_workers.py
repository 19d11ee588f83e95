"""A queue with workers: three processes take questions from a queue, and share the limits of one upstream.

Each worker opens the same store by its name, so none believes that it is alone: together they make ten calls a second,
and never more than two at once. Workers of Celery do the same. Run: python examples/queue_and_workers.py
"""

from multiprocessing import Process, Queue

from openai import APIError, OpenAI
from provider import KEY, MODEL, URL

from flask_ailimit import Upstream
from flask_ailimit.engine import Engine, open_store


def work(name, questions, answers):
    engine = Engine(open_store("local://", name="examples"))
    upstream = Upstream(engine, "queue", requests={"limit": "10 per second", "burst": 2}, concurrency=2)
    client = OpenAI(base_url=URL, api_key=KEY, http_client=upstream.http_client())
    for question in iter(questions.get, None):
        messages = [{"role": "user", "content": question}]
        try:
            answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=10)
            answers.put(f"{name}: {question} {answer.choices[0].message.content}")
        except APIError as error:  # else the worker would end, and its question would have no answer
            answers.put(f"{name}: {question} failed: {error}")


if __name__ == "__main__":
    questions, answers = Queue(), Queue()
    workers = [Process(target=work, args=(f"worker {number}", questions, answers)) for number in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for number in range(12):
        questions.put(f"Is {number} even?")
    for _ in range(12):
        print(answers.get())
    for _ in workers:
        questions.put(None)  # tells one of them that there is no more
    for worker in workers:
        worker.join()
