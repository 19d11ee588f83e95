"""A provider of batch tests: a real HTTP server on loopback, and an app with an upstream that leads there."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

APP = """
from flask import Flask
from flask_ailimit import AILimiter

app = Flask(__name__)
app.config["AILIMIT_PRICES"] = {{"small": {{"input": "1 USD", "output": "2 USD"}}}}
limiter = AILimiter(lambda: "a", app=app, storage_uri="memory://")
limiter.upstream(
    "openai-main", base_url={url!r}, headers={{"authorization": "Bearer sk-secret"}}, attempts=1, max_wait=60
)
"""


class Provider:
    """What came, and what is answered: ``answer(custom, body)`` gives a status and a JSON value, or raw bytes."""

    def __init__(self):
        self.calls = []
        self.headers = []
        self.paths = []
        self.answer = lambda content: (200, good(content))
        self.lock = threading.Lock()
        self.came = threading.Condition(self.lock)
        self.in_flight = self.most_in_flight = 0

    def contents(self):
        with self.lock:
            return [*self.calls]

    def wait_for(self, number):
        with self.came:
            assert self.came.wait_for(lambda: len(self.calls) >= number, 60)


def good(content):
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    return {"id": f"answer to {content}", "model": "small", "usage": usage}


@contextmanager
def serving():
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            content = body["messages"][0]["content"]
            with provider.came:
                provider.calls.append(content)
                provider.headers.append(dict(self.headers))
                provider.paths.append(self.path)
                provider.in_flight += 1
                provider.most_in_flight = max(provider.most_in_flight, provider.in_flight)
                provider.came.notify_all()
            try:
                status, answer = provider.answer(content)
            finally:
                with provider.lock:
                    provider.in_flight -= 1
            if status is None:
                self.close_connection = True
                return
            raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.send_header("x-request-id", f"req-{content}")
            self.end_headers()
            try:
                self.wfile.write(raw)
            except OSError:
                self.close_connection = True

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # A client that is killed in the middle is what the tests are about.
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    provider.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()


def request_line(number, **body):
    given = {"model": "small", "max_tokens": 20, "messages": [{"role": "user", "content": str(number)}]} | body
    line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": given}
    return json.dumps(line) + "\n"
