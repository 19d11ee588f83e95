"""Where the demo's tests knock, and with what."""

import threading
from contextlib import contextmanager

from werkzeug.serving import make_server

KEY = "key-for-tests"
OTHER_KEY = "key-of-somebody-else"

CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Three words please"}]}
BODIES = {
    "/predict": {"prompt": "Three words please"},
    "/v1/chat/completions": CHAT,
    "/v1/messages": {**CHAT, "max_tokens": 64},
}


@contextmanager
def serving(app):
    """The address of a real server, one thread a connection, for as long as the context lasts."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
